"""A restore that a signal meets at any moment, and the one after it, which must be whole.

A dozen moments by `inv test --long`, as many as are wanted with IOTSTACK_SIGNALS=1000.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

NAMES = ("nodered", "mosquitto", "zigbee2mqtt")
FILES = 40
RESTORE = "restore --runtag t1 --from here --yes"
ONLY = f"{RESTORE} --only nodered"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
COUNT = int(os.environ.get("IOTSTACK_SIGNALS", "12"))
SEED = int(os.environ.get("IOTSTACK_SWEEP_SEED", "16"))
WHOLE = {0, 3}


def put(stack, value):
    """Let every file hold a value."""
    for name in NAMES:
        folder = stack.folder / "volumes" / name
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "deep").mkdir(parents=True)
        for number in range(FILES):
            (folder / "deep" / f"{number}.json").write_text(f"{value}")


def live(stack, name):
    """Return which values a folder holds, and in how many files."""
    files = list((stack.folder / "volumes" / name).rglob("*.json"))
    return {each.read_text() for each in files}, len(files)


def whole(value):
    return {f"{value}"}, FILES


def tidied(stack):
    """Remove what restores keep, which is of no use here."""
    for each in (stack.folder / "restore").glob("previous-*"):
        shutil.rmtree(each)
    for each in (stack.folder / "backups").glob("*.restore-*"):
        each.unlink()


def stopped(stack, chance, longest_s):
    """Let a restore be met by a signal at some moment; return its line, and what it said."""
    line = chance.choice((RESTORE, ONLY))
    process = stack.start(line)
    # Half of the moments are of its last part, where it commits and tidies up.
    begin_s = chance.choice((0, 0.6 * longest_s))
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=chance.uniform(begin_s, 1.1 * longest_s))
    process.send_signal(chance.choice(SIGNALS))
    out, err = process.communicate(timeout=300)
    return line, process.returncode, out + err


@pytest.mark.long
def test_what_follows_a_signal_is_whole(little_stack):
    """After a signal all is old or new; the restore after it restores every file, or says no."""
    chance = random.Random(SEED)  # noqa: S311
    put(little_stack, 0)
    assert little_stack.run("backup --runtag t1").returncode == 0
    put(little_stack, 1)
    started = time.monotonic()
    process = little_stack.start(RESTORE)
    process.communicate(timeout=300)
    assert process.returncode == 0
    longest_s = time.monotonic() - started
    codes = dict.fromkeys((0, 1, 130, 143, -9), 0)
    for turn in range(1, COUNT + 1):
        put(little_stack, turn)
        line, code, said = stopped(little_stack, chance, longest_s)
        codes[code] = codes.get(code, 0) + 1
        where = f"turn {turn}, {line}: exit {code}: {said}"
        named = NAMES if line == RESTORE else NAMES[:1]
        if not (little_stack.folder / "restore/.journal").exists():
            states = {str(live(little_stack, each)) for each in named}
            assert states in ({str(whole(0))}, {str(whole(turn))}), where
            is_new = live(little_stack, "nodered") == whole(0)
            assert code < 0 or is_new == ("is restored" in said), where
        line = chance.choice((RESTORE, ONLY))
        told = little_stack.run(line)
        where += f"; then {line}: exit {told.returncode}: {told.stdout}{told.stderr}"
        assert told.returncode in WHOLE, where
        for each in NAMES if line == RESTORE else NAMES[:1]:
            assert live(little_stack, each) == whole(0), where
        assert not (little_stack.folder / "restore/t1").exists(), where
        tidied(little_stack)
    print(f"{COUNT} signals in restores of {longest_s:.1f} s, which ended with {codes}")
