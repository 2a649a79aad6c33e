"""Partial pooling of an experiment's segments: what it reads, what it refuses, and the JSON that comes out."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlmodel import Session

from experiments.analyses import queue
from experiments.analyses.ask import ask_for
from experiments.analyses.errors import NothingMatured, TooFewSegments, TooManySegments
from experiments.analyses.kinds import KINDS, hierarchy
from experiments.analyses.kinds.hierarchy import inputs
from experiments.analyses.kinds.hierarchy_answer import answer
from experiments.analyses.runner import run_one
from experiments.database import migrate, open_engine, reading, transaction
from experiments.review.estimates import estimate
from experiments.tables import Analysis
from optimizer.partial_pooling import Pooled, Responders
from optimizer.relative_means import RelativeMeans
from tests.experiments.review_world import KEY, NOW, observe, reweigh, start_experiment, two_weeks

BASES = {"new": 0.1, "loyal": 0.2, "lapsed": 0.05, "vip": 0.3, "young": 0.1, "all": 0.15}
EFFECTS = {"new": 0.0, "loyal": 0.2, "lapsed": 0.0, "vip": 0.3, "young": -0.1, "all": 0.1}


def _seen(session: Session, **request: Any) -> hierarchy.Seen:
    """What the analysis reads of what is asked for."""
    ask_for(session, KEY, request={"kind": "hierarchy", "seed": 7} | request, actor="test")
    job = queue.claim(session, holder="test", kinds=KINDS)
    assert job is not None
    queue.fail(session, holder="test", code="test", detail="The next one is a new one.")
    return hierarchy.read(session, job, progress=lambda _: None)


def _compute(seen: hierarchy.Seen) -> dict[str, Any]:
    return dict(hierarchy.compute(seen, progress=lambda _: None).result)


def test_a_rate_enters_with_its_counts(session: Session) -> None:
    series = start_experiment(session, segments=("new", "all"))
    two_weeks(session, series, rates={"a": 0.1, "b": 0.12}, n_units=500, segment="new")
    two_weeks(session, series, rates={"a": 0.2, "b": 0.25}, n_units=100)
    observe(session, series, variant="a", n_units=50, visits=50, since=NOW - timedelta(hours=1))  # not matured
    found = inputs(estimate(_seen(session).source.reading.matured), is_rate=True)
    assert isinstance(found, Responders)
    assert found.n_units.tolist() == [[7_000, 7_000], [1_400, 1_400]]
    assert found.n_responders.round(6).tolist() == [[700, 840], [280, 350]]


def test_weights_that_moved_with_the_base_rate_make_no_effect(session: Session) -> None:
    series = start_experiment(session, segments=("new", "all"))
    reweigh(session, series, weights={"a": 0.1, "b": 0.9})
    two_weeks(session, series, rates={"a": 0.1, "b": 0.1}, n_units=500, segment="new")
    for variant, early, late in (("a", 500, 100), ("b", 500, 900)):  # 10 % respond early, 30 % late, of both
        observe(session, series, variant=variant, n_units=early, visits=early // 10)
        observe(session, series, variant=variant, n_units=late, visits=late * 3 // 10, version=2, day=9)
    found = inputs(estimate(_seen(session).source.reading.matured), is_rate=True)
    assert isinstance(found, Responders)
    rates = found.n_responders / found.n_units
    assert rates[:, 1] - rates[:, 0] == pytest.approx([0.0, 0.0], abs=1e-12)  # pooled: 13.3 % against 22.9 %
    assert 0 < found.n_units[1, 0] <= 600


def test_money_enters_relative_to_its_base(session: Session) -> None:
    series = start_experiment(session, segments=("new", "all"))
    for segment, mean in (("new", 2), ("all", 10)):
        for variant, more in (("a", 0), ("b", 1)):
            total = 1_000 * mean * (10 + more) // 10
            observe(
                session,
                series,
                variant=variant,
                n_units=1_000,
                visits=500,
                segment=segment,
                metric="spend",
                total=str(total),
                squares=str(4 * total * mean),
            )
            observe(session, series, variant=variant, n_units=1_000, segment=segment)
    found = inputs(estimate(_seen(session, metric="spend").source.reading.matured), is_rate=False)
    assert isinstance(found, RelativeMeans)
    assert found.estimate[:, 1] / found.estimate[:, 0] == pytest.approx([1.1, 1.1])


def test_nothing_to_pool_is_refused(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    series = start_experiment(session, segments=("new", "all"))
    observe(session, series, variant="a", n_units=10, visits=1, since=NOW - timedelta(hours=1))
    with pytest.raises(NothingMatured, match="'visit'"):
        _compute(_seen(session))
    two_weeks(session, series, rates={"a": 0.1, "b": 0.1}, n_units=500, segment="new")
    observe(session, series, variant="b", n_units=10, visits=1)  # and none of a
    with pytest.raises(TooFewSegments, match="there are 1"):
        _compute(_seen(session))
    monkeypatch.setattr(hierarchy, "MOST_NUMBERS", 2 * 2 * 8_000 - 1)
    with pytest.raises(TooManySegments, match="2 segments of 2 variants with 8000 draws are more than 31999"):
        _compute(_seen(session))


def test_money_that_never_varies_is_refused(session: Session) -> None:
    series = start_experiment(session, segments=("new", "all"))
    two_weeks(session, series, rates={"a": 0.1, "b": 0.1}, n_units=500, segment="new")
    two_weeks(session, series, rates={"a": 0.1, "b": 0.1}, n_units=500)
    with pytest.raises(TooFewSegments, match="there are 0"):
        _compute(_seen(session, metric="spend"))


def test_effects_of_a_metric_that_should_fall_are_shown_as_they_are(session: Session) -> None:
    """Pooled effects are mirrored, so that positive is better; shown ones are variant minus control."""
    series = start_experiment(session, segments=("new", "all"))
    for segment in ("new", "all"):
        for variant in ("a", "b"):
            observe(session, series, variant=variant, n_units=100, segment=segment)
            observe(session, series, variant=variant, n_units=100, visits=10, segment=segment, metric="complaint")
    seen = _seen(session, metric="complaint")
    table = np.tile([0.0, 0.3], (2, 1))  # b has 30 % fewer complaints than a, of whom 10 % complain
    pooled = Pooled(
        **dict.fromkeys(("level", "level_sd", "level_low", "level_high"), np.tile([0.1, 0.07], (2, 1))),
        mean=table,
        sd=table / 3,
        low=table - 0.1,
        high=table + 0.2,
        probability_above=table * 3,
        probability_best=table,
        average=np.array([[0.0, 0.25], [0.0, 0.35]]),
        tau=np.array([0.1, 0.2]),
        effects=np.tile(table, (2, 1, 1)),
        base=np.array([0.1, np.nan]),
        available=np.ones((2, 2), dtype=np.bool_),
        control_index=0,
        r_hat=1.0,
        ess=1_000.0,
        n_divergent=0,
    )
    shown = answer(seen.source, estimate(seen.source.reading.matured), pooled=pooled, seconds=1.0)
    known, unknown = (row["variants"][1]["effect"] for row in shown["segments"])
    assert known["relative"] == pytest.approx(-0.3)
    assert known["interval"] == pytest.approx([-0.5, -0.2])
    assert (known["absolute"], known["probability_better"]) == (pytest.approx(-0.03), pytest.approx(0.9))
    assert known["absolute_interval"] == pytest.approx([-0.05, -0.02])
    assert (unknown["absolute"], unknown["absolute_interval"]) == (None, None)
    assert shown["averages"][0]["mean"] == pytest.approx(-0.3)
    assert shown["metric"]["direction"] == "decrease"


@pytest.mark.timeout(400)  # on a machine that has not compiled the sampler, that takes 30 s of a processor
def test_a_whole_analysis(tmp_path: Path) -> None:
    """Six segments of 7,000 units a variant, where b gains 30 % of one base and loses 10 % of another, c does nothing.

    One database is enough here: the tests above read on both, and sampling takes seconds.
    """
    engine = open_engine(f"sqlite:///{tmp_path / 'whole.db'}")
    migrate(engine)
    with transaction(engine) as session:
        series = start_experiment(session, segments=tuple(BASES), variants=("a", "b", "c"))
        for segment, base in BASES.items():
            rates = {"a": base, "b": base * (1 + EFFECTS[segment]), "c": base}
            two_weeks(session, series, rates=rates, n_units=500, segment=segment)
        asked = ask_for(session, KEY, request={"kind": "hierarchy", "seed": 9, "draws": 1_000}, actor="test")
        id_ = asked.id
    run_one(engine, holder="test", on_lost=lambda: None)
    with reading(engine) as session:
        done = session.get_one(Analysis, id_)
    engine.dispose()
    assert (done.status, done.error) == ("done", None)
    result = done.result
    assert result["data"]["n_units"] == 6 * 3 * 7_000
    assert result["model"]["priors"] == {"average_sd": 0.2, "tau_scale": 0.1}
    assert (result["model"]["seed"], result["diagnostics"]["n_draws"], result["diagnostics"]["n_chains"]) == (
        9,
        1_000,
        4,
    )
    assert result["diagnostics"]["r_hat"] <= 1.01
    assert result["diagnostics"]["ess"] >= 400
    rows = {row["segment"]: {one["variant"]: one for one in row["variants"]} for row in result["segments"]}
    assert rows.keys() == BASES.keys()
    for segment, variants in rows.items():
        effect, average = variants["b"]["effect"], np.mean(list(EFFECTS.values()))
        low, high = sorted((EFFECTS[segment], float(average)))
        # Drawn from what was observed towards the average over segments: sd of one observed effect is some 5 %.
        assert low - 0.03 < effect["relative"] < high + 0.03, segment
        assert effect["interval"][0] < effect["relative"] < effect["interval"][1]
        assert sum(one["probability_best"] for one in variants.values()) == pytest.approx(1.0)
        assert variants["a"]["mean"] == pytest.approx(BASES[segment], rel=0.06)
        assert variants["a"]["effect"] is None
    assert rows["vip"]["b"]["probability_best"] > 0.99
    assert rows["young"]["b"]["probability_best"] < 0.05
    assert result["averages"][0]["interval"][0] < np.mean(list(EFFECTS.values())) < result["averages"][0]["interval"][1]
    assert 0.05 < result["tau"]["mean"] < 0.25  # sd of the six true effects is 0.14 for b, and 0 for a and c
    judged = result["personalise"]
    assert judged["one_for_all"] == "b"
    assert "vip" not in judged["would_differ"]
    assert judged["would_differ"]["young"] in {"a", "c"}
    # Young units that get b, the one for all, lose 10 % of a ninth of all that is earned: 0.011.
    assert 0.003 < judged["value"] < 0.016
    assert judged["check"] is None  # later days are asked only where the posterior says personalise
