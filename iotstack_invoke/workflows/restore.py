"""How a restore is made: read it from top to bottom.

First rules fetch and stage: in parallel, resumable, while the stack runs. Then one transaction
switches: stop, swap by rename, load, verify, start. On any failure or crash, every step is undone
in reverse order and the stack is in its former state.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from typing import TypeVar

from ..archives.scan import ScanArchive
from ..backups.bundles import DUMP_FOLDER, RECIPES
from ..backups.manifest import VOLUME
from ..backups.names import KINDS, WILDCARDS
from ..backups.transfer import CheckHash, CheckSame, Send
from ..core.dataclass import dataclass
from ..core.stack_folders import BACKUPS, RESTORE
from ..databases.influxdb.catalogue import PutCatalogue
from ..databases.influxdb.dump import DATA_INSIDE, DumpInflux
from ..databases.influxdb.load import AddQueries, AddUsers, LoadInflux
from ..databases.influxdb.read_dump import CheckDump, Dump
from ..databases.influxdb.server import ALONE, RunIsolated, Server, WaitForInflux
from ..databases.influxdb.stays import CopyStays, Present, ProveStays, PutStays, SeeInflux
from ..databases.influxdb2.dump import DumpInflux2
from ..databases.inventory import Held
from ..databases.sql.config import CompareConfig
from ..databases.sql.load import (
    SQL_ALONE,
    CheckMount,
    LoadSql,
    ReadSql,
    RunSqlIsolated,
    SqlDump,
    UnpackSql,
    WaitForSql,
)
from ..databases.sql.servers import ENGINES, MARIADB, SqlServer
from ..databases.sql.stays import SQL_OLD, SaveStays, SeeSql
from ..databases.sqlite.files import CopySqlite
from ..engine.rules import Job, Rule, RuleBook, rule
from ..engine.steps import Commit, File, HostAccess, Step
from ..parts.bundle import end_quiet
from ..stack.around import GiveStack, MakeAround
from ..stack.compose_up import ComposeUp
from ..stack.folders import CopyFolder, MakeAside, MakeFolder, MakeLink, Unpack, UseStage
from ..stack.inside import is_in
from ..stack.isolated import RemoveIsolated
from ..stack.left_out import KeepLeftOut, patterns_below
from ..stack.quiesce import Quiesce
from ..stack.staged import Measure
from ..stack.stop_start import CheckStopped, StartContainers, StopContainers
from ..stack.swap import LeaveGone, MoveAside, PutAway, SwapItem
from ..stack.swap_entries import SwapEntries
from ..stack.up import WaitForContainers
from ..stack.volumes import FillVolume, MakeVolume

INFLUX_DATA = "volumes/influxdb/data"
OUTSIDE_LIMIT_S = 24 * 3600.0
NOTES = ("users", "environment", "catalogue", "stays")
"""The suffixes of temporary files beside what is replaced."""
SQL_LIMIT_S = 24 * 3600.0
"""The time limit of a load; on an SD card it is slow."""


@dataclass(frozen=True, slots=True)
class Item:
    """Something that is replaced as a whole: `volumes/nodered`, or a top file."""

    staged: str
    live: str
    aside: str
    used: str
    is_top_file: bool = False
    """It is put at its path if that is free, or beside the existing file."""
    fresh: str = ""
    """For a mount point: where it is copied to before the switch, to swap its entries."""


@dataclass(frozen=True, slots=True)
class OutsideItem:
    """Something that is replaced outside of the stack: a path, or a volume's files."""

    title: str
    staged: str
    live: str
    aside: str
    used: str
    fresh: str = ""
    """Where it is copied to before the switch, if it is staged on another file system."""
    volume: str = ""
    """The volume that is created first, if the target has none."""
    labels: tuple[str, ...] = ()
    """The labels by which compose identifies its own volumes."""
    is_mount: bool = False
    """It is a mount point: its entries are swapped, and not the folder."""
    size_bytes: int = 0
    """The size of its files; 0 if the manifest does not give it."""
    links: tuple[str, ...] = ()
    """Free paths that links of the stack lead to: they become links to it."""
    stays: tuple[tuple[str, str], ...] = ()
    """Left-out data that exist there: as in the manifest, and as a pattern relative to it."""
    mounts: tuple[tuple[str, str], ...] = ()
    """The containers that mounted it in the backup, each with the path inside."""


