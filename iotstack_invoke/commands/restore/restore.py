"""One restore from the first look to the last word.

lock → undo what a dead run left → look → confirm → fetch and stage → hooks → switch → hooks →
report. Until the switch nothing of the stack is touched; after it, every step has an undo until
the commit.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import shlex
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ...archives.scan import Contents
from ...backups.names import KINDS
from ...backups.sets import State, unnamed_told
from ...backups.transfer import hash_there
from ...backups.verifications import damage_found, in_places
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
from ...core.runtag import LATEST
from ...core.stack_folders import BACKUPS
from ...databases.influxdb.load import PROVEN
from ...databases.influxdb.log import say_internal_left_out
from ...databases.inventory import STAYS
from ...databases.sql.load import SQL_PROVEN
from ...engine.executor import Run, RunResult
from ...engine.journal import Journal
from ...engine.plan import Plan, decide, resolve
from ...engine.steps import File, Record
from ...environment.environment import Environment
from ...environment.hooks import HooksResult, Occasion, hook_lines
from ...environment.stack_host import Lock, StackHost, find_machine, locked_target, open_target
from ...hosts.base import Command, FileFact, Storage
from ...hosts.inspect import ANY_EXIT, may_be_there, read_text, which_may_be_there
from ...hosts.pasted import host_flag
from ...reporting.report import CompositeReporter, Report, duration_text, shown, size_text
from ...reporting.run_log import LogReporter, LostLog, RunLog, new_log
from ...settings.model import Options, Settings
from ...settings.rows import missing_rows
from ...stack.compose import InspectedContainer, inspect_all, is_top_file, of_stack
from ...stack.compose_needs import ComposeNeeds
from ...stack.inside import is_in
from ...stack.left_out import plain_place
from ...stack.stack import STOPPING
from ...workflows.restore import RestoreFacts, restore_book, stages
from ..catalog.copies import told_here
from ..shared.afterwards import Afterwards
from ..shared.backup_warnings import damaged_told, told_of_data
from ..shared.confirm import confirm
from ..shared.latest import passed_told
from ..shared.restore_id import RestoreId, change_of
from ..undo.change_logs import log_path
from ..undo.old_states import remove_states
from ..undo.owed import Owing
from ..undo.undo import journal_of, recover, what_is_left
from .facts import present as present_now
from .fates import Fates
from .needed import needed, top_texts
from .outside import of_old_folder, place_there, unseen
from .preflight import Preflight
from .request import (
    RestoreRequest,
    Source,
    choose_set,
    lacking_of,
    newer_elsewhere,
    own_failed,
    refuse_source,
    source_of,
)
from .stage import Stage
from .stays import put_in_place, told_after, told_before, unknown_told

AS_BEFORE = "The stack is as it was before."
REPLACES, REPLACES_AS_WELL = "replaces", "replaces as well"
TOLD_AT_THE_END = (PROVEN, SQL_PROVEN, STAYS, say_internal_left_out(2).partition("(")[0])


class Notes:
    """Hears what a job tells that a person should still read when the run is over."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.stopped_s = time.monotonic()
        """When the stack was stopped."""

    def said(self, _job: object, text: str) -> None:
        """Keep what databases were proven to have, and what of InfluxDB was left out."""
        if text.startswith(STOPPING):
            self.stopped_s = time.monotonic()
        if text.startswith(TOLD_AT_THE_END) and text not in self.told:
            self.told.append(text)

    def __getattr__(self, _name: str) -> Any:
        return lambda *_words: None


@contextlib.contextmanager
def committed(left: str) -> Iterator[None]:
    """Let a signal that comes after the commit, or after the undo, say what is left."""
    try:
        yield
    except Interrupted as error:
        error.left = left
        raise


def log_of(
    change: RestoreId | None, settings: Settings, target: StackHost, died: Iterable[str]
) -> RunLog:
    """Return the log of a change of a target; `died` is what was told of one before it.

    Where it cannot be made, the change goes on without it, and ends with that.
    """
    assert change  # noqa: S101 - the folder is named by us
    path = log_path(settings.stack.folder, target.host, change)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        log = new_log(path)
    except OSError as error:
        log = LostLog(error)
    for text in died:
        log.write("undo", f"warning: {text}")
    return log


