"""Encrypting and decrypting with the age program, as streams: nothing plain is ever on a disk.

Encrypting takes public keys only (recipients). Decrypting takes an identity: a file with the
secret key, whose content goes to age through a pipe. Not for: what is encrypted where
(encrypted.py).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import IO, cast

from ..core import processes
from ..core.errors import Interrupted, StepFailed, UsageError
from ..hosts.local import piped, read_chunk

AGE = "age"
INSTALL = "sudo apt-get install age"
AGE_TIMEOUT_S = 24 * 3600.0
CHUNK_BYTES = 1 << 16
TAG_BYTES = 16
"""An encrypted file: header, nonce, then 64 KiB pieces with a tag each (age-encryption.org/v1)."""
MAC = re.compile(rb"\n--- [^\n]+\n")
"""The last line of a header."""
IDENTITY_LIMIT_BYTES = 1 << 14
"""What a pipe takes at once, on any system."""
UNDER_PASSPHRASE = (b"age-encryption.org/v1", b"-----BEGIN AGE ENCRYPTED FILE-----")
SECRETS = (b"AGE-SECRET-KEY-", b"AGE-PLUGIN-", b"PRIVATE KEY")
OTHER_KEYS = re.compile("no identity matched")
DAMAGED = re.compile("failed to (decrypt and authenticate|read header)|unexpected EOF")
PREFIX = re.compile(r"^age: (error: )?")


class CiphertextDamaged(StepFailed):
    """What age reads is not what it once wrote: its own checksums say so."""


@contextlib.contextmanager
def encrypting(recipients: Iterable[str], source: IO[bytes]) -> Iterator[IO[bytes]]:
    """Return the bytes of `source` as a stream that is encrypted for each of the recipients.

    Read to its end it raises StepFailed if age failed, or what reading `source` raised.
    """
    words = (AGE, "--encrypt", *(word for each in recipients for word in ("--recipient", each)))

    def failure(said: str) -> StepFailed:
        why = f"age cannot encrypt: {said}."
        if "recipient" not in said:
            return StepFailed(why)
        fix = "correct `recipients` in hosts.toml"
        return StepFailed(f"{why} {fix.capitalize()}.", why=why, fix=fix)

    with _through(words, source, failure) as stream:
        yield stream


@contextlib.contextmanager
def decrypting(identity: str, source: IO[bytes], what: str) -> Iterator[IO[bytes]]:
    """Return the decrypted stream of `source`; `identity` is the file with the secret key.

    Read to its end it raises StepFailed if the key is another one, and CiphertextDamaged if the
    bytes are not those that age wrote; what was read until then is good. `what` names the file.
    """
    key, written = os.pipe()
    os.write(written, read_identity(identity))
    os.close(written)
    words = (AGE, "--decrypt", "--identity", f"/dev/fd/{key}")

    def failure(said: str) -> StepFailed:
        if OTHER_KEYS.search(said):
            return StepFailed(
                f"The key in {identity} cannot decrypt {what}: it is encrypted for other keys."
            )
        if "passphrase" in said:
            return StepFailed(
                f"The SSH key in {identity} has a passphrase, which age cannot ask for here. Use "
                "a copy without a passphrase (ssh-keygen -p -f COPY), and remove the copy "
                "afterwards."
            )
        if DAMAGED.search(said):
            return CiphertextDamaged(f"{what} is damaged: age says: {said}.")
        return StepFailed(f"age cannot decrypt {what} with the key in {identity}: {said}.")

    try:
        with _through(words, source, failure, key) as stream:
            yield stream
    finally:
        os.close(key)


def encrypted_size(head: bytes, size_bytes: int) -> int:
    """Return the size of so many bytes once encrypted, given how the encrypted stream begins.

    Raises StepFailed if that is not how age's streams begin.
    """
    end = MAC.search(head)
    if not end:
        raise StepFailed(
            f"age cannot encrypt: it wrote {len(head):,} bytes without a complete header."
        )
    pieces = max(1, -(-size_bytes // CHUNK_BYTES))
    return end.end() + TAG_BYTES + size_bytes + pieces * TAG_BYTES


@lru_cache
def read_identity(path: str) -> bytes:
    """Return the content of a file with a secret key; one under a passphrase is opened first.

    Raises UsageError if it is no such file, StepFailed if the passphrase is wrong.
    """
    try:
        with open(os.path.expanduser(path), "rb") as stream:
            content = stream.read(IDENTITY_LIMIT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--identity {path}: {error.strerror}.") from error
    if content.startswith(UNDER_PASSPHRASE):
        content = _without_passphrase(path)
    if not any(each in content for each in SECRETS):
        raise UsageError(f"--identity {path}: this file contains no secret key.")
    if len(content) > IDENTITY_LIMIT_BYTES:
        raise UsageError(f"--identity {path}: the file is too large to be a key.")
    return content


def _without_passphrase(path: str) -> bytes:
    """Return the key in a passphrase-protected file; age asks for it at the terminal."""
    if not sys.stdin.isatty():
        raise StepFailed(
            f"--identity {path} has a passphrase, and there is no terminal to type it on."
        )
    _require_age()
    done = subprocess.run(
        [AGE, "--decrypt", os.path.expanduser(path)], stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise StepFailed(f"--identity {path} was not opened. Nothing was changed.")
    return done.stdout


def _require_age() -> None:
    if not shutil.which(AGE):
        raise StepFailed(
            f"{AGE} is not installed: {INSTALL}", why=f"{AGE} is not installed.", fix=INSTALL
        )


class _Output:
    """The output of a program for a stream; at its end the program's exit is checked."""

    def __init__(self, stream: IO[bytes], end: Callable[[], None]) -> None:
        self._stream = stream
        self._end = end

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, b"" at the end; raises the program's failure instead of that."""
        content = self._stream.read(size)
        if len(content) < size or size < 0:
            self._end()
        return content


