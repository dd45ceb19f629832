"""The backup of another machine over a real sshd: as one that is made there, whatever happens."""

import contextlib
import json
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
from datetime import UTC, datetime

import pytest
from contexts import put_set, until
from remote_stacks import Laptop, Pi, names_in

RUNTAG = "2026-11-21_1100"


@pytest.fixture
def pi(tmp_path, start_sshd):
    return Pi(tmp_path / "pi", start_sshd, "pi")


@pytest.fixture
def laptop(tmp_path, pi):
    return Laptop(tmp_path / "laptop", pi)


def manifest_of(folder, runtag=RUNTAG):
    return json.loads((folder / f"{runtag}.manifest.json").read_text())


def members(folder, runtag=RUNTAG):
    with tarfile.open(folder / f"{runtag}.general-backup.tar.gz") as archive:
        return {each.name: (each.size, each.mode, each.mtime) for each in archive}


def test_it_is_as_one_that_is_made_there(pi, laptop):
    """The same names, members and facts, 0600; a copy of each in the laptop's vault; no word."""
    pi.runs(nodered="nodered/node-red")
    with sqlite3.connect(pi.folder / "volumes/nodered/x.db") as database:
        database.execute("CREATE TABLE t (x)")
    database.close()
    there = pi.run("backup --runtag there")
    assert (there.returncode, there.stderr) == (0, "")
    with laptop.settings.open("a") as stream:  # of another of the machines
        stream.write('[[services]]\nname = "mongo"\nkind = "copy-safe"\n')
    told = laptop.run(f"backup --host pi --runtag {RUNTAG}")
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
    mine = {name for name in names_in(pi.backups) if name.startswith(RUNTAG)}
    theirs = {name for name in names_in(pi.backups) if name.startswith("there")}
    assert mine == {name.replace("there", RUNTAG) for name in theirs}
    assert members(pi.backups) == members(pi.backups, "there")
    ours, others = manifest_of(pi.backups), manifest_of(pi.backups, "there")
    for each in ("host", "containers", "left_out", "warnings"):
        assert ours[each] == others[each]
    assert ours["parts"]["general"]["facts"]["sqlite_files"] == 1
    assert all(os.stat(pi.backups / name).st_mode & 0o777 == 0o600 for name in mine)
    assert set(names_in(laptop.vaults[0])) == mine | theirs  # the vault lacked the other as well
    for name in mine | theirs:
        assert (laptop.vaults[0] / name).read_bytes() == (pi.backups / name).read_bytes()
    assert not laptop.folder.exists()
    assert laptop.run("status --host pi").stdout.startswith(f"OK pi: {RUNTAG} was made just now")
    assert "verified" not in laptop.run("verify --at shelf").stderr
    assert pi.run("verify --all").returncode == 0


def test_a_stack_that_is_not_there_is_told_with_its_host(laptop, pi):
    """Which row of hosts.toml says where it is: that of the host, and not [stack]."""
    text = laptop.settings.read_text()
    laptop.settings.write_text(text.replace(str(pi.folder), f"{pi.folder}2"))
    told = laptop.run("backup --host pi")
    said = " ".join(told.stderr.split())
    assert told.returncode == 13
    assert f"On pi: No IOTstack found in {pi.folder}2" in said
    assert 'in the row of [[hosts]] with name = "pi" folder = ' in said
    assert "[stack]" not in said


def test_a_dry_run_of_a_bare_restore_makes_no_folder(laptop, pi):
    """It touches nothing, on another machine as here; the restore itself makes it."""
    assert pi.run("backup --runtag x").returncode == 0
    new = pi.folder.parent / "not/there/IOTstack"
    text = laptop.settings.read_text()
    row = pi.row()
    bare = text.replace(row, row.replace(str(pi.folder), str(new)))
    assert bare != text
    laptop.settings.write_text(bare)
    words = f"restore --host pi --runtag x --from {pi.backups}/. --dry-run"
    assert "or restore with --bare" in laptop.run(words).stderr
    told = laptop.run(f"{words} --bare")
    assert (told.returncode, f"to {new} on pi" in told.stdout) == (0, True), told.stderr
    assert not (pi.folder.parent / "not").exists()


@pytest.mark.parametrize(
    ("key", "flags", "code", "said"),
    [
        ('role = "live"', "--runtag x --yes", 13, "is marked live in hosts.toml"),
        ("", "--runtag x", 13, "No terminal to confirm on; add"),
        ("", "--runtag other --yes", 10, "Backup other not found in"),
    ],
)
def test_a_bare_restore_that_is_refused_makes_no_folder(laptop, pi, key, flags, code, said):
    """Whatever refuses it, or a person who does not confirm: nothing is made before."""
    assert pi.run("backup --runtag x").returncode == 0
    new = pi.folder.parent / "not/there/IOTstack"
    row = pi.row()
    rows = laptop.settings.read_text()
    laptop.settings.write_text(
        rows.replace(row, f"{row.replace(str(pi.folder), str(new))}{key}\n")
    )
    told = laptop.run(f"restore --host pi --from {pi.backups}/. --bare {flags}")
    assert (told.returncode, said in told.stderr) == (code, True), told.stderr
    assert not (pi.folder.parent / "not").exists()


