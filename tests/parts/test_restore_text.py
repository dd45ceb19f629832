"""RESTORE.txt: what it says of a set, that its commands are of bash, and where it is with a set."""

import hashlib
import io
import os
import subprocess
from dataclasses import replace

import folders
import pytest
from contexts import PlainContext
from hypothesis import given
from hypothesis import strategies as st
from remote_stacks import Laptop, Pi, names_in

from iotstack_invoke.backups.manifest import LeftOut, Manifest, Part, read_manifest
from iotstack_invoke.backups.names import PARTS
from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.engine.steps import File
from iotstack_invoke.environment.environment import remove_set
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.parts.restore_steps import outside_step
from iotstack_invoke.parts.restore_text import restore_text_of, text_fits
from iotstack_invoke.services.containers import Container
from iotstack_invoke.workflows.backup import WriteRestoreText

GOLDEN = folders.TESTS / "plans"
TAG = "2026-11-23_1100"


def part(kind, runtag=TAG, **facts):
    sha256 = hashlib.sha256(kind.encode()).hexdigest()
    return Part(kind, f"{runtag}.{PARTS[kind]}", len(kind), sha256, 1.5, facts=facts)


def server(container, engine, version, **rows):
    told = {"container": container, "engine": engine, "version": version, "rows": rows}
    return {**told, "data": f"volumes/{container}/data"}


TIMESCALE = {
    **server("timescaledb", "postgres", "15.8", sensors={"t": 7}),
    "timescaledb": ["sensors"],
}
OUTSIDE = [
    {
        "path": "/var/lib/docker/volumes/iotstack_data/_data",
        "volume": "iotstack_data",
        "key": "data",
        "mounts": [["portainer", "/data"]],
        "restore_to": "",
    },
    {
        "path": f"/var/lib/docker/volumes/{'0a' * 32}/_data",
        "mounts": [["influxdb2", "/etc/influxdb2"]],
        "anonymous": "influxdb2:/etc/influxdb2",
    },
    {"path": "/media/usb/Küche's", "volume": "", "key": "", "mounts": [], "restore_to": "/srv/k"},
]
SHARD = {"id": 1, "database": "home", "policy": "autogen", "size_bytes": 100}
FULL = Manifest(
    TAG,
    "live-pi",
    "iotstack-invoke 0.1.0",
    "2026-11-23T10:00:00Z",
    "2026-11-23T10:02:05Z",
    "CET +0100",
    (
        part("general", unpacked_bytes=4096),
        part("outside", outside=OUTSIDE),
        part(
            "influx",
            container="influxdb",
            version="1.8.10",
            databases=["home", 'odd "name", Küche'],
            shards=[SHARD],
            continuous_queries=2,
        ),
        part("influxdb2", container="influxdb2", version="2.7.10", data="volumes/influxdb2/data"),
        part(
            "mariadb",
            servers=[
                server("mariadb", "mariadb", "10.11.6-MariaDB", home={"t": 3, "u": 1200}),
                server("other_db", "mariadb", "11.4.2-MariaDB"),
            ],
        ),
        part(
            "postgres",
            servers=[server("postgres", "postgres", "15.8", postdb={"z": 1}), TIMESCALE],
        ),
        part(
            "nextcloud", servers=[server("nextcloud_db", "mariadb", "10.11.6", nextcloud={"f": 2})]
        ),
        part(
            "wordpress", servers=[server("wordpress_db", "mariadb", "10.11.6", wordpress={"p": 2})]
        ),
    ),
    containers=(
        Container(
            "influxdb", "influxdb:1.8", "sha256:1", f"influxdb@sha256:{'2' * 64}", running=True
        ),
        Container("mariadb", "iotstack-mariadb", "sha256:1", "", running=True),
        Container("nextcloud", "nextcloud:28", "sha256:1", "", running=True),
        Container("nodered", "iotstack-nodered", "sha256:1", "", running=True),
    ),
    folder="/home/pi/IOTstack",
    rows=("[[stack.include]]", 'path = "/opt/x"'),
)
ODD = "vor (dem) Umzug, Küche"
LACKING = Manifest(
    ODD,
    "live-pi",
    "iotstack-invoke 0.1.0",
    "2026-11-23T10:00:00Z",
    "2026-11-23T10:02:05Z",
    "CET +0100",
    (
        Part("general", f"{ODD}.{PARTS['general']}", error="tar ended with 2:\n  no space"),
        part("influx", ODD, version="1.8.10", databases=["empty"], shards=[]),
        part(
            "mariadb",
            ODD,
            servers=[
                {
                    **server("other_db", "mariadb", "11.4.2-MariaDB", home={"t": 3}),
                    "left_out": ["view `home`.`v`, which names a table that is gone"],
                }
            ],
            failed={"mariadb": "its password differs from its environment"},
        ),
    ),
    left_out=(LeftOut("volumes/nextcloud/*", "not safe to copy while it runs"),),
    warnings=("tar: ./volumes/K\x1b[31m: file changed as we read it",),
    folder="/srv/Anna's stack",
)


