"""What a container wrote to its own layer, outside its mounts: it is lost with the container."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from ..core.dataclass import dataclass
from ..hosts.base import Command, Host
from .compose import LOOK_LIMIT_S, InspectedContainer
from .inside import is_in, mount_around

OF_NO_WORTH = (
    *("/dev", "/lib", "/proc", "/run", "/sys", "/tmp", "/usr/bin", "/usr/lib", "/usr/share"),  # noqa: S108
    *("/usr/local/bin", "/usr/local/lib", "/var/cache", "/var/lib/apt", "/var/lib/dpkg"),
    *("/var/lock", "/var/log", "/var/run", "/var/spool", "/var/tmp", "/etc/ssl/certs"),  # noqa: S108
)
"""Where programs write disposable files: everything below these paths."""
BY_DOCKER = (
    *("/.dockerenv", "/sbin/docker-init", "/usr/sbin/docker-init"),
    *("/etc/hostname", "/etc/hosts", "/etc/resolv.conf"),
)
"""What Docker itself puts into containers, besides the mounts."""
_MADE_AGAIN = re.compile(
    r".*\.(lock|log|pid|pyc|sock)|.*/(\.cache|\.npm|__pycache__)(/.*)?"
    r"|/etc/(ld\.so\.cache|mtab|(group|gshadow|passwd|shadow)-)|.*/\.(ash|bash)_history"
)
MOST_NAMED = 2


@dataclass(frozen=True, slots=True)
class LayerChange:
    """A path of a container that differs from its image."""

    path: str
    added: bool
    """The image does not have it."""


def changes_in_layer(host: Host, name: str) -> tuple[LayerChange, ...]:
    """Return what a container wrote outside its mounts; raises StepFailed if that is unknown."""
    told = host.run(Command(("docker", "diff", name), timeout_s=LOOK_LIMIT_S))
    lines = told.out.splitlines()
    return tuple(
        LayerChange(line[2:], line[0] == "A") for line in lines if line[:2] in ("A ", "C ")
    )


def bare_places(found: InspectedContainer, places: Iterable[str]) -> tuple[str, ...]:
    """Return the given paths of a container that are in no mount."""
    paths = (posixpath.normpath(each) for each in places)
    return tuple(each for each in paths if mount_around(found.mounts, each) is None)


def written_in(
    places: Iterable[str], changes: Iterable[LayerChange], found: InspectedContainer
) -> tuple[str, ...]:
    """Return the given paths of a container at or below which it wrote anything."""
    paths = _but_ways(changes, found)
    return tuple(
        place for place in places if any(path != place and is_in(path, place) for path in paths)
    )


def _but_ways(changes: Iterable[LayerChange], found: InspectedContainer) -> list[str]:
    """Return the paths, without the folders that Docker creates for mounts."""
    mounts = {each.inside.rstrip("/") for each in found.mounts}
    return [e.path for e in changes if not any(is_in(mount, e.path) for mount in mounts)]


def told_of_layer(changes: Iterable[LayerChange], found: InspectedContainer) -> str:
    """Return the message about a container that mounts no data; '' for none.

    Files that a program writes at each start are left out: logs, caches, sockets, and files of the
    image in `/etc` that are rewritten. The value of the rest is unknown.
    """
    wrote = [each for each in changes if each.added or not is_in(each.path, "/etc")]
    paths = sorted(_but_ways(wrote, found))
    folders = {posixpath.dirname(each.path) for each in wrote}
    kept = [
        path
        for path in paths
        if path not in folders
        and not any(is_in(path, each) for each in (*OF_NO_WORTH, *BY_DOCKER))
        and not _MADE_AGAIN.fullmatch(path)
    ]
    if not kept:
        return ""
    number = f"{len(kept):,} files or folders" if len(kept) > 1 else "1 file or folder"
    names = ", ".join(kept[:MOST_NAMED])
    return (
        f"it mounts no data, but wrote {number} into its own layer, such as {names}: that is "
        "lost when the container is created again, and is in no backup"
    )
