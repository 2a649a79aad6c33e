"""Experiments: define, start, pause, resume, conclude, change variants; each change says what is served now."""

from collections.abc import Callable
from datetime import datetime
from time import sleep
from typing import Annotated, Any, Final

from flask import Response
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from api.answers import ListQuery, Reason, Text, if_match, json_answer, page, with_etag
from api.auth import actor
from api.definitions import defined_answer
from api.doors import Doors
from api.reading import read_body, read_json, read_query
from api.state import current_worker
from experiments.catalog import experiment_store, lifecycle, variants
from experiments.catalog.definitions import ExperimentDefinition, VariantDefinition
from experiments.catalog.experiment_store import ExperimentState
from experiments.catalog.lifecycle import Changed
from experiments.catalog.serving import now_serving
from experiments.database import reading, transaction
from experiments.guardrails.unpause import unpause_variant
from experiments.learning.allocation_history import list_allocations
from experiments.worker import Worker

doors = Doors("experiments")

_LONGEST_WAIT_SECONDS: Final = 2.2


class ChangeIn(BaseModel):
    """Why; the audit keeps it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    reason: Reason | None = None


class CorrectionIn(BaseModel):
    """A variant's content as it should be, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    content: dict[str, Any]
    reason: Reason


class UnpauseIn(BaseModel):
    """Where a variant may come back (absent: wherever guardrails have paused it), and why."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    segments: Annotated[tuple[Text, ...], Field(min_length=1, strict=False)] | None = None
    reason: Reason


class AllocationsQuery(ListQuery):
    """Which allocations: of one segment, or of all."""

    segment: Text | None = None


def experiment_json(state: ExperimentState) -> dict[str, Any]:
    """An experiment as every door shows it: what was put, with its key, version and state."""
    return {
        "key": state.key,
        "version": state.version,
        "status": state.status,
        "created_at": state.created_at,
        "started_at": state.started_at,
        "ended_at": state.ended_at,
        "retired": state.retired,
        "paused": state.paused,
        "sending": state.sending,
        **state.body,
    }


@doors.open(
    "PUT",
    "/v1/experiments/<key>",
    scope="admin",
    takes=ExperimentDefinition,
    gives=dict[str, Any],
    statuses=(200, 201),
    is_change=True,
)
def put_experiment(key: str) -> Response:
    """Define an experiment while it is a draft."""
    payload, version = read_json(), if_match()
    with transaction(current_worker().engine) as session:
        defined = experiment_store.put_experiment(session, key, payload=payload, actor=actor(), if_match=version)
    return defined_answer(defined)


@doors.open("GET", "/v1/experiments/<key>", scope="analyse", gives=dict[str, Any])
def get_experiment(key: str) -> Response:
    """Read an experiment: its definition with all corrections, and its state."""
    with reading(current_worker().engine) as session:
        state = experiment_store.get_experiment(session, key)
    return with_etag(json_answer(experiment_json(state)), state.version)


@doors.open("GET", "/v1/experiments", scope="analyse", query=ListQuery, gives=dict[str, Any])
def list_experiments() -> Response:
    """List the experiments, by key."""
    query = read_query(ListQuery)
    with reading(current_worker().engine) as session:
        found = experiment_store.list_experiments(session, cursor=query.cursor, limit=query.limit)
    return page([experiment_json(one) for one in found], limit=query.limit, cursor=lambda one: str(one["key"]))


@doors.open("POST", "/v1/experiments/<key>/start", scope="admin", takes=ChangeIn, gives=dict[str, Any])
def start(key: str) -> Response:
    """Start a draft; the answer comes when it decides in every process, with the plan: how long it will take."""
    return _change(lifecycle.start, key, say_more=_plan)


@doors.open("POST", "/v1/experiments/<key>/pause", scope="admin", takes=ChangeIn, gives=dict[str, Any])
def pause(key: str) -> Response:
    """Pause a running experiment: customers get the policy or the default, outcomes go on counting."""
    return _change(lifecycle.pause, key)


@doors.open("POST", "/v1/experiments/<key>/resume", scope="admin", takes=ChangeIn, gives=dict[str, Any])
def resume(key: str) -> Response:
    """Let a paused experiment go on; its customers keep their variants."""
    return _change(lifecycle.resume, key)


@doors.open("POST", "/v1/experiments/<key>/conclude", scope="admin", takes=ChangeIn, gives=dict[str, Any])
def conclude(key: str) -> Response:
    """End an experiment for good; outcomes of its decisions go on counting within their windows."""
    return _change(lifecycle.conclude, key)


@doors.open(
    "PATCH",
    "/v1/experiments/<key>/variants/<variant>",
    scope="admin",
    takes=CorrectionIn,
    gives=dict[str, Any],
    is_change=True,
)
def correct_content(key: str, variant: str) -> Response:
    """Correct what a variant shows, a misspelling say; the audit keeps what it was and why it changed."""
    body, version = read_body(CorrectionIn), if_match()
    with transaction(current_worker().engine) as session:
        state = variants.correct_content(
            session, key, variant=variant, content=body.content, actor=actor(), reason=body.reason, if_match=version
        )
    return _changed_variants(state)


@doors.open(
    "POST",
    "/v1/experiments/<key>/variants",
    scope="admin",
    takes=VariantDefinition,
    gives=dict[str, Any],
    is_change=True,
)
def append_variant(key: str) -> Response:
    """Let one more variant compete."""
    payload, version = read_json(), if_match()
    with transaction(current_worker().engine) as session:
        state = variants.append_variant(session, key, payload=payload, actor=actor(), if_match=version)
    return _changed_variants(state)


@doors.open(
    "POST",
    "/v1/experiments/<key>/variants/<variant>/retire",
    scope="admin",
    takes=ChangeIn,
    gives=dict[str, Any],
    is_change=True,
)
def retire_variant(key: str, variant: str) -> Response:
    """Give a variant to nobody new."""
    reason, version = read_body(ChangeIn, or_nothing=True).reason, if_match()
    with transaction(current_worker().engine) as session:
        state = variants.retire_variant(session, key, variant=variant, actor=actor(), reason=reason, if_match=version)
    return _changed_variants(state)


@doors.open(
    "POST",
    "/v1/experiments/<key>/variants/<variant>/unpause",
    scope="admin",
    takes=UnpauseIn,
    gives=dict[str, Any],
    is_change=True,
)
def unpause(key: str, variant: str) -> Response:
    """Let a variant that guardrails have paused come back.

    It begins with an equal share, or its fixed weight; who had it gets it again. From then on guardrails read only the
    units that are decided after it came back.
    """
    body, version = read_body(UnpauseIn), if_match()
    with transaction(current_worker().engine) as session:
        state = unpause_variant(
            session,
            key,
            variant=variant,
            segments=body.segments,
            actor=actor(),
            reason=body.reason,
            if_match=version,
        )
    return _changed_variants(state)


@doors.open("GET", "/v1/experiments/<key>/allocations", scope="analyse", query=AllocationsQuery, gives=dict[str, Any])
def allocations(key: str) -> Response:
    """List the weights that an experiment has had, the newest first, with the counts that they came from."""
    query = read_query(AllocationsQuery)
    with reading(current_worker().engine) as session:
        found = list_allocations(session, key, segment=query.segment, cursor=query.cursor, limit=query.limit)
    return page(found, limit=query.limit, cursor=lambda one: str(one["cursor"]))


def wait_until(worker: Worker, effective_at: datetime) -> None:
    """Wait until a change is in effect in every process; this one knows of it at once."""
    worker.snapshots.try_refresh()
    sleep(min(max((effective_at - worker.snapshots.now()).total_seconds(), 0.0), _LONGEST_WAIT_SECONDS))


def _plan(session: Session, key: str) -> dict[str, Any]:
    from experiments.planning.plan import plan_experiment  # a worker that only decides and records never needs it

    return {"plan": plan_experiment(session, key)}


def _nothing_more(_session: Session, _key: str) -> dict[str, Any]:
    return {}


def _change(
    act: Callable[..., Changed], key: str, *, say_more: Callable[[Session, str], dict[str, Any]] = _nothing_more
) -> Response:
    reason, worker = read_body(ChangeIn, or_nothing=True).reason, current_worker()
    with transaction(worker.engine) as session:
        changed = act(session, key, actor=actor(), reason=reason)
    wait_until(worker, changed.effective_at)
    with reading(worker.engine) as session:
        serving = now_serving(session, changed.experiment.body["placement"])
        more = say_more(session, key)
    shown = experiment_json(changed.experiment) | {"effective_at": changed.effective_at, "now_serving": serving} | more
    return with_etag(json_answer(shown), changed.experiment.version)


def _changed_variants(state: ExperimentState) -> Response:
    worker = current_worker()
    worker.snapshots.try_refresh()
    with reading(worker.engine) as session:
        serving = now_serving(session, state.body["placement"])
    return with_etag(json_answer(experiment_json(state) | {"now_serving": serving}), state.version)
