"""What Home Assistant, metrics and warnings say of a stack: its backups and its runs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime

from ..core.dataclass import dataclass
from .run_event import RunEvent


@dataclass(frozen=True, slots=True)
class SetFacts:
    """One good backup beside the stack. Times are aware."""

    runtag: str
    began: datetime
    seconds: float
    """How long the run took."""
    parts: Mapping[str, int]
    """The size in bytes of each part by its kind: general, influx, mariadb …"""

    @property
    def size_bytes(self) -> int:
        """The size of all parts."""
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class PlaceFacts:
    """A place of backups: `here`, or a vault by its name."""

    name: str
    newest: datetime | None = None
    """When the newest good backup of this machine there was made; None without one."""
    sets: int = 0
    """How many good ones of this machine are there."""
    size_bytes: int = 0
    """Their size."""
    free_bytes: int | None = None
    """The free space; None if the place does not tell it, as a cloud."""
    verified: datetime | None = None
    """When a backup there was last read again and found good; None for never."""
    trouble: str = ""
    """Why it could not be read; then the other fields say nothing."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong now, or needs a look."""

    key: str
    """What it is, the same each time: `overdue here`, `size influx`, `full nas` …"""
    text: str
    """Sentences for the owner: what, why, and what to do. The first says what alone."""
    is_failure: bool = False
    """A failure; otherwise a warning."""

    @property
    def title(self) -> str:
        """The first sentence, without its full stop."""
        return self.text.partition(". ")[0].removesuffix(".")


@dataclass(frozen=True, slots=True)
class StackFacts:
    """All of it, at one moment."""

    host: str
    """The name of the machine."""
    now: datetime
    sets: tuple[SetFacts, ...] = ()
    """The good backups here, oldest first."""
    places: tuple[PlaceFacts, ...] = ()
    """Here first, then the vaults in the order of hosts.toml."""
    runs: Mapping[str, RunEvent] = field(default_factory=dict)
    """The last run of each task that ended, by the task's name."""
    rehearsed: datetime | None = None
    """When a rehearsed restore last succeeded; None for never."""
    next_run: datetime | None = None
    """When the schedule starts the next backup; None if that is unknown."""
    problems: tuple[Problem, ...] = ()
    """What is wrong now, the worst first."""
    is_hourly: bool = False
    """The schedule looks at the stack each hour."""
    machine: str = ""
    """The mark that tells it from another machine of the same name (machine_mark)."""

    @property
    def newest(self) -> SetFacts | None:
        """The newest good backup here; None if there is none."""
        return self.sets[-1] if self.sets else None
