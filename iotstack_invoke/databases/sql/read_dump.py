"""What a dump of SQL must hold: MariaDB's and PostgreSQL's, read once as a stream. Pure.

Exit code 0 of a dump program proves little if a shell or a connection was between. A complete dump
has its end marker, and gives the number of rows of each table, which are counted again after the
load. The forms are those of mariadb-dump 10.5 to 11 and pg_dumpall 9.6 to 18.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import field
from itertools import islice
from typing import Protocol

from ...core.dataclass import dataclass

_Form = re.Pattern[bytes]
LONGEST_LINE_BYTES = 4 << 20
"""How much of a line is kept: only the beginning and the end of a row are needed."""
LONGEST_NAMING_BYTES = 1 << 16
"""Maximum length of a statement whose names contain newlines, before its rows."""


@dataclass(frozen=True, slots=True)
class SqlTable:
    """A table as named in the dump; `name` is already quoted if the server needs that."""

    database: str
    name: str

    def __str__(self) -> str:
        return f"{self.database}.{self.name}" if self.database else self.name


@dataclass(frozen=True, slots=True)
class SqlReport:
    """What a dump holds; without problems it is complete."""

    problems: tuple[str, ...]
    databases: tuple[str, ...]
    rows: Mapping[SqlTable, int] = field(default_factory=dict)
    """The rows of each table that has any in the dump, or that the dump lists as empty."""
    version: str = ""
    """The version of the server that made it."""
    timescale: tuple[str, ...] = ()
    """The databases that have the extension TimescaleDB: a plain load breaks them."""
    left_out: tuple[str, ...] = ()
    """What the dump program left out, by option or by itself, and why."""
    apart: tuple[str, ...] = ()
    """Objects with folders of their own: tables of MariaDB, tablespaces of PostgreSQL."""
    users: tuple[str, ...] = ()
    """The users of MariaDB, as `name@host`, or the roles that the dump creates."""
    versioned: frozenset[SqlTable] = frozenset()
    """The tables of MariaDB with row history: old versions of rows count as rows, too."""
    in_memory: tuple[SqlTable, ...] = ()
    """Tables with rows that are held only in memory: a restart of the server empties them."""


def in_memory_told(report: SqlReport) -> str:
    """Return the tables whose rows are lost when their server restarts, and how many they are."""
    return ", ".join(
        f"{each} ({count:,} {'row' if count == 1 else 'rows'})"
        for each in report.in_memory
        for count in (report.rows[each],)
    )


class SqlReader(Protocol):
    """Takes a dump in pieces, in its order."""

    def add(self, piece: bytes) -> None:
        """Take the next piece."""
        ...

    def report(self) -> SqlReport:
        """Return the report, at the end of the dump."""
        ...


class _LineSplitter:
    """Cuts pieces into lines; the middle of a line that is too long is left out."""

    def __init__(self) -> None:
        self._begun = bytearray()

    def cut(self, piece: bytes) -> list[bytes]:
        """Return the lines that end in this piece."""
        first, end, rest = piece.partition(b"\n")
        self._extend(first)
        if not end:
            return []
        lines = rest.split(b"\n")
        lines.insert(0, bytes(self._begun))
        self._begun = bytearray(lines.pop())
        return lines

    def _extend(self, more: bytes) -> None:
        if len(self._begun) + len(more) <= LONGEST_LINE_BYTES:
            self._begun += more
        elif more:
            del self._begun[LONGEST_LINE_BYTES:]
            self._begun += more[-1:]


class _Reader:
    """The state of reading a dump, for both servers."""

    def __init__(self) -> None:
        self._lines = _LineSplitter()
        self._database = ""
        self._databases: list[str] = []
        self._rows: dict[SqlTable, int] = {}
        self._table: SqlTable | None = None
        self._complete = False
        self._version = ""
        self._begun = b""

    def _joined(self, line: bytes, quote: bytes, begin: tuple[bytes, ...], form: _Form) -> bytes:
        """Return a line joined to those before it if a newline in a name splits a statement.

        b"" inside such a statement. Only statements that begin so are checked.
        """
        if not self._begun and not line.startswith(begin):
            return line
        whole = self._begun + line
        cut = (
            whole.count(quote) % 2 and len(whole) < LONGEST_NAMING_BYTES and not form.match(whole)
        )
        self._begun = whole + b"\n" if cut else b""
        return b"" if cut else whole


_MARIA_END = b"FLUSH PRIVILEGES;"
_MARIA_HAS_END = b"-- This dump ends with " + _MARIA_END
"""Our own dumps have it (mariadb.sh): two programs wrote them, each with its end marker."""
_MARIA_USE = re.compile(rb"USE `((?:[^`]|``)+)`;")
_MARIA_INSERT = re.compile(
    rb"(?:INSERT|REPLACE)(?: +IGNORE)? INTO (`(?:[^`]|``)+`)(?: \(.*?\))? VALUES ?(.*)", re.DOTALL
)
_MARIA_TABLE = re.compile(rb"CREATE TABLE (?:IF NOT EXISTS )?(`(?:[^`]|``)+`) \(")
_MARIA_BEGIN = (b"USE ", b"CREATE TABLE ", b"INSERT ", b"REPLACE ")
_MARIA_FORM = re.compile(
    b"|".join(each.pattern for each in (_MARIA_USE, _MARIA_INSERT, _MARIA_TABLE)), re.DOTALL
)
_MARIA_APART = re.compile(
    rb"(?:\) ENGINE=| ?\(?(?:SUB)?PARTITION ).*(?:DATA|INDEX) DIRECTORY ?= ?'", re.DOTALL
)
_MARIA_VERSIONED = re.compile(
    rb"\) ENGINE=[^']*(?:'(?:[^'\\]|\\.)*'[^']*)* WITH SYSTEM VERSIONING\b", re.DOTALL
)
"""Not in a comment on the table, which is quoted."""
_MARIA_IN_MEMORY = re.compile(rb"\) ENGINE=MEMORY\b")
_MARIA_VERSION = re.compile(rb"-- Server version\s+(\S+)")
_MARIA_USERS = (SqlTable("mysql", "`global_priv`"), SqlTable("mysql", "`user`"))
_MARIA_USER = re.compile(rb"\('((?:[^'\\]|\\.|'')*)','((?:[^'\\]|\\.|'')*)',", re.DOTALL)
_MARIA_ESCAPED = re.compile(rb"\\(.)|''", re.DOTALL)
_TUPLE_ENDS = re.compile(rb"'(?:[^'\\]|\\.|'')*'|(\),\()", re.DOTALL)


class MariaReader(_Reader):
    """Reads what mariadb-dump or mysqldump wrote.

    Before version 10.7 all rows of a statement are on one line; later each row has its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._in_body = False
        self._lacks_end = False
        self._made: SqlTable | None = None
        self._apart: dict[str, None] = {}
        self._versioned: set[SqlTable] = set()
        self._in_memory: list[SqlTable] = []
        self._users: dict[str, None] = {}

    def add(self, piece: bytes) -> None:
        """Take the next piece."""
        lines = self._lines.cut(piece)
        at = 0
        while at < len(lines):
            if self._table is None:
                self._take(lines[at])
                at += 1
            else:
                at += self._count(self._table, lines, at)

    def _count(self, table: SqlTable, lines: list[bytes], start: int) -> int:
        """Count the rows of a table from a line on, and return how many lines they are."""
        rows = 0
        of_users = table in _MARIA_USERS
        for line in islice(lines, start, None):
            if line[:1] != b"(":
                self._table = None
                break
            rows += 1
            if of_users:
                self._user(line)
            if line[-1:] == b";":
                self._table = None
                break
        self._rows[table] += rows
        return rows

    def _take(self, line: bytes) -> None:
        if line.startswith(b"DELIMITER "):  # up to the next one is the body of a routine
            self._in_body = line != b"DELIMITER ;"
        elif self._in_body or not (line := self._joined(line, b"`", _MARIA_BEGIN, _MARIA_FORM)):
            return
        elif line.startswith(b"-- Dump completed"):
            self._complete = True
        elif line == _MARIA_HAS_END:
            self._lacks_end = True
        elif line == _MARIA_END:
            self._lacks_end = False
        elif line.startswith((b"INSERT", b"REPLACE")):
            self._insert(line)
        elif found := _MARIA_USE.match(line):
            self._database = _text(found[1].replace(b"``", b"`"))
            self._complete = False
            if self._database not in self._databases:
                self._databases.append(self._database)
        elif found := _MARIA_TABLE.match(line):
            self._made = SqlTable(self._database, _text(found[1]))
            self._rows.setdefault(self._made, 0)
            self._complete = False
        elif self._made and line.lstrip().startswith((b")", b"(", b"PARTITION", b"SUBPARTITION")):
            self._heed_options(self._made, line)
        elif not self._version and (found := _MARIA_VERSION.match(line)):
            self._version = _text(found[1])

    def _heed_options(self, table: SqlTable, line: bytes) -> None:
        """Record what a line behind the columns of a table says about it."""
        if _MARIA_APART.match(line):
            self._apart[str(table)] = None
        if _MARIA_VERSIONED.match(line):
            self._versioned.add(table)
        if _MARIA_IN_MEMORY.match(line):
            self._in_memory.append(table)

    def _insert(self, line: bytes) -> None:
        found = _MARIA_INSERT.match(line)
        if not found:
            return
        self._complete = False
        table = SqlTable(self._database, _text(found[1]))
        self._rows.setdefault(table, 0)
        if found[2]:
            self._rows[table] += 1 + sum(1 for end in _TUPLE_ENDS.finditer(found[2]) if end[1])
        if found[2] and table in _MARIA_USERS:
            ends = (end.end(1) for end in _TUPLE_ENDS.finditer(found[2]) if end[1])
            for begin in (0, *(each - 1 for each in ends)):
                self._user(found[2][begin:])
        if not found[2].endswith(b";"):
            self._table = table

    def _user(self, row: bytes) -> None:
        """Record the user that a row begins with: its first columns are Host and User."""
        if found := _MARIA_USER.match(row):
            host, name = (
                _text(_MARIA_ESCAPED.sub(lambda each: each[1] or b"'", one))
                for one in found.groups()
            )
            self._users[f"{name}@{host}"] = None

    def report(self) -> SqlReport:
        """Return the report on the dump."""
        self.add(b"\n")  # the last line may have no end
        end = "" if self._complete else "-- Dump completed"
        if self._lacks_end:
            end = _MARIA_END.decode()
        problems = (f"its last line is not `{end}`",) if end else ()
        return SqlReport(
            problems,
            tuple(self._databases),
            self._rows,
            self._version,
            apart=tuple(self._apart),
            users=tuple(self._users),
            versioned=frozenset(self._versioned),
            in_memory=tuple(each for each in self._in_memory if self._rows[each]),
        )


