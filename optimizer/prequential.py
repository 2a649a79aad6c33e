"""Whether choices made on earlier days are borne out on later ones: personalised against one for all."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.errors import InvalidArgument, InvalidCounts
from optimizer.hierarchy import segment_effects
from optimizer.relative_means import relative_means
from optimizer.standardise import block_differences, block_means

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST_UNITS = 20  # on either side of the comparison; fewer give no standard error to speak of


@dataclass(frozen=True, slots=True)
class PrequentialValue:
    """What the segments' own choices of earlier days added to the one for all on later days, per unit of those days.

    Attributes:
        estimable: Whether there is a value.
        reason: Why not; empty if there is one.
        value: In outcome units, positive is better; NaN where not estimable, as the following.
        standard_error: Of the value, from the martingale of later days given earlier ones.
        relative: Value as a share of control's mean on those days, NaN also where that isn't positive.
        n_units: Units of the days that were evaluated.
        covered: Share of these in strata in which both choices had a chance.
        n_periods: Times that choices were made and evaluated.
    """

    estimable: bool
    reason: str
    value: float
    standard_error: float
    relative: float
    n_units: float
    covered: float
    n_periods: int


@dataclass(frozen=True, slots=True)
class DayStrata:
    """Sums by stratum: units of one segment and day that were given variants by the same weights.

    Attributes:
        segment: Index of the stratum's segment, shape (n_strata,).
        day: Its day, any ascending numbers, shape (n_strata,).
        n_units: Units, shape (n_strata, n_variants), as all that follow.
        total: Sum of their outcomes.
        sum_squares: Sum of the squares of their outcomes.
        propensity: The weights; rows sum to 1.
        n_segments: How many segments there are.
    Raises:
        InvalidArgument: Shapes differ, a segment out of range, or propensities that aren't.
        InvalidCounts: Not finite, or negative units.
    """

    segment: Ints
    day: Ints
    n_units: Floats
    total: Floats
    sum_squares: Floats
    propensity: Floats
    n_segments: int

    def __post_init__(self) -> None:
        shape = self.n_units.shape
        arrays = self.total, self.sum_squares, self.propensity
        if len(shape) != 2 or any(values.shape != shape for values in arrays):
            raise InvalidArgument("n_units", f"shape {shape} does not fit the other sums")
        if self.segment.shape != shape[:1] or self.day.shape != shape[:1]:
            raise InvalidArgument("segment", f"shapes {self.segment.shape} and {self.day.shape} are not ({shape[0]},)")
        if shape[0] and not (self.segment.min() >= 0 and self.segment.max() < self.n_segments):
            raise InvalidArgument("segment", f"one is not among {self.n_segments} segments")
        if not ((self.propensity >= 0.0).all() and (np.abs(self.propensity.sum(axis=1) - 1.0) < 1e-6).all()):
            raise InvalidArgument("propensity", "one is negative, or those of a stratum don't sum to 1")
        if not (np.isfinite([self.n_units, *arrays]).all() and (self.n_units >= 0.0).all()):
            raise InvalidCounts("n_units, total or sum_squares", "is not finite, or units are negative")

    def padded(self, values: Floats, *, rows: Ints) -> Floats:
        """Values of some strata as (n_segments, most strata of a segment, n_variants), filled up with zeros."""
        order = rows[np.argsort(self.segment[rows], kind="stable")]
        segment = self.segment[order]
        first = np.searchsorted(segment, np.arange(self.n_segments + 1))
        longest = max(int(np.diff(first).max(initial=1)), 1)
        out = np.zeros((self.n_segments, longest, values.shape[1]))
        out[segment, np.arange(segment.size) - first[segment]] = values[order]
        return out


@dataclass(frozen=True, slots=True)
class _Choice:
    """Made on earlier days: a variant by segment, the one for all, and the mean outcome to expect."""

    own: NDArray[np.intp]
    one: int
    expected: Floats


def prequential_value(
    strata: DayStrata,
    *,
    control_index: int,
    available: ArrayLike = True,
    higher_is_better: bool = True,
    average_sd: float = 0.2,
    tau_scale: float = 0.1,
    most_periods: int = 8,
) -> PrequentialValue:
    """Let the days before choose, by the same shrunk model, and the days after judge, by propensities.

    Days are put into at most `most_periods` + 1 runs of equal length. Before each run but the first, the segments' own
    choices and the one for all are fixed from all earlier runs. In the run, a unit given the segment's choice counts
    (outcome - expected) / propensity, one given the one for all minus that, any other 0, where `expected` is the
    segment's mean outcome on earlier days: this is unbiased whatever the weights did. Given the past, units are
    independent; so the terms are a martingale, and their variances within strata add up.

    Args:
        strata: Matured sums by stratum.
        control_index: Which variant is the control.
        available: Variants that can be chosen, broadcasts to (n_segments, n_variants).
        higher_is_better: False mirrors: a lower outcome is a positive value.
        average_sd: As in `segment_effects`.
        tau_scale: As in `segment_effects`.
        most_periods: Most times that choices are made, >= 1.
    Returns:
        The value, or why it is not estimable: fewer than two days, choices that never differed, or too few units that
        were given either.
    Raises:
        InvalidArgument: No such control, or most_periods below 1.
    Source: Dawid (1984), JRSS A 147(2), for prequential; Horvitz & Thompson (1952) for the weighting.
    """
    if not 0 <= control_index < strata.n_units.shape[1]:
        raise InvalidArgument("control_index", f"{control_index} is none of {strata.n_units.shape[1]} variants")
    if most_periods < 1:
        raise InvalidArgument("most_periods", f"{most_periods} is below 1")
    days = np.unique(strata.day[strata.n_units.sum(axis=1) > 0.0])
    if days.size < 2:
        return _none(f"there are outcomes of {days.size} days, and choosing and checking takes two")
    shape = (strata.n_segments, strata.n_units.shape[1])
    can_win = np.broadcast_to(np.asarray(available, dtype=np.bool_), shape)
    runs = np.array_split(days, min(days.size, most_periods + 1))
    terms = []
    for run in runs[1:]:
        before = np.flatnonzero(strata.day < run[0])
        choice = _choose(
            strata,
            before,
            control=control_index,
            can_win=can_win,
            options={
                "higher_is_better": higher_is_better,
                "average_sd": average_sd,
                "tau_scale": tau_scale,
            },
        )
        now = np.flatnonzero((strata.day >= run[0]) & (strata.day <= run[-1]))
        terms.append(_terms(strata, now, choice=choice, control=control_index))
    return _total(np.concatenate(terms), sign=1.0 if higher_is_better else -1.0, n_periods=len(runs) - 1)


def _choose(
    strata: DayStrata, rows: Ints, *, control: int, can_win: NDArray[np.bool_], options: dict[str, float | bool]
) -> _Choice:
    n, total, squares = (
        strata.padded(values, rows=rows) for values in (strata.n_units, strata.total, strata.sum_squares)
    )
    difference = block_differences(n, total, sum_squares=squares, control_index=control)
    level = block_means(n, total, sum_squares=squares)
    of_control, its_variance = level.estimate[:, [control]], level.variance[:, [control]]
    own_variance = np.maximum(difference.variance - its_variance, 0.0)
    own_variance[:, control] = its_variance[:, 0]
    units = n.sum(axis=1)
    seen = relative_means(of_control + difference.estimate, own_variance, n_units=units, control_index=control)
    effects = segment_effects(
        seen.estimate,
        seen.variance,
        control_index=control,
        available=can_win,
        higher_is_better=bool(options["higher_is_better"]),
        average_sd=float(options["average_sd"]),
        tau_scale=float(options["tau_scale"]),
    )
    worth = units.sum(axis=1) * np.nan_to_num(seen.base)
    everywhere = can_win[units.sum(axis=1) > 0.0].all(axis=0)
    one = int(np.where(everywhere, worth @ effects.mean, -np.inf).argmax())
    pooled = total.sum() / max(n.sum(), 1.0)
    expected = np.divide(
        total.sum(axis=(1, 2)), n.sum(axis=(1, 2)), out=np.full(len(n), pooled), where=n.sum(axis=(1, 2)) > 0.0
    )
    return _Choice(np.where(can_win.any(axis=1) & (worth > 0.0), effects.best, one), one, expected)


def _terms(strata: DayStrata, rows: Ints, *, choice: _Choice, control: int) -> Floats:
    """By stratum: units, covered units, value, its variance, units on the scarcer side, control's outcomes."""
    own, expected = choice.own[strata.segment[rows]], choice.expected[strata.segment[rows]]
    units = strata.n_units[rows].sum(axis=1)
    at_own = _weighted(strata, rows, variant=own, expected=expected)
    at_one = _weighted(strata, rows, variant=np.full(rows.size, choice.one), expected=expected)
    at_control = _weighted(strata, rows, variant=np.full(rows.size, control), expected=expected)
    differs = own != choice.one
    covered = ~differs | ((at_own[3] > 0.0) & (at_one[3] > 0.0))
    counts = differs & covered
    value = np.where(counts, at_own[0] - at_one[0], 0.0)
    squares = np.where(counts, at_own[1] + at_one[1], 0.0)
    variance = np.where(units > 1.0, squares - value**2 / np.maximum(units, 1.0), squares)
    sides = np.where(counts, at_own[2], 0.0), np.where(counts, at_one[2], 0.0)
    base = np.where(at_control[3] > 0.0, units * expected + at_control[0], np.nan)
    return np.stack([units, np.where(covered, units, 0.0), value, np.maximum(variance, 0.0), *sides, base], axis=1)


