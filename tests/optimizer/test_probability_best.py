"""Expected values come from exact sums of fractions, closed forms, and mpmath; never from the quadrature under test."""

from fractions import Fraction
from math import comb

import mpmath
import numpy as np
import pytest
from numpy.polynomial import polynomial
from numpy.typing import NDArray
from scipy.special import ndtr

from optimizer.comparison import probability_best
from optimizer.posteriors import BetaPosterior, StudentPosterior, beta_posterior

Floats = NDArray[np.float64]


def test_check_numbers_of_a_published_case_are_reproduced() -> None:
    """100, 110, 125 responders of 1000, Beta(1, 1): reference/STATISTICS.md, 'P(best)', 256-node quadrature."""
    best = probability_best(beta_posterior([100, 110, 125], [1000, 1000, 1000]))
    assert best == pytest.approx([0.02578, 0.14253, 0.83169], abs=5e-6)


def test_a_million_units_against_ten_is_no_certainty() -> None:
    """A fixed 256-node rule gives 0.000000; reference/SERVING.md, table 4c: 0.019515."""
    best = probability_best(beta_posterior([20_000, 1], [1_000_000, 10]))
    assert best == pytest.approx([0.019515, 0.980485], abs=5e-7)


def test_random_small_posteriors_agree_with_exact_integration_of_polynomials() -> None:
    rng = np.random.default_rng(20250101)
    for _ in range(40):
        n_variants = int(rng.integers(2, 6))
        alpha, beta = rng.integers(1, 12, size=(2, n_variants))
        best = probability_best(BetaPosterior(alpha.astype(np.float64), beta.astype(np.float64)))
        assert best == pytest.approx(_exact_best(alpha.tolist(), beta.tolist()), abs=1e-7)


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        ((20_001, 980_001), (1, 11)),  # a million units against ten
        ((300_001, 700_001), (4, 8)),
        ((101, 999_901), (1, 1)),  # a rate of 1e-4 against the bare prior
        ((101, 999_901), (11, 99_991)),
        ((50_001, 950_001), (50_101, 949_901)),  # both a million
        ((2, 1_000_000), (1, 2)),
        ((5_000_000, 95_000_000), (3, 40)),
    ],
)
def test_posteriors_of_wildly_different_width_agree_with_the_exact_sum(
    narrow: tuple[int, int], wide: tuple[int, int]
) -> None:
    best = probability_best(BetaPosterior(*np.array([narrow, wide], dtype=np.float64).T))
    wide_wins = _exact_second_beats_first(narrow, wide)
    assert best == pytest.approx([1.0 - wide_wins, wide_wins], abs=1e-7)


def test_random_pairs_of_any_width_agree_with_the_exact_sum() -> None:
    rng = np.random.default_rng(20250102)
    n_units = np.exp(rng.uniform(np.log(2), np.log(1e6), size=(60, 2))).astype(int)
    rates = np.exp(rng.uniform(np.log(1e-4), np.log(0.3), size=(60, 1))) * np.exp(rng.normal(0, 0.1, size=(60, 2)))
    responders = np.minimum(rng.binomial(n_units, rates), 3_000)
    best = probability_best(beta_posterior(responders, n_units))
    for row in range(60):
        first, second = [(int(r) + 1, int(n - r) + 1) for r, n in zip(responders[row], n_units[row], strict=True)]
        assert best[row, 1] == pytest.approx(_exact_second_beats_first(first, second), abs=1e-7)


@pytest.mark.parametrize(
    ("alpha", "beta"),
    [
        ([0.5, 0.5], [0.5, 50.5]),  # Jeffreys, no responder
        ([0.1, 0.1, 0.3], [0.1, 7.1, 20.3]),
        ([0.5, 3.5, 0.5], [1000.5, 400.5, 0.5]),
        ([1.0, 2.0, 6.0, 41.0], [1.0, 10.0, 55.0, 960.0]),
    ],
)
def test_singular_and_mixed_posteriors_agree_with_high_precision_integration(
    alpha: list[float], beta: list[float]
) -> None:
    best = probability_best(BetaPosterior(np.array(alpha), np.array(beta)))
    assert best == pytest.approx(_mpmath_best(alpha, beta), abs=1e-7)


@pytest.mark.parametrize("spread", [1e-6, 0.01, 1.0, 300.0, 1e9])
@pytest.mark.parametrize("shift", [0.0, 0.3, -5.0])
def test_cauchy_posteriors_agree_with_their_closed_form(spread: float, shift: float) -> None:
    """The difference of two Cauchy variables is Cauchy, its scale the sum of theirs."""
    posterior = StudentPosterior(np.array([0.0, shift]), np.array([1.0, spread]), np.array([1.0, 1.0]))
    expected = 0.5 + np.arctan(shift / (1.0 + spread)) / np.pi
    assert probability_best(posterior)[1] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("spread", [1e-6, 0.1, 1.0, 1e5])
