"""The look before a backup: what there is, and what stands in the way. Changes nothing."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from .. import __version__
from ..errors import Refused, StepFailed
from ..hosts import LocalHost
from ..manifest import LeftOut, utc_text
from ..rulebooks.backup import BackupFacts
from ..rules import PARTS
from ..services.at_rest import AtRest, merged
from ..services.compose import (
    COMPOSE_FILES,
    Found,
    inspect_all,
    named,
    of_stack,
    paths_in_stack,
    top_files,
)
from ..services.influx import InfluxFacts, influx_facts
from ..services.influx2 import Influx2Facts, influx2_facts, server_version
from ..services.recipe import RecipeInUse
from ..services.sql import SqlServer, server_of, servers_in
from ..services.table import (
    Cover,
    Kind,
    Recipe,
    Table,
    cover,
    influxdb_3,
    is_below_stack,
    is_influxdb_3,
    recipes_used,
)
from ..sets import GOOD, BackupSet
from ..settings import ALWAYS_EXCLUDED, Exclusion, Settings
from ..steps import Command, FileFact

FOLDERS = ("services", "volumes")
GROWTH = 1.2
"""What the next part may be larger than the last one."""
DU_LIMIT_S = 3600.0
PACKED_SHARE = 0.5
"""What a first general archive takes of the stack at the most; a third is usual."""


def look_at_stack(host: LocalHost, settings: Settings) -> BackupFacts:
    """Return what a backup of the stack needs to know.

    Raises Refused where there is no stack, or where sudo would ask for a password.
    """
    folder = settings.stack.folder
    names = look_at_folder(host, settings)
    as_root = _as_root(host, settings)
    influx = _look_at_influx(host, settings, "volumes" in names)
    services = look_at_services(influx.found, settings, folder)
    servers = services.servers
    influx2 = _look_at_influx2(host, services, folder)
    dumped = [live for each in servers for live in _live_files(each, folder, each.engine)]
    dumped += [
        live for each in services.recipes for live in _live_files(each.server, folder, each.name)
    ]
    exclusions = (*services.exclusions, *influx2.exclusions, *dumped)
    engines = {each.engine for each in servers}
    engines |= {each.name for each in services.recipes}
    made = {"general", *engines, *(("influx",) if influx.facts or influx.error else ())}
    made |= {"influxdb2"} if influx2.facts or influx2.error else set()
    now = datetime.now().astimezone()
    return BackupFacts(
        host=socket.gethostname(),
        program=f"iotstack-invoke {__version__}",
        folder=folder,
        members=tuple(
            f"./{name}" for name in (*top_files(names), *(f for f in FOLDERS if f in names))
        ),
        kinds=tuple(kind for kind in PARTS if kind in made),
        as_root=as_root,
        exclusions=tuple(each.path for each in exclusions),
        influx=influx.facts,
        influx_error=influx.error,
        influx2=influx2.facts,
        influx2_error=influx2.error,
        servers=servers,
        recipes=services.recipes,
        at_rest=services.at_rest,
        limit_s=settings.influx.limit_s,
        started_utc=utc_text(datetime.now(UTC)),
        zone=f"{time.tzname[time.localtime().tm_isdst > 0]} {now.strftime('%z')}",
        containers=of_stack(influx.found, folder),
        left_out=(
            *(
                LeftOut(each.path, each.reason)
                for each in exclusions
                if os.path.lexists(f"{folder}/{each.path.removesuffix('/*')}")
                or each not in ALWAYS_EXCLUDED
            ),
            *influx.left_out,
        ),
        warnings=(
            *influx.warnings,
            *influx2.warnings,
            *services.warnings(settings.influx.container),
        ),
    )


@dataclass(frozen=True, slots=True)
class SavedService:
    """How the data of one container of the stack are saved, and what it mounts of the stack."""

    cover: Cover
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Services:
    """The containers of a stack by name, and what the general part leaves out."""

    saved: tuple[SavedService, ...]
    exclusions: tuple[Exclusion, ...]
    servers: tuple[SqlServer, ...] = ()
    """Those that run and are dumped as SQL."""
    influx2: tuple[Found, ...] = ()
    """The InfluxDB 2s that run."""
    recipes: tuple[RecipeInUse, ...] = ()
    """Those that have a part of their own, with their databases."""
    at_rest: tuple[AtRest, ...] = ()
    """Those that run and are stopped while they are copied."""

    def warnings(self, influx: str) -> tuple[str, ...]:
        """Return what is not covered, but for the container `influx`: that is told of already."""
        covers = (each.cover for each in self.saved if each.cover.container.name != influx)
        return tuple(each.warning for each in covers if not each.covered)


def look_at_services(found: Iterable[Found], settings: Settings, folder: str) -> Services:
    """Return how the data of each container of a stack are saved, and what is left out."""
    known = {each.container.name: each for each in found}
    table = settings.table
    covers = cover(of_stack(known.values(), folder), table)
    exclusions = _exclusions(settings, covers)
    saved = []
    for each in covers:
        paths = paths_in_stack(known[each.container.name], folder)
        saved.append(SavedService(_after_exclusions(each, paths, exclusions, table), paths))
    running = [
        known[each.container.name] for each in covers if each.container.running and not each.part
    ]
    influx2 = tuple(
        known[each.container.name]
        for each in covers
        if each.covered
        and each.container.running
        and each.service
        and each.service.dump == "influxdb2"
    )
    return Services(
        tuple(saved),
        exclusions,
        servers_in(running, table),
        influx2,
        tuple(_recipes(covers, known, settings)),
        merged(_to_stop(covers, exclusions, folder)),
    )


def _recipes(
    covers: tuple[Cover, ...], known: Mapping[str, Found], settings: Settings
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
            server_of(known[recipe.database], "mariadb"),
            tuple(
                exclusion.path.removeprefix(inside)
                for exclusion in settings.stack.exclusions
                if exclusion.path.startswith(inside)
            ),
        )


def _to_stop(
    covers: Iterable[Cover], exclusions: tuple[Exclusion, ...], folder: str
) -> Iterator[AtRest]:
    """Yield what is stopped for its copy: each container that runs, with what there is of it."""
    for each in covers:
        if each.service and each.service.kind is Kind.STOP and each.container.running:
            paths = tuple(
                path
                for path in each.service.paths
                if _may_be_there(f"{folder}/{path}")
                and not any(exclusion.leaves_out(path) for exclusion in exclusions)
            )
            if paths:
                yield AtRest((each.container.name,), paths)


def _may_be_there(path: str) -> bool:
    """Tell whether there is something, or we may not look."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _live_files(server: SqlServer, folder: str, part: str) -> Iterator[Exclusion]:
    """Return what the general part leaves out of a server that is dumped."""
    data = f"live files of {server.title}; its data are in the {part} part"
    for place, reason in ((server.data, data), (server.logs, f"live logs of {server.title}")):
        if is_below_stack(path := os.path.relpath(place or "/", folder)):
            yield Exclusion(f"{path}/*", reason)


