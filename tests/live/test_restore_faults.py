"""A restore that fails, is killed or loses its line at any command leaves the old or the new stack.

Six of them are tried each time, some more of each way by `inv test --long`, and every way at
every command with IOTSTACK_FULL_SWEEP=1.
"""

import contextlib
import gzip
import io
import os
import random
import signal
import subprocess
import tarfile

import pytest
from saboteur import WAITING, Saboteur, Scene, differing
from stand_machine import USER, wait_for
from sweep import EVERY, FAILED, FULL, GOOD, LATE_S, LOCAL, NOT_FOUND, WARNED, WAYS, Sweep


@pytest.fixture(scope="module")
def here(pi):
    """A sweep of restores to this machine."""
    context = Scene(pi, pi)
    with Saboteur(pi) as saboteur:
        sweep = Sweep(context, saboteur)
        assert context.is_restored(sweep.new)
        yield sweep
    context.away()


@pytest.fixture(scope="module")
def there(stand, pi):
    """A sweep of restores to another machine over SSH."""
    context = Scene(pi, stand.add("faulty-pi", engine=True))
    with Saboteur(context.target) as saboteur:
        yield Sweep(context, saboteur)
    context.away()


SAMPLES = [
    # where, way, words of the call at which it is met, what a person does then
    ("here", "kill before", "volumes/nodered", "undo"),
    pytest.param("here", "fail after", "influxd restore", "", marks=pytest.mark.long),
    pytest.param("here", "kill after", "docker start", "restore", marks=pytest.mark.long),
    ("there", "cut after", "docker stop", ""),
    ("there", "kill and act late", ".fresh", "undo"),
    pytest.param("there", "cut before", "docker start", "", marks=pytest.mark.long),
]


@pytest.mark.parametrize(("where", "way", "words", "follow"), SAMPLES)
def test_sample(request, where, way, words, follow):
    """A fault of each kind, on either machine, ends in the old or the new stack."""
    sweep = request.getfixturevalue(where)
    sweep.meet(sweep.number_of(words), way, follow)
    sweep.context.clear()


@pytest.mark.long
@pytest.mark.parametrize("way", LOCAL)
def test_here(here, way):
    """A fault at any command that changes this machine ends in the old or the new stack."""
    here.try_all(way, here.numbers(way, 1 if way in EVERY else 5))


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_there(there, way):
    """A fault at any command that changes another machine ends in the old or the new stack."""
    there.try_all(way, there.numbers(way, 6))


@pytest.mark.long
@pytest.mark.parametrize("way", LOCAL)
def test_undo_here(here, way):
    """A fault at any command of an undo leaves what the next undo finishes."""
    here.try_undo(way, here.numbers(way, 9, here.undo_calls))


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_undo_there(there, way):
    """A fault at any command of an undo of another machine leaves what the next undo finishes."""
    there.try_undo(way, there.numbers(way, 9, there.undo_calls))


# Other ways to end early.

SWITCH = ("docker stop", "volumes/nodered", ".fresh", "influxd restore", "docker start")
"""Words of the calls at which the switch is stopped in some tests: one of each kind."""


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("where", ["here", "there"])
def test_stopped_during_the_switch(request, where, number):
    """A signal during the switch undoes all of it at once, with 128+n as the exit code."""
    sweep = request.getfixturevalue(where)
    context, saboteur = sweep.context, sweep.saboteur
    words = SWITCH[[signal.SIGINT, signal.SIGTERM, signal.SIGHUP].index(number) + 1]
    saboteur.arm(sweep.number_of(words), "stop before")
    process = context.start("restore")
    wait_for("the call", saboteur.reached, timeout=60)
    process.send_signal(number)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=LATE_S)
    saboteur.release(act=True)
    code, said = context.end(process)
    assert code == 128 + number, said
    assert "The stack is in its previous state." in said
    sweep.assert_old()
    assert context.leftovers() == []
    context.clear()


@pytest.mark.long
@pytest.mark.parametrize("how", ["stop before", "stop after"])
def test_killed_while_it_undoes(here, how):
    """An undo that is killed three times in a row, each time further on, is still finished."""
    context, saboteur = here.context, here.saboteur
    saboteur.arm(len(here.calls), "stop after")
    process = context.start("restore")
    for turn in range(4):
        wait_for("the call", saboteur.reached, timeout=60)
        process.send_signal(signal.SIGKILL)
        context.end(process)
        saboteur.release(act=turn != 2)
        if turn < 3:
            saboteur.arm(2 + 2 * turn, how)
            process = context.start("undo")
    assert context.journal.exists()
    saboteur.disarm()
    code, said = context.run("undo")
    assert code == GOOD, said
    here.assert_old()
    assert context.leftovers() == []
    context.clear()


