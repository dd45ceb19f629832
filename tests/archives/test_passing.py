"""What tar packs is judged while it passes, as a restore will: devices and long paths stay out."""

import os
import subprocess

import pytest
from contexts import PlainContext

from iotstack_invoke.archives.pack import TAR_WORDS, PackStack, tar_words
from iotstack_invoke.archives.passing import Passing
from iotstack_invoke.archives.scan import Judge, list_archive, shape_of
from iotstack_invoke.engine.steps import File
from iotstack_invoke.hosts.local import LocalHost

ODD = (b"new\nline", b"latin-\xe9", b"K\xc3\xbcche", b"n" * 255, b'quote"', b"back\\slash")


@pytest.fixture
def stack(tmp_path):
    """A stack with odd names, deep folders, links, a sparse file and attributes."""
    folder = tmp_path / "stack"
    (folder / "services").mkdir(parents=True)
    deep = folder / "volumes/x"
    for _ in range(9):
        deep = deep / ("d" * 60)
    deep.mkdir(parents=True)
    (deep / "far").write_bytes(os.urandom(3000))
    (folder / "docker-compose.yml").write_text("services: {}\n")
    for name in ODD:
        path = os.path.join(os.fsencode(folder), b"volumes", name)
        with open(path, "wb") as file:
            file.write(name * 300)
        os.link(path, path[:-1] + b"2")
        os.symlink(b"l" * 180 + name[:60], path[:-1] + b"3")
    with open(folder / "volumes/sparse", "wb") as file:
        file.truncate(3 << 20)
    os.utime(folder / "volumes/sparse", (-5, -5))
    return folder


def pack(folder, tmp_path, *members):
    output = File("pi", "out.tar.gz", str(tmp_path))
    context = PlainContext({"pi": LocalHost(str(tmp_path))})
    chosen = members or ("./docker-compose.yml", "./services", "./volumes")
    PackStack(output, tar_words((), str(folder)), chosen, 60).do(context)
    os.rename(output.partial, output.absolute)
    return context, list_archive(LocalHost("/"), output.absolute, ())


@pytest.mark.parametrize("size", [1, 7, 511, 512, 513, 10_240, 1 << 20])
@pytest.mark.parametrize("form", [(), ("--format=gnu",), ("--format=ustar",), ("--sparse",)])
def test_what_passes_is_what_tar_lists(stack, tmp_path, size, form):
    """In pieces of any size nothing of it changes, and each member is judged as tar lists it."""
    plain = ("env", "LC_ALL=C.UTF-8", "tar", "--create", "--file=-", "--numeric-owner")
    words = plain if "--format" in "".join(form) else TAR_WORDS
    told = subprocess.run(
        [*words, "-C", stack, *form, "./docker-compose.yml", "./services", "./volumes"],
        check=False,
        capture_output=True,
    ).stdout
    if size < 500:
        told = told[:40_000]
    judge = Judge(shape_of("general"))
    passing = Passing(judge)
    kept = b"".join(
        piece for at in range(0, len(told), size) for piece in passing.take(told[at : at + size])
    )
    assert kept + passing.end() == told
    assert (passing.left_out, passing.refused, passing.is_tar) == ({}, {}, True)
    if size >= 500:
        (tmp_path / "a.tar").write_bytes(told)
        found = list_archive(LocalHost("/"), str(tmp_path / "a.tar"), ())
        for key in ("count", "items", "top_files"):
            assert getattr(judge.contents, key) == getattr(found, key), key


@pytest.mark.skipif(os.geteuid() != 0, reason="makes device nodes")
def test_a_device_is_left_out_and_named(stack, tmp_path):
    """The backup warns of it, and what it made is restorable: all but the device is in it."""
    before = pack(stack, tmp_path)[1].count
    for name in ("n", "dev/two", "dev/block"):
        path = stack / "volumes/nodered" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(path, 0o600 | (0o060000 if "block" in name else 0o020000), os.makedev(1, 5))
    os.link(stack / "volumes/nodered/n", stack / "volumes/nodered/o")
    (stack / "volumes/nodered/z").write_text("behind it")
    context, found = pack(stack, tmp_path)
    assert found.refusals == []
    assert found.count == before + 3  # two folders and a file
    warnings = " | ".join(context.warned)
    assert "left out, because it cannot be restored: it is a character device: " in warnings
    assert "it is a block device: './volumes/nodered/dev/block'" in warnings
    for name in ("'./volumes/nodered/n'", "'./volumes/nodered/dev/two'"):
        assert name in warnings


def test_a_path_that_is_too_long_is_left_out_and_named(stack, tmp_path):
    """Four thousand bytes of folders, as a program that nests without end makes them."""
    here = os.open(stack / "volumes", os.O_RDONLY)
    for _ in range(25):
        os.mkdir("l" * 199, dir_fd=here)
        below = os.open("l" * 199, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    context, found = pack(stack, tmp_path)
    assert found.refusals == []
    assert "too long for a file system" in " ".join(context.warned)


def test_what_a_restore_will_refuse_is_told(stack, tmp_path):
    """What cannot be left out in silence is packed, and the backup says that it is refused."""
    os.symlink("/etc/hostname", stack / "linked.yml")
    context, found = pack(stack, tmp_path, "./linked.yml", "./volumes")
    assert len(found.refusals) == 1
    (warning,) = context.warned
    assert warning.startswith("a restore will refuse this backup: it does not belong to a stack")
    assert "'./linked.yml'" in warning


def test_members_besides_belong(stack, tmp_path):
    """What a backup was told to pack besides is judged as what its manifest will name."""
    (stack / "homeassistant").mkdir()
    (stack / "homeassistant/configuration.yaml").write_text("")
    output = File("pi", "out.tar.gz", str(tmp_path))
    context = PlainContext({"pi": LocalHost(str(tmp_path))})
    PackStack(output, tar_words((), str(stack)), ("./homeassistant", "./volumes"), 60).do(context)
    assert context.warned == []
