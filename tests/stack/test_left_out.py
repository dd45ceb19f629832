"""What a backup left out stays in the live folder: with real files, and killed anywhere."""

import contextlib
import os
import stat
import sys

import pytest
from contexts import PlainContext

from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.engine.steps import HostAccess
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.stack.left_out import KeepLeftOut, patterns_below
from iotstack_invoke.stack.swap import SwapItem
from iotstack_invoke.stack.swap_entries import SwapEntries

HOST = LocalHost("/")
PATTERNS = ("films/*", "cache", "logs/*.log")
OLD = {
    "settings": "old",
    "films/one": "film",
    "films/deep/two": "film",
    "films/odd\n'[*] name": "film",
    "cache/a/b": "kept",
    "logs/a.log": "kept",
    "logs/deep/b.log": "kept",
    "logs/c.txt": "old",
    "unknown/films/x": "old",
}
"""A folder as it is when a backup without `PATTERNS` is restored."""
NEW = {"settings": "new", "films/": None, "logs/": None, "logs/c.txt": "new", "added": "new"}
"""As the backup holds it."""
RESTORED = {
    "settings": "new",
    "logs/c.txt": "new",
    "added": "new",
    **{path: text for path, text in OLD.items() if text in ("film", "kept")},
}


def fill(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_text(text)


def files_in(folder):
    """Return what each file below a folder says, by its path."""
    paths = (path for path in folder.rglob("*") if not path.is_dir())
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


@pytest.fixture
def context():
    return PlainContext({"pi": HOST})


@pytest.fixture
def steps(tmp_path):
    """A swap of a folder, and the step that keeps what was left out; in folders of odd names."""
    places = {
        name: tmp_path / "it's [a] *" / name / "item"
        for name in ("live", "staged", "aside", "used")
    }
    fill(places["live"], OLD)
    fill(places["staged"], NEW)
    guard = str(tmp_path / "guard")
    order = [str(places[name]) for name in ("live", "staged", "aside", "used")]
    keep = KeepLeftOut(HostAccess("pi", guard=guard), order[0], order[2], PATTERNS)
    return SwapItem(HostAccess("pi", guard=guard), *order), keep, places


def test_what_was_left_out_is_where_it_was(context, steps):
    """All else is as the backup has it, and what that replaced is put aside."""
    swap, keep, places = steps
    swap.do(context)
    keep.do(context)
    assert files_in(places["live"]) == RESTORED
    assert files_in(places["aside"]) == {k: v for k, v in OLD.items() if v == "old"}


def test_undone_all_is_as_before_with_what_came_since(context, steps):
    """No backup has what was recorded meanwhile; it stays too. Undoing twice changes nothing."""
    swap, keep, places = steps
    swap.do(context)
    keep.do(context)
    fill(places["live"], {"films/later": "film", "settings": "newer"})
    for _ in range(2):
        keep.undo(HOST)
        swap.undo(HOST)
        assert files_in(places["live"]) == {**OLD, "films/later": "film"}


def test_what_the_backup_holds_all_the_same_is_not_replaced(context, steps):
    """One of the same name is put aside with all that is replaced."""
    swap, keep, places = steps
    fill(places["staged"], {"films/one": "of the backup"})
    swap.do(context)
    keep.do(context)
    assert (places["live"] / "films/one").read_text() == "of the backup"
    assert (places["aside"] / "films/one").read_text() == "film"
    keep.undo(HOST)
    swap.undo(HOST)
    assert files_in(places["live"]) == OLD


def test_a_folder_that_the_backup_does_not_know_is_made_like_the_old_one(context, steps):
    """It came after the backup; its owner and mode are those that it had."""
    swap, keep, places = steps
    (places["staged"] / "films").rmdir()
    (places["live"] / "films").chmod(0o750)
    swap.do(context)
    keep.do(context)
    assert files_in(places["live"]) == RESTORED
    assert stat.S_IMODE((places["live"] / "films").stat().st_mode) == 0o750


@pytest.mark.parametrize("where", ["live", "staged"])
def test_links_lead_nothing_elsewhere(context, steps, tmp_path, where):
    """Neither in the old folder nor in the new one is a link followed."""
    swap, keep, places = steps
    outside = tmp_path / "outside"
    fill(outside, {"secret": "s"})
    films = places[where] / "films"
    films.rename(tmp_path / "films")
    films.symlink_to(outside)
    swap.do(context)
    keep.do(context)
    assert files_in(outside) == {"secret": "s"}
    keep.undo(HOST)
    swap.undo(HOST)
    assert files_in(outside) == {"secret": "s"}
    assert (places["live"] / "films").is_symlink() == (where == "live")


def test_a_new_folder_has_nothing_to_keep(context, steps):
    """Where nothing was put aside nothing is moved, there or back."""
    swap, keep, places = steps
    os.rename(places["live"], places["live"].parent / "away")
    swap.do(context)
    keep.do(context)
    keep.undo(HOST)
    assert files_in(places["live"]) == {"settings": "new", "logs/c.txt": "new", "added": "new"}


@pytest.mark.parametrize("pattern", ["*", "*.log", "films/*"])
def test_what_restores_keep_in_a_mount_point_is_nothing_that_was_left_out(
    context, tmp_path, pattern
):
    """Two restores there, and undone one after the other; whatever a star stands for."""
    live, guard = tmp_path / "it's [a] *", str(tmp_path / "guard")
    fill(live, {"settings": "first", "a.log": "kept", "films/one": "film"})
    steps, held = [], []
    for day in (22, 23):
        held.append(files_in(live))
        kept = live / f".previous-t1-202611{day}T110000Z"
        fill(live / f"{kept.name}-new", {"settings": f"of {day}", "films/": None})
        places = map(str, (live, f"{kept}-new", kept, f"{kept}-undone"))
        steps.append(SwapEntries(HostAccess("pi", guard=guard), *places))
        steps.append(KeepLeftOut(HostAccess("pi", guard=guard), str(live), str(kept), (pattern,)))
        for each in steps[-2:]:
            each.do(context)
        fill(live, {f"old of {day}.log": "since"})
        fill(kept, {"x.log": "old", "films/deep": "old"})
    for each in steps[:1:-1]:
        each.undo(HOST)
    of_first = files_in(live / ".previous-t1-20261122T110000Z")
    assert of_first | {"x.log": "old", "films/deep": "old"} == of_first
    for each in steps[1::-1]:
        each.undo(HOST)
    now = files_in(live)
    assert {each: now.get(each) for each in held[0]} == held[0]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(1, 8))
