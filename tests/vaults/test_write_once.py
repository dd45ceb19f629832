"""Vaults that let nothing go: a bucket under an object lock, and what a thief of the keys can do."""

import io
import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from bucket import know, listed
from contexts import LittleStack

from iotstack_invoke.backups.manifest import PIN_ENDING
from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.environment.environment import write_pin
from iotstack_invoke.settings.model import VaultConfig
from iotstack_invoke.vaults.access import vault_storage

SET, SECOND = "2026-11-23_1100", "2026-11-24_1100"
ARCHIVE = f"{SET}.general-backup.tar.gz"
MARK = f"{SET}.unfinished.jsonl"


@pytest.fixture
def bucket(s3, request, monkeypatch):
    """An empty bucket of this test, under a lock."""
    know(monkeypatch, s3.settings)
    return s3.make_locked_bucket(f"t{abs(hash(request.node.name))}")


@pytest.fixture
def storage(bucket):
    root = f"s3:{bucket.bucket}/backups"
    return vault_storage(VaultConfig("cloud", root, remote="s3:", write_once=True))


def put(storage, name, content):
    path = f"{storage.root}/{name}"
    received = storage.write(f"{path}.partial", io.BytesIO(content), 0, size_bytes=len(content))
    assert received.size_bytes == len(content)
    return path


def test_what_is_tried_again_lies_beside(storage, bucket):
    """Nothing is replaced: the last try has the name for whoever asks, and no half one is seen."""
    there = bucket / "backups"
    path = put(storage, ARCHIVE, b"first, and wrong")
    storage.remove([f"{path}.partial"])
    assert storage.stat([f"{path}.partial"]) == {}
    put(storage, ARCHIVE, b"second")
    storage.rename(f"{path}.partial", path)
    assert listed(there) == [ARCHIVE, f"{ARCHIVE}.2"]
    assert {name: fact.size_bytes for name, fact in storage.listdir(storage.root).items()} == {
        ARCHIVE: 6
    }
    assert storage.stat([path, f"{path}x"])[path].size_bytes == 6
    assert storage.read_many(storage.root, [ARCHIVE, "none"]) == {ARCHIVE: b"second"}
    with storage.read(path, 2) as stream:
        assert stream.read() == b"cond"
    for act in (lambda: storage.remove([path]), lambda: storage.rename(path, f"{path}.removing")):
        with pytest.raises(
            StepFailed, match=r"nothing can be removed or replaced there \(write_once = true"
        ):
            act()
    storage.remove([f"{storage.root}/none", f"{storage.root}/{MARK}"])
    assert listed(there) == [ARCHIVE, f"{ARCHIVE}.2"]


def test_of_two_claims_both_never_win(storage, bucket):
    """Each puts its mark before it looks, and none is taken away; the manifest ends them."""
    path = f"{storage.root}/{MARK}"
    assert storage.create_exclusive(path, "ours") == "ours"
    assert storage.create_exclusive(path, "ours") == "ours"
    assert storage.create_exclusive(path, "theirs") == "ours"
    assert set(storage.listdir(storage.root)) == {MARK}
    assert storage.read_many(storage.root, [MARK]) == {MARK: b"ours\n"}
    put(storage, f"{SET}.manifest.json", b"{}")
    assert set(storage.listdir(storage.root)) == {f"{SET}.manifest.json"}
    assert (
        storage.create_exclusive(path, "later") == "later"
    )  # whose the set is, its manifest tells


@pytest.fixture
def stack(bucket, tmp_path):
    """A stack whose vault lets nothing go."""
    stack = LittleStack(tmp_path / "little")
    stack.bucket, stack.there = bucket, bucket / "backups"
    stack.environment["RCLONE_CONFIG"] = str(bucket.s3.settings)
    with stack.settings.open("a") as stream:
        stream.write(
            '[[vaults]]\nname = "cloud"\nkind = "rclone"\nwrite_once = true\n'
            f'remote = "s3:{bucket.bucket}/backups"\n'
        )
    return stack


def ran(stack, line, code=0):
    told = stack.run(line)
    assert told.returncode == code, told.stdout + told.stderr
    return told.stdout + told.stderr


