"""The archives in a manifest, as records of jobs. Pure."""

from __future__ import annotations

from ..core.stack_folders import BACKUPS, RESTORE
from ..engine.steps import Record
from .manifest import Manifest


def records_in(manifest: Manifest | None, runtag: str) -> dict[str, Record]:
    """Return the records of a manifest's archives, wherever a restore reads them."""
    found = {}
    for part in manifest.made if manifest else ():
        folders = ("from:", f"pi:{BACKUPS}/", f"pi:{RESTORE}/{runtag}/")
        for name in (f"{folder}{part.file}" for folder in folders):
            found[name] = Record(name, part.size_bytes, part.sha256)
    return found
