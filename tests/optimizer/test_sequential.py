import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from optimizer.errors import InvalidArgument, InvalidCounts
from optimizer.sequential import (
    Contrast,
    aipw_contrast,
    always_valid_p_value,
    confidence_sequence,
    half_width,
)


def even_contrast(
    total: ArrayLike,
    *,
    sum_squares: ArrayLike = ((1, 1),),
    propensity: ArrayLike = ((0.5, 0.5),),
    control_index: int = 0,
) -> Contrast:
    return aipw_contrast(
        [[100, 100]],
        total,
        sum_squares=sum_squares,
        propensity=propensity,
        predicted=[[0.0, 0.0]],
        control_index=control_index,
    )


def test_half_widths_have_the_published_values() -> None:
    """reference/STATISTICS.md, section 7.1, computed with gbstats: t* = 5000, t = 1000, s = 1."""
    assert half_width(1_000, n_star=5_000) == pytest.approx(0.1063755, abs=1e-7)
    assert half_width(1_000, n_star=5_000, one_sided=True) == pytest.approx(0.0996884, abs=1e-7)
    assert half_width(5_000, n_star=5_000) / (1.959964 / np.sqrt(5_000)) == pytest.approx(1.5486, abs=1e-4)


def test_the_p_value_has_the_published_value_and_agrees_with_the_interval() -> None:
    """reference/STATISTICS.md, section 7.1: z = 3, t = t* = 5000 gives .0549476; zero on the edge gives p = .05."""
    assert always_valid_p_value(3.0, 5_000, n_star=5_000) == pytest.approx(0.0549476, abs=1e-7)
    edge = half_width(777, n_star=5_000) * np.sqrt(777)
    assert always_valid_p_value(edge, 777, n_star=5_000) == pytest.approx(0.05)


def test_the_contrast_equals_the_mean_of_the_scores_of_single_units() -> None:
    """Hadad et al. (2021), eq. 5, written out unit by unit: three variants, three versions with moving weights."""
    rng = np.random.default_rng(20240615)
    propensity = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    predicted = np.array([[1.0, 1.2, 0.9], [0.5, 0.4, 0.6], [2.0, 2.2, 1.9]])
    version = np.repeat([0, 1, 2], [40, 60, 50])
    variant = np.array([rng.choice(3, p=propensity[v]) for v in version])
    outcome = rng.gamma(2.0, 1.0, size=150) + 0.3 * variant
    scores = predicted[version]
    taken = scores[np.arange(150), variant]
    scores[np.arange(150), variant] += (outcome - taken) / propensity[version, variant]
    sums = np.zeros((3, 3, 3))
    for power in range(3):
        np.add.at(sums[power], (version, variant), outcome**power)
    result = aipw_contrast(
        sums[0], sums[1], sum_squares=sums[2], propensity=propensity, predicted=predicted, control_index=1
    )
    differences = scores - scores[:, [1]]
    assert result.estimate == pytest.approx(differences.mean(axis=0))
    assert result.standard_error == pytest.approx(differences.std(axis=0) / np.sqrt(150))
    assert result.n_units == pytest.approx([150, 150, 150])


def test_versions_without_a_variant_do_not_count_for_it() -> None:
    n, total = [[50, 50, 0], [40, 40, 20]], [[5, 10, 0], [4, 8, 5]]
    propensity, predicted = [[0.5, 0.5, 0.0], [0.4, 0.4, 0.2]], [[0.1] * 3] * 2
    result = aipw_contrast(n, total, sum_squares=total, propensity=propensity, predicted=predicted, control_index=0)
    late = aipw_contrast(
        n[1:], total[1:], sum_squares=total[1:], propensity=propensity[1:], predicted=predicted[1:], control_index=0
    )
    assert result.n_units.tolist() == [200, 200, 100]
    assert result.estimate[2] == pytest.approx(late.estimate[2])
    assert result.standard_error[2] == pytest.approx(late.standard_error[2])


def test_a_variant_never_randomised_beside_control_has_no_contrast() -> None:
    result = aipw_contrast(
        [[9, 0], [0, 9]],
        [[3, 0], [0, 3]],
        sum_squares=[[3, 0], [0, 3]],
        propensity=[[1, 0], [0, 1]],
        predicted=[[0.3, 0.3]] * 2,
        control_index=0,
    )
    assert np.isnan(result.estimate[1])
    sequence = confidence_sequence(result, n_responders=[100, 100], control_index=0, n_star=100)
    assert not sequence.estimable[1]
    assert sequence.low[1] == -np.inf


def test_fewer_than_twenty_responders_give_the_whole_line_and_say_why() -> None:
    contrast = Contrast(np.array([0.0, 5.0, 5.0]), np.array([0.0, 0.1, 0.1]), np.full(3, 1_000.0))
    sequence = confidence_sequence(contrast, n_responders=[20, 19, 20], control_index=0, n_star=1_000)
    assert sequence.estimable.tolist() == [False, False, True]
    assert (sequence.low[1], sequence.high[1], sequence.p_value[1]) == (-np.inf, np.inf, 1.0)
    assert sequence.excludes_zero.tolist() == [False, False, True]
    assert "20 effective responders" in sequence.reason


