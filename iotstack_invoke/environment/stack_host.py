"""A machine with a stack, this one or another over SSH, and the queries for both."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import re
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..backups.names import COMMANDS_LOCK, LOCK
from ..core.dataclass import dataclass
from ..core.errors import Busy, NotFound, Refused, StepFailed, Unreachable, UsageError, ended
from ..core.nearest import nearest
from ..core.stack_folders import BACKUPS, RESTORE
from ..engine.steps import HostAccess
from ..hosts.base import ANY_EXIT, Command, Host, sh
from ..hosts.inspect import (
    is_read_only,
    may_be_there,
    read_text,
    refuse_read_only,
    remount,
    root_words,
)
from ..hosts.local import READ_ONLY, LocalHost, locked
from ..hosts.pasted import host_flag, over_ssh
from ..settings.model import HostConfig, Settings

if TYPE_CHECKING:
    from ..hosts.ssh import SshHost

_MACHINE_ID = re.compile(r"[0-9a-f]{32}\n", re.ASCII)
IS_FILE = "no folder"
# `-m`: the path need not exist yet.
WHERE_STACK = (
    f'if [ -e "$2" ] && [ ! -d "$2" ]; then echo "{IS_FILE}"; '
    'else realpath ${1:+"$1"} -- "$2"; fi'
)
# A folder that root creates above the stack gets the owner of its parent, such as a home. A
# restore sets the owner of the stack's own folder, as in the archive.
MAKE_STACK = (
    'make() { [ -d "$1" ] || { make "$(dirname -- "$1")" && mkdir -- "$1" && { '
    '[ "$(id -u)" != 0 ] || chown --reference="$(dirname -- "$1")" -- "$1"; }; }; }; '
    'make "$(dirname -- "$1")" && mkdir -p -- "$1"'
)
LOCK_HELD_EXIT = 99
HOLD_AGAIN_LIMIT_S = 30
LOCK_ANSWER_LIMIT_S = 60.0
"""How long a machine may take to check whether it holds our lock."""
# Only a process that has the lock's file open: after a restart its number may be another's.
_IF_IT_HOLDS = (
    'for fd in /proc/"$1"/fd/*; do if [ "$(readlink "$fd")" = "$(realpath "$2")" ]; '
    "then {}; exit; fi; done"
)
END_HOLDER = _IF_IT_HOLDS.format('kill "$1"')
STILL_HOLDS = _IF_IT_HOLDS.format("echo held")


@dataclass(frozen=True, slots=True)
class StackHost:
    """A stack on a machine, and how to act on it."""

    host: Host
    name: str
    folder: str
    role: str
    as_root: tuple[str, ...]
    docker: tuple[str, ...]
    no_docker: str = ""
    """Why Docker cannot be queried, if it need not be."""

    @property
    def backups(self) -> str:
        """The folder of its own backups."""
        return f"{self.folder}/{BACKUPS}"

    @property
    def journal(self) -> str:
        """The journal of pending undos there, on the file system of the data that they restore."""
        return journal_paths(self.folder)[1]

    @property
    def guard(self) -> str:
        """The lock that every changing command holds while it runs."""
        return f"{self.backups}/{COMMANDS_LOCK}"

    @property
    def access(self) -> HostAccess:
        """How the steps of a plan access it, in the role `pi`."""
        return HostAccess("pi", self.as_root, self.docker, self.guard)


def find_machine(settings: Settings, name: str) -> HostConfig:
    """Return a host of the settings; raises UsageError, with the nearest names."""
    for each in settings.machines:
        if each.name == name:
            return each
    names = [each.name for each in settings.machines]
    near = nearest(name, names, 3, 0.4) or names
    offer = (
        f" There are: {', '.join(near)}." if near else " No hosts are configured: add [[hosts]]."
    )
    raise UsageError(f"hosts.toml has no host {name!r}.{offer}")


@contextlib.contextmanager
def open_target(
    settings: Settings, name: str, *, bare: bool = False, without_docker: bool = False
) -> Iterator[StackHost]:
    """Yield the target of that name ('' is this machine), checked to be ready for changes.

    `bare`: also if the folder of its stack is missing; its lock creates it. `without_docker`: also
    if Docker cannot be queried. Raises Refused if it is not ready, Unreachable if it does not
    answer.
    """
    if not name:
        host: Host = LocalHost(settings.stack.folder)
        stack = settings.stack
        # Resolve a link to the stack once, here: find(1) would not follow it.
        folder = os.path.realpath(stack.folder)
        target = _fit(host, "this machine", folder, stack.role, sudo=stack.sudo)
        yield target if without_docker else with_docker(target)
        return
    machine = find_machine(settings, name)
    with open_machine(machine, bare=bare) as remote:
        target = _fit(remote, name, remote.root, machine.role, sudo=machine.sudo)
        yield target if without_docker else with_docker(target)


@contextlib.contextmanager
def open_machine(machine: HostConfig, *, bare: bool = False) -> Iterator[SshHost]:
    """Yield another machine as a host whose root is the folder of its stack, links followed.

    Raises Refused if it is another machine than intended or has no such folder, Unreachable.
    """
    from ..hosts.ssh import open_host  # Fabric takes a fifth of a second to import

    name = machine.name
    remote = open_host(machine.ssh, machine.folder, name)
    try:
        _check_identity(remote, machine)
        words = sh(WHERE_STACK, "-m" if bare else "", machine.folder)
        folder = remote.run(Command(words, ANY_EXIT)).out.strip()
        if folder == IS_FILE:
            raise Refused(
                f"{machine.folder} on {name} is a file, not a folder. Nothing was changed. Set a "
                f"folder there: `folder` of [[hosts]] '{name}' in hosts.toml."
            )
        if not folder.startswith("/"):
            make = over_ssh(machine.ssh, "mkdir", "-p", machine.folder)
            raise Refused(
                f"{name} has no folder {machine.folder}. Create it, for example with "
                f"`{make}`, or restore with --bare."
            )
        remote.root = folder
        yield remote
    finally:
        remote.close()


def _check_identity(host: Host, machine: HostConfig) -> None:
    if not machine.machine_id:
        return
    told = host.run(Command(("cat", "/etc/machine-id"), ANY_EXIT)).out.strip()
    if told != machine.machine_id:
        raise Refused(
            f"{machine.ssh.called(machine.name)} is not the expected machine: its machine id is "
            f"{told or 'unknown'}, but hosts.toml pins {machine.machine_id}. Nothing was changed."
        )


def _fit(host: Host, name: str, folder: str, role: str, *, sudo: bool) -> StackHost:
    as_root = root_words(host, name, sudo=sudo)
    return StackHost(host, name, folder, role, as_root, *docker_words_if_any(host, name, as_root))


def with_docker(target: StackHost) -> StackHost:
    """Return a target; raises Refused, with how to fix it, if Docker cannot be queried."""
    if target.no_docker:
        here = isinstance(target.host, LocalHost)
        other = "; for another machine use --host NAME" if here else ""
        cure = f"To find the cause: inv doctor{'' if here else host_flag(target.name)}{other}."
        raise Refused(f"{target.no_docker} {cure}")
    return target


def docker_words(host: Host, name: str, as_root: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words before a Docker command; raises Refused if Docker cannot be queried."""
    docker: tuple[str, ...] = ("docker",)
    told = host.run(Command((*docker, "ps", "--quiet"), ANY_EXIT, 60))
    if told.exit_code and as_root:
        docker = (*as_root, "docker")
        told = host.run(Command((*docker, "ps", "--quiet"), ANY_EXIT, 60))
    if told.exit_code:
        raise Refused(f"Docker on {name} cannot be used: {ended(told.last_line)}")
    return docker


