"""A backup that is made in the place of another (--force): none is lost by it, and it heals."""

import json
import shutil
import time
from datetime import UTC, datetime

import pytest
from contexts import until
from liars import lies
from sample_sets import new_form
from test_incomplete import stack  # noqa: F401 - a fixture
from test_replaced import NEW, OLD, archives, manifest, pi  # noqa: F401 - a fixture

from iotstack_invoke.backups.manifest import Manifest, utc_text
from iotstack_invoke.backups.sets import BackupSet, State
from iotstack_invoke.commands.backup.preflight import begun_in_a_second_of_its_own
from iotstack_invoke.workflows.backup import BackupFacts

KILL = "os.kill(os.getpid(), 9)"


def is_new(folder, pi):
    """Tell whether a folder holds the new set, whole."""
    told = pi.run(f"verify --runtag f --at {'here' if folder == pi.backups else 'nas'}")
    return told.returncode == 0 and archives(folder) == pi.new


def test_a_set_and_what_replaces_it_begin_in_two_seconds():
    """Told apart by that second, one that held less went over a vault's only whole copy."""
    began = utc_text(datetime.now(UTC))
    facts = BackupFacts("pi", "x", "/x", (), started_utc=began)
    old = Manifest("f", "pi", "x", began, began, "UTC", ())
    sets = [BackupSet("f", {}, State.COMPLETE, old), BackupSet("f", {}, State.DAMAGED, None)]
    assert begun_in_a_second_of_its_own(facts, sets).started_utc > began
    assert begun_in_a_second_of_its_own(facts, sets[1:]) == facts


def test_two_backups_within_a_second_are_two_sets(pi):
    """The second one comes in the place of the first, here and in the vault."""
    assert pi.run("backup --runtag f").returncode == 0
    assert pi.run("backup --runtag f --force").returncode == 0
    records = [manifest(folder, "f") for folder in (pi.backups, pi.nas)]
    pi.flows.write_text(NEW)
    assert pi.run("backup --runtag f --force").returncode == 0
    newer = [manifest(folder, "f") for folder in (pi.backups, pi.nas)]
    assert records[0] == records[1] != newer[0] == newer[1]
    assert newer[0].started_utc > records[0].started_utc


def forced(pi, where, word, does):
    """Make a set, replace it by one of another state, and be killed amid that."""
    assert pi.run("backup --runtag f").returncode == 0
    pi.old = archives(pi.backups)
    pi.flows.write_text(NEW)
    lies(pi, where, word, does)
    assert pi.run("backup --runtag f --force").returncode == -9
    del pi.environment["PYTHONPATH"]


def assert_replaced(pi):
    """The new set lies here and in the vault, and nothing of the old one, nor a mark."""
    pi.new = archives(pi.backups)
    assert pi.new != pi.old
    assert is_new(pi.backups, pi)
    assert is_new(pi.nas, pi)
    assert not [*pi.backups.glob("*.unfinished.jsonl"), *pi.nas.glob("*.unfinished.jsonl")]


@pytest.mark.parametrize(
    ("word", "does"),
    [
        pytest.param("general", KILL, id="before the archive has its name"),
        pytest.param("general", f"real(old, new); {KILL}", id="after the archive"),
        pytest.param("manifest", KILL, id="before the manifest"),
    ],
)
def test_a_power_cut_here_leaves_an_unfinished_set_and_whole_copies(pi, word, does):
    """The new archive lay beside the old manifest, or in a vault under it, for ever."""
    forced(pi, pi.backups, word, does)
    assert not (pi.backups / "f.manifest.json").exists()
    assert archives(pi.nas) == pi.old
    assert pi.run("verify --runtag f --at nas").returncode == 0
    assert "Not copied, because unfinished" in pi.run("sync").stdout
    told = pi.run("backup --runtag f")
    assert (told.returncode, told.stderr) == (0, "")
    assert_replaced(pi)


@pytest.mark.parametrize("line", ["sync", "backup --runtag f"])
@pytest.mark.parametrize(
    ("word", "does"),
    [
        pytest.param("general", f"real(old, new); {KILL}", id="after the archive"),
        pytest.param("manifest", KILL, id="before the manifest"),
    ],
)
def test_a_power_cut_amid_the_copies_is_healed_by_the_next_run(pi, word, does, line):
    """It said for ever that there is another backup of that name, which stays."""
    forced(pi, pi.nas, word, does)
    assert not (pi.nas / "f.manifest.json").exists()
    told = pi.run(line)
    assert (told.returncode, told.stderr) == (0, "")
    assert_replaced(pi)


