"""Symlinks in packed folders whose targets are in no part: tar keeps the link, not the target.

They are found in the archive while it is written, so no folder is read twice. Not for: links that
containers or compose follow (stack_holdings.py), whose targets are packed too.
"""

from __future__ import annotations

import glob
import posixpath
from collections.abc import Iterator

from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..core.path_patterns import fits_all_of
from ..engine.steps import StepContext
from ..hosts.base import ANY_EXIT, Command, Host
from ..services.known import is_in_stack
from ..stack.inside import is_in
from ..stack.stack_holdings import (
    LOOK_LIMIT_S,
    OF_DUMPS,
    WATCHED,
    advice,
    is_system,
    stat_paths,
)

MOST_LOOKED_AT = 2000
MOST_TOLD = 3
NOTHING_KEPT = (".", "/tmp", *WATCHED)  # noqa: S108 - never written to
"""Link targets that need no backup as a whole."""


@dataclass(frozen=True, slots=True)
class Packed:
    """What the archives of a set contain, and what is left out on purpose."""

    folder: str
    """The folder of the stack, with links resolved."""
    paths: tuple[str, ...]
    """Absolute paths."""
    left_out: tuple[str, ...] = ()
    """Patterns, of paths in the stack or from /."""

    def answers_for(self, path: str) -> bool:
        """Return whether an absolute path is packed, left out on purpose, or not worth keeping."""
        if any(is_in(path, each) for each in self.paths):
            return True
        place = posixpath.relpath(path, self.folder) if is_in(path, self.folder) else path
        if place in NOTHING_KEPT or is_system(path):
            return True
        dumps = any(is_in(place, each) for each in OF_DUMPS)
        return dumps or any(fits_all_of(each, place) for each in self.left_out)


class LinksOut:
    """Collects the links of one archive whose targets `packed` does not answer for."""

    def __init__(self, packed: Packed, base: str) -> None:
        self._packed = packed
        self._base = base
        self._links: dict[str, str] = {}
        """The first link, from /, to each target."""

    def take(self, name: str, target: str) -> None:
        """Add a link: the name of its member and its target."""
        if not (target.startswith("/") or ".." in target) or len(self._links) >= MOST_LOOKED_AT:
            return
        link = posixpath.normpath(posixpath.join(self._base, name))
        to = posixpath.normpath(posixpath.join(posixpath.dirname(link), target))
        if to not in self._links and not self._packed.answers_for(to):
            self._links[to] = link

    def warn(self, context: StepContext, host: Host, as_root: tuple[str, ...]) -> None:
        """Warn of links with existing targets: a broken one may mean a path in a container."""
        if not self._links:
            return
        try:
            facts = stat_paths(host, sorted(self._links), as_root)
        except StepFailed as error:
            context.warn(f"Cannot check the targets of the stack's links: {error}")
            return
        found = {
            fact.real: self._links[path]
            for path, fact in facts.items()
            if fact.kind in ("file", "folder", "closed")
            and not self._packed.answers_for(fact.real)
        }
        found = {e: link for e, link in found.items() if self._holds_more(host, e, as_root)}
        told = tuple(self._told(found))
        for line in told[:MOST_TOLD]:
            context.warn(line)
        if told[MOST_TOLD:]:
            more = (
                f"{len(told) - MOST_TOLD:,} more links lead to files that are in no part of "
                "the backup"
            )
            context.warn(f"NOT COVERED: {more}.")

    def _holds_more(self, host: Host, path: str, as_root: tuple[str, ...]) -> bool:
        """Return whether a path holds more than what is packed of it, or cannot be examined."""
        known = (*self._packed.paths, self._packed.folder)
        inner = [each for each in known if is_in(each, path)]
        if not inner:
            return True
        names = [word for each in inner for word in ("-o", "-path", glob.escape(each))][1:]
        words = ("find", path, "(", *names, ")", "-prune", "-o", "-not", "-type", "d")
        command = Command((*as_root, *words, "-print", "-quit"), ANY_EXIT, LOOK_LIMIT_S)
        told = host.run(command)
        return bool(told.exit_code or told.out)

    def _told(self, found: dict[str, str]) -> Iterator[str]:
        outer = [each for each in sorted(found) if not any(_is_below(each, one) for one in found)]
        folder = self._packed.folder
        for real in outer:
            to, link = (
                posixpath.relpath(each, folder) if is_in(each, folder) else each
                for each in (real, found[real])
            )
            what = to if to.startswith("/") or is_in_stack(to) else link
            includable = not is_in(folder, real) and what == to
            yield (
                f"NOT COVERED: {link} is a link to {to}, which is in no part of the backup. "
                f"{advice(what, includable=includable)}"
            )


def _is_below(path: str, place: str) -> bool:
    return path != place and is_in(path, place)