def commands_of(text):
    """The lines that are for bash, as they would be pasted."""
    return "".join(f"{line}\n" for line in text.splitlines() if line.startswith("    "))


def bash(*words, **given):
    return subprocess.run(["bash", *words], check=False, capture_output=True, text=True, **given)


@pytest.mark.parametrize(("name", "manifest"), [("full", FULL), ("lacking", LACKING)])
def test_the_text_of_a_set(name, manifest):
    """It names this set's own files, and has steps for the parts that it has and no others."""
    assert restore_text_of(manifest) == (GOLDEN / f"{name}.RESTORE.txt").read_text("utf-8")


@pytest.mark.parametrize("manifest", [FULL, LACKING])
def test_its_commands_are_of_bash(manifest):
    """All that is indented by four blanks parses, and no line of prose is too long."""
    text = restore_text_of(manifest)
    told = bash("-n", input=commands_of(text))
    assert (told.returncode, told.stderr) == (0, "")
    prose = [line for line in text.splitlines() if not line.startswith("    ")]
    assert [line for line in prose if len(line) > 76 and "sha256:" not in line] == []
    assert "\x1b" not in text


TEXT = st.text(max_size=40)


@given(TEXT, TEXT, TEXT, TEXT)
def test_whatever_a_manifest_says_is_no_command(host, why, warning, folder):
    """Texts from the stack stand in prose on lines of their own, and a folder is one word."""
    manifest = replace(
        FULL,
        host=host,
        folder=folder,
        left_out=(LeftOut(why, why),),
        warnings=(warning,),
        parts=(*FULL.parts[:1], Part("influx", f"{TAG}.influx-backup.tar", error=why)),
    )
    text = restore_text_of(manifest)
    plain = replace(manifest, host="h", left_out=(), warnings=(), folder="/x")
    expected = commands_of(restore_text_of(plain))
    others = [line for line in commands_of(text).splitlines() if "STACK=" not in line]
    assert others == [line for line in expected.splitlines() if "STACK=" not in line]
    text.encode()


@pytest.mark.parametrize(
    "folder", ["/home/pi/IOTstack", "/srv/Anna's", "/a\nb", "/$(id) `id` \\", "/Küche\x1b"]
)
def test_the_folder_is_one_word(folder):
    """Bash understands the folder's name as it is."""
    (line,) = (
        e
        for e in commands_of(restore_text_of(replace(FULL, folder=folder))).splitlines()
        if "STACK=" in e
    )
    assert bash("-c", f'{line}\nprintf %s "$STACK"').stdout == folder


def test_its_hashes_find_what_is_damaged(tmp_path):
    """The first block compares every part with what the manifest says."""
    for each in LACKING.made:
        (tmp_path / each.file).write_bytes(each.kind.encode())
    text = commands_of(restore_text_of(LACKING)).partition("SET=")[0]
    told = bash("-c", text, cwd=tmp_path)
    assert (told.returncode, told.stdout.count(": OK\n")) == (0, 2)
    (tmp_path / LACKING.made[0].file).write_bytes(b"other")
    told = bash("-c", text, cwd=tmp_path)
    assert (told.returncode, told.stdout.count(": FAILED\n")) == (1, 1)