def _exclusions(settings: Settings, covers: Iterable[Cover]) -> tuple[Exclusion, ...]:
    """Return what is left out: always, by the settings, and as what a service with skip keeps."""
    recipes = recipes_used([each.container for each in covers], settings.table)
    said = (*_always_excluded(recipes), *settings.stack.exclusions)
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


def _always_excluded(recipes: Mapping[str, Recipe]) -> Iterator[Exclusion]:
    """Yield what always is left out; of a service with a recipe the reason is another."""
    folders = {f"{recipe.folder}/*": part for part, recipe in recipes.items()}
    for each in ALWAYS_EXCLUDED:
        part = folders.get(each.path)
        reason = f"its data are in the {part} part; the rest is its image's"
        yield replace(each, reason=reason) if part else each


def _after_exclusions(
    saved: Cover, paths: tuple[str, ...], exclusions: tuple[Exclusion, ...], table: Table
) -> Cover:
    """Return how a container is saved if what it mounts is left out, or is not, or is nothing."""
    kind = saved.service.kind if saved.service else None
    if saved.part or (kind is Kind.DUMP and saved.covered):
        return saved
    if saved.service and saved.service.dump == "influxdb":  # its live files always are left out
        exclusions = tuple(each for each in exclusions if each not in ALWAYS_EXCLUDED)
    reasons = {path: each.reason for path in paths for each in exclusions if each.leaves_out(path)}
    copied = [path for path in paths if path not in reasons]
    if kind is Kind.STOP and saved.service:
        own = saved.service.paths
        copied = [e for e in copied if not any(f"{e}/".startswith(f"{o}/") for o in own)]
    if kind in (Kind.SKIP, Kind.STOP) and copied:
        how = f"{saved.how}, but for {', '.join(copied)}: its row names other paths"
        covered = kind is Kind.STOP or not table.is_database(saved.container.image)
        return replace(saved, how=how, covered=covered)
    if kind is Kind.SKIP:
        return saved
    if reasons and not copied:
        return replace(saved, how=f"left out: {reasons[paths[0]]}", covered=True)
    if saved.covered and not paths:
        return replace(saved, how="keeps nothing in services/ or volumes/")
    return saved


