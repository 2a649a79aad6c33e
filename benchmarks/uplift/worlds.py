"""Worlds whose true effect is known, and Hillstrom's campaign, whose is not."""

import csv
import gzip
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_BESIDE: Final = Path(__file__).parents[3] / "shared" / "data"
DATA: Final = Path(os.environ.get("OPTIMIZER_TEST_DATA", _BESIDE)) / "hillstrom.csv.gz"
_NUMBERS: Final = ("recency", "history", "mens", "womens", "newbie")
_TEXTS: Final = ("zip_code", "channel")
MAILS: Final = ("No E-Mail", "Mens E-Mail", "Womens E-Mail")


@dataclass(frozen=True)
class World:
    """Units of one variant and control, all arrays of shape (n_units, …); ``effect`` is the truth."""

    x: Floats
    y: Floats
    treated: Flags
    propensity: Floats
    effect: Floats


def world(kind: str, *, seed: int, n: int = 6_000) -> World:
    """Six attributes and a segment; effects with mean .073 and standard deviation .14; outcomes of 0 and 1.

    Args:
        kind: "mostly linear", "by parts" (two attributes that only matter together), or "unequal propensities".
        seed: Of all of it.
        n: How many units.
    """
    rng = np.random.default_rng(seed)
    x, segment = rng.normal(size=(n, 6)), rng.integers(0, 4, n).astype(np.float64)
    if kind == "by parts":
        raw = np.where((x[:, 0] > 0.0) == (x[:, 1] > 0.0), 1.0, -1.0) + 0.5 * (segment == 2.0)
    else:
        raw = 0.09 * x[:, 0] + 0.06 * x[:, 1] + 0.05 * np.maximum(x[:, 2], 0.0) + 0.04 * (segment - 1.5)
    effect = 0.073 + 0.14 * (raw - raw.mean()) / raw.std()
    base = np.clip(0.35 + 0.08 * x[:, 3] + 0.05 * np.sin(2.0 * x[:, 4]), 0.02, 0.98)
    propensity = np.where(segment < 2.0, 0.8, 0.25) if kind == "unequal propensities" else np.full(n, 0.5)
    treated = rng.random(n) < propensity
    y = (rng.random(n) < np.clip(base + effect * treated, 0.0, 1.0)).astype(np.float64)
    return World(np.column_stack([x, segment]), y, treated, propensity, effect)


@dataclass(frozen=True)
class Campaign:
    """Attributes (texts as codes), the index of each customer's mail, and both outcomes."""

    x: Floats
    mail: NDArray[np.intp]
    visit: Floats
    spend: Floats


def hillstrom() -> Campaign | None:
    """The campaign, where its file is: public data is no part of this repository."""
    if not DATA.exists():
        return None
    with gzip.open(DATA, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = [[float(row[name]) for row in rows] for name in _NUMBERS]
    codes = {name: sorted({row[name] for row in rows}) for name in _TEXTS}
    texts = [[float(codes[name].index(row[name])) for row in rows] for name in _TEXTS]
    return Campaign(
        x=np.array([*numbers, *texts]).T,
        mail=np.array([MAILS.index(row["segment"]) for row in rows], dtype=np.intp),
        visit=np.array([float(row["visit"]) for row in rows]),
        spend=np.array([float(row["spend"]) for row in rows]),
    )
