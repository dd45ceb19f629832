"""SFTP as a storage needs it: names of any bytes, errors by number, free space, synced files.

Paramiko's client decodes names as UTF-8 or fails, keeps few error numbers, and does not speak the
extensions of OpenSSH's server (PROTOCOL, section 4). Not for: storage (sftp_storage.py).
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import struct
import time

import paramiko
from paramiko.message import Message
from paramiko.sftp import (
    CMD_ATTRS,
    CMD_CLOSE,
    CMD_EXTENDED,
    CMD_EXTENDED_REPLY,
    CMD_HANDLE,
    CMD_LSTAT,
    CMD_NAME,
    CMD_OPENDIR,
    CMD_READDIR,
    CMD_STAT,
    CMD_VERSION,
    SFTP_EOF,
    SFTP_NO_SUCH_FILE,
    SFTP_OK,
    SFTP_OP_UNSUPPORTED,
    SFTP_PERMISSION_DENIED,
)

READ_BYTES = 255 * 1024
"""The size of a read request. OpenSSH answers with as much; other servers may send less."""

MOST_PACKET_BYTES = 1 << 20
"""The largest packet accepted: OpenSSH sends at most a quarter of that."""
MOST_LISTED_BYTES = 16 << 20
"""The largest listing accepted: a hundred thousand names."""
LIST_LIMIT_S = 600.0
MOST_STRAY = 1000
"""How many unexpected answers are accepted: for files that were closed before."""
NOISE_BYTES = 4096
QUICK = frozenset({CMD_STAT, CMD_LSTAT, CMD_OPENDIR, CMD_READDIR, CMD_EXTENDED})
"""Requests with a fast answer, if a disk need not spin up. All others may write megabytes."""

NUMBERS = {
    SFTP_NO_SUCH_FILE: errno.ENOENT,
    SFTP_PERMISSION_DENIED: errno.EACCES,
    SFTP_OP_UNSUPPORTED: errno.ENOTSUP,
}
NOT_SPOKEN = frozenset({errno.ENOTSUP, errno.EACCES})
"""How a server refuses an extension that it does not know or may not use."""


def encoded(path: str) -> bytes:
    """Return the bytes of a path, even if they are not UTF-8."""
    return path.encode("utf-8", "surrogateescape")


STATVFS_NUMBERS = 11
READ_ONLY_FLAG = 1
"""SSH_FXE_STATVFS_ST_RDONLY, of OpenSSH's PROTOCOL."""


class NoSftp(paramiko.SSHException):
    """Something other than SFTP answers; `noise` is the beginning of its output."""

    def __init__(self, noise: bytes) -> None:
        self.noise = noise.decode("utf-8", "backslashreplace")
        super().__init__("what it sends is not SFTP")


class _Strict(Message):
    """A message that cannot be read past its end: Paramiko's returns zeros for ever."""

    def get_bytes(self, n: int) -> bytes:
        """Return the next bytes; raises SFTPError if there are fewer."""
        if n > len(self.asbytes()) - self.packet.tell():
            raise paramiko.SFTPError("an answer is cut short")
        return super().get_bytes(n)


