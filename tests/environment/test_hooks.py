"""The owner's programs before and after a task: in their turn, bounded, told, written down."""

import contextlib
import json
import os
import signal
import time

import pytest
from contexts import alive, until
from hook_settings import set_hooks

from iotstack_invoke.core.errors import Refused
from iotstack_invoke.environment import hooks
from iotstack_invoke.environment.hooks import HooksResult, Occasion
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.hosts.ssh import SshHost
from iotstack_invoke.hosts.ssh_connection import Login
from iotstack_invoke.reporting.report import Report
from iotstack_invoke.reporting.run_log import RunLog
from iotstack_invoke.settings.model import Hook
from iotstack_invoke.stack import hook_files

TAG = "2026-11-23_1100"


@pytest.fixture
def pi(little_stack):
    """A stack whose backup is written down by two hooks: what is there, and what they are told."""
    little_stack.backups = little_stack.folder / "backups"
    little_stack.seen = little_stack.folder.parent / "seen"
    little_stack.tool(
        "see",
        f'echo "$1 $IOTSTACK_RESULT" $(ls "$IOTSTACK_FOLDER/backups") >> {little_stack.seen}',
    )
    return little_stack


def may_fail(*words):
    return f"{{ run = {json.dumps(words)}, may_fail = true }}"


def log_of(pi, ending=""):
    return (pi.backups / f"{TAG}.backup-log.txt{ending}").read_text()


def seen(pi):
    """Return what each hook that saw was called, and how the run had gone by then."""
    return [line.split()[0:2] for line in pi.seen.read_text().splitlines()]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["sh", "-c", "cd ~/IOTstack && bash ./own.sh"], "own.sh"),
        (["sh", "-c", "cd $HOME/IOTstack; (bash own.sh)&"], "own.sh"),
        (["sh", "-c", "'unended ${IOTSTACK_FOLDER}/own.sh"], "own.sh"),
        (["bash", "/srv/real/duck/my own.sh", "-v"], "duck/my own.sh"),
        (["bash", "~/IOTstack/../IOTstack/own.sh"], "own.sh"),
    ],
)
def test_a_hook_may_name_what_lies_in_the_stack(words, named):
    """By a word, or a word of a shell's line."""
    assert named in hook_files.paths_named(words, ("/srv/real", "/home/pi/IOTstack"), "/home/pi")


def test_what_a_hook_names_elsewhere_is_not_of_the_stack():
    """Nor is its folder itself, or a text that is no name."""
    words = ("/usr/bin/true", "..", "/srv/real", "/srv/really/x", "x" * 2000, "a\n", "~/b")
    assert hook_files.paths_named(words, ("/srv/real",), "/home/pi") == ("a",)


def test_the_files_that_hooks_run_are_in_the_backup(pi):
    """They lie in the stack's folder, and nothing else of it uses them; no folder, nor what is excluded."""
    for name in ("post.sh", "pre.sh", "after.sh", "off.sh", "other.sh", "tools/x"):
        (pi.folder / name).parent.mkdir(exist_ok=True)
        (pi.folder / name).write_text("exit 0\n")
    with pi.settings.open("a") as settings:
        settings.write('[[stack.exclude]]\npath = "off.sh"\nreason = "old"\n')
    set_hooks(
        pi,
        before_backup=[["sh", f"{pi.folder}/pre.sh"]],
        after_backup=[["sh", "-c", "cd ~/IOTstack && sh ./post.sh && sh ./off.sh && ls tools"]],
        after_restore=[["sh", "-c", 'sh "$IOTSTACK_FOLDER"/after.sh']],
    )
    made = pi.run(f"backup --runtag {TAG}")
    assert made.returncode == 0, made.stderr
    manifest = json.loads((pi.backups / f"{TAG}.manifest.json").read_text())
    included = manifest["parts"]["general"]["facts"]["included"]
    assert included == ["after.sh", "post.sh", "pre.sh"]
    told = pi.run("services").stdout
    unused = {line.split(":")[0] for line in told.splitlines() if "not backed up" in line}
    assert unused == {"other.sh", "tools"}
    (pi.folder / "post.sh").unlink()
    made = pi.run(f"restore --runtag {TAG} --from here --yes")
    assert (made.returncode, (pi.folder / "post.sh").read_text()) == (0, "exit 0\n"), made.stderr


