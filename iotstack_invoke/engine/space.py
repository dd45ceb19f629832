"""Disk space reserved for what a job will write."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from ..hosts.base import Disk, Storage
from .steps import Space, StepContext


def reserve(
    context: StepContext, storage: Storage, folder: str, size_bytes: int, *, for_all: bool = False
) -> Space | None:
    """Reserve space at a folder, which need not exist yet, for what a job will write there.

    Reserves nothing if less is left, or if that is unknown (None).
    """
    return context.reserve(lambda: _disk(storage, folder), size_bytes, for_all=for_all)


def _disk(storage: Storage, folder: str) -> Disk | None:
    """Return the disk of a folder; one for the whole storage if the disk is unknown."""
    look: Callable[[str], Disk | None] | None = getattr(storage, "disk", None)
    if look is None:
        free = storage.free_bytes(folder)
        return None if free is None else Disk(storage.name, free)
    while (disk := look(folder)) is None and len(folder) > 1:
        folder = posixpath.dirname(folder)
    return disk
