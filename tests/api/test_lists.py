"""Lists over HTTP: in and out as CSV, NDJSON and Parquet, in order, with bad rows' errors in the rows."""

import csv
import gzip
import io
import json
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlmodel import func, select

from experiments import journal
from experiments.database import reading
from experiments.lists.errors import ListUnreadable
from experiments.lists.reading import Encoding, Row, read_table
from experiments.tables import Decision, Outcome
from experiments.worker import Worker
from tests.api.conftest import Client, assert_problem, pointers

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BATCH = "/v1/decisions/batch?placement=welcome"
CSV = {"Content-Type": "text/csv"}
JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
PARQUET = {"Content-Type": "application/vnd.apache.parquet"}


def _csv(data: bytes) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """The rows of a CSV answer, and its summary."""
    *rows, last = csv.DictReader(io.StringIO(data.decode(), newline=""))
    assert last["error_code"] == "summary"
    return rows, json.loads(last["error_detail"])


def _ndjson(data: bytes) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    *rows, last = [json.loads(line) for line in data.splitlines()]
    return rows, last["summary"]


def test_csv_comes_back_in_order_with_its_own_columns_and_a_summary(running: Client, worker: Worker) -> None:
    lines = ["customer_id,note,attr.first_name", 'c1,"a, b",Anna', "c2,,", ",x,Nobody", "c3,x", 'c4,"two\nlines",Dora']
    answer = running.post(BATCH, data="\r\n".join(lines).encode(), headers=CSV)
    assert answer.content_type == "text/csv; charset=utf-8"
    rows, summary = _csv(answer.data)
    assert [row["customer_id"] for row in rows] == ["c1", "c2", "", "c3", "c4"]
    assert rows[0]["note"] == "a, b"
    assert rows[4]["note"] == "two\nlines"
    assert rows[0]["content.text"] in {"Hi Anna", "A gift inside"}
    assert [row["error_code"] for row in rows] == ["", "", "invalid_input", "invalid_input", ""]
    assert "/customer_id" in rows[2]["error_detail"]
    assert "2 values for 3 columns" in rows[3]["error_detail"]
    counts = (summary["n_rows"], summary["n_decided"], summary["n_waiting"], summary["n_failed"])
    assert counts == (5, 3, 0, 2)
    assert (summary["is_complete"], summary["error"]) == (True, None)
    single = running.decide("c1")
    assert (rows[0]["decision_id"], rows[0]["variant"]) == (single["decision_id"], single["variant"])
    with reading(worker.engine) as session:
        assert session.exec(select(func.count()).select_from(Decision)).one() == 3


def test_columns_are_mapped_and_constants_hold_for_all_rows(running: Client) -> None:
    running.put("/v1/attributes/orders", {"type": "number"})
    query = "&map.customer_id=Email%20ID&map.attr.first_name=Given&attr.first_name=there"
    data = "Email ID;Given;orders\n1;Anna;3\n2;;many\n".encode("utf-8-sig")
    rows, _ = _csv(running.post(BATCH + query, data=data, headers=CSV).data)
    assert rows[0]["variant"]
    assert (rows[1]["error_code"], "/attributes/orders" in rows[1]["error_detail"]) == ("invalid_input", True)


def test_ndjson_in_and_out(running: Client) -> None:
    lines = [{"customer_id": "c1", "attributes": {"first_name": "A"}, "tag": [1]}, {"customer_id": 7}, 5, {"a": 1}]
    data = "\n".join(map(json.dumps, lines)) + "\n{broken\n\n"
    answer = running.post(BATCH, data=data, headers=NDJSON)
    rows, summary = _ndjson(answer.data)
    assert [row.get("customer_id") for row in rows] == ["c1", 7, None, None, None]
    assert rows[0]["tag"] == [1]
    assert rows[0]["recorded"] is True
    assert [row.get("error", {}).get("code") for row in rows] == [None, None, *["invalid_input"] * 3]
    assert (summary["n_decided"], summary["n_failed"], summary["is_complete"]) == (2, 3, True)


