"""A stack of several database servers of which one cannot be dumped."""

import contextlib
import json
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta

import folders
import pytest
from contexts import put_set
from sample_sets import new_form

from iotstack_invoke.backups.manifest import read_manifest
from iotstack_invoke.parts.restore_text import restore_text_of, with_sum

TAG = "t1"
SERVERS = ("home_db", "mariadb")
DUMP = folders.FIXTURES / "sql/mariadb-10.11.sql"
DOCKER = """case "$1 $2" in
"ps --all") echo mariadb home_db ;;
"inspect --type") cat "$0.json" ;;
"image inspect") echo '[]' ;;
"exec "*)
    [ "$7" = dump ] || exit 0
    echo "$2" >> "$0.dumped"
    if [ -e "$0.$2.broken" ]; then echo "root is not let in" >&2; exit 77; fi
    [ ! -e "$0.$2.view" ] || echo 'left out: view `a`.`v`, which is gone' >&2
    cat DUMP ;;
esac"""


@pytest.fixture
def stack(little_stack):
    """A stack with two MariaDB servers, and a vault."""
    little_stack.runs(mariadb="mariadb:10", home_db="mariadb:10")
    little_stack.tool("docker", DOCKER.replace("DUMP", str(DUMP)))
    known = little_stack.tools / "docker.json"
    known.write_text(known.read_text().replace('"/data"', '"/var/lib/mysql"'))
    disk = little_stack.folder.parent / "disk"
    disk.mkdir()
    with little_stack.settings.open("a") as file:
        file.write(f'[[vaults]]\nname = "disk"\nkind = "folder"\nfolder = "{disk}"\n')
    return little_stack


def broken(stack, name):
    return stack.tools / f"docker.{name}.broken"


def backed_up(stack, code):
    """Make the backup; return what it says, and its mariadb part here, which the vault has too."""
    told = stack.run(f"backup --runtag {TAG}")
    assert told.returncode == code, told.stderr
    names = [f"{TAG}.{each}" for each in ("manifest.json", "mariadb-backup.tar.gz")]
    manifest, archive = ((stack.folder / "backups" / each).read_bytes() for each in names)
    disk = stack.folder.parent / "disk"
    assert [(disk / each).read_bytes() for each in names] == [manifest, archive]
    text = (stack.folder / f"backups/{TAG}.RESTORE.txt").read_bytes()
    expected = with_sum(restore_text_of(read_manifest(manifest)), manifest)
    assert text == expected  # also when the set is finished later
    assert (disk / f"{TAG}.RESTORE.txt").read_bytes() == text
    content = json.loads(manifest)
    part = content["parts"]["mariadb"]
    assert part["size_bytes"] == len(archive)
    return told.stderr, content["state"], part


def dumped(part):
    return [each["container"] for each in part["facts"]["servers"]]


def test_a_database_that_is_gone_is_told_once(stack):
    """Dropped by mistake, it is in the backup of yesterday and in none from today on."""
    backed_up(stack, 0)
    path = stack.folder / f"backups/{TAG}.manifest.json"
    told = json.loads(path.read_text())
    for each in told["parts"]["mariadb"]["facts"]["servers"]:
        each["rows"]["diary"] = {"days": 7}
    path.write_text(new_form(told))
    done = stack.run("backup --runtag t2")
    assert done.returncode == 3, done.stderr
    names = ", ".join(f"database diary of container {c} of the mariadb part" for c in SERVERS)
    assert f"Missing: {names}, which t1 has. If it is gone for good: inv prune" in done.stderr
    assert stack.run("backup --runtag t3").returncode == 0


def test_a_server_that_cannot_be_dumped(stack):
    """The dumps of the others are kept and copied, it is named, and the same command mends it."""
    broken(stack, "mariadb").touch()
    said, state, part = backed_up(stack, 1)
    assert f"Backup {TAG} is not complete" in said
    assert "mariadb part: root is not let in. MariaDB in container mariadb has another" in said
    assert f"with --runtag '{TAG}'" in said
    assert (state, part["error"], dumped(part)) == ("incomplete", "", ["home_db"])
    assert "container mariadb: root is not let in" in stack.run(f"show {TAG}").stdout
    told = stack.run(f"restore --runtag {TAG} --from here --dry-run")
    assert told.returncode == 0, told.stderr
    assert f"{TAG} is incomplete: it has no dump of container mariadb" in told.stderr
    told = stack.run(f"restore --runtag {TAG} --from here --only mariadb --yes")
    assert told.returncode == 13, told.stderr
    assert f"In {TAG} no dump of mariadb was made: root is not let in. MariaDB" in told.stderr
    broken(stack, "mariadb").unlink()
    said, state, part = backed_up(stack, 0)
    assert (state, sorted(dumped(part))) == ("complete", ["home_db", "mariadb"])
    assert "failed" not in part["facts"]
    assert stack.run(f"backup --runtag {TAG}").returncode == 13


