"""The file of a backup: written once from front to end, checked while it is read.

The form, number 1. It is a gzip file; what is in it is lines of UTF-8, so that ``zcat`` shows all of it:

1. a header (``Header``) as JSON: form, schema, when, which database, how far its log was read, and each
   table's name, columns and number of rows;
2. of each table in that order its rows, a line each, as PostgreSQL's ``COPY`` writes text, then a line
   ``\\.``;
3. a seal (``Seal``) as JSON: the SHA-256 of all lines before it.

Nothing follows. A reader must never hand out that the file was whole before the seal was compared; the seal
finds damage, not forgery.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import BinaryIO, TypeVar, cast

import msgspec
from msgspec import Struct

from scoreboard.adoption import Read
from scoreboard.errors import BadBackup

FORM = 1
END = b"\\.\n"
LINE_BYTES = 16 * 1024 * 1024  # a row at most: a dead letter is 1 MiB, written as hexadecimal digits
CHUNK_BYTES = 64 * 1024  # what is read or handed on at once
LEVEL = 3  # of compression: the higher ones take far more time for little
S = TypeVar("S", bound=Struct)


class Table(Struct, frozen=True):
    """One table of the backup."""

    name: str
    columns: Sequence[str]
    rows: int


class Header(Struct, frozen=True, kw_only=True):
    """What a backup says of itself."""

    scoreboard: str = "backup"
    form: int = FORM
    schema: int
    """The number of the last migration that the database had."""
    version: str
    made: datetime
    database: str
    """The identity of the database. A restored one gets another."""
    log: Sequence[Read]
    tables: Sequence[Table]


class Seal(Struct, frozen=True):
    """The last line."""

    sha256: str


class Writer:
    """Writes a backup. Begin with the header, end with ``seal``."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=LEVEL)
        self._digest = hashlib.sha256()

    def header(self, header: Header) -> None:
        """The first line."""
        self.rows(msgspec.json.encode(header) + b"\n")

    def rows(self, data: bytes) -> None:
        """Some rows of the table that is next, whole or in pieces."""
        self._digest.update(data)
        self._file.write(data)

    def end_table(self) -> None:
        """All rows of a table have been written."""
        self.rows(END)

    def seal(self) -> None:
        """The file is whole."""
        self._file.write(msgspec.json.encode(Seal(self._digest.hexdigest())) + b"\n")
        self._file.close()


class Reader:
    """Reads a backup from front to end: ``header``, each table's ``rows`` in order, ``end``."""

    def __init__(self, file: BinaryIO) -> None:
        self._lines = io.BufferedReader(cast("io.RawIOBase", gzip.GzipFile(fileobj=file)), CHUNK_BYTES)
        self._digest = hashlib.sha256()

    def header(self) -> Header:
        """The first line.

        Raises:
            BadBackup: it is no backup, or of a form that this version does not know.
        """
        with _checked():
            line = self._line()
            about = msgspec.json.decode(line, type=dict[str, object])
            form = about.get("form")
            if about.get("scoreboard") != "backup" or not isinstance(form, int):
                raise BadBackup
            if form > FORM:
                raise BadBackup(f"The backup has the form {form}, of a newer version; this one reads {FORM}.")
            return msgspec.json.decode(line, type=Header)

    def rows(self, table: Table) -> Iterator[bytes]:
        """The rows of the table that is next, some at a time.

        Raises:
            BadBackup: there are more or fewer than the header says, or the file is damaged.
        """
        with _checked():
            chunk: list[bytes] = []
            size = 0
            for _ in range(table.rows):
                line = self._line()
                chunk.append(line)
                size += len(line)
                if size >= CHUNK_BYTES:
                    yield b"".join(chunk)
                    chunk, size = [], 0
            yield b"".join(chunk)
            if self._line() != END:
                raise BadBackup(f"The file is damaged: the table {table.name} does not end where it should.")

    def end(self) -> None:
        """The file is whole and as it was written.

        Raises:
            BadBackup: it is not.
        """
        with _checked():
            found = self._digest.hexdigest()
            if msgspec.json.decode(self._line(), type=Seal).sha256 != found or self._lines.read(1):
                raise BadBackup("The file is damaged: its content is not what its seal says.")

    def _line(self) -> bytes:
        line = self._lines.readline(LINE_BYTES)
        if not line.endswith(b"\n"):
            raise EOFError("it ends in the middle")
        self._digest.update(line)
        return line


@contextmanager
def _checked() -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise BadBackup(f"The file is damaged or cut off, or is no backup: {error}") from error
    except msgspec.MsgspecError as error:
        raise BadBackup from error
