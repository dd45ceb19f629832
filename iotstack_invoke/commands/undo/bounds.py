"""What the steps of a journal may act on, and their commands: the target's own.

A journal is trusted only if it is ours (trust.py). Even so it contains no commands, and a path
that no restore would have written is refused before anything is undone.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from ...core.dataclass import dataclass
from ...core.errors import StepFailed
from ...core.runtag import is_runtag
from ...core.stack_folders import BACKUPS, RESTORE
from ...databases.influxdb import dump as influx
from ...databases.influxdb2 import dump as influx2
from ...databases.sqlite.files import COPIES, OUTSIDE_COPIES
from ...engine.journal import name_of
from ...engine.steps import HostAccess, UndoableStep
from ...environment.stack_host import docker_words_if_any
from ...hosts.base import Command, Host
from ...hosts.inspect import read_text
from ...settings.model import Settings
from ...stack.compose import (
    InspectedContainer,
    Mount,
    chosen_files,
    compose_words,
    inspect_all,
    named,
)
from ...stack.inside import above, is_in, path_on_host
from ...stack.path_owners import is_of_others, volume_in
from ...stack.quiesce import MARK
from ...stack.stack_holdings import WATCHED, is_system

# Each kind is a method of TargetBounds, except `inside`: that is a path in a container.
FIELDS: Mapping[str, Mapping[str, str]] = {
    "ComposeUp": {"folder": "compose", "files": "compose", "variables": "compose"},
    "CopyFolder": {"target": "own"},
    "CopySqlite": {"target": "copies"},
    "CopyStays": {"target": "own"},
    "DumpInflux": {"on_host": "dump", "inside": "inside"},
    "DumpInflux2": {"on_host": "dump", "inside": "inside"},
    "GiveStack": {"path": "stack"},
    "KeepLeftOut": {"live": "live", "aside": "aside"},
    "LeaveGone": {"live": "live", "aside": "aside"},
    "MakeAround": {"path": "around", "live": "live"},
    "MakeAside": {"path": "own"},
    "MakeFolder": {"path": "own"},
    "MakeLink": {"path": "live", "leads_to": "live"},
    "MakeVolume": {},
    "MoveAside": {"live": "live", "aside": "aside", "used": "aside"},
    "PutAway": {"live": "live", "aside": "aside", "used": "aside"},
    "PutCatalogue": {"previous": "own", "notes": "own"},
    "Quiesce": {"mark": "mark"},
    "RunAlone": {},
    "RunSqlAlone": {"environment": "own"},
    "StartContainers": {},
    "StopContainers": {},
    "SwapEntries": {"live": "live", "aside": "aside", "used": "aside"},
    "SwapItem": {"live": "live", "aside": "aside", "used": "aside"},
    "Unpack": {"folder": "own"},
    "UseStage": {"folders": "own"},
}
"""By step: which of its fields are paths that its undo acts on, and the kind of each."""
NAMES = frozenset({"alone", "container", "name", "names", "services"})
"""Fields that are names of containers, services and volumes."""
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_OURS = re.compile(r"\.(fresh|fresh-.+|restore-.+|previous-.+-\d{8}T\d{6}Z(-undone|-new)?)")
"""The names of folders that a restore makes beside what it replaces."""
_STAGED_DUMP = re.compile(r"restore\.(.+?)(\.partial)?")
"""The names of dumps that the first versions staged among those of backups."""


@dataclass(frozen=True)
class TargetBounds:
    """The steps that a journal of one target may hold."""

    settings: Settings
    host: Host
    folder: str
    """Of the stack."""
    root: Callable[[], tuple[str, ...]]
    """Get the words before a command that needs root, when they are needed."""
    guard: str

    @cached_property
    def as_root(self) -> tuple[str, ...]:
        """The words before a command that needs root."""
        return self.root()

    @cached_property
    def docker(self) -> tuple[str, ...]:
        """The words before a Docker command; steps report an unreachable Docker themselves."""
        return docker_words_if_any(self.host, self.host.name, self.as_root)[0]

    @cached_property
    def compose(self) -> tuple[str, ...]:
        """The words of a compose command."""
        return compose_words(self.host, self.docker)

    @property
    def lock(self) -> str:
        """The lock that a run holds as long as it lives."""
        return f"{posixpath.dirname(self.guard)}/.lock"

    def access(self, role: str) -> HostAccess:
        """Return how a step accesses the target."""
        return HostAccess(role, self.as_root, self.docker, self.guard)

    def word(self, field: str) -> Any:
        """Return the target's value for a field of a step: a command, or a lock."""
        return getattr(self, field)

    def refuse(self, steps: Iterable[UndoableStep]) -> None:
        """Raise StepFailed if a step would act on what no such step of ours acts on.

        Links on the way to a path are followed first.
        """
        asked = [(step, *each) for step in steps for each in _paths(step)]
        real = self._real([path for _, _, path in asked])
        for step, kind, path in asked:
            is_fit = getattr(self, f"_is_{kind}")
            if not is_fit(real[path], step, real):
                where = path if path == real[path] else f"{path}, which leads to {real[path]}"
                raise StepFailed(
                    f"a step of it, {name_of(type(step))}, would act on {where}: no restore, "
                    f"reload or backup of {self.folder} does that."
                )

    def _real(self, paths: list[str]) -> dict[str, str]:
        """Return paths with the links on the way to them followed."""
        folders = [self.folder, f"{self.folder}/{BACKUPS}"]
        folders += [posixpath.dirname(each) for each in paths]
        words = (*self.as_root, "realpath", "-m", "-z", "--", *dict.fromkeys(folders))
        told = self.host.run(Command(words)).out.split("\0")
        real = dict(zip(dict.fromkeys(folders), told, strict=False))
        found = {each: real[each] for each in folders[:2]}
        return found | {
            each: posixpath.join(real[posixpath.dirname(each)], posixpath.basename(each))
            for each in paths
        }

    # Kinds of paths

    def _folder(self, real: Mapping[str, str]) -> str:
        return real[self.folder]

    def _backups(self, real: Mapping[str, str]) -> str:
        return real[f"{self.folder}/{BACKUPS}"]

    def _is_own(self, path: str, _step: UndoableStep, real: Mapping[str, str]) -> bool:
        """Return whether a restore makes it, and an undo may remove it."""
        folder, name = posixpath.split(path)
        staged = _STAGED_DUMP.fullmatch(name)
        if staged and folder == f"{self._backups(real)}/influxdb/db":
            return is_runtag(staged[1])
        return _is_below(path, f"{self._folder(real)}/{RESTORE}") or any(
            map(_OURS.fullmatch, path.split("/"))
        )

    def _is_aside(self, path: str, step: UndoableStep, real: Mapping[str, str]) -> bool:
        """Return whether a step moves replaced data there: near the live path, or in the stack."""
        live = real[str(getattr(step, "live"))]  # noqa: B009 - each such step has it
        around = (posixpath.dirname(live), live, self._folder(real))
        beside = any(_is_below(path, each) for each in around)
        return self._is_own(path, step, real) if beside else self._is_around_item(path, live, real)

    def _is_around_item(self, path: str, live: str, real: Mapping[str, str]) -> bool:
        """Return whether it is beside something that a restore may put in place, around `live`.

        New data of a server are beside all that is swapped with them.
        """
        ours = (each for each in (path, *above(path)) if _OURS.fullmatch(posixpath.basename(each)))
        place = posixpath.dirname(next(ours, "/"))
        item = f"{place}/{posixpath.relpath(live, place).partition('/')[0]}"
        return place != "/" and _is_below(live, place) and self._is_live(item, None, real)

    def _is_stack(self, path: str, _step: UndoableStep, real: Mapping[str, str]) -> bool:
        """Return whether it is the folder of the stack itself."""
        return path == self._folder(real)

    def _is_around(self, path: str, step: UndoableStep, real: Mapping[str, str]) -> bool:
        """Return whether a folder is a parent of what is put in place: it is removed if empty."""
        live = real[str(getattr(step, "live"))]  # noqa: B009 - each such step has it
        return _is_below(live, path) and not is_in(self._folder(real), path)

    def _is_live(self, path: str, _step: UndoableStep | None, real: Mapping[str, str]) -> bool:
        """Return whether a restore may put something there."""
        folder = self._folder(real)
        if _is_below(path, folder):
            top = posixpath.relpath(path, folder).partition("/")[0]
            return top not in (BACKUPS, RESTORE)
        if is_in(folder, path):
            return False
        rows = self.settings.stack.inclusions
        if not is_of_others(path) or volume_in(path):
            return True
        if any(is_in(path, each.restore_to or each.path) for each in rows):
            return True
        return any(_is_of(mount, path) for each in self._found for mount in each.mounts)

    def _is_copies(self, path: str, _step: UndoableStep, real: Mapping[str, str]) -> bool:
        backups = self._backups(real)
        return path in (
            f"{backups}/{posixpath.basename(each)}" for each in (COPIES, OUTSIDE_COPIES)
        )

    def _is_mark(self, path: str, _step: UndoableStep, real: Mapping[str, str]) -> bool:
        folder, name = posixpath.split(path)
        return folder == self._backups(real) and name.startswith(MARK)

    def _is_dump(self, path: str, step: UndoableStep, real: Mapping[str, str]) -> bool:
        """Return whether a container's dumps are there."""
        backups = self._backups(real)
        if _is_below(path, f"{self._folder(real)}/{RESTORE}"):
            return True
        if _is_below(path, backups) and posixpath.dirname(path) != backups:
            return True
        container, inside = (str(getattr(step, each)) for each in ("container", "inside"))
        end = f"/{posixpath.basename(influx.BACKUP_INSIDE)}/{posixpath.basename(inside)}"
        if _is_below(path, self._folder(real)) and path.endswith(end):
            return True  # among the data, if dumps have no mount
        found = named(self._found, container)
        return bool(found) and path == path_on_host(found.mounts, inside)  # type: ignore[union-attr]

    def _is_compose(self, path: str, _step: UndoableStep, real: Mapping[str, str]) -> bool:
        """Return whether it is the stack's, or its `.env` names it."""
        folder = self._folder(real)
        if is_in(path, folder):
            return True
        chosen = chosen_files(read_text(self.host, f"{folder}/.env"))
        files = {posixpath.normpath(posixpath.join(folder, each)) for each in chosen}
        return path in files | {posixpath.dirname(each) for each in files}

    @cached_property
    def _found(self) -> tuple[InspectedContainer, ...]:
        return inspect_all(self.host, self.docker)


