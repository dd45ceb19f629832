"""Where a path inside a container is on the host, by its mounts. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from .compose import Mount


def mount_around(mounts: Iterable[Mount], path: str) -> Mount | None:
    """Return the mount that contains a path inside a container; None if none does.

    The deepest one counts: it hides what the others have there.
    """
    around = (each for each in mounts if is_in(posixpath.normpath(path), each.inside))
    return max(around, key=lambda each: len(each.inside.rstrip("/")), default=None)


def path_on_host(mounts: Iterable[Mount], path: str) -> str:
    """Return the host's path for a path of a container; '' if no mount contains it."""
    mount = mount_around(mounts, path)
    if mount is None or not mount.on_host:  # a tmpfs is not on the host
        return ""
    below = posixpath.relpath(path, mount.inside)
    return posixpath.normpath(posixpath.join(mount.on_host, below))


def is_in(path: str, place: str) -> bool:
    """Return whether a path equals another path, or is below it."""
    return f"{path}/".startswith(f"{place.rstrip('/')}/")


def above(path: str) -> Iterator[str]:
    """Yield the parent folders of a path, the deepest first."""
    while path := path.rpartition("/")[0]:
        yield path
