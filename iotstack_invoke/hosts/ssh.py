"""Other machines over SSH: as hosts if they have a shell, as storage if they have only SFTP.

Commands go through Fabric, bytes through OpenSSH's `ssh` with the same settings, or through a
raw Paramiko channel if there is no `ssh` program: Paramiko's SFTP took 2 to 2.8 times as
long as scp, `ssh HOST cat` 0.8. Host keys are verified on every connection, gateways included.
Imported only when a remote machine is used: Fabric takes a fifth of a second to import.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import shlex
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, cast

import paramiko
from invoke.exceptions import CommandTimedOut, ThreadException
from paramiko import ChannelException, SSHException

from ..core import processes
from ..core.errors import StepFailed, TimedOut, Unreachable, ended
from .base import ANY_EXIT, Command, Disk, FileFact, Heard, Pipe, Received, Result, fact_of
from .hashing import HASH
from .invoke_runners import LineStream
from .local import (
    CHUNK_BYTES,
    READ_ONLY,
    SLOWEST_BYTES_S,
    STALL_S,
    Dates,
    _first_of,
    checked,
    piped,
    read_chunk,
)
from .login_shell import START_FILES, Lines, LoginPrints, not_begun, shown
from .sftp_storage import MAKE_ROOM, MOST_CONTENT_BYTES, SftpStorage, not_listed, too_much
from .ssh_config import CONNECT_LIMIT_S
from .ssh_connection import (
    FIRST_SESSION_TRIES,
    SESSION_TRIES,
    START_LIMIT_S,
    Limit,
    Login,
    NoSession,
    NotBegun,
    Stall,
    closed,
    end_input,
    line_broke,
    once_there_is_a_session,
    why_it_broke,
)
from .ssh_settings import Ssh

QUESTION_LIMIT_S = 60.0
"""For a question about a disk, which may have to spin up first."""
SLOW_LIMIT_S = 120.0
"""For commands that may have to write buffered data or list much first."""
TRANSFER_LIMIT_S = 24 * 3600.0
SMALL_BYTES = 1 << 18
MOST_SAID_BYTES = 1 << 16
"""The longest short answer: a size, a hash, a sentence."""
MOST_DIGITS = 15
MOST_LISTED_BYTES = 8 << 20
"""The size of a listing of 80,000 files. Reading one takes five times as much memory here."""
MOST_TOLD_BYTES = 8 << 20
LAST_LINES = 100
"""How many lines of output are kept of a command that receives a file."""
FEW = 8
"""Up to so many bytes or files go through the open connection: a new one of `ssh` takes
0.3 s (measured), and is faster only for large data.
"""

SHELL_ANSWER = "a-shell-answers"
LINE_BROKE_EXIT = 255
"""The exit code of `ssh` itself if it fails, rather than the command (ssh(1))."""

# Each script gets its paths as "$1", "$2" …: quoted in one place, and any login shell will do.
# The GNU variant comes first, then that of macOS or a NAS with BSD tools.
# GNU's dd sends each block on to the disk at once, so that the sync at the end is short.
STORE = (
    "dd if=/dev/null of=/dev/null oflag=nocache status=none 2>/dev/null "
    '&& store="dd bs=128k oflag=nocache status=none" || store=cat; '
)
# A sync(1) that takes no file syncs everything; a disk error for this file is reported.
SYNC = (
    '{ said=$(LC_ALL=C sync "$1" 2>&1) || case $said in '
    '*nput/output*|*"o space"*|*uota*) echo "$said" >&2; false;; *) sync;; esac; }'
)
# At first it creates a new file: a writer of an earlier connection has another one.
# The file is hashed while it is synced: both must succeed.
RECEIVE = (
    f'umask 077; {STORE} {{ if [ "$3" = 0 ]; then rm -f -- "$1" && set -C && $store > "$1"; '
    'else $store >> "$1"; fi; } '
    '&& { [ -z "$2" ] || TZ=UTC0 touch -c -t "$2" "$1"; } '
    f'&& wc -c < "$1" && {{ {SYNC} & {HASH} && wait $!; }}'
)
HOW_TO_STAT = (
    'if stat -c %f / >/dev/null 2>&1; then how=-c what="%f %s %Y"; '
    'else how=-f what="%Xp %z %m"; fi; '
)
# The messages for a path that does not exist. After any other error it may exist.
GONE = '*": No such file or directory"|*": Not a directory"'
LOOK = (
    f'{HOW_TO_STAT}for f; do if said=$(stat "$how" "$what" "$f" 2>&1); then echo "$said"; '
    f'else case $said in {GONE}) echo -;; *) echo "$said" >&2; exit 1;; esac; fi; done'
)
LISTED = "listed"
"""The last line of a listing: without it the listing is incomplete or not one."""
# A file removed during the listing is no failure; names with a newline are never the package's.
NAMES = (
    f'{HOW_TO_STAT}[ "$how" = -c ] && what="$what %n" || what="$what %N"; '
    'said=$(ls -d "$1/." 2>&1) || case $said in *": No such file or directory") '
    f'echo {LISTED}; exit 0;; *) echo "$said" >&2; exit 1;; esac; '
    '{ said=$(find "$1/." -mindepth 1 -maxdepth 1 ! -name "*\n*" -exec stat "$how" "$what" {} + '
    "2>&1 >&3); code=$?; } 3>&1; "
    '[ $code = 0 ] || { [ $code = 1 ] && [ -n "$said" ] && '
    '! printf "%s\\n" "$said" | grep -v ": No such file or directory$" >&2; } '
    f"&& echo {LISTED}"
)
# Each file follows a line with its size, cut if it grows. Reading a pipe would block.
CONTENTS = (
    'folder=$1; shift; for f; do p=$folder/$f; if [ -f "$p" ]; then '
    'if size=$({ wc -c < "$p"; } 2>&1); then echo $((size)); head -c $((size)) "$p"; '
    'else echo "! $size"; exit 1; fi; '
    f'elif said=$(ls -dL "$p" 2>&1); then echo -; else case $said in {GONE}) echo -;; '
    '*) echo "! $said"; exit 1;; esac; fi; done'
)
LOOK_LINE = re.compile(r"[0-9a-fA-F]{1,8} [0-9]{1,20} -?[0-9]{1,20}")
SIZE = re.compile(r"[0-9]{1,20}")
SHA256 = re.compile(r"[0-9a-f]{64}")
NAMES_LINE = re.compile(r"([0-9a-fA-F]{1,8} [0-9]{1,20} -?[0-9]{1,20}) (.+)", re.DOTALL)
DF_LINE = re.compile(r"\s[0-9]+\s+[0-9]+\s+([0-9]{1,18})\s+[0-9]+%\s")
"""POSIX columns of `df -P`; spaces in the name of a share or of its folder do not matter."""
FULL = re.compile(r"No space left|quota exceeded")
TOO_LARGE = "ile size limit exceeded"
REFUSED_BY_DISK = re.compile(r"Permission denied|Read-only|Not a dir|Is a dir")
# -C keeps an existing file; a file whose line cannot be written is removed.
CLAIM = (
    'umask 077; set -C; if [ -e "$1" ] || [ -h "$1" ]; then :; elif true > "$1"; then set +C; '
    'printf "%s\\n" "$2" > "$1" || { rm -f "$1"; exit 1; }; else [ -f "$1" ] || exit 1; fi; '
    '[ ! -f "$1" ] || head -n 1 "$1"'
)
MAKE_FOLDER = '[ -d "$1" ] || mkdir -m 700 "$1" || [ -d "$1" ] && ' + SYNC.replace("$1", "$2")
# Always a new file: a writer of an earlier connection has another one.
CREATE = f'umask 077; {STORE} rm -f -- "$1" && set -C && $store > "$1" && {SYNC} && wc -c < "$1"'
APPEND = 'umask 077; printf "%s\\n" "$2" >> "$1" && ' + SYNC
# mv(1) to another file system would copy: a partial copy looks complete, and both files exist
# meanwhile. link(2) fails as rename(2) would, even if a folder is mounted a second time.
RENAME = (
    'up=${1%/*}; if [ "${up:-/}" != "$3" ]; then '
    'why=$(ln "$1" "$3/.try.$$" 2>&1) && rm -f "$3/.try.$$"; case $why in *ross-device*) why=no;; '
    '*) [ "$(stat -c %d "$1" 2>/dev/null)" = "$(stat -c %d "$3" 2>/dev/null)" ] || why=no;; esac; '
    '[ "$why" != no ] || { echo "$2 is on another file system than $1" >&2; exit 1; }; fi; '
    'mv -f "$1" "$2" && { [ -z "$4" ] || TZ=UTC0 touch -c -t "$4" "$2" || :; } && '
) + SYNC.replace("$1", "$3")

_CALLED = {
    RECEIVE: "write",
    LOOK: "stat",
    NAMES: "ls",
    CONTENTS: "cat",
    CLAIM: "claim",
    MAKE_FOLDER: "mkdir",
    CREATE: "write",
    APPEND: "append",
    RENAME: "mv",
}
"""The name of a script in messages, before the path that it is about."""


def open_storage(ssh: Ssh, root: str, name: str) -> SshHost | SftpStorage:
    """Return the machine as a host, or as a storage if it offers only SFTP.

    Raises Unreachable, also if it offers neither.
    """
    login = Login(ssh, name)
    host = SshHost(login, root)
    no_shell = _no_shell(host)
    if not no_shell:
        return host
    try:
        closed(login.sftp(CONNECT_LIMIT_S))
    except Unreachable as error:
        if not login.is_open():
            raise
        login.close()
        raise Unreachable(
            f"{ssh.called(name)} accepts the login, but offers neither a shell nor SFTP; its "
            f"answer to a command: {ended(no_shell)}{_of_sftp(error)} With only the scp program, "
            "files cannot be listed, verified or renamed. Allow SFTP there (`Subsystem sftp "
            "internal-sftp` and `ForceCommand internal-sftp` in sshd_config), or a shell."
        ) from error
    return SftpStorage(login, root)


def _of_sftp(error: Unreachable) -> str:
    """Return a sentence about what a login printed in place of SFTP."""
    return f" {error}" if isinstance(error, LoginPrints) else ""


def _no_shell(host: SshHost) -> str:
    """Return the output of a machine that runs no commands, '' if it does; raises Unreachable."""
    words = ("sh", "-c", f"echo {SHELL_ANSWER}")
    asked = Command(words, timeout_s=CONNECT_LIMIT_S, most_bytes=MOST_SAID_BYTES)
    try:
        outcome = host.try_run(asked, leashed=False)
    except NoSession:
        host.close()
        raise
    except StepFailed as error:
        if not host.login.is_open():
            raise
        return error.said if isinstance(error, LoginPrints) else str(error)
    return "" if outcome.out == f"{SHELL_ANSWER}\n" else outcome.last_line


def open_host(ssh: Ssh, root: str, name: str) -> SshHost:
    """Return the machine as a host; raises Unreachable, also if it has no shell."""
    storage = open_storage(ssh, root, name)
    if isinstance(storage, SshHost):
        return storage
    storage.close()
    raise Unreachable(f"{ssh.called(name)} offers only SFTP, so commands cannot run there.")


class _TooLong(StepFailed):
    """A command did not end within its limit."""


class SshHost:
    """Another machine with a shell."""

    resumes = True

    def __init__(self, login: Login, root: str) -> None:
        self.login = login
        self.root = root
        self.name = login.name
        self._dates = Dates()

    def try_run(
        self, command: Command, heard: Heard | None = None, *, leashed: bool = True
    ) -> Result:
        """Run a command to its end, whatever its exit code; it ends with the connection.

        `leashed`: pass False for a machine that may have no shell. Raises LoginPrints if its login
        shell did not start the command.
        """
        connection = self.login.connection()
        sent, first = self.login.mark.sent(command, leashed=leashed)
        begins = self.login.begins(), self.login.begins()
        streams = {}
        if heard:
            streams = {f"{name}_stream": LineStream(name, heard) for name in ("out", "err")}
        try:
            with self.login.at_once:
                result = once_there_is_a_session(
                    lambda: connection.run(
                        sent,
                        timeout=command.timeout_s,
                        read_on_s=command.read_on_s,
                        most_bytes=command.most_bytes,
                        leashed=leashed,
                        first=first,
                        begins=begins,
                        **streams,
                    ),
                    SESSION_TRIES if leashed else FIRST_SESSION_TRIES,
                )
        except CommandTimedOut as error:
            if not begins[0].begun:
                raise self.login.began_nothing(command.timeout_s) from error
            raise self._too_long(command) from error
        except ThreadException as error:
            if any(isinstance(each.value, NotBegun) for each in error.exceptions):
                raise self.login.began_nothing() from error
            raise _first_of(error, command, self.name) from error
        except ChannelException as error:
            raise self.login.no_session(error) from error
        except (SSHException, OSError, EOFError) as error:
            raise line_broke(self.name, error) from error
        finally:
            for stream in streams.values():
                stream.close()
        if result.exited == -1:  # the channel was closed without an exit status
            raise Unreachable(f"Connection to {self.name} lost.", again=True)
        if not begins[0].begun:
            raise not_begun(self.name, result.stderr.strip() or result.stdout)
        self.login.note(*begins)
        return Result(result.exited, result.stdout, result.stderr, result.held)

    def run(self, command: Command, heard: Heard | None = None) -> Result:
        """Run a command to its end; raises StepFailed for an exit code that is not accepted."""
        return checked(command, self.try_run(command, heard), self.name)

    def _ask(self, question: Command) -> Result:
        """Run a short question about a disk; raises TimedOut if there is no answer in time."""
        with self._in_time():
            return self.run(question)

    @contextlib.contextmanager
    def _in_time(self) -> Iterator[None]:
        try:
            yield
        except _TooLong as error:
            raise TimedOut(f"{error} Does its disk work?") from error

    def stat(self, paths: Iterable[str]) -> dict[str, FileFact]:
        """Return the facts of the paths that exist, in one round trip; raises StepFailed."""
        asked = list(paths)
        if not asked:
            return {}
        told = self._ask(_script(LOOK, *asked, limit_s=QUESTION_LIMIT_S)).out
        lines = [line.strip() for line in told.splitlines()]
        odd = [line for line in lines if line != "-" and not LOOK_LINE.fullmatch(line)]
        if odd or len(lines) != len(asked):
            why = shown(odd[0]) if odd else f"{len(lines):,} lines for {len(asked):,} paths"
            raise StepFailed(f"On {self.name}: cannot read the answer of its stat: {why}.")
        return {path: _fact(line) for path, line in zip(asked, lines, strict=True) if line != "-"}

    def listdir(self, folder: str) -> dict[str, FileFact]:
        """Return the files of a folder by name, in one round trip.

        Raises Unreachable if any line of the listing is invalid: its file would seem to be
        missing.
        """
        found: dict[str, FileFact] = {}
        for line in self._ask(_script(NAMES, folder)).out.split("\n"):
            if line == LISTED:
                return found
            told = NAMES_LINE.fullmatch(line)
            if not told:
                break
            found[os.path.basename(told[2])] = _fact(told[1])
        raise not_listed(self.name, folder, f"among its lines is {shown(line)}" if line else "")

    @contextlib.contextmanager
    def read(self, path: str, start: int = 0) -> Iterator[IO[bytes]]:
        """Return a stream of a file's bytes; raises StepFailed at the end if it was truncated."""
        words = ("tail", "-c", f"+{start + 1}", path) if start else ("cat", path)
        with self.pipe(Command(words, timeout_s=TRANSFER_LIMIT_S)) as pipe:
            yield pipe.stdout
            if pipe.stdout.closed or pipe.stdout.read(1):
                return  # the reader has stopped early
            code = pipe.finish()
        if code:
            raise StepFailed(f"On {self.name}: {path} cannot be read (exit {code}).", again=True)

    def read_many(self, folder: str, names: Iterable[str]) -> dict[str, bytes]:
        """Return small files of a folder, in one round trip; missing files have no entry."""
        asked, found, left_bytes = tuple(names), {}, MOST_CONTENT_BYTES
        few = len(asked) <= FEW
        script = _script(CONTENTS, folder, *asked)
        with (
            self._in_time(),
            self._channelled(script) if few else self.pipe(script) as pipe,
        ):
            for name in asked:
                size = pipe.stdout.readline(MOST_SAID_BYTES).strip()
                if size == b"-":
                    continue
                if size.startswith(b"!"):
                    why = size.decode("utf-8", "replace").rpartition(": ")[2]
                    raise StepFailed(f"On {self.name}: cannot read {folder}/{name}: {why}.")
                is_size = size.isdigit() and len(size) <= MOST_DIGITS
                if is_size and int(size) > MOST_CONTENT_BYTES:
                    why = f"it has {int(size):,} bytes, too many to be read at once"
                    raise StepFailed(f"On {self.name}: {folder}/{name} is not read: {why}.")
                left_bytes -= int(size) if is_size else 0
                if left_bytes < 0:
                    raise too_much(self.name, folder, MOST_CONTENT_BYTES)
                found[name] = pipe.stdout.read(int(size)) if is_size else b""
                if size != b"%d" % len(found[name]):
                    pipe.finish()  # reports a lost connection
                    raise StepFailed(
                        f"On {self.name}: reading {folder}/{name} stopped early.",
                        again=True,
                    )
            pipe.finish()
        return found

    def create_exclusive(self, path: str, line: str) -> str:
        """Create a file of one line unless it exists, and return the line it then holds."""
        told = self._ask(_script(CLAIM, path, line, limit_s=QUESTION_LIMIT_S)).out.rstrip("\n")
        if "\n" in told:
            why = f"{path} was not created: unexpected answer: {shown(told)}"
            raise StepFailed(f"On {self.name}: {why}.")
        return told

    def write(
        self,
        path: str,
        source: IO[bytes],
        modified_s: float,
        start: int = 0,
        size_bytes: int | None = None,
    ) -> Received:
        """Write a stream to `path`, synced, and hash the stored file afterwards."""
        small = size_bytes is not None and size_bytes <= SMALL_BYTES
        when = "" if self._dates.put_off(path, modified_s) else _for_touch(modified_s)
        command = _script(RECEIVE, path, when, str(start))
        answer = self._feed(command, source, small=small)
        size, digest = (*answer.split(), "", "")[:2]
        if not SIZE.fullmatch(size) or not SHA256.fullmatch(digest):
            why = f"its answer was {shown(answer)!r}"
            raise StepFailed(f"On {self.name}: {path} was not received: {why}.", again=True)
        return Received(int(size), digest)

    def _feed(self, command: Command, source: IO[bytes], *, small: bool) -> str:
        """Run a command that reads `source`, and return its output."""
        with self._fed(command, small=small) as far:
            while chunk := read_chunk(source):
                far.write(chunk)
            return far.end()

    @contextlib.contextmanager
    def _fed(self, command: Command, *, small: bool = False) -> Iterator[_ToProcess | _ToChannel]:
        """Start a command that reads what is written; it is ended at the end of the block.

        Raises TimedOut if it was ended at its limit.
        """
        until_s = time.monotonic() + TRANSFER_LIMIT_S
        try:
            with self._reading(command, small=small) as far:
                yield far
        except StepFailed as error:
            if time.monotonic() < until_s:
                raise
            why = f"it did not end within {TRANSFER_LIMIT_S:g} s. Is its connection too slow?"
            raise TimedOut(f"Sending to {self.name} failed: {why}") from error

    @contextlib.contextmanager
    def _reading(self, command: Command, *, small: bool) -> Iterator[_ToProcess | _ToChannel]:
        """Start it through the open connection, or through `ssh`."""
        if small or shutil.which("ssh") is None:
            channel = self.login.start(command)
            limit = Limit(channel, TRANSFER_LIMIT_S)
            try:
                with self._moving(lambda: closed(channel)) as stall:
                    yield _ToChannel(self.login, channel, stall)
            finally:
                limit.stop()
            return
        said: deque[str] = deque(maxlen=LAST_LINES)
        limited = Command(command.argv, timeout_s=TRANSFER_LIMIT_S)
        with (
            self._ssh(limited, lambda _, line: said.append(line)) as (process, finish),
            self._moving(lambda: processes.end(process)) as stall,
        ):
            yield _ToProcess(self.name, process, finish, said, stall)

    @contextlib.contextmanager
    def _moving(self, end: Callable[[], None]) -> Iterator[Stall]:
        """Yield a timer that ends a command that accepts no data; raises Unreachable if it did."""
        stall = Stall(end)
        try:
            yield stall
        except StepFailed as error:
            if not stall.is_over:
                raise
            why = "no data for too long. Does its disk work, or is its connection too slow?"
            raise Unreachable(f"Sending to {self.name} failed: {why}", again=True) from error
        finally:
            stall.stop()

    @contextlib.contextmanager
    def _ssh(
        self, command: Command, heard: Heard | None, *, leashed: bool = False
    ) -> Iterator[tuple[Any, Callable[[], int]]]:
        """Start a command through `ssh`, and skip what the login shell prints before it.

        Raises Unreachable if it does not start.
        """
        sent, first = self.login.mark.sent(command, leashed=leashed)
        begins, lines = self.login.begins(), Lines(self.login.mark, heard)
        words = (*self.login.words(), sent)
        with piped(words, lines, command.timeout_s, feed=True) as (process, finish):
            assert process.stdin is not None  # noqa: S101 - we asked for pipes
            with contextlib.suppress(BrokenPipeError):  # its exit code says more
                process.stdin.write(first)
                process.stdin.flush()
            until_s = time.monotonic() + START_LIMIT_S
            if not begins.pass_over(lambda size: self._read_soon(process.stdout, size, until_s)):
                code, said = finish(), lines.end()
                if code != LINE_BROKE_EXIT:
                    raise not_begun(self.name, "\n".join(said) or begins.noise)
                why = f": {ended(said[-1].strip())}" if said else "."
                raise Unreachable(f"Connection to {self.name} lost{why}", again=True)
            self.login.note(begins)
            yield process, finish

    def _read_soon(self, stream: Any, size: int, until_s: float) -> bytes:
        """Return at most `size` bytes of an unbuffered pipe."""
        waiting = select.poll()
        waiting.register(stream, select.POLLIN)
        if waiting.poll(max(0.0, until_s - time.monotonic()) * 1000):
            return os.read(stream.fileno(), size)
        raise self.login.began_nothing()

    @contextlib.contextmanager
    def pipe(self, command: Command, heard: Heard | None = None) -> Iterator[Pipe]:
        """Start a command whose output is bytes; it is ended at the end of the block."""
        if shutil.which("ssh") is None:
            with self._channelled(command, heard) as pipe:
                yield pipe
            return
        until_s = time.monotonic() + command.timeout_s
        with self._ssh(command, heard, leashed=True) as (process, finish):

            def ended_well() -> int:
                code = finish()
                is_ended = code < 0 or code == LINE_BROKE_EXIT  # or `ssh` itself was ended
                if is_ended and time.monotonic() >= until_s:
                    raise self._too_long(command)
                return self._unbroken(code)

            yield Pipe(process.stdout, ended_well)

    @contextlib.contextmanager
    def _channelled(self, command: Command, heard: Heard | None = None) -> Iterator[Pipe]:
        """Do the same through the open connection."""
        channel = self.login.start(command, leashed=True)
        limit = Limit(channel, command.timeout_s)

        def finish() -> int:
            for line in self.login.said(channel).splitlines():
                if heard:
                    heard("err", line)
            code = channel.recv_exit_status()
            if limit.is_over:
                raise self._too_long(command)
            return self._unbroken(code)

        try:
            stream = io.BufferedReader(_FromChannel(self.name, channel), CHUNK_BYTES)
            yield Pipe(stream, finish)
        finally:
            limit.stop()

    def _too_long(self, command: Command) -> _TooLong:
        told = f"it did not end within {command.timeout_s:g} s: {command.shown}."
        return _TooLong(f"On {self.name}: {told}", again=True)

    def _unbroken(self, code: int) -> int:
        """Return the exit code of a command; raises Unreachable if the connection was lost."""
        if code in (LINE_BROKE_EXIT, -1):  # of `ssh`; of a channel closed without one
            raise Unreachable(f"Connection to {self.name} lost.", again=True)
        return code

    @contextlib.contextmanager
    def create(self, path: str) -> Iterator[IO[bytes]]:
        """Return a stream into a new file of mode 0600, synced if the block succeeds.

        If it fails, a partial file is left.
        """
        with self._fed(_script(CREATE, path)) as far:
            yield cast("IO[bytes]", far)
            answer = far.end().strip()
        if answer != str(far.size_bytes):
            raise StepFailed(
                f"On {self.name} {path} has {answer or 'no'} bytes, and {far.size_bytes} were "
                "sent.",
                again=True,
            )

    def lines(self, path: str) -> list[str]:
        """Return the lines of a text file; [] if it does not exist."""
        told = self.read_many(os.path.dirname(path), [os.path.basename(path)])
        return b"".join(told.values()).decode("utf-8", "replace").splitlines()

    def append(self, path: str, line: str) -> None:
        """Append a line to a file of mode 0600, so that it survives a power cut."""
        self._ask(_script(APPEND, path, line))

    def http_status(self, port: int, path: str, address: str = "127.0.0.1") -> int:
        """Return the status of an HTTP server, asked from there; 0 for no answer."""
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

    def mkdir(self, path: str) -> None:
        """Make a folder unless it exists, so that it survives a power cut."""
        self._ask(_script(MAKE_FOLDER, path, os.path.dirname(path)))

    def free_bytes(self, folder: str) -> int | None:
        """Return the free bytes of the file system of `folder`; None if unknown."""
        disk = self.disk(folder)
        return disk.free_bytes if disk else None

    def disk(self, folder: str) -> Disk | None:
        """Return the file system of `folder`; None if unknown."""
        asked = Command(("df", "-Pk", folder), ANY_EXIT, QUESTION_LIMIT_S)
        line = self._ask(asked).out.strip().rpartition("\n")[2]
        told = DF_LINE.search(line)
        if not told:
            return None
        device, point = line[: told.start()], line[told.end() :]
        # A memory file system, or a share, may have the same name as another.
        named = device if device.startswith("/") else f"{device} {point}"
        return Disk(f"{self.name} {named}", int(told[1]) * 1024)

    def rename(self, old: str, new: str) -> None:
        """Replace `new` by `old` atomically, so that it survives a power cut."""
        dated_s = self._dates.take(old)
        when = "" if dated_s is None else _for_touch(dated_s)
        self._ask(_script(RENAME, old, new, os.path.dirname(new), when))

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; missing ones are ignored."""
        asked = tuple(paths)
        if asked:
            self._ask(Command(("rm", "-f", "--", *asked)))

    def close(self) -> None:
        """Close the connection."""
        self.login.close()


class _FromChannel(io.RawIOBase):
    """The output of a command on another machine, through a channel of Paramiko's.

    Paramiko's own file treats a lost connection as the end of the file (file.py, EOFError).
    """

    def __init__(self, name: str, channel: paramiko.Channel) -> None:
        self._name = name
        self._channel = channel

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the available bytes, 0 at the end; raises Unreachable if the connection is lost."""
        try:
            data = self._channel.recv(len(buffer))
        except (SSHException, OSError, EOFError) as error:
            raise line_broke(self._name, error) from error
        buffer[: len(data)] = data
        return len(data)


