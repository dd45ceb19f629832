"""A backup that cannot go well ends non-zero, says what to do, and keeps what is good."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest
from owner import ENDINGS, Owner, inodes
from stand import compose, compose_up, wait_ping, write_points
from stand_machine import USER, wait_for

GENERAL_ONLY = {"general", "manifest", "restore", "log"}
AGAIN = "To finish it, run the same command with --runtag"
COPIED_LATER = "The next backup or `inv sync` copies it there."


@pytest.fixture(scope="module")
def owner(pi, nas):
    made = Owner(pi, nas, user=USER)
    for number in range(3):
        points = [f"m value={random.random()} {i}000000000" for i in range(20_000)]  # noqa: S311
        write_points(pi, f"db{number}", *points)
    yield made
    made.away()


@pytest.fixture(autouse=True)
def _renewed(owner):
    owner.renew()


# InfluxDB.


@contextlib.contextmanager
def wrapped_influxd(pi, script):
    """The influxd that makes dumps is a script, which finds the real one as influxd.real."""
    shell = ["docker", "exec", "-i", "influxdb", "sh", "-c"]
    script = f'#!/bin/sh\n[ "$1" = backup ] || exec influxd.real "$@"\n{script}\n'
    put = "mv influxd influxd.real && cat > influxd && chmod 755 influxd && rm -f /tmp/done"
    pi.run([*shell, f"cd /usr/bin && {put}"], input=script)
    try:
        yield
    finally:
        pi.run([*shell, "cd /usr/bin && mv influxd.real influxd"])


def assert_only_general(owner, runtag, words):
    """The manifest states the failed part; the general part and the log reached the vault."""
    said = owner.backup("--runtag", runtag, code=1)
    assert words in said
    assert AGAIN in said
    owner.assert_set(runtag, kinds=GENERAL_ONLY)
    manifest = owner.manifest(runtag)
    assert manifest["state"] == "incomplete"
    assert words in manifest["parts"]["influx"]["error"]
    assert words in owner.log(runtag)
    assert os.listdir(owner.backups / "influxdb/db") == []
    assert owner.processes("influxd backup") == []
    assert not list(owner.backups.glob("*.partial"))
    return inodes(owner.here(runtag, "general"), owner.there(runtag, "general"))


def assert_copied_as_files(owner, runtag, words):
    """Of InfluxDB there is no dump but its files, and it is told that they may have changed."""
    said = owner.backup("--runtag", runtag, code=3)
    assert words in said
    assert "InfluxDB is not dumped" in said
    owner.assert_set(runtag, kinds=GENERAL_ONLY)
    manifest = owner.manifest(runtag)
    assert set(manifest["parts"]) == {"general"}
    assert any(words in each for each in manifest["warnings"])
    assert any(each["what"] == "InfluxDB" for each in manifest["left_out"])
    with tarfile.open(owner.here(runtag, "general")) as archive:
        assert "./volumes/influxdb/data/meta/meta.db" in archive.getnames()


def assert_finishes(owner, runtag, made):
    """Once the cause is gone the same command makes what was missing and nothing else."""
    owner.backup("--runtag", runtag)
    owner.assert_set(runtag)
    owner.assert_nothing_left()
    assert inodes(*made) == made
    assert owner.manifest(runtag)["state"] == "complete"


FIRST_SHARD = 'influxd.real "$@"; f=$(ls "$3"/*.s*.tar.gz | head -n 1)'
BROKEN = {
    "fails": ('echo "backup: read /x: input/output error" >&2; exit 1', "input/output"),
    "is killed": ('influxd.real "$@" & kill -9 $!; wait $!', "influxd backup"),
    "cuts a shard": (f'{FIRST_SHARD}; head -c 900 "$f" > "$f.x"; mv "$f.x" "$f"', "is incomplete"),
}


@pytest.mark.parametrize(
    "how",
    [e if "shard" in e else pytest.param(e, marks=pytest.mark.long) for e in BROKEN],
)
def test_influxd_backup(owner, pi, how):
    """A dump that fails, or that is broken though it exits 0, never becomes an influx part."""
    script, words = BROKEN[how]
    with wrapped_influxd(pi, script):
        made = assert_only_general(owner, f"influxd {how}", words)
    assert_finishes(owner, f"influxd {how}", made)


def test_dump_that_is_broken_once(owner, pi):
    """A dump with a cut shard is made again, and then the backup is good."""
    script = f'{FIRST_SHARD}; [ -e /tmp/done ] || : > "$f"; : > /tmp/done'
    with wrapped_influxd(pi, script):
        owner.backup("--runtag", "once")
    owner.assert_set("once")
    owner.assert_nothing_left()
    assert "Trying again" in owner.log("once")


def _server_pid(pi):
    return pi.run(["docker", "inspect", "-f", "{{.State.Pid}}", "influxdb"]).stdout.strip()


def test_server_that_hangs_during_the_dump(owner, pi):
    """A dump that hangs is stopped after the limit; nothing of it is left."""
    owner.set("[influxdb]\nlimit_s = 4")
    server = _server_pid(pi)
    dump = owner.backups / "influxdb/db/hang"
    wait = 'mkdir -p "$3"; : > "$3/begun"; until [ -e "$3/go" ]; do sleep 0.05; done; exec influxd.real "$@"'
    with wrapped_influxd(pi, wait):
        process = owner.start("--runtag", "hang", stderr=subprocess.PIPE, text=True)
        wait_for("the dump", (dump / "begun").exists)
        pi.run(["kill", "-STOP", server])
        try:
            (dump / "go").touch()
            said = process.communicate(timeout=60)[1]
        finally:
            pi.run(["kill", "-CONT", server])
    assert process.returncode == 1
    assert "did not end within 4 s" in said
    assert owner.kinds_there("hang") == GENERAL_ONLY
    assert not dump.exists()
    assert owner.processes("influxd backup") == []
    assert_finishes(owner, "hang", {})


def test_server_killed_during_the_dump(owner, pi):
    """A server that is killed and started again in the middle costs a second try, no points."""
    server = _server_pid(pi)
    process = owner.start("--runtag", "crash")
    wait_for("the dump", (owner.backups / "influxdb/db/crash").exists, pause=0.0005)
    pi.run(["kill", "-KILL", server])
    code = process.wait(timeout=120)
    wait_ping(pi)
    assert code in {0, 1}
    if code:
        assert owner.kinds_there("crash") == GENERAL_ONLY
        assert_finishes(owner, "crash", {})
    owner.assert_set("crash")
    owner.assert_nothing_left()


@pytest.mark.long
def test_server_that_cannot_read_its_data(owner, pi):
    """A shard that the server cannot read fails the part within the limit, not after minutes."""
    owner.backup("--runtag", "before")  # lets the server write its files
    owner.set("[influxdb]\nlimit_s = 5")
    file = next((owner.top / "volumes/influxdb/data/data/db0").rglob("*.tsm"))
    file.rename(file.with_suffix(".away"))
    try:
        made = assert_only_general(owner, "unreadable", "did not end within 5 s")
    finally:
        file.with_suffix(".away").rename(file)
    assert_finishes(owner, "unreadable", made)


@contextlib.contextmanager
def compose_file(owner, old, new):
    """The stack runs with one line of its compose file changed."""
    file = owner.top / "docker-compose.yml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    compose_up(owner.pi, "influxdb", user=owner.user)
    try:
        yield
    finally:
        file.write_text(text)
        compose_up(owner.pi, "influxdb", user=owner.user)


MAPPING = "      - ./backups/influxdb/db:/var/lib/influxdb/backup"


def test_backup_folder_read_only(owner):
    """A backup folder that influxd cannot write fails the part with influxd's own words."""
    with compose_file(owner, MAPPING, f"{MAPPING}:ro"):
        made = assert_only_general(owner, "read only", "read-only file system")
    assert_finishes(owner, "read only", made)


