"""Logging in to another machine over SSH: one connection, and the verification of host keys.

Host keys are verified on every connection, gateways included. Not for: which settings apply
(ssh_config.py), how a connection is opened (ssh_line.py). Imported only when a remote machine is
used: Fabric takes a fifth of a second to import.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import shlex
import shutil
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, TypeVar

import fabric
import paramiko
from fabric.runners import Remote
from paramiko import AuthenticationException, ChannelException, SSHException

from ..core.dataclass import dataclass
from ..core.errors import KeyRefused, Refused, StepFailed, TimedOut, Unreachable, ended
from .base import ANY_EXIT, Command
from .invoke_runners import LOOK_S, RUN_OVERRIDES, Unattended
from .known_hosts import (
    AUTHORITY,
    REVOKED,
    SSH_PORT,
    KeyVerdict,
    KnownKey,
    hashed,
    revoking,
    unreadable,
)
from .local import LocalHost
from .login_shell import START_FILES, Beginning, Mark, no_sftp, not_begun
from .pasted import logging_in
from .sftp import NoSftp, SftpSession, encoded
from .ssh_config import FOR_A_COMMAND, Way, find_way, flags
from .ssh_line import SILENT, HostKeyRefused, Line, LoginRefused, judge
from .ssh_settings import Ssh

# Without a handler Python prints its log to stderr; its content reaches us as exceptions.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

START_LIMIT_S = 60.0
"""How long a login shell may take to start the command."""
SSH_FAILED_EXIT = 255
"""ssh(1): "or with 255 if an error occurred"; otherwise it is the command's exit code."""
LAST_BYTES = 1 << 16
"""How much is kept of the error stream of a command."""
KEEPALIVE_S = 15.0
DEAD_LINE_MS = 60_000
SILENCE_S = 180.0
"""How long a server may be silent: on a slow connection its answer waits behind megabytes."""
SFTP_SILENCE_S = 900.0
"""The same for its SFTP: a slow disk may have to write megabytes first."""
ANSWER_LIMIT_S = 60.0
"""How long its SFTP may take for a short answer; a disk may have to spin up first."""
LAST_WORDS_S = 5.0
STALL_LOOK_S = 0.5
SMALL_ANSWER_BYTES = 64
COMMANDS_AT_ONCE = 8
"""sshd allows ten sessions per connection (MaxSessions); with 16 threads 38 of 48 failed."""

SESSION_TRIES = 100
"""A fifth of a second apart: ten were too few on a busy machine."""
FIRST_SESSION_TRIES = 10
"""For the first session of a connection: no other one counts against the limit."""
NOT_VERIFIED = "Host key verification failed."
"""The last line of ssh about a host key that it refuses."""
OF_ADDRESS = re.compile(r"differs from the key for the IP address '([^']+)'")
OFFENDING = re.compile(r"Offending key for IP in (.+):(\d+)\s*$", re.MULTILINE)
"""What ssh prints if another key is known for an address (sshconnect.c, check_host_key)."""
NO_BANNER = "Error reading SSH protocol banner"
KEY_KINDS = ("ed25519", "ecdsa", "rsa")
"""The kinds for which sshd has a key file each."""
LOST_LOGIN = re.compile(
    r"transport shut down|saw EOF|Authentication timeout|it closed the "
    r"connection"
)
NUMBER = re.compile(r"(: )?\[Errno -?\d+\] ")
NO_LINE = re.compile(r"No existing session|SSH session not active")
"""What Paramiko says of a connection that was closed between two commands."""

Answer = TypeVar("Answer")


class NoSession(Unreachable):
    """The login succeeded, but the machine opens no session on the connection."""


class NotBegun(Exception):
    """The login shell did not start the command in time."""


