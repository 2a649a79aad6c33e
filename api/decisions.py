"""The decision doors: which variant? For websites (POST) and for lists (batch)."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, Literal, Self

from flask import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from api.answers import Text, json_answer
from api.auth import check_public, is_from_page
from api.doors import Doors
from api.identity import asked_id
from api.lists import LIST_TYPES, decide_json, decide_list, sent_form, wanted_form
from api.metrics import count_decisions
from api.reading import read_body
from api.state import current_worker
from experiments.decide import Decided
from experiments.decisions.batch import MAX_ITEMS, Failed, decide_items
from experiments.decisions.choosing import Asked
from experiments.errors import FieldError
from experiments.input.checks import check_id, shown
from experiments.input.parsing import refuse

doors = Doors("decisions")

MAX_PLACEMENTS: Final = 20
_LONGEST_KEY: Final = 128
Variant = Annotated[str, Field(min_length=1, max_length=_LONGEST_KEY)]
_ANONYMOUS: Final = (
    "An id that this customer was known by before. Beside customer_id it joins the two: from then on they are one"
    " person, whose earliest decision stands. Alone it is who is asked for."
)
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
    customer_id: str | None = None
    anonymous_id: Annotated[str | None, Field(description=_ANONYMOUS)] = None
    occasion_id: str | None = None
    attributes: dict[str, Any] | None = None
    preview: Annotated[bool | Variant | None, BeforeValidator(_checked_preview), Field(description=_PREVIEW)] = None

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        if (self.placement is None) == (self.placements is None):
            refuse([FieldError("/placement", "either placement or placements must be said")])
        if self.customer_id is None and self.anonymous_id is None:
            refuse([FieldError("/customer_id", "customer_id or anonymous_id must be said")])
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


@doors.open("POST", "/v1/decisions", scope="decide", takes=DecisionIn, gives=Decided | Decisions, for_browsers=True)
def decide() -> Response:
    """Decide for one customer, durably, on one placement or (``placements``) on several."""
    body = read_body(DecisionIn)
    placements = (body.placements or []) if body.placement is None else [body.placement]
    decisions = current_worker().decider.decide(_ask(body, placements), placements)
    count_decisions(decisions)
    return json_answer(Decisions(decisions) if body.placement is None else decisions[0])


def _ask(body: DecisionIn, placements: list[str]) -> Asked:
    """Who is asked for. Two ids are one person from now on, durably, unless the rest is refused or a preview."""
    decider, customer_id = current_worker().decider, asked_id(body.customer_id, body.anonymous_id)
    check_public(body.attributes, preview=body.preview)
    if body.occasion_id is not None:
        check_id(body.occasion_id, "/occasion_id")
    ask = partial(
        decider.ask,
        customer_id,
        occasion_id=body.occasion_id,
        attributes=body.attributes,
        preview=body.preview or None,
        public_only=is_from_page(),
    )
    asked = ask()
    if body.customer_id is None or body.anonymous_id is None or body.preview:
        return asked
    for key in placements:
        decider.placement(key)
    decider.join(body.anonymous_id, customer_id)
    return ask()


class BatchQuery(BaseModel):
    """What is said of a list beside it: ``map.<field>=<column>``, and fields that are the same in all rows."""

    placement: str | None = None
    occasion_id: str | None = None
    format: Literal["json", "ndjson", "csv", "parquet"] | None = None


@doors.open(
    "POST",
    "/v1/decisions/batch",
    scope="decide",
    takes=BatchIn,
    takes_files=LIST_TYPES,
    query=BatchQuery,
    gives=BatchDecisions,
    gives_files=LIST_TYPES,
)
def decide_batch() -> Response:
    """Decide for a list of customers, durably; a bad row has its error in its place and harms no other.

    JSON holds at most 10,000 items. CSV, NDJSON and Parquet hold any number: the placement is said in the query, the
    answer has the list's columns and order, and ends with a summary.
    """
    form = sent_form()
    if form is not None:
        return decide_list(form)
    worker = current_worker()
    body = read_body(BatchIn, max_bytes=worker.config.max_batch_bytes)
    wanted = wanted_form("json")
    if wanted != "json":
        return decide_json(body.items, placement=body.placement, form=wanted)
    decisions = decide_items(worker.decider, body.items, placement=body.placement)
    count_decisions([one for one in decisions if isinstance(one, Decided)])
    return json_answer(BatchDecisions(decisions))
