"""The entries of a mount point swapped, and the way back from wherever it stopped: real files."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from contexts import PlainContext

from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.engine.steps import HostAccess
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.stack.swap_entries import SwapEntries

HOST = LocalHost("/")
STAMP = ".previous-t1-20261123T110000Z"
OLDER = ".previous-t0-20261122T110000Z"
NEW = f"{STAMP}-new"
NAMES = ("a file", ".hidden", "..odd", "-n", "new\nline", "both")


@pytest.fixture
def context():
    return PlainContext({"pi": HOST})


@pytest.fixture
def live(tmp_path):
    """A mount point with what its owner has there, and what a restore staged in it."""
    live = tmp_path / "it's"
    staged = live / NEW
    staged.mkdir(parents=True)
    for folder, says in ((live, "old"), (staged, "staged")):
        for name in NAMES if says == "old" else (*NAMES[3:], "other"):
            (folder / name).write_text(says)
        (folder / "folder").mkdir()
        (folder / "folder" / says).write_text(says)
        (folder / "lost+found").mkdir()
        (folder / "link").symlink_to(f"nowhere/{says}")
    (live / OLDER / "old").mkdir(parents=True)
    staged.chmod(0o750)
    live.chmod(0o2775)
    return live


def step(live):
    kept = live / STAMP
    places = map(str, (live, f"{kept}-new", kept, f"{kept}-undone"))
    return SwapEntries(HostAccess("pi", guard=str(live.parent / "guard")), *places)


def held(folder):
    """Return what lies in a folder, with content, but for what restores keep; and its mode."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not name.startswith((STAMP, OLDER)):
            kept = path.read_text() if path.is_file() else "folder"
            found[name] = os.readlink(path) if path.is_symlink() else kept
    return found, folder.stat().st_mode


def test_there_and_back(context, live):
    """What came since is put aside by the undo; what older restores keep stays where it is."""
    before, staged = held(live), held(live / NEW)
    step(live).do(context)
    assert held(live) == staged
    assert not (live / NEW).exists()
    (live / "since").write_text("since")
    for _ in range(2):
        step(live).undo(HOST)
        assert held(live) == before
        found, _ = held(Path(f"{live / STAMP}-undone"))
        assert found == {k: v for k, v in staged[0].items() if k != "lost+found"} | {
            "since": "since"
        }
    assert (live / OLDER / "old").is_dir()
    assert not (live / STAMP).exists()


def stopping(live, monkeypatch, program):
    """Let a program fail after so many calls as MOST says."""
    calls = live.parent / "calls"
    tool = live.parent / "bin" / program
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(
        f'#!/bin/sh\necho >> {calls}\n[ $(wc -l < {calls}) -le "$MOST" ] || exit 1\n'
        f'exec /bin/{program} "$@"\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    return calls


STOPS = [*(("mv", n) for n in range(3)), *(("sync", n) for n in range(5)), ("tar", 0), ("tar", 2)]


@pytest.mark.parametrize(("program", "most"), STOPS)
@pytest.mark.parametrize("back", [0, 1, 4])
def test_a_swap_that_stopped_anywhere_is_undone(context, live, program, most, back, monkeypatch):
    """So is one whose undo stopped likewise, and nothing that came meanwhile is lost."""
    before = held(live)
    calls = stopping(live, monkeypatch, program)
    monkeypatch.setenv("MOST", str(most))
    with contextlib.suppress(StepFailed):
        step(live).do(context)
    came = (live / STAMP / "both").exists()
    if came:
        (live / "both").write_text("meanwhile")
    calls.write_text("")
    monkeypatch.setenv("MOST", str(back))
    with contextlib.suppress(StepFailed):
        step(live).undo(HOST)
    monkeypatch.setenv("MOST", "99")
    step(live).undo(HOST)
    assert held(live) == before
    if came:
        assert (Path(f"{live / STAMP}-undone") / "both").read_text() == "meanwhile"


def test_what_comes_meanwhile_is_not_replaced(context, live, monkeypatch):
    """A program of the machine that writes while its entries are swapped: all is as it was."""
    tool = live.parent / "bin/sync"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\n[ -e "$LIVE/other" ] || echo meanwhile > "$LIVE/other"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("LIVE", str(live))
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    before = held(live)
    with pytest.raises(StepFailed, match=r"other came there meanwhile\. Nothing"):
        step(live).do(context)
    monkeypatch.undo()
    step(live).undo(HOST)
    assert held(live) == before
    assert (Path(f"{live / STAMP}-undone") / "other").read_text() == "meanwhile\n"


def test_what_was_put_aside_is_gone(context, live):
    """Then nothing is done, and it is said."""
    step(live).do(context)
    subprocess.run(["rm", "-r", live / STAMP], check=True)
    now = held(live)
    with pytest.raises(StepFailed, match=r"cannot be put back\.$"):
        step(live).undo(HOST)
    assert held(live) == now


@pytest.mark.parametrize("undo", [False, True])
def test_what_fails_is_told_in_a_sentence(context, live, monkeypatch, undo):
    """It names the entries, which are renamed, and not the folder itself."""
    kept = live / STAMP
    told = f": could not replace what is in {live} \\(by renaming it to {kept}, and "
    if undo:
        step(live).do(context)
        told = f": could not put back what is in {live} \\(by renaming {kept} to it, and "
    stopping(live, monkeypatch, "mv")
    monkeypatch.setenv("MOST", "0")
    with pytest.raises(StepFailed, match=told):
        step(live).undo(HOST) if undo else step(live).do(context)


def test_another_file_system(context, live):
    """No entry is copied: a half copy looks like a whole one."""
    elsewhere = Path("/dev/shm") / f"swap-{os.getpid()}"
    elsewhere.mkdir()
    kept, before = live / STAMP, held(live)
    places = map(str, (live, elsewhere, kept, f"{kept}-undone"))
    try:
        with pytest.raises(
            StepFailed, match=f"{elsewhere} is on another file system than {live}\\. Nothing"
        ):
            SwapEntries(HostAccess("pi", guard=str(live.parent / "guard")), *places).do(context)
        assert held(live) == before
    finally:
        elsewhere.rmdir()
