"""Expected values: precision weighting by hand for two variants; for more, draws from the same normal model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from optimizer.errors import InvalidArgument
from optimizer.shared_control import ScepticalEffects, sceptical_effects

EFFECT, ERROR = 0.2195122, 0.117466


def _effects(effect: list[float], sd: list[float], *, control_sd: float, **options: object) -> ScepticalEffects:
    settings = {"control_index": 0, "prior_sd": 0.05} | options
    return sceptical_effects(effect, np.square(sd), control_variance=control_sd**2, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("control_sd", [0.0, 0.05, 0.117])
def test_two_variants_are_the_plain_sceptical_posterior_whoever_the_error_belongs_to(control_sd: float) -> None:
    """By hand: precisions add, and E max(0, -X) of a normal X."""
    effects = _effects([0.0, EFFECT], [0.0, ERROR], control_sd=control_sd, prior_sd=0.3)
    precision = 1 / ERROR**2 + 1 / 0.3**2
    mean, sd = EFFECT / ERROR**2 / precision, precision**-0.5
    assert effects.mean[1] == pytest.approx(mean, rel=1e-12)
    assert effects.sd[1] == pytest.approx(sd, rel=1e-12)
    assert effects.probability_best() == pytest.approx(norm.cdf(mean / sd), rel=1e-12)
    assert effects.expected_loss() == pytest.approx(sd * norm.pdf(mean / sd) - mean * norm.sf(mean / sd), rel=1e-9)


def test_the_posterior_is_that_of_the_joint_normal_model() -> None:
    """By matrices: precision = inverse of the errors' covariance + identity / prior variance (BDA3, section 3.5)."""
    observed, sds, control_sd, prior_sd = np.array([0.03, 0.08, -0.02]), np.array([0.03, 0.05, 0.04]), 0.025, 0.05
    errors = np.diag(sds**2 - control_sd**2) + control_sd**2
    covariance = np.linalg.inv(np.linalg.inv(errors) + np.eye(3) / prior_sd**2)
    effects = _effects([0.0, *observed], [0.0, *sds], control_sd=control_sd, prior_sd=prior_sd)
    assert effects.mean[1:] == pytest.approx(covariance @ np.linalg.inv(errors) @ observed, rel=1e-9)
    assert effects.sd[1:] ** 2 == pytest.approx(np.diag(covariance), rel=1e-9)


def test_the_bounds_hold_against_draws_and_are_close_where_it_matters() -> None:
    """200,000 draws: three standard errors of a probability near 0.96 are 0.0013."""
    effects = _effects([0.0, 0.02, 0.09, 0.03], [0.0, 0.03, 0.025, 0.028], control_sd=0.02)
    rng = np.random.default_rng(20261121)
    error = rng.normal(0.0, np.sqrt(effects.shared_variance), size=(200_000, 1))
    own = rng.normal(0.0, np.sqrt(effects.own_variance), size=(200_000, 4))
    truth = effects.mean + effects.tie * error + own
    probability = (truth.argmax(axis=1) == effects.best).mean()
    loss = (truth.max(axis=1) - truth[:, effects.best]).mean()
    assert probability - 0.02 < effects.probability_best() < probability + 0.0013
    assert loss * 0.97 < effects.expected_loss() < loss * 1.3


def test_a_variant_without_an_estimate_keeps_its_prior_and_stays_a_rival() -> None:
    effects = _effects([0.0, 0.1, np.nan], [0.0, 0.01, np.nan], control_sd=0.005)
    assert effects.mean[2] == 0.0
    assert effects.sd[2] == pytest.approx(0.05)
    assert effects.probability_best() < 0.99


def test_a_retired_variant_neither_wins_nor_rivals() -> None:
    options = {"available": [True, True, False]}
    effects = _effects([0.0, 0.05, 0.2], [0.0, 0.01, 0.01], control_sd=0.005, **options)
    alone = _effects([0.0, 0.05], [0.0, 0.01], control_sd=0.005)
    assert effects.best == 1
    assert effects.probability_best() == pytest.approx(alone.probability_best(), abs=0.02)


@given(
    effect=st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=5),
    control_sd=st.floats(0.001, 0.1),
    own_sd=st.floats(0.001, 0.1),
)
def test_lower_is_better_mirrors_higher_is_better(effect: list[float], control_sd: float, own_sd: float) -> None:
    sd = [float(np.hypot(control_sd, own_sd))] * (len(effect) + 1)
    up = _effects([0.0, *effect], sd, control_sd=control_sd)
    down = _effects([0.0, *(-value for value in effect)], sd, control_sd=control_sd, higher_is_better=False)
    assert up.mean.tolist() == down.mean.tolist()
    assert float(up.probability_best()) == float(down.probability_best())
    assert 0.0 <= float(up.probability_best()) <= 1.0
    assert float(up.expected_loss()) >= 0.0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"prior_sd": 0.0}, "prior_sd"),
        ({"prior_sd": np.inf}, "prior_sd"),
        ({"control_index": 2}, "control_index"),
        ({"variance": [0.0, -1.0]}, "variance"),
        ({"variance": [0.0]}, "variance"),
    ],
)
def test_what_cannot_be_is_refused_by_name(change: dict[str, object], named: str) -> None:
    asked = {"variance": [0.0, 0.01], "control_variance": 0.001, "control_index": 0, "prior_sd": 0.05} | change
    variance = asked.pop("variance")
    with pytest.raises(InvalidArgument, match=named):
        sceptical_effects([0.0, 0.1], variance, **asked)  # type: ignore[arg-type]