Swapped = TypeVar("Swapped", bound=Item | OutsideItem)


@dataclass(frozen=True, slots=True)
class EmptyVolume:
    """A volume that is only created with its options, since compose expects it."""

    name: str
    options: tuple[str, ...]

    @property
    def title(self) -> str:
        """The name in messages."""
        return f"{VOLUME}{self.name} ({', '.join(self.options)})"


@dataclass(frozen=True, slots=True)
class Filling:
    """An anonymous volume, which Docker creates with its container: it is filled then."""

    title: str
    staged: str
    container: str
    inside: str


@dataclass(frozen=True, slots=True)
class SqlImport:
    """A dump of SQL, and the server on the target that loads it."""

    server: SqlServer
    staged: str
    """The unpacked dump."""
    fresh: str
    """The folder for its new data, until they are swapped in."""
    aside: str
    used: str
    there: bool = True
    """Its container exists, whether it runs or not."""
    unnamed: bool = False
    """It holds one database without its name; the container's environment has the name."""
    part: str = ""
    """The recipe's part that it is from, if it is not from that of its engine."""
    beside: bool = False
    """It is loaded into a copy of the present data, whose other databases stay."""
    stays: Held = field(default_factory=Held)
    """What is loaded after it: present data that it lacks."""

    @property
    def while_all_runs(self) -> bool:
        """Whether it is loaded before anything is stopped.

        Otherwise its container must be created first, or the data that it is added to be stopped.
        """
        return self.there and not (self.beside or self.stays)

    @property
    def stays_at(self) -> str:
        """The path of the dump of data that stay."""
        return f"{self.staged}.stays"


@dataclass(frozen=True, slots=True)
class Around:
    """A folder that is new here, a parent of what is put in place."""

    path: str
    live: str
    """What is put in place in it, or deeper."""
    like: str
    """The folder of the archive whose owner and mode it gets, if the archive has it."""


