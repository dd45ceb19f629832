"""A restore of a little stack: what is not proven is not used, and nobody works on what is moved."""

import contextlib
import json
import os
import pty
import shutil
import socket
import sqlite3
import subprocess
import tarfile
import time
from dataclasses import replace

import pytest
from contexts import X10, until
from fake_docker import LittleDocker
from restores import flows, killed_amid_the_swap, restored_once

from iotstack_invoke.backups.manifest import Part, read_manifest
from iotstack_invoke.commands.restore.needed import top_texts
from iotstack_invoke.core.errors import ExitCode
from iotstack_invoke.hosts.ssh import open_host

TAG = "t1"
DOCKER = """
running() { cat "$0.running"; }
case "$1 $2" in
"ps --all") echo nodered ;;
"stop --time") echo stop >> "$0.calls"; echo false > "$0.running" ;;
"start nodered") echo start >> "$0.calls"; echo true > "$0.running" ;;
"inspect --type")
    if [ "$5" = "{{.Name}} {{json .State}}" ]; then
        [ "$(running)" = true ] && is=running || is=exited
        echo "/nodered {\\"Status\\": \\"$is\\"}"
    elif [ "$4" = --format ]; then echo /nodered; else sed "s/RUNNING/$(running)/" "$0.json"; fi ;;
"inspect --format") [ "$(running)" = false ] || echo /nodered ;;
"image inspect") echo '[]' ;;
"version --format") echo 28.2.2 ;;
"compose version") echo 'Docker Compose version v2.24.5' ;;
esac
"""
LACKS = """
case "$*" in
"image inspect -- grafana/grafana:9") ;;
"image inspect"*) echo "Error: No such image: $4" >&2; exit 1 ;;
"compose version") echo 'Docker Compose version v2.24.5' ;;
esac
"""
MOVED = 'case "$*" in *volumes/nodered*) echo "moved $(cat "$(dirname "$0")/docker.running")" '
MOVED += '>> "$(dirname "$0")/docker.calls"; ACT ;; esac; exec /bin/mv "$@"'


@pytest.fixture
def pi(little_stack):
    """A stack with a backup of [1], whose live data are [2], and a container that runs."""
    pi = little_stack
    put(pi, "[1]\n")
    assert pi.run(f"backup --runtag {TAG}").returncode == 0
    put(pi, "[2]\n")
    pi.archive = pi.folder / f"backups/{TAG}.general-backup.tar.gz"
    return pi


@pytest.fixture
def running(pi):
    """The same with a container that runs."""
    pi.runs(nodered="nodered/node-red")
    pi.tool("docker", DOCKER)
    pi.tool("mv", MOVED.replace("ACT", ":"))
    known = pi.tools / "docker.json"
    known.write_text(known.read_text().replace('"Running": true', '"Running": RUNNING'))
    (pi.tools / "docker.running").write_text("true\n")
    return pi


def put(pi, text):
    (pi.folder / "volumes/nodered/flows.json").write_text(text)


def restored(pi, line="", code=0):
    told = pi.run(f"restore --runtag {TAG} --yes {line}")
    assert told.returncode == code, told.stderr
    return " ".join((told.stdout + told.stderr).split())


def calls(pi):
    return (pi.tools / "docker.calls").read_text().splitlines()


def another(path):
    """Make an archive a whole one that is another: by the date in its gzip's header."""
    content = bytearray(path.read_bytes())
    content[4] ^= 1
    path.write_bytes(content)
    subprocess.run(["gzip", "-t", path], check=True)


def test_what_runs_is_stopped_while_it_is_replaced(running):
    """A program that runs would go on with the files that were moved away."""
    restored(running, "--from here")
    assert flows(running) == "[1]\n"
    found = calls(running)
    assert (found[0], found[-1]) == ("stop", "start")
    assert set(found[1:-1]) == {"moved false"}


def test_what_did_not_run_before_is_not_started_and_that_is_told(pi):
    """Whoever looks for it afterwards must not take it for what the restore broke."""
    pi.runs(nodered="nodered/node-red", other="other:1", down=["nodered", "other"])
    told = pi.run(f"restore --runtag {TAG} --from here --dry-run")
    assert "  not running, and not started: nodered, other\n" in told.stdout
    said = restored(pi, "--from here --only nodered")
    assert "stopped before, and still stopped: nodered. To start it: docker start nodered" in said
    said = restored(pi, "--from here")
    assert (
        "stopped before, and still stopped: nodered, other. To start them: docker start no" in said
    )


@pytest.mark.parametrize(("flag", "name"), [("i", "volumes/nodered"), ("a", "volumes")])
def test_what_cannot_be_renamed_is_seen_before_the_stop(running, flag, name):
    """A folder that is immutable, or one around that takes no rename: nothing was stopped yet."""
    held = running.folder / name
    if subprocess.run(["chattr", f"+{flag}", held], check=False, capture_output=True).returncode:
        pytest.skip("no file can be made immutable here")
    try:
        said = restored(running, "--from here", ExitCode.REFUSED)
    finally:
        subprocess.run(["chattr", f"-{flag}", held], check=True)
    assert f"sudo chattr -{flag} {held}" in said
    assert not (running.tools / "docker.calls").exists()
    assert flows(running) == "[2]\n"
    restored(running, "--from here")


