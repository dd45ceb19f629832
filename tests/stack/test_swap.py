"""Swapping by rename, and the way back from wherever it stopped: with real files."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from contexts import PlainContext

from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.engine.journal import Journal
from iotstack_invoke.engine.steps import HostAccess
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.stack import stop_start
from iotstack_invoke.stack.stop_start import StopContainers
from iotstack_invoke.stack.swap import MoveAside, PutAway, SwapItem

HOST = LocalHost("/")
SHM = Path("/dev/shm")


@pytest.fixture
def context():
    return PlainContext({"pi": HOST})


@pytest.fixture
def places(tmp_path):
    """The four places of a swap; a staged folder is there, and a live one."""
    found = {
        name: tmp_path / name / "item's\nname" for name in ("live", "staged", "aside", "used")
    }
    for name in ("live", "staged"):
        found[name].mkdir(parents=True)
        (found[name] / "file").write_text(name)
    return found


def swap(places):
    """The step between these places."""
    order = (str(places[name]) for name in ("live", "staged", "aside", "used"))
    return SwapItem(HostAccess("pi", guard=str(places["live"].parent.parent / "guard")), *order)


def content(path):
    """What the file in a folder says; None where there is no folder."""
    return (path / "file").read_text() if path.exists() else None


def remove(path):
    """Remove a folder."""
    subprocess.run(["rm", "-rf", path], check=True)


@pytest.mark.parametrize("is_new", [False, True])
def test_there_and_back(context, places, is_new):
    """The staged one is live, the old one aside; undone once or twice, all is as before."""
    if is_new:
        remove(places["live"])
    step = swap(places)
    step.do(context)
    assert content(places["live"]) == "staged"
    assert content(places["aside"]) == (None if is_new else "live")
    for _ in range(2):
        step.undo(HOST)
        assert content(places["live"]) == (None if is_new else "live")
        assert content(places["used"]) == "staged"
        assert list(places["aside"].parent.iterdir()) == []


def test_a_rename_that_fails_is_told_in_words(context, places):
    """What was to be renamed to what, why it was not, what to do; no script."""
    step = swap(places)
    live = places["live"]
    subprocess.run(["mount", "--bind", live, live], check=True)
    try:
        with pytest.raises(StepFailed) as failed:
            step.do(context)
    finally:
        subprocess.run(["umount", live], check=True)
    told = str(failed.value)
    assert f"could not replace {live} (by renaming it to {places['aside']}" in told
    assert "busy. Nothing was removed" in told
    assert "run this again" in told
    step.do(context)
    subprocess.run(["mount", "--bind", live, live], check=True)
    try:
        with pytest.raises(StepFailed) as failed:
            step.undo(HOST)
    finally:
        subprocess.run(["umount", live], check=True)
    assert f"could not put back {live} (by renaming {places['aside']} to it" in str(failed.value)
    assert "busy. Nothing was removed" in str(failed.value)
    assert "run `inv undo`" in str(failed.value)
    step.undo(HOST)
    assert content(live) == "live"
    for words in (told, str(failed.value)):
        assert "dirname" not in words


def test_what_is_put_aside_can_be_looked_into_whatever_the_umask(context, places):
    """Root makes the folders; a user with umask 077 could never remove, or judge, old states."""
    step = swap(places)
    before = os.umask(0o077)
    try:
        step.do(context)
        step.undo(HOST)
    finally:
        os.umask(before)
    for name in ("aside", "used"):
        assert places[name].parent.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("is_new", [False, True])
@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_swap_that_stopped_anywhere_is_undone(context, places, is_new, renames, monkeypatch):
    """Before its first rename, between the two, after both; and an undo that stopped likewise."""
    if is_new:
        remove(places["live"])
    step = swap(places)
    calls = places["live"].parent.parent / "calls"
    tool = calls.parent / "bin/mv"
    tool.parent.mkdir()
    tool.write_text(
        f'#!/bin/sh\necho >> {calls}\n[ $(wc -l < {calls}) -le "$MOST" ] || exit 1\n'
        'exec /bin/mv "$@"\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("MOST", str(renames))
    try:
        step.do(context)
    except StepFailed:
        assert renames < 2
    for most in ("0", "1", "9"):
        calls.unlink(missing_ok=True)
        monkeypatch.setenv("MOST", most)
        try:
            step.undo(HOST)
        except StepFailed:
            assert most != "9"
    assert content(places["live"]) == (None if is_new else "live")
    assert "staged" in (content(places["staged"]), content(places["used"]))


def test_an_old_folder_that_is_gone_is_an_error(context, places):
    """What is live is not taken for new, and stays, where somebody removed what was before it."""
    step = swap(places)
    step.do(context)
    remove(places["aside"])
    with pytest.raises(StepFailed, match="cannot be put back"):
        step.undo(HOST)
    assert content(places["live"]) == "staged"


def _elsewhere(tmp_path):
    if not SHM.is_dir() or SHM.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    return SHM / f"iotstack-swap-{os.getpid()}"


def test_a_rename_never_becomes_a_copy(context, places, tmp_path):
    """A place on another file system is refused, also behind a link; nothing moved."""
    other = _elsewhere(tmp_path)
    other.mkdir()
    try:
        (tmp_path / "link").symlink_to(other)
        for place in (other / "aside", tmp_path / "link/aside"):
            with pytest.raises(StepFailed, match="on another file system"):
                swap({**places, "aside": place}).do(context)
            with pytest.raises(StepFailed, match="on another file system"):
                put_away(places, place).do(context)
        assert content(places["live"]) == "live"
        assert list(other.iterdir()) == []
    finally:
        remove(other)


def test_nor_between_two_mounts_of_one_file_system(context, places, tmp_path):
    """A folder that is bound to another place is left by no rename; nothing moved, either way."""
    bound = tmp_path / "live"
    if subprocess.run(["mount", "--bind", bound, bound], check=False).returncode:
        pytest.skip("only root can mount a folder")
    try:
        for step in (swap(places), put_away(places, places["aside"])):
            with pytest.raises(StepFailed, match="on another file system"):
                step.do(context)
        assert content(places["live"]) == "live"
        assert not places["aside"].exists()
    finally:
        subprocess.run(["umount", "--lazy", bound], check=True)
    swap(places).do(context)
    subprocess.run(["mount", "--bind", bound, bound], check=True)
    try:
        with pytest.raises(StepFailed, match="on another file system"):
            swap(places).undo(HOST)
        assert (content(places["live"]), content(places["aside"])) == ("staged", "live")
    finally:
        subprocess.run(["umount", "--lazy", bound], check=True)


def put_away(places, aside, kind=PutAway):
    """The step that leaves a plain file in the place of the live folder; or nothing, MoveAside."""
    order = (str(each) for each in (places["live"], aside, places["used"]))
    return kind(HostAccess("pi", guard=str(places["live"].parent.parent / "guard")), *order)


def step_of(kind, places):
    """The step of that name between these places."""
    if kind == "swap":
        return swap(places)
    return put_away(places, places["aside"], MoveAside if kind == "move aside" else PutAway)


@pytest.mark.parametrize("then", ["nothing", "folder", "gone"])
def test_a_folder_that_is_put_away_comes_back(context, places, then):
    """Whatever lies in its place by then."""
    step = put_away(places, places["aside"])
    step.undo(HOST)
    assert content(places["live"]) == "live"
    step.do(context)
    assert places["live"].read_bytes() == b""
    assert content(places["aside"]) == "live"
    if then != "nothing":
        places["live"].unlink()
    if then == "folder":
        places["live"].mkdir()
        (places["live"] / "file").write_text("somebody's")
    for _ in range(2):
        step.undo(HOST)
        assert content(places["live"]) == "live"
        assert content(places["used"]) == ("somebody's" if then == "folder" else None)


def tool(tmp_path, monkeypatch, name, script):
    """Put a script before the program of that name."""
    path = tmp_path / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("kind", "is_new", "there", "back"),
    [
        ("swap", False, "stagedlive", "live"),
        ("swap", True, "staged", ""),
        ("put away", False, "live", "live"),
        ("move aside", False, "live", "live"),
        ("move aside", True, "", ""),
    ],
)
def test_renames_last_through_a_power_cut(
    context, places, tmp_path, monkeypatch, kind, is_new, there, back
):
    """Each folder that a rename changed is synced after it, on the way there and back."""
    live, aside = places["live"], places["aside"]
    if is_new:
        remove(live)
    synced = tmp_path / "synced"
    look = f'$(cat "{live}/file" "{aside}/file" 2> /dev/null | tr -d "\\n")'
    script = f'for each; do echo "$each: {look}" >> {synced}; done; exec /bin/sync "$@"'
    tool(tmp_path, monkeypatch, "sync", script)
    step = step_of(kind, places)
    step.do(context)
    assert synced.read_text() == f"{live.parent}: {there}\n{aside.parent}: {there}\n"
    synced.unlink()
    step.undo(HOST)
    assert synced.read_text() == f"{live.parent}: {back}\n"


@pytest.mark.parametrize("kind", ["swap", "put away", "move aside"])
def test_a_disk_that_fails_at_the_sync_is_told(context, places, tmp_path, monkeypatch, kind):
    """A rename of which nobody knows whether it lasts is no success."""
    tool(tmp_path, monkeypatch, "sync", "echo 'Input/output error' >&2; exit 1")
    step = step_of(kind, places)
    with pytest.raises(StepFailed, match="Input/output error"):
        step.do(context)
    with pytest.raises(StepFailed, match="Input/output error"):
        step.undo(HOST)


@pytest.mark.parametrize("is_new", [False, True])
def test_what_cannot_be_moved_aside_is_not_replaced(
    context, places, tmp_path, monkeypatch, is_new
):
    """A file, over which a rename would go without a word, is still there: else it were lost."""
    live, staged = places["live"], places["staged"]
    for each in (live, staged):
        remove(each)
        each.write_text(each.parent.name)
    if is_new:  # then the mark that it is new cannot be written
        live.unlink()
        places["aside"].parent.write_text("no folder")
    else:
        tool(
            tmp_path,
            monkeypatch,
            "mv",
            f'[ "$3" != "{places["aside"]}" ] || {{ echo "full" >&2; exit 1; }}; exec /bin/mv "$@"',
        )
    step = swap(places)
    with pytest.raises(StepFailed):
        step.do(context)
    assert staged.read_text() == "staged"
    if is_new:
        assert not live.exists()
    else:
        assert live.read_text() == "live"
        step.undo(HOST)
        assert live.read_text() == "live"


def test_a_container_that_was_removed_keeps_no_other_down(tmp_path):
    """Those that are there are started; with none there is nothing to start."""
    script, calls = tmp_path / "docker", tmp_path / "calls"
    script.write_text(
        f'#!/bin/sh\n[ "$1" = inspect ] && {{ echo /b; exit 1; }}\necho "$@" >> {calls}\n'
    )
    script.chmod(0o755)
    step = StopContainers(
        HostAccess("pi", docker=(str(script),), guard=str(tmp_path / "guard")), ("a", "b")
    )
    assert "Not running as before, because they were removed: a (" in step.undo(HOST)
    assert "stop --time 60 b\nstart b\n" in calls.read_text()
    assert stop_start._those_there(HOST, (str(script),), ("a",)) == ()


# A swap below another one, as earlier versions planned it


@pytest.fixture
def nested(tmp_path):
    """Two swaps of which the second lies below the first; the first was done, the second failed."""
    guard = str(tmp_path / "guard")
    at = {name: tmp_path / name / "influxdb" for name in ("live", "staged", "aside", "used")}
    for name in ("live", "staged"):
        (at[name] / "data").mkdir(parents=True)
        (at[name] / "data/file").write_text(name)
        (at[name] / "file").write_text(name)
    fresh = at["live"] / ".fresh"
    outer = SwapItem(
        HostAccess("pi", guard=guard), *(str(at[e]) for e in ("live", "staged", "aside", "used"))
    )
    below = (str(at[each] / "data") for each in ("live", "aside", "used"))
    live, aside, used = below
    inner = SwapItem(HostAccess("pi", guard=guard), live, str(fresh), aside, used)
    outer.do(PlainContext({"pi": HOST}))
    fresh.mkdir()
    with pytest.raises(StepFailed, match="not empty"):
        inner.do(PlainContext({"pi": HOST}))
    return at, outer, inner


@pytest.mark.parametrize("tried", ["never", "once", "twice"])
def test_a_swap_below_another_is_undone_with_it(nested, tmp_path, tried):
    """As such a journal lies on disks: also where an earlier version tried to undo it."""
    at, outer, inner = nested
    for _ in range(("never", "once", "twice").index(tried)):
        inner.undo(HOST)
        with pytest.raises(StepFailed, match="not empty"):
            outer.undo(HOST)
    bound = SimpleNamespace(access=lambda _role: outer.access, refuse=list)
    path = str(tmp_path / "journal")
    journal = Journal(HOST, path, (SwapItem,))
    for each in (outer, inner):
        journal.write("put it in place", each)
    lines = (tmp_path / "journal").read_text().splitlines()
    for _ in range(2):
        Journal(HOST, path, (SwapItem,), bind=lambda: bound).recover(lines)
        assert content(at["live"]) == "live"
        assert content(at["live"] / "data") == "live"
        assert content(at["used"] / "data") == "staged"
    assert not at["aside"].exists()