@dataclass(frozen=True, slots=True)
class RestoreFacts:
    """Facts that were gathered before planning. Paths are those of the target."""

    kinds: tuple[str, ...]
    in_place: bool
    """The archives are already in the target's own backups/."""
    access: HostAccess
    compose: tuple[str, ...]
    previous: str
    """The folder to which replaced data are moved."""
    items: tuple[Item, ...]
    running: tuple[str, ...]
    """The containers to stop, and to start again, in the order in which they started."""
    expected: tuple[str, ...]
    """The containers that ran when the backup was made."""
    bare: bool
    """No container exists yet: everything is brought up from the restored compose file."""
    server: Server | None
    server_there: bool
    """The container of InfluxDB exists, whether it runs or not."""
    databases: tuple[str, ...]
    """The databases that are replaced, each alone; empty if all of InfluxDB is."""
    dump_inside: str
    """The dump's path inside the isolated InfluxDB, which has restore/ as its backup folder."""
    free_bytes: int
    limit_s: float
    volumes_apart: bool = False
    """The volumes are on another file system than the stack's folder."""
    influx_apart: str = ""
    """The folder around InfluxDB's, if that is on a separate file system."""
    influx_pieces: tuple[OutsideItem, ...] = ()
    """Folders of InfluxDB with mounts of their own, by their names inside."""
    loads: tuple[SqlImport, ...] = ()
    quiet: tuple[tuple[str, str], ...] = ()
    """Parts of recipes that are restored, each with the container of its service."""
    outside: tuple[OutsideItem, ...] = ()
    """What is put in place outside of the stack's folder."""
    fillings: tuple[Filling, ...] = ()
    """On a bare machine: the anonymous volumes of its containers."""
    volumes: tuple[EmptyVolume, ...] = ()
    """On a bare machine: volumes that its containers expect, and compose does not create."""
    outside_paths: tuple[str, ...] = ()
    """The paths in the outside part, by the names of its members."""
    included: tuple[str, ...] = ()
    """What the general part holds besides services/, volumes/ and top files, by its manifest."""
    stays: tuple[str, ...] = ()
    """What was left out of the general part and exists here, as patterns: it stays."""
    vital: tuple[str, ...] = ()
    """The containers of databases: if one does not come up, the restore is undone."""
    unsteady: tuple[str, ...] = ()
    """The containers that do not stay up even before the restore."""
    sick: tuple[str, ...] = ()
    """Those whose health check fails even before the restore."""
    strict: bool = False
    """If any container does not come up, the restore is undone."""
    more: Mapping[str, Held] = field(default_factory=dict)
    """What is here and not in the backup, by the container of its server."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """The servers' containers for which that is not known, and why."""
    later: tuple[str, ...] = ()
    """The servers' containers for which that is known after their dumps are unpacked."""
    folders: tuple[Item, ...] = ()
    """What is in services/ and volumes/ here, or included, and not in the backup."""
    beyond: tuple[str, ...] = ()
    """Volumes, and included paths outside of the stack, here and not in the backup: they stay."""
    stays_bytes: int = 0
    """The space needed to keep data that the backup lacks beside the restored data."""
    exact: bool = False
    """Data that the backup lacks do not stay."""
    idle: tuple[str, ...] = ()
    """The containers that do not run before the restore: they are not started."""
    around: tuple[Around, ...] = ()
    """The parent folders that are created for what is put in place, the outermost first."""
    owner_file: str = ""
    """A staged file whose owner gets the stack's folder, if that is new and root's."""

    def staying(self, container: str) -> Held:
        """Return what of a server stays besides the backup's data."""
        return Held() if self.exact else self.more.get(container, Held())

    @property
    def seen(self) -> frozenset[str]:
        """The containers of servers that must hold no more than the backup and what stays."""
        return frozenset() if self.exact else frozenset(self.more)


def archive(wildcards: Mapping[str, str], facts: RestoreFacts, kind: str) -> str:
    """Return the path of a kind's archive on the target, once it is there."""
    folder = BACKUPS if facts.in_place else f"{RESTORE}/{wildcards['runtag']}"
    return f"pi:{folder}/{wildcards['runtag']}.{KINDS[kind]}"


def archive_file(job: Job, kind: str) -> File:
    """Return the same as a file of the target."""
    role, _, path = archive(job.wildcards, job.facts, kind).partition(":")
    return File(role, path, job.output.root)


def _proven(job: Job) -> Iterator[Step]:
    """Check the hash of an archive that is used in place; a fetched one was just checked."""
    facts: RestoreFacts = job.facts
    if facts.in_place:
        yield CheckHash(job.input, facts.access.as_root)


def _unpacked(job: Job, kind: str) -> Iterator[Step]:
    """Check that an archive did not change until it was read, then measure the unpacked data."""
    facts: RestoreFacts = job.facts
    if facts.in_place:
        yield CheckSame(archive_file(job, kind), facts.access.as_root)
    yield Measure(job.output, facts.access.as_root)


def stage_of(kind: str) -> str:
    """Return the folder that a part is unpacked into."""
    return f"pi:restore/{{runtag}}/{'stack' if kind == 'general' else kind}/"


@rule(
    "pi:restore/{runtag}/{part}",
    input="from:{part}",
    retries=2,
    resumes=True,
    title="fetch the {part} part",
)
def fetched(job: Job) -> Iterator[Step]:
    """Fetch a part, and check its hash against the manifest's."""
    yield Send(job.input, job.output)


