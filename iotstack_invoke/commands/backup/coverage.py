"""How the data of each container of a stack are saved, and what the general part leaves out."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING

from ...backups.manifest import VOLUME
from ...core.dataclass import dataclass
from ...core.errors import StepFailed
from ...databases.sql.servers import SqlServer, located, located_in, server_of
from ...hosts.base import Host
from ...hosts.inspect import may_be_there, mount_points, which_may_be_there
from ...hosts.local import LocalHost
from ...parts.bundle import RecipeInUse
from ...services.containers import Container
from ...services.known import (
    AS_THEY_LIE,
    PART_OF_DUMP,
    PAUSED,
    Cover,
    Kind,
    Recipe,
    Service,
    ServiceTable,
    cover,
    influxdb_version,
    is_in_stack,
    is_influxdb_3,
    recipes_used,
)
from ...settings.model import ALWAYS_EXCLUDED, NEXTCLOUD, Exclusion, Settings
from ...stack.cold_copy import AtRest, merged
from ...stack.compose import (
    ANONYMOUS,
    InspectedContainer,
    Mount,
    Volume,
    inspect_volumes,
    named,
    of_stack,
    paths_in_stack,
    place_in_stack,
    volumes_of,
)
from ...stack.compose_files import ComposeReads, Given, compose_reads
from ...stack.hook_files import paths_named
from ...stack.inside import is_in
from ...stack.layer import bare_places, changes_in_layer, told_of_layer, written_in
from ...stack.leave_out import place_of, places_of
from ...stack.stack_holdings import Databases, Holdings, Uncovered, advice, gather_holdings
from .not_running import SETTINGS_INSIDE, at_rest_now, away, holds_files
from .undumped import Undumped
from .unknown_servers import with_unknown_servers

if TYPE_CHECKING:  # imported if there is such a container
    from ...databases.influxdb2.dump import Influx2Look

INFLUX_PLACE = "volumes/influxdb/"
SAVE_NEXTCLOUD = 'Save it with its database: [[services]], name = "nextcloud", kind = "recipe"'
NO_DATA = "mounts no data; data inside the container are not backed up"


@dataclass(frozen=True, slots=True)
class SavedService:
    """How the data of one container of the stack are saved, and what it mounts of the stack."""

    cover: Cover
    paths: tuple[str, ...]
    """Relative to the stack's folder, absolute, or `volume:NAME`."""
    uncovered: tuple[str, ...] = ()
    """What of it is in no part."""
    in_layer: str = ""
    """What it wrote to its own layer that may be of value, if it mounts no data."""

    @property
    def saved(self) -> str:
        """How it is saved, and what is not."""
        if not self.uncovered:
            return str(self.cover)
        return f"NOT COVERED: {', '.join(self.uncovered)}; else: {self.cover.how}"

    @property
    def covered(self) -> bool:
        """Whether all of it is saved, or left out on purpose."""
        return self.cover.covered and not self.uncovered


@dataclass(frozen=True, slots=True)
class Services:
    """The containers of a stack by name, and what the general part leaves out."""

    saved: tuple[SavedService, ...]
    exclusions: tuple[Exclusion, ...]
    servers: tuple[SqlServer, ...] = ()
    """Those that run and are dumped as SQL."""
    influx2: Influx2Look | None = None
    """How the running InfluxDB 2 is dumped, if there is one."""
    recipes: tuple[RecipeInUse, ...] = ()
    """Those that have a part of their own, with their databases."""
    at_rest: tuple[AtRest, ...] = ()
    """Those that run and are stopped while they are copied."""
    mine: tuple[InspectedContainer, ...] = ()
    """The containers of the stack."""
    holdings: Holdings = field(default_factory=Holdings)
    """What they keep outside of services/ and volumes/."""
    reads: ComposeReads = field(default_factory=ComposeReads)
    """What compose reads to start and build the stack."""
    undumped: tuple[Undumped, ...] = ()
    """The servers that should be dumped, and are not now."""
    volumes: tuple[Volume, ...] = ()
    """Those that its containers mount or would mount, by their names."""
    unknown: tuple[str, ...] = ()
    """The named volumes of the compose file, if Docker does not answer."""
    unsaved: str = ""
    """The folder of a Nextcloud that is in no part, and not reported with any container."""

    def warnings(self, influx: str) -> tuple[str, ...]:
        """Return what is not covered, without the container `influx`: it is reported elsewhere."""
        covers = (each.cover for each in self.saved if each.cover.container.name != influx)
        return (
            *(each.warning for each in covers if not each.covered),
            *(told for _, told in self.uncovered),
        )

    @property
    def in_layers(self) -> tuple[tuple[str, str], ...]:
        """What containers without mounted data wrote to their own layers: each, and what."""
        return tuple((e.cover.container.name, e.in_layer) for e in self.saved if e.in_layer)

    @property
    def uncovered(self) -> tuple[tuple[str, str], ...]:
        """What is in no part, or unknown: the container that keeps it, or '', and why."""
        missing = (
            f"NOT COVERED: {each}, which compose needs, does not exist: the stack in this backup "
            "cannot start without it. Put it back, or remove it from the compose file."
            for each in self.reads.missing
        )
        unknown = (
            f"NOT COVERED: {each} is in no part of the backup: Docker does not answer, so the "
            "location of its files is unknown. Repair Docker, then back up again."
            for each in self.unknown
        )
        unsaved = (
            f"NOT COVERED: {each} is in no part: {NEXTCLOUD.reason}. {SAVE_NEXTCLOUD}, which "
            "needs both containers; or allow it to be lost: [[services]], name = "
            '"nextcloud", kind = "skip" with a reason.'
            for each in filter(None, (self.unsaved,))
        )
        others = (*self.holdings.warnings, *missing, *self.reads.unread, *unknown, *unsaved)
        return (
            *((each.container, each.warning) for each in self.holdings.uncovered),
            *(("", told) for told in others),
        )


