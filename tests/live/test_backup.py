"""A backup that goes well: what it makes, who can read it, what it says, what it leaves."""

import contextlib
import json
import os
import pty
import random
import socket
import stat
import subprocess

import pytest
from owner import ENDINGS, PROGRAM, Owner
from restorer import without_counters
from stand import count_points, query, write_points
from stand_machine import USER, wait_for

ODD_DATABASES = ("odd name", "Küche.Bad", "x rp=y shard=3", "-portable", "a,b;c$(id)")
ODD_RUNTAGS = (
    "my backup from last tuesday",
    "Küche  zwei Leerzeichen, (3) +x@y.z 備份",
    "2026-11-23_1100.pi",
)


@pytest.fixture(scope="module")
def owner(pi, nas):
    made = Owner(pi, nas, user=USER)
    write_points(pi, "home", *_points("cpu", 3000))
    yield made
    made.away()


@pytest.fixture(autouse=True)
def _renewed(owner):
    owner.renew()


def _points(measurement, count, start=0):
    return [
        f"{measurement},room=r{i % 5} value={random.random()} {i * 60}000000000"  # noqa: S311
        for i in range(start + 1, start + count + 1)
    ]


def _fill_with_oddities(folder):
    """Put into a folder what breaks backups: odd names, owners, modes, kinds, attributes."""
    folder.mkdir()
    source = folder.parents[2] / "nextcloud/html/."
    subprocess.run(["cp", "-a", source, folder], check=True)
    long = folder / ("deep" * 20) / ("er" * 60) / ("name" * 60)
    long.mkdir(parents=True)
    (long / ("f" * 250)).write_bytes(b"long")
    (folder / "suid").write_bytes(b"s")
    (folder / "suid").chmod(0o4755)
    (folder / "nobody can read me").write_bytes(b"0")
    (folder / "nobody can read me").chmod(0)
    (folder / "sticky").mkdir()
    (folder / "sticky").chmod(0o1777)
    (folder / "huge ids").write_bytes(b"h")
    os.chown(folder / "huge ids", 3_000_000_000, 2_999_999_999)
    (folder / "old").write_bytes(b"o")
    os.utime(folder / "old", (5, 5))
    os.mkfifo(folder / "pipe")
    (folder / "capable").write_bytes(b"c")
    os.setxattr(
        folder / "capable", "security.capability", bytes.fromhex("0000000200200000" + "00" * 12)
    )
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(folder / "socket"))


def _facts(top):
    """What is below a folder: kind, mode, owner, content, time, attributes and links, by name."""
    found, first = {}, {}
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if stat.S_ISSOCK(status.st_mode):
                continue  # a socket is no data
            relative = os.path.relpath(path, top)
            content = b""
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as stream:
                    content = without_counters(stream.read())
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            xattrs = {
                n: os.getxattr(path, n, follow_symlinks=False)
                for n in os.listxattr(path, follow_symlinks=False)
            }
            first[status.st_ino] = min(relative, first.get(status.st_ino, relative))
            found[relative] = [
                status.st_mode,
                status.st_uid,
                status.st_gid,
                content,
                xattrs,
                int(status.st_mtime),
                status.st_ino,
            ]
    for facts in found.values():
        facts[-1] = first[facts[-1]]
    return found


def _without_xattrs(facts):
    return {name: [v for i, v in enumerate(each) if i != 4] for name, each in facts.items()}


@pytest.fixture
def odd(owner):
    folder = owner.top / "volumes/nodered/data/odd"
    _fill_with_oddities(folder)
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)


