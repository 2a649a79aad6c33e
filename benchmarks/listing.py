"""A long list as CSV over HTTP, with single decisions before it and beside it, on one web process."""

import http.client
import json
import sys
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks import world
from benchmarks.databases import Databases
from benchmarks.processes import cores, group, on_core, peak_megabytes, resident_megabytes, web_workers
from benchmarks.serving import Contender, ours, start, wait_until_ready

_SPAWN: Final = get_context("spawn")
_HOST: Final = "127.0.0.1"
_PAUSE_SECONDS: Final = 0.02
_IDLE_SECONDS: Final = 5.0
_LONGEST_SECONDS: Final = 600.0
_CHUNK: Final = 1 << 18
_HEADER: Final = b"customer_id,lifetime_value,country,orders,attr.first_name\n"


@dataclass(frozen=True, slots=True)
class Singles:
    """Single decisions, one after the other every 20 ms: percentiles of their seconds, and how many got no 200."""

    p50: float
    p99: float
    n_asked: int
    n_refused: int


@dataclass(frozen=True, slots=True)
class ListedOverHttp:
    """A list sent and answered: rows decided, wall time, the web process's memory in MB, single decisions' times."""

    n_rows: int
    seconds: float
    memory_before: float
    memory_peak: float
    alone: Singles
    meanwhile: Singles


def decide_over_http(built: Databases, kind: str, *, n_rows: int) -> ListedOverHttp:
    """Send a list of new customers to a server of its own; its answer is read as it comes."""
    contender = ours(built, kind, n_workers=1, copy="listed_http")
    path = built.folder / f"list-{kind}.csv".lower()
    _write(path, n_rows)
    with group() as servers, on_core(cores()[1]), _SPAWN.Pool(1) as sender, _SPAWN.Pool(1) as asker:
        guard = start(contender, servers, folder=built.folder)
        wait_until_ready(contender, asker, folder=built.folder)
        (pid,) = web_workers(guard)
        alone = asker.apply(ask_singles, (contender, None))
        before = resident_megabytes(pid)
        stop = built.folder / f"stop-{kind}".lower()
        asking = asker.apply_async(ask_singles, (contender, stop))
        n_decided, seconds = sender.apply(send_list, (contender, path))
        stop.touch()
        meanwhile = asking.get()
        return ListedOverHttp(n_decided, seconds, before, peak_megabytes(pid), alone, meanwhile)


def send_list(contender: Contender, path: Path) -> tuple[int, float]:
    """Send a CSV and read the answer to its end; rows decided as the summary says, and the wall time."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection(_HOST, contender.load.port, timeout=_LONGEST_SECONDS)
    headers = _headers(contender) | {"Content-Type": "text/csv", "Content-Length": str(path.stat().st_size)}
    with path.open("rb") as file:
        connection.request("POST", f"/v1/decisions/batch?placement={world.PLAIN}", file, headers)
        answer, end = connection.getresponse(), b""
        while chunk := answer.read(_CHUNK):
            end = (end + chunk)[-4_000:]
    seconds = time.perf_counter() - began
    connection.close()
    said = end.decode().splitlines()[-1].partition('"')[2].rpartition('"')[0].replace('""', '"')
    summary = json.loads(said)
    if not summary["is_complete"]:
        sys.exit(f"The list was cut short: {said}")
    return summary["n_decided"], seconds


def ask_singles(contender: Contender, stop: Path | None) -> Singles:
    """Ask for single decisions until there is the file ``stop``; without one for 5 s."""
    give_up_at = time.monotonic() + (_IDLE_SECONDS if stop is None else _LONGEST_SECONDS)
    name = "alone" if stop is None else "meanwhile"
    connection = http.client.HTTPConnection(_HOST, contender.load.port, timeout=60)
    seconds: list[float] = []
    n_refused = 0
    while time.monotonic() < give_up_at and not (stop is not None and stop.exists()):
        time.sleep(_PAUSE_SECONDS)
        customer_id = f"{name}-{len(seconds)}"
        body = {"placement": world.PLAIN, "customer_id": customer_id, "attributes": world.ATTRIBUTES}
        began = time.perf_counter()
        connection.request("POST", "/v1/decisions", json.dumps(body), _headers(contender))
        answer = connection.getresponse()
        answer.read()
        seconds.append(time.perf_counter() - began)
        n_refused += answer.status != http.HTTPStatus.OK
    connection.close()
    p50, p99 = np.percentile(seconds, [50, 99])
    return Singles(float(p50), float(p99), len(seconds), n_refused)


def _headers(contender: Contender) -> dict[str, str]:
    return {"Authorization": f"Bearer {contender.load.key}", "Content-Type": "application/json"}


def _write(path: Path, n_rows: int) -> None:
    with path.open("wb") as file:
        file.write(_HEADER)
        file.writelines(b"listed-%d,800,DE,0,Ann\n" % number for number in range(n_rows))