class UnattendedRemote(Unattended, Remote):  # type: ignore[misc]
    """Fabric's Remote for unattended work: stdin at EOF, linear reading.

    A leashed command (login_shell.py) does not read this stdin; its end is the signal to stop.
    """

    begins: tuple[Beginning, Beginning]
    """They find the command's own output in the two streams."""
    begins_until_s = math.inf

    def run(self, command: str, **given: Any) -> Any:
        """Run a command to its end, without what the login shell prints before it."""
        self.begins = given.pop("begins")
        return super().run(command, **given)

    def read_proc_stdout(self, num_bytes: int) -> bytes:
        """Return the next bytes of output, b"" at the end; raises NotBegun after the limit."""
        begins = self.begins[0]
        try:
            return _own(begins, self.channel.recv, num_bytes)
        except TimeoutError:
            if not begins.begun and time.monotonic() > self.begins_until_s:
                raise NotBegun from None
            raise
        finally:
            if begins.begun and self.read_on_s is None:
                self.channel.settimeout(None)

    def read_proc_stderr(self, num_bytes: int) -> bytes:
        """Return the next bytes of its error stream, b"" at the end."""
        return _own(self.begins[1], self.channel.recv_stderr, num_bytes)

    def send_start_message(self, command: str) -> None:
        """Start the command, with empty stdin."""
        answered(self.channel)
        super().send_start_message(encoded(command))
        if self.leashed:
            self.channel.sendall(self.first)
        else:
            end_input(self.channel)
        self.begins_until_s = time.monotonic() + START_LIMIT_S
        self.channel.settimeout(LOOK_S)

    def kill(self) -> None:
        """Close the channel; on a lost connection there is nothing to end."""
        for each in self.begins:
            each.give_up()
        closed(self.channel)

    def stop(self) -> None:
        """Stop the timer and close the channel; a lost connection is reported elsewhere."""
        with contextlib.suppress(SSHException, OSError, EOFError):
            super().stop()


def _own(begins: Beginning, read: Callable[[int], bytes], size: int) -> bytes:
    """Return the next bytes of a command's own output, b"" at the end.

    If no command began, the login shell's output comes at the end.
    """
    while data := read(size):
        if own := begins.own(data):
            return own
    return begins.left()