def test_dump_folder_full(owner, pi):
    """A dump that has no room is ended at once, not after influxd's ten tries."""
    db = owner.backups / "influxdb/db"
    pi.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", db])
    compose(pi, "restart", "-t", "1", "influxdb", user=USER)
    wait_ping(pi)
    started = time.monotonic()
    try:
        said = owner.backup("--runtag", "no room", code=1)
    finally:
        pi.run(["umount", "-l", db])
        compose(pi, "restart", "-t", "1", "influxdb", user=USER)
        wait_ping(pi)
    assert time.monotonic() - started < 30
    assert "Not enough space for the dump" in said
    owner.assert_set("no room", kinds=GENERAL_ONLY)
    assert_finishes(owner, "no room", {})


def test_container_stopped(owner, pi):
    """A stopped InfluxDB is left out: the manifest and the message say so, exit 3."""
    pi.run(["docker", "stop", "-t", "1", "influxdb"])
    try:
        said = owner.backup("--runtag", "stopped", code=3)
    finally:
        pi.run(["docker", "start", "influxdb"])
        wait_ping(pi)
    assert "docker start influxdb" in said
    owner.assert_set("stopped", kinds=GENERAL_ONLY)
    manifest = owner.manifest("stopped")
    assert manifest["state"] == "warnings"
    assert "stopped" in {e["what"]: e["reason"] for e in manifest["left_out"]}["InfluxDB"]
    running = {each["name"]: each["running"] for each in manifest["containers"]}
    assert running["influxdb"] is False