@pytest.mark.long
@pytest.mark.parametrize(
    "torn",
    ['{"job": "restored", "step": "SwapIt', "\0" * 40, "{"],
    ids=["line", "zeros", "brace"],
)
def test_torn_journal(here, torn):
    """The last line of the journal, torn by a power cut, never acted; the others are undone."""
    context, saboteur = here.context, here.saboteur
    saboteur.arm(here.number_of("influxd restore"), "stop before")
    process = context.start("restore")
    wait_for("the call", saboteur.reached, timeout=60)
    process.send_signal(signal.SIGKILL)
    context.end(process)
    saboteur.release(act=False)
    with context.journal.open("a") as file:
        file.write(torn)
    code, said = context.run("undo")
    assert code == GOOD, said
    here.assert_old()
    assert context.leftovers() == []
    context.clear()


@pytest.mark.long
def test_killed_at_any_time(here):
    """A kill at a random moment, also between two commands, ends in the old stack or the new."""
    chance = random.Random(3)  # noqa: S311
    context = here.context
    here.saboteur.disarm()
    for _ in range(40 if FULL else 6):
        moment = chance.uniform(0.8, 6)
        process = context.start("restore")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=moment)
        process.send_signal(signal.SIGKILL)
        code, said = context.end(process)
        assert code in {GOOD, -signal.SIGKILL}, said
        was_journal = context.journal.exists()
        if not was_journal:
            look = context.look()
            assert differing(look, context.old if look == context.old else here.new) == {}, moment
        code, said = context.run("undo")
        assert code in ({GOOD} if was_journal else {GOOD, NOT_FOUND}), said
        assert differing(context.old, context.look()) == {}, f"killed after {moment} s"
        context.clear()


# A step that is done by half: the renames of a swap, one by one.

_MV = """#!/bin/sh
here={here}
count=$(($(cat $here/count) + 1)); echo $count > $here/count
echo "$*" >> $here/calls
read -r at how < $here/plan
[ "$count" = "$at" ] || exec $here/real "$@"
[ "$how" = before ] || $here/real "$@"
kill -KILL $PPID
exit 1
"""


@pytest.mark.long
def test_half_a_swap(here):
    """A swap whose script is killed before or after any one of its renames is undone."""
    context = here.context
    here.saboteur.disarm()
    with Saboteur(context.target, "mv", _MV) as renames:
        renames.disarm()
        assert context.run("restore")[0] == GOOD
        count = len(renames.calls())
        assert context.run("undo")[0] == GOOD
        here.assert_old()
        context.clear()
        assert count >= 8
        for number in range(1, count + 1, 1 if FULL else 3):
            for how in ("before", "after"):
                renames.arm(number, how)
                code, said = context.run("restore")
                here.assert_met("fail after", code, said)
                assert context.leftovers() == [], (number, how)
                context.clear()


_MV_OF_COMMIT = _MV.replace("kill -KILL $PPID", "touch $here/reached; sleep 3; exit 0").replace(
    '[ "$count" = "$at" ]', 'case "$*" in *previous*/journal) true;; *) false;; esac'
)


@pytest.mark.long
def test_commit_whose_answer_is_lost(there):
    """A line that breaks just as the restore is committed leaves the old stack or the new."""
    context = there.context
    there.saboteur.disarm()
    with Saboteur(context.target, "mv", _MV_OF_COMMIT) as renames:
        renames.arm(1, "after")
        process = context.start("restore")
        wait_for("the commit", renames.reached, timeout=60)
        context.cut()
        code, said = context.end(process)
        renames.disarm()
    assert code == FAILED, said
    assert "was not restored" in said
    there.assert_old()
    assert context.leftovers() == []
    code, said = context.run("undo")
    assert code == NOT_FOUND, said
    there.assert_old()
    context.clear()


@pytest.mark.long
def test_commit_whose_answer_is_lost_while_another_takes_the_lock(there):
    """Nothing can be undone then: what was committed stands, and is told as that."""
    context = there.context
    there.saboteur.disarm()
    with Saboteur(context.target, "mv", _MV_OF_COMMIT) as renames:
        renames.arm(1, "after")
        process = context.start("restore")
        wait_for("the commit", renames.reached, timeout=120)
        lock = context.top / "backups/.lock"
        other = context.target.popen(["flock", lock, "sleep", "600"], user=USER)
        context.cut()
        code, said = context.end(process)
        other.end()
        renames.disarm()
    assert code == WARNED, said
    assert "t1 is restored, but a later step failed: It ended early" in said
    assert "another run is active on this stack. Wait until it ends," in said
    assert "not restored" not in said
    there.assert_new()
    code, said = context.run("undo")
    assert code == GOOD, said
    there.assert_old()
    context.clear()


# After the commit.

FILLED = """
[{prefix}hooks]
after_restore = [["sh", "-c", "cat /dev/zero > {fill}; seq 2000"]]
"""
CLEARING = WAITING.replace(
    "touch",
    'case "$*" in "-rf -- "*/restore/t1" "*) [ -e "$3/stack" ] ;; *) false ;; esac || exec {here}/real "$@"\ntouch',
    1,
)
"""A program that waits where it removes what was staged."""