def test_students_with_many_degrees_of_freedom_agree_with_the_normal_closed_form(spread: float) -> None:
    posterior = StudentPosterior(np.array([10.0, 10.5]), np.array([1.0, spread]), np.array([1e8, 1e8]))
    assert probability_best(posterior)[1] == pytest.approx(ndtr(0.5 / np.hypot(1.0, spread)), abs=1e-7)


def test_students_of_few_and_many_degrees_of_freedom_agree_with_high_precision_integration() -> None:
    location, scale, df = [0.0, 1.0, 0.2], [1.0, 0.02, 30.0], [1, 4, 2]
    best = probability_best(StudentPosterior(np.array(location), np.array(scale), np.array(df, dtype=np.float64)))
    assert best == pytest.approx(_mpmath_student_best(location, scale, df), abs=2e-7)


@pytest.mark.parametrize("n_variants", [1, 2, 3, 20])
def test_identical_posteriors_share_equally(n_variants: int) -> None:
    for posterior in (
        BetaPosterior(np.full(n_variants, 0.5), np.full(n_variants, 0.5)),
        BetaPosterior(np.full(n_variants, 50_001.0), np.full(n_variants, 950_001.0)),
        StudentPosterior(np.full(n_variants, 3.0), np.full(n_variants, 2.0), np.full(n_variants, 1.5)),
    ):
        assert probability_best(posterior) == pytest.approx(np.full(n_variants, 1.0 / n_variants), abs=1e-9)


def test_the_order_of_variants_and_segments_does_not_matter() -> None:
    posterior = _hard_segments(20250103, n_segments=200, n_variants=4)
    rows, columns = np.random.default_rng(1).permutation(200), np.array([2, 0, 3, 1])
    shuffled = BetaPosterior(posterior.alpha[rows][:, columns], posterior.beta[rows][:, columns])
    assert probability_best(shuffled) == pytest.approx(probability_best(posterior)[rows][:, columns], abs=1e-9)


def test_each_segment_alone_gets_what_it_gets_among_others() -> None:
    posterior = _hard_segments(20250104, n_segments=50, n_variants=3)
    alone = [probability_best(BetaPosterior(a, b)) for a, b in zip(posterior.alpha, posterior.beta, strict=True)]
    assert probability_best(posterior) == pytest.approx(np.array(alone), abs=1e-12)


def test_probabilities_sum_to_one() -> None:
    best = probability_best(_hard_segments(20250105, n_segments=300, n_variants=5))
    assert (best >= 0.0).all()
    assert best.sum(axis=1) == pytest.approx(np.ones(300), abs=1e-12)


def test_lower_is_better_mirrors_higher_is_better() -> None:
    posterior = _hard_segments(20250106, n_segments=200, n_variants=3)
    mirrored = BetaPosterior(posterior.beta, posterior.alpha)
    assert (probability_best(posterior, higher_is_better=False) == probability_best(mirrored)).all()
    student = StudentPosterior(np.array([1.0, 2.0]), np.array([1.0, 1.0]), np.array([5.0, 5.0]))
    higher, lower = probability_best(student), probability_best(student, higher_is_better=False)
    assert lower == pytest.approx(higher[::-1], abs=1e-9)


def test_no_segments_give_no_probabilities() -> None:
    assert probability_best(BetaPosterior(np.ones((0, 3)), np.ones((0, 3)))).shape == (0, 3)


def _hard_segments(seed: int, *, n_segments: int, n_variants: int) -> BetaPosterior:
    rng = np.random.default_rng(seed)
    n_units = np.exp(rng.uniform(0.0, np.log(2e6), size=(n_segments, n_variants))).astype(int)
    rates = np.exp(rng.uniform(np.log(1e-4), np.log(0.5), size=(n_segments, 1)))
    return beta_posterior(rng.binomial(n_units, rates), n_units, prior_alpha=0.5, prior_beta=0.5)


