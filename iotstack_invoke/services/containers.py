"""A container, as a backup found it."""

from __future__ import annotations

from ..core.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Container:
    """A container of the stack at the time of the backup."""

    name: str
    image: str
    image_id: str
    digest: str
    running: bool