def test_what_lies_outside_is_put_back_by_hand(tmp_path):
    """A new volume and a path get their files and owners; what is there is left, or moved aside."""
    root, usb = tmp_path / "docker/volumes", tmp_path / "it's\nusb"
    for folder in (root / "old/_data", root / "kept/_data", usb):
        folder.mkdir(parents=True)
        (folder / "file").write_text(folder.parent.name)
        os.link(folder / "file", folder / "second")
    (root / "old/_data").chmod(0o751)
    goal = tmp_path / "srv/usb"
    goal.mkdir(parents=True)
    (goal / "newer").touch()
    rows = [
        {"path": f"{root}/old/_data", "volume": "old"},
        {"path": f"{root}/kept/_data", "volume": "kept"},
        {"path": str(usb), "restore_to": str(goal)},
    ]
    archive = tmp_path / f"{TAG}.{PARTS['outside']}"
    members = [f".{each['path']}" for each in rows]
    subprocess.run(["tar", "-czf", archive, "-C", "/", *members], check=True)
    (root / "old").rename(tmp_path / "gone")
    (root / "kept/_data/file").write_text("newer")
    tools, new = tmp_path / "tools", tmp_path / "elsewhere"
    tools.mkdir()
    new.mkdir()
    (new / "kept").mkdir()
    scripts = {
        "sudo": 'exec "$@"',
        "docker": f"""for name; do :; done
case "$2" in
create) mkdir -p {new}/$name/_data ;;
inspect) [ -d {new}/$name ] && echo {new}/$name/_data ;;
esac""",
    }
    for name, script in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    made = part("outside", outside=rows)
    text = f"STACK=.\n{commands_of(chr(10).join(outside_step(made).lines))}"
    path = f"{tools}:{os.environ['PATH']}"
    told = bash("-c", text, cwd=tmp_path, env={**os.environ, "PATH": path})
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout == "kept exists already, and is not changed\n"
    assert names_in(new / "kept") == []
    assert (new / "old/_data/second").read_text() == "old"
    assert (new / "old/_data").stat().st_mode & 0o777 == 0o751
    assert (new / "old/_data/file").stat().st_nlink == 2
    assert names_in(goal) == ["file", "second"]
    (aside,) = (tmp_path / "srv").glob("usb.before-*")
    assert names_in(aside) == ["newer"]
    assert names_in(tmp_path / "srv") == ["usb", aside.name]


def test_a_file_is_moved_aside_beside_an_earlier_one(tmp_path):
    """What an earlier attempt moved aside is not replaced by what that attempt put there."""
    live = tmp_path / "srv/site.conf"
    live.parent.mkdir()
    live.write_text("of the set\n")
    archive = tmp_path / f"{TAG}.{PARTS['outside']}"
    subprocess.run(["tar", "-czf", archive, "-C", "/", f".{live}"], check=True)
    live.write_text("newer\n")
    (tmp_path / "srv/site.conf.before").write_text("the owner's\n")
    text = commands_of(
        "\n".join(outside_step(part("outside", outside=[{"path": str(live)}])).lines)
    )
    told = typed(text, tmp_path)
    assert live.read_text() == "of the set\n", told.stderr
    texts = {each.read_text() for each in live.parent.glob("site.conf.before*")}
    assert texts == {"newer\n", "the owner's\n"}


