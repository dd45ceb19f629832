"""Questions to any host, this machine or another: paths, mounts, permissions, free space."""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import re
import shlex
import socket
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..core.errors import Refused, StepFailed, ended
from .base import ANY_EXIT, Command, Host, Result, is_telling, sh
from .json_answers import read_json
from .local import NOT_THERE, READ_ONLY, LocalHost, checked, said_too_much
from .pasted import host_flag

_OCTAL = re.compile(r"\\([0-7]{3})")

GOOD_EXIT = frozenset({0})

NO_PROGRAM_EXIT = 127

IN_ENGLISH = ("env", "LC_ALL=C")

GONE = (": No such file or directory", ": Not a directory")
"""How a program's message about a missing path ends, if it runs in English."""

MAY_BE_THERE = (
    'for f; do said=$(stat -- "$f" 2>&1 >/dev/null) && echo + || case $said in '
    '*": No such file or directory"|*": Not a directory") echo -;; *) echo +;; esac; done'
)


def root_words(host: Host, name: str, *, sudo: bool) -> tuple[str, ...]:
    """Return the prefix of a command that needs root: empty, or `sudo -n`.

    Raises Refused if sudo would ask for a password, or a program is missing.
    """
    as_root: tuple[str, ...] = ()
    if host.run(Command(("id", "-u"))).out.strip() != "0" and sudo:
        told = host.run(Command(("sudo", "-n", "true"), ANY_EXIT, 15))
        if told.exit_code == NO_PROGRAM_EXIT:
            raise Refused(
                f"On {name} the program sudo is missing; install it there, or log in as root."
            )
        if told.exit_code:
            raise Refused(
                f"On {name} sudo needs a password for this user: "
                f"{ended(told.last_line)} Allow it (NOPASSWD in /etc/sudoers.d), or log in as "
                "root."
            )
        as_root = ("sudo", "-n")
    for program in ("flock", "tar", "sha256sum"):
        if host.run(Command(("sh", "-c", f"command -v {program}"), ANY_EXIT)).exit_code:
            raise Refused(f"On {name} the program {program} is missing; install it there.")
    return as_root


def root_words_if_any(host: Host, *, sudo: bool) -> tuple[str, ...]:
    """Return the prefix of a command that needs root, empty if sudo would ask for a password."""
    if not sudo or host.run(Command(("id", "-u"))).out.strip() == "0":
        return ()
    told = host.run(Command(("sudo", "-n", "true"), ANY_EXIT, 15))
    return () if told.exit_code else ("sudo", "-n")


def host_name(host: Host) -> str:
    """Return the name that a machine has for itself."""
    if isinstance(host, LocalHost):
        return socket.gethostname()
    return host.run(Command(("uname", "-n"))).out.strip()


def undo_on(host: Host) -> str:
    """Return the command that undoes an interrupted restore of a machine."""
    return f"inv undo{'' if isinstance(host, LocalHost) else host_flag(host.name)}"


def on_host(host: Host) -> str:
    """Return the beginning of a message about another machine; '' for this one."""
    return "" if isinstance(host, LocalHost) else f"On {host.name}: "


def stat_on(
    host: Host, words: tuple[str, ...], as_root: tuple[str, ...] = (), limit_s: float = 120.0
) -> str:
    """Return the output of a program that examines files, some of which may not exist.

    Raises StepFailed if it could not examine a file that may exist.
    """
    command = Command((*as_root, *IN_ENGLISH, *words), ANY_EXIT, limit_s, shlex.join(words))
    return _told_of_what_is_there(host, command, host.run(command))


def _told_of_what_is_there(host: Host, command: Command, told: Result) -> str:
    """Return the output of a command that failed only because files do not exist."""
    said = [line for line in told.err.splitlines() if is_telling(line)]
    others = [line for line in said if not line.endswith(GONE)]
    if told.exit_code and (others or not said):
        err = "\n".join(others)
        checked(replace(command, accept=GOOD_EXIT), replace(told, err=err), host.name)
    return told.out


def has_line(
    host: Host, pattern: str, path: str, as_root: tuple[str, ...], limit_s: float
) -> bool | None:
    """Return whether a line of a file matches a grep(1) pattern; None if there is no file.

    Raises StepFailed if it cannot be read.
    """
    found = first_match(host, pattern, path, as_root, limit_s)
    return None if found is None else bool(found)


