"""What backups of a service can leave out, and where its container has that. Pure.

The table lists the container's own paths (`/app/data/log/*`), which do not depend on its mounts.
Volumes and paths that hosts.toml includes are packed whole: their contents are not known well
enough to leave something out silently. Not for: what the owner leaves out (settings).
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
    """Yield the paths of a container's path `inside`, as patterns.

    In the stack's folder: in the nearest mount above it, and in the mounts below it.
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
    """Return the path of a mount in the stack's folder, also through a volume; '' if outside."""
    volume = volumes.get(mount.volume)
    if volume and volume.is_folder:
        mount = Mount(volume.device, mount.inside)
    elif mount.volume:
        return ""
    place = place_in_stack(mount, folder)
    return place if place and is_in_stack(place) else ""
