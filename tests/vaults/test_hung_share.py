"""A folder of a share whose server is gone costs its own copies, whatever it hangs in."""

import errno
import io
import os
import signal
import subprocess
import sys
import threading

import pytest
from contexts import until

from iotstack_invoke.core.errors import StepFailed, TimedOut, Unreachable
from iotstack_invoke.hosts import local as hosts
from iotstack_invoke.settings.model import VaultConfig
from iotstack_invoke.vaults import folder as folders
from iotstack_invoke.vaults.access import vault_storage
from iotstack_invoke.vaults.folder import FolderStorage
from iotstack_invoke.vaults.rate_limit import SMALL_BYTES

PROGRAM = """
import os, runpy, sys, time
import iotstack_invoke.vaults.folder as folders
call, moment, share, limit_s = sys.argv[1:5]
del sys.argv[1:5]
folders.ANSWER_LIMIT_S = float(limit_s)
real = getattr(os, call)

def on_share(*words):
    if not any(f"{share}/" in f"{at_path(each)}/" for each in words):
        return real(*words)
    if moment == "after":
        real(*words)
    open(f"{share}.hangs", "w").close()
    while True:
        time.sleep(60)

def at_path(word):
    return os.readlink(f"/proc/self/fd/{word}") if isinstance(word, int) else word

setattr(os, call, on_share)
runpy.run_module("iotstack_invoke", run_name="__main__", alter_sys=True)
"""
"""The program, one of whose system calls hangs on a share: before the change, or after it."""
CHANGES = {
    "fsync": lambda storage, path: storage.create_exclusive(path, "mine"),
    "mkdir": lambda storage, path: storage.mkdir(path),
    "rename": lambda storage, path: storage.rename(f"{path}.partial", path),
    "unlink": lambda storage, path: storage.remove([path]),
    "utime": lambda storage, path: storage.set_date(path, 0),
    "fchmod": lambda storage, path: storage.write(path, io.BytesIO(b"x"), 0, 0, 1),
}


@pytest.fixture
def hanging(monkeypatch):
    """What makes a call of the system hang until the test ends."""
    over = threading.Event()

    def hang(call):
        monkeypatch.setattr(os, call, lambda *_, **__: over.wait(300))

    yield hang
    over.set()


@pytest.mark.parametrize("call", CHANGES)
def test_a_change_that_hangs_is_given_up(tmp_path, monkeypatch, hanging, call):
    """Nothing more is asked of that vault: the change may still happen, whenever it likes."""
    storage = vault_storage(VaultConfig("share", str(tmp_path)))
    assert storage.listdir(storage.root) == {}
    monkeypatch.setattr(folders, "ANSWER_LIMIT_S", 0.2)
    hanging(call)
    with pytest.raises(TimedOut, match=r"'share': the folder .* did not answer within 0.2 s\. Is"):
        CHANGES[call](storage, f"{tmp_path}/x")
    monkeypatch.undo()
    monkeypatch.setattr(folders, "within", None)  # nor is it looked at
    for ask in (lambda: storage.stat([]), lambda: storage.remove([f"{tmp_path}/x"])):
        with pytest.raises(Unreachable, match="'share'"):
            ask()


def test_a_folder_that_was_given_up_stays_so(tmp_path, monkeypatch, hanging):
    """Also when a vault that failed once is asked again."""
    storage = FolderStorage(VaultConfig("share", str(tmp_path)))
    monkeypatch.setattr(folders, "ANSWER_LIMIT_S", 0.2)
    hanging("unlink")
    with pytest.raises(TimedOut):
        storage.remove([f"{tmp_path}/x", f"{tmp_path}/y"])
    monkeypatch.undo()
    for ask in (storage.check, lambda: storage.mkdir(f"{tmp_path}/z")):
        with pytest.raises(TimedOut, match=r"an operation in the folder .* did not end\."):
            ask()
    assert os.listdir(tmp_path) == []


def test_a_large_copy_has_time_as_long_as_it_moves(tmp_path, monkeypatch):
    """Each piece has its own, the disk for all of them at the end, and its source any."""
    asked = []

    class Noting(hosts.Patience):
        def allow(self, limit_s):
            asked.append(limit_s)
            super().allow(limit_s)

    monkeypatch.setattr(folders, "Patience", Noting)
    storage = FolderStorage(VaultConfig("share", str(tmp_path)))
    size = 3 * SMALL_BYTES
    received = storage.write(f"{tmp_path}/x", io.BytesIO(bytes(size)), 0, 0, size)
    assert received.size_bytes == size
    assert asked.count(float("inf")) == 4
    assert folders.STALL_S + size / folders.SLOWEST_BYTES_S in asked
    assert asked.count(folders.STALL_S) == 1 + 4 + 3
    asked.clear()
    storage.write(f"{tmp_path}/y", io.BytesIO(b"y"), 0, 0, 1)
    assert folders.ANSWER_LIMIT_S in asked
    assert folders.STALL_S not in asked


