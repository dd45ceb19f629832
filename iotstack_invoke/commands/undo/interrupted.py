"""The pending undos of dead runs on a host: where they are, and whether they are ours.

A restore's journal is in restore/, with the data that it undoes; a backup's beside the backups,
where earlier versions had both. Every undo uses this module, under the lock of the stack.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property

from ...backups.names import COMMANDS_LOCK
from ...core.dataclass import dataclass
from ...core.errors import OldDataGone, Refused, ended
from ...core.stack_folders import BACKUPS, RESTORE
from ...engine.journal import Bound, Journal, name_of, owed_in
from ...engine.steps import HostAccess, UndoableStep
from ...environment.environment import Environment
from ...environment.stack_host import StackHost, journal_paths
from ...hosts.base import ANY_EXIT, Command, Host, sh
from ...hosts.inspect import read_bytes, root_words_if_any
from ...hosts.local import LocalHost
from ...hosts.pasted import host_flag
from ...hosts.trust import Owned, Trust
from ...reporting.report import Report
from ...settings.model import Settings
from ...stack.folders import MakeAside, UseStage
from ...stack.stop_start import wait_for_orphans
from ...stack.swap import MARK_NEW, SwapItem, left_told
from ...workflows.restore import undoable
from ..shared.checks import unfinished
from .elsewhere import note_elsewhere, remove_emptied
from .gone import Fate, cannot_be_back, fates_of_owed, lines_without

GOING_BACK = "going back, newest step first; a container may take a minute to stop"
PRIVATE = "rw-------"
"""Of a lock: every user who may read it may hold it."""
MAKE_LOCK = 'umask 077; : >> "$1"'


@dataclass(frozen=True)
class Owing:
    """A host, and the journals that may have a pending undo."""

    settings: Settings
    host: Host
    folder: str
    """Of the stack."""
    root: Callable[[], tuple[str, ...]]
    """Get the words before a command that needs root, if an undo is pending."""
    trust: Trust

    @classmethod
    def of_target(cls, settings: Settings, target: StackHost) -> Owing:
        """Return the one of a target."""
        trust = Trust(target.host, target.folder, target.as_root)
        return cls(settings, target.host, target.folder, lambda: target.as_root, trust)

    @classmethod
    def of_site(cls, environment: Environment) -> Owing:
        """Return the one of a stack that is backed up; it is read without root, if possible."""
        stack, host = environment.settings.stack, environment.host

        def root() -> tuple[str, ...]:
            return root_words_if_any(host, sudo=stack.sudo)

        return cls(environment.settings, host, stack.folder, root, Trust(host, stack.folder))

    @property
    def backups(self) -> str:
        """The folder of the backups."""
        return f"{self.folder}/{BACKUPS}"

    @property
    def guard(self) -> str:
        """The lock that every changing command holds while it runs."""
        return f"{self.backups}/{COMMANDS_LOCK}"

    @cached_property
    def paths(self) -> tuple[str, str]:
        """The paths of journals: beside the backups, and with what a restore replaces."""
        return journal_paths(self.folder)

    def journal(
        self,
        path: str,
        settle: Callable[[], None] = lambda: None,
        hold: Callable[[], None] = lambda: None,
        guard: str = "",
    ) -> Journal:
        """Return the journal at a path."""

        def bind() -> Bound:
            from .bounds import TargetBounds as Bounds  # rarely needed by a backup

            return Bounds(self.settings, self.host, self.folder, self.root, guard or self.guard)

        def put_aside(steps: Iterable[UndoableStep], is_all: bool) -> Iterable[str]:
            if is_all:
                remove_emptied(self.host, self.root, steps)
            return note_elsewhere(self.host, self.folder, self.root, steps)

        return Journal(self.host, path, undoable(), settle, hold, bind, put_aside)

    def journal_of_backups(self, hold: Callable[[], None] = lambda: None) -> Journal:
        """Return the journal that a backup writes."""
        return self.journal(self.paths[0], hold=hold)

    def make_private(self, report: Report) -> dict[str, list[str]]:
        """Check that other users cannot write what we read back; return the lines of each journal.

        Fixes permissions if possible, with a message. Raises Refused, with what to do, if others
        may have written something that we would trust.
        """
        found = self._look()
        journals = self._believed(found)
        stage = f"{self.folder}/{RESTORE}/."
        for folder in (f"{self.backups}/.", stage):
            told = self.trust.make_private(found[folder], or_refuse=folder == stage)
            if told:
                report.warn(told)
        self.trust.take([found[stage], *journals])
        for path in self._locks:
            self._close(found[path])
        return {each.path: self.lines(each.path) for each in journals}

    def believe(self, path: str) -> None:
        """Check that a kept journal is ours; raises Refused if others may write it."""
        folder = posixpath.dirname(path)
        around = [f"{posixpath.dirname(folder)}/.", f"{folder}/."]
        found = self.trust.stat([*around, path])
        self.trust.refuse(found[path])
        for each in around:
            self.trust.refuse(found[each], "d", path)
        self.trust.take([found[f"{folder}/."], found[path]])

    def read(self) -> list[str]:
        """Return the lines of all journals; raises Refused for one that is not trusted."""
        return [line for each in self._believed(self._look()) for line in self.lines(each.path)]

    @property
    def _locks(self) -> tuple[str, str]:
        return (f"{self.backups}/.lock", self.guard)

    def _look(self) -> Mapping[str, Owned]:
        """Return the owners of what we read back, and of the folders around it."""
        asked = (f"{self.backups}/.", f"{self.folder}/{RESTORE}/.", *self._locks, *self.paths)
        found = self.trust.stat(asked)
        needs_root = any(each.is_hidden or each.user == 0 for each in found.values())
        if needs_root and self.trust.me and not self.trust.as_root:
            self.trust.as_root = self.root()
            found = self.trust.stat(asked) if self.trust.as_root else found
        return found

    def _believed(self, found: Mapping[str, Owned]) -> list[Owned]:
        """Return the existing journals; raises Refused if others may have written one.

        A later chmod does not make existing files in a folder trustworthy.
        """
        journals = [found[path] for path in self.paths if found[path].is_there]
        for each in journals:
            self.trust.refuse(each)
            self.trust.refuse(found[f"{posixpath.dirname(each.path)}/."], "d", each.path)
        return journals

    def _close(self, lock: Owned) -> None:
        """Make a lock inaccessible for others; raises Refused for one that is not ours."""
        if not lock.is_there:
            if lock.path == self.guard:
                self.host.run(Command(("sh", "-c", MAKE_LOCK, "sh", lock.path)))
            return
        if lock.permissions[0] != "-" or not self.trust.is_us(lock):
            raise Refused(
                f"On {self.host.name}: {lock.path} is not a lock of this program: "
                f"{self.trust.others(lock) or 'it is not a plain file'}. Its owner could block "
                "every run. Nothing was changed. If no run is active, remove it: sudo rm "
                f"{shlex.quote(lock.path)}"
            )
        if lock.permissions[1:10] != PRIVATE:
            self.trust.take([lock])
            as_root = self.trust.as_root if lock.user not in (0, self.trust.me) else ()
            self.host.run(Command((*as_root, "chmod", "600", "--", lock.path), ANY_EXIT))

    def lines(self, path: str) -> list[str]:
        """Return the lines of an existing journal; raises StepFailed if it cannot be read."""
        content = read_bytes(self.host, path, self.trust.as_root)
        return content.decode("utf-8", "surrogateescape").splitlines()

    def mark_new(self, journal: Journal, lines: Sequence[str], *, kept: bool = False) -> None:
        """Mark items that a restore of the first versions put at free paths: they did not.

        Without the mark an item looks like one whose old data were removed. `kept`: the restore
        succeeded. If it did not, an item that was not put in place is still in its stage; items
        elsewhere may be gone since an undo began, and are not judged.
        """
        if not leaves_no_marks(lines):
            return
        steps = [each for _, each in journal.read(lines)]
        items = [each for each in steps if isinstance(each, SwapItem)]
        stages = [path for each in steps if isinstance(each, UseStage) for path in each.folders]
        there = [each.path for each in steps if isinstance(each, MakeAside)]
        if not kept:
            stages = [e for e in stages if any(i.staged.startswith(f"{e}/") for i in items)]
            items = [i for i in items if any(i.staged.startswith(f"{e}/") for e in stages)]
            there += stages
        paths = [path for e in items for path in (e.live, e.staged, e.aside, e.used)]
        access = HostAccess("pi", self.trust.as_root, guard=self.guard)
        self.host.run(access.guarded_root(*sh(MARK_NEW, *there, "", *paths)))

    def undo_all(
        self, owed: Mapping[str, Sequence[str]], journal: Journal, report: Report
    ) -> list[str]:
        """Undo what is pending in all journals, after the last command ended; return their lines.

        `owed`: these lines by journal, from make_private. `journal`: that of this run.
        """
        all_lines: list[str] = []
        for path, lines in owed.items():
            own = journal if path == journal.path else journal.at(path)
            with report.waiting(GOING_BACK):
                if lines:
                    wait_for_orphans(self.host, self.guard)
                self.mark_new(own, lines)
                try:
                    undone_steps = own.recover(self._without_gone(own, lines))
                except OldDataGone as error:
                    raise self._with_way_out(error) from error
            journal.gone |= own.gone
            for undone in undone_steps:
                report.tell(f"rolled back after an interrupted run: {undone}")
            all_lines += lines
        for text in journal.told:
            report.warn(text)
        return all_lines

    def tell_owed(self, report: Report) -> None:
        """Warn of what a run would undo first, for a dry run, which undoes nothing.

        Raises OldDataGone if it cannot be undone, and Refused if it is not trusted, as the run
        would.
        """
        if not self.host.stat(self.paths):
            return
        for each in self._believed(self._look()):
            lines = self.lines(each.path)
            change = unfinished(lines)
            if not change:
                continue
            if gone := self.gone(lines):
                raise self._with_way_out(_gone_told(gone, each.path))
            report.warn(
                f"{change} is running or was interrupted. If interrupted, it is undone first; "
                "what follows is about the present stack."
            )

    def _with_way_out(self, error: OldDataGone) -> OldDataGone:
        far = "" if isinstance(self.host, LocalHost) else host_flag(self.host.name)
        return OldDataGone(
            f"On {self.host.name}: {ended(error)} "
            f"Put it back if you have a copy. If not: inv undo{far} --leave-gone undoes the rest "
            "and leaves this unchanged."
        )

    def gone(self, lines: Sequence[str]) -> tuple[Fate, ...]:
        """Return the removed data of an unfinished change, which cannot be put back.

        For one of the first versions that is unknown before it is marked.
        """
        if leaves_no_marks(lines):
            return ()
        return cannot_be_back(fates_of_owed(self.host, self.trust.as_root, lines))

    def _without_gone(self, journal: Journal, lines: Sequence[str]) -> Sequence[str]:
        """Return lines of a journal without what cannot be undone, if that is to be left.

        Otherwise raises OldDataGone, before anything is undone: an undo would put back only a part
        of a folder whose old data are gone.
        """
        fates = fates_of_owed(self.host, self.trust.as_root, lines)
        gone = cannot_be_back(fates)
        if gone and not journal.leave_gone:
            raise _gone_told(gone, journal.path)
        journal.gone |= bool(gone)
        return lines_without(lines, fates)


def _gone_told(gone: Iterable[Fate], path: str) -> OldDataGone:
    told = " ".join(left_told(each.live, each.aside) for each in gone)
    return OldDataGone(
        f"{told} Nothing was undone: the steps to undo are in {path}; no run starts before they "
        "are undone."
    )


def leaves_no_marks(lines: Iterable[str]) -> bool:
    """Return whether a journal's version did not mark items that it put at free paths.

    Such versions do not list notes about users among the files they consume either.
    """
    used = [each.fields["folders"] for each in owed_in(lines) if each.step == name_of(UseStage)]
    return bool(used) and not any(str(path).endswith(".users") for e in used for path in e)
