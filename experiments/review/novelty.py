"""Does an effect last? The first week of an experiment against all that came later, on matured units."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from experiments.review.answer import number, pair
from experiments.review.estimates import ENOUGH_RESPONDERS, Estimates, estimate
from experiments.review.reading import Reading
from optimizer.effect_change import EffectChange, effect_change

WEEK_DAYS = 7


@dataclass(frozen=True, slots=True)
class Novelty:
    """Effects on the units of the first week, on later ones, and the change between them."""

    variants: Sequence[str]
    early: Estimates
    later: Estimates
    change: EffectChange

    @classmethod
    def of(cls, reading: Reading, *, first_day: int) -> Self:
        """Split the matured units after the first seven days (UTC), counted from ``first_day`` in all segments.

        Units that have not matured would make the later effect look small: they have had less time to respond.
        """
        matured = reading.matured_units
        is_early = matured.day < first_day + WEEK_DAYS
        early, later = (estimate(reading.measured(matured.chosen(rows))) for rows in (is_early, ~is_early))
        n = len(matured.segments)
        change = effect_change(
            early.difference[:n],
            later.difference[:n],
            early_variance=early.difference_variance[:n],
            later_variance=later.difference_variance[:n],
            mix=(early.n_units + later.n_units)[:n].sum(axis=1),
        )
        return cls(matured.variants, early, later, change)

    def shown(self, row: int) -> list[dict[str, Any]]:
        """The change of each variant's effect in one row: later minus first week, or why it is not estimable."""
        others = [index for index in range(len(self.variants)) if index != self.early.control]
        return [{"variant": self.variants[index], **self._change(row, index)} for index in others]

    def _change(self, row: int, index: int) -> dict[str, Any]:
        reason = self._reason(row, index)
        if reason is not None:
            return {"change": None, "interval": None, "covered": None, "reason": f"not estimable, because {reason}"}
        is_overall = row == len(self.change.estimate) - 1
        return {
            "change": number(self.change.estimate[row, index]),
            "interval": pair(self.change.low[row, index], self.change.high[row, index]),
            "covered": float(self.change.covered[index]) if is_overall else 1.0,
            "reason": None,
        }

    def _reason(self, row: int, index: int) -> str | None:
        for name, found in (("of the first week", self.early), ("after the first week", self.later)):
            if not found.n_units[row].any():
                return f"no unit {name} has matured yet"
            fewest = min(found.n_responders[row, index], found.n_responders[row, found.control])
            if fewest < ENOUGH_RESPONDERS:
                return f"a variant has {fewest:.0f} responders {name}, fewer than {ENOUGH_RESPONDERS}"
        if not np.isfinite(self.change.low[row, index]):
            return "the variant and the control were not randomised together in both periods"
        if self.change.high[row, index] <= self.change.low[row, index]:
            return "no outcome varies"
        return None
