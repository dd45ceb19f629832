"""Two machines with one host name, whose backups would look like one machine's in a vault.

Reported only if it is certain: a Pi that was set up again has the name of its predecessor, and
another machine id. Not for: backups whose manifests name no machine id.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime

from ...backups.manifest import Manifest, read_utc
from ...backups.names import KINDS
from ...environment.environment import (
    CLOCKS_APART,
    Environment,
    begun_by,
    manifests_in,
    newest_runtags,
)
from ...environment.stack_host import machine_mark
from ...hosts.base import Host, Storage
from ...hosts.inspect import host_name
from ...hosts.local import LocalHost

READ_AT_ONCE = 4
MOST_READ = 64
"""The maximum number of manifests to open: a flat vault holds those of many machines."""
RENAME = "sudo hostnamectl set-hostname NAME"


def namesake_in(environment: Environment, vault: str) -> Manifest | None:
    """Return a backup of another machine that has the name of the stack's, or None.

    It was made after the last but one of this machine, so that machine is still in use, or by the
    machine that we run on, if the stack is another's. Raises StepFailed.
    """
    host, machine = host_name(environment.host), machine_mark(environment.host)
    us = machine_mark(LocalHost("/")) if environment.far else ""
    mine: list[datetime] = []
    others: list[tuple[datetime, Manifest]] = []
    now = datetime.now(UTC) + CLOCKS_APART
    for each in _newest(environment.vaults[vault]) if machine else ():
        made = read_utc(each.started_utc)
        if each.host == host and each.machine and made <= now:
            if each.machine == machine:
                mine.append(made)
            else:
                others.append((made, each))
        if len(mine) > 1:
            break
    is_alive = (each for made, each in others if each.machine == us or (mine and made > min(mine)))
    return next(is_alive, None)


def is_namesake(host: Host) -> bool:
    """Return whether a host is another machine than this one, with the same name."""
    here = LocalHost("/")
    marks = {machine_mark(here), machine_mark(host)}
    return host_name(host) == host_name(here) and len(marks - {""}) > 1


def _newest(storage: Storage) -> Iterator[Manifest]:
    """Yield the manifests of a storage, first those that may be newest."""
    names = storage.listdir(storage.root)
    tags = newest_runtags(names, begun_by(names))
    listed = [f"{tag}.{KINDS['manifest']}" for tag in tags]
    for start in range(0, min(len(listed), MOST_READ), READ_AT_ONCE):
        asked = {name: names[name] for name in listed[start : start + READ_AT_ONCE]}
        found = manifests_in(storage, storage.root, asked, math.inf, outline=True)
        told = (found[name.removesuffix(f".{KINDS['manifest']}")] for name in asked)
        yield from filter(None, told)


def namesake_told(vault: str, other: Manifest) -> str:
    """Return the problem that a vault holds a backup of another machine with that name."""
    return (
        f"two machines named {other.host} back up to {vault}, so their backups are mixed: "
        f"{other.runtag} is from the other one"
    )
