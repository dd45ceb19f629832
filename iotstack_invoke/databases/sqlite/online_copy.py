"""A script that copies the SQLite files of a folder by SQLite's online backup; runs as root.

    python -I -S -X utf8 online_copy.py '{"folder": …, "members": …, "exclusions": …, "target": …}'

`known`, optional: the files that were databases at the last copy.

It prints one JSON line a file, imports nothing of this package, and changes nothing below the
folder. What opening a live file read-only does (SQLite 3.40, each measured): for a WAL database
that no process has open it leaves -wal and -shm; with a -wal but no -shm it leaves a -shm; beside
an empty file it *removes* the -wal; with a hot journal it fails. None of these is opened: they are
copied as files while no process writes (sizes and dates do not change), and SQLite recovers the
copy. An existing -shm is written to, as by any reader: the next program that opens the database
recreates it.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import posixpath
import re
import shutil
import sqlite3
import stat
import sys
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAGIC = b"SQLite format 3\0"
BESIDE = ("-wal", "-journal", "-shm")
LEAST_BYTES = 512
"""A database consists of pages, each a power of two from here on."""
PAGES_AT_ONCE = 1000
"""A step is short enough to notice soon that the parent process ended."""
CHUNK_BYTES = 1 << 20
COPYING_LIMITS = 10
"""A copy that makes progress may take this many times the wait for its lock."""
SETTLED_S = 0.05
"""File dates have a resolution of up to 10 ms (the kernel's tick), and may hide a later write."""
PAUSE_S = 0.1
FREE_SHARE = 0.05
FREE_BYTES = 50_000_000
"""The space that stays free on the disk, or FREE_SHARE of it if that is less."""
NO_ROOM = 3
"""The exit code if the copies do not fit."""
SUPER_JOURNAL = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
"""The end of a journal that names another file: SQLite would open it, and may remove it."""

HEAD_BYTES = 12
"""How many first bytes of a file beside a database show whether it is SQLite's own."""
HEADS = {
    "-wal": (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"),
    "-journal": (b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7",),
    "-shm": tuple((3_007_000).to_bytes(4, order) for order in ("little", "big")),
}
"""How they begin (sqlite.org/fileformat.html); or with zeros: new, or no longer used."""
WAL_MODE = 2
"""Bytes 18 and 19 of a database in WAL mode."""

PARENT = os.getppid()


class Locked(Exception):
    """Another process writes, or holds an exclusive lock; it may pass."""


@dataclass(frozen=True)
class Database:
    """A file that looks like a database; `name` is its path below the folder."""

    name: str
    path: str
    device: int
    inode: int
    size_bytes: int
    """With the files beside it that have names of SQLite's own files."""
    has_more: bool
    """It has a -wal or a -journal."""


def main(request: dict[str, Any]) -> int:
    """Copy all databases of the request and return the exit code."""
    folder, target = os.path.realpath(request["folder"]), request["target"]
    os.mkdir(target, 0o700)
    found = [
        each
        for member in request["members"]
        for each in databases(folder, posixpath.normpath(member), request["exclusions"])
    ]
    # If a file has several names, SQLite's own is the one that has a -wal or a -journal.
    found.sort(key=lambda each: (not each.has_more, each.name))
    known = set(request.get("known", ())) - {each.name for each in found}
    for name, why in spoilt(folder, sorted(known), request["members"], request["exclusions"]):
        tell(file=name, state="damaged", why=why)
    needed = sum({(each.device, each.inode): each.size_bytes for each in found}.values())
    disk = os.statvfs(target)
    kept = min(FREE_BYTES, int(disk.f_blocks * disk.f_frsize * FREE_SHARE))
    free = max(0, disk.f_bavail * disk.f_frsize - kept)
    if found and needed > free:
        tell(needed_bytes=needed, free_bytes=free)
        return NO_ROOM
    copies: dict[tuple[int, int], str] = {}
    for each in found:
        tell(file=each.name, state="begun", size_bytes=each.size_bytes)
        copy = os.path.join(target, each.name)
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        twin = copies.get((each.device, each.inode))
        if twin:
            os.link(twin, copy)
            state, why = "copied", ""
        else:
            state, why = copied(each.path, copy, request["limit_s"])
        if state in ("copied", "damaged"):
            copies[each.device, each.inode] = copy
            tell(file=each.name, state=state, why=why, size_bytes=os.stat(copy).st_size)
        else:
            remove(copy, ("", *BESIDE))
            tell(file=each.name, state=state, why=why)
    patterns = [re.compile(pattern_of(each)) for each in request["exclusions"]]
    for each in found:
        copy = os.path.join(target, each.name)
        if os.path.lexists(copy):
            keep_others(each.name, each.path, copy, patterns)
    return 0


def tell(**facts: Any) -> None:
    """Print one line; raises OSError if the reader is gone."""
    os.write(1, json.dumps(facts).encode("ascii") + b"\n")


# The walk


def databases(folder: str, member: str, exclusions: list[str]) -> Iterator[Database]:
    """Return the databases below a member, without what tar would leave out."""
    patterns = [re.compile(pattern_of(each)) for each in exclusions]
    waiting = [member]
    while waiting:
        name = waiting.pop()
        if any(each.match(name) for each in patterns):
            continue
        path = os.path.join(folder, name)
        try:
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode):
                waiting += [posixpath.join(name, each) for each in os.listdir(path)]
            elif stat.S_ISREG(status.st_mode) and is_database(path, status.st_size):
                sizes = [size_of(path + each) for each in BESIDE]
                size_bytes, has_more = status.st_size + sum(sizes), any(sizes[:2])
                yield Database(*(name, path, status.st_dev, status.st_ino, size_bytes), has_more)
        except OSError:
            continue  # removed, or not readable: tar reports it


def spoilt(
    folder: str, names: list[str], members: list[str], exclusions: list[str]
) -> Iterator[tuple[str, str]]:
    """Return which files are no longer databases, and why; removed files are left out.

    If its first bytes are gone, only the earlier list shows that a file was a database.
    """
    patterns = [re.compile(pattern_of(each)) for each in exclusions]
    tops = tuple(f"{posixpath.normpath(each)}/" for each in members)
    for name in names:
        parts = name.split("/")
        around = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        if any(one.match(each) for one in patterns for each in around):
            continue
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            regular = stat.S_ISREG(status.st_mode) and os.path.realpath(path) == path
            if regular and f"{name}/".startswith(tops) and not is_database(path, status.st_size):
                yield (
                    name,
                    "it was one, and " + ("begins differently" if status.st_size else "is empty"),
                )


def pattern_of(exclusion: str) -> str:
    r"""Return the regular expression of tar's wildcard: * matches /, \* is a star."""
    plain = re.sub(r"\\(.)", lambda m: f"[{m[1]}]" if m[1] in r"*?[\\" else m[1], exclusion)
    return fnmatch.translate(plain.replace("[^", "[!"))


def is_database(path: str, size_bytes: int) -> bool:
    """Return whether a file begins as a database; the size saves opening most others."""
    if size_bytes < LEAST_BYTES or size_bytes % LEAST_BYTES:
        return False
    return header(path, len(MAGIC)) == MAGIC


def opened(path: str) -> int:
    """Open a regular file for reading; raises OSError for anything else."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is not a regular file")
    return descriptor


def header(path: str, size_bytes: int) -> bytes:
    """Return the first bytes of a file.

    Never while a connection to it is open: closing it here would drop the locks there.
    """
    descriptor = opened(path)
    try:
        return os.pread(descriptor, size_bytes, 0)
    finally:
        os.close(descriptor)


def size_of(path: str) -> int:
    """Return the size of a file, 0 if it is missing or cannot be examined."""
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


# One file


def copied(path: str, copy: str, limit_s: float) -> tuple[str, str]:
    """Copy one database; return the outcome and the reason, in words."""
    state, why = "", ""
    for _ in range(2):  # damaged twice: the database itself is damaged
        try:
            take(path, copy, limit_s)
            why = damage(copy)
            keep_owner(path, copy)
            state = "damaged" if why else "copied"
        except Locked as error:
            return "busy", str(error)
        except FileNotFoundError:
            return (
                ("gone", "")
                if not os.path.lexists(path)
                else ("failed", "a folder no longer exists")
            )
        except sqlite3.Error as error:
            state, why = "failed", str(error)
        except OSError as error:
            return "failed", error.strerror or str(error)
        if state == "copied":
            break
    return state, why


def take(path: str, copy: str, limit_s: float) -> None:
    """Copy one database at a consistent moment; raises Locked if there is none in time."""
    started = time.monotonic()
    while True:
        remove(copy, ("", *BESIDE))
        before = identity(path)
        try:
            if must_be_quiet(path):
                take_quiet(path, copy)
            else:
                take_live(path, copy, limit_s)
            refuse_another(path, before)
        except Locked:
            if time.monotonic() - started > limit_s:
                raise
            time.sleep(PAUSE_S)
        else:
            return


def identity(path: str) -> tuple[int, int]:
    """Return which file a path leads to; raises OSError if a link leads out of the folder."""
    status = os.lstat(path)
    if os.path.realpath(path) != path:
        raise OSError("a link took the place of one of its folders")
    return status.st_dev, status.st_ino


def refuse_another(path: str, before: tuple[int, int]) -> None:
    """Raise Locked if a path leads to another file than before."""
    if identity(path) != before:
        raise Locked("it was replaced meanwhile")


def must_be_quiet(path: str) -> bool:
    """Return whether a connection would leave files beside it: no process has it open as WAL."""
    modes = header(path, 20)[18:]
    has_wal, has_index = (os.path.lexists(path + each) for each in ("-wal", "-shm"))
    return (has_wal or WAL_MODE in modes) and not (has_wal and has_index)


def take_live(path: str, copy: str, limit_s: float) -> None:
    """Copy it with SQLite, while other processes have it open.

    One read transaction covers all steps: without it each write of another process restarts the
    copy, forever (measured at a write each 20 ms).
    """
    try:
        with (
            open(opened(path), "rb", buffering=0) as live,  # closed last: that drops all locks
            contextlib.closing(connected(path, "mode=ro", limit_s)) as source,
        ):
            source.execute("BEGIN")
            source.execute("PRAGMA schema_version").fetchone()
            with contextlib.closing(connected(copy, "mode=rwc", limit_s)) as target:
                target.execute("PRAGMA synchronous = OFF")
                target.execute("PRAGMA journal_mode = OFF")
                deadline = time.monotonic() + COPYING_LIMITS * limit_s
                source.backup(target, pages=PAGES_AT_ONCE, progress=lambda *_: tick(deadline))
            keep_tail(live.fileno(), copy)
    except sqlite3.OperationalError as error:
        name = error.sqlite_errorname
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")):
            raise Locked(str(error)) from error
        if not name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
            raise
        remove(copy, ("", *BESIDE))
        take_quiet(path, copy)  # a hot journal: its writer is gone


def connected(path: str, way: str, limit_s: float) -> sqlite3.Connection:
    """Return a connection without implicit transactions."""
    name = urllib.parse.quote(os.fsencode(path))
    uri = f"file:{name}?{way}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=limit_s)


def tick(deadline: float) -> None:
    """Raise Locked after the deadline; exit if the parent process is gone."""
    if os.getppid() != PARENT:
        sys.exit(1)
    if time.monotonic() > deadline:
        raise Locked("copying it took too long")


def take_quiet(path: str, copy: str) -> None:
    """Copy it as files while no process writes; let SQLite recover the copy."""
    now, before = time.time(), moment(path)
    if any(abs(now - changed_ns / 1e9) < SETTLED_S for _, _, changed_ns in before.values()):
        raise Locked("it was written to just now")
    for each in ("", "-wal", "-journal"):
        if each in before:
            take_bytes(path + each, copy + each)
    if moment(path) != before:
        raise Locked("it was written to while it was copied")
    if size_of(copy + "-wal") or size_of(copy + "-journal"):
        recover(copy)
    remove(copy, BESIDE)


def moment(path: str) -> dict[str, tuple[int, int, int]]:
    """Return what changes with any write: size and date of each existing file."""
    found = {}
    for each in ("", *BESIDE):
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(path + each)
            found[each] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def take_bytes(path: str, copy: str) -> None:
    """Copy the bytes of one file."""
    with open(opened(path), "rb", buffering=0) as source, open(copy, "xb", buffering=0) as target:
        while chunk := source.read(CHUNK_BYTES):
            tick(float("inf"))
            while chunk:
                chunk = chunk[target.write(chunk) :]


def recover(copy: str) -> None:
    """Make SQLite roll a copy back, or apply its -wal."""
    if size_of(copy + "-journal"):
        with open(copy + "-journal", "rb") as stream:
            stream.seek(-min(len(SUPER_JOURNAL), size_of(copy + "-journal")), os.SEEK_END)
            if stream.read() == SUPER_JOURNAL:
                raise OSError("a transaction over several databases was interrupted")
    with contextlib.closing(connected(copy, "mode=rw", 0)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA schema_version").fetchone()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def damage(copy: str) -> str:
    """Return the error of SQLite's own check of a copy, '' for none."""
    with contextlib.closing(connected(copy, "mode=rw", 0)) as database:
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("PRAGMA ignore_check_constraints = ON")  # functions of the program
        try:
            rows = database.execute("PRAGMA quick_check(1)").fetchall()
        except sqlite3.DatabaseError as error:
            # A collation or a kind of table that only the program knows is no damage.
            name = error.sqlite_errorname
            return str(error) if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) else ""
    said = " ".join(str(rows[0][0]).split()) if rows else "quick_check gave no result"
    return "" if said == "ok" else said


def keep_others(name: str, path: str, copy: str, patterns: list[re.Pattern[str]]) -> None:
    """Copy files beside a database that have names of SQLite's own files and are not SQLite's.

    tar takes no live file with a copied name: a real SQLite file may replace it at any moment, and
    would damage the copy. For a folder an empty copy is made: tar takes the live one.
    """
    for ending in BESIDE:
        other, live, target = name + ending, path + ending, copy + ending
        if any(each.match(other) for each in patterns) or os.path.lexists(target):
            continue
        try:
            mode = os.lstat(live).st_mode
            if stat.S_ISDIR(mode):
                os.mkdir(target, 0o700)
            elif not stat.S_ISREG(mode):
                if not stat.S_ISSOCK(mode):
                    tell(file=other, state="other", why="it is a link, a pipe or a device")
            elif not is_of_sqlite(live, ending):
                take_bytes(live, target)
                if is_of_sqlite(target, ending):  # a real one replaced it meanwhile
                    os.unlink(target)
                    continue
                keep_owner(live, target)
                keep_others(other, live, target, patterns)
        except FileNotFoundError:
            remove(target, ("",))
        except OSError as error:
            remove(target, ("",))
            tell(file=other, state="other", why=error.strerror or str(error))


def is_of_sqlite(path: str, ending: str) -> bool:
    """Return whether a file begins as SQLite's own of that name."""
    head = header(path, HEAD_BYTES)
    return not head.strip(b"\0") or head.startswith(HEADS[ending])


def keep_tail(live: int, copy: str) -> None:
    """Append to a copy the bytes after the last page of a database, which SQLite never reads.

    Not if they are zeros, which SQLite may write to reserve space.
    """
    head = os.pread(live, 100, 0)
    page_bytes = int.from_bytes(head[16:18], "big")
    page_bytes = 65536 if page_bytes == 1 else page_bytes
    start = max(os.stat(copy).st_size, int.from_bytes(head[28:32], "big") * page_bytes)
    at, target = start, -1
    try:
        while chunk := os.pread(live, CHUNK_BYTES, at):
            if chunk.strip(b"\0") and target < 0:
                target = os.open(copy, os.O_WRONLY)
                os.ftruncate(target, start)
            if target >= 0:
                os.pwrite(target, chunk, at)
            at += len(chunk)
            tick(float("inf"))
    finally:
        if target >= 0:
            os.close(target)


def keep_owner(path: str, copy: str) -> None:
    """Give a copy the owner, mode, date and attributes of the original."""
    before = os.lstat(path)
    os.chown(copy, before.st_uid, before.st_gid)
    shutil.copystat(path, copy)
    now = os.lstat(copy)
    if (now.st_uid, now.st_gid, now.st_mode) != (before.st_uid, before.st_gid, before.st_mode):
        raise OSError("the disk of the backups cannot store owner or mode")


def remove(path: str, endings: tuple[str, ...]) -> None:
    """Remove a copy, or the files beside it."""
    for each in endings:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + each)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
