"""Runs a plan: jobs in parallel, outputs complete or absent, steps of failed jobs undone.

A job's steps write under partial names. After the last step each output is recorded, then
renamed. If a step fails, what the job journaled is undone and its partial files are removed.
Not for: deciding what runs (plan.py), or what users see (report.py).
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import field
from enum import Enum
from graphlib import TopologicalSorter
from typing import Any, Protocol

from ..core import processes
from ..core.dataclass import dataclass
from ..core.errors import Interrupted, IotstackError, StepFailed, TimedOut, ended
from ..core.processes import signals_noted
from ..hosts.base import Disk, Host, Storage
from .journal import Journal
from .plan import Plan, PlannedJob, parameters_of
from .rules import Job
from .steps import ClaimingStep, Commit, File, LeavingStep, Record, Space, Step, UndoableStep

RETRY_WAIT_S = 2.0
SLOW_S = 60.0
"""How long a job that writes elsewhere occupies a slot; after that others run beside it."""
SLOW_TOLD = "it takes long, so nothing else waits for it"
ONCE_S = 600.0
"""How long an action that was done once for a run remains valid."""


class JobStatus(Enum):
    """How a job ended."""

    DONE = "done"
    FAILED = "failed"
    SKIPPED = "not started"


@dataclass(frozen=True, slots=True)
class JobResult:
    """How one job ended, its duration and its warnings."""

    job: Job
    end: JobStatus
    seconds: float = 0.0
    message: str = ""
    warnings: tuple[str, ...] = ()
    damage: str = ""
    """What is wrong with an archive, if that made the job fail."""

    @property
    def is_done(self) -> bool:
        """Whether its outputs exist, complete."""
        return self.end is JobStatus.DONE

    @property
    def was_started(self) -> bool:
        """Whether it was started."""
        return self.end is not JobStatus.SKIPPED


@dataclass(frozen=True, slots=True)
class RunResult:
    """How all jobs of a plan ended."""

    jobs: tuple[JobResult, ...]

    @property
    def failed(self) -> tuple[JobResult, ...]:
        """The jobs that were started and failed."""
        return tuple(each for each in self.jobs if each.end is JobStatus.FAILED)

    @property
    def damages(self) -> tuple[str, ...]:
        """The damage that was found, a sentence each."""
        return tuple(each.damage for each in self.failed if each.damage)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of all jobs."""
        return tuple(text for each in self.jobs for text in each.warnings)

    def __add__(self, other: RunResult) -> RunResult:
        """Return the results of both runs as one."""
        return RunResult(self.jobs + other.jobs)


class Reporter(Protocol):
    """Receives the events of a run; called from several threads."""

    def started(self, planned: PlannedJob) -> None:
        """A job starts."""
        ...

    def heard(self, job: Job, stream: str, line: str) -> None:
        """A program printed a line."""
        ...

    def said(self, job: Job, text: str) -> None:
        """A job reports its current activity."""
        ...

    def stepped(self, job: Job, number: int, step: Step) -> None:
        """A job begins its n-th step."""
        ...

    def moved(self, job: Job, done_bytes: int, expected_bytes: int) -> None:
        """A job moved bytes."""
        ...

    def warned(self, job: Job, text: str) -> None:
        """A job warns."""
        ...

    def ended(self, result: JobResult) -> None:
        """A job ended."""
        ...


class RecordStore(Protocol):
    """Where records of finished outputs are kept; an added record survives a power cut."""

    def known(self) -> Mapping[str, Record]:
        """Return the records by output."""
        ...

    def add(self, record: Record) -> None:
        """Add a record."""
        ...


class Disks:
    """What the jobs of a run have yet to write on each disk: no two of them take the same space.

    The free space is remembered while any is reserved: while jobs write, it is unknown how much
    of their reservations they have used.
    """

    def __init__(self) -> None:
        self._free: dict[str, int] = {}
        self._kept: dict[str, dict[int, int]] = {}
        self._lock = threading.Lock()

    def keep(self, who: object, look: Callable[[], Disk | None], size_bytes: int) -> Space | None:
        """Reserve space for an owner, if that much is left; return what there was before.

        None if `look` does not know the disk: then nothing is reserved.
        """
        with self._lock:
            disk = look()
            if disk is None:
                return None
            kept = self._kept.setdefault(disk.name, {})
            if not kept:
                self._free[disk.name] = disk.free_bytes
            left = min(disk.free_bytes, self._free[disk.name] - sum(kept.values()))
            if size_bytes <= left:
                kept[id(who)] = kept.get(id(who), 0) + size_bytes
            return Space(disk.free_bytes, max(0, left))

    def release(self, who: object, *, written: bool) -> None:
        """Release the space of an owner, which has written it or will not."""
        with self._lock:
            for name, kept in self._kept.items():
                size_bytes = kept.pop(id(who), 0)
                if written:
                    self._free[name] -= size_bytes


