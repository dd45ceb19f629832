"""How InfluxDB is reloaded: all its data out into a dump, and back in. Read it from top to bottom.

Only InfluxDB is stopped, and while it is away no client reaches the one that works on its data:
what a client was told to be stored is in the dump. Whatever fails, and however it dies, every
step is undone in reverse and the old data are where they were.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import field

from ..backups.names import WILDCARDS
from ..core.dataclass import dataclass
from ..databases.influxdb.count import CompareCounts, CountInflux, Tally
from ..databases.influxdb.dump import CheckDump, CompareWithDump, CompareWithServer, Dump
from ..databases.influxdb.load import AddQueries, AddUsers, LoadInflux
from ..databases.influxdb.part import DumpInflux
from ..databases.influxdb.server import ALONE, FRESH, RunIsolated, Server, WaitForInflux
from ..engine.rules import Job, RuleBook, rule
from ..engine.steps import Commit, Step
from ..stack.isolated import RemoveIsolated
from ..stack.kept_until import KeepUntil
from ..stack.mounted import CheckMounts
from ..stack.parallel import InParallel
from ..stack.stack import (
    CheckStopped,
    MakeAside,
    MakeFolder,
    PutAway,
    StartContainers,
    StopContainers,
    SwapItem,
    UseStage,
)
from ..stack.up import WaitForContainers
from .restore import INFLUX_DATA

DUMP = "dump"


@dataclass(frozen=True, slots=True)
class ReloadFacts:
    """What was found out before the plan was made. Paths are those of the target."""

    server: Server
    as_root: tuple[str, ...]
    docker: tuple[str, ...]
    guard: str
    stage: str
    """Where the dump is written."""
    stage_inside: str
    """The same, as the InfluxDB sees it that runs alone."""
    previous: str
    """Where the journal stays, for the way back."""
    aside: str
    """The folder that the old data are moved to, on their own file system."""
    used: str
    """The folder that an undo moves to what was live since."""
    limit_s: float
    mounts: tuple[str, ...] = ()
    """The mount points around the data and the stack."""
    keep_days: int = 0
    """How long the old data stay by themselves, if somebody asked for it."""
    values: bool = True
    """Count all values before and after."""
    before: Tally = field(default_factory=Tally)
    after: Tally = field(default_factory=Tally)


@rule("pi:reloaded/{runtag}", transaction=True, title="reload InfluxDB")
def reloaded(job: Job) -> Iterator[Step]:
    """Put new data in the place of the old: the same ones, written anew."""
    facts: ReloadFacts = job.facts
    docker, as_root, guard = facts.docker, facts.as_root, facts.guard
    server, names = facts.server, (facts.server.container,)
    data, aside, used = (
        server.data,
        *(posixpath.join(each, INFLUX_DATA) for each in (facts.aside, facts.used)),
    )
    fresh = posixpath.join(posixpath.dirname(data), ".fresh")
    old, new = Server(ALONE, aside), Server(FRESH, fresh)
    dump = Dump("pi", posixpath.join(facts.stage, DUMP), as_root)
    inside = posixpath.join(facts.stage_inside, DUMP)
    users = f"{facts.previous}.users"
    dumps = posixpath.dirname(facts.stage)

    yield UseStage("pi", (facts.stage, users), as_root, guard)
    yield MakeAside("pi", facts.previous, as_root, guard)
    yield MakeFolder("pi", facts.stage, as_root, guard, like=data)
    yield MakeFolder("pi", fresh, as_root, guard, like=data)
    yield RunIsolated("pi", server.container, FRESH, new.data, dumps, docker, guard)
    yield WaitForInflux("pi", new, docker, as_root)

    yield CheckMounts("pi", (data, facts.previous), facts.mounts, "this reload")
    yield StopContainers("pi", names, docker, guard)
    yield PutAway("pi", data, aside, used, as_root, guard)
    yield CheckStopped("pi", names, docker)  # now nobody can start it any more

    yield RunIsolated("pi", server.container, ALONE, old.data, dumps, docker, guard)
    yield WaitForInflux("pi", old, docker, as_root, must_be_empty=False)
    yield CountInflux("pi", old, docker, as_root, facts.before, facts.values)
    limits = (facts.limit_s, docker, guard)
    yield DumpInflux("pi", ALONE, dump.folder, inside, as_root, *limits)
    yield RemoveIsolated("pi", ALONE, docker, guard)
    yield CheckDump(dump, "of InfluxDB", blocks=False)
    yield CompareWithServer(dump, old)

    load = LoadInflux("pi", new, dump, inside, docker, as_root, guard, facts.limit_s)
    yield InParallel((CheckDump(dump, "of InfluxDB"), load))
    yield AddQueries("pi", new, dump, docker, all_of_them=True)
    yield CountInflux("pi", new, docker, as_root, facts.after, facts.values, like=facts.before)
    yield CompareCounts(facts.before, facts.after)
    yield RemoveIsolated("pi", FRESH, docker, guard)
    yield AddUsers("pi", new, dump, users, as_root, guard)
    yield CompareWithDump(dump, new)

    barrier = posixpath.join(facts.aside, "put-away")
    yield SwapItem("pi", data, fresh, barrier, used, as_root, guard)
    yield StartContainers("pi", names, docker, guard)
    yield WaitForContainers("pi", names, docker, vital=names)
    yield WaitForInflux("pi", server, docker, as_root, must_be_empty=False)
    if facts.keep_days:
        folders = tuple(dict.fromkeys((facts.previous, facts.aside)))
        yield KeepUntil("pi", folders, facts.keep_days)
    yield Commit(keep=f"{facts.previous}/journal")


def reload_book() -> RuleBook:
    """Return the rules of a reload."""
    return RuleBook(reloaded, wildcards=WILDCARDS)
