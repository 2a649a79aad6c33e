"""What callers ask for when they promote or roll back."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from experiments.catalog.definitions import Key
from experiments.errors import FieldError
from experiments.input.checks import json_errors, parse_datetime, shown
from experiments.input.parsing import refuse


def _moment(value: object) -> object:
    if value is None or isinstance(value, datetime):
        return value
    moment = parse_datetime(value) if isinstance(value, str) else None
    if moment is None:
        refuse([FieldError("", f"must be an ISO 8601 time, not {shown(value)}")])
    if isinstance(value, str) and datetime.fromisoformat(value).tzinfo is None:
        refuse([FieldError("", f"must say its time zone, as in 2026-01-31T00:00:00Z, not {shown(value)}")])
    return moment


def _reason(value: str) -> str:
    refuse(json_errors(value, max_depth=1, max_bytes=10_000) or _nothing_said(value))
    return value


def _nothing_said(value: str) -> list[FieldError]:
    return [] if value.strip() else [FieldError("", "must say why")]


Moment = Annotated[datetime | None, BeforeValidator(_moment)]
Reason = Annotated[str, Field(max_length=2_000), AfterValidator(_reason)]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class PromotionRequest(_Request):
    """Which winners are to be promoted (absent: all that are proven), the share that keeps exploring, and why.

    ``as_of`` reads the results of then; ``force`` promotes named variants whatever their verdict.
    """

    segments: Annotated[dict[str, str], Field(min_length=1)] | None = None
    explore: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    expires_at: Moment = None
    as_of: Moment = None
    reason: Reason
    force: bool = False

    @model_validator(mode="after")
    def _force_names_what(self) -> Self:
        if self.force and self.segments is None:
            refuse([FieldError("/force", "needs the segments and their variants to be named")])
        return self


class TargetingRequest(_Request):
    """Why the tree of a study is to be served, the share that keeps exploring, and the key of its leaves' segmentation.

    ``force`` promotes whatever the verdict.
    """

    segmentation: Key | None = None
    explore: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    expires_at: Moment = None
    reason: Reason
    force: bool = False


class RollbackRequest(_Request):
    """Which segments (absent: all) go back to which version of the policy, and why.

    Absent, ``to_version`` is the version before the promotion that stands: undoing again goes back further, to 0.
    """

    segments: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] | None = None
    to_version: Annotated[int, Field(ge=0)] | None = None
    reason: Reason
