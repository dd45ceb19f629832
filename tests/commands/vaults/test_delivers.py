"""What a delivery says of sets and vaults is true, and it leaves nothing there that is of no use."""

import json
import os
import shutil

import pytest
from two_vaults import contents, make_sets, pi  # noqa: F401 - the fixture

from iotstack_invoke.backups.verifications import read_checks


@pytest.fixture
def three(pi):
    """A stack with three vaults that are folders."""
    pi.nas.mkdir()
    pi.box = pi.nas.parent / "box"
    pi.box.mkdir()
    with pi.settings.open("a") as stream:
        stream.write(f'[[vaults]]\nname = "box"\nkind = "folder"\nfolder = "{pi.box}"\n')
    return pi


def copy_set(pi, tag, *vaults):
    """Copy a set by hand."""
    for name in contents(pi.backups, tag):
        for each in vaults:
            shutil.copy2(pi.backups / name, each / name)


def test_a_run_that_mends_one_vault_knows_what_the_others_hold(three):
    """None is called unknown, or said to lack the set that it was seen to hold."""
    assert three.run("backup --runtag one").returncode == 0
    (three.usb / "one.manifest.json").write_text("")
    told = three.run("backup --runtag one")
    assert (told.returncode, told.stderr) == (0, "")
    assert (
        contents(three.usb, "one") == contents(three.nas, "one") == contents(three.backups, "one")
    )
    assert not list(three.backups.glob("*.unfinished.jsonl"))


def test_why_says_nothing_of_a_dry_run_in_one_that_is_none(three):
    """A run whose log alone is to be copied does so; nowhere stands that nothing was changed."""
    assert three.run("backup --runtag one").returncode == 0
    (three.usb / "one.RESTORE.txt").unlink()
    told = three.run("backup --runtag one --why")
    assert told.returncode == 0
    assert "jobs to run." in told.stdout
    assert "Nothing was changed" not in told.stdout


def test_a_vault_that_is_away_is_not_said_to_lack_what_it_was_seen_to_hold(three):
    """Because one vault takes nothing, nobody says that another lacks what a delivery found there."""
    tags = make_sets(three.backups, 1, 2)
    for tag in tags:
        copy_set(three, tag, three.nas)
        (three.usb / f"{tag}.general-backup.tar.gz").mkdir()
    assert three.run("sync").returncode == 3
    assert list(three.backups.glob("*.unfinished.jsonl"))
    three.nas.rename(three.nas.parent / "off")
    told = three.run("backup --runtag new")
    assert told.returncode == 3
    assert "Cannot tell what nas has. Not copied yet: new." in told.stderr


def test_only_sets_that_a_vault_would_keep_are_named_while_it_is_away(pi):
    """Its policy would remove the older one at once, so no run ever copies it there."""
    with pi.settings.open("a") as stream:
        stream.write("keep = 1\n")  # of nas, which is away
    first, second = "2020-01-01_1000", "2020-01-02_1000"
    assert pi.run(f"backup --runtag {first}").returncode == 3
    told = pi.run(f"backup --runtag {second}")
    assert told.returncode == 3
    named = f"Cannot tell what nas has. Not copied yet: {second}. The next backup or `inv sync` copies it there."
    assert named in told.stderr
    assert first not in told.stderr
    told = pi.run("sync")
    assert (told.returncode, named in told.stderr, first in told.stderr) == (3, True, False)
    pi.nas.mkdir()
    assert pi.run("sync").returncode == 0
    assert (contents(pi.nas, first), bool(contents(pi.nas, second))) == ({}, True)


def test_a_failed_copy_has_one_remedy(pi):
    """The set here is complete: the same command with --runtag would do nothing else."""
    told = pi.run("backup --runtag one")
    assert told.returncode == 3
    assert "Backup one is complete here, but some steps failed.\n" in told.stderr
    assert told.stderr.count("The next backup or `inv sync` copies it there.") == 1
    assert "--runtag" not in told.stderr


def test_the_reason_of_a_failed_step_is_shown_once_to_who_watches(pi):
    """It stood in the line of the step, and in full once more in the summary."""
    pi.environment = {**pi.environment, "IOTSTACK_WATCHED": "1"}
    told = pi.run("backup --runtag one")
    assert told.returncode == 3
    assert told.stderr.count("The folder of vault 'nas' is missing") == 1
    assert "to nas: failed, see above\n" in told.stderr