@contextlib.contextmanager
def _through(
    words: tuple[str, ...],
    source: IO[bytes],
    failure: Callable[[str], StepFailed],
    key: int | None = None,
) -> Iterator[IO[bytes]]:
    """Yield the output of a program for a stream, which a thread feeds to it."""
    said: list[str] = []
    troubles: list[BaseException] = []
    keys = () if key is None else (key,)
    _require_age()
    with (
        contextlib.ExitStack() as at_the_end,
        piped(
            words, lambda _, line: said.append(line), AGE_TIMEOUT_S, feed=True, pass_fds=keys
        ) as (process, finish),
    ):
        assert process.stdin is not None  # noqa: S101 - we asked for pipes
        assert process.stdout is not None  # noqa: S101
        target = process.stdin

        def feed() -> None:
            try:
                while content := read_chunk(source):
                    target.write(content)
                target.close()
            except BrokenPipeError:  # its exit code and output say more
                pass
            except BaseException as error:  # noqa: BLE001 - raised in the reader's thread
                troubles.append(error)
                processes.end(process)  # its output for a part would look complete

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        # Nothing else may close the source while it is read: SFTP answers would be mixed up.
        at_the_end.callback(feeder.join, processes.GRACE_S)

        def end() -> None:
            code = finish()
            feeder.join()
            for each in troubles:
                raise each
            if code and processes.ending():
                raise Interrupted(-code if code < 0 else signal.SIGTERM)
            if code:
                raise failure(_last_words(said) or f"exit {code}")

        yield cast("IO[bytes]", _Output(process.stdout, end))


def _last_words(said: Iterable[str]) -> str:
    """Return why age failed, without its advice on reporting bugs."""
    lines = [PREFIX.sub("", each.strip()).rstrip(".") for each in said if each.strip()]
    return "; ".join(each for each in lines if not each.startswith("report unexpected"))
