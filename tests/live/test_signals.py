"""A signal at any moment of a restore: old or new after it, whole after the next, old by undo.

Restores of all and of one service take turns; the service has a named volume. Two signals on each
machine by `inv test --long`, as many as are wanted with IOTSTACK_SIGNALS=100.
"""

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from saboteur import Scene, differing, tree
from sweep import GOOD, NOT_FOUND, WARNED

COUNT = int(os.environ.get("IOTSTACK_SIGNALS", "2"))
SEED = int(os.environ.get("IOTSTACK_SWEEP_SEED", "16"))
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
CUT = 0
ALL, ONE = (), ("--only", "nodered")
VOLUME = "iotstack_named"


class VolumeScene(Scene):
    """A stack whose nodered has a named volume beside its folder."""

    compose = f"""{Scene.compose.replace('/data"]', '/data", "named:/named"]', 1)}volumes:
  named: {{}}
"""

    def _fill_databases(self):
        super()._fill_databases()
        (self.volume / "kept").write_text("of the backup")
        os.chown(self.volume / "kept", 1000, 1000)

    def _change_databases(self):
        super()._change_databases()
        (self.volume / "kept").unlink()
        (self.volume / "since").write_text("came since")

    @property
    def volume(self):
        """The folder of the named volume."""
        asked = ["docker", "volume", "inspect", "--format", "{{.Mountpoint}}", VOLUME]
        return Path(self.target.run(asked).stdout.strip())

    def look(self):
        """What a user of the stack would find, and what is in the volume."""
        held = tree(self.volume, ())
        return {**super().look(), **{f"{VOLUME}/{name}": fact for name, fact in held.items()}}

    def restores(self):
        """How many restores could be taken back, one after the other."""
        return len([*self.top.glob("restore/previous-*/journal")])

    def away(self):
        """Remove the stack, and its volume."""
        super().away()
        self.target.run(["docker", "volume", "rm", VOLUME])


class Signals:
    """A scene, what it is like after a restore of all or of one, and how long these take."""

    def __init__(self, context):
        self.context, self.new, self.took_s = context, {}, {}
        self.ends = {}
        for which in (ALL, ONE):
            started = time.monotonic()
            code, said = context.run("restore", *which)
            assert code == GOOD, said
            self.took_s[which] = time.monotonic() - started
            self.new[which] = context.look()
            self.take_back(1)
        assert self.new[ALL] != self.new[ONE]

    def take_back(self, count):
        """Undo so many restores; all is old then, and what they kept is removed."""
        for _ in range(count):
            code, said = self.context.run("undo")
            assert code == GOOD, said
        assert differing(self.context.old, self.context.look()) == {}
        assert self.context.run("undo")[0] == NOT_FOUND
        self.context.clear()

    def meet(self, chance):
        """Let one restore be met by a signal, or by a cut; another follows, and all is undone."""
        context = self.context
        which, then = chance.choice((ALL, ONE)), chance.choice((ALL, ONE))
        blow = chance.choice((*SIGNALS, CUT) if context.over_ssh else SIGNALS)
        # Half of the moments are of its last part, where it commits and tidies up.
        first_s = chance.choice((0, 0.6))
        moment_s = chance.uniform(first_s, 1.1) * self.took_s[which]
        process = context.start("restore", *which)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=moment_s)
        if blow == CUT:
            context.cut()
        else:
            process.send_signal(blow)
        code, said = context.end(process)
        where = f"{which}, {blow} after {moment_s:.2f} s: exit {code}: {said}"
        if not context.journal.exists():
            self._assert_old_or_new(which, code, said, where)
        elif blow != CUT:  # a line that broke may leave it as well, and says so
            assert code == -signal.SIGKILL, where
        self.ends[code] = self.ends.get(code, 0) + 1
        code, said = context.run("restore", *then)
        where += f"; then {then}: exit {code}: {said}"
        assert code == GOOD or (code == WARNED and "Rolled back an interrupted run" in said), where
        count = context.restores()
        done = ALL if then == ALL or (which == ALL and count == 2) else ONE
        assert differing(self.new[done], context.look()) == {}, where
        left = [each for each in context.leftovers() if not each.startswith("restore/previous-")]
        assert left == [], where
        assert not (context.top / "restore/t1").exists(), where
        self.take_back(count)

    def _assert_old_or_new(self, which, code, said, where):
        found = self.context.look()
        is_new = self.context.restores() == 1
        wanted = self.new[which] if is_new else self.context.old
        assert differing(wanted, found) == {}, where
        assert code != GOOD or is_new, where
        if code >= 0:
            assert is_new == ("t1 is restored" in said), where


@pytest.fixture(params=["here", "there"])
def signals(request, stand, pi):
    """Signals to restores of this machine, or of another one over SSH."""
    target = pi if request.param == "here" else stand.add("signal-pi", engine=True)
    context = VolumeScene(pi, target)
    yield Signals(context)
    context.away()


@pytest.mark.long
def test_what_follows_a_signal_is_whole(signals):
    """After a signal all is old or new; the restore after it is whole; undo leads back to old."""
    chance = random.Random(SEED)  # noqa: S311
    for _ in range(COUNT):
        signals.meet(chance)
    print(f"{COUNT} signals in restores of {signals.took_s}, which ended with {signals.ends}")