def test_container_of_a_similar_name(owner, pi):
    """A container named influxdb2 is not taken for influxdb; its absence is stated."""
    pi.run(["docker", "rename", "influxdb", "influxdb2"])
    try:
        said = owner.backup("--runtag", "other name", code=3)
    finally:
        pi.run(["docker", "rename", "influxdb2", "influxdb"])
    assert ": no container named influxdb" in said
    owner.assert_set("other name", kinds=GENERAL_ONLY)
    assert any(e["what"] == "InfluxDB" for e in owner.manifest("other name")["left_out"])


def test_engine_down(owner, pi):
    """Without the Docker engine all is copied as it lies, with a warning (3)."""
    pi.run(["mv", "/run/docker.sock", "/run/away.sock"])
    try:
        assert_copied_as_files(owner, "engine down", "Docker does not answer")
    finally:
        pi.run(["mv", "/run/away.sock", "/run/docker.sock"])
    assert_finishes(owner, "engine up", {})


def test_user_may_not_ask_docker(owner, pi):
    """A user who may not ask Docker is told how to get that right."""
    pi.run(["chmod", "600", "/run/docker.sock"])
    try:
        assert_copied_as_files(owner, "no right", "docker group")
    finally:
        pi.run(["chmod", "660", "/run/docker.sock"])
    assert_finishes(owner, "right", {})


# The vault.


def assert_not_delivered(owner, runtag, words, **kw):
    """The set is whole here, the exit code is 3, the message says why and how to go on."""
    said = owner.backup("--runtag", runtag, code=3, **kw)
    for each in (words,) if isinstance(words, str) else words:
        assert each in said
    assert COPIED_LATER in said
    for kind in ENDINGS:
        assert owner.here(runtag, kind).exists(), kind
    owner.assert_finals_whole()
    assert owner.manifest(runtag)["state"] == "complete"
    assert "failed after" in owner.log(runtag)
    return inodes(owner.here(runtag, "general"), owner.here(runtag, "influx"))


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("none", ("is not known", "ssh nas")),
        ("wrong", ("has a different host key than the known one (", "ssh-keygen -f")),
    ],
)
def test_host_key(owner, pi, nas, key, words):
    """A vault whose host key is unknown or another one gets nothing."""
    pi.know(nas, key=key)
    try:
        made = assert_not_delivered(owner, f"key {key}", words)
        assert os.listdir(owner.vault) == []
    finally:
        pi.know(nas)
    assert_finishes(owner, f"key {key}", made)