class _ToProcess:
    """The input of a command on another machine, through `ssh`."""

    def __init__(
        self,
        name: str,
        process: Any,
        finish: Callable[[], int],
        said: deque[str],
        stall: Stall,
    ) -> None:
        self.size_bytes = 0
        self._stall = stall
        self._name = name
        self._process = process
        self._finish = finish
        self._said = said

    def write(self, data: bytes) -> int:
        """Send some bytes; raises StepFailed, with its output, if the command has ended."""
        try:
            with self._stall.watching(STALL_S):
                self._process.stdin.write(data)
        except BrokenPipeError:
            self.end()
            raise _not_sent(self._name, "the command there ended early") from None
        self.size_bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: a full buffer is sent by itself."""

    def end(self) -> str:
        """Close the input, and return the command's output; raises StepFailed if it failed."""
        with self._stall.watching(STALL_S + self.size_bytes / SLOWEST_BYTES_S):
            with contextlib.suppress(BrokenPipeError):  # its exit code and output say more
                self._process.stdin.close()
            answer: str = self._process.stdout.read(MOST_SAID_BYTES).decode("utf-8", "replace")
            if len(answer) == MOST_SAID_BYTES:
                raise _not_sent(self._name, f"its answer is incomplete: {shown(answer)}")
            code = self._finish()
        if code:
            last = next((line for line in reversed(self._said) if line.strip()), f"exit {code}")
            raise _not_sent(self._name, last.strip())
        return answer


