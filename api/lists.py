"""Lists over HTTP: CSV, NDJSON and Parquet, kept on disk while they are worked on, answered as they are.

A list is read to its end before its answer begins: a client that sends all before it reads would else wait for ever.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import orjson
from flask import Response
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout

from api.errors import MissingParameter, UnsupportedMediaType
from api.files import CSV, PARQUET, file_answer
from api.folders import Folder, new_folder
from api.idempotency import key_of_request
from api.metrics import count_decisions
from api.reading import content_encoding, query_parameters
from api.requests import current_request
from api.state import current_worker
from api.threads import received
from experiments.decide import Decided
from experiments.lists.columns import Layout, sources_of
from experiments.lists.deciding import FIELDS, Answered, Summary, content_members, decide_rows
from experiments.lists.reading import Encoding, Form, Table, read_table, row_of_json
from experiments.lists.recording import FIELDS as OUTCOME_FIELDS
from experiments.lists.recording import RecordedList, record_rows
from experiments.lists.writing import Writer, streamed, write_parquet

NDJSON: Final = "application/x-ndjson"
_FORMS: Final[dict[str, Form]] = {
    CSV: "csv",
    NDJSON: "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    PARQUET: "parquet",
}
LIST_TYPES: Final = (CSV, NDJSON, PARQUET)
_TYPES: Final = {"csv": f"{CSV}; charset=utf-8", "ndjson": NDJSON, "json": "application/json", "parquet": PARQUET}
_MAP: Final = "map."
_OF_DECISIONS: Final = frozenset({"placement", "format"})
_CHUNK: Final = 1 << 18
_STALLED_SECONDS: Final = 60.0  # between two parts of a list, or of its answer
_SLOWEST: Final = 10_000.0  # bytes a second
OutForm = Form | Literal["json"]


def sent_form() -> Form | None:
    """The form of the list that the current request sends; None if it is JSON, or nothing of ours."""
    return _FORMS.get(current_request().mimetype)


def wanted_form(sent: OutForm) -> OutForm:
    """The form of the answer: as the query or ``Accept`` says, else that of the list."""
    said = query_parameters().get("format")
    if said is not None:
        if said not in {*get_args(Form), "json"}:
            raise UnsupportedMediaType(f"format must be json, ndjson, csv or parquet, not {said[:100]!r}.")
        return said  # type: ignore[return-value]  # checked just now
    kinds = {**_FORMS, "application/json": "json"}
    accepted = current_request().accept_mimetypes
    if not accepted or accepted.best == "*/*":
        return sent
    best = accepted.best_match([_TYPES[sent].partition(";")[0], *kinds])
    return sent if best is None else kinds[best]  # type: ignore[return-value]  # our own names


@dataclass(frozen=True, slots=True)
class Kept:
    """A list on disk."""

    table: Table
    folder: Folder


@contextlib.contextmanager
def keeping(form: Form) -> Iterator[Kept]:
    """Keep the current request's list on disk; its folder is dropped where something in the block goes wrong."""
    folder = new_folder()
    try:
        yield Kept(_received(folder.path, form), folder)
    except BaseException:
        folder.drop()
        raise


def _received(folder: Path, form: Form) -> Table:
    request, max_bytes = current_request(), current_worker().config.max_list_bytes
    encoding = content_encoding()
    if encoding not in get_args(Encoding):
        raise UnsupportedMediaType(f"Send the list as it is, as gzip or as zstd, not as {encoding[:100]!r}.")
    request.max_content_length = max_bytes
    path = folder / "list"
    with path.open("wb") as file:
        file.writelines(_chunks(max_bytes))
    if form == "parquet" and encoding != "identity":
        raise UnsupportedMediaType("Parquet is compressed inside; send it without a Content-Encoding.")
    return read_table(path, form, encoding=encoding, max_bytes=max_bytes)  # type: ignore[arg-type]  # checked above


def _chunks(max_bytes: int) -> Iterator[bytes]:
    """The body; a client that stalls, or sends next to nothing, gives its thread back."""
    request, n_bytes, began = current_request(), 0, time.monotonic()
    connection = request.environ.get("gunicorn.socket")
    if connection is not None:  # its next request sets it anew
        connection.settimeout(_STALLED_SECONDS)
    received()  # from here on its own limits hold
    try:
        while chunk := request.stream.read(_CHUNK):
            yield chunk
            n_bytes += len(chunk)
            if n_bytes > max_bytes:
                raise RequestEntityTooLarge
            if time.monotonic() - began > _STALLED_SECONDS + n_bytes / _SLOWEST:
                raise RequestTimeout
    except TimeoutError:
        raise RequestTimeout from None


