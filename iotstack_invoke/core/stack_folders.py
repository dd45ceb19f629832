"""The folders of a stack, by what they hold."""

from __future__ import annotations

BACKUPS = "backups"
"""The folder of the backups in a stack's folder, as the seed named it."""

RESTORE = "restore"
"""The folder of a stack in which restores stage new data and keep old data."""

KEPT_OUT = (BACKUPS, RESTORE)
"""The folders of a stack that its backups leave out."""

FOLDERS = ("services", "volumes")
