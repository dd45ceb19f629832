"""A fault at any one of the commands that change a stack, and what must be there afterwards."""

import contextlib
import os
import signal
import subprocess
from collections import Counter

from saboteur import differing
from stand_machine import wait_for

FULL = os.environ.get("IOTSTACK_FULL_SWEEP") == "1"
GOOD, FAILED, WARNED, NOT_FOUND = 0, 1, 3, 10
UNDONE = (
    "The stack is in its previous state.",
    "The stack was not changed.",
    "InfluxDB is in its previous state.",
)
"""What a run says that failed and undid everything."""
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
MAY_FAIL = ("docker rm --force", "docker start")
"""What clears the way, and is not there in a good case; and what is judged by what is up then."""
MAY_STAY = "-type d -empty -delete "
"""What removes empty folders at the end of an undo."""
EVERY = {"fail after", "kill before"}
LOCAL = [way for way in WAYS if "cut" not in way]


class Sweep:
    """A scene with a saboteur on its target, its old state, and the new one after a task."""

    def __init__(self, context, saboteur, task="restore"):
        self.context, self.saboteur, self.task = context, saboteur, task
        saboteur.disarm()
        code, said = context.run(task)
        assert code == GOOD, said
        self.calls = [line.split(" ", 1)[1] for line in saboteur.calls()]
        self.new = context.look()
        saboteur.disarm()
        assert context.run("undo")[0] == GOOD
        self.undo_calls = [line.split(" ", 1)[1] for line in saboteur.calls()]
        self.assert_old()
        context.clear()

    def assert_old(self):
        """Everything is as it was before."""
        assert differing(self.context.old, self.context.look()) == {}

    def assert_new(self):
        """Everything is as it is after a good run."""
        assert differing(self.new, self.context.look()) == {}

    def meet(self, number, way, follow="undo"):
        """Do the task so that it meets a fault at a call, and what follows; the end is whole.

        Return whether the old or the new stack was there once the task had ended.
        """
        blow = WAYS[way][1]
        code, said = self._struck(self.task, number, way)
        if code == GOOD and self.calls[number - 1].startswith(MAY_FAIL):
            self.assert_new()
            self._follow("undo")
            self.context.clear()
            return "new"
        self.assert_met(way, code, said)
        if blow == "kill":
            self._follow(follow)
        left = self.context.leftovers()
        if "late" in way and number < self.first_of_switch:  # the next restore removes it
            left = [each for each in left if not each.endswith(".partial")]
        if self.task == "reload-influxdb" and number >= self.last_of_switch:
            left = [each for each in left if not each.endswith("-undone")]  # was live for a moment
        assert left == []
        return "old"

    def _struck(self, task, number, way):
        """Do a task that meets a fault at a call; return its exit code and what it said."""
        how, blow, act = WAYS[way]
        self.saboteur.arm(number, how)
        process = self.context.start(task)
        if blow:
            wait_for(
                f"call {number}",
                lambda: self.saboteur.reached() or process.poll() is not None,
                timeout=120,
                pause=0.01,
            )
            if blow == "kill":
                process.send_signal(signal.SIGKILL)
                process.wait()
            else:
                self.context.cut()
            self._release(way, process, act)
        return self.context.end(process)

    def meet_in_undo(self, number, way):
        """Let the undo of a task that went well meet a fault; the next one goes all the way."""
        self.saboteur.disarm()
        code, said = self.context.run(self.task)
        assert code == GOOD, said
        code, said = self._struck("undo", number, way)
        if WAYS[way][1] == "kill":
            assert code == -signal.SIGKILL, said
        elif code == WARNED:  # what cannot be started is named, and holds nothing up
            assert "docker start" in self.undo_calls[number - 1], said
            assert "Container influxdb did not" in said, said
            self.context.target.run(["docker", "start", *self.context.containers])
        elif code == GOOD:
            call = self.undo_calls[number - 1]  # what only said that it failed, and did it all
            assert call.endswith(MAY_STAY) or call.startswith("docker start"), said
            self.assert_old()
        else:
            assert code == FAILED, said
            assert "inv undo" in said or "next run" in said, said
            assert "Undone." not in said, said
        self.saboteur.disarm()
        owed = self.context.journal.exists()
        self._follow("undo")
        assert self.context.journal.exists() is False
        self.context.clear()
        return "finished by the next" if owed else "old"

    @property
    def last_of_switch(self):
        """The number of the last swap."""
        return max(n for n, call in enumerate(self.calls, 1) if "staged=$2" in call)

    @property
    def first_of_switch(self):
        """The number of the first call after staging."""
        return 1 + next(n for n, call in enumerate(self.calls) if "restore/previous-" in call)

    def _release(self, way, process, act):
        if "late" in way:
            follower = None if "cut" in way else self.context.start("undo")
            with contextlib.suppress(subprocess.TimeoutExpired):  # it waits, as it must
                (follower or process).wait(timeout=LATE_S)
            self.saboteur.release(act)
            if follower:
                code, said = self.context.end(follower)
                assert code in {GOOD, NOT_FOUND}, said
        else:
            self.saboteur.release(act)

    def assert_met(self, way, code, said):
        """A run that was not killed undid everything by itself, says so, and exits non-zero."""
        if WAYS[way][1] == "kill":
            assert code == -signal.SIGKILL, said
            return
        assert code == FAILED, said
        assert "was not re" in said, said
        assert any(words in said for words in UNDONE), said
        self.assert_old()

    def _follow(self, task):
        """Do the next command of a person, which undoes what the dead run left."""
        code, said = self.context.run(task)
        if task == "undo":
            assert code in {GOOD, NOT_FOUND}, said
        else:
            assert code == GOOD, said
            self.assert_new()
            code, said = self.context.run("undo")
            assert code == GOOD, said
            self.assert_old()
            self.context.clear()
        self.assert_old()

    def try_all(self, way, numbers):
        """Meet a fault at each of the calls; raise with all that ended badly."""

        def meet(number):
            turn = (number + list(WAYS).index(way)) % 3  # another one for each way
            return self.meet(number, way, follow=["undo", "undo", self.task][turn])

        self._try(self.task, self.calls, way, numbers, meet)

    def try_undo(self, way, numbers):
        """Meet a fault at each of the calls of an undo; raise with all that ended badly."""

        def meet(number):
            return self.meet_in_undo(number, way)

        self._try(f"undo of {self.task}", self.undo_calls, way, numbers, meet)

    def _try(self, task, calls, way, numbers, meet):
        bad, ends = [], Counter()
        for number in numbers:
            try:
                ends[meet(number)] += 1
            except Exception as error:  # noqa: BLE001 - the others are wanted as well
                bad.append(f"call {number} ({calls[number - 1][:80]}): {str(error)[:1500]}")
                self.saboteur.release(act=False)
                self.context.renew()
            self.context.clear()
        print(f"{task}, {way}: {len(numbers)} of {len(calls)} calls, {dict(ends)}")
        assert not bad, f"{way}: {len(bad)} of {len(numbers)}:\n" + "\n".join(bad)

    def numbers(self, way, step, calls=None):
        """The calls at which a way is tried: all, or each so many, not the same for every way."""
        first = 1 + list(WAYS).index(way) % step
        count = len(calls or self.calls)
        return range(1 if FULL else first, count + 1, 1 if FULL else step)

    def number_of(self, words):
        """The number of the first call with these words."""
        return next(n for n, call in enumerate(self.calls, 1) if words in call)
