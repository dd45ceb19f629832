"""How long the user asked to keep replaced data: the note of it, in their folder.

It is written before the change is committed, and removed with the last step of an undo: a run that
is killed in between leaves no old state without its note.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from ..backups.manifest import read_utc, utc_text
from ..core.dataclass import dataclass
from ..engine.steps import HostStep, StepContext
from ..hosts.base import PARTIAL, Host

UNTIL_FILE = "keep-until.json"
_FORGET = (
    '[ -n "$(find "$1" ! -type d ! -path "$1/$0" ! -path "$1/$2" -print -quit)" ] || '
    'rm -f -- "$1/$0" "$1/$2"'
)
"""Removes the note ($0), and a partial one ($2), from a folder ($1) without other files."""


def keep_until(host: Host, folders: Iterable[str], days: int, now: datetime) -> datetime:
    """Write until when folders are kept, into the first of them; return that time."""
    first, *others = folders
    until, path = now + timedelta(days=days), f"{first}/{UNTIL_FILE}"
    told = {"since": utc_text(now), "until": utc_text(until), "with": others}
    with host.create(path + PARTIAL) as stream:
        stream.write(json.dumps(told).encode())
    host.rename(path + PARTIAL, path)
    return until


def forget_words(folder: str) -> tuple[str, ...]:
    """Return the command that removes the note of a folder in which nothing else is left."""
    return ("sh", "-c", _FORGET, UNTIL_FILE, folder, UNTIL_FILE + PARTIAL)


def read_until(told: str) -> datetime | None:
    """Return until when a note keeps its folder, None if it does not say."""
    try:
        return read_utc(json.loads(told)["until"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class KeepUntil(HostStep):
    """Note how long replaced data are kept. Undone together with the folder (MakeAside)."""

    folders: tuple[str, ...]
    days: int

    def commands(self) -> tuple[str, ...]:
        """Return the file that is written."""
        return (f"write '{self.folders[0]}/{UNTIL_FILE}'",)

    def do(self, context: StepContext) -> None:
        """Write it."""
        keep_until(self.access.host(context), self.folders, self.days, datetime.now(UTC))
