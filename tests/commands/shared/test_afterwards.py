"""After the commit a restore is restored, whatever of the rest cannot be done."""

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest
from contexts import until

from iotstack_invoke.commands.shared import afterwards
from iotstack_invoke.commands.shared.afterwards import Afterwards
from iotstack_invoke.core import processes as children
from iotstack_invoke.core.errors import ExitCode
from iotstack_invoke.core.processes import put_signals_off, signals_raised

TAG = "t1"
RESTORE = f"restore --runtag {TAG} --from here --yes"
CLEARING = """[ -d STAGE/stack ] && for each; do [ "$each" != STAGE ] || { ACT; }; done
exec /bin/rm "$@"
"""
"""What acts when all of the stage is removed, and not its marks."""


@pytest.fixture
def pi(little_stack):
    """A stack with a backup of [1], whose live file has [2], and two hooks after a restore."""
    pi = little_stack
    flows(pi).write_text("[1]\n")
    assert pi.run(f"backup --runtag {TAG}").returncode == 0
    flows(pi).write_text("[2]\n")
    pi.seen = pi.tools / "seen"
    pi.tool("first", "true")
    pi.tool("second", f'echo "$IOTSTACK_RESULT" >> {pi.seen}')
    hooks = [[str(pi.tools / each)] for each in ("first", "second")]
    with pi.settings.open("a") as stream:
        stream.write(f"[hooks]\nafter_restore = {json.dumps(hooks)}\n")
    return pi


def flows(pi):
    return pi.folder / "volumes/nodered/flows.json"


def assert_restored(pi, code, told, words):
    """It is restored, says so, names what is left, and the hooks were told."""
    out, err = told
    assert flows(pi).read_text() == "[1]\n"
    assert f"{TAG} is restored. To undo: inv undo" in out
    assert f"{TAG} is restored, but a later step failed: {words}" in err
    assert "not restored" not in err
    assert pi.seen.read_text() == "restored\n"
    assert code
    log = "".join(each.read_text() for each in (pi.folder / "backups").glob("*.restore-*"))
    assert f"{TAG} is restored" in log or words.startswith("Could not finish its log")


def test_a_stage_that_cannot_be_removed(pi):
    """The disk lets nothing go; the next restore looks at what is left."""
    stage = pi.folder / "restore" / TAG
    pi.tool("rm", CLEARING.replace("STAGE", str(stage)).replace("ACT", "exit 1"))
    told = pi.run(RESTORE)
    words = f"Could not remove all of {stage} (the next restore will)"
    assert_restored(pi, told.returncode, (told.stdout, told.stderr), words)
    assert told.returncode == 3
    (pi.tools / "rm").unlink()
    flows(pi).write_text("[2]\n")
    assert pi.run(RESTORE).returncode == 0
    assert flows(pi).read_text() == "[1]\n"


@pytest.mark.parametrize(
    ("tool", "script", "words"),
    [
        ("rm", CLEARING, "Could not remove all of"),
        ("first", "ACT", "A hook after it did not end: stopped by SIGTERM"),
    ],
)
def test_a_signal(pi, tool, script, words):
    """Whatever it meets is ended; what comes after that is done all the same."""
    reached = pi.tools / "reached"
    script = script.replace("STAGE", str(pi.folder / "restore" / TAG))
    pi.tool(tool, script.replace("ACT", f"echo x > {reached}; exec sleep 50"))
    process = pi.start(RESTORE)
    until(reached.exists)
    process.terminate()
    told = process.communicate(timeout=60)
    assert_restored(pi, process.returncode, told, words)
    assert process.returncode == 143


def all_pieces(number):
    """Do three pieces after a commit; a signal comes at the line of that number, if there is one."""
    done, lines = [], 0

    def trace(frame, event, _given):
        nonlocal lines
        if frame.f_code.co_filename not in (afterwards.__file__, children.__file__):
            return None
        if event == "line":
            lines += 1
            if lines == number:
                os.kill(os.getpid(), signal.SIGTERM)
        return trace

    with signals_raised():
        put_signals_off()
        after = Afterwards()
        sys.settrace(trace)
        try:
            for each in ("one", "two", "three"):
                after.do(each, lambda one=each: done.append(one), None)
            told = after.told()
            code = after.code(ExitCode.GOOD)
        finally:
            sys.settrace(None)
    return done, told, code, lines


def test_whatever_line_a_signal_meets_all_pieces_are_done():
    """But the one at work, which is named; the exit code tells of the signal."""
    done, told, code, lines = all_pieces(0)
    assert (done, told, code) == (["one", "two", "three"], (), 0)
    assert lines >= 30
    for number in range(1, lines + 1):
        done, told, code, _ = all_pieces(number)
        if not told:  # it came behind the last look: whoever called tells of it
            assert (len(done), code, number > lines - 5) == (3, 0, True), number
            continue
        assert (len(told), code) == (1, 143), number
        met = told[0].partition(": ")[0]
        assert {"one", "two", "three"} - {*done} <= {met}, number


SIGNALLED = """
import os, runpy, signal, sys

function = sys.argv.pop(1)

def look(frame, event, _given):
    if event == "call" and frame.f_code.co_qualname == function:
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGTERM)

sys.setprofile(look)
runpy.run_module("iotstack_invoke", run_name="__main__", alter_sys=True)
"""
"""The program, which a signal meets where it enters a function."""


@pytest.mark.parametrize("function", ["_Restore._good", "Afterwards.run_hooks", "Afterwards.told"])
def test_a_signal_between_two_pieces(pi, function):
    """Everything is done all the same, and the exit code tells of it."""
    told = signalled(pi, function)
    words = "It was stopped by SIGTERM; the remaining steps were still done"
    assert_restored(pi, told.returncode, (told.stdout, told.stderr), words)
    assert told.returncode == 143
    assert not (pi.folder / "restore" / TAG).exists()
    assert not list((pi.folder / "backups").glob("*.partial"))


def signalled(pi, function):
    """Restore, with a signal where a function is entered."""
    words = [sys.executable, "-c", SIGNALLED, function, *shlex.split(RESTORE)]
    return subprocess.run(
        words, env=pi.environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_signal_behind_the_last_word(pi):
    """Nothing says that it was not restored."""
    told = signalled(pi, "Afterwards.code")
    assert told.returncode == 143
    assert f"{TAG} is restored" in told.stdout
    assert told.stderr.strip() == "stopped by SIGTERM"


def test_a_log_that_is_gone(pi):
    """Somebody tidied up in backups/ meanwhile, or its disk is full or read-only."""
    pi.tool("first", f"/bin/rm {pi.folder}/backups/*.log.partial")
    told = pi.run(RESTORE)
    words = "Could not finish its log"
    assert_restored(pi, told.returncode, (told.stdout, told.stderr), words)
    assert told.returncode == 3


def test_a_signal_during_an_undo_tells_how_far_it_came(pi):
    """Before anything is put back nothing was changed; then the next undo goes on."""
    assert pi.run(RESTORE).returncode == 0
    reached = pi.tools / "reached"
    moved = 'case "$*" in *volumes/nodered*)'
    pi.tool("mv", f'{moved} echo x > {reached}; exec sleep 60 ;; esac; exec /bin/mv "$@"')
    process = pi.start("undo --last-restore --yes")
    until(reached.exists)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "The undo was stopped by SIGTERM. The rollback is incomplete" in err
    (pi.tools / "mv").unlink()
    assert pi.run("undo --yes").returncode == 0
    assert flows(pi).read_text() == "[2]\n"
