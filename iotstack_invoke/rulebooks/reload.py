"""How InfluxDB is reloaded: all its data out into a dump, and back in. Read it from top to bottom.

Only InfluxDB is stopped, and while it is away no client reaches the one that works on its data:
what a client was told to be stored is in the dump. Whatever fails, and however it dies, every
step is undone in reverse and the old data are where they were.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..rules import Job, RuleBook, rule
from ..services.influx import DumpInflux
from ..services.influx_count import CompareCounts, CountInflux, Tally
from ..services.influx_dump import CheckDump, CompareWithDump, CompareWithServer, Dump
from ..services.influx_load import AddQueries, AddUsers, LoadInflux
from ..services.influx_server import ALONE, EndAlone, RunAlone, Server, WaitForInflux
from ..services.stack import (
    MakeAside,
    MakeFolder,
    StartContainers,
    StopContainers,
    SwapItem,
    UseStage,
    WaitForContainers,
)
from ..steps import Commit, Step
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
    values: bool = True
    """Count all values before and after."""
    before: Tally = field(default_factory=Tally)
    after: Tally = field(default_factory=Tally)


@rule("pi:reloaded/{runtag}", transaction=True)
def reloaded(job: Job) -> Iterator[Step]:
    """Put new data in the place of the old: the same ones, written anew."""
    facts: ReloadFacts = job.facts
    server, alone = facts.server, Server(ALONE, facts.server.data)
    docker, as_root, guard = facts.docker, facts.as_root, facts.guard
    dump = Dump("pi", posixpath.join(facts.stage, DUMP), as_root)
    fresh = posixpath.join(posixpath.dirname(server.data), ".fresh")
    names = (server.container,)
    run_alone = RunAlone(
        "pi", server.container, ALONE, server.data, posixpath.dirname(facts.stage), docker, guard
    )

    yield UseStage("pi", (facts.stage, facts.used, f"{facts.previous}.users"), as_root, guard)
    yield MakeAside("pi", facts.previous, as_root, guard)
    yield MakeFolder("pi", facts.stage, as_root, guard, like=server.data)
    yield StopContainers("pi", names, docker, guard)

    yield run_alone
    yield WaitForInflux("pi", alone, docker, as_root, must_be_empty=False)
    yield CountInflux("pi", alone, docker, as_root, facts.before, facts.values)
    yield DumpInflux(
        *("pi", ALONE, dump.folder, posixpath.join(facts.stage_inside, DUMP), as_root),
        *(facts.limit_s, docker, guard),
    )
    yield EndAlone("pi", ALONE, docker, guard)
    yield CheckDump(dump, "of InfluxDB")
    yield CompareWithServer(dump, server)

    yield MakeFolder("pi", fresh, as_root, guard, like=server.data)
    aside, used = (posixpath.join(each, INFLUX_DATA) for each in (facts.aside, facts.used))
    yield SwapItem("pi", server.data, fresh, aside, used, as_root, guard)
    yield run_alone
    yield WaitForInflux("pi", alone, docker, as_root)
    inside = posixpath.join(facts.stage_inside, DUMP)
    yield LoadInflux("pi", alone, dump, inside, docker, as_root, guard, facts.limit_s)
    yield AddQueries("pi", alone, dump, docker)
    yield CountInflux("pi", alone, docker, as_root, facts.after, facts.values, like=facts.before)
    yield CompareCounts(facts.before, facts.after)
    yield EndAlone("pi", ALONE, docker, guard)
    yield AddUsers("pi", server, dump, f"{facts.previous}.users", as_root, guard)
    yield CompareWithDump(dump, server)

    yield StartContainers("pi", names, docker, guard)
    yield WaitForContainers("pi", names, docker)
    yield WaitForInflux("pi", server, docker, as_root, must_be_empty=False)
    yield Commit(keep=f"{facts.previous}/journal")


def reload_book() -> RuleBook:
    """Return the rules of a reload."""
    return RuleBook(reloaded)
