"""From probabilities of being best to the weights that units are randomised with."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.errors import InvalidAllocation

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Method = Literal["thompson", "top_two", "fixed"]

# All floors together never take more than this share of the units.
LARGEST_FLOOR_SHARE = 0.05


def allocation_weights(
    probability_best: ArrayLike,
    *,
    method: Method,
    floor: float,
    control_index: int | None = None,
    control_share: float = 0.0,
    available: ArrayLike | None = None,
    fixed_weights: ArrayLike | None = None,
    top_two_coin: float = 0.5,
) -> Floats:
    """Share of units that each variant gets next.

    Thompson sampling chooses a variant as often as it is probably the best: w = P(best). Top-two gives the second
    choice a fair part too. An additive floor f keeps every available variant alive, p = f + (1 - K f) w, where K
    counts the available variants and f is at most 0.05 / K; last, control is lifted to its share and the others are
    scaled, none below its floor. The method "fixed" takes its weights as they are, without floor or control share.

    Args:
        probability_best: Among the available variants, shape (n_segments, n_variants) or (n_variants,). Values of
            variants that are not available are ignored and the others rescaled.
        method: How probabilities become weights.
        floor: Smallest share of each available variant, 0 <= floor < 1 / K.
        control_index: Column of the control; needed by a control share.
        control_share: Smallest share of the control, in [0, 1).
        available: False for retired variants, which get exactly 0; broadcasts; all by default.
        fixed_weights: For "fixed": weights >= 0, not all 0; broadcasts.
        top_two_coin: Probability that top-two keeps its first choice, in [0, 1].
    Returns:
        Weights of the shape of probability_best; each segment's sum to 1.
    Raises:
        InvalidAllocation: An argument out of its range, or no variant available.
    Source: Russo (2016), "Simple Bayesian Algorithms for Best-Arm Identification", section 3 (top-two Thompson).

    >>> allocation_weights([0.2, 0.8], method="thompson", floor=0.01)
    array([0.206, 0.794])
    """
    shares = _finite(probability_best, "probability_best")
    rows = shares.reshape(-1, shares.shape[-1])
    open_ = _available(available, rows.shape)
    if method == "fixed":
        weights = _fixed(fixed_weights, open_)
    else:
        weights = _normalised(np.where(open_, rows, 0.0), "probability_best")
        if method == "top_two":
            weights = _top_two(weights, open_, coin=_in_unit_interval(top_two_coin, "top_two_coin"))
        floors = _floors(floor, open_)
        weights = floors + (1.0 - floors.sum(axis=1, keepdims=True)) * weights
        if control_share > 0.0:
            control = _control(control_index, open_)
            weights = _with_control_share(weights, floors, control=control, share=control_share)
    return _normalised(weights, "weights").reshape(shares.shape)


def burn_in_complete(n_units: ArrayLike, *, burn_in: float, available: ArrayLike | None = None) -> bool:
    """Whether every available variant has met its burn-in, counted over all segments together.

    Counted per segment, a segment of fewer units than the burn-in would never learn.

    Args:
        n_units: Units so far, shape (n_segments, n_variants) or (n_variants,).
        burn_in: Units that each variant needs.
        available: False for retired variants, which do not hold the others up; shape (n_variants,).
    Raises:
        InvalidAllocation: Units that are negative or not finite.

    >>> burn_in_complete([[60, 90], [50, 10]], burn_in=100)
    True
    """
    units = _finite(n_units, "n_units")
    enough = units.reshape(-1, units.shape[-1]).sum(axis=0) >= burn_in
    retired = np.zeros(enough.shape, dtype=np.bool_) if available is None else ~np.asarray(available, dtype=np.bool_)
    return bool((enough | retired).all())


def _top_two(first: Floats, available: Mask, *, coin: float) -> Floats:
    """psi_k = coin phi_k + (1 - coin) sum_j phi_j P(the next best is k, given that j is best)."""
    n_variants = first.shape[1]
    others = ~np.eye(n_variants, dtype=np.bool_)
    # rest[s, j] is 1 - phi_j, summed from the others so that no digits are lost when phi_j is nearly 1.
    rest = np.where(others, first[:, None, :], 0.0).sum(axis=2)
    challengers = np.where(others & available[:, None, :], 1.0, 0.0)
    n_challengers = challengers.sum(axis=2, keepdims=True)
    evenly = np.divide(challengers, n_challengers, out=np.zeros(challengers.shape), where=n_challengers > 0.0)
    decided = np.broadcast_to(rest[:, :, None] > 0.0, challengers.shape)
    ratio = np.divide(first[:, None, :] * others, rest[:, :, None], out=evenly, where=decided)
    weights = coin * first + (1.0 - coin) * np.einsum("sj,sjk->sk", first, ratio)
    # A variant that is alone in its segment has no challenger.
    return np.where(available.sum(axis=1, keepdims=True) == 1, first, weights)


def _floors(floor: float, available: Mask) -> Floats:
    n_available = available.sum(axis=1, keepdims=True)
    if not (np.isfinite(floor) and floor >= 0.0 and (floor * n_available < 1.0).all()):
        raise InvalidAllocation("floor", f"is {floor}, outside [0, 1 / {n_available.max()})")
    floors: Floats = np.where(available, np.minimum(floor, LARGEST_FLOOR_SHARE / n_available), 0.0)
    return floors


def _with_control_share(weights: Floats, floors: Floats, *, control: int, share: float) -> Floats:
    is_control = np.arange(weights.shape[1]) == control
    rest_floors = np.where(is_control, 0.0, floors)
    if not (0.0 <= share < 1.0) or (share + rest_floors.sum(axis=1) > 1.0).any():
        raise InvalidAllocation("control_share", f"is {share}, which leaves the other variants less than their floors")
    share_of_control = np.maximum(share, weights[:, control])
    rest = np.where(is_control, 0.0, weights)
    at_floor = np.zeros(weights.shape, dtype=np.bool_)
    for _ in range(weights.shape[1]):
        at_floor |= (rest < rest_floors) & ~is_control
        left = 1.0 - share_of_control - np.where(at_floor, rest_floors, 0.0).sum(axis=1)
        free = np.where(at_floor, 0.0, rest)
        total = free.sum(axis=1)
        scale = np.divide(left, total, out=np.zeros(total.shape), where=total > 0.0)
        rest = np.where(at_floor, rest_floors, free * scale[:, None])
    return np.where(is_control, share_of_control[:, None], rest)


def _fixed(fixed_weights: ArrayLike | None, available: Mask) -> Floats:
    if fixed_weights is None:
        raise InvalidAllocation("fixed_weights", "is missing")
    weights = np.broadcast_to(_finite(fixed_weights, "fixed_weights"), available.shape)
    return _normalised(np.where(available, weights, 0.0), "fixed_weights")


def _available(available: ArrayLike | None, shape: tuple[int, ...]) -> Mask:
    mask = np.broadcast_to(np.asarray(True if available is None else available, dtype=np.bool_), shape)
    if not mask.any(axis=1).all():
        raise InvalidAllocation("available", "holds a segment without any variant")
    return mask


def _control(control_index: int | None, available: Mask) -> int:
    if control_index is None or not 0 <= control_index < available.shape[1]:
        raise InvalidAllocation("control_index", f"is {control_index}, outside the {available.shape[1]} variants")
    if not available[:, control_index].all():
        raise InvalidAllocation("control_index", f"is {control_index}, a variant that is not available")
    return control_index


def _in_unit_interval(value: float, name: str) -> float:
    if not 0.0 <= value <= 1.0:
        raise InvalidAllocation(name, f"is {value}, outside [0, 1]")
    return value


def _normalised(weights: Floats, name: str) -> Floats:
    total = weights.sum(axis=1, keepdims=True)
    if (total <= 0.0).any():
        raise InvalidAllocation(name, "is 0 for every available variant of a segment")
    normalised: Floats = weights / total
    return normalised


def _finite(values: ArrayLike, name: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if not (np.isfinite(array).all() and (array >= 0.0).all()):
        raise InvalidAllocation(name, "is not finite and >= 0 everywhere")
    return array
