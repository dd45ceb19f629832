"""`prune` and `pin`, through the real door: a little stack, folders as vaults, no Docker."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta

import folders
import pytest
from contexts import NOON, foreign_archive, put_set

from iotstack_invoke.backups.manifest import Manifest, Part, utc_text
from iotstack_invoke.backups.sets import GOOD, State, files_of
from iotstack_invoke.backups.verifications import Verification, check_line
from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.environment.environment import finish_removals, remove_set, sets_in
from iotstack_invoke.hosts import local as hosts
from iotstack_invoke.hosts.local import LocalHost, locked

MORTAL = os.path.join(str(folders.TESTS), "killable_prune.py")
DIED = 99
ARCHIVE = foreign_archive()
"""The general part of another tool."""


def runtag(days):
    """Return the runtag of a set that was made so many days ago."""
    return f"{NOON - timedelta(days=days):%Y-%m-%d_%H%M}"


def make_set(folder, days, *, manifest=True, size_bytes=10):
    """Put a set that is so many days old into a folder, and return its runtag."""
    name, made = runtag(days), utc_text(NOON - timedelta(days=days))
    part = Part("general", f"{name}.general-backup.tar.gz", size_bytes)
    (folder / part.file).write_bytes(b"x" * 10 if manifest else ARCHIVE)
    (folder / f"{name}.backup-log.txt").write_text("log\n")
    if manifest:
        text = Manifest(name, "pi", "", made, made, "", (part,)).to_json()
        (folder / f"{name}.manifest.json").write_text(text)
    return name


def content(folder):
    """Return the bytes of every file of a folder, but for its lock."""
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.name != ".lock"}


def listed(folder):
    return {each.runtag: each.state for each in sets_in(LocalHost(str(folder)), str(folder))}


@pytest.fixture
def pi(little_stack, tmp_path):
    """A stack with a folder of backups and two vaults; only `usb` has a policy, of three sets."""
    little_stack.backups = little_stack.folder / "backups"
    little_stack.usb, little_stack.nas = tmp_path / "usb", tmp_path / "nas"
    for each in (little_stack.backups, little_stack.usb, little_stack.nas):
        each.mkdir()
    with little_stack.settings.open("a") as stream:
        stream.write(f"""keep = 2