def test_lower_is_better_needs_no_mirror_because_the_interval_is_two_sided() -> None:
    plus, minus = (even_contrast([[sign * 30, sign * 60]], sum_squares=[[30, 60]]) for sign in (1, -1))
    first, second = (confidence_sequence(c, n_responders=[30, 60], control_index=0, n_star=200) for c in (plus, minus))
    assert first.low[1] == pytest.approx(-second.high[1])


def adaptive_worlds(
    rng: np.random.Generator, *, rates: tuple[float, float], n_worlds: int, n_looks: int, units_a_look: int
) -> dict[str, NDArray[np.float64]]:
    """Worlds whose weights follow the better-looking variant (floor .05), with predictions from the past only."""
    shape = (n_worlds, n_looks, 2)
    kept = {name: np.zeros(shape) for name in ("n", "total", "propensity", "predicted")}
    share = np.full(n_worlds, 0.5)
    for look in range(n_looks):
        seen, hits = kept["n"].sum(axis=1), kept["total"].sum(axis=1)
        kept["predicted"][:, look] = (hits + 1.0) / (seen + 10.0)
        kept["propensity"][:, look] = np.stack([1 - share, share], axis=-1)
        treated = rng.binomial(units_a_look, share)
        kept["n"][:, look] = np.stack([units_a_look - treated, treated], axis=-1)
        kept["total"][:, look] = rng.binomial(kept["n"][:, look].astype(np.int64), rates)
        rate = (kept["total"].sum(axis=1) + 1) / (kept["n"].sum(axis=1) + 20)
        z = (rate[:, 1] - rate[:, 0]) / np.sqrt(0.1 / (kept["n"].sum(axis=1).min(axis=1) + 20))
        share = np.clip(0.5 + 0.3 * z, 0.05, 0.95)
    return kept


def test_watched_a_a_worlds_with_moving_weights_are_excluded_at_most_at_the_stated_level() -> None:
    """At most 5 % of 600 worlds, looked at 60 times, may ever exclude the true difference of zero.

    A method of exactly 5 % passes 58 once in 10**6. The naive interval excludes zero in several times as many worlds.
    """
    worlds = adaptive_worlds(
        np.random.default_rng(20240616), rates=(0.1, 0.1), n_worlds=600, n_looks=60, units_a_look=250
    )
    ever, naive = np.zeros(600, dtype=bool), np.zeros(600, dtype=bool)
    for look in range(1, 61):
        part = {name: values[:, :look] for name, values in worlds.items()}
        contrast = aipw_contrast(
            part["n"],
            part["total"],
            sum_squares=part["total"],
            propensity=part["propensity"],
            predicted=part["predicted"],
            control_index=0,
        )
        responders = part["total"].sum(axis=1)
        sequence = confidence_sequence(contrast, n_responders=responders, control_index=0, n_star=5_000)
        ever |= sequence.excludes_zero[:, 1]
        naive |= np.abs(contrast.estimate[:, 1]) > 1.96 * contrast.standard_error[:, 1]
    assert ever.sum() <= binom.ppf(1 - 1e-6, 600, 0.05)
    assert naive.sum() > 120


def test_a_real_difference_is_found_and_the_estimate_is_not_biased_by_adaptation() -> None:
    """True difference .05; over 300 worlds the mean estimate has a standard error we can compute: 5 of them."""
    worlds = adaptive_worlds(
        np.random.default_rng(20240617), rates=(0.1, 0.15), n_worlds=300, n_looks=40, units_a_look=250
    )
    contrast = aipw_contrast(
        worlds["n"],
        worlds["total"],
        sum_squares=worlds["total"],
        propensity=worlds["propensity"],
        predicted=worlds["predicted"],
        control_index=0,
    )
    estimates = contrast.estimate[:, 1]
    assert abs(estimates.mean() - 0.05) < 5 * estimates.std() / np.sqrt(300)
    sequence = confidence_sequence(contrast, n_responders=worlds["total"].sum(axis=1), control_index=0, n_star=5_000)
    assert (sequence.low[:, 1] > 0).mean() > 0.5
    assert not (sequence.high[:, 1] < 0).any()


def test_impossible_input_is_refused() -> None:
    with pytest.raises(InvalidCounts, match="propensity is 0"):
        even_contrast([[1, 1]], propensity=[[1.0, 0.0]])
    with pytest.raises(InvalidArgument, match="sum to 1"):
        even_contrast([[1, 1]], propensity=[[0.5, 0.4]])
    with pytest.raises(InvalidCounts, match="finite"):
        even_contrast([[1, np.nan]])
    with pytest.raises(InvalidArgument, match="control_index"):
        even_contrast([[1, 1]], control_index=2)
    with pytest.raises(InvalidArgument, match="level"):
        half_width(100, n_star=100, level=1.0)
    with pytest.raises(InvalidArgument, match="n_star"):
        half_width(100, n_star=0)
