"""Vaults in a cloud: real servers, reached by the real rclone; nothing half, nothing secret told."""

import hashlib
import io
import json
import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from cloud import KINDS
from contexts import LittleStack, PlainContext, put_set

from iotstack_invoke.backups.transfer import Send
from iotstack_invoke.core.errors import StepFailed, Unreachable
from iotstack_invoke.engine.steps import File
from iotstack_invoke.environment.environment import sets_read
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.settings.model import VaultConfig
from iotstack_invoke.vaults.access import vault_storage
from iotstack_invoke.vaults.claims import DEAD_S, DIGITS

ROOT = "cloud:IOTstack/backups"
SET = "2026-11-23_1100"
RECORDS = f"{SET}.unfinished.jsonl"


def storage_in(root=ROOT):
    return vault_storage(VaultConfig("dropbox", root, remote=f"{root.partition(':')[0]}:"))


def files_of(cloud):
    """Return what lies in the vault, as the disk of the server has it."""
    folder = cloud.files / "IOTstack/backups"
    return {each.name: each.read_bytes() for each in folder.iterdir()} if folder.exists() else {}


def put(storage, name, content):
    storage.write(f"{storage.root}/{name}", io.BytesIO(content), time.time())


def mark_of(line):
    return f"{RECORDS}.{hashlib.sha256(line.encode()).hexdigest()[:DIGITS]}"


def test_the_folder_is_made_by_the_first_copy(start_cloud):
    """A vault in which nothing lies yet is empty, and no failure."""
    cloud = start_cloud("webdav")
    storage = storage_in()
    assert storage.listdir(storage.root) == {}
    assert storage.stat([f"{storage.root}/a", f"{storage.root}/b"]) == {}
    put(storage, "a", b"x")
    assert files_of(cloud) == {"a": b"x"}


def test_small_files_are_read_without_a_place_for_temporary_ones(
    start_cloud, tmp_path, mount_disk, monkeypatch
):
    """Where /tmp is full or cannot be written, what lies in the cloud is still read and restored."""
    start_cloud("webdav")
    storage, texts = storage_in(), {"a {1}": b"a" * 30_000, "b": b"b"}
    for name, content in texts.items():
        put(storage, name, content)
    full = mount_disk(tmp_path / "tmp", "16k")
    for folder in (tmp_path / "gone", full):
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        assert storage.read_many(ROOT, [*texts, "c"]) == texts
        assert storage.read_many("cloud:none", ["a"]) == {}
    assert [*full.iterdir()] == []


def test_a_file_replaces_another_of_the_same_size_and_date(cloud):
    """To rclone such files are the same, and it would keep the old one; a rename does not."""
    storage = storage_in()
    for name, content in (("new", b"bbbbb"), ("old", b"aaaaa")):
        put(storage, name, content)
        os.utime(cloud.files / "IOTstack/backups" / name, (1_700_000_000, 1_700_000_000))
    storage.rename(f"{storage.root}/old", f"{storage.root}/new")
    assert files_of(cloud) == {"new": b"aaaaa"}


def test_a_place_with_sha256_says_it_itself(start_cloud):
    """What the far side hashes is not fetched; the hash is that of the bytes that lie there."""
    start_cloud("webdav")
    storage = storage_in("disk:vault")
    received = storage.write(f"{storage.root}/a", io.BytesIO(b"abc"), 0)
    assert received.sha256 == hashlib.sha256(b"abc").hexdigest()
    assert received.size_bytes == 3


def test_a_stream_of_known_size_is_not_put_on_this_disk(start_cloud, tmp_path, monkeypatch):
    """Without the size rclone would keep the whole file below TMPDIR before it sends a byte."""
    cloud = start_cloud("webdav")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    source = tmp_path / "x.tar"
    data = os.urandom(3_000_000)
    source.write_bytes(data)
    seen = set()

    class Watched(PlainContext):
        def advance(self, size_bytes):
            seen.update(os.listdir(scratch))

    storage = storage_in()
    context = Watched({"pi": LocalHost(str(tmp_path)), "dropbox": storage})
    copy = File("dropbox", "x.tar", storage.root)
    Send(File("pi", "x.tar", str(tmp_path)), copy).do(context)
    assert files_of(cloud) == {"x.tar.partial": data}
    assert context.recorded[str(copy)]["sha256"] == hashlib.sha256(data).hexdigest()
    assert context.warned == []
    assert seen == set()


