"""A machine with a stack, this one or another over SSH, and what is asked of either alike."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import re
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .base import Command, Disk, Host, Outcome, Place, is_telling
from .errors import Busy, NotFound, Refused, StepFailed, Unreachable, UsageError, ended
from .hosts import NOT_THERE, READ_ONLY, LocalHost, checked, locked, said_too_much
from .json_answers import read_json
from .names import BACKUPS, LOCK, RESTORE
from .nearest import nearest
from .pasted import host_flag, over_ssh
from .settings import Machine, Settings
from .steps import Scene, Space
from .values import dataclass

if TYPE_CHECKING:
    from .remote import SshHost

COMMANDS_LOCK = ".commands"
_MACHINE_ID = re.compile(r"[0-9a-f]{32}\n", re.ASCII)
_OCTAL = re.compile(r"\\([0-7]{3})")
ANY_EXIT = frozenset(range(256))
GOOD_EXIT = frozenset({0})
NO_PROGRAM_EXIT = 127
IN_ENGLISH = ("env", "LC_ALL=C")
GONE = (": No such file or directory", ": Not a directory")
"""How a program ends a line about a path at which nothing is, if it is run in English."""
MAY_BE_THERE = (
    'for f; do said=$(stat -- "$f" 2>&1 >/dev/null) && echo + || case $said in '
    '*": No such file or directory"|*": Not a directory") echo -;; *) echo +;; esac; done'
)
IS_FILE = "no folder"
# `-m`: where it will be.
WHERE_STACK = (
    f'if [ -e "$2" ] && [ ! -d "$2" ]; then echo "{IS_FILE}"; '
    'else realpath ${1:+"$1"} -- "$2"; fi'
)
# What root makes above the stack belongs to whom the folder around it does, such as a home. The
# stack's own folder is given away by a restore, to whom the archive says.
MAKE_STACK = (
    'make() { [ -d "$1" ] || { make "$(dirname -- "$1")" && mkdir -- "$1" && { '
    '[ "$(id -u)" != 0 ] || chown --reference="$(dirname -- "$1")" -- "$1"; }; }; }; '
    'make "$(dirname -- "$1")" && mkdir -p -- "$1"'
)
LOCK_HELD_EXIT = 99
HOLD_AGAIN_LIMIT_S = 30
LOCK_ANSWER_LIMIT_S = 60.0
"""How long a machine may take to tell whether it holds a lock for us."""
# Only a process that has the lock's file open: its number may be another's since a restart.
_IF_IT_HOLDS = (
    'for fd in /proc/"$1"/fd/*; do if [ "$(readlink "$fd")" = "$(realpath "$2")" ]; '
    "then {}; exit; fi; done"
)
END_HOLDER = _IF_IT_HOLDS.format('kill "$1"')
STILL_HOLDS = _IF_IT_HOLDS.format("echo held")


@dataclass(frozen=True, slots=True)
class Target:
    """A stack on a machine, and how to act on it."""

    host: Host
    name: str
    folder: str
    role: str
    as_root: tuple[str, ...]
    docker: tuple[str, ...]
    no_docker: str = ""
    """Why Docker cannot be asked, where it need not be."""

    @property
    def backups(self) -> str:
        """The folder of its own backups."""
        return f"{self.folder}/{BACKUPS}"

    @property
    def journal(self) -> str:
        """What is to be undone there: with what it undoes, on one file system."""
        return journal_paths(self.folder)[1]

    @property
    def guard(self) -> str:
        """The lock that every changing command holds while it runs."""
        return f"{self.backups}/{COMMANDS_LOCK}"


def find_machine(settings: Settings, name: str) -> Machine:
    """Return a host of the settings; raises UsageError, with the nearest names."""
    for each in settings.machines:
        if each.name == name:
            return each
    names = [each.name for each in settings.machines]
    near = nearest(name, names, 3, 0.4) or names
    offer = f" There are: {', '.join(near)}." if near else " There are none: add [[hosts]]."
    raise UsageError(f"hosts.toml names no host {name!r}.{offer}")


@contextlib.contextmanager
def open_target(
    settings: Settings, name: str, *, bare: bool = False, without_docker: bool = False
) -> Iterator[Target]:
    """Yield the target of that name ('' is this machine), looked at and fit to be changed.

    `bare`: also where the folder of its stack is not there; its lock makes it. `without_docker`:
    also where Docker cannot be asked. Raises Refused where it is not fit, Unreachable where it
    does not answer.
    """
    if not name:
        host: Host = LocalHost(settings.stack.folder)
        stack = settings.stack
        # A link to the stack is followed once, here: find(1) would see nothing in it.
        folder = os.path.realpath(stack.folder)
        target = _fit(host, "this machine", folder, stack.role, sudo=stack.sudo)
        yield target if without_docker else with_docker(target)
        return
    machine = find_machine(settings, name)
    with open_machine(machine, bare=bare) as remote:
        target = _fit(remote, name, remote.root, machine.role, sudo=machine.sudo)
        yield target if without_docker else with_docker(target)


@contextlib.contextmanager
def open_machine(machine: Machine, *, bare: bool = False) -> Iterator[SshHost]:
    """Yield another machine as a host whose root is the folder of its stack, links followed.

    Raises Refused where it is not the machine that is meant or has no such folder, Unreachable.
    """
    from .remote import open_host  # Fabric takes a fifth of a second to import

    name = machine.name
    remote = open_host(machine.ssh, machine.folder, name)
    try:
        _check_identity(remote, machine)
        words = ("sh", "-c", WHERE_STACK, "sh", "-m" if bare else "", machine.folder)
        folder = remote.run(Command(words, ANY_EXIT)).out.strip()
        if folder == IS_FILE:
            raise Refused(
                f"{machine.folder} on {name} is a file, and no folder. Nothing was changed. Name "
                f"a folder there: `folder` of [[hosts]] '{name}' in hosts.toml."
            )
        if not folder.startswith("/"):
            make = over_ssh(machine.ssh, "mkdir", "-p", machine.folder)
            raise Refused(
                f"{name} has no folder {machine.folder}. Make it there, for example with "
                f"`{make}`, or restore with --bare."
            )
        remote.root = folder
        yield remote
    finally:
        remote.close()


def _check_identity(host: Host, machine: Machine) -> None:
    if not machine.machine_id:
        return
    told = host.run(Command(("cat", "/etc/machine-id"), ANY_EXIT)).out.strip()
    if told != machine.machine_id:
        raise Refused(
            f"{machine.ssh.called(machine.name)} is not the machine that hosts.toml means: its "
            f"machine id is {told or 'unknown'}, and {machine.machine_id} is pinned. Nothing was "
            "changed."
        )


def _fit(host: Host, name: str, folder: str, role: str, *, sudo: bool) -> Target:
    as_root = root_words(host, name, sudo=sudo)
    try:
        docker = docker_words(host, name, as_root)
    except Unreachable:
        raise
    except (Refused, StepFailed) as error:  # it refused, or did not answer in time
        return Target(host, name, folder, role, as_root, ("docker",), str(error))
    return Target(host, name, folder, role, as_root, docker)


def with_docker(target: Target) -> Target:
    """Return a target; raises Refused, with what mends it, where Docker cannot be asked."""
    if target.no_docker:
        here = isinstance(target.host, LocalHost)
        other = "; if another machine is meant: --host NAME" if here else ""
        cure = f"What mends it: inv doctor{'' if here else host_flag(target.name)}{other}."
        raise Refused(f"{target.no_docker} {cure}")
    return target


def root_words(host: Host, name: str, *, sudo: bool) -> tuple[str, ...]:
    """Return the words before a command that needs root: none, or `sudo -n`.

    Raises Refused where sudo would ask for a password, or a program is missing.
    """
    as_root: tuple[str, ...] = ()
    if host.run(Command(("id", "-u"))).out.strip() != "0" and sudo:
        told = host.run(Command(("sudo", "-n", "true"), ANY_EXIT, 15))
        if told.exit_code:
            raise Refused(
                f"On {name} sudo does not let this user in without a password: "
                f"{ended(told.last_words)} Allow it (NOPASSWD in /etc/sudoers.d), or log in as "
                "root."
            )
        as_root = ("sudo", "-n")
    for program in ("flock", "tar", "sha256sum"):
        if host.run(Command(("sh", "-c", f"command -v {program}"), ANY_EXIT)).exit_code:
            raise Refused(f"On {name} there is no {program}; it is needed there.")
    return as_root


def root_words_if_any(host: Host, *, sudo: bool) -> tuple[str, ...]:
    """Return the words before a command that needs root, none if sudo would ask for a password."""
    if not sudo or host.run(Command(("id", "-u"))).out.strip() == "0":
        return ()
    told = host.run(Command(("sudo", "-n", "true"), ANY_EXIT, 15))
    return () if told.exit_code else ("sudo", "-n")


def docker_words(host: Host, name: str, as_root: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words before a command of Docker; raises Refused where it cannot be asked."""
    docker: tuple[str, ...] = ("docker",)
    told = host.run(Command((*docker, "ps", "--quiet"), ANY_EXIT, 60))
    if told.exit_code and as_root:
        docker = (*as_root, "docker")
        told = host.run(Command((*docker, "ps", "--quiet"), ANY_EXIT, 60))
    if told.exit_code:
        raise Refused(f"On {name} Docker cannot be asked: {ended(told.last_words)}")
    return docker