def look_at_folder(host: LocalHost, settings: Settings) -> dict[str, FileFact]:
    """Return the entries of the stack's folder; raises Refused where it is none to back up."""
    folder = settings.stack.folder
    names = host.names(folder)
    if not any(name in names for name in COMPOSE_FILES):
        raise Refused(
            f"There is no IOTstack in {folder}: no {COMPOSE_FILES[0]}. Say where it is: "
            '[stack] folder = "…" in hosts.toml'
            + (f" ({settings.file})." if settings.file else " (there is none yet).")
        )
    for each in FOLDERS:
        if each in names and not names[each].is_folder:
            raise Refused(
                f"{folder}/{each} is a link (or a file), and tar would save the link and none of "
                "what it leads to. Let a folder be there, for example with `sudo mount --bind "
                f"{os.path.realpath(f'{folder}/{each}')} {folder}/{each}` in place of the link, "
                "and the same in /etc/fstab."
            )
    return names


def _as_root(host: LocalHost, settings: Settings) -> tuple[str, ...]:
    """Return the words before a command that needs root: none, or `sudo -n`."""
    if os.geteuid() == 0 or not settings.stack.sudo:
        return ()
    try:
        host.run(Command(("sudo", "-n", "true"), limit_s=10))
    except StepFailed as error:
        raise Refused(
            "Files of containers belong to root and others, and sudo does not let this user in "
            f"without a password: {error} Allow it (NOPASSWD in /etc/sudoers.d), run as root, or "
            "set sudo = false in hosts.toml if every file of the stack is yours."
        ) from error
    return ("sudo", "-n")


@dataclass(frozen=True, slots=True)
class _InfluxLook:
    """What was found of InfluxDB: facts, or why there are none."""

    found: tuple[Found, ...] = ()
    facts: InfluxFacts | None = None
    error: str = ""
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = field(default=())


def _look_at_influx(host: LocalHost, settings: Settings, has_volumes: bool) -> _InfluxLook:
    name = settings.influx.container
    has_data = has_volumes and os.path.isdir(f"{settings.stack.folder}/volumes/influxdb")
    try:
        found = inspect_all(host)
    except StepFailed as error:
        if has_data:
            return _InfluxLook(error=str(error))
        return _InfluxLook(warnings=(f"{error} No container is listed in the manifest.",))
    influx = named(found, name)
    if influx and is_another(influx, settings):
        return _InfluxLook(found)
    if influx and influx.container.running and is_influxdb_3(influx.container.image):
        how = influxdb_3(influx.container, None).how
        told = (
            f"Container {name} ({influx.container.image}) is not covered: {how}. Its name is that "
            "of InfluxDB 1.x: call it and its folder otherwise, and say in hosts.toml how it is "
            'saved: [[services]] with its new name and kind = "stop".'
        )
        return _InfluxLook(found, warnings=(told,))
    if influx is None:
        why = f"there is no container named {name}, so its databases are in no part"
        left_out = (LeftOut("InfluxDB", why),)
        warnings = (f"volumes/influxdb holds data, but {why}.",) if has_data else ()
        return _InfluxLook(found, left_out=left_out, warnings=warnings)
    if not influx.container.running:
        why = f"container {name} is stopped, so its databases are in no part"
        return _InfluxLook(
            found,
            left_out=(LeftOut("InfluxDB", why),),
            warnings=(f"InfluxDB is left out: {why}. `docker start {name}`, and back up again.",),
        )
    try:
        return _InfluxLook(found, facts=influx_facts(host, influx))
    except StepFailed as error:
        return _InfluxLook(found, error=str(error))


def is_another(influx: Found, settings: Settings) -> bool:
    """Tell whether the owner says that the container of InfluxDB 1.x's name is another one."""
    service = settings.table.service_of(influx.container)
    return service is not None and service.own and service.dump != "influxdb"


@dataclass(frozen=True, slots=True)
class _Influx2Look:
    """What was found of InfluxDB 2: facts, or why there are none, or that there is none."""

    facts: Influx2Facts | None = None
    error: str = ""
    exclusions: tuple[Exclusion, ...] = ()
    warnings: tuple[str, ...] = ()


def _look_at_influx2(host: LocalHost, services: Services, folder: str) -> _Influx2Look:
    if not services.influx2:
        return _Influx2Look()
    found, *others = services.influx2
    warnings = tuple(
        f"Container {each.container.name} is not covered: of all InfluxDB 2s only "
        f"{found.container.name} is dumped."
        for each in others
    )
    try:
        version = server_version(host, found.container.name)
        if version.startswith("3."):
            told = influxdb_3(found.container, None).warning
            return _Influx2Look(warnings=(told, *warnings))
        facts = influx2_facts(found, version)
    except StepFailed as error:
        return _Influx2Look(error=str(error), warnings=warnings)
    reason = "live files of InfluxDB 2; its data are in the influxdb2 part"
    live = (os.path.relpath(e, folder) for e in (facts.data_on_host, facts.backup_on_host))
    exclusions = (Exclusion(f"{path}/*", reason) for path in live if is_below_stack(path))
    return _Influx2Look(facts, exclusions=tuple(exclusions), warnings=warnings)


