"""Clouds that misbehave: whatever a far end answers, the backup here is made and told plainly."""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest
from bucket import Line, know, settings
from cloud import require_rclone
from contexts import LittleStack, put_set
from odd_server import WAYS, OddServer, answer, s3_error
from peak import kib_in, measured

from iotstack_invoke.backups.transfer import hash_there
from iotstack_invoke.core.errors import StepFailed, Unreachable
from iotstack_invoke.environment.environment import remove_set
from iotstack_invoke.settings.model import VaultConfig
from iotstack_invoke.vaults import rclone
from iotstack_invoke.vaults.access import vault_storage

SET = "2026-11-23_1100"
LIMIT_S = 3.0
MOST_KIB = 100 << 10
KINDS = {
    "s3": settings,
    "webdav": lambda port: f"[s3]\ntype = webdav\nurl = http://127.0.0.1:{port}\nvendor = other\n",
}
DAILY = {("silent", "s3"), ("a page", "s3"), ("a page", "webdav")}
EMPTY = {("webdav", "404")}
"""What is read as a folder that is not there; what is sent there is refused all the same."""
SKEWED = s3_error("403 Forbidden", "RequestTimeTooSkewed", "The difference is too large.")


def slowly(way, kind):
    """Mark what no daily run needs."""
    is_daily = (way, kind) in DAILY
    return () if is_daily else pytest.mark.long


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """Start a server of a way, known to rclone as a cloud of a kind."""
    require_rclone()
    running = []

    def start(way, kind="s3", **ways):
        running.append(OddServer(way, **ways))
        file = tmp_path / "rclone.conf"
        file.write_text(KINDS[kind](running[-1].port))
        know(monkeypatch, file)
        return file

    yield start
    for each in running:
        each.stop()


@pytest.fixture
def quick(monkeypatch):
    """Limits of seconds, for questions and for transfers."""
    monkeypatch.setattr(rclone, "ASK_LIMIT_S", LIMIT_S)
    monkeypatch.setattr(rclone, "TRANSFER_LIMIT_S", LIMIT_S + 0.1)
    monkeypatch.setattr(rclone, "ASKED", ("--timeout=1s",))


EVERY = [
    pytest.param(way, kind, marks=slowly(way, kind), id=f"{kind}-{way}")
    for kind in KINDS
    for way in WAYS
]


@pytest.mark.parametrize(("way", "kind"), EVERY)
@pytest.mark.usefixtures("quick")
def test_what_no_server_should_answer_is_told_in_a_line(odd, way, kind):
    """Nothing passes for an empty vault or a copy; it ends within the limits, and says so plainly."""
    odd(WAYS[way], kind)
    storage = vault_storage(VaultConfig("cloud", "s3:bucket/backups", remote="s3:"))
    began_s = time.monotonic()
    failures = []
    try:
        assert storage.listdir(storage.root) == {}
        assert (kind, way) in EMPTY
    except StepFailed as failure:
        failures.append(failure)
    with pytest.raises(StepFailed) as failure:
        storage.write(f"{storage.root}/x", io.BytesIO(b"x" * 1000), 0, size_bytes=1000)
    for each in (*failures, failure.value):
        text = str(each)
        assert text.startswith("Vault 'cloud'"), text
        assert "Traceback" not in text
        assert "\n" not in text
        assert len(text) < 1000, text
    assert time.monotonic() - began_s < 60