def docker_words_if_any(
    host: Host, name: str, as_root: tuple[str, ...]
) -> tuple[tuple[str, ...], str]:
    """Return the same, and '' or why Docker cannot be queried: steps that need it fail then."""
    try:
        return docker_words(host, name, as_root), ""
    except Unreachable:
        raise
    except (Refused, StepFailed) as error:  # sudo or Docker refused, or did not answer in time
        return ("docker",), str(error)


class Lock:
    """The lock of a stack, held; on this machine it cannot be lost."""

    def hold_again(self) -> None:
        """Keep holding it, or take it again after a lost connection; raises Busy."""


def journal_paths(stack: str) -> tuple[str, str]:
    """Return the paths of a stack's journals: of a backup, and of a restore or reload.

    Earlier versions had both at the first path.
    """
    return (f"{stack}/{BACKUPS}/.journal", f"{stack}/{RESTORE}/.journal")


def require_stack(target: StackHost) -> None:
    """Raise NotFound if the folder of a target's stack is missing: its lock would create it."""
    if not may_be_there(target.host, target.folder):
        far = "" if isinstance(target.host, LocalHost) else host_flag(target.name)
        raise NotFound(
            f"No stack found in {target.folder} on {target.name}. Nothing was changed. Check its "
            f"folder in hosts.toml; for other problems run inv doctor{far}"
        )


