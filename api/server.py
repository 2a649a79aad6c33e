"""gunicorn's settings (``gunicorn --config python:api.server api.server:application``) and its hooks."""

import gc
import os
import re
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gunicorn.glogging import Logger  # type: ignore[import-untyped]  # gunicorn has no types
from prometheus_client import multiprocess

from api.app import add_request_id, create_app
from api.background import Background
from api.folders import remove_abandoned
from api.metrics import FOLDER, measure
from api.threads import Threads, has_body, received
from api.tracing import start_tracing, stop_tracing, trace_requests
from experiments.config import read_config
from experiments.logs import configure_logs
from experiments.worker import Worker

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from opentelemetry.sdk.trace import TracerProvider

_config: Final = read_config()
_MEASURE_SECONDS: Final = 1.0
_QUOTED: Final = re.compile(r"(['\"]).*\1", re.DOTALL)


class Logs(Logger):  # type: ignore[misc]  # as above
    """gunicorn's log lines, written as ours."""

    def setup(self, cfg: Any) -> None:  # gunicorn has no types
        """Send gunicorn's lines through the standard library's root."""
        super().setup(cfg)
        configure_logs(_config, processors=[add_request_id])

    def warning(self, msg: Any, *args: Any, **more: Any) -> None:
        """Log no request line that can't be parsed: it may hold a key, however it is escaped, and customers' ids."""
        super().warning(_QUOTED.sub("…", str(msg)), *args, **more)

    def exception(self, msg: Any, *args: Any, **more: Any) -> None:
        """The same of a request that could not be handled: its query is left out."""
        super().exception(msg, *(str(one).partition("?")[0] for one in args), **more)


# gunicorn reads these names.
bind = f"[{_config.host}]:{_config.port}" if ":" in _config.host else f"{_config.host}:{_config.port}"
workers = _config.workers
threads = _config.threads
worker_class = Threads
preload_app = True  # imports are shared; threads and connections are opened after the fork
keepalive = 75
timeout = 60
limit_request_line = 8190  # attributes come in the address at the email door
graceful_timeout = 6  # so that SIGTERM ends within 10 s
control_socket_disable = True
logger_class = Logs
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  # heartbeats must not wait for a disk

_background: Final = Background()
_opened: "dict[str, tuple[Worker, WSGIApplication]]" = {}  # of this web process, once it is one

_tracing: "list[TracerProvider]" = []  # of this web process, where it is configured


def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Answer a request with this process's app."""
    if not has_body(environ):
        received()
    return _opened["app"][1](environ, start_response)


def when_ready(server: Any) -> None:  # noqa: ARG001  # gunicorn's
    """Start the background process, once the address is bound."""
    gc.freeze()  # what is there now lives on: web processes share it, and end sooner without collecting it
    remove_abandoned()
    if _config.learn:
        _background.start()


def post_fork(server: Any, worker: Any) -> None:  # noqa: ARG001  # gunicorn's
    """Open what must not be shared between processes: connections, locks, threads."""
    _background.let_go()
    opened = Worker(_config, shard=worker.age)
    opened.start()
    app = create_app(_config, opened)
    if (tracing := start_tracing()) is not None:
        trace_requests(app, tracing)
        _tracing.append(tracing)
    _opened["app"] = (opened, app)
    threading.Thread(target=_measure, args=(opened,), name="measure", daemon=True).start()


def worker_exit(server: Any, worker: Any) -> None:  # noqa: ARG001  # gunicorn's
    """Commit what this process has queued."""
    if "app" in _opened:
        _opened.pop("app")[0].close()
    for tracing in _tracing:
        stop_tracing(tracing)
    gc.freeze()  # the process ends; collecting it all once more takes a busy machine seconds


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001  # gunicorn's
    """Forget the states (not the counts) of a web process that has ended."""
    if FOLDER in os.environ:
        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]  # it has none


def on_exit(server: Any) -> None:  # noqa: ARG001  # gunicorn's
    """End the background process; its work is in the database."""
    gc.freeze()  # as above
    if _config.learn:
        _background.close()
    if FOLDER in os.environ:
        shutil.rmtree(os.environ[FOLDER], ignore_errors=True)


def _measure(worker: Worker) -> None:
    pause = threading.Event()
    while not pause.wait(_MEASURE_SECONDS):
        measure(worker)
