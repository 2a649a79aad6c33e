"""How many units were decided and how many of them met their variant, as reviews read it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Table
from sqlmodel import Session

from experiments.corrections.hours import hours_left_out
from experiments.tables import TallyExposure
from experiments.tallies.rows import Chosen, added, groups, read_rows

Floats = NDArray[np.float64]
_table: Table = TallyExposure.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it


@dataclass(frozen=True, slots=True)
class Exposures:
    """Counts by stratum: units of one segment that were decided in one hour by the same weights.

    Attributes:
        event: That says that a unit met its variant.
        segment: Index of each stratum's segment, shape (n_strata,).
        n_decided: Units, shape (n_strata, n_variants).
        n_exposed: Those of them that met their variant since, the same shape.
    """

    event: str
    segment: NDArray[np.int64]
    n_decided: Floats
    n_exposed: Floats

    def with_all(self, values: Floats, *, n_segments: int) -> Floats:
        """Values by segment and (last) over all, shape (n_segments + 1, n_variants)."""
        sums = np.zeros((n_segments + 1, values.shape[1]))
        np.add.at(sums, self.segment, values)
        sums[-1] = values.sum(axis=0)
        return sums


def read_exposures(
    session: Session, series: int, *, event: str, segments: Sequence[str], variants: tuple[str, ...], before_hour: int
) -> Exposures:
    """Read them for segments and variants of a series, of units decided before an hour; not of hours corrected away."""
    chosen = Chosen(
        series=series,
        segments={key: i for i, key in enumerate(segments)},
        variants=variants,
        few=None,
        before_hour=before_hour,
        left_out=hours_left_out(session, [series]),
    )
    rows = read_rows(session, chosen, table=_table, columns=("n_decided", "n_exposed"))
    segment, version, variant, hour = rows.key
    order, starts = groups(np.stack([segment, version, hour]))
    values = np.zeros((2 * len(variants), segment.size))
    for i, column in enumerate(rows.values):
        values[i * len(variants) + variant, np.arange(segment.size)] = column
    sums = added(values, order=order, starts=starts)
    n = len(variants)
    return Exposures(event, segment[order[starts]], sums[:n].T, sums[n:].T)
