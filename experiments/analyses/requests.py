"""What callers ask for when they want an analysis."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from experiments.catalog.definitions import Key
from experiments.promote.requests import Moment

SEEDS = 2**32


class AnalysisRequest(BaseModel):
    """What every kind takes: the metric (absent: the goal), units decided until when (absent: now), and the seed.

    An absent seed is drawn, and kept with the analysis.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    kind: str
    metric: Key | None = None
    as_of: Moment = None
    seed: Annotated[int, Field(ge=0, lt=SEEDS)] | None = None


class HierarchyRequest(AnalysisRequest):
    """Segments that learn from each other: partial pooling by Markov chains, with the exact likelihood of a rate.

    ``draws`` and ``tune`` are those of each of four chains. ``average_sd`` and ``tau_scale`` are the priors' scales: of
    average effects, and of how far segments' effects differ from them (log odds for a rate, else relative).
    """

    kind: Literal["hierarchy"]
    draws: Annotated[int, Field(ge=200, le=10_000)] = 2_000
    tune: Annotated[int, Field(ge=200, le=10_000)] = 1_000
    level: Annotated[float, Field(ge=0.5, le=0.999)] = 0.95
    average_sd: Annotated[float, Field(ge=0.01, le=10)] = 0.2
    tau_scale: Annotated[float, Field(ge=0.001, le=10)] = 0.1


class UpliftRequest(AnalysisRequest):
    """Whom a variant really moves, and whether targeting by it is worth it: a study on units' attributes.

    ``attributes``: only these (absent: all that decisions carry). ``learner``: s, t, x, r or dr. ``margin``: what one
    unit of the metric is worth; needed where variants cost money and the metric is none. ``budget_per_1000``: what
    1,000 decisions may themselves cost more than control's, at most. ``depth``: of the tree. ``rounds``: of boosting.
    """

    kind: Literal["uplift"]
    attributes: Annotated[tuple[Key, ...], Field(strict=False, min_length=1, max_length=200)] | None = None
    learner: Literal["s", "t", "x", "r", "dr"] = "x"
    margin: Annotated[float, Field(gt=0, le=1e12)] | None = None
    budget_per_1000: Annotated[float, Field(ge=0, le=1e12)] | None = None
    depth: Annotated[int, Field(ge=1, le=3)] = 2
    rounds: Annotated[int, Field(ge=5, le=1_000)] = 100
