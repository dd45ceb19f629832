"""A set of ours that lost its manifest: each text says a way on, and each way works."""

import os
from datetime import timedelta

import pytest
from contexts import NOON

from iotstack_invoke.backups.verifications import in_places


def tag(days):
    return f"{NOON - timedelta(days=days):%Y-%m-%d_%H%M}"


@pytest.fixture
def pi(little_stack, tmp_path):
    """A stack with a vault, and a set here that lost its manifest."""
    little_stack.backups, little_stack.nas = little_stack.folder / "backups", tmp_path / "nas"
    little_stack.nas.mkdir()
    little_stack.lost = tag(9)
    assert little_stack.run(f"backup --runtag {little_stack.lost}").returncode == 0
    (little_stack.backups / f"{little_stack.lost}.manifest.json").unlink()
    with little_stack.settings.open("a") as stream:
        stream.write(
            f'[[vaults]]\nname = "nas"\nkind = "folder"\nfolder = "{little_stack.nas}"\nkeep = 9\n'
        )
    return little_stack


def said(told):
    return " ".join((told.stdout + told.stderr).split())


def files_of(folder, runtag):
    return {each: (folder / each).read_bytes() for each in os.listdir(folder) if runtag in each}


def cut(pi):
    path = pi.backups / f"{pi.lost}.general-backup.tar.gz"
    path.write_bytes(path.read_bytes()[:-20])


def test_what_can_be_read_is_restored_or_adopted(pi):
    """`verify` names both ways; a backup of its name refers to it, and replaces nothing."""
    before = files_of(pi.backups, pi.lost)
    told = pi.run(f"verify --runtag {pi.lost} --at here")
    assert told.returncode == 1
    assert "There is no other copy. Its archives can be read completely, and no" in said(told)
    assert f"inv restore --runtag '{pi.lost}' --from here" in said(told)
    assert said(told).endswith("inv prune --adopt")
    for force in ("", "--force"):
        told = pi.run(f"backup --runtag {pi.lost} {force}")
        assert told.returncode == 13
        assert f"inv verify --runtag '{pi.lost}' --at here" in said(told)
        assert "made by other scripts" not in said(told)
    assert files_of(pi.backups, pi.lost) == before


def test_adopted_it_goes_once_newer_ones_hold_as_much(pi):
    """Not before, and never while no good one holds its parts."""
    assert pi.run(f"verify --runtag {pi.lost} --at here").returncode == 1
    assert "inv prune --adopt adopts it if it can be read" in said(pi.run("prune --keep 1"))
    told = pi.run("prune --keep 1 --adopt")
    assert (told.returncode, f"{pi.lost} here was adopted" in said(told)) == (0, True)
    assert files_of(pi.backups, pi.lost)
    assert pi.run(f"backup --runtag {tag(1)}").returncode == 0
    assert pi.run("prune --keep 1").returncode == 0
    assert not files_of(pi.backups, pi.lost)
    assert files_of(pi.backups, tag(1))


def test_adopted_without_a_verification_before(pi):
    """`--adopt` is the first that reads it."""
    assert pi.run(f"backup --runtag {tag(1)}").returncode == 0
    told = pi.run("prune --keep 1 --adopt")
    assert (told.returncode, files_of(pi.backups, pi.lost)) == (0, {})


def test_what_cannot_be_read_stays_until_it_is_removed_by_hand(pi):
    """No policy takes it, nor a backup; the command that does is named."""
    cut(pi)
    remove = f"remove it by hand: rm {pi.backups}/{pi.lost}.*"
    assert remove in said(pi.run(f"verify --runtag {pi.lost} --at here"))
    assert pi.run(f"backup --runtag {tag(1)}").returncode == 0
    before = files_of(pi.backups, pi.lost)
    told = pi.run("prune --keep 1 --adopt")
    assert "was not adopted, so it stays: " in said(told)
    assert remove in said(told)
    assert "adopts it if it can be read; if not, remove it by hand" in said(told)
    assert files_of(pi.backups, pi.lost) == before


