"""The lock of a stack on another machine, against a real sshd: held, lost with its line, held again."""

import os
import signal
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from contexts import until

from iotstack_invoke.core.errors import Busy, Refused, Unreachable
from iotstack_invoke.environment.stack_host import StackHost, locked_target, open_machine
from iotstack_invoke.hosts.inspect import mounted_read_only
from iotstack_invoke.hosts.local import locked
from iotstack_invoke.hosts.ssh import SshHost
from iotstack_invoke.hosts.ssh_connection import Login
from iotstack_invoke.settings.model import HostConfig


@pytest.fixture
def target(sshd, tmp_path):
    """A stack's folder behind an sshd."""
    login = Login(sshd.login(), "test-pi")
    yield StackHost(
        SshHost(login, str(tmp_path)), "test-pi", str(tmp_path), "test", (), ("docker",)
    )
    login.close()


def is_free(target):
    try:
        with locked(f"{target.backups}/.lock", "another"):
            return True
    except Busy:
        return False


def test_a_far_lock_is_held_until_the_end(target):
    """Nobody else gets it meanwhile, here or over another line, and it is free afterwards."""
    with locked_target(target, "restore x"):
        assert not is_free(target)
        with pytest.raises(Busy, match="restore x"), locked_target(target, "restore y"):
            pass
    until(lambda: is_free(target))


def test_a_lock_that_went_with_its_line_is_held_again(target, sshd):
    """What is undone after a line broke is undone under the lock."""
    with locked_target(target, "restore x") as lock:
        lock.hold_again()  # the line is good: nothing happens
        first = lock.holder
        sshd.cut()
        until(lambda: not target.host.login._connection.is_connected)
        lock.hold_again()
        assert lock.holder != first
        assert not is_free(target)


def test_the_holder_of_a_dead_line_is_ended(target):
    """Sshd may hold a lock for minutes for a line that is gone; we are not kept out by ourselves."""
    with locked_target(target, "restore x") as lock:
        lock.let_go()
        until(lambda: is_free(target))
        path = f"{target.backups}/.lock"
        with subprocess.Popen(
            ["flock", path, "sh", "-c", "echo $$; exec sleep 100"], stdout=-1
        ) as orphan:
            lock.holder = orphan.stdout.readline().decode().strip()
            lock.hold_again()
            assert orphan.wait(timeout=10) != 0
        assert not is_free(target)


def test_a_process_that_holds_another_file_is_left_alone(target):
    """After a restart the number of the old holder may be anybody's."""
    with locked_target(target, "restore x") as lock:
        lock.let_go()
        with subprocess.Popen(["sleep", "100"]) as stranger:
            lock.holder = str(stranger.pid)
            lock.hold_again()
            assert stranger.poll() is None
            stranger.kill()
        assert not is_free(target)


def test_who_took_the_lock_meanwhile_is_told(target, monkeypatch):
    """Where somebody else works on the stack by now, nothing is undone beside them."""
    monkeypatch.setattr("iotstack_invoke.environment.stack_host.HOLD_AGAIN_LIMIT_S", 1)
    with locked_target(target, "restore x") as lock:
        lock.let_go()
        until(lambda: is_free(target))
        with locked(f"{target.backups}/.lock", "undo"), pytest.raises(Busy, match="undo"):
            lock.hold_again()


def test_our_own_lock_that_is_still_held_is_no_other_run(target, monkeypatch):
    """Where what a dead line left cannot be ended, as on a frozen sshd, that is what is told."""
    monkeypatch.setattr("iotstack_invoke.environment.stack_host.HOLD_AGAIN_LIMIT_S", 1)
    with locked_target(target, "restore x") as lock:
        lock.let_go()
        until(lambda: is_free(target))
        words = ["flock", f"{target.backups}/.lock", "sh", "-c", "echo $$; kill -STOP $$"]
        with subprocess.Popen(words, stdout=-1) as left:
            lock.holder = left.stdout.readline().decode().strip()
            with pytest.raises(Busy) as told:
                lock.hold_again()
            os.kill(int(lock.holder), signal.SIGCONT)
    assert "another run" not in str(told.value)
    assert "the lost connection of this run still holds the lock" in str(told.value)


def let_go(fifo):
    """Let what waits at a FIFO for somebody who writes go on, and end."""
    os.close(os.open(fifo, os.O_RDWR))


