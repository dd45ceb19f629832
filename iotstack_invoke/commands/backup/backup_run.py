"""One backup from the lock to the last word.

lock → undo what a dead run left → hooks → look → plan → make, copy, write the manifest → hooks →
remove what the retention lets go → finish the log and copy it. Not for: how the parts are made
(rulebooks).
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
    owed_here,
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
    """Make a backup and return the exit code; raises IotstackError where it was not begun.

    `by_clock`: the runtag is the clock's, and where it is taken the next one is.
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
    """Make the folder of the backups where there is a stack but no such folder.

    Hooks that run before a backup may bring the stack: then it is looked at after them.
    """
    if not is_folder(environment.host, environment.backups):
        folder, hooks = environment.settings.stack.folder, environment.settings.hooks.before_backup
        if not (hooks and is_folder(environment.host, folder)):
            gather_folder(environment.host, environment.settings)  # refuses, with the way out
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
    """Return how a backup went, in the word that hooks after it are told."""
    if not made_all:
        return "incomplete" if manifest else "failed"
    return "warnings" if noted else "complete"


def failures_told(result: RunResult) -> list[str]:
    """Return what failed and why; jobs that failed for one reason are told together."""
    names: dict[str, list[str]] = {}
    for each in result.failed:
        names.setdefault(each.message, []).append(each.job.title)
    return [f"{', '.join(dict.fromkeys(told))}: {why}" for why, told in names.items()]


def outputs_there(plan: Plan, result: RunResult) -> frozenset[str]:
    """Return the outputs of a plan that are there, whole, once it was done.

    What was made now, and what did not have to be: that was compared when the plan was made.
    """
    settled = [each.job for each in plan.planned if not each.runs]
    jobs = (*settled, *(each.job for each in result.jobs if each.is_done))
    return frozenset(str(output) for job in jobs for output in job.outputs)


class LockKeeper:
    """An engine's watcher that lets no job start without the lock: a line may have broken."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock

    def started(self, _planned: object) -> None:
        """Hold the lock still, or anew; raises Busy."""
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
        """What lies in each vault that answered: each is listed once."""
        self.hooks = environment.settings.hooks
        self.arrived = frozenset[str]()
        """What of the set is here and in vaults, whoever put it there."""
        self.late: tuple[Delivery, ...] = ()
        """What vaults lacked of earlier backups, and what came of it."""
        self.unproven: dict[str, str] = {}
        """Why vaults lack this backup that all of it was copied to, by their names."""
        self.log: RunLog | None = None
        """Opened when there is something to write; a backup that is refused leaves none."""

    def do(self, *, by_clock: bool) -> ExitCode:
        died, self.listed = recover_here(self.environment, self.journal, self.report)
        if by_clock:  # under the lock: of two runs in a minute each has its own
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
        """Tell what is left, where a line broke after the set was begun."""
        if self.log and isinstance(error, Unreachable):
            raise Unreachable(
                f"{ended(error)} "
                f"The finished files of {self.runtag} are kept. To resume, pass the same "
                f"--runtag: '{self.runtag}'."
            ) from error

    def _run_before(self) -> tuple[str, ...]:
        """Run the hooks before the backup; return what they warn of."""
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
        """Write down why the backup ended early, and let the hooks after it know.

        Where nothing of a set was begun, the log goes as well.
        """
        if self.log:
            self.log.write("backup", f"ended early: {error}")
        hooked = self._run_after("failed")
        for line in (*hooked.failures, *hooked.warnings):
            self.report.fail(line)
        if self.log and self._is_begun():
            self.log.leave()  # whoever goes on with the set adds to it
        elif self.log:
            self.log.discard()

    def _is_begun(self) -> bool:
        """Tell whether there is anything of the set, or nobody can say."""
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
        """Deliver what earlier runs could not, to the vaults that took this backup.

        Of those that did not, what they lack is told.
        """
        reached, log = self._reached(), self._open_log()
        checks = self.environment.checks.newest()
        here = (
            self.environment.sets()
        )  # by the record beside the stack, which may be another machine's
        # Where the name is another machine's, no later run delivers this one.
        taken = {e.job.output.role for e in made.failed if ADVICE in e.message}
        others = [each for each in self.environment.vaults if each not in reached]
        away = [
            Delivery(
                name,
                self.environment.vaults[name],
                lacking=owed_here(self.environment, name, here),
            )
            for name in others
            if name not in self.listed
        ]
        # One that answered is asked, though it took nothing: full, or nobody may write there.
        answered = [each for each in others if each in self.listed]
        for name in answered:
            with contextlib.suppress(StepFailed):  # then it tells so when it is looked at
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
        """Return what tells how a vault's listing is not of the set, and the texts, copied to it.

        What is here is looked at once for all vaults.
        """
        manifest = self.environment.manifest(self.runtag)
        here = self.environment.host.listdir(self.environment.backups)

        def unlike(there: Listing, texts: Iterable[str]) -> str:
            kinds = ("manifest", *texts)
            return differs_there(manifest, here, there, kinds) if manifest else ""

        return unlike

    def _take_back(self, vault: str, why: str, records: RecordFile) -> None:
        """Note that a vault has not what the jobs say that it has."""
        self.unproven[vault] = why
        self.arrived = frozenset(e for e in self.arrived if not e.startswith(f"{vault}:"))
        records.take_back(manifest_copy(vault, self.runtag))

    def _namesakes(self, vaults: Iterable[str]) -> Iterator[str]:
        """Yield what is told of vaults that hold another machine's backups of this one's name."""
        for vault in vaults:
            with contextlib.suppress(StepFailed):  # the next run looks as well
                other = namesake_in(self.environment, vault)
                if other:
                    told = namesake_told(vault, other)
                    yield f"{told[0].upper()}{told[1:]}. Rename one of them: {RENAME}"

    def _close(self, result: RunResult, facts: BackupFacts, records: RecordFile) -> ExitCode:
        """Let the hooks and the retention act, finish the log, copy it, and say how it went."""
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
        told = manifest.warnings if manifest else ()  # those of a run that died, too
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
        again = f"To finish it, run the same command with --runtag '{self.runtag}'."
        if damages:
            again = f"To see what to do: inv verify --runtag '{self.runtag}' --at here"
        return self._verdict(problems, late, warnings, hooked.failures, again, made_all=made_all)

    def _drop(self, storage: Storage, folder: str, manifest: Manifest) -> list[str]:
        """Remove what the set before had and the new one has not; return what went wrong."""
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

        `replaced`: the manifest by which what the set before has left is removed there.
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
        """Remove the sets that the retention lets go; return what could not be removed.

        Not the last good copy of one: whatever a vault is to have and lacks stays.
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
        """Return the verdicts on the sets here, what hosts.toml adopts being adopted."""
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
            self.report.fail(f"Backup {self.runtag} is not complete. {again}")
        elif problems:
            self.report.fail(
                f"Backup {self.runtag} is complete here, but some steps failed. {again}"
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
        """Show a table of the parts to a person who watches."""
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