def gather_services(
    host: Host,
    found: Iterable[InspectedContainer],
    settings: Settings,
    folder: str,
    as_root: tuple[str, ...] = (),
    live_influx: tuple[str, ...] = (),
    *,
    answered: bool = True,
) -> Services:
    """Return how the data of each container of a stack are saved, and what is left out.

    `live_influx`: the data folders of the InfluxDB 1.x that is dumped, if it was queried.
    `answered`: Docker listed the containers; otherwise they are unknown.
    """
    folder = os.path.realpath(folder) if isinstance(host, LocalHost) else folder
    table = settings.table
    found = tuple(found)
    reads = compose_reads(host, folder, as_root, _given(found, folder))
    mine = of_stack(found, folder, _named_there(host, found, reads))
    known = {each.container.name: each for each in mine}
    covers = cover((each.container for each in mine), table)
    covers, influx2 = _ask_influx2(host, covers, known, as_root)
    exclusions = _exclusions(settings, covers, influx=influx_lies_there(found, settings, folder))
    planned = _planned(mine, reads)
    names = {m.volume for each in (*mine, *planned) for m in each.mounts if m.volume}
    known_volumes = _volumes(host, names)
    volumes = {**_not_made(names, reads), **known_volumes}
    if settings.stack.exclude_defaults:
        those = [(each.service, known[each.container.name]) for each in covers]
        those += [(table.service_of(each.container), each) for each in planned]
        included = {each.path for each in settings.stack.inclusions}
        exclusions += tuple(_defaults(those, volumes, exclusions, folder, included))
        exclusions += tuple(_usual(those, table, exclusions, folder))
    running = [
        known[each.container.name] for each in covers if each.container.running and not each.part
    ]
    dumped = {
        name: tuple(
            known[each.container.name]
            for each in covers
            if each.covered
            and each.container.running
            and each.service
            and each.service.dump == name
        )
        for name in ("influxdb", "influxdb2")
    }
    servers = located_in(host, running, table)
    recipes = tuple(_recipes(host, covers, known, settings))
    databases = {at: each.engine for each in servers for at in (each.data, *each.apart) if at}
    databases |= {each.server.data: each.name for each in recipes if each.server.data}
    databases |= {
        mount.on_host: PART_OF_DUMP[name]
        for name, those in dumped.items()
        for each in those
        for mount in each.mounts
        if mount.inside.rstrip("/") in INFLUX_DATA[name]
    }
    databases |= dict.fromkeys(live_influx, PART_OF_DUMP["influxdb"])
    holdings = gather_holdings(
        host,
        mine,
        volumes,
        settings.stack,
        folder,
        as_root,
        planned=planned,
        reads=(*reads.inside, *reads.outside),
        named=_named_by_hooks(host, settings, folder),
        databases=Databases(databases),
        skipped={
            each.container.name: each.service.reason
            for each in covers
            if each.service and each.service.kind is Kind.SKIP
        },
        caches=[each.container.name for each in covers if table.is_cache(each.container)],
    )
    more = (
        *_beside_live_influx(
            host, mine, exclusions, Databases(databases), settings, folder, as_root
        ),
        *_of_inner_projects(found, mine, settings, folder),
    )
    forgotten = _unsaid(_forgotten(host, mine, reads, folder, volumes), settings)
    holdings = replace(
        holdings,
        uncovered=(*holdings.uncovered, *more),
        unused=(*holdings.unused, *forgotten),
    )
    covers = with_unknown_servers(
        host, covers, known, holdings, Databases(databases), exclusions, folder, as_root
    )
    saved = []
    for each in covers:
        name = each.container.name
        paths = paths_in_stack(known[name], folder)
        elsewhere = {*holdings.by_container.get(name, ())} - {*paths}
        missing = tuple(one.what for one in holdings.uncovered if one.container == name)
        nothing = not (paths or elsewhere or missing)
        said = settings.stack.exclusions
        told = _after_exclusions(host, each, paths, exclusions, table, folder, said)
        if not (elsewhere and table.is_cache(each.container)):
            told = _without_mount(told, known[name], table, folder)
        if nothing and each.covered and not each.part and not _is_dump_or_skipped(each):
            told = replace(each, how=NO_DATA)
        told = _in_its_layer(host, told, known[name])
        told = _not_stopped_for(told, elsewhere)
        in_layer = _may_be_of_worth(host, told, known[name])
        row = SavedService(told, (*paths, *sorted(elsewhere)), missing, in_layer)
        saved.append(_told_of_pause(row, known))
    return Services(
        tuple(saved),
        exclusions,
        servers,
        influx2,
        recipes,
        merged(_to_stop(host, covers, exclusions, folder)),
        mine,
        holdings,
        reads,
        (
            *at_rest_now(((e.cover, bool(e.paths)) for e in saved), known),
            *away(host, mine, reads, volumes, settings, folder, as_root, answered=answered),
        ),
        tuple(volume for _, volume in sorted(known_volumes.items())),
        () if answered else _unsaid(_nobody_knows(names, volumes), settings),
        _unsaved(host, saved, exclusions, settings, folder, as_root),
    )