class Login:
    """One connection to another machine, opened when it is first needed."""

    def __init__(self, ssh: Ssh, name: str) -> None:
        self.ssh = ssh
        self.name = name
        self.mark = Mark()
        self.noise = ""
        """What its login shell last printed before a command."""
        self.at_once = threading.Semaphore(COMMANDS_AT_ONCE)
        self._opening = threading.Lock()
        self._connection: Any = None
        self._watched: weakref.WeakSet[Any] = weakref.WeakSet()
        """The connections that are probed regularly."""

    def connection(self) -> Any:
        """Return the open Fabric connection; raises Unreachable, which says what to do."""
        with self._opening:  # opening one in several threads fails (fabric#2239)
            if self._connection is None:
                self.closed_connection()
            if not self._connection.is_connected:
                self.talk(self._connection.open)
                try:
                    self._ask_ssh()
                except StepFailed:
                    self._connection.close()
                    raise
                each = self._connection
                while isinstance(each, Line):  # and each gateway
                    if each.transport not in self._watched:
                        self._watched.add(each.transport)
                        _send_at_once(each.transport)
                        _break_when_dead(each.transport)
                    each = each.gateway
        return self._connection

    def _ask_ssh(self) -> None:
        """Let `ssh` log in as well, if keys are revoked; raises Unreachable if it cannot.

        It refuses a machine whose key is known if that comes with a certificate by a revoked
        authority, which Paramiko does not check.
        """
        ways = self.way.machines
        files = revoking(file for each in ways for file in each.known_hosts)
        files = tuple(dict.fromkeys((*files, *(e.revoked_keys for e in ways if e.revoked_keys))))
        if not files and not any(each.is_verified_further for each in ways):
            return
        who = f"{self.name} ({self.ssh.host})"
        revoked = f" Keys are revoked in {' and '.join(files)}" if files else ""
        if shutil.which("ssh") is None:
            why = f"{revoked}, and only `ssh` can check whether one of them signed this host key."
            if not files:
                why = " Only `ssh` supports CheckHostIP and KnownHostsCommand."
            raise KeyRefused(f"{who} cannot be verified.{why} Install openssh-client.")
        told = LocalHost("/").run(Command((*self.words(), "true"), ANY_EXIT, START_LIMIT_S))
        if told.exit_code != SSH_FAILED_EXIT:
            return
        said = [each.strip() for each in told.err.splitlines() if each.strip()] or ["exit 255"]
        if said[-1] != NOT_VERIFIED:
            raise Unreachable(f"{who}: `ssh` login failed: {ended(said[-1])}", again=True)
        if of_address := OF_ADDRESS.search(told.err):
            raise _about_address(who, of_address[1], told.err)
        if revoked:
            revoked += (
                ", one of which may have signed its certificate: create a new one on that machine."
            )
        why = ended(said[-2:][0])
        raise KeyRefused(
            f"{who}: `ssh` refuses its host key, although it is known: {why}{revoked}"
        )

    @cached_property
    def way(self) -> Way:
        """How ssh reaches the machine; raises Unreachable."""
        return find_way(self.ssh, self.name)

    def closed_connection(self) -> Line:
        """Return the connection that the settings describe, not yet opened."""
        line = self._connection = closed_connection(self.way)
        return line

    def start(self, command: Command, *, leashed: bool = False) -> paramiko.Channel:
        """Return the channel of a started command; `leashed` as in login_shell.py.

        Raises Unreachable, also if it did not start.
        """
        sent, first = self.mark.sent(command, leashed=leashed)
        transport = self.connection().transport
        channel: paramiko.Channel = self.talk(
            lambda: answered(once_there_is_a_session(transport.open_session))
        )
        begins = self.begins()
        until_s = time.monotonic() + START_LIMIT_S

        def read_soon(size: int) -> bytes:
            channel.settimeout(max(LOOK_S, until_s - time.monotonic()))
            try:
                return channel.recv(size)
            except TimeoutError:
                raise self.began_nothing() from None

        def begin() -> bool:
            channel.exec_command(encoded(sent))
            channel.sendall(first)
            return begins.pass_over(read_soon)

        try:
            begun = self.talk(begin)
        except Unreachable:
            closed(channel)
            raise
        channel.settimeout(None)
        if not begun:
            said = self.said(channel).strip() or begins.noise
            channel.status_event.wait(LAST_WORDS_S)
            closed(channel)
            if channel.exit_status == -1:  # it was closed without one
                raise Unreachable(f"Connection to {self.name} lost.", again=True)
            raise not_begun(self.name, said)
        self.note(begins)
        return channel

    def begins(self) -> Beginning:
        """Return a filter that finds where the command's own bytes begin in a stream."""
        return Beginning(self.mark, self.name)

    def note(self, *begun: Beginning) -> None:
        """Keep what the login shell printed before a command."""
        self.noise = "".join(each.noise for each in begun if each.begun)

    def began_nothing(self, limit_s: float | None = None) -> TimedOut:
        """Return the failure of a login shell that hangs."""
        limit_s = START_LIMIT_S if limit_s is None else limit_s
        return TimedOut(
            f"{self.ssh.called(self.name)} accepts the login, but its login shell did not start "
            f"a command within {limit_s:g} s. It may wait for input: check there "
            f"{', '.join(START_FILES)}.",
            again=True,
        )

    def no_session(self, error: ChannelException) -> NoSession:
        """Return the failure of a machine that opens no session on the connection."""
        return NoSession(
            f"{self.name} ({self.ssh.host}) accepts the login, but its SSH server does not open "
            f"a session: {ended(error.text)} Check MaxSessions in its sshd_config.",
            again=True,
        )

    def said(self, channel: paramiko.Channel) -> str:
        """Return the end of a command's error stream, read completely."""
        begins, kept = self.begins(), b""
        while data := _own(begins, channel.recv_stderr, LAST_BYTES):
            kept = (kept + data)[-LAST_BYTES:]
            if not begins.begun:
                break
        return kept.decode("utf-8", "backslashreplace")

    def answer(self, channel: paramiko.Channel, limit_s: float) -> tuple[bytes, int, str]:
        """Return a command's first line of output; otherwise its exit code and last output.

        Raises Unreachable if neither comes in time.
        """
        deadline = time.monotonic() + limit_s
        channel.settimeout(limit_s)
        try:
            first = b""
            while b"\n" not in first and len(first) < SMALL_ANSWER_BYTES:
                data = channel.recv(SMALL_ANSWER_BYTES)
                first += data
                if not data:
                    break
            if first:
                return first, 0, ""
            said = self.said(channel).split("\n")
            channel.status_event.wait(max(0, deadline - time.monotonic()))
        except TimeoutError:
            closed(channel)
            why = f"{self.name} did not answer within {limit_s:g} s."
            raise Unreachable(why, again=True) from None
        finally:
            channel.settimeout(None)
        if channel.exit_status == -1:  # it was closed without one
            raise Unreachable(f"Connection to {self.name} lost.", again=True)
        return b"", channel.exit_status, next((e for e in reversed(said) if e.strip()), "").strip()

    def sftp(self, limit_s: float = ANSWER_LIMIT_S) -> SftpSession:
        """Return a new SFTP client for the calling thread, with this limit for each answer."""
        transport = self.connection().transport

        def begin() -> SftpSession:
            channel = answered(once_there_is_a_session(transport.open_session))
            channel.settimeout(limit_s)
            channel.invoke_subsystem("sftp")
            try:
                return SftpSession(channel, limit_s, SFTP_SILENCE_S)
            except NoSftp as error:
                raise no_sftp(self.name, error.noise) from error

        return self.talk(begin)

    def is_open(self) -> bool:
        """Return whether the connection is open now."""
        line = self._connection
        return line is not None and line.is_connected and not line.transport.broke_by

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        with self._opening:
            if self._connection is not None:
                self._connection.close()

    def words(self) -> tuple[str, ...]:
        """Return the `ssh` command up to the host, with the same settings as Fabric's."""
        return (
            *(*FOR_A_COMMAND, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"),
            *("-o", f"ConnectTimeout={self.way.limit_s}"),
            *("-o", f"ServerAliveInterval={KEEPALIVE_S:g}", "-o", "ServerAliveCountMax=4"),
            *self.way.plainly,
            *flags(self.ssh),
            self.ssh.host,
        )

    def _called(self, way: Way) -> str:
        """Return the name of a machine for messages: the one asked for, or a gateway."""
        meant = self.ssh.called(self.name)
        return meant if way is self.way else f"{way.asked}, on the way to {meant},"

    def _to(self, way: Way) -> tuple[str, ...]:
        """Return the arguments that name a machine to the user's own `ssh`, with the login."""
        if way is self.way:
            return logging_in(self.ssh)
        port = way.port if way.port != SSH_PORT else 0
        return logging_in(Ssh(way.asked, way.user, port, config=self.ssh.config))

    @property
    def _ssh(self) -> str:
        """The `ssh` command that logs in the same way, for messages."""
        return shlex.join(("ssh", *logging_in(self.ssh)))

    def talk(self, act: Callable[[], Answer]) -> Answer:
        """Return what `act` returns; its errors become Unreachable, which says what to do."""
        try:
            return act()
        except HostKeyRefused as error:
            raise self._about_key(error) from error
        except AuthenticationException as error:
            way = error.way if isinstance(error, LoginRefused) else self.way
            unusable = error.unusable if isinstance(error, LoginRefused) else ""
            copy = shlex.join(("ssh-copy-id", *self._to(way)))
            raise Unreachable(
                f"{self._called(way)} refused the login as {way.user}: {ended(str(error))} "
                f"{unusable or f'Put your public key there with `{copy}`.'} Passwords are not "
                "supported here.",
                again=bool(LOST_LOGIN.search(str(error))),
            ) from error
        except ChannelException as error:
            raise self.no_session(error) from error
        except SSHException as error:
            if NO_LINE.search(str(error)):
                raise Unreachable(f"Connection to {self.name} lost.", again=True) from error
            hint = ""
            if NO_BANNER in str(error) or SILENT in str(error):
                hint = " Its SSH server hangs, or another program uses that port."
            why = ended(NUMBER.sub(": ", str(error)))
            raise Unreachable(f"{self.ssh.called(self.name)}: {why}{hint}", again=True) from error
        except socket.gaierror as error:
            first = self.way.first
            name = self._called(first).removesuffix(",")
            there = f"host {first.host} not found: {ended(why_it_broke(error))}"
            raise Unreachable(f"{name}: {there}{self.way.unread}") from error
        except (OSError, EOFError) as error:
            why = why_it_broke(error)
            if getattr(error, "filename", None):  # a local file: the key, the configuration
                raise Unreachable(
                    f"{self.name}: cannot read {error.filename}: {why}."  # type: ignore[union-attr]
                ) from error
            raise Unreachable(
                f"{self._called(self.way.first)} is unreachable: {why}. Is it switched on? Does "
                f"`{self._ssh}` work?",
                again=True,
            ) from error

    def _about_key(self, error: HostKeyRefused) -> KeyRefused:
        """Return the failure for a host key that was refused, with what to do."""
        way, kind = error.way, error.key.get_name()
        meant = self.ssh.called(self.name)
        who = meant if way is self.way else f"{way.known_as}, on the way to {meant},"
        trust = f"inv hosts --trust {shlex.quote(self.name)}"
        if error.found is KeyVerdict.REVOKED:
            place = next((e.place for e in error.known if e.marker == REVOKED), way.revoked_keys)
            why = (
                f"{who} has a revoked host key ({place}): others may have its private part. The "
                "connection is refused."
            )
            cure = "Create a new host key on that machine."
            fix = "create a new host key on that machine"
        elif error.found is KeyVerdict.CHANGED:
            old = next(each for each in error.known if each.algorithm == kind and not each.marker)
            forget = shlex.join(("ssh-keygen", "-f", old.file, "-R", way.known_as))
            why = (
                f"{who} has a different host key than the known one ({old.place}): "
                f"{error.key.fingerprint} instead of {old.fingerprint}. It was reinstalled, or "
                f"it is another machine: on its own screen `{own_key(kind)}` prints its key."
            )
            then = f"run `{trust}`" if way is self.way else f"log in once with `{self._ssh}`"
            cure = f"If that matches, remove the old key with `{forget}`, then {then}."
            fix = f"{forget} && {trust if way is self.way else self._ssh}"
        else:
            why = f"The host key of {who} is not known.{_why_unknown(way, error.known)}"
            or_trust = f", or run `{trust}`" if way is self.way else ""
            cure = f"Log in once with `{self._ssh}` and compare the fingerprint{or_trust}."
            fix = trust if way is self.way else self._ssh
        return KeyRefused(f"{why} {cure}", why=why, fix=fix)


def own_key(kind: str) -> str:
    """Return the command with which a machine prints its own host key of a kind."""
    name = next((each for each in KEY_KINDS if each in kind), "*")
    return f"ssh-keygen -lf /etc/ssh/ssh_host_{name}_key.pub"


def _about_address(who: str, address: str, said: str) -> KeyRefused:
    """Return the failure if another key is known for a machine's address."""
    found = OFFENDING.search(said)
    place = f" ({found[1]}, line {found[2]})" if found else ""
    forget = shlex.join(("ssh-keygen", *(("-f", found[1]) if found else ()), "-R", address))
    why = (
        f"{who}: `ssh` refuses its host key, although it is known: its address {address} is "
        f"known with another key{place}, and CheckHostIP is on. Either another machine had that "
        f"address, or this is another machine: on its own screen `{own_key('')}` prints its key."
    )
    cure = f"If that matches, remove the old key with `{forget}`."
    return KeyRefused(f"{why} {cure}", why=why, fix=forget)


def _why_unknown(way: Way, known: tuple[KnownKey, ...]) -> str:
    """Return a sentence about what known_hosts holds for a machine instead of its key."""
    plain = [each for each in known if not each.marker]
    authority = next((each for each in known if each.marker == AUTHORITY), None)
    closed = unreadable(way.known_hosts)
    if plain:
        return (
            f" A key of another type is known ({plain[0].place}), which the machine does not "
            "offer."
        )
    if authority:
        return (
            f" It is known only by a certificate ({authority.place}), which `ssh` can verify but "
            "Paramiko, used here, cannot: the key itself must be known, too."
        )
    return f" {', '.join(closed)} cannot be read." if closed else way.unread


def _send_at_once(transport: Any) -> None:
    """Switch off Nagle's delay: it added 40 ms to each command (measured)."""
    with contextlib.suppress(AttributeError, OSError):  # a connection through a gateway
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _break_when_dead(transport: Any) -> None:
    """Close a dead connection after a time limit.

    TCP alone retries for a quarter of an hour, and waits for ever if the kernel of a machine still
    acknowledges for a hung server.
    """
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or through a gateway
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_LINE_MS)
    threading.Thread(target=_ask_on, args=(transport,), daemon=True).start()


