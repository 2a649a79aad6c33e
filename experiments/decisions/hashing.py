"""One keyed hash decides: it names the decision and picks the variant, so that a choice can be recomputed and audited.

Hash version 1: BLAKE2b, key = workspace secret + series number (4 bytes, big-endian), message = the unit's parts, each
led by its length (4 bytes, big-endian), digest of 20 bytes: 12 for the decision's id, 8 for a uniform number. The
allocation version is not hashed: when weights move by a point, one unit in a hundred would be chosen differently.
Golden vectors pin all of it.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from typing import Self

PERIOD_SECONDS = 30 * 86_400
_DENOMINATOR = float(1 << 53)


class UnitHash:
    """The hash of one series, keyed once."""

    __slots__ = ("_keyed", "_prefix")

    def __init__(self, secret: bytes, series: int) -> None:
        self._prefix = series.to_bytes(4, "big")
        self._keyed = blake2b(key=secret + self._prefix, digest_size=20)

    def __call__(self, *parts: str) -> tuple[bytes, float]:
        """The decision id (16 bytes) and a uniform number in [0, 1) of a unit, given as its parts."""
        hasher = self._keyed.copy()
        for part in parts:
            encoded = part.encode()
            hasher.update(len(encoded).to_bytes(4, "big") + encoded)
        digest = hasher.digest()
        return self._prefix + digest[:12], (int.from_bytes(digest[12:], "big") >> 11) / _DENOMINATOR


class ShareHash:
    """A unit's place in [0, 1) for the test share of a send plan, keyed once: it is in the test where below the share.

    Keyed and fed as hash version 1, but personalised, so that it says nothing of the unit's variant.
    """

    __slots__ = ("_keyed",)

    def __init__(self, secret: bytes, series: int) -> None:
        self._keyed = blake2b(key=secret + series.to_bytes(4, "big"), person=b"send plan test", digest_size=8)

    def __call__(self, *parts: str) -> float:
        """The place of a unit, given as its parts."""
        hasher = self._keyed.copy()
        for part in parts:
            encoded = part.encode()
            hasher.update(len(encoded).to_bytes(4, "big") + encoded)
        return (int.from_bytes(hasher.digest(), "big") >> 11) / _DENOMINATOR


def holdout_uniform(secret: bytes, customer_id: str) -> float:
    """A customer's place in [0, 1) for every holdout of the workspace: held out where it is below the share."""
    encoded = customer_id.encode()
    digest = blake2b(len(encoded).to_bytes(4, "big") + encoded, key=secret, digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / _DENOMINATOR


def period_of(epoch_seconds: float) -> int:
    """Which 30-day period a moment lies in, counted from 1970."""
    return int(epoch_seconds // PERIOD_SECONDS)


def series_of(decision_id: bytes) -> int:
    """The number of the series that made a decision."""
    return int.from_bytes(decision_id[:4], "big")


def series_range(series: int) -> tuple[bytes, bytes]:
    """The lowest and the highest decision id of a series, both inclusive."""
    prefix = series.to_bytes(4, "big")
    return prefix + bytes(12), prefix + b"\xff" * 12


@dataclass(frozen=True, slots=True)
class Wheel:
    """Weights laid out for picking by a uniform number; the last variant that has any takes the rest."""

    variants: tuple[str, ...]
    propensities: tuple[float, ...]
    bounds: tuple[float, ...]

    @classmethod
    def of(cls, weights: Mapping[str, float]) -> Self:
        """Lay out weights (summing to 1) in their order."""
        kept = {variant: weight for variant, weight in weights.items() if weight > 0}
        return cls(tuple(kept), tuple(kept.values()), tuple(accumulate(kept.values()))[:-1])

    def pick(self, uniform: float) -> tuple[str, float]:
        """The variant at a number in [0, 1), and its propensity."""
        index = bisect_right(self.bounds, uniform)
        return self.variants[index], self.propensities[index]