def _beside_live_influx(
    host: Host,
    mine: Iterable[InspectedContainer],
    exclusions: Collection[Exclusion],
    databases: Databases,
    settings: Settings,
    folder: str,
    as_root: tuple[str, ...],
) -> Iterator[Uncovered]:
    """Yield what containers keep beside the live files of InfluxDB, all of which is left out."""
    if not any(each.path == f"{INFLUX_PLACE}*" for each in exclusions):
        return
    for found in mine:
        for mount in found.mounts:
            place = place_in_stack(mount, folder) or ""
            known = (
                databases.part_of(mount.on_host)
                or databases.below(mount.on_host)
                or is_in(mount.inside, INFLUX_DATA["influxdb"][0])
                or any(row.leaves_out(place) for row in settings.stack.exclusions)
            )
            if not place.startswith(INFLUX_PLACE) or known:
                continue
            if holds_files(host, [f"{folder}/{place}"], as_root):
                name = found.container.name
                told = (
                    f"NOT COVERED: {place}, which container {name} mounts at {mount.inside}, is "
                    f"in no part of the backup: all of {INFLUX_PLACE} is left out, as live files "
                    "of InfluxDB. Move it elsewhere, such as to services/influxdb. "
                    f"{advice(place)}"
                )
                yield Uncovered(name, place, told)


def _of_inner_projects(
    found: Iterable[InspectedContainer],
    mine: Iterable[InspectedContainer],
    settings: Settings,
    folder: str,
) -> Iterator[Uncovered]:
    """Yield volumes of compose projects in folders of the stack: they are not the stack's."""
    names = {each.container.name for each in mine}
    known = {mount.volume for each in mine for mount in each.mounts}
    for each in found:
        name, working = each.container.name, each.working_folder
        place = os.path.relpath(working, folder) if is_in(working, folder) else ""
        if name in names or not is_in_stack(place):
            continue
        for mount in each.mounts:
            what = f"{VOLUME}{mount.volume}"
            if not mount.volume or mount.volume in known or ANONYMOUS.fullmatch(mount.volume):
                continue
            if mount.writable and not any(e.leaves_out(what) for e in settings.stack.exclusions):
                told = (
                    f"NOT COVERED: {what}, which container {name} mounts at {mount.inside}, is "
                    f"in no part of the backup: the compose project of {place} is a separate "
                    f"stack. Back that up as well. {advice(what)}"
                )
                yield Uncovered(name, what, told)


def _unsaid(titles: Iterable[str], settings: Settings) -> tuple[str, ...]:
    """Return the volumes that hosts.toml does not leave out."""
    rows = settings.stack.exclusions
    return tuple(each for each in titles if not any(row.leaves_out(each) for row in rows))


