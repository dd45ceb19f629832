"""How to undo each step, written before the step runs, in a file on the host that is changed.

JSON lines, each synced before its step runs: the step of a torn last line never ran. They hold
the names of steps, paths and names, but no program's command: the target supplies those for the
undo. A line with the job's name marks its steps as done. While an undo is pending, no run starts.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Protocol

from ..core.dataclass import dataclass
from ..core.errors import Interrupted, IotstackError, OldDataGone, StepFailed, Unreachable, ended
from ..hosts.base import Host
from ..hosts.inspect import undo_on
from .steps import HostAccess, UndoableStep

WORDS = frozenset({"as_root", "docker", "compose", "guard", "lock"})
"""The fields of a step that the target supplies: how it calls a program, and its locks. They are
never written, and those that earlier versions wrote are never read."""

BY_HAND = "with the version that wrote it, or by hand, as docs/recovery.md says"


class Bound(Protocol):
    """What the target supplies for the steps in a journal."""

    def access(self, role: str) -> HostAccess:
        """Return how steps reach the host of a role."""
        ...

    def word(self, field: str) -> Any:
        """Return the value of a step's field that is one of WORDS."""
        ...

    def refuse(self, steps: Iterable[UndoableStep]) -> None:
        """Raise StepFailed if a step would change something that its kind never changes."""
        ...


@dataclass(frozen=True, slots=True)
class Owed:
    """A step still to be undone, as the file describes it."""

    job: str
    step: str
    fields: Mapping[str, Any]


def owed_in(lines: Iterable[str]) -> tuple[Owed, ...]:
    """Return the steps still to be undone, oldest first; a torn line is skipped."""
    owed: list[Owed] = []
    for line in lines:
        try:
            entry = json.loads(line)
            if "done" in entry:
                owed = [each for each in owed if each.job != entry["done"]]
            else:
                owed.append(Owed(str(entry["job"]), str(entry["step"]), {**entry["fields"]}))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # torn: its step never ran
    return tuple(owed)


