"""What an InfluxDB 1.x holds and a backup lacks: found when the server is stopped, and kept.

The files of such databases are copied before the dump is loaded beside them, which only adds to
the catalogue; their users are added to it together with those of the dump.
"""

from __future__ import annotations

import posixpath

from ...core.dataclass import dataclass
from ...core.errors import StepFailed
from ...engine.steps import HostAccess, HostStep, StepContext
from ...hosts.base import Command, Host, sh
from ...hosts.inspect import read_bytes, stat_on, temporary_file
from ...stack.folders import CopyFolder
from ..inventory import EXACT_HINT, STAYS, Held, came_meanwhile
from .catalogue import catalogue_within
from .meta import Catalogue, User, read_meta_db, with_databases
from .read_dump import Dump, lacking_in
from .server import Server, server_catalogue, tsm_files


class Present:
    """The contents of a stopped InfluxDB by its catalogue; several steps use it."""

    def __init__(self) -> None:
        self.content = b""
        """Its meta.db."""
        self.shards: frozenset[int] = frozenset()
        """The shards with files."""

    @property
    def catalogue(self) -> Catalogue:
        """The decoded catalogue; raises ValueError if it cannot be decoded."""
        return read_meta_db(self.content) if self.content else Catalogue((), (), 0)

    def users(self, held: Catalogue, databases: tuple[str, ...]) -> tuple[User, ...]:
        """Return the users of a dump with their grants in `databases`, and those that it lacks."""
        here = {each.name: each for each in self.catalogue.users}
        named = {each.name for each in held.users}
        merged = (
            each.granted(pair for pair in here[each.name].grants if pair[0] in databases)
            if each.name in here
            else each
            for each in held.users
        )
        return (*merged, *(each for name, each in here.items() if name not in named))


def held_by(catalogue: Catalogue) -> Held:
    """Return the names in a catalogue."""
    return Held(catalogue.names, tuple(each.name for each in catalogue.users))


def present_catalogue(host: Host, access: HostAccess, server: Server) -> bytes:
    """Return the meta.db of a server, on the host or in the container; b"" if missing.

    Raises StepFailed if it cannot be read.
    """
    if server.within:
        return catalogue_within(host, server.container, access.docker)
    path = posixpath.join(server.folder("meta"), "meta.db")
    # test(1) also ends with 1 if it cannot read the folder: all the present data would then be
    # lost.
    if not stat_on(host, ("stat", "-c", "%i", "--", path), access.as_root):
        return b""
    return read_bytes(host, path, access.as_root)


@dataclass(frozen=True, slots=True)
class SeeInflux(HostStep):
    """Check what a stopped InfluxDB holds, and that all that the dump lacks will be kept."""

    server: Server
    dump: Dump
    stays: Held
    present: Present

    def commands(self) -> tuple[str, ...]:
        """Return what is read."""
        return (f"read the catalogue of container {self.server.container}",)

    def do(self, context: StepContext) -> None:
        """Raise StepFailed if something was created after the restore's first check."""
        host = self.access.host(context)
        content = present_catalogue(host, self.access, self.server)
        self.present.content = content
        if content:
            self.present.shards = frozenset(tsm_files(host, self.server, self.access.as_root))
        try:
            here = held_by(self.present.catalogue)
        except ValueError as error:
            raise StepFailed(f"Could not read the catalogue of InfluxDB: {error}.") from error
        dumped = self.dump.report(context).catalogue
        more = here.without(held_by(dumped) if dumped else Held()).without(self.stays)
        if more:
            raise StepFailed(came_meanwhile(self.server.container, more))


@dataclass(frozen=True, slots=True)
class CopyStays(CopyFolder):
    """Copy the files of some databases of a stopped InfluxDB to a new folder. Undo removes it."""

    journaled_as = "CopyStays"

    kind: str
    """The folder to copy: meta, data or wal; '' for the one around them."""
    databases: tuple[str, ...]

    def commands(self) -> tuple[str, ...]:
        """Return what is copied."""
        inside = self.kind or "{data,wal}"
        return tuple(
            f"cp -a '{self.source}'/{inside}/'{name}' '{self.target}'/{inside}/"
            for name in self.databases
        )

    @property
    def command(self) -> Command:
        """The command that copies them, with their parent folders."""
        script = (
            'from=$1 to=$2 kind=$3; shift 3; mkdir -p "$(dirname "$to")" || exit 1; '
            'make() { mkdir -m 0755 "$2" && chown --reference="$1" "$2" && '
            'chmod --reference="$1" "$2" || exit 1; }; '
            'make "$from" "$to"; '
            '[ "$kind" != meta ] || exit 0; '
            "for each in ${kind:-data wal}; do "
            'if [ -z "$kind" ]; then [ -d "$from/$each" ] || continue; '
            'make "$from/$each" "$to/$each"; was=$from/$each now=$to/$each; '
            "else was=$from now=$to; fi; "
            'for name; do [ ! -e "$was/$name" ] || '
            'cp -a --reflink=auto -t "$now" -- "$was/$name" || exit 1; done; done'
        )
        words = sh(script, self.source, self.target, self.kind, *self.databases)
        return self.access.guarded_root(*words, timeout_s=self.limit_s)


@dataclass(frozen=True, slots=True)
class PutStays(HostStep):
    """Write a catalogue of some databases, without users, into new data. Undone with these."""

    server: Server
    databases: tuple[str, ...]
    present: Present
    notes: str

    def commands(self) -> tuple[str, ...]:
        """Return what is written."""
        return (f"put {', '.join(self.databases)} into {self.server.folder('meta')}/meta.db",)

    def do(self, context: StepContext) -> None:
        """Write it."""
        host = self.access.host(context)
        content = with_databases(self.present.content, self.databases)
        script = (
            'mkdir -p "$2" && cat "$1" > "$2/meta.db" && chmod 0644 "$2/meta.db" && '
            'chown --reference="$3" "$2" "$2/meta.db" && sync "$2/meta.db"'
        )
        folders = (self.server.folder("meta"), self.server.folder("data"))
        with temporary_file(host, self.notes, content):
            host.run(self.access.guarded_root(*sh(script, self.notes, *folders)))


@dataclass(frozen=True, slots=True)
class ProveStays(HostStep):
    """Check that a server has the kept databases, with every shard that had files."""

    server: Server
    databases: tuple[str, ...]
    present: Present

    def commands(self) -> tuple[str, ...]:
        """Return what is compared."""
        return (f"compare {', '.join(self.databases)} with the previous data",)

    def do(self, context: StepContext) -> None:
        """Raise StepFailed with what is missing."""
        host = self.access.host(context)
        old = self.present.catalogue
        mine = tuple(each for each in old.databases if each.name in self.databases)
        wanted = Catalogue(mine, (), 0)
        there = server_catalogue(host, self.server, self.access.as_root)
        lacking = lacking_in(there, wanted)
        files = frozenset(tsm_files(host, self.server, self.access.as_root))
        lacking += [
            f"shard {shard} of {place.database}"
            for shard, place in wanted.places.items()
            if there.places.get(shard) != place
            or (shard in self.present.shards and shard not in files)
        ]
        if lacking:
            raise StepFailed(
                f"Some of InfluxDB's other data is missing: {'; '.join(lacking[:5])}. {EXACT_HINT}"
            )
        kept = len(self.present.shards & wanted.shard_ids)
        context.status(f"{STAYS}{', '.join(self.databases)} of InfluxDB ({kept} shards)")