@pytest.mark.parametrize("line", ["--dry-run", "--yes"])
def test_a_dry_run_without_room_is_refused_like_the_real_one(pi, line):
    """At its end, with what is lacking."""
    path = pi.folder / f"backups/{TAG}.manifest.json"
    manifest = read_manifest(path.read_bytes(), TAG)
    (part,) = manifest.parts
    huge = replace(part, facts={**part.facts, "unpacked_bytes": 10**18})
    path.write_text(replace(manifest, parts=(huge,)).to_json())
    told = pi.run(f"restore --runtag {TAG} --from here {line}")
    said = " ".join(told.stderr.split())
    assert told.returncode == ExitCode.REFUSED, said
    assert "this restore needs about 1.0 EB: 1.0 EB for the unpacked archives." in said
    assert "kept by earlier restores" not in said  # there were none
    assert ("would run" in told.stdout) == (line == "--dry-run")
    kept = pi.folder / "restore/previous-t0-20260101T000000Z"
    kept.mkdir(parents=True)
    said = " ".join(pi.run(f"restore --runtag {TAG} --from here {line}").stderr.split())
    assert f"by removing data kept by earlier restores: {kept.parent}/previous-…." in said


@pytest.mark.parametrize("line", ["--dry-run", "--yes"])
def test_a_dry_run_of_a_damaged_archive_fails_like_the_real_one(pi, line):
    """All that would be done is told first, and at its end, once, that it would fail and why."""
    content = bytearray(pi.archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    pi.archive.write_bytes(content)
    told = pi.run(f"restore --runtag {TAG} --from here {line}")
    assert told.returncode == ExitCode.FAILED, told.stderr
    assert flows(pi) == "[2]\n"
    if line == "--dry-run":
        assert "  replaces: volumes/nodered" in told.stdout
        said = told.stderr.splitlines()[-1]
        assert told.stderr.count("damaged (tar") == 1
        assert said.startswith("The restore itself would fail: ")
        assert f"{pi.archive} is damaged (tar: exit 2): " in said
        assert f". To list the copies: inv show '{TAG}'" in said


@pytest.mark.parametrize("only", ["", "mosquitto", "nodered"])
def test_what_is_not_there_is_told(pi, only):
    """What the backup or the compose file has and this machine has not; --only: what was asked."""
    pi.runs(nodered="nodered/node-red", mosquitto="eclipse-mosquitto", down=["nodered"])
    assert pi.run("backup --runtag t2").returncode in (0, 3)
    pi.runs(nodered="nodered/node-red", down=["nodered"])
    named = "services: {mqtt: {container_name: mosquitto, image: e}, grafana: {image: g}}\n"
    (pi.folder / "docker-compose.yml").write_text(named)
    words = f"restore --runtag t2 --from here {only and f'--only {only}'}"
    told = pi.run(f"{words} --dry-run").stdout
    names = {"": "grafana, mosquitto", "nodered": ""}.get(only, only)
    assert ("missing, and not created: " in told) == bool(names)
    assert f"  missing, and not created: {names}\n" in told or not names
    done = " ".join(pi.run(f"{words} --yes").stdout.split())
    assert (f"missing before, and still missing: {names}. To create " in done) == bool(names)
    ends = {"": "up --detach grafana mqtt", "mosquitto": "up --detach mqtt"}
    assert ends.get(only, "") in done


@pytest.mark.parametrize("down", [[], ["nodered"]])
def test_a_stack_without_containers_is_told_to_be_brought_up(pi, down):
    """Before the question, and at the end, by name: it may be down on purpose."""
    docker = LittleDocker(pi)
    service = "{container_name: nodered, image: nodered/node-red, profiles: [%s]}"
    services = f"{{red: {service % ''}, other: {service % 'x'}}}".replace("profiles: []", "tty: 1")
    (pi.folder / "docker-compose.yml").write_text(f"services: {services}\n")
    docker.knows({}, later={"nodered": [("./volumes/nodered", "/data")]})
    made = pi.tools / "docker.made.json"
    made.write_text(
        made.read_text().replace('"Running": false', f'"Running": {"false" if down else "true"}')
    )
    words = f"restore --runtag {TAG} --from here"
    line = "no containers exist; creates and starts: nodered (of the compose file here)\n"
    assert f"  {line}" in pi.run(f"{words} --dry-run").stdout
    said = restored(pi, "--from here")
    assert " ".join(line.split()) in said
    names = "nothing" if down else "nodered"
    assert f"created and started, because no containers existed: {names}" in said


def test_what_somebody_starts_meanwhile_is_seen(running):
    """It has worked on what was moved: the restore fails, and all is as it was before."""
    running.tool("mv", MOVED.replace("ACT", 'echo true > "$(dirname "$0")/docker.running"'))
    said = restored(running, "--from here", 1)
    assert "Started meanwhile, by hand or by Docker: nodered. New data" in said
    assert "The stack is in its previous state." in said
    assert flows(running) == "[2]\n"


@pytest.mark.parametrize("only", ["", " --only nodered"])
@pytest.mark.parametrize("there", ["", "empty", "full"])
def test_what_no_backup_has_is_told_where_it_is_missing(pi, there, only):
    """With what fetches it again, as on a new machine; what lies here stays, and is told as that."""
    modules = pi.folder / "volumes/nodered/data/node_modules"
    modules.mkdir(parents=True)
    (modules / "red").write_text("x")
    assert pi.run("backup --runtag t2").returncode == 0
    if not there:
        shutil.rmtree(modules.parent)
    elif there == "empty":  # as it is after a restore
        (modules / "red").unlink()
    told = pi.run(f"restore --runtag t2 --from here --yes{only}")
    assert told.returncode == 0, told.stderr
    place = "volumes/nodered/data/node_modules/*"
    lines = [line for line in told.stdout.splitlines() if place in line]
    (line,) = lines
    if there == "full":
        assert line.startswith("  not changed: ")
    else:
        assert line.startswith(
            f"  neither in the backup nor here: {place} (modules, which `docker"
        )


def test_a_restore_is_told_from_where_to_where(pi):
    """The folder first, then the machine: a colon between them is read as a part of the path."""
    told = pi.run(f"restore --runtag {TAG} --from here --dry-run").stdout
    assert f" to {pi.folder} on this machine\n" in told


def test_a_dry_run_shows_at_a_terminal_that_it_reads_the_backup(pi):
    """At a NAS that takes long; without a terminal nothing is shown of it."""
    words = f"restore --runtag {TAG} --from here --dry-run"
    ours, theirs = pty.openpty()
    environment = {**pi.environment, "TERM": "xterm", "COLUMNS": "200"}
    command = pi.words(words)
    done = subprocess.run(
        command, env=environment, check=False, stderr=theirs, stdout=subprocess.DEVNULL
    )
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert (done.returncode, "reading the backup" in shown) == (0, True)
    assert pi.run(words).stderr == ""


def test_a_reload_without_an_influxdb_says_where_its_name_is_set(pi):
    """This stack has none: there is nothing to start."""
    told = pi.run("reload-influxdb --yes")
    assert told.returncode == 13
    said = "the stack has no container named influxdb, so there is no InfluxDB to reload."
    assert said in told.stderr
    assert "[influxdb] container in hosts.toml" in told.stderr
    assert "Start it" not in told.stderr


def test_a_rehearsal_without_a_backup_names_the_next_step(little_stack):
    """As `show` does."""
    told = little_stack.run("rehearse")
    assert (told.returncode, told.stderr) == (
        10,
        "No backups found here. To make one: inv backup\n",
    )


def test_without_docker_what_mends_it_is_told(pi):
    """Also to whoever is at a laptop, and means the Pi."""
    pi.tool("docker", "echo 'Is the docker daemon running?' >&2; exit 1")
    cure = "daemon running? To find the cause: inv doctor; for another machine use --host NAME."
    for words in ("restore --yes", "reload-influxdb --yes"):
        told = pi.run(words)
        assert (told.returncode, cure in told.stderr) == (13, True)
    told = pi.run("undo")  # nothing to undo, with Docker or without
    assert (told.returncode, "For another machine: --host NAME." in told.stderr) == (
        10,
        True,
    )
    assert "systemctl restart docker" in pi.run("doctor").stdout


def test_rows_of_hosts_toml_that_are_gone_are_told(pi):
    """A bare machine has none, and its later backups would hold less."""
    settings = pi.settings.read_text()
    rows = "[[stack.include]]\npath = 'extra'\n[[stack.exclude]]\npath = 'x'\nreason = '[[y'\n"
    (pi.folder / "extra").mkdir()
    pi.settings.write_text(settings + rows)
    assert pi.run("backup --runtag t2").returncode == 0
    restore = "restore --runtag t2 --from here --yes"
    told = "  hosts.toml is missing"
    assert told not in pi.run(restore).stdout
    pi.settings.write_text(settings + rows[:33] + "\n")
    line = (
        f"{told} 1 row that the backup was made with; later backups may contain less. "
        "The rows are in: "
    )
    assert f"{line}inv show t2 --at here\n" in pi.run(restore).stdout
    assert "path = 'x'" in pi.run("show t2 --at here").stdout.replace('"', "'")
    from_folder = restore.replace("here", str(pi.folder / "backups"))
    assert f"{line}t2.RESTORE.txt in {pi.folder}/backups\n" in pi.run(from_folder).stdout
    pi.settings.write_text(settings)
    assert f"{told} 2 rows" in pi.run(restore).stdout
    assert told not in pi.run(f"{restore} --only nodered").stdout


def test_what_was_left_out_and_lies_here_untouched_is_not_missed(pi):
    """A top file and a folder of volumes/ that the owner leaves out are in nothing that is swapped."""
    rows = ("NOTES.md", "volumes/films", "volumes/gone")
    with pi.settings.open("a") as stream:
        for each in rows:
            stream.write(f"[[stack.exclude]]\npath = '{each}'\nreason = 'x'\n")
    (pi.folder / "NOTES.md").write_text("mine")
    for each in ("films", "gone"):
        (pi.folder / "volumes" / each).mkdir()
        (pi.folder / "volumes" / each / "a").write_text("mine")
    assert pi.run("backup --runtag t2").returncode == 0
    shutil.rmtree(pi.folder / "volumes/gone")
    told = pi.run("restore --runtag t2 --from here --yes")
    assert told.returncode == 0, told.stderr
    missed = [line for line in told.stdout.splitlines() if "neither in the backup" in line]
    assert missed == ["  neither in the backup nor here: volumes/gone (x)"], told.stdout


def test_an_archive_that_is_another_is_not_used_where_it_lies(pi):
    """A whole archive is no proof of itself: its hash must be the manifest's."""
    another(pi.archive)
    said = restored(pi, "--from here", 1)
    assert "is damaged: its SHA-256 is" in said
    assert "Nothing was changed. Use another copy (--from)." in said
    assert flows(pi) == "[2]\n"


def test_what_a_restore_found_is_told_by_others_in_their_own_words(pi):
    """A backup over it, the look at it: what is wrong, and not what the restore did about it."""
    another(pi.archive)
    restored(pi, "--from here", 1)
    told = pi.run(f"backup --runtag {TAG}")
    assert told.returncode == 13
    found = f"{pi.archive} is damaged: its SHA-256 is "
    assert f"its last verification failed: {found}" in told.stderr
    assert ". Or rebuild this one: inv backup --runtag 't1' --force. " in told.stderr
    for said in (told.stderr, pi.run(f"show {TAG}").stdout):
        assert found in said
        assert "Use another copy" not in said
        assert ").)" not in said


TOPS = {"docker-compose.yml": "services: {}\n# mine\n", ".env": "TZ=here\nMINE=1\n"}


@pytest.mark.parametrize("date", [-(2**31), -1, 8**11, 9 * 10**9])
def test_dates_of_any_century_come_back(pi, date):
    """A tar has room for those from 1970 to 2242; others come with headers of their own."""
    path = pi.folder / "volumes/nodered/photo"
    path.write_text("x")
    os.utime(path, (date, date))
    assert pi.run("backup --runtag t2").returncode == 0
    path.unlink()
    assert pi.run("rehearse --runtag t2").returncode == 0
    told = pi.run("restore --runtag t2 --from here --yes")
    assert (told.returncode, path.stat().st_mtime_ns) == (0, date * 10**9), told.stderr


def test_top_files_lie_beside_only_where_they_differ(pi):
    """The same file twice would make a person look for what has changed."""
    (pi.folder / ".env").write_text("TZ=there\n")
    assert pi.run("backup --runtag t2").returncode == 0
    said = restored(pi, "--from here")
    assert [path.name for path in pi.folder.glob("*.t1")] == []
    assert "unchanged: docker-compose.yml" in said
    (pi.folder / ".env").write_text(TOPS[".env"])
    told = pi.run("restore --runtag t2 --from here --yes")
    assert [path.name for path in pi.folder.glob("*.t2")] == [".env.t2"]
    beside = "the backup's copy is beside it as .env.t2; they differ in MINE, TZ"
    assert f"  .env was not changed; {beside}\n" in told.stdout


def test_what_cannot_be_compared_is_not_told_as_another(pi):
    """A cmp(1) that fails says nothing of the files; what is no file there is another thing."""
    pi.tool("cmp", "echo 'cmp: docker-compose.yml: Input/output error' >&2; exit 2")
    said = restored(pi, "--from here", 1)
    assert f"from `cmp {pi.folder}" in said
    assert "docker-compose.yml: Input/output error" in said
    assert [path.name for path in pi.folder.glob("*.t1")] == []
    assert flows(pi) == "[2]\n"
    (pi.tools / "cmp").unlink()
    (pi.folder / "docker-compose.yml").unlink()
    (pi.folder / "docker-compose.yml").mkdir()  # as Docker makes what it mounts and is not there
    restored(pi, "--from here")
    assert [path.name for path in pi.folder.glob("*.t1")] == ["docker-compose.yml.t1"]


def test_the_compose_file_of_the_backup_comes_in_place_where_that_is_asked(pi):
    """And `.env`; an undo puts those back that were here."""
    (pi.folder / ".env").write_text("TZ=there\n")
    assert pi.run("backup --runtag t2").returncode == 0
    backed_up = {name: (pi.folder / name).read_text() for name in TOPS}
    for name, text in TOPS.items():
        (pi.folder / name).write_text(text)
    told = pi.run("restore --runtag t2 --from here --yes --compose")
    assert told.returncode == 0, told.stderr
    assert {name: (pi.folder / name).read_text() for name in TOPS} == backed_up
    assert ".env is now from the backup; the previous one is " in told.stdout
    assert "they differ in MINE, TZ" in told.stdout
    assert pi.run("undo --last-restore --yes").returncode == 0
    assert {name: (pi.folder / name).read_text() for name in TOPS} == TOPS
    assert list(pi.folder.glob("*.t2")) == []


COMPOSE = """\
services:
  nodered: {build: ./services/nodered/., image: mine}
  mariadb: {build: {context: ./.templates/mariadb/.}}
  grafana:
    image: grafana/grafana:${VERSION:-9}
    environment: ["PASSWORD=${PASSWORD}", "TZ=${TZ}", "HOME=$HOME", "COST=$$5"]
  influxdb: {image: influxdb:1.8}
  later: {image: unused, profiles: [extra], command: $UNUSED}
"""


@pytest.mark.parametrize("way", ["--dry-run", ""])
def test_what_no_backup_holds_is_told_before(pi, tmp_path, way):
    """Images to pull and to build, what a build reads, variables: and no value of these."""
    (pi.folder / "docker-compose.yml").write_text(COMPOSE)
    (pi.folder / ".env").write_text("TZ=there\n")
    assert pi.run("backup --runtag t2").returncode in (0, 3)
    usb = tmp_path / "usb"
    shutil.copytree(pi.folder / "backups", usb)
    shutil.rmtree(pi.folder)
    pi.tool("docker", LACKS)
    told = pi.run(f"restore --runtag t2 --from {usb} {way}")  # nobody is there to confirm
    assert told.returncode == (0 if way else 13)
    assert not (pi.folder / "volumes").exists()
    said = told.stdout + told.stderr
    assert "  images to pull (not on this machine): influxdb:1.8\n" in said
    assert "  services whose image must be built: nodered, mariadb\n" in said
    assert "Service mariadb is built in .templates/mariadb, which is neither here nor in" in said
    assert "variables that .env does not set: PASSWORD. They" in said
    assert said.count("Service ") == 1
    made = [each for each in said.splitlines() if "creates and starts: " in each]
    names = "grafana, influxdb, mariadb, nodered (of the backup's compose file)"
    assert made == [f"  no containers exist; creates and starts: {names}"]


def test_a_docker_that_does_not_tell_lacks_no_image(pi, tmp_path):
    """What could not be asked is told as unknown, and not as images to pull."""
    (pi.folder / "docker-compose.yml").write_text(COMPOSE)
    assert pi.run("backup --runtag t2").returncode in (0, 3)
    usb = tmp_path / "usb"
    shutil.copytree(pi.folder / "backups", usb)
    shutil.rmtree(pi.folder)
    pi.tool("docker", '[ "$1" != image ] || { echo "permission denied" >&2; exit 1; }')
    said = pi.run(f"restore --runtag t2 --from {usb} --dry-run").stderr
    assert "Cannot check what the containers need: " in said
    assert "permission denied" in said
    assert "images to pull" not in said


def test_the_begin_of_an_archive_is_read_over_ssh(tmp_path, sshd):
    """And no more: whoever sends the rest is ended."""
    archive = tmp_path / "x.tar.gz"
    (tmp_path / "docker-compose.yml").write_text(COMPOSE)
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes/big").write_bytes(os.urandom(50_000_000))
    names = ["./docker-compose.yml", "./volumes"]
    subprocess.run(["tar", "-C", tmp_path, "-czf", archive, *names], check=True)
    place = open_host(sshd.login(), str(tmp_path), "far")
    began = time.monotonic()
    try:
        assert top_texts(place, str(archive)) == {"docker-compose.yml": COMPOSE}
        assert top_texts(place, f"{archive}.none") is None
    finally:
        place.close()
    assert time.monotonic() - began < 60


def test_a_question_lists_what_is_replaced_and_what_stays(pi):
    """And it asks for the name of the host, as one."""
    (pi.folder / "volumes/mine").mkdir()
    (pi.folder / "docker-compose.yml").write_text(COMPOSE)
    screen, terminal = pty.openpty()
    given = {"stdin": terminal, "stdout": subprocess.PIPE}
    process = pi.start(f"restore --runtag {TAG} --from here", **given)
    os.write(screen, f"{socket.gethostname()}\n".encode())
    out, said = process.communicate(timeout=60)
    for each in (screen, terminal):
        os.close(each)
    assert process.returncode == 0, said
    assert "  replaces: volumes/nodered\n" in out
    assert "  stays here, not in the backup: volumes/mine\n" in out
    assert "put beside the existing one if it differs: docker-compose.yml.t1\n" in out
    asked = f"Type the host's name, {socket.gethostname()}, to restore t1 there: "
    before, after = out.split(asked)
    assert before.count("volumes/mine") == after.count("volumes/mine") == 1
    assert "  kept, not in the backup: volumes/mine\n" in after
    assert flows(pi) == "[1]\n"


def resize(pi, tag):
    """Let the manifest of a set tell the size of the general part that is there."""
    manifest = pi.folder / f"backups/{tag}.manifest.json"
    told = read_manifest(manifest.read_bytes())
    (part,) = told.parts
    size = (pi.folder / "backups" / part.file).stat().st_size
    manifest.write_text(replace(told, parts=(replace(part, size_bytes=size),)).to_json())


def lines_of(told):
    """Return what a restore tells, by the begin of each line."""
    pairs = (line.strip().partition(": ")[::2] for line in told.stdout.splitlines())
    return {what: names for what, names in pairs if names}


@pytest.mark.parametrize("line", ["--dry-run", ""], ids=["dry run", "question"])
@pytest.mark.parametrize("packed", ["now", "by an earlier version"])
def test_top_files_are_listed_whatever_is_packed_before_them(pi, line, packed):
    """Copies of SQLite files came first in an archive; the question and the dry run list the same."""
    with contextlib.closing(sqlite3.connect(pi.folder / "volumes/nodered/a.db")) as database:
        database.execute("CREATE TABLE t (a)")
    assert pi.run("backup --runtag t2").returncode == 0
    path = pi.folder / "backups/t2.general-backup.tar.gz"
    with tarfile.open(path) as archive:
        names = archive.getnames()
    assert names.index("./docker-compose.yml") < names.index("./volumes/nodered/a.db")
    if packed != "now":
        first = sorted(names[1:], key=lambda name: not name.endswith("a.db"))
        first.insert(1, names[0])
        words = ["tar", "-C", pi.folder, "--no-recursion", "-czf", path, *first]
        subprocess.run(words, check=True)
        resize(pi, "t2")
    (pi.folder / "docker-compose.yml").write_text(TOPS["docker-compose.yml"])
    plain, compose = (
        lines_of(pi.run(f"restore --runtag t2 --from here {line} {flag}"))
        for flag in ("", "--compose")
    )
    assert plain["replaces"] == "volumes/nodered"
    assert plain["put beside the existing one if it differs"] == "docker-compose.yml.t2"
    assert compose["replaces"] == "docker-compose.yml, volumes/nodered"


def test_top_files_that_are_not_known_before_are_told_as_that(pi, monkeypatch):
    """Where much comes before them: no list without them is taken for all."""
    with (pi.folder / "volumes/nodered/big").open("wb") as stream:
        stream.truncate(70_000_000)
    path = pi.folder / f"backups/{TAG}.general-backup.tar.gz"
    words = ["tar", "-C", pi.folder, "--no-recursion", "-czf", path, "./volumes/nodered/big"]
    subprocess.run([*words, "./docker-compose.yml", "./services", "./volumes"], check=True)
    resize(pi, TAG)
    told = pi.run(f"restore --runtag {TAG} --from here")
    assert told.returncode == 13, told.stderr
    beside = lines_of(told)["put beside the existing one"]
    assert beside == "its compose files and .env, listed when the backup is unpacked"
    told = pi.run(f"restore --runtag {TAG} --from here --compose")
    assert "Cannot check what the containers need: the compose file in" in told.stderr
    assert lines_of(told)["replaces as well"] == beside


@pytest.mark.parametrize("line", ["--dry-run", "--yes"])
def test_what_is_put_aside_is_not_told_as_staying(pi, line):
    """With --exact: one thing has one fate, before and after, and is named once in each."""
    (pi.folder / "volumes/mine").mkdir()
    told = pi.run(f"restore --runtag {TAG} --from here --exact {line}")
    assert told.returncode == 0, told.stderr
    found = [each.strip() for each in told.stdout.splitlines() if each.endswith("volumes/mine")]
    before, after = "is moved aside, not in the backup", "moved aside, not in the backup"
    named = [f"{each}: volumes/mine" for each in (before, after)]
    assert found == (named[:1] if line == "--dry-run" else named)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (
            "--bare",
            13,
            "the stack has containers (nodered), but --bare is for a machine without containers.",
        ),
        (
            "--bare --only nodered",
            2,
            "--compose and --bare restore the whole stack: remove --only.",
        ),
        (
            "--compose --only nodered",
            2,
            "--compose and --bare restore the whole stack: remove --only.",
        ),
    ],
)
def test_what_is_not_bare_is_not_taken_for_it(running, line, code, said):
    """Nothing is stopped or replaced."""
    assert said in restored(running, f"--from here {line}", code)
    assert flows(running) == "[2]\n"
    assert not (running.tools / "docker.calls").exists()