[[vaults]]
name = "usb"
kind = "folder"
folder = "{little_stack.usb}"
keep = 3
[[vaults]]
name = "nas"
kind = "folder"
folder = "{little_stack.nas}"
""")
    return little_stack


@pytest.fixture
def cloud(pi, tmp_path):
    """The stack with a cloud that keeps one set, and that can be read otherwise than it is."""
    pi.far = tmp_path / "cloud/x"
    pi.far.mkdir(parents=True)
    (tmp_path / "rclone.conf").write_text(f"[disk]\ntype = alias\nremote = {pi.far.parent}\n")
    pi.environment["RCLONE_CONFIG"] = str(tmp_path / "rclone.conf")
    with pi.settings.open("a") as stream:
        stream.write('[[vaults]]\nname = "cloud"\nkind = "rclone"\nremote = "disk:x"\nkeep = 1\n')
    theirs = make_set(pi.far, 9)
    for days in (1, 2):
        make_set(pi.far, days)

    def misread(script):
        into = f'{script} > "$to/{theirs}.manifest.json"'
        pi.tool(
            "rclone",
            f'for to; do :; done; case " $* " in *" cat "*{theirs}*) {script}; exit;; esac\n'
            f'/usr/bin/rclone "$@" || exit; case " $* " in *" copy "*) {into};; esac',
        )

    pi.misread = misread
    return pi


def test_each_place_is_pruned_by_its_own_policy(pi):
    """Two sets stay here and three in usb; nas has no policy, so that all of its sets stay."""
    for folder in (pi.backups, pi.usb, pi.nas):
        tags = [make_set(folder, days) for days in (1, 2, 3, 4)]
    told = pi.run("prune --at all")
    assert (told.returncode, told.stderr) == (0, "")
    assert list(listed(pi.backups)) == tags[:2]
    assert list(listed(pi.usb)) == tags[:3]
    assert list(listed(pi.nas)) == tags
    assert {name for name in content(pi.backups) if name.startswith(tuple(tags[2:]))} == set()
    assert "hosts.toml has no policy for this vault, so nothing is removed." in told.stdout
    assert "here: 2 of 4 sets were removed." in told.stdout
    assert "usb: 1 of 4 sets was removed." in told.stdout


@pytest.mark.parametrize(("at", "kept"), [("here", [0, 1, 2]), ("usb", [0, 1, 2, 3])])
def test_what_failed_its_verification_pushes_no_good_set_out(pi, at, kept):
    """A set that was found damaged counts for nothing in the place where it was found so."""
    folder = pi.backups if at == "here" else pi.usb
    tags = [make_set(folder, days) for days in (1, 2, 3, 4, 5)]
    made = utc_text(NOON - timedelta(days=1))
    # The clock of whoever verified it was years behind.
    check = Verification(tags[0], at, "2000-01-01T00:00:00Z", "read", False, ("torn",), "", made)
    (pi.backups / ".checks.jsonl").write_text(check_line(check) + "\n")
    assert pi.run(f"prune --at {at} --undelivered --yes").returncode == 0
    assert sorted(listed(folder), reverse=True) == [tags[each] for each in kept]


def test_a_backup_replaces_no_other_of_its_name(pi):
    """A name that a vault has already is refused; with --force only a pinned one is."""
    tag = make_set(pi.usb, 3)
    before = content(pi.usb)
    told = pi.run(f"backup --runtag {tag}")
    assert told.returncode == 13
    assert f"usb has a backup {tag} of pi already" in told.stderr
    pin = pi.usb / f"{tag}.pin.txt"
    pin.write_text("before the move\n")
    told = pi.run(f"backup --runtag {tag} --force")
    assert told.returncode == 13
    assert "pinned" in told.stderr
    pin.unlink()
    assert content(pi.usb) == before
    assert pi.run(f"backup --runtag {tag} --force").returncode == 0
    assert content(pi.usb) != before


def test_what_is_pinned_here_is_not_made_anew(pi):
    """--force does not reach what is pinned, also where only this machine has it."""
    assert pi.run("backup --runtag kept").returncode == 0
    assert pi.run("pin kept").returncode == 0
    before = content(pi.backups)
    told = pi.run("backup --runtag kept --force")
    assert (told.returncode, content(pi.backups)) == (13, before)
    assert "kept is pinned" in told.stderr


def test_a_folder_with_the_name_of_an_archive_is_nobodys_set(pi):
    """It is neither judged nor touched, and blocks no backup."""
    folder = pi.backups / "2020-01-01_1000.general-backup.tar.gz"
    folder.mkdir()
    (folder / "notes").write_text("mine")
    make_set(pi.backups, 1)
    assert pi.run("prune").returncode == 0
    assert pi.run("backup --runtag after").returncode == 0
    assert (folder / "notes").read_text() == "mine"


def test_nothing_is_copied_under_the_mark_of_a_removal(pi):
    """Where the rest of a removed set cannot be removed, a backup of its name is refused."""
    tag = runtag(9)
    (pi.usb / f"{tag}.removing").write_text("")
    (pi.usb / f"{tag}.influx-backup.tar").mkdir()
    (pi.usb / f"{runtag(8)}.removing").write_text("")
    told = pi.run(f"backup --runtag {tag}")
    assert told.returncode == 13
    assert "partly removed" in told.stderr
    assert not (pi.usb / f"{runtag(8)}.removing").exists()  # the others are finished
    assert pi.run("backup --runtag other").returncode == 0


def test_a_run_does_not_remove_its_own_backup(pi):
    """One that was begun weeks ago and goes on now stays, though newer good ones are enough."""
    for days in (1, 2):
        make_set(pi.backups, days)
    tag = runtag(20)
    begun = {"started_utc": utc_text(NOON - timedelta(days=20))}
    (pi.backups / f"{tag}.unfinished.jsonl").write_text(json.dumps(begun) + "\n")
    assert pi.run(f"backup --runtag {tag}").returncode == 0
    assert tag in listed(pi.backups)


def test_without_a_place_only_this_machine_is_pruned(pi):
    """Nothing goes from a vault unless it is named."""
    for folder in (pi.backups, pi.usb, pi.nas):
        tags = [make_set(folder, days) for days in (1, 2, 3, 4)]
    assert pi.run("prune").returncode == 0
    assert (list(listed(pi.backups)), list(listed(pi.usb))) == (tags[:2], tags)


def test_an_empty_pi_empties_no_vault(pi):
    """A vault's sets are judged by the vault's own sets alone, and by its own policy."""
    tags = [make_set(pi.usb, days) for days in (400, 401, 402)]
    told = pi.run("prune --at all")
    assert (told.returncode, told.stderr) == (0, "")
    assert list(listed(pi.usb)) == tags
    shutil.rmtree(pi.backups)
    assert pi.run("prune --at usb --keep-within 1d --yes").returncode == 0
    assert list(listed(pi.usb)) == tags[:2]
    assert not pi.backups.exists()


def test_flags_replace_the_whole_policy(pi):
    """A rule on the command line stands alone, in a vault without a policy as well."""
    for folder in (pi.backups, pi.nas):
        tags = [make_set(folder, days) for days in (1, 2, 3, 4)]
    assert pi.run("prune --at here --keep-daily 3").returncode == 0
    assert list(listed(pi.backups)) == tags[:3]
    assert pi.run("prune --at nas --keep-yearly 1 --keep-at-least 2 --yes").returncode == 0
    assert set(tags[:2]) <= set(listed(pi.nas)) < set(tags)


@pytest.mark.parametrize("line", ["prune --at all --dry-run", "--dry prune --at all"])
def test_a_dry_run_shows_all_and_changes_nothing(pi, line):
    """What would go is told with its reason, and every file is as it was."""
    for folder in (pi.backups, pi.usb, pi.nas):
        tags = [make_set(folder, days) for days in (1, 2, 3, 4)]
    (pi.usb / f"{tags[0]}.removing").write_text("")
    before = [content(folder) for folder in (pi.backups, pi.usb, pi.nas)]
    told = pi.run(line)
    assert (told.returncode, told.stderr) == (0, "")
    row = next(each for each in told.stdout.splitlines() if tags[3] in each)
    assert row.split()[-8:-4] == ["complete", "remove", "2", "newer"]
    assert f"The rest of an earlier removal would also be removed: {tags[0]}" in told.stdout
    assert told.stdout.endswith("Nothing was changed.\n")
    assert [content(folder) for folder in (pi.backups, pi.usb, pi.nas)] == before
    assert not (pi.backups / ".lock").exists()


def test_json_tells_programs_the_same(pi):
    """Each place has its sets with their verdicts, newest first."""
    for folder in (pi.backups, pi.usb, pi.nas):
        tags = [make_set(folder, days) for days in (1, 2, 3)]
    (pi.backups / "notes.txt").write_text("mine")
    told = pi.run("prune --at all --json")
    assert (told.returncode, told.stderr) == (0, "")
    here, usb, nas = json.loads(told.stdout)
    assert (here["place"], usb["place"], nas["place"]) == ("here", "usb", "nas")
    assert (here["policy"], nas["policy"], here["left_alone"]) == (True, False, ["notes.txt"])
    assert [(each["runtag"], each["keep"]) for each in here["sets"]] == [
        (tags[0], True),
        (tags[1], True),
        (tags[2], False),
    ]
    assert list(listed(pi.backups)) == tags[:2]


def test_what_is_not_ours_is_left_alone(pi):
    """Files of others stay and are named; archives of other scripts stay without a newer good set."""
    old = make_set(pi.backups, 900, manifest=False)
    for name in ("notes.txt", "-x.removing", "x.zip"):
        (pi.backups / name).write_text("mine")
    before = content(pi.backups)
    told = pi.run("prune --keep-daily 1")
    assert (told.returncode, content(pi.backups)) == (0, before)
    assert "Ignored, not the name of a backup: -x.removing, notes.txt, x.zip" in told.stdout
    assert old in told.stdout


def test_a_damaged_copy_in_a_vault_stands_for_no_good_one(pi):
    """In a vault the manifest there is opened, and a part of another size makes no good set."""
    damaged = make_set(pi.usb, 1, size_bytes=11)
    good = [make_set(pi.usb, days) for days in (2, 3)]
    assert pi.run("prune --at usb --keep 1 --yes").returncode == 0
    assert list(listed(pi.usb)) == [damaged, good[0]]


def test_a_vault_that_is_away_fails_alone(pi):
    """Where one vault does not answer, the others are pruned, and the exit code is 1."""
    tags = [make_set(pi.usb, days) for days in (1, 2, 3, 4)]
    pi.nas.rmdir()
    told = pi.run("prune --at vault")
    assert told.returncode == 1
    assert "nas was not pruned completely" in told.stderr
    assert "Is the drive mounted?" in told.stderr
    assert "nas (" not in told.stdout
    assert list(listed(pi.usb)) == tags[:3]


def test_a_manifest_that_cannot_be_read_now_removes_nothing(tmp_path, monkeypatch):
    """A line that breaks is no damage: where a manifest cannot be fetched, nothing is judged."""
    make_set(tmp_path, 1)
    monkeypatch.setattr(hosts, "opened", lambda *_: os.open("/proc/self/mem", os.O_RDONLY))
    with pytest.raises(StepFailed, match="cannot be read: Input/output error"):
        sets_in(LocalHost(str(tmp_path)), str(tmp_path))


def test_what_another_machine_may_own_stays(pi):
    """In a shared vault: a set with a torn manifest is never judged by this machine's, and named."""
    theirs = make_set(pi.usb, 9)
    for days in (1, 2, 3, 4):
        make_set(pi.usb, days)
    with (pi.usb / f"{theirs}.manifest.json").open("a") as stream:
        stream.write("x")
    told = pi.run("prune --at usb")
    assert (told.returncode, theirs in listed(pi.usb), len(listed(pi.usb))) == (0, True, 4)
    assert "of an unknown machine" in told.stdout