@dataclass(slots=True)
class _StepContext:
    """What the steps may use during one attempt at a job."""

    run: Run
    job: Job
    expected_bytes: int = 0
    moved_bytes: int = 0
    warnings: list[str] = field(default_factory=list)
    recorded: dict[str, dict[str, Any]] = field(default_factory=dict)
    owns_partials: bool = False
    """A step that may write partial files has begun."""
    step: Step | None = None
    """The step begun last."""

    def storage(self, file: File) -> Storage:
        return self.run.storages[file.role]

    def host(self, role: str) -> Host:
        return self.run.storages[role]  # type: ignore[return-value]  # the rulebook binds a host

    def log_output(self, stream: str, line: str) -> None:
        self.run.reporter.heard(self.job, stream, line)

    def status(self, text: str) -> None:
        self.run.reporter.said(self.job, text)
        if processes.ending():  # a job that waits calls this again and again
            raise Interrupted(signal.SIGTERM)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self.run.reporter.warned(self.job, text)

    def set_total(self, size_bytes: int) -> None:
        self.expected_bytes = size_bytes

    def advance(self, size_bytes: int) -> None:
        self.moved_bytes += size_bytes
        self.run.reporter.moved(self.job, self.moved_bytes, self.expected_bytes)
        if processes.ending():
            raise Interrupted(signal.SIGTERM)

    def reserve(
        self, look: Callable[[], Disk | None], size_bytes: int, *, for_all: bool = False
    ) -> Space | None:
        return self.run.disks.keep(self.run if for_all else self, look, size_bytes)

    def record(self, output: File, **facts: Any) -> None:
        self.recorded.setdefault(str(output), {}).update(facts)

    def records(self) -> Mapping[str, Record]:
        return self.run.store.known()

    def failures(self) -> Mapping[str, str]:
        return self.run.failures

    def once(self, what: str, act: Callable[[], None]) -> None:
        self.run.once.do(what, act)


class _Once:
    """Actions that the jobs of a run do once for all of them, for as long as one remains valid."""

    def __init__(self) -> None:
        self._done_s: dict[str, float] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def do(self, what: str, act: Callable[[], None]) -> None:
        """Do it, unless another job has; others wait meanwhile. A failed action is repeated."""
        with self._lock:
            lock = self._locks.setdefault(what, threading.Lock())
        with lock:
            now_s = time.time()  # wall-clock time, which continues while the machine sleeps
            if abs(now_s - self._done_s.get(what, 0.0)) > ONCE_S:
                act()
                self._done_s[what] = now_s


class _Slow:
    """Jobs that have written elsewhere for so long that they no longer occupy a slot."""

    def __init__(self, reporter: Reporter) -> None:
        self._watcher = reporter
        self._began_s: dict[int, float] = {}
        self._told: set[int] = set()

    def begins(self, planned: PlannedJob) -> None:
        """Record when a job begins."""
        self._began_s[id(planned)] = time.monotonic()

    def among(self, running: Iterable[PlannedJob]) -> list[PlannedJob]:
        """Return the slow ones among the running jobs, and announce each once."""
        late_s = time.monotonic() - SLOW_S
        found = [e for e in running if e.job.rule.elsewhere and self._began_s[id(e)] < late_s]
        for each in found:
            if id(each) not in self._told:
                self._told.add(id(each))
                self._watcher.said(each.job, SLOW_TOLD)
        return found


def _place_of(planned: PlannedJob) -> str:
    """Return the role that a job writes to."""
    return planned.job.outputs[0].role


