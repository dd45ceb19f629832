"""Verifying: each kind of damage is found where it is and named, and what was found counts."""

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile

import folders
import pytest
from contexts import until
from sample_sets import Shelf, new_form

from iotstack_invoke.backups.manifest import read_manifest
from iotstack_invoke.backups.sets import State
from iotstack_invoke.backups.verifications import HERE, failed_at, in_places
from iotstack_invoke.commands.catalog import verify as verifying
from iotstack_invoke.commands.catalog.listing import gather_rows, list_backups
from iotstack_invoke.commands.catalog.verify import Wanted, read_percent, verify
from iotstack_invoke.commands.restore.request import Source, choose_set
from iotstack_invoke.core.errors import NotFound, UsageError
from iotstack_invoke.databases.sql.read_dump import MariaReader
from iotstack_invoke.environment.environment import Environment
from iotstack_invoke.hosts import local as hosts
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.reporting.report import Report

TAG = "2026-11-23_1100"
OLDER = "2026-11-22_1100"


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A stack with one finished set, and a home of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Shelf(tmp_path)


def run(shelf, **wanted):
    """Verify, and return the exit code with what is recorded of each set in each place."""
    code = verify(shelf.settings(), Wanted(**wanted), Report(), as_json=False)
    return code, Environment.of(shelf.settings()).checks.newest()


def strange(files):
    """Leave of a set what other scripts make."""
    for kind in ("manifest", "restore", "log"):
        files[kind].unlink()


def states(shelf):
    return {each.runtag: each.state for each in Environment.of(shelf.settings()).sets()}


def test_a_whole_set_is_good(shelf, capsys):
    """What was made and not touched since is read whole, and recorded as good."""
    shelf.put(TAG)
    code, checks = run(shelf)
    assert code == 0
    assert capsys.readouterr().out == f"{TAG} here is good: read completely.\n"
    check = checks[TAG, HERE]
    assert (check.good, check.how, check.problems) == (True, "read", ())
    assert states(shelf) == {TAG: State.COMPLETE}


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def append(path):
    path.write_bytes(path.read_bytes() + b"junk")


def another_hash(path):
    content = json.loads(path.read_text())
    content["parts"]["general"]["sha256"] = "0" * 64
    path.write_text(json.dumps(content))


def another_set(path):
    path.write_text(path.read_text().replace(TAG, OLDER))


DAMAGE = [
    ("general", flip, ["SHA-256 of", "general-backup.tar.gz"]),
    ("general", cut, ["general-backup.tar.gz has", "the manifest has", ": it is incomplete"]),
    ("general", append, ["general-backup.tar.gz has", "the manifest has"]),
    ("general", os.unlink, ["general-backup.tar.gz is missing"]),
    ("influx", flip, ["SHA-256 of", "influx-backup.tar"]),
    ("influx", cut, ["influx-backup.tar has"]),
    ("influx", os.unlink, ["influx-backup.tar is missing"]),
    ("manifest", cut, ["The manifest is damaged"]),
    ("manifest", flip, ["The manifest is damaged"]),
    ("manifest", os.unlink, ["The manifest is missing", "RESTORE.txt"]),
    ("manifest", another_hash, ["SHA-256 of", "0" * 64]),
    ("manifest", another_set, [f"it is the manifest of {OLDER}"]),
]


