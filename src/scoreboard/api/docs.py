"""``GET /docs``: the HTTP interface as a page for people and as OpenAPI 3.1 for programs.

The page is made here, out of the same document, without scripts: it works offline and under the strictest
content security policy.
"""

from __future__ import annotations

from html import escape
from typing import Any

import msgspec
from litestar import Litestar, MediaType, Request, Response, get
from litestar.handlers import HTTPRouteHandler

from scoreboard.api.pages import PAGE_HEADERS
from scoreboard.api.update_score import BATCH_UPDATES, Submission
from scoreboard.api.updates import Profile

# Routes whose bodies we read ourselves, and what they hold.
_BODIES: dict[tuple[str, str], tuple[Any, bool]] = {
    ("/update-score", "post"): (Submission, False),
    ("/update-scores", "post"): (Submission, True),
    ("/users/{user_id}", "put"): (Profile, False),
}
_OPEN = ("/health", "/boards", "/demo", "/docs")


def document(app: Litestar) -> dict[str, Any]:
    """The OpenAPI document, with request bodies and security added."""
    found: dict[str, Any] = app.openapi_schema.to_schema()
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for (path, method), (kind, many) in _BODIES.items():
        operation = found["paths"].get(path, {}).get(method)
        if operation is None:
            continue
        _, components = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
        schemas.update(components)
        schema: dict[str, Any] = {"$ref": f"#/components/schemas/{kind.__name__}"}
        if many:
            schema = {"type": "array", "items": schema, "maxItems": BATCH_UPDATES}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    found["components"]["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "A user's JWT, or a service's key (`sb_…`).",
        }
    }
    for path, methods in found["paths"].items():
        if not path.startswith(_OPEN):
            for operation in methods.values():
                operation["security"] = [{"bearer": []}]
    return found


def page(found: dict[str, Any]) -> str:
    """The document as a page."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width,initial-scale=1">',
        "<title>Scoreboard HTTP interface</title><link rel=stylesheet href=/web/docs.css>",
        f"<main><h1>{escape(found['info']['title'])} <small>{escape(found['info']['version'])}</small></h1>",
        "<p>The same as <a href=/docs/openapi.json>OpenAPI</a>. Live boards come over WebSocket:",
        " <code>GET /boards/{board}/live</code>, subprotocol <code>scoreboard.v1</code>.",
    ]
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<section><h2><b>{method.upper()}</b> {escape(path)}</h2>")
            parts.append(
                f"<p>{escape(operation.get('summary', ''))}. {escape(operation.get('description', ''))}"
            )
            parts.append(_parameters(operation) + "<dl>")
            for status, answer in operation.get("responses", {}).items():
                parts.append(f"<dt>{escape(status)}<dd>{escape(answer.get('description', ''))}")
            parts.append("</dl></section>")
    return "".join(parts) + "</main>"


def _parameters(operation: dict[str, Any]) -> str:
    rows = [
        f"<dt>{escape(one['name'])} <small>{escape(one['in'])}</small>"
        f"<dd>{escape(one.get('description', ''))}"
        for one in operation.get("parameters", [])
    ]
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        name = (schema.get("items") or schema)["$ref"].rsplit("/", 1)[-1]
        rows.append(f"<dt>body<dd>{'array of ' if 'items' in schema else ''}{escape(name)}, JSON")
    return f"<dl>{''.join(rows)}</dl>" if rows else ""


def routes() -> list[HTTPRouteHandler]:
    """The handlers. The document is made at the first request, when all routes are known."""
    made: dict[str, Any] = {}

    def whole(app: Litestar) -> dict[str, Any]:
        if not made:
            made.update(document(app))
        return made

    @get("/docs/openapi.json", include_in_schema=False, sync_to_thread=False)
    def openapi(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
        return Response(whole(request.app), media_type="application/vnd.oai.openapi+json")

    @get("/docs", include_in_schema=False, sync_to_thread=False)
    def show_docs(request: Request[Any, Any, Any]) -> Response[str]:
        return Response(page(whole(request.app)), headers=PAGE_HEADERS, media_type=MediaType.HTML)

    return [openapi, show_docs]
