"""Facts gathered before a backup, and what would prevent it. Changes nothing."""

from __future__ import annotations

import glob
import os
import posixpath
import shlex
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...backups.manifest import VOLUME, LeftOut, utc_text
from ...backups.names import PARTS
from ...core.dataclass import dataclass
from ...core.errors import Refused, StepFailed, ended
from ...core.stack_folders import FOLDERS
from ...environment.stack_host import machine_mark
from ...hosts.base import ANY_EXIT, Command, FileFact, Host
from ...hosts.inspect import (
    host_name,
    may_be_there,
    mount_points,
    on_host,
    read_text,
    root_words,
    which_may_be_there,
)
from ...hosts.local import LocalHost
from ...services.known import influxdb_3, is_in_stack, is_influxdb_3
from ...settings.model import ALWAYS_EXCLUDED, Exclusion, Settings, places_to_look
from ...settings.rows import rows_of
from ...stack.compose import (
    COMPOSE_FILES,
    InspectedContainer,
    Volume,
    chosen_files,
    inspect_all,
    named,
    top_files,
)
from ...stack.inside import is_in
from ...stack.stack_holdings import Outside, outside_exclusions, unused_told
from ...stack.swap_entries import KEPT
from ...stack.volume_options import told_options
from ...workflows.backup import BackupFacts
from .coverage import (
    Services,
    gather_services,
    idle_in_files,
    in_layer_told,
    is_another,
    live_files,
    live_of_influx,
    live_of_influx2,
    settings_for,
    why_skipped,
)
from .not_running import holds_files
from .undumped import DumpProblem, Undumped

if TYPE_CHECKING:  # imported if there is such a container
    from ...databases.influxdb.dump import InfluxFacts

INFLUX = "volumes/influxdb"