def test_a_server_that_dies_amid_a_copy_is_told_and_no_half_has_the_name(cloud, tmp_path):
    """What arrived lies under the partial name at most; the next try makes it whole."""
    data = os.urandom(6_000_000)
    (tmp_path / "x.tar").write_bytes(data)
    storage = storage_in()
    storage.listdir(storage.root)

    class Dying(LocalHost):
        die = True

        def read(self, path, start=0):
            if self.die:
                cloud.stop()
            self.die = False
            return super().read(path, start)

    context = PlainContext({"pi": Dying(str(tmp_path)), "dropbox": storage})
    step = Send(File("pi", "x.tar", str(tmp_path)), File("dropbox", "x.tar", storage.root))
    with pytest.raises(
        StepFailed, match=r"Vault 'dropbox': .*For details: `rclone lsd cloud:`"
    ) as failure:
        step.do(context)
    assert failure.value.again
    assert set(files_of(cloud)) <= {"x.tar.partial"}
    cloud.start()
    step.do(context)
    assert files_of(cloud) == {"x.tar.partial": data}


# What is wrong is told with the way out


def test_a_remote_that_is_not_known_is_told_with_the_way_out(start_cloud):
    """A wrong name, or the settings of another user, is told as such."""
    start_cloud("webdav")
    storage = storage_in("nowhere:backups")
    with pytest.raises(Unreachable, match=r"has no remote nowhere: here\. .*`rclone listremotes`"):
        storage.listdir(storage.root)


def test_a_wrong_password_is_told_and_no_password_is(cloud):
    """Who is not let in learns what to try; neither password appears."""
    cloud.know("wrong" * 3)
    storage = storage_in()
    with pytest.raises(Unreachable, match="rclone lsd cloud:") as failure:
        storage.listdir(storage.root)
    assert not failure.value.again
    assert cloud.password not in str(failure.value)
    assert "wrong" not in str(failure.value)


def test_a_server_that_is_gone_is_unreachable_and_may_be_tried_again(start_cloud):
    """Nothing passes for an empty vault, or for a file that is not there."""
    cloud = start_cloud("webdav")
    storage = storage_in()
    put(storage, "a", b"x")
    cloud.stop()
    for act in (
        lambda: storage.listdir(storage.root),
        lambda: storage.stat([f"{storage.root}/a"]),
        lambda: storage.read_many(storage.root, ["a"]),
        lambda: storage.remove([f"{storage.root}/a"]),
        lambda: storage.create_exclusive(f"{storage.root}/{RECORDS}", "line"),
    ):
        with pytest.raises(Unreachable, match="Vault 'dropbox'") as failure:
            act()
        assert failure.value.again


def test_settings_under_a_password_ask_nobody(start_cloud):
    """Where rclone's settings are encrypted, we are told at once what is missing."""
    cloud = start_cloud("webdav")
    cloud.settings.write_text(
        "# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nAAAA\n"
    )
    storage = storage_in()
    with pytest.raises(Unreachable, match="RCLONE_CONFIG_PASS"):
        storage.listdir(storage.root)


