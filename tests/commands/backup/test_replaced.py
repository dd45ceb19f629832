"""A backup under the name of an earlier one: nothing that was whole is lost by it, unseen."""

import json
import os
import shutil
import time

import pytest
from contexts import until
from test_incomplete import broken, stack  # noqa: F401 - a fixture

from iotstack_invoke.backups.manifest import read_manifest

OLD, NEW = "OLD STATE", "NEW STATE"


@pytest.fixture
def pi(little_stack, tmp_path):
    """A stack of an old state, with a vault."""
    pi = little_stack
    pi.backups = pi.folder / "backups"
    pi.nas = tmp_path / "nas"
    pi.nas.mkdir()
    pi.flows = pi.folder / "volumes/nodered/flows.json"
    with pi.settings.open("a") as stream:
        stream.write(f'[[vaults]]\nname = "nas"\nkind = "folder"\nfolder = "{pi.nas}"\n')
    pi.flows.write_text(OLD)
    return pi


def archives(folder):
    return {each.name: each.read_bytes() for each in folder.iterdir() if "-backup.t" in each.name}


def manifest(folder, tag):
    return read_manifest((folder / f"{tag}.manifest.json").read_bytes())


def gone(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


# A set whose archive here is lost


@pytest.mark.parametrize("away", [False, True], ids=["delivered", "one vault away"])
@pytest.mark.parametrize("lost", [gone, cut])
def test_the_only_whole_copy_in_a_vault_is_not_replaced(pi, lost, away, tmp_path):
    """An archive was made again of what there is now, and sent over the last of the old state."""
    if away:
        with pi.settings.open("a") as stream:
            stream.write(f'[[vaults]]\nname = "x"\nkind = "folder"\nfolder = "{tmp_path}/x"\n')
    assert pi.run("backup --runtag a").returncode == (3 if away else 0)
    (pi.nas / "a.pin.txt").write_text("")
    lost(pi.backups / "a.general-backup.tar.gz")
    pi.flows.write_text(NEW)
    before = archives(pi.nas)
    told = [pi.run(f"backup --runtag a {dry}") for dry in ("--dry-run", "")]
    assert [each.returncode for each in told] == [13, 13], told
    words = " ".join(told[1].stderr.split())
    assert "it is damaged: a.general-backup.tar.gz" in words
    assert "nas may have a good copy: check with inv verify --runtag 'a' --at nas" in words
    assert archives(pi.nas) == before
    assert pi.run("verify --runtag a --at nas").returncode == 0


def test_without_a_manifest_here_the_one_in_a_vault_stays(pi):
    """What is left here of the records is of no run that goes on with it."""
    with pi.settings.open("a") as stream:
        stream.write('[[vaults]]\nname = "x"\nkind = "folder"\nfolder = "/nonexistent/x"\n')
    assert pi.run("backup --runtag a").returncode == 3
    for each in pi.backups.glob("a.*"):
        if not each.name.endswith(".unfinished.jsonl"):
            each.unlink()
    pi.flows.write_text(NEW)
    before = archives(pi.nas)
    assert pi.run("backup --runtag a").returncode == 13
    assert archives(pi.nas) == before


@pytest.mark.parametrize("name", [b"latin1-\xe9", rb"a\xe9", "ü ü".encode()])
def test_a_name_that_is_no_text_is_found_again(pi, name):
    """The manifest has it with escapes: a set with it is replaced, unless the folder is gone."""
    folder = pi.folder / "services" / os.fsdecode(name)
    folder.mkdir()
    (folder / "file").write_text("data")
    assert pi.run("backup --runtag a").returncode == 0
    (folder / "file").write_text("new")
    assert pi.run("backup --runtag a --force").returncode == 0
    shutil.rmtree(folder)
    assert pi.run("backup --runtag a --force").returncode == 13


def test_a_finished_set_is_not_made_again_by_other_settings(pi):
    """It waits for a vault; what is left out since belongs into the next backup."""
    with pi.settings.open("a") as stream:
        stream.write('[[vaults]]\nname = "x"\nkind = "folder"\nfolder = "/nonexistent/x"\n')
    assert pi.run("backup --runtag a").returncode == 3
    before = archives(pi.nas)
    pi.flows.write_text(NEW)
    with pi.settings.open("a") as stream:
        stream.write('[[stack.exclude]]\npath = "volumes/other"\nreason = "none"\n')
    assert pi.run("backup --runtag a").returncode == 3
    assert archives(pi.nas) == before == archives(pi.backups)


# A set that held more


def include(pi, path):
    path.mkdir()
    (path / "file").write_text("x")
    with pi.settings.open("a") as stream:
        stream.write(f'[[stack.include]]\npath = "{path}"\n')


def test_a_part_that_a_run_cannot_make_is_not_replaced(pi, tmp_path):
    """With --force the run without it ended with 0, and the archive stayed, of no manifest."""
    before = pi.settings.read_text()
    include(pi, tmp_path / "srv")
    assert pi.run("backup --runtag f").returncode == 0
    pi.settings.write_text(before)
    kept = archives(pi.backups)
    told = [pi.run(f"backup --runtag f --force {dry}") for dry in ("--dry-run", "")]
    assert [each.returncode for each in told] == [13, 13], told
    words = " ".join(told[1].stderr.split())
    assert f"f has {tmp_path}/srv of the outside part, but a new backup would not" in words
    assert f"inv prune --allow-missing {tmp_path}/srv" in words
    assert archives(pi.backups) == kept == archives(pi.nas)
    # What the owner says is gone goes, here and in the vault, and nothing of it is left. It is
    # said of what was made before that second.
    manifest = pi.backups / "f.manifest.json"
    until(lambda: int(time.time()) > manifest.stat().st_mtime + 1)
    assert pi.run(f"prune --allow-missing {tmp_path}/srv").returncode == 0
    told = pi.run("backup --runtag f --force")
    assert told.returncode in (0, 3), told.stderr
    assert set(archives(pi.backups)) == set(archives(pi.nas)) == {"f.general-backup.tar.gz"}
    assert pi.run("verify --runtag f --at all").returncode == 0


def test_what_holds_less_is_compared_with_what_it_replaces(pi):
    """Under the same name nothing else may tell that it was more once."""
    pi.flows.write_bytes(b"x" * (2 << 20))
    assert pi.run("backup --runtag f").returncode == 0
    pi.flows.write_text("x")
    told = pi.run("backup --runtag f --force")
    assert told.returncode == 3, told.stderr
    assert "An earlier f was replaced. volumes/nodered holds" in " ".join(told.stderr.split())


def stop(stack, *names):
    """Let containers of the stack of servers stand still."""
    known = stack.tools / "docker.json"
    found = json.loads(known.read_text())
    for each in found:
        each["State"]["Running"] = each["Name"].lstrip("/") not in names
    known.write_text(json.dumps(found))


@pytest.mark.parametrize("names", [["mariadb"], ["mariadb", "home_db"]], ids=["one", "all"])
def test_a_dump_of_a_server_that_stands_still_is_not_replaced(stack, names):
    """It may be the only one; the container, or the part, is named with the way on."""
    assert stack.run("backup --runtag f").returncode == 0
    before = archives(stack.folder / "backups")
    stop(stack, *names)
    told = stack.run("backup --runtag f --force")
    assert told.returncode == 13, told.stderr
    words = " ".join(told.stderr.split())
    what = "container mariadb of the mariadb part" if len(names) == 1 else "the mariadb part"
    assert f"f has {what}, but a new backup would not" in words
    assert "MariaDB is not dumped: container" in words
    assert archives(stack.folder / "backups") == before


@pytest.mark.parametrize("names", [["mariadb"], ["mariadb", "home_db"]], ids=["one", "all"])
def test_what_a_killed_run_made_stays_in_its_set(stack, names):
    """The dump is real, and of that moment: the manifest names it, and every command agrees."""
    backups = stack.folder / "backups"
    stack.tool("tar", 'echo "tar: disk on fire" >&2; exit 2')
    assert stack.run("backup --runtag k").returncode == 1
    (stack.tools / "tar").unlink()
    for each in backups.glob("k.*"):  # as a SIGKILL leaves it
        if "mariadb" not in each.name and "unfinished" not in each.name:
            each.unlink()
    for each in (stack.folder.parent / "disk").iterdir():
        each.unlink()
    dump = archives(backups)
    assert list(dump) == ["k.mariadb-backup.tar.gz"]
    stop(stack, *names)
    told = stack.run("backup --runtag k")
    assert told.returncode == 3, told.stderr
    assert "The mariadb part is the one that an earlier run of k made" in told.stderr
    assert {part.kind for part in manifest(backups, "k").made} == {"general", "mariadb"}
    assert archives(backups)["k.mariadb-backup.tar.gz"] == dump["k.mariadb-backup.tar.gz"]
    assert archives(backups) == archives(stack.folder.parent / "disk")
    assert stack.run("verify --runtag k --at all").returncode == 0
    assert stack.run("list").returncode == 0


def test_where_a_part_cannot_be_made_again_the_one_before_stays(stack):
    """The archive stayed all the same, and the manifest called it not made."""
    backups = stack.folder / "backups"
    assert stack.run("backup --runtag f").returncode == 0
    before = archives(backups)["f.mariadb-backup.tar.gz"]
    for each in ("mariadb", "home_db"):
        broken(stack, each).touch()
    told = stack.run("backup --runtag f --force")
    assert told.returncode == 1, told.stderr
    assert manifest(backups, "f").state == "incomplete"
    assert "mariadb" in {part.kind for part in manifest(backups, "f").made}
    assert archives(backups)["f.mariadb-backup.tar.gz"] == before
    assert archives(backups) == archives(stack.folder.parent / "disk")
    assert stack.run("verify --runtag f --at all").returncode == 3
    for each in ("mariadb", "home_db"):
        broken(stack, each).unlink()
    assert stack.run("backup --runtag f").returncode == 0
    assert archives(backups) == archives(stack.folder.parent / "disk")


def test_an_archive_that_no_manifest_names_is_told_and_stays(pi):
    """As earlier versions left it: it may be the only dump, so nothing removes it unasked."""
    assert pi.run("backup --runtag k").returncode == 0
    stray = pi.backups / "k.influx-backup.tar"
    stray.write_bytes(b"dump")
    for flags in ("", "--force"):
        told = pi.run(f"backup --runtag k {flags}")
        assert told.returncode == 13, told.stderr
    assert "k has the influx part, but a new backup would not" in " ".join(told.stderr.split())
    assert pi.run("list").returncode == 3
    assert pi.run("status").returncode != 0
    assert "last backup here: no good backup" in pi.run("doctor").stdout
    assert stray.exists()
    stray.unlink()
    (pi.nas / stray.name).write_bytes(b"dump")
    told = pi.run("sync")
    assert told.returncode == 3
    assert "k.influx-backup.tar exists, but the manifest has no influx part there" in told.stderr
    assert (pi.nas / stray.name).exists()
