"""What the views of an app share: the worker that decides and records."""

from typing import cast

from flask import Flask, current_app

from experiments.worker import Worker

_KEY = "optimizer"


def give_worker(app: Flask, worker: Worker) -> None:
    """Let an app's views use a worker."""
    app.extensions[_KEY] = worker


def current_worker() -> Worker:
    """The worker of the app that answers now."""
    return cast("Worker", current_app.extensions[_KEY])
