"""What callers ask for when they plan."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from experiments.catalog.definitions import MAX_VARIANTS, Key, Keys
from experiments.errors import FieldError
from experiments.input.parsing import refuse

Looks = Literal["always", "once"]
_OF_A_DEFINITION = ("placement", "metric", "segments", "variants")
_Positive = Annotated[float, Field(gt=0, le=1e15)]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class BaselineIn(_Request):
    """What a unit answers without the experiment; without ``sd`` it is a rate between 0 and 1."""

    mean: Annotated[float, Field(ge=-1e15, le=1e15)]
    sd: _Positive | None = None

    @model_validator(mode="after")
    def _is_something(self) -> Self:
        if self.sd is None and not 0 < self.mean < 1:
            refuse([FieldError("/mean", f"a rate must be between 0 and 1, not {self.mean:g}; say sd if it is a mean")])
        if self.mean == 0:
            refuse([FieldError("/mean", "effects are relative to it, so it can't be 0")])
        return self


class PlanRequest(_Request):
    """What to plan: an ``experiment`` by its key; a ``metric`` of a ``placement``; or numbers alone (``baseline``).

    ``baseline`` and ``units_per_week`` (of each segment) replace what past tallies say. ``smallest_effect`` (relative)
    is the least worth having; ``looks``: at the always-valid interval at any time, as verdicts do, or once at the end,
    at all variants together. ``n_units`` (of each segment), else ``weeks``, is what ``within`` answers for.
    """

    experiment: Key | None = None
    placement: Key | None = None
    metric: Key | None = None
    segments: Annotated[Keys, Field(min_length=1)] | None = None
    variants: Annotated[int, Field(ge=2, le=MAX_VARIANTS)] | None = None
    baseline: BaselineIn | None = None
    units_per_week: _Positive | None = None
    smallest_effect: Annotated[float, Field(gt=0, le=10)] | None = None
    power: Annotated[float, Field(ge=0.5, le=0.999)] = 0.8
    level: Annotated[float, Field(ge=0.5, le=0.999_999)] | None = None
    looks: Looks = "always"
    weeks: Annotated[float, Field(gt=0, le=520)] = 4.0
    n_units: Annotated[int, Field(ge=1, le=10**15)] | None = None

    @model_validator(mode="after")
    def _says_what(self) -> Self:
        if self.experiment is not None:
            said = [name for name in _OF_A_DEFINITION if getattr(self, name) is not None]
            refuse([FieldError(f"/{name}", "the experiment says it already") for name in said])
        elif self.placement is not None:
            refuse([] if self.metric is not None else [FieldError("/metric", "must be said with a placement")])
        else:
            wrong = [FieldError(f"/{name}", "needs a placement") for name in ("metric", "segments") if _has(self, name)]
            if self.baseline is None:
                wrong.append(FieldError("", "name an experiment, or a placement and a metric, or say a baseline"))
            refuse(wrong)
        return self


def _has(request: PlanRequest, name: str) -> bool:
    return getattr(request, name) is not None