def test_a_manifest_that_comes_otherwise_than_it_is_listed_is_not_judged(cloud):
    """A page of a guest network, or a cut answer, with exit 0: that is a failed read, no damage."""
    there = content(cloud.far)
    cloud.misread('echo "<html>Please log in</html>"')
    told = cloud.run("prune --at cloud")
    assert (told.returncode, content(cloud.far)) == (1, there)
    assert "differs from the listing: read " in told.stderr
    assert "Please log in" not in told.stderr


def test_a_manifest_that_was_replaced_since_the_listing_is_read_again(tmp_path):
    """Once: another run has put its own there; with the rest of that set."""
    tag = make_set(tmp_path, 1)
    place = LocalHost(str(tmp_path))
    (tmp_path / f"{tag}.general-backup.tar.gz").write_bytes(b"")
    old = place.listdir(str(tmp_path))
    put_set(tmp_path, NOON, runtag=tag, warnings=("a long warning",))
    (found,) = sets_in(place, str(tmp_path), names=old)
    assert (found.state, found.files["general"].size_bytes) == (State.WARNINGS, 10)


def test_prune_waits_for_nobody(pi):
    """While a backup runs, nothing is removed, and the exit code is 11."""
    tags = [make_set(pi.backups, days) for days in (1, 2, 3)]
    with locked(f"{pi.backups}/.lock", "backup by hand"):
        told = pi.run("prune --at all")
    assert told.returncode == 11
    assert "backup by hand" in told.stderr
    assert list(listed(pi.backups)) == tags


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--keep x", ["--keep x: must be a whole number, at most 999,999,999."]),
        (f"--keep {'9' * 5000}", ["9: must be a whole number, at most 999,999,999."]),
        ("--keep -1", ["--keep -1: must be at least 0."]),
        ("--keep-at-least -2", ["--keep-at-least -2: must be at least 1."]),
        ("--keep 0", ["--keep 0: must be at least 1 if no other rule keeps a backup."]),
        ("--keep-at-least 3", ["--keep 0: must be at least 1 if no other rule keeps a backup."]),
        ("--keep-within 30", ["--keep-within 30: must be a time span such as 30d"]),
        (
            "--keep-within 1y6m",
            ["--keep-within 1y6m: 6m may mean minutes or months: write 6mo"],
        ),
        ("--keep 1 --keep-at-least 0", ["--keep-at-least 0: must be at least 1."]),
        ("--keep ² --keep-daily 1.5", ["--keep ²: must be", "--keep-daily 1.5: must be"]),
        ("--at moon", ["--at moon: use one of here, vault, all, usb, nas.\n"]),
        ("--at nass", ["use one of here, vault, all, usb, nas. Did you mean nas?\n"]),
    ],
)
def test_a_wrong_flag_removes_nothing(pi, line, said):
    """Whoever types a policy that cannot be learns what of it, all at once, with exit code 2."""
    tags = [make_set(pi.backups, days) for days in (1, 2, 3)]
    told = pi.run(f"prune {line}")
    assert (told.returncode, told.stdout) == (2, "")
    assert all(each in told.stderr for each in said)
    assert list(listed(pi.backups)) == tags