def first_match(
    host: Host, pattern: str, path: str, as_root: tuple[str, ...], limit_s: float
) -> str | None:
    """Return the first text in a file that matches a grep(1) pattern, '' if none does.

    None if there is no file; raises StepFailed if it cannot be read.
    """
    words = ("grep", "--text", "--only-matching", "--max-count=1", pattern, path)
    command = Command((*as_root, *IN_ENGLISH, *words), ANY_EXIT, limit_s, shlex.join(words))
    told = host.run(command)
    if told.exit_code > 1:
        _told_of_what_is_there(host, command, told)
        return None
    return told.out.partition("\n")[0]


def is_folder(host: Host, path: str) -> bool:
    """Return whether a path is a folder or a link to one; raises StepFailed if unknown."""
    if isinstance(host, LocalHost):
        inside = f"{path}/."
        return inside in host.stat([inside])
    return stat_on(host, ("stat", "-L", "-c", "%F", "--", path)).strip() == "directory"


def may_write(host: Host, folder: str) -> bool:
    """Return whether the login user may create files in a folder."""
    if isinstance(host, LocalHost):
        return os.access(folder, os.W_OK | os.X_OK)
    script = '[ -w "$1" ] && [ -x "$1" ]'
    return host.run(Command(sh(script, folder), ANY_EXIT)).exit_code == 0


def is_read_only(host: Host, path: str) -> bool:
    """Return whether the file system of a path, existing or not, is read-only; False if unknown.

    Asked of the kernel: messages of programs may be in any language.
    """
    if isinstance(host, LocalHost):
        while True:
            try:
                return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
            except FileNotFoundError:
                path = posixpath.dirname(path) or "/"
            except OSError:
                return False
    real = host.run(Command(("realpath", "-m", "--", path), ANY_EXIT)).out.rstrip("\n")
    told = host.run(Command(("cat", "/proc/self/mountinfo"), ANY_EXIT)).out
    return mounted_read_only(real, told) if real else False


def mounted_read_only(path: str, mountinfo: str) -> bool:
    """Return the same from the lines of proc_pid_mountinfo(5): of the mount or its file system."""
    nearest, read_only = "", False
    for line in mountinfo.splitlines():
        mine, _, theirs = line.partition(" - ")
        fields, of_system = mine.split(" "), theirs.split(" ")
        if len(fields) <= 5 or len(of_system) <= 2:  # noqa: PLR2004 - options come last
            continue
        point = _OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4])
        if f"{path}/".startswith(f"{point.rstrip('/')}/") and len(point) >= len(nearest):
            nearest = point  # of two mounts on one folder the later one is visible
            read_only = "ro" in {*fields[5].split(","), *of_system[2].split(",")}
    return read_only


def refuse_read_only(host: Host, folders: Iterable[str]) -> None:
    """Raise Refused if any of the folders is on a file system that is mounted read-only."""
    for folder in dict.fromkeys(folders):
        if is_read_only(host, folder):
            raise Refused(
                f"{on_host(host)}{folder} {READ_ONLY}. Nothing was changed. When the disk works "
                f"again: {remount(folder)}"
            )


def remount(folder: str) -> str:
    """Return the command that makes the file system of a folder writable again."""
    return f'sudo mount -o remount,rw "$(findmnt -n -o TARGET -T {shlex.quote(folder)})"'


def may_be_there(host: Host, path: str) -> bool:
    """Return whether a path exists, or cannot be examined."""
    return bool(which_may_be_there(host, [path]))


def which_may_be_there(
    host: Host, paths: Iterable[str], as_root: tuple[str, ...] = ()
) -> frozenset[str]:
    """Return the paths that exist, or cannot be examined."""
    asked = tuple(paths)
    if isinstance(host, LocalHost) and not as_root:
        return frozenset(filter(_may_be_here, asked))
    if not asked:
        return frozenset()
    words = (*as_root, *IN_ENGLISH, *sh(MAY_BE_THERE, *asked))
    told = host.run(Command(words)).out
    return frozenset(path for path, mark in zip(asked, told.split(), strict=True) if mark != "-")


def _may_be_here(path: str) -> bool:
    try:
        os.lstat(path)
    except NOT_THERE:
        return False
    except OSError:
        return True
    return True


def free_bytes(host: Host, folder: str) -> int | None:
    """Return the free bytes at a folder, which a restore may still make; None if unknown."""
    while (free := host.free_bytes(folder)) is None and len(folder) > 1:
        folder = posixpath.dirname(folder)
    return free


