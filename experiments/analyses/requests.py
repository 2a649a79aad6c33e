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
    """Segments that learn from each other by partial pooling."""

    kind: Literal["hierarchy"]