class Run:
    """One plan, the storage that its roles are bound to, and the outputs of the run."""

    def __init__(
        self,
        plan: Plan,
        storages: Mapping[str, Storage],
        *,
        store: RecordStore,
        journal: Journal,
        reporter: Reporter,
        jobs_at_once: int = 2,
        keep_going: bool = False,
    ) -> None:
        self.plan = plan
        self.storages = storages
        self.store = store
        self.journal = journal
        self.reporter = reporter
        self.jobs_at_once = jobs_at_once
        self.keep_going = keep_going
        self.failures: dict[str, str] = {}
        self.disks = Disks()
        self.once = _Once()
        self._failed = ""
        """The job that failed first."""
        self._undiscarded: list[_StepContext] = []
        self._unended: list[_StepContext] = []
        self._lock = threading.Lock()

    def do(self) -> RunResult:
        """Run the plan and return how each job ended.

        Raises Interrupted after a signal, when every program has ended, every journaled step is
        undone and no partial file is left.
        """
        planned = {id(each.job): each for each in self.plan.to_run}
        sorter = TopologicalSorter(
            {key: [id(n) for n in each.needs if id(n) in planned] for key, each in planned.items()}
        )
        sorter.prepare()
        results: dict[int, JobResult] = {}
        places = {_place_of(each) for each in planned.values()}
        threads = self.jobs_at_once * (1 + len(places))
        pool = ThreadPoolExecutor(threads, thread_name_prefix="job")
        running: dict[Future[JobResult], int] = {}
        slow = _Slow(self.reporter)
        ready: deque[int] = deque()
        with signals_noted() as noted:
            try:
                while sorter.is_active():
                    ready += sorter.get_ready()
                    # No job queues in the pool, where a failure could no longer hold it back.
                    at_work = [planned[key] for key in running.values()]
                    while key := self._next(ready, planned, slow.among(at_work), len(running)):
                        ready.remove(key)
                        blocked = self._blocked(planned[key], results)
                        if blocked:
                            self._settle(results, key, blocked)
                            sorter.done(key)
                        else:
                            slow.begins(planned[key])
                            running[pool.submit(self._attempts, planned[key])] = key
                    for ended in wait(running, processes.SIGNAL_LOOK_S, FIRST_COMPLETED).done:
                        key = running.pop(ended)
                        self._settle(results, key, ended.result())
                        sorter.done(key)
                    if noted:
                        self._stop(pool, running)
                        raise Interrupted(noted[0])
            finally:
                pool.shutdown(wait=True)
            if noted:  # it came after the last job had ended
                raise Interrupted(noted[0])
        return RunResult(tuple(results[key] for key in planned))

    def _next(
        self,
        ready: Iterable[int],
        planned: Mapping[int, PlannedJob],
        slow: Collection[PlannedJob],
        running: int,
    ) -> int | None:
        """Return the job that starts now, None if no slot is free for any.

        A job for a slow target takes no slot from jobs of other targets, and comes after them.
        """
        places = {_place_of(each) for each in slow}
        others = [key for key in ready if _place_of(planned[key]) not in places]
        if others and running - len(slow) < self.jobs_at_once:
            return others[0]
        return next(iter(ready), None) if running < self.jobs_at_once else None

    def _stop(self, pool: ThreadPoolExecutor, running: Mapping[Future[JobResult], int]) -> None:
        """Stop running jobs, then undo what they journaled; further signals are only recorded."""
        processes.end_all()
        for storage in self.storages.values():
            storage.close()
        pool.shutdown(wait=True, cancel_futures=True)
        for each in running:
            if not each.cancelled():
                each.exception()
        processes.resume()
        for context in self._unended:
            if isinstance(context.step, LeavingStep):
                with contextlib.suppress(IotstackError):
                    context.step.end_left(context)
        if any(each.job.rule.transaction for each in self.plan.to_run):
            self.journal.settle()
        self.journal.undo()
        for context in self._undiscarded:
            with contextlib.suppress(IotstackError):
                self._discard(context)

    def _blocked(self, planned: PlannedJob, results: Mapping[int, JobResult]) -> JobResult | None:
        """Return why a job is not started, or None if it may be."""
        bad = [
            results[id(n)].job
            for n in planned.needs
            if id(n) in results and results[id(n)].end is not JobStatus.DONE
        ]
        if planned.job.rule.always:
            return None
        if bad:
            names = ", ".join(f"'{each.title}'" for each in bad)
            return JobResult(planned.job, JobStatus.SKIPPED, message=f"it needs {names}")
        if self._failed and not self.keep_going:
            return JobResult(planned.job, JobStatus.SKIPPED, message=f"'{self._failed}' failed")
        return None

    def _settle(self, results: dict[int, JobResult], key: int, result: JobResult) -> None:
        results[key] = result
        if result.end is JobStatus.FAILED:
            self._failed = self._failed or result.job.title
        if result.end is not JobStatus.DONE:
            self.failures.update({str(output): result.message for output in result.job.outputs})
        self.reporter.ended(result)

    def _attempts(self, planned: PlannedJob) -> JobResult:
        """Do one job, with retries if they may help; return how it ended."""
        job = planned.job
        self.reporter.started(planned)
        started = time.monotonic()
        for attempt in range(job.rule.retries + 1):
            context = _StepContext(self, job)
            try:
                self._steps(context)
                self._finish(context, time.monotonic() - started)
            except IotstackError as error:
                again = isinstance(error, StepFailed) and error.again
                passing = again or isinstance(error, TimedOut)
                message = self._clean(context, str(error), passing=passing)
                self.disks.release(context, written=False)
                if processes.ending():
                    return JobResult(job, JobStatus.SKIPPED, message="interrupted")
                if again and attempt < job.rule.retries and message == str(error):
                    wait_s = RETRY_WAIT_S * 2**attempt
                    context.status(f"{ended(error)} Trying again in {wait_s:g} s.")
                    time.sleep(wait_s)
                    continue
                return JobResult(
                    job,
                    JobStatus.FAILED,
                    time.monotonic() - started,
                    message,
                    tuple(context.warnings),
                    damage=error.damage if isinstance(error, StepFailed) else "",
                )
            except BaseException as error:
                self._clean(context, str(error))
                raise
            self.disks.release(context, written=True)
            return JobResult(
                job, JobStatus.DONE, time.monotonic() - started, warnings=tuple(context.warnings)
            )
        raise AssertionError("the last attempt returns")

    def _steps(self, context: _StepContext) -> None:
        for number, step in enumerate(context.job.steps, 1):
            self.reporter.stepped(context.job, number, step)
            if processes.ending():
                raise Interrupted(signal.SIGTERM)
            if isinstance(step, Commit):
                self.journal.forget(context.job.identity, keep=step.keep)
                processes.put_signals_off()
            elif isinstance(step, UndoableStep):
                self.journal.write(context.job.identity, step)
            context.owns_partials |= not isinstance(step, ClaimingStep)
            context.step = step
            step.do(context)

    def _finish(self, context: _StepContext, seconds: float) -> None:
        """Record the outputs, rename them to their final names, and forget the job's journal."""
        job = context.job
        for output in () if job.rule.transaction else job.outputs:
            facts = context.recorded.get(str(output), {})
            record = Record(
                output=str(output),
                size_bytes=facts.pop("size_bytes", 0),
                sha256=facts.pop("sha256", ""),
                seconds=round(seconds, 3),
                parameters=parameters_of(job),
                warnings=tuple(context.warnings),
                facts=facts,
            )
            with self._lock:
                self.store.add(record)
            context.storage(output).rename(output.partial, output.absolute)
        self.journal.forget(job.identity)

    def _clean(self, context: _StepContext, message: str, *, passing: bool = False) -> str:
        """Undo and remove what a failed attempt left; return the message, extended if that fails.

        `passing`: the reason may pass, so a rule that resumes keeps its partial file.
        """
        if processes.ending():
            # Nothing can run now; the main thread undoes the steps when all jobs have ended.
            self._unended.append(context)
            if context.job.rule.resumes:
                return message
            try:
                self._discard(context)
            except IotstackError:  # its connection was closed
                self._undiscarded.append(context)
            return message
        try:
            if context.job.rule.transaction:  # other jobs continue when one that makes files fails
                if self.journal.owes(context.job.identity):
                    context.status("it failed: undoing its steps, newest first")
                self.journal.settle()
            self.journal.undo(context.job.identity)
        except IotstackError as error:
            return f"{message}\n{error}"
        # Over a lost connection it cannot be removed: the next attempt, or a later run, does it.
        if not (passing and context.job.rule.resumes):
            with contextlib.suppress(IotstackError):
                self._discard(context)
        return message

    def _discard(self, context: _StepContext) -> None:
        if context.job.rule.transaction or not context.owns_partials:
            return
        for output in context.job.outputs:
            if not output.is_folder:
                context.storage(output).remove([output.partial])
