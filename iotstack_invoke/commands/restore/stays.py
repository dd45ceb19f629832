"""What a target has and a backup lacks: databases and users of its servers, folders.

It stays in a restore; with --exact it is moved aside. What cannot be queried is reported as
unknown. Changes nothing.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, replace
from typing import Any

from ...backups.manifest import Manifest
from ...core.dataclass import dataclass
from ...core.errors import StepFailed
from ...databases.influxdb.meta import Catalogue, read_meta, read_meta_db
from ...databases.influxdb.server import Server
from ...databases.influxdb.stays import held_by, present_catalogue
from ...databases.inventory import EXACT_HINT, Held
from ...databases.sql.load import read_dump
from ...databases.sql.servers import run_in
from ...databases.sql.stays import SYSTEM, held_by_server, held_in_dump, lists_of
from ...environment.stack_host import StackHost
from ...hosts.base import Command
from ...hosts.inspect import entries, stat_on
from ...stack.compose import InspectedContainer, named
from ...workflows.restore import RestoreFacts, SqlImport

META_LIMIT_S = 600.0
SIZES = {
    "mariadb": "SELECT CAST(COALESCE(SUM(data_length + index_length), 0) AS UNSIGNED) "
    "FROM information_schema.tables WHERE table_schema IN ({})",
    "postgres": "SELECT COALESCE(SUM(pg_database_size(datname)), 0) FROM pg_database "
    "WHERE datname IN ({})",
}
"""The queries for the size of some databases."""


@dataclass(frozen=True, slots=True)
class More:
    """The findings, by the containers of the servers."""

    more: Mapping[str, Held] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Those that are unknown, and why."""
    later: tuple[str, ...] = ()
    """Those that are known after their dumps are unpacked."""


def names_told(facts: RestoreFacts) -> str:
    """Return the folders, databases and users that are here and not in the backup; '' for none.

    Not those of a server whose contents are unknown yet.
    """
    stack = posixpath.dirname(posixpath.dirname(facts.previous))
    places = (posixpath.relpath(each.live, stack) for each in facts.folders)
    names = (name for server, held in facts.more.items() for name in held.named(server))
    return ", ".join((*places, *names))


def unknown_told(facts: RestoreFacts) -> tuple[str, ...]:
    """Return for which servers it is unknown, as warnings; none if nothing is to stay."""
    return tuple(
        f"Data of container {name} that is not in the backup cannot be kept in place: {why}. All "
        f"its old data are kept in {facts.previous}. To keep it in place: inv undo, start the "
        "container, and restore again."
        for name, why in facts.unknown.items()
        if not facts.exact
    )


def put_in_place(facts: RestoreFacts, manifest: Manifest | None) -> Iterator[tuple[bool, str]]:
    """Yield what is loaded of each dump, and whether its server already exists.

    By the names of its databases if others stay beside them.
    """
    for name in facts.databases:
        yield facts.server_there, f"database {name} of InfluxDB"
    if facts.server and not facts.databases:
        names = tuple(map(str, _facts_of(manifest, "influx").get("databases", ())))
        told = _all_or_named(facts, facts.server.container, "InfluxDB", names)
        yield facts.server_there, told
    for each in facts.loads:
        title = each.server.title
        told = f"a database of {title}"
        if not each.unnamed:
            names = _names_of(_server_told(manifest, each))
            told = _all_or_named(facts, each.server.container, title, names)
        yield each.there, told


def _all_or_named(facts: RestoreFacts, container: str, title: str, names: tuple[str, ...]) -> str:
    may_stay = not facts.exact and container in facts.later
    if not (may_stay or facts.staying(container)):
        return f"all of {title}"
    if not names:
        return f"what the backup has of {title}"
    return f"database{'s' if len(names) > 1 else ''} {', '.join(names)} of {title}"


def _facts_of(manifest: Manifest | None, kind: str) -> Mapping[str, Any]:
    """Return the manifest's facts about the part of a kind; {} for none."""
    parts = manifest.made if manifest else ()
    return next((each.facts for each in parts if each.kind == kind), {})


def _server_told(manifest: Manifest | None, load: SqlImport) -> Mapping[str, Any]:
    """Return its facts about the server of a load; {} for none."""
    servers = _facts_of(manifest, load.part or load.server.engine).get("servers", ())
    mine = (each for each in servers if each.get("container") == load.server.container)
    return next(mine, {})


def _names_of(told: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in told.get("rows", {}) if name not in SYSTEM)


def told_before(facts: RestoreFacts) -> Iterator[str]:
    """Yield the messages before a restore on what is here and not in the backup."""
    becomes = "is moved aside" if facts.exact else "stays here"
    if names := names_told(facts):
        yield f"{becomes}, not in the backup: {names}"
    if facts.beyond:
        yield f"stays here, not in the backup: {', '.join(facts.beyond)}"
    if facts.later:
        servers = ", ".join(facts.later)
        yield f"{becomes} as well: other data of {servers}, listed when the backup is unpacked"


def told_after(facts: RestoreFacts) -> Iterator[str]:
    """Yield what happened to it."""
    if names := names_told(facts):
        yield f"{'moved aside' if facts.exact else 'kept'}, not in the backup: {names}"
    if facts.beyond:
        yield f"kept, not in the backup: {', '.join(facts.beyond)}"


