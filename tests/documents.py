"""For the tests of documents: which there are, their sections, tables and examples, and all commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/**/*.md"),
        *ROOT.glob("deploy/**/*.md"),
    ]
)
TEXTS = [
    *DOCUMENTS,
    *(ROOT / name for name in ("Dockerfile", "compose.yaml", ".dockerignore")),
    *(
        path
        for name in ("deploy", "examples")
        for path in sorted((ROOT / name).rglob("*.*"))
        if path.suffix != ".pyc"
    ),
]
SERVED = "http://127.0.0.1:8000"  # where the documents suppose that it serves
CODE = r"`([^`]+)`"


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next of its rank or above."""
    level = len(heading) - len(heading.lstrip("#"))
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{level}}} |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"no heading {heading!r}"
    return found[1]


def first_cells(text: str) -> list[str]:
    """The code words in the first cells of all tables."""
    return [word for row in re.findall(r"^\| (.*?) \|", text, re.MULTILINE) for word in re.findall(CODE, row)]


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(document), re.DOTALL | re.MULTILINE)


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for below, one in command.commands.items():
            yield from commands(one, f"{name} {below}")
