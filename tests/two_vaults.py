"""A stack with two vaults that are folders, and sets to put there."""

import os
from datetime import timedelta

import pytest
from contexts import NOON, put_set

from iotstack_invoke.backups.manifest import read_manifest
from iotstack_invoke.parts.restore_text import restore_text_of, with_sum


@pytest.fixture
def pi(little_stack, tmp_path):
    """A stack with two vaults that are folders, the second not there yet."""
    little_stack.backups = little_stack.folder / "backups"
    little_stack.usb, little_stack.nas = tmp_path / "usb", tmp_path / "nas"
    little_stack.backups.mkdir()
    little_stack.usb.mkdir()
    with little_stack.settings.open("a") as stream:
        for each in ("usb", "nas"):
            stream.write(
                f'[[vaults]]\nname = "{each}"\nkind = "folder"\n'
                f'folder = "{getattr(little_stack, each)}"\n'
            )
    return little_stack


def make_sets(folder, *days, host=""):
    """Put whole sets, so many days old, into a folder; return their runtags."""
    tags = []
    for made in [NOON - timedelta(days=each) for each in days]:
        path = put_set(folder, made, host=host)
        content = path.read_bytes()
        text = folder / f"{made:%Y-%m-%d_%H%M}.RESTORE.txt"
        text.write_bytes(with_sum(restore_text_of(read_manifest(content)), content))
        os.utime(text, (made.timestamp(), made.timestamp()))
        (folder / f"{made:%Y-%m-%d_%H%M}.backup-log.txt").write_text("log\n")
        tags.append(f"{made:%Y-%m-%d_%H%M}")
    return tags


def contents(folder, *tags):
    """Return the bytes of the files of some sets in a folder, or of all, but no marks."""
    found = {e.name: e.read_bytes() for e in folder.iterdir() if e.suffix != ".jsonl"}
    return {name: each for name, each in found.items() if name.startswith(tags or ("2",))}