def test_an_archive_that_lacks_a_dump_stays_until_it_can_be_made_anew(stack):
    """Where later none can be dumped, what there is of the first time is kept and told."""
    broken(stack, "mariadb").touch()
    backed_up(stack, 1)
    broken(stack, "home_db").touch()
    said, state, part = backed_up(stack, 1)
    assert "container home_db has another password" in said
    assert (state, dumped(part)) == ("incomplete", ["home_db"])
    for name in ("mariadb", "home_db"):
        broken(stack, name).unlink()
    _, state, part = backed_up(stack, 0)
    assert sorted(dumped(part)) == ["home_db", "mariadb"]


def test_only_what_is_wished_is_looked_at(stack):
    """With --only a damaged part of another database keeps nothing from being restored."""
    (stack.folder / "volumes/nodered/flows.json").write_text("[1]\n")
    backed_up(stack, 0)
    (stack.folder / "volumes/nodered/flows.json").write_text("[2]\n")
    (stack.folder / f"backups/{TAG}.mariadb-backup.tar.gz").write_bytes(b"damaged")
    told = stack.run(f"restore --runtag {TAG} --from here --only nodered --yes")
    assert told.returncode == 0, told.stderr
    assert (stack.folder / "volumes/nodered/flows.json").read_text() == "[1]\n"
    told = stack.run(f"restore --runtag {TAG} --from here --only home_db --yes")
    assert told.returncode == 13
    assert f"{TAG}.mariadb-backup.tar.gz" in told.stderr


def test_what_a_dump_passes_over_is_told_when_the_set_is_used(stack):
    """The manifest keeps it; show, restore and rehearse tell it, but not to whoever wants others."""
    (stack.tools / "docker.mariadb.view").touch()
    said, state, part = backed_up(stack, 3)
    assert "MariaDB in container mariadb: left out: view `a`.`v`, which is gone" in said
    held = {each["container"]: each.get("left_out") for each in part["facts"]["servers"]}
    assert (state, held) == (
        "warnings",
        {"home_db": None, "mariadb": ["view `a`.`v`, which is gone"]},
    )
    assert "left out view `a`.`v`, which is gone" in stack.run(f"show {TAG}").stdout
    told = "Not restored, because it is missing in the dump of container mariadb: view `a`.`v`, which is gone"
    assert told in " ".join(stack.run(f"restore --runtag {TAG} --dry-run").stderr.split())
    ended = stack.run(f"restore --runtag {TAG} --yes --only nodered")
    assert ended.returncode == 0, ended.stderr
    assert told not in ended.stderr
    stack.tool("docker", "exit 1")  # the dumps are only checked
    ended = stack.run(f"rehearse --runtag {TAG}")
    assert ended.returncode == 3
    assert told in " ".join(ended.stderr.split())


def test_the_records_of_an_incomplete_set_stay_when_it_is_delivered(stack):
    """Who makes what it lacks is known by them as who began it, also in a vault."""
    broken(stack, "mariadb").touch()
    backed_up(stack, 1)
    records = stack.folder / f"backups/{TAG}.unfinished.jsonl"
    before = records.read_text()
    assert stack.run("sync").returncode == 0
    assert records.read_text().startswith(before.splitlines()[0])
    broken(stack, "mariadb").unlink()
    _, state, _ = backed_up(stack, 0)
    assert (state, records.exists()) == ("complete", False)


