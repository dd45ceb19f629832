"""Copies: the same bytes on the far side, or a failure that says what is wrong."""

import hashlib
import os
import shutil

import pytest
from contexts import PlainContext

from iotstack_invoke.backups.transfer import SeenFile, Send, hash_there, is_copy
from iotstack_invoke.core.errors import Interrupted, StepFailed
from iotstack_invoke.engine.steps import File, Record
from iotstack_invoke.hosts.base import Received
from iotstack_invoke.hosts.hashing import HashedStream, hash_command
from iotstack_invoke.hosts.local import LocalHost

DATA = os.urandom(1_000_000)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "pi").mkdir()
    (tmp_path / "pi" / "x.tar").write_bytes(DATA)
    os.utime(tmp_path / "pi" / "x.tar", (1_234_567_890, 1_234_567_890))
    return File("pi", "x.tar", str(tmp_path / "pi"))


@pytest.fixture
def target(tmp_path):
    (tmp_path / "nas").mkdir()
    return File("nas", "x.tar", str(tmp_path / "nas"))


@pytest.fixture
def context(source, target):
    return PlainContext({"pi": LocalHost(source.root), "nas": LocalHost(target.root, "the NAS")})


class Box(LocalHost):
    """A far side that stores what it is told to, and tells what it is told to."""

    free = 10**12
    damage = staticmethod(lambda data: data)

    def free_bytes(self, folder):
        return self.free

    def write(self, path, source, modified_s, start=0, size_bytes=None):
        data = b""
        while chunk := source.read(100_000):
            data += chunk
        data = self.damage(data)
        with open(path, "wb") as stream:
            stream.write(data)
        return Received(len(data), hashlib.sha256(data).hexdigest())


@pytest.fixture
def box(context, target):
    context.storages["nas"] = Box(target.root, "the box")
    return context.storages["nas"]


def test_a_copy_is_the_same_under_its_partial_name(context, source, target):
    """The bytes arrive; the final name is the engine's to give, and the date comes with it."""
    Send(source, target).do(context)
    with open(target.partial, "rb") as stream:
        assert stream.read() == DATA
    assert not os.path.exists(target.absolute)
    context.storages["nas"].rename(target.partial, target.absolute)
    assert os.stat(target.absolute).st_mtime == 1_234_567_890
    assert context.recorded[str(target)] == {
        "size_bytes": 1_000_000,
        "sha256": hashlib.sha256(DATA).hexdigest(),
    }
    assert (context.expected_bytes, context.moved_bytes) == (1_000_000, 1_000_000)
    assert context.warned == []


def test_an_empty_file_is_a_file(context, source, target):
    """A file of no bytes is copied as one."""
    with open(source.absolute, "w"):
        pass
    Send(source, target).do(context)
    assert os.path.getsize(target.partial) == 0


def test_a_source_that_is_not_there_is_named(context, source, target):
    """What cannot be found is told with its whole path."""
    os.unlink(source.absolute)
    with pytest.raises(StepFailed, match=f"{source.absolute} is missing"):
        Send(source, target).do(context)


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: b"?" + d[1:], lambda _d: b""])
def test_what_arrives_otherwise_is_a_failure_for_another_attempt(
    context, box, source, target, damage
):
    """A copy that lacks or has another byte is found out by what lies on the far side."""
    box.damage = damage
    with pytest.raises(StepFailed, match="differs from what was sent") as failure:
        Send(source, target).do(context)
    assert failure.value.again
    assert "the box" in str(failure.value)
    assert context.recorded == {}


def test_a_source_that_changed_on_the_disk_is_not_copied_as_good(context, source, target):
    """A file that is no longer what was written fails at once: another attempt cannot help."""
    context.finished(source, sha256=hashlib.sha256(b"other").hexdigest())
    with pytest.raises(StepFailed, match="changed since it was written") as failure:
        Send(source, target).do(context)
    assert not failure.value.again
    context.finished(source, sha256=hashlib.sha256(DATA).hexdigest())
    Send(source, target).do(context)


def test_what_is_recorded_is_hashed_where_it_arrives_alone(
    context, box, source, target, monkeypatch
):
    """The hash that the far side finds is the recorded one, and that proves the copy."""
    context.finished(source, sha256=hashlib.sha256(DATA).hexdigest())
    monkeypatch.setattr(HashedStream, "read", lambda *_: pytest.fail("hashed"))
    Send(source, target).do(context)
    assert context.recorded[str(target)]["sha256"] == hashlib.sha256(DATA).hexdigest()


def test_who_is_to_blame_for_a_copy_that_differs(context, box, source, target):
    """Where the source is still what was written, the way or the far side is, and it is sent anew."""
    context.finished(source, sha256=hashlib.sha256(DATA).hexdigest())
    box.damage = lambda data: b"?" + data[1:]
    with pytest.raises(StepFailed, match="differs from what was sent") as failure:
        Send(source, target).do(context)
    assert failure.value.again