def test_not_let_in(owner, nas):
    """A vault that does not take our key: the message names ssh-copy-id."""
    keys = nas.home / ".ssh/authorized_keys"
    text = keys.read_text()
    keys.write_text("")
    try:
        made = assert_not_delivered(owner, "no entry", "ssh-copy-id nas")
    finally:
        keys.write_text(text)
    assert_finishes(owner, "no entry", made)


def test_no_such_host(owner):
    """A vault whose host has no address is named."""
    owner.set(vaults={"nas": ("no-such-host.invalid", "vault")})
    made = assert_not_delivered(owner, "nowhere", "host no-such-host.invalid not found")
    owner.set()
    assert_finishes(owner, "nowhere", made)


def test_vault_folder_missing(owner):
    """A folder that is not there is not made by us: it might be beneath a mount point."""
    owner.vault.rmdir()
    made = assert_not_delivered(owner, "no folder", "ssh nas mkdir -p vault")
    assert not owner.vault.exists()
    owner.vault.mkdir()
    assert_finishes(owner, "no folder", made)


def test_vault_full(owner, nas):
    """A vault without room is told with numbers; nothing under a final name is cut there."""
    nas.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", owner.vault])
    try:
        made = assert_not_delivered(
            owner, "full", ("are free", ", and the file needs", "Free some space there")
        )
        names = nas.run(["ls", owner.vault]).stdout.split("\n")
        assert not [name for name in names if "influx" in name]
    finally:
        nas.run(["umount", owner.vault])
    assert_finishes(owner, "full", made)


def test_line_cut(owner, pi):
    """An unreachable vault costs a minute or so, and the set is whole here."""
    pi.cut()
    try:
        made = assert_not_delivered(owner, "cut", "oes `ssh nas` work?")
    finally:
        pi.mend()
    assert_finishes(owner, "cut", made)


def test_one_vault_of_two_takes_nothing(owner):
    """A vault that we may not write to is named, and keeps nothing from the other one."""
    (owner.vault / "locked").mkdir()
    locked = f'host = "nas-user"\nfolder = "{owner.vault}/locked"'
    owner.vault.parent.chmod(0o755)
    owner.set(f'[[vaults]]\nname = "other"\nkind = "ssh"\n{locked}')
    assert_not_delivered(owner, "one of two", "ermission denied")
    (owner.vault / "locked").rmdir()
    owner.assert_set("one of two")


def test_vault_killed_during_the_transfer(owner, nas):
    """A line that breaks in the middle of a file is tried again; the copy is whole."""
    big = owner.top / "volumes/nodered/data/big"
    big.write_bytes(random.randbytes(20_000_000))  # noqa: S311
    process = owner.start("--runtag", "broken line")
    partial = Path(f"{owner.there('broken line', 'general')}.partial")
    wait_for("the copy", lambda: partial.exists() and partial.stat().st_size, pause=0.0005)
    for line in nas.run(["ps", "-eo", "pid,args"]).stdout.splitlines():
        if "sshd" in line and "notty" in line:
            nas.run(["kill", "-KILL", line.split()[0]], check=False)
    owner.assert_finals_whole()
    assert process.wait(timeout=60) == 0
    big.unlink()
    owner.assert_set("broken line")
    owner.assert_nothing_left()


def test_archive_damaged_before_it_was_copied(owner):
    """A local archive that is changed since it was written does not reach the vault."""
    owner.set(vaults={})
    owner.backup("--runtag", "rotten")
    path = owner.here("rotten", "general")
    with path.open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"rotten")
    owner.set()
    said = owner.backup("--runtag", "rotten", code=1)
    assert "changed since it was written" in said
    assert "inv verify --runtag 'rotten' --at here" in said
    assert "general" not in owner.kinds_there("rotten")
    owner.backup("--runtag", "rotten", "--force")
    owner.assert_set("rotten")


