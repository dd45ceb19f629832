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
from saboteur import Saboteur, Scene, differing
from stand_machine import wait_for

FULL = os.environ.get("IOTSTACK_FULL_SWEEP") == "1"
GOOD, FAILED, NOT_FOUND = 0, 1, 10
LATE_S = 0.7
"""How long a command of a dead run goes on while the next command waits for it."""

WAYS = {
    # way: (how the call goes, what is done to the tool, whether the stopped call then acts)
    "fail before": ("fail before", "", False),
    "fail after": ("fail after", "", False),
    "kill before": ("stop before", "kill", False),
    "kill after": ("stop after", "kill", True),
    "kill and act late": ("stop before", "kill", True),
    "cut before": ("stop before", "cut", False),
    "cut after": ("stop after", "cut", True),
    "cut and act late": ("stop before", "cut", True),
}
MAY_FAIL = "docker rm --force"
"""What clears the way, and is not there in a good case: without it the restore goes on."""
EVERY = {"fail after", "kill before"}
LOCAL = [way for way in WAYS if "cut" not in way]


class Sweep:
    """A scene with a saboteur on its target, its old state, and its new one."""

    def __init__(self, scene, saboteur):
        self.scene, self.saboteur = scene, saboteur
        saboteur.disarm()
        assert scene.run("restore")[0] == GOOD
        self.calls = [line.split(" ", 1)[1] for line in saboteur.calls()]
        self.new = scene.look()
        assert self.new["points"] == scene.new_points
        assert scene.run("undo")[0] == GOOD
        self.assert_old()
        scene.clear()

    def assert_old(self):
        """Everything is as it was before."""
        assert differing(self.scene.old, self.scene.look()) == {}

    def assert_new(self):
        """Everything is as the backup has it, and what the backup does not hold stays."""
        assert differing(self.new, self.scene.look()) == {}

    def meet(self, number, way, follow="undo"):
        """Do a restore that meets a fault at a call, and what follows; the end is whole."""
        how, blow, act = WAYS[way]
        self.saboteur.arm(number, how)
        process = self.scene.start("restore")
        if blow:
            wait_for(
                f"call {number}",
                lambda: self.saboteur.reached() or process.poll() is not None,
                timeout=60,
                pause=0.01,
            )
            if blow == "kill":
                process.send_signal(signal.SIGKILL)
                process.wait()
            else:
                self.scene.cut()
            self._release(way, process, act)
        code, said = self.scene.end(process)
        if code == GOOD and self.calls[number - 1].startswith(MAY_FAIL):
            self.assert_new()
            self._follow("undo")
            self.scene.clear()
            return
        self.assert_met(way, code, said)
        if blow == "kill":
            self._follow(follow)
        left = self.scene.leftovers()
        if "late" in way and number < self.first_of_switch:  # the next restore removes it
            left = [each for each in left if not each.endswith(".partial")]
        assert left == []

    @property
    def first_of_switch(self):
        """The number of the first call after staging."""
        return 1 + next(n for n, call in enumerate(self.calls) if "restore/previous-" in call)

    def _release(self, way, process, act):
        if "late" in way:
            follower = None if "cut" in way else self.scene.start("undo")
            with contextlib.suppress(subprocess.TimeoutExpired):  # it waits, as it must
                (follower or process).wait(timeout=LATE_S)
            self.saboteur.release(act)
            if follower:
                code, said = self.scene.end(follower)
                assert code in {GOOD, NOT_FOUND}, said
        else:
            self.saboteur.release(act)

    def assert_met(self, way, code, said):
        """A run that was not killed undid everything by itself, says so, and exits non-zero."""
        if WAYS[way][1] == "kill":
            assert code == -signal.SIGKILL, said
            return
        assert code == FAILED, said
        assert "was not restored" in said, said
        whole = "The stack is as it was before." in said or "Nothing of the stack" in said
        assert whole, said
        self.assert_old()

    def _follow(self, task):
        """Do the next command of a person, which undoes what the dead run left."""
        code, said = self.scene.run(task)
        if task == "undo":
            assert code in {GOOD, NOT_FOUND}, said
        else:
            assert code == GOOD, said
            self.assert_new()
            code, said = self.scene.run("undo")
            assert code == GOOD, said
            self.assert_old()
            self.scene.clear()
        self.assert_old()

    def try_all(self, way, numbers):
        """Meet a fault at each of the calls; raise with all that ended badly."""
        bad = []
        for number in numbers:
            try:
                self.meet(number, way, follow=["undo", "undo", "restore"][number % 3])
            except Exception as error:  # noqa: BLE001 - the others are wanted as well
                bad.append(f"call {number} ({self.calls[number - 1][:80]}): {str(error)[:1500]}")
                self.saboteur.release(act=False)
                self.scene.renew()
            self.scene.clear()
        assert not bad, f"{way}: {len(bad)} of {len(numbers)}:\n" + "\n".join(bad)

    def numbers(self, way, step):
        """The calls at which a way is tried: all, or each so many, not the same for every way."""
        first = 1 + list(WAYS).index(way) % step
        return range(1 if FULL else first, len(self.calls) + 1, 1 if FULL else step)


