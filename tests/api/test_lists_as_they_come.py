"""Lists as people's tools write them, and as somebody who means harm would."""

import csv
import datetime as dt
import gzip
import io
import json
import tracemalloc
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from tests.api.conftest import Client

BATCH = "/v1/decisions/batch?placement=welcome"
CSV = {"Content-Type": "text/csv"}
NDJSON = {"Content-Type": "application/x-ndjson"}
PARQUET = {"Content-Type": "application/vnd.apache.parquet"}


def _decide(client: Client, data: bytes, query: str = "") -> tuple[list[dict[str, str]], dict[str, Any]]:
    answer = client.post(BATCH + query, data=data, headers=CSV)
    assert answer.status_code == 200, answer.text
    *rows, last = csv.DictReader(io.StringIO(answer.data.decode(), newline=""))
    assert last["error_code"] == "summary"
    return rows, json.loads(last["error_detail"])


def _parquet(frame: pl.DataFrame, **options: Any) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file, **options)
    return file.getvalue()


def test_a_header_of_a_hundred_thousand_names_is_refused_at_once(running: Client) -> None:
    data = ("customer_id," + ",".join(f"c{i}" for i in range(100_000)) + "\n").encode()
    answer = running.post(BATCH, data=data, headers=CSV)
    assert answer.status_code == 422
    assert "columns" in answer.text


def test_a_quote_in_the_wrong_place_harms_its_row_alone(running: Client) -> None:
    rows, summary = _decide(running, b'customer_id,note\nc1,a\nc2,"b"c\nc3,c\n')
    assert [row["error_code"] for row in rows] == ["", "invalid_input", ""]
    assert summary["is_complete"] is True
    assert "line 3" in rows[1]["error_detail"]


def test_a_row_that_is_no_utf8_harms_its_row_alone_and_is_named(running: Client) -> None:
    rows, summary = _decide(running, "customer_id,note\nc1,a\nc2,Müller\nc3,c\n".encode("latin-1"))
    assert [row["error_code"] for row in rows] == ["", "invalid_input", ""]
    assert "UTF-8" in rows[1]["error_detail"]
    assert "line 3" in rows[1]["error_detail"]
    assert rows[1]["customer_id"] == "c2"
    assert summary["n_decided"] == 2


def test_a_list_of_another_alphabet_is_refused_with_a_reason(running: Client) -> None:
    answer = running.post(BATCH, data="customer_id\nc1\n".encode("utf-16"), headers=CSV)
    assert answer.status_code == 422
    assert "UTF-8" in answer.text


def test_an_empty_cell_says_nothing(running: Client) -> None:
    running.put("/v1/attributes/orders", {"type": "number"})
    rows, _ = _decide(running, b"customer_id,orders,attr.first_name\nc1,,\nc2,3,Bo\n", "&attr.first_name=you")
    assert [row["error_code"] for row in rows] == ["", ""]
    assert rows[0]["content.text"] in {"Hi you", "A gift inside"}


def test_rows_longer_than_the_header_and_nul_are_errors_in_the_row(running: Client) -> None:
    rows, _ = _decide(running, b"customer_id,x\nc1,1,2,3\nc\x002,1\nc3,1\n")
    assert [row["error_code"] for row in rows] == ["invalid_input", "invalid_input", ""]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_any_newline(running: Client, newline: str) -> None:
    rows, _ = _decide(running, newline.join(["customer_id;a", "n1;1", "n2;2"]).encode())
    assert [row["customer_id"] for row in rows] == ["n1", "n2"]


def test_blank_lines_and_a_header_alone(running: Client) -> None:
    assert _decide(running, b"customer_id\n\n\nb1\n\n")[1]["n_rows"] == 1
    assert _decide(running, b"customer_id\n")[1]["n_rows"] == 0


def test_parquet_of_every_type_comes_back(running: Client) -> None:
    frame = pl.DataFrame(
        {
            "customer_id": [1, 2],
            "money": [Decimal("1.50"), None],
            "raw": [b"\xff\x00", None],
            "at": [dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC), None],
            "time": [dt.time(1, 2), None],
            "span": [dt.timedelta(seconds=5), None],
            "many": [[dt.date(2026, 1, 1)], []],
            "object": [{"a": Decimal("1.0")}, {"a": None}],
            "nan": [float("nan"), 1.5],
            "cat": pl.Series(["x", None], dtype=pl.Categorical),
        }
    )
    for accept in (PARQUET["Content-Type"], "text/csv", "application/x-ndjson"):
        answer = running.post(BATCH, data=_parquet(frame), headers=PARQUET | {"Accept": accept})
        assert answer.status_code == 200
        assert b"list_unreadable" not in answer.data
        if accept == "text/csv":
            rows = list(csv.DictReader(io.StringIO(answer.data.decode(), newline="")))
            assert (rows[0]["customer_id"], rows[0]["money"], rows[0]["error_code"]) == ("1", "1.50", "")
        answer.close()


