"""SFTP as a place needs it: names of any bytes, errors by their number, free space, synced files.

Paramiko's client decodes names as UTF-8 or fails, keeps few numbers of errors, and does not speak
the extensions of OpenSSH's server (PROTOCOL, section 4). Not for: storage (sftp_storage.py).
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
"""What one request asks for. OpenSSH gives that much; a server that gives less may."""

MOST_PACKET_BYTES = 1 << 20
"""No server sends more in one: OpenSSH's have a quarter of that at the most."""
MOST_LISTED_BYTES = 16 << 20
"""So much a listing may have: a hundred thousand names."""
LIST_LIMIT_S = 600.0
MOST_STRAY = 1000
"""So many answers may come that nobody waits for: of files that were closed before."""
NOISE_BYTES = 4096
QUICK = frozenset({CMD_STAT, CMD_LSTAT, CMD_OPENDIR, CMD_READDIR, CMD_EXTENDED})
"""What is answered at once, a disk that has to start allowed for. All else may write megabytes."""

NUMBERS = {
    SFTP_NO_SUCH_FILE: errno.ENOENT,
    SFTP_PERMISSION_DENIED: errno.EACCES,
    SFTP_OP_UNSUPPORTED: errno.ENOTSUP,
}
NOT_SPOKEN = frozenset({errno.ENOTSUP, errno.EACCES})
"""How a server refuses an extension that it does not know, or is told not to speak."""


def encoded(path: str) -> bytes:
    """Return the bytes of a path, also where they are no UTF-8."""
    return path.encode("utf-8", "surrogateescape")


STATVFS_NUMBERS = 11
READ_ONLY_FLAG = 1
"""SSH_FXE_STATVFS_ST_RDONLY, of OpenSSH's PROTOCOL."""


class NoSftp(paramiko.SSHException):
    """What answers in the place of SFTP is something else: `noise` is the beginning of it."""

    def __init__(self, noise: bytes) -> None:
        self.noise = noise.decode("utf-8", "backslashreplace")
        super().__init__("what it sends is not SFTP")


class _Strict(Message):
    """A message that is read no further than it goes: Paramiko's gives zeros for ever."""

    def get_bytes(self, n: int) -> bytes:
        """Return the next bytes; raises SFTPError where there are fewer."""
        if n > len(self.asbytes()) - self.packet.tell():
            raise paramiko.SFTPError("an answer is cut short")
        return super().get_bytes(n)


class SftpSession(paramiko.SFTPClient):
    """One SFTP session. Raises OSError, its number being None where the server says "Failure".

    `limit_s`: how long its greeting, and each answer of few bytes, may take; `silence_s`: all
    others. Raises NoSftp where it greets with something else.
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
        """Ask, and return the answer; raises SSHException where it does not come in time."""
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
        with contextlib.suppress(EOFError):  # the server's word for the end of the list
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
                    answer.get_binary()  # the line that `ls -l` would print
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
        """Return what fits into the file system of a folder, None where the server cannot say."""
        told = self._file_system(folder)
        return told[1] * told[4] if told else None

    def is_read_only(self, folder: str) -> bool:
        """Tell whether a folder's file system is mounted read-only, where the server can say."""
        told = self._file_system(folder)
        return bool(told and told[9] & READ_ONLY_FLAG)

    def _file_system(self, folder: str) -> tuple[int, ...]:
        """Return what statvfs(3) tells, in its order; () where the server cannot say."""
        try:
            kind, answer = self._request(CMD_EXTENDED, b"statvfs@openssh.com", encoded(folder))
        except OSError:
            return ()
        if kind != CMD_EXTENDED_REPLY:
            return ()
        return tuple(int(answer.get_int64()) for _ in range(STATVFS_NUMBERS))

    def sync(self, stream: paramiko.SFTPFile) -> None:
        """Let what was written last through a power cut, where the server can see to that."""
        try:
            self._request(CMD_EXTENDED, b"fsync@openssh.com", stream.handle)
        except OSError as error:
            if error.errno not in NOT_SPOKEN:
                raise

    def put_in_place(self, old: str, new: str) -> None:
        """Put `old` in the place of `new`: at once, or with a moment without any where it must be.

        Plain SFTP renames nothing over a file. A server without OpenSSH's extension has the old
        one removed first: what lies under a name is whole even so, or nothing lies there.
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
            self.lstat(encoded(old))  # if that is missing, nothing is removed
            self.remove(encoded(new))
            self.rename(encoded(old), encoded(new))

    def is_broken(self) -> bool:
        """Tell whether the line is gone."""
        channel = self.get_channel()
        return channel is None or channel.closed

    def _read_packet(self) -> tuple[int, bytes]:
        """Return an answer; raises SSHException where none comes, after which none is expected."""
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
        """Return how many bytes the next answer has; raises NoSftp where that cannot be."""
        head = self._read_until(4, until_s)
        (size,) = struct.unpack(">I", head)
        if 0 < size <= MOST_PACKET_BYTES:
            return int(size)
        raise NoSftp(head + (self.sock.recv(NOISE_BYTES) if self.sock.recv_ready() else b""))

    def _judge(self, kind: int, answer: bytes) -> None:
        """Raise NoSftp or SFTPError for what Paramiko would read on and on in."""
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
        """Return so many bytes; raises TimeoutError where they do not come in time, EOFError."""
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
        """Send a request; raises SSHException where the line breaks.

        Paramiko says EOFError, as for the end of a file, or OSError, as for what is not there.
        """
        try:
            super()._send_packet(kind, packet)  # type: ignore[misc]
        except (OSError, EOFError) as error:
            if kind == CMD_CLOSE:  # Paramiko passes over these two
                raise
            raise paramiko.SSHException(str(error) or "it was cut") from error

    def _convert_status(self, answer: Message) -> None:
        """Raise what a status means, with a number wherever it tells one."""
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
