"""The simulated shop: its definitions as JSON, its customers, and the truth that the service has to find out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PLACEMENT: Final = "newsletter-subject"
EXPERIMENT: Final = "subject-lines"
METRIC: Final = "open"
SEGMENTS: Final = ("new", "lapsed", "loyal")
SEGMENT_SHARES: Final = (0.40, 0.25, 0.35)
VARIANTS: Final = ("plain", "gift", "early-access", "we-miss-you")  # the first is the control
# Probability that a customer opens the message: rows are segments, columns variants.
TRUE_RATES: Final[Floats] = np.array(
    [
        [0.24, 0.40, 0.29, 0.22],
        [0.18, 0.23, 0.20, 0.34],
        [0.32, 0.34, 0.50, 0.27],
    ]
)
_SUBJECTS: Final = ("Our news", "A gift for you inside", "Yours a day before everyone", "We miss you")
_LAPSED_DAYS: Final = 180
GATES: Final = {"min_days": 0.0}
WINDOW_SECONDS: Final = 20  # a customer of the demo opens at once, or never

DEFINITIONS: Final[dict[str, dict[str, Any]]] = {
    "/v1/attributes/orders": {"type": "number"},
    "/v1/attributes/days_since_order": {"type": "number"},
    "/v1/segmentations/lifecycle": {
        "segments": [
            {"key": "new", "rule": {"attribute": "orders", "eq": 0}},
            {"key": "lapsed", "rule": {"attribute": "days_since_order", "gt": _LAPSED_DAYS}},
        ],
        "otherwise": "loyal",
    },
    f"/v1/placements/{PLACEMENT}": {
        "channel": "email",
        "segmentation": "lifecycle",
        "format": "text",
        "holdout": {"share": 0.0},
        "default": {"key": "plain", "content": {"text": _SUBJECTS[0]}},
    },
    f"/v1/metrics/{METRIC}": {
        "event": METRIC,
        "kind": "binary",
        "window_hours": WINDOW_SECONDS / 3600,
        "grace_hours": 0.0,
    },
    f"/v1/experiments/{EXPERIMENT}": {
        "placement": PLACEMENT,
        "goal": METRIC,
        "control_share": 0.1,
        "gates": GATES,
        "variants": [
            {"key": key, "content": {"text": subject}, "is_control": i == 0}
            for i, (key, subject) in enumerate(zip(VARIANTS, _SUBJECTS, strict=True))
        ],
    },
}


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer as the shop knows them, and what only the simulation knows: segment and how easily they open."""

    id: str
    attributes: dict[str, Any]
    segment: int
    threshold: float

    def opens(self, variant: str) -> bool:
        """Whether this customer opens a message with that subject."""
        return self.threshold < float(TRUE_RATES[self.segment, VARIANTS.index(variant)])


def customers(n: int, *, rng: np.random.Generator) -> list[Customer]:
    """Draw customers; the same seed gives the same ones."""
    segments = rng.choice(len(SEGMENTS), size=n, p=SEGMENT_SHARES)
    days = rng.integers(1, _LAPSED_DAYS, size=n)
    thresholds = rng.random(n)
    return [
        Customer(f"customer-{i:05d}", _attributes(int(segment), int(day)), int(segment), float(threshold))
        for i, (segment, day, threshold) in enumerate(zip(segments, days, thresholds, strict=True), start=1)
    ]


def _attributes(segment: int, day: int) -> dict[str, Any]:
    if SEGMENTS[segment] == "new":
        return {"orders": 0}
    return {"orders": 3, "days_since_order": day + (_LAPSED_DAYS if SEGMENTS[segment] == "lapsed" else 0)}


@dataclass(frozen=True, slots=True)
class Earned:
    """Expected opens of all customers, from the true rates: as decided, by equal shares, and by the best of each."""

    bandit: float
    equal_split: float
    oracle: float


def earned(n_decided: Floats) -> Earned:
    """What the decisions were worth.

    Args:
        n_decided: Customers by segment and variant, shape (n_segments, n_variants).
    """
    n_customers = n_decided.sum(axis=1)
    return Earned(
        bandit=float((n_decided * TRUE_RATES).sum()),
        equal_split=float((n_customers * TRUE_RATES.mean(axis=1)).sum()),
        oracle=float((n_customers * TRUE_RATES.max(axis=1)).sum()),
    )


def count(segments: Sequence[int], variants: Sequence[str]) -> Floats:
    """Customers by segment and variant, shape (n_segments, n_variants)."""
    counted = np.zeros(TRUE_RATES.shape)
    np.add.at(counted, (list(segments), [VARIANTS.index(variant) for variant in variants]), 1.0)
    return counted