def gather_facts(host: Host, settings: Settings) -> BackupFacts:
    """Return what a backup of the stack needs to know.

    Raises Refused if there is no stack, or if sudo would ask for a password.
    """
    folder = settings.stack.folder
    if isinstance(host, LocalHost):  # another machine resolves links itself
        folder = os.path.realpath(folder)
        settings = replace(settings, stack=replace(settings.stack, folder=folder))
    names = gather_folder(host, settings)
    as_root = _as_root(host, settings)
    usual = settings.influx.container
    settings, influx = _look_at_influx(host, settings, as_root, has_volumes="volumes" in names)
    live_influx = influx.facts.live if influx.facts else ()
    services = gather_services(
        host, influx.found, settings, folder, as_root, live_influx, answered=influx.answered
    )
    undumped = services.undumped
    if influx.orphan and "influxdb" not in [each.dump for each in undumped]:
        undumped += (influx.orphan,)
    servers, holdings = services.servers, services.holdings
    influx2 = services.influx2
    dumped = [live for each in servers for live in live_files(each, folder, each.engine)]
    dumped += [
        live for each in services.recipes for live in live_files(each.server, folder, each.name)
    ]
    dumped += live_of_influx2(influx2, folder)
    told = (*services.exclusions, *influx.exclusions, *dumped)
    exclusions = tuple(each for each in told if _is_of_general(each))
    outside_out = _outside_out(holdings.outside, told)
    elsewhere = tuple(
        each
        for each in settings.stack.exclusions
        if each.path != "."
        and not _is_of_general(each)
        and not outside_exclusions(holdings.outside, (each,))
        and all(each.path != one.what for one in holdings.left_out)
    )
    chosen = [each for each in told if each.by_default or each in settings.stack.exclusions]
    stays = (
        *filter(_is_of_general, chosen),
        *_outside_out(holdings.outside, chosen),
    )
    live = {each: posixpath.join(folder, each.place) for each in (*exclusions, *elsewhere)}
    there = which_may_be_there(host, live.values())
    engines = {each.engine for each in servers}
    engines |= {each.name for each in services.recipes}
    made = {"general", *engines, *(("influx",) if influx.facts or influx.error else ())}
    made |= {"influxdb2"} if influx2 else set()
    made |= {"outside"} if holdings.outside else set()
    unlinked = [
        name for name in top_files(names) if name not in (*holdings.linked, *holdings.broken)
    ]
    points = mount_points(host)
    now = datetime.now().astimezone()
    name = influx.told  # it has its own message
    words = () if name in ("", usual) else (f"InfluxDB is {name}: the only 1.x of this stack.",)
    return BackupFacts(
        host=host_name(host),
        machine=machine_mark(host),
        far=not isinstance(host, LocalHost),
        program=f"iotstack-invoke {__version__}",
        folder=folder,
        members=tuple(
            f"./{name}"
            for name in (*unlinked, *(f for f in FOLDERS if f in names), *holdings.included)
        ),
        included=holdings.included,
        linked=holdings.linked,
        outside=holdings.outside,
        outside_exclusions=(
            *(each.path for each in outside_out),
            *_kept_in(points, [each.path for each in holdings.outside]),
        ),
        kinds=tuple(kind for kind in PARTS if kind in made),
        as_root=as_root,
        exclusions=(
            *(each.path for each in exclusions),
            *_kept_in(points, (*FOLDERS, *holdings.included), folder),
        ),
        influx=influx.facts,
        influx_error=influx.error,
        influx2=influx2.facts if influx2 else None,
        influx2_error=influx2.error if influx2 else "",
        servers=servers,
        told=(
            *words,
            *unused_told(holdings.unused),
            *(in_layer_told(*each) for each in services.in_layers),
        ),
        unused=holdings.unused,
        volumes=tuple(_with_options(services.volumes)),
        rows=rows_of(settings),
        idle_rows=idle_in_files(services, settings),
        recipes=services.recipes,
        at_rest=services.at_rest,
        limit_s=settings.influx.limit_s,
        started_utc=utc_text(datetime.now(UTC)),
        zone=f"{time.tzname[time.localtime().tm_isdst > 0]} {now.strftime('%z')}",
        containers=tuple(each.container for each in services.mine),
        stays=tuple(dict.fromkeys(each.path for each in stays)),
        sized=(*top_files(names), *_sized(points, services, folder)),
        left_out=(
            *(
                LeftOut(each.path, each.reason)
                for each in (*exclusions, *elsewhere)
                if live[each] in there or not (each.by_default or each in ALWAYS_EXCLUDED)
            ),
            *(LeftOut(each.path, each.reason) for each in outside_out),
            *holdings.left_out,
            *(told for each in undumped for told in each.left_out),
            *(influx.left_out if influx.owned or _is_meant(services, usual) else ()),
        ),
        warnings=(
            *influx.warnings,
            *(each.warning for each in undumped),
            *services.warnings(name),
            *(f"{name} is a broken link and is not packed." for name in holdings.broken),
        ),
    )


def _is_meant(services: Services, influx: str) -> bool:
    """Return whether the compose files name the container of InfluxDB, wherever it is."""
    names = ((each.name, each.container_name) for each in services.reads.services)
    return any(influx in each for each in names)


def _is_of_general(exclusion: Exclusion) -> bool:
    """Return whether an exclusion is about the stack's own folder."""
    return is_in_stack(exclusion.path) and not exclusion.path.startswith(VOLUME)


def _outside_out(
    outside: Collection[Outside], exclusions: Collection[Exclusion]
) -> tuple[Exclusion, ...]:
    """Return what exclusions leave out of the outside part, as patterns of absolute paths."""
    below = (e for e in exclusions if any(is_in(e.path, each.path) for each in outside))
    found = (*outside_exclusions(outside, exclusions), *below)
    return tuple({each.path: each for each in reversed(found)}.values())[::-1]