def test_a_backup_prunes_only_here_and_by_the_same_policy(pi):
    """After a backup the policy of [stack] acts here; pinned sets stay, and vaults keep theirs."""
    for folder in (pi.backups, pi.usb):
        tags = [make_set(folder, days) for days in (1, 2, 3)]
    assert pi.run(f"pin {tags[2]}").returncode == 0
    assert pi.run("backup --runtag new").returncode == 0
    assert list(listed(pi.backups)) == ["new", tags[0], tags[2]]
    assert list(listed(pi.usb)) == ["new", *tags]


# A removal that dies


@pytest.mark.parametrize(
    ("finisher", "place", "manifest"),
    [
        ("prune", "usb", True),
        ("backup", "here", False),
        *(
            pytest.param(*each, marks=pytest.mark.long)
            for each in itertools.product(("prune", "backup"), ("here", "usb"), (True, False))
            if each not in {("prune", "usb", True), ("backup", "here", False)}
        ),
    ],
)
def test_a_removal_that_dies_anywhere_is_finished_by_the_next_run(pi, place, manifest, finisher):
    """Dead before any change of a file, the half-removed set is never good and then goes whole."""
    folder = {"here": pi.backups, "usb": pi.usb}[place]
    died_at = 0
    while True:
        for name in content(folder):
            (folder / name).unlink()
        good = [make_set(folder, days) for days in (1, 2, 3)]
        gone = make_set(folder, 4, manifest=manifest)
        died = mortal(pi, died_at, f"prune --at {place} --keep 3 --adopt --undelivered --yes")
        if died.returncode != DIED:
            break
        left = listed(folder)
        whole = died_at == 0
        assert (gone in left) is whole
        assert list(left)[:3] == good
        assert set(list(left.values())[:3]) <= GOOD
        died_at += 1
        if whole:
            continue  # nothing was changed: there is nothing to finish
        line = "prune --at all --keep 99" if finisher == "prune" else "backup --force --runtag x"
        assert pi.run(line).returncode == 0
        assert [name for name in content(folder) if name.startswith(gone)] == []
        # A backup then removes what [stack] lets go: two stay here.
        sure = good if finisher == "prune" or place == "usb" else good[:1]
        assert set(sure) <= set(listed(folder))
    assert died.returncode == 0
    assert died_at >= 3 + manifest
    assert list(listed(folder)) == good


