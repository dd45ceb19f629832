"""One restore from the first check to the last message.

lock → undo what a dead run left → gather facts → confirm → fetch and stage → hooks → switch →
hooks → report. Until the switch nothing of the stack is changed; after it, every step has an undo
until the commit.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace

from ...archives.scan import Contents
from ...backups.sets import State
from ...backups.transfer import hash_there
from ...backups.verifications import HERE, damage_found, in_places
from ...core.errors import (
    ExitCode,
    Interrupted,
    IotstackError,
    NotFound,
    Refused,
    StepFailed,
    Unreachable,
    ended,
)
from ...core.processes import signals_raised
from ...engine.executor import RunResult
from ...engine.journal import Journal
from ...environment.environment import Environment
from ...environment.hooks import Occasion, hook_lines
from ...environment.stack_host import Lock, StackHost, find_machine, locked_target, open_target
from ...hosts.inspect import may_be_there
from ...hosts.shutdown import blocked_if_local
from ...reporting.report import CompositeReporter, Report
from ...reporting.run_log import LogReporter
from ...settings.model import Options, Settings
from ...workflows.restore import RestoreFacts
from ..catalog.copies import told_here
from ..shared.afterwards import Afterwards
from ..shared.confirm import confirm
from ..shared.restore_id import change_of
from ..undo.interrupted import Owing
from ..undo.old_states import remove_states
from ..undo.undo import journal_of, recover, what_is_left
from .changes import Notes, committed, log_of
from .jobs import Jobs
from .messages import RestoreMessages
from .preflight import Preflight
from .request import RestoreRequest, Source, choose_set, own_failed, refuse_source, source_of
from .stage import Stage

AS_BEFORE = "The stack is in its previous state."


def restore(settings: Settings, request: RestoreRequest, options: Options, report: Report) -> int:
    """Restore a backup and return the exit code; raises IotstackError if it was refused."""
    refuse_source(settings, request.source)  # before another machine, or Docker, is queried
    chosen: _Restore | None = None
    try:
        with signals_raised(), open_target(settings, request.host, bare=request.bare) as target:
            _refuse_live(settings, target, request)
            with source_of(settings, request, target) as source:
                chosen = _Restore(settings, target, source, request, report)
                if options.dry_run:
                    Owing.of_target(settings, target).tell_owed(report)
                    return chosen.show()
                purpose = f"restore {chosen.runtag}"
                if not may_be_there(target.host, target.folder):
                    chosen.tell()  # there is nothing to undo, and the lock would create the folder
                    if not request.yes:
                        confirm(request.host, purpose)
                elif not request.yes:  # a backup may run during the question
                    with locked_target(target, purpose) as lock:
                        chosen.recover(journal_of(settings, target, lock))
                    chosen.tell()
                    confirm(request.host, purpose)
                with locked_target(target, purpose) as lock:
                    return chosen.run(options, lock)
    except Interrupted as error:
        left = error.left or (chosen.left if chosen else AS_BEFORE)
        report.fail(f"The restore was {error}. {left}")
        return error.exit_code


def _refuse_live(settings: Settings, target: StackHost, request: RestoreRequest) -> None:
    if target.role == "live" and (request.host or "this") not in request.live:
        named_again = request.host or "this"
        raise Refused(
            f"{target.name} is marked live in hosts.toml, and a restore replaces its services "
            f"and volumes. To confirm, give its name again: --live {named_again}"
        )
    for name in request.live:
        if name not in ("this", request.host):
            find_machine(settings, name)


class _Restore:
    """A restore of one backup to one target."""

    def __init__(
        self,
        settings: Settings,
        target: StackHost,
        source: Source,
        request: RestoreRequest,
        report: Report,
    ) -> None:
        self.settings = settings
        self.target = target
        self.source = source
        self.report = report
        try:
            chosen = choose_set(source, request.runtag)
        except Unreachable as error:
            raise Unreachable(f"{ended(error)}{_here_too(target, request)}") from error
        except Refused as error:
            raise Refused(f"{ended(error)}{_here_too(target, request)}") from error
        self.backup, self.manifest, self.passed = chosen.backup, chosen.manifest, chosen.passed
        self.request = request
        self.runtag = self.backup.runtag
        self.before = Preflight(
            settings, target, source, request, self.backup, self.manifest, report
        )
        self.stage = Stage(target, self.runtag, self.before.records())
        self.jobs = Jobs(target, source, chosen, self.stage, report)
        self.hooks = find_machine(settings, request.host).hooks if request.host else settings.hooks
        self.messages = RestoreMessages(self.before, self.passed)
        self._is_told = False
        self._switching = False
        self._journal: Journal | None = None
        self._down_s = 0.0
        self._died: tuple[str, ...] = ()
        """The messages on a dead run that was undone before this one."""

    @property
    def left(self) -> str:
        """The message for a signal between two steps."""
        is_done = self._journal is not None and self._journal.kept
        return f"{self.runtag} is restored." if is_done else AS_BEFORE

    def recover(self, journal: Journal) -> None:
        """Undo what a dead run left."""
        self._died += recover(self.settings, self.target, journal, self.report)

    def show(self) -> int:
        """Print the plan, with what would be replaced if the archive can be read now.

        Raises Refused, or StepFailed, at its end if the restore itself would.
        """
        facts = self.before.facts()
        self.messages.tell_what(facts)
        packed = self.messages.tell_needed(facts)
        contents, before, broken = None, facts, ""
        with self.report.waiting("reading the backup"):
            try:
                contents = self.before.contents(facts)
            except StepFailed as error:
                broken = str(error)
            broken = broken or self._damage(facts)
        targets = self.jobs.staging(facts)
        if contents is None and "general" not in facts.kinds:
            contents = Contents()
        if contents:
            facts = self.before.with_items(facts, contents)
            targets = [f"pi:restored/{self.runtag}"]
            self.messages.tell_items(facts, contents)
        elif self.manifest and self.manifest.sizes:
            told = self.before.contents_told(facts, packed)
            self.messages.tell_items(self.before.with_items(facts, told), told)
        else:
            self.messages.tell_items(facts, None)
        self.messages.tell_space(before)
        for line in hook_lines(self.hooks, "restore"):
            self.report.write(line)
        self.report.plan(self.jobs.plan(targets, facts))
        self.before.disks.refuse(before)
        if broken:
            raise StepFailed(
                f"The restore itself would fail: {broken.rstrip('.')}. To list the copies: inv "
                f"show '{self.runtag}'"
            )
        return ExitCode.GOOD

    def _damage(self, facts: RestoreFacts) -> str:
        """Return which archive has changed since it was written, of a set known as damaged.

        The damage was recorded by a verification: it may have been repaired since.
        """
        if self.backup.state is not State.DAMAGED:
            return ""
        made = self.manifest.made if self.manifest else ()
        for part in (each for each in made if each.kind in facts.kinds):
            path = f"{self.source.folder}/{part.file}"
            found = hash_there(self.source.storage, path)
            if found != part.sha256:
                return (
                    f"{path} is damaged: its SHA-256 is {found}, but the manifest has "
                    f"{part.sha256}"
                )
        return ""

    def _facts(self) -> RestoreFacts:
        """Return the plan by the present state; raises Refused if it is impossible."""
        facts = self.before.facts()
        self.before.disks.refuse(facts)
        return facts

    def tell(self) -> RestoreFacts:
        """Print and return what would be done; raises Refused if it is impossible."""
        self._is_told = True
        facts = self._facts()
        self.messages.tell_what(facts)
        packed = self.messages.tell_needed(facts)
        told, contents = facts, None
        if not self.request.yes:
            with self.report.waiting("checking what would be replaced"):
                contents = self.before.contents_told(facts, packed)
                told = self.before.with_items(facts, contents) if contents else facts
        self.messages.tell_items(told, contents)
        self.messages.tell_space(facts)
        return facts

    def run(self, options: Options, lock: Lock) -> int:
        """Restore under the lock, which is taken again before an undo."""
        self._lock = lock
        self.journal = self._journal = journal_of(self.settings, self.target, lock)
        self.recover(self.journal)
        facts = self._facts() if self._is_told else self.tell()
        self.jobs.begin(facts)
        staged = (*self._passed_over(), *self.stage.warnings)
        log = log_of(change_of(facts.previous), self.settings, self.target, self._died)
        hooked = Occasion(
            self.target.host, "restore", self.runtag, self.target.folder, log, self.report
        )
        notes = Notes()
        reporter = CompositeReporter(LogReporter(log), self.report, notes)
        left = "The stack was not changed."
        after = Afterwards()
        warnings = staged
        try:
            result = self.jobs.do(self.jobs.staging(facts), facts, self.journal, reporter, options)
            if not result.failed:
                warnings += hooked.run_before(self.hooks.before_restore)
                with self.report.waiting("checking that all unpacked data is still there"):
                    self.stage.refuse_hollow(self.jobs.staging(facts))
                facts = self.before.with_items(self.before.facts_again(facts))
                self._switching = True
                target = [f"pi:restored/{self.runtag}"]
                why = f"restoring {self.runtag}"
                with blocked_if_local(self.target.host, why, self.target.as_root):
                    result += self.jobs.do(target, facts, self.journal, reporter, options)
                self._down_s = time.monotonic() - notes.stopped_s
                self._raise_if_it_stands(result)
                if result.failed:
                    left = what_is_left(self.target, self.journal, AS_BEFORE)
        except BaseException as error:
            if not self.journal.stands():
                self._leave(error, hooked)
                raise
            self._down_s = time.monotonic() - notes.stopped_s
            after.note("It ended early", error)
            self._good(facts, warnings, hooked, notes, after)
            if not isinstance(error, (IotstackError, OSError)):
                raise  # a bug in this program
            return after.code(ExitCode.WARNINGS)
        if result.failed:
            with committed(left):
                return self._end(result, hooked, left)
        return self._good(facts, (*warnings, *result.warnings), hooked, notes, after)

    def _passed_over(self) -> tuple[str, ...]:
        """Return, for the end, that newer backups were passed over; reported in full before."""
        bad = (each for each in self.passed if each.is_bad)
        return tuple(f"{each.runtag}, which is newer, {each.why}" for each in bad)

    def _raise_if_it_stands(self, result: RunResult) -> None:
        """Raise StepFailed if it failed after its commit: its answer was lost, and the lock."""
        if result.failed and self.journal.stands():
            raise StepFailed("; ".join(each.message for each in result.failed))

    def _leave(self, error: BaseException, hooked: Occasion) -> None:
        """Log why the restore ended early, and run the hooks after it.

        A refused one leaves nothing staged.
        """
        hooked.log.write("restore", f"ended early: {error}")
        if isinstance(error, Refused):
            self._clear_stage()
        went, left = "failed", ""
        try:
            if isinstance(error, Interrupted):
                if self._switching:
                    told = what_is_left(self.target, self.journal, AS_BEFORE)
                    went, left = ("undone" if told.startswith(AS_BEFORE) else went), told
                error.left = left
            with committed(left):
                self._tell_hooks(hooked, went)
        finally:
            hooked.log.finish(os.rename)

    def _tell_hooks(self, hooked: Occasion, went: str) -> None:
        """Run the hooks after a restore that did not succeed."""
        after = hooked.run_after(self.hooks.after_restore, went)
        for line in (*after.failures, *after.warnings):
            self.report.fail(line)

    def _clear_stage(self) -> None:
        with (
            self.report.waiting("removing what was staged"),
            contextlib.suppress(StepFailed),  # a partial rest never counts as complete
        ):
            self.stage.clear()

    def _end(self, result: RunResult, hooked: Occasion, left: str) -> int:
        log = hooked.log
        log.write("restore", left)
        if result.damages and self._is_made_again():
            self._clear_stage()
            self._tell_hooks(hooked, "failed")
            log.finish(os.rename)
            raise Refused(
                f"{self.runtag} {in_places(self.source.name)} was replaced after this restore "
                f"began, so its archives are different ones. {left} Check the backup (inv list), "
                "then run this again."
            )
        self.report.failed(result.failed)
        if result.damages and self.source.at:
            made = self.manifest.finished_utc if self.manifest else ""
            found = damage_found(self.runtag, self.source.at, made, result.damages)
            Environment.of(self.settings).checks.add(found)
        undone = self._switching and left.startswith(AS_BEFORE)
        self._tell_hooks(hooked, "undone" if undone else "failed")
        log.finish(os.rename)
        self.report.fail(f"{self.runtag} was not restored. {left} The log: {log.path}")
        return ExitCode.FAILED

    def _is_made_again(self) -> bool:
        """Return whether the set has another manifest by now; False if unknown."""
        try:
            chosen = choose_set(self.source, self.runtag)
        except IotstackError:
            return False
        return chosen.manifest is not None and chosen.manifest != self.manifest

    def _good(
        self,
        facts: RestoreFacts,
        warnings: tuple[str, ...],
        hooked: Occasion,
        notes: Notes,
        after: Afterwards,
    ) -> int:
        """Clean up, run the hooks, report: it is restored, even if some of this fails."""
        hooked.log.write("restore", f"{self.runtag} is restored")
        with self.report.waiting("removing what was staged"):
            staged = f"Could not remove all of {self.stage.folder} (the next restore will)"
            after.do(staged, self._tidy, None)
        told = after.run_hooks(hooked, self.hooks.after_restore, "restored")
        for text in after.left:
            hooked.log.write("restore", text)
        after.do("Could not finish its log", lambda: hooked.log.finish(os.rename), None)
        if hooked.log.broken:
            after.left.append(f"Its log is incomplete: {hooked.log.broken}")
        code = after.do(
            "The report is incomplete",
            lambda: self.messages.tell_good(facts, warnings, notes.told, told, self._down_s),
            int(ExitCode.WARNINGS),
        )
        if not told.failures:
            after.do("Could not remove old states", self._remove_states, None)
        for text in after.told():
            self.report.fail(f"{self.runtag} is restored, but a later step failed: {text}")
        return after.code(code)

    def _tidy(self) -> None:
        """Remove what was staged, unless another run holds the lock by now."""
        self._lock.hold_again()
        self.stage.clear()

    def _remove_states(self) -> None:
        self._lock.hold_again()
        stack = replace(self.settings.stack, folder=self.target.folder)
        host, root = self.target.host, self.target.as_root
        remove_states(host, stack, lambda: root, self.report.write)


def _here_too(target: StackHost, request: RestoreRequest) -> str:
    """Return that the set is on the target itself, if it is, for an unreachable vault."""
    try:
        here = Source(target.host, target.backups, True, target.name, own_failed(target))
        where = f"on {target.name}" if request.host else HERE
        return told_here(choose_set(here, request.runtag).backup, "--from here", where)
    except (NotFound, Refused, StepFailed):  # the vault was requested
        return ""