def test_without_rclone_it_is_told_what_to_install(tmp_path, monkeypatch):
    """The program is a package of Debian's."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unreachable, match="apt-get install rclone"):
        storage_in().listdir(ROOT)


def test_a_cloud_that_can_neither_rename_nor_copy_is_refused(tmp_path, monkeypatch):
    """There a rename would send the bytes anew, under the final name."""
    told = json.dumps({"Features": {"Move": False, "Copy": False, "PutStream": True}})
    program = tmp_path / "rclone"
    program.write_text(f"#!/bin/sh\necho '{told}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    storage = storage_in()
    for act in (
        lambda: storage.write(f"{ROOT}/a", io.BytesIO(b"x"), 0),
        lambda: storage.rename(f"{ROOT}/a", f"{ROOT}/b"),
    ):
        with pytest.raises(StepFailed, match="can neither rename nor copy"):
            act()


# Claims


@pytest.mark.parametrize("kind", KINDS)
def test_of_many_who_claim_at_once_one_wins(start_cloud, kind):
    """Each that is not refused is told the one line that lies there; no mark is left."""
    cloud = start_cloud(kind)

    def claim(number):
        storage = storage_in()
        while not (found := storage.create_exclusive(f"{ROOT}/{RECORDS}", f"run {number}")):
            pass
        return found

    with ThreadPoolExecutor(6) as several:
        told = set(several.map(claim, range(6)))
    assert len(told) == 1
    assert files_of(cloud) == {RECORDS: f"{told.pop()}\n".encode()}


def test_settings_that_are_away_for_a_moment_are_waited_for(start_cloud, tmp_path):
    """Another rclone that writes its token renames them first: no run fails for that."""
    cloud = start_cloud("webdav")
    storage = storage_in()
    put(storage, "first", b"x")
    away = tmp_path / "away"

    def back():
        time.sleep(0.7)
        away.rename(cloud.settings)

    def do_without_settings(work):
        cloud.settings.rename(away)
        with ThreadPoolExecutor(1) as other:
            other.submit(back)
            return work()

    do_without_settings(lambda: storage.put(f"{ROOT}/second", b"y"))
    assert do_without_settings(lambda: set(storage.listdir(ROOT))) == {"first", "second"}
    told = do_without_settings(lambda: storage.read_many(ROOT, ["first", "second"]))
    assert told == {"first": b"x", "second": b"y"}

    def stream():
        with (tmp_path / "big").open("w+b", buffering=0) as big:
            storage.write(f"{ROOT}/third", big, time.time(), size_bytes=0)

    with pytest.raises(
        Unreachable, match=r"the remote below it is not; or .* run the same command again"
    ) as failure:
        do_without_settings(stream)
    assert failure.value.again


def test_a_remote_that_stands_on_a_missing_one_is_told_so(start_cloud):
    """The remote itself is known: the sentence that denies it would mislead."""
    cloud = start_cloud("webdav")
    with cloud.settings.open("a") as settings:
        settings.write("[short]\ntype = alias\nremote = gone:x\n")
    with pytest.raises(
        Unreachable, match="short: is configured in rclone, but the remote below it is not"
    ):
        storage_in("short:IOTstack/backups").listdir("short:IOTstack/backups")


def test_a_mark_that_stays_keeps_us_out_and_is_named(start_cloud, monkeypatch):
    """Whose mark sorts first may act at any time: we wait, and then say what lies there."""
    cloud = start_cloud("sftp")
    monkeypatch.setattr("iotstack_invoke.vaults.claims.claim_by_marks.__defaults__", (1.5,))
    storage = storage_in()
    for other in ("0" * DIGITS, "f" * DIGITS):
        put(storage, f"{RECORDS}.{other}", b"theirs\n")
        with pytest.raises(StepFailed, match=rf"its mark is .*{RECORDS}\.{other}\.") as failure:
            storage.create_exclusive(f"{ROOT}/{RECORDS}", "ours")
        assert not failure.value.again
        assert files_of(cloud) == {f"{RECORDS}.{other}": b"theirs\n"}
        storage.remove([f"{ROOT}/{RECORDS}.{other}"])
    assert storage.create_exclusive(f"{ROOT}/{RECORDS}", "ours") == "ours"


def test_a_mark_of_a_run_that_died_goes(start_cloud):
    """One that is days older than ours keeps nobody out; nor does our own of before."""
    cloud = start_cloud("sftp")
    folder = cloud.files / "IOTstack/backups"
    folder.mkdir(parents=True)
    old_s = time.time() - DEAD_S - 600
    (folder / f"{RECORDS}.{'0' * DIGITS}").write_text("theirs\n")
    os.utime(folder / f"{RECORDS}.{'0' * DIGITS}", (old_s, old_s))
    storage = storage_in()
    put(storage, mark_of("ours"), b"ours\n")
    assert storage.create_exclusive(f"{ROOT}/{RECORDS}", "ours") == "ours"
    assert files_of(cloud) == {RECORDS: b"ours\n"}
    assert storage.create_exclusive(f"{ROOT}/{RECORDS}", "theirs") == "ours"


# The whole way


@pytest.fixture
def stack(start_cloud, tmp_path):
    """A stack whose vault is in a cloud."""
    stack = LittleStack(tmp_path / "little")
    stack.cloud = start_cloud("webdav")
    stack.environment["RCLONE_CONFIG"] = str(stack.cloud.settings)
    with stack.settings.open("a") as stream:
        stream.write(
            f'[[vaults]]\nname = "dropbox"\nkind = "rclone"\nremote = "{ROOT}"\nkeep = 1\n'
        )
    return stack


def ran(stack, line, code=0):
    told = stack.run(line)
    assert told.returncode == code, told.stdout + told.stderr
    assert stack.cloud.password not in told.stdout + told.stderr
    return told.stdout + told.stderr


def test_a_backup_goes_to_the_cloud_and_back(stack):
    """Made, copied, listed, verified there, fetched and tried, removed by the vault's own policy."""
    second = "2026-11-24_1100"
    stack.runs(nodered="nodered/node-red")
    for runtag in (SET, second):
        ran(stack, f"backup --runtag {runtag}")
    backups = stack.folder / "backups"
    here = {name: (backups / name).read_bytes() for name in os.listdir(backups)}
    there = files_of(stack.cloud)
    assert len(there) == 8
    assert there == {name: here[name] for name in there}
    log = (backups / f"{SET}.backup-log.txt").read_text()
    assert stack.cloud.password not in log
    (first, *_) = json.loads(ran(stack, "list --json"))
    assert first["vaults"] == {"dropbox": "complete"}
    assert "is good" in ran(stack, f"verify --runtag {SET} --at dropbox")
    ran(stack, f"pin {SET}")
    ran(stack, f"pin {SET} --remove")
    assert "was restored in a scratch folder and verified" in ran(
        stack, f"rehearse --runtag {SET} --at dropbox"
    )
    ran(stack, "prune --at dropbox")
    assert {name.partition(".")[0] for name in files_of(stack.cloud)} == {second}
    assert os.listdir(backups)