class Lock:
    """The lock of a stack, held; on this machine nothing can take it away."""

    def hold_again(self) -> None:
        """Hold it still, or anew where the line that held it broke; raises Busy."""


def journal_paths(stack: str) -> tuple[str, str]:
    """Return where a journal of a stack may lie: a backup's, and that of a restore or reload.

    Earlier versions had both in the first place.
    """
    return (f"{stack}/{BACKUPS}/.journal", f"{stack}/{RESTORE}/.journal")


def require_stack(target: Target) -> None:
    """Raise NotFound where the folder of a target's stack is not there: its lock would make it."""
    if not may_be_there(target.host, target.folder):
        far = "" if isinstance(target.host, LocalHost) else host_flag(target.name)
        raise NotFound(
            f"There is no stack in {target.folder}, on {target.name}. Nothing was changed. "
            f"hosts.toml says where it lies; what else is wrong: inv doctor{far}"
        )


@contextlib.contextmanager
def locked_target(target: Target, purpose: str) -> Iterator[Lock]:
    """Hold the lock of a target's stack, wherever it is.

    Raises Busy, and Refused where the file system that it would lie on is mounted read-only.
    """
    script = f'{MAKE_STACK} && mkdir -p -m 0700 -- "$2"'
    words = ("sh", "-c", script, "sh", target.folder, target.backups)
    with contextlib.ExitStack() as held:
        try:
            target.host.run(Command(words))
            lock = held.enter_context(locked_stack(target.host, target.backups, purpose))
        except StepFailed as error:
            if not isinstance(error, Unreachable):
                refuse_read_only(target.host, (target.folder, target.backups))
            raise
        yield lock


