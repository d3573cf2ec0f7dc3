"""The SQL of the project: numbered migrations and named statements, as files."""

from __future__ import annotations

import re
from importlib import resources

_FILES = resources.files(__name__)


def statements() -> dict[str, str]:
    """The named statements of the files that are no migrations."""
    names = ("queries.sql", "moderation.sql", "dead_letters.sql")
    text = "".join((_FILES / name).read_text() for name in names)
    parts = re.split(r"^-- (\w+): .*\n", text, flags=re.MULTILINE)[1:]
    return {name: body.strip().rstrip(";") for name, body in zip(parts[::2], parts[1::2], strict=True)}


def tables() -> list[str]:
    """The tables that the migrations make, in order of making."""
    return [
        name for _, text in migrations() for name in re.findall(r"^CREATE TABLE (\w+)", text, re.MULTILINE)
    ]


def undone(tables: list[str]) -> list[str]:
    """Statements that take back what the migrations made. For tables that hold nothing."""
    functions = [
        n for _, text in migrations() for n in re.findall(r"^CREATE FUNCTION (\w+)", text, re.MULTILINE)
    ]
    return [
        *(f'DROP TABLE IF EXISTS "{name}" CASCADE' for name in [*tables, "migrations"]),
        *(f'DROP FUNCTION IF EXISTS "{name}" CASCADE' for name in functions),
    ]


def migrations() -> list[tuple[int, str]]:
    """The numbered migrations, in order: (number, SQL)."""
    names = sorted(f.name for f in _FILES.iterdir() if re.fullmatch(r"\d{4}_\w+\.sql", f.name))
    return [(int(name[:4]), (_FILES / name).read_text()) for name in names]
