"""Copies encrypted with age: backed up without the key, and of use only to whoever has it."""

import contextlib
import hashlib
import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sshd import make_key

from iotstack_invoke.commands.catalog.key import sheet_lines
from iotstack_invoke.commands.doctor.doctor import judge_encryption
from iotstack_invoke.core.errors import SettingsError, StepFailed, UsageError
from iotstack_invoke.hosts.ssh_settings import Ssh
from iotstack_invoke.settings.model import VaultConfig, read_settings
from iotstack_invoke.vaults.age import (
    INSTALL,
    decrypting,
    encrypted_size,
    encrypting,
    read_identity,
)
from iotstack_invoke.vaults.encrypted import EncryptedFile, EncryptedStorage, EncryptionRecord
from iotstack_invoke.vaults.folder import FolderStorage

PART = "t1.general-backup.tar.gz"
ON_DISKS = b"""\
{
 "format": "iotstack-invoke seal 1",
 "manifest_sha256": "c1c1",
 "files": {
  "t1.general-backup.tar.gz": {
   "size_bytes": 10240,
   "sha256": "0f0f",
   "sealed_bytes": 10456,
   "sealed_sha256": "abab"
  }
 }
}
"""
"""A `t1.sealed.json` as each version wrote it since copies can be encrypted."""


@pytest.fixture
def pi(little_stack, tmp_path):
    """A stack whose one vault is encrypted; its key is elsewhere."""
    if not shutil.which("age"):
        if os.environ.get("CI") == "true":
            pytest.fail("age is missing")
        pytest.skip("age is not installed")
    pi = little_stack
    pi.usb, pi.key = tmp_path / "usb", tmp_path / "laptop/key.txt"
    for each in (pi.usb, pi.key.parent):
        each.mkdir()
    told = pi.run(f"key new --identity {pi.key}")
    assert told.returncode == 0, told.stderr
    assert "It lists no vaults, because hosts.toml has none: add them," in told.stderr
    (pi.public,) = re.findall(r'recipients = \["(age1\w+)"\]', told.stdout)
    pi.plain = pi.settings.read_text()
    encrypt_for(pi, pi.public)
    return pi


def encrypt_for(pi, *keys):
    """Encrypt the copies in the vault for some keys; for none they are plain."""
    recipients = f"recipients = {json.dumps(keys)}\n" if keys else ""
    vault = f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{pi.usb}"\n{recipients}'
    pi.settings.write_text(pi.plain + vault)


def done(pi, line, code=0):
    """Run a task, and return all that it said."""
    told = pi.run(line)
    assert told.returncode == code, f"{told.stdout}{told.stderr}"
    return told.stdout + told.stderr


def with_key(pi, line):
    return f"{line} --identity {pi.key}"


def test_a_restore_records_that_an_encrypted_copy_is_damaged(pi):
    """As of a plain one: `latest` takes it no more, and whoever lists the sets is told."""
    done(pi, "backup --runtag t1")
    encrypted = pi.usb / f"{PART}.age"
    content = bytearray(encrypted.read_bytes())
    content[-1] ^= 1
    encrypted.write_bytes(content)
    assert "damaged" not in done(pi, "list")
    assert f"{PART} in usb is damaged" in done(pi, with_key(pi, "restore --runtag t1 --yes"), 1)
    assert "damaged" in done(pi, "list", 3)


def test_a_copy_is_encrypted_and_restored(pi):
    """No archive and no log lies there in plain; with the key all is as for a plain copy."""
    assert done(pi, "backup --runtag t1") == ""
    names = {"t1.manifest.json", "t1.sealed.json", f"{PART}.age", "t1.backup-log.txt.age"}
    assert names <= {each.name for each in pi.usb.iterdir()}
    assert not {PART, "t1.backup-log.txt"} & {each.name for each in pi.usb.iterdir()}
    assert "complete   complete" in done(pi, "list")
    assert "t1 in usb: complete, encrypted" in done(pi, "show t1 --at usb")
    assert json.loads(done(pi, "show t1 --at usb --json"))["sealed"] is True
    shutil.rmtree(pi.folder / "backups")
    flows = pi.folder / "volumes/nodered/flows.json"
    flows.write_text("changed")
    for task in ("restore --runtag t1 --yes", "rehearse --runtag t1"):
        assert f"{PART} in usb is encrypted. Add --identity FILE" in done(pi, task, 13)
    assert "; scratch data removed." in done(pi, with_key(pi, "rehearse --runtag t1"))
    done(pi, with_key(pi, "restore --runtag t1 --yes"))
    assert flows.read_text() == "[]\n"
    assert "flows.json" in done(pi, with_key(pi, "show t1 --files general"))