# This machine.


@pytest.fixture
def small_disk(owner, pi):
    """The backups lie on a disk of 12 MB; what is on it is seen below the path returned."""
    pi.run(["mount", "-t", "tmpfs", "-o", "size=12m,uid=1000,gid=1000", "tmpfs", owner.backups])
    pi.run(["mkdir", "-p", owner.backups / "influxdb/db"])
    compose(pi, "restart", "-t", "1", "influxdb", user=USER)
    wait_ping(pi)
    yield Path(f"/proc/{pi.pid}/root{owner.backups}")
    pi.run(["umount", "-l", owner.backups])
    compose(pi, "restart", "-t", "1", "influxdb", user=USER)
    wait_ping(pi)


@pytest.fixture
def big_file(owner):
    path = owner.top / "volumes/nodered/data/big"
    path.write_bytes(random.randbytes(16_000_000))  # noqa: S311
    yield path
    path.unlink()


def test_no_room_is_refused(owner, small_disk, big_file):
    """A disk that cannot hold the backup: refused before anything is made, with the numbers."""
    (small_disk / "movie").write_bytes(bytes(8_000_000))
    said = owner.backup("--runtag", "too big", code=13)
    assert "bytes free" in said
    assert "needs about" in said
    assert {p.name for p in small_disk.iterdir()} == {"movie", "influxdb", ".lock", ".commands"}


def test_disk_full_in_the_middle(owner, pi, small_disk, big_file):
    """A disk that becomes full ends in exit 1 with what to do; with room the command finishes."""
    said = owner.backup("--runtag", "full", code=1)
    assert "No space left" in said
    assert "Free some space" in said
    assert not [p for p in small_disk.iterdir() if "general" in p.name]
    assert os.listdir(small_disk / "influxdb/db") == []
    pi.run(["mount", "-o", "remount,size=60m", "tmpfs", owner.backups])
    owner.backup("--runtag", "full")
    for kind, ending in ENDINGS.items():
        name = f"full.{ending}"
        assert (small_disk / name).read_bytes() == owner.there("full", kind).read_bytes()
    owner.assert_finals_whole()


def test_no_byte_free(owner, pi, small_disk):
    """A disk without a single free byte: one message, no traceback, nothing left."""
    before = {p.name for p in small_disk.iterdir()}
    pi.run(["dd", "if=/dev/zero", f"of={owner.backups}/fill", "bs=4k"], check=False)
    done = owner.backup("--runtag", "zero", code=13)
    assert "free" in done
    (small_disk / "fill").unlink()
    assert {p.name for p in small_disk.iterdir()} - {".lock", ".commands"} == before
    owner.backup("--runtag", "zero")


def test_file_that_changes(owner):
    """A file that grows while tar reads it is a warning that names it, and exit 3."""
    path = owner.top / "volumes/nodered/data/growing log"
    path.write_bytes(random.randbytes(30_000_000))  # noqa: S311
    done = threading.Event()

    def grow():
        while not done.wait(0.001):
            with path.open("ab") as stream:
                stream.write(b"one more line\n")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        said = owner.backup("--runtag", "changing", code=3)
    finally:
        done.set()
        writer.join()
        path.unlink()
    words = "./volumes/nodered/data/growing log: file changed as we read it"
    assert words in said
    owner.assert_set("changing")
    manifest = owner.manifest("changing")
    assert manifest["state"] == "warnings"
    assert words in manifest["warnings"]