def _unsaved(
    host: Host,
    saved: Iterable[SavedService],
    exclusions: Iterable[Exclusion],
    settings: Settings,
    folder: str,
    as_root: tuple[str, ...],
) -> str:
    """Return the folder of a Nextcloud that is left out without a row in hosts.toml; '' for none.

    A folder that is reported as not covered with its container is not reported twice.
    """
    place, those = NEXTCLOUD.place, {path for e in saved if not e.covered for path in e.paths}
    if (
        NEXTCLOUD not in exclusions
        or why_skipped(settings, posixpath.basename(place))
        or any(each.leaves_out(place) for each in settings.stack.exclusions)
        or any(is_in(path, place) for path in those)
        or not may_be_there(host, f"{folder}/{place}")
    ):
        return ""
    return place if holds_files(host, [f"{folder}/{place}/"], as_root) else ""


def _ask_influx2(
    host: Host,
    covers: tuple[Cover, ...],
    known: Mapping[str, InspectedContainer],
    as_root: tuple[str, ...],
) -> tuple[tuple[Cover, ...], Influx2Look | None]:
    """Return how each is saved after querying the running InfluxDB 2s, and one's answer.

    A container with a name and image of InfluxDB 2 may be another server, or refuse the login.
    """
    asked: list[Cover] = []
    dumped: Influx2Look | None = None
    name = ""
    for each in covers:
        is_one = each.service is not None and each.service.dump == "influxdb2"
        if not (is_one and each.covered and each.container.running):
            asked.append(each)
            continue
        from ...databases.influxdb2.dump import Influx2Look, gather_influx2

        look = Influx2Look(uncovered=f"of all InfluxDB 2s only container {name} is dumped")
        if dumped is None:
            look = gather_influx2(host, known[each.container.name], as_root)
        if look.uncovered:
            how, advice = look.uncovered, look.advice
            asked.append(replace(each, how=how, advice=advice, covered=False))
            continue
        dumped, name = look, each.container.name
        asked.append(each)
    return tuple(asked), dumped


def _given(found: Iterable[InspectedContainer], folder: str) -> tuple[Given, ...]:
    """Return the files from which the containers of a stack were created, each group once."""
    return tuple(
        dict.fromkeys(
            Given(each.working_folder, each.compose_files, each.env_files)
            for each in found
            if each.compose_files and is_in(each.working_folder, folder)
        )
    )


def _named_there(
    host: Host, found: Iterable[InspectedContainer], reads: ComposeReads
) -> tuple[str, ...]:
    """Return the containers that the compose files name, without those of another stack.

    A container with the label of a folder that is gone belongs to this stack: it was moved.
    """
    names = {each.container_name for each in reads.services if each.container_name}
    labelled = {each.container.name: each.working_folder for each in found}
    others = {name: labelled[name] for name in names if labelled.get(name)}
    there = which_may_be_there(host, set(others.values()))
    return tuple(sorted(name for name in names if others.get(name) not in there))


def _named_by_hooks(host: Host, settings: Settings, folder: str) -> tuple[str, ...]:
    """Return the paths of the stack that its hooks may name."""
    hooks = settings.hooks
    each_kind = (
        hooks.before_backup,
        hooks.after_backup,
        hooks.before_restore,
        hooks.after_restore,
    )
    words = [word for some in each_kind for hook in some for word in hook.words]
    is_here = isinstance(host, LocalHost)
    home = os.path.expanduser("~") if is_here else posixpath.dirname(folder)
    return paths_named(words, (folder, posixpath.join(home, settings.stack.folder)), home)


def _volumes(host: Host, names: Iterable[str]) -> dict[str, Volume]:
    """Return the volumes of these names; none if Docker does not answer, which is reported."""
    try:
        found = inspect_volumes(host, names)
    except StepFailed:
        return {}
    on_device = [each for each in found.values() if each.on_device]
    mounted = mount_points(host) if on_device else ()
    away = {e.name: replace(e, is_away=True) for e in on_device if e.mountpoint not in mounted}
    return {**found, **away}


def _not_made(names: Collection[str], reads: ComposeReads) -> dict[str, Volume]:
    """Return the volumes that have contents though Docker has not created them.

    They stand for a folder, or for data on a device or on another machine.
    """
    kept = (e for e in reads.volumes if e.device or e.filesystem or e.driver != "local")
    return {e.name: replace(e, is_away=e.on_device) for e in kept if e.name in names}


def _nobody_knows(names: Iterable[str], volumes: Mapping[str, Volume]) -> Iterator[str]:
    """Yield the volumes whose files only Docker could locate."""
    folders = {each.name for each in volumes.values() if each.is_folder}
    yield from (f"{VOLUME}{each}" for each in sorted({*names} - folders))


