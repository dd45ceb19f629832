"""What a machine has that hosts.toml could name: stacks, drives, machines, clouds.

Only looks. What does not answer in time is no candidate.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator

from ...core.dataclass import dataclass
from ...core.errors import StepFailed
from ...hosts.base import ANY_EXIT, Command
from ...hosts.local import LocalHost, within
from ...reporting.report import size_text
from ...stack.compose import COMPOSE_FILES, WORKING_FOLDER_LABEL

DOCKER_LIMIT_S = 15.0
RCLONE_LIMIT_S = 15.0
DRIVE_LIMIT_S = 3.0
MOST = 9
"""How many of a kind are offered."""
FIRST_OWN_USER = 1000
"""The ids of people begin with it: login.defs(5), UID_MIN."""
STACK_NAME = "iotstack"
MOUNTS = "/proc/self/mountinfo"
SHARES = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "davfs", "fuse.davfs", "9p", "virtiofs"}
)
"""File systems of other machines."""
DISKS = frozenset(
    {
        *("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "jfs", "bcachefs"),
        *("vfat", "exfat", "ntfs", "ntfs3", "fuseblk", "hfsplus"),
    }
)
OF_SYSTEM = re.compile(
    r"/(boot|dev|efi|etc|lib|lost\+found|nix|overlay|proc|recovery|root-ro|snap|sys|tmp|usr|var"
    r")(/.*)?"
)
"""Where mounted file systems belong to the system. Drives are elsewhere, as in /media or /mnt."""
_OCTAL = re.compile(r"\\([0-7]{3})")
_SEPARATOR = "-"


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something found, as hosts.toml names it, and what is known of it."""

    value: str
    told: str = ""


def find_stacks() -> tuple[Candidate, ...]:
    """Return the folders with a compose file, the likeliest first.

    Those of containers, and those in usual places.
    """
    running = Counter(_working_folders())
    usual = (f"{base}/{name}" for base in _bases() for name in _names_in(base))
    found = [each for each in dict.fromkeys((*running, *usual)) if _has_compose_file(each)]

    def likeliest(folder: str) -> tuple[bool, int]:
        return os.path.basename(folder).lower() != STACK_NAME, -running[folder]

    return tuple(
        Candidate(each, _containers(running[each])) for each in sorted(found, key=likeliest)[:MOST]
    )


def find_drives(stack: str, mountinfo: str = "") -> tuple[Candidate, ...]:
    """Return the mount points of drives and shares that could hold second copies of a stack.

    Not the drive of the system, nor that of the stack, nor one that cannot be written.
    """
    if not mountinfo:
        with contextlib.suppress(OSError), open(MOUNTS, errors="surrogateescape") as stream:
            mountinfo = stream.read()
    found = []
    for point, kind, source in drives_in(mountinfo, stack):
        with contextlib.suppress(StepFailed):
            told = within(DRIVE_LIMIT_S, point, lambda at=point: _drive_told(at))  # type: ignore[misc]
            if told:
                named = f"{source}, " if kind in SHARES else ""
                found.append(Candidate(point, f"{named}{told}"))
    return tuple(found[:MOST])


def drives_in(mountinfo: str, stack: str) -> tuple[tuple[str, str, str], ...]:
    """Return each mount point that may be one of a drive or share, its kind and its source.

    By the text of proc_pid_mountinfo(5). What a later mount covers is left out.
    """
    mounts: dict[str, tuple[str, str, str, bool]] = {}
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if _SEPARATOR not in fields:
            continue
        number, point = fields[2], _OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4])
        after = fields[fields.index(_SEPARATOR) + 1 :]
        options = {*fields[5].split(","), *after[-1].split(",")}
        mounts.pop(point, None)
        mounts[point] = (number, after[0], after[1], "ro" in options)
    above = max((each for each in mounts if _lies_in(stack, each)), key=len, default="/")
    taken = {mounts[each][0] for each in ("/", above) if each in mounts}
    return tuple(
        (point, kind, source)
        for point, (number, kind, source, is_read_only) in mounts.items()
        if (kind in SHARES or (kind in DISKS and number not in taken))
        and not (is_read_only or OF_SYSTEM.fullmatch(point) or point in ("/", above))
    )


def find_remotes() -> tuple[Candidate, ...]:
    """Return the remotes of rclone, each with its colon."""
    if shutil.which("rclone") is None:
        return ()
    words = ("rclone", "--ask-password=false", "listremotes")
    return tuple(Candidate(each) for each in _lines(words, RCLONE_LIMIT_S) if each.endswith(":"))


def _working_folders() -> Iterator[str]:
    """Yield the folder of the compose file of each container that has one."""
    form = f'{{{{.Label "{WORKING_FOLDER_LABEL}"}}}}'
    words = ("docker", "ps", "--all", "--format", form)
    return (each for each in _lines(words, DOCKER_LIMIT_S) if each.startswith("/"))


def _lines(words: tuple[str, ...], limit_s: float) -> tuple[str, ...]:
    """Return the lines that a program prints, () if it fails or does not answer."""
    try:
        told = LocalHost("/").run(Command(words, ANY_EXIT, limit_s))
    except StepFailed:
        return ()
    return () if told.exit_code else tuple(told.out.splitlines())


def _bases() -> Iterator[str]:
    """Yield the folders in which a stack may be: homes, and usual places."""
    yield os.path.expanduser("~")
    if os.geteuid() == 0:
        yield from (each.pw_dir for each in pwd.getpwall() if each.pw_uid >= FIRST_OWN_USER)
    yield from ("/opt", "/srv")


def _names_in(base: str) -> Iterable[str]:
    try:
        return sorted(os.listdir(base))
    except OSError:
        return ()


def _has_compose_file(folder: str) -> bool:
    return any(os.path.isfile(f"{folder}/{each}") for each in COMPOSE_FILES)


def _containers(count: int) -> str:
    return f"{count} container{'s' if count > 1 else ''}" if count else ""


def _drive_told(point: str) -> str:
    """Return how much is free on a drive, '' if it cannot be written."""
    if not os.path.isdir(point) or not os.access(point, os.W_OK | os.X_OK):
        return ""
    status = os.statvfs(point)
    return f"{size_text(status.f_bavail * status.f_frsize)} free"


def _lies_in(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")