@rule(
    "pi:restore/{runtag}/stack/",
    input=lambda values, facts: [archive(values, facts, "general")],
    title="unpack the stack",
)
def staged_stack(job: Job) -> Iterator[Step]:
    """Check every member of the general part, then unpack it into a new folder."""
    facts: RestoreFacts = job.facts
    apart = ("./volumes", "volumes") if facts.volumes_apart else ()
    yield from _proven(job)
    folder = job.output.partial
    volumes = posixpath.join(job.output.root, "volumes") if facts.volumes_apart else ""
    yield ScanArchive(
        job.input, facts.access.as_root, folder, included=facts.included, volumes=volumes
    )
    yield Unpack(facts.access, job.input.absolute, folder, left_out=apart, scanned=True)
    yield from _unpacked(job, "general")


@rule(
    "pi:restore/{runtag}/outside/",
    input=lambda values, facts: [archive(values, facts, "outside")],
    title="unpack what lies outside",
)
def staged_outside(job: Job) -> Iterator[Step]:
    """Check every member of the outside part, then unpack it into a new folder."""
    facts: RestoreFacts = job.facts
    yield from _proven(job)
    folder = job.output.partial
    yield ScanArchive(job.input, facts.access.as_root, folder, "outside", facts.outside_paths)
    yield Unpack(facts.access, job.input.absolute, folder, scanned=True)
    yield from _unpacked(job, "outside")


@rule(
    "pi:volumes/.restore-{runtag}/stack/",
    input="pi:restore/{runtag}/stack/",
    title="unpack the volumes",
)
def staged_volumes(job: Job) -> Iterator[Step]:
    """Unpack the volumes beside the live ones, if they are on a file system of their own."""
    facts: RestoreFacts = job.facts
    yield Unpack(
        facts.access,
        archive_file(job, "general").absolute,
        job.output.partial,
        members=("./volumes",),
        scanned=True,
    )
    yield from _unpacked(job, "general")


@rule(
    "pi:restore/{runtag}/influx/",
    input=lambda values, facts: [archive(values, facts, "influx")],
    title="unpack the dump of InfluxDB",
)
def staged_dump(job: Job) -> Iterator[Step]:
    """Unpack InfluxDB's dump into a new folder, and check every file and block of it."""
    facts: RestoreFacts = job.facts
    yield from _proven(job)
    yield ScanArchive(job.input, facts.access.as_root, job.output.partial, "influx")
    yield Unpack(facts.access, job.input.absolute, job.output.partial)
    dump = Dump(facts.access, job.output.partial)
    data = facts.server.data if facts.server else ""
    yield CheckDump(dump, job.input.path, facts.databases, data=data)
    yield from _unpacked(job, "influx")


def staged_sql(engine: str) -> Rule:
    """Return the rule that stages the dumps of one engine."""

    @rule(
        stage_of(engine),
        input=lambda values, facts: [archive(values, facts, engine)],
        name=f"staged_{engine}",
        title=f"unpack the dumps of {ENGINES[engine].title}",
    )
    def staged_dumps(job: Job) -> Iterator[Step]:
        """Unpack the dumps of a database server, and read each of them to its end."""
        facts: RestoreFacts = job.facts
        yield from _proven(job)
        yield ScanArchive(job.input, facts.access.as_root, job.output.partial, engine)
        yield Unpack(facts.access, job.input.absolute, job.output.partial)
        yield UnpackSql(facts.access, job.output.partial, engine)
        yield from _unpacked(job, engine)

    return staged_dumps


def recipe_stage(kind: str, *, apart: bool) -> str:
    """Return the folder that the part of a recipe is unpacked into: on the disk of the volumes."""
    return f"pi:volumes/.restore-{{runtag}}/{kind}/" if apart else stage_of(kind)