def symlink(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def pipe(path):
    path.unlink()
    os.mkfifo(path)


DAMAGE += [
    ("general", symlink, ["general-backup.tar.gz is a symlink, not an archive"]),
    ("influx", pipe, ["influx-backup.tar is a pipe, not an archive"]),
]


@pytest.mark.parametrize(("kind", "damage", "words"), DAMAGE)
@pytest.mark.parametrize("place", ["here", "usb"])
def test_each_damage_is_found_and_named(shelf, capsys, kind, damage, words, place):
    """Here and in a vault, the exit code is 1 and the message says which file has what."""
    folder = shelf.backups if place == "here" else shelf.vault("usb")
    damage(shelf.put(TAG, folder)[kind])
    code, checks = run(shelf, at=place)
    assert code == 1
    check = checks[TAG, place]
    assert not check.good
    told = capsys.readouterr().err
    for word in words:
        assert word in " ".join(check.problems)
        assert word in told
    assert f"{TAG} {in_places(place)} is damaged" in told


def test_what_has_no_manifest_is_not_called_good(shelf, capsys):
    """Archives that can be read to their end are unproven, here, in the list and in the record."""
    strange(shelf.put(TAG))
    code, checks = run(shelf)
    assert (code, checks[TAG, HERE].verdict) == (0, "unproven")
    told = capsys.readouterr()
    assert told.out == ""
    assert "is unproven: it has no manifest" in told.err
    list_backups(shelf.settings(), Report(), as_json=False)
    assert capsys.readouterr().out.splitlines()[1].split("  ")[-1].strip() == "now: unproven"
    assert states(shelf) == {TAG: State.UNPROVEN}


def test_what_was_wrong_when_it_was_hashed_is_found(shelf):
    """An archive that fits its manifest and is no whole archive is damaged all the same."""
    files = shelf.put(TAG)
    inner = gzip.decompress(files["general"].read_bytes())
    files["general"].write_bytes(gzip.compress(inner[:-3000]))
    shelf.tell_anew(files)
    _, checks = run(shelf)
    (problem,) = checks[TAG, HERE].problems
    assert "general-backup.tar.gz: its tar is damaged" in problem


def test_a_dump_that_is_cut_in_its_catalogue_is_told_and_the_next_set_read(shelf, capsys):
    """One damaged set keeps no other from being read, whatever its readers stumble over."""
    data = shelf.put(TAG)["influx"].read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        at = next(each for each in archive if each.name.endswith(".meta")).offset_data + 200
    (shelf.backups / f"{TAG}.influx-backup.tar").write_bytes(data[:at])
    shelf.put(OLDER, when="2026-11-22T10:00:00Z")
    code, checks = run(shelf, all=True)
    assert code == 1
    assert (checks[TAG, HERE].good, checks[OLDER, HERE].good) == (False, True)
    assert "its tar is damaged: unexpected end of data" in capsys.readouterr().err


def test_what_a_restore_would_refuse_is_not_good(shelf, capsys):
    """A member that a restore refuses makes a set not good, though every hash is right."""
    os.mkfifo(shelf.stack / "volumes/nodered/fine")
    os.symlink("/etc", shelf.stack / "services")
    settings, files = shelf.settings(), shelf.put(TAG)
    assert run(shelf)[0] == 0
    packed = subprocess.run(
        ["tar", "-cz", "-C", shelf.stack, "./services", "./volumes"],
        check=True,
        capture_output=True,
    ).stdout
    files["general"].write_bytes(packed)
    shelf.tell_anew(files)
    assert verify(settings, Wanted(), Report(), as_json=False) == 1
    assert "a restore refuses './services': it is a symlink, but must" in capsys.readouterr().err


def test_a_damaged_set_is_used_by_nobody_until_it_is_good_again(shelf):
    """It is listed as damaged, not the latest, and counts for nothing; a good check lifts that."""
    shelf.put(OLDER, when="2026-11-22T10:00:00Z")
    files = shelf.put(TAG)
    whole = files["general"].read_bytes()
    flip(files["general"])
    assert run(shelf)[0] == 1
    environment = Environment.of(shelf.settings())
    assert states(shelf) == {TAG: State.DAMAGED, OLDER: State.COMPLETE}

    def latest():
        failed = failed_at(environment.checks.newest(), HERE)
        source = Source(LocalHost("/"), str(shelf.backups), True, "here", failed)
        return choose_set(source, "latest").backup.runtag

    assert latest() == OLDER
    files["general"].write_bytes(whole)
    assert run(shelf, runtag=TAG)[0] == 0
    assert states(shelf)[TAG] is State.COMPLETE
    assert latest() == TAG


def test_where_all_are_damaged_there_is_no_latest(shelf):
    """A restore of the latest is refused with the names of the damaged sets."""
    flip(shelf.put(TAG)["general"])
    _, checks = run(shelf)
    source = Source(LocalHost("/"), str(shelf.backups), True, "here", failed_at(checks, HERE))
    with pytest.raises(NotFound, match=f"No backups found .* except damaged ones: {TAG}"):
        choose_set(source, "latest")


def test_a_vault_says_damaged_for_its_own_copy_alone(shelf):
    """A bad copy in one vault says nothing of the set here or in another vault."""
    usb, disk = shelf.vault("usb"), shelf.vault("disk")
    shelf.put(TAG)
    for folder in (usb, disk):
        shutil.copytree(shelf.backups, folder, dirs_exist_ok=True)
    flip(usb / f"{TAG}.influx-backup.tar")
    code, checks = run(shelf, at="all")
    assert code == 1
    assert {at: each.good for (_, at), each in checks.items()} == {
        "here": True,
        "usb": False,
        "disk": True,
    }
    ((row,), notes) = gather_rows(Environment.of(shelf.settings()))
    assert notes == {}
    assert (row.here.state, row.state_in("usb"), row.state_in("disk")) == (
        State.COMPLETE,
        "damaged",
        "complete",
    )


def test_a_set_without_a_manifest_is_read_whole_and_stays_unproven(shelf):
    """Archives of other scripts are good or damaged, and never become proven."""
    strange(shelf.put(TAG))
    code, checks = run(shelf)
    assert (code, checks[TAG, HERE].good) == (0, True)
    assert states(shelf) == {TAG: State.UNPROVEN}
    append(shelf.backups / f"{TAG}.general-backup.tar.gz")
    code, checks = run(shelf)
    assert (code, checks[TAG, HERE].good) == (1, False)
    assert states(shelf) == {TAG: State.DAMAGED}


def test_strange_archives_are_not_overwritten_because_they_are_damaged(little_stack):
    """A backup of the runtag of damaged archives without a manifest is refused as before."""
    backups = little_stack.folder / "backups"
    backups.mkdir()
    strange = backups / f"{TAG}.general-backup.tar.gz"
    strange.write_bytes(b"no archive")
    assert little_stack.run(f"verify --runtag {TAG}").returncode == 1
    told = little_stack.run(f"backup --runtag {TAG}")
    assert told.returncode == 13
    assert strange.read_bytes() == b"no archive"


def test_over_ssh_the_vault_hashes_and_nothing_is_fetched(shelf, sshd, capsys):
    """A copy is proven by the hash that the vault reckons; a flipped byte is found there."""
    folder = shelf.vault("nas", sshd.login())
    files = shelf.put(TAG, folder)
    code, checks = run(shelf, at="nas")
    assert (code, checks[TAG, "nas"].how) == (0, "hash")
    flip(files["influx"])
    code, checks = run(shelf, at="vault")
    assert code == 1
    assert "SHA-256 of" in checks[TAG, "nas"].problems[0]
    files["manifest"].unlink()
    code, checks = run(shelf, at="nas")  # nothing to compare with: it is fetched and read
    assert (code, checks[TAG, "nas"].how, checks[TAG, "nas"].good) == (1, "read", False)


def test_a_vault_that_does_not_answer_is_no_damage(shelf, sshd, capsys):
    """What could not be read is told, ends with 1, and is recorded nowhere."""
    shelf.put(TAG, shelf.vault("nas", sshd.login()))
    shelf.put(TAG)
    sshd.known_hosts.write_text("")
    code, checks = run(shelf, at="all")
    assert code == 1
    assert set(checks) == {(TAG, HERE)}
    assert "not verified" in capsys.readouterr().err


@pytest.fixture
def disk(shelf, monkeypatch):
    """Let the archive of a set without a manifest be opened as another file."""
    archive = shelf.backups / f"{TAG}.general-backup.tar.gz"
    archive.write_bytes(b"x")

    def put(path):
        monkeypatch.setattr(
            hosts,
            "opened",
            lambda asked, flags: os.open(path if ".tar" in asked else asked, flags),
        )

    return put


def test_a_disk_that_does_not_give_its_bytes_is_damage(shelf, disk):
    """An input/output error is recorded as a problem of the archive that lies there."""
    disk("/proc/self/mem")  # reading its first byte is an input/output error
    code, checks = run(shelf)
    assert code == 1
    assert "the disk cannot read it (" in checks[TAG, HERE].problems[0]


def test_an_archive_that_cannot_be_opened_is_not_verified(shelf, disk, capsys):
    """What could not be opened at all says nothing of its bytes, and nothing is recorded."""
    disk("nowhere")
    assert run(shelf) == (1, {})
    assert "cannot be read: No such file" in capsys.readouterr().err


def test_a_laptop_with_vaults_alone_keeps_the_record_among_its_own_state(shelf, tmp_path):
    """Where there is no folder of backups, the vault is meant and the record is under state."""
    shelf.put(TAG, shelf.vault("usb"))
    shelf.backups.rmdir()
    code, checks = run(shelf)
    assert (code, set(checks)) == (0, {(TAG, "usb")})
    assert (tmp_path / "state/iotstack/checks.jsonl").exists()
    assert not shelf.backups.exists()


def test_all_are_verified_but_for_the_unfinished(shelf):
    """--all takes every set there, and a bad one does not keep the others from being read."""
    flip(shelf.put(TAG)["general"])
    shelf.put(OLDER, when="2026-11-22T10:00:00Z")
    (shelf.backups / "x.unfinished.jsonl").write_text("{}\n")
    code, checks = run(shelf, all=True)
    assert code == 1
    assert {tag: each.good for (tag, _), each in checks.items()} == {TAG: False, OLDER: True}


def test_samples_read_all_within_a_known_number_of_runs(shelf):
    """30% at a time: all ten sets are read within four runs, the longest unread first."""
    tags = [f"2026-11-{day:02}_1100" for day in range(10, 20)]
    for day, tag in enumerate(tags):
        shelf.put(tag, when=f"2026-11-{10 + day}T10:00:00Z")
    read = []
    for _ in range(4):
        before = Environment.of(shelf.settings()).checks.newest()
        code, checks = run(shelf, percent=30)
        assert code == 0
        read.append([tag for tag in tags if checks.get((tag, HERE)) != before.get((tag, HERE))])
    assert [3 <= len(each) <= 4 for each in read[:2]] == [True, True]  # their logs differ in size
    assert read[0] + read[1] == tags[: len(read[0] + read[1])]
    assert {tag for each in read for tag in each} == set(tags)


def test_a_sample_is_at_least_one_set(shelf, capsys):
    """However small the share; the sentence says what was read, and when all is."""
    for day in (21, 22, 23):
        shelf.put(f"2026-11-{day}_1100", when=f"2026-11-{day}T10:00:00Z")
    code = verify(shelf.settings(), Wanted(percent=0.1), Report(verbosity=1), as_json=False)
    said = capsys.readouterr()
    assert code == 0
    assert "Sample here: 1 of 3 backups" in said.err
    assert "Within 1000 such runs all of these are read." in said.err
    assert "2026-11-21_1100 here is good" in said.out


@pytest.mark.parametrize("text", ["0", "0%", "101%", "-5%", "five", "5 %%"])
def test_a_sample_is_a_percentage(text):
    """What is none is told with an example."""
    with pytest.raises(UsageError, match="must be a percentage up to 100%, such as 5%"):
        read_percent(text)
    assert [read_percent(each) for each in ("", "5", "5%", "2.5 %", "100%")] == [0, 5, 5, 2.5, 100]


def test_the_latest_here_is_perhaps_not_the_latest(shelf, capsys):
    """Where a vault has a newer one, or does not answer, the exit code says so as well."""
    shelf.put(TAG)
    usb = shelf.vault("usb")
    assert run(shelf)[0] == 0
    usb.rmdir()
    assert run(shelf)[0] == 3
    assert "There may be a newer backup in a place that could not be" in capsys.readouterr().err
    usb.mkdir()
    shelf.put("newer", usb, when="2026-11-23T11:00:00Z")
    assert run(shelf)[0] == 3
    assert "A NEWER BACKUP exists in usb: newer." in capsys.readouterr().err
    assert run(shelf, at="here")[0] == 0


def test_the_newest_copy_of_a_vault_is_verified_first(shelf, capsys):
    """By its manifest, as here, and not by its name."""
    usb = shelf.vault("usb")
    shelf.put("a", usb, when="2026-11-21T10:00:00Z")
    shelf.put("b", usb, when="2026-11-23T10:00:00Z")
    shelf.put(OLDER, usb, when="2026-11-22T10:00:00Z")
    assert run(shelf, all=True, at="usb")[0] == 0
    told = capsys.readouterr().out.splitlines()
    lines = [each.split(" in usb")[0] for each in told if " in usb" in each]
    assert lines == ["b", OLDER, "a"]


@pytest.mark.parametrize("at", ["vault", "all"])
def test_a_place_without_a_backup_keeps_no_other_from_being_verified(shelf, capsys, at):
    """What each lacks is told; where nothing at all was verified, that is no success."""
    shelf.vault("usb")
    nas = shelf.vault("nas")
    for wanted in ({}, {"all": True}, {"runtag": TAG}):
        with pytest.raises(NotFound, match=r"Nothing to verify: no finished backups found\."):
            run(shelf, at=at, **wanted)
    shelf.put(TAG, nas)
    code, checks = run(shelf, at=at)
    assert (code, set(checks)) == (0, {(TAG, "nas")})
    assert "usb has no backup latest" in capsys.readouterr().err


def test_a_vault_that_is_away_names_no_copy_that_was_verified_just_before(shelf, capsys, tmp_path):
    """With --at all what lies here was read already; with the vault alone it is named."""
    shelf.put(TAG)
    shelf.vault("usb").rmdir()
    assert run(shelf, at="all")[0] == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "Is the drive mounted" in told
    assert "exists here" not in told
    assert run(shelf, at="usb")[0] == 1
    assert "also exists here: add --at here." in " ".join(capsys.readouterr().err.split())


def test_a_place_that_is_not_there_is_told_with_those_that_are(shelf):
    """Where no vault is named, none is offered."""
    shelf.put(TAG)
    with pytest.raises(UsageError, match=r"^--at nass: hosts\.toml has no vaults\. Use here\.$"):
        run(shelf, at="nass")
    shelf.vault("nas")
    with pytest.raises(
        UsageError, match=r"use one of here, nas, vault, all\. Did you mean nas\?$"
    ):
        run(shelf, at="nass")


def test_two_wishes_at_once_are_wrong_usage():
    """A runtag and --all, or --newest and --all, cannot both be meant."""
    with pytest.raises(UsageError):
        Wanted(runtag=TAG, all=True)
    with pytest.raises(UsageError):
        Wanted(newest=True, all=True)


def test_json_tells_what_was_found(shelf, capsys):
    """Programs get the place, how it was verified and what is wrong."""
    flip(shelf.put(TAG)["general"])
    assert verify(shelf.settings(), Wanted(), Report(), as_json=True) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["runtag"], found["at"], found["how"], found["good"]) == (
        TAG,
        "here",
        "read",
        False,
    )
    assert found["problems"]


