"""The decision doors: which variant? For websites (POST) and for lists (batch)."""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

from flask import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from api.answers import Text, json_answer
from api.doors import Doors
from api.metrics import count_decisions
from api.reading import read_body
from api.state import current_worker
from experiments.decide import Decided
from experiments.decisions.batch import MAX_ITEMS, Failed, decide_items
from experiments.errors import FieldError
from experiments.input.checks import check_id, shown
from experiments.input.parsing import refuse

doors = Doors("decisions")

MAX_PLACEMENTS: Final = 20
_LONGEST_KEY: Final = 128
Variant = Annotated[str, Field(min_length=1, max_length=_LONGEST_KEY)]
_PREVIEW: Final = (
    "For QA; nothing is recorded or counted. true: what the customer would get now. A variant's key: that variant."
)


def _checked_preview(given: object) -> object:
    """Say all that is wrong in one sentence, where a union would say it for each of its types."""
    if isinstance(given, bool) or given is None or (isinstance(given, str) and 1 <= len(given) <= _LONGEST_KEY):
        return given
    refuse([FieldError("", f"must be true, false, or a variant's key, not {shown(given)}")])
    return given


class DecisionIn(BaseModel):
    """Who is to be decided for, and where: one ``placement``, or several ``placements`` at once."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    placement: Text | None = None
    placements: Annotated[list[Text], Field(min_length=1, max_length=MAX_PLACEMENTS)] | None = None
    customer_id: str
    occasion_id: str | None = None
    attributes: dict[str, Any] | None = None
    preview: Annotated[bool | Variant | None, BeforeValidator(_checked_preview), Field(description=_PREVIEW)] = None

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        if (self.placement is None) == (self.placements is None):
            refuse([FieldError("/placement", "either placement or placements must be said")])
        return self


class BatchIn(BaseModel):
    """Customers to decide for on one placement; each item has a customer_id, maybe an occasion_id and attributes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    placement: Text
    items: Annotated[list[Any], Field(max_length=MAX_ITEMS)]


@dataclass(frozen=True)
class Decisions:
    """Decisions in the order in which they were asked for."""

    decisions: list[Decided]


@dataclass(frozen=True)
class BatchDecisions:
    """As ``Decisions``; a bad item has its error in its place."""

    decisions: list[Decided | Failed]


@doors.open("POST", "/v1/decisions", scope="decide", takes=DecisionIn, gives=Decided | Decisions)
def decide() -> Response:
    """Decide for one customer, durably, on one placement or (``placements``) on several."""
    body = read_body(DecisionIn)
    check_id(body.customer_id, "/customer_id")
    if body.occasion_id is not None:
        check_id(body.occasion_id, "/occasion_id")
    decider = current_worker().decider
    asked = decider.ask(
        body.customer_id, occasion_id=body.occasion_id, attributes=body.attributes, preview=body.preview or None
    )
    if body.placement is not None:
        (decided,) = decider.decide(asked, [body.placement])
        count_decisions([decided])
        return json_answer(decided)
    decisions = decider.decide(asked, body.placements or [])
    count_decisions(decisions)
    return json_answer(Decisions(decisions))


@doors.open("POST", "/v1/decisions/batch", scope="decide", takes=BatchIn, gives=BatchDecisions)
def decide_batch() -> Response:
    """Decide for at most 10,000 customers, durably; a bad item has its error in its place and harms no other."""
    worker = current_worker()
    body = read_body(BatchIn, max_bytes=worker.config.max_batch_bytes)
    decisions = decide_items(worker.decider, body.items, placement=body.placement)
    count_decisions([one for one in decisions if isinstance(one, Decided)])
    return json_answer(BatchDecisions(decisions))