def read_bytes(host: Host, path: str, as_root: tuple[str, ...] = (), limit_s: float = 60) -> bytes:
    """Return the content of a file on a host; raises StepFailed if it cannot be read."""
    with host.pipe(Command((*as_root, "cat", "--", path), timeout_s=limit_s)) as pipe:
        content = pipe.stdout.read()
        if pipe.finish():
            raise StepFailed(f"On {host.name}: {path} cannot be read.")
    return content


@contextlib.contextmanager
def temporary_file(host: Host, path: str, content: bytes) -> Iterator[None]:
    """Keep a temporary file of mode 0600 during the block, for a command to read."""
    host.write(path, io.BytesIO(content), 0)
    try:
        yield
    finally:
        host.remove([path])


def read_text(host: Host, path: str, as_root: tuple[str, ...] = ()) -> str:
    """Return the text of a file on a host, '' if it does not exist.

    Raises StepFailed if it cannot be read.
    """
    return stat_unfollowed(host, ("cat", "--", path), as_root, limit_s=60)


def stat_unfollowed(
    host: Host, words: tuple[str, ...], as_root: tuple[str, ...] = (), limit_s: float = 120.0
) -> str:
    """Return the same as `stat_on`, with any byte: names may not be UTF-8."""
    command = Command((*as_root, *IN_ENGLISH, *words), timeout_s=limit_s, label=shlex.join(words))
    said: list[str] = []
    with host.pipe(command, lambda _stream, line: said.append(line)) as pipe:
        text = pipe.stdout.read(command.most_bytes + 1).decode("utf-8", "surrogateescape")
        if len(text) > command.most_bytes:
            raise said_too_much(command.shown, command.most_bytes, host.name)
        code = pipe.finish()
    return _told_of_what_is_there(host, command, Result(code, text, "\n".join(said)))


def entries(host: Host, folder: str, as_root: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the entries of a folder on a host with their kind as in find(1): d, f, l or other.

    Raises StepFailed if it cannot be read completely.
    """
    words = ("find", folder, "-mindepth", "1", "-maxdepth", "1", "-printf", "%y %f\\0")
    told = stat_unfollowed(host, words, as_root)
    return {each[2:]: each[0] for each in told.split("\0") if len(each) > 2}  # noqa: PLR2004


def mount_points(host: Host) -> frozenset[str]:
    """Return the folders of a host on which a file system is mounted (proc_pid_mountinfo(5))."""
    told = stat_on(host, ("cat", "/proc/self/mountinfo"))
    fields = (line.split(" ") for line in told.splitlines())
    octal = re.compile(r"\\([0-7]{3})")
    return frozenset(
        octal.sub(lambda found: chr(int(found[1], 8)), each[4])
        for each in fields
        if len(each) > 4  # noqa: PLR2004
    )


def points_away(host: Host) -> frozenset[str]:
    """Return the mount points in /etc/fstab of a host that are not mounted now.

    A file written there is hidden by the next mount. Raises StepFailed if the output of findmnt(8)
    cannot be parsed.
    """
    words = ("findmnt", "--fstab", "--json", "--output", "TARGET")
    told = host.run(Command(words, frozenset({0, 1, NO_PROGRAM_EXIT}))).out
    if not told.strip():
        return frozenset()  # no findmnt(8), or an empty file
    answer = read_json(told, f"`findmnt --fstab` on {host.name}")
    found = [each["target"].text("") for each in answer["filesystems"].items()]
    return frozenset(each for each in found if each.startswith("/")) - mount_points(host)


def device(host: Host, path: str, as_root: tuple[str, ...] = ()) -> str:
    """Return the device number of the file system of a path, which need not exist.

    Raises StepFailed if it is unknown.
    """
    while path:
        told = stat_on(host, ("stat", "-L", "-c", "%d", "--", path), as_root).strip()
        if told:
            return told
        path = posixpath.dirname(path) if path != "/" else ""
    raise StepFailed(f"On {host.name}: found no file system for {path}.")


def mount_of(host: Host, path: str, as_root: tuple[str, ...] = ()) -> str:
    """Return the mount of a path, which need not exist: its device, and the mount point.

    A rename between two mounts fails even if they show one file system (rename(2), EXDEV): a bind
    mount has the same device.
    """
    number = device(host, path, as_root)
    real = stat_on(host, ("realpath", "-m", "--", path), as_root).removesuffix("\n")
    points = mount_points(host)
    while real not in points and real.strip("/"):
        real = posixpath.dirname(real)
    return f"{number} {real}"