def test_it_is_verified_with_and_without_the_key(pi):
    """Without it the Pi proves that all is as it was encrypted; with it all is read."""
    done(pi, "backup --runtag t1")
    assert "t1 in usb is good: the encrypted copy is unchanged" in done(pi, "verify --at usb")
    assert "t1 in usb is good: read completely" in done(pi, with_key(pi, "verify --at usb"))
    encrypted = pi.usb / f"{PART}.age"
    content = bytearray(encrypted.read_bytes())
    content[-1] ^= 1
    encrypted.write_bytes(content)
    assert "when it was encrypted" in done(pi, "verify --at usb", 1)
    assert "when it was encrypted" in done(pi, with_key(pi, "verify --at usb"), 1)
    assert "good: its hashes" not in done(pi, "sync", 0)
    assert "is good" in done(pi, with_key(pi, "verify --at usb"))


def test_damage_that_the_key_finds_is_recorded(pi):
    """As a hash's is; so it is listed, and delivered anew. What age cannot read is no damage."""
    done(pi, "backup --runtag t1")
    encrypted = pi.usb / f"{PART}.age"
    for damage in (
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content.replace(b"X25519", b"X25518"),
        lambda content: b"",
    ):
        encrypted.write_bytes(damage(encrypted.read_bytes()))
        assert "t1 in usb is damaged" in done(pi, with_key(pi, "verify --at usb"), 1)
        assert "damaged" in done(pi, "list", 3)
        done(pi, "sync")
        assert "t1 in usb is good" in done(pi, with_key(pi, "verify --at usb"))
    pi.tool("age", "kill -9 $$")
    assert "not verified" in done(pi, with_key(pi, "verify --at usb"), 1)
    assert "damaged" not in done(pi, "list")


def test_the_manifest_of_another_set_is_damage(pi):
    """It is found without the key, which nothing else needs then."""
    for runtag in ("t1", "t2"):
        done(pi, f"backup --runtag {runtag}")
    shutil.copy(pi.usb / "t2.manifest.json", pi.usb / "t1.manifest.json")
    said = done(pi, "verify --at usb --runtag t1", 1)
    assert "t1 in usb: The manifest is damaged: it is the manifest of t2" in said
    assert "t1 in usb is damaged" in said
    (pi.usb / "t1.manifest.json").unlink()
    assert "The manifest is missing" in done(pi, "verify --at usb --runtag t1", 1)


def test_a_line_that_breaks_is_no_damage(pi):
    """The far side's program may end as if all had come; that is tried again."""
    done(pi, "backup --runtag t1")

    class Cut(FolderStorage):
        @contextlib.contextmanager
        def read(self, path, start=0):
            with super().read(path, start) as stream:
                yield io.BytesIO(stream.read()[:-30])

    storage = EncryptedStorage(Cut(VaultConfig("usb", str(pi.usb))), (), str(pi.key))
    broke = pytest.raises(StepFailed, match="stopped early: 30 bytes are missing")
    with broke as failure, storage.read(f"{pi.usb}/{PART}") as stream:
        stream.read()
    assert failure.value.again


def test_what_was_left_half_in_plain_goes_when_it_is_encrypted(pi):
    """Recipients may be set between two runs of one set."""
    (pi.usb / f"{PART}.partial").write_bytes(b"plain")
    done(pi, "backup --runtag t1")
    assert not (pi.usb / f"{PART}.partial").exists()


def test_a_changed_manifest_is_found(pi):
    """It is plain, and its hash is beside it."""
    done(pi, "backup --runtag t1")
    manifest = pi.usb / "t1.manifest.json"
    manifest.write_text(manifest.read_text().replace('"warnings": []', '"warnings": [ ]'))
    found = "The manifest is not the one from when the backup was encrypted"
    assert found in done(pi, "verify --at usb", 1)


def test_a_folder_of_encrypted_copies_is_restored_by_its_path(pi, tmp_path):
    """On a machine whose hosts.toml names no vault: the drive and the key are enough."""
    flows = pi.folder / "volumes/nodered/flows.json"
    kept = flows.read_bytes()
    done(pi, "backup --runtag t1")
    flows.write_bytes(b"changed")
    encrypt_for(pi)
    pi.settings.write_text(pi.plain)
    line = f"restore --from {pi.usb} --runtag t1 --yes"
    assert "is encrypted. Add" in done(pi, line, 13)
    assert flows.read_bytes() == b"changed"
    done(pi, with_key(pi, line))
    assert flows.read_bytes() == kept