def to_vault(pi):
    for name, content in files_of(pi.backups, pi.lost).items():
        (pi.nas / name).write_bytes(content)


def test_of_a_copy_in_a_vault_the_same_is_told(pi):
    """Where the copies elsewhere are no better, nobody is sent to them."""
    to_vault(pi)
    assert pi.run(f"verify --runtag {pi.lost} --at here").returncode == 1
    told = said(pi.run(f"verify --runtag {pi.lost} --at nas"))
    assert "No other good copy is known. Its archives can be read completely" in told
    assert f"inv restore --runtag '{pi.lost}' --from nas" in told
    assert told.endswith("inv prune --at nas --adopt")
    assert pi.run(f"backup --runtag {tag(1)}").returncode == 0
    told = pi.run("prune --at nas --keep 1 --adopt --yes")
    assert (told.returncode, files_of(pi.nas, pi.lost)) == (0, {})


def test_a_damaged_copy_that_is_alone_is_told_so(pi):
    """`verify` sends nobody to another copy where none is, nor where all others are damaged."""
    one = tag(1)
    assert pi.run(f"backup --runtag {one}").returncode == 0
    path = pi.nas / f"{one}.general-backup.tar.gz"
    path.write_bytes(bytes(path.stat().st_size))
    assert f"Use another copy: inv show '{one}'" in said(pi.run(f"verify --runtag {one} --at nas"))
    own = pi.backups / path.name
    own.write_bytes(path.read_bytes())
    told = said(pi.run(f"verify --runtag {one} --at all"))
    assert "No other good copy is known. Make a new backup of the present data" in told
    assert "Use another copy" not in told.partition(f"{one} in nas is damaged")[2]
    for each in files_of(pi.backups, one):
        (pi.backups / each).unlink()
    told = said(pi.run(f"verify --runtag {one} --at nas"))
    assert "There is no other copy. Make a new backup of the present data: inv backup" in told


def test_what_can_be_read_is_restored(pi):
    """By the command that `verify` names."""
    assert pi.run(f"verify --runtag {pi.lost} --at here").returncode == 1
    told = pi.run(f"restore --runtag '{pi.lost}' --from here --dry-run")
    assert (told.returncode, "replaces: volumes/nodered" in said(told)) == (0, True)


def test_a_copy_that_lost_its_manifest_too_is_no_better_one(pi):
    """Nobody is sent round in a circle, also where it was never verified."""
    to_vault(pi)
    told = said(pi.run(f"verify --runtag {pi.lost} --at here"))
    assert "No other good copy is known. Its archives can be read completely" in told
    assert "Use another copy" not in told


@pytest.mark.parametrize("at", ["here", "nas"])
def test_what_was_adopted_is_unproven_and_not_damaged(pi, at):
    """Its manifest is known to be lost; what else goes wrong is still told."""
    to_vault(pi)
    for folder, other in ((pi.backups, "nas"), (pi.nas, "here")):
        if at == other:
            for each in files_of(folder, pi.lost):
                (folder / each).unlink()
    assert pi.run(f"backup --runtag {tag(1)}").returncode == 0
    assert pi.run(f"verify --runtag {pi.lost} --at {at}").returncode == 1
    assert pi.run("list").returncode == 3
    told = pi.run(f"prune --at {at} --keep 9 --adopt")
    assert (told.returncode, f"{pi.lost} {in_places(at)} was adopted" in said(told)) == (0, True)
    assert f"{pi.lost} 9 days unproven keep" in said(told)
    told = pi.run("list")
    assert (told.returncode, "damaged" in said(told)) == (0, False), said(told)
    told = pi.run(f"verify --all --at {at}")
    assert told.returncode == 0, said(told)
    assert f"{pi.lost} {in_places(at)} can be read completely, but is unproven" in said(told)
    path = (pi.backups if at == "here" else pi.nas) / f"{pi.lost}.general-backup.tar.gz"
    path.write_bytes(bytes(path.stat().st_size))
    assert pi.run(f"verify --all --at {at}").returncode == 1
    assert pi.run("list").returncode == 3