def _exact_second_beats_first(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Evan Miller (2015), "Formulas for Bayesian A/B Testing", equation 6, summed over the smaller integer alpha."""
    if second[0] > first[0]:
        return 1.0 - _exact_second_beats_first(second, first)
    with mpmath.workdps(40):
        a, b = (mpmath.mpf(parameter) for parameter in first)
        beta = mpmath.mpf(second[1])
        term = mpmath.beta(a, b + beta) / mpmath.beta(a, b)
        total = mpmath.mpf(0)
        for i in range(second[0]):
            total += term
            term *= (a + i) * (beta + i) / ((a + i + b + beta) * (i + 1))
        return float(total)


def _exact_best(alpha: list[int], beta: list[int]) -> list[float]:
    """Densities and distribution functions of integer Beta posteriors are polynomials: integrate them as fractions."""
    densities = [_density(a, b) for a, b in zip(alpha, beta, strict=True)]
    distributions = [_antiderivative(density) for density in densities]
    best = []
    for k, density in enumerate(densities):
        product = density
        for j, distribution in enumerate(distributions):
            if j != k:
                product = polynomial.polymul(product, distribution)
        best.append(float(sum(_antiderivative(product))))
    return best


def _density(a: int, b: int) -> NDArray[np.object_]:
    norm = Fraction(a * comb(a + b - 1, a))
    terms = [norm * comb(b - 1, i) * (-1) ** i for i in range(b)]
    return np.array([Fraction(0)] * (a - 1) + terms, dtype=object)


def _antiderivative(coefficients: NDArray[np.object_]) -> NDArray[np.object_]:
    return np.array([Fraction(0), *(c / (i + 1) for i, c in enumerate(coefficients))], dtype=object)


def _mpmath_best(alpha: list[float], beta: list[float]) -> list[float]:
    """Over u = F_k, where the winning density is a bounded product, by way of x = s^(1/alpha) near zero."""
    variants = list(zip(alpha, beta, strict=True))
    with mpmath.workdps(20):
        cuts = sorted(
            {0.0, 1.0, 1e-9, 1e-6, 1e-4, 1e-3, *(_cut(a, b, z) for a, b in variants for z in range(-6, 9, 2))}
        )
        logits = [mpmath.log(c / (1 - mpmath.mpf(c))) for c in cuts[1:-1]]
        points = [-400, -100, -40, *logits, 40, 100, 400]

        def winning(k: int) -> mpmath.mpf:
            def integrand(y: mpmath.mpf) -> mpmath.mpf:
                x, rest = 1 / (1 + mpmath.exp(-y)), 1 / (1 + mpmath.exp(y))
                a, b = variants[k]
                product = x**a * rest**b / mpmath.beta(a, b)
                for j, (other_a, other_b) in enumerate(variants):
                    if j != k:
                        product *= _mp_cdf(other_a, other_b, x, rest)
                return product

            return mpmath.quad(integrand, points, maxdegree=5)

        return [float(winning(k)) for k in range(len(variants))]


def _mp_cdf(a: float, b: float, x: mpmath.mpf, rest: mpmath.mpf) -> mpmath.mpf:
    if x <= rest:
        return mpmath.betainc(a, b, 0, x, regularized=True)
    return 1 - mpmath.betainc(b, a, 0, rest, regularized=True)


def _cut(a: float, b: float, z: int) -> float:
    mean = a / (a + b)
    at = mean + z * float(np.sqrt(mean * (1.0 - mean) / (a + b + 1.0)))
    return min(max(at, 1e-12), 1.0 - 1e-12)


def _mpmath_student_best(location: list[float], scale: list[float], df: list[int]) -> list[float]:
    """Distribution functions in closed form for 1, 2 and 4 degrees of freedom."""
    cdf = {
        1: lambda t: mpmath.mpf(1) / 2 + mpmath.atan(t) / mpmath.pi,
        2: lambda t: mpmath.mpf(1) / 2 + t / (2 * mpmath.sqrt(2 + t * t)),
        4: lambda t: mpmath.mpf(1) / 2 + 3 * (t / mpmath.sqrt(4 + t * t) - (t / mpmath.sqrt(4 + t * t)) ** 3 / 3) / 4,
    }
    pdf = {
        1: lambda t: 1 / (mpmath.pi * (1 + t * t)),
        2: lambda t: (2 + t * t) ** mpmath.mpf(-1.5),
        4: lambda t: mpmath.mpf(3) / 8 * (1 + t * t / 4) ** mpmath.mpf(-2.5),
    }
    cuts = sorted(
        {m + sign * s * 10.0**e for m, s in zip(location, scale, strict=True) for e in range(-1, 7) for sign in (-1, 1)}
    )

    def winning(k: int) -> mpmath.mpf:
        def integrand(x: mpmath.mpf) -> mpmath.mpf:
            product = pdf[df[k]]((x - location[k]) / scale[k]) / scale[k]
            for j in range(len(df)):
                if j != k:
                    product *= cdf[df[j]]((x - location[j]) / scale[j])
            return product

        return mpmath.quad(integrand, [-mpmath.inf, *cuts, mpmath.inf], maxdegree=5)

    return [float(winning(k)) for k in range(len(df))]