def _sized(points: Iterable[str], services: Services, folder: str) -> tuple[str, ...]:
    """Return what containers mount of the stack, and mount points in it, without logs."""
    tops = tuple(f"{each}/" for each in {folder, os.path.realpath(folder)})
    mounted = {
        os.path.relpath(path, top) for path in points for top in tops if path.startswith(top)
    }
    paths = {path for each in services.saved for path in each.paths} | mounted
    return tuple(
        path
        for path in sorted(paths)
        if is_in_stack(path) and path.split("/")[-1] not in ("log", "logs")
    )


def _kept_in(points: Iterable[str], places: Collection[str], top: str = "") -> Iterator[str]:
    """Yield patterns of what restores keep in mount points of folders, which is in no backup.

    `top`: the folder to which the folders and the patterns are relative, if not absolute.
    """
    for point in sorted(points):
        path = os.path.relpath(point, top) if top else point
        if any(is_in(path, each) for each in places):
            yield f"{glob.escape(path)}/{KEPT}"


def _with_options(volumes: Iterable[Volume]) -> Iterator[Mapping[str, Any]]:
    """Yield the manifest's facts about the local volumes with driver options."""
    for each in volumes:
        if each.options and each.driver == "local":
            told = told_options(dict(each.options))
            more = {"options": dict(told.options), "left_out": list(told.left_out)}
            yield {"name": each.name, "key": each.key, **more}


def gather_folder(host: Host, settings: Settings) -> dict[str, FileFact]:
    """Return the entries of the stack's folder; raises Refused if it cannot be backed up."""
    folder = settings.stack.folder
    names = host.listdir(folder)  # another machine lists no folders
    found = host.stat(f"{folder}/{each}" for each in FOLDERS)
    names |= {path.rpartition("/")[2]: fact for path, fact in found.items()}
    if not compose_file_in(host, folder, names):
        key = "[stack] folder = "
        if not isinstance(host, LocalHost):
            key = f'in the row of [[hosts]] with name = "{host.name}" folder = '
        file = os.path.abspath(os.path.expanduser(settings.file))
        where = file if settings.file else f"a new file {places_to_look(os.environ)[0]}"
        raise Refused(
            f"{on_host(host)}No IOTstack found in {folder}: no {COMPOSE_FILES[0]}.",
            f'Set its folder: {key}"…" in {where}. If its compose file has another name, set '
            "COMPOSE_FILE in .env there.",
        )
    for each in FOLDERS:
        if each in names and not names[each].is_folder:
            led_to = os.path.realpath(f"{folder}/{each}")
            bound = shlex.join(("sudo", "mount", "--bind", led_to, f"{folder}/{each}"))
            raise Refused(
                f"{folder}/{each} is a link (or a file), and tar would save only the link.",
                f"Use a folder instead, for example with `{bound}` and the same in /etc/fstab.",
            )
    return names


def compose_file_in(host: Host, folder: str, names: Collection[str]) -> str:
    """Return the compose file among the entries of a folder, or the one that its `.env` names."""
    usual = next((name for name in COMPOSE_FILES if name in names), "")
    if usual or ".env" not in names:
        return usual
    return ", ".join(chosen_files(read_text(host, f"{folder}/.env")))


def _as_root(host: Host, settings: Settings) -> tuple[str, ...]:
    """Return the words before a command that needs root: none, or `sudo -n`."""
    if not isinstance(host, LocalHost):
        told = host.run(Command(("python3", "-c", "import sqlite3"), ANY_EXIT))
        if told.exit_code:
            raise Refused(
                f"On {host.name} python3, which copies SQLite files, does not run: "
                f"{told.last_line}. Install it: sudo apt-get install python3"
            )
        return root_words(host, host.name, sudo=settings.stack.sudo)
    if os.geteuid() == 0 or not settings.stack.sudo:
        return ()
    try:
        host.run(Command(("sudo", "-n", "true"), timeout_s=10))
    except StepFailed as error:
        raise Refused(
            "Files of containers belong to root and other users, but sudo needs a password for "
            f"this user: {ended(error)} Allow it (NOPASSWD in /etc/sudoers.d), run as root, or "
            "set sudo = false in hosts.toml if every file of the stack is yours."
        ) from error
    return ("sudo", "-n")


