"""What is refused before anything of the stack is touched, each with what to do about it."""

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import time

import pytest
from owner import PROGRAM
from restorer import Restorer, containers, points, tree
from sample_sets import new_form
from stand import remove_iotstack, write_points
from stand_machine import USER, wait_for

REMOTE = ("--host", "test-pi")


@pytest.fixture(scope="module")
def person(pi, far, nas):
    made = Restorer(pi, far, nas)
    top = made.fresh(pi)
    write_points(pi, "home", "cpu value=1 1000000000")
    made.iot("backup", "--runtag", "2026-11-20_1100", "--force")
    made.iot("backup", "--runtag", "2026-11-23_1100", "--force")
    write_points(pi, "home", "late value=1 1000000000")
    (top / "volumes/nodered/data/flows.json").write_text("changed")
    made.fresh(far)
    yield made
    remove_iotstack(pi)
    remove_iotstack(far)
    shutil.rmtree(made.vault)


@pytest.fixture(autouse=True)
def _usual(person, pi, far):
    yield
    person.set()
    pi.know(far)


@pytest.fixture
def untouched(person, pi, far):
    """After the test both stacks are as they were before it: files, points, containers."""
    places = ((pi, person.top), (far, person.far_top()))

    def look():
        return [(tree(top), points(machine), containers(machine)) for machine, top in places]

    before = look()
    yield
    assert look() == before


def refused(person, *words, code=13, **kw):
    """What a restore says that must end with `code`."""
    runtag = () if "--runtag" in words else ("--runtag", "2026-11-23_1100")
    return person.iot("restore", *runtag, *words, code=code, **kw)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("key", ["none", "wrong"])
def test_host_key(person, pi, far, key):
    """A host whose key is unknown or another one is refused, with the way out."""
    pi.know(far, key=key)
    said = refused(person, *REMOTE, "--yes")
    assert (
        "is not known" if key == "none" else "has a different host key than the known one ("
    ) in said
    assert "hosts --trust test-pi" in said
    assert "test-pi" in person.iot("hosts", code=1)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("words", [(), REMOTE], ids=["here", "far"])
def test_live_host(person, words):
    """A live host is refused unless it is named a second time."""
    person.set(stack='role = "live"', hosts='role = "live"')
    name = words[1] if words else "this"
    said = refused(person, *words, "--yes")
    assert f"--live {name}" in said
    assert f"--live {name}" in refused(person, *words, "--yes", "--live", "another")
    # Named twice it goes on to the next question.
    assert "--yes" in refused(person, *words, "--live", name)


@pytest.mark.usefixtures("untouched")
def test_machine_id(person, far):
    """A host that is another machine than the pinned one is refused; the right one is not."""
    person.set(hosts='machine_id = "0123456789abcdef0123456789abcdef"')
    said = refused(person, *REMOTE, "--yes")
    assert "hosts.toml pins 0123456789abcdef0123456789abcdef" in said
    there = far.run(["cat", "/etc/machine-id"], check=False).stdout.strip()
    if there:
        person.set(hosts=f'machine_id = "{there}"')
        assert "add --yes" in refused(person, *REMOTE)


@pytest.mark.usefixtures("untouched")
def test_runtag_that_is_not_there(person):
    """A runtag that does not exist is refused with the nearest ones, an impossible one as usage."""
    for words in ((), REMOTE):
        said = refused(person, "--runtag", "2026-11-24_1100", *words, "--yes", code=10)
        assert "Nearest: 2026-11-23_1100, 2026-11-20_1100" in said
    refused(person, "--runtag", "../etc", code=2)
    refused(person, "--from", "nowhere", code=2)
    assert "test-pi, test-root" in refused(person, "--host", "testpi", code=2)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "place",
    [
        "restore",
        pytest.param("services", marks=pytest.mark.long),
        pytest.param("volumes/influxdb/data", marks=pytest.mark.long),
        "volumes/grafana/data",
    ],
)
def test_mount_points(person, pi, place):
    """What cannot be swapped by rename, since a disk is mounted there, is refused in time."""
    folder = person.top / place
    was = folder.exists()
    pi.run(["sh", "-c", f"mkdir -p {folder} && mount -t tmpfs -o mode=755 tmpfs {folder}"])
    try:
        said = refused(person, "--yes")
    finally:
        pi.run(["umount", folder])
        if not was:
            folder.rmdir()
    assert str(folder) in said
    assert "The stack was not changed." in said
    advice = {
        "restore": "Make {}/restore a plain folder of the stack",
        "services": "Make {}/services a plain folder of the stack",
        "volumes/influxdb/data": "one folder higher, at {}/volumes/influxdb, with the data in a",
        "volumes/grafana/data": "-C {} --same-owner --numeric-owner --xattrs --acls ./volumes/grafana",
    }
    assert advice[place].format(person.top) in said