def _ask_on(transport: Any) -> None:
    """Probe the server regularly, and close a connection on which it is silent.

    As `ssh` does with ServerAliveInterval: Paramiko's own keepalive expects no answer.
    """
    while transport.is_active():
        dead = threading.Timer(SILENCE_S, closed, [transport])
        dead.daemon = True
        dead.start()
        try:
            transport.global_request("keepalive@openssh.com", wait=True)
        except (SSHException, OSError, EOFError):
            return  # it was closed already
        finally:
            dead.cancel()
        time.sleep(KEEPALIVE_S)


def once_there_is_a_session(act: Callable[[], Answer], tries: int | None = None) -> Answer:
    """Return what `act`, which opens a session, returns; retry if the session is refused.

    A refused session has run nothing: sshd counts one for a moment after its end. Raises
    ChannelException after the last attempt.
    """
    for _ in range(SESSION_TRIES if tries is None else tries):
        try:
            return act()
        except ChannelException:
            time.sleep(0.2)
        except SSHException as error:  # another thread took the ChannelException
            if "Unable to open channel" not in str(error):
                raise
            time.sleep(0.2)
    return act()


def closed_connection(way: Way) -> Line:
    """Return a closed connection that refuses a host whose key is unknown."""
    none_read = {"ssh_config": paramiko.SSHConfig(), "lazy": True}  # `ssh` has read all of it
    config = fabric.Config(overrides=RUN_OVERRIDES, **none_read)
    config.runners.remote = UnattendedRemote
    return Line(way, config)