@contextlib.contextmanager
def hooked(context, text):
    """Let the settings of a scene end with more while the block runs."""
    before = context.settings.read_text()
    context.settings.write_text(before + text)
    try:
        yield
    finally:
        context.settings.write_text(before)


def test_a_line_cut_after_the_commit(there):
    """It is restored, and says so; what could not be removed is named, and the hooks run."""
    context = there.context
    there.saboteur.disarm()
    mark = context.target.home_of(USER) / "hooked"
    mark.unlink(missing_ok=True)
    hook = FILLED.format(prefix="hosts.", fill=mark).replace("cat /dev/zero >", "touch")
    with hooked(context, hook), Saboteur(context.target, "rm", CLEARING) as removing:
        process = context.start("restore")
        wait_for("the removal of the stage", removing.reached, timeout=120)
        context.cut()
        (removing.folder / "go").touch()
        code, said = context.end(process)
    assert code == WARNED, said
    assert "t1 is restored; the stack was unavailable for" in said
    assert "t1 is restored, but a later step failed: Could not remove all of" in said
    assert "not restored" not in said
    assert mark.exists()
    there.assert_new()
    assert context.run("undo")[0] == GOOD
    there.assert_old()
    context.clear()


def test_a_disk_that_is_full_after_the_commit(here):
    """It is restored, and says so, though its log could not be written to its end."""
    context, backups = here.context, here.context.top / "backups"
    here.saboteur.disarm()
    run, kept = context.target.run, context.top / "kept"
    run(["sh", "-c", f"mkdir {kept} && cp -a {backups}/t1.* {kept}"])
    run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700,uid=1000,gid=1000", "tmpfs", backups])
    try:
        run(["sh", "-c", f"mv {kept}/t1.* {backups} && rmdir {kept}"])
        with hooked(context, FILLED.format(prefix="", fill=backups / "films")):
            code, said = context.run("restore")
    finally:
        run(["umount", backups])
    assert code == WARNED, said
    assert "t1 is restored; the stack was unavailable for" in said
    assert (
        "t1 is restored, but a later step failed: Its log is incomplete: No space left on device"
    ) in said
    here.assert_new()
    assert context.run("undo")[0] == GOOD
    here.assert_old()
    context.clear()


# InfluxDB and containers.


@contextlib.contextmanager
def other_file(path, change):
    """A file that was changed while the block runs."""
    content = path.read_bytes()
    changed = change(content)
    path.unlink() if changed is None else path.write_bytes(changed)
    try:
        yield
    finally:
        path.write_bytes(content)
        os.chown(path, 1000, 1000)


def with_damaged_shard(content):
    """A dump with one byte of a block changed, all its wrappings made anew."""
    new = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(content)) as old,
        tarfile.open(fileobj=new, mode="w", format=tarfile.GNU_FORMAT) as made,
    ):
        for member in old:
            data = old.extractfile(member).read() if member.isreg() else b""
            if member.name.endswith(".tar.gz"):
                inner = bytearray(gzip.decompress(data))
                inner[512 + 20] ^= 0xFF
                data = gzip.compress(bytes(inner))
                member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return new.getvalue()


def test_damaged_shard(here):
    """A shard with a wrong block, in a dump whose hashes nobody knows, is found before the switch."""
    context, backups = here.context, here.context.top / "backups"
    here.saboteur.disarm()
    influx, manifest = backups / "t1.influx-backup.tar", backups / "t1.manifest.json"
    with other_file(influx, with_damaged_shard), other_file(manifest, lambda _: None):
        code, said = context.run("restore")
    assert "damaged" in said
    assert "The stack was not changed." in said
    here.assert_met("fail after", code, said)
    assert not any("docker stop" in call for call in here.saboteur.calls())
    assert context.leftovers() == []
    context.clear()


LIES = {
    "it fails": "echo 'restore: mkdir: no space left on device' >&2; exit 1",
    "it says nothing": "exit 0",
    "it is killed": "kill -9 $$",
    "the server is killed": "kill -9 1; kill -TERM 1; sleep 20; exit 0",
}


@pytest.mark.long
@pytest.mark.parametrize("what", LIES)
def test_load_that_fails(here, what):
    """A dump that InfluxDB does not take, or only says that it took, leads back to the old."""
    context, saboteur = here.context, here.saboteur
    saboteur.arm(here.number_of("influxd restore"), "stop before")
    process = context.start("restore")
    wait_for("the call", saboteur.reached, timeout=60)
    name = next(
        w for w in here.calls[here.number_of("influxd restore") - 1].split() if "influx" in w
    )
    script = f'#!/bin/sh\n[ "$1" = restore ] || exec influxd.real "$@"\n{LIES[what]}\n'
    put = "cd /usr/bin && mv influxd influxd.real && cat > influxd && chmod 755 influxd"
    context.target.run(["docker", "exec", "-i", name, "sh", "-c", put], input=script)
    saboteur.release(act=True)
    code, said = context.end(process)
    here.assert_met("fail after", code, said)
    assert context.leftovers() == []
    context.clear()
