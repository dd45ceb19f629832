"""Mounts around data that changed since the plan was made.

If a drive was unmounted, its next mount hides data written below it; if one was mounted, data
written to it are not where the plan expected them.
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
    """Return the mount points that contain paths, or that are inside them; sorted."""
    asked = [*filter(None, paths)]
    return tuple(
        sorted(p for p in points if any(is_in(p, each) or is_in(each, p) for each in asked))
    )


def refuse_mounts_since(
    host: Host, paths: Collection[str], points: Iterable[str], what: str
) -> None:
    """Raise StepFailed if the mounts around paths differ from those at planning.

    `points`: the mounts at that time. `what`: what was prepared since, such as `this restore`.
    """
    for point in mounts_around(mount_points(host) ^ {*points}, paths):
        raise StepFailed(
            f"{on_host(host)}{point} was mounted or unmounted while {what} was prepared. The "
            "stack was not changed. Mount what belongs there, then run this again."
        )


@dataclass(frozen=True, slots=True)
class CheckMounts(HostStep):
    """Check that the mounts around data are the same as at planning."""

    paths: tuple[str, ...]
    points: tuple[str, ...]
    """The mount points around them at planning."""
    what: str
    """What was prepared since then, such as `this restore`."""

    def do(self, context: StepContext) -> None:
        """Raise StepFailed if a drive was mounted or unmounted."""
        refuse_mounts_since(self.access.host(context), self.paths, self.points, self.what)