def test_parquet_in_and_out_keeps_types_and_order(running: Client) -> None:
    frame = pl.DataFrame({"customer_id": ["p1", None, "p3"], "orders": [1, 2, 3]})
    file = io.BytesIO()
    frame.write_parquet(file)
    answer = running.post(BATCH, data=file.getvalue(), headers=PARQUET)
    back = pl.read_parquet(io.BytesIO(answer.data))
    answer.close()
    assert back["customer_id"].to_list() == ["p1", None, "p3"]
    assert back["error_code"].to_list() == [None, "invalid_input", None]
    assert back["propensity"].dtype == pl.Float64
    assert json.loads(answer.headers["X-Summary"])["n_decided"] == 2


def test_integers_beyond_64_bits_come_back_as_text(running: Client) -> None:
    wide = pl.Series([2**70], dtype=pl.Int128)
    file = io.BytesIO()
    pl.DataFrame({"customer_id": ["p1"], "event": ["click"], "value": wide, "list": wide.implode()}).write_parquet(file)
    (row,), summary = _ndjson(running.post(f"{BATCH}&format=ndjson", data=file.getvalue(), headers=PARQUET).data)
    assert (row["value"], row["list"]) == ("1180591620717411303424", "[1180591620717411303424]")
    assert summary["is_complete"] is True
    recorded = running.post("/v1/outcomes", data=file.getvalue(), headers=PARQUET).get_json()
    assert (recorded["accepted"], recorded["n_rejected"]) == (0, 1)  # 2**70 is more than a value may be


@pytest.mark.parametrize("form", ["csv", "ndjson", "json", "parquet"])
@pytest.mark.parametrize("sent", ["csv", "json"])
def test_nothing_of_a_list_stays_on_disk(
    running: Client, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, sent: str, form: str
) -> None:
    folder = tmp_path_factory.mktemp("lists")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    if sent == "csv":
        answer = running.post(f"{BATCH}&format={form}", data=b"customer_id\nc1\n", headers=CSV)
    else:
        body = {"placement": "welcome", "items": [{"customer_id": "c1"}]}
        answer = running.post(f"/v1/decisions/batch?format={form}", body)
    assert len(answer.data) > 0
    answer.close()
    assert list(folder.iterdir()) == []


def test_an_item_that_is_nested_too_deep_harms_no_other(running: Client) -> None:
    deep = "[" * 300 + "]" * 300  # as much as can be read, and not written again
    data = f'{{"placement": "welcome", "items": [{{"customer_id": "c1"}}, {{"customer_id": "c2", "x": {deep}}}, 5]}}'
    rows, summary = _ndjson(running.post("/v1/decisions/batch?format=ndjson", data=data, headers=JSON).data)
    assert [row.get("error", {}).get("detail") for row in rows] == [
        None,
        "the document: is nested too deep",
        "the document: must be an object, not 5",
    ]
    assert (summary["n_decided"], summary["n_failed"], summary["is_complete"]) == (1, 2, True)


@pytest.mark.parametrize("accept", ["text/csv", "application/x-ndjson", "application/json", PARQUET["Content-Type"]])
@pytest.mark.parametrize("sent", ["csv", "json"])
def test_the_answer_has_the_form_that_is_accepted(running: Client, sent: str, accept: str) -> None:
    if sent == "csv":
        answer = running.post(BATCH, data=b"customer_id\nc1\n", headers=CSV | {"Accept": accept})
    else:
        body = {"placement": "welcome", "items": [{"customer_id": "c1"}]}
        answer = running.post("/v1/decisions/batch", body, headers={"Accept": accept})
    assert answer.content_type.partition(";")[0] == accept
    if accept == "application/json":
        assert answer.get_json()["decisions"][0]["customer_id"] == "c1"
    answer.close()


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_compressed_lists(running: Client, encoding: str) -> None:
    data = b"customer_id\n" + b"".join(b"z%d\n" % i for i in range(5_000))
    packed = gzip.compress(data) if encoding == "gzip" else zstd.compress(data)
    answer = running.post(BATCH, data=packed, headers=CSV | {"Content-Encoding": encoding})
    rows, summary = _csv(answer.data)
    assert [row["customer_id"] for row in rows] == [f"z{i}" for i in range(5_000)]
    assert summary["n_decided"] == 5_000


