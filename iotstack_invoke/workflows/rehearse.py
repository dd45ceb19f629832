"""How a restore is rehearsed: fetched and staged by a restore's own rules, in a scratch folder.

Then the unpacked files are compared with the archive, and the dump is loaded into an isolated
InfluxDB. The running stack is not changed, and all scratch data are removed.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from typing import Any

from ..archives.pack import CompareUnpacked
from ..backups.bundles import RECIPES
from ..backups.names import WILDCARDS
from ..core.dataclass import dataclass
from ..databases.influxdb.count import CountInflux, Tally
from ..databases.influxdb.load import AddQueries, AddUsers, LoadInflux
from ..databases.influxdb.read_dump import CompareWithDump, CompareWithManifest, Dump
from ..databases.influxdb.server import RunIsolated, Server, WaitForInflux
from ..databases.sql.load import LoadSql, RunSqlIsolated, SqlDump, WaitForSql
from ..databases.sql.read_dump import SqlReport
from ..databases.sql.servers import ENGINES, MARIADB
from ..engine.rules import Job, Rule, RuleBook, rule
from ..engine.steps import Step
from ..stack.folders import MakeFolder
from ..stack.isolated import RemoveIsolated
from .restore import (
    SQL_LIMIT_S,
    RestoreFacts,
    archive_file,
    fetched,
    stage_of,
    staged_dump,
    staged_outside,
    staged_recipe,
    staged_sql,
    staged_stack,
)

SCRATCH_INFLUX = "iotstack-rehearsal-influxdb"
SCRATCH_SQL = "iotstack-rehearsal-sql"
"""The containers that load dumps, and are removed."""


@dataclass(frozen=True, slots=True)
class RehearsalFacts(RestoreFacts):
    """Facts that were gathered before planning, for a restore that replaces nothing."""

    image: str = ""
    """The InfluxDB to load the dump into; '' if the stack has none, and none is loaded."""
    images: Mapping[str, str] = field(default_factory=dict)
    """The same for each load of SQL, by its container."""
    in_manifest: Mapping[str, Any] = field(default_factory=dict)
    """The facts about the dump in the manifest."""
    count: Tally = field(default_factory=Tally)
    proven: dict[str, SqlReport] = field(default_factory=dict)
    """Receives the verified contents of each dump of SQL, by its container."""


@rule(
    "pi:compared/{runtag}", input=stage_of("general"), transaction=True, title="compare the stack"
)
def compared(job: Job) -> Iterator[Step]:
    """Compare each file with its member: content, owner, mode, time."""
    facts: RehearsalFacts = job.facts
    part = archive_file(job, "general")
    yield CompareUnpacked(facts.access, part.absolute, job.input.absolute)


@rule(
    "pi:compared/{runtag}/outside",
    input=stage_of("outside"),
    transaction=True,
    title="compare what lies outside",
)
def compared_outside(job: Job) -> Iterator[Step]:
    """Compare each file from outside of the stack's folder with its member."""
    facts: RehearsalFacts = job.facts
    part = archive_file(job, "outside")
    yield CompareUnpacked(facts.access, part.absolute, job.input.absolute)


@rule("pi:loaded/{runtag}", input=stage_of("influx"), transaction=True, title="load InfluxDB")
def loaded(job: Job) -> Iterator[Step]:
    """Load the dump as a restore does, and verify that all of it is there."""
    facts: RehearsalFacts = job.facts
    access = facts.access
    folder = posixpath.dirname(job.input.absolute)
    dump = Dump(access, job.input.absolute)
    server = Server(SCRATCH_INFLUX, posixpath.join(folder, "influxdb"))
    run = RunIsolated(access, "", server.container, server.data, folder, facts.image)

    yield CompareWithManifest(dump, facts.in_manifest)
    if not facts.image:
        return
    yield MakeFolder(access, server.data)
    yield run
    yield WaitForInflux(access, server)
    inside = facts.dump_inside
    yield LoadInflux(access, server, dump, inside, facts.limit_s)
    yield AddQueries(access, server, dump)
    yield CountInflux(access, server, facts.count)
    yield RemoveIsolated(access, server.container)
    yield AddUsers(access, server, dump, f"{folder}/.users")
    yield run  # it must also start with the given data
    yield WaitForInflux(access, server, must_be_empty=False)
    yield RemoveIsolated(access, server.container)
    yield CompareWithDump(dump, server)


def compared_recipe(kind: str) -> Rule:
    """Return the rule that compares the files of a recipe's part."""

    @rule(
        f"pi:compared/{{runtag}}/{kind}",
        input=stage_of(kind),
        transaction=True,
        title=f"compare {kind}",
    )
    def compared_part(job: Job) -> Iterator[Step]:
        """Compare each file of a service with its member: content, owner, mode, time."""
        facts: RehearsalFacts = job.facts
        part = archive_file(job, kind)
        yield CompareUnpacked(facts.access, part.absolute, job.input.absolute)

    return compared_part


def loaded_sql(kind: str) -> Rule:
    """Return the rule that loads the dumps of one part."""
    engine = MARIADB.name if kind in RECIPES else kind

    @rule(
        f"pi:loaded/{{runtag}}/{kind}",
        input=stage_of(kind),
        transaction=True,
        title=f"load the dumps of {ENGINES[kind].title if kind in ENGINES else kind}",
    )
    def loaded_dumps(job: Job) -> Iterator[Step]:
        """Load each dump as a restore does, and count the rows of every table."""
        facts: RehearsalFacts = job.facts
        access = facts.access
        folder = posixpath.dirname(job.input.absolute)
        for load in facts.loads:
            if (load.part or load.server.engine) != kind:
                continue
            server, stage = load.server, posixpath.dirname(load.staged)
            alone = replace(server, container=SCRATCH_SQL)
            yield MakeFolder(access, server.data)
            yield RunSqlIsolated(
                *(access, "", SCRATCH_SQL, server.data, server.inside, stage),
                f"{folder}/.environment",
                settings=ENGINES[engine].first_start,
                image=facts.images[server.container],
            )
            yield WaitForSql(access, alone, is_new=True)
            dump = SqlDump(access, load.staged, server)
            proven = facts.proven
            yield LoadSql(access, alone, dump, stage, SQL_LIMIT_S, proven)
            yield RemoveIsolated(access, SCRATCH_SQL)

    return loaded_dumps


def rehearsal_book() -> RuleBook:
    """Return the rules of a rehearsal."""
    stages = (fetched, staged_stack, staged_outside, staged_dump, *map(staged_sql, ENGINES))
    recipes = (staged_recipe(kind, apart=False) for kind in RECIPES)
    loads = map(loaded_sql, (*ENGINES, *RECIPES))
    return RuleBook(
        *stages,
        *recipes,
        compared,
        compared_outside,
        *map(compared_recipe, RECIPES),
        loaded,
        *loads,
        wildcards=WILDCARDS,
    )


def rehearsal_targets(runtag: str, facts: RehearsalFacts) -> list[str]:
    """Return the targets of the rehearsal of a restore."""
    ends = {
        "general": f"pi:compared/{runtag}",
        "outside": f"pi:compared/{runtag}/outside",
        "influx": f"pi:loaded/{runtag}",
    }
    recipes = [f"pi:compared/{runtag}/{kind}" for kind in facts.kinds if kind in RECIPES]
    return [*(ends.get(kind, f"pi:loaded/{runtag}/{kind}") for kind in facts.kinds), *recipes]
