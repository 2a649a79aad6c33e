"""Heavy analyses: ask for one, see how far it is, read what came out, call it off."""

from functools import reduce
from operator import or_
from typing import Any, Final

from flask import Response

from api.answers import ListQuery, json_answer, page
from api.auth import actor
from api.doors import Doors
from api.experiments import ChangeIn
from api.reading import read_body, read_json, read_query
from api.state import current_worker
from experiments.analyses.ask import ask_for, cancel
from experiments.analyses.kinds import KINDS
from experiments.analyses.show import get_analysis, list_analyses, shown
from experiments.database import reading, transaction

doors = Doors("analyses")

_REQUESTS: Final[Any] = reduce(or_, (kind.request for kind in KINDS.values()))  # any of them


@doors.open(
    "POST",
    "/v1/experiments/<key>/analyses",
    scope="analyse",
    takes=_REQUESTS,
    gives=dict[str, Any],
    statuses=(202,),
)
def ask_for_analysis(key: str) -> Response:
    """Queue an analysis; asked again while the same one is queued or running, it is that one. Poll its Location."""
    request = read_json()
    with transaction(current_worker().engine) as session:
        answer = json_answer(shown(session, ask_for(session, key, request=request, actor=actor())), status=202)
    answer.headers["Location"] = f"/v1/analyses/{answer.get_json()['id']}"
    return answer


@doors.open("GET", "/v1/analyses/<id_>", scope="analyse", gives=dict[str, Any])
def get_one(id_: str) -> Response:
    """Read an analysis: queued (and what it waits for), running (and how far), done (with result), failed (and why)."""
    with reading(current_worker().engine) as session:
        return json_answer(get_analysis(session, id_))


@doors.open("GET", "/v1/experiments/<key>/analyses", scope="analyse", query=ListQuery, gives=dict[str, Any])
def list_all(key: str) -> Response:
    """List an experiment's analyses without their results, the newest first."""
    query = read_query(ListQuery)
    with reading(current_worker().engine) as session:
        found = list_analyses(session, key, cursor=query.cursor, limit=query.limit)
    return page(found, limit=query.limit, cursor=lambda one: str(one["id"]))


@doors.open("POST", "/v1/analyses/<id_>/cancel", scope="analyse", takes=ChangeIn, gives=dict[str, Any])
def call_off(id_: str) -> Response:
    """Call off an analysis that is queued or running: it ends as failed, with the code cancelled."""
    reason = read_body(ChangeIn, or_nothing=True).reason
    with transaction(current_worker().engine) as session:
        return json_answer(shown(session, cancel(session, id_, actor=actor(), reason=reason)))
