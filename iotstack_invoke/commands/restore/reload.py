"""One reload of InfluxDB from the first check to the last message.

lock → undo what a dead run left → gather facts → confirm → dump, check, swap, load, compare →
report. Until the commit every step has an undo, and afterwards `inv undo` undoes the reload.
"""

from __future__ import annotations

import os
import posixpath
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from ...core.dataclass import dataclass
from ...core.errors import ExitCode, Interrupted, IotstackError, Refused, UsageError
from ...core.processes import signals_raised
from ...core.stack_folders import RESTORE
from ...databases.influxdb.count import Count
from ...databases.influxdb.dump import BACKUP_INSIDE, influx_version
from ...engine.executor import Run, RunResult
from ...engine.journal import Journal
from ...engine.memory_ledger import MemoryRecords
from ...engine.plan import Plan, decide, resolve
from ...environment.stack_host import Lock, StackHost, locked_target, open_target, require_stack
from ...hosts.base import ANY_EXIT, Command
from ...hosts.inspect import mount_points, read_text, stat_on
from ...hosts.pasted import host_flag
from ...hosts.shutdown import blocked_if_local
from ...reporting.report import CompositeReporter, Report, duration_text, size_text
from ...reporting.run_log import LogReporter, RunLog
from ...settings.model import Settings
from ...stack.compose import inspect_all, named
from ...stack.kept_until import UNTIL_FILE, read_until
from ...stack.mounted import mounts_around
from ...workflows.reload import ReloadFacts, reload_book
from ..shared.afterwards import Afterwards
from ..shared.confirm import confirm
from ..shared.restore_id import OF_RELOADS, change_of
from ..undo.change_logs import log_folder
from ..undo.expiry import find_expired, remove_old
from ..undo.interrupted import Owing
from ..undo.old_states import remove_states
from ..undo.undo import journal_of, recover, what_is_left
from .changes import committed, log_of
from .target_checks import (
    influx_apart,
    mount_higher,
    refuse_inner_mounts,
    refuse_mounts,
    refuse_stage_apart,
    server_in,
    time_stamp,
)

PURPOSE = "reload-influxdb"
AS_BEFORE = "InfluxDB is in its previous state."
SHOW_DATABASES = ("influx", "-execute", "SHOW DATABASES")
ASK_LIMIT_S = 600.0
ROOM_EACH = 1.25
"""The size of a dump and of the loaded data: more than the present data if files are unmerged."""


@dataclass(frozen=True, slots=True)
class Reload:
    """The request of the user."""

    host: str = ""
    keep_old_days: int | None = None
    """How long the old data are kept; None: until the user removes them."""
    values: bool = True
    """Count all values before and after."""
    yes: bool = False


@dataclass(frozen=True, slots=True)
class InfluxFigures:
    """Measured at a running InfluxDB before and after."""

    size_bytes: int
    """Its data on the disk."""
    answer_s: float
    """How long `docker exec … SHOW DATABASES` took."""


def read_days(text: str) -> int | None:
    """Return the days of --keep-old, None if it is not given; raises UsageError."""
    if not text:
        return None
    if not text.isdecimal() or len(text) > 5:  # noqa: PLR2004 - two centuries
        raise UsageError(f"--keep-old {text}: use a number of days, such as 14, or 0.")
    return int(text)


def reload_influxdb(settings: Settings, asked: Reload, report: Report, *, dry_run: bool) -> int:
    """Reload InfluxDB and return the exit code; raises IotstackError if it was refused."""
    try:
        with signals_raised(), open_target(settings, asked.host) as target:
            require_stack(target)
            if dry_run:
                Owing.of_target(settings, target).tell_owed(report)
                return _Reload(settings, target, asked, report).show()
            died: tuple[str, ...] = ()
            if not asked.yes:  # a backup may run during the question
                with locked_target(target, PURPOSE) as lock:
                    died = recover(settings, target, journal_of(settings, target, lock), report)
                _Reload(settings, target, asked, report).tell()
                confirm(asked.host, "reload InfluxDB")
            with (
                locked_target(target, PURPOSE) as lock,
                blocked_if_local(target.host, "reloading InfluxDB", target.as_root),
            ):
                return _Reload(settings, target, asked, report).run(lock, died)
    except Interrupted as error:
        left = error.left or AS_BEFORE
        report.fail(f"The reload was {error}. {left}")
        return error.exit_code


