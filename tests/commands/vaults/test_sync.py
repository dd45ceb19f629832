"""`sync`, and what a backup delivers late: what a vault lacks arrives, and nothing of others goes."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
from dataclasses import replace

import pytest
from contexts import foreign_archive, until
from two_vaults import contents, make_sets, pi  # noqa: F401

from iotstack_invoke.backups.manifest import read_manifest
from iotstack_invoke.backups.verifications import Verification, check_line
from iotstack_invoke.hosts.local import locked


def policy(pi, vault, line):
    """Give a vault a policy."""
    text = pi.settings.read_text()
    pi.settings.write_text(text.replace(f'name = "{vault}"\n', f'name = "{vault}"\n{line}\n'))


def test_what_a_vault_lacks_arrives(pi):
    """Whole sets that a vault lacks are copied, their logs too, and the next time nothing is."""
    pi.nas.mkdir()
    tags = make_sets(pi.backups, 1, 2, 3)
    for name in contents(pi.backups, tags[1]):
        shutil.copy2(pi.backups / name, pi.nas / name)
    (pi.nas / f"{tags[1]}.general-backup.tar.gz").unlink()
    told = pi.run("sync")
    assert (told.returncode, told.stderr) == (0, "")
    assert contents(pi.usb) == contents(pi.nas) == contents(pi.backups)
    assert told.stdout.splitlines()[1].split() == ["usb", "3", "0", "0", "0"]
    told = pi.run("sync")
    assert told.stdout.splitlines()[1].split() == ["usb", "0", "3", "0", "0"]
    assert not list(pi.backups.glob("*.unfinished.jsonl"))


def test_the_dry_run_shows_what_would_be_delivered_and_changes_nothing(pi):
    """Each copy is listed with its reason; nothing is written here or there."""
    (tag,) = make_sets(pi.backups, 1)
    before = pi.tree()
    told = pi.run("sync --vault usb --dry-run")
    assert told.returncode == 0
    assert f"usb is missing {tag}" in told.stdout
    assert f"offsite_manifest: usb:{tag}.manifest.json" in told.stdout
    assert "Nothing was changed." in told.stdout
    assert (pi.tree(), list(pi.usb.iterdir())) == (before, [])


def test_one_vault_that_is_away_keeps_no_other_from_being_served(pi):
    """The other has all; the run ends with 3, names the one that is away, and goes on later."""
    tags = make_sets(pi.backups, 1, 2)
    told = pi.run("sync")
    assert told.returncode == 3
    assert "Copying to nas failed: The folder of vault 'nas' is missing" in told.stderr
    assert told.stdout.splitlines()[2].split() == ["nas", "0", "?", "?", "0"]
    assert contents(pi.usb, *tags) == contents(pi.backups, *tags)
    pi.nas.mkdir()
    assert pi.run("sync --vault nas").returncode == 0
    assert contents(pi.nas) == contents(pi.usb)


def test_a_vault_that_there_is_not_is_told(pi):
    """A name that hosts.toml has not is refused with those that it has."""
    told = pi.run("sync --vault dropbox")
    assert told.returncode == 2
    assert "--vault dropbox: unknown; known vaults: usb, nas." in told.stderr


def test_a_machine_without_backups_is_told(little_stack, tmp_path):
    """A laptop that looks after Pis has none; it is no success, and no shell's trouble."""
    (tmp_path / "usb").mkdir()
    with little_stack.settings.open("a") as stream:
        stream.write(f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{tmp_path}/usb"\n')
    told = little_stack.run("sync")
    assert told.returncode == 10
    assert told.stderr.startswith(f"{little_stack.folder}/backups does not exist")
    assert "inv pull --host NAME" in told.stderr


def test_while_another_run_works_nothing_is_delivered(pi):
    """The stack's lock is held: a backup and a delivery never meet."""
    make_sets(pi.backups, 1)
    with locked(f"{pi.backups}/.lock", "a backup"):
        assert pi.run("sync").returncode == 11
    assert list(pi.usb.iterdir()) == []


def test_what_a_policy_would_remove_at_once_is_not_delivered(pi):
    """The vault's own policy is asked, over what is there together with what would come."""
    policy(pi, "usb", "keep = 2")
    there = make_sets(pi.usb, 2)
    new, old, older = make_sets(pi.backups, 1, 3, 4)
    told = pi.run("sync --vault usb")
    assert told.returncode == 0
    assert set(contents(pi.usb)) == set(contents(pi.usb, *there)) | set(contents(pi.backups, new))
    for each in (old, older):
        assert (
            f"{each} is not copied to usb, whose policy would remove it: 2 newer good sets"
            in told.stdout
        )
    assert "0 of 2 sets" in pi.run("prune --at usb").stdout


def test_a_set_of_another_machine_is_never_replaced(pi):
    """What bears the name of ours in a flat vault stays, with a manifest and without one."""
    one, two = make_sets(pi.backups, 1, 2)
    make_sets(pi.usb, 1, host="other-pi")
    (pi.usb / f"{two}.general-backup.tar.gz").write_bytes(b"of a script of another")
    before = contents(pi.usb)
    told = pi.run("sync --vault usb")
    assert told.returncode == 3
    assert f"{one} was not copied to usb: another backup of that name" in told.stderr
    assert f"{two} was not copied to usb: {two}.general-backup.tar.gz there" in told.stderr
    assert contents(pi.usb) == before


def test_what_may_be_a_good_copy_is_never_to_be_removed(pi):
    """Where its manifest is away it stays: it is read first, and one that cannot be read is not judged."""
    (tag,) = make_sets(pi.backups, 1)
    name = f"{tag}.general-backup.tar.gz"
    (pi.usb / name).write_bytes(b"z" * (pi.backups / name).stat().st_size)
    before = contents(pi.usb)
    told = pi.run("sync --vault usb")
    assert told.returncode == 3
    assert f"inv verify --runtag {tag} --at usb" in told.stderr
    assert "remove" not in told.stderr
    for each in ("openssl", "sha256sum", "shasum"):
        shut = "case $(readlink /proc/self/fd/0) in *usb*) echo shut >&2; exit 1;; esac"
        pi.tool(each, f'{shut}; exec /usr/bin/{each} "$@"')
    told = pi.run("sync --vault usb")
    assert told.returncode == 3
    assert f"{name} there cannot be compared with the copy here, and may be good" in told.stderr
    assert "remove" not in told.stderr
    assert contents(pi.usb) == before


def test_one_that_another_machine_is_copying_is_left_to_it(pi):
    """The mark of another run in a vault is heeded, as a backup heeds it."""
    (tag,) = make_sets(pi.backups, 1)
    mark = json.dumps({"host": "other-pi", "claim": "1"})
    (pi.usb / f"{tag}.unfinished.jsonl").write_text(f"{mark}\n")
    told = pi.run("sync --vault usb")
    assert told.returncode == 3
    assert "other-pi is copying a backup" in told.stderr
    assert [each.name for each in pi.usb.iterdir()] == [f"{tag}.unfinished.jsonl"]


def test_damaged_and_unfinished_sets_are_not_delivered(pi):
    """What failed its verification here is told; what no run has finished is passed over."""
    bad, half, good = make_sets(pi.backups, 1, 2, 3)
    made = json.loads((pi.backups / f"{bad}.manifest.json").read_text())["finished_utc"]
    check = Verification(bad, "here", "2026-01-01T00:00:00Z", "read", False, ("torn",), "", made)
    (pi.backups / ".checks.jsonl").write_text(check_line(check) + "\n")
    (pi.backups / f"{half}.manifest.json").unlink()
    (pi.backups / f"{half}.unfinished.jsonl").write_text("{}\n")
    told = pi.run("sync --vault usb")
    assert told.returncode == 3
    assert f"{bad} was not copied to usb: it is damaged here." in told.stderr
    assert "unfinished (to resume: inv backup --runtag): " + half in told.stdout
    assert pi.run("sync --vault usb --dry-run").returncode == 3
    assert set(contents(pi.usb)) == set(contents(pi.backups, good))


@pytest.mark.parametrize("kind", ["general-backup.tar.gz", "manifest.json"])
def test_what_is_damaged_here_and_whole_in_a_vault_is_delivered(pi, kind):
    """It is another finding, told with what fetches it back, which works as it stands there."""
    policy(pi, "usb", "keep = 1")
    (tag,) = make_sets(pi.backups, 1)
    real = foreign_archive()
    (pi.backups / f"{tag}.general-backup.tar.gz").write_bytes(real)
    path = pi.backups / f"{tag}.manifest.json"
    manifest = read_manifest(path.read_bytes())
    part = replace(
        manifest.parts[0], size_bytes=len(real), sha256=hashlib.sha256(real).hexdigest()
    )
    path.write_text(replace(manifest, parts=(part,)).to_json())
    assert pi.run("sync --vault usb").returncode == 0
    whole = contents(pi.backups)
    bad = pi.backups / f"{tag}.{kind}"
    bad.write_bytes(bad.read_bytes()[:-1] + b"y")
    assert pi.run("verify --at here").returncode == 1
    told = pi.run("sync --vault usb")
    assert told.returncode == 3
    assert told.stdout.splitlines()[1].split() == ["usb", "0", "1", "0", "0"]
    said = " ".join(told.stderr.split())
    assert f"{tag} is damaged here, but good in usb" in said
    fetch = said.partition("Fetch it back: ")[2].partition(" && inv verify")[0]
    subprocess.run(["sh", "-c", fetch], check=True)
    assert contents(pi.backups) == whole
    assert "here is good" in pi.run(f"verify --runtag {tag} --at here").stdout
    told = pi.run("sync --vault usb")
    assert (told.returncode, told.stderr) == (0, "")


def test_a_copy_that_is_damaged_there_is_sent_anew(pi):
    """A copy that failed its verification is compared by hash, replaced, and good again."""
    (tag,) = make_sets(pi.backups, 1)
    assert pi.run("sync --vault usb").returncode == 0
    (pi.usb / f"{tag}.general-backup.tar.gz").write_bytes(b"y" * 10)
    assert pi.run("verify --at usb").returncode == 1
    assert pi.run("sync --vault usb").returncode == 0
    assert contents(pi.usb) == contents(pi.backups)
    (row,) = json.loads(pi.run("list --json").stdout)
    assert row["vaults"] == {"usb": "complete"}


def test_a_delivery_that_is_stopped_goes_on_where_it_was(pi):
    """Ctrl-C leaves nothing under a final name; the next delivery sends what is missing."""
    policy(pi, "usb", 'limit_rate = "1M"')
    (tag,) = make_sets(pi.backups, 1)
    data = os.urandom(3_000_000)
    (pi.backups / f"{tag}.general-backup.tar.gz").write_bytes(data)
    path = pi.backups / f"{tag}.manifest.json"
    manifest = read_manifest(path.read_bytes())
    (part,) = manifest.parts
    part = replace(part, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    path.write_text(replace(manifest, parts=(part,)).to_json())
    partial = pi.usb / f"{tag}.general-backup.tar.gz.partial"
    running = pi.start("sync --vault usb", start_new_session=True)
    until(lambda: partial.stat().st_size)
    os.killpg(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Sync: stopped by Ctrl-C. Incomplete files keep" in told
    assert not (pi.usb / f"{tag}.general-backup.tar.gz").exists()
    arrived = partial.stat().st_size
    assert 0 < arrived < len(data)
    pi.settings.write_text(pi.settings.read_text().replace("1M", "100M"))
    assert pi.run("sync --vault usb").returncode == 0
    assert contents(pi.usb) == contents(pi.backups)


def test_a_vault_over_ssh_gets_what_it_lacks(pi, start_sshd):
    """With a shell there each copy is hashed on the far side; without one it arrives as well."""
    far = pi.usb.parent / "far"
    far.mkdir()
    tags = make_sets(pi.backups, 1, 2)
    server = start_sshd()
    login = server.login()
    pi.settings.write_text(
        f'[stack]\nfolder = "{pi.folder}"\nsudo = false\n'
        f'[[vaults]]\nname = "ssh"\nkind = "ssh"\nhost = "{login.host}"\nfolder = "{far}"\n'
        f'user = "{login.user}"\nport = {login.port}\nkey = "{login.key}"\n'
        f'ssh_config = "{login.config}"\nknown_hosts = "{login.known_hosts}"\n'
        'layout = "by-host"\n'
    )
    told = pi.run("sync")
    assert (told.returncode, told.stderr) == (0, "")
    assert contents(far / socket.gethostname(), *tags) == contents(pi.backups, *tags)


# What a backup delivers late.


def test_a_backup_delivers_what_earlier_ones_could_not(pi):
    """A vault that was away gets all that it lacks by the next backup, and its log tells it."""
    pi.nas.mkdir()
    pi.usb.rmdir()
    first, second = "2020-01-01_1000", "2020-01-02_1000"
    told = pi.run(f"backup --runtag {first}")
    assert told.returncode == 3
    assert (
        f"Cannot tell what usb has. Not copied yet: {first}. The next "
        "backup or `inv sync` copies it there." in told.stderr
    )
    told = pi.run(f"backup --runtag {second}")
    assert told.returncode == 3
    assert (
        f"Not copied yet: {second}, {first}. The next backup or `inv sync` copies them there."
        in told.stderr
    )
    pi.usb.mkdir()
    told = pi.run("backup --runtag 2020-01-03_1000")
    assert (told.returncode, told.stderr) == (0, "")
    assert contents(pi.usb) == contents(pi.nas) == contents(pi.backups)
    assert not list(pi.backups.glob("*.unfinished.jsonl"))
    log = (pi.usb / "2020-01-03_1000.backup-log.txt").read_text()
    assert f"copying {second} to usb" in log
    assert f"copying {first} to usb" in log


def test_what_a_vault_still_lacks_is_not_removed_here(pi):
    """A set that could not be delivered stays here, whatever [stack] keep says, until it is."""
    pi.settings.write_text(
        pi.settings.read_text().replace("sudo = false", "sudo = false\nkeep = 1")
    )
    pi.nas.mkdir()
    owed, gone = make_sets(pi.backups, 1, 2)
    archive = pi.usb / f"{owed}.general-backup.tar.gz"
    archive.mkdir()
    told = pi.run("backup --runtag new")
    assert told.returncode == 3
    assert f"{owed} was not copied to usb: {owed}.general" in told.stderr
    assert contents(pi.backups, owed)
    assert not contents(pi.backups, gone)
    assert f"also copied to usb: {owed}" in pi.run("backup --dry-run").stdout
    assert "usb is missing it" in pi.run("prune --dry-run --keep 1").stdout
    assert f"{owed} is kept until it is in usb" in (pi.backups / "new.backup-log.txt").read_text()
    archive.rmdir()
    assert pi.run("backup --runtag newer").returncode == 0
    assert contents(pi.usb, owed)
    assert not contents(pi.backups, owed)


def test_records_stay_while_a_mark_of_their_set_is_in_a_vault(pi):
    """What says here that the set is owed goes only when every vault is done with it."""
    pi.nas.mkdir()
    (tag,) = make_sets(pi.backups, 1)
    for name in contents(pi.backups, tag):
        shutil.copy2(pi.backups / name, pi.nas / name)
        shutil.copy2(pi.backups / name, pi.usb / name)
    records = pi.backups / f"{tag}.unfinished.jsonl"
    records.write_text('{"started_utc": "2026-11-23T10:00:00Z"}\n')
    mark = pi.usb / records.name
    mark.mkdir()  # it cannot be removed
    pi.run("sync")
    assert records.exists()
    mark.rmdir()
    assert pi.run("sync").returncode == 0
    assert not records.exists()