def test_another_key_opens_nothing(pi):
    """And nothing of the stack is touched; a key is never replaced by a new one."""
    done(pi, "backup --runtag t1")
    other = pi.key.with_name("other.txt")
    done(pi, f"key new --identity {other}")
    assert "exists already" in done(pi, f"key new --identity {other}", 13)
    for task in ("key check", "verify --at usb", "restore --runtag t1 --yes"):
        assert "encrypted for other keys" in done(pi, f"{task} --identity {other}", 1)
    assert "can decrypt each file of t1 (general)" in done(pi, with_key(pi, "key check"))
    pi.key.chmod(0o644)
    assert f"chmod 600 {pi.key}" in done(pi, with_key(pi, "key check"))
    pi.key.chmod(0o600)
    assert "is encrypted. Add" in done(pi, "show t1 --at usb --files general", 1)
    assert "this file contains no secret key." in done(
        pi, f"key check --identity {pi.settings}", 2
    )
    assert "No such file" in done(pi, f"key check --identity {pi.key}.none", 2)
    encrypt_for(pi, pi.public, re.search(r"age1\w+", other.read_text())[0])
    time.sleep(1)  # a manifest tells full seconds
    done(pi, "backup --runtag t2")
    for key in (pi.key, other):
        assert "can decrypt each file of t2" in done(pi, f"key check --identity {key}")
    (pi.usb / "t2.general-backup.tar.gz.age").unlink()
    said = done(pi, with_key(pi, "key check"))
    assert "usb: PASSED OVER: t2 in usb, which is newer, is damaged" in said
    assert "can decrypt each file of t1" in said


def test_what_was_plain_stays_of_use_and_the_other_way_round(pi):
    """Recipients say what is written from now on; all that lies there is read as it lies."""
    encrypt_for(pi)
    done(pi, "backup --runtag t1")
    encrypt_for(pi, pi.public)
    done(pi, "backup --runtag t2")
    assert done(pi, "sync").count("usb") == 1
    assert (pi.usb / PART).exists()
    assert "t1 in usb is good: read completely" in done(pi, "verify --runtag t1 --at usb")
    done(pi, "backup --runtag t1 --force")
    assert not (pi.usb / PART).exists()
    assert (pi.usb / f"{PART}.age").exists()
    encrypt_for(pi)
    assert "usb: the key can decrypt" in done(pi, with_key(pi, "key check"))
    time.sleep(1.1)  # sets of one second are as old as their names say
    done(pi, "backup --runtag t1 --force")
    assert (pi.usb / PART).exists()
    assert not (pi.usb / f"{PART}.age").exists()
    done(pi, "restore --runtag t1 --from usb --yes")
    done(pi, "prune --at usb --keep 1")
    assert {each.name.partition(".")[0] for each in pi.usb.iterdir()} == {"t1"}


def test_secrets_are_no_words_of_a_command(pi, monkeypatch):
    """Whoever looks at the processes sees public keys only, and no plain file is ever there."""
    log = pi.tools / "log"
    pi.tool("age", f'echo "$@" >> {log}; exec {shutil.which("age")} "$@"')
    done(pi, "backup --runtag t1")
    done(pi, with_key(pi, "verify --at usb"))
    words = log.read_text()
    assert f"--recipient {pi.public}" in words
    assert "--decrypt --identity /dev/fd/" in words
    secret = re.search(r"AGE-SECRET-KEY-\w+", pi.key.read_text())[0]
    assert secret not in words
    assert pi.key.stat().st_mode & 0o777 == 0o600
    assert (pi.key.parent / "key.txt.sheet.txt").stat().st_mode & 0o777 == 0o600


def test_age_that_fails_or_is_missing_costs_the_copy_alone(pi):
    """The backup is whole here, and the vault is named; doctor says what mends it."""
    pi.tool("age", "head -c 100 >/dev/null; echo 'age: error: no luck' >&2; exit 1")
    assert "age cannot encrypt: no luck" in done(pi, "backup --runtag t1", 3)
    assert not [each for each in pi.usb.iterdir() if each.name.startswith(PART)]
    assert "FAIL  vault usb encryption" in done(pi, "doctor", 1)
    for size in (50, 400):  # it ends well, and wrote too little
        pi.tool("age", f'{shutil.which("age")} "$@" | head -c {size}')
        assert "age cannot encrypt: it wrote" in done(pi, "backup --runtag t1", 3)
    (pi.tools / "age").unlink()
    assert done(pi, "backup --runtag t1") == ""
    assert "ok    vault usb encryption: copies are encrypted for 1 key" in done(pi, "doctor")


