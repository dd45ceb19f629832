"""The logs of restores and reloads: where they lie, and how long they stay.

That of a backup goes with its set. These stay as long as what their run replaced, and for
LOG_DAYS in any case.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from ...core.stack_folders import BACKUPS
from ...hosts.base import Host
from ...hosts.local import LocalHost, state_folder
from ..shared.restore_id import STAMP_FORM, RestoreId

LOG_DAYS = 30


def log_folder(stack: str, host: Host) -> str:
    """Return where the logs of restores lie: beside the backups, or among a laptop's state."""
    return f"{stack}/{BACKUPS}" if isinstance(host, LocalHost) else state_folder()


def log_path(stack: str, host: Host, change: RestoreId) -> str:
    """Return the log of a change of a host; those of other machines bear their names."""
    folder = log_folder(stack, host)
    if isinstance(host, LocalHost):
        return f"{folder}/{change.log}"
    stem, ending = os.path.splitext(change.log)
    return f"{folder}/{stem}.{quote(host.name, safe='')}{ending}"


def logs_over(
    names: Iterable[str], host: str, kept: Collection[str], now: datetime
) -> tuple[str, ...]:
    """Return which of the names are logs of changes that may go, the oldest first.

    `host`: whose logs they are, as their names tell it, '' where they tell none. `kept`: when the
    changes began whose states are there still. With a clock that stands before a log it stays.
    """
    oldest = (now - timedelta(days=LOG_DAYS)).strftime(STAMP_FORM)
    # With the name of a host a number at the end may be part of that.
    end = rf"\.{re.escape(host)}" if host else r"(?:-\d+)?"
    form = re.compile(
        rf"(?:.+\.restore|reload-influxdb)-(\d{{8}}T\d{{6}}Z){end}\.log(?:\.partial)?"
    )
    found = sorted((match[1], name) for name in names if (match := form.fullmatch(name)))
    return tuple(name for stamp, name in found if stamp < oldest and stamp not in kept)


def remove_old_logs(
    host: Host, stack: str, kept: Collection[str], tell: Callable[[str], None], *, dry_run: bool
) -> None:
    """Remove the logs of changes of a host that may go, those on it and those here.

    Not while an undo is owed: it ends the log of what it undoes.
    """
    here = log_folder(stack, host)
    places = [(host, f"{stack}/{BACKUPS}", "")]
    if not isinstance(host, LocalHost):
        places.append((LocalHost(here), here, quote(host.name, safe="")))
    for storage, folder, whose in places:
        names = logs_over(storage.listdir(folder), whose, kept, datetime.now(UTC))
        if not dry_run:
            storage.remove(f"{folder}/{name}" for name in names)
        for name in names:
            what = "would be removed, it" if dry_run else "removed, it"
            tell(f"{what} is older than {LOG_DAYS} days: {folder}/{name}")