def by_host(laptop, pi, key=""):
    """Let the Pi be called pi-1, and the vault have a folder for each machine."""
    named = pi.tools / "uname"
    named.write_text("#!/bin/sh\necho pi-1\n")
    named.chmod(0o755)
    row = pi.row()
    text = laptop.settings.read_text().replace(row, f"{row}{key}\n")
    laptop.settings.write_text(f'{text}layout = "by-host"\n')


def test_a_home_that_takes_nothing_costs_a_restore_its_log_alone(laptop, pi, read_only):
    """The log lies among the laptop's own state; what is done to the host does not hang on that."""
    flows = pi.folder / "volumes/nodered/flows.json"
    assert laptop.run("backup --host pi --runtag x").returncode == 0
    flows.write_text("changed")
    home = laptop.base / "home"
    home.mkdir()
    read_only(home)
    laptop.environment["HOME"] = str(home)
    told = laptop.run("restore --host pi --runtag x --yes")
    assert told.returncode == 3, told.stderr
    assert (
        "x is restored, but a later step failed: Its log is incomplete: its file system is"
        in told.stderr
    )
    assert flows.read_text() == "[]\n"
    told = laptop.run("undo --host pi --last-restore --yes")
    assert told.returncode == 0, told.stderr
    assert flows.read_text() == "changed"
    for line, code in (("rehearse --runtag x", 13), ("verify --runtag x --at shelf", 1)):
        told = laptop.run(line)
        assert told.returncode == code, told.stderr
        assert f"Cannot create {home}/.local/state/iotstack: its file system is" in told.stderr


@pytest.mark.parametrize("key", ['role = "live"', ""])
def test_what_was_backed_up_of_a_host_is_restored_to_it(laptop, pi, key):
    """From a laptop that has no stack: `restore --host` finds what `backup --host` made.

    `--from` with the vault's name means the same; another machine's is named by its address.
    """
    by_host(laptop, pi, key)
    assert laptop.run("backup --host pi --runtag x").returncode == 0
    assert (laptop.vaults[0] / "pi-1/x.manifest.json").exists()
    (laptop.vaults[0] / "pi-2").mkdir()
    put_set(laptop.vaults[0] / "pi-2", datetime.now(UTC), runtag="y", host="pi-2")
    live = "--live pi " if key else ""
    for words in ("", "--runtag x", "--from shelf", "--from vault --runtag x"):
        told = laptop.run(f"restore --host pi {live}--dry-run {words}")
        assert told.returncode == 0, told.stderr
        assert f"from shelf/pi-1 to {pi.folder} on pi" in told.stdout
    told = laptop.run(f"restore --host pi {live}--dry-run --runtag y")
    assert told.returncode == 10
    assert "Another machine's y: --from shelf/pi-2" in told.stderr


def test_a_backup_that_lies_on_the_host_is_named_where_its_vault_is_away(laptop, pi):
    """With the host, as it is not on the machine where the words are read."""
    assert laptop.run("backup --host pi --runtag x").returncode == 0
    laptop.vaults[0].rename(laptop.vaults[0].with_name("away"))
    told = laptop.run("restore --host pi --runtag x --yes")
    assert told.returncode == 1
    assert "x also exists on pi: add --from here." in " ".join(told.stderr.split())


@pytest.mark.parametrize(("key", "first"), [('role = "live"', "shelf/pi-1"), ("", "shelf")])
def test_a_test_host_gets_this_machines_backup_and_a_live_one_its_own(laptop, pi, key, first):
    """Where the vault has both; what only one of them has is found all the same."""
    by_host(laptop, pi, key)
    for runtag in ("x", "theirs"):
        assert laptop.run(f"backup --host pi --runtag {runtag}").returncode == 0
    shelf, mine = laptop.vaults[0], laptop.vaults[0] / socket.gethostname()
    mine.mkdir()
    for each in names_in(shelf / "pi-1"):
        if each.startswith("x."):
            (mine / each).write_bytes((shelf / "pi-1" / each).read_bytes())
    live = "--live pi " if key else ""
    for words, place in (
        ("--runtag x", first),
        ("--runtag latest", first),
        ("--runtag theirs", "shelf/pi-1"),
        ("--runtag x --from shelf/pi-1", "shelf/pi-1"),
        (f"--runtag x --from shelf/{mine.name}", f"shelf/{mine.name}"),
    ):
        told = laptop.run(f"restore --host pi {live}--dry-run {words}")
        assert f"from {place} to {pi.folder} on pi" in told.stdout, told.stderr