@dataclass(frozen=True, slots=True)
class Stays:
    """Finds it, for one restore."""

    target: StackHost
    found: tuple[InspectedContainer, ...]
    manifest: Manifest | None
    stage: str

    def look(self, facts: RestoreFacts, loads: Iterable[SqlImport], *, staged: bool) -> More:
        """Return what the servers hold that load a dump, and their dumps lack.

        By the staged dumps, or else by the facts in the manifest.
        """
        more: dict[str, Held] = {}
        unknown: dict[str, str] = {}
        later: list[str] = []
        asked = [(each.server.container, self._of_sql, each) for each in loads]
        if facts.server and "influx" in facts.kinds and not facts.databases:
            asked.append((facts.server.container, self._of_influx, facts.server))  # type: ignore[arg-type]
        for container, ask, about in asked:
            try:
                held = ask(about, staged=staged)
            except StepFailed as error:
                unknown[container] = str(error).rstrip(".")
                continue
            if held is None:
                later.append(container)
            else:
                more[container] = held
        return More(more, unknown, tuple(later))

    # InfluxDB.

    def _of_influx(self, server: Server, *, staged: bool) -> Held | None:
        content = present_catalogue(self.target.host, self.target.access, server)
        try:
            here = held_by(read_meta_db(content)) if content else Held()
        except ValueError as error:
            raise StepFailed(f"its catalogue cannot be read: {error}") from error
        held = held_by(self._staged_catalogue()) if staged else self._told_of_influx()
        if held is None:
            return None if here else here
        return here.without(held)

    def _told_of_influx(self) -> Held | None:
        told = _facts_of(self.manifest, "influx")
        if "databases" not in told or "user_names" not in told:
            return None
        return Held(tuple(told["databases"]), tuple(told["user_names"]))

    def _staged_catalogue(self) -> Catalogue:
        host, as_root = self.target.host, self.target.as_root
        words = (*as_root, "find", f"{self.stage}/influx", "-maxdepth", "1", "-name", "*.meta")
        told = host.run(Command((*words, "-print0"), timeout_s=META_LIMIT_S)).out
        newest = max(told.split("\0"))
        if not newest:
            return Catalogue((), (), 0)
        with host.pipe(Command((*as_root, "cat", "--", newest), timeout_s=META_LIMIT_S)) as pipe:
            content = pipe.stdout.read()
            if pipe.finish():
                raise StepFailed(f"{newest} cannot be read")
        try:
            return read_meta(content)
        except ValueError as error:
            raise StepFailed(f"the catalogue of its dump cannot be read: {error}") from error

    # MariaDB and PostgreSQL.

    def _of_sql(self, load: SqlImport, *, staged: bool) -> Held | None:
        host, server = self.target.host, load.server
        if load.unnamed or not entries(host, server.data, self.target.as_root):
            return Held()  # its other databases stay, or there is nothing
        there = named(self.found, server.container)
        if there is None or not there.container.running:
            raise StepFailed("it is not running" if there else "no such container")
        here = held_by_server(host, server, self.target.docker)
        told = self._told_of_sql(load)
        if staged and told is None:
            dump = read_dump(host, load.staged, server.engine, self.target.as_root)
            told = held_in_dump(dump)
        return here.without(told) if told is not None else None

    def _told_of_sql(self, load: SqlImport) -> Held | None:
        told = _server_told(self.manifest, load)
        return Held(_names_of(told), tuple(told["users"])) if "users" in told else None

    # Space.

    def bytes_of(self, facts: RestoreFacts, loads: Iterable[SqlImport]) -> int:
        """Return the space needed to add it to the restored data; for SQL with its dump."""
        total = 0
        for each in loads:
            stays = facts.staying(each.server.container)
            if stays.databases:
                databases, _ = lists_of(stays, each.server.engine)
                asked = SIZES[each.server.engine].format(databases)
                asking = run_in(self.target.docker, each.server, "ask", asked)
                number = self.target.host.run(asking).out
                total += 3 * self._number(number, ", ".join(stays.databases))
        if facts.server:
            names = facts.staying(facts.server.container).databases
            folders = (facts.server.folder(each) for each in ("data", "wal"))
            paths = [f"{folder}/{name}" for folder in folders for name in names]
            words = ("du", "-sbc", "--", *paths)
            if paths:  # the log may have none
                told = stat_on(self.target.host, words, self.target.as_root, META_LIMIT_S)
                total += self._number(told, ", ".join(names))
        return total

    def _number(self, told: str, what: str) -> int:
        """Return the number in the last line of an answer; raises StepFailed if missing."""
        last = next((each for each in reversed(told.split("\n")) if each.strip()), "").split()
        if not last or not last[0].isdigit():
            raise StepFailed(
                f"On {self.target.name}: cannot measure the size of {what}, kept beside the data "
                f"of the backup. The stack was not changed. {EXACT_HINT}"
            )
        return int(last[0])

    def add(
        self, facts: RestoreFacts, loads: Iterable[SqlImport], *, staged: bool
    ) -> RestoreFacts:
        """Return the facts of a restore with what stays beside the restored data."""
        loads = tuple(loads)
        found = self.look(facts, loads, staged=staged)
        facts = replace(facts, more=found.more, unknown=found.unknown, later=found.later)
        own = (replace(e, stays=facts.staying(e.server.container)) for e in facts.loads)
        facts = replace(facts, loads=tuple(own))
        return replace(facts, stays_bytes=self.bytes_of(facts, loads))
