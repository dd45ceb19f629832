"""Vaults in a bucket: rclone before a real S3 server, from a backup to what is removed there."""

import io
import json
import os
import re
import time

import pytest
from bucket import KeepingLine, know, listed, settings
from contexts import LittleStack

from iotstack_invoke.core.errors import StepFailed, Unreachable
from iotstack_invoke.environment.environment import sweep_stale_copies
from iotstack_invoke.settings.model import VaultConfig
from iotstack_invoke.vaults.access import other_hosts, vault_storage

SET, SECOND = "2026-11-23_1100", "2026-11-24_1100"


@pytest.fixture
def bucket(s3, request, monkeypatch):
    """An empty bucket of this test."""
    know(monkeypatch, s3.settings)
    return s3.make_bucket(f"t{abs(hash(request.node.name))}")


def storage_in(root, **more):
    return vault_storage(VaultConfig("cloud", root, remote="s3:", **more))


@pytest.fixture
def stack(bucket, tmp_path):
    """A stack whose vault is a folder of a bucket."""
    stack = LittleStack(tmp_path / "little")
    stack.bucket = bucket
    stack.environment["RCLONE_CONFIG"] = str(bucket.s3.settings)
    stack.environment.pop("AWS_CA_BUNDLE", None)
    stack.root = f"s3:{bucket.bucket}/backups"
    with stack.settings.open("a") as stream:
        stream.write(
            f'[[vaults]]\nname = "cloud"\nkind = "rclone"\nremote = "{stack.root}"\nkeep = 1\n'
        )
    return stack


def ran(stack, line, code=0):
    told = stack.run(line)
    assert told.returncode == code, told.stdout + told.stderr
    return told.stdout + told.stderr


def test_a_backup_goes_to_a_bucket_and_back(stack):
    """Made, copied, listed, verified, fetched, removed by the policy there; nothing is left over."""
    there = stack.bucket / "backups"
    ran(stack, f"backup --runtag {SET}")
    backups = stack.folder / "backups"
    here = {name: (backups / name).read_bytes() for name in os.listdir(backups)}
    found = {each.name: each.read_bytes() for each in there.iterdir()}
    assert len(found) == 4
    assert found == {name: here[name] for name in found}
    (first, *_) = json.loads(ran(stack, "list --json"))
    assert first["vaults"] == {"cloud": "complete"}
    assert "is good" in ran(stack, f"verify --runtag {SET} --at cloud")


def test_what_is_not_in_a_bucket_is_no_folder(bucket):
    """Rclone calls each name that is not there a folder; a claim is made at once all the same."""
    storage = storage_in(f"s3:{bucket.bucket}/backups")
    path = f"{storage.root}/{SET}.unfinished.jsonl"
    assert storage.stat([path]) == {}
    assert storage.stat([path, f"{storage.root}/other"]) == {}
    began_s = time.monotonic()
    assert storage.create_exclusive(path, "ours") == "ours"
    assert time.monotonic() - began_s < 30
    assert storage.create_exclusive(path, "theirs") == "ours"
    assert listed(bucket / "backups") == [f"{SET}.unfinished.jsonl"]
    with pytest.raises(StepFailed, match="is missing"), storage.read(f"{path}.gz") as stream:
        stream.read()
    (bucket / "backups" / "empty").touch()
    with storage.read(f"{storage.root}/empty") as stream:
        assert stream.read() == b""


def test_pieces_of_an_upload_that_died_go(bucket):
    """No listing shows them, and they cost; those of another folder are somebody else's."""
    client = bucket.s3.client()
    for key in ("backups/x.tar.partial", "photos/y"):
        upload = client.create_multipart_upload(Bucket=bucket.bucket, Key=key)["UploadId"]
        part = {"PartNumber": 1, "UploadId": upload, "Body": b"x"}
        client.upload_part(Bucket=bucket.bucket, Key=key, **part)
    sweep_stale_copies(storage_in(f"s3:{bucket.bucket}/backups"))
    left = client.list_multipart_uploads(Bucket=bucket.bucket)["Uploads"]
    client.close()
    assert [each["Key"] for each in left] == ["photos/y"]