def staged_recipe(kind: str, *, apart: bool) -> Rule:
    """Return the rule that stages the part of one recipe."""

    @rule(
        recipe_stage(kind, apart=apart),
        input=lambda values, facts: [archive(values, facts, kind)],
        name=f"staged_{kind}",
        title=f"unpack {kind}",
    )
    def staged_part(job: Job) -> Iterator[Step]:
        """Check every member of a service's part, unpack it, read its dump to its end."""
        facts: RestoreFacts = job.facts
        yield from _proven(job)
        yield ScanArchive(job.input, facts.access.as_root, job.output.partial, kind)
        folder = job.output.partial
        yield Unpack(facts.access, job.input.absolute, folder)
        dumps = posixpath.join(folder, DUMP_FOLDER)
        # For a Gitea without a database IOTstackBackup packs only the files.
        yield UnpackSql(facts.access, dumps, MARIADB.name, may_lack=True)
        yield from _unpacked(job, kind)

    return staged_part


def stages(_wildcards: Mapping[str, str], facts: RestoreFacts) -> list[str]:
    """Return what must be staged before the switch."""
    apart = ["pi:volumes/.restore-{runtag}/stack/"] if facts.volumes_apart else []
    plain = [stage_of(kind) for kind in facts.kinds if kind not in RECIPES]
    recipes = (kind for kind in facts.kinds if kind in RECIPES)
    return [*plain, *(recipe_stage(each, apart=facts.volumes_apart) for each in recipes), *apart]


@rule("pi:restored/{runtag}", input=stages, transaction=True, title="put it in place")
def restored(job: Job) -> Iterator[Step]:
    """Put the staged stack in place of the running one; on any failure the old one is restored."""
    facts: RestoreFacts = job.facts
    access = facts.access
    staged = tuple(each.absolute for each in job.inputs)
    used = {used_folder(facts, each) for each in ("services/x", "volumes/x", INFLUX_DATA)}
    dump = Dump(access, f"{posixpath.dirname(facts.previous)}/{job.runtag}/influx")
    if "influx" in facts.kinds and facts.server:
        called = archive(job.wildcards, facts, "influx")
        yield CheckDump(dump, called, facts.databases, blocks=False)
    notes = tuple(f"{facts.previous}.{each}" for each in NOTES)
    dumps = [SqlDump(access, each.staged, each.server) for each in facts.loads]
    yield from map(ReadSql, dumps)
    yield UseStage(access, (*staged, *sorted(used), *notes))
    yield MakeAside(access, facts.previous)
    yield from _make_around(facts)
    loads = tuple(zip(facts.loads, dumps, strict=True))
    for load, sql in loads:
        if load.while_all_runs:
            yield from _load_sql(facts, load, sql)
    yield from _put_beside(facts)
    for load, sql in loads:
        container = load.server.container
        if container in facts.seen and container in facts.running and not load.unnamed:
            yield SeeSql(access, load.server, sql, load.stays, SQL_LIMIT_S)
    yield StopContainers(access, facts.running)
    present = Present()
    yield from _save_stays(facts, dump, present)
    yield from _swap(facts)
    if "influx" in facts.kinds and facts.server:
        yield from _load_influx(facts, facts.server, dump, present)
    yield from _put_loaded(facts, loads)
    yield from _start(facts)
    yield Commit(keep=f"{facts.previous}/journal")


