"""Exports: every row once over consecutive spans, nothing unsettled, exact money, files that are whole."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import Engine, update

from experiments.database import transaction
from experiments.decisions.rows import write_decisions
from experiments.errors import ExportNotWritten, InvalidInput
from experiments.exports import rows, tallies
from experiments.exports.export import KINDS, export
from experiments.exports.files import Columns, Format, Rows, write_file
from experiments.outcomes.rows import write_outcomes
from experiments.series import PinnedCovariate
from experiments.tables import Outcome
from tests.experiments.rows import CLICK, DAY, add_series, decision, outcome
from tests.experiments.tallied import decide, record
from tests.experiments.test_ratios import BASKET

RECENT = datetime.now(UTC) - DAY
HOUR = timedelta(hours=1)


@pytest.fixture
def shop(engine: Engine) -> Engine:
    """Two series; six customers decided for an hour apart; two of them bought, one twice."""
    add_series(engine, 7)
    add_series(engine, 8, experiment="other", kind="experiment")
    decided = [
        decision(7, f"c{i}", decided_at=RECENT + i * HOUR, attributes={"tier": "gold"}, variant="ab"[i % 2])
        for i in range(6)
    ]
    bought = [
        outcome("purchase", customer, value=value, at=RECENT + 6 * HOUR + timedelta(minutes=i))
        for i, (customer, value) in enumerate([("c0", "0.10"), ("c0", "12345678901234567890.01"), ("c1", "-3")])
    ]
    with transaction(engine) as session:
        write_decisions(session.connection(), decided, shard=1)
        write_decisions(session.connection(), [decision(8, "c0", decided_at=RECENT)], shard=2)
    with transaction(engine) as session:
        write_outcomes(session.connection(), bought[:1], shard=1)
        write_outcomes(session.connection(), bought[1:], shard=2)
    return engine


def _read(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path)


def _export(engine: Engine, kind: str, path: Path, **span: datetime) -> pl.DataFrame:
    exported = export(engine, kind, path=path, form="parquet", **span)
    frame = _read(path)
    assert frame.height == exported.n_rows
    return frame


def test_a_decision_is_exported_as_it_was_made(shop: Engine, tmp_path: Path) -> None:
    frame = _export(shop, "decisions", tmp_path / "d.parquet")
    assert frame.height == 7
    (row,) = frame.filter(pl.col("customer_id") == "c3").to_dicts()
    made = decision(7, "c3")
    assert row["decision_id"] == made.id.hex()
    assert (row["series"], row["kind"], row["placement"], row["experiment"]) == (
        7,
        "experiment",
        "hero",
        "experiment-7",
    )
    assert (row["variant"], row["propensity"], row["occasion_id"], row["late"]) == ("b", 0.5, None, False)
    assert row["decided_at"] == RECENT + 3 * HOUR
    assert row["attributes"] == '{"tier":"gold"}'
    assert frame.schema["decided_at"] == pl.Datetime("us", "UTC")


def test_money_is_exported_to_its_last_digit(shop: Engine, tmp_path: Path) -> None:
    frame = _export(shop, "outcomes", tmp_path / "o.parquet")
    assert sorted(map(Decimal, frame["value"])) == [Decimal(-3), Decimal("0.10"), Decimal("12345678901234567890.01")]
    assert set(frame["status"]) == {"attributed"}
    assert sorted(frame["received_at"]) == [RECENT + 6 * HOUR + timedelta(minutes=i) for i in range(3)]


def test_an_outcome_says_which_correction_excludes_it(shop: Engine, tmp_path: Path) -> None:
    with transaction(shop) as session:
        session.connection().execute(update(Outcome).where(Outcome.value == Decimal(-3)).values(excluded_by=4))  # type: ignore[arg-type]
    frame = _export(shop, "outcomes", tmp_path / "o.parquet")
    assert frame.columns[-3:] == ["excluded_by", "placement", "machine"]
    assert {value: by for value, by in frame.select("value", "excluded_by").rows() if by is not None} == {"-3": 4}


def test_tallies_are_summed_over_shards_with_a_row_for_every_metric(
    shop: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: c0 bought for 0.10 in one shard and a great deal in another; capped at 100. Pages of two tallies."""
    monkeypatch.setattr(tallies, "PART", 2)
    frame = _export(shop, "tallies", tmp_path / "t.parquet")
    assert frame.height == 7 * 3
    assert frame["n_units"].sum() == 7 * 3
    assert (
        not frame.select("series", "segment", "allocation_version", "variant", "hour", "metric").is_duplicated().any()
    )
    first = frame.filter((pl.col("series") == 7) & (pl.col("hour") <= RECENT) & (pl.col("metric") == "revenue"))
    (row,) = first.to_dicts()
    assert (row["n_units"], row["n_responders"]) == (1, 1)
    assert (Decimal(row["total"]), Decimal(row["capped_total"])) == (Decimal("12345678901234567890.11"), Decimal(100))
    assert set(frame.filter(pl.col("metric") == "click")["total"]) == {"0"}