@pytest.mark.parametrize("arrived", [1, 400_000, 999_999])
def test_a_copy_goes_on_where_it_was_cut(context, source, target, arrived):
    """Of a file whose hash is known only what is missing is sent, and the whole of it is proven."""
    context.finished(source, sha256=hashlib.sha256(DATA).hexdigest())
    with open(target.partial, "wb") as stream:
        stream.write(DATA[:arrived])
    read = []
    storage = context.storages["pi"]
    storage.read = lambda path, start=0: read.append(start) or LocalHost.read(storage, path, start)
    Send(source, target).do(context)
    assert read == [arrived]
    with open(target.partial, "rb") as stream:
        assert stream.read() == DATA
    assert context.recorded[str(target)]["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert context.moved_bytes == 1_000_000


def test_the_beginning_of_another_file_is_found_out(context, source, target):
    """What was cut of another file is removed, and another try sends all of it."""
    context.finished(source, sha256=hashlib.sha256(DATA).hexdigest())
    with open(target.partial, "wb") as stream:
        stream.write(b"?" * 1000)
    with pytest.raises(
        StepFailed, match="or the source is damaged: it is sent again from the start"
    ) as failure:
        Send(source, target).do(context)
    assert failure.value.again
    assert os.listdir(target.root) == []
    Send(source, target).do(context)
    with open(target.partial, "rb") as stream:
        assert stream.read() == DATA


@pytest.mark.parametrize("why", ["no hash is known", "the far side cannot go on", "it is longer"])
def test_what_could_not_be_proven_is_sent_whole(context, box, source, target, why):
    """Without a hash, or where nothing can be added to a file, a copy begins with its first byte."""
    if why != "no hash is known":
        context.finished(source, sha256=hashlib.sha256(DATA).hexdigest())
    box.resumes = why != "the far side cannot go on"
    with open(target.partial, "wb") as stream:
        stream.write(bytes(2_000_000 if why == "it is longer" else 1000))
    Send(source, target).do(context)
    with open(target.partial, "rb") as stream:
        assert stream.read() == DATA


def test_without_room_nothing_is_sent(context, box, source, target):
    """A disk that is too small says so before the first byte; one that tells nothing is tried."""
    box.free = 999_999
    with pytest.raises(
        StepFailed, match=r"on the box: 1.0 MB are free, and the file needs 1.0 MB"
    ):
        Send(source, target).do(context)
    assert context.moved_bytes == 0
    assert os.listdir(target.root) == []
    box.free = None
    Send(source, target).do(context)


def test_a_run_that_is_to_end_sends_no_more(context, source, target):
    """A copy stops in the middle when the scene says that the run ends."""

    def moved(_size_bytes):
        raise Interrupted(15)

    context.advance = moved
    with pytest.raises(Interrupted):
        Send(source, target).do(context)


def test_a_manifest_waits_for_its_parts(context, source, target):
    """A copy that vouches for others is not sent when one of them has not arrived."""
    part, copy = File("pi", "part"), File("nas", "part")
    step = Send(source, target, ((part, copy),))
    context.failed = {"nas:part": "no tape"}
    with pytest.raises(StepFailed, match="not copied, because part was not copied to the vault"):
        step.do(context)
    context.failed["pi:part"] = "not made"  # then the manifest says so itself
    step.do(context)


def test_the_dry_run_names_both_ends(source, target):
    """What is printed tells what goes where."""
    (line,) = Send(source, target).commands()
    assert source.absolute in line
    assert f"nas:'{target.absolute}'" in line


class Shelf:
    """A place whose files can only be read."""

    def read(self, path, start=0):
        return open(path, "rb")


class Broken:
    """A place of which nothing can be read."""

    def read(self, path, start=0):
        raise StepFailed(f"{path} cannot be read")


def test_a_copy_is_one_by_what_was_sent_or_by_its_hash(context, source, target):
    """The same size is never enough, nor where nothing can be hashed on the far side."""
    sent = Record("", sha256=hashlib.sha256(DATA).hexdigest())

    def judged(data, storage=None, record=None):
        with open(target.absolute, "wb") as stream:
            stream.write(data)
        here, there = context.storages["pi"], context.storages["nas"]
        fact = there.stat([target.absolute])[target.absolute]
        copy = SeenFile(storage or there, target, fact, record)
        original = here.stat([source.absolute])[source.absolute]
        return is_copy(copy, SeenFile(here, source, original, sent))

    other = bytes(len(DATA))
    assert judged(DATA)
    assert not judged(other)
    assert not judged(other, record=Record("", sha256="0" * 64))
    assert judged(other, record=sent)
    assert judged(DATA, storage=Shelf())
    assert not judged(other, storage=Shelf())
    assert not judged(other[1:], storage=Shelf())
    assert not judged(other[1:], record=sent)
    with pytest.raises(StepFailed, match="cannot be read"):
        judged(DATA, storage=Broken())


@pytest.mark.parametrize("openssl", ["", "exit 1", "cat > /dev/null; echo 'SHA256(stdin)= e3b0'"])
def test_a_hash_is_told_by_whatever_program_is_there(tmp_path, source, openssl, monkeypatch):
    """OpenSSL is asked first; where it is missing or tells it otherwise, the next one is."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "cat", "sha256sum"):
        (tools / name).symlink_to(shutil.which(name))
    if openssl:
        (tools / "openssl").write_text(f"#!/bin/sh\n{openssl}\n")
        (tools / "openssl").chmod(0o755)
    here = LocalHost(source.root)
    monkeypatch.setenv("PATH", str(tools))
    assert hash_there(here, source.absolute) == hashlib.sha256(DATA).hexdigest()
    with pytest.raises(StepFailed, match="No such file"):
        here.run(hash_command(f"{source.root}/none"))


def test_the_address_of_an_rclone_vault_is_told_once():
    """It names the remote itself, often by the name of the vault."""
    target = File("dropbox", "a.tar", "dropbox:IOTstack/backups")
    (line,) = Send(File("pi", "backups/a.tar", "/stack"), target).commands()
    assert line == "copy '/stack/backups/a.tar' to 'dropbox:IOTstack/backups/a.tar'"
