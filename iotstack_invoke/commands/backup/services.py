"""How a backup saves the data of each container of the stack. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from ...core.dataclass import dataclass
from ...core.errors import ExitCode, StepFailed, ended
from ...core.stack_folders import FOLDERS
from ...hosts.inspect import root_words_if_any
from ...hosts.local import LocalHost
from ...reporting.report import Report
from ...settings.model import Exclusion, Settings
from ...stack.compose import InspectedContainer, inspect_all, named
from .coverage import (
    SavedService,
    Services,
    gather_services,
    idle_rows,
    in_layer_told,
    settings_for,
    why_skipped,
)
from .facts import gather_folder
from .undumped import DumpProblem

_, VOLUMES = FOLDERS
INFLUX_DATA = f"{VOLUMES}/influxdb"
"""The only folder whose files are never copied, and whose data need their container."""


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """A container and how it is saved, or an unused folder (`container` is '')."""

    container: str
    image: str
    kind: str
    saved: str
    covered: bool
    paths: tuple[str, ...]
    notes: str = ""
    left_out: tuple[Exclusion, ...] = ()
    """What the table leaves out of its paths."""
    in_layer: str = ""
    """What it wrote to its own layer that may be of value, if it mounts no data."""


def list_services(settings: Settings, report: Report, *, as_json: bool) -> int:
    """Print a row for each container, then one for each folder of volumes/ that none uses.

    Also prints rows of hosts.toml that match no container; they do not change the exit code.
    Returns 3 if a database is not covered, or Docker does not list the containers. Raises Refused
    if there is no stack.
    """
    folder = settings.stack.folder
    host = LocalHost(folder)
    gather_folder(host, settings)
    as_root = root_words_if_any(host, sudo=settings.stack.sudo)
    found: tuple[InspectedContainer, ...] | None = None
    try:
        found = inspect_all(host)
    except StepFailed as error:
        report.warn(
            f"{ended(error)} How each container is saved is unknown; only the folders are listed."
        )
    settings = settings_for(host, settings, found or ())
    services = gather_services(
        host, found or (), settings, folder, as_root, answered=found is not None
    )
    for text in idle_rows(services, settings).values():
        report.warn(f"{text}.")
    names = host.listdir(f"{folder}/{VOLUMES}")
    folders = {f"{VOLUMES}/{name}" for name, fact in names.items() if fact.is_folder}
    no_influx = ""
    if found is None:
        no_influx = "cannot tell whether InfluxDB runs"
    elif not named(found, name := settings.influx.container) and not why_skipped(settings, name):
        no_influx = f"no container named {name}"
    rows = [
        *(_row(each, services.exclusions) for each in services.saved),
        *_unused(folders, services, os.path.realpath(folder), no_influx, asked=found is not None),
    ]
    covered = found is not None and all(each.covered for each in rows)
    rows += [
        ServiceRow(
            "", "", "", "not backed up: the stack does not use it", covered=False, paths=(e,)
        )
        for e in services.holdings.unused
    ]
    if as_json:
        report.write_json([_told(each) for each in rows])
    else:
        if found is not None and _is_down(services):
            report.write("The stack is down: it has no containers.")
        _print(rows, report)
        if services.servers:
            report.write("To check that each database can be dumped: inv doctor")
        others = {each.container.name for each in found or ()} - {each.container for each in rows}
        if others:
            report.write(f"Not part of this stack, so not backed up: {', '.join(sorted(others))}")
    return ExitCode.GOOD if covered else ExitCode.WARNINGS


def _row(each: SavedService, exclusions: Iterable[Exclusion]) -> ServiceRow:
    cover = each.cover
    return ServiceRow(
        cover.container.name,
        cover.container.image,
        cover.service.kind.value if cover.service else "unknown",
        each.saved,
        each.covered,
        each.paths,
        cover.service.notes if cover.service else "",
        _left_out(exclusions, each.paths),
        each.in_layer,
    )


def _left_out(exclusions: Iterable[Exclusion], paths: Iterable[str]) -> tuple[Exclusion, ...]:
    """Return what the table leaves out below some paths."""
    tops = tuple(f"{path}/" for path in paths)
    return tuple(e for e in exclusions if e.by_default and f"{e.place}/".startswith(tops))


def _told(row: ServiceRow) -> dict[str, Any]:
    """Return a row for programs."""
    left_out = [{"path": each.path, "reason": each.reason} for each in row.left_out]
    return {**asdict(row), "left_out": left_out}


def _unused(
    folders: set[str], services: Services, stack: str, no_influx: str, *, asked: bool
) -> Iterator[ServiceRow]:
    """Yield the folders of which no container mounts anything.

    `stack`: its folder; `no_influx`: why there is no InfluxDB to dump; `asked`: Docker listed the
    containers.
    """
    in_files = _in_compose_files(services, stack)
    used = {"/".join(path.split("/")[:2]) for each in services.saved for path in each.paths}
    for folder in sorted(set(folders) - used):
        if folder == INFLUX_DATA and no_influx:
            why = f"NOT COVERED: {no_influx}; copied as files"
            yield ServiceRow("", "", "", why, covered=False, paths=(folder,))
            continue
        reason = next((e.reason for e in services.exclusions if e.leaves_out(folder)), "")
        how = "files, no container uses it" if asked else "files; its container is unknown"
        how = f"{how}{in_files.get(folder, '')}"
        how = f"left out: {reason}" if reason else how
        lost = folder == services.unsaved
        how = f"NOT COVERED: {how}" if lost else how
        left_out = _left_out(services.exclusions, (folder,))
        yield ServiceRow("", "", "", how, covered=not lost, paths=(folder,), left_out=left_out)


def _in_compose_files(services: Services, folder: str) -> dict[str, str]:
    """Return the service in the compose files that uses each folder of volumes/."""
    found: dict[str, str] = {}
    away = {e.container for e in services.undumped if e.dump and e.state is DumpProblem.AWAY}
    for each in sorted(services.reads.services, key=lambda service: not service.starts):
        name = each.container_name or each.name
        off = "" if each.starts else ", whose profile is off"
        why = f" now; the compose file uses it for {name}{off}"
        why += ", which is not dumped" if name in away else ""
        for mount in each.mounts:
            place = os.path.relpath(mount.source or "/", folder)
            found.setdefault("/".join(place.split("/")[:2]), why)
    return found


def _is_down(services: Services) -> bool:
    """Return whether compose would start services of the stack, and none has a container."""
    return not services.saved and any(each.starts for each in services.reads.services)


def _print(rows: Iterable[ServiceRow], report: Report) -> None:
    containers = [each for each in rows if each.container]
    if containers:
        report.table(
            ("container", "image", "saved", "paths", "notes"),
            [(e.container, e.image, e.saved, ", ".join(e.paths), e.notes) for e in containers],
            copied=(1, 3),
        )
    told = {each.path: each.reason for row in rows for each in row.left_out}
    for path, reason in told.items():
        report.write(f"{path}: left out: {reason}")
    for each in rows:
        if each.in_layer:
            report.write(in_layer_told(each.container, each.in_layer))
    for each in rows:
        if not each.container:
            report.write(f"{each.paths[0]}: {each.saved}")
