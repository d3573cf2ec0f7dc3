"""``/embed/{board}`` and ``/overlay/{board}``: one board alone, in a frame or over a picture.

In comes a board's name and how it shall look, out goes a page around the element. It must never put a word of
the query into the page that has not been checked, and never take a token: an address is no place for one.
"""

from __future__ import annotations

from html import escape
from importlib import resources
from string import Template
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from msgspec import Meta, Struct

from scoreboard.api.pages import PAGE_HEADERS
from scoreboard.config import Config
from scoreboard.errors import Problem

# As for any page of ours, but any page may show it in a frame: there is nothing in it to click at.
EMBED_HEADERS = {
    name: value.replace("frame-ancestors 'self'", "frame-ancestors *") for name, value in PAGE_HEADERS.items()
}
LIMIT = 100
"""Rows a board has at most."""
FITTING = '<script type="module" src="../web/overlay.js"></script>\n'
"""Lets the rows of an overlay fit its height."""


class Embed(Struct, frozen=True, forbid_unknown_fields=True):
    """How a board shall look in a frame: the query of its address."""

    rows: Annotated[int, Meta(ge=1, le=LIMIT)] | None = None
    heading: Annotated[str, Meta(max_length=100)] | None = None
    """Instead of the board's title; empty: none."""
    theme: Literal["auto", "light", "dark"] = "auto"
    lang: Annotated[str, Meta(pattern="^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,3}$")] | None = None
    """How numbers and times are written."""
    scale: Annotated[str, Meta(pattern=r"^(0\.[2-9]|[1-9](\.[0-9]{1,2})?)$")] | None = None
    """Times the usual size."""


class Overlay(Embed, frozen=True, forbid_unknown_fields=True):
    """How a board shall lie over a picture."""

    theme: Literal["auto", "light", "dark"] = "dark"
    align: Literal["left", "center", "right"] = "left"
    valign: Literal["top", "middle", "bottom"] = "top"


def routes(config: Config) -> list[HTTPRouteHandler]:
    """The handlers."""
    template = Template((resources.files("scoreboard") / "web" / "embed.html").read_text())

    def page(request: Request[Any, Any, Any], board: str, look: type[Embed]) -> Response[str]:
        chosen = look_of(request.scope["query_string"], look)
        shown = config.boards.get(board)
        if shown is None or not shown.public:  # a private one could not be shown without a token
            shown = None
            body = f'<p class="missing">There is no board “{escape(board)}” here.</p>'
        else:
            body = f"<live-scoreboard{_attributes(board, chosen)}></live-scoreboard>"
        html = template.substitute(
            kind=look.__name__.lower(),
            theme=chosen.theme,
            align=getattr(chosen, "align", ""),
            valign=getattr(chosen, "valign", ""),
            rows=min(chosen.rows or LIMIT, shown.top) if shown else 0,
            script=FITTING if look is Overlay else "",
            title=escape((shown and shown.title) or board),
            body=body,
        )
        status = 200 if shown else 404
        return Response(html, status_code=status, headers=EMBED_HEADERS, media_type=MediaType.HTML)

    @get("/embed/{board:str}", include_in_schema=False, sync_to_thread=False)
    def embed(request: Request[Any, Any, Any], board: FromPath[str]) -> Response[str]:
        return page(request, board, Embed)

    @get("/overlay/{board:str}", include_in_schema=False, sync_to_thread=False)
    def overlay(request: Request[Any, Any, Any], board: FromPath[str]) -> Response[str]:
        return page(request, board, Overlay)

    return [embed, overlay]


def look_of(query: bytes, look: type[Embed]) -> Embed:
    """The options of an address. Raises ``Problem`` for what is not one of them, or given twice."""
    try:
        text = query.decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), errors="strict")
        given = dict(pairs)
        if len(given) < len(pairs):
            raise ValueError("an option is given twice")
        return msgspec.convert(given, look, strict=False)
    except ValueError as error:  # of text that is no query, or of a wrong value
        raise Problem("invalid_field", f"{error}.") from error


def _attributes(board: str, look: Embed) -> str:
    options = {"board": board, "rows": look.rows, "heading": look.heading, "theme": look.theme}
    options |= {"lang": look.lang, "scale": look.scale}
    return "".join(f' {name}="{escape(str(value))}"' for name, value in options.items() if value is not None)
