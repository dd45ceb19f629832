"""After the commit a restore is restored, whatever of the rest cannot be done."""

import json

import pytest
from scenes import until

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
    assert f"{TAG} is restored. Back to before: inv undo" in out
    assert f"{TAG} is restored, but afterwards: {words}" in err
    assert "not restored" not in err
    assert pi.seen.read_text() == "restored\n"
    assert code
    log = "".join(each.read_text() for each in (pi.folder / "backups").glob("*.restore-*"))
    assert f"{TAG} is restored" in log or words.startswith("Its log")


def test_a_stage_that_cannot_be_removed(pi):
    """The disk lets nothing go; the next restore looks at what is left."""
    stage = pi.folder / "restore" / TAG
    pi.tool("rm", CLEARING.replace("STAGE", str(stage)).replace("ACT", "exit 1"))
    told = pi.run(RESTORE)
    words = f"Not all of {stage} was removed"
    assert_restored(pi, told.returncode, (told.stdout, told.stderr), words)
    assert told.returncode == 3
    (pi.tools / "rm").unlink()
    flows(pi).write_text("[2]\n")
    assert pi.run(RESTORE).returncode == 0
    assert flows(pi).read_text() == "[1]\n"


@pytest.mark.parametrize(
    ("tool", "script", "words"),
    [
        ("rm", CLEARING, "Not all of"),
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


def test_a_log_that_is_gone(pi):
    """Somebody tidied up in backups/ meanwhile, or its disk is full or read-only."""
    pi.tool("first", f"/bin/rm {pi.folder}/backups/*.log.partial")
    told = pi.run(RESTORE)
    words = "Its log was not finished"
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
    assert "The undo was stopped by SIGTERM. The way back is not finished" in err
    (pi.tools / "mv").unlink()
    assert pi.run("undo --yes").returncode == 0
    assert flows(pi).read_text() == "[2]\n"
