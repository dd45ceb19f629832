"""What a container wrote into its own layer, where it mounts nothing: that goes with it."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from ..errors import StepFailed
from ..steps import Command, Host
from .compose import LOOK_LIMIT_S, Found
from .inside import is_in, mount_around


def changed_in_layer(host: Host, found: Found, places: Iterable[str]) -> tuple[str, ...]:
    """Return in which of some places of a container files lie that no mount holds.

    Docker is asked only where one of them is not mounted; if it does not answer, and nothing is
    mounted in any of them, nobody knows that they are empty.
    """
    places = tuple(posixpath.normpath(each) for each in places)
    bare = tuple(each for each in places if mount_around(found.mounts, each) is None)
    if not bare:
        return ()
    try:
        told = host.run(Command(("docker", "diff", found.container.name), limit_s=LOOK_LIMIT_S))
    except StepFailed:
        mounts = [each.inside for each in found.mounts]
        none = not any(is_in(m, each) or is_in(each, m) for m in mounts for each in places)
        return bare if none else ()
    changed = [line[2:] for line in told.out.splitlines() if line[:2] in ("A ", "C ")]
    # Where something is mounted in such a place, Docker made the folders on the way.
    on_the_way = {each.inside.rstrip("/") for each in found.mounts}
    return tuple(
        place
        for place in bare
        if any(
            path != place
            and is_in(path, place)
            and not any(is_in(mount, path) for mount in on_the_way)
            for path in changed
        )
    )