def test_hooks_have_their_turn(pi):
    """Hooks run in order: before the stack is looked at, and when the manifest is written."""
    (pi.folder / "docker-compose.yml").rename(pi.folder / "away")
    back = ["mv", str(pi.folder / "away"), str(pi.folder / "docker-compose.yml")]
    set_hooks(pi, before_backup=[back, ["see", "1"], ["see", "2"]], after_backup=[["see", "3"]])
    told = pi.run(f"backup --runtag {TAG}")
    assert told.returncode == 0, told.stderr
    assert (told.stdout, told.stderr) == ("", "")
    one, two, three = pi.seen.read_text().splitlines()
    partial_log = f"{TAG}.backup-log.txt.partial"
    assert one.split() == ["1", partial_log]
    assert two.split() == ["2", partial_log]
    records = f"{TAG}.unfinished.jsonl"
    archive, manifest = f"{TAG}.general-backup.tar.gz", f"{TAG}.manifest.json"
    text = f"{TAG}.RESTORE.txt"
    assert sorted(three.split()) == sorted(
        ["3", "complete", partial_log, archive, manifest, text, records]
    )


def test_hooks_are_told_of_the_run(pi):
    """Task, runtag and folder are in the environment, and for those after it the result."""
    script = "env | grep ^IOTSTACK_ | sort > $0"
    before, after = (pi.folder.parent / name for name in ("before", "after"))
    set_hooks(
        pi,
        before_backup=[["sh", "-c", script, str(before)]],
        after_backup=[["sh", "-c", script, str(after)]],
    )
    assert pi.run(f"backup --runtag {TAG}").returncode == 0
    common = [f"IOTSTACK_FOLDER={pi.folder}", f"IOTSTACK_RUNTAG={TAG}", "IOTSTACK_TASK=backup"]
    settings = f"IOTSTACK_SETTINGS={pi.settings}"
    assert before.read_text().split() == sorted([*common, settings])
    assert after.read_text().split() == sorted([*common, settings, "IOTSTACK_RESULT=complete"])


def test_no_shell_reads_the_words(pi):
    """Words reach the program as they are written, whatever a shell would make of them."""
    words = ["$HOME", "a  b", "*", "'", '"', "`id`", "; exit 3", "&&", "", "-x", "é"]
    out = pi.folder.parent / "out"
    pi.tool("show", f'printf "<%s>" "$@" > {out}')
    set_hooks(pi, before_backup=[["show", *words]])
    assert pi.run(f"backup --runtag {TAG}").returncode == 0
    assert out.read_text() == "".join(f"<{word}>" for word in words)


def test_what_hooks_say_is_in_the_log_alone(pi):
    """Each line of both streams stands in the log with its hook, and none on the terminal."""
    script = "echo hello; printf oops >&2"
    set_hooks(pi, before_backup=[["sh", "-c", script]], after_backup=[["echo", "bye"]])
    told = pi.run(f"backup --runtag {TAG}")
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
    lines = [line.split(" ", 2)[2] for line in log_of(pi).splitlines()]
    assert f"before_backup: $ sh -c '{script}'" in lines
    assert {"before_backup out: hello", "before_backup err: oops"} < set(lines)
    assert "after_backup out: bye" in lines
    assert not any("IOTSTACK_" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sh", "-c", "echo one; echo no room >&2; exit 3"], "exit 3: no room"),
        (["no-such-program"], "exit 127: env: "),
        (["/"], "exit 126: env: "),
        (["sh", "-c", "kill -KILL $$"], "killed by SIGKILL: no message"),
    ],
)
def test_a_failure_before_keeps_the_backup_from_being_begun(pi, words, told):
    """It is refused, with what the hook said last; no later hook before it runs, those after do."""
    set_hooks(pi, before_backup=[["see", "1"], words, ["see", "2"]], after_backup=[["see", "3"]])
    refused = pi.run(f"backup --runtag {TAG}")
    assert refused.returncode == 13
    assert "The backup did not start: before_backup `" in refused.stderr
    assert f"{words[0]}" in refused.stderr
    assert f"failed on this machine: {told}" in refused.stderr
    assert [line[0] for line in seen(pi)] == ["1", "3"]
    assert seen(pi)[1] == ["3", "failed"]
    assert {each.name for each in pi.backups.iterdir()} == {".commands", ".lock"}
    assert pi.run("list --json").stdout.strip() == "[]"


