"""Reading tallies: exact sums over shards, and their reductions."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlmodel import Session

from experiments.tallies.moves import hour_of
from experiments.tallies.read import Tallies, read_ages, read_tallies, read_weights
from tests.experiments.worlds import SEGMENTS, clicks, observe, start_experiment

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def _world(session: Session) -> Tallies:
    """Three rows: variant a on a Monday, b on that Monday and the next day under version 2; vip only."""
    series = start_experiment(session)
    connection = session.connection()
    observe(connection, series, variant="a", n_units=4, values=clicks(1), at=NOON + timedelta(seconds=1800))
    observe(connection, series, variant="b", n_units=3, values=clicks(2), at=NOON + timedelta(hours=2))
    observe(connection, series, variant="b", n_units=2, values=clicks(2), at=NOON + DAY, version=2)
    return read_tallies(session, series, metric="click")


def test_counts_reduce_to_segments_and_variants_with_zeros_where_nobody_was(session: Session) -> None:
    tallies = _world(session)
    assert (tallies.segments, tallies.variants) == (SEGMENTS, ("a", "b"))
    assert tallies.by_variant(tallies.n_units).tolist() == [[4, 5], [0, 0]]
    assert tallies.by_variant(tallies.n_responders).tolist() == [[1, 4], [0, 0]]


def test_a_block_is_a_segment_a_day_and_a_version(session: Session) -> None:
    tallies = _world(session)
    blocks = tallies.blocks()
    days = (NOON - datetime(1970, 1, 1, tzinfo=UTC)).days
    assert list(zip(blocks.segment, blocks.day, blocks.version, strict=True)) == [(0, days, 1), (0, days + 1, 2)]
    assert tallies.by_block(tallies.n_units, blocks).tolist() == [[4, 3], [0, 2]]


def test_ages_are_known_within_the_hour(session: Session) -> None:
    tallies = _world(session)
    ages = tallies.age_seconds(NOON + DAY)
    assert sorted(ages) == [0, 79_200, 84_600]


def test_money_is_added_over_shards_and_capped_unit_by_unit(session: Session) -> None:
    series = start_experiment(session, goal="revenue")
    connection = session.connection()
    for shard, value in enumerate(["0.1", "0.2", "0.3"]):
        observe(connection, series, variant="a", n_units=1, values=[value], event="purchase", at=NOON, shard=shard)
    tallies = read_tallies(session, series, metric="revenue")
    assert tallies.n_units.tolist() == [3]
    assert tallies.n_responders.tolist() == [3]
    assert tallies.total.tolist() == pytest.approx([0.6], rel=1e-14)
    assert tallies.total_squares.tolist() == pytest.approx([0.14], rel=1e-14)
    assert tallies.capped_total.tolist() == pytest.approx([0.6], rel=1e-14)


def test_a_metric_that_nobody_has_answered_is_zero_and_keeps_its_units(session: Session) -> None:
    series = start_experiment(session, metrics=["unsubscribe"])
    observe(session.connection(), series, variant="a", n_units=2, values=clicks(1), at=NOON)
    tallies = read_tallies(session, series, metric="unsubscribe")
    assert (tallies.n_units.tolist(), tallies.n_responders.tolist()) == ([2], [0])


def test_a_series_without_units_has_no_rows(session: Session) -> None:
    tallies = read_tallies(session, start_experiment(session), metric="click")
    assert tallies.n_units.size == 0
    assert tallies.by_variant(tallies.n_units).tolist() == [[0, 0], [0, 0]]
    assert tallies.by_block(tallies.n_units, tallies.blocks()).shape == (0, 2)


def test_segments_and_hours_may_be_chosen(session: Session) -> None:
    series = start_experiment(session)
    connection = session.connection()
    for segment, at in [(SEGMENTS[0], NOON), (SEGMENTS[1], NOON), (SEGMENTS[1], NOON + DAY)]:
        observe(connection, series, variant="a", n_units=1, segment=segment, at=at)
    chosen = read_tallies(session, series, metric="click", segments=[SEGMENTS[1]], before_hour=hour_of(NOON)[0] + 1)
    assert chosen.segments == (SEGMENTS[1],)
    assert chosen.by_variant(chosen.n_units).tolist() == [[1, 0]]


def test_no_segment_chosen_is_none_read(session: Session) -> None:
    series = start_experiment(session)
    observe(session.connection(), series, variant="a", n_units=1)
    assert read_tallies(session, series, metric="click", segments=[]).n_units.size == 0


def test_first_responses_are_read_by_day_and_age(session: Session) -> None:
    series = start_experiment(session)
    connection = session.connection()
    for segment in SEGMENTS:
        observe(
            connection, series, variant="b", n_units=3, values=clicks(2), segment=segment, at=NOON, after=timedelta(0)
        )
    ages = read_ages(session, series, metric="click")
    assert (ages.variants, ages.variant.tolist(), ages.age_bin.tolist()) == (("a", "b"), [1], [0])
    assert ages.n_first.tolist() == [4]


def test_weights_are_read_by_segment_and_version(session: Session) -> None:
    series = start_experiment(session)
    weights = read_weights(session, series)
    assert set(weights) == {(segment, 1) for segment in SEGMENTS}
    assert np.allclose([weights[SEGMENTS[0], 1][key] for key in "ab"], 0.5)


@pytest.mark.parametrize("goal", ["click", "revenue"])
def test_early_hours_may_be_summed_to_days_with_ages_kept(session: Session, goal: str) -> None:
    series = start_experiment(session, goal=goal)
    event = {"click": "click", "revenue": "purchase"}[goal]
    for hours in (0, 2, 24):
        at = NOON + timedelta(hours=hours)
        observe(session.connection(), series, variant="a", n_units=2, values=["1"], event=event, at=at)
    tallies = read_tallies(session, series, metric=goal, by_hour=(hour_of(NOON + DAY)[0], None))
    assert sorted(zip(tallies.n_units, tallies.n_responders, tallies.total, strict=True)) == [(2, 1, 1), (4, 2, 2)]
    assert sorted(tallies.age_seconds(NOON + DAY)) == [0, 23 * 3600]
