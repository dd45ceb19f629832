"""Which containers with unknown images are database servers, by the files they keep."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from ...hosts.base import Host
from ...services.known import Cover, is_in_stack
from ...settings.model import Exclusion
from ...stack.compose import InspectedContainer
from ...stack.inside import is_in
from ...stack.live_data import DUMPED, LiveData, live_data_in
from ...stack.stack_holdings import Databases, Holdings


def with_unknown_servers(
    host: Host,
    covers: Collection[Cover],
    known: Mapping[str, InspectedContainer],
    holdings: Holdings,
    databases: Databases,
    exclusions: Collection[Exclusion],
    folder: str,
    as_root: tuple[str, ...],
) -> tuple[Cover, ...]:
    """Return how each is saved: a server that writes while it is copied is not covered.

    Rows of hosts.toml are the owner's decision.
    """
    asked = {
        each.container.name: _packed_of(known[each.container.name], holdings, folder)
        for each in covers
        if each.service is None and each.covered and each.container.running
    }
    places = {path for paths in asked.values() for path in paths}
    others = {
        mount.on_host
        for name, found in known.items()
        if name not in asked and found.container.running
        for mount in found.mounts
        if mount.writable
    }
    live = [
        each
        for each in (live_data_in(host, places, as_root) if places else ())
        if not databases.part_of(each.folder)
        and not any(row.leaves_out(_shown(each.folder, folder)) for row in exclusions)
    ]
    return tuple(
        _told(each, asked.get(each.container.name, ()), live, others, folder) for each in covers
    )


def _packed_of(found: InspectedContainer, holdings: Holdings, folder: str) -> tuple[str, ...]:
    """Return what a container writes to and a backup packs, as absolute paths."""
    outside = [each.path for each in holdings.outside]
    return tuple(
        mount.on_host
        for mount in found.mounts
        if mount.writable and mount.on_host.startswith("/")
        if is_in_stack(_shown(mount.on_host, folder))
        or any(is_in(mount.on_host, each) for each in outside)
    )


def _shown(path: str, folder: str) -> str:
    """Return a path relative to the stack's folder, if it is in it."""
    return os.path.relpath(path, folder) if is_in(path, folder) else path


def _told(
    saved: Cover,
    mounted: Iterable[str],
    live: Iterable[LiveData],
    others: Collection[str],
    folder: str,
) -> Cover:
    """Return how a container is saved that may write data of a server.

    Without what another container mounts more closely: that one is judged separately.
    """
    for data in live:
        mine = max((each for each in mounted if is_in(data.folder, each)), key=len, default="")
        if not mine or any(is_in(data.folder, e) and len(e) > len(mine) for e in others):
            continue
        name, title = saved.container.name, data.title
        place = _shown(data.folder, folder)
        how = f"{title} keeps its data in {place}, and writes while it is copied"
        advice = ""
        if dump := DUMPED.get(title):
            row = f'[[services]], name = "{name}", kind = "dump", dump = "{dump}"'
            advice = f"If it is the server of these data, have it dumped: {row}"
        return replace(saved, how=how, covered=False, advice=advice)
    return saved
