"""A set that is removed or made again, or goes away with its vault, while it is restored."""

import contextlib
import os
import shutil
import socket

import pytest
from hook_settings import set_hooks

TAG = "t1"


@pytest.fixture
def pi(little_stack, tmp_path):
    """A stack whose backup lies here and on a drive; its file has another text since."""
    pi = little_stack
    pi.flows = pi.folder / "volumes/nodered/flows.json"
    pi.usb = tmp_path / "usb"
    pi.usb.mkdir()
    with pi.settings.open("a") as stream:
        stream.write(f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{pi.usb}"\n')
    pi.flows.write_text("asked")
    assert pi.run(f"backup --runtag {TAG}").returncode == 0
    pi.flows.write_text("live")
    return pi


@contextlib.contextmanager
def asked(pi, source):
    """Let something be done while a person is asked; then yield what became of the restore."""
    terminal, stdin = os.openpty()
    process = pi.start(f"restore --runtag {TAG} --from {source}", stdin=stdin)
    os.close(stdin)
    try:
        next(line for line in process.stdout if "are free" in line)  # the last line before
        yield lambda: answered(process, terminal)
    finally:
        process.kill()
        os.close(terminal)


def answered(process, terminal):
    os.write(terminal, f"{socket.gethostname()}\n".encode())
    out, err = process.communicate(timeout=120)
    return process.returncode, " ".join(f"{out} {err}".split())


@pytest.mark.parametrize("source", ["here", "usb"])
def test_a_set_that_is_removed_meanwhile_is_not_found(pi, source):
    """As by a prune while a person is asked: what is gone is named, in no words of rules."""
    place = pi.usb if source == "usb" else pi.folder / "backups"
    with asked(pi, source) as answer:
        for each in place.glob(f"{TAG}.*"):
            each.unlink()
        code, told = answer()
    assert code == 10, told
    assert f"{TAG} is no longer complete in {'usb' if source == 'usb' else 'this machine'}" in told
    assert f"Removed or renamed after the restore began: {TAG}.general-backup.tar.gz" in told
    assert pi.flows.read_text() == "live"


def test_a_vault_that_goes_away_meanwhile_is_told_as_such(pi):
    """It is the drive that is not there, and not the backup."""
    with asked(pi, "usb") as answer:
        pi.usb.rename(f"{pi.usb}.away")
        code, told = answer()
    assert code == 1, told
    assert f"The folder of vault 'usb' is missing: {pi.usb}. Is the drive mounted?" in told
    assert pi.flows.read_text() == "live"


@pytest.mark.parametrize("source", ["here", "usb"])
def test_a_set_that_is_made_again_meanwhile_is_not_called_damaged(pi, source):
    """Its archives are not those that were asked for: nothing is wrong with them."""
    with asked(pi, source) as answer:
        pi.flows.write_text("made again")
        assert pi.run(f"backup --runtag {TAG} --force").returncode == 0
        pi.flows.write_text("live")
        code, told = answer()
    assert code == 13, told
    assert "was replaced after this restore began" in told
    assert "damaged" not in told
    assert pi.flows.read_text() == "live"
    assert pi.run("list").returncode == 0
    assert pi.run(f"restore --runtag {TAG} --from {source} --yes").returncode == 0
    assert pi.flows.read_text() == "made again"


@pytest.mark.parametrize("source", ["here", "usb"])
def test_what_is_staged_needs_its_source_no_more(pi, source):
    """All is fetched, proven and unpacked: a drive that goes away then stops nothing."""
    place = pi.usb if source == "usb" else pi.folder / "backups"
    lost = [str(each) for each in place.glob(f"{TAG}.*")]
    words = ["mv", str(pi.usb), f"{pi.usb}.away"] if source == "usb" else ["rm", *lost]
    set_hooks(pi, before_restore=[words])
    told = pi.run(f"restore --runtag {TAG} --from {source} --yes")
    assert told.returncode == 0, told.stderr
    assert pi.flows.read_text() == "asked"
    shutil.rmtree(f"{pi.usb}.away", ignore_errors=True)
