"""Studies of uplift from a past campaign to a policy: what is read, what is refused, what is stored and served."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sqlalchemy import Engine, delete
from sqlmodel import Session, col, select

from experiments.catalog.definition_store import declared_attributes, put_attribute
from experiments.catalog.definitions import SegmentationDefinition
from experiments.catalog.serving import current_policy, now_serving
from experiments.database import database_now, reading, transaction
from experiments.promote.errors import TargetingRefused
from experiments.promote.policies import rollback
from experiments.promote.targeting import promote_targeting
from experiments.review.reading import started_series
from experiments.segments.rules import compile_segmentation
from experiments.tables import (
    Allocation,
    Analysis,
    AnalysisModel,
    Audit,
    Correction,
    Decision,
    Definition,
    Series,
    SeriesVariant,
)
from experiments.uplift.errors import FewEffectiveUnits, ModelNotFound, ModelUnreadable
from experiments.uplift.features import Feature, matrix
from experiments.uplift.sample import check_weights
from experiments.uplift.stored import load_scorer, unpacked
from experiments.uplift.units import Wanted, read_units
from tests.experiments.past_campaign import KEY, START, analysed, campaign_log, import_campaign, policies_of


@pytest.fixture
def log(engine: Engine, tmp_path: Path) -> pl.DataFrame:
    path = tmp_path / "mail.csv"
    table = campaign_log(path)
    with transaction(engine) as session:
        import_campaign(session, path)
    return table


def _wanted(session: Session, **changes: Any) -> Wanted:
    from experiments.review.reading import pinned_metrics, variants_of_series

    _, series = started_series(session, KEY, segment=None)
    metrics = {one.key: one for one in pinned_metrics(series)}
    keys = tuple(one.key for one in variants_of_series(session, series.number or 0))
    metric = metrics[changes.pop("metric", "visit")]
    return Wanted(series, metric, metrics["visit"], keys, database_now(session), **changes)


def test_units_are_read_with_what_their_decisions_carried(engine: Engine, log: pl.DataFrame) -> None:
    """All from the file: attributes (missing ages too), outcomes, variants, and a third as every propensity."""
    with reading(engine) as session:
        wanted = _wanted(session, metric="spend")
        found = read_units(session, wanted, progress=lambda _: None)
        who = session.exec(select(Decision.customer_id).order_by(col(Decision.decided_at), col(Decision.id))).all()
    at = {customer: row for row, customer in enumerate(log["customer"])}
    rows = log[[at[customer] for customer in who]]
    assert found.features == (
        Feature("age", "number"),
        Feature("channel", "string", tuple(rows["channel"].value_counts(sort=True)["channel"])),
        Feature("country", "string", tuple(rows["country"].value_counts(sort=True)["country"])),
        Feature("member", "boolean"),
    )
    age = rows["age"].cast(float).fill_null(float("nan")).to_numpy()
    assert np.array_equal(found.x[:, 0], age, equal_nan=True)
    assert np.array_equal(found.x[:, 3], rows["member"].to_numpy())
    assert np.array_equal(found.y, rows["spend"].to_numpy())
    assert np.array_equal(found.responded, rows["visit"].to_numpy() == 1)
    assert [wanted.variants[one] for one in found.variant] == rows["mail"].to_list()
    assert np.allclose(found.propensities, 1.0 / 3.0)
    assert len(np.unique(found.customer)) == 3_000


def test_late_units_and_hours_that_are_left_out_are_not_read(engine: Engine, log: pl.DataFrame) -> None:
    n = len(log)
    with transaction(engine) as session:
        decisions = session.exec(select(Decision).limit(7)).all()
        for one in decisions[:3]:
            one.late = True
        for one in decisions[3:]:
            one.decided_at = START - timedelta(hours=1)
    with transaction(engine) as session:
        start = START - timedelta(hours=1)
        session.add(
            Correction(
                kind="decisions",
                experiment=KEY,
                starts_at=start,
                ends_at=start + timedelta(hours=1),
                action="exclude",
                reason="outage",
                status="applied",
                created_at=START,
                created_by="test",
            )
        )
        session.flush()
        assert len(read_units(session, _wanted(session), progress=lambda _: None).y) == n - 7


def test_a_campaign_whose_customers_differ_is_worth_targeting(engine: Engine, log: pl.DataFrame) -> None:
    """Nine in ten gain .2 by the right mail; any mail for all gains nothing."""
    assert len(log) == 3_000
    analysis = analysed(engine)
    assert analysis.error is None
    result = analysis.result
    assert result["verdict"] == "personalise", result["reason"]
    low, high = policies_of(result)["tree"]["gain"]["interval"]
    assert low < 0.18 < high
    assert {*policies_of(result)["tree"]["over"]} == {
        "segment_winners",
        "best_for_all",
        "all:none",
        "all:a",
        "all:b",
    }
    assert sum(leaf["n_units"] for leaf in result["leaves"]) == result["data"]["n_judged"] == 2_250
    assert {leaf["variant"] for leaf in result["leaves"] if leaf["share"] > 0.2} == {"a", "b"}
    assert {variant["variant"] for variant in result["variants"]} == {"a", "b"}
    assert all(len(variant["tenths"]) == 10 for variant in result["variants"])


def test_the_stored_model_chooses_as_the_study_says(engine: Engine, log: pl.DataFrame) -> None:
    analysis = analysed(engine, attributes=["age"])
    with reading(engine) as session:
        scorer = load_scorer(session, analysis.id)
        declared = declared_attributes(session)
    assert scorer.features == (Feature("age", "number"),)
    rows = [{"age": 80}, {"age": 20}]
    gain = scorer.model.gain(matrix(scorer.features, rows), scorer.cost)
    assert [scorer.variants[one] for one in scorer.purse.choose(gain)] == ["a", "b"]
    leaves = analysis.result["leaves"]
    rules = [{"key": leaf["segment"], "rule": leaf["rule"]} for leaf in leaves[:-1]]
    split = SegmentationDefinition.model_validate({"segments": rules, "otherwise": leaves[-1]["segment"]})
    segment_of = compile_segmentation(split, declared).segment_of
    by_rule = {leaf["segment"]: leaf["variant"] for leaf in leaves}
    ages = [{"age": int(age)} if age is not None else {} for age in log["age"][:500]]
    from optimizer.uplift.policy_tree import choices

    by_tree = choices(scorer.tree, matrix(scorer.features, ages))
    assert [by_rule[segment_of(row)] for row in ages] == [scorer.variants[one] for one in by_tree]


def test_a_file_that_names_other_types_is_not_read(engine: Engine) -> None:
    from skops.io import dumps

    with pytest.raises(ModelUnreadable, match="Fraction"):
        unpacked(dumps({"version": 1, "learner": __import__("fractions").Fraction(1, 2)}))
    with pytest.raises(ModelUnreadable):
        unpacked(b"\x80\x04nonsense")
    for other in ([1], "text", {"version": 1}):
        with pytest.raises(ModelUnreadable):
            unpacked(dumps(other))
    with pytest.raises(ModelUnreadable, match="version is 99, not 1"):
        unpacked(dumps({"version": 99}))
    with pytest.raises(ModelUnreadable, match="fitted with scikit-learn"):
        unpacked(dumps({"version": 1, "scikit-learn": "0.1"}))
    with reading(engine) as session, pytest.raises(ModelNotFound, match="no such analysis"):
        load_scorer(session, "nope")


Change = Callable[[Session], object]


def _rid_of(key: str) -> Change:
    return lambda session: session.connection().execute(delete(Decision).where(col(Decision.variant) == key))


def _unlogged(session: Session) -> None:
    for row in session.exec(select(Allocation)):
        row.weights = {"none": 0.98, "a": 0.01, "b": 0.01}


def _costly(session: Session) -> None:
    for row in session.exec(select(SeriesVariant).where(SeriesVariant.key == "a")):
        row.cost = {"per_decision": 0.1, "per_response": 0.0}


def _responses_cost(session: Session) -> None:
    for row in session.exec(select(SeriesVariant).where(SeriesVariant.key == "a")):
        row.cost = {"per_decision": 0.0, "per_response": 0.1}


def _told_afterwards(session: Session) -> None:
    for row in session.exec(select(Decision).where(Decision.variant == "a").limit(500)):
        row.attributes = row.attributes | {"member": True}


def _alike(session: Session) -> None:
    from experiments.tables import Response

    session.connection().execute(delete(Response))


def _declare_height(session: Session) -> None:
    put_attribute(session, "height", payload={"type": "number"}, actor="key/ann")


@pytest.mark.parametrize(
    ("change", "request_", "code", "said"),
    [
        (_rid_of("none"), {}, "no_control", "No unit got control ('none')"),
        (_rid_of("a"), {}, "too_few_units", "a: 0"),
        (_unlogged, {}, "propensities_unusable", "3,000 of 3,000 units can't be compared"),
        (_costly, {}, "margin_missing", "say what one of it is worth with margin"),
        (_responses_cost, {"margin": 1.0, "budget_per_1000": 5.0}, "budget_without_costs", "no variant has any"),
        (_told_afterwards, {}, "attribute_after_decision", "'member' (p = "),
        (_alike, {}, "constant_outcome", "All units have 0 on metric 'visit'"),
        (lambda _: None, {"attributes": ["age", "tier"]}, "undeclared_attributes", "Not declared: 'tier'."),
        (_declare_height, {"attributes": ["height"]}, "no_attributes", "any of height"),
    ],
    ids=[
        "no control",
        "too few",
        "propensities",
        "margin",
        "budget",
        "afterwards",
        "constant",
        "undeclared",
        "attributes",
    ],
)
def test_what_can_not_be_studied_is_refused_with_the_reason(
    engine: Engine, log: pl.DataFrame, change: Change, request_: dict[str, Any], code: str, said: str
) -> None:
    assert len(log) == 3_000
    with transaction(engine) as session:
        change(session)
    analysis = analysed(engine, **request_)
    assert analysis.error is not None
    assert analysis.error["code"] == code
    assert said in analysis.error["detail"]
    with reading(engine) as session:
        assert session.get(AnalysisModel, analysis.id) is None


def test_a_margin_sets_costs_against_visits(engine: Engine, log: pl.DataFrame) -> None:
    """A visit is worth 1 and mail a costs .5, more than the .2 that it gains at best: nobody gets it."""
    assert len(log) == 3_000
    with transaction(engine) as session:
        for row in session.exec(select(SeriesVariant).where(SeriesVariant.key == "a")):
            row.cost = {"per_decision": 0.5, "per_response": 0.0}
    result = analysed(engine, margin=1.0).result
    assert policies_of(result)["model"]["shares"]["a"] == 0.0
    assert policies_of(result)["tree"]["shares"]["a"] == 0.0
    assert policies_of(result)["all:a"]["gain"]["mean"] == pytest.approx(-0.5, abs=0.08)


def test_a_tree_becomes_a_segmentation_and_a_policy_and_is_taken_back(engine: Engine, log: pl.DataFrame) -> None:
    assert len(log) == 3_000
    analysis = analysed(engine)
    with transaction(engine) as session:
        done = promote_targeting(session, analysis.id, request={"reason": "it is worth it"}, actor="key/ann")
    leaves = {f"{leaf['segment']}-{analysis.id[:6]}": leaf["variant"] for leaf in analysis.result["leaves"]}
    assert done["segments"] == leaves
    assert done["segmentation"] == {"key": "mail-uplift", "version": 1}
    assert not done["forced"]
    with reading(engine) as session:
        body = session.get_one(Definition, ("segmentation", "mail-uplift", 1)).body
        lines = [line for line in now_serving(session, KEY) if line["source"] == "policy"]
        policy = current_policy(session, KEY)
        trail = session.exec(select(Audit.subject).where(Audit.action == "promote")).all()
        series = session.exec(select(Series).where(Series.kind == "policy")).one()
    assert [segment["key"] for segment in body["segments"]] == ["outside", *list(leaves)[:-1]]
    assert {line["segment"]: max(line["weights"], key=line["weights"].get) for line in lines} == leaves
    assert policy is not None
    assert all(policy.evidence[leaf]["analysis"] == analysis.id for leaf in leaves)
    assert {"experiment/mail", "policy/mail"} <= set(trail)
    assert (series.segmentation, series.segmentation_version) == ("mail-uplift", 1)
    with transaction(engine) as session:
        back = rollback(session, KEY, request={"reason": "second thoughts"}, actor="key/ann")
    assert back["segments"] == dict.fromkeys(leaves)
    with reading(engine) as session:
        assert {line["source"] for line in now_serving(session, KEY)} == {"default"}


def test_a_second_study_takes_the_place_of_the_first(engine: Engine, log: pl.DataFrame) -> None:
    assert len(log) == 3_000
    first, second = analysed(engine), analysed(engine, seed=2)
    with transaction(engine) as session:
        promote_targeting(session, first.id, request={"reason": "one"}, actor="key/ann")
        _reopen(session)
        done = promote_targeting(session, second.id, request={"reason": "two"}, actor="key/ann")
    with reading(engine) as session:
        policy = current_policy(session, KEY)
    assert policy is not None
    assert set(policy.entries) == set(done["segments"])
    assert done["segmentation"]["version"] == 2


def _reopen(session: Session) -> None:
    for series in session.exec(select(Series).where(Series.kind == "experiment")):
        series.closed_segments = {}


def test_what_is_not_borne_out_is_not_promoted_unless_forced(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "mail.csv"
    campaign_log(path, strength=0.0)
    with transaction(engine) as session:
        import_campaign(session, path)
    analysis = analysed(engine)
    assert analysis.result["verdict"] != "personalise"
    with transaction(engine) as session:
        row = session.get_one(Analysis, analysis.id)
        if len(row.result["leaves"]) == 1:  # one variant for all
            with pytest.raises(TargetingRefused, match="one leaf"):
                promote_targeting(session, analysis.id, request={"reason": "why not", "force": True}, actor="key/ann")
            return
        with pytest.raises(TargetingRefused, match="The verdict is"):
            promote_targeting(session, analysis.id, request={"reason": "why not"}, actor="key/ann")
        done = promote_targeting(session, analysis.id, request={"reason": "why not", "force": True}, actor="key/ann")
    assert done["forced"]


def test_values_that_were_never_seen_count_as_missing() -> None:
    features = [
        Feature("country", "string", ("DE", "AT")),
        Feature("tags", "member", ("new",)),
        Feature("since", "datetime"),
    ]
    rows = [
        {"country": "AT", "tags": ["old", "new"], "since": "1970-01-02T00:00:00Z"},
        {"country": "XX", "tags": []},
        {},
    ]
    expected = [[1.0, 1.0, 86_400.0], [np.nan, 0.0, np.nan], [np.nan, np.nan, np.nan]]
    assert np.array_equal(matrix(features, rows), expected, equal_nan=True)


def test_values_of_another_type_than_the_attribute_has_now_count_as_missing() -> None:
    features = [Feature("age", "number"), Feature("member", "boolean"), Feature("tags", "member", ("new",))]
    assert np.isnan(matrix(features, [{"age": "old", "member": 3, "tags": "new"}])).all()


def test_units_that_weigh_far_apart_are_worth_few() -> None:
    """By hand: 1,000 units of variant b at propensity .9 and two at .0001 are worth (1,111 + 20,000)^2 / 2e8 = 2.2."""
    shares = np.full((2_000, 2), 0.5)
    shares[:1_000] = [0.1, 0.9]
    shares[:2] = [0.9999, 0.0001]
    variant = np.repeat([1, 0], 1_000)
    with pytest.raises(FewEffectiveUnits, match="'b', weighed by one over their propensities, are worth 2 equal ones"):
        check_weights(variant, shares, keys=["a", "b"])