class _Reload:
    """A reload of the InfluxDB of one target."""

    def __init__(
        self, settings: Settings, target: StackHost, asked: Reload, report: Report
    ) -> None:
        self.settings = settings
        self.target = target
        self.asked = asked
        self.report = report
        self._stamp = ""

    def show(self) -> int:
        """Print the plan; change nothing."""
        facts = self._facts()
        self._tell_what(facts, self._look(facts))
        self.report.plan(self._plan(facts))
        return ExitCode.GOOD

    def tell(self) -> None:
        """Print what would be done; raises Refused if it is impossible."""
        self._tell_what(*self._ready())

    def _ready(self) -> tuple[ReloadFacts, InfluxFigures]:
        facts = self._facts()
        look = self._look(facts)
        self._refuse_without_room(facts, look)
        return facts, look

    def run(self, lock: Lock, died: tuple[str, ...] = ()) -> int:
        """Reload under the lock; `died` are the messages on an earlier dead run."""
        target = self.target
        journal = journal_of(self.settings, target, lock)
        died += recover(self.settings, target, journal, self.report)
        for folders in find_expired(target.host, target.folder, as_root=target.as_root):
            remove_old(target.host, folders, target.as_root)
            self.report.tell(f"removed (expired): {folders[0]}")
        facts, before = self._ready()
        if self.asked.yes:
            self._tell_what(facts, before)
        folder = f"{target.folder}/{RESTORE}"
        target.host.run(Command(("mkdir", "-p", "-m", "0700", "--", folder)))
        change = change_of(facts.previous, reload=True)
        log = log_of(change, self.settings, target, died)
        reporter = CompositeReporter(LogReporter(log), self.report)
        began, started = datetime.now().astimezone(), time.monotonic()
        self.report.tell(f"InfluxDB is unavailable from {began:%H:%M:%S}.")
        self.report.start_bars()
        after = Afterwards()
        warnings: tuple[str, ...] = ()
        try:
            result = Run(
                self._plan(facts),
                {"pi": target.host},
                store=MemoryRecords({}),
                journal=journal,
                reporter=reporter,
            ).do()
            warnings = result.warnings
        except BaseException as error:
            if not journal.stands() or not isinstance(error, (IotstackError, OSError)):
                log.write("reload", f"ended early: {error}")
                log.finish(os.rename)
                if isinstance(error, Interrupted):
                    error.left = what_is_left(target, journal, AS_BEFORE)
                raise
            after.note("It ended early", error)
        else:
            if result.failed and not journal.stands():
                return self._end(result, log, journal)
            after.left += [f"It ended early: {each.message}" for each in result.failed]
        finally:
            self.report.stop_bars()
        return self._good(facts, before, warnings, log, self._away(began, started), after)

    def _away(self, began: datetime, started: float) -> str:
        return f"{duration_text(time.monotonic() - started)}, from {began:%H:%M:%S} on"

    @property
    def name(self) -> str:
        """The name of the created folders; known when the facts are."""
        return f"{OF_RELOADS}-{self._stamp}"

    # Checks

    def _facts(self) -> ReloadFacts:
        target, host = self.target, self.target.host
        name = self.settings.influx.container
        found = inspect_all(host, target.docker)
        container = named(found, name)
        if container is None:
            raise Refused(
                f"On {target.name} the stack has no container named {name}, so there is no "
                "InfluxDB to reload. If its container has another name, set it: [influxdb] "
                "container in hosts.toml."
            )
        if not container.container.running:
            raise Refused(
                f"On {target.name} container {name} is stopped. Start it, then run this again."
            )
        version = influx_version(host, name, target.docker)
        if not version.startswith("1."):
            raise Refused(f"Container {name} runs InfluxDB {version}; a reload is for 1.x.")
        refuse_inner_mounts(target, found, name)
        server = server_in(target, found, name)
        meta = ("stat", "-c", "%i", "--", f"{server.data}/meta/meta.db")
        if not stat_on(host, meta, target.as_root):
            raise Refused(
                f"On {target.name} {server.data} has no InfluxDB data: container {name} must map "
                "/var/lib/influxdb to a folder. Nothing was changed."
            )
        refuse_stage_apart(target)
        refuse_mounts(target, ([server.data], mount_higher))
        self._stamp = time_stamp(target, self._stamp, log_folder(self.settings.stack.folder, host))
        previous = f"{target.folder}/{RESTORE}/previous-{self.name}"
        apart = influx_apart(target, server, with_volumes=False)
        aside = f"{apart}/.previous-{self.name}" if apart else previous
        return ReloadFacts(
            server=server,
            access=target.access,
            stage=f"{target.folder}/{RESTORE}/{self.name}",
            stage_inside=posixpath.join(BACKUP_INSIDE, self.name),
            previous=previous,
            aside=aside,
            used=f"{aside}-undone",
            limit_s=self.settings.influx.limit_s,
            mounts=mounts_around(mount_points(host), (server.data, previous)),
            keep_days=self.asked.keep_old_days or 0,
            values=self.asked.values,
        )

    def _look(self, facts: ReloadFacts) -> InfluxFigures:
        host = self.target.host
        measure = ("du", "-s", "-B1", "--", facts.server.data)
        size = stat_on(host, measure, facts.access.as_root, ASK_LIMIT_S).split("\t")[0]
        words = (*facts.access.docker, "exec", facts.server.container, *SHOW_DATABASES)
        started = time.monotonic()
        host.run(Command(words, ANY_EXIT, ASK_LIMIT_S))  # says if it needs a password
        return InfluxFigures(int(size) if size.isdigit() else 0, time.monotonic() - started)

    def _refuse_without_room(self, facts: ReloadFacts, look: InfluxFigures) -> None:
        host, needed = self.target.host, int(look.size_bytes * ROOM_EACH)
        stage, data = self.target.folder, posixpath.dirname(facts.server.data)
        wanted = (
            {stage: 2 * needed} if facts.aside == facts.previous else {stage: needed, data: needed}
        )
        for folder, size in wanted.items():
            free = host.free_bytes(folder) or 0
            if free < size:
                raise Refused(
                    f"On {self.target.name} {size_text(free)} are free in {folder}, but a reload "
                    f"needs about {size_text(size)} for the dump and the new data, in addition "
                    f"to the existing {size_text(look.size_bytes)}. Nothing was changed. Free "
                    "some space there."
                )

    def _plan(self, facts: ReloadFacts) -> Plan:
        roots = {"pi": self.target.folder}
        return decide(resolve(reload_book(), [f"pi:reloaded/{self.name}"], roots, facts), {})

    # Messages

    def _tell_what(self, facts: ReloadFacts, look: InfluxFigures) -> None:
        self.report.write(
            f"Reload InfluxDB on {self.target.name}: {size_text(look.size_bytes)} in "
            f"{facts.server.data}"
        )
        self.report.write(
            f"  stops and restarts: {facts.server.container}; everything else keeps running, but "
            "writes to InfluxDB are refused meanwhile"
        )
        if self.asked.keep_old_days != 0:
            self.report.write(f"  the old data are kept in: {facts.aside}")

    def _end(self, result: RunResult, log: RunLog, journal: Journal) -> int:
        left = what_is_left(self.target, journal, AS_BEFORE)
        with committed(left):
            log.write("reload", left)
            log.finish(os.rename)
            self.report.failed(result.failed)
            self.report.fail(f"InfluxDB was not reloaded. {left} The log: {log.path}")
            return ExitCode.FAILED

    def _good(
        self,
        facts: ReloadFacts,
        before: InfluxFigures,
        warnings: tuple[str, ...],
        log: RunLog,
        away: str,
        after: Afterwards,
    ) -> int:
        """Clean up and report: it is reloaded, even if some of this fails."""
        host = self.target.host
        log.write("reload", f"InfluxDB is reloaded; it was unavailable for {away}")
        words = (*facts.access.as_root, "rm", "-rf", "--", facts.stage)
        removing = Command(words, timeout_s=ASK_LIMIT_S)
        after.do(f"Could not remove the dump in {facts.stage}", lambda: host.run(removing), None)
        kept = after.do("Could not remove the old data", lambda: self._keep_old(facts), "")
        now = after.do("Could not measure its new size", lambda: self._look(facts), None)
        for text in after.left:
            log.write("reload", text)
        after.do("Could not finish its log", lambda: log.finish(os.rename), None)
        if log.broken:
            after.left.append(f"Its log is incomplete: {log.broken}")
        told = (facts, before, now, away, kept)
        after.do("The report is incomplete", lambda: self._tell_good(*told), None)
        after.do("Could not remove old states", self._remove_states, None)
        for text in warnings:
            self.report.warn(f"  {text}")
        for text in after.told():
            self.report.fail(f"InfluxDB is reloaded, but a later step failed: {text}")
        return after.code(ExitCode.WARNINGS if warnings else ExitCode.GOOD)

    def _remove_states(self) -> None:
        stack = replace(self.settings.stack, folder=self.target.folder)
        host, root = self.target.host, self.target.as_root
        remove_states(host, stack, lambda: root, self.report.tell)

    def _tell_good(
        self,
        facts: ReloadFacts,
        before: InfluxFigures,
        now: InfluxFigures | None,
        away: str,
        kept: str,
    ) -> None:
        self.report.write(f"InfluxDB is reloaded; it was unavailable for {away}.")
        if now:
            rows = _rows(facts.before.count, facts.after.count, before, now)
            self.report.table(("of InfluxDB", "before", "after"), rows, right=(1, 2))
        if kept:
            self.report.write(kept)

    def _keep_old(self, facts: ReloadFacts) -> str:
        """Remove the old data if requested; return the message on them."""
        host, days = self.target.host, self.asked.keep_old_days
        far = host_flag(self.asked.host)
        folders = dict.fromkeys((facts.previous, facts.aside))
        if days == 0:
            remove_old(host, folders, facts.access.as_root)
            return "The old data are removed."
        told = f"To return to the old data, in {facts.aside}: inv undo{far}."
        if days is None:
            return f"{told} They are kept as set by keep_previous in [stack] of hosts.toml."
        until = read_until(read_text(host, f"{facts.previous}/{UNTIL_FILE}"))
        day = f"{until.astimezone():%Y-%m-%d %H:%M}" if until else f"{days} days"
        where = f" on {self.target.name}" if self.asked.host else ""
        return f"{told} The first backup, prune or reload{where} after {day} removes them."


def _rows(
    before: Count | None, after: Count | None, was: InfluxFigures, is_now: InfluxFigures
) -> Iterator[tuple[str, str, str]]:
    """Return the lines of the comparison."""
    if before and after:
        yield "databases", f"{len(before.databases):,}", f"{len(after.databases):,}"
        yield "series (estimated)", f"{before.series:,}", f"{after.series:,}"
        yield "values", _number(before.points), _number(after.points)
    yield "size on disk", size_text(was.size_bytes), size_text(is_now.size_bytes)
    yield "SHOW DATABASES", f"{was.answer_s:.2f} s", f"{is_now.answer_s:.2f} s"


def _number(count: int | None) -> str:
    return "not counted" if count is None else f"{count:,}"
