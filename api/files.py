"""Answers as files, CSV or Parquet, where the caller asks for one by ``?format=`` or ``Accept``."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

from flask import Response
from werkzeug.wsgi import wrap_file

from api.requests import current_request
from experiments.exports.files import Columns, Format, Rows, write_file

CSV: Final = "text/csv"
PARQUET: Final = "application/vnd.apache.parquet"
TYPES: Final[dict[Format, str]] = {"csv": CSV, "parquet": PARQUET}

TableFormat = Literal["json", "csv", "parquet"]


def wanted_format(said: TableFormat | None) -> TableFormat:
    """The form of an answer: as the query says, else what ``Accept`` likes best, else JSON."""
    if said is not None:
        return said
    best = current_request().accept_mimetypes.best_match(["application/json", *TYPES.values()], "application/json")
    return next((form for form, kind in TYPES.items() if kind == best), "json")


def table_answer(rows: Rows, *, columns: Columns, form: Format, name: str) -> Response:
    """Rows as a file of some name, without its ending."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.{form}"
        write_file(path, [rows], columns=columns, form=form)
        data = path.read_bytes()
    return _attached(Response(data), path, form=form)


def file_answer(path: Path, *, form: Format) -> Response:
    """A file that is sent as it is read; it may be removed as soon as this returns."""
    size = path.stat().st_size
    answer = Response(wrap_file(current_request().environ, path.open("rb")), direct_passthrough=True)
    answer.content_length = size
    return _attached(answer, path, form=form)


def _attached(answer: Response, path: Path, *, form: Format) -> Response:
    answer.content_type = f"{CSV}; charset=utf-8" if form == "csv" else PARQUET
    answer.headers["Content-Disposition"] = f'attachment; filename="{path.name}"'
    answer.headers["Vary"] = "Accept"
    return answer
