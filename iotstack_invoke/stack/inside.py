"""Where on the host a path inside of a container lies, by its mounts. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from .compose import Mount


def mount_around(mounts: Iterable[Mount], path: str) -> Mount | None:
    """Return the mount that a path inside of a container lies in; None where there is none.

    The deepest of those around it: it hides what the others have there.
    """
    around = (each for each in mounts if is_in(posixpath.normpath(path), each.inside))
    return max(around, key=lambda each: len(each.inside.rstrip("/")), default=None)


def path_on_host(mounts: Iterable[Mount], path: str) -> str:
    """Return where a path of a container lies on the host; '' where no mount leads there."""
    mount = mount_around(mounts, path)
    if mount is None or not mount.on_host:  # a tmpfs is nowhere on the host
        return ""
    below = posixpath.relpath(path, mount.inside)
    return posixpath.normpath(posixpath.join(mount.on_host, below))


def is_in(path: str, place: str) -> bool:
    """Tell whether a path is a place, or lies in it."""
    return f"{path}/".startswith(f"{place.rstrip('/')}/")


def above(path: str) -> Iterator[str]:
    """Yield the folders that a path lies in, the deepest first."""
    while path := path.rpartition("/")[0]:
        yield path