@pytest.fixture(scope="module")
def here(pi):
    """A sweep of restores to this machine."""
    scene = Scene(pi, pi)
    with Saboteur(pi) as saboteur:
        yield Sweep(scene, saboteur)
    scene.away()


@pytest.fixture(scope="module")
def there(stand, pi):
    """A sweep of restores to another machine over SSH."""
    scene = Scene(pi, stand.add("faulty-pi", engine=True))
    with Saboteur(scene.target) as saboteur:
        yield Sweep(scene, saboteur)
    scene.away()


SAMPLES = [
    # where, way, words of the call at which it is met, what a person does then
    ("here", "kill before", "volumes/nodered", "undo"),
    ("here", "fail after", "influxd restore", ""),
    ("here", "kill after", "docker start", "restore"),
    ("there", "cut after", "docker stop", ""),
    ("there", "kill and act late", ".fresh", "undo"),
    ("there", "cut before", "docker start", ""),
]


@pytest.mark.parametrize(("where", "way", "words", "follow"), SAMPLES)
def test_sample(request, where, way, words, follow):
    """A fault of each kind, on either machine, ends in the old or the new stack."""
    sweep = request.getfixturevalue(where)
    sweep.meet(number_of(sweep, words), way, follow)
    sweep.scene.clear()


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


# Other ways to end early.

SWITCH = ("docker stop", "volumes/nodered", ".fresh", "influxd restore", "docker start")
"""Words of the calls at which the switch is stopped in some tests: one of each kind."""


def number_of(sweep, words):
    """The number of the first call with these words."""
    return next(n for n, call in enumerate(sweep.calls, 1) if words in call)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("where", ["here", "there"])
def test_stopped_during_the_switch(request, where, number):
    """A signal during the switch undoes all of it at once, with 128+n as the exit code."""
    sweep = request.getfixturevalue(where)
    scene, saboteur = sweep.scene, sweep.saboteur
    words = SWITCH[[signal.SIGINT, signal.SIGTERM, signal.SIGHUP].index(number) + 1]
    saboteur.arm(number_of(sweep, words), "stop before")
    process = scene.start("restore")
    wait_for("the call", saboteur.reached, timeout=60)
    process.send_signal(number)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=LATE_S)
    saboteur.release(act=True)
    code, said = scene.end(process)
    assert code == 128 + number, said
    assert "as it was before" in said
    sweep.assert_old()
    assert scene.leftovers() == []
    scene.clear()


@pytest.mark.long
@pytest.mark.parametrize("how", ["stop before", "stop after"])
def test_killed_while_it_undoes(here, how):
    """An undo that is killed three times in a row, each time further on, is still finished."""
    scene, saboteur = here.scene, here.saboteur
    saboteur.arm(len(here.calls), "stop after")
    process = scene.start("restore")
    for turn in range(4):
        wait_for("the call", saboteur.reached, timeout=60)
        process.send_signal(signal.SIGKILL)
        scene.end(process)
        saboteur.release(act=turn != 2)
        if turn < 3:
            saboteur.arm(2 + 2 * turn, how)
            process = scene.start("undo")
    assert scene.journal.exists()
    saboteur.disarm()
    code, said = scene.run("undo")
    assert code == GOOD, said
    here.assert_old()
    assert scene.leftovers() == []
    scene.clear()