def is_told(line: str) -> bool:
    """Return whether a line of a journal is complete."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def name_of(kind: type[Any]) -> str:
    """Return the name of a step class in journals: its own, or its `journaled_as`.

    Set `journaled_as` when a class is renamed: existing journals have the old name.
    """
    return str(vars(kind).get("journaled_as", kind.__name__))


def written(step: UndoableStep) -> dict[str, Any]:
    """Return what a journal holds of a step: neither program commands, nor their parts.

    Of the way to its host, only the role.
    """
    told: Mapping[str, Any] = getattr(step, "journaled", lambda: _fields_of(step))()
    own = {name: value for name, value in told.items() if name not in WORDS}
    return {"host_role": step.access.role, **own}


def _fields_of(step: UndoableStep) -> dict[str, Any]:
    """Return the fields of a step, without its way to the host."""
    assert is_dataclass(step)  # noqa: S101 - steps are frozen dataclasses
    names = (each.name for each in fields(step))
    return {name: getattr(step, name) for name in names if name != "access"}


class Journal:
    """The journal of one host."""

    def __init__(
        self,
        host: Host,
        path: str,
        steps: Iterable[type[Any]],
        settle: Callable[[], None] = lambda: None,
        hold: Callable[[], None] = lambda: None,
        bind: Callable[[], Bound] | None = None,
        put_aside: Callable[[Iterable[UndoableStep], bool], Iterable[str]] = lambda *_: (),
    ) -> None:
        self.host = host
        self.hold = hold
        """Acquire the lock, or verify that it is held, before anything is undone; raises Busy."""
        self.settle = settle
        """Wait until no command of a step runs: one may outlive its connection."""
        self.told: list[str] = []
        """What a user should know of undone steps: what could not be restored."""
        self.bind = bind
        """Ask the target for its program commands, which no journal holds."""
        self.put_aside = put_aside
        """Record where undone steps moved live data; return sentences for the user.

        The flag says that nothing is left to undo: then the folders that they emptied may go."""
        self.leave_gone = False
        """Skip data that cannot be put back, instead of stopping there."""
        self.gone = False
        """Something could not be put back, and was skipped."""
        self.path = path
        self._steps: Mapping[str, type[Any]] = {name_of(each): each for each in steps}
        self._owed: list[tuple[str, UndoableStep]] = []
        self._undone: list[UndoableStep] = []
        self._lock = threading.Lock()
        self._torn = False
        self.kept = ""
        """The file that the journal became by a commit, '' before that."""
        self._renamed = ""
        """Where the journal may be instead, if the result of its rename is unknown."""

    def at(self, path: str) -> Journal:
        """Return another journal of the same host."""
        steps = self._steps.values()
        more = (self.settle, self.hold, self.bind, self.put_aside)
        other = Journal(self.host, path, steps, *more)
        other.told, other.leave_gone = self.told, self.leave_gone
        return other

    def write(self, job: str, step: UndoableStep) -> None:
        """Record a step that is about to run."""
        line = {"job": job, "step": name_of(type(step)), "fields": written(step)}
        with self._lock:
            self._append(line)
            self._owed.append((job, step))

    def forget(self, job: str, *, keep: str = "") -> None:
        """Record that the steps of a job need no undo any more.

        `keep` names a file that the journal is renamed to: passing its lines to `recover` undoes
        all of it later.
        """
        with self._lock:
            if not any(owner == job for owner, _ in self._owed):
                return
            if keep:
                self._renamed = keep
                self.host.rename(self.path, keep)
                self._owed, self._renamed, self.kept = [], "", keep
                return
            self._append({"done": job})
            self._owed = [(owner, step) for owner, step in self._owed if owner != job]
            self._remove_if_empty()

    def stands(self) -> bool:
        """Return whether the commit was done, even if its answer was lost; False if unknown."""
        if self._renamed and not self.kept:
            with contextlib.suppress(IotstackError):
                there = self.host.stat([self.path, self._renamed])
                if self._renamed in there and self.path not in there:
                    self._owed, self._renamed, self.kept = [], "", self._renamed
        return bool(self.kept)

    def owes(self, job: str) -> bool:
        """Return whether steps of a job are still to be undone."""
        return any(owner == job for owner, _ in self._owed)

    def undo(self, job: str | None = None) -> tuple[str, ...]:
        """Undo the steps of a job, or of all jobs, newest first; return what was undone.

        Raises StepFailed if an undo fails; the pending steps stay in the file.
        """
        with self._lock:
            if self._owed:
                self.hold()
            if self._renamed:
                try:
                    self.host.rename(self._renamed, self.path)
                except Unreachable:
                    raise
                except StepFailed:
                    pass  # the first rename did not happen
                self._renamed = ""
            undone = []
            for owner, step in reversed(list(self._owed)):
                if job is not None and owner != job:
                    continue
                try:
                    if told := step.undo(self.host):
                        self.told.append(told)
                except OldDataGone as error:
                    if not self.leave_gone:
                        raise OldDataGone(
                            f"{ended(error)} "
                            f"The steps to undo are in {self.path}; no run starts before they "
                            "are undone."
                        ) from error
                    self.gone = True
                    self.told.append(f"{ended(error)} It was not changed.")
                except Interrupted as error:
                    error.left = (
                        f"The rollback is incomplete: the steps to undo are in {self.path}. Run "
                        f"`{undo_on(self.host)}`; the next run also continues it."
                    )
                    raise
                except IotstackError as error:
                    raise StepFailed(
                        f"Undoing '{name_of(type(step))}' of '{owner}' failed: {ended(error)} "
                        f"The steps to undo are in {self.path}; the next run tries again first."
                    ) from error
                self._owed.remove((owner, step))
                self._undone.append(step)
                undone.append(f"{owner}: {name_of(type(step))}")
            if undone:
                self.told += self.put_aside(self._undone, not self._owed)
            owners = {owner for owner, _ in self._owed}
            if undone and job is not None and job not in owners and self._owed:
                self._append({"done": job})
            if undone:
                self._remove_if_empty()
            return tuple(undone)

    def recover(self, lines: Iterable[str]) -> tuple[str, ...]:
        """Undo what a crashed run left in the journal; return what was undone.

        Raises StepFailed for a step that this version does not know, or that would change
        something that its kind never changes: then nothing is undone.
        """
        self._owed = self.read(lines)
        undone = self.undo()
        self._remove_if_empty()
        return undone

    def read(self, lines: Iterable[str]) -> list[tuple[str, UndoableStep]]:
        """Return the pending steps in lines of the journal, with their jobs.

        Raises StepFailed as `recover` does. Changes nothing.
        """
        owed: list[tuple[str, UndoableStep]] = []
        bound: Bound | None = None
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue  # torn: its step never ran
            try:
                if "done" in entry:
                    owed = [(o, s) for o, s in owed if o != entry["done"]]
                else:
                    bound = bound or (self.bind() if self.bind else None)
                    owed.append((entry["job"], self._step(entry, bound)))
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise StepFailed(
                    f"{self.path} line {number}: this version does not know this step: "
                    f"{line.strip()} Undo it {BY_HAND}; until then nothing is changed."
                ) from error
        if bound:
            try:
                bound.refuse(step for _, step in owed)
            except StepFailed as error:
                raise StepFailed(
                    f"{self.path}: {ended(error)} "
                    "Nothing was undone. Check that file: this version did not write it. If an "
                    f"earlier version did, undo it {BY_HAND}."
                ) from error
        steps = [step for _, step in owed]
        return [(o, s.beside(steps) if hasattr(s, "beside") else s) for o, s in owed]

    def _step(self, entry: Mapping[str, Any], bound: Bound | None) -> UndoableStep:
        told = {k: tuple(v) if isinstance(v, list) else v for k, v in entry["fields"].items()}
        kind, role = self._steps[entry["step"]], str(told.pop("host_role"))
        told = getattr(kind, "of_earlier", dict)(told)
        known = {k: v for k, v in told.items() if k not in WORDS}
        access = bound.access(role) if bound else HostAccess(role)
        missing = {each.name for each in fields(kind)} & WORDS
        words = {name: bound.word(name) for name in missing} if bound else {}
        step: UndoableStep = getattr(kind, "revived", kind)(access, **known, **words)
        return step

    def _append(self, entry: Mapping[str, Any]) -> None:
        # ASCII, for names that are not UTF-8. A line torn by a full disk must not hide the next.
        line = json.dumps(entry)
        before, self._torn = "\n" if self._torn else "", True
        self.host.append(self.path, before + line)
        self._torn = False

    def _remove_if_empty(self) -> None:
        if not self._owed:
            self.host.remove([self.path])
