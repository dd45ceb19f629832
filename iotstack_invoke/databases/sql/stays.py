"""What a database server holds and a backup lacks: queried, and dumped from the old data.

The dump is made after all that could write has stopped, by an isolated server of the same image on
the old data; it is loaded after the backup's own dump.
"""

from __future__ import annotations

from dataclasses import replace

from ...core.dataclass import dataclass
from ...core.errors import StepFailed
from ...engine.steps import HostStep, StepContext
from ...hosts.base import Command, Host, sh
from ...hosts.json_answers import read_json
from ..inventory import EXACT_HINT, Held, came_meanwhile
from .dump import SAYS_LEFT_OUT
from .load import ReadSql, SqlDump
from .read_dump import SqlReport
from .servers import NOT_LET_IN, SqlServer, run_in

SQL_OLD = "iotstack-sql-old"
"""The container that runs once more on the replaced data."""
SYSTEM = frozenset({"mysql", "template1", "postgres"})
"""Databases that every server has, and dumps name."""
_INTO = 'umask 077; f=$1; shift; exec "$@" > "$f"'


def held_in_dump(report: SqlReport) -> Held:
    """Return the names that a dump holds."""
    databases = tuple(each for each in report.databases if each not in SYSTEM)
    return Held(databases, report.users)


def held_by_server(host: Host, server: SqlServer, docker: tuple[str, ...]) -> Held:
    """Return the names that a server holds; raises StepFailed if it does not answer."""
    told = host.run(run_in(docker, server, "held"))
    if told.exit_code:
        why = "its password differs from its environment"
        raise StepFailed(why if told.exit_code == NOT_LET_IN else told.last_line)
    found: dict[str, list[str]] = {"d": [], "u": []}
    for line in told.out.splitlines():
        kind, _, rest = line.partition(" ")
        if kind in found:
            try:
                found[kind].append(_name(rest, server.engine))
            except (ValueError, StepFailed) as error:
                raise StepFailed(f"it returned an invalid name: {line}") from error
    return Held(tuple(found["d"]), tuple(found["u"]))


def _name(told: str, engine: str) -> str:
    if engine == "postgres":
        return read_json(told, "PostgreSQL").text()
    return "@".join(bytes.fromhex(each).decode() for each in told.split("/"))


@dataclass(frozen=True, slots=True)
class SeeSql(HostStep):
    """Check that all that a server holds and its dump lacks will be kept, and can be dumped."""

    server: SqlServer
    dump: SqlDump
    stays: Held
    limit_s: float

    def commands(self) -> tuple[str, ...]:
        """Return the query, and the dump."""
        tried = (f"{self._dump.shown} > /dev/null",) if self.stays else ()
        return (run_in(self.access.docker, self.server, "held").shown, *tried)

    @property
    def _dump(self) -> Command:
        lists = lists_of(self.stays, self.server.engine)
        return run_in(self.access.docker, self.server, "keep", *lists, limit_s=self.limit_s)

    def do(self, context: StepContext) -> None:
        """Raise StepFailed if something was created after the first check, or the query fails."""
        title = self.server.title
        try:
            here = held_by_server(self.access.host(context), self.server, self.access.docker)
        except StepFailed as error:
            raise StepFailed(f"{title} cannot list its databases and users: {error}") from error
        more = here.without(held_in_dump(self.dump.report(context))).without(self.stays)
        if more:
            raise StepFailed(came_meanwhile(self.server.container, more))
        if self.stays:
            self._try(context)

    def _try(self, context: StepContext) -> None:
        """Dump it and discard the output: errors are reported before anything is stopped."""
        host, title = self.access.host(context), self.server.title
        context.status(f"checking that the other data of {title} can be dumped")
        dump = self._dump
        told = host.run(replace(dump, argv=sh(_INTO, "/dev/null", *dump.argv)))
        if told.exit_code:
            names = ", ".join(self.stays.named(self.server.container))
            raise StepFailed(
                f"Could not dump the other data of {title} ({names}) on {host.name} (exit "
                f"{told.exit_code}): {told.last_line.rstrip('.')}. The stack was not changed. "
                f"Fix or drop it, then restore again. {EXACT_HINT}"
            )


@dataclass(frozen=True, slots=True)
class SaveStays(HostStep):
    """Dump what is kept from an isolated server on the old data, and read it to its end."""

    old: SqlServer
    dump: SqlDump
    """Where the dump is written."""
    notes: str
    """A file of the user's, who may use Docker; the folder of the dumps is root's."""
    stays: Held
    limit_s: float

    def commands(self) -> tuple[str, ...]:
        """Return the dump command."""
        return (f"{self._dump.shown} > '{self.dump.path}'",)

    @property
    def _dump(self) -> Command:
        lists = lists_of(self.stays, self.old.engine)
        return run_in(self.access.docker, self.old, "keep", *lists, limit_s=self.limit_s)

    def do(self, context: StepContext) -> None:
        """Raise StepFailed if the dump is incomplete."""
        host, title = self.access.host(context), self.dump.server.title
        context.status(f"dumping the other data of {title}")
        dump = self._dump
        command = self.access.guarded(*sh(_INTO, self.notes, *dump.argv))
        told = host.run(replace(dump, argv=command.argv), context.log_output)
        if told.exit_code:
            raise StepFailed(
                f"Could not dump the other data of {title} (exit {told.exit_code}): "
                f"{told.last_line.rstrip('.')}. {EXACT_HINT}"
            )
        for line in told.err.splitlines():
            if line.startswith(SAYS_LEFT_OUT):
                context.warn(f"Other data of {title}: {line}")
        move = ("mv", "-T", "--", self.notes, self.dump.path)
        host.run(self.access.guarded_root(*move, timeout_s=self.limit_s))
        ReadSql(self.dump).do(context)
        held = self.dump.report(context)
        lacking = self.stays.without(held_in_dump(held))
        if lacking:
            names = ", ".join(lacking.named(self.dump.server.container))
            raise StepFailed(f"The dump of the other data is missing {names}. {EXACT_HINT}")


def lists_of(stays: Held, engine: str) -> tuple[str, str]:
    """Return databases and users as lists for SQL, without quotes or special characters."""
    if engine == "postgres":
        lists = (map(_hex, names) for names in (stays.databases, stays.users))
        quoted = ([f"convert_from(decode('{e}', 'hex'), 'UTF8')" for e in each] for each in lists)
        databases, users = (", ".join(each) or "NULL" for each in quoted)
        return databases, users
    pairs = (each.rpartition("@") for each in stays.users)
    databases = ", ".join(f"X'{_hex(each)}'" for each in stays.databases)
    users = ", ".join(f"(X'{_hex(name)}', X'{_hex(host)}')" for name, _, host in pairs)
    return databases or "NULL", users or "(NULL, NULL)"


def _hex(name: str) -> str:
    return name.encode().hex()