def _start(facts: RestoreFacts) -> Iterator[Step]:
    """Start what ran before, or on a bare machine everything, and check what comes up."""
    access = facts.access
    vital = must_be_up(facts)
    names = tuple(dict.fromkeys((*facts.expected, *vital))) if facts.bare else facts.running
    up = ComposeUp(access, facts.compose, (), True, vital, facts.strict, names)
    if facts.fillings:
        yield replace(up, start=False)
    for filling in facts.fillings:
        where = (filling.container, filling.inside)
        yield FillVolume(access, *where, filling.staged)
    if facts.bare:
        yield up
    else:
        yield CheckStopped(access, facts.running)
        yield StartContainers(access, facts.running)
    yield WaitForContainers(
        access,
        names,
        facts.compose if facts.bare else (),
        vital,
        facts.unsteady,
        facts.strict,
        facts.sick,
    )
    server = facts.server
    if server and (facts.bare or server.container in facts.running):
        yield WaitForInflux(access, server, must_be_empty=False)
    for load in facts.loads:
        if facts.bare or load.server.container in facts.running:
            yield WaitForSql(access, load.server)
    for kind, container in facts.quiet:
        runs = facts.bare or container in facts.running
        end = end_quiet(access, kind, container, runs=runs)
        if end:
            yield end


def _put_loaded(
    facts: RestoreFacts, loads: tuple[tuple[SqlImport, SqlDump], ...]
) -> Iterator[Step]:
    """Do the loads that need stopped containers, and put the new data of each in place."""
    for load, sql in loads:
        if not load.while_all_runs:
            yield from _load_sql(facts, load, sql)
        swapped = (load.server.data, load.fresh, load.aside, load.used)
        yield SwapItem(facts.access, *swapped)


def _put_beside(facts: RestoreFacts) -> Iterator[Step]:
    """Create new volumes, and copy to other file systems what is swapped there."""
    access = facts.access
    mark = posixpath.basename(facts.previous)
    for volume in facts.volumes:
        yield MakeVolume(access, volume.name, (), volume.options, mark)
    for each in facts.outside:
        if each.volume:
            yield MakeVolume(access, each.volume, each.labels, own_label=mark)
    copied: tuple[Item | OutsideItem, ...] = (*facts.outside, *facts.items)
    for place in copied:
        if place.fresh:
            yield CopyFolder(access, place.staged, place.fresh, OUTSIDE_LIMIT_S)


def _make_around(facts: RestoreFacts) -> Iterator[Step]:
    """Create the parent folders of what is put in place, with the owners in the archive."""
    if facts.owner_file:
        stack = posixpath.dirname(posixpath.dirname(facts.previous))
        yield GiveStack(facts.access, stack, facts.owner_file)
    for each in facts.around:
        yield MakeAround(facts.access, each.path, each.live, each.like)


def _swap(facts: RestoreFacts) -> Iterator[Step]:
    """Put the staged data in place of the live ones; what the backup left out stays."""
    access = facts.access
    for item in facts.items:
        put = SwapEntries if item.fresh else SwapItem
        staged = item.fresh or item.staged
        yield put(access, item.live, staged, item.aside, item.used)
    for item in facts.folders if facts.exact else ():
        yield MoveAside(access, item.live, item.aside, item.used)
    stack = posixpath.dirname(posixpath.dirname(facts.previous))
    for item in facts.items:
        patterns = patterns_below(facts.stays, posixpath.relpath(item.live, stack))
        if patterns:
            yield KeepLeftOut(access, item.live, item.aside, patterns)
    for each in facts.outside:
        swap = SwapEntries if each.is_mount else SwapItem
        staged = each.fresh or each.staged
        yield swap(access, each.live, staged, each.aside, each.used)
        for link in each.links:
            yield MakeLink(access, link, each.live)
    for each in facts.outside:
        if each.stays:
            patterns = tuple(below for _, below in each.stays)
            yield KeepLeftOut(access, each.live, each.aside, patterns)


