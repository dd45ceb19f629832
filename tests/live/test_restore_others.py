"""Restores of archives that others made, onto other media, and what InfluxDB's log comes to."""

import json
import os
import random
import shutil
import subprocess
import tarfile

import pytest
from restorer import below, only, points, running, tree
from stand import SERVICES, compose_up, query, remove_iotstack, wait_ping, write_points
from stand_machine import UIDS, USER, wait_for
from test_restore_refused import on_terminal

SWAPPED = (
    "services/nodered",
    "services/mosquitto",
    "volumes/nodered",
    "volumes/mosquitto",
    "volumes/grafana",
)
SET = "2020-01-02_1100"


@pytest.fixture
def live(person, pi):
    """A running stack with points in two databases."""
    top = person.fresh(pi)
    write_points(pi, "home", *[f"cpu value={i} {i * 86400}000000000" for i in range(9)])
    write_points(pi, "other", "cpu value=1 1000000000")
    return top


def change(machine, top):
    """Change files and points."""
    (top / "volumes/nodered/data/flows.json").write_text("changed")
    write_points(machine, "home", "late value=1 1000000000")
    write_points(machine, "new", "cpu value=1 1000000000")


def dump(machine, top):
    """Have InfluxDB write a dump where the seed's script has it, and return the folder."""
    folder = top / "backups/influxdb/db"
    words = ["docker", "exec", "influxdb", "influxd", "backup", "-portable"]
    machine.run([*words, "/var/lib/influxdb/backup"])
    return folder


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


def as_the_seed(machine, top, folder):
    """Make a set exactly as the seed's backup_iotstack does: same words, same members."""
    db = dump(machine, top)
    machine.run(["tar", "-cf", folder / f"{SET}.influx-backup.tar", "."], cwd=db)
    empty(db)
    listed = machine.home / "list"
    listed.write_text("./docker-compose.yml\n./services/\n./volumes/\n")
    words = ["tar", "-czf", folder / f"{SET}.general-backup.tar.gz"]
    words += ["--exclude=./volumes/influxdb/*", "--exclude=./volumes/nextcloud/*", "-T", listed]
    machine.run(words, cwd=top)


def as_iotstackbackup(machine, top, folder):
    """Make a set as IOTstackBackup does: top files too, continuous queries beside the dump."""
    db = dump(machine, top)
    text = 'CREATE CONTINUOUS QUERY "means" ON "home" BEGIN SELECT mean("value") INTO "m" FROM "cpu" GROUP BY time(1h) END\n'
    (db / "continuous-queries.influxql").write_text(f"# DDL\n{text}")
    machine.run(["tar", "-cf", folder / f"{SET}.influx-backup.tar", "."], cwd=db)
    empty(db)
    words = ["tar", "-czf", folder / f"{SET}.general-backup.tar.gz"]
    words += [
        f"--exclude=./volumes/{name}" for name in ("influxdb", "nextcloud", "mosquitto/data")
    ]
    tops = [f"./{path.name}" for path in top.iterdir() if path.name.endswith((".yml", ".env"))]
    machine.run([*words, "./services", "./volumes", *tops], cwd=top)


@pytest.mark.parametrize("make", [as_the_seed, as_iotstackbackup])
@pytest.mark.parametrize("host", ["", pytest.param("test-pi", marks=pytest.mark.long)])
def test_archives_of_other_tools(person, pi, far, live, make, host):
    """Archives with no manifest are taken as unproven, and bring every file and point back."""
    query(
        pi,
        'CREATE CONTINUOUS QUERY "means" ON "home" BEGIN SELECT mean("value") INTO "m" '
        'FROM "cpu" GROUP BY time(1h) END',
    )
    before, all_points = tree(live), points(pi)
    shutil.rmtree(person.vault)
    person.vault.mkdir()
    make(pi, live, person.vault)
    machine, top = (far, person.fresh(far)) if host else (pi, live)
    change(machine, top)
    with (top / "docker-compose.yml").open("a") as stream:
        stream.write("# of this machine\n")
    more = {key: held for key, held in points(machine).items() if key[0] == "new"}
    words = ("--host", host) if host else ()
    said = person.iot("restore", "--runtag", SET, *words, "--yes")
    wait_ping(machine)
    assert "unverified: it has no manifest" in said
    places = SWAPPED if make is as_the_seed else (*SWAPPED[:3], "volumes/grafana")
    assert below(tree(top), *places) == below(before, *places)
    assert points(machine) == all_points | more
    assert "means" in str(query(machine, "SHOW CONTINUOUS QUERIES"))
    assert running(machine) == set(SERVICES)
    assert (top / f"docker-compose.yml.{SET}").exists()
    assert not (top / f".env.{SET}").exists()  # it is the same


