"""Plans: what an experiment needs before it can show anything."""

from typing import Any

from flask import Response

from api.answers import json_answer
from api.doors import Doors
from api.reading import read_json
from api.state import current_worker
from experiments.database import reading
from experiments.planning.requests import PlanRequest

doors = Doors("plans")


@doors.open("POST", "/v1/plans", scope="analyse", takes=PlanRequest, gives=dict[str, Any])
def plan_experiment() -> Response:
    """Say how many units and weeks an experiment needs: one by its key, a metric of a placement, or numbers alone."""
    from experiments.planning.plan import plan  # a worker that only decides and records never needs it

    request = read_json()
    with reading(current_worker().engine) as session:
        return json_answer(plan(session, request))
