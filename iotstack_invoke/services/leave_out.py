"""What no backup of a service needs, and where its container has that. Pure.

The table knows it by the container's own paths (`/app/data/log/*`), which are the same whatever
is mounted there: a folder of the stack or of the machine, or a volume. Not for: what the owner
leaves out (settings).
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping

from ..manifest import VOLUME
from .compose import Found, Mount, Volume, place_in_stack
from .table import fits_all_of, is_in_stack


def places_of(
    inside: str, found: Found, folder: str, volumes: Mapping[str, Volume]
) -> Iterator[str]:
    """Yield where that lies which a container calls `inside`, as patterns.

    In the mount that is the nearest above it, and in those that lie in it: of the stack's folder,
    absolute, or of `volume:NAME`. None where the container has it in its own layer.
    """
    above = [each for each in found.mounts if _begins_with(inside, each.inside)]
    nearest = max(above, key=lambda each: len(each.inside), default=None)
    for mount in found.mounts:
        place = glob.escape(place_of(mount, found.container.name, folder, volumes))
        if not place:
            continue
        if mount is nearest:
            yield place + inside[len(mount.inside.rstrip("/")) :]
        elif mount not in above and fits_all_of(inside, mount.inside):
            yield f"{place}/*"


def _begins_with(inside: str, folder: str) -> bool:
    return f"{inside}/".startswith(f"{folder.rstrip('/')}/")


def place_of(mount: Mount, container: str, folder: str, volumes: Mapping[str, Volume]) -> str:
    """Return where a mount lies, as exclusions call it; '' if nothing of it is in a backup."""
    volume = volumes.get(mount.volume)
    if volume and volume.is_folder:
        mount = Mount(volume.device, mount.inside)
    elif mount.volume:
        is_anonymous = volume and volume.anonymous
        return f"{VOLUME}{container}:{mount.inside}" if is_anonymous else f"{VOLUME}{mount.volume}"
    place = place_in_stack(mount, folder)
    if place is None:
        return mount.on_host if mount.on_host.startswith("/") else ""
    return place if is_in_stack(place) else ""
