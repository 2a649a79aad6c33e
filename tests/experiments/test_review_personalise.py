"""Personalise or not, in results. Worlds are made by the test; what they should say follows from how."""

import json

import numpy as np
from sqlmodel import Session

from experiments.review import results
from tests.experiments.review_world import KEY, observe, row_of, start_experiment, two_weeks, variant_of

SEGMENTS = ("new", "loyal", "lapsed", "all")


def test_opposite_winners_in_every_segment_are_worth_personalising(session: Session) -> None:
    """B gains 3 points in two segments and loses them in the others: 10 % on average whatever all get."""
    series = start_experiment(session, segments=SEGMENTS, method="fixed")
    for segment, rates in zip(SEGMENTS, ((0.1, 0.13), (0.1, 0.13), (0.13, 0.1), (0.13, 0.1)), strict=True):
        two_weeks(session, series, rates=dict(zip("ab", rates, strict=True)), n_units=1_000, segment=segment)
    found = results(session, KEY)["personalise"]
    assert found["verdict"] == "personalise"
    assert 0.05 < found["value"] < 0.2
    assert found["interval"][0] > 0.01
    assert found["probability_worth"] > 0.95
    assert len(found["would_differ"]) == 2
    assert found["check"]["value"] > 0.0


def test_the_same_effect_everywhere_is_no_reason_to_personalise(session: Session) -> None:
    """20 segments whose truth is one; chance alone makes some of them look like exceptions."""
    segments = tuple(f"s{i:02d}" for i in range(20))
    series = start_experiment(session, segments=segments, method="fixed")
    rng = np.random.default_rng(11)
    for segment in segments:
        for day in range(14):
            for variant, rate in (("a", 0.10), ("b", 0.11)):
                visits = int(rng.binomial(300, rate))
                observe(session, series, variant=variant, n_units=300, visits=visits, segment=segment, day=day)
    answer = results(session, KEY)
    found = answer["personalise"]
    assert found["verdict"] in {"one_for_all", "undecided"}
    assert found["one_for_all"] == "b"
    raw = [variant_of(row, "b")["uplift"]["relative"] for row in answer["segments"]]
    shrunk = [variant_of(row, "b")["shrunk"]["relative"] for row in answer["segments"]]
    assert np.std(shrunk) < 0.5 * np.std(raw)


def test_one_segment_alone_has_nothing_to_personalise(session: Session) -> None:
    series = start_experiment(session)
    two_weeks(session, series, rates={"a": 0.1, "b": 0.12}, n_units=200)
    answer = results(session, KEY)
    assert answer["personalise"]["verdict"] is None
    assert "not estimable" in answer["personalise"]["reason"]
    assert variant_of(row_of(answer, "all"), "b")["shrunk"] is None
    json.dumps(answer, allow_nan=False)


def test_where_lower_is_better_shrunk_effects_keep_the_metrics_direction(session: Session) -> None:
    """Complaints fall by a third under b: a negative effect, and b for all."""
    series = start_experiment(session, segments=("new", "all"), method="fixed", goal="complaint", metrics=["visit"])
    for segment in ("new", "all"):
        for day in range(14):
            for variant, moans in (("a", 90), ("b", 60)):
                observe(
                    session,
                    series,
                    variant=variant,
                    n_units=1_000,
                    visits=moans,
                    segment=segment,
                    day=day,
                    metric="complaint",
                )
    answer = results(session, KEY)
    assert variant_of(row_of(answer, "new"), "b")["shrunk"]["relative"] < -0.2
    assert answer["personalise"]["one_for_all"] == "b"
