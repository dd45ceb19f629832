"""Services that are stopped while their files are copied; tar takes the copies.

Each is away for no longer than its own copy takes: a clone, where the file system can make one.
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
"""What stays free on the disk."""


@dataclass(frozen=True, slots=True)
class AtRest:
    """What is stopped together, and what is copied meanwhile: paths below the stack's folder."""

    containers: tuple[str, ...]
    paths: tuple[str, ...]


def merged(wanted: Iterable[AtRest]) -> tuple[AtRest, ...]:
    """Return the same with none of whose paths lies in one of another's."""
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
    """Stop it, copy its files below `target`, let it go on."""
    backups = posixpath.dirname(target)
    quiets = [stopped(access, each, backups) for each in rest.containers]
    copy = CopyAtRest(access, folder, rest.paths, target)
    yield CheckSpace(copy)
    yield from quiets
    yield copy
    yield from map(Resume, reversed(quiets))


@dataclass(frozen=True, slots=True)
class CopyAtRest(CommandStep):
    """Copy files and folders of the stack as they are, with their paths, below a folder.

    Under the lock of all that changes a host: a copy that outlives its run would go on writing
    into the copies of the next one.
    """

    folder: str
    paths: tuple[str, ...]
    target: str

    @property
    def command(self) -> Command:
        """The copy."""
        cp = ("cp", "--archive", "--reflink=auto", "--parents", "--", *self.paths, self.target)
        words = ("env", "-C", self.folder, *cp)
        return self.access.guarded_root(*words, timeout_s=COPY_LIMIT_S)

    def do(self, context: StepContext) -> None:
        """Copy them; raises StepFailed where one cannot be."""
        context.status(f"copying {', '.join(self.paths)}")
        self.access.host(context).run(self.command, context.log_output)


@dataclass(frozen=True, slots=True)
class CheckSpace:
    """See that a copy fits before anybody is stopped for it."""

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
        """Raise StepFailed, with the numbers, where it does not fit."""
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
    """Copy what links of the stack lead to, under the names of the links, below a folder."""

    folder: str
    names: tuple[str, ...]
    target: str

    @property
    def command(self) -> Command:
        """The copy; with owner, mode and date of the file, not of the link."""
        cp = ("cp", "--dereference", "--preserve=all", "--parents", "--", *self.names)
        words = ("env", "-C", self.folder, *cp, self.target)
        return self.access.guarded_root(*words, timeout_s=COPY_LIMIT_S)