def _paths(step: UndoableStep) -> Iterator[tuple[str, str]]:
    """Yield the kind and the path of each location that a step acts on.

    Raises StepFailed for an invalid path, or an invalid name where a name is expected.
    """
    step_name = name_of(type(step))
    for field in NAMES:
        if step_name == "Quiesce" and field == "name":
            continue  # a name for messages
        for name in _texts(step, field):
            if not _NAME.fullmatch(name) and name:
                raise StepFailed(f"a step of it, {step_name}, has {name!r}, not a name.")
    for field, kind in FIELDS[step_name].items():
        for path in filter(None, _texts(step, field)):
            if not path.startswith("/") or posixpath.normpath(path) != path or "\0" in path:
                raise StepFailed(f"a step of it, {step_name}, has {path!r}, not an absolute path.")
            inside = (influx.BACKUP_INSIDE, influx2.BACKUP_INSIDE)
            if kind != "inside":
                yield kind, path
            elif not any(_is_below(path, each) for each in inside):
                raise StepFailed(f"a step of it, {step_name}, would remove {path} in a container.")


def _texts(step: UndoableStep, field: str) -> tuple[str, ...]:
    value = getattr(step, field, ())
    values = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(each, str) for each in values):
        raise StepFailed(f"a step of it, {name_of(type(step))}, has no texts in {field}.")
    return values


def _is_of(mount: Mount, path: str) -> bool:
    """Return whether a container keeps data of its own at a path: not what it only monitors."""
    place = mount.on_host
    if not mount.writable and path in WATCHED:
        return False
    deep = is_in(path, place) and place.count("/") > 1 and not is_system(place)
    return path in (mount.source, place) or (deep and "/." not in path.removeprefix(place))


def _is_below(path: str, folder: str) -> bool:
    return path != folder and is_in(path, folder)
