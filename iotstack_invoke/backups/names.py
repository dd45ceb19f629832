"""The names in the backup folder: sets, their files, the folders. Pure."""

from __future__ import annotations

from ..core.runtag import is_runtag
from ..engine.rules import Wildcard

LOCK = ".lock"
"""In the backup folder: the lock of the run that works on the stack."""

BADGE = ".badge"
"""In the backup folder: a random word that identifies it, even under another path."""

PARTS = {
    "general": "general-backup.tar.gz",
    "outside": "outside-backup.tar.gz",
    "influx": "influx-backup.tar",
    "influxdb2": "influxdb2-backup.tar",
    "mariadb": "mariadb-backup.tar.gz",
    "postgres": "postgres-backup.sql.gz.tar",
    "gitea": "gitea-backup.tar.gz",
    "nextcloud": "nextcloud-backup.tar.gz",
    "wordpress": "wordpress-backup.tar.gz",
}
"""The names of the parts of a set after the runtag, as in the seed and IOTstackBackup."""

TEXTS = {"restore": "RESTORE.txt", "log": "backup-log.txt"}
"""Files for users: a set is complete without them."""

KINDS = {**PARTS, "manifest": "manifest.json", **TEXTS}
"""The same for all files of a set."""

_BY_ENDING = {f".{ending}": kind for kind, ending in KINDS.items()}


def split_set_name(name: str) -> tuple[str, str] | None:
    """Return (runtag, kind) of a file of a set, or None for any other name."""
    at = name.find(".")
    while at >= 0:  # a runtag may contain dots
        kind = _BY_ENDING.get(name[at:])
        if kind and is_runtag(name[:at]):
            return name[:at], kind
        at = name.find(".", at + 1)
    return None


WILDCARDS = {
    "runtag": Wildcard(is_runtag),
    "part": Wildcard(
        lambda name: (split_set_name(name) or ("", ""))[1] in PARTS,
        shown=lambda name: (split_set_name(name) or ("", name))[1],
    ),
}
"""The wildcards of this package's patterns: a `{part}` is a file of a set."""

COMMANDS_LOCK = ".commands"