def test_parquet_columns_are_mapped_and_named_when_missing(running: Client) -> None:
    data = _parquet(pl.DataFrame({"mail": ["a"]}))
    answer = running.post(BATCH, data=data, headers=PARQUET)
    assert answer.status_code == 422, answer.data[:300]
    assert "'mail'" in answer.text
    answer = running.post(BATCH + "&map.customer_id=mail", data=data, headers=PARQUET | {"Accept": "text/csv"})
    assert next(csv.DictReader(io.StringIO(answer.text)))["error_code"] == ""


def test_what_is_nested_too_deep_to_be_written_harms_its_row_alone(running: Client) -> None:
    deep = "[" * 400 + "]" * 400
    lines = f'{{"customer_id": "c1", "x": {deep}}}\n{{"customer_id": "c2"}}\n'.encode()
    answer = running.post(BATCH, data=lines, headers=NDJSON)
    first, second, last = [json.loads(line) for line in answer.data.splitlines()]
    assert "too deep" in first["error"]["detail"]
    assert second["recorded"] is True
    assert last["summary"]["is_complete"] is True


def test_long_rows_do_not_gather_in_memory(running: Client) -> None:
    """A list of 100 MB, of which gzip makes 100 kB: a slice of it at a time."""
    line = b"c%d," + b"x" * 100_000 + b"\n"
    data = gzip.compress(b"customer_id,x\n" + b"".join(line % i for i in range(1_000)))
    tracemalloc.start()
    answer = running.post(BATCH, data=data, headers=CSV | {"Content-Encoding": "gzip"}, buffered=False)
    n_bytes = sum(map(len, answer.iter_encoded()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    answer.close()
    assert n_bytes > 100_000_000
    assert peak < 50_000_000


def test_ndjson_rows_keep_their_own_members(running: Client) -> None:
    lines = b'{"customer_id": "c1", "row": 7, "error": "mine", "content": "x", "summary": 1}\n{"row": 3, "error": 1}\n'
    answer = running.post(BATCH, data=lines, headers=NDJSON)
    first, second, last = [json.loads(line) for line in answer.data.splitlines()]
    assert (first["row"], first["error"], first["content"]) == (7, "mine", "x")
    assert (second["row"], second["error"]) == (3, 1)
    assert list(last) == ["summary"]


def test_a_wide_answer_from_ndjson_has_the_columns_of_the_first_good_row(running: Client) -> None:
    answer = running.post(BATCH, data=b'oops\n{"customer_id": "c1", "x": 1}\n', headers=NDJSON | {"Accept": "text/csv"})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["error_code"] for row in rows] == ["invalid_input", "", "summary"]
    assert rows[1]["customer_id"] == "c1"


def test_a_report_sent_twice_counts_once(running: Client) -> None:
    running.decide("anna")
    report = b"customer_id,occurred_at,value\nanna,2100-01-01T00:00:00Z,5\nanna,2100-01-01T00:00:00Z,7\n"
    for n_accepted, n_duplicates in ((2, 0), (0, 2)):
        answer = running.post("/v1/outcomes?event=purchase", data=report, headers=CSV).get_json()
        assert (answer["accepted"], answer["duplicates"]) == (n_accepted, n_duplicates)


def test_times_as_spreadsheets_write_them(running: Client) -> None:
    report = b"customer_id,occurred_at\nanna,2026-11-20 10:11:12\nanna,2026-11-20\nanna,\n"
    answer = running.post("/v1/outcomes?event=click", data=report, headers=CSV).get_json()
    assert answer["rejected"] == []


def test_an_outcome_report_of_wrong_values_names_them(running: Client) -> None:
    report = b"customer_id,value\nanna,nan\nanna,1e400\nanna,\nanna,inf\n"
    answer = running.post("/v1/outcomes?event=purchase", data=report, headers=CSV).get_json()
    assert [one["index"] for one in answer["rejected"]] == [0, 1, 3]