def _weighted(
    strata: DayStrata, rows: Ints, *, variant: NDArray[np.intp], expected: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Of units given the variant: sum and sum of squares of (outcome - expected) / propensity, units, propensity."""
    propensity, n = strata.propensity[rows, variant], strata.n_units[rows, variant]
    total, squares = strata.total[rows, variant], strata.sum_squares[rows, variant]
    inverse = np.divide(1.0, propensity, out=np.zeros(rows.size), where=propensity > 0.0)
    centred = squares - 2.0 * expected * total + n * expected**2
    return (total - n * expected) * inverse, centred * inverse**2, n, propensity


def _total(terms: Floats, *, sign: float, n_periods: int) -> PrequentialValue:
    units, covered, value, variance, at_own, at_one = terms[:, :6].sum(axis=0)
    if at_own + at_one == 0.0:
        return _none("the choices of earlier days never differed between segments where later days had both")
    if min(at_own, at_one) < LEAST_UNITS:
        return _none(f"only {min(at_own, at_one):g} units of later days were given one of the two choices")
    known = np.isfinite(terms[:, 6])
    base = terms[known, 6].sum() / max(terms[known, 0].sum(), 1.0)
    mean = sign * value / covered
    return PrequentialValue(
        estimable=True,
        reason="",
        value=float(mean),
        standard_error=float(np.sqrt(variance) / covered),
        relative=float(mean / base) if base > 0.0 else float("nan"),
        n_units=float(units),
        covered=float(covered / units),
        n_periods=n_periods,
    )


def _none(reason: str) -> PrequentialValue:
    nan = float("nan")
    return PrequentialValue(False, reason, nan, nan, nan, n_units=0.0, covered=0.0, n_periods=0)  # noqa: FBT003