def test_the_log_of_a_set_outlives_a_refusal(pi):
    """A finished log stays as it is; that of an unfinished set is added to."""
    assert pi.run(f"backup --runtag {TAG}").returncode == 0
    finished = log_of(pi)
    set_hooks(pi, before_backup=[["false"]])
    assert pi.run(f"backup --runtag {TAG}").returncode == 13
    assert log_of(pi) == finished
    assert not list(pi.backups.glob("*.partial"))
    (pi.backups / f"{TAG}.manifest.json").unlink()
    (pi.backups / f"{TAG}.unfinished.jsonl").write_text("{}\n")
    (pi.backups / f"{TAG}.backup-log.txt").rename(pi.backups / f"{TAG}.backup-log.txt.partial")
    assert pi.run(f"backup --runtag {TAG}").returncode == 13
    assert log_of(pi, ".partial").startswith(finished)
    assert "before_backup: failed after" in log_of(pi, ".partial").removeprefix(finished)


def test_a_failure_after_says_that_the_backup_is_whole(pi):
    """All hooks after a backup run, and one that fails ends a good run with 1; the set is complete."""
    set_hooks(pi, after_backup=[["sh", "-c", "echo no line >&2; exit 3"], ["see", "2"]])
    told = pi.run(f"backup --runtag {TAG}")
    assert told.returncode == 1
    assert f"Backup {TAG} is complete, but a hook after it failed." in told.stderr
    assert "failed on this machine: exit 3: no line" in told.stderr
    assert seen(pi) == [["2", "complete"]]
    (listed,) = json.loads(pi.run("list --json").stdout)
    assert listed["here"] == "complete"
    assert not list(pi.backups.glob("*.unfinished.jsonl"))


@pytest.mark.parametrize("when", ["before_backup", "after_backup"])
def test_one_that_may_fail_is_a_warning(pi, when):
    """Its failure ends the run with 3; one before the backup is in the manifest as well."""
    set_hooks(pi, **{when: [may_fail("sh", "-c", "echo no >&2; exit 3"), ["see", "2"]]})
    told = pi.run(f"backup --runtag {TAG}")
    assert told.returncode == 3
    assert f"{when} `sh -c 'echo no >&2; exit 3'` failed on this machine: exit 3" in told.stderr
    manifest = json.loads((pi.backups / f"{TAG}.manifest.json").read_text())
    assert len(manifest["warnings"]) == (when == "before_backup")
    assert len(seen(pi)) == 1


@pytest.mark.parametrize(
    ("spoil", "result", "code"),
    [("no archive", "incomplete", 1), ("no copy", "warnings", 3), ("no stack", "failed", 13)],
)
def test_hooks_after_are_told_how_it_went(pi, spoil, result, code):
    """They run whatever happened: a part failed, a copy failed, or the backup was refused."""
    if spoil == "no archive":
        pi.tool("tar", "exit 2")
    if spoil == "no stack":
        (pi.folder / "docker-compose.yml").unlink()
        pi.backups.mkdir()
    if spoil == "no copy":
        with pi.settings.open("a") as stream:
            stream.write('[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "/no/such"\n')
    set_hooks(pi, after_backup=[["see", "1"]])
    assert pi.run(f"backup --runtag {TAG}").returncode == code
    assert seen(pi) == [["1", result]]


def test_a_dry_run_shows_hooks_and_runs_none(pi):
    """Each hook is shown under its name, quoted as a person could type it."""
    set_hooks(
        pi,
        before_backup=[["see", "two words"]],
        after_backup=[["see"]],
        before_restore=[["see", "no"]],
    )
    before = pi.tree()
    told = pi.run(f"backup --runtag {TAG} --dry-run")
    assert told.returncode == 0
    assert "before_backup: $ see 'two words'\nafter_backup: $ see\n" in told.stdout
    assert "see no" not in told.stdout
    assert not pi.seen.exists()
    assert pi.tree() == before


