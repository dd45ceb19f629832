"""Which servers of a stack do not run, so that a backup has no dump of them.

Those whose containers are stopped, and those that compose would start and that have no container.
Not for: the messages about them (undumped.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping

from ...core.errors import StepFailed, Unreachable
from ...hosts.base import Host
from ...hosts.inspect import stat_on
from ...services.containers import Container
from ...services.known import (
    AS_THEY_LIE,
    PAUSED,
    Cover,
    Kind,
    Service,
    ServiceTable,
    is_influxdb_3,
)
from ...settings.model import Settings
from ...stack.compose import InspectedContainer, Volume
from ...stack.compose_files import ComposeReads
from ...stack.inside import is_in
from .undumped import DumpProblem, Undumped

SETTINGS_INSIDE = re.compile(r"(/usr/local)?/etc(/|$)|.*\.(acl|cnf|conf)$")
"""Where a container has its configuration, and no data."""


def at_rest_now(
    covers: Iterable[tuple[Cover, bool]], known: Mapping[str, InspectedContainer]
) -> Iterator[Undumped]:
    """Yield the servers whose containers are stopped; one of kind stop may be stopped.

    `covers`: how each is saved, and whether the backup has files of it.
    """
    for each, copied in covers:
        name, service = each.container.name, each.service
        if each.how not in (AS_THEY_LIE, PAUSED) or service is None:
            continue
        state = DumpProblem.PAUSED if known[name].paused else DumpProblem.STOPPED
        if state is DumpProblem.STOPPED and (
            not service.dump or is_influxdb_3(each.container.image)
        ):
            continue
        yield Undumped(name, service.dump, state, copied=copied)


def away(
    host: Host,
    mine: tuple[InspectedContainer, ...],
    reads: ComposeReads,
    volumes: Mapping[str, Volume],
    settings: Settings,
    folder: str,
    as_root: tuple[str, ...],
    *,
    answered: bool,
) -> Iterator[Undumped]:
    """Yield the servers without container that compose would start, if they have files.

    If Docker does not answer, also those that are only stopped for their copy, or not saved.
    """
    table, rows = settings.table, settings.stack.exclusions
    there = {each.container.name for each in mine}
    mounted = {m.volume or m.source for each in mine for m in each.mounts}
    for each in reads.services:
        name = each.container_name or each.name
        service = table.service_of(Container(name, each.image, "", "", running=False))
        dump = service.dump if service and service.kind is Kind.DUMP else ""
        if name in there or (answered and not (dump and each.starts)):
            continue
        if not (dump or _may_write(service, each.image, table)):
            continue
        mounts = [m for m in each.mounts if m.writable and not SETTINGS_INSIDE.match(m.target)]
        if mounted & {m.volume_name or m.source for m in mounts}:
            continue
        # Docker mounts a volume's device only while a container uses it.
        places = {
            m.source or (volumes[m.volume_name].mountpoint if m.volume_name in volumes else "")
            for m in mounts
        }
        wanted = [
            path
            for path in sorted(filter(None, places))
            if not any(row.leaves_out(os.path.relpath(path, folder)) for row in rows)
        ]
        if wanted and holds_files(host, wanted, as_root):
            held = {folder, *(e.mountpoint for e in volumes.values() if e.mountpoint)}
            held |= {each.path for each in settings.stack.inclusions}
            copied = any(is_in(path, each) for path in wanted for each in held)
            state = DumpProblem.AWAY if answered else DumpProblem.UNKNOWN
            yield Undumped(name, dump, state, copied=copied)


def _may_write(service: Service | None, image: str, table: ServiceTable) -> bool:
    """Return whether files of a service may be unusable if they are copied while it runs."""
    if service and (service.own or service.kind is Kind.STOP):
        return service.kind is Kind.STOP
    return any(map(table.is_database, (image, *(service.images if service else ()))))


def holds_files(host: Host, folders: Iterable[str], as_root: tuple[str, ...]) -> bool:
    """Return whether folders contain anything but folders, or cannot be read."""
    words = ("find", *folders, "-mindepth", "1", "-not", "-type", "d", "-print", "-quit")
    try:
        return bool(stat_on(host, words, as_root, 600))
    except Unreachable:
        raise
    except StepFailed:
        return True
