"""Other machines over SSH: as hosts where there is a shell, as places where there is only SFTP.

Commands go through Fabric, bytes through OpenSSH's `ssh` with the same settings, or through a
raw Paramiko channel where there is no `ssh` program: Paramiko's SFTP took 2 to 2.8 times as
long as scp, `ssh HOST cat` 0.8. Host keys are verified on every way in, gateways included.
Imported only where a remote machine is used: Fabric takes a fifth of a second to import.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shlex
import shutil
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, TypeVar

import fabric
import paramiko
from fabric.runners import Remote
from invoke.exceptions import CommandTimedOut, ThreadException
from paramiko import (
    AuthenticationException,
    BadHostKeyException,
    ChannelException,
    SSHException,
)

from .errors import KeyRefused, StepFailed, Unreachable
from .hosts import CHUNK_BYTES, PRIVATE, LocalHost, _first_of, checked, piped, read_chunk
from .runner import RUN_OVERRIDES, LineStream, _Mended
from .settings import Ssh
from .steps import Command, FileFact, Heard, Outcome, Pipe, Received

# Without a handler Python prints its lines to stderr; what they tell reaches us as errors.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

CONNECT_LIMIT_S = 15
TRANSFER_LIMIT_S = 24 * 3600.0
KEEPALIVE_S = 15
DEAD_LINE_MS = 60_000
SSH_PORT = 22
COMMANDS_AT_ONCE = 8
"""sshd takes ten sessions a connection (MaxSessions); 38 of 48 failed with sixteen threads."""

SESSION_TRIES = 10

SHELL_ANSWER = "a shell answers"

# Each script gets its paths as "$1", "$2" …: one place to quote, and any login shell will do.
# GNU first, then what a Mac or a NAS with BSD tools understands.
RECEIVE = (
    'umask 077; { if [ "$3" = 0 ]; then cat > "$1"; else cat >> "$1"; fi; } '
    '&& { sync "$1" 2>/dev/null || sync; } && TZ=UTC0 touch -c -t "$2" "$1" '
    '&& wc -c < "$1" && { sha256sum < "$1" 2>/dev/null || shasum -a 256 < "$1"; }'
)
LOOK = (
    'for f; do stat -c "%f %s %Y" "$f" 2>/dev/null || stat -f "%Xp %z %m" "$f" 2>/dev/null '
    "|| echo -; done"
)
# A file that goes while it is listed is no failure; a name with a line break is none of ours.
NAMES = (
    '[ -d "$1" ] || exit 0; [ -r "$1" ] && [ -x "$1" ] || '
    '{ echo "$1: Permission denied" >&2; exit 1; }; '
    'if stat -c %f / >/dev/null 2>&1; then set -- "$1" -c "%f %s %Y %n"; '
    'else set -- "$1" -f "%Xp %z %m %N"; fi; '
    'find "$1" -maxdepth 1 -type f ! -name "*\n*" -exec stat "$2" "$3" {} + 2>/dev/null; '
    "[ $? -le 1 ]"
)
NAMES_LINE = re.compile(r"([0-9a-fA-F]+ [0-9]+ -?[0-9]+) (.+)", re.DOTALL)
DF_LINE = re.compile(r"\s[0-9]+\s+[0-9]+\s+([0-9]+)\s+[0-9]+%\s")
"""POSIX's columns of `df -P`; blanks in the name of a share or of its folder shift none."""
REFUSED_BY_DISK = re.compile(r"No space left|quota exceeded|Permission denied|Read-only|Not a dir")
RENAME = 'mv -f "$1" "$2" && { sync "$3" 2>/dev/null || sync; }'

Answer = TypeVar("Answer")


class MendedRemote(_Mended, Remote):  # type: ignore[misc]
    """Fabric's Remote for unattended work: stdin at EOF, linear reading."""

    def send_start_message(self, command: str) -> None:
        """Start the command, with nothing to read."""
        super().send_start_message(command)
        self.channel.shutdown_write()