def test_an_interrupted_verification_records_nothing_of_what_it_was_reading(little_stack):
    """Ctrl-C ends it with 130; the sets that were read before stay recorded."""
    backups = little_stack.folder / "backups"
    assert little_stack.run("backup --runtag whole").returncode == 0
    with (backups / f"{OLDER}.influx-backup.tar").open("wb") as stream:
        stream.truncate(1 << 40)  # whoever reads it to its end is busy for long
    process = little_stack.start("verify --all")
    try:
        until(lambda: "whole" in (backups / ".checks.jsonl").read_text())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    lines = (backups / ".checks.jsonl").read_text().splitlines()
    assert [json.loads(each)["runtag"] for each in lines] == ["whole"]


def with_part(shelf, kind, content=None, **told):
    """Let a set have one more part: of these bytes, or one that could not be made."""
    files = shelf.put(TAG)
    manifest = json.loads(files["manifest"].read_text())
    if content is not None:
        files[kind].write_bytes(content)
        told |= {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest["parts"][kind] = {"file": files[kind].name, **told}
    shelf.write(files, read_manifest(new_form(manifest)))
    return files


def test_an_incomplete_set_is_told_as_such(shelf, capsys):
    """What it holds is good, and what it lacks is told with the reason: exit 3."""
    files = with_part(shelf, "postgres", error="root is not let in")
    code, checks = run(shelf)
    told = capsys.readouterr()
    assert (code, checks[TAG, HERE].good) == (3, True)
    assert told.out == f"{TAG} here is incomplete, but its content is good: read completely.\n"
    assert told.err == f"{TAG} here: It has no postgres part: root is not let in\n"
    assert states(shelf) == {TAG: State.INCOMPLETE}
    assert verify(shelf.settings(), Wanted(), Report(), as_json=True) == 3
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["good"], found["lacking"]) == (True, {"postgres part": "root is not let in"})
    flip(files["general"])
    assert run(shelf)[0] == 1
    assert "It has no postgres part: root is not let in" in capsys.readouterr().err


