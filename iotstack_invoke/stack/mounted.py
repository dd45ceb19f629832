"""What came or went of the mounts around data, since a plan was made for them.

What is put beneath a drive that went is hidden by its next mount, and what is put on one that
came is not where the plan looked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..engine.steps import HostStep, StepContext
from ..hosts.base import Host
from ..hosts.inspect import mount_points, on_host
from .inside import is_in


def mounts_around(points: Iterable[str], paths: Collection[str]) -> tuple[str, ...]:
    """Return the mount points that paths lie in, or that lie in one of them; sorted."""
    asked = [*filter(None, paths)]
    return tuple(
        sorted(p for p in points if any(is_in(p, each) or is_in(each, p) for each in asked))
    )


def refuse_mounts_since(
    host: Host, paths: Collection[str], points: Iterable[str], what: str
) -> None:
    """Raise StepFailed where other things are mounted around paths than there were.

    `points`: what was mounted then. `what`: what was prepared meanwhile, such as `this restore`.
    """
    for point in mounts_around(mount_points(host) ^ {*points}, paths):
        raise StepFailed(
            f"{on_host(host)}{point} was mounted or unmounted while {what} was prepared. The "
            "stack was not changed. Mount what belongs there, then run this again."
        )


@dataclass(frozen=True, slots=True)
class CheckMounts(HostStep):
    """See that around data the same is mounted as when the plan was made."""

    paths: tuple[str, ...]
    points: tuple[str, ...]
    """The mount points around them when the plan was made."""
    what: str
    """What was prepared since then, such as `this restore`."""

    def do(self, context: StepContext) -> None:
        """Raise StepFailed where a drive came or went."""
        refuse_mounts_since(self.access.host(context), self.paths, self.points, self.what)
