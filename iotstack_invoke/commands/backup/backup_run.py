"""One backup from the lock to the last message.

lock → undo what a dead run left → hooks → gather facts → plan → make, copy, write the manifest →
hooks → remove expired sets → finish the log and copy it. Not for: how the parts are made
(workflows).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ...backups.manifest import RECORDS_ENDING, Manifest
from ...backups.names import KINDS, TEXTS
from ...backups.retention import KeepDecision, judge
from ...backups.sets import State, pins_in
from ...backups.transfer import ADVICE, drop_unnamed, manifest_there
from ...backups.verifications import HERE
from ...core.errors import (
    ExitCode,
    Interrupted,
    IotstackError,
    Refused,
    StepFailed,
    Unreachable,
    ended,
)
from ...core.processes import signals_raised
from ...core.runtag import Runtag
from ...engine.executor import Run, RunResult
from ...engine.plan import Plan
from ...environment.environment import Environment, RecordFile, remove_set, sweep_stale_copies
from ...environment.hooks import HooksResult, Occasion
from ...environment.stack_host import Lock, locked_stack
from ...hosts.base import Command, Storage
from ...hosts.inspect import is_folder
from ...hosts.local import words_of
from ...reporting.report import CompositeReporter, Report, duration_text, size_text
from ...reporting.run_log import LogReporter, RunLog
from ...settings.model import Options
from ...workflows.backup import BackupFacts
from ..shared.backup_log import finish_log, open_log
from ..shared.vault_listing import Listing
from ..undo.crash_recovery import recover_here
from ..undo.interrupted import Owing
from ..undo.old_states import remove_old_here
from ..vaults.replication import (
    DELIVERED,
    Delivery,
    carry_pin,
    compare_vaults,
    copy_log,
    damaged_here_told,
    deliver,
    differs_there,
    drop_mark,
    manifest_copy,
    unlisted,
    unmark,
    write_damages,
)
from .facts import gather_folder
from .namesakes import RENAME, namesake_in, namesake_told
from .preflight import Start, free_of, refuse_folder

NO_VAULT = "No vaults are configured: this backup exists only on this machine."


def run_backup(
    environment: Environment,
    runtag: Runtag,
    options: Options,
    report: Report,
    *,
    by_clock: bool = False,
) -> ExitCode:
    """Make a backup and return the exit code; raises IotstackError if it was not begun.

    `by_clock`: the runtag is the clock's, and if it is taken the next one is used.
    """
    with signals_raised():
        _make_folder(environment)
        with locked_stack(environment.host, environment.backups, f"backup {runtag}") as lock:
            run = _BackupRun(environment, runtag, options, report, lock)
            try:
                return run.do(by_clock=by_clock)
            except Interrupted as error:
                error.left = (
                    "Incomplete files keep partial names. To resume, pass the same --runtag: "
                    f"'{run.runtag}'."
                )
                raise


def _make_folder(environment: Environment) -> None:
    """Make the folder of the backups if there is a stack without one.

    Hooks that run before a backup may provide the stack: then it is checked after them.
    """
    if not is_folder(environment.host, environment.backups):
        folder, hooks = environment.settings.stack.folder, environment.settings.hooks.before_backup
        if not (hooks and is_folder(environment.host, folder)):
            gather_folder(environment.host, environment.settings)  # refuses, with what to do
        refuse_folder(environment)
        if environment.far:
            environment.host.run(Command(("mkdir", "-p", "-m", "0700", "--", environment.backups)))
        else:
            _make_here(environment.backups)
    refuse_folder(environment)


def _make_here(folder: str) -> None:
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise Refused(f"Cannot create {folder}: {words_of(error)}.") from error


def how_it_went(manifest: Manifest | None, *, made_all: bool, noted: Collection[str]) -> str:
    """Return the outcome of a backup, in the word that hooks after it get."""
    if not made_all:
        return "incomplete" if manifest else "failed"
    return "warnings" if noted else "complete"


def failures_told(result: RunResult) -> list[str]:
    """Return what failed and why; jobs that failed for the same reason are grouped."""
    names: dict[str, list[str]] = {}
    for each in result.failed:
        names.setdefault(each.message, []).append(each.job.title)
    return [f"{', '.join(dict.fromkeys(told))}: {why}" for why, told in names.items()]


def outputs_there(plan: Plan, result: RunResult) -> frozenset[str]:
    """Return the outputs of a finished plan that exist and are complete.

    Those made now, and those already made, which were compared when planning.
    """
    settled = [each.job for each in plan.planned if not each.runs]
    jobs = (*settled, *(each.job for each in result.jobs if each.is_done))
    return frozenset(str(output) for job in jobs for output in job.outputs)


class LockKeeper:
    """An engine's watcher that starts no job without the lock: a connection may have been lost."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock

    def started(self, _planned: object) -> None:
        """Keep holding the lock, or take it again; raises Busy."""
        self._lock.hold_again()

    def __getattr__(self, _name: str) -> Any:
        return lambda *_words: None


