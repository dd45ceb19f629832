"""Services that are stopped while their files are copied; tar takes the copies.

Each is down only as long as its own copy takes: a clone, if the file system supports that.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..engine.space import reserve
from ..engine.steps import CommandStep, HostAccess, Step, StepContext
from ..hosts.base import Command
from .quiesce import Resume, stopped

COPY_LIMIT_S = 6 * 3600.0
FREE_BYTES = 50_000_000
"""The space that stays free on the disk."""


@dataclass(frozen=True, slots=True)
class AtRest:
    """Containers to stop together, and paths below the stack's folder to copy meanwhile."""

    containers: tuple[str, ...]
    paths: tuple[str, ...]


def merged(wanted: Iterable[AtRest]) -> tuple[AtRest, ...]:
    """Return the same, merged so that no path is below a path of another."""
    found: list[AtRest] = []
    for each in wanted:
        containers, paths = set(each.containers), set(each.paths)
        for other in [one for one in found if _overlap(paths, one.paths)]:
            found.remove(other)
            containers |= set(other.containers)
            paths |= set(other.paths)
        outer = (path for path in paths if not any(_is_in(path, one) for one in paths - {path}))
        found.append(AtRest(tuple(sorted(containers)), tuple(sorted(outer))))
    return tuple(found)


def _overlap(some: Iterable[str], others: Iterable[str]) -> bool:
    theirs = tuple(others)
    return any(_is_in(one, other) or _is_in(other, one) for one in some for other in theirs)


def _is_in(path: str, place: str) -> bool:
    return f"{path}/".startswith(f"{place}/")


def copy_at_rest(access: HostAccess, folder: str, rest: AtRest, target: str) -> Iterator[Step]:
    """Stop the containers, copy their files below `target`, start them again."""
    backups = posixpath.dirname(target)
    quiets = [stopped(access, each, backups) for each in rest.containers]
    copy = CopyAtRest(access, folder, rest.paths, target)
    yield CheckSpace(copy)
    yield from quiets
    yield copy
    yield from map(Resume, reversed(quiets))


@dataclass(frozen=True, slots=True)
class CopyAtRest(CommandStep):
    """Copy files and folders of the stack, with their paths, below a folder.

    Takes the lock of all changes on a host: a copy that outlives its run would write into the
    copies of the next one.
    """

    folder: str
    paths: tuple[str, ...]
    target: str

    @property
    def command(self) -> Command:
        """The copy command."""
        cp = ("cp", "--archive", "--reflink=auto", "--parents", "--", *self.paths, self.target)
        words = ("env", "-C", self.folder, *cp)
        return self.access.guarded_root(*words, timeout_s=COPY_LIMIT_S)

    def do(self, context: StepContext) -> None:
        """Copy them; raises StepFailed if one cannot be."""
        context.status(f"copying {', '.join(self.paths)}")
        self.access.host(context).run(self.command, context.log_output)


@dataclass(frozen=True, slots=True)
class CheckSpace:
    """Check that a copy fits before any service is stopped for it."""

    copy: CopyAtRest

    @property
    def _command(self) -> Command:
        paths = (posixpath.join(self.copy.folder, each) for each in self.copy.paths)
        words = ("du", "-s", "-c", "-B1", "--", *paths)
        return Command((*self.copy.access.as_root, *words), timeout_s=3600)

    def commands(self) -> tuple[str, ...]:
        """Return the command."""
        return (str(self._command),)

    def do(self, context: StepContext) -> None:
        """Raise StepFailed, with the numbers, if it does not fit."""
        host = self.copy.access.host(context)
        needed = int(host.run(self._command).out.splitlines()[-1].split("\t")[0])
        above = posixpath.dirname(self.copy.target)
        space = reserve(context, host, above, needed + FREE_BYTES)
        if space and space.left_bytes < needed + FREE_BYTES:
            raise StepFailed(
                f"The copy of {', '.join(self.copy.paths)} needs {needed:,} bytes in "
                f"{self.copy.target}, but only {space.left_bytes:,} are free there. No container "
                "was stopped. Free some space, or keep fewer backups ([stack] keep in "
                "hosts.toml)."
            )


@dataclass(frozen=True, slots=True)
class CopyLinked(CommandStep):
    """Copy the targets of links of the stack, under the names of the links, below a folder."""

    folder: str
    names: tuple[str, ...]
    target: str

    @property
    def command(self) -> Command:
        """The copy command; with owner, mode and date of the file, not of the link."""
        cp = ("cp", "--dereference", "--preserve=all", "--parents", "--", *self.names)
        words = ("env", "-C", self.folder, *cp, self.target)
        return self.access.guarded_root(*words, timeout_s=COPY_LIMIT_S)