def mortal(pi, changes, line):
    """Run `iotstack LINE`, which dies before its next change of a file after so many of them."""
    words = [sys.executable, MORTAL, str(changes), *line.split()]
    return subprocess.run(words, env=pi.environment, capture_output=True, text=True, check=False)


class Stuck(LocalHost):
    """This machine, on which one file cannot be removed."""

    def remove(self, paths):
        for path in paths:
            if path.endswith(".general-backup.tar.gz"):
                raise StepFailed(f"{path} cannot be removed: Operation not permitted.")
            super().remove([path])


def test_a_removal_that_fails_tells_what_is_left(tmp_path):
    """A set that cannot be removed whole is listed no more, and the message says what comes next."""
    name = make_set(tmp_path, 1)
    with pytest.raises(
        StepFailed, match=r"partly removed from usb.*not permitted.*next prune or backup"
    ):
        remove_set(Stuck(str(tmp_path), "usb"), str(tmp_path), name)
    assert listed(tmp_path) == {}
    assert finish_removals(LocalHost(str(tmp_path)), str(tmp_path)) == (name,)
    assert content(tmp_path) == {}


def test_removing_a_set_that_is_gone_does_nothing(tmp_path):
    """A set that somebody else removed is as good as removed, and no mark of it is left."""
    other = make_set(tmp_path, 2)
    before = content(tmp_path)
    remove_set(LocalHost(str(tmp_path)), str(tmp_path), runtag(1))
    assert content(tmp_path) == before
    assert list(listed(tmp_path)) == [other]


