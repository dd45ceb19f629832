"""What has to run, in which order, and why. Pure: it neither reads nor changes a disk.

First the graph: the jobs and files that the targets depend on (`resolve`). Then, from the files
that exist, the plan: which of the jobs run, each with all its reasons (`decide`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

from ..core.dataclass import dataclass
from ..core.errors import RuleError
from ..hosts.base import FileFact
from .rules import Job, RuleBook
from .steps import File, Record


class Why(Enum):
    """Why a job runs, in words."""

    MISSING = "missing"
    UNFINISHED = "unfinished"
    NEWER = "input newer"
    UPSTREAM = "upstream runs"
    PARAMETERS = "parameters changed"
    UNLIKE = "not the same as here"
    FORCED = "forced"
    ASKED = "requested"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason, with the file that it is about."""

    why: Why
    file: str = ""

    def __str__(self) -> str:
        return f"{self.why.value}: {self.file}" if self.file else self.why.value


@dataclass(frozen=True)
class Graph:
    """All jobs that the targets depend on, dependencies first."""

    jobs: tuple[Job, ...]
    makers: Mapping[File, Job]
    targets: tuple[File, ...]
    book: RuleBook

    @property
    def files(self) -> frozenset[File]:
        """The files whose facts are needed to make the plan."""
        named = (f for job in self.jobs for f in (*job.outputs, *job.inputs, *job.ancient))
        return frozenset((*named, *self.targets))


@dataclass(frozen=True)
class PlannedJob:
    """A job with the reasons why it runs (none: it need not), and the jobs that it waits for."""

    job: Job
    reasons: tuple[Reason, ...]
    needs: tuple[Job, ...]

    @property
    def runs(self) -> bool:
        """Whether it has to run."""
        return bool(self.reasons)


@dataclass(frozen=True)
class Plan:
    """The jobs of a graph in order, with the reasons of those that run."""

    planned: tuple[PlannedJob, ...]

    @property
    def to_run(self) -> tuple[PlannedJob, ...]:
        """The jobs that run, in an order in which they could run one after the other."""
        return tuple(each for each in self.planned if each.runs)


def parameters_of(job: Job) -> str:
    """Return a short digest of all that a job will do; it changes when a setting changes that."""
    said = "\n".join(line for step in job.steps for line in step.commands())
    return hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def resolve(
    book: RuleBook, targets: Iterable[str], roots: Mapping[str, str], facts: Any = None
) -> Graph:
    """Return the graph of all that the targets (`role:path`) are made from.

    Raises RuleError for two rules that make one file, a cycle, an unbound role.
    """
    makers: dict[File, Job] = {}
    jobs: dict[tuple[int, tuple[tuple[str, str], ...]], Job] = {}
    bound = cache(lambda name: bind(name, roots))  # one object each: dict lookups stop at identity
    waiting = [bound(target) for target in targets]
    wanted = tuple(waiting)
    seen: set[File] = set()
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        found = book.find(str(file))
        if found is None:
            continue
        rule, values = found
        key = (id(rule), tuple(sorted(values.items())))  # rules made in a loop have one name
        if key not in jobs:
            jobs[key] = Job(
                rule=rule,
                wildcards=values,
                outputs=tuple(bound(o.format_map(values)) for o in rule.outputs),
                inputs=tuple(map(bound, rule.inputs_for(values, facts))),
                ancient=tuple(bound(a.format_map(values)) for a in rule.ancient),
                facts=facts,
                title=book.title(rule, values),
            )
        job = jobs[key]
        for output in job.outputs:
            other = makers.setdefault(output, job)
            if other is not job:
                raise RuleError(
                    f"Two rules make {output}: '{other.name}' and '{job.name}', and both are "
                    "needed. Leave it out of one of them."
                )
        waiting += [*job.inputs, *job.ancient]
    return Graph(_in_order(jobs.values(), makers), makers, wanted, book)


def bind(name: str, roots: Mapping[str, str]) -> File:
    """Return the file that `role:path` names; raises RuleError for an unbound role."""
    role, colon, path = name.partition(":")
    if not colon or role not in roots:
        known = ", ".join(f"{each}:" for each in sorted(roots))
        raise RuleError(f"{name}: unknown role; use one of {known} before the path.")
    return File(role, path, roots[role])


def _in_order(jobs: Collection[Job], makers: Mapping[File, Job]) -> tuple[Job, ...]:
    by_id = {id(job): job for job in jobs}
    sorter = TopologicalSorter(
        {key: [id(needed) for needed in _needs(job, makers)] for key, job in by_id.items()}
    )
    try:
        return tuple(by_id[key] for key in sorter.static_order())
    except CycleError as error:
        circle = " needs ".join(f"'{by_id[key].rule.name}'" for key in reversed(error.args[1]))
        raise RuleError(
            f"The rules form a circle: {circle}. Remove one of these inputs from its rule."
        ) from None


def _needs(job: Job, makers: Mapping[File, Job]) -> list[Job]:
    """Return the jobs that make the inputs of a job, each once."""
    found = (makers.get(file) for file in (*job.inputs, *job.ancient))
    return list({id(needed): needed for needed in found if needed}.values())


