"""A machine that offers only SFTP, as a storage: a copy is verified by reading it back.

Imported only when such a machine is used, through ssh.py. The protocol: sftp.py.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from typing import IO, cast

import paramiko
from paramiko import SFTPError, SSHException

from ..core.errors import StepFailed, Unreachable
from .base import FileFact, Received, fact_of
from .hashing import HashedStream
from .local import PRIVATE, READ_ONLY, Dates, read_chunk
from .login_shell import shown
from .sftp import SftpSession, encoded
from .ssh_connection import Login, closed, line_broke, why_it_broke

MAKE_ROOM = "Free some space there, then run the same command again."
MOST_CONTENT_BYTES = 32 << 20
"""The most that is read into memory, also of many files; a manifest may have half of it."""
MOST_LINE_BYTES = 1 << 12
MOST_SIZE_BYTES = 1 << 63
"""A larger size is an error: SFTP's are unsigned, and some servers wrap around below 0."""
FULL_BELOW_BYTES = 1 << 20
"""If less is free after a disk refused data, it counts as full."""


class SftpStorage:
    """A machine that offers only SFTP: it cannot hash, so each copy is read back."""

    resumes = True

    def __init__(self, login: Login, root: str) -> None:
        self.login = login
        self.root = root
        self.name = login.name
        self._dates = Dates()

    def stat(self, paths: Iterable[str]) -> dict[str, FileFact]:
        """Return the facts of the paths that exist, over one SFTP session."""
        found = {}
        with self._sftp() as sftp:
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    found[path] = _sftp_fact(sftp.lstat(encoded(path)))
        return found

    def listdir(self, folder: str) -> dict[str, FileFact]:
        """Return the entries of a folder by name; raises Unreachable for one without a size."""
        with self._sftp(folder) as sftp, contextlib.suppress(FileNotFoundError):
            told = sftp.entries(folder)
            unsized = next((name for name, each in told.items() if not _has_size(each)), None)
            if unsized is not None:
                raise not_listed(self.name, folder, f"it has no size for {shown(unsized)}")
            return {name: _sftp_fact(each) for name, each in told.items()}
        return {}

    @contextlib.contextmanager
    def read(self, path: str, start: int = 0) -> Iterator[IO[bytes]]:
        """Return a stream of a file's bytes, without the first `start`, limited to its size."""
        with self._sftp(path) as sftp, sftp.open_to_read(path, start) as stream:
            size_bytes = stream.stat().st_size or 0
            yield cast("IO[bytes]", _UpTo(stream, size_bytes - start))

    def read_many(self, folder: str, names: Iterable[str]) -> dict[str, bytes]:
        """Return small files of a folder, over one session; missing files have no entry."""
        found: dict[str, bytes] = {}
        left_bytes = MOST_CONTENT_BYTES
        with self._sftp() as sftp:
            for name in names:
                path = f"{folder}/{name}"
                try:
                    fact = _sftp_fact(sftp.stat(encoded(path)))
                    if fact.is_file:  # opening a pipe would wait
                        found[name] = self._content(sftp, path, fact.size_bytes, left_bytes)
                        left_bytes -= len(found[name])
                except FileNotFoundError:
                    continue
                except OSError as error:
                    why = f"cannot read {path}: {why_it_broke(error)}."
                    raise StepFailed(f"On {self.name}: {why}", again=sftp.is_broken()) from error
        return found

    def _content(self, sftp: SftpSession, path: str, size_bytes: int, left_bytes: int) -> bytes:
        """Return the bytes of a small file; raises StepFailed if it is not a regular file.

        Or if it is larger than `left_bytes`.
        """
        if size_bytes > MOST_CONTENT_BYTES:
            why = f"it has {size_bytes:,} bytes, too many to be read at once"
            raise StepFailed(f"On {self.name}: {path} is not read: {why}.")
        if size_bytes > left_bytes:
            raise too_much(self.name, os.path.dirname(path), MOST_CONTENT_BYTES)
        with sftp.open_to_read(path) as stream:
            # Read even an empty file: a failing disk may return none of its bytes.
            return stream.read(size_bytes or 1)[:size_bytes]

    def create_exclusive(self, path: str, line: str) -> str:
        """Create a file of one line unless it exists, and return the line it then holds."""
        with self._sftp() as sftp:
            try:
                target = sftp.open(encoded(path), "wx", 0)
            except OSError as error:  # SFTP has no error for an existing file
                try:
                    there = _sftp_fact(sftp.lstat(encoded(path)))
                except FileNotFoundError:  # no file is in the way
                    raise StepFailed(
                        f"On {self.name}: {path} cannot be written: {_why(sftp, error, path)}.",
                        again=sftp.is_broken(),
                    ) from error
                if not there.is_file:
                    return ""
            else:
                self._write_claim(sftp, target, path, line)
            with sftp.open_to_read(path) as stream:
                told = stream.read(MOST_LINE_BYTES).decode("utf-8", "replace").splitlines()
        return told[0] if told else ""

    def _write_claim(
        self, sftp: SftpSession, target: paramiko.SFTPFile, path: str, line: str
    ) -> None:
        try:
            with target:
                target.chmod(PRIVATE)
                target.write(line.encode() + b"\n")
        except OSError as error:  # an empty claim would block everyone
            sftp.remove(encoded(path))
            raise self._refused(sftp, path) from error

    def write(
        self,
        path: str,
        source: IO[bytes],
        modified_s: float,
        start: int = 0,
        size_bytes: int | None = None,  # noqa: ARG002
    ) -> Received:
        """Write a stream after the first `start` bytes of `path`, and read the whole file back.

        If the transfer fails, the received part is left on disk.
        """
        with self._sftp(path) as sftp:
            sent = HashedStream(source)
            try:
                self._write(sftp, path, sent.stream, start)
            except OSError as error:
                if error.errno is None and not sftp.is_broken():
                    raise self._refused(sftp, path) from error
                raise
            if not self._dates.put_off(path, modified_s):
                sftp.utime(encoded(path), (modified_s, modified_s))
            with sftp.open_to_read(path) as arrived:
                return HashedStream(cast("IO[bytes]", arrived)).drain(start + sent.size_bytes)

    @staticmethod
    def _write(sftp: SftpSession, path: str, source: IO[bytes], start: int) -> None:
        if not start:  # a new file: a writer of an earlier connection has another one
            with contextlib.suppress(FileNotFoundError):
                sftp.remove(encoded(path))
        # a buffer would fail once more in __del__
        with sftp.open(encoded(path), "r+b" if start else "wb", 0) as target:
            target.chmod(PRIVATE)
            if start:
                target.truncate(start)
                target.seek(start)
            target.set_pipelined(True)
            while chunk := read_chunk(source):
                target.write(chunk)
            sftp.sync(target)

    def _refused(self, sftp: SftpSession, path: str) -> StepFailed:
        """Return why a server accepts no more data: SFTP has no error for a full disk."""
        folder = os.path.dirname(path) or "."
        free = sftp.free_bytes(folder)
        if sftp.is_read_only(folder):
            why = f"its file system {READ_ONLY}."
        elif free is not None and free < FULL_BELOW_BYTES:
            why = f"No space left: {free:,} bytes are free there. {MAKE_ROOM}"
        else:
            why = (
                'the server only answers "Failure": its disk or a quota may be full, or it may be '
                f"read-only. Check {os.path.dirname(path)} there. {MAKE_ROOM}"
            )
        return StepFailed(f"Sending to {self.name} failed: {why}")

    def mkdir(self, path: str) -> None:
        """Make a folder unless it exists."""
        with self._sftp(path) as sftp:
            try:
                sftp.mkdir(encoded(path), 0o700)
            except OSError as error:  # SFTP has no error for an existing file
                try:
                    there = sftp.stat(encoded(path))
                except FileNotFoundError:  # no file is in the way
                    raise error from None
                if not _sftp_fact(there).is_folder:
                    raise

    def free_bytes(self, folder: str) -> int | None:
        """Return the free bytes of the file system of `folder`, None if the server cannot say."""
        with self._sftp() as sftp:
            return sftp.free_bytes(folder)

    def rename(self, old: str, new: str) -> None:
        """Replace `new` by `old`; atomically, unless the server is an old one."""
        with self._sftp(new) as sftp:
            sftp.put_in_place(old, new)
            dated_s = self._dates.take(old)
            if dated_s is not None:
                with contextlib.suppress(OSError):  # the copy is complete without its date
                    sftp.utime(encoded(new), (dated_s, dated_s))

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; missing ones are ignored."""
        with self._sftp() as sftp:
            for path in paths:
                try:
                    sftp.remove(encoded(path))
                except FileNotFoundError:
                    continue
                except OSError as error:
                    why = f"On {self.name}: {path}: {_why(sftp, error, path)}."
                    raise StepFailed(why, again=sftp.is_broken()) from error

    def close(self) -> None:
        """Close the connection."""
        self.login.close()

    @contextlib.contextmanager
    def _sftp(self, path: str = "") -> Iterator[SftpSession]:
        """Yield a session; errors in the block are raised as StepFailed, with the path."""
        client = self.login.sftp()
        try:
            yield client
        except (SSHException, SFTPError, EOFError) as error:
            raise line_broke(self.name, error) from error
        except OSError as error:
            why = _why(client, error, path)
            why = f"{path}: {why}" if path else why
            raise StepFailed(f"On {self.name}: {why}.", again=client.is_broken()) from error
        finally:
            closed(client)


class _UpTo:
    """A stream that ends after a number of bytes: a server may send more for ever."""

    def __init__(self, stream: paramiko.SFTPFile, size_bytes: int) -> None:
        self._stream = stream
        self._left_bytes = max(0, size_bytes)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, b"" at the end."""
        wanted = self._left_bytes if size < 0 else min(size, self._left_bytes)
        content = self._stream.read(wanted) if wanted else b""
        self._left_bytes -= len(content)
        return content