def _load_influx(
    facts: RestoreFacts, server: Server, dump: Dump, present: Present
) -> Iterator[Step]:
    """Load the dump into an empty InfluxDB, or its databases into a copy of the present one.

    That InfluxDB is isolated: a client that creates its database meanwhile would make the load
    fail. What the dump lacks is added: copied files of databases, and users.
    """
    access = facts.access
    stays = () if facts.databases else facts.staying(server.container).databases
    if not facts.server_there:
        yield _made(facts, server.container)
        places = [] if server.within else [("", server.data)]
        for name, path in (*places, *server.apart):
            inside = posixpath.join(DATA_INSIDE, name).rstrip("/")
            place = SqlServer(server.container, "influx", path, inside)
            yield CheckMount(access, place)
    fresh = posixpath.join(posixpath.dirname(server.data), ".fresh")
    # Not within the old folder, which is moved aside as a whole if it is an item as well.
    within = any(is_in(server.data, each.live) for each in facts.items)
    aside, used = (
        posixpath.join(folder(facts, INFLUX_DATA), "parts/influx" if within else INFLUX_DATA)
        for folder in (aside_folder, used_folder)
    )
    swaps = [] if server.within else [SwapItem(access, server.data, fresh, aside, used)]
    swaps += [
        SwapItem(access, each.live, each.staged, each.aside, each.used)
        for each in facts.influx_pieces
    ]
    if server.within:
        yield MakeFolder(access, server.data, like=server.folder("data"))
    kinds = {each.live: each.title for each in facts.influx_pieces}
    for swap in swaps:
        if facts.databases:
            yield CopyFolder(access, swap.live, swap.staged, facts.limit_s)
        elif stays:
            kind = kinds.get(swap.live, "")
            copied = (access, _now_at(facts, swap.live), swap.staged)
            yield CopyStays(*copied, facts.limit_s, kind, stays)
        else:
            yield MakeFolder(access, swap.staged, like=swap.live)
    yield from swaps
    notes = f"{facts.previous}.users"
    if stays:
        yield PutStays(access, server, stays, present, notes)
    dumps = posixpath.dirname(facts.previous)
    volumes = tuple(f"{path}:{DATA_INSIDE}/{name}" for name, path in server.apart)
    run = RunIsolated(access, server.container, ALONE, server.data, dumps)
    yield replace(run, volumes=volumes)
    alone = replace(server, container=ALONE)
    empty = not facts.databases
    yield WaitForInflux(access, alone, must_be_empty=empty, stays=stays)
    yield LoadInflux(
        *(access, alone, dump, facts.dump_inside, facts.limit_s),
        facts.databases,
    )
    yield AddQueries(access, alone, dump, facts.databases)
    if stays:
        yield ProveStays(access, alone, stays, present)
    yield RemoveIsolated(access, ALONE)
    if not facts.databases:
        yield AddUsers(access, server, dump, notes, present, stays)
    if server.within:
        notes = f"{facts.previous}.catalogue"
        meta = server.folder("meta")
        yield PutCatalogue(*(access, server.container, meta, facts.previous, notes))


def _now_at(facts: RestoreFacts, path: str) -> str:
    """Return where the data that were live at a path are after the items are swapped."""
    swapped: tuple[Item | OutsideItem, ...] = (*facts.items, *facts.outside)
    for each in swapped:
        if is_in(path, each.live):
            below = posixpath.relpath(path, each.live)
            return posixpath.normpath(posixpath.join(each.aside, below))
    return path


def _made(facts: RestoreFacts, container: str) -> ComposeUp:
    """Return the step that creates a container, or on a bare machine all: names may differ."""
    services = () if facts.bare else (container,)
    more = (container,), facts.strict
    return ComposeUp(facts.access, facts.compose, services, False, *more)


def must_be_up(facts: RestoreFacts) -> tuple[str, ...]:
    """Return the containers without which a restore is undone: those of databases."""
    loaded = [each.server.container for each in facts.loads]
    loaded += [facts.server.container] if facts.server else ()
    if not facts.bare:  # what was stopped before stays stopped
        loaded = [each for each in loaded if each in facts.running]
    return tuple(dict.fromkeys((*loaded, *facts.vital)))