class Login:
    """One connection to another machine, opened when it is first needed."""

    def __init__(self, ssh: Ssh, name: str) -> None:
        self.ssh = ssh
        self.name = name
        self.at_once = threading.Semaphore(COMMANDS_AT_ONCE)
        self._opening = threading.Lock()
        self._connection: Any = None

    def connection(self) -> Any:
        """Return the open Fabric connection; raises Unreachable with the way out."""
        with self._opening:  # threads that open one together fail (fabric#2239)
            if self._connection is None:
                self._connection = self.closed_connection()
            if not self._connection.is_connected:
                self.talk(self._connection.open)
                _break_when_dead(self._connection.transport)
        return self._connection

    def closed_connection(self) -> Any:
        """Return the Fabric connection as the settings describe it, not opened."""
        return self.talk(lambda: _connection(self.ssh))

    def start(self, command: Command) -> paramiko.Channel:
        """Return a channel in which a command was started; raises Unreachable."""
        transport = self.connection().transport
        channel: paramiko.Channel = self.talk(
            lambda: _once_there_is_a_session(transport.open_session)
        )
        self.talk(lambda: channel.exec_command(str(command)))
        return channel

    def sftp(self) -> paramiko.SFTPClient:
        """Return an SFTP client of its own for the calling thread."""
        transport = self.connection().transport
        client = self.talk(
            lambda: _once_there_is_a_session(lambda: paramiko.SFTPClient.from_transport(transport))
        )
        assert client is not None  # noqa: S101 - the transport is open
        return client

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
            *("-o", f"ServerAliveInterval={KEEPALIVE_S}", "-o", "ServerAliveCountMax=4"),
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
            if "not found in known_hosts" in str(error):
                raise KeyRefused(
                    f"The host key of {self.name} ({self.ssh.host}) is not known. Log in once "
                    f"with `ssh {self.ssh.host}` and compare the fingerprint, or run "
                    f"`inv hosts --trust {self.name}`."
                ) from error
            raise Unreachable(f"{self.name} ({self.ssh.host}): {error}.", again=True) from error
        except socket.gaierror as error:
            raise Unreachable(
                f"{self.name}: there is no host named {self.ssh.host}: {error.strerror}."
            ) from error
        except (OSError, EOFError) as error:
            why = _why(error)
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


def _break_when_dead(transport: Any) -> None:
    """Let a line that went dead break: TCP alone hopes for a quarter of an hour."""
    transport.set_keepalive(KEEPALIVE_S)
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or a line through a gateway
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_LINE_MS)


def _once_there_is_a_session(act: Callable[[], Answer]) -> Answer:
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


def _connection(ssh: Ssh) -> Any:
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


def open_place(ssh: Ssh, root: str, name: str) -> SshHost | SftpPlace:
    """Return the machine as a host, or as a mere place where it offers only SFTP.

    Raises Unreachable.
    """
    login = Login(ssh, name)
    host = SshHost(login, root)
    outcome = host.try_run(Command(("echo", SHELL_ANSWER), limit_s=CONNECT_LIMIT_S))
    if outcome.out.strip() == SHELL_ANSWER:
        return host
    return SftpPlace(login, root)


def open_host(ssh: Ssh, root: str, name: str) -> SshHost:
    """Return the machine as a host; raises Unreachable, also where it has no shell."""
    place = open_place(ssh, root, name)
    if isinstance(place, SshHost):
        return place
    place.close()
    raise Unreachable(f"{name} ({ssh.host}) offers SFTP only, and no commands can be run there.")