@pytest.mark.parametrize("runtag", [TAG, "latest"])
def test_a_vault_that_is_away_names_the_set_that_lies_here(pi, tmp_path, runtag):
    """With the flag that takes it from here, which works; not where that one is damaged."""
    with pi.settings.open("a") as stream:
        stream.write(f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{tmp_path}/usb"\n')
    lines = {
        f"restore --yes --runtag {runtag}": "--from here",
        f"rehearse --runtag {runtag}": "--at here",
        f"verify --at usb --runtag {runtag}": "--at here",
        f"show --at usb {runtag}": "--at here",
    }
    for line, flag in lines.items():
        told = pi.run(line)
        assert told.returncode == 1
        assert f"{TAG} also exists here: add {flag}." in " ".join(told.stderr.split()), line
        assert pi.run(f"{line.replace('--at usb', '')} {flag}").returncode == 0, line
    if runtag == "latest":  # by the times of the manifests: names tell none
        assert pi.run("backup --runtag a-newer").returncode == 3
        assert pi.run("backup --runtag z-newest").returncode == 3
        for line, flag in lines.items():
            said = " ".join(pi.run(line).stderr.split())
            assert f"z-newest also exists here: add {flag}." in said, line
        return
    another(pi.archive)
    assert pi.run("verify --at here").returncode == 1
    for line in lines:
        assert "also exists here" not in pi.run(line).stderr


def test_a_copy_without_an_archive_names_the_set_that_lies_here(pi, tmp_path):
    """As where the vault is away: the copy was killed before its first archive."""
    (tmp_path / "usb").mkdir()
    (tmp_path / "usb" / f"{TAG}.unfinished.jsonl").write_text("")
    with pi.settings.open("a") as stream:
        stream.write(f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{tmp_path}/usb"\n')
    told = pi.run(f"restore --yes --runtag {TAG}")
    assert told.returncode == 13
    said = " ".join(told.stderr.split())
    assert f"{TAG} in usb has no archives, so there is nothing to restore." in said
    assert f"Nothing was changed. {TAG} also exists here: add --from here." in said


def checks(pi):
    """Return what the record of verifications says: place, how, whether good."""
    lines = (pi.folder / "backups/.checks.jsonl").read_text().splitlines()
    return [(each["at"], each["how"], each["good"]) for each in map(json.loads, lines)]


@pytest.mark.parametrize("line", [f"restore --runtag {TAG} --yes", f"rehearse --runtag {TAG}"])
def test_damage_that_is_found_is_recorded_and_stays_until_it_is_verified(pi, tmp_path, line):
    """Of that copy; what another copy is proven to be, or a weaker look, hides it in no list."""
    usb = tmp_path / "usb"
    usb.mkdir()
    with pi.settings.open("a") as stream:
        stream.write(f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{usb}"\n')
    assert pi.run("sync").returncode == 0
    whole = pi.archive.read_bytes()
    another(pi.archive)
    there = "--at" if line.startswith("rehearse") else "--from"
    assert pi.run(f"{line} {there} here").returncode == 1
    assert checks(pi) == [("here", "read", False)]
    assert pi.run(f"rehearse --runtag {TAG} --at usb").returncode == 0
    assert checks(pi)[1:] == [("usb", "restore", True)]
    (row,) = pi.run("list").stdout.splitlines()[1:]
    assert row.split()[-5:] == ["damaged", "complete", "now:", "damaged", "here"]
    pi.archive.write_bytes(whole)
    told = pi.run(f"rehearse --runtag {TAG} --at here")
    assert told.returncode == 3
    assert "It is still recorded as damaged, because its last verification" in told.stderr
    assert len(checks(pi)) == 2
    assert pi.run(f"verify --runtag {TAG} --at here").returncode == 0
    (row,) = pi.run("list").stdout.splitlines()[1:]
    assert row.split()[-5:] == ["complete", "complete", "now,", "by", "rehearsal"]
    another(usb / pi.archive.name)
    assert pi.run(f"{line} {there} usb").returncode == 1
    assert checks(pi)[-1] == ("usb", "read", False)


def test_a_rehearsal_calls_no_part_good_that_it_does_not_read(pi):
    """InfluxDB 2 is restored by hand: verify alone reads its part, and finds that it is none."""
    part = Part("influxdb2", f"{TAG}.influxdb2-backup.tar", 10, X10)
    (pi.archive.parent / part.file).write_bytes(b"x" * 10)
    path = pi.archive.parent / f"{TAG}.manifest.json"
    manifest = read_manifest(path.read_bytes())
    path.write_text(replace(manifest, parts=(*manifest.parts, part)).to_json())
    told = pi.run(f"rehearse --runtag {TAG} --at here")
    assert told.returncode == 3, told.stderr
    assert "not recorded as verified, because its influxdb2 part was not read" in told.stderr
    assert not (pi.archive.parent / ".checks.jsonl").exists()
    assert pi.run("verify --at here").returncode == 1


def test_what_an_earlier_restore_fetched_is_hashed_before_it_is_used(pi, tmp_path):
    """What lies among the staged may have been changed since it was proven on its way."""
    usb = tmp_path / "usb"
    usb.mkdir()
    with pi.settings.open("a") as stream:
        stream.write(f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{usb}"\n')
    assert pi.run("sync").returncode == 0
    other = pi.folder.parent / "other.tar.gz"
    put(pi, "[3]\n")
    words = ["tar", "-C", pi.folder, "--sort=name", "-I", "gzip -9", "-cf", other]
    subprocess.run([*words, "./docker-compose.yml", "./volumes"], check=True)
    size = pi.archive.stat().st_size
    assert other.stat().st_size <= size
    os.truncate(other, size)  # by its size it is the one that was fetched
    put(pi, "[2]\n")
    pi.tool("tar", 'case "$*" in *--extract*) echo full >&2; exit 2 ;; esac; exec /bin/tar "$@"')
    restored(pi, "--from usb", 1)
    (pi.tools / "tar").unlink()
    staged = pi.folder / f"restore/{TAG}/{pi.archive.name}"
    assert staged.read_bytes() == pi.archive.read_bytes()
    shutil.copy(other, staged)
    restored(pi, "--from usb")
    assert flows(pi) == "[1]\n"


FOUND = shutil.which("flock")
FLOCK = """case "$*" in *--exclusive*) echo asked >> FOLDER/order ;; esac
REAL "$@"; code=$?
case "$*" in *"sh -c"*) echo undone >> FOLDER/order ;; esac
exit $code"""


def test_a_read_only_folder_is_refused_before_anything_is_stopped(little_stack, read_only):
    """It is told as what it is, and not by the program that could not write there."""
    assert little_stack.run("backup --runtag t1").returncode == 0
    read_only(little_stack.folder / "volumes")
    told = little_stack.run("restore --runtag t1 --from here --yes")
    assert told.returncode == 13
    assert f"{little_stack.folder}/volumes is mounted read-only (the card may" in told.stderr
    assert (
        "Nothing was changed. When the disk works again: sudo mount -o remount,rw" in told.stderr
    )
    assert not list((little_stack.folder / "restore").glob("*"))


@pytest.mark.parametrize(
    ("name", "code"), [("mosquitto", 0), ("nodered", 13), ("mosquitto --only nodered", 13)]
)
def test_only_what_would_be_written_must_not_be_read_only(little_stack, read_only, name, code):
    """A service that has nothing in a volumes/ that takes nothing is restored all the same."""
    service = little_stack.folder / "services/mosquitto/service.yml"
    service.parent.mkdir()
    service.write_text("old")
    assert little_stack.run("backup --runtag t1").returncode == 0
    service.write_text("new")
    read_only(little_stack.folder / "volumes")
    told = little_stack.run(f"restore --runtag t1 --from here --only {name} --yes")
    assert told.returncode == code, told.stderr
    assert service.read_text() == ("new" if code else "old")
    assert ("/volumes is mounted read-only" in told.stderr) == bool(code)


@pytest.mark.parametrize("line", ["backup --runtag t2", "undo --yes", "restore --runtag t1 --yes"])
def test_a_command_that_outlived_its_run_is_waited_for(little_stack, tmp_path, line):
    """What a dead run sent may still work: nothing is undone under its hands."""
    restored_once(little_stack)
    killed_amid_the_swap(little_stack)
    order = tmp_path / "order"
    order.touch()
    guard = little_stack.folder / "backups/.commands"
    script = 'echo works; until [ -s "$0" ]; do sleep 0.05; done; echo ended >> "$0"'
    words = ["flock", "--shared", guard, "sh", "-c", script, order]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as orphan:
        assert orphan.stdout.readline() == b"works\n"
        little_stack.tool("flock", FLOCK.replace("FOLDER", str(tmp_path)).replace("REAL", FOUND))
        told = little_stack.start(line)
        try:
            until(lambda: "undone" in order.read_text(), 60)
        finally:
            said = told.communicate(timeout=120)
            with order.open("a") as stream:  # the orphan ends, whatever happened
                stream.write("over\n")
    assert told.returncode in (0, 3), said
    assert order.read_text().splitlines()[:3] == ["asked", "ended", "undone"]
    assert json.loads(flows(little_stack)) == [1]


def test_an_archive_is_no_folder_and_is_told_how_it_is_named(pi):
    """Whoever names the file gets the two flags that mean it."""
    told = pi.run(f"restore --from {pi.archive} --runtag {TAG} --dry-run")
    assert told.returncode == ExitCode.USAGE
    assert f"this is a file. Give its folder and the backup: --from {pi.folder}" in (
        " ".join(told.stderr.split())
    )
    assert told.stderr.rstrip().endswith(f"/backups --runtag {TAG}")


def test_a_live_host_that_nobody_knows_is_refused(pi):
    """It is a typing error, and says nothing about the host that is meant."""
    told = pi.run(f"restore --runtag {TAG} --from here --dry-run --live vm")
    assert told.returncode == ExitCode.USAGE, told.stdout
    assert "hosts.toml has no host 'vm'" in told.stderr


def test_a_name_of_two_lines_is_told_on_one(pi):
    """A line of the plan and of the result is one line, whatever a folder is called."""
    (pi.folder / "volumes/two\nlines").mkdir()
    (pi.folder / "volumes/two\nlines/file").write_text("x")
    assert pi.run("backup --runtag t2").returncode == 0
    for line in ("--dry-run", "--yes"):
        told = pi.run(f"restore --runtag t2 --from here {line}")
        assert told.returncode == 0, told.stderr
        named = [each for each in told.stdout.splitlines() if r"volumes/two\nlines" in each]
        assert named
        assert "\nlines" not in told.stdout.partition("    $ ")[0]  # a command is copied


def test_a_wrong_place_is_told_before_anything_is_asked(little_stack):
    """Docker does not answer, and what is wrong is the name of the vault; rehearse offers one place."""
    little_stack.tool("docker", "echo down >&2; exit 1")
    told = little_stack.run("restore --from nas")
    assert (told.returncode, "--from nas: use one of vault, here" in told.stderr) == (2, True)
    told = little_stack.run("restore --from ./nas")
    assert (told.returncode, "nas does not exist." in told.stderr) == (10, True)
    with little_stack.settings.open("a") as stream:
        stream.write('[[vaults]]\nname = "nas"\nkind = "folder"\nfolder = "/nowhere"\n')
    told = little_stack.run("restore --from nass")
    assert told.stderr.endswith("(./nass). Did you mean nas?\n")
    for at, near in (("nsa", " Did you mean nas?"), ("all", "")):
        told = little_stack.run(f"rehearse --at {at}")
        assert told.stderr == f"--at {at}: use one of here, nas, vault.{near}\n"
        assert told.returncode == 2


def test_an_empty_machine_is_told_of_nothing_that_is_replaced(pi, tmp_path):
    """What stays, and what comes in place of something, is said only where there is something."""
    usb, words = tmp_path / "usb", ("replaced data is kept in: ", " replace those here")
    shutil.copytree(pi.folder / "backups", usb)
    (pi.folder / ".env").write_text("A=1\n")
    line = f"restore --runtag {TAG} --from {usb} --compose"
    before = pi.run(line).stdout
    assert all(each in before for each in words)
    shutil.rmtree(pi.folder)
    pi.folder.mkdir()
    there = pi.run(line).stdout
    assert "replaces: nothing" in there
    assert not any(each in there for each in words)
