"""What a reload moved aside, and how long it stays."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from ..manifest import read_utc, utc_text
from ..rulebooks.restore import RESTORE
from ..steps import Command, Host
from ..targets import entries, read_text

UNTIL_FILE = "keep-until.json"
REMOVE_LIMIT_S = 3600.0


def keep_until(host: Host, folders: Iterable[str], days: int, now: datetime) -> datetime:
    """Write down until when folders stay, into the first of them; return that time."""
    first, *others = folders
    until = now + timedelta(days=days)
    told = {"since": utc_text(now), "until": utc_text(until), "with": others}
    with host.create(f"{first}/{UNTIL_FILE}") as stream:
        stream.write(json.dumps(told).encode())
    return until


def remove_old(host: Host, folders: Iterable[str], as_root: tuple[str, ...]) -> None:
    """Remove folders that hold old data; the journal goes first, for there is no way back now."""
    first, *others = folders
    host.run(Command((*as_root, "rm", "-f", "--", f"{first}/journal")))
    words = (*as_root, "rm", "-rf", "--", *others, first)
    host.run(Command(words, limit_s=REMOVE_LIMIT_S))


def remove_expired(
    host: Host, stack: str, as_root: tuple[str, ...], now: datetime | None = None
) -> tuple[str, ...]:
    """Remove what a reload left on a stack and whose days are over; return its folders.

    With a clock that stands before the reload nothing is removed.
    """
    now = now or datetime.now(UTC)
    removed = []
    for name in sorted(entries(host, f"{stack}/{RESTORE}")):
        folder = f"{stack}/{RESTORE}/{name}"
        told = read_text(host, f"{folder}/{UNTIL_FILE}") if name.startswith("previous-") else ""
        folders = expired(told, folder, now)
        if folders:
            remove_old(host, folders, as_root)
            removed.append(folder)
    return tuple(removed)


def expired(told: str, folder: str, now: datetime) -> tuple[str, ...]:
    """Return the folders whose days are over by what is told in one of them; () if they stay.

    Besides itself it may name only folders that bear its name behind a dot, as a swap on another
    file system makes them.
    """
    try:
        found = json.loads(told)
        since, until = read_utc(found["since"]), read_utc(found["until"])
        others = [str(each) for each in found["with"]]
    except (ValueError, TypeError, KeyError):
        return ()
    mine = f".{posixpath.basename(folder)}"
    if any(posixpath.basename(each) != mine or ".." in each.split("/") for each in others):
        return ()
    return (folder, *others) if since <= now and until <= now else ()
