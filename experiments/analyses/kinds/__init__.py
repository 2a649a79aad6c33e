"""The kinds of analyses that there are; what runs one is imported by the process that runs it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Protocol, cast

from sqlmodel import Session

from experiments.analyses.queue import Job
from experiments.analyses.requests import AnalysisRequest, HierarchyRequest, UpliftRequest

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """What an analysis comes to: ``result`` as JSON, and the file of a ``model`` if it leaves one."""

    result: Mapping[str, Any]
    model: bytes | None = None


class Method(Protocol):
    """What a kind's module must have."""

    def read(self, session: Session, job: Job, *, progress: Progress) -> Any:
        """Read all that is needed: nothing is read later. It says, too, how far it is."""

    def compute(self, data: Any, *, progress: Progress) -> Finding:
        """Turn what was read into a finding, saying now and then how far it is (0 to 1)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of analysis.

    Attributes:
        request: What callers say.
        module: Has its ``read`` and ``compute``.
        metrics: Kinds of metrics that it takes.
        least_segments: Of an experiment.
    """

    request: type[AnalysisRequest]
    module: str
    metrics: tuple[str, ...]
    least_segments: int = 1

    def method(self) -> Method:
        """Its module, imported now."""
        return cast("Method", import_module(self.module))


KINDS: Final[dict[str, Kind]] = {
    "hierarchy": Kind(
        HierarchyRequest,
        "experiments.analyses.kinds.hierarchy",
        metrics=("binary", "count", "mean", "ratio"),
        least_segments=2,
    ),
    "uplift": Kind(UpliftRequest, "experiments.analyses.kinds.uplift", metrics=("binary", "count", "mean")),
}