def test_a_bucket_that_is_not_there_is_made_by_nobody(bucket):
    """A slip in its name would make a bucket that is paid for; to list it is no empty vault."""
    storage = storage_in("s3:no-such-bucket/backups")
    for act in (
        lambda: storage.listdir(storage.root),
        lambda: storage.write(f"{storage.root}/x", io.BytesIO(b"x"), 0),
        lambda: storage.create_exclusive(f"{storage.root}/x", "line"),
    ):
        with pytest.raises(Unreachable, match=r"no bucket s3:no-such-bucket.*rclone mkdir"):
            act()
    assert b"no-such-bucket" not in bucket.s3.ask("GET", "")


@pytest.mark.long
def test_a_folder_of_each_machine_needs_no_folder(bucket, monkeypatch):
    """By host, others' are seen by their files; what a console calls a folder is none of ours."""
    vault = {"by_host": True}
    root = f"s3:{bucket.bucket}/backups"
    (bucket / "backups").mkdir()
    (bucket / "backups/other-pi/x").write_text("x")
    storage = storage_in(root, **vault)
    storage.write(f"{storage.root}/a", io.BytesIO(b"a"), 0, size_bytes=1)
    assert set(storage.listdir(storage.root)) == {"a"}
    seen = VaultConfig("cloud", root, remote="s3:", **vault)
    assert other_hosts(seen) == ("cloud/other-pi", "cloud/.")
    other = vault_storage(seen, "other-pi")
    assert set(other.listdir(other.root)) == {"x"}
    with pytest.raises(Unreachable, match="has no folder"):
        vault_storage(seen, "none").listdir(f"{root}/none")


@pytest.mark.long
def test_a_bucket_gets_what_it_lacks_and_loses_what_is_let_go(stack):
    """Sync, prune, and a restore: what was away arrives, the policy removes, the rest comes back."""
    there = stack.bucket / "backups"
    line = stack.bucket.s3.line
    ran(stack, f"backup --runtag {SET}")
    line.open = False
    try:
        ran(stack, f"backup --runtag {SECOND}", 3)
    finally:
        line.open = True
    assert {each.name[: len(SET)] for each in there.iterdir()} == {SET}
    assert f"cloud is missing {SECOND}" in ran(stack, "sync --dry-run")
    ran(stack, "sync")
    here = stack.folder / "backups"
    found = {each.name: each.read_bytes() for each in there.iterdir()}
    assert len(found) == 8
    assert all((here / name).read_bytes() == content for name, content in found.items())
    assert SET in ran(stack, "prune --at cloud --dry-run")
    assert len(listed(there)) == 8
    ran(stack, "prune --at cloud --yes")
    assert {name[: len(SET)] for name in listed(there)} == {SECOND}
    assert len(listed(there)) == 4
    flows = stack.folder / "volumes/nodered/flows.json"
    flows.write_text("lost")
    ran(stack, f"restore --runtag {SECOND} --from cloud --yes")
    assert flows.read_text() == "[]\n"


DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
KEPT = {
    "denied": (
        b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(DENIED), DENIED),
        r"needs a key that is allowed to remove files\. For a key that is not: write_once = true",
    ),
    "not done": (
        b"HTTP/1.1 204 No Content\r\n\r\n",
        r"Does `rclone moveto` work there\? Is its key allowed to remove files\?",
    ),
}


@pytest.mark.parametrize("way", KEPT)
def test_a_bucket_from_which_nothing_goes_is_told(stack, tmp_path, way):
    """A key that may only add needs another word in hosts.toml; a removal that is none is seen."""
    answer, told = KEPT[way]
    line = KeepingLine(stack.bucket.s3.port, answer)
    file = tmp_path / "kept.conf"
    file.write_text(settings(line.port))
    stack.environment["RCLONE_CONFIG"] = str(file)
    assert re.search(told, ran(stack, f"backup --runtag {SET}", 3))
    line.close()