def cut(path):
    """Leave half of a file."""
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    """Change one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def trail(path):
    """Take the end of a gzip file away: tar alone would not miss it."""
    os.truncate(path, path.stat().st_size - 6)


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        pytest.param("general-backup.tar.gz", cut, marks=pytest.mark.long),
        pytest.param("general-backup.tar.gz", flip, marks=pytest.mark.long),
        ("general-backup.tar.gz", trail),
        pytest.param("influx-backup.tar", cut, marks=pytest.mark.long),
        ("influx-backup.tar", flip),
    ],
)
@pytest.mark.parametrize("host", ["", pytest.param("test-pi", marks=pytest.mark.long)])
def test_damaged_archive_without_manifest(person, pi, far, request, part, damage, host):
    """A damaged archive that has no manifest is refused before anything is touched."""
    made = request.getfixturevalue("seed_set")
    usb = person.usb(*made.iterdir())
    damage(usb / f"{SET}.{part}")
    machine, top = (far, person.far_top()) if host else (pi, person.top)
    before, all_points = tree(top), points(machine)
    started = machine.run(["docker", "inspect", "-f", "{{.State.StartedAt}}", *SERVICES]).stdout
    words = ("--host", host) if host else ()
    said = person.iot("restore", "--runtag", SET, "--from", str(usb), *words, "--yes", code=1)
    assert "The stack was not changed." in said
    assert tree(top) == before
    assert points(machine) == all_points
    now = machine.run(["docker", "inspect", "-f", "{{.State.StartedAt}}", *SERVICES]).stdout
    assert now == started


@pytest.fixture(scope="module")
def seed_set(person, pi, far):
    """A set as the seed makes it, and running stacks on both hosts."""
    top = person.fresh(pi)
    chance = random.Random(3)  # noqa: S311
    write_points(pi, "home", *[f"cpu value={chance.random()} {i}000000000" for i in range(6000)])
    folder = pi.home_of(USER) / "seed"
    folder.mkdir()
    as_the_seed(pi, top, folder)
    person.fresh(far)
    return folder


@pytest.mark.parametrize("host", ["test-pi", pytest.param("", marks=pytest.mark.long)])
def test_volumes_on_another_file_system(person, pi, far, live, host):
    """Volumes on other media are swapped by renames on that medium, and undone in the same way.

    So are those in a folder of the same medium that is bound to the place: no rename leaves it.
    """
    all_points = points(pi)
    person.iot("backup", "--runtag", "media", "--force")
    machine = far if host else pi
    top = person.fresh(far) if host else live
    words = ("--host", host) if host else ()
    machine.run(["docker", "stop", *SERVICES])
    disk = top.parent / "disk"
    made = f"mount --bind {disk} {disk}" if host else f"mount -t tmpfs -o mode=755 tmpfs {disk}"
    machine.run(["sh", "-c", f"mkdir {disk} && {made}"])
    machine.run(
        [
            "sh",
            "-c",
            f"cp -a {top}/volumes/. {disk}/ && mount --bind {disk} {top}/volumes && umount {disk}",
        ]
    )
    try:
        compose_up(machine, user=USER)
        change(machine, top)
        kept = _tree_inside(machine, top)
        kept_points = points(machine)
        person.iot("restore", "--runtag", "media", *words, "--yes")
        wait_ping(machine)
        assert all_points.items() <= points(machine).items()
        text = machine.run(["cat", top / "volumes/nodered/data/flows.json"]).stdout
        assert text == '[{"id": "a1", "type": "tab"}]'
        assert machine.run(["mountpoint", "-q", top / "volumes"]).returncode == 0
        assert ".previous-media" in machine.run(["ls", "-A", top / "volumes"]).stdout
        person.iot("undo", *words, "--last-restore", "--yes")
        wait_ping(machine)
        assert _tree_inside(machine, top) == kept
        assert points(machine) == kept_points
        person.iot("reload-influxdb", *words, "--yes")
        wait_ping(machine)
        assert points(machine) == kept_points
        person.iot("undo", *words, "--last-restore", "--yes")
        wait_ping(machine)
        assert points(machine) == kept_points
        if not host:
            person.iot("backup", "--runtag", "media2", "--force")
            with tarfile.open(top / "backups/media2.general-backup.tar.gz") as tar:
                names = tar.getnames()
            assert [n for n in names if "/.previous" in n or "/.restore" in n] == []
    finally:
        remove_iotstack(machine)
        machine.run(["sh", "-c", f"umount {top}/volumes; rm -rf {disk}"])


@pytest.mark.long
def test_influxdb_on_another_file_system(person, pi, live):
    """InfluxDB's data on media of their own are swapped by renames there, and undone so."""
    all_points = points(pi)
    person.iot("backup", "--runtag", "disk", "--force")
    pi.run(["docker", "stop", *SERVICES])
    disk, folder = live.parent / "disk", live / "volumes/influxdb"
    pi.run(["sh", "-c", f"mkdir {disk} && mount -t tmpfs -o mode=755 tmpfs {disk}"])
    pi.run(
        ["sh", "-c", f"cp -a {folder}/. {disk}/ && mount --bind {disk} {folder} && umount {disk}"]
    )
    try:
        compose_up(pi, user=USER)
        change(pi, live)
        kept = points(pi)
        person.iot("restore", "--runtag", "disk", "--yes")
        wait_ping(pi)
        assert points(pi) == all_points | only("new", kept)
        assert pi.run(["mountpoint", "-q", folder]).returncode == 0
        assert "previous-disk" in pi.run(["ls", "-A", folder]).stdout
        person.iot("undo", "--last-restore", "--yes")
        wait_ping(pi)
        assert points(pi) == kept
    finally:
        remove_iotstack(pi)
        pi.run(["sh", "-c", f"umount {folder}; rm -rf {disk}"])