@pytest.mark.usefixtures("untouched")
def test_nobody_confirms(person, pi):
    """Without a terminal and --yes nothing is done; on a terminal the wrong answer does nothing."""
    for words in ((), REMOTE):
        assert "add --yes" in refused(person, *words)
    said = on_terminal(person, pi, "restore", "--runtag", "latest", *REMOTE, answer="yes\n")
    assert "Type the host's name, test-pi, to restore 2026-11-23_1100 there" in said
    assert "nothing was changed" in said


def on_terminal(person, pi, *words, answer=""):
    """What the program says on a terminal, where `answer` is typed."""
    mine, its = pty.openpty()
    env = {"IOTSTACK_SETTINGS": str(person.settings_file), "TERM": "xterm", "COLUMNS": "200"}
    process = pi.popen([*PROGRAM, *words], user=USER, env=env, stdin=its, stdout=its, stderr=its)
    os.close(its)
    os.write(mine, answer.encode())
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while chunk := os.read(mine, 65536):
            said += chunk
    os.close(mine)
    process.wait(timeout=60)
    return said.decode()


@pytest.mark.usefixtures("untouched")
def test_no_docker(person, far, pi):
    """A host without Docker, or whose engine does not answer, is refused."""
    for machine, words in ((far, REMOTE), (pi, ())):
        machine.hide("docker")
        try:
            said = refused(person, *words, "--yes")
            assert re.search(r"Docker on (test-pi|this machine) cannot be used: ", said)
        finally:
            machine.show("docker")


@pytest.mark.usefixtures("untouched")
def test_no_sudo(person, far):
    """A host whose sudo wants a password is refused with what to put into sudoers."""
    sudoers = far.folder / "etc/sudoers"
    text = sudoers.read_text()
    sudoers.write_text(text.replace("NOPASSWD: ", ""))
    try:
        said = refused(person, *REMOTE, "--yes")
    finally:
        sudoers.write_text(text)
    assert "NOPASSWD in /etc/sudoers.d" in said


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "kind", ["general-backup.tar.gz", pytest.param("influx-backup.tar", marks=pytest.mark.long)]
)
@pytest.mark.parametrize(
    ("source", "words"),
    [
        pytest.param("vault", (), marks=pytest.mark.long, id="vault to here"),
        pytest.param("vault", REMOTE, id="vault to far"),
        pytest.param("here", (), id="here"),
    ],
)
def test_archive_that_is_not_the_manifests(person, kind, words, source):
    """An archive that differs from the hash in its manifest is refused, wherever it lies."""
    folder = person.vault if source == "vault" else person.top / "backups"
    file = folder / f"2026-11-20_1100.{kind}"
    content = file.read_bytes()
    middle = len(content) // 2
    file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    run = ("--runtag", "2026-11-20_1100", "--from", source, *words, "--yes")
    try:
        said = refused(person, *run, code=1)
        again = refused(person, *run, code=1)
    finally:
        file.write_bytes(content)
    for text in (said, again):
        assert "SHA-256" in text
        assert "The stack was not changed." in text


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("where", ["", "volumes"])
def test_no_room(person, far, where):
    """A host without room for archive, unpacked files and InfluxDB is refused, in numbers."""
    top = person.far.home_of(USER) / "IOTstack"
    folder = top / where if where else top
    manifest = person.vault / "2026-11-23_1100.manifest.json"
    text = manifest.read_text()
    content = json.loads(text)
    content["parts"]["general"]["facts"]["unpacked_bytes"] = 40_000_000
    manifest.write_text(new_form(content))
    kept = top.parent / "kept"
    far.run(["sh", "-c", f"mkdir {kept} && mount -t tmpfs -o size=20m,mode=755 tmpfs {kept}"])
    far.run(
        ["sh", "-c", f"cp -a {folder}/. {kept}/ && mount --bind {kept} {folder} && umount {kept}"]
    )
    try:
        said = refused(person, *REMOTE, "--yes")
    finally:
        far.run(["umount", folder])
        far.run(["rmdir", kept])
        manifest.write_text(text)
    assert "40.0 MB for the unpacked archives" in said
    assert " are free in " in said