@contextlib.contextmanager
def locked_target(target: StackHost, purpose: str) -> Iterator[Lock]:
    """Hold the lock of a target's stack, on any machine.

    Raises Busy, and Refused if the file system for its lock is mounted read-only.
    """
    script = f'{MAKE_STACK} && mkdir -p -m 0700 -- "$2"'
    words = sh(script, target.folder, target.backups)
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
    """Hold the lock of a stack, on any machine, by the folder of its backups; raises Busy."""
    path = f"{backups}/{LOCK}"
    if isinstance(host, LocalHost):
        with locked(path, purpose):
            yield Lock()
        return
    from ..hosts.ssh import SshHost

    assert isinstance(host, SshHost)  # noqa: S101 - the only other kind
    lock = _FarLock(host, path, purpose)
    lock.take()
    try:
        yield lock
    finally:
        lock.let_go()


class _FarLock(Lock):
    """A lock on another machine: flock there ends when its input or the connection is closed."""

    def __init__(self, host: SshHost, path: str, purpose: str) -> None:
        self.host = host
        self.path = path
        self.purpose = purpose
        self.holder = ""
        """The process there that holds it."""
        self._channel: Any = None
        self._looking = threading.Lock()

    def take(self, wait_s: int = 0) -> None:
        """Take it; raises Busy, with the holder, if that does not succeed in time."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        told = json.dumps({"pid": os.getpid(), "purpose": self.purpose, "since": now})
        words = ("flock", "--timeout", str(wait_s), "-E", str(LOCK_HELD_EXIT), self.path)
        script = 'printf %s "$1" > "$2"; echo "held $$"; exec cat'
        command = Command((*words, *sh(script, told, self.path)))
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
                    f"On {self.host.name} the lost connection of this run still holds the lock "
                    f"{self.path} (process {self.holder}) and could not be stopped. Wait until "
                    f"sshd there closes it, or: sudo kill -9 {self.holder}"
                )
            raise Busy(
                f"On {self.host.name} another run is active on this stack. Wait until it ends, "
                f"then run this again. ({holder.strip() or self.path})"
            )
        folder = posixpath.dirname(self.path)
        if is_read_only(self.host, folder):
            raise Refused(f"On {self.host.name}: {folder} {READ_ONLY}. {remount(folder)}")
        raise Refused(
            f"On {self.host.name} the lock {self.path} cannot be taken (exit {code}): "
            f"{said or 'no message'}"
        )

    def _is_held_by_ours(self) -> bool:
        """Return whether the process that held it for this run still has it after it was ended."""
        words = sh(STILL_HOLDS, self.holder, self.path)
        return bool(self.holder) and self.host.run(Command(words, ANY_EXIT)).out == "held\n"

    def hold_again(self) -> None:
        """Keep holding it, or take it again; first ends a holder of a lost connection."""
        with self._looking:
            if not self._channel.closed and self._channel.get_transport().is_active():
                return
            words = sh(END_HOLDER, self.holder, self.path)
            self.host.run(Command(words, ANY_EXIT))
            self.take(HOLD_AGAIN_LIMIT_S)

    def let_go(self) -> None:
        """Release it."""
        from ..hosts.ssh_connection import closed

        if self._channel is not None:
            closed(self._channel)


def machine_mark(host: Host) -> str:
    """Return an id that tells a machine from another of the same name; '' if it has none.

    A hash of its machine id, which is confidential (machine-id(5)), and of the serial number of a
    Pi: a copied card has the id of the first machine.
    """
    words = ("cat", "/etc/machine-id", "/proc/device-tree/serial-number")
    told = host.run(Command(words, ANY_EXIT)).out
    if not _MACHINE_ID.match(told):
        return ""
    return hashlib.sha256(f"iotstack-invoke {told}".encode()).hexdigest()[:32]
