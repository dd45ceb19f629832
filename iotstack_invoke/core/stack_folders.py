"""The folders of a stack, by what is in them."""

from __future__ import annotations

BACKUPS = "backups"
"""The folder of the backups in a stack's folder, as the seed named it."""

RESTORE = "restore"
"""The folder in a stack's folder with what restores stage and keep."""

KEPT_OUT = (BACKUPS, RESTORE)
"""The folders of a stack that no backup of it holds."""

FOLDERS = ("services", "volumes")