@pytest.mark.long
@pytest.mark.parametrize(
    "torn",
    ['{"job": "restored", "step": "SwapIt', "\0" * 40, "{"],
    ids=["line", "zeros", "brace"],
)
def test_torn_journal(here, torn):
    """The last line of the journal, torn by a power cut, never acted; the others are undone."""
    scene, saboteur = here.scene, here.saboteur
    saboteur.arm(number_of(here, "influxd restore"), "stop before")
    process = scene.start("restore")
    wait_for("the call", saboteur.reached, timeout=60)
    process.send_signal(signal.SIGKILL)
    scene.end(process)
    saboteur.release(act=False)
    with scene.journal.open("a") as file:
        file.write(torn)
    code, said = scene.run("undo")
    assert code == GOOD, said
    here.assert_old()
    assert scene.leftovers() == []
    scene.clear()


@pytest.mark.long
def test_killed_at_any_time(here):
    """A kill at a random moment, also between two commands, ends in the old stack or the new."""
    chance = random.Random(3)  # noqa: S311
    scene = here.scene
    here.saboteur.disarm()
    for _ in range(40 if FULL else 6):
        moment = chance.uniform(0.8, 6)
        process = scene.start("restore")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=moment)
        process.send_signal(signal.SIGKILL)
        code, said = scene.end(process)
        assert code in {GOOD, -signal.SIGKILL}, said
        was_journal = scene.journal.exists()
        if not was_journal:
            look = scene.look()
            assert differing(look, scene.old if look == scene.old else here.new) == {}, moment
        code, said = scene.run("undo")
        assert code in ({GOOD} if was_journal else {GOOD, NOT_FOUND}), said
        assert differing(scene.old, scene.look()) == {}, f"killed after {moment} s"
        scene.clear()


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
    scene = here.scene
    here.saboteur.disarm()
    with Saboteur(scene.target, "mv", _MV) as renames:
        renames.disarm()
        assert scene.run("restore")[0] == GOOD
        count = len(renames.calls())
        assert scene.run("undo")[0] == GOOD
        here.assert_old()
        scene.clear()
        assert count >= 8
        for number in range(1, count + 1, 1 if FULL else 3):
            for how in ("before", "after"):
                renames.arm(number, how)
                code, said = scene.run("restore")
                here.assert_met("fail after", code, said)
                assert scene.leftovers() == [], (number, how)
                scene.clear()


@pytest.mark.long
def test_commit_whose_answer_is_lost(there):
    """A line that breaks just as the restore is committed leaves the old stack or the new."""
    scene = there.scene
    there.saboteur.disarm()
    script = _MV.replace("kill -KILL $PPID", "touch $here/reached; sleep 3; exit 0").replace(
        '[ "$count" = "$at" ]', 'case "$*" in *previous*/journal) true;; *) false;; esac'
    )
    with Saboteur(scene.target, "mv", script) as renames:
        renames.arm(1, "after")
        process = scene.start("restore")
        wait_for("the commit", renames.reached, timeout=60)
        scene.cut()
        code, said = scene.end(process)
        renames.disarm()
    assert code == FAILED, said
    assert "was not restored" in said
    there.assert_old()
    assert scene.leftovers() == []
    code, said = scene.run("undo")
    assert code == NOT_FOUND, said
    there.assert_old()
    scene.clear()


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
    scene, backups = here.scene, here.scene.top / "backups"
    here.saboteur.disarm()
    influx, manifest = backups / "t1.influx-backup.tar", backups / "t1.manifest.json"
    with other_file(influx, with_damaged_shard), other_file(manifest, lambda _: None):
        code, said = scene.run("restore")
    assert "damaged" in said
    assert "Nothing of the stack was touched" in said
    here.assert_met("fail after", code, said)
    assert not any("docker stop" in call for call in here.saboteur.calls())
    assert scene.leftovers() == []
    scene.clear()


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
    scene, saboteur = here.scene, here.saboteur
    saboteur.arm(number_of(here, "influxd restore"), "stop before")
    process = scene.start("restore")
    wait_for("the call", saboteur.reached, timeout=60)
    name = next(
        w for w in here.calls[number_of(here, "influxd restore") - 1].split() if "influx" in w
    )
    script = f'#!/bin/sh\n[ "$1" = restore ] || exec influxd.real "$@"\n{LIES[what]}\n'
    put = "cd /usr/bin && mv influxd influxd.real && cat > influxd && chmod 755 influxd"
    scene.target.run(["docker", "exec", "-i", name, "sh", "-c", put], input=script)
    saboteur.release(act=True)
    code, said = scene.end(process)
    here.assert_met("fail after", code, said)
    assert scene.leftovers() == []
    scene.clear()
