"""What is proven, and making it stand: results, promotion, policies, roll-back, the programme."""

from datetime import datetime
from typing import Annotated, Any, Final

from flask import Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.answers import Text, json_answer
from api.auth import actor
from api.doors import Doors
from api.experiments import wait_until
from api.files import TYPES, TableFormat, table_answer, wanted_format
from api.reading import read_json, read_query
from api.state import current_worker
from experiments.catalog.serving import now_serving
from experiments.database import reading, transaction
from experiments.promote.policies import read_policy, rollback
from experiments.promote.requests import PromotionRequest, RollbackRequest, TargetingRequest

doors = Doors("reviews")

_FILES: Final = tuple(TYPES.values())


class ReviewQuery(BaseModel):
    """Which metric, and units decided until when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: Text | None = None
    as_of: AwareDatetime | None = None


class PolicyQuery(ReviewQuery):
    """Of the newest version of the policy, or an earlier one: also what was rolled back stays measured."""

    version: Annotated[int, Field(ge=1, lt=2**31)] | None = None


class ResultsQuery(ReviewQuery):
    """Beside ``overall``, all segments or one; as JSON, or as a table with a row for each variant."""

    segment: Text | None = None
    format: TableFormat | None = None


@doors.open(
    "GET",
    "/v1/experiments/<key>/results",
    scope="analyse",
    query=ResultsQuery,
    gives=dict[str, Any],
    gives_files=_FILES,
)
def results(key: str) -> Response:
    """Say what an experiment has shown, per segment and over all, with a verdict and its gates."""
    from experiments import review  # a worker that only decides and records never needs it
    from experiments.review import flat

    query = read_query(ResultsQuery)
    with reading(current_worker().engine) as session:
        said = review.results(session, key, metric=query.metric, segment=query.segment, as_of=query.as_of)
    form = wanted_format(query.format)
    if form == "json":
        return json_answer(said)
    return table_answer(flat.result_rows(said), columns=flat.RESULT_COLUMNS, form=form, name=f"{key}-results")


@doors.open(
    "GET",
    "/v1/experiments/<key>/results/series",
    scope="analyse",
    query=ResultsQuery,
    gives=dict[str, Any],
    gives_files=_FILES,
)
def results_series(key: str) -> Response:
    """Say what was known at the end of each day, per segment and over all, and whether effects last."""
    from experiments import review  # as above
    from experiments.review import flat

    query = read_query(ResultsQuery)
    with reading(current_worker().engine) as session:
        said = review.results_over_time(session, key, metric=query.metric, segment=query.segment, as_of=query.as_of)
    form = wanted_format(query.format)
    if form == "json":
        return json_answer(said)
    return table_answer(flat.series_rows(said), columns=flat.SERIES_COLUMNS, form=form, name=f"{key}-series")


@doors.open("POST", "/v1/experiments/<key>/promote", scope="analyse", takes=PromotionRequest, gives=dict[str, Any])
def promote_winners(key: str) -> Response:
    """Make winners the standing policy of their segments; refused where the verdict isn't ``ship``, unless forced."""
    from experiments.promote.promotion import promote  # as above

    request = read_json()
    with transaction(current_worker().engine) as session:
        promoted = promote(session, key, request=request, actor=actor())
    return _in_effect(promoted)


@doors.open("POST", "/v1/analyses/<id_>/promote", scope="analyse", takes=TargetingRequest, gives=dict[str, Any])
def promote_tree(id_: str) -> Response:
    """Make the tree of a study of uplift the standing policy: its leaves become a segmentation, its choices the policy.

    Refused where the verdict is not ``personalise``, unless forced.
    """
    from experiments.promote.targeting import promote_targeting  # as above

    request = read_json()
    with transaction(current_worker().engine) as session:
        promoted = promote_targeting(session, id_, request=request, actor=actor())
    return _in_effect(promoted)


@doors.open("GET", "/v1/policies/<placement>", scope="analyse", gives=dict[str, Any])
def get_policy(placement: str) -> Response:
    """Read a placement's policy: what stands, and every version with its evidence."""
    with reading(current_worker().engine) as session:
        return json_answer(read_policy(session, placement))


@doors.open("POST", "/v1/policies/<placement>/rollback", scope="analyse", takes=RollbackRequest, gives=dict[str, Any])
def roll_back(placement: str) -> Response:
    """Bring back what stood in an earlier version, as one more version."""
    request = read_json()
    with transaction(current_worker().engine) as session:
        rolled_back = rollback(session, placement, request=request, actor=actor())
    return _in_effect(rolled_back)


@doors.open("GET", "/v1/policies/<placement>/results", scope="analyse", query=PolicyQuery, gives=dict[str, Any])
def policy_results(placement: str) -> Response:
    """Say what a policy earns: its standing variants against the share that keeps exploring."""
    from experiments import review  # as above

    asked = read_query(PolicyQuery).model_dump()
    with reading(current_worker().engine) as session:
        return json_answer(review.policy_results(session, placement, **asked))


@doors.open("GET", "/v1/programme/results", scope="analyse", query=ReviewQuery, gives=dict[str, Any])
def programme_results() -> Response:
    """Say what everything earns against the holdout."""
    from experiments import review  # as above

    query = read_query(ReviewQuery)
    with reading(current_worker().engine) as session:
        return json_answer(review.programme_results(session, metric=query.metric, as_of=query.as_of))


def _in_effect(changed: dict[str, Any]) -> Response:
    """Answer when a policy's change is in effect everywhere, with what every segment gets then."""
    worker = current_worker()
    wait_until(worker, datetime.fromisoformat(changed["effective_at"]))
    with reading(worker.engine) as session:
        return json_answer(changed | {"now_serving": now_serving(session, changed["placement"])})