# Pins


def test_a_pin_is_written_wherever_the_set_is(pi):
    """Here and in each vault that has the set, a file of mode 0600 holds the note."""
    name = make_set(pi.backups, 1)
    make_set(pi.usb, 1)
    told = pi.run(f"pin {name} --note 'before the move to Köln'")
    assert (told.returncode, told.stdout) == (0, f"{name} is pinned in: here, usb.\n")
    for folder in (pi.backups, pi.usb):
        file = folder / f"{name}.pin.txt"
        assert file.read_text(encoding="utf-8") == "before the move to Köln\n"
        assert file.stat().st_mode & 0o777 == 0o600
    assert list(pi.nas.iterdir()) == []


def test_the_latest_can_be_pinned_and_notes_are_shown(pi):
    """`latest` is the newest here; the note of each place is in show and in the JSON of list."""
    tags = [make_set(pi.backups, days) for days in (2, 1, 3)]
    make_set(pi.usb, 1)
    told = pi.run("pin latest --note 'before the move to Köln'")
    assert told.stdout == f"{tags[1]} is pinned in: here, usb.\n"
    (pi.usb / f"{tags[1]}.pin.txt").write_text("of \x1b[2J old\n")
    pins = {"here": "before the move to Köln", "usb": "of \x1b[2J old"}
    rows = {each["runtag"]: each for each in json.loads(pi.run("list --json").stdout)}
    assert [rows[tag]["pins"] for tag in tags] == [{}, pins, {}]
    assert json.loads(pi.run(f"show {tags[1]} --json").stdout)["pins"] == pins
    shown = pi.run("show latest").stdout
    assert "  pinned    here: before the move to Köln\n" in shown
    assert "\x1b" not in shown
    assert pi.run("pin latest --remove").returncode == 0
    assert not list(pi.backups.glob("*.pin.txt"))


def test_the_latest_is_that_of_all_places(pi):
    """A newer one in a vault is shown and pinned, and told where the latest here is verified."""
    older, newest = make_set(pi.backups, 2), make_set(pi.usb, 1)
    assert pi.run("show latest").stdout.startswith(f"{newest} in usb")
    told = pi.run("pin latest")
    assert told.stdout == f"{newest} is pinned in: usb.\n"
    told = pi.run("verify")
    assert (
        f"A NEWER BACKUP exists in usb: {newest}. here has nothing newer than {older}"
        in told.stderr
    )
    assert "--at usb" in told.stderr
    assert "NEWER" not in pi.run(f"verify --runtag {older}").stderr
    assert "NEWER" not in pi.run("verify --at here").stderr
    young = make_set(pi.backups, 0)
    assert "NEWER" not in pi.run("verify").stderr
    told = pi.run("rehearse --runtag latest")  # of the first vault
    assert f"A NEWER BACKUP exists here: {young}. usb has nothing newer" in told.stderr