def test_a_backup_that_has_to_wait_runs_no_hook(pi):
    """Hooks run under the lock only: a second backup meanwhile is refused before its hooks."""
    started = pi.folder.parent / "started"
    script = f"touch {started}; until [ -e {started}.go ]; do sleep 0.05; done"
    set_hooks(pi, before_backup=[["sh", "-c", script]], after_backup=[["see", "1"]])
    first = pi.start(f"backup --runtag {TAG}")
    until(started.exists)
    assert pi.run("backup --runtag other").returncode == 11
    assert not pi.seen.exists()
    started.with_name("started.go").touch()
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert seen(pi) == [["1", "complete"]]


@pytest.mark.parametrize("when", ["before_backup", "after_backup"])
def test_ctrl_c_ends_a_hook_and_the_run(pi, when):
    """The hook ends with what it started, and the run with 130; the hooks after it still run."""
    pid = pi.folder.parent / "pid"
    hanging = ["sh", "-c", f"sleep 300 & echo $! > {pid}; wait"]
    after = [["see", "1"]] if when == "before_backup" else []
    set_hooks(pi, **{"after_backup": after, when: [hanging]})
    run = pi.start(f"backup --runtag {TAG}")
    until(lambda: pid.read_text().endswith("\n"))
    run.send_signal(signal.SIGINT)
    assert "stopped by Ctrl-C" in run.communicate(timeout=60)[1]
    assert run.returncode == 130
    until(lambda: not alive(int(pid.read_text())))
    if after:
        assert seen(pi) == [["1", "failed"]]


# Restores: a Docker that knows no container is enough for those of plain files.

RESTORE = f"restore --runtag {TAG} --from here --yes"


@pytest.fixture
def backed_up(pi):
    """A stack that has changed since its backup."""
    assert pi.run(f"backup --runtag {TAG}").returncode == 0
    pi.flows = pi.folder / "volumes/nodered/flows.json"
    pi.flows.write_text("changed")
    pi.tool("see", f'echo "$1" "$IOTSTACK_RESULT" $(cat {pi.flows}) >> {pi.seen}')
    return pi


def test_a_second_ctrl_c_does_not_break_off_a_hook_after_the_first(backed_up):
    """What a hook began before the restore, the one after it ends, however impatient somebody is."""
    pi = backed_up
    began, ended = pi.folder.parent / "began", pi.folder.parent / "ended"
    unpacking = pi.folder.parent / "unpacking"
    pi.tool(
        "tar", f'case "$*" in *extract*) touch {unpacking}; sleep 300; esac; exec /bin/tar "$@"'
    )
    after = ["sh", "-c", f"touch {began}; sleep 2; touch {ended}"]
    set_hooks(pi, after_restore=[after])
    run = pi.start(RESTORE)
    for each in (unpacking, began):
        until(each.exists)
        run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert ended.exists(), said
    assert run.returncode == 130
    assert "stopped by Ctrl-C" in said
    assert "The stack is in its previous state." in said


def test_hooks_enclose_the_switch(backed_up):
    """Before it all is staged and nothing touched; after it all is done, and the log has both."""
    staged = f"{backed_up.folder}/restore/{TAG}/stack/volumes/nodered/flows.json"
    script = 'cat "$0"; echo "$IOTSTACK_TASK $IOTSTACK_RUNTAG $IOTSTACK_FOLDER"'
    set_hooks(
        backed_up,
        before_restore=[["see", "1"], ["sh", "-c", script, staged]],
        after_restore=[["see", "2"]],
        before_backup=[["see", "3"]],
        after_backup=[["see", "4"]],
    )
    told = backed_up.run(RESTORE)
    assert told.returncode == 0, told.stderr
    assert backed_up.seen.read_text().splitlines() == ["1  changed", "2 restored []"]
    (log,) = backed_up.backups.glob(f"{TAG}.restore-*.log")
    assert " before_restore out: []\n" in log.read_text()
    assert f" before_restore out: restore {TAG} {backed_up.folder}\n" in log.read_text()
    assert " after_restore: done after" in log.read_text()


