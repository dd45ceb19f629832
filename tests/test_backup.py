"""A backup and its copies: what is told as copied lies there, and nothing of others is replaced."""

import pytest

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
        if each.name.startswith(TAG) and "log" not in each.name
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