def _forgotten(
    host: Host,
    mine: Iterable[InspectedContainer],
    reads: ComposeReads,
    folder: str,
    known: Collection[str],
) -> Iterator[str]:
    """Yield the volumes that compose created for a stack and that it no longer uses."""
    projects = {each.project for each in mine if is_in(each.working_folder, folder)}
    for project in sorted(filter(None, projects | {reads.project})):
        try:
            names = volumes_of(host, project)
        except StepFailed:  # Docker does not answer, which is already reported
            return
        yield from (f"{VOLUME}{each}" for each in names if each not in known)


def _planned(
    mine: Iterable[InspectedContainer], reads: ComposeReads
) -> tuple[InspectedContainer, ...]:
    """Return the containers that compose would create, with their data that none mounts now.

    After `docker compose down` only its files show what a stack keeps where.
    """
    known = {(m.volume or m.source).rstrip("/") for each in mine for m in each.mounts}
    planned = []
    for service in reads.services:
        mounts = tuple(
            Mount("" if m.volume_name else m.source, m.target, "", m.volume_name, m.writable)
            for m in service.mounts
            if (m.volume_name or m.source) and (m.volume_name or m.source).rstrip("/") not in known
        )
        if mounts:
            name = service.container_name or service.name
            container = Container(name, service.image, "", "", running=False)
            planned.append(InspectedContainer(container, mounts, 0, "", ""))
    return tuple(planned)


INFLUX_DATA = {
    "influxdb": tuple(f"/var/lib/influxdb{each}" for each in ("", "/data", "/wal", "/meta")),
    "influxdb2": ("/var/lib/influxdb2",),
}
"""The data folder of an InfluxDB inside its container."""


def _is_dump_or_skipped(saved: Cover) -> bool:
    return saved.service is not None and saved.service.kind in (Kind.DUMP, Kind.SKIP)


def why_skipped(settings: Settings, name: str) -> str:
    """Return why the owner skips a container, present or gone; '' otherwise."""
    rows = (each for each in settings.services if each.kind is Kind.SKIP)
    return next((each.reason for each in rows if name == each.name or name in each.containers), "")


def idle_rows(services: Services, settings: Settings) -> Mapping[str, str]:
    """Return messages on rows of hosts.toml that match no container, by their names.

    {} for a stack that is down.
    """
    used = {each.cover.service.name for each in services.saved if each.cover.service}
    told = {}
    for number, row in enumerate(settings.services if services.saved else (), 1):
        if row.name not in used:
            if row.kind is Kind.SKIP and all(is_in(e, NEXTCLOUD.place) for e in row.paths):
                continue  # it declares the service gone; it leaves out nothing more
            paths = ", ".join(row.paths) if row.kind is Kind.SKIP else ""
            still = f"; {paths} is still left out" if paths else ""
            told[row.name] = (
                f"[[services]] number {number} '{row.name}' matches no container of this "
                f"stack{still}"
            )
    return told


def idle_in_files(services: Services, settings: Settings) -> Mapping[str, str]:
    """Return those of these rows without a service in the compose files: they have no effect.

    Leaves out rows of a container that is only temporarily missing, and rows that leave something
    out. Empty if a compose file could not be read: it may name the service.
    """
    if services.reads.unread:
        return {}
    planned = [
        Container(name, each.image, "", "", running=False)
        for each in services.reads.services
        for name in (each.container_name, each.name)
        if name
    ]
    known = {each.name for each in planned} | rows_matched(planned, settings)
    those = {row.name for row in settings.services if row.kind is Kind.SKIP and row.paths}
    idle = idle_rows(services, settings)
    return {name: told for name, told in idle.items() if name not in known | those}


def rows_matched(containers: Iterable[Container], settings: Settings) -> set[str]:
    """Return the names of the services that some containers belong to."""
    table = settings.table
    return {each.name for each in map(table.service_of, containers) if each}


def _recipes(
    host: Host,
    covers: tuple[Cover, ...],
    known: Mapping[str, InspectedContainer],
    settings: Settings,
) -> Iterator[RecipeInUse]:
    """Yield the services that are saved by a recipe, with what the settings leave out of each."""
    used = recipes_used([each.container for each in covers], settings.table)
    for each in covers:
        if not each.part or not each.service or each.service.name != each.part:
            continue
        recipe = used[each.part]
        inside = f"{recipe.folder}/"
        yield RecipeInUse(
            each.part,
            recipe,
            each.container.name,
            each.container.running,
            located(host, server_of(known[recipe.database], "mariadb"), known[recipe.database]),
            tuple(
                exclusion.path.removeprefix(inside)
                for exclusion in settings.stack.exclusions
                if exclusion.path.startswith(inside)
            ),
        )