def decide(
    graph: Graph,
    files: Mapping[File, FileFact],
    records: Mapping[str, Record] | None = None,
    *,
    force: Collection[str] = (),
    unlike: Collection[File] = (),
) -> Plan:
    """Return the plan for the files that exist.

    `records` lists the finished outputs, with the parameters they were made with. An output
    without one counts as finished, since no unfinished file has a final name; not so one whose
    size differs from its record, nor one of `unlike`, which were compared and differ. `force`
    lists rule names, or "all".

    Raises RuleError for a missing input that no rule makes.
    """
    return _Decision(graph, files, records or {}, frozenset(force), frozenset(unlike)).plan()


class _Decision:
    """The least fixpoint of "has to run" over a graph."""

    def __init__(
        self,
        graph: Graph,
        files: Mapping[File, FileFact],
        records: Mapping[str, Record],
        force: frozenset[str],
        unlike: frozenset[File],
    ) -> None:
        self.graph = graph
        self.targets = frozenset(graph.targets)
        self.files = files
        self.records = records
        self.force = force
        self.unlike = unlike
        self.reasons: dict[int, dict[Reason, None]] = {id(job): {} for job in graph.jobs}
        self.needs = {id(job): _needs(job, graph.makers) for job in graph.jobs}
        self.users: dict[int, list[Job]] = {id(job): [] for job in graph.jobs}
        for job in graph.jobs:
            for needed in self.needs[id(job)]:
                self.users[id(needed)].append(job)

    def plan(self) -> Plan:
        self._refuse_missing_leaves()
        ages: dict[File, float] = {}
        waiting: list[Job] = []
        for job in self.graph.jobs:
            self._own_reasons(job, ages)
            if self.reasons[id(job)]:
                waiting.append(job)
        while waiting:
            waiting += self._spread(waiting.pop())
        return Plan(
            tuple(
                PlannedJob(job, tuple(self.reasons[id(job)]), tuple(self.needs[id(job)]))
                for job in self.graph.jobs
            )
        )

    def _refuse_missing_leaves(self) -> None:
        makers, files = self.graph.makers, self.files
        missing: list[tuple[str, File]] = [
            ("it was requested", target)
            for target in self.graph.targets
            if target not in makers and target not in files
        ]
        for job in self.graph.jobs:
            missing += [
                (f"'{job.name}' needs it", file)
                for file in (*job.inputs, *job.ancient)
                if file not in makers and file not in files
            ]
        if missing:
            lines = "\n".join(f"  {file} ({file.absolute}): {why}." for why, file in missing)
            hint = self.graph.book.nearest(str(missing[0][1]))
            raise RuleError(f"Missing, and no rule makes it:\n{lines}\n{hint}")

    def _own_reasons(self, job: Job, ages: dict[File, float]) -> None:
        """Collect the reasons in a job's own files, and the effective age of its outputs."""
        found = self.reasons[id(job)]
        newest_input = max((ages.get(f, self._age(f)) for f in job.inputs), default=0.0)
        for output in job.outputs:
            fact = self.files.get(output)
            # A missing intermediate is as old as its inputs: pruning it causes no work.
            ages[output] = fact.modified_s if fact else newest_input
            if job.rule.transaction:
                continue
            found.update(dict.fromkeys(self._output_reasons(job, output, fact)))
            if fact:
                found.update(
                    (Reason(Why.NEWER, str(f)), None)
                    for f in job.inputs
                    if int(ages.get(f, self._age(f))) > int(fact.modified_s)
                )
        if job.rule.transaction or not job.outputs:
            found[Reason(Why.ASKED)] = None
        if self.force & {"all", job.rule.name}:
            found[Reason(Why.FORCED)] = None

    def _output_reasons(self, job: Job, output: File, fact: FileFact | None) -> list[Reason]:
        if fact is None:
            return [Reason(Why.MISSING, str(output))] if output in self.targets else []
        if output in self.unlike:
            return [Reason(Why.UNLIKE, str(output))]
        record = self.records.get(str(output))
        if record is None:
            return []
        if record.incomplete:
            return [Reason(Why.UNFINISHED, str(output))]
        if record.size_bytes and record.size_bytes != fact.size_bytes:
            return [Reason(Why.UNFINISHED, str(output))]
        if record.parameters and record.parameters != parameters_of(job):
            return [Reason(Why.PARAMETERS, str(output))]
        return []

    def _spread(self, job: Job) -> list[Job]:
        """Mark the jobs that a running job needs, and those that use it; return the new ones."""
        woken: list[Job] = []
        for needed in self.needs[id(job)]:
            named = (*job.inputs, *job.ancient)
            missing = [o for o in needed.outputs if o not in self.files and o in named]
            woken += self._wake(needed, [Reason(Why.MISSING, str(o)) for o in missing])
        for user in self.users[id(job)]:
            made = [str(o) for o in job.outputs if o in user.inputs]
            woken += self._wake(user, [Reason(Why.UPSTREAM, o) for o in made])
        return woken

    def _wake(self, job: Job, reasons: list[Reason]) -> list[Job]:
        already = bool(self.reasons[id(job)])
        self.reasons[id(job)].update(dict.fromkeys(reasons))
        return [job] if reasons and not already else []

    def _age(self, file: File) -> float:
        fact = self.files.get(file)
        return fact.modified_s if fact else 0.0