def layout(*, beside: frozenset[str] = frozenset()) -> Layout:
    """What the query says of a list: ``map.<field>=<column>``, and the same value of a field for all rows.

    Args:
        beside: Parameters that are about the list as a whole.
    """
    query = query_parameters()
    columns = {name[len(_MAP) :]: column for name, column in query.items() if name.startswith(_MAP)}
    constants = {name: value for name, value in query.items() if not name.startswith(_MAP) and name not in beside}
    return Layout(columns, constants)


def decide_list(form: Form) -> Response:
    """Decide for the list that the current request sends."""
    worker, placement = current_worker(), query_parameters().get("placement")
    if not placement:
        raise MissingParameter("placement must be said: …/decisions/batch?placement=…")
    plan, out = worker.decider.placement(placement), wanted_form(form)
    snapshot = worker.snapshots.current
    declared = {} if snapshot is None else snapshot.attributes
    with keeping(form) as kept:
        table = kept.table
        sources = sources_of(
            table, layout(beside=_OF_DECISIONS), fields=FIELDS, declared=declared, needed=("customer_id",)
        )
        parts = _counted(
            decide_rows(worker.decider, table.rows, placement=placement, sources=sources, is_text=table.is_text)
        )
        return _answer(parts, writer=Writer(table.columns, content_members(plan)), form=out, drop=kept.folder.drop)


def decide_json(items: list[Any], *, placement: str, form: OutForm) -> Response:
    """Decide for the items of a JSON body, answered in another form."""
    worker = current_worker()
    plan = worker.decider.placement(placement)
    rows = (row_of_json(i, item) for i, item in enumerate(items, start=1))
    columns = next((tuple(item) for item in items if isinstance(item, dict)), ())
    table = Table(columns, rows, is_text=False)
    sources = sources_of(table, Layout(), fields=FIELDS, declared=(), needed=())
    parts = _counted(decide_rows(worker.decider, table.rows, placement=placement, sources=sources, is_text=False))
    return _answer(parts, writer=Writer(columns, content_members(plan)), form=form)


def record_list(form: Form, *, source: str) -> RecordedList:
    """Record the outcomes of the list that the current request sends."""
    with keeping(form) as kept:
        said = layout()
        sources = sources_of(kept.table, said, fields=OUTCOME_FIELDS, declared=(), needed=("event",))
        if "placement" in said.constants:
            current_worker().decider.placement(said.constants["placement"])  # a slip here would be one of every row
        try:
            return record_rows(
                current_worker().recorder, kept.table.rows, sources=sources, source=source, key=key_of_request()
            )
        finally:
            kept.folder.drop()


def _counted(parts: Iterator[list[Answered]]) -> Iterator[list[Answered]]:
    for answers in parts:
        count_decisions([one.decided for one in answers if isinstance(one.decided, Decided)])
        yield answers


def _answer(
    parts: Iterator[list[Answered]], *, writer: Writer, form: OutForm, drop: Callable[[], None] = lambda: None
) -> Response:
    """The decided rows as they come, or as a Parquet file; ``drop`` is called when the last has been read."""
    summary = Summary()
    if form == "parquet":
        folder = new_folder()
        try:
            path = folder.path / "decisions.parquet"
            write_parquet(path, parts, summary=summary, writer=writer)
            answer = file_answer(path, form="parquet")
        finally:
            folder.drop()
        drop()  # at once: an answer that is passed through as a file is never told that it is closed
        answer.headers["X-Summary"] = orjson.dumps(summary.to_json()).decode()
    else:
        answer = Response(_to_the_end(streamed(form, writer)(parts, summary), drop), content_type=_TYPES[form])
        answer.call_on_close(drop)
    answer.headers["Cache-Control"] = "private, no-store"
    return answer


def _to_the_end(stream: Iterator[bytes], drop: Callable[[], None]) -> Iterator[bytes]:
    try:
        yield from stream
    finally:
        drop()
