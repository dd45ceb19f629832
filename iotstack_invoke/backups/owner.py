"""The owner's declarations about old backups: data gone for good, adopted sets of other tools.

An append-only file of JSON lines, beside the backups. Not for: settings in hosts.toml.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from ..core.dataclass import dataclass
from ..core.runtag import is_runtag
from ..hosts.base import Host
from ..hosts.local import LocalHost
from ..hosts.trust import believed
from .holdings import Gone
from .manifest import read_utc, utc_text
from .sets import BackupSet

OWNER_FILE = ".retention.jsonl"

Sizes = Mapping[str, int]
"""The sizes of a set's archives by kind: with other sizes it is another set."""


@dataclass(frozen=True, slots=True)
class OwnerNotes:
    """All declarations."""

    gone: tuple[Gone, ...]
    sizes: Mapping[tuple[str, str], Sizes]
    """The adopted sets, by place and runtag."""

    def adopted(self, at: str, sets: Iterable[BackupSet]) -> frozenset[str]:
        """Return the sets of a place that are adopted and have not changed since."""
        return frozenset(
            each.runtag
            for each in sets
            if each.is_foreign and self.sizes.get((at, each.runtag)) == sizes_of(each)
        )


def sizes_of(backup: BackupSet) -> dict[str, int]:
    """Return the sizes of the archives of a set by their kinds."""
    return {kind: backup.files[kind].size_bytes for kind in backup.parts}


class OwnerFile:
    """The file of declarations, on the host of the backups."""

    def __init__(self, host: Host, path: str) -> None:
        self._host = host
        self._path = path

    def read(self) -> OwnerNotes:
        """Return the declarations; an incomplete line is skipped.

        So is one dated in the future: the clock was ahead, and the sets that it applies to are
        unknown.
        """
        now = datetime.now(UTC)
        gone: list[Gone] = []
        sizes: dict[tuple[str, str], Sizes] = {}
        is_ours = believed(self._host, self._path)
        for line in self._host.lines(self._path) if is_ours else ():
            with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                told = json.loads(line)
                said = read_utc(told["utc"])
                if "about" in told:  # in earlier versions they applied to all sets up to then
                    said = min(said, read_utc(told["about"]) + timedelta(seconds=1))
                if "gone" in told and said <= now:
                    gone += [Gone(str(each), str(told["host"]), said) for each in told["gone"]]
                elif "gone" not in told and is_runtag(told["adopted"]):
                    sizes[told["at"], told["adopted"]] = dict(told["sizes"])
        return OwnerNotes(tuple(gone), sizes)

    def add_gone(
        self, names: Iterable[str], host: str, about: datetime | None, now: datetime
    ) -> None:
        """Record what is gone from a machine's sets that were made until `about`.

        `about` is the newest set that existed: later sets count again, whatever the clock says.
        """
        told = {"about": utc_text(about)} if about else {}
        self._add({"utc": utc_text(now), **told, "gone": list(names), "host": host})

    def add_adopted(self, at: str, backup: BackupSet, now: datetime) -> None:
        """Record that a set of another tool may be removed by this one."""
        told = {"adopted": backup.runtag, "at": at, "sizes": sizes_of(backup)}
        self._add({"utc": utc_text(now), **told})

    def _add(self, told: Mapping[str, object]) -> None:
        if isinstance(self._host, LocalHost):
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        # A torn line before has no newline.
        self._host.append(self._path, f"\n{json.dumps(told)}")
