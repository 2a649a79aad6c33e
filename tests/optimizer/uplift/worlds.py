"""Worlds whose effects are known: two variants and control, attributes with missing values and categories."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.uplift.study import Units

Floats = NDArray[np.float64]
CATEGORY = 3  # the column that holds codes


@dataclass(frozen=True)
class World:
    """Units, and the true uplift of each variant (of control 0), shape (n_units, 3), in outcome units."""

    units: Units
    uplift: Floats


def world(
    rng: np.random.Generator, *, n: int = 4_000, strength: float = 0.15, is_bandit: bool = False, money: float = 1.0
) -> World:
    """The first attribute's sign says who gains by variant 1 and who by variant 2; each gains ``strength`` or loses it.

    A bandit's propensities change with each tenth of time and differ between two segments.
    """
    x = rng.normal(size=(n, 3))
    x[rng.random((n, 3)) < 0.05] = np.nan
    category = rng.integers(0, 4, n)
    side = np.sign(np.nan_to_num(x[:, 0]))
    uplift = np.column_stack([np.zeros(n), strength * side, -strength * side])
    segment = rng.integers(0, 2, n)
    block = np.arange(n) * 10 // n
    propensities = _bandit(block, segment) if is_bandit else np.full((n, 3), 1.0 / 3.0)
    variant = (rng.random(n)[:, np.newaxis] > np.cumsum(propensities, axis=1)).sum(axis=1).clip(0, 2)
    chance = 0.3 + 0.03 * category + 0.03 * np.tanh(np.nan_to_num(x[:, 1])) + uplift[np.arange(n), variant]
    outcome = (rng.random(n) < chance).astype(np.float64)
    units = Units(
        x=np.column_stack([x, category.astype(np.float64)]),
        outcome=outcome,
        worth=money * outcome,
        variant=variant.astype(np.intp),
        customer=np.arange(n),
        segment=segment.astype(np.intp),
        block=block.astype(np.intp),
        propensities=propensities,
    )
    return World(units, uplift)


def _bandit(block: NDArray[np.intp], segment: NDArray[np.intp]) -> Floats:
    control = np.full(block.size, 0.2)
    first = np.where((block + segment) % 2 == 0, 0.1 + 0.06 * (block / 9.0), 0.7 - 0.1 * (block / 9.0))
    return np.column_stack([control, first, 1.0 - control - first])