def test_a_name_that_is_taken_stays_the_lists_own(running: Client) -> None:
    rows, _ = _csv(running.post(BATCH, data=b"customer_id,segment\nc1,mine\n", headers=CSV).data)
    assert rows[0]["segment"] == "mine"
    assert rows[0]["decided_segment"] == "everyone"


@pytest.mark.parametrize(
    ("data", "headers", "status", "said"),
    [
        (b"", CSV, 422, "it is empty"),
        (b"email\nx\n", CSV, 422, "there are 'email'"),
        (b"customer_id,customer_id\n1,2\n", CSV, 422, "twice"),
        ("customer_id\n1\n".encode("utf-16"), CSV, 422, "UTF-16"),
        (b'customer_id\n"x', CSV, 200, "list_unreadable"),
        (b"PAR1nothing", PARQUET, 422, "no Parquet"),
        (b"customer_id\n1\n", CSV | {"Content-Encoding": "br"}, 415, "gzip or as zstd"),
        (b"no gzip", CSV | {"Content-Encoding": "gzip"}, 422, "not compressed as it says"),
        (
            gzip.compress(b"customer_id\n1\n" * 9_999, mtime=0)[:-20],
            CSV | {"Content-Encoding": "gzip"},
            200,
            "list_unreadable",
        ),
    ],
)
def test_what_is_no_list_is_refused_or_ends_with_the_reason(
    running: Client, data: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    answer = running.post(BATCH, data=data, headers=headers)
    assert answer.status_code == status
    assert said in answer.text
    if status == 200:
        assert _csv(answer.data)[1]["is_complete"] is False


@pytest.mark.parametrize(
    ("query", "pointer"),
    [("map.customer=x", "/customer"), ("colour=red", "/colour"), ("map.customer_id=Nope", "/map.customer_id")],
)
def test_wrong_mappings_are_named(running: Client, query: str, pointer: str) -> None:
    answer = running.post(f"{BATCH}&{query}", data=b"customer_id\n1\n", headers=CSV)
    assert pointer in pointers(assert_problem(answer, 422, "invalid_input"))


def test_without_a_placement_nothing_is_read(running: Client) -> None:
    assert_problem(running.post("/v1/decisions/batch", data=b"x", headers=CSV), 400, "missing_parameter")
    answer = running.post("/v1/decisions/batch?placement=no", data=b"customer_id\n1\n", headers=CSV)
    assert_problem(answer, 404, "placement_not_found")


@pytest.mark.parametrize("packed", [gzip.compress(b" " * 5_000_000, mtime=0), zstd.compress(b" " * 5_000_000)])
def test_a_bomb_bursts_nothing(worker: Worker, running: Client, packed: bytes) -> None:
    object.__setattr__(worker.config, "max_list_bytes", 1_000_000)
    encoding = "gzip" if packed.startswith(b"\x1f\x8b") else "zstd"
    answer = running.post(BATCH, data=packed, headers=CSV | {"Content-Encoding": encoding})
    assert_problem(answer, 422, "list_unreadable")
    answer = running.post(BATCH, data=b"x" * 1_000_001, headers=CSV)
    assert answer.status_code == 413


@pytest.mark.parametrize("value", ["1_0", "nan", "\u0661", "0x10", "1e999"])
def test_a_value_that_is_no_plain_number_is_refused(running: Client, value: str) -> None:
    report = f"customer_id,value\nanna,{value}\n".encode()
    answer = running.post("/v1/outcomes?event=click", data=report, headers=CSV).get_json()
    assert (answer["accepted"], answer["n_rejected"]) == (0, 1)
    assert "/value" in answer["rejected"][0]["detail"]


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_list_that_is_cut_short_is_not_taken_for_a_shorter_one(tmp_path: Path, encoding: Encoding) -> None:
    numbers = np.random.default_rng(3).integers(0, 10**9, size=100_000)  # several blocks of zstd
    text = b"customer_id\n" + b"".join(b"%d\n" % number for number in numbers)
    whole = gzip.compress(text) if encoding == "gzip" else zstd.compress(text)
    for size, n_least in ((10, 0), (len(whole) // 2, 10_000), (len(whole) - 1, 50_000)):
        path = tmp_path / f"{size}.csv"
        path.write_bytes(whole[:size])
        rows: list[Row] = []
        with pytest.raises(ListUnreadable, match="cut short"):
            rows.extend(read_table(path, "csv", encoding=encoding, max_bytes=10**9).rows)
        assert n_least <= len(rows) < len(numbers)


def test_a_click_report_is_recorded_by_placement_customer_and_occasion(running: Client, worker: Worker) -> None:
    default = {"key": "d", "content": {"text": "x"}}
    running.put("/v1/placements/other", {"holdout": {"share": 0.0}, "default": default})
    decided = running.decide("anna")
    report = "Email ID,Clicked At,Amount\nanna,2100-01-01T00:00:00Z,\nanna,,12.5\nbert,,x\n"
    query = "?event=click&map.customer_id=Email%20ID&map.occurred_at=Clicked%20At&map.value=Amount"
    answer = running.post(f"/v1/outcomes{query}&placement=welcome", data=report, headers=CSV).get_json()
    assert (answer["accepted"], answer["n_rejected"]) == (2, 1)
    assert answer["rejected"][0]["index"] == 2
    assert "/value" in answer["rejected"][0]["detail"]
    (response,) = running.get(f"/v1/decisions/{decided['decision_id']}").get_json()["responses"]
    assert response["n_outcomes"] == 1
    elsewhere = running.post(f"/v1/outcomes{query}&placement=other", data=report, headers=CSV).get_json()
    assert "attributed" not in elsewhere["statuses"]
    slip = running.post(f"/v1/outcomes{query}&placement=welcom", data=report, headers=CSV)
    assert_problem(slip, 404, "placement_not_found")
    with reading(worker.engine) as session:
        assert set(session.exec(select(Outcome.placement))) == {"welcome", "other"}


@given(
    data=st.binary(max_size=300) | st.text(max_size=200).map(str.encode), form=st.sampled_from([CSV, NDJSON, PARQUET])
)
@settings(max_examples=80, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_any_bytes_are_an_answer_or_a_refusal(running: Client, data: bytes, form: dict[str, str]) -> None:
    for path in (BATCH, "/v1/outcomes?event=click"):
        answer = running.post(path, data=data, headers=form)
        assert answer.status_code in {200, 400, 422}, answer.text


def test_what_takes_longer_than_the_door_waits_counts_once(
    running: Client, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither row has an id: what was being committed when the door tried again must not come back as another."""
    monkeypatch.setattr(journal, "MAX_COMMIT_SECONDS", 0.05)
    with worker.engine.connect() as holding:
        is_postgresql = holding.dialect.name == "postgresql"
        holding.execute(text("LOCK TABLE outcome IN EXCLUSIVE MODE" if is_postgresql else "DELETE FROM idempotency"))
        release = threading.Timer(0.5, holding.rollback)
        release.start()
        answer = running.post("/v1/outcomes", data=b"customer_id,event\nc1,click\nc2,click\n", headers=CSV).get_json()
        release.join()
    assert answer["accepted"] + answer["duplicates"] == 2
    with reading(worker.engine) as session:
        assert session.exec(select(func.count()).select_from(Outcome)).one() == 2