def test_volumes_elsewhere(owner):
    """Where volumes/ is a link to another disk, its files are in the archive, or it is said."""
    volumes, elsewhere = owner.top / "volumes", owner.top.parent / "ssd"
    volumes.rename(elsewhere)
    volumes.symlink_to(elsewhere)
    try:
        done = owner.start("--runtag", "ssd", stderr=subprocess.PIPE, text=True)
        said = done.communicate(timeout=60)[1]
        listed = ["tar", "-tzf", owner.here("ssd", "general")]
        names = subprocess.run(listed, check=False, capture_output=True, text=True).stdout
        assert "flows.json" in names or (done.returncode and "volumes" in said)
    finally:
        volumes.unlink()
        elsewhere.rename(volumes)


def test_sudo_refused(owner, pi):
    """A user whom sudo does not let in is told before anything is made."""
    pi.hide("sudo")
    try:
        said = owner.backup("--runtag", "no sudo", code=13)
    finally:
        pi.show("sudo")
    assert "NOPASSWD" in said
    assert not list(owner.backups.glob("no sudo*"))


def test_no_stack(owner, pi):
    """A folder without a stack is refused, and the message names the setting."""
    text = owner.settings_file.read_text()
    owner.settings_file.write_text(text.replace("~/IOTstack", "~/elsewhere"))
    said = owner.backup("--runtag", "x", code=13)
    assert "[stack] folder" in said
    assert not (pi.user_home / "elsewhere").exists()


def test_wrong_settings(owner):
    """Mistakes in hosts.toml are all told at once, exit 2, and nothing is made."""
    owner.set("[influx]\nx = 1", stack="keep = 0\nfoldr = 1")
    said = owner.backup("--runtag", "x", code=2)
    assert "'foldr' is unknown; did you mean 'folder'?" in said
    assert "'influx' is unknown; did you mean 'influxdb'?" in said
    assert not (owner.backups / ".lock").exists()


def test_backups_of_somebody_else(owner):
    """A backups folder that belongs to root is refused with the chown that helps."""
    os.chown(owner.backups, 0, 0)
    try:
        said = owner.backup("--runtag", "x", code=13)
    finally:
        os.chown(owner.backups, 1000, 1000)
    assert "sudo chown" in said


def test_archives_of_other_scripts(owner):
    """Archives that the seed's scripts made under that name are not written over."""
    path = owner.here("2020-01-01_1100", "general")
    path.write_bytes(b"theirs")
    said = owner.backup("--runtag", "2020-01-01_1100", code=13)
    assert "made by other scripts" in said
    assert path.read_bytes() == b"theirs"


def test_failed_run_removes_nothing(owner, pi):
    """However few are kept, a run that failed lets no older set go."""
    owner.set(stack="keep = 1")
    owner.backup("--runtag", "2026-01-01_1100")
    with wrapped_influxd(pi, "exit 1"):
        for day in (2, 3):
            owner.backup("--runtag", f"2026-01-0{day}_1100", code=1)
    owner.assert_set("2026-01-01_1100")
    assert owner.runtags() == [f"2026-01-0{day}_1100" for day in (1, 2, 3)]


def test_bad_run_under_cron(owner, pi):
    """Under cron a bad run prints one paragraph on stderr and nothing on stdout."""
    with wrapped_influxd(pi, "exit 1"):
        env = {"IOTSTACK_SETTINGS": str(owner.settings_file)}
        words = ("-m", "iotstack_invoke", "backup", "--runtag", "bad")
        run = [sys.executable, *words]
        done = pi.run(run, user=USER, env=env, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "\n\n" not in done.stderr.strip()
    assert 1 < len(done.stderr.strip().splitlines()) < 8
    assert "influxd ended with exit code 1" in done.stderr


def test_terminal_closed(owner):
    """A closed terminal (SIGHUP) stops a run as cleanly as Ctrl-C does."""
    process = owner.start("--runtag", "hup")
    wait_for("the work", lambda: list(owner.backups.glob("hup.*")), pause=0.001)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=20) == 129
    assert os.listdir(owner.backups / "influxdb/db") == []
    assert_finishes(owner, "hup", {})