@dataclass(frozen=True, slots=True)
class _InfluxLook:
    """Facts about InfluxDB, or why there are none."""

    found: tuple[InspectedContainer, ...] = ()
    facts: InfluxFacts | None = None
    error: str = ""
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    exclusions: tuple[Exclusion, ...] = ()
    told: str = ""
    """The container that this is about, if one has its name."""
    orphan: Undumped | None = None
    """Files of InfluxDB at their usual path, which belong to no container."""
    answered: bool = True
    """Docker listed the containers."""
    owned: bool = True
    """The stack has or had one, by its folder and hosts.toml."""


def _look_at_influx(
    host: Host, settings: Settings, as_root: tuple[str, ...], *, has_volumes: bool
) -> tuple[Settings, _InfluxLook]:
    """Return the settings with the InfluxDB to use, and the facts about it."""
    try:
        found = inspect_all(host)
    except StepFailed as error:
        told = f"{ended(error)} No container is listed in the manifest."
        look = _without_container(
            host, settings, (), as_root, has_volumes=has_volumes, answered=False
        )
        return settings, replace(look, warnings=(told,), answered=False)
    settings = settings_for(host, settings, found)
    look = _look_at(host, settings, found, as_root, has_volumes=has_volumes)
    influx = named(found, settings.influx.container)
    is_told = influx and not is_another(influx, settings)
    return settings, replace(look, told=settings.influx.container if is_told else "")


def _look_at(
    host: Host,
    settings: Settings,
    found: tuple[InspectedContainer, ...],
    as_root: tuple[str, ...],
    *,
    has_volumes: bool,
) -> _InfluxLook:
    name = settings.influx.container
    influx = named(found, name)
    if influx and is_another(influx, settings):
        return _InfluxLook(found)
    if influx and influx.container.running and is_influxdb_3(influx.container.image):
        how = influxdb_3(influx.container, None).how
        told = (
            f"Container {name} ({influx.container.image}) is not covered: {how}. Its name is used "
            "for InfluxDB 1.x: rename it and its folder, and add to hosts.toml how to save it: "
            '[[services]] with its new name and kind = "stop".'
        )
        return _InfluxLook(found, warnings=(told,))
    if influx is None:
        return _without_container(host, settings, found, as_root, has_volumes=has_volumes)
    if not influx.container.running:
        return _InfluxLook(found)  # reported with all stopped containers
    from ...databases.influxdb.dump import influx_facts

    try:
        facts = influx_facts(host, influx, as_root)
    except StepFailed as error:
        return _InfluxLook(found, error=str(error))
    live = tuple(live_of_influx(facts.live, settings.stack.folder))
    return _InfluxLook(found, facts=facts, exclusions=live)


def _without_container(
    host: Host,
    settings: Settings,
    found: tuple[InspectedContainer, ...],
    as_root: tuple[str, ...],
    *,
    has_volumes: bool,
    answered: bool = True,
) -> _InfluxLook:
    """Return that no container is InfluxDB; its files may be at IOTstack's usual path."""
    name = settings.influx.container
    if said := why_skipped(settings, name):
        why = f"no container named {name}: {said}"
        return _InfluxLook(found, left_out=(LeftOut("InfluxDB", why),) if answered else ())
    if has_volumes and holds_files(host, [f"{settings.stack.folder}/{INFLUX}"], as_root):
        state = DumpProblem.AWAY if answered else DumpProblem.UNKNOWN
        return _InfluxLook(found, orphan=Undumped(name, "influxdb", state, INFLUX))
    left_out = (LeftOut("InfluxDB", f"no container named {name}"),) if answered else ()
    owned = settings.influx.named or may_be_there(host, f"{settings.stack.folder}/{INFLUX}")
    return _InfluxLook(found, left_out=left_out, owned=owned)