def _to_stop(
    host: Host, covers: Iterable[Cover], exclusions: tuple[Exclusion, ...], folder: str
) -> Iterator[AtRest]:
    """Yield the running containers that are stopped for their copy, with their existing paths."""
    for each in covers:
        if each.service and each.service.kind is Kind.STOP and each.container.running:
            paths = tuple(
                path
                for path in each.service.paths
                if may_be_there(host, f"{folder}/{path}")
                and not any(exclusion.leaves_out(path) for exclusion in exclusions)
            )
            if paths:
                yield AtRest((each.container.name,), paths)


def live_files(server: SqlServer, folder: str, part: str) -> Iterator[Exclusion]:
    """Return what the general part leaves out of a server that is dumped."""
    data = f"live files of {server.title}; its data are in the {part} part"
    lives = dict.fromkeys((server.data, *server.apart), data)
    for place, reason in (*lives.items(), (server.logs, f"live logs of {server.title}")):
        path = os.path.relpath(place or "/", folder)
        if is_in_stack(path):
            yield Exclusion(f"{path}/*", reason)
        elif place:
            yield Exclusion(f"{place}/*", reason)


def live_of_influx(folders: Iterable[str], folder: str) -> Iterator[Exclusion]:
    """Return what the general part leaves out of a dumped InfluxDB, wherever it is."""
    reason = "InfluxDB's live files; its data are in the influx part"
    for each in folders:
        path = os.path.relpath(each, folder)
        if not is_in_stack(path):
            yield Exclusion(f"{each}/*", reason)
        elif not any(always.leaves_out(path) for always in ALWAYS_EXCLUDED):
            yield Exclusion(f"{path}/*", reason)


def live_of_influx2(look: Influx2Look | None, folder: str) -> Iterator[Exclusion]:
    """Return what the general part leaves out of an InfluxDB 2 that is dumped."""
    facts = look.facts if look else None
    for live in filter(None, (facts.data_on_host, facts.backup_on_host) if facts else ()):
        path = os.path.relpath(live, folder)
        reason = "live files of InfluxDB 2; its data are in the influxdb2 part"
        yield Exclusion(f"{path if is_in_stack(path) else live}/*", reason)


def settings_for(
    host: Host,
    settings: Settings,
    found: Iterable[InspectedContainer],
    docker: tuple[str, ...] = ("docker",),
) -> Settings:
    """Return the settings, adapted to the only InfluxDB 1.x of a stack if it has another name.

    If hosts.toml names the container, or one has the usual name, that one is used.
    """
    there = tuple(found)
    if settings.influx.named or named(there, settings.influx.container):
        return settings
    mine = of_stack(there, settings.stack.folder)
    table = settings.table
    ones = [
        each.name
        for each in (one.container for one in mine)
        if (service := table.service_of(each))
        and service.dump == "influxdb"
        and _is_influxdb_1(host, each, docker)
    ]
    if len(ones) != 1:
        return settings
    return replace(settings, influx=replace(settings.influx, container=ones[0]))


def _is_influxdb_1(host: Host, container: Container, docker: tuple[str, ...]) -> bool:
    """Return whether a container runs InfluxDB 1.x, by its image's tag, or else by its answer."""
    tagged = influxdb_version(container.image)
    if tagged or not container.running:
        return tagged == "1"
    from ...databases.influxdb.dump import influx_version

    try:
        return influx_version(host, container.name, docker).startswith("1.")
    except StepFailed:
        return False


def is_another(influx: InspectedContainer, settings: Settings) -> bool:
    """Return whether the owner declared the container with InfluxDB 1.x's name another server."""
    service = settings.table.service_of(influx.container)
    is_second = influxdb_version(influx.container.image) == "2"
    return service is not None and (service.own or is_second) and service.dump != "influxdb"


def influx_lies_there(
    found: Iterable[InspectedContainer], settings: Settings, folder: str
) -> bool:
    """Return whether a running, and so dumped, InfluxDB 1.x keeps data in volumes/influxdb."""
    influx = named(found, settings.influx.container)
    if influx is None or not influx.container.running or is_another(influx, settings):
        return False
    if is_influxdb_3(influx.container.image):
        return False
    return any(f"{path}/".startswith(INFLUX_PLACE) for path in paths_in_stack(influx, folder))


def _told_of_pause(saved: SavedService, known: Mapping[str, InspectedContainer]) -> SavedService:
    if saved.cover.how == AS_THEY_LIE and known[saved.cover.container.name].paused:
        return replace(saved, cover=replace(saved.cover, how=PAUSED))
    return saved


