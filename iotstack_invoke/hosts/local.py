"""This machine as a host: its files, its commands. Other machines are in ssh.py.

Commands run through Invoke; bytes go through a plain pipe, since Invoke decodes what it reads.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import secrets
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import IO, Any, TypeVar

from invoke.context import Context
from invoke.exceptions import CommandTimedOut, ThreadException

from ..core import processes
from ..core.errors import Busy, Interrupted, StepFailed, TimedOut
from .base import (
    MOST_BYTES,
    PARTIAL,
    Command,
    Disk,
    FileFact,
    Heard,
    Pipe,
    Received,
    Result,
    denied_told,
    fact_of,
)
from .invoke_runners import MOST_LINE, LineStream, SaidTooMuch, local_context

CHUNK_BYTES = 1 << 18
EARLY_BYTES = 4 << 20
"""How many bytes are written before the kernel is asked to start writing them to disk."""
PIPE_BYTES = 1 << 20
"""Size of a pipe: Linux' default of 64 KiB cost `ssh` a third more processor time (measured).
More needs root."""
STALL_S = 900.0
"""How long a vault may accept no data: a slow disk may have to write megabytes first."""
SLOWEST_BYTES_S = 1_000_000
"""The slowest rate accepted for syncing, or for hashing on another machine."""
LISTEN_S = 30.0
"""How long to wait for the last output of a program that has ended or was killed."""
PRIVATE = 0o600
NO_FILE = "it is not a regular file"
NOT_THERE = (FileNotFoundError, NotADirectoryError)
"""The errors for a path that does not exist. Any other means: it could not be examined."""
READ_ONLY = "is mounted read-only (the card may be failing: look at dmesg)"

Answer = TypeVar("Answer")


def state_folder() -> str:
    """Return the folder for this program's data on a machine that need not have a stack."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return f"{base}/iotstack"


class Dates:
    """The dates of partial files received; each is set when the file gets its final name.

    Until then a file has the time of its last byte, which shows others whether its run is dead.
    """

    def __init__(self) -> None:
        self._known: dict[str, float] = {}

    def put_off(self, path: str, modified_s: float) -> bool:
        """Keep the date of a partial file, and return whether it is one."""
        if path.endswith(PARTIAL):
            self._known[path] = modified_s
        return path.endswith(PARTIAL)

    def take(self, path: str) -> float | None:
        """Remove and return the kept date, None if none was kept."""
        return self._known.pop(path, None)