def test_killed_anywhere_it_is_undone(context, steps, tmp_path, monkeypatch, number, after):
    """Before or after each rename of the way there, and again on the way back."""
    swap, keep, places = steps
    swap.do(context)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "mv").write_text(
        f"""#!{sys.executable}
import os, signal, subprocess, sys
with open({str(tmp_path / "count")!r}, "a+") as stream:
    stream.write("x")
    stream.seek(0)
    mine = len(stream.read()) == {number}
if not mine or {after}:
    subprocess.run(["/bin/mv", *sys.argv[1:]], check=True)
if mine:
    os.kill(os.getppid(), signal.SIGKILL)
"""
    )
    (tools / "mv").chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        for act in (lambda: keep.do(context), lambda: keep.undo(HOST)):
            (tmp_path / "count").unlink(missing_ok=True)
            with contextlib.suppress(StepFailed):
                act()
    keep.undo(HOST)
    swap.undo(HOST)
    assert files_in(places["live"]) == OLD


@pytest.mark.parametrize(
    ("pattern", "item", "below"),
    [
        ("volumes/m/films/*", "volumes/m", ("films/*",)),
        ("volumes/m/*", "volumes/m", ("*",)),
        ("volumes/m/cache", "volumes/m", ("cache",)),
        ("volumes/m", "volumes/m", ()),
        ("volumes/m/x", "volumes/mm", ()),
        ("volumes/*/cache/*", "volumes/m", ("cache/*", "*/cache/*")),
        ("volumes/*.log", "volumes/m", ("*.log",)),
        ("volumes/m*", "volumes/mm", ("*",)),
        ("homeassistant/backups/*", "homeassistant", ("backups/*",)),
        ("docker-compose.yml", "docker-compose.yml", ()),
    ],
)
def test_a_pattern_means_in_an_item_what_it_means_in_a_stack(pattern, item, below):
    """A star stands for slashes too, as in tar's exclusions."""
    assert patterns_below((pattern,), item) == below
