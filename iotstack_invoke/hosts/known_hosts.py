"""What known_hosts files say about the key that a machine shows, read as OpenSSH reads them.

Follows its hostfile.c and match.c: markers, patterns, hashed names; invalid keys are skipped.
Pure, but for reading the files. Not for: which files those are (ssh_config.py).
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
import re
import struct
from collections.abc import Iterable, Iterator
from enum import Enum

from ..core.dataclass import dataclass

AUTHORITY, REVOKED = "@cert-authority", "@revoked"
SSH_PORT = 22

_BLANKS = re.compile(r"[ \t]+")
_HASHED = "|1|"
_SALT_BYTES = 20


class KeyVerdict(Enum):
    """How a shown key compares with the known keys of a machine."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A line of known_hosts: a key, its marker or '', and the position of the line."""

    marker: str
    algorithm: str
    blob: bytes
    file: str
    line: int

    @property
    def place(self) -> str:
        """The position of the line, for messages."""
        return f"{self.file}, line {self.line}"

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the key, as `ssh-keygen -l` prints it."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode()
        return f"SHA256:{digest.rstrip('=')}"


def name_with_port(host: str, port: int) -> str:
    """Return the name under which known_hosts has a host."""
    return host if port == SSH_PORT else f"[{host}]:{port}"


def known_keys(name: str, files: Iterable[str]) -> tuple[KnownKey, ...]:
    """Return the lines about a name, in order; unreadable files have none."""
    return tuple(key for file in files for key in keys_in(_content(file), name, file))


def revoking(files: Iterable[str]) -> tuple[str, ...]:
    """Return the files that revoke a key, for any host."""
    return tuple(each for each in files if REVOKED.encode() in _content(each))


def unreadable(files: Iterable[str]) -> tuple[str, ...]:
    """Return the files that exist but cannot be read."""
    return tuple(each for each in files if os.path.isfile(each) and not os.access(each, os.R_OK))


def keys_in(content: bytes, name: str, file: str) -> Iterator[KnownKey]:
    """Yield the lines about a name in the content of a file."""
    for number, line in enumerate(content.split(b"\n"), 1):
        text = line.partition(b"\0")[0].decode("utf-8", "surrogateescape").strip(" \t\r")
        marker, rest = "", text
        if text.startswith("@"):
            marker, _, rest = _BLANKS.sub(" ", text).partition(" ")
        names, *key = _BLANKS.split(rest, maxsplit=3)
        if marker in ("", AUTHORITY, REVOKED) and not names.startswith("#") and fits(names, name):
            blob = key_of(*key[:2])
            if blob:
                yield KnownKey(marker, key[0], blob, file, number)


def key_of(algorithm: str = "", encoded: str = "") -> bytes:
    """Return the bytes of an encoded public key, b'' if it is not of that algorithm."""
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""
    kind = algorithm.encode("utf-8", "surrogateescape")
    return blob if kind and blob.startswith(struct.pack(">I", len(kind)) + kind) else b""


def fits(names: str, name: str) -> bool:
    """Return whether the first field of a line matches a host: patterns with commas, or a hash."""
    if names.startswith("|"):
        return names.startswith(_HASHED) and names == hashed(name, names.split("|")[2])
    found = False
    for each in names.split(","):
        pattern = each.removeprefix("!").lower().replace("[", "[[]")  # only * and ? match more
        if fnmatch.fnmatchcase(name, pattern):
            if each.startswith("!"):
                return False
            found = True
    return found


def hashed(name: str, salt: str = "") -> str:
    """Return a name as `HashKnownHosts yes` writes it, '' if the salt is invalid."""
    try:
        key = base64.b64decode(salt, validate=True) if salt else os.urandom(_SALT_BYTES)
    except (binascii.Error, ValueError):
        return ""
    if len(key) != _SALT_BYTES:
        return ""
    digest = hmac.digest(key, name.encode("utf-8", "surrogateescape"), "sha1")
    told = (base64.b64encode(each).decode() for each in (key, digest))
    return _HASHED + "|".join(told)


def verdict(known: Iterable[KnownKey], algorithm: str, blob: bytes) -> KeyVerdict:
    """Return how a shown key compares with the lines about its machine.

    A revoked key is refused even if another line lists it; any of several keys of a kind matches.
    """
    lines = tuple(known)
    plain = [each for each in lines if not each.marker]
    if any(each.marker == REVOKED and each.blob == blob for each in lines):
        return KeyVerdict.REVOKED
    if any(each.blob == blob for each in plain):
        return KeyVerdict.KNOWN
    if any(each.algorithm == algorithm for each in plain):
        return KeyVerdict.CHANGED
    return KeyVerdict.UNKNOWN


def listed(content: bytes, blob: bytes) -> bool:
    """Return whether a list of public keys, one per line, as in `RevokedHostKeys`, holds a key."""
    lines = content.decode("utf-8", "surrogateescape").split("\n")
    return any(key_of(*each.split()[:2]) == blob for each in lines)


def _content(file: str) -> bytes:
    """Return the content of a file; b'' if it is not a regular file or not readable, as in ssh."""
    try:
        if not os.path.isfile(file):  # ssh would wait for the end of a pipe
            return b""
        with open(file, "rb") as stream:
            return stream.read()
    except (OSError, ValueError):
        return b""