class LocalHost:
    """This machine; its paths are absolute."""

    resumes = True

    def __init__(self, root: str, name: str = "this machine") -> None:
        self.root = root
        self.name = name
        self.dates = Dates()

    @cached_property
    def _context(self) -> Context:
        return local_context()

    def stat(self, paths: Iterable[str]) -> dict[str, FileFact]:
        """Return the facts of those paths that exist; a missing path has no entry."""
        found = {}
        for path in paths:
            with _failing(f"{path} cannot be looked at"), contextlib.suppress(*NOT_THERE):
                found[path] = _fact(os.lstat(path))
        return found

    def listdir(self, folder: str) -> dict[str, FileFact]:
        """Return the entries of a folder by name; {} if the folder does not exist."""
        found = {}
        with (
            _failing(f"{folder} cannot be listed"),
            contextlib.suppress(FileNotFoundError),
            os.scandir(folder) as entries,
        ):
            for entry in entries:
                try:
                    found[entry.name] = _fact(entry.stat(follow_symlinks=False))
                except FileNotFoundError:  # removed since it was listed
                    continue
        return found

    @contextlib.contextmanager
    def read(self, path: str, start: int = 0) -> Iterator[IO[bytes]]:
        """Return a stream of a file's bytes, without the first `start`."""
        with _failing(f"{path} cannot be read"), open(path, "rb", opener=opened) as stream:
            stream.seek(start)
            yield stream

    def read_many(self, folder: str, names: Iterable[str]) -> dict[str, bytes]:
        """Return small files of a folder; missing files and non-files have no entry."""
        found = {}
        for name in names:
            path = f"{folder}/{name}"
            with _failing(f"{path} cannot be read"), contextlib.suppress(*NOT_THERE, NoFileError):
                found[name] = _content(path)
        return found

    def create_exclusive(self, path: str, line: str) -> str:
        """Create a file of one line unless it exists, and return the line it then holds."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with _failing(f"{path} cannot be written"), contextlib.suppress(FileExistsError):
            descriptor = opened(path, flags)
            try:
                os.write(descriptor, line.encode() + b"\n")
                os.fsync(descriptor)
            except OSError:  # an empty claim would block everyone
                os.unlink(path)
                raise
            finally:
                os.close(descriptor)
        return "".join(self.lines(path)[:1])

    def lines(self, path: str) -> list[str]:
        """Return the lines of a text file; [] if it does not exist."""
        if not self.stat([path]):
            return []
        with self.read(path) as stream:
            return stream.read().decode("utf-8", "replace").splitlines()

    @contextlib.contextmanager
    def create(self, path: str, start: int = 0) -> Iterator[IO[bytes]]:
        """Return a stream into a new file of mode 0600, synced if the block succeeds.

        With `start` the first `start` bytes are kept, and writing continues after them.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
        with (
            _failing(f"{path} cannot be written"),
            io.BufferedWriter(_Early(opened(path, flags), "wb"), CHUNK_BYTES) as stream,
        ):
            os.fchmod(stream.fileno(), PRIVATE)
            stream.truncate(start)
            stream.seek(start)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())

    def replace(self, path: str, content: bytes, mode: int = PRIVATE) -> None:
        """Replace a small file atomically; raises StepFailed, and the earlier one stays.

        Another program may do the same at this moment: each writes a partial file of its own.
        """
        partial = f"{path}.{secrets.token_hex(4)}{PARTIAL}"
        try:
            with self.create(partial) as stream:
                os.fchmod(stream.fileno(), mode)
                stream.write(content)
            self.rename(partial, path)
        except BaseException:
            with contextlib.suppress(StepFailed):
                self.remove([partial])
            raise

    def write(
        self,
        path: str,
        source: IO[bytes],
        modified_s: float,
        start: int = 0,
        size_bytes: int | None = None,  # noqa: ARG002
    ) -> Received:
        """Write a stream after the first `start` bytes of `path`, synced, and hash the file."""
        digest, size = hashlib.sha256(), 0
        if start:
            with self.read(path) as kept:
                while chunk := kept.read(min(CHUNK_BYTES, start - size)):
                    digest.update(chunk)
                    size += len(chunk)
        with self.create(path, size) as target:
            while chunk := read_chunk(source):
                target.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        self.set_date(path, modified_s)
        return Received(size, digest.hexdigest())

    def set_date(self, path: str, modified_s: float) -> None:
        """Set the date of a file; that of a partial file when it is renamed."""
        if not self.dates.put_off(path, modified_s):
            with _failing(f"{path} cannot be given its date"):
                os.utime(path, (modified_s, modified_s))

    def append(self, path: str, line: str) -> None:
        """Append a line to a file of mode 0600, so that it survives a power cut."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        with _failing(f"{path} cannot be written"):
            new = not os.path.lexists(path)
            descriptor = opened(path, flags)
            try:
                rest = line.encode() + b"\n"
                while rest:  # a nearly full disk writes a part, without an error
                    rest = rest[os.write(descriptor, rest) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if new:
                _sync_folder(os.path.dirname(path))

    def mkdir(self, path: str) -> None:
        """Make a folder unless it exists, so that it survives a power cut."""
        with _failing(f"{path} cannot be made"):
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                if not os.path.isdir(path):
                    raise
            _sync_folder(os.path.dirname(path))

    def free_bytes(self, folder: str) -> int | None:
        """Return the free bytes of the file system of `folder`; None if unknown."""
        with contextlib.suppress(OSError):
            status = os.statvfs(folder)
            return status.f_bavail * status.f_frsize
        return None

    def disk(self, folder: str) -> Disk | None:
        """Return the file system of `folder`; None if unknown."""
        free = self.free_bytes(folder)  # has a time limit: a network share may hang
        with contextlib.suppress(OSError):
            return None if free is None else Disk(str(os.stat(folder).st_dev), free)
        return None

    def rename(self, old: str, new: str) -> None:
        """Replace `new` by `old` atomically, so that it survives a power cut."""
        with _failing(f"{old} cannot be renamed to {new}"):
            os.rename(old, new)
            dated_s = self.dates.take(old)
            if dated_s is not None:
                with contextlib.suppress(OSError):  # the copy is complete without its date
                    os.utime(new, (dated_s, dated_s))
            _sync_folder(os.path.dirname(new))

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; missing ones are ignored."""
        for path in paths:
            with _failing(f"{path} cannot be removed"), contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def run(self, command: Command, heard: Heard | None = None) -> Result:
        """Run a command to its end through Invoke, with its arguments quoted."""
        streams = {}
        if heard:
            streams = {f"{name}_stream": LineStream(name, heard) for name in ("out", "err")}
        try:
            result: Any = self._context.run(
                str(command),
                timeout=command.timeout_s,
                read_on_s=command.read_on_s,
                most_bytes=command.most_bytes,
                **streams,
            )
        except CommandTimedOut as error:
            raise StepFailed(
                f"It did not end within {command.timeout_s:g} s and was stopped: {command.shown}"
            ) from error
        except ThreadException as error:
            raise _first_of(error, command, self.name) from error
        finally:
            for stream in streams.values():
                stream.close()
        outcome = Result(result.exited, result.stdout, result.stderr, result.held)
        return checked(command, outcome, self.name)

    @contextlib.contextmanager
    def pipe(self, command: Command, heard: Heard | None = None) -> Iterator[Pipe]:
        """Start a command whose output is bytes; it is ended at the end of the block."""
        with piped(command.argv, heard, command.timeout_s) as (process, finish):
            assert process.stdout is not None  # noqa: S101 - we asked for a pipe
            yield Pipe(process.stdout, finish)

    def http_status(self, port: int, path: str, address: str = "127.0.0.1") -> int:
        """Return the status that an HTTP server of this host gives, 0 for no answer."""
        import http.client  # takes 10 ms that most commands do not need

        connection = http.client.HTTPConnection(address, port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def close(self) -> None:
        """Do nothing: there is no connection to close."""


class _Early(io.FileIO):
    """A file that is written to disk while data arrives, so that the sync at the end is short.

    Written data waits in memory for half a minute unless posix_fadvise says that it is not needed
    there: then Linux starts writing at once (mm/fadvise.c) and does not wait for it.
    """

    _waiting_bytes = 0

    def write(self, data: Any) -> int:
        written = super().write(data)
        self._waiting_bytes += written
        if self._waiting_bytes >= EARLY_BYTES and hasattr(os, "posix_fadvise"):  # missing on macOS
            start = self.tell() - self._waiting_bytes
            os.posix_fadvise(self.fileno(), start, self._waiting_bytes, os.POSIX_FADV_DONTNEED)
            self._waiting_bytes = 0
        return written


class Patience:
    """The time limit of work in another thread, which extends it as it makes progress."""

    def __init__(self, limit_s: float) -> None:
        self.is_over = False
        """The caller no longer waits, and the thread is left behind."""
        self.allow(limit_s)

    def allow(self, limit_s: float) -> None:
        """Allow this long for the next piece of work; raises StepFailed if the caller gave up."""
        if self.is_over:
            raise StepFailed("It took too long and was abandoned.")
        self.limit_s = limit_s
        self.until_s = time.monotonic() + limit_s


def within(limit_s: float, what: str, ask: Callable[[], Answer]) -> Answer:
    """Return the answer to a question; raises its error, or TimedOut after the limit."""
    return while_it_moves(Patience(limit_s), what, ask)


def while_it_moves(patience: Patience, what: str, do: Callable[[], Answer]) -> Answer:
    """Return the result of some work; raises its error, or TimedOut if it makes no progress.

    A change that timed out may still happen later, when whatever it waits for responds.
    """
    answer = _parallel({what: do}, patience)[what]
    if isinstance(answer, StepFailed):
        raise answer
    return answer


def run_parallel(
    asks: Mapping[str, Callable[[], Answer]], limit_s: float
) -> dict[str, Answer | StepFailed]:
    """Return the answers to several questions asked in parallel, or why they failed, by name.

    Raises any other error of a question, and Interrupted if this program is to end: their child
    processes are ended then. A thread still running, then or at the limit, is left behind and ends
    with the process: a thread that waits for a share whose server is gone cannot be stopped.
    """
    return _parallel(asks, Patience(limit_s))


def _parallel(
    asks: Mapping[str, Callable[[], Answer]], patience: Patience
) -> dict[str, Answer | StepFailed]:
    answers: dict[str, Answer | StepFailed] = {}
    troubles: list[BaseException] = []

    def run(name: str) -> None:
        try:
            answers[name] = asks[name]()
        except StepFailed as error:
            answers[name] = error
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            troubles.append(error)

    asking = [threading.Thread(target=run, args=(name,), daemon=True) for name in asks]
    with processes.signals_noted() as noted:
        for each in asking:
            each.start()
        _wait(asking, patience, noted)
    if noted:
        processes.end_all()
        for each in asking:
            each.join(processes.SIGNAL_LOOK_S)
        processes.resume()
    patience.is_over = any(each.is_alive() for each in asking)
    if noted:
        raise Interrupted(noted[0])
    for trouble in troubles:
        raise trouble
    if patience.is_over and processes.ending():
        raise Interrupted(signal.SIGTERM)
    late = {each: f"{each} did not answer within {patience.limit_s:g} s." for each in asks}
    return {each: answers[each] if each in answers else TimedOut(late[each]) for each in asks}


def _wait(threads: Iterable[threading.Thread], patience: Patience, noted: Collection[int]) -> None:
    """Wait for threads to end, until patience is over, or shortly after a signal.

    The main thread learns of signals from `noted`, any other from `ending()`.
    """
    ends_s = math.inf
    for each in threads:
        while each.is_alive() and not noted:
            now_s = time.monotonic()
            if processes.ending():
                ends_s = min(ends_s, now_s + processes.GRACE_S)
            left_s = min(patience.until_s, ends_s) - now_s
            if left_s <= 0:
                break
            each.join(min(left_s, processes.SIGNAL_LOOK_S))


def words_of(error: OSError) -> str:
    """Return why the system refused, by error number if its text may be in any language."""
    if error.errno == errno.EROFS:
        return f"its file system {READ_ONLY}"
    return error.strerror or str(error)


def read_chunk(source: IO[bytes]) -> bytes:
    """Return the next bytes of a stream, b"" at its end; raises StepFailed, never OSError."""
    try:
        return source.read(CHUNK_BYTES)
    except OSError as error:
        raise StepFailed(f"Reading failed: {error.strerror or error}.") from error


@contextlib.contextmanager
def piped(
    words: tuple[str, ...],
    heard: Heard | None,
    limit_s: float,
    *,
    feed: bool = False,
    pass_fds: tuple[int, ...] = (),
) -> Iterator[tuple[subprocess.Popen[bytes], _Finish]]:
    """Start a program with pipes for bytes, and end it at the end of the block.

    `feed`: its standard input is a pipe too. `pass_fds`: further open descriptors, by number.
    A separate thread reads its error stream and passes it on line by line.
    """
    lines = LineStream("err", heard or (lambda _stream, _line: None))
    troubles: list[BaseException] = []

    def listen() -> None:
        assert process.stderr is not None  # noqa: S101 - we asked for a pipe
        left = MOST_BYTES
        with io.TextIOWrapper(process.stderr, "utf-8", "backslashreplace") as text:
            try:
                while piece := text.readline(MOST_LINE):  # a line without an end comes in pieces
                    left -= len(piece)
                    if left < 0:
                        raise said_too_much(words[0], MOST_BYTES, "this machine")  # noqa: TRY301
                    lines.write(piece if piece.endswith("\n") else f"{piece}\n")
                lines.close()
            except BaseException as error:  # noqa: BLE001 - finish() raises it
                troubles.append(error)
                processes.end(process)

    with contextlib.ExitStack() as at_the_end:
        with processes.signals_held():
            try:
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                    pass_fds=pass_fds,
                )
            except OSError as error:
                advice = "" if error.errno == errno.E2BIG else " Is it installed?"
                raise StepFailed(f"Cannot start {words[0]}: {error.strerror}.{advice}") from error
            _widen(process.stdin, process.stdout)
            listener = threading.Thread(target=listen, daemon=True)
            listener.start()
            timer = threading.Timer(limit_s, processes.end, [process])
            timer.daemon = True
            timer.start()
            # Runs in reverse order. A child outside the group may hold the stream open.
            at_the_end.callback(listener.join, LISTEN_S)
            at_the_end.callback(_close, process.stdin, process.stdout)
            at_the_end.callback(timer.cancel)
            at_the_end.enter_context(processes.watched(process))
        yield process, _Finish(process, words[0], limit_s, listener, troubles)