@pytest.mark.usefixtures("untouched")
def test_backup_larger_than_its_manifest_says(person, far):
    """What an archive really holds is counted before it is unpacked; nothing partial is left."""
    big = person.top / "volumes/nodered/data/big"
    big.write_bytes(b"0123456789abcdef" * (30 << 16))
    person.iot("backup", "--runtag", "big one")
    big.unlink()
    manifest = person.vault / "big one.manifest.json"
    content = json.loads(manifest.read_text())
    content["parts"]["general"]["facts"]["unpacked_bytes"] = 1000
    manifest.write_text(new_form(content))
    top = person.far_top()
    kept = top.parent / "kept"
    far.run(["sh", "-c", f"mkdir {kept} && mount -t tmpfs -o size=20m,mode=755 tmpfs {kept}"])
    far.run(["sh", "-c", f"cp -a {top}/. {kept}/ && mount --bind {kept} {top} && umount {kept}"])
    try:
        said = refused(person, "--runtag", "big one", *REMOTE, "--yes", code=1)
        left = far.run(["find", top / "restore", "-name", "*.partial"]).stdout.split()
    finally:
        far.run(["umount", top])
        far.run(["rmdir", kept])
        for folder in (person.vault, person.top / "backups"):
            for file in folder.glob("big one.*"):
                file.unlink()
    assert "are free in" in said
    assert "on test-pi. Nothing of it was unpacked, and the stack was not changed." in said
    assert left == []


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("words", [(), REMOTE], ids=["here", "far"])
def test_another_run_is_busy(person, pi, far, words):
    """While another run holds the stack's lock a restore and an undo are refused with 11."""
    machine, top = (far, person.far_top()) if words else (pi, person.top)
    lock = top / "backups/.lock"
    machine.run(["sh", "-c", f"mkdir -p {lock.parent}; touch {lock}; chown {USER} {lock}"])
    holder = machine.popen(["flock", lock, "sleep", "600"])
    wait_for(
        "the lock", lambda: machine.run(["flock", "-n", lock, "true"], check=False).returncode
    )
    try:
        said = refused(person, *words, "--yes", code=11)
        assert "run this again" in said
        person.iot("undo", *words, "--yes", code=11)
    finally:
        holder.end()


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("words", [(), REMOTE], ids=["here", "far"])
def test_dry_run(person, pi, far, words):
    """A dry run shows commands, space and what would differ, and changes not one file."""
    places = (person.top, person.far_top())
    before = [everything(top) for top in places]
    said = person.iot("restore", "--runtag", "latest", *words, "--dry-run")
    assert [everything(top) for top in places] == before
    for text in (
        "Restore 2026-11-23_1100 (made on pi",
        "stops and restarts: ",
        "are free",
        "replaces: services/mosquitto, services/nodered, volumes/grafana",
        "stays as it is: volumes/nextcloud",
        "docker stop --time 60",
        "influxd restore -portable",
        "mv -T",
        "Nothing was changed.",
    ):
        assert text in said
    only = person.iot("restore", "--dry-run", "--only", "nodered", *words)
    assert "replaces: services/nodered, volumes/nodered\n" in only
    (stays,) = [line for line in only.splitlines() if "stays as it is: " in line]
    assert "volumes/influxdb" in stays
    assert "influxd restore" not in only


def everything(top):
    """Every path below a folder with its inode, mode and times, InfluxDB's own apart."""
    found = {}
    for folder, folders, files in os.walk(top):
        if "/volumes/influxdb" in folder:
            continue
        for name in (*folders, *files):
            facts = os.lstat(os.path.join(folder, name))
            found[folder, name] = (facts.st_ino, facts.st_mode, facts.st_uid, facts.st_mtime_ns)
    return found


def test_hosts_and_trust(person, pi, far):
    """`inv hosts` tells what is amiss with each host; --trust shows the key and writes it down."""
    pi.know(far, key="none")
    said = person.iot("hosts", code=1)
    assert "not known" in said
    assert "add --yes" in person.iot("hosts", "--trust", "test-pi", code=13)
    prints = far.run(["ssh-keygen", "-lf", far.host_key_pub]).stdout.split()[1]
    said = on_terminal(person, pi, "hosts", "--trust", "test-pi", answer="yes\n")
    assert prints in said
    assert "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in said
    assert "Written to" in said
    said = person.iot("hosts")
    for text in ("test-pi", "test-root", "test", "none"):
        assert text in said
    person.iot("hosts", "--trust", "test-pi", "--yes")
    person.iot("hosts")


def test_lost_lock(person, far):
    """The lock on another host goes with the run that held it, however that run ended."""
    words = ("cat", person.far_top() / "backups/.lock")
    before = far.run(words, check=False).stdout
    process = person.start("restore", "--runtag", "latest", *REMOTE, "--yes")
    wait_for("the lock", lambda: far.run(words, check=False).stdout not in ("", before))
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.5)
    said = person.iot("undo", *REMOTE, "--yes", code=(0 if journal(person) else 10))
    assert "another run is active" not in said


def journal(person):
    """Whether the far host owes an undo."""
    return (person.far_top() / "restore/.journal").exists()