@contextlib.contextmanager
def locked_stack(host: Host, backups: str, purpose: str) -> Iterator[Lock]:
    """Hold the lock of a stack, wherever it is, by the folder of its backups; raises Busy."""
    path = f"{backups}/{LOCK}"
    if isinstance(host, LocalHost):
        with locked(path, purpose):
            yield Lock()
        return
    from .remote import SshHost

    assert isinstance(host, SshHost)  # noqa: S101 - there is no other
    lock = _FarLock(host, path, purpose)
    lock.take()
    try:
        yield lock
    finally:
        lock.let_go()


class _FarLock(Lock):
    """A lock on another machine: flock there reads our end, and goes when we or the line go."""

    def __init__(self, host: SshHost, path: str, purpose: str) -> None:
        self.host = host
        self.path = path
        self.purpose = purpose
        self.holder = ""
        """The process there that holds it."""
        self._channel: Any = None
        self._looking = threading.Lock()

    def take(self, wait_s: int = 0) -> None:
        """Take it; raises Busy, with who holds it, where that is not done in time."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        told = json.dumps({"pid": os.getpid(), "purpose": self.purpose, "since": now})
        words = ("flock", "--timeout", str(wait_s), "-E", str(LOCK_HELD_EXIT), self.path)
        script = 'printf %s "$1" > "$2"; echo "held $$"; exec cat'
        command = Command((*words, "sh", "-c", script, "sh", told, self.path))
        self._channel = self.host.login.start(command)
        answer, code, said = self.host.login.answer(self._channel, wait_s + LOCK_ANSWER_LIMIT_S)
        held, _, holder = answer.decode("utf-8", "replace").partition(" ")
        if held == "held":
            self.holder = holder.strip()
            return
        self.let_go()
        if code == LOCK_HELD_EXIT:
            holder = ""
            with contextlib.suppress(StepFailed):
                holder = read_text(self.host, self.path)
            if self._is_held_by_ours():
                raise Busy(
                    f"On {self.host.name} what is left there of this run's lost connection still "
                    f"holds its lock, {self.path} (process {self.holder}), and was not ended. "
                    "sshd there lets it go when it notices, or: sudo kill -9 "
                    f"{self.holder}"
                )
            raise Busy(
                f"On {self.host.name} another run is working on this stack. Wait for it, and run "
                f"this again. ({holder.strip() or self.path})"
            )
        folder = posixpath.dirname(self.path)
        if is_read_only(self.host, folder):
            raise Refused(f"On {self.host.name}: {folder} {READ_ONLY}. {remount(folder)}")
        raise Refused(
            f"On {self.host.name} the lock {self.path} cannot be taken (exit {code}): "
            f"{said or 'it said nothing'}"
        )

    def _is_held_by_ours(self) -> bool:
        """Tell whether the process that held it for this run has it still, though it was ended."""
        words = ("sh", "-c", STILL_HOLDS, "sh", self.holder, self.path)
        return bool(self.holder) and self.host.run(Command(words, ANY_EXIT)).out == "held\n"

    def hold_again(self) -> None:
        """Hold it still, or take it anew; what holds it for a line that is dead is ended first."""
        with self._looking:
            if not self._channel.closed and self._channel.get_transport().is_active():
                return
            words = ("sh", "-c", END_HOLDER, "sh", self.holder, self.path)
            self.host.run(Command(words, ANY_EXIT))
            self.take(HOLD_AGAIN_LIMIT_S)

    def let_go(self) -> None:
        """Let go of it."""
        from .login import closed

        if self._channel is not None:
            closed(self._channel)


def host_name(host: Host) -> str:
    """Return what a machine calls itself."""
    if isinstance(host, LocalHost):
        return socket.gethostname()
    return host.run(Command(("uname", "-n"))).out.strip()


def machine_mark(host: Host) -> str:
    """Return what tells a machine from another of the same name; '' where nothing does.

    The hash of its machine id, which is for its own eyes alone (machine-id(5)), and of the serial
    number of a Pi: on a card that was copied the id is that of the first machine.
    """
    words = ("cat", "/etc/machine-id", "/proc/device-tree/serial-number")
    told = host.run(Command(words, ANY_EXIT)).out
    if not _MACHINE_ID.match(told):
        return ""
    return hashlib.sha256(f"iotstack-invoke {told}".encode()).hexdigest()[:32]


def on_host(host: Host) -> str:
    """Return the beginning of a message about another machine; of this one, nothing."""
    return "" if isinstance(host, LocalHost) else f"On {host.name}: "


def looked(
    host: Host, words: tuple[str, ...], as_root: tuple[str, ...] = (), limit_s: float = 120.0
) -> str:
    """Return what a program says that looks at files, of which some may not be there.

    Raises StepFailed where it could not look at what may be there.
    """
    command = Command((*as_root, *IN_ENGLISH, *words), ANY_EXIT, limit_s, shlex.join(words))
    return _told_of_what_is_there(host, command, host.run(command))


def _told_of_what_is_there(host: Host, command: Command, told: Outcome) -> str:
    """Return the output of a command that failed of nothing but of what is not there."""
    said = [line for line in told.err.splitlines() if is_telling(line)]
    others = [line for line in said if not line.endswith(GONE)]
    if told.exit_code and (others or not said):
        err = "\n".join(others)
        checked(replace(command, accept=GOOD_EXIT), replace(told, err=err), host.name)
    return told.out


def has_line(
    host: Host, pattern: str, path: str, as_root: tuple[str, ...], limit_s: float
) -> bool | None:
    """Tell whether a file has a line that a pattern of grep(1) fits; None where there is no file.

    Raises StepFailed where it cannot be read.
    """
    words = ("grep", "--quiet", "--max-count=1", pattern, path)
    command = Command((*as_root, *IN_ENGLISH, *words), ANY_EXIT, limit_s, shlex.join(words))
    told = host.run(command)
    if told.exit_code > 1:
        _told_of_what_is_there(host, command, told)
        return None
    return told.exit_code == 0


def is_folder(host: Host, path: str) -> bool:
    """Tell whether a path is a folder, or a link to one; raises StepFailed if that is unknown."""
    if isinstance(host, LocalHost):
        inside = f"{path}/."
        return inside in host.look([inside])
    return looked(host, ("stat", "-L", "-c", "%F", "--", path)).strip() == "directory"


def may_write(host: Host, folder: str) -> bool:
    """Tell whether whoever logs in may make files in a folder."""
    if isinstance(host, LocalHost):
        return os.access(folder, os.W_OK | os.X_OK)
    script = '[ -w "$1" ] && [ -x "$1" ]'
    return host.run(Command(("sh", "-c", script, "sh", folder), ANY_EXIT)).exit_code == 0


def is_read_only(host: Host, path: str) -> bool:
    """Tell whether the file system that a path lies on, or will, takes nothing; False if unknown.

    Asked of the kernel: the words of a program may be in any language.
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
    """Tell it by the lines of proc_pid_mountinfo(5): of the mount, or of its file system."""
    nearest, read_only = "", False
    for line in mountinfo.splitlines():
        mine, _, theirs = line.partition(" - ")
        fields, of_system = mine.split(" "), theirs.split(" ")
        if len(fields) <= 5 or len(of_system) <= 2:  # noqa: PLR2004 - options come last
            continue
        point = _OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4])
        if f"{path}/".startswith(f"{point.rstrip('/')}/") and len(point) >= len(nearest):
            nearest = point  # of two on one folder the later one is seen
            read_only = "ro" in {*fields[5].split(","), *of_system[2].split(",")}
    return read_only


