"""/openapi.json, written from the doors themselves, and /docs, which shows it without asking any other host."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import flask_openapi3_swagger  # type: ignore[import-untyped]  # static files only
import orjson
from flask import Flask, Response, send_from_directory
from pydantic import TypeAdapter

from api.answers import Problem
from api.doors import Door, Doors
from api.metrics import VERSION

Schemas = dict[str, Any]

_FILES: Final = Path(flask_openapi3_swagger.__file__).parent / "templates" / "swagger"
_IN_PATH: Final = re.compile(r"<(?:path:)?(\w+)>")
_REFERENCE: Final = "#/components/schemas/{model}"
_SECURITY: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic", "description": "The key as user or as password."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "Repeats within 24 hours get the first answer and do nothing.",
}
_IN_ADDRESS: Final = {
    "address": {
        "type": "apiKey",
        "in": "query",
        "name": "key",
        "description": "For tools that can set no header: a key whose only scope is `decide`.",
    }
}
_PAGE: Final = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>API</title><link rel="stylesheet" href="/docs/css/swagger-ui.css"></head>
<body><div id="api"></div><script src="/docs/js/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "/openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null})</script></body>
</html>
"""


def describe(app: Flask, resources: Sequence[Doors]) -> None:
    """Serve the documentation of an app's doors."""
    document: list[bytes] = []  # written when first asked for, so that workers start without it

    def openapi() -> Response:
        if not document:
            document.append(orjson.dumps(openapi_document(resources)))
        return Response(document[0], content_type="application/json")

    app.add_url_rule("/openapi.json", "openapi", openapi)
    app.add_url_rule("/docs", "docs", lambda: Response(_PAGE, content_type="text/html; charset=utf-8"))
    app.add_url_rule("/docs/<path:name>", "docs_files", lambda name: send_from_directory(_FILES, name))


def openapi_document(resources: Sequence[Doors]) -> dict[str, Any]:
    """The doors as OpenAPI 3.1 describes them."""
    schemas: Schemas = {}
    problem = _schema(Problem, schemas, mode="serialization")
    paths: dict[str, dict[str, Any]] = {}
    for resource in resources:
        for door in resource.all:
            operation = _operation(door, schemas, tag=resource.tag)
            operation["responses"]["default"] = {
                "description": "A problem (RFC 9457).",
                "content": {"application/problem+json": {"schema": problem}},
            }
            paths.setdefault(_IN_PATH.sub(r"{\1}", door.path), {})[door.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Experimentation and optimization service", "version": VERSION},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": _SECURITY | _IN_ADDRESS},
    }


def _operation(door: Door, schemas: Schemas, *, tag: str) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": [tag],
        "operationId": door.name,
        "summary": door.says.partition("\n")[0],
        "description": door.says + (f"\n\nNeeds a key with the scope `{door.scope}`." if door.scope else ""),
        "parameters": _parameters(door),
        "responses": {str(status): _answer(door, schemas) for status in door.statuses},
        "security": _security(door),
    }
    if door.takes is not None:
        schema = _schema(door.takes, schemas, mode="validation")
        content = {"application/json": {"schema": schema}}
        content |= {kind: {"schema": _file(kind)} for kind in door.takes_files}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _security(door: Door) -> list[dict[str, list[str]]]:
    """Any one of these."""
    schemes = (_SECURITY | (_IN_ADDRESS if door.is_for_email else {})) if door.scope else {}
    return [{name: []} for name in schemes]


def _answer(door: Door, schemas: Schemas) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if door.gives is not None:
        content["application/json"] = {"schema": _schema(door.gives, schemas, mode="serialization")}
    if door.gives_text:
        content["text/plain"] = {"schema": {"type": "string"}}
    for kind in door.gives_files:
        content[kind] = {"schema": _file(kind)}
    return {"description": "The answer.", "content": content}


def _file(kind: str) -> dict[str, str]:
    return {"type": "string"} | ({} if kind.startswith("text/") else {"format": "binary"})


def _parameters(door: Door) -> list[dict[str, Any]]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _IN_PATH.findall(door.path)
    ]
    if door.is_change:
        in_path.append({"name": "If-Match", "in": "header", "required": False, "schema": {"type": "string"}})
    if door.is_creating:
        in_path.append(_IDEMPOTENCY_KEY)
    if door.query is None:
        return in_path
    schema = door.query.model_json_schema()
    required = set(schema.get("required", ()))
    return in_path + [
        {"name": name, "in": "query", "required": name in required, "schema": said}
        for name, said in schema["properties"].items()
    ]


def _schema(kind: Any, schemas: Schemas, *, mode: Any) -> dict[str, Any]:  # whatever pydantic takes
    """The JSON schema of a type; what it is made of goes into ``schemas``."""
    schema = TypeAdapter(kind).json_schema(mode=mode, ref_template=_REFERENCE)
    schemas |= schema.pop("$defs", {})
    return schema
