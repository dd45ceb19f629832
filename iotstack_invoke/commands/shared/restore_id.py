"""Which restore or reload a journal belongs to. Pure: lines in, names out.

Not for: undoing it (journal.py), or undo on request (undo.py).
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
"""The first words of the job of a reload."""
OF_RELOADS = "influxdb"
"""In the name of a reload's folder, this replaces the runtag of a restore."""


@dataclass(frozen=True, slots=True)
class RestoreId:
    """A restore or reload, by the folder for what it replaces: `previous-RUNTAG-STAMP`."""

    runtag: str
    """The restored backup; '' for a reload."""
    stamp: str
    """When it began, in UTC: `20261123T110000Z`."""

    @property
    def log(self) -> str:
        """The name of its log."""
        name = f"{self.runtag}.restore" if self.runtag else "reload-influxdb"
        return f"{name}-{self.stamp}.log"

    @property
    def name(self) -> str:
        """The name of its folder, without the common prefix."""
        return f"{self.runtag or OF_RELOADS}-{self.stamp}"

    @property
    def what(self) -> str:
        """Its description, without its time."""
        return f"restore of {self.runtag}" if self.runtag else "reload of InfluxDB"

    def __str__(self) -> str:
        """Return its description, with the time in the local zone."""
        try:
            began = datetime.strptime(self.stamp, STAMP_FORM).replace(tzinfo=UTC).astimezone()
        except ValueError:  # a folder with such a name that is not ours
            return f"the {self.what} ({self.stamp})"
        return f"the {self.what} that began at {began:%Y-%m-%d %H:%M:%S}"


def change_of(folder: str, *, reload: bool = False) -> RestoreId | None:
    """Return the change that keeps replaced data in a folder; None if it is not ours."""
    found = _FOLDER.fullmatch(posixpath.basename(folder))
    return RestoreId("" if reload else found[1], found[2]) if found else None


def change_in(lines: Iterable[str]) -> RestoreId | None:
    """Return the change of a journal's pending undo, None if none began to act."""
    for entry in owed_in(lines):
        if entry.step == MakeAside.__name__:
            folder = str(entry.fields.get("path", ""))
            return change_of(folder, reload=entry.job.startswith(RELOADED))
    return None


def is_stamp(text: str) -> bool:
    """Return whether it is a valid time; a folder that is not ours may be named like one."""
    try:
        datetime.strptime(text, STAMP_FORM)  # noqa: DTZ007 - only checks the form
    except ValueError:
        return False
    return True