def end_input(channel: Any) -> None:
    """Close the input of a command, unless it has ended.

    Paramiko's shutdown_write may send the end after its other thread has confirmed the end of the
    command; sshd then closes the connection ("ieof packet referred to nonexistent channel"). That
    thread needs the lock, so it is not held during a new key exchange.
    """
    line = channel.transport
    give_up_s = time.monotonic() + line.clear_to_send_timeout
    while line.is_active():
        line.clear_to_send.wait(LOOK_S)
        with channel.lock, line.clear_to_send_lock:
            if line.clear_to_send.is_set():
                message = channel._send_eof()  # noqa: SLF001 - None if the channel is closed
                if message is not None:
                    line._send_message(message)  # noqa: SLF001
                return
        if time.monotonic() > give_up_s:
            raise SSHException("the key exchange does not end")


def answered(channel: Any) -> Any:
    """Return a channel whose requests end with an answer or an error.

    Paramiko waits for ever if the connection is lost just before it starts waiting: that resets
    the flag that the channel is closed.
    """

    def wait_for_event() -> None:
        until_s = time.monotonic() + ANSWER_LIMIT_S
        while not channel.event.wait(LOOK_S):
            if channel.closed:
                break
            if time.monotonic() > until_s:
                raise SSHException(f"it did not answer within {ANSWER_LIMIT_S:g} s")
        if not channel.event_ready:
            raise channel.get_transport().get_exception() or SSHException("it closed the session")

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


