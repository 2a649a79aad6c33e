"""Decisions over HTTP: servers started together, measured in turn, round after round."""

import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks import peers, world
from benchmarks.databases import POSTGRESQL, SQLITE, Databases
from benchmarks.load import Answered, Load, put_under_load
from benchmarks.processes import Group, cores, cpu_seconds, group, on_core, resident_megabytes, web_workers

THREADS: Final = 40  # so that 32 connections are never refused for want of a thread
_START_SECONDS: Final = 40.0
_WARM_UP_SECONDS: Final = 0.5
_RECORDED: Final = '"recorded":true'


class ServerNotStarted(RuntimeError):
    """A server to be measured does not answer as it should."""

    def __init__(self, name: str, log: str) -> None:
        super().__init__(f"{name} does not answer. The end of its log:\n{log[-2000:]}")


@dataclass(frozen=True, slots=True)
class Contender:
    """A server to be measured. ``database`` is empty for none."""

    name: str
    database: str
    n_workers: int
    command: tuple[str, ...]
    environment: Mapping[str, str]
    load: Load

    @property
    def file(self) -> str:
        """A name for its files."""
        return f"{self.name}-{self.database}-{self.n_workers}".lower().replace(" ", "-").replace(",", "")


@dataclass(frozen=True, slots=True)
class Round:
    """One contender's turn: requests a second, percentiles in seconds, CPU seconds a request, errors by kind."""

    per_second: float
    p50: float
    p99: float
    cpu: float
    errors: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Measured:
    """All turns of a contender, and the resident memory of its largest web process after them, in MB."""

    contender: Contender
    rounds: list[Round] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


EMPTY: Final = "empty Flask endpoint"
COMMIT: Final = "one SQLModel commit"
OURS: Final = "ours"
OURS_HELD_OUT: Final = "ours, holdout"


def contenders(built: Databases) -> list[Contender]:
    """Everything that is compared, with 1 and 2 workers; the holdout's second row with 1."""
    found = []
    for n_workers in (1, 2):
        found.append(_peer(EMPTY, "", n_workers=n_workers, url=""))
        for kind in (SQLITE, POSTGRESQL):
            name = f"commit_{n_workers}"
            found.append(_peer(COMMIT, kind, n_workers=n_workers, url=built.copy(kind, name, empty=True)))
        found += [ours(built, kind, n_workers=n_workers) for kind in (SQLITE, POSTGRESQL)]
    return found + [ours(built, kind, n_workers=1, placement=world.HELD_OUT) for kind in (SQLITE, POSTGRESQL)]


def measure(built: Databases, client: Pool, *, n_rounds: int, seconds: float) -> list[Measured]:
    """Start all servers, let each have its turn in every round, stop them."""
    turns = [Measured(contender) for contender in contenders(built)]
    with group() as servers:
        guards = [start(one.contender, servers, folder=built.folder) for one in turns]
        for one in turns:
            wait_until_ready(one.contender, client, folder=built.folder)
        for number in range(n_rounds):
            print(f"  round {number + 1} of {n_rounds}", flush=True)
            for one, guard in zip(turns, guards, strict=True):
                load = replace(one.contender.load, customers=f"round-{number}", seconds=seconds)
                one.rounds.append(_turn(load, client, pids=web_workers(guard)))
        for one, guard in zip(turns, guards, strict=True):
            one.memory.append(max(resident_megabytes(pid) for pid in web_workers(guard)))
    return turns


def _turn(load: Load, client: Pool, *, pids: Sequence[int]) -> Round:
    before = cpu_seconds(pids)
    answered: Answered = client.apply(put_under_load, (load,))
    cpu = cpu_seconds(pids) - before
    n_answers = len(answered.latencies)
    if n_answers == 0:
        return Round(0.0, np.nan, np.nan, np.nan, answered.errors)
    p50, p99 = np.percentile(answered.latencies, [50, 99])
    n_all = n_answers + sum(answered.errors.values())
    return Round(n_answers / answered.seconds, float(p50), float(p99), cpu / n_all, answered.errors)


def start(contender: Contender, servers: Group, *, folder: Path) -> int:
    """Start a server: a single worker on the server's core, two on any."""
    with on_core(cores()[0] if contender.n_workers == 1 else None):
        log = folder / f"{contender.file}.log"
        return servers.start(contender.command, environment=contender.environment, log=log)


def wait_until_ready(contender: Contender, client: Pool, *, folder: Path) -> None:
    """Warm a server up as soon as it answers."""
    give_up_at = time.monotonic() + _START_SECONDS
    load = replace(contender.load, customers="warm-up", seconds=_WARM_UP_SECONDS)
    while time.monotonic() < give_up_at:
        if client.apply(put_under_load, (replace(load, n_connections=1, seconds=0.0),)).latencies:
            client.apply(put_under_load, (load,))
            return
        time.sleep(0.25)
    raise ServerNotStarted(contender.name, (folder / f"{contender.file}.log").read_text(errors="replace"))


def _peer(name: str, database: str, *, n_workers: int, url: str) -> Contender:
    app, expects = ("empty", '"variant":"a"') if name == EMPTY else ("committing", _RECORDED)
    if url:
        engine = peers.open_committing(url)
        peers.SQLModel.metadata.create_all(engine, tables=[peers.CommittedDecision.__table__])  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
        engine.dispose()
    port = _free_port()
    options = f"--worker-class gthread --threads {THREADS} --workers {n_workers} --keep-alive 75 --preload".split()
    bind = ("--no-control-socket", "--bind", f"127.0.0.1:{port}")
    command = (sys.executable, "-m", "gunicorn", *options, *bind, f"benchmarks.peers:{app}")
    load = Load(port, "/v1/decisions", world.PLAIN, customers="", seconds=0.0, expects=expects)
    return Contender(name, database, n_workers, command, {peers.DATABASE: url}, load)


def ours(
    built: Databases, kind: str, *, n_workers: int, placement: str = world.PLAIN, copy: str | None = None
) -> Contender:
    """Our server on a copy of a built database; ``copy`` is its name where there are several."""
    held_out = placement == world.HELD_OUT
    name = OURS_HELD_OUT if held_out else OURS
    url = built.copy(kind, copy or f"{'held_out' if held_out else 'ours'}_{n_workers}")
    port = _free_port()
    settings = {"DATABASE_URL": url, "PORT": port, "WORKERS": n_workers, "THREADS": THREADS, "LOG_LEVEL": "warning"}
    environment = {f"OPTIMIZER_{name}": str(value) for name, value in settings.items()}
    command = (sys.executable, "-m", "experiments.cli", "serve")
    load = Load(port, "/v1/decisions", placement, customers="", seconds=0.0, key=built.keys[kind], expects=_RECORDED)
    return Contender(name, kind, n_workers, command, environment, load)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
