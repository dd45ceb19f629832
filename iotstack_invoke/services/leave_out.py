"""What no backup of a service needs, and where in the stack its container has that. Pure.

The table knows it by the container's own paths (`/app/data/log/*`), which are the same however
somebody calls the folders of a stack. Not for: what the owner leaves out (settings).
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import replace

from .compose import Found, Mount, paths_in_stack
from .table import fits_all_of


def places_of(inside: str, found: Found, folder: str) -> Iterator[str]:
    """Yield where in the stack that lies which a container calls `inside`, as patterns.

    In the mount that is the nearest above it, and in those that lie in it. None where the
    container has it elsewhere.
    """
    above = [each for each in found.mounts if _begins_with(inside, each.inside)]
    nearest = max(above, key=lambda each: len(each.inside), default=None)
    for mount in found.mounts:
        place = _place(mount, found, folder)
        if not place:
            continue
        if mount is nearest:
            yield place + inside[len(mount.inside.rstrip("/")) :]
        elif mount not in above and fits_all_of(inside, mount.inside):
            yield f"{place}/*"


def _begins_with(inside: str, folder: str) -> bool:
    return f"{inside}/".startswith(f"{folder.rstrip('/')}/")


def _place(mount: Mount, found: Found, folder: str) -> str:
    """Return where in the stack a mount lies, as a pattern; '' for elsewhere."""
    places = paths_in_stack(replace(found, mounts=(mount,)), folder)
    return glob.escape(places[0]) if places else ""
