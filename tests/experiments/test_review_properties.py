"""What must not matter to a review does not: how tallies are split, variants' order, the unit of money, the sign."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlmodel import Session

from experiments.review import results
from experiments.review.flat import RESULT_COLUMNS, result_rows
from experiments.review.reading import Reading
from experiments.review.results import reviewed
from experiments.review.strata import Strata, relabelled
from experiments.review.verdict import Rules
from experiments.tables import Tally, TallyResponse
from experiments.tallies.moves import hour_of
from tests.experiments.review_world import KEY, LONG_AGO, start_experiment
from tests.experiments.rows import metric

Floats = NDArray[np.float64]
VARIANTS = ("a", "b", "c")
N_SEGMENTS, N_DAYS = 2, 9


def _strata(seed: int) -> Strata:
    """Money of two segments over nine days, weights moving on the fifth."""
    rng = np.random.default_rng(seed)
    segment, day = (values.ravel() for values in np.meshgrid(range(N_SEGMENTS), range(N_DAYS), indexing="ij"))
    propensity = np.where((day < 5)[:, np.newaxis], [0.4, 0.3, 0.3], [0.2, 0.2, 0.6])
    n_units = np.array([rng.multinomial(600, shares) for shares in propensity], dtype=np.float64)
    payers = rng.binomial(n_units.astype(int), 0.2 + 0.02 * np.arange(3)).astype(np.float64)
    total = payers * rng.uniform(18.0, 22.0, payers.shape)
    return Strata(
        segments=("vip", "all"),
        variants=VARIANTS,
        control=0,
        segment=segment,
        day=20_000 + day,
        version=np.where(day < 5, 1, 2),
        n_units=n_units,
        n_responders=payers,
        total=total,
        squares=total**2 / np.maximum(payers, 1.0) * 1.3,
        propensity=propensity,
    )


def _answer(strata: Strata, *, higher_is_better: bool = True) -> dict[str, Any]:
    weights = {key: dict.fromkeys(strata.variants, 1 / 3) for key in strata.segments}
    reading = Reading(
        metric=replace(metric("revenue", kind="mean"), higher_is_better=higher_is_better),
        units=strata,
        matured_units=strata,
        strata=strata,
        matured=strata,
        uncapped=None,
        covariate=None,
        first_hour=np.zeros(N_SEGMENTS),
        last_hour=np.full(N_SEGMENTS, 24.0 * N_DAYS - 1.0),
        n_lacking=0.0,
        n_merged=0,
        monthly_units=36_000.0,
        weights=weights,
        net=None,
        currency=None,
        money_metric=None,
    )
    return reviewed(reading, rules=Rules(), available=np.ones(3, dtype=np.bool_), depth="full")


def _rows(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [*answer["segments"], answer["overall"]]


def _told(answer: dict[str, Any], *names: str) -> Floats:
    """A number of every variant, in the order of their keys, shape (n_rows, n_variants)."""

    def found(variant: dict[str, Any]) -> float:
        value: Any = variant
        for name in names:
            value = None if value is None else value[name]
        return np.nan if value is None else float(value)

    return np.array([[found(v) for v in sorted(row["variants"], key=lambda v: v["variant"])] for row in _rows(answer)])


_NAMES: tuple[tuple[str, ...], ...] = (
    ("n_units",),
    ("mean",),
    ("probability_best",),
    ("expected_loss",),
    ("uplift", "absolute"),
    ("uplift", "relative"),
    ("always_valid", "p_value"),
    ("estimates", "adaptive", "difference"),
    ("estimates", "adaptive", "standard_error"),
    ("shrunk", "relative"),
)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(3)))
def test_the_order_of_variants_does_not_matter(seed: int, order: list[int]) -> None:
    strata = _strata(seed)
    moved = replace(
        strata,
        variants=tuple(strata.variants[i] for i in order),
        control=order.index(0),
        **{name: getattr(strata, name)[:, order] for name in _BY_VARIANT},
    )
    plain, permuted = _answer(strata), _answer(moved)
    for names in _NAMES:
        assert _told(permuted, *names) == pytest.approx(_told(plain, *names), rel=1e-6, abs=1e-9, nan_ok=True), names
    assert [row["leader"] for row in _rows(permuted)] == [row["leader"] for row in _rows(plain)]
    assert permuted["personalise"]["one_for_all"] == plain["personalise"]["one_for_all"]


_BY_VARIANT = ("n_units", "n_responders", "total", "squares", "propensity")


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), factor=st.sampled_from([0.01, 7.0, 1_000.0]))
def test_money_in_another_unit_is_the_same_money(seed: int, factor: float) -> None:
    strata = _strata(seed)
    other = replace(strata, total=strata.total * factor, squares=strata.squares * factor**2)
    plain, scaled = _answer(strata), _answer(other)
    in_money = {"mean", "expected_loss", "absolute", "difference", "standard_error"}
    for names in _NAMES:
        expected = _told(plain, *names) * (factor if names[-1] in in_money else 1.0)
        assert _told(scaled, *names) == pytest.approx(expected, rel=1e-6, abs=1e-9 * factor, nan_ok=True), names
    assert [row["verdict"] for row in _rows(scaled)] == [row["verdict"] for row in _rows(plain)]


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_losses_that_should_fall_are_gains_that_should_rise(seed: int) -> None:
    strata = _strata(seed)
    up, down = _answer(strata), _answer(replace(strata, total=-strata.total), higher_is_better=False)
    alike: tuple[tuple[str, ...], ...] = (("probability_best",), ("expected_loss",), ("always_valid", "p_value"))
    for names in alike:
        assert _told(down, *names) == pytest.approx(_told(up, *names), rel=1e-6, abs=1e-9, nan_ok=True), names
    in_money: tuple[tuple[str, ...], ...] = (("mean",), ("uplift", "absolute"), ("estimates", "naive", "difference"))
    for names in in_money:
        assert _told(down, *names) == pytest.approx(-_told(up, *names), rel=1e-6, abs=1e-9, nan_ok=True), names
    assert [row["verdict"] for row in _rows(down)] == [row["verdict"] for row in _rows(up)]


def test_tallies_split_over_shards_and_hours_say_what_their_sums_say(session: Session) -> None:
    """The same units of two days, written as one row a day, and scattered over hours and shards in any order."""
    series = start_experiment(session, goal="spend", metrics=["visit"], key=KEY)
    rng = np.random.default_rng(3)
    parts = []
    for day in range(2):
        for variant in ("a", "b"):
            for hour in range(5):
                for shard in range(3):
                    n, paid = int(rng.integers(50, 90)), int(rng.integers(5, 20))
                    parts.append((day, variant, hour, shard, n, paid, Decimal(paid * int(rng.integers(10, 30)))))
    answers = []
    for scattered in (False, True):
        rows = [(d, v, h if scattered else 0, s if scattered else 1, n, p, t) for d, v, h, s, n, p, t in parts]
        order = rng.permutation(len(rows)) if scattered else range(len(rows))
        with session.begin_nested() as undone:
            _write(session, series, [rows[i] for i in order])
            answers.append(results(session, KEY))
            undone.rollback()
    first, second = answers
    for names in _NAMES:
        assert _told(second, *names) == pytest.approx(_told(first, *names), rel=1e-9, nan_ok=True), names


def _write(session: Session, series: int, rows: list[tuple[Any, ...]]) -> None:
    """Add rows up by their key, as the writers do."""
    start, _ = hour_of(LONG_AGO)
    start -= start % 24
    sums: dict[tuple[Any, ...], list[Any]] = {}
    for day, variant, hour, shard, n, paid, total in rows:
        have = sums.setdefault((variant, start + 24 * day + hour, shard), [0, 0, Decimal(0), Decimal(0)])
        for i, value in enumerate((n, paid, total, total * total)):
            have[i] += value
    for (variant, hour, shard), (n, paid, total, squares) in sums.items():
        key: dict[str, Any] = {"series": series, "segment": "all", "allocation_version": 1}
        key |= {"variant": variant, "hour": hour, "shard": shard}
        session.add(Tally(**key, n_units=n, n_lacking=0, decided_seconds=0))
        money = {"total": total, "total_squares": squares, "capped_total": total, "capped_squares": squares}
        key |= money
        session.add(TallyResponse(**key, metric="spend", n_responders=paid))
    session.flush()


def test_a_row_of_the_table_says_what_its_variant_says() -> None:
    answer = {"experiment": KEY, "metric": "revenue", "as_of": LONG_AGO.isoformat(), **_answer(_strata(3))}
    table = [dict(zip(RESULT_COLUMNS, row, strict=True)) for row in result_rows(answer)]
    variants = [(row.get("segment"), variant) for row in _rows(answer) for variant in row["variants"]]
    assert [(line["segment"], line["variant"]) for line in table] == [(key, one["variant"]) for key, one in variants]
    for line, (_, said) in zip(table, variants, strict=True):
        adaptive = (said["estimates"] or {}).get("adaptive") or {"difference": None, "interval": (None, None)}
        shrunk = said["shrunk"] or {"relative": None}
        assert line["adaptive_difference"] == adaptive["difference"]
        assert (line["adaptive_low"], line["adaptive_high"]) == tuple(adaptive["interval"])
        assert line["shrunk_relative"] == shrunk["relative"]
    assert any(line["adaptive_low"] is not None for line in table)
    assert any(line["shrunk_relative"] is not None for line in table)


def test_a_few_that_explore_keep_their_sums_beside_a_large_standing_variant() -> None:
    """By hand: 0.1 + 0.2 explore. A double of 1e17 can't hold what is under 8."""
    few = np.array([[1e17, 0.1, 0.2]])
    strata = replace(_strata(0).chosen(np.arange(N_SEGMENTS * N_DAYS) == 0), total=few, squares=few)
    two = relabelled(strata, [0, 0], variants=("standing", "exploring"))
    assert two.total.tolist() == [[1e17, pytest.approx(0.3)]]
    assert two.squares.tolist() == [[1e17, pytest.approx(0.3)]]