def test_a_line_that_breaks_while_the_lock_is_asked_for_is_no_other_run(target, sshd):
    """It is told as a line that broke, and worth another attempt."""
    folder = Path(target.backups)
    folder.mkdir()
    os.mkfifo(folder / ".lock")  # flock waits at it for somebody who writes
    threading.Timer(0.5, sshd.cut).start()
    with (
        pytest.raises(Unreachable, match="Connection to test-pi lost") as failure,
        locked_target(target, "restore x"),
    ):
        pass
    assert failure.value.again
    let_go(folder / ".lock")


def test_a_machine_that_does_not_tell_of_its_lock_is_not_waited_for(target, monkeypatch):
    """As where its disk hangs."""
    monkeypatch.setattr("iotstack_invoke.environment.stack_host.LOCK_ANSWER_LIMIT_S", 0.5)
    folder = Path(target.backups)
    folder.mkdir()
    os.mkfifo(folder / ".lock")
    with (
        pytest.raises(Unreachable, match=r"test-pi did not answer within 0\.5 s"),
        locked_target(target, "restore x"),
    ):
        pass
    let_go(folder / ".lock")


def test_a_lock_that_cannot_be_taken_is_not_told_as_another_run(target):
    """What flock says is told."""
    folder = Path(target.backups)
    folder.mkdir()
    (folder / ".lock").symlink_to(".lock")
    with (
        pytest.raises(Refused, match=r"the lock .* cannot be taken \(exit \d+\): "),
        locked_target(target, "restore x"),
    ):
        pass


def test_a_lock_is_let_go_of_whatever_became_of_its_line(target, sshd, monkeypatch):
    """A line that breaks at the very end changes nothing of what was done."""
    with locked_target(target, "restore x") as lock:
        line = lock._channel.get_transport()
        monkeypatch.setattr(line.packetizer, "send_message", _broken)
    sshd.cut()


def _broken(*_):
    raise EOFError


def test_another_machine_under_the_same_address_is_refused(sshd, tmp_path):
    """A machine that is pinned by its id is that one, or nothing of it is touched."""
    machine = HostConfig("pi", sshd.login(), str(tmp_path), machine_id="0123456789abcdef" * 2)
    with (
        pytest.raises(
            Refused,
            match=r"is not the expected machine: its machine id is .*, but hosts\.toml pins 0123",
        ),
        open_machine(machine),
    ):
        pass
    pinned = (
        Path("/etc/machine-id").read_text().strip() if os.path.exists("/etc/machine-id") else ""
    )
    for told in {pinned, ""}:
        with open_machine(replace(machine, machine_id=told)) as host:
            assert host.root == str(tmp_path)


def test_a_stack_that_is_not_there_is_told_with_what_makes_it(sshd, tmp_path):
    """The command makes it, whatever is in its name; where a file lies, it is told as one."""
    folder = tmp_path / "not there" / "My IOTstack"
    machine = HostConfig("pi", sshd.login(), str(folder))
    with pytest.raises(Refused, match="has no folder") as failure, open_machine(machine):
        pass
    pasted = str(failure.value).partition("for example with `")[2].partition("`")[0]
    subprocess.run(["bash", "-c", pasted], check=True)
    with open_machine(machine) as host:
        assert host.root == str(folder)
    (folder / "file").write_text("")
    inside = replace(machine, folder=f"{folder}/file")
    with pytest.raises(Refused, match="is a file, not a folder"), open_machine(inside):
        pass


MOUNTS = """22 1 179:2 / / rw,noatime shared:1 - ext4 /dev/root rw
30 22 8:1 / /home/pi/my\\040stack rw,relatime shared:2 - vfat /dev/sda1 ro
31 22 8:2 / /srv ro,relatime - ext4 /dev/sdb1 rw
32 22 8:3 / /srv rw,relatime - ext4 /dev/sdc1 rw
33 32 8:3 / /srv/cold ro - ext4 /dev/sdc1 rw
torn
"""


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/", False),
        ("/home/pi", False),
        ("/home/pi/my stack", True),
        ("/home/pi/my stack/backups", True),
        ("/home/pi/my stacks", False),
        ("/srv/x", False),
        ("/srv/cold/x", True),
    ],
)
def test_a_read_only_mount_is_found(path, told):
    """The nearest mount counts, of two on one folder the later, and either's options."""
    assert mounted_read_only(path, MOUNTS) is told
