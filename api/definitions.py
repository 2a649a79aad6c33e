"""Definitions: attributes, segmentations, placements, metrics. PUT is idempotent; the ETag is the version."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from flask import Response
from pydantic import BaseModel

from api.answers import ListQuery, if_match, json_answer, page, with_etag
from api.auth import actor
from api.doors import Doors
from api.reading import read_json, read_query
from api.state import current_worker
from experiments.catalog import definition_store
from experiments.catalog.definition_store import Defined, Kind
from experiments.catalog.definitions import (
    AttributeDefinition,
    MetricDefinition,
    PlacementDefinition,
    SegmentationDefinition,
)
from experiments.database import reading, transaction

doors = Doors("definitions")


class _Resource(NamedTuple):
    kind: Kind
    path: str
    model: type[BaseModel]
    put: Callable[..., Defined]


RESOURCES: Final = (
    _Resource("attribute", "/v1/attributes", AttributeDefinition, definition_store.put_attribute),
    _Resource("segmentation", "/v1/segmentations", SegmentationDefinition, definition_store.put_segmentation),
    _Resource("placement", "/v1/placements", PlacementDefinition, definition_store.put_placement),
    _Resource("metric", "/v1/metrics", MetricDefinition, definition_store.put_metric),
)


def definition_json(defined: Defined) -> dict[str, Any]:
    """A definition as every door shows it: what was put, with its key and version."""
    return {"key": defined.key, "version": defined.version, **defined.body}


def defined_answer(defined: Defined) -> Response:
    """The answer to a PUT: 201 if it is new, else 200; the change is known to this process."""
    current_worker().snapshots.try_refresh()
    answer = json_answer(definition_json(defined), status=201 if defined.created else 200)
    return with_etag(answer, defined.version)


def _open_put(resource: _Resource) -> None:
    kind, path, model, put = resource

    @doors.open(
        "PUT",
        f"{path}/<key>",
        scope="admin",
        name=f"put_{kind}",
        says=f"Define a {kind}, or its next version; what runs keeps the version that it started with.",
        takes=model,
        gives=dict[str, Any],
        statuses=(200, 201),
        is_change=True,
    )
    def put_one(key: str) -> Response:
        payload, version = read_json(), if_match()
        with transaction(current_worker().engine) as session:
            defined = put(session, key, payload=payload, actor=actor(), if_match=version)
        return defined_answer(defined)


def _open_get(kind: Kind, path: str) -> None:
    @doors.open(
        "GET",
        f"{path}/<key>",
        scope="analyse",
        name=f"get_{kind}",
        says=f"Read a {kind}; version 0 is built in.",
        gives=dict[str, Any],
    )
    def get_one(key: str) -> Response:
        with reading(current_worker().engine) as session:
            defined = definition_store.get_definition(session, kind, key=key)
        return with_etag(json_answer(definition_json(defined)), defined.version)


def _open_list(kind: Kind, path: str) -> None:
    @doors.open(
        "GET",
        path,
        scope="analyse",
        name=f"list_{kind}s",
        says=f"List the {kind}s that were defined, by key.",
        query=ListQuery,
        gives=dict[str, Any],
    )
    def list_all() -> Response:
        query = read_query(ListQuery)
        with reading(current_worker().engine) as session:
            found = definition_store.list_definitions(session, kind, cursor=query.cursor, limit=query.limit)
        return page([definition_json(one) for one in found], limit=query.limit, cursor=lambda one: str(one["key"]))


for _resource in RESOURCES:
    _open_put(_resource)
    _open_get(_resource.kind, _resource.path)
    _open_list(_resource.kind, _resource.path)