class SshHost:
    """Another machine with a shell."""

    resumes = True

    def __init__(self, login: Login, root: str) -> None:
        self.login = login
        self.root = root
        self.name = login.name

    def try_run(self, command: Command, heard: Heard | None = None) -> Outcome:
        """Run a command to its end, whatever its exit code."""
        connection = self.login.connection()
        streams = {}
        if heard:
            streams = {f"{name}_stream": LineStream(name, heard) for name in ("out", "err")}
        try:
            with self.login.at_once:
                result = _once_there_is_a_session(
                    lambda: connection.run(str(command), timeout=command.limit_s, **streams)
                )
        except CommandTimedOut as error:
            raise StepFailed(
                f"On {self.name}: it did not end within {command.limit_s:g} s: {command}",
                again=True,
            ) from error
        except ThreadException as error:
            raise _first_of(error) from error
        except (SSHException, OSError, EOFError) as error:
            raise Unreachable(
                f"The line to {self.name} broke: {_why(error)}.", again=True
            ) from error
        finally:
            for stream in streams.values():
                stream.close()
        if result.exited == -1:  # the channel was closed without an exit status
            raise Unreachable(f"The line to {self.name} broke.", again=True)
        return Outcome(result.exited, result.stdout, result.stderr)

    def run(self, command: Command, heard: Heard | None = None) -> Outcome:
        """Run a command to its end; raises StepFailed for an exit code that is not accepted."""
        return checked(command, self.try_run(command, heard), self.name)

    def look(self, paths: Iterable[str]) -> dict[str, FileFact]:
        """Return what is there, in one round trip."""
        asked = list(paths)
        if not asked:
            return {}
        lines = self.run(_script(LOOK, *asked)).out.splitlines()
        return {
            path: _fact(line)
            for path, line in zip(asked, lines, strict=True)
            if line.strip() != "-"
        }

    def names(self, folder: str) -> dict[str, FileFact]:
        """Return the files of a folder by name, in one round trip."""
        found = {}
        for line in self.run(_script(NAMES, folder)).out.split("\n"):
            told = NAMES_LINE.fullmatch(line)
            if told:
                found[os.path.basename(told[2])] = _fact(told[1])
        return found

    @contextlib.contextmanager
    def read(self, path: str, start: int = 0) -> Iterator[IO[bytes]]:
        """Return a stream of a file's bytes; raises StepFailed at the end if it was cut short."""
        words = ("tail", "-c", f"+{start + 1}", path) if start else ("cat", path)
        with self.pipe(Command(words, limit_s=TRANSFER_LIMIT_S)) as pipe:
            yield pipe.stdout
            code = pipe.finish()
        if code:
            raise StepFailed(f"On {self.name}: {path} cannot be read (exit {code}).", again=True)

    def receive(self, path: str, source: IO[bytes], modified_s: float, start: int = 0) -> Received:
        """Write a stream to `path`, synced, and hash what lies there afterwards."""
        when = time.strftime("%Y%m%d%H%M.%S", time.gmtime(modified_s))
        command = _script(RECEIVE, path, when, str(start))
        answer = self._feed(command, source)
        size, digest = (*answer.split(), "", "")[:2]
        if not size.isdigit() or len(digest) != 64:  # noqa: PLR2004 - SHA-256 in hexadecimal
            raise StepFailed(f"On {self.name}: {path} was not received: {answer!r}.", again=True)
        return Received(int(size), digest)

    def _feed(self, command: Command, source: IO[bytes]) -> str:
        """Run a command that reads `source`, and return what it says."""
        said: list[str] = []
        if shutil.which("ssh") is None:
            return self._feed_channel(command, source)
        words = (*self.login.words(), str(command))
        with piped(
            words, lambda _stream, line: said.append(line), TRANSFER_LIMIT_S, feed=True
        ) as (process, finish):
            assert process.stdin is not None  # noqa: S101 - we asked for pipes
            assert process.stdout is not None  # noqa: S101
            with contextlib.suppress(BrokenPipeError):  # its exit code and words say more
                while chunk := read_chunk(source):
                    process.stdin.write(chunk)
                process.stdin.close()
            answer = process.stdout.read().decode("utf-8", "replace")
            code = finish()
        if code:
            last = next((line for line in reversed(said) if line.strip()), f"exit {code}")
            raise _not_sent(self.name, last.strip())
        return answer

    def _feed_channel(self, command: Command, source: IO[bytes]) -> str:
        channel = self.login.start(command)
        try:
            while chunk := read_chunk(source):
                channel.sendall(chunk)
            channel.shutdown_write()
            answer: str = channel.makefile("rb").read().decode("utf-8", "replace")
            said: str = channel.makefile_stderr("rb").read().decode("utf-8", "replace").strip()
            code = channel.recv_exit_status()
        except (SSHException, OSError, EOFError) as error:
            raise StepFailed(
                f"Sending to {self.name} failed: {_why(error)}", again=True
            ) from error
        finally:
            _close(channel)
        if code:
            raise _not_sent(self.name, said or f"exit {code}")
        return answer

    @contextlib.contextmanager
    def pipe(self, command: Command, heard: Heard | None = None) -> Iterator[Pipe]:
        """Start a command whose output is bytes; it is ended when the block is left."""
        if shutil.which("ssh") is None:
            channel = self.login.start(command)
            try:
                channel.shutdown_write()
                stream: Any = channel.makefile("rb", CHUNK_BYTES)  # it reads like a file
                yield Pipe(stream, channel.recv_exit_status)
            finally:
                _close(channel)
            return
        words = (*self.login.words(), str(command))
        with piped(words, heard, command.limit_s) as (process, finish):
            assert process.stdout is not None  # noqa: S101 - we asked for a pipe
            yield Pipe(process.stdout, finish)

    @contextlib.contextmanager
    def create(self, path: str) -> Iterator[IO[bytes]]:
        """Return a stream into a new small file; it is sent when the block ends well."""
        content = io.BytesIO()
        yield content
        content.seek(0)
        self.receive(path, content, time.time())

    def append(self, path: str, line: str) -> None:
        """Add a line to a file of mode 0600, and make it last through a power cut."""
        script = 'umask 077; printf "%s\\n" "$2" >> "$1" && { sync "$1" 2>/dev/null || sync; }'
        self.run(_script(script, path, line))

    def http_status(self, port: int, path: str, address: str = "127.0.0.1") -> int:
        """Return the status that an HTTP server answers as seen from there, 0 for none."""
        try:
            channel = self.login.connection().transport.open_channel(
                "direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=5
            )
        except (SSHException, OSError, EOFError):
            return 0
        with contextlib.closing(channel):
            channel.settimeout(5)
            with contextlib.suppress(OSError):
                request = f"GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"
                channel.sendall(request.encode())
                words = channel.recv(256).decode("ascii", "replace").split()
                return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        return 0

    def free_bytes(self, folder: str) -> int | None:
        """Return what fits into the file system of `folder`."""
        outcome = self.try_run(Command(("df", "-Pk", folder)))
        told = DF_LINE.search(outcome.out.strip().rpartition("\n")[2])
        return int(told[1]) * 1024 if told else None

    def rename(self, old: str, new: str) -> None:
        """Put `old` in the place of `new` at once, and make that last through a power cut."""
        self.run(_script(RENAME, old, new, os.path.dirname(new)))

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; one that is not there is as good as removed."""
        asked = tuple(paths)
        if asked:
            self.run(Command(("rm", "-f", "--", *asked)))

    def close(self) -> None:
        """Close the connection."""
        self.login.close()


class SftpPlace:
    """Another machine that offers only SFTP: it cannot hash, so a copy is proven by its size."""

    resumes = False

    def __init__(self, login: Login, root: str) -> None:
        self.login = login
        self.root = root
        self.name = login.name

    def look(self, paths: Iterable[str]) -> dict[str, FileFact]:
        """Return what is there, over one SFTP session."""
        found = {}
        with self._sftp() as sftp:
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    found[path] = _sftp_fact(sftp.stat(path))
        return found

    def names(self, folder: str) -> dict[str, FileFact]:
        """Return the entries of a folder by name."""
        with self._sftp() as sftp, contextlib.suppress(FileNotFoundError):
            return {each.filename: _sftp_fact(each) for each in sftp.listdir_attr(folder)}
        return {}

    @contextlib.contextmanager
    def read(self, path: str, start: int = 0) -> Iterator[IO[bytes]]:
        """Return a stream of a file's bytes, without the first `start`."""
        with self._sftp() as sftp, sftp.open(path, "rb", CHUNK_BYTES) as stream:
            stream.seek(start)
            yield stream  # type: ignore[misc]  # paramiko's file reads like one

    def receive(self, path: str, source: IO[bytes], modified_s: float, start: int = 0) -> Received:
        """Write a stream to `path`; its size is all that the far side can tell."""
        assert start == 0  # noqa: S101 - nobody goes on with a file that cannot be hashed
        with self._sftp() as sftp:
            with sftp.open(path, "wb", 0) as target:  # a buffer would fail once more in __del__
                target.chmod(PRIVATE)
                target.set_pipelined(True)
                while chunk := read_chunk(source):
                    target.write(chunk)
            sftp.utime(path, (modified_s, modified_s))
            return Received(sftp.stat(path).st_size or 0, None)

    def free_bytes(self, folder: str) -> int | None:  # noqa: ARG002
        """Return None: SFTP as Paramiko speaks it does not tell."""
        return None

    def rename(self, old: str, new: str) -> None:
        """Put `old` in the place of `new` at once."""
        with self._sftp() as sftp:
            sftp.posix_rename(old, new)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; one that is not there is as good as removed."""
        with self._sftp() as sftp:
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    sftp.remove(path)

    def close(self) -> None:
        """Close the connection."""
        self.login.close()

    @contextlib.contextmanager
    def _sftp(self) -> Iterator[paramiko.SFTPClient]:
        client = self.login.sftp()
        try:
            yield client
        except (SSHException, EOFError) as error:
            raise Unreachable(
                f"The line to {self.name} broke: {_why(error)}.", again=True
            ) from error
        except OSError as error:
            channel = client.get_channel()
            broken = channel is None or channel.closed
            raise StepFailed(f"On {self.name}: {error}.", again=broken) from error
        finally:
            _close(client)


def _not_sent(name: str, why: str) -> StepFailed:
    """Return the failure; what the far side's disk refused is not tried again."""
    return StepFailed(f"Sending to {name} failed: {why}", again=not REFUSED_BY_DISK.search(why))


def _why(error: Exception) -> str:
    """Return what an error says, without its number; EOFError says nothing."""
    return getattr(error, "strerror", None) or str(error) or "it was cut"


def _close(channel: Any) -> None:
    """Close a channel; on a line that just broke that fails, and what broke it is told."""
    with contextlib.suppress(SSHException, OSError, EOFError):
        channel.close()


def _script(script: str, *arguments: str) -> Command:
    return Command(("sh", "-c", script, "sh", *arguments))


def _fact(line: str) -> FileFact:
    mode, size, modified = line.split(" ")[:3]
    return FileFact(int(size), float(modified), stat.S_ISDIR(int(mode, 16)))


def _sftp_fact(found: paramiko.SFTPAttributes) -> FileFact:
    return FileFact(found.st_size or 0, found.st_mtime or 0.0, stat.S_ISDIR(found.st_mode or 0))


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
