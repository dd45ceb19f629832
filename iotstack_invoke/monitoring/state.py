"""Where the notes on the runs of a stack are: in the user's state folder, not beside the backups.

A full or unmounted disk of the backups must not stop the messages about it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from ..backups.manifest import read_utc
from ..core.errors import StepFailed
from ..hosts.local import LocalHost, opened, state_folder
from ..hosts.trust import believed

Content = TypeVar("Content")

UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
FIRST_YEAR, LAST_YEAR = 1970, 9998
"""A time beyond them is none in every time zone."""
MOST = 1 << 63
"""What reading a file of it may raise, whatever it holds: then it counts as missing."""


def state_of(stack: str) -> str:
    """Return the folder of the notes on a stack, by the stack's folder; it may not exist."""
    mark = hashlib.sha256(os.fsencode(stack)).hexdigest()[:8]
    return f"{state_folder()}/monitoring/{os.path.basename(stack)}-{mark}"


def make_state_folder(folder: str) -> None:
    """Make a folder of notes and those above it, for this user alone; raises StepFailed."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise StepFailed(f"Cannot create {folder}: {error.strerror}.") from error


def moment_of(text: object) -> datetime:
    """Return the time in a note; raises ValueError for one that cannot be shown in local time."""
    found = read_utc(str(text))
    if not FIRST_YEAR <= found.year <= LAST_YEAR:
        raise ValueError(text)
    return found


def number_of(value: object) -> int:
    """Return the whole number in a note; raises ValueError for one that no disk has."""
    if type(value) is not int or not -MOST < value < MOST:
        raise ValueError(value)
    return value


class StateFile:
    """A JSON file of notes. One that others may have written is ignored, with a warning."""

    def __init__(self, path: str, most_bytes: int) -> None:
        self.path = path
        self._most_bytes = most_bytes
        self._host = LocalHost(os.path.dirname(path))

    def read(self, parse: Callable[[Any], Content]) -> Content | None:
        """Return what `parse` makes of the file; None without one, or if it is not ours."""
        if not believed(self._host, self.path):
            return None
        with contextlib.suppress(*UNREADABLE), open(self.path, "rb", opener=opened) as stream:
            return parse(json.loads(stream.read(self._most_bytes)))
        return None

    def write(self, content: object) -> None:
        """Replace the file and make its folder; raises StepFailed, and the earlier one stays."""
        make_state_folder(os.path.dirname(self.path))
        self._host.replace(self.path, json.dumps(content).encode())