def test_a_copy_that_was_damaged_over_there_is_found(stack):
    """A flipped byte of the archive in the cloud is found by a verification there."""
    ran(stack, f"backup --runtag {SET}")
    archive = stack.cloud.files / f"IOTstack/backups/{SET}.general-backup.tar.gz"
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    assert "damaged" in ran(stack, f"verify --runtag {SET} --at dropbox", 1)


def test_a_cloud_that_is_gone_costs_the_copy_alone(stack):
    """The backup is whole here and ends with 3; the next run of it delivers the copy."""
    stack.cloud.stop()
    assert "dropbox" in ran(stack, f"backup --runtag {SET}", 3)
    assert (stack.folder / f"backups/{SET}.manifest.json").exists()
    stack.cloud.start()
    ran(stack, f"backup --runtag {SET}")
    assert len(files_of(stack.cloud)) == 4


def test_the_doctor_tries_the_cloud(stack):
    """It writes, reads and removes a probe; a cloud that is gone is a failure with the way out."""
    found = {each["name"]: each for each in json.loads(stack.run("doctor --json").stdout)}
    assert found["vault dropbox"]["verdict"] == "good"
    assert files_of(stack.cloud) == {}
    stack.cloud.stop()
    found = {each["name"]: each for each in json.loads(stack.run("doctor --json").stdout)}
    assert found["vault dropbox"]["verdict"] == "failed"
    assert found["vault dropbox"]["fix"] == "rclone lsd cloud: shows more"


def test_a_password_is_in_no_argument(stack, tmp_path):
    """Whoever lists the programs of this machine sees no password, plain or obscured."""
    hidden = stack.cloud.settings.read_text().split("pass = ")[1].split("\n")[0]
    real = subprocess.run(["which", "rclone"], capture_output=True, text=True, check=True).stdout
    words = tmp_path / "words"
    stack.tool("rclone", f'echo "$@" >> {words}\nexec {real.strip()} "$@"')
    ran(stack, f"backup --runtag {SET}")
    said = words.read_text()
    assert "rcat" in said
    assert " sync " not in said
    assert stack.cloud.password not in said
    assert hidden not in said


def test_a_read_only_file_system_is_named(tmp_path, monkeypatch, start_cloud, read_only):
    """Another login would not help, nor another try."""
    start_cloud("webdav")  # rclone is here
    folder = tmp_path / "disk"
    folder.mkdir()
    monkeypatch.setenv("RCLONE_CONFIG_DISK_TYPE", "alias")
    monkeypatch.setenv("RCLONE_CONFIG_DISK_REMOTE", str(folder))
    storage = storage_in("disk:backups")
    read_only(folder)
    with pytest.raises(StepFailed, match="Its file system is mounted read-only") as failure:
        put(storage, "a", b"x")
    assert not isinstance(failure.value, Unreachable)
    assert "reconnect" not in str(failure.value)


def test_more_manifests_than_one_answer_holds_are_read(start_cloud):
    """They are asked for by their sizes, so that many sets never make a vault unreadable."""
    cloud = start_cloud("webdav")
    folder = cloud.files / "IOTstack/backups"
    folder.mkdir(parents=True)
    now = datetime.now(UTC).replace(microsecond=0)
    long = ("x" * 1_000_000,)
    for day in range(20):
        put_set(folder, now - timedelta(days=day), warnings=long)
    found = sets_read(storage_in(), ROOT, 60)
    assert len(found) == 20
    assert all(each.manifest for each in found)