@pytest.mark.parametrize("lost", ["stack", "stack/volumes", "stack/volumes/nodered/flows.json"])
def test_a_stage_that_lost_something_meanwhile_is_not_restored(backed_up, lost):
    """By a hook, a hand or a drive that went: it would be restored hollow, and end with 0."""
    settings = backed_up.settings.read_text()
    set_hooks(backed_up, before_restore=[["rm", "-r", f"{backed_up.folder}/restore/{TAG}/{lost}"]])
    told = backed_up.run(RESTORE)
    assert told.returncode == 1, told.stdout
    said = " ".join(told.stderr.split())
    assert "no longer has all unpacked data" in said
    assert "The stack was not changed." in said
    assert (backed_up.folder / "volumes/nodered/flows.json").read_text() == "changed"
    backed_up.settings.write_text(settings)
    assert backed_up.run(RESTORE).returncode == 0
    assert (backed_up.folder / "volumes/nodered/flows.json").read_text() == "[]\n"


def test_a_failure_before_leaves_the_stack_untouched(backed_up):
    """The restore is refused, and the hooks after it are told."""
    fail = ["sh", "-c", "echo not now >&2; exit 3"]
    set_hooks(backed_up, before_restore=[fail, ["see", "1"]], after_restore=[["see", "2"]])
    told = backed_up.run(RESTORE)
    assert told.returncode == 13
    assert "The restore did not start: before_restore `sh -c" in told.stderr
    assert "failed on this machine: exit 3: not now" in told.stderr
    assert backed_up.seen.read_text() == "2 failed changed\n"


def test_hooks_after_a_restore_that_failed(backed_up):
    """They are told that it was undone, or that it failed before anything was touched."""
    set_hooks(backed_up, after_restore=[["see", "1"]])
    backed_up.tool("docker", 'case "$*" in *" up "*) exit 1;; esac')
    told = backed_up.run(RESTORE)
    assert told.returncode == 1
    assert "The stack is in its previous state." in told.stderr
    archive = backed_up.backups / f"{TAG}.general-backup.tar.gz"
    archive.write_bytes(bytes(archive.stat().st_size))
    told = backed_up.run(RESTORE)
    assert told.returncode == 1
    assert "The stack was not changed." in told.stderr
    assert backed_up.seen.read_text() == "1 undone changed\n1 failed changed\n"


def test_a_failure_after_says_that_the_restore_is_done(backed_up):
    """A hook after it that fails ends a good restore with 1; one that may fail is a warning."""
    set_hooks(backed_up, after_restore=[may_fail("false"), ["false"]])
    told = backed_up.run(RESTORE)
    assert told.returncode == 1
    assert f"{TAG} is restored. To undo: inv undo" in told.stdout  # nothing ran: nothing was away
    assert "The restore is done, but a hook after it failed: after_restore `false`" in told.stderr
    assert backed_up.flows.read_text() == "[]\n"


@pytest.mark.parametrize("when", ["before_restore", "after_restore"])
def test_a_hook_of_a_restore_may_fail(backed_up, when):
    """The restore is done, and ends with 3 and the warning."""
    set_hooks(backed_up, **{when: [may_fail("false")]})
    told = backed_up.run(RESTORE)
    assert told.returncode == 3
    assert f"{when} `false` failed on this machine: exit 1" in told.stderr
    assert backed_up.flows.read_text() == "[]\n"


def test_a_dry_run_of_a_restore_shows_hooks_and_runs_none(backed_up):
    """Those of a restore are shown, and no others."""
    set_hooks(backed_up, before_restore=[["see", "1"]], before_backup=[["see", "2"]])
    told = backed_up.run(f"{RESTORE} --dry-run")
    assert told.returncode == 0
    assert "before_restore: $ see 1\n" in told.stdout
    assert "see 2" not in told.stdout
    assert not backed_up.seen.exists()


def test_ctrl_c_before_the_switch(backed_up):
    """The hook ends with what it started, the stack is as it was, and the hooks after it run."""
    pid = backed_up.folder.parent / "pid"
    hanging = ["sh", "-c", f"sleep 300 & echo $! > {pid}; wait"]
    set_hooks(backed_up, before_restore=[hanging], after_restore=[["see", "1"]])
    run = backed_up.start(RESTORE)
    until(lambda: pid.read_text().endswith("\n"))
    run.send_signal(signal.SIGINT)
    assert "The stack is in its previous state." in run.communicate(timeout=60)[1]
    assert run.returncode == 130
    until(lambda: not alive(int(pid.read_text())))
    assert backed_up.seen.read_text() == "1 failed changed\n"