def _exclusions(
    settings: Settings, covers: Iterable[Cover], *, influx: bool
) -> tuple[Exclusion, ...]:
    """Return what is left out: always, by the settings, and as data of a service with skip.

    `influx`: volumes/influxdb holds live files of a dumped InfluxDB.
    """
    recipes = recipes_used([each.container for each in covers], settings.table)
    always = [e for e in _always_excluded(recipes) if influx or e.path != f"{INFLUX_PLACE}*"]
    if why := why_skipped(settings, posixpath.basename(NEXTCLOUD.place)):
        always = [replace(e, reason=why) if e == NEXTCLOUD else e for e in always]
    said = (*always, *settings.stack.exclusions)
    services = (*settings.services, *(each.service for each in covers if each.service))
    skipped = {
        path: Exclusion(path, each.reason)
        for each in services
        if each.kind is Kind.SKIP
        for path in each.paths
        if not any(exclusion.leaves_out(path) for exclusion in said)
    }
    elsewhere = (
        Exclusion(f"{recipe.folder}/{path}", f"it is in the {part} part")
        for part, recipe in recipes.items()
        for path in recipe.paths
        if not any(exclusion.leaves_out(f"{recipe.folder}/{path}") for exclusion in said)
    )
    return (*said, *skipped.values(), *elsewhere)


def _defaults(
    those: Collection[tuple[Service | None, InspectedContainer]],
    volumes: Mapping[str, Volume],
    said: tuple[Exclusion, ...],
    folder: str,
    included: Collection[str],
) -> Iterator[Exclusion]:
    """Yield what only the table leaves out of each container's own paths.

    Not if a row of hosts.toml includes it, or another container writes there.
    """
    mine = [_left_out_by(*each, volumes, folder) for each in those]
    others = [
        (place_of(mount, folder, volumes), own)
        for (_, found), own in zip(those, mine, strict=True)
        for mount in found.mounts
        if mount.writable
    ]
    for each in {path: one for own in mine for path, one in own.items()}.values():
        written = (place for place, own in others if place and each.path not in own)
        if not any(map(each.leaves_out, (*included, *written))) and not any(
            e.leaves_out(each.place) for e in said
        ):
            yield each


def _left_out_by(
    service: Service | None, found: InspectedContainer, volumes: Mapping[str, Volume], folder: str
) -> dict[str, Exclusion]:
    """Return what the table leaves out of the paths of one container, by the patterns."""
    return {
        path: Exclusion(path, row.reason, by_default=True)
        for row in (service.leave_out if service else ())
        for path in places_of(row.inside, found, folder, volumes)
    }


def _usual(
    those: Collection[tuple[Service | None, InspectedContainer]],
    table: ServiceTable,
    said: tuple[Exclusion, ...],
    folder: str,
) -> Iterator[Exclusion]:
    """Yield what the table leaves out of services that are down, unless a container is there."""
    there = {service.name for service, _ in those if service}
    used = {path for _, found in those for path in paths_in_stack(found, folder)}
    for row in table.services:
        for each in row.leave_out if row.name not in there else ():
            found = Exclusion(each.usual, each.reason, by_default=True)
            place = f"{found.place}/"
            is_used = any(
                f"{path}/".startswith(place) or place.startswith(f"{path}/") for path in used
            )
            if each.usual and not is_used and not any(e.leaves_out(found.place) for e in said):
                yield found


def _always_excluded(recipes: Mapping[str, Recipe]) -> Iterator[Exclusion]:
    """Yield what is always left out; for a service with a recipe the reason differs."""
    folders = {f"{recipe.folder}/*": part for part, recipe in recipes.items()}
    for each in ALWAYS_EXCLUDED:
        part = folders.get(each.path)
        reason = f"its data are in the {part} part; the rest is its image's"
        yield replace(each, reason=reason) if part else each