class Stall:
    """Calls `end` if a transfer makes no progress."""

    def __init__(self, end: Callable[[], None]) -> None:
        self.is_over = False
        self._end = end
        self._until_s = math.inf
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    @contextlib.contextmanager
    def watching(self, limit_s: float) -> Iterator[None]:
        """Limit the time that the block may take."""
        self._until_s = time.monotonic() + limit_s
        try:
            yield
        finally:
            self._until_s = math.inf

    def _watch(self) -> None:
        while not self._stopped.wait(STALL_LOOK_S):
            if time.monotonic() > self._until_s:
                self.is_over = True
                self._end()
                return

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()


def closed(channel: Any) -> None:
    """Close a channel or a connection, without errors: a lost one is reported elsewhere.

    Any error, also in other threads: Paramiko dismantles a connection while it is closed.
    """
    with contextlib.suppress(Exception):
        channel.close()


def why_it_broke(error: Exception) -> str:
    """Return the text of an error, without its number; EOFError has none."""
    return getattr(error, "strerror", None) or str(error) or "it was cut"


def line_broke(name: str, error: Exception) -> Unreachable:
    """Return the failure of a connection that was lost."""
    return Unreachable(f"Connection to {name} lost: {why_it_broke(error)}.", again=True)


@dataclass(frozen=True, slots=True)
class HostKey:
    """The key that a host offers, and the known_hosts line for it."""

    algorithm: str
    fingerprint: str
    line: str
    file: str
    """The file to which ssh would add that line, '' for none."""
    is_known: bool