def test_the_sheet_restores_without_us(pi, tmp_path):
    """Its commands, pasted, give the archives back, which tar reads."""
    done(pi, "backup --runtag t1")
    done(pi, with_key(pi, "key sheet"))
    sheet = (pi.key.parent / "key.txt.sheet.txt").read_text()
    lines = [line.strip() for line in sheet.splitlines()]
    (fetch,) = (each.partition("usb: ")[2] for each in lines if each.startswith("usb: "))
    start = next(number for number, line in enumerate(lines) if line.startswith("for encrypted"))
    script = "\n".join((fetch, *lines[start : start + 3])).replace("2026-11-23_1100", "t1")
    away = tmp_path / "away"
    away.mkdir()
    (away / "key.txt").write_text(next(each for each in lines if each.startswith("AGE-SECRET")))
    subprocess.run(["bash", "-ec", script], cwd=away, check=True)
    assert (away / PART).read_bytes() == (pi.folder / "backups" / PART).read_bytes()


def test_the_sheet_names_each_vault():
    """As what a person would type to fetch from it."""
    vaults = (
        VaultConfig("nas", "a b", Ssh("nas", "wash", 2222), by_host=True),
        VaultConfig("cloud", "dropbox:x", remote="dropbox:"),
    )
    text = "\n".join(sheet_lines(vaults, "/k", "ssh key"))
    assert "nas: scp -P 2222 'wash@nas:a b/HOSTNAME'/2026-11-23_1100.* ." in text
    assert "cloud: rclone copy dropbox:x . --include '2026-11-23_1100.*'" in text
    assert "the key is the file /k" in text


@pytest.mark.parametrize("answer", ["geheim", "falsch"])
def test_a_key_under_a_passphrase_is_asked_for(pi, tmp_path, answer):
    """Once, at the terminal; without one, and with a wrong answer, it is said so."""
    locked = tmp_path / "laptop/locked.age"
    typed(["age", "--passphrase", "--output", str(locked), str(pi.key)], "geheim", "geheim")
    done(pi, "backup --runtag t1")
    assert "has a passphrase, and there is no terminal to type it on." in done(
        pi, f"key check --identity {locked}", 1
    )
    words = pi.words(f"key check --identity {locked}")
    code, said = typed(words, answer, env=pi.environment)
    assert ("the key can decrypt" in said) == (code == 0) == (answer == "geheim"), said
    assert ("was not opened" in said) == (answer == "falsch"), said
    if not code:
        _, said = typed(pi.words(f"rehearse --identity {locked}"), answer, env=pi.environment)
        assert "passphrase" in said.partition("rehearsing")[0]


def test_a_key_of_ssh_under_a_passphrase_is_told_as_such(pi):
    """Age could ask for it at a terminal only, which it has not got here."""
    path = make_key(str(pi.key.with_name("id")), "geheim")
    encrypt_for(pi, Path(f"{path}.pub").read_text().strip())
    done(pi, "backup --runtag t1")
    assert "has a passphrase" in done(pi, f"key check --identity {path}", 1)


def test_where_there_is_no_age_it_is_said_how_it_comes(pi, tmp_path, monkeypatch):
    """To whoever encrypts, decrypts, or has a key under a passphrase."""
    (tmp_path / "locked.age").write_bytes(b"age-encryption.org/v1\n")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StepFailed, match="age is not installed: sudo apt-get"):
        read_identity(str(tmp_path / "locked.age"))
    for streams in (
        encrypting([pi.public], io.BytesIO()),
        decrypting(str(pi.key), io.BytesIO(), "x"),
    ):
        with pytest.raises(StepFailed, match="age is not installed: sudo apt-get"), streams:
            pass
    (finding,) = judge_encryption("encryption", (pi.public,))
    assert finding.fix == INSTALL