def restore(settings: Settings, request: RestoreRequest, options: Options, report: Report) -> int:
    """Restore a backup and return the exit code; raises IotstackError where it was refused."""
    refuse_source(settings, request.source)  # before another machine, or Docker, is asked
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
                    chosen.tell()  # there is nothing to undo, and the lock would make the folder
                    if not request.yes:
                        confirm(request.host, purpose)
                elif not request.yes:  # while a person thinks, a backup may run
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
            f"{target.name} is live in hosts.toml, and a restore replaces its services and "
            f"volumes. If that is meant, name it a second time: --live {named_again}"
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
        self.hooks = find_machine(settings, request.host).hooks if request.host else settings.hooks
        self.by_hand = "" if request.only else self.before.influx2.advice
        """What of the wish a person has to do, and how."""
        self.fates = Fates()
        self._archives: dict[File, FileFact] = {}
        """What was there of the set when it was first looked at."""
        self._told = False
        self._switching = False
        self._journal: Journal | None = None
        self._down_s = 0.0
        self._died: tuple[str, ...] = ()
        """What was told of a run that died, and was undone before this one."""

    @property
    def left(self) -> str:
        """What a signal leaves that comes when nothing is at work."""
        is_done = self._journal is not None and self._journal.kept
        return f"{self.runtag} is restored." if is_done else AS_BEFORE

    def recover(self, journal: Journal) -> None:
        """Undo what a dead run left."""
        self._died += recover(self.settings, self.target, journal, self.report)

    def show(self) -> int:
        """Print the plan, with what would be replaced where the archive can be looked into now.

        Raises Refused, or StepFailed, at its end where the restore itself would.
        """
        facts = self.before.facts()
        self._tell_what(facts)
        packed = self._tell_needed(facts)
        contents, before, broken = None, facts, ""
        try:
            contents = self.before.contents(facts)
        except StepFailed as error:
            broken = str(error)
        broken = broken or self._damage(facts)
        targets = self._staging_targets(facts)
        if contents is None and "general" not in facts.kinds:
            contents = Contents()
        if contents:
            facts = self.before.with_items(facts, contents)
            targets = [f"pi:restored/{self.runtag}"]
            self._tell_items(facts, contents)
        elif self.manifest and self.manifest.sizes:
            told = self.before.contents_told(facts, packed)
            self._tell_items(self.before.with_items(facts, told), told)
        else:
            self._tell_items(facts, None)
        self._tell_room(before)
        for line in hook_lines(self.hooks, "restore"):
            self.report.write(line)
        self.report.plan(self._plan(targets, facts))
        self.before.room.refuse(before)
        if broken:
            raise StepFailed(
                f"The restore itself would fail: {broken.rstrip('.')}. Which copies there are: "
                f"inv show '{self.runtag}'"
            )
        return ExitCode.GOOD

    def _damage(self, facts: RestoreFacts) -> str:
        """Return which archive is no longer what was written, of a set that is known as damaged.

        That was recorded when it was verified: it may have been mended since.
        """
        if self.backup.state is not State.DAMAGED:
            return ""
        made = self.manifest.made if self.manifest else ()
        for part in (each for each in made if each.kind in facts.kinds):
            path = f"{self.source.folder}/{part.file}"
            found = hash_there(self.source.storage, path)
            if found != part.sha256:
                return (
                    f"{path} is damaged: its SHA-256 is {found}, and the manifest says "
                    f"{part.sha256}"
                )
        return ""

    def _facts(self) -> RestoreFacts:
        """Return the plan by what is there now; raises Refused where it cannot be carried out."""
        facts = self.before.facts()
        self.before.room.refuse(facts)
        return facts

    def tell(self) -> RestoreFacts:
        """Tell what would be done, and return it; raises Refused where it cannot be."""
        self._told = True
        facts = self._facts()
        self._tell_what(facts)
        packed = self._tell_needed(facts)
        told, contents = facts, None
        if not self.request.yes:
            with self.report.waiting("looking at what would be replaced"):
                contents = self.before.contents_told(facts, packed)
                told = self.before.with_items(facts, contents) if contents else facts
        self._tell_items(told, contents)
        self._tell_room(facts)
        return facts

    def run(self, options: Options, lock: Lock) -> int:
        """Restore under the lock, which is held again before anything is undone."""
        self._lock = lock
        self.journal = self._journal = journal_of(self.settings, self.target, lock)
        self.recover(self.journal)
        facts = self._facts() if self._told else self.tell()
        self._begin_stage(facts)
        staged = (*self._passed_over(), *self.stage.warnings)
        log = log_of(change_of(facts.previous), self.settings, self.target, self._died)
        hooked = Occasion(
            self.target.host, "restore", self.runtag, self.target.folder, log, self.report
        )
        notes = Notes()
        reporter = CompositeReporter(LogReporter(log), self.report, notes)
        left = "Nothing of the stack was touched."
        after = Afterwards()
        warnings = staged
        try:
            result = self._do(self._staging_targets(facts), facts, reporter, options)
            if not result.failed:
                warnings += hooked.run_before(self.hooks.before_restore)
                with self.report.waiting("looking whether all that was unpacked is still there"):
                    self.stage.refuse_hollow(self._staging_targets(facts))
                facts = self.before.with_items(self.before.facts_again(facts))
                self._switching = True
                target = [f"pi:restored/{self.runtag}"]
                result += self._do(target, facts, reporter, options)
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
                raise  # a mistake of this program
            return after.code(ExitCode.WARNINGS)
        if result.failed:
            with committed(left):
                return self._end(result, hooked, left)
        return self._good(facts, (*warnings, *result.warnings), hooked, notes, after)

    def _passed_over(self) -> tuple[str, ...]:
        """Return, for the end, that newer backups were passed over; told at length before."""
        bad = (each for each in self.passed if each.is_bad)
        return tuple(f"{each.runtag}, which is newer, {each.why}" for each in bad)

    def _raise_if_it_stands(self, result: RunResult) -> None:
        """Raise StepFailed where it failed after its commit: its answer was lost, and the lock."""
        if result.failed and self.journal.stands():
            raise StepFailed("; ".join(each.message for each in result.failed))

    def _leave(self, error: BaseException, hooked: Occasion) -> None:
        """Write down why the restore ended early, and let the hooks after it know.

        One that is refused leaves nothing staged.
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

    # What is done.

    def _begin_stage(self, facts: RestoreFacts) -> None:
        """Make the staging folder; what an earlier run fetched of this very set stays in it."""
        parts = self.manifest.made if self.manifest else ()
        hashes = {part.kind: part.sha256 for part in parts}
        files = self.backup.files.items()
        dated = {kind: (fact.size_bytes, int(fact.modified_s)) for kind, fact in files}
        mark = json.dumps(hashes or [self.source.name, dated], sort_keys=True)
        names = [f"{self.runtag}.{KINDS[kind]}" for kind in self.backup.files]
        with self.report.waiting("looking at what was fetched and unpacked before"):
            self.stage.begin(mark, names, apart=facts.volumes_apart)

    def _staging_targets(self, facts: RestoreFacts) -> list[str]:
        return [each.format(runtag=self.runtag) for each in stages({}, facts)]

    @property
    def _storages(self) -> dict[str, Storage]:
        return {"pi": self.target.host, "from": self.source.storage}

    def _plan(self, targets: list[str], facts: RestoreFacts) -> Plan:
        roots = {
            "pi": self.target.folder,
            "from": self.source.folder,
        }
        graph = resolve(restore_book(), targets, roots, facts)
        found = self._look(graph.files)
        known = self.stage.known()
        # A staged folder without a record is none that is whole: it is made again.
        files = {each: fact for each, fact in found.items() if _is_known(each, known)}
        return decide(graph, files, known)

    def _look(self, files: frozenset[File]) -> dict[File, FileFact]:
        """Return what is there of files. Of the set once: what is staged of it is proven.

        So a vault that goes away afterwards stops nothing. Raises NotFound, naming them, where
        archives are gone since the set was chosen, StepFailed where a place does not answer.
        """
        found = dict(self._archives)
        for role, storage in self._storages.items():
            asked = {e.absolute: e for e in files if e.role == role and e not in found}
            facts = storage.stat(asked) if asked else {}
            found |= {asked[path]: fact for path, fact in facts.items() if not fact.other}
        archives = {each for each in files if f"{each}".startswith(("from:", f"pi:{BACKUPS}/"))}
        if gone := sorted(posixpath.basename(each.path) for each in archives - found.keys()):
            self.source.storage.listdir(self.source.folder)  # raises where a vault went away
            raise NotFound(
                f"{self.runtag} is not whole any more in {self.source.name}: {', '.join(gone)} "
                "was there when this began, and was removed or renamed since. Nothing of the "
                "stack was touched. What there is now: inv list"
            )
        self._archives = {each: found[each] for each in archives}
        return found

    def _do(
        self,
        targets: list[str],
        facts: RestoreFacts,
        reporter: CompositeReporter,
        options: Options,
    ) -> RunResult:
        plan = self._plan(targets, facts)
        self._clear_stale(plan)
        self.report.start_bars()
        try:
            return Run(
                plan,
                self._storages,
                store=self.stage,
                journal=self.journal,
                reporter=reporter,
                jobs_at_once=options.jobs,
            ).do()
        finally:
            self.report.stop_bars()

    def _clear_stale(self, plan: Plan) -> None:
        """Remove the staged folders that are made anew: no folder is renamed over a full one."""
        jobs = (each.job for each in plan.to_run if not each.job.rule.transaction)
        self.stage.remove(each.absolute for job in jobs for each in job.outputs if each.is_folder)

    def _clear_stage(self) -> None:
        with (
            self.report.waiting("removing what was staged"),
            contextlib.suppress(StepFailed),  # what is left of it is never taken for whole
        ):
            self.stage.clear()

    # What is said.

    def _tell_what(self, facts: RestoreFacts) -> None:
        unfinished = self.backup.state is State.UNFINISHED
        made = "unfinished" if unfinished else "unproven: it has no manifest"
        made = f"made on {self.manifest.host}" if self.manifest else made
        sizes = ", ".join(
            f"{kind} {size_text(self.backup.files[kind].size_bytes)}" for kind in facts.kinds
        )
        self.report.write(
            f"Restore {self.runtag} ({made}; {sizes}) from {self.source.name} to "
            f"{self.target.name}:{self.target.folder}"
        )
        if self.request.runtag == LATEST:
            host = host_flag(self.request.host)
            for text in passed_told(self.passed, named="--runtag ", host=host):
                self.report.warn(f"  {text}")
            backup = replace(self.backup, manifest=self.manifest)
            asked = (self.settings, self.target, self.request, self.source)
            lacking = lacking_of(self.settings, self.source, self.manifest)
            for text in filter(None, (*newer_elsewhere(*asked, backup), lacking)):
                self.report.warn(f"  {text}")
        for kind in self.backup.unnamed:
            told = unnamed_told(self.runtag, kind).rstrip(".")
            self.report.warn(f"  {told}: it is not restored.")
        only = self.before.only
        for text in (*only.lacking, *only.left_out(facts.kinds, facts.loads)):
            self.report.warn(f"  {text}")
        if not self.request.databases:
            for text in told_of_data(self.manifest, self.request.names):
                self.report.warn(f"  {text}")
        if self.request.only:
            self.report.write(f"  only: {', '.join(self.request.only)}")
        for text in unknown_told(facts):
            self.report.warn(f"  {text}")
        if self.before.planner.takes_compose and self.before.planner.tops_here:
            self.report.write(
                "  the backup's compose file and .env come in the place of those here"
            )
        if self.by_hand:
            self.report.warn(f"  {self.by_hand}")
        for text in self._outside_left(facts):
            self.report.warn(f"  {text}")

    def _tell_needed(self, facts: RestoreFacts) -> Collection[str] | None:
        """Tell what containers that are made need, and no backup holds; return its top files.

        None where they are not known before all is unpacked.
        """
        from_backup = self.before.planner.takes_compose
        archive = f"{self.source.folder}/{self.runtag}.{KINDS['general']}"
        has_any = "general" in facts.kinds and not self.request.only
        packed = top_texts(self.source.storage, archive) if has_any else {}
        if not (facts.bare or from_backup):
            self._tell_containers(facts, None)
            return packed
        if packed is None:
            self._tell_containers(facts, None)
            self.report.warn(
                f"  What the containers need cannot be told: the compose file in {archive} is not "
                "read before all of it."
            )
            return None
        told: tuple[str, ...]
        try:
            found = needed(self.target, self.manifest, packed, from_backup=from_backup)
            told, warnings, needs = found.told, found.warnings, found.needs
        except Unreachable:
            raise
        except StepFailed as error:
            told, warnings = (), (f"What the containers need cannot be told: {error}",)
            needs = None
        self._tell_containers(facts, needs)
        for text in told:
            self.report.write(f"  {text}")
        for text in warnings:
            self.report.warn(f"  {text}")
        return packed

    def _tell_containers(self, facts: RestoreFacts, needs: ComposeNeeds | None) -> None:
        """Tell what becomes of each container of the stack, by name.

        `needs`: what the compose files say that containers are made by, if it is known.
        """
        packed = None
        if self.before.planner.takes_compose and facts.bare:
            packed = needs or ComposeNeeds(are_all=False)
        asked = None
        if self.request.only:
            asked = (*self.request.names, *([facts.server.container] if facts.server else ()))
        found = self.before.planner.here.containers
        self.fates = Fates.of(self.target, self.manifest, facts, asked, packed, found)
        for text in self.fates.told_before():
            self.report.write(f"  {text}")

    def _outside_left(self, facts: RestoreFacts) -> tuple[str, ...]:
        """Return what of the outside part is not restored, or not as it was."""
        outside = self.before.outside
        left = (*outside.left, *outside.plain) if "outside" in facts.kinds else ()
        return (*left, *(outside.not_made if facts.bare else ()))

    def _containers_now(self) -> tuple[InspectedContainer, ...] | str:
        """Return all containers when all is done, or why they cannot be told."""
        try:
            return inspect_all(self.target.host, self.target.docker)
        except StepFailed as error:
            return str(error)

    def _unseen(
        self, facts: RestoreFacts, found: tuple[InspectedContainer, ...] | str
    ) -> tuple[str, ...]:
        """Return what was restored and its containers, as they are now, mount from elsewhere."""
        folder = self.target.folder
        old = self.manifest.folder if self.manifest and not self.request.only else ""
        if not (facts.outside or old not in ("", folder)):
            return ()
        if isinstance(found, str):
            return (f"Whether containers mount what was restored cannot be told: {found}",)
        return (
            *unseen(facts.outside, found),
            *of_old_folder(old, folder, of_stack(found, folder)),
        )

    def _tell_fates(
        self, facts: RestoreFacts, found: tuple[InspectedContainer, ...] | str
    ) -> None:
        """Tell which containers were made, do not run as before, or are not there."""
        if isinstance(found, str):
            return  # told where it matters: of those that were to come up
        for text in self.fates.told_after(facts, self.target.folder, found):
            self.report.write(f"  {text}")

    def _tell_room(self, facts: RestoreFacts) -> None:
        needed = self.before.room.needs(facts)
        listed = ", ".join(
            f"{size_text(size)} for {what}" for what, size in needed.items() if size
        )
        self.report.write(
            f"  needs about {size_text(sum(needed.values()))} ({listed}); "
            f"{size_text(facts.free_bytes)} are free"
        )

    def _tell_items(self, facts: RestoreFacts, contents: Contents | None) -> None:
        """Tell what would differ: what is replaced, what is new, what stays as it is.

        Each thing once. Without `contents` only what of it is known before.
        """
        differences = dict(self._differences(facts, contents)) if contents else {}
        for what, names in differences.items():
            self.report.write(f"  {what}: {names}")
        if differences.get(REPLACES) != "nothing" or REPLACES_AS_WELL in differences:
            self.report.write(f"  what is replaced stays in: {facts.previous}")
        for text in told_before(facts):
            self.report.write(f"  {text}")

    def _differences(self, facts: RestoreFacts, contents: Contents) -> Iterator[tuple[str, str]]:
        host = self.target.host
        lives = {each.live for each in facts.items}
        beside = _beside(facts)
        inside = lives - beside
        present = self._with_parts({*self.before.planner.here.present}, lives)
        present |= which_may_be_there(
            host, [each.live for each in facts.items if not each.is_top_file]
        )
        loaded = [*put_in_place(facts, self.manifest)]
        there = [e for e in facts.outside if not e.volume and may_be_there(host, e.live)]
        new = [each.title for each in facts.outside if each not in there]
        new += [*(e.title for e in facts.fillings), *(e.title for e in facts.volumes)]
        replaced = self._listed([*sorted(inside & present), *(e.title for e in there)])
        made = self._listed([*sorted(inside - present), *new])
        yield (
            REPLACES,
            "; ".join((*replaced, *(name for old, name in loaded if old))) or "nothing",
        )
        if told := "; ".join((*made, *(name for old, name in loaded if not old))):
            yield "new here", told
        for told in self._listed(sorted(beside)):
            yield "put beside what is here, where it differs", told
        if not contents.tops_known:
            how = (
                REPLACES_AS_WELL
                if self.before.planner.takes_compose
                else "put beside what is here"
            )
            yield how, "its compose files and .env, told when the backup is unpacked"
        yield from self._left(facts, "stays as it is", present - lives)

    def _left(
        self, facts: RestoreFacts, what: str, paths: Collection[str]
    ) -> Iterator[tuple[str, str]]:
        """Yield which of some paths stay, but for those that are told as not in the backup.

        Nor a folder around data that a dump replaces.
        """
        data = [each.server.data for each in facts.loads]
        data += facts.server.folders if facts.server else ()
        more = {each.live for each in facts.folders}
        stay = (e for e in paths if e not in more and not any(is_in(each, e) for each in data))
        for told in self._listed([*sorted(stay), *_kept(facts)]):
            yield what, told

    def _with_parts(self, present: set[str], lives: set[str]) -> set[str]:
        """Return what there is, with what is swapped of a folder in place of the folder."""
        folder = self.target.folder
        deep = {each for each in lives if posixpath.relpath(each, folder).count("/") > 1}
        around = {each for each in present if any(one.startswith(f"{each}/") for one in deep)}
        return present - (around - lives) | which_may_be_there(self.target.host, deep)

    def _listed(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Return paths and titles as one text, without the stack's folder; () for none."""
        told = ", ".join(shown(path.removeprefix(f"{self.target.folder}/")) for path in paths)
        return (told,) if told else ()

    def _tell_done(self, facts: RestoreFacts) -> None:
        """Tell what was restored, and what stayed as it was: each thing once."""
        facts = replace(facts, stays=self._not_empty(facts.stays))
        lives = {each.live for each in facts.items}
        inside = {each.live for each in facts.items if not each.is_top_file}
        present = self._with_parts({*present_now(self.target)}, lives)
        loaded = (name for _, name in put_in_place(facts, self.manifest))
        titles = [*(e.title for e in facts.outside), *(e.title for e in facts.fillings)]
        titles += [each.title for each in facts.volumes]
        beside = _beside(facts)  # each has a line of its own
        restored = "; ".join((*self._listed(sorted(lives - beside)), *loaded))
        if restored or not (titles or beside):
            self.report.write(f"  restored: {restored or 'nothing'}")
        if titles:
            outside = ", ".join(titles)
            self.report.write(f"  restored outside of the stack's folder: {outside}")
        if self.before.same:
            self.report.write(f"  here already, the same: {', '.join(self.before.same)}")
        for what, names in self._left(facts, "left as it was", present - inside):
            self.report.write(f"  {what}: {names}")
        for text in told_after(facts):
            self.report.write(f"  {text}")
        self._tell_missing(facts)

    def _tell_missing(self, facts: RestoreFacts) -> None:
        """Tell what no backup has, where it does not lie here either, with what fetches it."""
        manifest = self.manifest
        if manifest is None:
            return
        kept = {*facts.stays, *(what for each in facts.outside for what, _ in each.stays)}
        for each in manifest.left_out:
            place = f"{self.target.folder}/{plain_place(each.what)}"
            asked = not self.request.only or any(is_in(place, item.live) for item in facts.items)
            if not asked or each.what not in manifest.stays or each.what in kept:
                continue
            if not self._is_untouched(each.what, facts):
                told = f"  neither in the backup nor here: {each.what} ({each.reason})"
                self.report.write(told)

    def _not_empty(self, patterns: tuple[str, ...]) -> tuple[str, ...]:
        """Return the patterns without those of a folder in which nothing lies: none of it stayed.

        Tar packs the folder itself, so it is there after any restore.
        """
        places = {each: f"{self.target.folder}/{plain_place(each)}" for each in patterns}
        words = ("find", *places.values(), "-maxdepth", "0", "-type", "d", "-empty", "-print0")
        empty: frozenset[str] = frozenset()
        if places:
            with contextlib.suppress(StepFailed):  # what cannot be looked at is told as kept
                command = Command((*self.target.as_root, *words), ANY_EXIT)
                empty = frozenset(self.target.host.run(command).out.split("\0"))
        return tuple(each for each, place in places.items() if place not in empty)

    def _is_untouched(self, pattern: str, facts: RestoreFacts) -> bool:
        """Tell whether what was left out lies here, in nothing that was put in place."""
        place = place_there(self.target, self.manifest, plain_place(pattern))
        lives = [*(each.live for each in facts.items), *(each.live for each in facts.outside)]
        return not any(is_in(place, each) for each in lives) and may_be_there(
            self.target.host, place
        )

    def _end(self, result: RunResult, hooked: Occasion, left: str) -> int:
        log = hooked.log
        log.write("restore", left)
        if result.damages and self._is_made_again():
            self._clear_stage()
            self._tell_hooks(hooked, "failed")
            log.finish(os.rename)
            raise Refused(
                f"{self.runtag} {in_places(self.source.name)} was made again, or replaced, after "
                f"this restore began: its archives are not those that were meant. {left} Look at "
                "what it is now (inv list), and run this again."
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
        """Tell whether the set has another manifest by now; False where nobody can say."""
        try:
            chosen = choose_set(self.source, self.runtag)
        except IotstackError:
            return False
        return chosen.manifest is not None and chosen.manifest != self.manifest

    def _tell_beside(self, facts: RestoreFacts) -> None:
        """Tell which top files lie beside others, or in their place, and which keys differ."""
        host, root = self.target.host, self.target.as_root
        tops = [e.aside for e in facts.items if is_top_file(posixpath.basename(e.staged))]
        there = host.stat(tops) if self.before.planner.takes_compose else {}
        replaced = []
        for item in facts.items:
            name = posixpath.basename(item.staged)
            here = f"{self.target.folder}/{name}"
            if item.live == here and is_top_file(name) and item.aside in there:
                replaced.append(name)
                told, other = (
                    f"{name} is the backup's now; what was here is {item.aside}",
                    item.aside,
                )
            elif posixpath.basename(item.live) != name:
                told = (
                    f"{name} was left as it was; the backup's is beside it as {name}.{self.runtag}"
                )
                other = item.live
            else:
                continue
            if name.endswith(".env"):
                keys = differing_keys(read_text(host, here, root), read_text(host, other, root))
                told += f"; they differ in {', '.join(keys) or 'nothing but form'}"
            self.report.write(f"  {told}")
        if replaced and not facts.bare:
            self.report.write(
                "  containers are as they were made, by the compose file before. To make them by "
                f"the backup's: {shlex.join(facts.compose)} up --detach"
            )

    def _tell_rows(self) -> None:
        """Tell how many rows of hosts.toml the backup was made with, and this machine has not."""
        there = self.settings
        if self.request.host:
            machine = find_machine(there, self.request.host)
            there = there.of_machine(machine, self.target.folder)
        rows = self.manifest.rows if self.manifest and not self.request.only else ()
        if missing := missing_rows(rows, there):
            number = f"{missing} rows" if missing > 1 else "1 row"
            shows = f"inv show {shlex.quote(self.runtag)} --at {self.source.at}"
            if not self.source.at:  # a folder, or beside the stack of another machine
                shows = f"{self.runtag}.RESTORE.txt in {self.source.folder}"
            self.report.write(
                f"  hosts.toml lacks {number} with which the backup was made; later ones may hold "
                f"less. The rows are in: {shows}"
            )

    def _good(
        self,
        facts: RestoreFacts,
        warnings: tuple[str, ...],
        hooked: Occasion,
        notes: Notes,
        after: Afterwards,
    ) -> int:
        """Tidy up, run the hooks, tell: it is restored, whatever of this cannot be done."""
        hooked.log.write("restore", f"{self.runtag} is restored")
        with self.report.waiting("removing what was staged"):
            staged = f"Not all of {self.stage.folder} was removed, as the next restore does"
            after.do(staged, self._tidy, None)
        told = after.run_hooks(hooked, self.hooks.after_restore, "restored")
        for text in after.left:
            hooked.log.write("restore", text)
        after.do("Its log was not finished", lambda: hooked.log.finish(os.rename), None)
        if hooked.log.broken:
            after.left.append(f"Its log lacks lines: {hooked.log.broken}")
        code = after.do(
            "Not all of it can be told",
            lambda: self._tell_good(facts, warnings, notes, told),
            int(ExitCode.WARNINGS),
        )
        if not told.failures:
            after.do("Old states were not removed", self._remove_states, None)
        for text in after.told():
            self.report.fail(f"{self.runtag} is restored, but afterwards: {text}")
        return after.code(code)

    def _tidy(self) -> None:
        """Remove what was staged, which is another run's if that holds the lock by now."""
        self._lock.hold_again()
        self.stage.clear()

    def _remove_states(self) -> None:
        self._lock.hold_again()
        stack = replace(self.settings.stack, folder=self.target.folder)
        host, root = self.target.host, self.target.as_root
        remove_states(host, stack, lambda: root, self.report.write)

    def _tell_good(
        self, facts: RestoreFacts, warnings: tuple[str, ...], notes: Notes, after: HooksResult
    ) -> int:
        host = host_flag(self.target.name) if self.target.name != "this machine" else ""
        away = f"; the stack was away for {duration_text(self._down_s)}" if facts.running else ""
        self.report.write(f"{self.runtag} is restored{away}. Back to before: inv undo{host}")
        self._tell_done(facts)
        found = self._containers_now()
        self._tell_fates(facts, found)
        for text in notes.told:
            self.report.write(f"  {text}")
        self._tell_beside(facts)
        self._tell_rows()
        by_hand = (self.by_hand,) if self.by_hand else ()
        only = self.before.only
        warnings += (*after.warnings, *only.left_out(facts.kinds, facts.loads), *by_hand)
        warnings += (*self._outside_left(facts), *self.before.kept, *self._unseen(facts, found))
        warnings += unknown_told(facts)
        if not self.request.databases and (
            text := damaged_told(self.manifest, self.request.names)
        ):
            warnings += (text,)
        if not self.request.only and self.manifest and (count := len(self.manifest.uncovered)):
            told = f"  NOT COVERED by the backup, and so not restored: {count:,}, as told above."
            self.report.write(told)
        lacking = only.lacking
        for text in warnings:
            self.report.warn(f"  {text}")
        if lacking:  # told in full before it began
            self.report.warn(f"  {self.runtag} is incomplete: what it lacks stays as it was.")
        for text in after.failures:
            self.report.fail(f"The restore is done, but a hook after it failed: {text}")
        if after.failures:
            return ExitCode.FAILED
        return ExitCode.WARNINGS if warnings or lacking else ExitCode.GOOD


def _is_known(file: File, known: Mapping[str, Record]) -> bool:
    return not file.is_folder or file.role != "pi" or str(file) in known


def _here_too(target: StackHost, request: RestoreRequest) -> str:
    """Return that the set lies on the target itself, if it does, where its vault is away."""
    try:
        here = Source(target.host, target.backups, True, target.name, own_failed(target))
        told = told_here(choose_set(here, request.runtag).backup, "--from here")
    except (NotFound, Refused, StepFailed):  # the vault is what was asked for
        return ""
    return told.replace("lies here too", f"lies on {target.name} too") if request.host else told


def _beside(facts: RestoreFacts) -> set[str]:
    """Return the top files that are put beside those that are here."""
    tops = (each for each in facts.items if each.is_top_file)
    return {e.live for e in tops if posixpath.basename(e.live) != posixpath.basename(e.staged)}


def _kept(facts: RestoreFacts) -> list[str]:
    """Return what the backup left out and a restore lets lie, as its messages call it."""
    outside = (f"{each.title}/{below}" for each in facts.outside for _, below in each.stays)
    return [*sorted(facts.stays), *sorted(outside)]


def differing_keys(here: str, there: str) -> tuple[str, ...]:
    """Return the names of the keys that two env files do not have alike; never their values."""
    mine, theirs = _read_env(here), _read_env(there)
    return tuple(sorted(k for k in {*mine, *theirs} if mine.get(k) != theirs.get(k)))


def _read_env(text: str) -> dict[str, str]:
    pairs = (
        line.partition("=") for line in text.splitlines() if not line.lstrip().startswith("#")
    )
    return {key.removeprefix("export ").strip(): value for key, equals, value in pairs if equals}