def _after_exclusions(
    host: Host,
    saved: Cover,
    paths: tuple[str, ...],
    exclusions: tuple[Exclusion, ...],
    table: ServiceTable,
    folder: str,
    said: Iterable[Exclusion] = (),
) -> Cover:
    """Return how a container is saved if its mounts are left out, missing or empty.

    `said`: what hosts.toml leaves out.
    """
    kind = saved.service.kind if saved.service else None
    dumped = kind is Kind.DUMP and saved.covered and saved.how != AS_THEY_LIE
    if saved.part or dumped:
        return saved
    if saved.service and saved.service.dump == "influxdb":  # its live files are always left out
        exclusions = tuple(each for each in exclusions if each not in ALWAYS_EXCLUDED)
    reasons = {path: each.reason for path in paths for each in exclusions if each.leaves_out(path)}
    copied = [path for path in paths if path not in reasons]
    if kind is Kind.STOP and saved.service:
        own = saved.service.paths
        copied = [e for e in copied if not any(f"{e}/".startswith(f"{o}/") for o in own)]
        if copied and not any(may_be_there(host, f"{folder}/{each}") for each in own):
            how = f"its row names no existing path, so {', '.join(copied)} is copied while it runs"
            return replace(saved, how=how, covered=False)
    if kind in (Kind.SKIP, Kind.STOP) and copied:
        how = f"{saved.how}, except {', '.join(copied)}: its row names other paths"
        covered = kind is Kind.STOP or not table.is_database(saved.container.image)
        return replace(saved, how=how, covered=covered)
    if kind is Kind.SKIP:
        meant = paths and all(any(each.leaves_out(path) for each in said) for path in paths)
        return replace(saved, covered=True) if meant else saved
    lost = [path for path, reason in reasons.items() if reason == NEXTCLOUD.reason]
    if lost:
        how = f"left out: {NEXTCLOUD.reason}"
        how = f"{how} ({', '.join(lost)}); else: {saved.how}" if copied else how
        return replace(saved, how=how, covered=False, advice=SAVE_NEXTCLOUD)
    if reasons and not copied:
        return replace(saved, how=f"left out: {reasons[paths[0]]}", covered=True)
    return saved


def _without_mount(
    saved: Cover, found: InspectedContainer, table: ServiceTable, folder: str
) -> Cover:
    """Return how a database without dump is saved if it mounts nothing for its data.

    A cache then has nothing to tear. Other data are inside the container, in no part.
    """
    database = table.database_of(saved.container.image)
    if saved.covered or saved.service or not database:
        return saved
    data = tuple(each for each in found.mounts if not SETTINGS_INSIDE.match(each.inside))
    if table.is_cache(saved.container):
        in_stack = paths_in_stack(replace(found, mounts=data), folder)
        how = "keeps its data in memory only"
        return saved if in_stack else replace(saved, how=how, covered=True)
    if data:
        return saved
    how = (
        f"the data of {database} are inside the container: they are lost when it is removed, and "
        "are in no part"
    )
    return replace(saved, how=how, advice="Move them to a folder in volumes/")


def _not_stopped_for(saved: Cover, elsewhere: Collection[str]) -> Cover:
    """Return how a container to be stopped is saved if it keeps data outside of the stack.

    Only what is in the stack's folder is copied while it is stopped.
    """
    is_stopped = saved.service is not None and saved.service.kind is Kind.STOP
    if not (is_stopped and saved.covered and saved.container.running and elsewhere):
        return saved
    how = (
        f"{', '.join(sorted(elsewhere))} is copied while it runs: it is stopped only for data in "
        "the stack's folder"
    )
    advice = "Move its data to a folder in volumes/"
    return replace(saved, how=how, advice=advice, covered=False)


def _in_its_layer(host: Host, saved: Cover, found: InspectedContainer) -> Cover:
    """Return how a container is saved that wrote data outside of its mounts.

    Data that a server dumps are saved wherever they are, and skipped data are not wanted.
    """
    service = saved.service
    if service is None or not saved.covered or service.kind is Kind.SKIP:
        return saved
    if service.kind is Kind.DUMP and saved.container.running:
        return saved
    places = bare_places(found, service.data)
    if not places:
        return saved
    how = "are inside the container: they are lost when it is removed, and are in no part"
    try:
        places = written_in(places, changes_in_layer(host, found.container.name), found)
    except StepFailed as error:
        how = f"may be inside the container, which Docker does not show ({error})"
    if not places:
        return saved
    how = f"its data in {', '.join(places)} {how}; else: {saved.how}"
    advice = f"Mount a folder of volumes/ at {', '.join(places)}"
    return replace(saved, how=how, advice=advice, covered=False)


def _may_be_of_worth(host: Host, saved: Cover, found: InspectedContainer) -> str:
    """Return what a container without mounted data wrote to its own layer; '' for nothing.

    Rows of hosts.toml are the owner's decision; the table lists containers that keep none.
    """
    service = saved.service
    if saved.how != NO_DATA or (service and (service.own or service.data or not service.paths)):
        return ""
    try:
        return told_of_layer(changes_in_layer(host, found.container.name), found)
    except StepFailed as error:
        return f"it mounts no data, and Docker does not show what it wrote inside: {error}"


def in_layer_told(name: str, what: str) -> str:
    """Return the message about what a container wrote to its own layer."""
    row = f'[[services]], name = "{name}", kind = "skip", reason = "…"'
    return (
        f"Container {name}: {what}. If you need these data, mount a folder of volumes/ there; if "
        f"not, add to hosts.toml: {row}."
    )