def lock_what_came_in_pieces(client, bucket):
    """Do what S3 does by itself: to a file of several pieces moto gives no default retention."""
    lock = {"Mode": "COMPLIANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(days=1)}
    for each in client.list_object_versions(Bucket=bucket)["Versions"]:
        version = {"Key": each["Key"], "VersionId": each["VersionId"]}
        client.put_object_retention(Bucket=bucket, Retention=lock, **version)


def marks_of(runtag, names):
    return [name for name in names if name.startswith(f"{runtag}.unfinished.jsonl.")]


@pytest.mark.long
def test_a_thief_of_the_keys_removes_nothing(stack, tmp_path):
    """Each version is held by the lock; what is deleted or replaced is there as it was then."""
    ran(stack, f"backup --runtag {SET}")
    whole = {each.name: each.read_bytes() for each in stack.there.iterdir()}
    assert len(whole) == 5
    assert len(marks_of(SET, whole)) == 1
    (first, *_) = json.loads(ran(stack, "list --json"))
    assert first["vaults"] == {"cloud": "complete"}
    assert "is good" in ran(stack, f"verify --runtag {SET} --at cloud")
    before = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    while datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S") == before:  # S3 tells whole seconds
        time.sleep(0.05)
    before = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    time.sleep(1.1)
    thief = stack.bucket.s3.client()
    bucket = stack.bucket.bucket
    refused = 0
    lock_what_came_in_pieces(thief, bucket)
    versions = thief.list_object_versions(Bucket=bucket)["Versions"]
    keys = [each["Key"] for each in versions]
    for each in versions:
        with pytest.raises(thief.exceptions.ClientError, match="AccessDenied"):
            thief.delete_object(Bucket=bucket, Key=each["Key"], VersionId=each["VersionId"])
        refused += 1
    assert refused == len(keys) == len(set(keys)) == 5, keys
    for each in stack.there.iterdir():
        each.unlink()  # which hides it behind a marker
    thief.put_object(Bucket=bucket, Key=f"backups/{ARCHIVE}", Body=b"ransom")
    thief.close()
    assert listed(stack.there) == [ARCHIVE]
    here = stack.folder / "backups"
    for each in here.iterdir():
        if each.name.startswith(SET):
            each.unlink()
    words = ["rclone", "copy", "--s3-version-at", before, f"s3:{bucket}/backups", here]
    subprocess.run(words, check=True)
    assert {name: (here / name).read_bytes() for name in whole} == whole
    assert "is good" in ran(stack, f"verify --runtag {SET}")


@pytest.mark.long
def test_retention_and_prune_leave_it_alone(stack):
    """What goes here stays there, and a policy that is typed is refused with who removes."""
    with stack.settings.open() as stream:
        text = stream.read()
    stack.settings.write_text(text.replace("sudo = false\n", "sudo = false\nkeep = 1\n"))
    for runtag in (SET, SECOND):
        ran(stack, f"backup --runtag {runtag}")
    assert not (stack.folder / f"backups/{ARCHIVE}").exists()
    assert (stack.there / ARCHIVE).exists()
    assert "lifecycle rules of the bucket" in ran(stack, "prune --at cloud")
    assert "lifecycle rules of the bucket" in ran(stack, "prune --at all")
    assert "lifecycle rules of the bucket" in ran(stack, "prune --at cloud --keep 1 --yes", 13)
    assert (stack.there / ARCHIVE).exists()
    ran(stack, f"pin {SECOND}")
    assert (stack.there / f"{SECOND}.{PIN_ENDING}").exists()
    assert "nothing can be removed or replaced there" in ran(stack, f"pin {SECOND} --remove", 1)


@pytest.mark.long
def test_what_was_interrupted_is_tried_again(stack, storage):
    """A part that another run left unproven is known as unfinished, and the set is made whole."""
    stack.bucket.s3.line.open = False
    ran(stack, f"backup --runtag {SET}", 3)
    stack.bucket.s3.line.open = True
    (stack.there / ARCHIVE).write_bytes(b"half")
    records = stack.folder / f"backups/{MARK}"
    claim = json.loads(records.read_text().splitlines()[0])["claim"]
    manifest = json.loads((stack.folder / f"backups/{SET}.manifest.json").read_text())
    storage.create_exclusive(
        f"{storage.root}/{MARK}", json.dumps({"host": manifest["host"], "claim": claim})
    )
    assert json.loads(ran(stack, "list --json"))[0]["vaults"] == {"cloud": "unfinished"}
    ran(stack, f"backup --runtag {SET}")
    names = listed(stack.there)
    assert f"{ARCHIVE}.2" in names
    assert "is good" in ran(stack, f"verify --runtag {SET} --at cloud")
    assert os.path.exists(stack.folder / f"backups/{ARCHIVE}")
    ran(stack, "sync")
    assert listed(stack.there) == names
    write_pin(storage, storage.root, SET, b"\n")


@pytest.mark.long
def test_a_copy_that_was_damaged_there_is_sent_anew(stack):
    """Whoever replaced it keeps nobody from the next: it lies beside, and is what is read."""
    ran(stack, f"backup --runtag {SET}")
    (stack.there / ARCHIVE).write_bytes(b"ransom")
    assert "damaged" in ran(stack, f"verify --runtag {SET} --at cloud", 1)
    ran(stack, "sync")
    assert f"{ARCHIVE}.2" in listed(stack.there)
    assert "is good" in ran(stack, f"verify --runtag {SET} --at cloud")


@pytest.fixture
def key(tmp_path):
    """A key of age's: its file, and its public half."""
    if not shutil.which("age-keygen"):
        if os.environ.get("CI") == "true":
            pytest.fail("age is missing")
        pytest.skip("age is not installed")
    file = tmp_path / "key.txt"
    subprocess.run(["age-keygen", "-o", file], check=True, capture_output=True)
    (public,) = re.findall(r"age1\w+", file.read_text())
    return file, public


@pytest.mark.long
def test_what_was_plain_is_encrypted_beside_it(bucket, key):
    """Nothing can be removed, so the encrypted one counts; back to plain is refused at once."""
    file, public = key
    vault = VaultConfig("cloud", f"s3:{bucket.bucket}/backups", remote="s3:", write_once=True)
    plain, encrypted = (
        vault_storage(replace(vault, recipients=keys, identity=str(file)))
        for keys in ((), (public,))
    )
    path = put(plain, ARCHIVE, b"from before")
    plain.rename(f"{path}.partial", path)
    put(encrypted, ARCHIVE, b"now")
    encrypted.rename(f"{path}.partial", path)
    record = f"{SET}.sealed.json"
    assert listed(bucket / "backups") == [ARCHIVE, f"{ARCHIVE}.age", record]
    for storage in (plain, encrypted):
        assert storage.stat([path])[path].size_bytes == 3
        assert storage.listdir(storage.root)[ARCHIVE].size_bytes == 3
        with storage.read(path) as stream:
            assert stream.read() == b"now"
    with pytest.raises(StepFailed, match="another --runtag"):
        put(plain, ARCHIVE, b"plain again")
    assert listed(bucket / "backups") == [ARCHIVE, f"{ARCHIVE}.age", record]


@pytest.mark.long
def test_what_was_tried_twice_is_restored_from_its_last_try(stack):
    """The highest number counts, for a restore as for whoever verifies."""
    ran(stack, f"backup --runtag {SET}")
    (stack.there / f"{ARCHIVE}.2").write_bytes((stack.there / ARCHIVE).read_bytes())
    flows = stack.folder / "volumes/nodered/flows.json"
    flows.write_text("lost")
    (stack.there / ARCHIVE).write_bytes(b"half")
    for each in (stack.folder / "backups").iterdir():
        if each.name.startswith(SET):
            each.unlink()
    ran(stack, "restore --runtag latest --from cloud --yes")
    assert flows.read_text() == "[]\n"
    assert listed(stack.there).count(f"{ARCHIVE}.2") == 1


@pytest.mark.long
def test_a_set_that_is_replaced_and_cut_is_healed(stack):
    """The old manifest cannot go before the new archive comes: the records here tell what is."""
    ran(stack, f"backup --runtag {SET}")
    flows = stack.folder / "volumes/nodered/flows.json"
    flows.write_text("new" * 1000)
    real = shutil.which("rclone")
    cut = f'case "$*" in *rcat*manifest.json*) kill -9 $PPID; exit 1 ;; esac\nexec {real} "$@"'
    stack.tool("rclone", cut)
    told = stack.run(f"backup --runtag {SET} --force")
    assert told.returncode == -9, told.stderr
    (stack.tools / "rclone").unlink()
    assert json.loads(ran(stack, "list --json", 3))[0]["vaults"] == {"cloud": "damaged"}
    ran(stack, "sync")
    assert f"{SET}.manifest.json.2" in listed(stack.there)
    assert "is good" in ran(stack, f"verify --runtag {SET} --at cloud")
    assert json.loads(ran(stack, "list --json"))[0]["vaults"] == {"cloud": "complete"}
