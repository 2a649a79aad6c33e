"""What callers ask for when they correct, or take a correction back."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from experiments.errors import FieldError
from experiments.input.parsing import refuse
from experiments.promote.requests import Moment, Reason

_OUTCOMES = ("event", "occurred_from", "occurred_to")
_DECISIONS = ("decided_from", "decided_to")


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class CorrectionRequest(_Request):
    """Outcomes of an event that occurred in a time, or decisions of whole hours (UTC); ends are not included.

    ``exclude``: they count no more. ``keep_first``: of a customer's outcomes only the first counts. ``experiment``:
    only its decisions; else those of all experiments, policies and programmes. Where units count from their
    exposure, its hours are meant.
    """

    event: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    occurred_from: Moment = None
    occurred_to: Moment = None
    decided_from: Moment = None
    decided_to: Moment = None
    experiment: Annotated[str, Field(max_length=300)] | None = None
    action: Literal["exclude", "keep_first"]
    reason: Reason

    @property
    def is_of_outcomes(self) -> bool:
        """Whether outcomes are corrected; else decisions are."""
        return any(getattr(self, name) is not None for name in _OUTCOMES)

    @property
    def times(self) -> tuple[datetime, datetime]:
        """From when until when; both are said in every request that was let in."""
        since, until = (
            (self.occurred_from, self.occurred_to) if self.is_of_outcomes else (self.decided_from, self.decided_to)
        )
        if since is None or until is None:
            raise AssertionError
        return since, until

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        of_decisions = [name for name in _DECISIONS if getattr(self, name) is not None]
        if not self.is_of_outcomes and not of_decisions:
            refuse([FieldError("", f"must say {_listed(_OUTCOMES)}, or {_listed(_DECISIONS)}")])
        if self.is_of_outcomes and of_decisions:
            detail = "can't be said beside an event or when outcomes occurred: make two corrections"
            refuse([FieldError(f"/{name}", detail) for name in of_decisions])
        wanted = _OUTCOMES if self.is_of_outcomes else _DECISIONS
        refuse([FieldError(f"/{name}", f"{name} must be said") for name in wanted if getattr(self, name) is None])
        refuse(self._faults())
        return self

    def _faults(self) -> list[FieldError]:
        start, end = ("occurred_from", "occurred_to") if self.is_of_outcomes else _DECISIONS
        since, until = self.times
        faults = []
        if since >= until:
            faults.append(FieldError(f"/{end}", f"must be after {start}, {since.isoformat()}: {until.isoformat()}"))
        if self.is_of_outcomes and self.experiment is not None:
            faults.append(FieldError("/experiment", "can't be said: an outcome counts in all experiments or in none"))
        if self.is_of_outcomes:
            return faults
        if self.action == "keep_first":
            faults.append(FieldError("/action", "must be exclude for decisions, not keep_first"))
        for name in _DECISIONS:
            moment = getattr(self, name)
            if moment - moment.replace(minute=0, second=0, microsecond=0):
                faults.append(FieldError(f"/{name}", f"must be a whole hour (UTC), not {moment.isoformat()}"))
        return faults


class RevertRequest(_Request):
    """Why a correction is taken back."""

    reason: Reason


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
