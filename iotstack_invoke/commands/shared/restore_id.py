"""Which restore or reload a journal is of. Pure: lines in, names out.

Not for: undoing it (journal.py), or going back on request (actions/undo.py).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from datetime import UTC, datetime

from ...core.dataclass import dataclass
from ...engine.journal import owed_in
from ...stack.folders import MakeAside

STAMP_FORM = "%Y%m%dT%H%M%SZ"
_FOLDER = re.compile(r"previous-(.+)-(\d{8}T\d{6}Z)")
RELOADED = "pi:reloaded/"
"""With this begins the job of a reload."""
OF_RELOADS = "influxdb"
"""What stands in the name of a reload's folder where a restore has the runtag."""


@dataclass(frozen=True, slots=True)
class RestoreId:
    """A restore or reload, by the folder for what it replaces: `previous-RUNTAG-STAMP`."""

    runtag: str
    """Of the backup that was restored; '' for a reload."""
    stamp: str
    """When it began, in UTC: `20261123T110000Z`."""

    @property
    def log(self) -> str:
        """The name of its log."""
        name = f"{self.runtag}.restore" if self.runtag else "reload-influxdb"
        return f"{name}-{self.stamp}.log"

    @property
    def name(self) -> str:
        """The name of its folder, without what all of them begin with."""
        return f"{self.runtag or OF_RELOADS}-{self.stamp}"

    @property
    def what(self) -> str:
        """It in words, without its time."""
        return f"restore of {self.runtag}" if self.runtag else "reload of InfluxDB"

    def __str__(self) -> str:
        """Return it in words, with the time of the clock here."""
        try:
            began = datetime.strptime(self.stamp, STAMP_FORM).replace(tzinfo=UTC).astimezone()
        except ValueError:  # a folder that somebody named so
            return f"the {self.what} ({self.stamp})"
        return f"the {self.what} that began at {began:%Y-%m-%d %H:%M:%S}"


def change_of(folder: str, *, reload: bool = False) -> RestoreId | None:
    """Return the change that keeps what it replaced in a folder; None where it is none of ours."""
    found = _FOLDER.fullmatch(posixpath.basename(folder))
    return RestoreId("" if reload else found[1], found[2]) if found else None


def change_in(lines: Iterable[str]) -> RestoreId | None:
    """Return the change that is owed by the lines of a journal, None where none began to act."""
    for entry in owed_in(lines):
        if entry.step == MakeAside.__name__:
            folder = str(entry.fields.get("path", ""))
            return change_of(folder, reload=entry.job.startswith(RELOADED))
    return None


def is_stamp(text: str) -> bool:
    """Tell whether a time can be meant; somebody may have named a folder like one of ours."""
    try:
        datetime.strptime(text, STAMP_FORM)  # noqa: DTZ007 - it is only tried
    except ValueError:
        return False
    return True