_PG_COPY_NAME = re.compile(rb'((?:"(?:[^"]|"")+"|[^". ]+)\.(?:"(?:[^"]|"")+"|[^". ]+))')
_PG_COPY = re.compile(rb".* FROM stdin;\Z", re.DOTALL)
_PG_CONNECT = re.compile(rb"\\connect (?:-reuse-previous=on \"(.*)\"|(\S+))")
_PG_DBNAME = re.compile(r"dbname='((?:[^'\\]|\\.)*)'")
PG_MADE_BY = b"-- Dumped from database version "
_PG_VERSION = re.compile(PG_MADE_BY + rb"(\S+)")
PG_TABLE_DATA = b"; Type: TABLE DATA;"
PG_TIMESCALE = b"CREATE EXTENSION IF NOT EXISTS timescaledb "
_PG_TABLESPACE = re.compile(rb'CREATE TABLESPACE ("(?:[^"]|"")+"|\S+) ')
_PG_ROLE = re.compile(rb'CREATE ROLE ("(?:[^"]|"")+"|\S+);')
PG_END = b"-- PostgreSQL database cluster dump complete"


class PostgresReader(_Reader):
    """Reads what pg_dumpall wrote."""

    def __init__(self) -> None:
        super().__init__()
        self._copy_follows = False
        self._open_databases = 0
        self._extension_follows = False
        self._timescale: list[str] = []
        self._tablespaces: list[str] = []
        self._roles: list[str] = []

    def add(self, piece: bytes) -> None:
        """Take the next piece."""
        lines = self._lines.cut(piece)
        at = 0
        while at < len(lines):
            if self._table is None:
                self._take(lines[at])
                at += 1
                continue
            try:
                end = lines.index(b"\\.", at)
            except ValueError:
                self._rows[self._table] += len(lines) - at
                return
            self._rows[self._table] += end - at
            self._table = None
            at = end + 1

    def _take(self, line: bytes) -> None:
        if self._copy_follows:
            line = self._joined(line, b'"', (b"COPY ",), _PG_COPY)
        if line.startswith(b"-- "):
            self._comment(line)
        elif line.startswith(b"COPY "):
            self._copy(line)
        elif line.startswith(b"\\connect "):
            self._connect(line)
        elif not self._databases and (found := _PG_TABLESPACE.match(line)):
            self._tablespaces.append(_text(found[1]))
        elif not self._databases and (found := _PG_ROLE.match(line)):
            name = found[1][1:-1].replace(b'""', b'"') if found[1][:1] == b'"' else found[1]
            self._roles.append(_text(name))
        elif self._extension_follows and line.startswith(PG_TIMESCALE):
            self._timescale.append(self._database)
            self._extension_follows = False

    def _comment(self, line: bytes) -> None:
        if line.startswith(b"-- Name: "):
            self._extension_follows = b"; Type: EXTENSION;" in line
        elif line.startswith(b"-- Data for Name: "):
            # Only after this line: a function may hold a line that looks like COPY.
            self._copy_follows = PG_TABLE_DATA in line
        elif line == b"-- PostgreSQL database dump":
            self._open_databases += 1
        elif line == b"-- PostgreSQL database dump complete":
            self._open_databases -= 1
        elif line == PG_END:
            self._complete = True
        elif not self._version and (found := _PG_VERSION.match(line)):
            self._version = _text(found[1])

    def _copy(self, line: bytes) -> None:
        found = _PG_COPY_NAME.match(line, len(b"COPY ")) if self._copy_follows else None
        if found and line.endswith(b" FROM stdin;"):
            self._copy_follows = False
            self._table = SqlTable(self._database, _text(found[1]))
            self._rows.setdefault(self._table, 0)

    def _connect(self, line: bytes) -> None:
        found = _PG_CONNECT.match(line)
        if not found:
            return
        name = _text(found[2] or b"")
        if found[1] is not None:
            inner = _PG_DBNAME.search(_text(found[1]).replace('""', '"'))
            name = re.sub(r"\\(.)", r"\1", inner[1]) if inner else ""
        self._database = name
        if name not in self._databases:
            self._databases.append(name)

    def report(self) -> SqlReport:
        """Return the report on the dump."""
        self.add(b"\n")  # the last line may have no end
        problems = []
        if self._table is not None:
            problems.append(f"it ends in the middle of the rows of {self._table.name}")
        if not self._complete:
            problems.append(f"line `{PG_END.decode()}` is missing")
        elif self._open_databases:
            problems.append("one of its databases has no end")
        return SqlReport(
            tuple(problems),
            tuple(self._databases),
            self._rows,
            self._version,
            tuple(self._timescale),
            apart=tuple(self._tablespaces),
            users=tuple(self._roles),
        )


READERS: Mapping[str, Callable[[], SqlReader]] = {
    "mariadb": MariaReader,
    "postgres": PostgresReader,
}
"""The readers by the engine whose dumps they read."""


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