def test_general_archive_is_the_stack(owner, odd, tmp_path):
    """Unpacked by plain tar, the general archive is the stack: owners, modes, links, odd names."""
    owner.backup("--runtag", "odd")
    owner.assert_set("odd")
    archive = owner.here("odd", "general")
    names = subprocess.run(
        ["tar", "-tzf", archive], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert all(name.startswith("./") for name in names)
    assert {"./.env", "./docker-compose.yml", "./docker-compose-override.yml"} <= set(names)
    assert "./menu.sh" not in names

    want = {}
    for name in ("services", "volumes"):
        want |= {f"{name}/{k}": v for k, v in _facts(owner.top / name).items()}
    out = ("volumes/influxdb/", "volumes/nextcloud/")
    want = {k: v for k, v in want.items() if not k.startswith(out)}
    want = {k: [*v[:-1], v[-1] if "odd/" in k else ""] for k, v in want.items()}
    for words, same in (
        (["tar", "-xpzf"], _without_xattrs),
        (["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpzf"], lambda x: x),
    ):
        unpacked = tmp_path / words[1]
        unpacked.mkdir()
        subprocess.run([*words, archive, "-C", unpacked], check=True)
        got = {k: v for k, v in _facts(unpacked).items() if "/" in k}
        got = {
            k: [*v[:-1], "volumes/" + v[-1].split("volumes/")[-1] if "odd/" in k else ""]
            for k, v in got.items()
        }
        want_here = {
            k: [*v[:-1], "volumes/" + v[-1] if "odd/" in k else ""] for k, v in want.items()
        }
        assert set(got) == set(want_here)
        for name, facts in same(want_here).items():
            assert same(got)[name] == facts, name
        for empty in ("influxdb", "nextcloud"):
            assert os.listdir(unpacked / "volumes" / empty) == []


def test_points_come_back(owner, pi):
    """From the seed's steps on the influx part an empty server has every point of every database."""
    for number, name in enumerate(ODD_DATABASES):
        write_points(pi, name, *_points("m e".replace(" ", "\\ "), 50 + number))
    query(pi, 'CREATE DATABASE "empty one"')
    query(pi, 'CREATE RETENTION POLICY "for ever" ON "home" DURATION INF REPLICATION 1')
    write_points(pi, "home", *_points("slow", 400), rp="for ever")
    write_points(pi, "home", *[f"old value=1 {week * 604800}000000000" for week in range(20)])
    before = count_points(pi)
    owner.backup("--runtag", "points")
    owner.assert_set("points")
    part = owner.manifest("points")["parts"]["influx"]
    assert set(part["facts"]["databases"]) == {"home", "empty one", *ODD_DATABASES}
    names = subprocess.run(
        ["tar", "-tf", owner.here("points", "influx")], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert all(name.startswith("./") for name in names)
    assert sum(name.endswith(".tar.gz") for name in names) == len(part["facts"]["shards"])

    owner.empty_influx()
    assert count_points(pi) == {}
    said = owner.restore_influx(owner.there("points", "influx"), before)
    assert said.count("Restoring shard") == len(part["facts"]["shards"])
    (databases,) = query(pi, "SHOW DATABASES")
    assert ["empty one"] in databases[0]["values"]
    (policies,) = query(pi, 'SHOW RETENTION POLICIES ON "home"')
    assert "for ever" in [row[0] for row in policies[0]["values"]]


def test_exclusions_are_stated(owner):
    """What hosts.toml leaves out is not in the archive, and the manifest says what and why."""
    owner.set(
        '[[stack.exclude]]\npath = "volumes/mosquitto/log/*"\nreason = "only logs"\n'
        '[[stack.exclude]]\npath = "volumes/grafana"\nreason = "made anew"'
    )
    owner.backup("--runtag", "less")
    names = subprocess.run(
        ["tar", "-tzf", owner.here("less", "general")], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert "./volumes/mosquitto/log/" in names
    assert "./volumes/mosquitto/log/mosquitto.log" not in names
    assert not [name for name in names if "grafana" in name]
    left_out = {each["what"]: each["reason"] for each in owner.manifest("less")["left_out"]}
    assert left_out["volumes/mosquitto/log/*"] == "only logs"
    assert left_out["volumes/grafana"] == "made anew"
    assert {"volumes/influxdb/*", "volumes/nextcloud/*"} <= set(left_out)


def test_a_drive_that_is_not_mounted_is_told(owner, pi):
    """With what lay on it in the last set; the next one is as good as any, and the old one stays."""
    films = owner.top / "volumes/nodered/data/films"
    films.mkdir()
    pi.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", films])
    try:
        for size in (1_000_000, 2_000_000):  # this process does not see what is mounted there
            pi.run(["sh", "-c", f"head -c {size} /dev/zero > {films}/{size}.mp4"])
        owner.backup("--runtag", "mounted")
        pi.run(["umount", films])
        said = owner.backup("--runtag", "unmounted", code=3)
    finally:
        pi.run(["umount", films], check=False)
        films.rmdir()
    told = "volumes/nodered/data/films is empty now: mounted has 3,000,000 bytes in 2 files of it."
    assert told in said
    (warning,) = owner.manifest("unmounted")["warnings"]
    assert warning.startswith(told)
    assert owner.manifest("unmounted")["state"] == "warnings"
    owner.backup("--runtag", "after")


def test_what_can_be_fetched_anew_is_not_packed(owner):
    """By default mosquitto's retained messages and Node-RED's modules are in no archive."""
    owner.set(stack="exclude_defaults = true")
    owner.backup("--runtag", "lean")
    names = subprocess.run(
        ["tar", "-tzf", owner.here("lean", "general")], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    left_out = {each["what"] for each in owner.manifest("lean")["left_out"]}
    for place in ("volumes/mosquitto/data", "volumes/nodered/data/node_modules"):
        assert [name for name in names if name.startswith(f"./{place}")] == [f"./{place}/"]
        assert f"{place}/*" in left_out


def test_manifest_tells_what_was_made(owner, pi):
    """The manifest names host, version, times, containers with their images, databases, shards."""
    owner.backup("--runtag", "told")
    manifest = owner.manifest("told")
    assert manifest["state"] == "complete"
    assert manifest["host"] == "pi"
    assert manifest["program"].startswith("iotstack-invoke ")
    assert manifest["started_utc"] <= manifest["finished_utc"]
    assert manifest["zone"] == "UTC +0000"
    assert manifest["warnings"] == []
    containers = {each["name"]: each for each in manifest["containers"]}
    assert set(containers) == {"influxdb", "nodered", "mosquitto", "grafana"}
    for name, each in containers.items():
        image = pi.run(["docker", "inspect", "-f", "{{.Image}}", name]).stdout.strip()
        assert each["image_id"] == image
    influx = manifest["parts"]["influx"]["facts"]
    assert influx["version"].startswith("1.6")
    assert {"id", "database", "policy"} <= set(influx["shards"][0])


def test_log_is_complete_on_both_sides(owner):
    """The log has what both streams said, a line each with its time, and its copy is the same."""
    owner.backup("--runtag", "logged")
    lines = owner.log("logged").splitlines()
    assert all(line[:4].isdigit() and line[10] == " " and line[13] == ":" for line in lines)
    for words in ("influx_archive out: ", "backup complete:", "left out: volumes/nextcloud/*",
                  "offsite_manifest: done", "logged is complete after"):  # fmt: skip
        assert any(words in line for line in lines), words
    assert owner.there("logged", "log").read_text().splitlines() == lines


@pytest.mark.parametrize("runtag", ODD_RUNTAGS)
def test_free_runtags(owner, runtag):
    """A free name with blanks and letters of any script goes through to the vault."""
    owner.backup("--runtag", runtag)
    owner.assert_set(runtag)
    owner.assert_nothing_left()
    assert owner.manifest(runtag)["runtag"] == runtag


def test_default_runtag_and_the_same_minute(owner):
    """Without a name it is the minute; a second run in the same minute is refused."""
    for _ in range(2):  # the minute may end between the two runs
        owner.backup()
        (runtag,) = owner.runtags()
        before = owner.tree_hash()
        seconds = owner.pi.run(["date", "+%Y-%m-%d_%H%M"]).stdout.strip()
        if seconds == runtag:
            break
        owner.renew()
    owner.assert_set(runtag)
    said = owner.backup("--runtag", runtag, code=13)
    assert "already" in said
    assert "--runtag" in said
    assert owner.tree_hash() == before


@pytest.mark.parametrize(
    ("runtag", "named"),
    [("../x", "'/'"), ("a;b", "';'"), ("$HOME", "'$'"), ("-x", "'-'"), (".x", "'.'"), ("x ", "' '"),
     ("x\ny", "\\n"), ("é" * 51, "102 bytes"), ("'q'", '"\'"'), ("latest", "latest")],
)  # fmt: skip
def test_bad_runtags(owner, runtag, named):
    """A name outside the grammar is refused before anything is touched, naming the character."""
    before = owner.tree_hash()
    said = owner.backup(f"--runtag={runtag}", code=2)
    assert named in said
    assert owner.tree_hash() == before


def test_force_makes_it_again(owner):
    """With --force the same runtag is made again, and the set is whole here and in the vault."""
    owner.backup("--runtag", "again")
    first = owner.manifest("again")
    (owner.top / "services/new").write_text("new")
    owner.backup("--runtag", "again", "--force")
    owner.assert_set("again")
    owner.assert_nothing_left()
    second = owner.manifest("again")
    assert second["parts"]["general"]["sha256"] != first["parts"]["general"]["sha256"]
    (owner.top / "services/new").unlink()


def test_log_stays_private(owner):
    """The log of a set that is made again or delivered later is as private as the first one."""
    for words in ((), ("--force",)):
        owner.backup("--runtag", "private", *words)
        assert stat.S_IMODE(owner.here("private", "log").stat().st_mode) == 0o600


@pytest.mark.parametrize("words", [(), ("--why",), ("--force",)])
def test_dry_run_changes_nothing(owner, words):
    """--dry-run shows jobs, reasons and commands, and not a byte differs afterwards."""
    before = owner.tree_hash()
    said = owner.backup("--dry-run", "--runtag", "never", *words)
    assert "docker exec influxdb influxd backup -portable" in said
    assert "missing: pi:backups/never.general-backup.tar.gz" in said
    assert "nas:'vault/never.manifest.json'" in said
    assert owner.tree_hash() == before
    assert not (owner.backups / ".lock").exists()


def test_cron(owner, pi):
    """Under cron (no terminal, cron's environment, home as folder) a good run prints nothing."""
    env = [
        "env",
        "-i",
        f"HOME={pi.user_home}",
        "LOGNAME=iotpi",
        "SHELL=/bin/sh",
        "PATH=/usr/bin:/bin",
    ]
    config = pi.user_home / ".config/iotstack"
    config.mkdir(parents=True)
    (config / "hosts.toml").write_text(owner.settings_file.read_text())
    run = [*env, "/bin/sh", "-c", f"{' '.join(PROGRAM)} backup --runtag 'Küche cron'"]
    done = pi.run(run, user=USER, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    owner.assert_set("Küche cron")
    done = pi.run(run, user=USER, check=False)
    assert (done.returncode, done.stdout) == (13, "")
    assert len(done.stderr.strip().split("\n\n")) == 1
    (config / "hosts.toml").unlink()


def test_terminal(owner, pi):
    """On a terminal the phases and a table of the parts are shown."""
    ours, theirs = pty.openpty()
    process = owner.start("--runtag", "seen", stdout=theirs, stderr=theirs, stdin=theirs,
                          env={"TERM": "xterm", "COLUMNS": "150"})  # fmt: skip
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while chunk := os.read(ours, 65536):
            said += chunk
    os.close(ours)
    assert process.wait() == 0
    text = said.decode()
    for words in ("✓ pack the stack", "✓ dump InfluxDB", "✓ copy the general part to nas",
                  "seen.general-backup.tar.gz", "copied to", "Backup seen is complete."):  # fmt: skip
        assert words in text, words


def test_no_vault_is_local_only(owner):
    """Without a vault the set is made here, and a person is told once that it is nowhere else."""
    owner.set(vaults={})
    owner.backup("--runtag", "local")
    assert {kind for kind in ENDINGS if owner.here("local", kind).exists()} == set(ENDINGS)
    owner.assert_nothing_left()
    assert owner.log("local").lower().count("no vault") == 1


def test_two_vaults(owner):
    """Each vault gets a whole copy; the folder of a drive is a vault as well."""
    drive = owner.pi.user_home / "drive"
    drive.mkdir()
    os.chown(drive, 1000, 1000)
    owner.set('[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "~/drive"')
    owner.backup("--runtag", "both")
    owner.assert_set("both")
    for kind in ENDINGS:
        copy = drive / f"both.{ENDINGS[kind]}"
        assert copy.read_bytes() == owner.here("both", kind).read_bytes()
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def test_scp_only_vault(owner):
    """A vault without SFTP is as good as any other."""
    owner.set(vaults={"nas": ("nas-scp", "vault")})
    owner.backup("--runtag", "scp")
    owner.assert_set("scp")


def test_sftp_only_vault(owner):
    """A vault without a shell gets the set as any other, and each file is read back."""
    owner.set(vaults={"nas": ("nas-sftp", "vault")})
    owner.backup("--runtag", "sftp")
    owner.assert_set("sftp")


def test_no_ssh_program(owner, pi):
    """Without an `ssh` program on the Pi the bytes go through a raw channel."""
    pi.hide("ssh")
    try:
        owner.backup("--runtag", "raw")
    finally:
        pi.show("ssh")
    owner.assert_set("raw")


def test_other_login_and_absolute_folder(owner, nas):
    """A vault may be an absolute path with blanks, reached as another user."""
    folder = nas.user_home / "my vault's Ö $HOME"
    folder.mkdir()
    os.chown(folder, 1000, 1000)
    owner.set(vaults={"nas": ("nas-user", str(folder))})
    owner.backup("--runtag", "else where")
    for kind in ENDINGS:
        copy = folder / f"else where.{ENDINGS[kind]}"
        assert copy.read_bytes() == owner.here("else where", kind).read_bytes()
        assert copy.stat().st_uid == 1000


def test_retention(owner):
    """After seven good runs the newest five are here and all seven in the vault."""
    runtags = [f"2026-01-0{day}_1100" for day in range(1, 8)]
    for runtag in runtags:
        owner.backup("--runtag", runtag)
    assert owner.runtags() == runtags[2:]
    assert owner.runtags(owner.vault) == runtags
    owner.assert_nothing_left()
    assert {name.split(".")[0] for name in os.listdir(owner.backups)} == {
        "",
        "influxdb",
        *runtags[2:],
    }
    assert f"{runtags[1]} is removed" in owner.log(runtags[6])


def test_two_runs_at_once(owner):
    """A second run while one works is refused with exit 11, and says who holds the lock."""
    first = owner.start("--runtag", "first")
    wait_for("the lock", lambda: list(owner.backups.glob("first.*")), pause=0.005)
    before = set(os.listdir(owner.vault))
    said = owner.backup("--runtag", "second", code=11)
    assert "backup first" in said
    assert "Wait" in said
    assert first.wait() == 0
    owner.assert_set("first")
    assert not list(owner.backups.glob("second.*"))
    assert not before & {name for name in os.listdir(owner.vault) if "second" in name}


def test_delivers_what_the_vault_lacks(owner):
    """Where only copies are missing, the same command delivers them and makes nothing again."""
    owner.backup("--runtag", "twice")
    made = {kind: owner.here("twice", kind).stat().st_ino for kind in ("general", "influx")}
    for kind in ENDINGS:
        owner.there("twice", kind).unlink()
    owner.backup("--runtag", "twice")
    owner.assert_set("twice")
    owner.there("twice", "influx").unlink()
    owner.backup("--runtag", "twice")
    owner.assert_set("twice")
    assert {kind: owner.here("twice", kind).stat().st_ino for kind in made} == made


def test_root_and_compose_2(pi, nas, owner, stand):
    """Root makes the same of a stack that Compose 2 started; the files are root's."""
    if stand.compose_v2 is None:
        pytest.skip("no Compose v2")
    owner.away()
    root = Owner(pi, nas, user=None, version=2)
    try:
        write_points(pi, "home", *_points("cpu", 100))
        root.backup("--runtag", "as root")
        root.assert_set("as root")
        root.assert_nothing_left()
        manifest = root.manifest("as root")
        assert {"influxdb", "nodered", "mosquitto", "grafana"} == {
            each["name"] for each in manifest["containers"]
        }
        assert "sudo" not in root.log("as root")
        assert json.loads(root.there("as root", "manifest").read_text()) == manifest
    finally:
        root.away()