@dataclass(frozen=True, slots=True)
class Room:
    """What a backup will take, at the most, and what there is."""

    general_bytes: int
    influx_bytes: int
    sql_bytes: int
    unpacked_bytes: int
    """What tar will read for the general part: a guess, for the progress."""
    copies_bytes: int = 0
    """What copies of files take until they are packed; of SQLite 0 where nobody knows yet."""

    @property
    def needed_bytes(self) -> int:
        """The general part with what is copied for it, and each dump twice: once as it comes."""
        dumps = self.influx_bytes + self.sql_bytes
        return self.general_bytes + self.copies_bytes + 2 * dumps


def look_for_room(
    host: LocalHost, facts: BackupFacts, sets: Iterable[BackupSet], limit_s: float = DU_LIMIT_S
) -> Room:
    """Return what the parts will take, after the last good set or, without one, after `du`.

    Raises StepFailed where one du takes longer than `limit_s`.
    """
    last = next((each.manifest for each in sets if each.state in GOOD and each.manifest), None)
    parts = {part.kind: part for part in last.made} if last else {}
    general, influx = parts.get("general"), parts.get("influx")
    copies_bytes = 0
    if general:
        copies_bytes = int(int(general.facts.get("sqlite_bytes", 0)) * GROWTH)
        unpacked = int(general.facts.get("unpacked_bytes", 0))
        general_bytes = int(general.size_bytes * GROWTH)
    else:
        paths = [f"{facts.folder}/{member[2:]}" for member in facts.members]
        unpacked = _used(
            host, facts, paths, (f"{facts.folder}/{each}" for each in facts.exclusions), limit_s
        )
        general_bytes = int(unpacked * PACKED_SHARE)
    at_rest = [f"{facts.folder}/{path}" for each in facts.at_rest for path in each.paths]
    if at_rest:
        copies_bytes += _used(host, facts, at_rest, (), limit_s)
    influx_bytes = 0
    if facts.influx and influx:
        influx_bytes = int(influx.size_bytes * GROWTH)
    elif facts.influx:
        influx_bytes = _used(host, facts, [f"{facts.folder}/volumes/influxdb"], (), limit_s)
    if facts.influx2 and "influxdb2" in parts:
        influx_bytes += int(parts["influxdb2"].size_bytes * GROWTH)
    elif facts.influx2:
        influx_bytes += _used(host, facts, [facts.influx2.data_on_host], (), limit_s)
    engines = {each.engine for each in facts.servers}
    sql_bytes = sum(int(parts[e].size_bytes * GROWTH) for e in engines if e in parts)
    new = [each.data for each in facts.servers if each.data and each.engine not in parts]
    if new:
        sql_bytes += int(_used(host, facts, new, (), limit_s) * PACKED_SHARE)
    return Room(general_bytes, influx_bytes, sql_bytes, unpacked, copies_bytes)


def _used(
    host: LocalHost,
    facts: BackupFacts,
    paths: list[str],
    excluded: Iterable[str],
    limit_s: float,
) -> int:
    """Return the bytes that files take, 0 where du does not tell."""
    words = (*facts.as_root, "du", "-s", "-c", "-B1", *(f"--exclude={each}" for each in excluded))
    told = host.run(
        Command((*words, "--", *paths), accept=frozenset({0, 1}), limit_s=limit_s)
    ).out.splitlines()
    total = told[-1].split("\t")[0] if told else ""
    return int(total) if total.isdigit() else 0


def refuse_without_room(host: LocalHost, room: Room, backups: str) -> None:
    """Raise Refused, with the numbers, where the disk has no room for a backup."""
    free = host.free_bytes(backups)
    if free is not None and free < room.needed_bytes:
        raise Refused(
            f"{backups} has {free:,} bytes free, and this backup needs about "
            f"{room.needed_bytes:,}: {room.general_bytes:,} for the general part, "
            f"{room.copies_bytes:,} for copies of files meanwhile, and twice "
            f"{room.influx_bytes:,} for InfluxDB's dump and its tar, and {room.sql_bytes:,} for "
            "the dumps of other databases. Make room, or keep fewer backups ([stack] keep in "
            "hosts.toml)."
        )