def test_what_was_seen_in_a_vault_by_sync_is_not_said_to_be_lacking(three):
    """Of a set that was made while a vault was away, and copied there by hand, the records tell."""
    three.usb.rmdir()
    three.nas.rename(three.nas.parent / "off")
    assert three.run("backup --runtag one").returncode == 3
    (three.nas.parent / "off").rename(three.nas)
    copy_set(three, "one", three.nas)
    assert three.run("sync").returncode == 3
    three.nas.rename(three.nas.parent / "off")
    told = three.run("sync")
    assert "Cannot tell what usb has. Not copied yet: one." in told.stderr
    assert "Cannot tell what nas" not in told.stderr


def test_a_vault_that_answers_is_never_called_unknown(three):
    """One that takes nothing was listed all the same: what it lacks is known."""
    tags = make_sets(three.backups, 1)
    copy_set(three, tags[0], three.usb)
    (three.usb / "new.general-backup.tar.gz").mkdir()
    told = three.run("backup --runtag new")
    assert told.returncode == 3
    assert "Cannot tell" not in told.stderr
    assert (
        "usb is missing 1 backup: new. The next backup or `inv sync` copies it there."
        in told.stderr
    )


def test_what_sync_finds_damaged_here_is_judged_so_from_then_on(three):
    """It is recorded; where whole copies lie is told, and how one is fetched back, never --force."""
    (tag,) = make_sets(three.backups, 1)
    copy_set(three, tag, three.nas, three.box)
    (three.backups / f"{tag}.general-backup.tar.gz").write_bytes(b"y" * 10)
    told = three.run("sync")
    assert told.returncode == 3
    said = " ".join(told.stderr.split())
    assert f"{tag} was not copied to usb: it is damaged here: {three.backups}/{tag}.gen" in said
    assert f"{tag} is damaged here, but good in nas, box" in said
    assert f"cp {three.nas}/{tag}.*" in said
    assert "--force" not in said
    assert "usb is missing" not in said
    (check,) = read_checks((three.backups / ".checks.jsonl").read_text().splitlines()).values()
    assert (check.at, check.good) == ("here", False)
    (row,) = json.loads(three.run("list --json").stdout)
    assert row["here"] == "damaged"
    assert not (three.usb / f"{tag}.manifest.json").exists()
    told = three.run("sync")
    assert told.returncode == 3
    assert f"{tag} is damaged here, but good in nas, box" in " ".join(told.stderr.split())


def test_what_is_damaged_here_and_nowhere_known_to_be_whole_is_told_with_the_next_step(three):
    """A vault that was not asked may have it: the command that tells is named."""
    (tag,) = make_sets(three.backups, 1)
    copy_set(three, tag, three.nas)
    (three.backups / f"{tag}.general-backup.tar.gz").write_bytes(b"y" * 10)
    told = three.run("sync --vault usb")
    assert told.returncode == 3
    assert f"inv verify --runtag '{tag}' --at here" in told.stderr
    assert "--force" not in told.stderr
    assert "Use another copy: inv show" in three.run(f"verify --runtag {tag} --at here").stderr


def test_a_backup_that_delivers_late_tells_of_damage_here(three):
    """As sync does; the new backup is made and copied all the same."""
    (tag,) = make_sets(three.backups, 1)
    copy_set(three, tag, three.nas)
    (three.backups / f"{tag}.general-backup.tar.gz").write_bytes(b"y" * 10)
    told = three.run("backup --runtag new")
    assert told.returncode == 3
    assert f"{tag} is damaged here, but good in nas" in " ".join(told.stderr.split())
    assert "missing 1 backup" not in told.stderr
    assert (three.usb / "new.manifest.json").exists()


def test_a_backup_that_is_damaged_before_it_is_copied_is_not_whole(three):
    """Its own set is no good then, and is recorded so; what follows is told, and is no --force."""
    three.usb.rmdir()
    assert three.run("backup --runtag one").returncode == 3
    path = three.backups / "one.general-backup.tar.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"y")
    three.usb.mkdir()
    told = three.run("backup --runtag one")
    assert told.returncode == 1
    assert "is complete here" not in told.stderr
    assert "To see what to do: inv verify --runtag 'one' --at here" in told.stderr
    assert "--force" not in told.stderr
    assert json.loads(three.run("list --json").stdout)[0]["here"] == "damaged"


@pytest.mark.parametrize("line", ["sync", "backup --runtag one"])
def test_a_manifest_of_no_use_beside_copies_of_ours_is_replaced(three, line):
    """All archives there being those of here, it is this set's: a delivery and a backup put it right."""
    assert three.run("backup --runtag one").returncode == 0
    (three.usb / "one.manifest.json").write_text("")
    told = three.run(line)
    assert (told.returncode, told.stderr) == (0, "")
    assert contents(three.usb, "one") == contents(three.backups, "one")