def refuse_read_only(host: Host, folders: Iterable[str]) -> None:
    """Raise Refused where one of some folders is on a file system that is mounted read-only."""
    for folder in dict.fromkeys(folders):
        if is_read_only(host, folder):
            raise Refused(
                f"{on_host(host)}{folder} {READ_ONLY}. Nothing was changed. When the disk is "
                f"well: {remount(folder)}"
            )


def remount(folder: str) -> str:
    """Return the command that makes the file system of a folder writable again."""
    return f'sudo mount -o remount,rw "$(findmnt -n -o TARGET -T {shlex.quote(folder)})"'


def may_be_there(host: Host, path: str) -> bool:
    """Tell whether there is something, or we cannot look."""
    return bool(which_may_be_there(host, [path]))


def which_may_be_there(
    host: Host, paths: Iterable[str], as_root: tuple[str, ...] = ()
) -> frozenset[str]:
    """Return the paths at which there is something, or at which we cannot look."""
    asked = tuple(paths)
    if isinstance(host, LocalHost) and not as_root:
        return frozenset(filter(_may_be_here, asked))
    if not asked:
        return frozenset()
    words = (*as_root, *IN_ENGLISH, "sh", "-c", MAY_BE_THERE, "sh", *asked)
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
    """Return what is free where a folder lies, or will: a restore makes it on a bare machine."""
    while (free := host.free_bytes(folder)) is None and len(folder) > 1:
        folder = posixpath.dirname(folder)
    return free