def typed(commands, folder, **scripts):
    """Paste commands into a bash that somebody types into, which goes on behind an error."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    scripts = {"sudo": 'exec "$@"', "docker": "echo docker $* >> $LOG", "sleep": "", **scripts}
    for name, script in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    env = {"PATH": f"{tools}:{os.environ['PATH']}", "LOG": str(folder / "calls")}
    return bash(
        "--norc",
        "-i",
        input=f"STACK={folder}\n{commands}",
        cwd=folder,
        env={**os.environ, **env},
        start_new_session=True,
    )


@pytest.mark.parametrize("fails", ["", "mv", "down", "up", "runs"])
def test_a_second_attempt_unpacks_and_loads_over_nothing(tmp_path, fails):
    """The first attempt is moved aside as well; where that fails no block behind it acts."""
    stack = tmp_path / "IOTstack"
    (stack / "volumes").mkdir(parents=True)
    (stack / "docker-compose.yml").touch()
    data = stack / "volumes/home.db"
    data.write_text("of the set")
    subprocess.run(
        ["tar", "-czf", f"{TAG}.{PARTS['general']}", "-C", stack, "."], check=True, cwd=tmp_path
    )
    data.write_text("newer")
    first = tmp_path / "IOTstack.before"
    first.mkdir()
    (first / "owners").touch()
    kinds = ("general", "influx", "mariadb", "influxdb2")
    parts = tuple(each for each in FULL.parts if each.kind in kinds)
    text = restore_text_of(replace(FULL, parts=parts, folder=str(stack)))
    docker = f"""echo "docker $*" >> $LOG