def _widen(*pipes: IO[bytes] | None) -> None:
    """Enlarge pipes if the system allows it: then data moves in fewer, larger pieces."""
    for pipe in pipes:
        if pipe:
            with contextlib.suppress(OSError, AttributeError):  # too many of them, or macOS
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _close(*streams: IO[bytes] | None) -> None:
    for stream in streams:
        if stream:
            with contextlib.suppress(OSError):
                stream.close()


class _Finish:
    """Waits for a program and for the last line of its error stream.

    Raises any exception from passing on one of its lines.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        name: str,
        limit_s: float,
        listener: threading.Thread,
        troubles: list[BaseException],
    ) -> None:
        self.process = process
        self.name = name
        self.limit_s = limit_s + processes.END_LIMIT_S
        self.listener = listener
        self.troubles = troubles

    def __call__(self) -> int:
        try:
            code = self.process.wait(self.limit_s)
        except subprocess.TimeoutExpired:
            raise StepFailed(
                f"{self.name} did not end and could not be killed: it may wait for a lost disk "
                "or share. See dmesg."
            ) from None
        self.listener.join(LISTEN_S)
        for each in self.troubles:
            raise each
        return code


def checked(command: Command, outcome: Result, where: str) -> Result:
    """Return the result of a command; raises StepFailed if its exit code is a failure."""
    if outcome.exit_code in command.accept:
        return outcome
    if processes.ending():
        raise Interrupted(-outcome.exit_code if outcome.exit_code < 0 else 15)
    denied = denied_told(outcome.err)
    if denied and command.argv[:1] != ("sudo",):  # a share may refuse root as well
        raise StepFailed(f"On {where}: {denied}")
    raise StepFailed(f"On {where}: {outcome.ended} from `{command.shown}`: {outcome.last_line}")


def _first_of(error: ThreadException, command: Command, where: str) -> BaseException:
    """Return the exception raised while the output of a command was passed on."""
    for each in error.exceptions:
        if isinstance(each.value, SaidTooMuch):
            return said_too_much(command.shown, command.most_bytes, where)
        if isinstance(each.value, BaseException):
            return each.value
    return error


def said_too_much(shown: str, most_bytes: int, where: str) -> StepFailed:
    """Return the failure of a program whose answer is too long."""
    return StepFailed(
        f"On {where}: its output exceeded {most_bytes:,} bytes, so it was stopped: {shown}"
    )


def _fact(status: os.stat_result) -> FileFact:
    return fact_of(status.st_mode, status.st_size, status.st_mtime)


class NoFileError(OSError):
    """The path exists, but is not a regular file."""


def opened(path: str, flags: int) -> int:
    """Open a file, or create one of mode 0600; raises NoFileError if it is not a regular file.

    Opening a pipe would wait for its other end, regardless of signals.
    """
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK, PRIVATE)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a pipe or socket without another end
            raise NoFileError(errno.ENXIO, NO_FILE) from None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise NoFileError(errno.EINVAL, NO_FILE)


def _content(path: str) -> bytes:
    """Return the bytes of a file, with half the system calls of a stream."""
    descriptor = opened(path, os.O_RDONLY)
    try:
        content = b""
        while chunk := os.read(descriptor, CHUNK_BYTES):
            content += chunk
        return content
    finally:
        os.close(descriptor)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _failing(what: str) -> Iterator[None]:
    """Turn an error of the operating system into a message for users."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EROFS:
            raise StepFailed(f"{what}: its file system {READ_ONLY}.") from error
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        advice = " Free some space, then run the same command again." if full else ""
        raise StepFailed(f"{what}: {error.strerror or error}.{advice}") from error