def test_what_dumps_of_sql_hold_is_counted(shelf, capsys):
    """A line a part says how many servers, tables and rows were read."""
    dump = (folders.FIXTURES / "sql/mariadb-10.11.sql").read_bytes()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in ("./backup.sql", "./home_db/backup.sql"):
            info = tarfile.TarInfo(name)
            info.size = len(dump)
            archive.addfile(info, io.BytesIO(dump))
    servers = [{"container": each} for each in ("mariadb", "home_db")]
    with_part(shelf, "mariadb", packed.getvalue(), facts={"servers": servers})
    assert run(shelf)[0] == 0
    rows = MariaReader()
    rows.add(dump)
    counts = rows.report().rows
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"  MariaDB: 2 servers, {2 * len(counts)} tables, {2 * sum(counts.values())} rows read"
    ]


def test_other_places_are_listed_once_for_all_that_is_damaged(shelf, monkeypatch):
    """Of thousands of archives without manifests each is advised about by one look."""
    shelf.vault("usb")
    for day in range(1, 6):
        files = shelf.put(f"2026-11-{day:02}_1100")
        strange(files)
        flip(files["general"])
    asked, real = [], verifying.copies_at
    monkeypatch.setattr(verifying, "copies_at", lambda *about: asked.append(1) or real(*about))
    code, checks = run(shelf, all=True)
    assert (code, len(checks)) == (1, 5)
    assert len(asked) == 2