case "$*" in
"compose {fails or "-"}"*) exit 1 ;;
ps*) {"echo mariadb" if fails == "runs" else ":"} ;;
esac"""
    sudo = f'[ "$1" != "{fails}" ] || exit 1\nexec "$@"'
    told = typed(commands_of(text), tmp_path, docker=docker, sudo=sudo)
    calls = (tmp_path / "calls").read_text()
    asides = sorted(tmp_path.glob("IOTstack.before*"))
    assert names_in(first) == ["owners"]
    if fails in ("mv", "down"):
        assert data.read_text() == "newer", told.stderr
        assert calls == "docker compose down\n"
        assert asides == [first]
        return
    assert data.read_text() == "of the set", told.stderr
    assert (asides[1] / "volumes/home.db").read_text() == "newer"
    acted = ("docker start", "docker exec", "docker compose up -d")
    assert [each for each in acted if each in calls] == ([] if fails else [*acted]), told.stderr


@pytest.fixture
def pi(little_stack, tmp_path):
    """A stack with a vault that is a folder."""
    little_stack.backups, little_stack.usb = little_stack.folder / "backups", tmp_path / "usb"
    little_stack.usb.mkdir()
    with little_stack.settings.open("a") as stream:
        stream.write(f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{little_stack.usb}"\n')
    return little_stack


def ran(stack, line, code=0):
    told = stack.run(line)
    assert told.returncode == code, told.stderr
    return told.stdout + told.stderr


def is_of_manifest(path):
    """Tell whether a RESTORE.txt is that of the manifest beside it, with its sum."""
    content = path.with_name(f"{TAG}.manifest.json").read_bytes()
    text = path.read_bytes()
    assert text_fits(text, content)
    return text.startswith(restore_text_of(read_manifest(content)).encode())


def test_a_backup_has_it_here_and_in_a_vault(pi):
    """It is of the manifest beside it, also of a set that is made again, and goes with the set."""
    here, there = (folder / f"{TAG}.RESTORE.txt" for folder in (pi.backups, pi.usb))

    def assert_is_of_manifest():
        manifest = read_manifest((pi.backups / f"{TAG}.manifest.json").read_bytes())
        assert manifest.folder == str(pi.folder)
        assert is_of_manifest(here)
        assert here.read_bytes() == there.read_bytes()
        assert os.stat(here).st_mode & 0o777 == 0o600
        return manifest

    ran(pi, f"backup --runtag {TAG}")
    first = assert_is_of_manifest()
    assert "Ignored, not the name" not in ran(pi, "prune --at all --dry-run")
    assert f"A backup {TAG} exists already" in ran(pi, f"backup --runtag {TAG}", 13)
    (pi.folder / "volumes/nodered/flows.json").write_text("[1, 2, 3]\n")
    ran(pi, f"backup --runtag {TAG} --force")
    second = assert_is_of_manifest()
    assert first.parts[0].sha256 != second.parts[0].sha256 in here.read_text()
    for folder in (pi.backups, pi.usb):
        remove_set(LocalHost("/"), str(folder), TAG)
        assert [name for name in names_in(folder) if name[0] != "."] == []


def test_a_set_without_it_is_as_good(pi):
    """It is complete, and no backup makes it again; a verification tells, and a delivery makes it."""
    ran(pi, f"backup --runtag {TAG}")
    for folder in (pi.backups, pi.usb):
        (folder / f"{TAG}.RESTORE.txt").unlink()
    before = pi.tree()
    assert f"A backup {TAG} exists already" in ran(pi, f"backup --runtag {TAG}", 13)
    assert ran(pi, "list").count("complete") == 2
    told = ran(pi, "verify --at all", 3)
    assert told.count(f"{TAG}.RESTORE.txt is missing.") == 2
    ran(pi, "sync")
    assert list(pi.usb.glob("*.RESTORE.txt"))
    ran(pi, "verify --at all")
    assert {k for k in pi.tree() if "nodered" in k} == {k for k in before if "nodered" in k}


def test_a_run_that_died_before_it_is_finished(pi):
    """Whoever goes on with the set writes it of the manifest that is there, and delivers it."""
    ran(pi, f"backup --runtag {TAG}")
    texts = [folder / f"{TAG}.RESTORE.txt" for folder in (pi.backups, pi.usb)]
    expected = texts[0].read_bytes()
    for each in texts:
        each.unlink()
    manifest = (pi.backups / f"{TAG}.manifest.json").read_bytes()
    began = read_manifest(manifest).started_utc
    (pi.backups / f"{TAG}.unfinished.jsonl").write_text(f'{{"started_utc": "{began}"}}\n')
    ran(pi, f"backup --runtag {TAG}")
    assert [each.read_bytes() for each in texts] == [expected] * 2
    assert (pi.backups / f"{TAG}.manifest.json").read_bytes() == manifest
    texts[1].unlink()
    ran(pi, "sync")
    assert texts[1].read_bytes() == expected
    assert "Nothing" in ran(pi, "sync --dry-run")


def test_another_machine_has_it_and_it_is_fetched_from_there(tmp_path, start_sshd):
    """A backup from a laptop writes it there and copies it; `pull` takes it with the set, once."""
    pi = Pi(tmp_path / "pi", start_sshd, "pi")
    laptop = Laptop(tmp_path / "laptop", pi, vaults=("shelf", "other"))
    assert laptop.run(f"backup --host pi --runtag {TAG}").returncode == 0
    text = pi.backups / f"{TAG}.RESTORE.txt"
    assert is_of_manifest(text)
    shelf, other = (each / text.name for each in laptop.vaults)
    assert shelf.read_bytes() == other.read_bytes() == text.read_bytes()
    other.unlink()
    assert laptop.run("pull --host pi --to other").returncode == 0
    assert other.read_bytes() == text.read_bytes()
    assert laptop.run("pull --host pi --to other --dry-run").stdout == ""


def test_a_text_that_is_not_on_the_disk_as_it_was_written_fails(tmp_path):
    """It is read back, as an archive is: what a disk lost is told, and tried again."""

    class Rots(LocalHost):
        def write(self, path, source, modified_s, start=0, size_bytes=None):
            content = source.read()
            return super().write(path, io.BytesIO(content[:-1] + b"?"), modified_s)

    (tmp_path / "manifest").write_text(FULL.to_json())
    files = (File("pi", name, str(tmp_path)) for name in ("RESTORE.txt", "manifest"))
    context = PlainContext({"pi": Rots(str(tmp_path))})
    with pytest.raises(
        StepFailed, match=r"RESTORE\.txt\.partial differs from what was written"
    ) as failure:
        WriteRestoreText(*files, TAG).do(context)
    assert failure.value.again
    assert not (tmp_path / "RESTORE.txt").exists()
