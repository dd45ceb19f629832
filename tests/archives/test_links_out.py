"""A link in what is packed is kept as a link: what it leads to must be in a part, or be named."""

import json
import os

import pytest
from contexts import PlainContext, not_root

from iotstack_invoke.archives.links_out import MOST_TOLD, LinksOut, Packed
from iotstack_invoke.hosts.local import LocalHost


@pytest.fixture
def disk(little_stack, tmp_path):
    """A stack beside another disk that holds data."""
    little_stack.disk = tmp_path / "usb"
    (little_stack.disk / "lib").mkdir(parents=True)
    (little_stack.disk / "lib/book").write_text("x")
    (little_stack.disk / "empty").mkdir()
    (little_stack.disk / "file").write_text("x")
    little_stack.data = little_stack.folder / "volumes/nodered/data/deep"
    little_stack.data.mkdir(parents=True)
    return little_stack


def backed_up(stack, tag="first"):
    done = stack.run(f"backup --runtag {tag}")
    told = json.loads((stack.folder / f"backups/{tag}.manifest.json").read_text())
    warnings = [each for each in told["warnings"] if "is a link to" in each or "links" in each]
    assert done.returncode == (3 if told["warnings"] else 0), done.stderr
    assert ("NOT COVERED" in done.stderr) == bool(warnings)
    return warnings


def test_what_a_link_leads_to_is_packed_or_named(disk):
    """The lines that the warning tells take it in, or leave it out, and silence the warning."""
    (disk.data / "lib").symlink_to(disk.disk / "lib")
    (warning,) = backed_up(disk)
    link, to = "volumes/nodered/data/deep/lib", str(disk.disk / "lib")
    assert warning.startswith(f"NOT COVERED: {link} is a link to {to}, which is in no part")
    assert f'[[stack.include]], path = "{to}"' in warning
    before = disk.settings.read_text()
    for number, row in enumerate(
        (
            f'[[stack.include]]\npath = "{to}"\n',
            f'[[stack.exclude]]\npath = "{to}"\nreason = "films"\n',
            f'[[stack.exclude]]\npath = "{link}"\nreason = "films"\n',
        )
    ):
        disk.settings.write_text(before + row)
        assert backed_up(disk, f"row{number}") == []


def test_a_link_to_what_may_not_be_read_is_named(disk):
    """It is there, and nobody knows what it holds; below it nobody knows whether anything is."""
    links = LinksOut(Packed(str(disk.folder), (), ()), str(disk.folder))
    links.take("volumes/a", str(disk.disk / "lib"))
    links.take("volumes/b", str(disk.disk / "empty/book"))
    context = PlainContext({})
    as_root = not_root(disk.folder)
    for each in ("lib", "empty"):
        (disk.disk / each).chmod(0)
    try:
        links.warn(context, LocalHost(str(disk.folder)), as_root)
    finally:
        for each in ("lib", "empty"):
            (disk.disk / each).chmod(0o700)
    (told,) = context.warned
    assert told.startswith(f"NOT COVERED: volumes/a is a link to {disk.disk}/lib, which is in no")


def test_links_from_what_lies_outside_are_named_too(disk):
    """An included path leads further, and to what is packed."""
    (disk.disk / "lib/more").symlink_to("../file")
    (disk.disk / "lib/back").symlink_to(disk.folder / "volumes/nodered")
    with disk.settings.open("a") as stream:
        stream.write(f'[[stack.include]]\npath = "{disk.disk}/lib"\n')
    (warning,) = backed_up(disk)
    assert f"{disk.disk}/lib/more is a link to {disk.disk}/file, which" in warning


def test_links_that_lose_nothing_are_silent(disk):
    """Within what is packed, to nothing (a path of the container), to what is empty, to the system."""
    for name, target in (
        ("inside", "../../flows.json"),
        ("absolute", disk.folder / "services"),
        ("container", "/data/not/here"),
        ("empty", disk.disk / "empty"),
        ("system", "/usr/bin/env"),
        ("root", "/"),
        ("stack", disk.folder),
        ("device", "/dev/null"),
        ("temporary", "/tmp"),
        ("left out", "../left"),
    ):
        (disk.data / name).symlink_to(target)
    (disk.data.parent / "left").mkdir()
    (disk.data.parent / "left/out").write_text("x")
    with disk.settings.open("a") as stream:
        stream.write('[[stack.exclude]]\npath = "volumes/nodered/data/left"\nreason = "r"\n')
    assert backed_up(disk) == []


def test_links_to_what_the_stack_does_not_use_are_named(disk):
    """What lies in the stack's folder and is in no part, whichever way leads there."""
    (disk.folder / "own").mkdir()
    (disk.folder / "own/script").write_text("x")
    (disk.folder / "backups/kept").mkdir(parents=True)
    (disk.folder / "backups/kept/file").write_text("x")
    way = disk.disk / "way"
    way.symlink_to(disk.folder / "own")
    (disk.data / "a").symlink_to("../../../../own/script")
    (disk.data / "b").symlink_to(way)
    (disk.data / "c").symlink_to("../../../../backups/kept")
    kept, own = backed_up(disk)
    assert "deep/b is a link to own, which is in no part" in own
    assert '[[stack.exclude]], path = "own"' in own
    assert "deep/c is a link to backups/kept, which" in kept
    assert '[[stack.exclude]], path = "volumes/nodered/data/deep/c"' in kept


def test_what_lies_beside_a_mount_behind_a_link_is_named(disk):
    """Of what a link leads to the mount is packed; where that is all there is, nothing is said."""
    (disk.folder / "ha").symlink_to(disk.disk / "lib")
    (disk.folder / "volumes/ha").mkdir()
    (disk.folder / "volumes/ha/deep").symlink_to(disk.disk / "lib")
    config = disk.disk / "lib/config"
    config.mkdir()
    (config / "file").write_text("x")
    mounts = [("./ha/config", "/config"), ("./volumes/ha/deep/config", "/c")]
    disk.runs(ha="x", mounts={"ha": mounts})
    (warning,) = backed_up(disk)
    assert f"is a link to {disk.disk}/lib, which is in no part" in warning
    (disk.disk / "lib/book").unlink()
    (disk.disk / "lib/folders/only").mkdir(parents=True)
    assert backed_up(disk, "second") == []


def test_few_links_are_told(tmp_path):
    """The outermost places, each once, and how many there are besides."""
    links = LinksOut(Packed("/stack", ("/stack/volumes",)), "/stack")
    for number in range(MOST_TOLD + 2):
        (tmp_path / f"{number}/below").mkdir(parents=True)
        (tmp_path / f"{number}/below/file").write_text("x")
        for name in ("", "/below", "/below/file"):
            links.take(f"./volumes/a{number}", f"{tmp_path}/{number}{name}")
    context = PlainContext({})
    links.warn(context, LocalHost("/"), ())
    assert len(context.warned) == MOST_TOLD + 1
    assert f"volumes/a0 is a link to {tmp_path}/0, which" in context.warned[0]
    assert context.warned[-1].startswith(
        "NOT COVERED: 2 more links lead to files that are in no part"
    )


@pytest.mark.parametrize("name", ["a\nb", "ü", "'", os.fsdecode(b"\xff"), "\\1", '"'])
def test_links_of_any_name(disk, name):
    """What lies behind is found, whatever it is called."""
    (disk.disk / name).mkdir()
    (disk.disk / name / "film").write_text("x")
    (disk.data / name).symlink_to(disk.disk / name)
    assert len(backed_up(disk)) == 1