def test_what_is_not_known_to_be_ours_is_not_promised(three):
    """It stays, and no sentence says that it will be delivered; the command that replaces it is told."""
    assert three.run("backup --runtag one").returncode == 0
    (three.usb / "one.manifest.json").write_text("")
    (three.usb / "one.general-backup.tar.gz").write_bytes(b"another's")
    (three.nas / "one.manifest.json").unlink()
    before = contents(three.usb)
    assert three.run("sync --dry-run").returncode == 3
    told = three.run("sync")
    assert told.returncode == 3
    assert (
        "one was not copied to usb: one.general-backup.tar.gz, one.manifest.json there differ from the copy here, and no readable manifest there says whose"
    ) in told.stderr
    assert "inv verify --runtag one --at usb" in told.stderr
    assert "replace it: inv backup --runtag one." in told.stderr
    assert "is missing" not in told.stderr
    assert contents(three.usb) == before
    assert contents(three.nas) == contents(three.backups)
    assert three.run("backup --runtag one").returncode == 0
    assert contents(three.usb) == contents(three.backups)


def test_a_set_whose_run_was_cut_after_its_manifest_is_delivered_with_its_texts(three):
    """RESTORE.txt is made from the manifest, and its log gets its name: `verify` finds nothing missing."""
    for each in (three.usb, three.nas, three.box):
        each.rename(f"{each}-off")
    assert three.run("backup --runtag one").returncode == 3
    for each in (three.usb, three.nas, three.box):
        each.with_name(f"{each.name}-off").rename(each)
    text = three.backups / "one.RESTORE.txt"
    written = text.read_bytes()
    text.unlink()
    log = three.backups / "one.backup-log.txt"
    log.rename(f"{log}.partial")
    dry = three.run("sync --dry-run")
    assert dry.stdout.count("restore_text: pi:backups/one.RESTORE.txt") == 1
    assert "offsite_log: usb:one.backup-log.txt" in dry.stdout
    assert not text.exists()
    told = three.run("sync")
    assert (told.returncode, told.stderr) == (0, "")
    assert text.read_bytes() == written
    assert contents(three.usb) == contents(three.nas) == contents(three.backups)
    assert (three.usb / log.name).exists()
    told = three.run("verify --runtag one --at all")
    assert "missing" not in told.stderr + told.stdout
    assert "was changed" not in told.stderr + told.stdout


def test_a_restore_text_that_is_gone_here_is_made_when_the_set_is_delivered(three):
    """Though its run ended well: each set carries one, here and in every vault."""
    assert three.run("backup --runtag one").returncode == 0
    (three.backups / "one.RESTORE.txt").unlink()
    for each in three.usb.iterdir():
        each.unlink()
    assert three.run("sync").returncode == 0
    assert contents(three.usb) == contents(three.nas) == contents(three.backups)


@pytest.fixture
def tiny(three, mount_disk):
    """The first vault is a disk of 64 KiB, and what is backed up is larger."""
    (three.folder / "volumes/nodered/big").write_bytes(os.urandom(200_000))
    mount_disk(three.usb, "64k")
    return three


def test_a_vault_that_is_too_small_is_left_as_it_was(tiny):
    """Neither RESTORE.txt nor a mark of a set stays there, by a backup and by a delivery."""
    told = tiny.run("backup --runtag one")
    assert told.returncode == 3
    assert ", and the file needs" in told.stderr
    assert list(tiny.usb.iterdir()) == []
    told = tiny.run("sync")
    assert told.returncode == 3
    assert "usb is missing 1 backup: one." in told.stderr
    assert list(tiny.usb.iterdir()) == []
    assert contents(tiny.nas) == contents(tiny.backups)


def test_another_machines_mark_stays(three):
    """What another is about to copy is not taken from it because ours is not copied."""
    make_sets(three.backups, 1)
    (tag,) = (each.name.partition(".")[0] for each in three.backups.glob("*.manifest.json"))
    mark = three.usb / f"{tag}.unfinished.jsonl"
    mark.write_text(json.dumps({"host": "other-pi", "claim": "1"}) + "\n")
    assert three.run("sync").returncode == 3
    assert mark.exists()


def test_a_vault_that_cannot_be_written_is_tried_once(three, read_only):
    """What it lacks is told, and why, once; the other vaults get all."""
    tags = make_sets(three.backups, 1, 2, 3)
    read_only(three.usb)
    told = three.run("sync")
    assert told.returncode == 3
    assert told.stderr.count("ead-only") == 1
    assert f"usb is missing 3 backups: {', '.join(tags)}." in told.stderr
    assert contents(three.nas) == contents(three.box) == contents(three.backups)
