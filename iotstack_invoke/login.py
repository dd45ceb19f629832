"""Logging in to another machine over SSH: one connection, settings, and whose key is trusted.

Host keys are verified on every way in, gateways included. Imported only where a remote machine
is used: Fabric takes a fifth of a second to import.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import fabric
import paramiko
from fabric.runners import Remote
from paramiko import (
    AuthenticationException,
    BadHostKeyException,
    ChannelException,
    SSHException,
)

from .errors import KeyRefused, Unreachable
from .hosts import LocalHost
from .runner import LOOK_S, RUN_OVERRIDES, _Mended
from .settings import Ssh
from .sftp import SftpSession, encoded
from .steps import Command
from .values import dataclass

# Without a handler Python prints its lines to stderr; what they tell reaches us as errors.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

CONNECT_LIMIT_S = 15
KEEPALIVE_S = 15.0
DEAD_LINE_MS = 60_000
SILENCE_S = 180.0
"""How long a server may not answer us: its word waits behind megabytes on a slow line."""
SFTP_SILENCE_S = 900.0
"""How long its SFTP may not: a slow disk has to write megabytes first."""
SMALL_ANSWER_BYTES = 64
SSH_PORT = 22
COMMANDS_AT_ONCE = 8
"""sshd takes ten sessions a connection (MaxSessions); 38 of 48 failed with sixteen threads."""

SESSION_TRIES = 100
"""With a fifth of a second between them: ten failed where a machine was busy."""
UNKNOWN_KEY = re.compile(r"Server '(?P<name>[^']+)' not found in known_hosts")
NO_BANNER = "Error reading SSH protocol banner"
NO_LINE = re.compile(r"No existing session|SSH session not active")
"""What Paramiko says of a line that was closed between two commands."""

Answer = TypeVar("Answer")


class MendedRemote(_Mended, Remote):  # type: ignore[misc]
    """Fabric's Remote for unattended work: stdin at EOF, linear reading.

    A command that is leashed (remote.py) has its own stdin, and takes the end of ours for the
    sign to end.
    """

    def send_start_message(self, command: str) -> None:
        """Start the command, with nothing to read."""
        answered(self.channel)
        super().send_start_message(encoded(command))
        if self.leashed:
            self.channel.sendall(self.first)
        else:
            end_input(self.channel)
        if self.read_on_s is not None:
            self.channel.settimeout(LOOK_S)

    def kill(self) -> None:
        """Close the channel; on a lost connection there is nothing to end."""
        closed(self.channel)

    def stop(self) -> None:
        """Stop the timer and close the channel; what broke the connection is told elsewhere."""
        with contextlib.suppress(SSHException, OSError, EOFError):
            super().stop()


class Login:
    """One connection to another machine, opened when it is first needed."""

    def __init__(self, ssh: Ssh, name: str) -> None:
        self.ssh = ssh
        self.name = name
        self.at_once = threading.Semaphore(COMMANDS_AT_ONCE)
        self._opening = threading.Lock()
        self._connection: Any = None
        self._watched: weakref.WeakSet[Any] = weakref.WeakSet()
        """The lines that are asked now and then whether they live."""

    def connection(self) -> Any:
        """Return the open Fabric connection; raises Unreachable with the way out."""
        with self._opening:  # threads that open one together fail (fabric#2239)
            if self._connection is None:
                self.closed_connection()
            if not self._connection.is_connected:
                self.talk(self._connection.open)
                each = self._connection
                while isinstance(each, fabric.Connection):  # one that it goes through, too
                    if each.transport not in self._watched:
                        self._watched.add(each.transport)
                        _send_at_once(each.transport)
                        _break_when_dead(each.transport)
                    each = each.gateway
        return self._connection

    def closed_connection(self) -> Any:
        """Return the Fabric connection as the settings describe it, not opened."""
        self._connection = self.talk(lambda: closed_connection(self.ssh))
        return self._connection

    def start(self, command: Command | str) -> paramiko.Channel:
        """Return a channel in which a command was started, quoted or to be; raises Unreachable."""
        transport = self.connection().transport
        channel: paramiko.Channel = self.talk(
            lambda: answered(once_there_is_a_session(transport.open_session))
        )
        self.talk(lambda: channel.exec_command(encoded(str(command))))
        return channel

    def answer(self, channel: paramiko.Channel, limit_s: float) -> tuple[bytes, int, str]:
        """Return the first bytes that a command says; else its exit code and last words.

        Raises Unreachable where neither comes in time.
        """
        deadline = time.monotonic() + limit_s
        channel.settimeout(limit_s)
        try:
            if first := channel.recv(SMALL_ANSWER_BYTES):
                return first, 0, ""
            said = channel.makefile_stderr("rb").read().decode("utf-8", "replace").split("\n")
            channel.status_event.wait(max(0, deadline - time.monotonic()))
        except TimeoutError:
            closed(channel)
            why = f"{self.name} did not answer within {limit_s:g} s."
            raise Unreachable(why, again=True) from None
        finally:
            channel.settimeout(None)
        if channel.exit_status == -1:  # it was closed without one
            raise Unreachable(f"The line to {self.name} broke.", again=True)
        return b"", channel.exit_status, next((e for e in reversed(said) if e.strip()), "").strip()

    def sftp(self) -> SftpSession:
        """Return an SFTP client of its own for the calling thread."""
        transport = self.connection().transport

        def begin() -> SftpSession:
            channel = answered(once_there_is_a_session(transport.open_session))
            channel.settimeout(SFTP_SILENCE_S)
            channel.invoke_subsystem("sftp")
            return SftpSession(channel)

        return self.talk(begin)

    def is_open(self) -> bool:
        """Tell whether the line stands now."""
        return self._connection is not None and bool(self._connection.is_connected)

    def close(self) -> None:
        """Close the connection; it opens again by itself."""
        with self._opening:
            if self._connection is not None:
                self._connection.close()

    def words(self) -> tuple[str, ...]:
        """Return the `ssh` command up to the host, with the settings that Fabric has too."""
        ssh = self.ssh
        return (
            *("ssh", "-T", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"),
            *("-o", f"ConnectTimeout={CONNECT_LIMIT_S}"),
            *("-o", f"ServerAliveInterval={KEEPALIVE_S:g}", "-o", "ServerAliveCountMax=4"),
            *(("-F", ssh.config) if ssh.config else ()),
            *(("-o", f"UserKnownHostsFile={ssh.known_hosts}") if ssh.known_hosts else ()),
            *(("-p", str(ssh.port)) if ssh.port else ()),
            *(("-i", ssh.key) if ssh.key else ()),
            *(("-l", ssh.user) if ssh.user else ()),
            ssh.host,
        )

    def _forget(self, host: str) -> str:
        """Return the command that forgets the key of this machine, or of one on the way to it."""
        each, name = self._connection, host
        while isinstance(each, fabric.Connection):
            if each.host == host:
                name = _known_as(host, each.port)
            each = each.gateway
        file = ("-f", self.ssh.known_hosts) if self.ssh.known_hosts else ()
        return shlex.join(("ssh-keygen", *file, "-R", name))

    def _is_on_the_way(self, name: str) -> bool:
        """Tell whether known_hosts has this name for another machine than the last."""
        last = self._connection
        return last is not None and name != _known_as(last.host, last.port)

    def talk(self, act: Callable[[], Answer]) -> Answer:
        """Return what `act` returns; its errors become Unreachable, with the way out."""
        try:
            return act()
        except BadHostKeyException as error:
            raise KeyRefused(
                f"{self.name} ({self.ssh.host}) shows another host key than the one we know: "
                "either it was set up anew or it is another machine. Compare the fingerprints; "
                f"if it is right, forget the old key with `{self._forget(error.hostname)}`, "
                f"then run `inv hosts --trust {self.name}`."
            ) from error
        except AuthenticationException as error:
            raise Unreachable(
                f"{self.name} ({self.ssh.host}) did not let us in: {error}. Put your public key "
                f"there with `ssh-copy-id {self.ssh.host}`; nobody is asked for a password here."
            ) from error
        except SSHException as error:
            unknown = UNKNOWN_KEY.search(str(error))
            if unknown and self._is_on_the_way(unknown["name"]):
                raise KeyRefused(
                    f"The host key of {unknown['name']}, on the way to {self.name} "
                    f"({self.ssh.host}), is not known. Log in once with `ssh {self.ssh.host}` and "
                    "compare the fingerprints."
                ) from error
            if unknown:
                raise KeyRefused(
                    f"The host key of {self.name} ({self.ssh.host}) is not known. Log in once "
                    f"with `ssh {self.ssh.host}` and compare the fingerprint, or run "
                    f"`inv hosts --trust {self.name}`."
                ) from error
            if NO_LINE.search(str(error)):
                raise Unreachable(f"The line to {self.name} broke.", again=True) from error
            hint = ""
            if NO_BANNER in str(error):
                hint = " Its SSH server hangs, or something else listens on that port."
            why = f"{self.name} ({self.ssh.host}): {error}.{hint}"
            raise Unreachable(why, again=True) from error
        except socket.gaierror as error:
            raise Unreachable(
                f"{self.name}: there is no host named {self.ssh.host}: {error.strerror}."
            ) from error
        except (OSError, EOFError) as error:
            why = why_it_broke(error)
            if getattr(error, "filename", None):  # a file of ours: the key, the configuration
                raise Unreachable(
                    f"{self.name}: {error.filename} cannot be read: {why}."  # type: ignore[union-attr]
                ) from error
            raise Unreachable(
                f"{self.name} ({self.ssh.host}) does not answer: {why}. Is it switched on, and "
                "does `ssh` reach it?",
                again=True,
            ) from error


def _known_as(host: str, port: int) -> str:
    """Return the name under which known_hosts has a host."""
    return host if port == SSH_PORT else f"[{host}]:{port}"


def _send_at_once(transport: Any) -> None:
    """Let nothing small wait for an answer: each command took 40 ms more (measured)."""
    with contextlib.suppress(AttributeError, OSError):  # a line through a gateway
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _break_when_dead(transport: Any) -> None:
    """Let a line that went dead break.

    TCP alone hopes for a quarter of an hour, and for ever where the kernel of a machine goes on
    answering for a server that hangs.
    """
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or a line through a gateway
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_LINE_MS)
    threading.Thread(target=_ask_on, args=(transport,), daemon=True).start()


def _ask_on(transport: Any) -> None:
    """Ask the server now and then whether it lives, and close a line on which it is silent.

    As `ssh` does with ServerAliveInterval: Paramiko's own keepalive wants no answer.
    """
    while transport.is_active():
        dead = threading.Timer(SILENCE_S, closed, [transport])
        dead.daemon = True
        dead.start()
        try:
            transport.global_request("keepalive@openssh.com", wait=True)
        except (SSHException, OSError, EOFError):
            return  # it broke by itself
        finally:
            dead.cancel()
        time.sleep(KEEPALIVE_S)


def once_there_is_a_session(act: Callable[[], Answer]) -> Answer:
    """Return what `act` returns, which opens a session; a refused one has run nothing.

    sshd counts a session that has just ended for a moment longer.
    """
    for _ in range(SESSION_TRIES):
        try:
            return act()
        except ChannelException:
            time.sleep(0.2)
        except SSHException as error:  # another thread took the ChannelException
            if "Unable to open channel" not in str(error):
                raise
            time.sleep(0.2)
    return act()


def closed_connection(ssh: Ssh) -> Any:
    """Return a closed Fabric connection that refuses a host whose key it does not know.

    Fabric sets AutoAddPolicy and loads no known_hosts: it connected although known_hosts held
    another key for that host (fabric#2071, measured).
    """
    config = fabric.Config(overrides=RUN_OVERRIDES, runtime_ssh_path=ssh.config or None)
    config.runners.remote = MendedRemote
    connection = fabric.Connection(
        ssh.host,
        user=ssh.user or None,
        port=ssh.port or None,
        config=config,
        connect_timeout=CONNECT_LIMIT_S,
        connect_kwargs={"key_filename": [os.path.expanduser(ssh.key)]} if ssh.key else {},
    )
    each = connection
    while isinstance(each, fabric.Connection):
        files = ssh.known_hosts or each.ssh_config.get("userknownhostsfile", "")
        if files:
            for file in shlex.split(files):
                with contextlib.suppress(FileNotFoundError):
                    each.client.load_host_keys(os.path.expanduser(file))
        else:
            each.client.load_system_host_keys()
            with contextlib.suppress(OSError):
                each.client.load_system_host_keys("/etc/ssh/ssh_known_hosts")
        each.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        each = each.gateway
    return connection


def end_input(channel: Any) -> None:
    """Send the end of what a command reads, if it has not ended yet.

    Paramiko's shutdown_write may send it after its other thread has answered the end of the
    command; sshd then cuts the whole line ("ieof packet referred to nonexistent channel"). That
    thread needs the lock, so it is not held while keys are exchanged anew.
    """
    line = channel.transport
    give_up_s = time.monotonic() + line.clear_to_send_timeout
    while line.is_active():
        line.clear_to_send.wait(LOOK_S)
        with channel.lock, line.clear_to_send_lock:
            if line.clear_to_send.is_set():
                message = channel._send_eof()  # noqa: SLF001 - None where the channel is closed
                if message is not None:
                    line._send_message(message)  # noqa: SLF001
                return
        if time.monotonic() > give_up_s:
            raise SSHException("the exchange of keys does not end")


def answered(channel: Any) -> Any:
    """Return a channel whose requests are answered, or told as not.

    Paramiko waits for ever where the line broke just before it began to wait: that takes away
    the sign that the channel is closed.
    """

    def wait_for_event() -> None:
        while not channel.event.wait(LOOK_S):
            if channel.closed:
                break
        if not channel.event_ready:
            raise channel.get_transport().get_exception() or SSHException("Channel closed.")

    channel._wait_for_event = wait_for_event  # noqa: SLF001
    return channel


class Limit:
    """Closes a channel when its command takes too long."""

    def __init__(self, channel: Any, limit_s: float) -> None:
        self.is_over = False
        self._channel = channel
        self._timer = threading.Timer(limit_s, self._end)
        self._timer.daemon = True
        self._timer.start()

    def _end(self) -> None:
        self.is_over = True
        closed(self._channel)

    def stop(self) -> None:
        """Close it now."""
        self._timer.cancel()
        closed(self._channel)


def closed(channel: Any) -> None:
    """Close a channel or a connection; on a lost one that fails, and what broke it is told."""
    with contextlib.suppress(SSHException, OSError, EOFError):
        channel.close()


def why_it_broke(error: Exception) -> str:
    """Return what an error says, without its number; EOFError says nothing."""
    return getattr(error, "strerror", None) or str(error) or "it was cut"


def line_broke(name: str, error: Exception) -> Unreachable:
    """Return the failure of a line that stood."""
    return Unreachable(f"The line to {name} broke: {why_it_broke(error)}.", again=True)


@dataclass(frozen=True, slots=True)
class HostKey:
    """The key that a host offers, under the name that known_hosts has for it."""

    name: str
    algorithm: str
    base64: str
    fingerprint: str


def offered_key(ssh: Ssh, name: str) -> HostKey:
    """Return the key that a host offers now, proving nothing; raises Unreachable."""
    login = Login(ssh, name)
    connection = login.closed_connection()

    def ask() -> paramiko.PKey:
        sock = connection.open_gateway() if connection.gateway else None
        sock = sock or socket.create_connection(
            (connection.host, connection.port), timeout=CONNECT_LIMIT_S
        )
        transport = paramiko.Transport(sock)
        try:
            transport.start_client(timeout=CONNECT_LIMIT_S)
            return transport.get_remote_server_key()
        finally:
            transport.close()

    key = login.talk(ask)
    known_as = _known_as(connection.host, connection.port)
    return HostKey(known_as, key.get_name(), key.get_base64(), key.fingerprint)


def remember_key(ssh: Ssh, key: HostKey) -> str:
    """Add a key to the file of known hosts, and return the file's name."""
    path = ssh.known_hosts or os.path.expanduser("~/.ssh/known_hosts")
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    LocalHost("/").append(path, f"{key.name} {key.algorithm} {key.base64}")
    return path
