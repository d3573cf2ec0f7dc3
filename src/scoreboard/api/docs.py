"""``GET /docs``: the HTTP interface as a page for people and as OpenAPI 3.1 for programs.

The page is made here, out of the same document, without scripts: it works offline and under the strictest
content security policy.
"""

from __future__ import annotations

import re
from functools import cache
from html import escape
from typing import Any

import msgspec
from litestar import Litestar, MediaType, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig

from scoreboard import __version__
from scoreboard.api.dead_letters import ACTS, Choice
from scoreboard.api.forms import TYPE, USER_ID
from scoreboard.api.grants import GrantRequest
from scoreboard.api.moderation import MARKS, VERDICTS, About, Selection
from scoreboard.api.pages import PAGE_HEADERS
from scoreboard.api.update_score import BATCH_UPDATES, Submission
from scoreboard.api.updates import Profile

# Routes whose bodies we read ourselves, and what they hold.
_BODIES: dict[tuple[str, str], tuple[Any, bool]] = {
    ("/update-score", "post"): (Submission, False),
    ("/update-scores", "post"): (Submission, True),
    ("/grants", "post"): (GrantRequest, False),
    ("/users/{userId}", "put"): (Profile, False),
    **{(f"/admin/{act}", "post"): (About, False) for act in MARKS},
    **{(f"/admin/{verdict}", "post"): (Selection, False) for verdict in VERDICTS},
    **{(f"/admin/dead/{act}", "post"): (Choice, False) for act in ACTS},
}
# Path parameters as the wire names them.
_PARAMETERS = {"user_id": "userId", "event_id": "eventId"}
# Their forms, and an example.
_FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "userId": (USER_ID, "ann"),
    "eventId": ({"format": "uuid"}, "94e94958-ffb8-8e17-afef-7cf94e411010"),
    "board": (TYPE, "main"),
}
_OPEN = ("/health", "/boards", "/demo", "/docs")


def document(app: Litestar) -> dict[str, Any]:
    """The OpenAPI document, with request bodies and security added."""
    text = msgspec.json.encode(app.openapi_schema.to_schema()).decode()
    # The framework says of a union that one kind alone fits; a page is a frame, too.
    text = text.replace('"oneOf":', '"anyOf":')
    for ours, theirs in _PARAMETERS.items():
        text = text.replace(f"{{{ours}}}", f"{{{theirs}}}").replace(f'"name":"{ours}"', f'"name":"{theirs}"')
    found: dict[str, Any] = msgspec.json.decode(text)
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for (path, method), (kind, many) in _BODIES.items():
        operation = found["paths"].get(path, {}).get(method)
        if operation is None:
            continue
        _, components = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
        schemas.update(components)
        schema: dict[str, Any] = {"$ref": f"#/components/schemas/{kind.__name__}"}
        if many:
            schemas["BatchItem"] = _judged_alone(components[kind.__name__])
            items = {"$ref": "#/components/schemas/BatchItem"}
            schema = {"type": "array", "items": items, "maxItems": BATCH_UPDATES}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    found["components"]["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "A user's JWT, or a service's key (`sb_…`).",
        }
    }
    for path, methods in found["paths"].items():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path":
                    form, parameter["example"] = _FORMS[parameter["name"]]
                    parameter["schema"] |= form
            if not path.startswith(_OPEN):
                operation["security"] = [{"bearer": []}]
    return found


def _judged_alone(schema: dict[str, Any]) -> dict[str, Any]:
    """An item of a batch: one of a wrong form is told so in its place, and refuses no other."""
    fields = {
        name: {key: field[key] for key in ("type", "description")}
        for name, field in schema["properties"].items()
    }
    return schema | {"title": "BatchItem", "properties": fields}


def page(found: dict[str, Any]) -> str:
    """The document as a page."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width,initial-scale=1">',
        "<title>Scoreboard HTTP interface</title><link rel=stylesheet href=web/docs.css>",
        f"<main><h1>{escape(found['info']['title'])} <small>{escape(found['info']['version'])}</small></h1>",
        "<p>The same as <a href=docs/openapi.json>OpenAPI</a>. Live boards come over WebSocket:",
        " <code>GET /boards/{board}/live</code>, subprotocol <code>scoreboard.v1</code>.",
    ]
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<section><h2><b>{method.upper()}</b> {escape(path)}</h2>")
            parts.append(f"<p>{_text(operation.get('summary'))}. {_text(operation.get('description'))}")
            parts.append(_parameters(operation, found["components"]["schemas"]) + "<dl>")
            for status, answer in sorted(operation.get("responses", {}).items()):
                parts.append(f"<dt>{escape(status)}<dd>{_text(answer.get('description'))}")
            parts.append("</dl></section>")
    return "".join(parts) + "</main>"


def _text(text: str | None) -> str:
    """Words of the document, with code between back quotes."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text or ""))


def _parameters(operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    rows = [
        f"<dt>{escape(one['name'])} <small>{escape(one['in'])}</small><dd>{_text(one.get('description'))}"
        for one in operation.get("parameters", [])
    ]
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        name = (schema.get("items") or schema)["$ref"].rsplit("/", 1)[-1]
        kind = "an array of objects" if "items" in schema else "an object"
        rows.append(f"<dt>body <small>JSON</small><dd>{kind}")
        rows += [
            f"<dt>{escape(field)} <small>{escape(one.get('type', ''))}</small>"
            f"<dd>{_text(one.get('description'))}"
            for field, one in schemas[name]["properties"].items()
        ]
    return f"<dl>{''.join(rows)}</dl>" if rows else ""


def routes(documented: list[HTTPRouteHandler]) -> list[HTTPRouteHandler]:
    """The handlers. The document of the others is made at the first request."""

    @cache
    def whole() -> dict[str, Any]:
        # An application of its own, that is never served: the framework makes the schema from it.
        config = OpenAPIConfig(title="Scoreboard", version=__version__)
        return document(Litestar(documented, openapi_config=config))

    @get("/docs/openapi.json", sync_to_thread=False)
    def openapi() -> Response[dict[str, Any]]:
        return Response(whole(), media_type="application/vnd.oai.openapi+json")

    @get("/docs", sync_to_thread=False)
    def show_docs() -> Response[str]:
        return Response(page(whole()), headers=PAGE_HEADERS, media_type=MediaType.HTML)

    return [openapi, show_docs]