def test_what_a_far_backup_does_not_cover_is_shown_by_the_command_that_is_told(laptop, pi):
    """`inv show` here knows the vaults, and nothing of what lies beside the stack there."""
    pi.backups.mkdir(exist_ok=True)
    for folder in (pi.backups, laptop.vaults[0]):
        put_set(folder, datetime.now(UTC), runtag="x", warnings=("NOT COVERED: y",))
    told = laptop.run("status --host pi").stdout
    assert "WARNING pi: 1 thing not covered; shelf: 1 thing not covered (inv show 'x' --at" in told
    assert "NOT COVERED: y" in laptop.run("show x --at shelf").stdout


def test_its_own_retention_hooks_and_exclusions_act_there(tmp_path, start_sshd):
    """What [[hosts]] says is done on that machine, and told as in a backup of its own."""
    said = tmp_path / "said"
    pi = Pi(tmp_path / "pi", start_sshd, "pi", keep=1)
    laptop = Laptop(tmp_path / "laptop", pi)
    with laptop.settings.open("a") as stream:
        words = ["sh", "-c", f"echo $IOTSTACK_RESULT $IOTSTACK_RUNTAG >> {said}"]
        stream.write(
            f"{pi.row()}exclude = [{{path = 'volumes/nodered/*', reason = 'none'}}]\n"
            f"hooks.before_backup = [{words}]\nhooks.after_backup = [{words}]\n".replace(
                "'pi'", "'other'"
            )
        )
    assert laptop.run("backup --host pi --runtag first").returncode == 0
    assert laptop.run(f"backup --host other --runtag {RUNTAG}").returncode == 0
    assert said.read_text().split() == [RUNTAG, "complete", RUNTAG]
    assert {name.partition(".")[0] for name in names_in(pi.backups)} - {""} == {RUNTAG}
    assert "./volumes/nodered/flows.json" not in members(pi.backups)
    (left,) = [e for e in manifest_of(pi.backups)["left_out"] if "nodered" in e["what"]]
    assert left["reason"] == "none"


def test_a_dry_run_changes_nothing_there(pi, laptop):
    """Every command is shown as it would run there; not even a folder is made."""
    before = pi.tree()
    told = laptop.run("backup --host pi --dry-run")
    assert (told.returncode, told.stderr) == (0, "")
    assert "tar --create" in told.stdout
    assert "python3 -I -S -X utf8 online_copy.py" in told.stdout
    assert pi.tree() == before


def test_two_backups_of_one_stack_exclude_each_other(pi, laptop):
    """The lock is there: neither a run there nor one from here begins beside it."""
    pi.backups.mkdir()
    lock = pi.backups / ".lock"
    with subprocess.Popen(["flock", lock, "sleep", "60"]) as holder:
        until(lambda: subprocess.run(["flock", "-n", lock, "true"], check=False).returncode)
        told = laptop.run("backup --host pi")
        holder.kill()
    subprocess.run(["fuser", "-k", lock], check=False, capture_output=True)
    assert told.returncode == 11
    assert "On pi another run is active on this stack" in told.stderr


@pytest.fixture
def slow_pi(pi):
    """A Pi with a service that is stopped while it is copied, and a copy that takes its time."""
    pi.runs(bolt="bolt/bolt:1")
    docker = (pi.tools / "docker").read_text().partition("\n")[2]
    state = pi.base / "state"
    state.write_text("running")
    pi.tool(
        "docker",
        f"""case "$1" in
stop) echo stopped > {state}; exit ;;
start|restart) echo running > {state}; exit ;;
esac
case "$*" in
*Restarting*) [ "$(cat {state})" = running ] && echo "true false" || echo "false false"
    exit ;;
esac
{docker}""",
    )
    pi.tool(
        "cp",
        f"echo $$ > {pi.base}/copying.new; mv {pi.base}/copying.new {pi.base}/copying; "
        f'sleep "$(cat {pi.base}/pause)"; exec /bin/cp "$@"',
    )
    (pi.base / "pause").write_text("60")
    pi.state = state
    return pi


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("SIGINT", marks=pytest.mark.long),
        pytest.param("SIGKILL", marks=pytest.mark.long),
        "cut",
    ],
)
def test_nothing_stays_stopped(slow_pi, laptop, how):
    """Whatever ends the run, who was stopped for its copy runs again, and the next run goes on."""
    with laptop.settings.open("a") as stream:
        stream.write('[[services]]\nname = "bolt"\nkind = "stop"\n')
    started = laptop.start(f"backup --host pi --runtag {RUNTAG}")
    until(
        lambda: (slow_pi.base / "copying").exists() and "stopped" in slow_pi.state.read_text(), 60
    )
    if how == "cut":
        slow_pi.sshd.cut()
    else:
        started.send_signal(getattr(signal, how))
    with contextlib.suppress(ProcessLookupError):  # a cut may have ended it
        os.kill(int((slow_pi.base / "copying").read_text()), signal.SIGKILL)  # it lasts a minute
    _, err = started.communicate(timeout=60)
    assert started.returncode == {"SIGINT": 130, "SIGKILL": -9, "cut": 1}[how], err
    until(lambda: "running" in slow_pi.state.read_text(), 60)
    (slow_pi.base / "pause").write_text("0")
    until(lambda: not (slow_pi.backups / ".quiet-bolt").exists(), 60)
    told = laptop.run(f"backup --host pi --runtag {RUNTAG}")
    assert told.returncode in (0, 3), told.stderr
    assert f"{RUNTAG}.manifest.json" in names_in(laptop.vaults[0])
    assert not [name for name in names_in(slow_pi.backups) if "partial" in name or "unf" in name]
    assert "./volumes/bolt/data" in members(slow_pi.backups)