def _load_sql(facts: RestoreFacts, load: SqlImport, dump: SqlDump) -> Iterator[Step]:
    """Load a dump into a new isolated server; its data are swapped in later."""
    access = facts.access
    server = load.server
    stage = posixpath.dirname(load.staged)
    if load.beside:
        yield CopyFolder(access, server.data, load.fresh, facts.limit_s)
    else:
        yield MakeFolder(access, load.fresh, like=server.data)
    if not load.there:
        yield _made(facts, server.container)
        yield CheckMount(access, server)
    yield RunSqlIsolated(
        *(access, server.container, SQL_ALONE, load.fresh, server.inside, stage),
        f"{facts.previous}.environment",
        settings=() if load.unnamed else ENGINES[server.engine].first_start,
        logs=server.logs_inside,
    )
    alone = replace(server, container=SQL_ALONE)
    yield WaitForSql(access, alone, is_new=True)
    loading = LoadSql(access, alone, dump, stage, SQL_LIMIT_S)
    if load.stays:
        loading = replace(loading, beside=SqlDump(access, load.stays_at, server))
    yield loading
    if ENGINES[server.engine].config:
        yield CompareConfig(access, alone, server.container, load.staged)
    yield RemoveIsolated(access, SQL_ALONE)


def _save_stays(facts: RestoreFacts, influx: Dump, present: Present) -> Iterator[Step]:
    """Read or dump what a backup lacks from the old data, before they are moved aside.

    A server of SQL is isolated for that; no other program can write by now.
    """
    access = facts.access
    for load in facts.loads:
        if not load.stays:
            continue
        server = load.server
        yield RunSqlIsolated(
            *(access, server.container, SQL_OLD, server.data, server.inside),
            *(posixpath.dirname(load.staged), f"{facts.previous}.environment"),
        )
        old = replace(server, container=SQL_OLD)
        yield WaitForSql(access, old)
        dump = SqlDump(access, load.stays_at, server)
        notes = f"{facts.previous}.stays"
        yield SaveStays(access, old, dump, notes, load.stays, SQL_LIMIT_S)
        yield RemoveIsolated(access, SQL_OLD)
    influxdb = facts.server
    if influxdb and not facts.databases and influxdb.container in facts.seen:
        stays = facts.staying(influxdb.container)
        yield SeeInflux(access, influxdb, influx, stays, present)


def aside_folder(facts: RestoreFacts, name: str) -> str:
    """Return the folder for replaced data: one on the same file system."""
    if name == INFLUX_DATA and facts.influx_apart:
        return f"{facts.influx_apart}/.{posixpath.basename(facts.previous)}"
    if not facts.volumes_apart or not name.startswith("volumes/"):
        return facts.previous
    stack = posixpath.dirname(posixpath.dirname(facts.previous))
    return f"{stack}/volumes/.{posixpath.basename(facts.previous)}"


def used_folder(facts: RestoreFacts, name: str = "") -> str:
    """Return where an undo moves what was live since the switch."""
    return f"{aside_folder(facts, name)}-undone"


def undoable() -> tuple[type, ...]:
    """Return the steps that a journal may hold; pending undos of a backup may be in it as well."""
    return (
        ComposeUp,
        CopyFolder,
        CopySqlite,
        CopyStays,
        DumpInflux,
        DumpInflux2,
        GiveStack,
        KeepLeftOut,
        LeaveGone,
        MakeAround,
        MakeAside,
        MakeFolder,
        MakeLink,
        MakeVolume,
        MoveAside,
        PutAway,
        PutCatalogue,
        Quiesce,
        RunIsolated,
        RunSqlIsolated,
        StartContainers,
        StopContainers,
        SwapEntries,
        SwapItem,
        Unpack,
        UseStage,
    )


def restore_book() -> RuleBook:
    """Return the rules of a restore."""
    sql = map(staged_sql, ENGINES)
    recipes = [staged_recipe(kind, apart=apart) for kind in RECIPES for apart in (False, True)]
    files = (staged_stack, staged_volumes, staged_outside)
    return RuleBook(fetched, *files, staged_dump, *sql, *recipes, restored, wildcards=WILDCARDS)