def reserve(
    scene: Scene, place: Place, folder: str, size_bytes: int, *, for_all: bool = False
) -> Space | None:
    """Keep space where a folder lies, or will, for what a job is to write there.

    Nothing is kept where less is left, or where nobody can say (None).
    """
    return scene.reserve(lambda: _disk(place, folder), size_bytes, for_all=for_all)


def _disk(place: Place, folder: str) -> Disk | None:
    """Return the disk of a folder; one for all of a place that cannot tell which it is."""
    look: Callable[[str], Disk | None] | None = getattr(place, "disk", None)
    if look is None:
        free = place.free_bytes(folder)
        return None if free is None else Disk(place.name, free)
    while (disk := look(folder)) is None and len(folder) > 1:
        folder = posixpath.dirname(folder)
    return disk


def read_text(host: Host, path: str, as_root: tuple[str, ...] = ()) -> str:
    """Return the text of a file of a host, '' where there is none.

    Raises StepFailed where it cannot be read.
    """
    return looked_as_it_is(host, ("cat", "--", path), as_root, limit_s=60)


def looked_as_it_is(
    host: Host, words: tuple[str, ...], as_root: tuple[str, ...] = (), limit_s: float = 120.0
) -> str:
    """Return the same as `looked`, and any byte of it: names that are no UTF-8 can be acted on."""
    command = Command((*as_root, *IN_ENGLISH, *words), limit_s=limit_s, called=shlex.join(words))
    said: list[str] = []
    with host.pipe(command, lambda _stream, line: said.append(line)) as pipe:
        text = pipe.stdout.read(command.most_bytes + 1).decode("utf-8", "surrogateescape")
        if len(text) > command.most_bytes:
            raise said_too_much(command.shown, command.most_bytes, host.name)
        code = pipe.finish()
    return _told_of_what_is_there(host, command, Outcome(code, text, "\n".join(said)))