def test_a_small_change_waits_behind_a_large_copy(tmp_path, monkeypatch, hanging):
    """A slow disk writes those bytes first; one on which no copy moves is given up as such."""
    storage = FolderStorage(VaultConfig("share", str(tmp_path)))
    monkeypatch.setattr(folders, "STALL_S", 0.5)
    monkeypatch.setattr(folders, "ANSWER_LIMIT_S", 0.2)
    told = []

    class Source(io.BytesIO):
        def read(self, size=-1):
            if not told:
                told.append("")
                with pytest.raises(TimedOut) as failure:
                    storage.rename(f"{tmp_path}/a", f"{tmp_path}/b")
                told.append(str(failure.value))
            return super().read(size)

    hanging("rename")
    storage.write(f"{tmp_path}/x", Source(b"x"), 0)
    assert "did not answer within 0.5 s" in told[1]


def test_a_large_copy_that_stands_still_is_given_up(tmp_path, monkeypatch, hanging):
    """Its source is read no further by the thread that is left behind."""
    storage = FolderStorage(VaultConfig("share", str(tmp_path)))
    monkeypatch.setattr(folders, "STALL_S", 0.2)
    monkeypatch.setattr(folders, "SLOWEST_BYTES_S", 1 << 40)
    hanging("fsync")
    with pytest.raises(TimedOut, match=r"did not answer within 0\.2"):
        storage.write(f"{tmp_path}/x", io.BytesIO(bytes(3 * SMALL_BYTES)), 0)
    late = hosts.Patience(0)
    late.is_over = True
    with pytest.raises(StepFailed):
        late.allow(1)


def test_what_a_disk_refuses_is_told_as_before(tmp_path, monkeypatch):
    """A full disk is no share that hangs, and the vault is not given up."""

    def full(*_words, **_more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    storage = FolderStorage(VaultConfig("usb", str(tmp_path)))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StepFailed, match=r"No space left on device\. Free some space") as failure:
        storage.write(f"{tmp_path}/x", io.BytesIO(b"x"), 0)
    assert not isinstance(failure.value, Unreachable)
    monkeypatch.undo()
    storage.remove([f"{tmp_path}/x"])
    assert os.listdir(tmp_path) == []


@pytest.fixture
def stack(little_stack, tmp_path):
    """A stack with a share and a drive as its vaults."""
    with little_stack.settings.open("a") as settings:
        for name in ("share", "usb"):
            (tmp_path / name).mkdir()
            settings.write(
                f'[[vaults]]\nname = "{name}"\nkind = "folder"\nfolder = "{tmp_path / name}"\n'
            )
    return little_stack


def start(stack, share, call, moment, limit_s):
    words = (sys.executable, "-c", PROGRAM, call, moment, str(share), str(limit_s))
    return subprocess.Popen(
        (*words, "backup", "--runtag", "t1"),
        env=stack.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("call", "moment"), [("fsync", "before"), ("rename", "after")])
def test_the_run_ends_and_all_others_are_served(stack, tmp_path, call, moment):
    """The log is whole, and the next run makes good what the share lacks."""
    share = tmp_path / "share"
    run = start(stack, share, call, moment, 6)
    _, told = run.communicate(timeout=100)
    assert run.returncode == 3, told
    assert "Vault 'share': the folder" in told
    assert "usb" not in told
    assert (stack.folder / "backups/t1.backup-log.txt").exists()
    assert {each.name for each in (tmp_path / "usb").iterdir()} >= {
        "t1.manifest.json",
        "t1.backup-log.txt",
    }
    assert stack.run("sync").returncode == 0
    assert stack.run("verify --at share --all").returncode == 0


def test_a_signal_ends_a_run_that_hangs(stack, tmp_path):
    """It does not wait for the share, however long that may take."""
    share = tmp_path / "share"
    run = start(stack, share, "fsync", "before", 10_000)
    until((tmp_path / "share.hangs").exists)
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=100)
    assert run.returncode == 143
