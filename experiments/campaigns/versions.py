"""Allocation versions of a past campaign: which weights each row was randomised with."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from experiments.campaigns.log import Campaign, Floats, Indices
from experiments.errors import UnreadableCampaign

MAX_VERSIONS: Final = 1_000
TOLERANCE: Final = 0.01  # propensities are often given to two or three digits
_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class Versions:
    """The weights behind a log.

    Attributes:
        of_row: Version of each row within its segment, from 1, shape (n_rows,).
        weights: For each segment the weights of its versions, shape (n_versions, n_variants), rows summing to 1.
    """

    of_row: Indices
    weights: tuple[Floats, ...]


def versions_of(campaign: Campaign) -> Versions:
    """Sort the rows of each segment by the weights that they were randomised with.

    Without given propensities a segment has one version, its weights those that were meant. With them, two variants say
    the weights in each row; of more, rows in order of time (else of the file) share a version until one contradicts it.

    Raises:
        UnreadableCampaign: The propensities of a version do not add up to 1, or there are too many versions.
    """
    of_row = np.ones(campaign.n_rows, dtype=np.intp)
    if campaign.shares is not None:
        return Versions(of_row, tuple(row[np.newaxis] for row in campaign.shares.meant))
    order = _in_time(campaign)
    weights = []
    for segment, key in enumerate(campaign.segments.keys):
        rows = order[campaign.segments.index[order] == segment]
        versions, vectors = _vectors(campaign, rows)
        if len(vectors) > MAX_VERSIONS:
            raise UnreadableCampaign(
                f"segment {key!r} has more than {MAX_VERSIONS:,} different propensities: a campaign whose weights were"
                " each customer's own can't be told as allocations"
            )
        of_row[rows] = versions + 1
        weights.append(np.array([_completed(vector, segment=key, row=first) for first, vector in vectors]))
    return Versions(of_row, tuple(weights))


def _in_time(campaign: Campaign) -> Indices:
    if campaign.decided_at is None:
        return np.arange(campaign.n_rows)
    return np.argsort(np.array([moment.timestamp() for moment in campaign.decided_at]), kind="stable")


def _vectors(campaign: Campaign, rows: Indices) -> tuple[Indices, list[tuple[int, Floats]]]:
    """For each row the place of its weights in a list of (a row that has them, weights; NaN where no row says)."""
    variant, propensity = campaign.variants.index[rows], campaign.propensity[rows].round(_DIGITS)
    if len(campaign.variants.keys) == 2:
        of_control = np.where(variant == 0, propensity, 1.0 - propensity).round(_DIGITS)
        shares, first, versions = np.unique(of_control, return_index=True, return_inverse=True)
        return versions, [(int(rows[i]), np.array([p, 1.0 - p])) for p, i in zip(shares, first, strict=True)]
    vectors: list[tuple[int, Floats]] = []
    versions = np.empty(rows.size, dtype=np.intp)
    for i, starts_version in enumerate(_starts(variant, propensity)):
        if starts_version:
            vectors.append((int(rows[i]), np.full(len(campaign.variants.keys), np.nan)))
        vectors[-1][1][variant[i]] = propensity[i]
        versions[i] = len(vectors) - 1
    return versions, vectors


def _starts(variant: Indices, propensity: Floats) -> Iterator[bool]:
    """Whether each row contradicts those since the last contradiction."""
    known: dict[int, float] = {}
    for k, p in zip(variant.tolist(), propensity.tolist(), strict=True):
        contradicts = known.get(k, p) != p
        yield contradicts or not known
        if contradicts:
            known.clear()
        known[k] = p


def _completed(vector: Floats, *, segment: str, row: int) -> Floats:
    """Weights that sum to 1; what is left goes to the one variant that no row has."""
    missing, rest = np.isnan(vector), 1.0 - float(np.nansum(vector))
    if abs(rest) > TOLERANCE and not (missing.sum() == 1 and rest > 0.0):
        total = f"{1.0 - rest:.6g}" + (f" without {missing.sum()} variants that no row has" if missing.any() else "")
        raise UnreadableCampaign(
            f"row {row + 1:,}: the propensities of segment {segment!r} from here on add up to {total}, not 1"
        )
    filled = np.where(missing, max(rest, 0.0) if missing.sum() == 1 else 0.0, vector)
    weights: Floats = filled / filled.sum()
    return weights