def offered_key(ssh: Ssh, name: str) -> HostKey:
    """Return the key that a host offers now, unverified; raises Unreachable.

    Raises KeyRefused if it is revoked, or another key is known: that must be removed first.
    """
    login = Login(ssh, name)
    way, line = login.way, login.closed_connection()

    def ask() -> tuple[paramiko.PKey, KeyVerdict]:
        key = line.offered_key()
        found, known = judge(way, key)
        if found in (KeyVerdict.REVOKED, KeyVerdict.CHANGED):
            raise HostKeyRefused(way, found, known, key)
        return key, found

    key, found = login.talk(ask)
    known_as = hashed(way.known_as) if way.hashes_names else way.known_as
    return HostKey(
        key.get_name(),
        key.fingerprint,
        f"{known_as} {key.get_name()} {key.get_base64()}",
        next(iter(way.own_known_hosts), ""),
        found is KeyVerdict.KNOWN,
    )


def remember_key(key: HostKey) -> str:
    """Add a key to the file of known hosts, and return the file's name.

    Raises Refused if ssh has no such file.
    """
    path = os.path.realpath(key.file)
    if not key.file or (os.path.exists(path) and not os.path.isfile(path)):
        raise Refused(
            "Cannot save the key: the ssh configuration has no known_hosts file for this machine "
            "(UserKnownHostsFile). Nothing was written. Set `known_hosts` in hosts.toml."
        )
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    cut = ""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as stream:
        cut = "\n" if stream.read()[-1:] not in (b"", b"\n") else ""
    LocalHost("/").append(path, f"{cut}{key.line}")
    return key.file
