"""Servers without a dump in a backup, whose files are copied instead: one rule for all. Pure.

Not for: databases that this tool cannot dump, which are reported as not covered (services/known).
"""

from __future__ import annotations

from enum import Enum

from ...backups.manifest import LeftOut
from ...core.dataclass import dataclass
from ...services.known import COPIED

INFLUX = "InfluxDB"
"""The entry for what is left out of a set without dump: a restore recognises its files by it."""
TITLES = {
    "influxdb": INFLUX,
    "influxdb2": "InfluxDB 2",
    "mariadb": "MariaDB",
    "postgres": "PostgreSQL",
}


class DumpProblem(Enum):
    """Why there is no dump."""

    STOPPED = "stopped"
    PAUSED = "paused"
    AWAY = "away"
    UNKNOWN = "unknown"


_WHY = {
    DumpProblem.STOPPED: "container {name} is stopped",
    DumpProblem.PAUSED: "container {name} is paused",
    DumpProblem.AWAY: "no container named {name}",
    DumpProblem.UNKNOWN: "Docker does not answer",
}
_TORN = {
    DumpProblem.PAUSED: ", and may be inconsistent, as after a power cut",
    DumpProblem.UNKNOWN: ", and are inconsistent if it runs and writes",
}
_CURE = {
    DumpProblem.STOPPED: "`docker start {name}`",
    DumpProblem.PAUSED: "`docker unpause {name}`",
    DumpProblem.AWAY: "`docker compose up -d`",
    DumpProblem.UNKNOWN: "Repair Docker",
}


@dataclass(frozen=True, slots=True)
class Undumped:
    """A server that does not run, or that Docker does not list."""

    container: str
    dump: str
    """The program that would dump it; '' for one that is only stopped for its copy."""
    state: DumpProblem
    files: str = ""
    """The server whose files are copied instead, if not its own."""
    copied: bool = True
    """The backup has its files; otherwise they are reported as not covered."""

    @property
    def why(self) -> str:
        """Why it is not dumped, and what there is instead."""
        why = _WHY[self.state].format(name=self.container)
        if not self.copied:
            return f"{why}, and its files are in no part"
        whose = f"the files of {self.files or self.container}"
        if self.state in (DumpProblem.STOPPED, DumpProblem.PAUSED):
            whose = "its files"
        return f"{why}, so {whose} are {COPIED}{_TORN.get(self.state, '')}"

    @property
    def warning(self) -> str:
        """The warning for the owner, with what to do."""
        what = f"{self.container} is not stopped for its copy"
        if self.dump:
            what = f"{TITLES[self.dump]} is not dumped"
        return f"{what}: {self.why}. {self.cure}, then back up again."

    @property
    def cure(self) -> str:
        """What to do."""
        return _CURE[self.state].format(name=self.container)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """The manifest's entry for a missing dump."""
        what = INFLUX if self.dump == "influxdb" else f"a dump of {self.container}"
        return (LeftOut(what, self.why),) if self.dump else ()