@contextlib.contextmanager
def locked(path: str, purpose: str) -> Iterator[None]:
    """Hold the lock of a stack; the kernel releases it however this process ends.

    Raises Busy, which names the holder.
    """
    with _failing(f"The lock {path} cannot be written"):
        descriptor = opened(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(_who_holds(descriptor, path)) from None
        holder = {
            "pid": os.getpid(),
            "purpose": purpose,
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        with contextlib.suppress(OSError):  # a full disk: the lock holds, unnamed
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked_within(limit_s: float, path: str, purpose: str) -> Iterator[None]:
    """Hold a lock that others hold for moments only; raises Busy if its holder hangs."""
    deadline = time.monotonic() + limit_s
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(path, purpose))
                break
            except Busy:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield


def holder_ended(path: str) -> bool:
    """Return whether the last run that held a lock has ended; False if that is unknown.

    Trying the lock would block a run that starts at this moment.
    """
    try:
        with open(path, "rb", opener=opened) as stream:
            os.kill(json.loads(stream.read(4096))["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return False


def _who_holds(descriptor: int, path: str) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        who = f"`{holder['purpose']}` (process {holder['pid']}, since {holder['since']})"
    except (ValueError, KeyError, TypeError, RecursionError):
        who = "another run"
    return f"{who} is active on this stack. Wait until it ends, then run this again. ({path})"
