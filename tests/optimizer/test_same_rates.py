"""Rates of units that met something: the test agrees with published and other software's, and holds its level."""

import numpy as np
import pytest
from scipy.stats import binomtest, chi2_contingency
from statsmodels.stats.contingency_tables import StratifiedTable

from optimizer.errors import InvalidCounts
from optimizer.same_rates import same_rates

BERKELEY = [
    (512, 313, 89, 19),
    (353, 207, 17, 8),
    (120, 205, 202, 391),
    (138, 279, 131, 244),
    (53, 138, 94, 299),
    (22, 351, 24, 317),
]


def test_two_variants_in_strata_are_tested_as_mantel_and_haenszel_do() -> None:
    """Admissions to Berkeley by department (Bickel, Hammel & O'Connell 1975): M^2 = 1.5246, p = 0.2169 (Agresti)."""
    units = [[a + b, c + d] for a, b, c, d in BERKELEY]
    found = same_rates(units, [[a, c] for a, _, c, _ in BERKELEY])
    assert (round(found.statistic, 4), round(found.p_value or 0.0, 4)) == (1.5246, 0.2169)
    tables = [np.array([[a, b], [c, d]]) for a, b, c, d in BERKELEY]
    assert found.p_value == pytest.approx(StratifiedTable(tables).test_null_odds(correction=False).pvalue, rel=1e-9)


def test_variants_of_one_stratum_are_tested_as_pearson_does() -> None:
    units, met = np.array([400, 500, 600]), np.array([100, 160, 170])
    found = same_rates([units], [met])
    pearson = chi2_contingency([met, units - met]).statistic
    assert found.statistic == pytest.approx(pearson * 1499 / 1500, rel=1e-9)
    assert found.degrees_of_freedom == 2


def test_weights_that_move_with_the_rate_are_no_difference() -> None:
    """False alarm: 1 in 10**6. Pooled, variant b would look half as often met."""
    rng = np.random.default_rng(20261126)
    units = np.array([[1800, 200], [200, 1800]])
    rate = np.array([[0.6], [0.2]])
    p_values = [same_rates(units, rng.binomial(units, rate)).p_value or 0.0 for _ in range(2_000)]
    assert binomtest(int(np.sum(np.array(p_values) < 0.05)), 2_000, 0.05).pvalue > 1e-6


@pytest.mark.parametrize(("units", "met"), [([[0, 0]], [[0, 0]]), ([[9, 9]], [[1, 2]]), ([[50, 50]], [[50, 50]])])
def test_too_few_or_all_alike_tell_nothing(units: list[list[int]], met: list[list[int]]) -> None:
    assert same_rates(units, met).p_value is None


@pytest.mark.parametrize("met", [[[5, 11]], [[-1, 5]], [[5]], [5, 5], [[float("nan"), 1]]])
def test_impossible_counts_are_refused(met: object) -> None:
    with pytest.raises(InvalidCounts):
        same_rates([[10, 10]], met)  # type: ignore[arg-type]  # on purpose
