"""Vaults that are silent or slow: each costs a run its own copy, and the others wait for none."""

import contextlib
import os
import re
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from bucket import Line, know, settings
from contexts import LittleStack, until
from odd_server import WAYS, OddServer

from iotstack_invoke.core.errors import Unreachable
from iotstack_invoke.settings.model import VaultConfig
from iotstack_invoke.vaults import access as vaults
from iotstack_invoke.vaults import rclone
from iotstack_invoke.vaults.access import vault_storage

SET = "2026-11-23_1100"
ARCHIVE, MANIFEST = f"{SET}.general-backup.tar.gz", f"{SET}.manifest.json"
PROGRAM = """import sys
from iotstack_invoke.engine import executor
from iotstack_invoke.cli.command import main
from iotstack_invoke.vaults import access, rclone
rclone.ASK_LIMIT_S, rclone.ASKED = 3.0, ("--timeout=1s",)
rclone.TRANSFER_LIMIT_S = {transfer_s}
access.IN_VAIN_S, executor.SLOW_S = 0.9, 1.0
main()
"""
"""Ours, with limits of seconds."""
FREE_BYTES = 16_000


class SlowLine(Line):
    """A line over which all of a copy but its beginning goes at a thousand bytes a second."""

    slow = 0

    def _pass(self, one, other):
        if other.getpeername()[1] != self.to:
            return super()._pass(one, other)
        passed = 0
        with contextlib.suppress(OSError):
            while content := one.recv(200 if passed > FREE_BYTES else 1 << 12):
                other.sendall(content)
                passed += len(content)
                if passed > FREE_BYTES:
                    self.slow += 1
                    time.sleep(0.2)
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        return None


class HurriedStack(LittleStack):
    """A little stack whose program waits for seconds only, with a folder beside a cloud."""

    def __init__(self, base, file, remote, transfer_s=60.0):
        super().__init__(base / "little")
        self.program = PROGRAM.format(transfer_s=transfer_s)
        self.environment["RCLONE_CONFIG"] = str(file)
        self.here = self.folder / "backups"
        self.usb = base / "usb"
        self.usb.mkdir()
        with self.settings.open("a") as stream:
            stream.write(
                f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{self.usb}"\n'
                f'[[vaults]]\nname = "cloud"\nkind = "rclone"\nremote = "{remote}"\n'
            )

    def words(self, line):
        return [sys.executable, "-c", self.program, *line.split()]

    def ended(self, process):
        """Return what a run told that is to end with 3, the other vault's copy being whole."""
        out, err = process.communicate(timeout=240)
        told = out + err
        assert process.returncode == 3, told
        assert "Traceback" not in told
        names = {each.name for each in self.usb.iterdir()}
        assert len(names) == 4
        assert all((self.usb / e).read_bytes() == (self.here / e).read_bytes() for e in names)
        return told


@pytest.mark.parametrize(
    "way", ["silent", *(pytest.param(e, marks=pytest.mark.long) for e in ("endless", "slow"))]
)
def test_a_vault_without_an_answer_is_waited_for_once(tmp_path, monkeypatch, way):
    """What it holds is asked before all else, in vain; no job of the run waits for it again."""
    server = OddServer(WAYS[way])
    try:
        file = tmp_path / "rclone.conf"
        file.write_text(settings(server.port))
        know(monkeypatch, file)
        stack = HurriedStack(tmp_path, file, "s3:bucket/backups")
        told = stack.ended(stack.start(f"backup --runtag {SET}"))
    finally:
        server.stop()
    assert 1 <= server.came <= 5  # as often as rclone tries in the time of one question
    assert "It is not contacted again for 10 minutes." in told
    assert "Vault 'cloud'" in told


@pytest.fixture
def slow_cloud(start_cloud):
    """A cloud behind a slow line: the cloud, the line, and the file with rclone's settings."""
    cloud = start_cloud("webdav")
    line = SlowLine(cloud.port)
    text = cloud.settings.read_text()
    cloud.settings.write_text(text.replace(f":{cloud.port}", f":{line.port}"))
    yield cloud, line
    line.close()


@pytest.mark.long
@pytest.mark.parametrize("jobs", [1, 2])
def test_others_do_not_wait_for_a_slow_copy(tmp_path, slow_cloud, jobs):
    """It holds no slot when it takes long: the other vault is served meanwhile, whole."""
    cloud, line = slow_cloud
    stack = HurriedStack(tmp_path, cloud.settings, "cloud:backups", transfer_s=5.0)
    (stack.folder / "services/big").write_bytes(os.urandom(60_000))
    process = stack.start(f"backup --runtag {SET} --jobs {jobs}")
    until(lambda: line.slow and (stack.usb / MANIFEST).exists())
    assert process.poll() is None
    assert not (cloud.files / "backups" / ARCHIVE).exists()
    told = stack.ended(process)
    assert re.search(r"did not end within 5 s.*too slow", told), told
    assert not (cloud.files / "backups" / MANIFEST).exists()


@pytest.mark.long
def test_a_slow_copy_that_gets_on_is_made(tmp_path, slow_cloud):
    """A thousand bytes a second are no failure."""
    cloud, line = slow_cloud
    stack = HurriedStack(tmp_path, cloud.settings, "cloud:backups")
    (stack.folder / "services/big").write_bytes(os.urandom(24_000))
    process = stack.start(f"backup --runtag {SET} --jobs 1")
    until(lambda: line.slow and (stack.usb / MANIFEST).exists())
    assert process.poll() is None
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    there = cloud.files / "backups"
    assert (there / ARCHIVE).read_bytes() == (stack.here / ARCHIVE).read_bytes()
    assert (there / MANIFEST).exists()


def test_a_vault_is_asked_again_after_a_while(tmp_path, monkeypatch):
    """What failed at once is tried anew; what was waited for in vain, when ten minutes are over."""
    server = OddServer(WAYS["silent"])
    try:
        file = tmp_path / "rclone.conf"
        file.write_text(f"[s3]\ntype = webdav\nurl = http://127.0.0.1:{server.port}\n")
        know(monkeypatch, file)
        monkeypatch.setattr(rclone, "ASKED", ("--timeout=200ms",))
        monkeypatch.setattr(vaults, "IN_VAIN_S", 0.3)
        storage = vault_storage(VaultConfig("cloud", "s3:bucket/backups", remote="s3:"))
        came = []
        for _ in range(2):
            with pytest.raises(Unreachable):
                storage.listdir(storage.root)
            came.append(server.came)
        assert came[0] == came[1] > 0
        with pytest.raises(Unreachable, match="It is not contacted again for") as failure:
            storage.create_exclusive(f"{storage.root}/x", "line")
        assert not failure.value.again
        until_s, error = storage._refusal
        storage._refusal = until_s - vaults.LEFT_ALONE_S, error
        with pytest.raises(Unreachable):
            storage.listdir(storage.root)
        assert server.came > came[1]
    finally:
        server.stop()


def test_who_waits_for_a_vault_to_open_does_not_ask_it_once_more(monkeypatch):
    """Several jobs at once wait in vain together, and not one after the other."""
    monkeypatch.setattr(vaults, "IN_VAIN_S", 0.2)
    came = []

    def opener():
        came.append(1)
        time.sleep(0.3)
        raise Unreachable("It does not answer.")

    storage = vaults._Lazy("nas", "/vault", opener, None)
    with ThreadPoolExecutor(4) as several:
        failures = [several.submit(storage.listdir, "/vault").exception for _ in range(4)]
        assert all(isinstance(each(), Unreachable) for each in failures)
    assert len(came) == 1