class _ToChannel:
    """The same through a channel of Paramiko's."""

    def __init__(self, login: Login, channel: paramiko.Channel, stall: Stall) -> None:
        self.size_bytes = 0
        self._stall = stall
        self._login = login
        self._name = login.name
        self._channel = channel

    def write(self, data: bytes) -> int:
        """Send some bytes; raises StepFailed, with its output, if the command has ended."""
        with self._failing(), self._stall.watching(STALL_S):
            try:
                self._channel.sendall(data)
            except OSError:
                if not self._channel.closed:
                    raise
                self.end()
                raise _not_sent(self._name, "the command there ended early") from None
        self.size_bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: all written bytes are sent."""

    def end(self) -> str:
        """Close the input, and return the command's output; raises StepFailed if it failed."""
        channel = self._channel
        with (
            self._failing(),
            self._stall.watching(STALL_S + self.size_bytes / SLOWEST_BYTES_S),
        ):
            end_input(channel)
            answer: str = channel.makefile("rb").read(MOST_SAID_BYTES).decode("utf-8", "replace")
            if len(answer) == MOST_SAID_BYTES:
                raise _not_sent(self._name, f"its answer is incomplete: {shown(answer)}")
            said = self._login.said(channel).strip()
            code = channel.recv_exit_status()
        if code:  # -1: the channel was closed without an exit status
            why = "the connection was cut" if code == -1 else f"exit {code}"
            raise _not_sent(self._name, said or why)
        return answer

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (SSHException, OSError, EOFError) as error:
            why = why_it_broke(error)
            raise StepFailed(f"Sending to {self._name} failed: {why}", again=True) from error


