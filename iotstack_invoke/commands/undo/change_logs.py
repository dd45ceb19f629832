"""The logs of restores and reloads: where they are, and how long they are kept.

That of a backup is removed with its set. These are kept as long as the data that their run
replaced, and for LOG_DAYS in any case.
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
    """Return the folder of restore logs: beside the backups, or in a laptop's state folder."""
    return f"{stack}/{BACKUPS}" if isinstance(host, LocalHost) else state_folder()


def log_path(stack: str, host: Host, change: RestoreId) -> str:
    """Return the log of a change of a host; those of other machines have their names."""
    folder = log_folder(stack, host)
    if isinstance(host, LocalHost):
        return f"{folder}/{change.log}"
    stem, ending = os.path.splitext(change.log)
    return f"{folder}/{stem}.{quote(host.name, safe='')}{ending}"


def logs_over(
    names: Iterable[str], host: str, kept: Collection[str], now: datetime
) -> tuple[str, ...]:
    """Return which of the names are logs of changes that may be removed, the oldest first.

    `host`: whose logs they are, by their names, '' if these name none. `kept`: when the changes
    began whose states still exist. If the clock is before the time of a log, the log is kept.
    """
    oldest = (now - timedelta(days=LOG_DAYS)).strftime(STAMP_FORM)
    # If the name of a host is included, a number at the end may be part of that.
    end = rf"\.{re.escape(host)}" if host else r"(?:-\d+)?"
    form = re.compile(
        rf"(?:.+\.restore|reload-influxdb)-(\d{{8}}T\d{{6}}Z){end}\.log(?:\.partial)?"
    )
    found = sorted((match[1], name) for name in names if (match := form.fullmatch(name)))
    return tuple(name for stamp, name in found if stamp < oldest and stamp not in kept)


def remove_old_logs(
    host: Host, stack: str, kept: Collection[str], tell: Callable[[str], None], *, dry_run: bool
) -> None:
    """Remove the logs of changes of a host that may be removed, those on it and those here.

    Not while an undo is pending: it completes the log of what it undoes.
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