def test_tallies_of_ratios_and_covariates_are_exported_exactly_and_null_where_there_are_none(
    engine: Engine, tmp_path: Path
) -> None:
    """By hand: anna (covariate 0.5) buys for 0.1 and, in another shard, 0.2; bob's is missing, and counts as 3."""
    pinned = {"attribute": "orders", "missing": 3.0}
    covariate = PinnedCovariate.from_json(pinned)
    add_series(engine, 7, metrics=(CLICK, BASKET), covariate=pinned)
    add_series(engine, 8, metrics=(CLICK, BASKET))
    anna = decision(7, "anna", decided_at=RECENT, covariate=0.5, of_covariate=covariate)
    decide(engine, anna, decision(7, "bob", decided_at=RECENT, of_covariate=covariate), shard=1)
    decide(engine, decision(8, "anna", decided_at=RECENT), shard=2)
    for shard, value in enumerate(("0.1", "0.2")):
        record(engine, outcome("purchase", "anna", value=value, at=RECENT + HOUR), shard=shard)
    frame = _export(engine, "tallies", tmp_path / "t.parquet")
    new = frame.columns[frame.columns.index("capped_squares") + 1 :]
    found = {(row["series"], row["metric"]): [row[name] for name in new] for row in frame.to_dicts()}
    assert found == {
        (7, "basket"): ["2", "4", "0.6", "0.6", 1, "3.5", "9.25", "0.15", "0.15", "1.0"],
        (7, "click"): [None] * 4 + [1, "3.5", "9.25", "0", "0", None],
        (8, "basket"): ["2", "4", "0.6", "0.6", *[None] * 6],
        (8, "click"): [None] * 10,
    }
    decided = _export(engine, "decisions", tmp_path / "d.parquet").sort("series", "customer_id")
    assert decided["covariate"].to_list() == [0.5, None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_consecutive_spans_have_every_row_once(
    shop: Engine, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "PART", 2)
    whole = _export(shop, kind, tmp_path / "whole.parquet")
    cuts = [RECENT - DAY, *(RECENT + timedelta(minutes=95 * i) for i in range(6)), None]
    parts, since = [], cuts[0]
    for i, cut in enumerate(cuts[1:]):
        span = {"since": since} | ({} if cut is None else {"until": cut})
        exported = export(shop, kind, path=tmp_path / f"{i}.parquet", form="parquet", **span)
        parts.append(_read(tmp_path / f"{i}.parquet"))
        since = exported.until
    together = pl.concat(parts)
    assert together.sort(together.columns).equals(whole.sort(whole.columns))


def test_what_may_still_wait_in_a_journal_is_left_for_the_next_export(engine: Engine, tmp_path: Path) -> None:
    add_series(engine, 7)
    now = datetime.now(UTC)
    times = {"settled": now - timedelta(seconds=70), "young": now - timedelta(seconds=5)}
    with transaction(engine) as session:
        made = [decision(7, customer, decided_at=moment) for customer, moment in times.items()]
        write_decisions(session.connection(), made, shard=1)
    exported = export(engine, "decisions", path=tmp_path / "d.parquet", form="parquet")
    assert _read(tmp_path / "d.parquet")["customer_id"].to_list() == ["settled"]
    assert exported.until <= datetime.now(UTC) - timedelta(minutes=1)
    again = export(engine, "decisions", path=tmp_path / "d.parquet", form="parquet", since=now)
    assert (again.n_rows, again.until) == (0, now)


def test_csv_tells_an_absent_text_from_an_empty_one_and_says_times_in_utc(tmp_path: Path) -> None:
    columns: Columns = {"a": "text", "b": "whole", "c": "number", "d": "flag", "at": "time"}
    moment = datetime(2026, 6, 1, 12, 0, 0, 5, tzinfo=UTC)
    first: Rows = [("x,\n", 1, 0.1, True, moment)]
    second: Rows = [("", None, None, None, None), (None, 2, 1e-9, False, moment)]
    assert write_file(tmp_path / "f.csv", [first, second], columns=columns, form="csv") == 3
    assert (tmp_path / "f.csv").read_text() == (
        'a,b,c,d,at\n"x,\n",1,0.1,true,2026-06-01T12:00:00.000005Z\n"",,,,\n,2,1e-9,false,2026-06-01T12:00:00.000005Z\n'
    )


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_file_without_rows_has_its_columns(tmp_path: Path, form: Format) -> None:
    path = tmp_path / f"f.{form}"
    assert write_file(path, [], columns={"a": "text", "at": "time"}, form=form) == 0
    frame = pl.read_csv(path) if form == "csv" else _read(path)
    assert (frame.columns, frame.height) == (["a", "at"], 0)


def test_a_span_that_cannot_be_is_refused(shop: Engine, tmp_path: Path) -> None:
    later = datetime.now(UTC) + HOUR
    with pytest.raises(InvalidInput, match="future"):
        export(shop, "decisions", path=tmp_path / "f.csv", form="csv", since=later)
    with pytest.raises(InvalidInput, match="before since"):
        export(shop, "decisions", path=tmp_path / "f.csv", form="csv", since=RECENT, until=RECENT - HOUR)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_an_export_that_fails_leaves_no_file(shop: Engine, tmp_path: Path, form: Format) -> None:
    def interrupted() -> Iterator[Rows]:
        yield [("a",)]
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        write_file(tmp_path / f"f.{form}", interrupted(), columns={"a": "text"}, form=form)
    with pytest.raises(ExportNotWritten, match="No such file"):
        export(shop, "decisions", path=tmp_path / "none" / f"f.{form}", form=form)
