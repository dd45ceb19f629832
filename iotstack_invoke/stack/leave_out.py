"""What no backup of a service needs, and where its container has that. Pure.

The table knows it by the container's own paths (`/app/data/log/*`), which are the same whatever
is mounted there. Volumes and what hosts.toml includes are packed whole: nobody knows them so well
that something of theirs could go without a word. Not for: what the owner leaves out (settings).
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping

from ..core.path_patterns import fits_all_of
from ..services.known import is_in_stack
from .compose import InspectedContainer, Mount, Volume, place_in_stack


def places_of(
    inside: str, found: InspectedContainer, folder: str, volumes: Mapping[str, Volume]
) -> Iterator[str]:
    """Yield where that lies which a container calls `inside`, as patterns.

    Of the stack's folder: in the mount that is the nearest above it, and in those that lie in it.
    """
    above = [each for each in found.mounts if _begins_with(inside, each.inside)]
    nearest = max(above, key=lambda each: len(each.inside), default=None)
    for mount in found.mounts:
        place = glob.escape(place_of(mount, folder, volumes))
        if not place:
            continue
        if mount is nearest:
            yield place + inside[len(mount.inside.rstrip("/")) :]
        elif mount not in above and fits_all_of(inside, mount.inside):
            yield f"{place}/*"


def _begins_with(inside: str, folder: str) -> bool:
    return f"{inside}/".startswith(f"{folder.rstrip('/')}/")


def place_of(mount: Mount, folder: str, volumes: Mapping[str, Volume]) -> str:
    """Return where in the stack's folder a mount lies, also by a volume; '' if it does not."""
    volume = volumes.get(mount.volume)
    if volume and volume.is_folder:
        mount = Mount(volume.device, mount.inside)
    elif mount.volume:
        return ""
    place = place_in_stack(mount, folder)
    return place if place and is_in_stack(place) else ""
