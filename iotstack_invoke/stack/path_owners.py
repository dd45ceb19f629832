"""What a path belongs to: a volume, the system, other users. Pure."""

from __future__ import annotations

import posixpath
import re

from .compose import ANONYMOUS
from .inside import is_in
from .stack_holdings import is_system

HOME_DEPTH = 3

DATA_IN_VAR = ("/var/lib", "/var/local", "/var/opt", "/var/www")

_VOLUME = re.compile(r"/.*/volumes/([a-zA-Z0-9][a-zA-Z0-9_.-]+)/_data((?:/.*)?)")

_NOT_OF_A_PROJECT = re.compile(r"[^a-z0-9_-]")


def is_of_others(path: str) -> bool:
    """Return whether no manifest may name a path: write access there means control of the machine.

    Such paths are those the system runs, whole homes, and hidden ones, such as SSH keys.
    """
    depth = path.count("/")
    if depth < 2 or (depth < HOME_DEPTH and path.split("/")[1] == "home") or "/." in path:  # noqa: PLR2004
        return True
    if is_in(path, "/var"):
        return is_system(path) or not any(is_in(path, each) for each in DATA_IN_VAR)
    return is_system(path) or is_in(path, "/etc")


def volume_in(path: str) -> tuple[str, str] | None:
    """Return the name of the volume that contains a path, and the path in it; or None."""
    found = _VOLUME.fullmatch(path)
    return (found[1], found[2]) if found else None


def is_unnamed(path: str) -> bool:
    """Return whether a path is in an anonymous volume, which is removed with its container."""
    found = volume_in(path)
    return bool(found and ANONYMOUS.fullmatch(found[0]))


def project_of(folder: str) -> str:
    """Return the name of the compose project in a folder, if nothing else defines it."""
    return _NOT_OF_A_PROJECT.sub("", posixpath.basename(folder).lower()).lstrip("_-")