@pytest.mark.long
def test_host_behind_another(person, pi, far, nas, live):
    """A host that is reached through another one is restored; both host keys must be known."""
    top = person.fresh(far, host="test-pi")
    change(far, top)
    before = below(tree(live), "volumes/nodered")
    person.iot("backup", "--runtag", "jump", "--force")
    config = pi.home_of(USER) / ".ssh/config"
    ssh, settings = config.read_text(), person.settings_file.read_text()
    alias = f"Host behind\n  HostName {far.address}\n  User {USER}\n  ProxyJump nas\n"
    config.write_text(f"{ssh}{alias}")
    person.settings_file.write_text(f'{settings}[[hosts]]\nname = "behind"\nhost = "behind"\n')
    words = (
        "restore",
        "--host",
        "behind",
        "--runtag",
        "jump",
        "--from",
        str(person.usb(*sorted((live / "backups").glob("jump.*")))),
    )
    try:
        pi.know(nas, "none")
        said = person.iot(*words, "--only", "nodered", "--yes", code=13)
        assert f"{nas.address}, on the way to behind" in said
        pi.know(nas)
        assert below(tree(top), "volumes/nodered") != before
        person.iot(*words, "--only", "nodered", "--yes")
        assert below(tree(top), "volumes/nodered") == before
    finally:
        pi.know(nas)
        config.write_text(ssh)
        person.settings_file.write_text(settings)
        remove_iotstack(far)


def _tree_inside(machine, top):
    """What lies on the mounted volumes, as the machine itself sees it."""
    left_out = (
        '-path ./influxdb -prune -o -path "./.previous-*" -prune -o -path "./.restore-*" -prune'
    )
    script = (
        f'cd "$1"; find . {left_out} -o -printf "%p %y %m %U %G %l\\n" | sort; '
        f"find . {left_out} -o -type f -exec sha256sum {{}} + | sort"
    )
    return machine.run(["sh", "-c", script, "sh", top / "volumes"]).stdout


@pytest.mark.long
def test_statistics_of_influxdb_left_out(person, pi, live):
    """Many raw lines about _internal are one line for people; the log alone has the raw ones."""
    file = live / "docker-compose.yml"
    text = file.read_text()
    file.write_text(text.replace("MONITOR_STORE_ENABLED=FALSE", "MONITOR_STORE_ENABLED=true"))
    compose_up(pi, "influxdb", user=USER)
    look = "SHOW SHARDS"
    wait_for("_internal", lambda: "_internal" in str(query(pi, look)), timeout=60, pause=1)
    all_points = points(pi)
    person.iot("backup", "--runtag", "intern", "--force")
    said = on_terminal(person, pi, "restore", "--runtag", "intern", "--yes")
    one = "InfluxDB's own statistics (1 shard of _internal) left out on purpose"
    assert said.count(one) >= 1
    assert "Meta info not found" not in said
    assert points(pi) == all_points
    log = person.logs()
    assert one in log
    assert "Meta info not found for shard" in log
    plain = person.iot("restore", "--runtag", "intern", "--yes")
    assert plain.count(one) == 1
    assert "Meta info not found" not in plain


def test_shard_of_another_database_is_an_error(person, pi, live):
    """The same line about any other database is an error that names it, and all is undone."""
    usb = person.usb()
    as_the_seed(pi, live, usb)
    write_points(pi, "born later", "cpu value=1 1000000000")
    db = dump(pi, live)
    archive = usb / f"{SET}.influx-backup.tar"
    _put_orphan_in(archive, db)
    empty(db)
    for path in usb.iterdir():
        os.chown(path, UIDS[USER], UIDS[USER])
    before, all_points = tree(live), points(pi)
    said = person.iot("restore", "--runtag", SET, "--from", str(usb), "--yes", code=1)
    assert "born later" in said
    assert "shard" in said
    assert tree(live) == before
    assert points(pi) == all_points
    assert running(pi) == set(SERVICES)


def _put_orphan_in(archive, later):
    """Give a dump a shard that its catalogue lacks, as a dump gets that a shard is born in."""
    folder = later.parent / "orphan"
    folder.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", folder], check=True)
    for path in folder.glob("*.meta"):
        meta = path.read_bytes()
    for path in folder.iterdir():
        path.unlink()
    shutil.copytree(later, folder, dirs_exist_ok=True)
    (old,) = folder.glob("*.meta")
    old.write_bytes(meta)
    _fix_manifest(folder, meta)
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, ".")
    shutil.rmtree(folder)


def _fix_manifest(folder, meta):
    (path,) = folder.glob("*.manifest")
    content = json.loads(path.read_text())
    low, high = meta[1:3]  # a varint behind the tag: seven bits a byte
    content["meta"]["size"] = low & 0x7F | high << 7 if low & 0x80 else low
    path.write_text(json.dumps(content))
