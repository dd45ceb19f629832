"""Services of kind stop: away while they are copied and no longer, whole in the general part."""

import json
import os
import shutil
import signal
import subprocess
import tarfile

import pytest
from contexts import PlainContext, until

from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.engine.steps import HostAccess
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.stack import cold_copy as at_rest
from iotstack_invoke.stack.cold_copy import AtRest, CheckSpace, CopyAtRest, merged

TAG = "2026-11-23_1100"
# A program that has half of its data in memory: what it writes when it is stopped makes it whole.
DOCKER = """
case "$1 $2" in
"stop --time")
    echo "stop $4" >> "$0.calls"
    [ ! -e "$0.refuses" ] || { echo "cannot stop" >&2; exit 1; }
    echo whole > FOLDER/volumes/$4/data
    echo false > "$0.$4" ;;
"restart --time")
    echo "start $4" >> "$0.calls"
    if [ -e "$0.dead.$4" ]; then cat "$0.dead.$4" >&2; [ ! -s "$0.dead.$4" ]; exit; fi
    echo torn > FOLDER/volumes/$4/data
    echo true > "$0.$4" ;;
"inspect --type")
    if [ "$4" = --format ]; then
        for name; do :; done
        echo "$(cat "$0.$name" 2> /dev/null || echo true) false"
    else cat "$0.json"; fi ;;
"ps --all") echo NAMES ;;
"image inspect") echo '[]' ;;
esac
"""


@pytest.fixture
def stack(little_stack):
    """A stack with two services that are stopped for their copies, and one that is not."""
    little_stack.runs(bolt="bolt:1", prom="prom:1", grafana="grafana/grafana")
    for name in ("bolt", "prom"):
        add(little_stack, f'[[services]]\nname = "{name}"\nkind = "stop"\n')
    script = DOCKER.replace("FOLDER", str(little_stack.folder))
    little_stack.tool("docker", script.replace("NAMES", "bolt prom grafana"))
    return little_stack


def add(stack, text):
    with stack.settings.open("a") as stream:
        stream.write(text)


def calls(stack):
    path = stack.tools / "docker.calls"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def contents(stack):
    """Return what is in the general part; no name may be in it twice."""
    with tarfile.open(stack.folder / f"backups/{TAG}.general-backup.tar.gz") as archive:
        members = archive.getmembers()
        found = {
            each.name: archive.extractfile(each).read() if each.isreg() else None
            for each in members
        }
    assert len(found) == len(members)
    return found


def part(stack, kind="general"):
    manifest = json.loads((stack.folder / f"backups/{TAG}.manifest.json").read_text())
    return manifest["parts"][kind]


def test_what_is_stopped_is_whole_in_the_archive(stack):
    """One after the other is stopped, copied and started; tar takes the copies, owners and all."""
    extra = stack.folder / "volumes/bolt/deep/[a]*/sub"
    extra.mkdir(parents=True)
    (extra / "file").write_text("deep")
    (extra / "file").chmod(0o640)
    (extra / "link").symlink_to("../file")
    os.link(extra / "file", extra / "hard")
    told = stack.run(f"backup --runtag {TAG}")
    assert told.returncode == 0, told.stderr
    assert calls(stack) == ["stop bolt", "start bolt", "stop prom", "start prom"]
    found = contents(stack)
    assert found["./volumes/bolt/data"] == found["./volumes/prom/data"] == b"whole\n"
    assert found["./volumes/grafana/data"] == b"grafana/grafana"
    assert found["./volumes/bolt/deep/[a]*/sub/file"] == b"deep"
    assert "./volumes/bolt/deep/[a]*/sub/hard" in found
    assert not any(".copies" in name for name in found)
    assert part(stack)["facts"]["at_rest"] == ["volumes/bolt", "volumes/prom"]
    assert sorted(os.listdir(stack.folder / "backups")) == [
        ".commands",
        ".lock",
        *(
            f"{TAG}.{each}"
            for each in ("RESTORE.txt", "backup-log.txt", "general-backup.tar.gz", "manifest.json")
        ),
    ]


def test_what_is_left_out_is_so_in_copies_too(stack):
    """An exclusion within a folder that was copied counts; one of all of it spares the stop."""
    (stack.folder / "volumes/bolt/cache").mkdir()
    (stack.folder / "volumes/bolt/cache/big").write_text("big")
    for path in ("volumes/bolt/cache/*", "volumes/prom"):
        add(stack, f'[[stack.exclude]]\npath = "{path}"\nreason = "made again"\n')
    assert stack.run(f"backup --runtag {TAG}").returncode == 0
    assert calls(stack) == ["stop bolt", "start bolt"]
    found = contents(stack)
    assert found["./volumes/bolt/data"] == b"whole\n"
    assert "./volumes/bolt/cache" in found
    assert not {"./volumes/bolt/cache/big", "./volumes/prom"} & set(found)


def test_sqlite_at_rest_needs_no_copy_of_its_own(stack):
    """What lies in a stopped service's folder is copied with it, and nothing is opened."""
    import sqlite3

    with sqlite3.connect(stack.folder / "volumes/bolt/b.db") as database:
        database.execute("CREATE TABLE t (x)")
    database.close()
    assert stack.run(f"backup --runtag {TAG}").returncode == 0
    assert "./volumes/bolt/b.db" in contents(stack)
    assert "sqlite" not in part(stack)["facts"]