def test_a_place_that_is_away_may_have_the_latest(pi):
    """It is told: what is shown or verified may be older than what lies there."""
    here = make_set(pi.backups, 2)
    pi.usb.rmdir()
    for line in ("show latest", "verify", "pin latest"):
        told = pi.run(line)
        assert "There may be a newer backup in a place that could not be" in told.stderr, line
        assert "usb" in told.stderr
        assert here in told.stdout + told.stderr
    shutil.rmtree(pi.backups)
    told = pi.run("show latest")
    assert told.returncode == 1
    assert "vault 'usb' is missing" in told.stderr


def test_pins_of_a_vault_that_is_away_are_told_to_be_unknown(pi):
    """What goes undelivered goes all the same: what is pinned there is there."""
    for days in (1, 2):
        make_set(pi.backups, days)
    pi.usb.rmdir()
    told = pi.run("prune --at here --keep 1 --undelivered --yes")
    assert told.returncode == 0
    said = "usb is unreachable, so pins that exist only in usb are ignored: "
    assert told.stderr.startswith(said)
    assert list(listed(pi.backups)) == [runtag(1)]


def test_a_pinned_set_stays_until_the_pin_is_taken_away(pi):
    """However old it is a pinned set stays, here and there, and goes when it is pinned no more."""
    for folder in (pi.backups, pi.usb):
        tags = [make_set(folder, days) for days in (1, 2, 3)]
    pi.run(f"pin {tags[2]}")
    told = pi.run("prune --at all --keep 1 --undelivered --yes")
    assert "pinned" in told.stdout
    for folder in (pi.backups, pi.usb):
        assert list(listed(folder)) == [tags[0], tags[2]]
    told = pi.run(f"pin {tags[2]} --remove")
    assert told.stdout == f"{tags[2]} is no longer pinned in: here, usb.\n"
    told = pi.run(f"pin {tags[2]} --remove")
    assert (told.returncode, told.stdout) == (0, f"{tags[2]} was not pinned in: here, usb.\n")
    assert pi.run("prune --at all --keep 1 --undelivered --yes").returncode == 0
    for folder in (pi.backups, pi.usb):
        assert list(listed(folder)) == [tags[0]]
        assert {f for f in files_of(tags[2]) if (folder / f).exists()} == set()


@pytest.mark.parametrize("flag", ["", "--remove"])
def test_a_pin_of_no_set_is_told_with_the_nearest(pi, flag):
    """A slip of the fingers pins nothing; the nearest runtags of all places are offered."""
    here, there = make_set(pi.backups, 1), make_set(pi.usb, 2)
    told = pi.run(f"pin {here[:-1]}7 {flag}")
    assert told.returncode == 10
    assert f"Backup {here[:-1]}7 not found here or in usb, nas. Nearest: {here}" in told.stderr
    assert there in told.stderr
    assert not [name for name in (*content(pi.backups), *content(pi.usb)) if "pin" in name]


def test_a_note_is_one_line(pi):
    """A note with a line break is refused, and nothing is written."""
    name = make_set(pi.backups, 1)
    told = pi.run(f"pin {name} --note 'a\nb'")
    assert told.returncode == 2
    assert "one line" in told.stderr
    assert f"{name}.pin.txt" not in content(pi.backups)


def test_a_pin_reaches_the_others_where_a_vault_is_away(pi):
    """One vault that does not answer makes the exit code 1, and the set is pinned elsewhere."""
    name = make_set(pi.backups, 1)
    pi.usb.rmdir()
    told = pi.run(f"pin {name}")
    assert told.returncode == 1
    assert "usb" in told.stderr
    assert f"{name}.pin.txt" in content(pi.backups)