class SftpSession(paramiko.SFTPClient):
    """One SFTP session. Raises OSError, with the number None if the server says "Failure".

    `limit_s`: time limit of the greeting and of each short answer; `silence_s`: of all others.
    Raises NoSftp if the greeting is not SFTP.
    """

    def __init__(self, channel: paramiko.Channel, limit_s: float, silence_s: float) -> None:
        self._limit_s = limit_s
        self._silence_s = silence_s
        self._until_s = time.monotonic() + limit_s
        self._stray = 0
        super().__init__(channel)
        self._until_s = math.inf
        channel.settimeout(silence_s)

    def _request(self, kind: int, *words: object) -> tuple[int, Message]:
        """Return the answer to a request; raises SSHException if it does not come in time."""
        if kind in QUICK:
            self._until_s = time.monotonic() + self._limit_s
        try:
            told: tuple[int, Message] = super()._request(kind, *words)  # type: ignore[misc]
        finally:
            self._until_s = math.inf
        return told

    def entries(self, folder: str) -> dict[str, paramiko.SFTPAttributes]:
        """Return the entries of a folder by name, links as links."""
        kind, answer = self._request(CMD_OPENDIR, encoded(folder))
        if kind != CMD_HANDLE:
            raise paramiko.SFTPError("no handle for a folder")
        handle = answer.get_binary()
        found: dict[str, paramiko.SFTPAttributes] = {}
        left_bytes, until_s = MOST_LISTED_BYTES, time.monotonic() + LIST_LIMIT_S
        with contextlib.suppress(EOFError):  # the server's signal for the end of the list
            while True:
                kind, told = self._request(CMD_READDIR, handle)
                if kind != CMD_NAME:
                    raise paramiko.SFTPError("no names in a listing")
                answer = _Strict(told.get_remainder())
                left_bytes -= len(answer.asbytes())
                if left_bytes < 0 or time.monotonic() > until_s:
                    raise paramiko.SFTPError(f"its list of {folder} has no end")
                for _ in range(answer.get_int()):
                    name = answer.get_binary().decode("utf-8", "surrogateescape")
                    answer.get_binary()  # the line as in `ls -l`
                    found[name] = paramiko.SFTPAttributes()
                    found[name]._unpack(answer)  # type: ignore[attr-defined]  # noqa: SLF001
        self._request(CMD_CLOSE, handle)
        return {name: each for name, each in found.items() if name not in (".", "..")}

    def open_to_read(self, path: str, start: int = 0) -> paramiko.SFTPFile:
        """Return a stream of a file's bytes, without the first `start`."""
        stream = self.open(encoded(path), "rb", READ_BYTES)
        stream.MAX_REQUEST_SIZE = READ_BYTES
        stream.seek(start)
        return stream

    def free_bytes(self, folder: str) -> int | None:
        """Return the free bytes of the file system of a folder, None if the server cannot say."""
        told = self._file_system(folder)
        return told[1] * told[4] if told else None

    def is_read_only(self, folder: str) -> bool:
        """Return whether a folder's file system is mounted read-only, if the server reports it."""
        told = self._file_system(folder)
        return bool(told and told[9] & READ_ONLY_FLAG)

    def _file_system(self, folder: str) -> tuple[int, ...]:
        """Return the values of statvfs(3), in its order; () if the server cannot say."""
        try:
            kind, answer = self._request(CMD_EXTENDED, b"statvfs@openssh.com", encoded(folder))
        except OSError:
            return ()
        if kind != CMD_EXTENDED_REPLY:
            return ()
        return tuple(int(answer.get_int64()) for _ in range(STATVFS_NUMBERS))

    def sync(self, stream: paramiko.SFTPFile) -> None:
        """Sync what was written, if the server supports it, so that it survives a power cut."""
        try:
            self._request(CMD_EXTENDED, b"fsync@openssh.com", stream.handle)
        except OSError as error:
            if error.errno not in NOT_SPOKEN:
                raise

    def put_in_place(self, old: str, new: str) -> None:
        """Replace `new` by `old`: atomically, or with a moment without either on some servers.

        Plain SFTP cannot rename onto an existing file. Without OpenSSH's extension the old file is
        removed first: the file under a name is complete even then, or there is none.
        """
        try:
            self.posix_rename(encoded(old), encoded(new))
        except OSError as error:
            if error.errno not in NOT_SPOKEN:
                raise
        else:
            return
        try:
            self.rename(encoded(old), encoded(new))
        except OSError:
            self.lstat(encoded(old))  # if `old` is missing, nothing is removed
            self.remove(encoded(new))
            self.rename(encoded(old), encoded(new))

    def is_broken(self) -> bool:
        """Return whether the connection is lost."""
        channel = self.get_channel()
        return channel is None or channel.closed

    def _read_packet(self) -> tuple[int, bytes]:
        """Return an answer; raises SSHException if none comes; after that none is expected."""
        until_s = min(self._until_s, time.monotonic() + self._silence_s)
        try:
            told = self._read_until(self._size(until_s), until_s)
            kind, answer = told[0], told[1:]
            self._judge(kind, answer)
        except TimeoutError as error:
            self._give_up()
            raise paramiko.SSHException("its SFTP server does not answer") from error
        except (NoSftp, paramiko.SFTPError):
            self._give_up()
            raise
        return kind, answer

    def _size(self, until_s: float) -> int:
        """Return the length of the next answer in bytes; raises NoSftp if it is impossible."""
        head = self._read_until(4, until_s)
        (size,) = struct.unpack(">I", head)
        if 0 < size <= MOST_PACKET_BYTES:
            return int(size)
        raise NoSftp(head + (self.sock.recv(NOISE_BYTES) if self.sock.recv_ready() else b""))

    def _judge(self, kind: int, answer: bytes) -> None:
        """Raise NoSftp or SFTPError for an answer that Paramiko would go on reading for ever."""
        if not self._expecting:  # type: ignore[attr-defined]
            if kind != CMD_VERSION and self.request_number == 1:
                raise NoSftp(answer)
            return
        told = _Strict(answer)
        if told.get_int() not in self._expecting:  # type: ignore[attr-defined]
            self._stray += 1
            if self._stray > MOST_STRAY:
                raise paramiko.SFTPError("it sends an unexpected answer")
        elif kind == CMD_ATTRS:
            paramiko.SFTPAttributes()._unpack(told)  # type: ignore[attr-defined]  # noqa: SLF001

    def _read_until(self, size: int, until_s: float) -> bytes:
        """Return `size` bytes; raises TimeoutError if they do not come in time, EOFError."""
        found = bytearray()
        try:
            while len(found) < size:
                self.sock.settimeout(max(0.001, until_s - time.monotonic()))
                data = self.sock.recv(size - len(found))
                if not data:
                    raise EOFError
                found += data
        finally:
            self.sock.settimeout(self._silence_s)
        return bytes(found)

    def _give_up(self) -> None:
        with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
            self.close()

    def _send_packet(self, kind: int, packet: Message) -> None:
        """Send a request; raises SSHException if the connection is lost.

        Paramiko raises EOFError, as for the end of a file, or OSError, as for a missing file.
        """
        try:
            super()._send_packet(kind, packet)  # type: ignore[misc]
        except (OSError, EOFError) as error:
            if kind == CMD_CLOSE:  # Paramiko ignores errors of these two
                raise
            raise paramiko.SSHException(str(error) or "it was cut") from error

    def _convert_status(self, answer: Message) -> None:
        """Raise the error that a status means, with its number if it has one."""
        code = answer.get_int()
        text = answer.get_binary().decode("utf-8", "replace")
        if code == SFTP_OK:
            return
        if code == SFTP_EOF:
            raise EOFError(text)
        if code in NUMBERS:
            number = NUMBERS[code]
            raise OSError(number, text or os.strerror(number))
        raise OSError(text or "Failure")