def _not_sent(name: str, why: str) -> StepFailed:
    """Return the failure; one that the other machine's disk caused is not retried."""
    advice = f" {MAKE_ROOM}" if FULL.search(why) else ""
    if "Read-only file system" in why:
        advice = f" Its file system {READ_ONLY}."
    if TOO_LARGE in why:
        advice = (
            f" The login there has a limit: check for `ulimit -f` in {', '.join(START_FILES)}."
        )
    again = not (REFUSED_BY_DISK.search(why) or advice)
    return StepFailed(f"Sending to {name} failed: {ended(why)}{advice}", again=again)


def _for_touch(modified_s: float) -> str:
    """Return a date in the format of touch(1), in UTC."""
    return time.strftime("%Y%m%d%H%M.%S", time.gmtime(modified_s))


def _script(script: str, *arguments: str, limit_s: float = SLOW_LIMIT_S) -> Command:
    called = shlex.join((_CALLED.get(script, "sh"), arguments[0]))
    # The output is parsed here, so it must be in English.
    most_bytes = MOST_LISTED_BYTES if script == NAMES else MOST_TOLD_BYTES
    words = ("sh", "-c", f"LC_ALL=C; export LC_ALL; {script}", "sh", *arguments)
    return Command(words, label=called, timeout_s=limit_s, most_bytes=most_bytes)


def _fact(line: str) -> FileFact:
    mode, size, modified = line.split(" ")[:3]
    return fact_of(int(mode, 16), int(size), float(modified))
