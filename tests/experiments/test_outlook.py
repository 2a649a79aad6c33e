"""Outlooks: how long until a verdict is likely, by the prior, the bound and the traffic that the verdict will have."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from experiments.review.estimates import estimate
from experiments.review.outlook import outlooks
from experiments.review.strata import Strata
from experiments.review.verdict import Evidence, Rules, gather
from optimizer.sequential import always_valid_p_value

DAYS = 20
N_UNITS = 500


def evidence_of(*responders: Sequence[int]) -> Evidence:
    """Segments with two variants, as many units of each on every day, and these responders a day."""
    n_segments = len(responders)
    visits = np.repeat(np.array(responders, dtype=np.float64), DAYS, axis=0)
    strata = Strata(
        segments=tuple(f"s{i}" for i in range(n_segments)),
        variants=("a", "b"),
        control=0,
        segment=np.repeat(np.arange(n_segments), DAYS),
        day=np.tile(np.arange(DAYS), n_segments),
        version=np.ones(len(visits), dtype=np.int64),
        n_units=np.full(visits.shape, float(N_UNITS)),
        n_responders=visits,
        total=visits,
        squares=visits,
        propensity=np.full(visits.shape, 0.5),
    )
    return gather(
        strata,
        estimate(strata),
        days=np.full(n_segments + 1, float(DAYS)),
        rules=Rules(),
        kind="binary",
        higher_is_better=True,
        available=np.array([True, True]),
    )


def test_more_traffic_brings_the_same_verdict_sooner_in_proportion() -> None:
    found = evidence_of((50, 51))
    slow, fast = (outlooks(found, rules=Rules(), per_day=np.full(2, rate))[0] for rate in (1_000.0, 4_000.0))
    assert slow["verdict"] == fast["verdict"]
    assert slow["days"] == pytest.approx(4.0 * fast["days"])


def test_the_outlook_takes_the_prior_of_the_verdict() -> None:
    """Under a prior that expects next to nothing variants are alike at once; a wide one takes more units to say so."""
    found, per_day = evidence_of((50, 50)), np.full(2, 1_000.0)
    narrow, usual = (
        outlooks(replace(found, prior_sd=np.full(2, sd)), rules=Rules(), per_day=per_day)[0] for sd in (1e-4, 0.05)
    )
    assert usual["verdict"] == "no_difference"
    assert usual["days"] > 1.0
    assert (narrow["days"], narrow["verdict"]) == (None, "no_difference")  # it is there: other gates are waited for


def test_a_lone_winner_among_many_segments_takes_longer_than_by_itself() -> None:
    """It has to reach 0.05 / 10 and not 0.05, unless the others are as sure. Units go on as they came."""
    lone, alike, sure = (50, 54), (50, 50), (50, 80)
    per_day = np.full(11, 1_000.0)
    by_itself = outlooks(evidence_of(lone), rules=Rules(), per_day=per_day[:2])[0]
    among = outlooks(evidence_of(lone, *[alike] * 9), rules=Rules(), per_day=per_day)[0]
    beside = outlooks(evidence_of(lone, *[sure] * 9), rules=Rules(), per_day=per_day)[0]
    assert by_itself["verdict"] == among["verdict"] == beside["verdict"] == "ship"
    assert among["days"] > by_itself["days"] > 0.0
    assert beside["days"] == pytest.approx(by_itself["days"])
    contrast = evidence_of(lone).contrast
    units = contrast.n_units[0, 1] + 1_000.0 * among["days"]
    z = contrast.estimate[0, 1] / contrast.standard_error[0, 1] * np.sqrt(units / contrast.n_units[0, 1])
    assert always_valid_p_value(z, units, n_star=5_000.0) == pytest.approx(0.005, rel=1e-3)
