"""How InfluxDB is reloaded: all its data out into a dump, and back in. Read it from top to bottom.

Only InfluxDB is stopped, and meanwhile no client reaches the isolated one that works on its data:
every write that a client got confirmed is in the dump. On any failure or crash, every step is
undone in reverse order and the old data are back at their path.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import field

from ..backups.names import WILDCARDS
from ..core.dataclass import dataclass
from ..databases.influxdb.count import CompareCounts, CountInflux, Tally
from ..databases.influxdb.dump import DumpInflux
from ..databases.influxdb.load import AddQueries, AddUsers, LoadInflux
from ..databases.influxdb.read_dump import CheckDump, CompareWithDump, CompareWithServer, Dump
from ..databases.influxdb.server import ALONE, FRESH, RunIsolated, Server, WaitForInflux
from ..engine.rules import Job, RuleBook, rule
from ..engine.steps import Commit, HostAccess, Step
from ..stack.folders import MakeAside, MakeFolder, UseStage
from ..stack.isolated import RemoveIsolated
from ..stack.kept_until import KeepUntil
from ..stack.mounted import CheckMounts
from ..stack.parallel import InParallel
from ..stack.stop_start import CheckStopped, StartContainers, StopContainers
from ..stack.swap import PutAway, SwapItem
from ..stack.up import WaitForContainers
from .restore import INFLUX_DATA

DUMP = "dump"


@dataclass(frozen=True, slots=True)
class ReloadFacts:
    """Facts that were gathered before planning. Paths are those of the target."""

    server: Server
    access: HostAccess
    stage: str
    """The folder for the dump."""
    stage_inside: str
    """The same folder inside the isolated InfluxDB."""
    previous: str
    """Where the journal stays, for a later undo."""
    aside: str
    """The folder that the old data are moved to, on their own file system."""
    used: str
    """The folder to which an undo moves the data that were live since."""
    limit_s: float
    mounts: tuple[str, ...] = ()
    """The mount points around the data and the stack."""
    keep_days: int = 0
    """How long the old data are kept automatically, if the user asked for it."""
    values: bool = True
    """Count all values before and after."""
    before: Tally = field(default_factory=Tally)
    after: Tally = field(default_factory=Tally)


@rule("pi:reloaded/{runtag}", transaction=True, title="reload InfluxDB")
def reloaded(job: Job) -> Iterator[Step]:
    """Replace the data by the same data, written again."""
    facts: ReloadFacts = job.facts
    access = facts.access
    server, names = facts.server, (facts.server.container,)
    data, aside, used = (
        server.data,
        *(posixpath.join(each, INFLUX_DATA) for each in (facts.aside, facts.used)),
    )
    fresh = posixpath.join(posixpath.dirname(data), ".fresh")
    old, new = Server(ALONE, aside), Server(FRESH, fresh)
    dump = Dump(access, posixpath.join(facts.stage, DUMP))
    inside = posixpath.join(facts.stage_inside, DUMP)
    users = f"{facts.previous}.users"
    dumps = posixpath.dirname(facts.stage)

    yield UseStage(access, (facts.stage, users))
    yield MakeAside(access, facts.previous)
    yield MakeFolder(access, facts.stage, like=data)
    yield MakeFolder(access, fresh, like=data)
    yield RunIsolated(access, server.container, FRESH, new.data, dumps)
    yield WaitForInflux(access, new)

    yield CheckMounts(access, (data, facts.previous), facts.mounts, "this reload")
    yield StopContainers(access, names)
    yield PutAway(access, data, aside, used)
    yield CheckStopped(access, names)  # now no process can start it any more

    yield RunIsolated(access, server.container, ALONE, old.data, dumps)
    yield WaitForInflux(access, old, must_be_empty=False)
    yield CountInflux(access, old, facts.before, facts.values)
    yield DumpInflux(access, ALONE, dump.folder, inside, facts.limit_s)
    yield RemoveIsolated(access, ALONE)
    yield CheckDump(dump, "of InfluxDB", blocks=False)
    yield CompareWithServer(dump, old)

    load = LoadInflux(access, new, dump, inside, facts.limit_s)
    yield InParallel((CheckDump(dump, "of InfluxDB"), load))
    yield AddQueries(access, new, dump, all_of_them=True)
    yield CountInflux(access, new, facts.after, facts.values, like=facts.before)
    yield CompareCounts(facts.before, facts.after)
    yield RemoveIsolated(access, FRESH)
    yield AddUsers(access, new, dump, users)
    yield CompareWithDump(dump, new)

    barrier = posixpath.join(facts.aside, "put-away")
    yield SwapItem(access, data, fresh, barrier, used)
    yield StartContainers(access, names)
    yield WaitForContainers(access, names, vital=names)
    yield WaitForInflux(access, server, must_be_empty=False)
    if facts.keep_days:
        folders = tuple(dict.fromkeys((facts.previous, facts.aside)))
        yield KeepUntil(access, folders, facts.keep_days)
    yield Commit(keep=f"{facts.previous}/journal")


def reload_book() -> RuleBook:
    """Return the rules of a reload."""
    return RuleBook(reloaded, wildcards=WILDCARDS)
