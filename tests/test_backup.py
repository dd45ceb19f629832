"""A backup and its copies: what is told as copied lies there, and nothing of others is replaced."""

import json
import os

import pytest

from iotstack_invoke.rules import KINDS

TAG = "2026-11-23_1100"


@pytest.fixture
def pi(little_stack, tmp_path):
    """A stack with a vault that is a folder, not there yet."""
    little_stack.backups = little_stack.folder / "backups"
    little_stack.usb = tmp_path / "usb"
    with little_stack.settings.open("a") as stream:
        stream.write(f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{little_stack.usb}"\n')
    return little_stack


def contents(folder):
    """Return the bytes of each file of the set in a folder, but those of its log."""
    return {
        each.name: each.read_bytes()
        for each in folder.iterdir()
        if each.name.startswith(TAG) and "log" not in each.name and each.is_file()
    }


@pytest.mark.parametrize("wrong", ["other bytes", "another size"])
@pytest.mark.parametrize("when", ["unfinished", "finished"])
def test_a_wrong_archive_in_a_vault_is_no_copy(pi, wrong, when):
    """What bears the name of a copy is compared with the record, and sent anew if it differs."""
    if when == "finished":
        pi.usb.mkdir()
    assert pi.run(f"backup --runtag {TAG}").returncode == (0 if when == "finished" else 3)
    pi.usb.mkdir(exist_ok=True)
    archive = f"{TAG}.general-backup.tar.gz"
    size = (pi.backups / archive).stat().st_size - (wrong == "another size")
    (pi.usb / archive).write_bytes(bytes(size))
    (pi.usb / f"{TAG}.manifest.json").unlink(missing_ok=True)
    told = pi.run(f"backup --runtag {TAG}")
    assert told.returncode == 0, told.stderr
    assert contents(pi.usb) == contents(pi.backups)


NAMED = {
    "files": [f"{TAG}.{ending}" for ending in KINDS.values()],
    "partial files": [f"{TAG}.{ending}.partial" for ending in KINDS.values()],
    "the log": [f"{TAG}.backup-log.txt.partial"],
    "a mark": [f"{TAG}.removing"],
    "records": [f"{TAG}.unfinished.jsonl"],
    "a journal": [".journal"],
    "checks": [".checks.jsonl"],
    "a lock": [".lock"],
}


@pytest.mark.parametrize("names", NAMED.values(), ids=NAMED)
def test_a_pipe_is_never_waited_for(pi, names):
    """Whatever name of ours a pipe bears, here and in a vault, each command ends by itself."""
    for folder in (pi.backups, pi.usb):
        folder.mkdir()
        for each in names:
            os.mkfifo(folder / each)
    for line in (f"backup --runtag {TAG}", "list", "verify --at all", "prune --at all"):
        assert "Traceback" not in pi.run(line).stderr


def test_a_copy_is_not_written_into_a_pipe(pi):
    """A pipe under the name of a copy, or of one that is being made, gives way to the file."""
    pi.usb.mkdir()
    for each in NAMED["files"] + NAMED["partial files"]:
        os.mkfifo(pi.usb / each)
    assert pi.run(f"backup --runtag {TAG}").returncode == 0
    assert contents(pi.usb) == contents(pi.backups)


def test_what_is_no_file_belongs_to_no_set(pi):
    """Pipes with names of ours are no sets, are told as left alone, and stay."""
    pi.usb.mkdir()
    assert pi.run(f"backup --runtag {TAG}").returncode == 0
    strange = {f"other.{KINDS[kind]}" for kind in KINDS} | {"other.removing"}
    for folder in (pi.backups, pi.usb):
        for each in strange:
            os.mkfifo(folder / each)
    assert [each["runtag"] for each in json.loads(pi.run("list --json").stdout)] == [TAG]
    pruned = json.loads(pi.run("prune --at all --json").stdout)
    assert [set(each["left_alone"]) for each in pruned] == [strange, strange]
    assert {each.name for each in pi.usb.iterdir() if each.is_fifo()} == strange
