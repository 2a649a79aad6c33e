"""Exports for a warehouse: what was decided, received or counted since the last one."""

from datetime import UTC
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from flask import Response
from pydantic import AwareDatetime, BaseModel, ConfigDict

from api.doors import Doors
from api.errors import NotFound
from api.files import PARQUET, TYPES, file_answer, wanted_format
from api.reading import read_query
from api.state import current_worker
from experiments.exports.export import KINDS, export

doors = Doors("exports")


class ExportQuery(BaseModel):
    """Rows from ``since`` (else from the beginning) until just before ``until`` (else a minute before now)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    format: Literal["parquet", "csv"] | None = None


@doors.open("GET", "/v1/export/<kind>", scope="analyse", query=ExportQuery, gives_files=(PARQUET, TYPES["csv"]))
def fetch(kind: str) -> Response:
    """Fetch decisions, outcomes or tallies as a file, Parquet unless CSV is asked for.

    The header X-Export-Until is the ``since`` of the next fetch: none is missed and none comes twice.
    """
    query = read_query(ExportQuery)
    if kind not in KINDS:
        raise NotFound(f"There is no export of {kind!r}; there are {', '.join(KINDS)}.")
    form = query.format or ("csv" if wanted_format(None) == "csv" else "parquet")
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{kind}.{form}"
        exported = export(current_worker().engine, kind, path=path, form=form, since=query.since, until=query.until)
        answer = file_answer(path, form=form)
    answer.headers["X-Export-Until"] = (
        exported.until.astimezone(UTC).isoformat().replace("+00:00", "Z")
    )  # a + in an address is a space
    return answer