def entries(host: Host, folder: str, as_root: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the entries of a folder of a host with their kind as find(1) tells it (d, f, l …).

    Raises StepFailed where it cannot be read to its end.
    """
    words = ("find", folder, "-mindepth", "1", "-maxdepth", "1", "-printf", "%y %f\\0")
    told = looked_as_it_is(host, words, as_root)
    return {each[2:]: each[0] for each in told.split("\0") if len(each) > 2}  # noqa: PLR2004


def mount_points(host: Host) -> frozenset[str]:
    """Return the folders of a host on which a file system is mounted (proc_pid_mountinfo(5))."""
    told = looked(host, ("cat", "/proc/self/mountinfo"))
    fields = (line.split(" ") for line in told.splitlines())
    octal = re.compile(r"\\([0-7]{3})")
    return frozenset(
        octal.sub(lambda found: chr(int(found[1], 8)), each[4])
        for each in fields
        if len(each) > 4  # noqa: PLR2004
    )


def points_away(host: Host) -> frozenset[str]:
    """Return where /etc/fstab of a host has a file system that is not mounted now.

    What is put there is hidden by the next mount. Raises StepFailed where findmnt(8) is not
    understood.
    """
    words = ("findmnt", "--fstab", "--json", "--output", "TARGET")
    told = host.run(Command(words, frozenset({0, 1, NO_PROGRAM_EXIT}))).out
    if not told.strip():
        return frozenset()  # no findmnt(8), or nothing in the file
    answer = read_json(told, f"`findmnt --fstab` on {host.name}")
    found = [each["target"].text("") for each in answer["filesystems"].items()]
    return frozenset(each for each in found if each.startswith("/")) - mount_points(host)


def device(host: Host, path: str, as_root: tuple[str, ...] = ()) -> str:
    """Return the file system that a path lies on, or will, as the number of its device.

    Raises StepFailed where that cannot be told.
    """
    while path:
        told = looked(host, ("stat", "-L", "-c", "%d", "--", path), as_root).strip()
        if told:
            return told
        path = posixpath.dirname(path) if path != "/" else ""
    raise StepFailed(f"On {host.name}: no file system is known for {path}.")


def mount_of(host: Host, path: str, as_root: tuple[str, ...] = ()) -> str:
    """Return the mount that a path lies on, or will: its device, and where that is mounted.

    Between two mounts nothing is renamed, though they show one file system (rename(2), EXDEV): of
    a folder that is bound to another place the device is the same.
    """
    number = device(host, path, as_root)
    real = looked(host, ("realpath", "-m", "--", path), as_root).removesuffix("\n")
    points = mount_points(host)
    while real not in points and real.strip("/"):
        real = posixpath.dirname(real)
    return f"{number} {real}"