def test_a_line_that_is_cut_amid_the_archive_is_told(pi, laptop):
    """The run ends with 1 and gives nothing a final name; the same command makes it whole."""
    pi.tool("tar", 'test "$1" = --version && exec /bin/tar "$@"; echo begun >&2; exec sleep 60')
    started = laptop.start(f"backup --host pi --runtag {RUNTAG}")
    partial = pi.backups / f"{RUNTAG}.general-backup.tar.gz.partial"
    until(partial.exists, 60)
    pi.sshd.cut()
    _, err = started.communicate(timeout=60)
    assert started.returncode == 1
    assert f"with --runtag '{RUNTAG}'" in err
    assert not (pi.backups / f"{RUNTAG}.general-backup.tar.gz").exists()
    (pi.tools / "tar").unlink()
    assert laptop.run(f"backup --host pi --runtag {RUNTAG}").returncode == 0
    assert not partial.exists()
    log = (pi.backups / f"{RUNTAG}.backup-log.txt").read_text()
    assert log.count("makes 2026") == 2


SOON = (
    "import runpy, iotstack_invoke.environment.stack_host as targets; targets.HOLD_AGAIN_LIMIT_S = 1; "
    "runpy.run_module('iotstack_invoke', run_name='__main__', alter_sys=True)"
)
"""The program, which waits a second and not half a minute for a lock that it lost."""


def test_a_lock_that_another_run_took_meanwhile_ends_this_one(tmp_path, start_sshd):
    """The line breaks in the last job, and nobody notices: no set is removed without the lock."""
    pi = Pi(tmp_path / "pi", start_sshd, "pi", keep=1)
    laptop = Laptop(tmp_path / "laptop", pi)
    assert laptop.run("backup --host pi --runtag first").returncode == 0
    with laptop.settings.open("a") as stream:
        stream.write('limit_rate = "2K"\n')
    laptop.words = lambda line: [sys.executable, "-c", SOON, *shlex.split(line)]
    started = laptop.start(f"backup --host pi --runtag {RUNTAG}")
    until((laptop.vaults[0] / f"{RUNTAG}.manifest.json.partial").exists, 60)
    lock = pi.backups / ".lock"
    pi.sshd.cut()
    words = ["flock", lock, "sh", "-c", "echo 1 another; exec sleep 60"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        _, err = started.communicate(timeout=60)
        subprocess.run(["fuser", "-k", lock], check=False, capture_output=True)
    assert started.returncode == 11, err
    assert "On pi another run is active on this stack" in err
    assert "first.manifest.json" in names_in(pi.backups)


def test_what_a_machine_lacks_is_told(pi, laptop):
    """Without python3 there nothing is begun, and the message says what to install."""
    pi.tool("python3", "exit 127")
    told = laptop.run("backup --host pi")
    assert told.returncode == 13
    assert "On pi python3, which copies SQLite files, does not run: " in told.stderr
    assert not pi.backups.exists() or not [n for n in names_in(pi.backups) if n[0] != "."]


@pytest.mark.parametrize("which", ["folder", "backups"])
def test_a_read_only_file_system_there_is_named(pi, laptop, read_only, which):
    """By what the kernel of that machine says, for the backup and for doctor."""
    if which == "backups":
        pi.backups.mkdir()
    read_only(getattr(pi, which))
    told = laptop.run("backup --host pi")
    assert told.returncode == 13
    assert "is mounted read-only (the card may be failing" in " ".join(told.stderr.split())
    told = laptop.run("doctor --host pi")
    assert told.returncode == 1
    assert "is mounted read-only (the card may be failing" in " ".join(told.stdout.split())
