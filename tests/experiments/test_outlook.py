"""Outlooks: how long until a verdict is likely, by the prior and the traffic that the verdict will have."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.review.estimates import estimate
from experiments.review.outlook import outlooks
from experiments.review.strata import Strata
from experiments.review.verdict import Evidence, Rules, gather

DAYS = 20
PER_DAY = np.full(2, 1_000.0)


def evidence_of(responders: tuple[int, int], *, n_units: int = 500) -> Evidence:
    """One segment with two variants, as many units of each on every day, and these responders."""
    visits = np.repeat(np.array([responders]), DAYS, axis=0).astype(np.float64)
    strata = Strata(
        segments=("all",),
        variants=("a", "b"),
        control=0,
        segment=np.zeros(DAYS, dtype=np.int64),
        day=np.arange(DAYS),
        version=np.ones(DAYS, dtype=np.int64),
        n_units=np.full((DAYS, 2), float(n_units)),
        n_responders=visits,
        total=visits,
        squares=visits,
        propensity=np.full((DAYS, 2), 0.5),
    )
    return gather(
        strata,
        estimate(strata),
        days=np.full(2, float(DAYS)),
        rules=Rules(),
        kind="binary",
        higher_is_better=True,
        available=np.array([True, True]),
    )


def test_more_traffic_brings_the_same_verdict_sooner_in_proportion() -> None:
    found = evidence_of((50, 51))
    slow, fast = (outlooks(found, rules=Rules(), per_day=PER_DAY * factor)[0] for factor in (1.0, 4.0))
    assert slow["verdict"] == fast["verdict"]
    assert slow["days"] == pytest.approx(4.0 * fast["days"])


def test_the_outlook_takes_the_prior_of_the_verdict() -> None:
    """Under a prior that expects next to nothing variants are alike at once; a wide one takes more units to say so."""
    found = evidence_of((50, 50))
    narrow, usual = (
        outlooks(replace(found, prior_sd=np.full(2, sd)), rules=Rules(), per_day=PER_DAY)[0] for sd in (1e-4, 0.05)
    )
    assert usual["verdict"] == "no_difference"
    assert usual["days"] > 1.0
    assert (narrow["days"], narrow["verdict"]) == (None, "no_difference")  # it is there: other gates are waited for