def test_hooks_of_another_host_run_there(backed_up, start_sshd, tmp_path):
    """A restore to it runs the hooks of its entry, over SSH, and none of this machine."""
    sshd = start_sshd("far", path=f"{backed_up.tools}:/usr/local/bin:/usr/bin:/bin")
    far = tmp_path / "far-stack"
    far.mkdir()
    ssh = sshd.login()
    with backed_up.settings.open("a") as stream:
        stream.write(
            f'[[hosts]]\nname = "test-pi"\nhost = "{ssh.host}"\nport = {ssh.port}\n'
            f'key = "{ssh.key}"\nssh_config = "{ssh.config}"\nknown_hosts = "{ssh.known_hosts}"\n'
            f'user = "{ssh.user}"\nfolder = "{far}"\nsudo = false\n'
        )
    out = tmp_path / "out"
    script = 'echo "$HOME $IOTSTACK_FOLDER $IOTSTACK_RESULT" >> "$0"; echo far'
    hook = ["sh", "-c", script, str(out)]
    set_hooks(backed_up, "[hosts.hooks]", before_restore=[hook], after_restore=[hook])
    set_hooks(backed_up, before_restore=[["see", "1"]], after_restore=[["see", "2"]])
    told = backed_up.run(f"restore --host test-pi --runtag {TAG} --from {backed_up.backups} --yes")
    assert told.returncode == 0, told.stderr
    assert out.read_text() == f"{sshd.folder} {far} \n{sshd.folder} {far} restored\n"
    assert not backed_up.seen.exists()
    (log,) = backed_up.folder.parent.glob(f".local/state/iotstack/{TAG}.restore-*.log")
    assert " before_restore out: far\n" in log.read_text()


# Limits, without a whole backup around them.


def with_hooks_on(host, folder):
    """Yield a run of which only the hooks are there."""
    log = RunLog(f"{folder}/log")
    yield Occasion(host, "backup", TAG, str(folder), log, Report())
    log.leave()


@pytest.fixture
def occasion(tmp_path):
    """Hooks on this machine."""
    yield from with_hooks_on(LocalHost("/"), tmp_path)


@pytest.fixture
def far_occasion(sshd, tmp_path):
    """Hooks on another one."""
    login = Login(sshd.login(), "test-pi")
    yield from with_hooks_on(SshHost(login, "/"), tmp_path)
    login.close()


HANGING = {
    "gently": 'sleep 300 & echo $! > "$0"; wait',
    "deaf": 'trap "" TERM; sleep 300 & echo $! > "$0"; while :; do wait; done',
}


@pytest.mark.parametrize("script", HANGING.values(), ids=HANGING)
def test_a_hook_at_its_limit_is_killed_with_its_group(occasion, tmp_path, script):
    """What it started ends with it, whether it listens or not."""
    pid = tmp_path / "pid"
    hook = Hook(("sh", "-c", script, str(pid)), limit_s=0.5)
    with pytest.raises(Refused, match="did not end within"):
        occasion.run_before([hook])
    until(lambda: not alive(int(pid.read_text())))


@pytest.mark.parametrize("kind", ["gently", "deaf"])
def test_a_far_hook_at_its_limit_is_killed_with_its_group(far_occasion, tmp_path, kind):
    """On another machine nothing of it runs on, either."""
    pid = tmp_path / "pid"
    hook = Hook(("sh", "-c", HANGING[kind], str(pid)), limit_s=0.5)
    (told,) = far_occasion.run_after([hook], "complete").failures
    assert "failed on test-pi: it did not end within 0.5 s, so it was stopped" in told
    until(lambda: not alive(int(pid.read_text())))


def test_a_hook_on_a_machine_that_is_gone_is_a_failure(far_occasion, sshd):
    """A line that broke ends no run by itself: it is what that hook failed of."""
    sshd.stop()
    (told,) = far_occasion.run_after([Hook(("true",))], "complete").failures
    assert "after_backup `true` failed on test-pi: test-pi (127.0.0.1) is unreachable" in told