def _why(sftp: SftpSession, error: OSError, path: str) -> str:
    """Return the text of an error; for a bare "Failure" the file system may show why."""
    if error.errno is None and path and not sftp.is_broken():
        with contextlib.suppress(SSHException, SFTPError, EOFError):
            if sftp.is_read_only(os.path.dirname(path) or "."):
                return f"its file system {READ_ONLY}"
    return why_it_broke(error)


def not_listed(name: str, folder: str, why: str) -> Unreachable:
    """Return the failure of a listing that is invalid."""
    why = why or "it is incomplete"
    return Unreachable(f"On {name}: cannot read its listing of {folder}: {why}.", again=True)


def too_much(name: str, folder: str, most_bytes: int) -> StepFailed:
    """Return the failure of an answer with more than small files can have."""
    why = f"together they have more than {most_bytes:,} bytes, unlike in the listing"
    return StepFailed(f"On {name}: files of {folder} are not read: {why}.", again=True)


def _has_size(found: paramiko.SFTPAttributes) -> bool:
    """Return whether a file has a valid size; a folder need not have one."""
    if found.st_mode is not None and stat.S_ISDIR(found.st_mode):
        return True
    return found.st_size is not None and found.st_size < MOST_SIZE_BYTES


def _sftp_fact(found: paramiko.SFTPAttributes) -> FileFact:
    return fact_of(found.st_mode or 0, found.st_size or 0, found.st_mtime or 0.0)
