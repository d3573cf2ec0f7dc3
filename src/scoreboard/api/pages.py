"""The page at ``/`` and its files under ``/web``, from memory."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from scoreboard.errors import Problem

# What a page of ours may load and do: our own files and sockets, nothing else, nothing inline.
PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self';"
        " require-trusted-types-for 'script'"
    ),
    # It wants nothing of the device, and shares its window with nobody.
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",  # a new version shows at once; unchanged files cost a 304
}
_OWN_HEADERS = {"cross-origin-resource-policy": "same-origin"}
# The client and the element are modules that any page may import.
_MODULE_HEADERS = {"access-control-allow-origin": "*", "cross-origin-resource-policy": "cross-origin"}
# What we serve under /web. The pages themselves have addresses of their own.
_TYPES = {".js": "text/javascript", ".ts": "text/plain", ".css": "text/css", ".svg": "image/svg+xml"}


def routes() -> list[HTTPRouteHandler]:
    """The handlers. All files are read once, here."""
    folder = resources.files("scoreboard") / "web"
    files: dict[str, tuple[bytes, str, str]] = {}
    for one in folder.iterdir():
        kind = _TYPES.get("." + one.name.rpartition(".")[2])
        if kind or one.name == "index.html":
            body = one.read_bytes()
            files[one.name] = (body, kind or "text/html", f'"{hashlib.sha256(body).hexdigest()[:16]}"')

    def answer(request: Request[Any, Any, Any], name: str) -> Response[bytes]:
        if name not in files:
            raise Problem("not_found")
        body, kind, etag = files[name]
        headers = PAGE_HEADERS | {"etag": etag, "content-type": f"{kind}; charset=utf-8"}
        headers |= _MODULE_HEADERS if name.endswith((".js", ".ts")) else _OWN_HEADERS
        if request.headers.get("if-none-match") == etag:
            return Response(b"", status_code=304, headers=headers)
        return Response(body, headers=headers)

    @get("/", include_in_schema=False, sync_to_thread=False)
    def index(request: Request[Any, Any, Any]) -> Response[bytes]:
        return answer(request, "index.html")

    @get("/web/{name:str}", include_in_schema=False, sync_to_thread=False)
    def file(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        return answer(request, name)

    return [index, file]