@pytest.mark.parametrize(
    ("way", "told"),
    [
        (SKEWED, r"clock of this machine"),
        (s3_error("403 Forbidden", "AccessDenied", "Access Denied"), r"rclone config"),
        (s3_error("403 Forbidden", "InvalidAccessKeyId", "No such key."), r"rclone config"),
        (s3_error("403 Forbidden", "Forbidden", "Forbidden"), r"rclone config"),
        (s3_error("403 Forbidden", "SignatureDoesNotMatch", "Wrong."), r"rclone config"),
        (
            s3_error("400 Bad Request", "AuthorizationHeaderMalformed", "expecting 'eu-west-1'"),
            r"region",
        ),
        (s3_error("404 Not Found", "NoSuchBucket", "None."), r"no bucket s3:bucket"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
@pytest.mark.usefixtures("quick")
def test_what_s3_says_is_told_with_the_way_out(odd, way, told):
    """A wrong key, region or clock is named as such, and another try is not made."""
    odd(way)
    storage = vault_storage(VaultConfig("cloud", "s3:bucket/backups", remote="s3:"))
    with pytest.raises(Unreachable, match=told) as failure:
        storage.listdir(storage.root)
    assert not failure.value.again


def test_what_rclone_says_without_end_is_not_kept(tmp_path, monkeypatch):
    """Of an endless answer, or an endless line of words, no more than a part is held."""
    program = tmp_path / "rclone"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    storage = vault_storage(VaultConfig("cloud", "s3:bucket/backups", remote="s3:"))
    program.write_text("#!/bin/sh\nexec yes '[1, 2, 3]'\n")
    program.chmod(0o755)
    with pytest.raises(StepFailed, match="has more than"):
        storage.listdir(storage.root)
    program.write_text("#!/bin/sh\nhead -c 30000000 /dev/zero | tr '\\0' x >&2\nexit 1\n")
    with pytest.raises(StepFailed) as failure:
        storage.listdir(storage.root)
    assert len(str(failure.value)) < 2000


@pytest.mark.parametrize("head", [True, False], ids=["always", "but for HEAD"])
def test_a_bucket_of_another_region_is_told_soon(odd, monkeypatch, head):
    """S3 sends us on, rclone 1.60 asks where to and waits for itself: nobody waits with it."""
    monkeypatch.setattr(rclone, "SENT_ON_AFTER_S", 1.0)
    monkeypatch.setattr(rclone, "SENT_ON_LIMIT_S", 1.0)
    moved = s3_error("301 Moved Permanently", "PermanentRedirect", "Use another endpoint.")
    nothing = answer("301 Moved Permanently", b"", "x-amz-bucket-region: eu-west-1\r\n")
    odd(moved, HEAD=nothing if head else WAYS["404"])
    storage = vault_storage(VaultConfig("cloud", "s3:bucket/backups", remote="s3:"))
    with pytest.raises(Unreachable, match=r"another region: correct `region`") as failure:
        storage.listdir(storage.root)
    assert not failure.value.again


def test_an_rclone_that_is_killed_is_told_as_such(tmp_path, monkeypatch):
    """A machine without memory ends it: that is neither a slow line nor a bad server."""
    program = tmp_path / "rclone"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    storage = vault_storage(VaultConfig("cloud", "cloud:backups", remote="cloud:"))
    with pytest.raises(Unreachable, match="rclone was ended by SIGKILL, not by this program"):
        storage.listdir(storage.root)
    with (
        pytest.raises(Unreachable, match="rclone was ended by SIGKILL"),
        storage.read(f"{storage.root}/x") as stream,
    ):
        stream.read()


def test_an_rclone_that_is_too_old_is_told_as_such(tmp_path, monkeypatch):
    """What it does not know is no fault of the cloud, and another try would not help."""
    program = tmp_path / "rclone"
    require_rclone()
    real = shutil.which("rclone")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program.write_text(f'#!/bin/sh\nexec {real} "$@" --an-option-of-later\n')
    program.chmod(0o755)
    storage = vault_storage(VaultConfig("cloud", "cloud:backups", remote="cloud:"))
    with pytest.raises(
        Unreachable, match=r"The installed rclone is too old: 1\.60 or later is needed\."
    ) as failure:
        storage.listdir(storage.root)
    assert not failure.value.again


def listing_of(size):
    """Return a way: a bucket in which one file lies, of any size."""
    told = (
        f"<Contents><Key>backups/x</Key><Size>{size}</Size><ETag>x</ETag>"
        "<LastModified>2026-11-23T11:00:00.000Z</LastModified></Contents>"
    )
    whole = f"<ListBucketResult><IsTruncated>false</IsTruncated>{told}</ListBucketResult>"
    return answer("200 OK", whole.encode(), "Content-Type: application/xml\r\n")


@pytest.mark.parametrize(("size", "is_told"), [(5, False), (-1, False), (-5, True)])
@pytest.mark.usefixtures("quick")
def test_a_size_that_no_file_has_makes_no_empty_vault(odd, size, is_told):
    """-1 is what a document has of which nobody knows the size; all else below 0 is no answer."""
    odd(listing_of(size), HEAD=WAYS["404"])
    storage = vault_storage(VaultConfig("cloud", "s3:bucket/backups", remote="s3:"))
    if is_told:
        with pytest.raises(Unreachable, match="cannot read the listing of s3:bucket/backups"):
            storage.listdir(storage.root)
        return
    (fact,) = storage.listdir(storage.root).values()
    assert (fact.size_bytes, fact.other) == ((5, "") if size == 5 else (0, "document"))


@pytest.mark.parametrize(
    "told",
    [
        *("{}", "null", "7", "[7]", "[[]]", "[{}]", "[" * 100_000),
        '[{"Size": 1, "IsDir": false}]',
        '[{"Name": 1, "Size": 1, "IsDir": false}]',
        '[{"Name": "x", "IsDir": false}]',
        '[{"Name": "x", "Size": "1", "IsDir": false}]',
        '[{"Name": "x", "Size": 1.5, "IsDir": false}]',
        '[{"Name": "x", "Size": 1}]',
    ],
    ids=lambda each: each[:20],
)
def test_an_answer_of_another_shape_is_told(tmp_path, monkeypatch, told):
    """Another rclone may tell another thing: that is neither a traceback nor an empty vault."""
    program = tmp_path / "rclone"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "told").write_text(told)
    program.write_text(f"#!/bin/sh\nexec cat {tmp_path}/told\n")
    program.chmod(0o755)
    storage = vault_storage(VaultConfig("cloud", "cloud:backups", remote="cloud:"))
    paths = [f"{storage.root}/x"]
    for ask in (lambda: storage.listdir(storage.root), lambda: storage.stat(paths)):
        with pytest.raises(
            Unreachable, match=r"cannot read (rclone's answer|the listing of cloud:backups)"
        ) as failure:
            ask()
        assert len(str(failure.value)) < 1000
    assert storage.free_bytes(storage.root) is None


@pytest.mark.long
@pytest.mark.parametrize(
    "way", [each for each in WAYS if each not in {"silent", "endless", "slow"}]
)
def test_a_backup_is_made_beside_such_a_vault(odd, tmp_path, way):
    """The set here and the other vault's copy are whole; it ends with 3, and no word is a riddle."""
    file = odd(WAYS[way])
    stack = LittleStack(tmp_path / "little")
    stack.environment["RCLONE_CONFIG"] = str(file)
    usb = tmp_path / "usb"
    usb.mkdir()
    with stack.settings.open("a") as stream:
        stream.write(
            '[[vaults]]\nname = "cloud"\nkind = "rclone"\nremote = "s3:bucket/backups"\n'
            f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{usb}"\n'
        )
    peak = tmp_path / "peak"
    done = subprocess.run(
        measured(stack.words(f"backup --runtag {SET}"), peak),
        env=stack.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 3, told
    assert "Traceback" not in told
    assert re.search(r"Vault 'cloud'", told), told
    assert kib_in(peak) < MOST_KIB
    here = stack.folder / "backups"
    manifest = json.loads((here / f"{SET}.manifest.json").read_text())
    assert manifest["parts"]
    names = {each.name for each in usb.iterdir()}
    assert len(names) == 4
    assert all((usb / name).read_bytes() == (here / name).read_bytes() for name in names)


MAGIC, WRONG = b"\x1f\x8b\x08", b"\x1f\x8b\x09"
"""How what gzip writes begins, and does not."""


class LyingLine(Line):
    """A line over which archives come back with another byte than they have there, if it lies."""

    lies = True

    def _pass(self, one, other):
        comes = one.getpeername()[1] == self.to
        with contextlib.suppress(OSError):
            while content := one.recv(1 << 16):
                other.sendall(content.replace(MAGIC, WRONG) if comes and self.lies else content)
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def lying(start_cloud):
    """A cloud behind a line that lies: the cloud, and the line."""
    cloud = start_cloud("webdav")
    line = LyingLine(cloud.port)
    text = cloud.settings.read_text()
    cloud.settings.write_text(text.replace(f":{cloud.port}", f":{line.port}"))
    yield cloud, line
    line.close()


def test_what_is_read_back_otherwise_is_no_copy(lying):
    """The hash of what comes back is told, and never of what was sent; so is it a second time."""
    _, line = lying
    storage = vault_storage(VaultConfig("cloud", "cloud:backups", remote="cloud:"))
    content, wrong = (begin + b"x" * 50_000 for begin in (MAGIC, WRONG))
    sent = storage.write(f"{storage.root}/x", io.BytesIO(content), 0, size_bytes=len(content))
    assert sent.size_bytes == len(content)
    assert sent.sha256 == hashlib.sha256(wrong).hexdigest()
    line.lies = False
    assert hash_there(storage, f"{storage.root}/x") == hashlib.sha256(content).hexdigest()
    line.lies = True
    assert hash_there(storage, f"{storage.root}/x") == hashlib.sha256(wrong).hexdigest()


@pytest.mark.long
def test_a_copy_that_is_read_back_otherwise_is_told(lying, tmp_path):
    """No such copy gets its name, and one that was good is damaged when it is verified later."""
    cloud, line = lying
    stack = LittleStack(tmp_path / "little")
    stack.environment["RCLONE_CONFIG"] = str(cloud.settings)
    with stack.settings.open("a") as stream:
        stream.write('[[vaults]]\nname = "cloud"\nkind = "rclone"\nremote = "cloud:backups"\n')

    def told(words, code):
        ended = stack.run(words)
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    archive = f"{SET}.general-backup.tar.gz"
    assert "differs from what was sent" in told(f"backup --runtag {SET}", 3)
    there = {each.name for each in (cloud.files / "backups").iterdir()}
    assert not {archive, f"{archive}.partial", f"{SET}.manifest.json"} & there
    line.lies = False
    told(f"backup --runtag {SET}", 0)
    assert "is good" in told(f"verify --runtag {SET} --at cloud", 0)
    line.lies = True
    assert "damaged" in told(f"verify --runtag {SET} --at cloud", 1)
    assert "damaged" in told("list", 3)


RENAMES = {
    "nothing is done": "exit 0",
    "it is gone": 'exec {real} deletefile "$old"',
    "both are there": 'exec {real} copyto --ignore-times "$old" "$new"',
    "half is there": '{real} cat --count 5 "$old" | {real} rcat "$new"; {real} deletefile "$old"',
    "it comes late": '(sleep 0.3; {real} moveto "$old" "$new") > /dev/null 2>&1 &',
}
"""What an rclone does that says 0 to moveto."""


def says_yes(folder, way):
    """Put an rclone into a folder that says 0 to each rename."""
    require_rclone()
    real = shutil.which("rclone")
    program = folder / "rclone"
    program.write_text(
        "#!/bin/sh\nold= new=\nfor each; do old=$new; new=$each; done\n"
        f'for each; do if [ "$each" = moveto ]; then {RENAMES[way].format(real=real)}\n'
        f'exit 0; fi; done\nexec {real} "$@"\n'
    )
    program.chmod(0o755)


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A folder of this machine that rclone knows as a cloud, and its place."""
    file, files = tmp_path / "rclone.conf", tmp_path / "disk/x"
    files.mkdir(parents=True)
    file.write_text(f"[disk]\ntype = alias\nremote = {files.parent}\n")
    know(monkeypatch, file)
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr(rclone, "SETTLED_S", (0.1, 1.0))
    return files, vault_storage(VaultConfig("cloud", "disk:x", remote="disk:"))


@pytest.mark.parametrize("received", [True, False], ids=["a copy", "a file of before"])
@pytest.mark.parametrize("way", RENAMES)
def test_a_rename_is_believed_when_it_is_seen(disk, tmp_path, way, received):
    """A new name, with all bytes, and no old one: or else it is told what is there instead."""
    files, storage = disk
    old, new = "disk:x/x.partial", "disk:x/x"
    if received:
        storage.write(old, io.BytesIO(b"x" * 1000), 0)
    else:
        (files / "x.partial").write_bytes(b"x" * 1000)
    (files / "x").write_bytes(b"of before")
    says_yes(tmp_path / "tools", way)
    if way == "it comes late":
        storage.rename(old, new)
        assert {each.name: each.stat().st_size for each in files.iterdir()} == {"x": 1000}
        return
    with pytest.raises(
        StepFailed, match=r"reports that x\.partial was renamed to x, but it finds"
    ):
        storage.rename(old, new)


def test_a_set_whose_manifest_stays_loses_no_part(disk, tmp_path):
    """What is removed is marked first; where that is not seen, nothing goes."""
    files, storage = disk
    put_set(files, datetime(2026, 11, 23, 11, tzinfo=UTC))
    there = {each.name for each in files.iterdir()}
    says_yes(tmp_path / "tools", "nothing is done")
    with pytest.raises(StepFailed, match="was renamed to"):
        remove_set(storage, storage.root, SET)
    assert {each.name for each in files.iterdir()} == there


class HurriedStack(LittleStack):
    """A little stack with a cloud, that waits for no late listing, and for a claim for a second."""

    def __init__(self, base):
        super().__init__(base / "little")
        file = base / "rclone.conf"
        file.write_text(f"[disk]\ntype = alias\nremote = {base / 'files'}\n")
        self.environment["RCLONE_CONFIG"] = str(file)
        with self.settings.open("a") as stream:
            stream.write('[[vaults]]\nname = "cloud"\nkind = "rclone"\nremote = "disk:x"\n')

    def words(self, line):
        return [sys.executable, "-c", HURRIED, *line.split()]

    def run(self, line, limit_s=120):
        process = self.start(line)
        out, err = process.communicate(timeout=limit_s)
        return subprocess.CompletedProcess(line, process.returncode, out, err)


HURRIED = """from functools import partial
from iotstack_invoke.cli.command import main
from iotstack_invoke.vaults import access, rclone
rclone.SETTLED_S = (0.1,)
rclone.claim_by_marks = partial(rclone.claim_by_marks, limit_s=1.0)
access.IN_VAIN_S = 0.9
main()
"""


def test_a_copy_that_got_no_name_is_owed(tmp_path):
    """The backup says so and ends with 3, and the next sync, with an rclone that renames, pays."""
    files = tmp_path / "files"
    files.mkdir()
    stack = HurriedStack(tmp_path)
    says_yes(stack.tools, "nothing is done")
    ended = stack.run(f"backup --runtag {SET}")
    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert "was renamed to" in ended.stdout + ended.stderr
    assert list((files / "x").iterdir()) == []
    (stack.tools / "rclone").unlink()
    assert stack.run("sync").returncode == 0
    names = {each.name for each in (files / "x").iterdir()}
    assert len(names) == 4
    assert not [each for each in names if "partial" in each]


def test_a_cloud_that_keeps_nothing_is_waited_for_once(tmp_path):
    """It says yes to a mark that it never lists: no other copy of the run puts one there."""
    (tmp_path / "files/x").mkdir(parents=True)
    stack = HurriedStack(tmp_path)
    real, asked = shutil.which("rclone"), tmp_path / "asked"
    stack.tool(
        "rclone",
        f'for each; do if [ "$each" = rcat ]; then echo >> {asked}; exec cat > /dev/null; fi\n'
        f'done\nexec {real} "$@"',
    )
    ended = stack.run(f"backup --runtag {SET}")
    told = ended.stdout + ended.stderr
    assert ended.returncode == 3, told
    assert asked.read_text() == "\n"
    assert "does not list" in told
    assert "It is not contacted again for 10 minutes." in told
