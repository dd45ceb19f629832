"""Encrypted copies in vaults of every kind: nothing plain, and all that a plain copy promises."""

import hashlib
import io
import subprocess
import time

import pytest
from bucket import listed
from test_storages import BIG, MODIFIED_S, Copy, Source, tried, tried_once_connected

from iotstack_invoke.backups.transfer import hash_there
from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.environment.environment import remove_set
from iotstack_invoke.hosts import ssh as remote
from iotstack_invoke.vaults.encrypted import CiphertextMismatch, EncryptedStorage

RUNTAG = "2026-11-23_1100"
NAME = f"{RUNTAG}.general-backup.tar.gz"
LEAVE_LIMIT_S = 10.0


@pytest.fixture
def key(tmp_path):
    """A file with a key, and the public half of it."""
    path = tmp_path / "key.txt"
    words = ["age-keygen", "-o", path]
    told = subprocess.run(words, check=True, capture_output=True, text=True).stderr
    return str(path), told.split()[-1]


@pytest.fixture
def encrypted(kind, key, tmp_path):
    """A file of the Pi whose copy is encrypted, and a place that can decrypt it."""
    identity, public = key
    inner = kind.storage.opened()._inner
    kind.storage = EncryptedStorage(inner, (public,))
    (tmp_path / "pi").mkdir()
    copy = Copy(Source(str(tmp_path / "pi")), kind, NAME)
    copy.ciphertext = kind.raw / f"{NAME}.age"
    copy.opener = EncryptedStorage(inner, (), identity)
    copy.path = copy.target.absolute
    return copy


@pytest.mark.parametrize("size", [0, 65_536, len(BIG)])
def test_what_is_encrypted_is_what_comes_back(kind, encrypted, key, size):
    """Others see a file of the name, size and hash that was sent; nothing plain lies there."""
    data = BIG[:size]
    encrypted.holds(data).send()
    assert listed(kind.raw) == [f"{NAME}.age", f"{RUNTAG}.sealed.json"]
    assert encrypted.ciphertext.read_bytes().startswith(b"age-encryption.org/v1\n")
    assert data[:1000] == b"" or data[:1000] not in encrypted.ciphertext.read_bytes()
    for storage in (kind.storage, encrypted.opener):
        (fact,) = storage.stat([encrypted.path]).values()
        assert (fact.size_bytes, fact.is_file) == (size, True)
        assert fact.modified_s == MODIFIED_S or not kind.keeps_dates
        ((name, found),) = storage.listdir(storage.root).items()
        assert (name, found.size_bytes) == (NAME, size)
        assert hash_there(storage, encrypted.path) == hashlib.sha256(data).hexdigest()
    for start in (0, size // 2):
        with encrypted.opener.read(encrypted.path, start) as stream:
            assert stream.read() == data[start:]
    with (
        pytest.raises(StepFailed, match=r"is encrypted.*--identity"),
        kind.storage.read(encrypted.path),
    ):
        pass
    words = ["age", "--decrypt", "--identity", key[0]]
    content = encrypted.ciphertext.read_bytes()
    assert subprocess.run(words, check=True, capture_output=True, input=content).stdout == data
    manifest = f"{kind.storage.root}/{RUNTAG}.manifest.json"
    kind.storage.write(f"{manifest}.partial", io.BytesIO(b"{}"), 0, size_bytes=2)
    kind.storage.rename(f"{manifest}.partial", manifest)
    assert kind.storage.is_signed(manifest)
    remove_set(kind.storage, kind.storage.root, RUNTAG)
    assert listed(kind.raw) == []


def test_whoever_has_seen_enough_may_leave(kind, encrypted, monkeypatch):
    """The beginning of a file can be read, and what sends the rest is ended at once."""
    monkeypatch.setattr(remote, "TRANSFER_LIMIT_S", LEAVE_LIMIT_S)
    encrypted.holds(BIG).send()
    for storage, path in (
        (encrypted.opener, encrypted.path),
        (kind.storage, f"{encrypted.path}.age"),
    ):
        began = time.monotonic()
        with storage.read(path) as stream:
            assert stream.read(1000)
        assert time.monotonic() - began < LEAVE_LIMIT_S


def test_what_is_cut_is_encrypted_again(kind, encrypted):
    """Half of it never has the name, and the next try needs nothing of the first."""
    encrypted.holds(BIG)
    pi = encrypted.context.storages["pi"]

    def cut():  # what is read may wait in a pipe for a line that does not stand yet
        kind.until_begun(kind.raw / f"{NAME}.age.partial")
        kind.cut()

    pi.at_bytes, pi.act = 2_000_000, cut
    with pytest.raises(StepFailed) as failure:
        tried_once_connected(kind, encrypted.send)
    assert failure.value.again
    assert not encrypted.ciphertext.exists()
    tried(encrypted.send)
    with encrypted.opener.read(encrypted.path) as stream:
        assert stream.read() == BIG


def test_what_is_damaged_there_is_found(kind, encrypted):
    """Without a key by its hash or size, with one by reading; and it is never taken for a copy."""
    encrypted.holds(BIG).send()
    good = encrypted.ciphertext.read_bytes()
    encrypted.ciphertext.write_bytes(
        good[:3_000_000] + bytes([good[3_000_000] ^ 1]) + good[3_000_001:]
    )
    with pytest.raises(CiphertextMismatch, match="when it was encrypted"):
        hash_there(kind.storage, encrypted.path)
    with (
        pytest.raises(StepFailed, match="is damaged"),
        encrypted.opener.read(encrypted.path) as stream,
    ):
        stream.read()
    encrypted.ciphertext.write_bytes(good[:-1])
    if kind.looks_anew:
        assert kind.storage.listdir(kind.storage.root)[NAME].size_bytes != len(BIG)
    with pytest.raises(StepFailed, match=r"is damaged|stopped early"):  # an old listing
        hash_there(_Unhashed(encrypted.opener), encrypted.path)


class _Unhashed:
    """A place whose files are read to be hashed, piece by piece."""

    def __init__(self, storage):
        self.read = storage.read


def test_a_full_disk_keeps_no_encrypted_half(kind, encrypted):
    """What does not fit has no name, and is there when there is room."""
    kind.needs_a_disk()
    encrypted.holds(BIG)
    pi = encrypted.context.storages["pi"]
    pi.at_bytes, pi.act = 500_000, lambda: kind.fill(1_000_000)
    with pytest.raises(StepFailed):
        encrypted.send()
    assert not encrypted.ciphertext.exists()
    kind.make_room()
    tried(encrypted.send)
    assert hash_there(kind.storage, encrypted.path) == hashlib.sha256(BIG).hexdigest()