class _BackupRun:
    """A backup that holds the lock."""

    def __init__(
        self,
        environment: Environment,
        runtag: Runtag,
        options: Options,
        report: Report,
        lock: Lock,
    ) -> None:
        self.environment = environment
        self.lock = lock
        self.runtag = runtag
        self.options = options
        self.report = report
        self.journal = Owing.of_site(environment).journal_of_backups(lock.hold_again)
        self.started_s = time.monotonic()
        self.listed: dict[str, Listing] = {}
        """The listing of each vault that answered: each is listed once."""
        self.hooks = environment.settings.hooks
        self.arrived = frozenset[str]()
        """Which files of the set are here and in vaults, whoever put them there."""
        self.late: tuple[Delivery, ...] = ()
        """What vaults lacked of earlier backups, and the results of their delivery."""
        self.unproven: dict[str, str] = {}
        """Why vaults lack this backup although all of it was copied to them, by their names."""
        self.log: RunLog | None = None
        """Opened when there is something to write; a refused backup leaves no log."""

    def do(self, *, by_clock: bool) -> ExitCode:
        died, self.listed = recover_here(self.environment, self.journal, self.report)
        if by_clock:  # under the lock: two runs in one minute get different runtags
            self.runtag = free_of(self.runtag, self.listed.values(), self.report)
        try:
            for told in died:
                self._open_log().write("undo", f"warning: {told}")
            warnings = (*died, *self._run_before())
            start = Start.of(
                self.environment, self.runtag, self.options, self.listed, warnings=warnings
            )
            if self.options.why:
                self.report.plan(start.plan, commands=False, shown_only=False)
            result = self._make(start.plan, start.facts, start.records, start.notes)
            self.arrived = outputs_there(start.plan, result)
            self.late = self._deliver_late(result, start.records)
        except BaseException as error:
            self._leave(error)
            self._advise(error)
            raise
        try:
            return self._close(result, start.facts, start.records)
        except Unreachable as error:
            if self.log:
                self.log.leave()
            self._advise(error)
            raise

    def _advise(self, error: BaseException) -> None:
        """Report what is left, if a connection was lost after the set was begun."""
        if self.log and isinstance(error, Unreachable):
            raise Unreachable(
                f"{ended(error)} "
                f"The finished files of {self.runtag} are kept. To resume, pass the same "
                f"--runtag: '{self.runtag}'."
            ) from error

    def _run_before(self) -> tuple[str, ...]:
        """Run the hooks before the backup; return their warnings."""
        before = self.hooks.before_backup
        return self._occasion().run_before(before) if before else ()

    def _run_after(self, result: str) -> HooksResult:
        after = self.hooks.after_backup
        return self._occasion().run_after(after, result) if after else HooksResult()

    def _occasion(self) -> Occasion:
        folder = self.environment.settings.stack.folder
        log = self._open_log()
        return Occasion(self.environment.host, "backup", self.runtag, folder, log, self.report)

    def _open_log(self) -> RunLog:
        if self.log is None:
            try:
                self.log = open_log(self.environment, self.runtag)
            except OSError as error:
                raise StepFailed(f"Cannot write the log: {words_of(error)}.") from error
        return self.log

    def _leave(self, error: BaseException) -> None:
        """Log why the backup ended early, and run the hooks after it.

        If nothing of a set was begun, the log is removed as well.
        """
        if self.log:
            self.log.write("backup", f"ended early: {error}")
        hooked = self._run_after("failed")
        for line in (*hooked.failures, *hooked.warnings):
            self.report.fail(line)
        if self.log and self._is_begun():
            self.log.leave()  # a run that resumes the set appends to it
        elif self.log:
            self.log.discard()

    def _is_begun(self) -> bool:
        """Return whether anything of the set exists, or that is unknown."""
        path = f"{self.environment.backups}/{self.runtag}.{RECORDS_ENDING}"
        try:
            return bool(self.environment.host.stat([path]))
        except StepFailed:
            return True

    def _make(
        self, plan: Plan, facts: BackupFacts, records: RecordFile, notes: tuple[str, ...]
    ) -> RunResult:
        log = self._open_log()
        log.write("backup", f"{facts.program} on {facts.host} makes {self.runtag}")
        for each in facts.left_out:
            log.write("backup", f"left out: {each.what}: {each.reason}")
        for warning in (*notes, *facts.warnings):
            log.write("backup", f"warning: {warning}")
        for text in facts.told:
            log.write("backup", text)
            self.report.tell(text)
        if not self.environment.vaults:
            log.write("backup", NO_VAULT)
            self.report.tell(NO_VAULT, style="yellow")
        with self._bars():
            records.begin(facts.started_utc, replaces=self.options.force)
            keeper = LockKeeper(self.lock)
            return self._do(
                plan, records, CompositeReporter(keeper, LogReporter(log), self.report)
            )

    def _do(self, plan: Plan, records: RecordFile, reporter: CompositeReporter) -> RunResult:
        return Run(
            plan,
            self.environment.storages,
            store=records,
            journal=self.journal,
            reporter=reporter,
            jobs_at_once=self.options.jobs,
            keep_going=self.options.keep_going,
        ).do()

    def _reached(self) -> tuple[str, ...]:
        """Return the vaults that have the manifest of this backup."""
        name = f"{self.runtag}.{KINDS['manifest']}"
        return tuple(each for each in self.environment.vaults if f"{each}:{name}" in self.arrived)

    def _deliver_late(self, made: RunResult, records: RecordFile) -> tuple[Delivery, ...]:
        """Deliver what earlier runs could not, to the vaults that have this backup.

        For the other vaults, reports what they lack.
        """
        reached, log = self._reached(), self._open_log()
        checks = self.environment.checks.newest()
        here = (
            self.environment.sets()
        )  # by the record beside the stack, which may be another machine's
        # If the name is another machine's, no later run delivers this one.
        taken = {e.job.output.role for e in made.failed if ADVICE in e.message}
        others = [each for each in self.environment.vaults if each not in reached]
        away = [
            unlisted(self.environment, name, here) for name in others if name not in self.listed
        ]
        # One that answered is checked, though it has no copy: it may be full, or read-only.
        answered = [each for each in others if each in self.listed]
        for name in answered:
            with contextlib.suppress(StepFailed):  # reported when it is read
                drop_mark(self.environment.vaults[name], self.runtag, records)
        away += compare_vaults(self.environment, answered, here, checks)
        for each in away:
            if each.name in taken:
                each.lacking.pop(self.runtag, None)
                each.refused.pop(self.runtag, None)
        late = compare_vaults(self.environment, reached, here, checks, skipped=self.runtag)
        unlike = self._compare()
        for each in late:
            why = unlike(each.names, ()) if each.looked else "it could not be listed"
            if why:
                self._take_back(each.name, why, records)
                own = {e.runtag: e for e in here if e.runtag == self.runtag}
                each.lacking = own | each.lacking
        for each in late:
            for runtag, why in {**each.refused, **each.passed_over}.items():
                log.write("backup", f"{runtag} was not copied to {each.name}: {why}")
        reporter = CompositeReporter(LogReporter(log), self.report)

        def tell(text: str) -> None:
            log.write("backup", text)
            self.report.tell(text)

        with self._bars():
            proven = [each for each in late if each.name not in self.unproven]
            deliver(
                self.environment, proven, lambda plan, owed: self._do(plan, owed, reporter), tell
            )
        return (*late, *away)

    def _compare(self) -> Callable[[Listing, Iterable[str]], str]:
        """Return how a vault's listing differs from the set and its texts that were copied to it.

        Reads the local files once for all vaults.
        """
        manifest = self.environment.manifest(self.runtag)
        here = self.environment.host.listdir(self.environment.backups)

        def unlike(there: Listing, texts: Iterable[str]) -> str:
            kinds = ("manifest", *texts)
            return differs_there(manifest, here, there, kinds) if manifest else ""

        return unlike

    def _take_back(self, vault: str, why: str, records: RecordFile) -> None:
        """Record that a vault lacks what the jobs recorded."""
        self.unproven[vault] = why
        self.arrived = frozenset(e for e in self.arrived if not e.startswith(f"{vault}:"))
        records.take_back(manifest_copy(vault, self.runtag))

    def _namesakes(self, vaults: Iterable[str]) -> Iterator[str]:
        """Yield messages on vaults that hold another machine's backups with this one's name."""
        for vault in vaults:
            with contextlib.suppress(StepFailed):  # the next run checks as well
                other = namesake_in(self.environment, vault)
                if other:
                    told = namesake_told(vault, other)
                    yield f"{told[0].upper()}{told[1:]}. Rename one of them: {RENAME}"

    def _close(self, result: RunResult, facts: BackupFacts, records: RecordFile) -> ExitCode:
        """Run hooks and retention, finish the log, copy it, and report the outcome."""
        self.lock.hold_again()
        log = self._open_log()
        manifest = self.environment.manifest(self.runtag)
        problems = failures_told(result)
        made = manifest.made if manifest else ()
        problems += [f"{p.kind} part: {why}" for p in made for why in p.lacking.values()]
        problems += map(self._unproven_told, self.unproven)
        late = [line for each in self.late for line in (*each.lost, *each.troubles)]
        late += [each.owed_line for each in self.late if each.owed]
        late += damaged_here_told(self.environment, self.late, new=True)
        told = manifest.warnings if manifest else ()  # including those of a run that was killed
        warnings = list(dict.fromkeys([*told, *facts.warnings, *result.warnings]))
        warnings += self._namesakes(self._reached())
        damages = write_damages(self.environment, manifest, result) if manifest else ()
        made_all = (
            not damages
            and manifest is not None
            and manifest.state != "incomplete"
            and all(
                each.is_done
                for each in result.jobs
                if any(output.role == "pi" for output in each.job.outputs)
            )
        )
        if made_all and manifest and facts.replaces:
            problems += self._drop(self.environment.host, self.environment.backups, manifest)
        hooked = self._run_after(
            how_it_went(manifest, made_all=made_all, noted=problems or late or warnings)
        )
        warnings += hooked.warnings
        if made_all and not (result.failed or problems or hooked.failures):
            problems += self._let_go(log)
        took = duration_text(time.monotonic() - self.started_s)
        state = manifest.state if manifest else "unfinished"
        log.write("backup", f"{self.runtag} is {state} after {took}")
        finish_log(self.environment, self.runtag, log)
        if log.broken:
            problems.append(f"the log is incomplete: {log.broken}")
        replaced = manifest if made_all and facts.replaces else None
        result += self._copy_log(records, problems, replaced)
        if not problems:
            records.end()
        self._summary(manifest, took)
        again = f" To finish it, run the same command with --runtag '{self.runtag}'."
        if made_all and any(self.runtag in each.owed for each in self.late):
            again = ""  # its copies alone are missing, and their line says what delivers them
        if damages:
            again = f" To see what to do: inv verify --runtag '{self.runtag}' --at here"
        return self._verdict(problems, late, warnings, hooked.failures, again, made_all=made_all)

    def _drop(self, storage: Storage, folder: str, manifest: Manifest) -> list[str]:
        """Remove the previous set's files that the new one lacks; return the errors."""
        try:
            if manifest_there(storage, folder, self.runtag) == manifest:
                drop_unnamed(storage, folder, manifest)
        except StepFailed as error:
            return [f"removing what the previous backup left: {error}"]
        return []

    def _copy_log(
        self,
        records: RecordFile,
        problems: list[str],
        replaced: Manifest | None,
    ) -> RunResult:
        """Copy the log to the vaults that have the manifest; it is closed, so nothing is added.

        `replaced`: the manifest of the previous set, by which its remaining files are removed
        there.
        """
        reached = self._reached()
        reporter = CompositeReporter(self.report)
        with self._bars():
            result = copy_log(
                self.environment,
                self.runtag,
                reached,
                records,
                lambda plan, own: self._do(plan, own, reporter),
            )
        problems += failures_told(result)
        without_log = {each.job.output.role for each in result.failed}
        unlike = self._compare()
        for vault in reached:
            storage = self.environment.vaults[vault]
            try:
                names = storage.listdir(storage.root)
                why = unlike(names, () if vault in without_log else TEXTS)
            except StepFailed as error:
                names, why = {}, str(error)
            if why:
                self._take_back(vault, why, records)
                problems.append(self._unproven_told(vault))
                continue
            pinned = carry_pin(self.environment, self.runtag, storage)
            problems += filter(None, [unmark(storage, self.runtag), pinned])
            problems += self._drop(storage, storage.root, replaced) if replaced else []
            with contextlib.suppress(StepFailed):  # the next run sweeps as well
                sweep_stale_copies(storage, names)
        return result

    def _unproven_told(self, vault: str) -> str:
        return f"{self.runtag} was not copied to {vault}: {self.unproven[vault]}"

    def _let_go(self, log: RunLog) -> list[str]:
        """Remove the sets that the retention policy expires; return what could not be removed.

        Never the last good copy of a set: sets that a vault should have and lacks are kept.
        """
        problems = []
        for verdict in self._judge():
            runtag = verdict.backup.runtag
            if verdict.keep or runtag == self.runtag:
                continue
            lacking = [each.name for each in self.late if each.lacks(runtag)]
            if lacking and verdict.backup.state in DELIVERED:
                log.write("retention", f"{runtag} is kept until it is in {', '.join(lacking)}")
                continue
            log.write("retention", f"{runtag} is removed: {verdict.why}")
            self.report.tell(f"removed {runtag}: {verdict.why}")
            try:
                remove_set(self.environment.host, self.environment.backups, runtag)
            except IotstackError as error:
                problems.append(f"retention: {error}")
        return problems + remove_old_here(self.environment, self.report.tell)

    def _judge(self) -> tuple[KeepDecision, ...]:
        """Return the decisions on the sets here, after adoption by hosts.toml."""
        stack, said, now = (
            self.environment.settings.stack,
            self.environment.owner.read(),
            datetime.now(UTC),
        )
        pinned = frozenset().union(*map(pins_in, self.listed.values()))
        sets = [
            replace(each, pinned=each.pinned or each.runtag in pinned)
            for each in self.environment.sets()
        ]
        adopted = said.adopted(HERE, sets)
        foreign = {e.runtag for e in sets if e.state is State.UNPROVEN} - adopted
        if stack.adopt and foreign:
            from ..catalog.adopt import adopt

            rules = (stack.policy, now, self.environment.gone(said), adopted | foreign)
            going = {each.backup.runtag for each in judge(sets, *rules) if not each.keep}
            checks = self.environment.checks_here()
            adopted |= adopt(self.environment, HERE, going & foreign, checks, self.report)
        return judge(sets, stack.policy, now, self.environment.gone(said), adopted)

    def _verdict(
        self,
        problems: list[str],
        late: list[str],
        warnings: list[str],
        hook_failures: tuple[str, ...],
        again: str,
        *,
        made_all: bool,
    ) -> ExitCode:
        if not made_all:
            self.report.fail(f"Backup {self.runtag} is not complete.{again}")
        elif problems:
            self.report.fail(
                f"Backup {self.runtag} is complete here, but some steps failed.{again}"
            )
        elif hook_failures:
            self.report.fail(f"Backup {self.runtag} is complete, but a hook after it failed.")
        elif late:
            self.report.fail(
                f"Backup {self.runtag} is complete, but a vault is missing earlier ones:"
            )
        elif warnings:
            self.report.warn(f"Backup {self.runtag} finished with warnings:")
        else:
            self.report.tell(f"Backup {self.runtag} is complete.", style="green")
        for line in (*problems, *late, *hook_failures):
            self.report.fail(f"  {line}")
        for line in warnings:
            self.report.warn(f"  {line}")
        if not made_all or hook_failures:
            return ExitCode.FAILED
        return ExitCode.WARNINGS if problems or late or warnings else ExitCode.GOOD

    def _summary(self, manifest: Manifest | None, took: str) -> None:
        """Show a table of the parts on a terminal."""
        if not self.report.live or manifest is None:
            return
        rows = []
        for part in manifest.parts:
            copies = [v for v in self.environment.vaults if f"{v}:{part.file}" in self.arrived]
            rows.append(
                (
                    part.kind,
                    part.file if not part.error else "",
                    size_text(part.size_bytes) if not part.error else "",
                    duration_text(part.seconds) if not part.error else "",
                    "failed" if part.error else "incomplete" if part.lacking else "complete",
                    ", ".join(copies),
                )
            )
        self.report.table(
            ("part", "file", "size", "time", "state", "copied to"),
            rows,
            right=(2, 3),
            copied=(1,),
        )
        self.report.tell(f"{self.environment.backups} · {took}")

    @contextlib.contextmanager
    def _bars(self) -> Iterator[None]:
        self.report.start_bars()
        try:
            yield
        finally:
            self.report.stop_bars()