def test_one_that_is_stopped_already_stays_so(stack):
    """It is copied as it lies, and nobody starts it."""
    told = stack.tools / "docker.json"
    told.write_text(told.read_text().replace('"Running": true', '"Running": false'))
    assert stack.run(f"backup --runtag {TAG}").returncode == 0
    assert calls(stack) == []
    assert contents(stack)["./volumes/bolt/data"] == b"bolt:1"


def test_one_that_is_stopped_meanwhile_stays_so(stack):
    """Between the look and the stop somebody stopped it: it is not started."""
    (stack.tools / "docker.bolt").write_text("false\n")
    assert stack.run(f"backup --runtag {TAG}").returncode == 0
    assert calls(stack) == ["stop prom", "start prom"]


def test_one_that_cannot_be_stopped_fails_the_part(stack):
    """It is started again in any case, and the part is not made."""
    (stack.tools / "docker.refuses").touch()
    told = stack.run(f"backup --runtag {TAG}")
    assert told.returncode == 1
    assert "cannot stop" in told.stderr
    assert calls(stack) == ["stop bolt", "start bolt"]
    assert ".copies" not in os.listdir(stack.folder / "backups")


def left_down(stack):
    """Return the warning of a backup that is whole, though container bolt did not come up again."""
    told = stack.run(f"backup --runtag {TAG}")
    assert told.returncode == 3, told.stderr
    assert contents(stack)["./volumes/bolt/data"] == b"whole\n"
    assert contents(stack)["./volumes/prom/data"] == b"whole\n"
    once = list(dict.fromkeys(calls(stack)))  # the watcher of bolt may have tried again meanwhile
    assert once == ["stop bolt", "start bolt", "stop prom", "start prom"]
    manifest = json.loads((stack.folder / f"backups/{TAG}.manifest.json").read_text())
    (warning,) = (each for each in manifest["warnings"] if " did not resume (" in each)
    assert warning in told.stderr
    return warning


def test_one_that_cannot_be_started_again_is_a_warning(stack):
    """The part is whole, and manifest and exit code tell which container is to be started."""
    (stack.tools / "docker.dead.bolt").write_text("port is already allocated\n")
    told = left_down(stack)
    assert told.startswith("Container bolt did not resume (")
    assert "port is already allocated" in told
    assert "To start it: `docker start bolt`. To see why it ended: `docker logs bolt`." in told
    (stack.folder / "backups/.quiet-bolt").unlink()  # else its watcher would go on trying


@pytest.mark.long
def test_one_that_does_not_stay_up_is_a_warning(stack):
    """It was started, and a minute later it does not run."""
    (stack.tools / "docker.dead.bolt").touch()
    assert left_down(stack).startswith(
        "Container bolt did not resume (its state after 60 s: false"
    )


def test_a_run_that_is_killed_leaves_nobody_stopped(stack):
    """SIGKILL while one is stopped: it is started within seconds; the next run is whole."""
    real = shutil.which("cp")
    stack.tool("cp", f'touch "$0.begun"; sleep 5; exec {real} "$@"')
    run = stack.start(
        f"backup --runtag {TAG}", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until((stack.tools / "cp.begun").exists)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert calls(stack) == ["stop bolt"]
    until(lambda: calls(stack) == ["stop bolt", "start bolt"], 10)
    until(lambda: not [n for n in os.listdir(stack.folder / "backups") if "quiet" in n])
    (stack.tools / "cp").unlink()
    told = stack.run(f"backup --runtag {TAG}")
    assert told.returncode == 0, told.stderr
    assert contents(stack)["./volumes/bolt/data"] == b"whole\n"


def test_paths_within_one_another_are_copied_once():
    """Services that share folders are stopped together."""
    found = merged(
        [
            AtRest(("a",), ("volumes/a",)),
            AtRest(("b",), ("volumes/b", "volumes/ab")),
            AtRest(("c",), ("volumes/a/c", "volumes/c")),
        ]
    )
    assert found == (
        AtRest(("b",), ("volumes/ab", "volumes/b")),
        AtRest(("a", "c"), ("volumes/a", "volumes/c")),
    )


def test_what_does_not_fit_stops_nobody(tmp_path, monkeypatch):
    """The room is looked for before, and told in numbers."""
    (tmp_path / "volumes/x").mkdir(parents=True)
    (tmp_path / "volumes/x/data").write_bytes(bytes(100_000))
    (tmp_path / "backups/.copies").mkdir(parents=True)
    context = PlainContext({"pi": LocalHost(str(tmp_path))})
    copies = f"{tmp_path}/backups/.copies"
    copy = CopyAtRest(
        HostAccess("pi", guard=f"{tmp_path}/guard"), str(tmp_path), ("volumes/x",), copies
    )
    CheckSpace(copy).do(context)
    monkeypatch.setattr(at_rest, "FREE_BYTES", 1 << 60)
    with pytest.raises(StepFailed, match=r"needs 1\d\d,\d\d\d bytes .* No container was stopped"):
        CheckSpace(copy).do(context)
