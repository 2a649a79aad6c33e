"""Heterogeneity. Expected values: statsmodels' robust regression, and simulated worlds with and without any."""

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.linear_model import LinearRegression

from optimizer.errors import InvalidArgument, NoVariation
from optimizer.uplift.heterogeneity import by_tenth, calibration
from optimizer.uplift.learners import DRLearner, TLearner
from optimizer.uplift.policy_value import doubly_robust_scores

Floats = NDArray[np.float64]


def test_slope_and_error_equal_statsmodels() -> None:
    rng = np.random.default_rng(1)
    predicted, fold = rng.normal(size=500), rng.integers(0, 3, 500)
    signal = 0.3 + 0.5 * predicted + rng.normal(size=500) * (1.0 + np.abs(predicted)) + fold
    found = calibration(signal, predicted, fold=fold)
    design = np.column_stack([predicted, *(fold == one for one in range(3))]).astype(float)
    fit = sm.OLS(signal, design).fit(cov_type="HC1")
    assert found.slope == pytest.approx(fit.params[0], rel=1e-9)
    assert found.slope_error == pytest.approx(fit.bse[0], rel=1e-9)
    assert found.p_value == pytest.approx(fit.pvalues[0] / 2.0, rel=1e-6)
    assert found.mean == pytest.approx(signal.mean())


def test_weighted_slopes_and_errors_equal_statsmodels() -> None:
    rng = np.random.default_rng(2)
    predicted, fold, weight = rng.normal(size=400), rng.integers(0, 2, 400), rng.uniform(0.2, 3.0, 400)
    signal = 0.3 + 0.5 * predicted + rng.normal(size=400) / np.sqrt(weight) + fold
    found = calibration(signal, predicted, fold=fold, weight=weight)
    design = np.column_stack([predicted, *(fold == one for one in range(2))]).astype(float)
    fit = sm.WLS(signal, design, weights=weight).fit(cov_type="HC1")
    assert found.slope == pytest.approx(fit.params[0], rel=1e-9)
    assert found.slope_error == pytest.approx(fit.bse[0], rel=1e-9)


def test_customers_with_several_units_make_clusters() -> None:
    """Clustered errors of statsmodels without its correction, times that of HC1 with customers as units."""
    rng = np.random.default_rng(3)
    customer = np.repeat(np.arange(150), 3)
    predicted = rng.normal(size=450)
    signal = 0.4 * predicted + np.repeat(rng.normal(size=150), 3) * predicted + rng.normal(size=450)
    found = calibration(signal, predicted, customer=customer)
    design = sm.add_constant(predicted)
    fit = sm.OLS(signal, design).fit(cov_type="cluster", cov_kwds={"groups": customer, "use_correction": False})
    assert found.slope_error == pytest.approx(fit.bse[1] * np.sqrt(150 / 148), rel=1e-9)
    assert found.slope_error > 1.1 * calibration(signal, predicted).slope_error


def _p_value(seed: int, *, heterogeneity: float) -> float:
    """Models of earlier folds predict for later ones, on binary outcomes whose base rate depends on x."""
    rng = np.random.default_rng(seed)
    n = 900
    x = rng.normal(size=(n, 4))
    variant = rng.integers(0, 2, n)
    rate = np.clip(0.3 + 0.1 * x[:, 0] + variant * (0.05 + heterogeneity * x[:, 1]), 0.02, 0.98)
    y = (rng.random(n) < rate).astype(float)
    even, fold = np.full((n, 2), 0.5), np.arange(n) * 4 // n
    predicted, means = np.empty(n), np.empty((n, 2))
    for one in (1, 2, 3):
        inside, outside = fold < one, fold == one
        given = {"variant": variant[inside], "propensities": even[inside]}
        predicted[outside] = DRLearner(LinearRegression()).fit(x[inside], y[inside], **given).predict(x[outside])[:, 0]
        model = TLearner(LinearRegression()).fit(x[inside], y[inside], **given)
        means[outside] = np.column_stack([fitted.predict(x[outside]) for fitted in model.fitted_])
    seen = fold > 0
    scores = doubly_robust_scores(y[seen], variant[seen], propensities=even[seen], predicted=means[seen])
    return calibration(scores[:, 1] - scores[:, 0], predicted[seen], fold=fold[seen]).p_value


def test_noise_is_not_sold_as_heterogeneity() -> None:
    """500 worlds without any, at level 0.05: a true rate of 0.05 exceeds 41 alarms with a chance of 0.1 %."""
    alarms = sum(_p_value(seed, heterogeneity=0.0) < 0.05 for seed in range(500))
    assert alarms <= 41


def test_heterogeneity_is_found() -> None:
    """50 worlds with much of it: a power under 0.8 fails with a chance of 95 % or more below 0.7."""
    found = sum(_p_value(1_000 + seed, heterogeneity=0.12) < 0.05 for seed in range(50))
    assert binomtest(found, 50, 0.8, alternative="less").pvalue > 0.01


def test_tenths_are_ordered_and_their_means_are_those_of_their_units() -> None:
    predicted = np.arange(40.0)
    signal = predicted * 2.0
    tenths = by_tenth(signal, predicted)
    assert [one.n_units for one in tenths] == [4] * 10
    assert tenths[0].predicted == pytest.approx(37.5)
    assert tenths[0].observed.mean == pytest.approx(75.0)
    assert tenths[-1].predicted == pytest.approx(1.5)
    deviation = np.std([72.0, 74.0, 76.0, 78.0], ddof=1) / 2.0
    assert tenths[0].observed.standard_error == pytest.approx(deviation)


def test_predictions_all_alike_have_no_slope() -> None:
    with pytest.raises(NoVariation):
        calibration(np.arange(10.0), np.full(10, 0.25))


def test_too_few_units_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="n_groups"):
        by_tenth(np.arange(10.0), np.arange(10.0))