def test_a_vault_that_was_away_while_a_set_was_replaced_gets_the_new_one(pi):
    """As it is the same machine's: the records tell that the new one comes in its place."""
    assert pi.run("backup --runtag f").returncode == 0
    pi.flows.write_text(NEW)
    pi.nas.rename(pi.nas.with_name("away"))
    assert pi.run("backup --runtag f --force").returncode == 3
    assert "f" in pi.run("sync").stderr.partition("Not copied yet: ")[2]
    pi.nas.with_name("away").rename(pi.nas)
    pi.new = archives(pi.backups)
    told = pi.run("sync")
    assert (told.returncode, told.stderr) == (0, "")
    assert is_new(pi.nas, pi)


# What only the old set holds


def lose(pi):
    pi.flows.unlink()


def test_after_a_new_sd_card_the_only_copy_is_not_replaced(pi):
    """Nothing is here, and all is in the vault: an empty backup went over it, without a word."""
    assert pi.run("backup --runtag f").returncode == 0
    before = archives(pi.nas)
    lose(pi)
    shutil.rmtree(pi.backups)
    told = [pi.run(f"backup --runtag f --force {dry}") for dry in ("--dry-run", "")]
    assert [each.returncode for each in told] == [13, 13], told
    words = " ".join(told[1].stderr.split())
    assert "f in nas has volumes/nodered of the general part, but a new backup would" in words
    assert "Nothing was changed. Use another --runtag." in words
    assert "inv prune --allow-missing volumes/nodered --at nas" in words
    assert archives(pi.nas) == before
    # Who means it says so; that is said of what was made before that second.
    until(lambda: int(time.time()) > (pi.nas / "f.manifest.json").stat().st_mtime + 1)
    assert pi.run("prune --allow-missing volumes/nodered --at nas --yes").returncode == 0
    assert pi.run("backup --runtag f --force").returncode == 0
    assert archives(pi.nas) == archives(pi.backups) != before


def test_what_is_empty_now_does_not_replace_what_was_not(pi):
    """It was told when both copies were replaced."""
    assert pi.run("backup --runtag f").returncode == 0
    before = archives(pi.backups)
    lose(pi)
    told = pi.run("backup --runtag f --force")
    assert told.returncode == 13, told.stderr
    assert archives(pi.backups) == archives(pi.nas) == before


@pytest.mark.parametrize("pinned", [False, True], ids=["holds more", "is pinned"])
def test_a_copy_that_no_start_could_see_is_compared_when_its_vault_is_back(pi, pinned):
    """What it alone holds stays; so does what is pinned there."""
    assert pi.run("backup --runtag f").returncode == 0
    before = archives(pi.nas)
    pi.nas.rename(pi.nas.with_name("away"))
    if pinned:
        pi.flows.write_text(NEW)
    else:
        lose(pi)
        shutil.rmtree(pi.backups)
    assert pi.run("backup --runtag f --force").returncode == 3
    pi.nas.with_name("away").rename(pi.nas)
    if pinned:
        (pi.nas / "f.pin.txt").write_text("")
    for line in ("sync", "backup --runtag f"):
        told = pi.run(line)
        assert told.returncode == (13 if pinned and line != "sync" else 3), told.stderr
        words = " ".join(told.stderr.split())
        assert pinned or "f in nas has volumes/nodered of the general part, which" in words
        assert archives(pi.nas) == before
        assert pi.run("verify --runtag f --at nas").returncode == 0
        assert not list(pi.nas.glob("*.unfinished.jsonl"))


@pytest.mark.parametrize("is_cut", [False, True], ids=["at once", "after a power cut"])
def test_a_dump_stays_that_holds_what_the_new_one_lacks(stack, is_cut):
    """Only the dump tells which databases there are: the part before stays, here and there."""
    backups, disk = stack.folder / "backups", stack.folder.parent / "disk"
    assert stack.run("backup --runtag f").returncode == 0
    path = backups / "f.manifest.json"
    told = json.loads(path.read_text())
    for each in told["parts"]["mariadb"]["facts"]["servers"]:
        each["rows"]["diary"] = {"days": 7}
    path.write_text(new_form(told))
    (disk / path.name).write_bytes(path.read_bytes())
    before = archives(backups)["f.mariadb-backup.tar.gz"]
    if is_cut:
        lies(stack, backups, "general", f"real(old, new); {KILL}")
        assert stack.run("backup --runtag f --force").returncode == -9
        del stack.environment["PYTHONPATH"]
        assert not path.exists()
    done = stack.run(f"backup --runtag f {'' if is_cut else '--force'}")
    assert done.returncode == 1, done.stderr
    assert "f has database diary of container" in " ".join(done.stderr.split())
    assert "mariadb" in {part.kind for part in manifest(backups, "f").made}
    assert archives(backups)["f.mariadb-backup.tar.gz"] == before
    assert archives(backups) == archives(disk)
    assert manifest(backups, "f").state == manifest(disk, "f").state == "incomplete"