@pytest.mark.parametrize("is_whole", [True, False])
def test_an_archive_that_could_not_be_made_anew(stack, is_whole):
    """With --force: the one before stays in the set if it is what was written; rot is not named."""
    backed_up(stack, 0)
    if not is_whole:
        path = stack.folder / f"backups/{TAG}.general-backup.tar.gz"
        path.write_bytes(bytes(path.stat().st_size))
    stack.tool("tar", "echo 'tar: broken' >&2; exit 2")
    told = stack.run(f"backup --runtag {TAG} --force")
    assert told.returncode == 1
    disk = stack.folder.parent / "disk"
    if not is_whole:  # the copy there holds what no other does
        assert stack.run(f"verify --runtag {TAG} --at disk").returncode == 0
        assert f"{TAG} in disk has the general part, which the local one does not" in told.stderr
    for folder in (stack.folder / "backups", *([disk] if is_whole else [])):
        content = json.loads((folder / f"{TAG}.manifest.json").read_text())
        part = content["parts"]["general"]
        assert content["state"] == "incomplete"
        why = part["facts"]["failed"]["newer general part"] if is_whole else part["error"]
        assert "tar: broken" in why
    if is_whole:
        assert stack.run(f"verify --runtag {TAG} --at all").returncode == 3
        assert "not made  a newer general part: " in stack.run(f"show {TAG}").stdout
    (stack.tools / "tar").unlink()
    backed_up(stack, 0)


@pytest.mark.parametrize("what", ["a dump", "an archive", "a copy", "a hook"])
def test_after_a_run_that_failed_nothing_is_removed(stack, what):
    """Old sets go only when a new one is whole here and in each vault that answered."""
    text = stack.settings.read_text()
    stack.settings.write_text(text.replace("sudo = false", "sudo = false\nkeep = 1"))
    backups, disk = stack.folder / "backups", stack.folder.parent / "disk"
    backups.mkdir()
    for days in (2, 1):  # one more than is kept
        put_set(backups, datetime.now(UTC) - timedelta(days=days), runtag=f"{days} days old")
        for path in backups.glob(f"{days} days old.*"):
            shutil.copy2(path, disk)
    if what == "a dump":
        broken(stack, "mariadb").touch()
    elif what == "an archive":
        stack.tool("tar", "echo 'tar: broken' >&2; exit 2")
    elif what == "a hook":
        with stack.settings.open("a") as stream:
            stream.write('[hooks]\nafter_backup = [["false"]]\n')
    else:
        (disk / f"{TAG}.mariadb-backup.tar.gz").mkdir()
    assert stack.run(f"backup --runtag {TAG}").returncode in (1, 3)
    assert (backups / "2 days old.manifest.json").exists()
    broken(stack, "mariadb").unlink(missing_ok=True)
    (stack.tools / "tar").unlink(missing_ok=True)
    if what == "a copy":
        (disk / f"{TAG}.mariadb-backup.tar.gz").rmdir()
    if what == "a hook":
        stack.settings.write_text(stack.settings.read_text().replace('["false"]', '["true"]'))
        assert stack.run("backup --runtag t2").returncode == 0
    else:
        backed_up(stack, 0)
    assert not list(backups.glob("* days old.*"))


def test_what_the_backup_warned_of_is_told_by_all_who_use_it(little_stack):
    """A damaged database and what is not covered: the bytes are good, and the set is not whole."""
    path = little_stack.folder / "volumes/nodered/home.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t AS SELECT randomblob(100000)")
        database.commit()
    with path.open("r+b") as stream:
        stream.seek(4096)
        stream.write(b"\xff" * 3 * 4096)
    outside = little_stack.folder.parent / "films"
    outside.mkdir()
    (outside / "a").touch()
    little_stack.runs(
        down=["nodered"], nodered="nodered/node-red", mounts={"nodered": [(str(outside), "/x")]}
    )
    backup = little_stack.run("backup --runtag t1")
    assert backup.returncode == 3, backup.stderr
    damaged = "t1 holds files that were damaged before the backup: volumes/nodered/home.db. An"
    for line in ("verify --runtag t1 --at here", "rehearse --runtag t1 --at here"):
        told = little_stack.run(line)
        assert told.returncode == 3, told.stdout + told.stderr
        assert damaged in told.stderr
        assert ("The backup warned: NOT COVERED" in told.stderr) == line.startswith("rehearse")
    assert "t1 here is good" in little_stack.run("verify --runtag t1 --at here").stdout
    preview = little_stack.run("restore --runtag t1 --from here --dry-run").stderr
    assert "The backup warned: volumes/nodered/home.db is a damaged database (" in preview
    assert "The backup warned: NOT COVERED" in preview
    told = little_stack.run("restore --runtag t1 --from here --yes")
    assert (told.returncode, damaged in told.stderr) == (3, True), told.stdout + told.stderr
    assert "NOT COVERED by the backup, so not restored: 1" in told.stdout