def test_a_hook_that_is_slow_after_a_run_is_a_failure(occasion):
    """Its limit is told with its words, as a failure or a warning; the next one runs all the same."""
    slow = Hook(("sleep", "300"), limit_s=0.2)
    slow_too = Hook(("sleep", "301"), limit_s=0.2, may_fail=True)
    last = Hook(("false",))
    told = "failed on this machine: "
    late = "it did not end within 0.2 s, so it was stopped (exit 124: no message)"
    assert occasion.run_after([slow, slow_too, last], "complete") == HooksResult(
        (
            f"after_backup `sleep 300` {told}{late}",
            f"after_backup `false` {told}exit 1: no message",
        ),
        (f"after_backup `sleep 301` {told}{late}",),
    )


# What a hook leaves behind: it writes its own number, since setsid may fork.

LEFT = {
    "a daemon": 'setsid sh -c \'echo $$ > "$0"; exec sleep 300\' "$0" &',
    "in the background": 'sh -c \'echo $$ > "$0"; exec sleep 300\' "$0" &',
    "talking": 'setsid sh -c \'echo $$ > "$0"; while :; do echo x; sleep 0.1; done\' "$0" &',
}


@pytest.fixture
def left_behind(tmp_path):
    """Return a file for the number of what a hook leaves behind; that is ended afterwards."""
    pid = tmp_path / "pid"
    yield pid
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(pid.read_text()), signal.SIGKILL)


@pytest.fixture(params=["here", "far"])
def anywhere(request, monkeypatch):
    """Hooks on this machine, and on another one."""
    monkeypatch.setattr(hooks, "READ_ON_S", 0.5)
    return request.getfixturevalue({"here": "occasion", "far": "far_occasion"}[request.param])


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("what", LEFT)
def test_a_hook_that_has_ended_is_not_waited_for(anywhere, what, code, left_behind, tmp_path):
    """It is judged by its own end, all that it said is in the log, and what holds it is told."""
    meet = 'until [ -s "$0" ]; do sleep 0.05; done'
    script = f"echo one; {LEFT[what]} {meet}; printf two >&2; exit {code}"
    hook = Hook(("sh", "-c", script, str(left_behind)), limit_s=15)
    began = time.monotonic()
    result = anywhere.run_after([hook], "complete")
    assert time.monotonic() - began < 10
    assert [each.rpartition(": exit ")[2] for each in result.failures] == ["3: two"][: code // 3]
    assert what == "talking" or alive(int(left_behind.read_text()))
    log = (tmp_path / "log.partial").read_text()
    assert " after_backup out: one\n" in log
    assert " after_backup err: two\n" in log
    assert "still holds its output" in log


def test_no_daemon_keeps_a_hook_at_its_limit_going(anywhere, left_behind):
    """The hook ends with its group, and what left the group keeps nobody waiting."""
    script = f"{LEFT['a daemon']} sleep 300"
    hook = Hook(("sh", "-c", script, str(left_behind)), limit_s=0.5)
    began = time.monotonic()
    (told,) = anywhere.run_after([hook], "complete").failures
    assert "it did not end within 0.5 s, so it was stopped (exit 124: no message)" in told
    assert time.monotonic() - began < 10
    assert alive(int(left_behind.read_text()))


def test_ctrl_c_does_not_wait_for_a_daemon(pi, left_behind):
    """A run that is stopped in a hook ends, though a daemon of it holds its output."""
    set_hooks(pi, before_backup=[["sh", "-c", f"{LEFT['a daemon']} sleep 300", str(left_behind)]])
    run = pi.start(f"backup --runtag {TAG}")
    until(lambda: left_behind.read_text().endswith("\n"))
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=30)
    assert run.returncode == 130


def test_a_hook_of_a_hundred_thousand_letters_is_cut_where_it_is_told(pi):
    """What was pasted into it fills no log and no screen."""
    set_hooks(pi, before_backup=[["false", "x" * 100_000]])
    for line in (f"backup --runtag {TAG}", "backup --dry-run"):
        done = pi.run(line)
        assert "… (100,006 letters)" in done.stdout + done.stderr
        assert len(done.stdout + done.stderr) < 10_000