def typed(words, *answers, env=None):
    """Run a program at a terminal, give an answer to each question; return its code and words."""
    pid, terminal = pty.fork()
    if not pid:
        os.execvpe(words[0], words, env or os.environ)  # noqa: S606
    said, left = b"", list(answers)
    while True:
        try:
            piece = os.read(terminal, 1000)
        except OSError:
            break
        if not piece:
            break
        said += piece
        if left and said.rstrip().endswith(b":"):
            os.write(terminal, f"{left.pop(0)}\n".encode())
            said += b"\n."
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode()


def test_wrong_keys_are_named_in_the_settings():
    """A secret one is never repeated."""
    secret = "AGE-SECRET-KEY-1ABC"
    for wrong, told in (
        ([], "recipients is empty; remove it for unencrypted copies, or"),
        (["age2x"], "must be a public key"),
        ([3], "must be a public key"),
        ([secret], "holds a SECRET key"),
    ):
        vault = {"name": "usb", "kind": "folder", "folder": "/usb", "recipients": wrong}
        with pytest.raises(SettingsError, match=told) as failure:
            read_settings({"vaults": [vault]}, "hosts.toml")
        assert secret not in str(failure.value)
    vault["recipients"] = ["age1x", "ssh-ed25519 AAAA me@laptop"]
    (read,) = read_settings({"vaults": [vault]}, "").vaults
    assert read.recipients == tuple(vault["recipients"])


def test_a_file_that_is_no_key_is_refused(tmp_path):
    """One that is too large as well: it goes through a pipe at once."""
    path = tmp_path / "key"
    path.write_bytes(b"AGE-SECRET-KEY-" + b"1" * 20_000)
    with pytest.raises(UsageError, match="too large"):
        read_identity(str(path))
    with pytest.raises((UsageError, StepFailed), match="No such file"):
        read_identity(str(tmp_path / "none"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"format": "iotstack-invoke seal 1", "files": []}',
        b'{"format": "iotstack-invoke seal 1", "manifest_sha256": "a", "files": {"x": {"y": 1}}}',
        EncryptionRecord({"x": EncryptedFile(1, "a", 2, "b")}).to_json().replace(b"2", b"null"),
        EncryptionRecord({"x": EncryptedFile(1, "a", 2, "b")}).to_json().replace(b'"b"', b"[]"),
    ],
)
def test_a_record_that_is_none_of_ours_says_nothing(content):
    """Then what lies there does not match its record, and is sent anew; nothing crashes."""
    assert EncryptionRecord.read(content) == EncryptionRecord()
    good = EncryptionRecord({"x": EncryptedFile(1, "a", 2, "b")}, "c")
    assert EncryptionRecord.read(good.to_json()) == good


def test_the_record_on_disks_keeps_its_keys():
    """It is read as an earlier version wrote it, and what is written now is the same text."""
    record = EncryptionRecord({PART: EncryptedFile(10240, "0f0f", 10456, "abab")}, "c1c1")
    assert EncryptionRecord.read(ON_DISKS) == record
    assert record.to_json() == ON_DISKS


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 200_000])
def test_the_size_of_what_is_encrypted_is_known_beforehand(pi, tmp_path, size):
    """A cloud wants to be told before the first byte: it is what age makes in the end."""
    for keys in ([pi.public], [pi.public] * 3):
        words = ["age", *(word for each in keys for word in ("--recipient", each))]
        encrypted = subprocess.run(
            words, input=b"x" * size, check=True, capture_output=True
        ).stdout
        assert encrypted_size(encrypted[:65_536], size) == len(encrypted)


@pytest.mark.parametrize("what", ["archive", "manifest"])
def test_what_does_not_arrive_as_it_was_encrypted_gets_no_final_name(pi, what):
    """A disk that loses a bit of what it took makes no copy, and it is tried again."""

    class Rots(FolderStorage):
        def write(self, path, source, modified_s, start=0, size_bytes=None):
            content = bytearray(source.read())
            content[-1] ^= 1
            return super().write(path, io.BytesIO(content), modified_s)

    path = f"{pi.usb}/{PART if what == 'archive' else 't1.manifest.json'}.partial"
    storage = EncryptedStorage(Rots(VaultConfig("usb", str(pi.usb))), (pi.public,), str(pi.key))
    if what == "manifest":  # it is plain: who sends it compares
        sent = hashlib.sha256(b"data").hexdigest()
        assert storage.write(path, io.BytesIO(b"data"), 0).sha256 != sent
        return
    with pytest.raises(
        StepFailed, match=f"{PART}.partial in usb differs from what was sent"
    ) as failure:
        storage.write(path, io.BytesIO(b"data"), 0)
    assert failure.value.again
