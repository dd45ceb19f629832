"""The stand is what it says, and leaves nothing behind."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import stand_machine
from stand import (
    SERVICES,
    Stand,
    compose,
    compose_down,
    compose_up,
    count_points,
    fresh_iotstack,
    remove_iotstack,
    write_points,
)
from stand_machine import USER, StandError, cgroups, wait_for

USERS = pytest.mark.parametrize("user", [None, USER])

FABRIC = """
import sys, fabric, paramiko
with fabric.Connection("nas") as c:
    c.client.load_system_host_keys()
    c.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    print(c.run("hostname", hide=True, in_stream=False).stdout)
"""


@pytest.fixture(scope="module")
def stack(stand):
    yield fresh_iotstack(stand.pi)
    remove_iotstack(stand.pi)


@pytest.fixture
def known(pi, nas):
    yield lambda key: pi.know(nas, key=key)
    pi.know(nas)


def test_missing_program_is_named(monkeypatch):
    """A missing program is named together with the apt package that has it."""
    monkeypatch.setattr(stand_machine, "PROGRAMS", {"no-such-program": "its-package"})
    monkeypatch.setattr(stand_machine.os, "geteuid", lambda: 0)
    with pytest.raises(StandError, match="no-such-program: apt-get install its-package"):
        stand_machine.check_programs()


# The machines.


@USERS
def test_ssh_by_alias(pi, user):
    """`ssh nas` works without a question, as root and as the user."""
    assert pi.run(["ssh", "nas", "hostname; id -un"], user=user).stdout == "nas\nroot\n"


@USERS
def test_fabric_by_alias(pi, user):
    """Fabric reads the same ssh config and the same known hosts as ssh does."""
    assert pi.run([sys.executable, "-c", FABRIC], user=user).stdout == "nas\n\n"


def test_ordinary_login(pi):
    """The vault also has a login that is not root."""
    assert pi.run(["ssh", "nas-user", "id -un"]).stdout == f"{USER}\n"


def test_sftp_only(pi):
    """The SFTP-only door gives files and refuses a shell."""
    assert pi.run(["ssh", "nas-sftp", "id"], check=False).returncode == 1
    assert "Remote working directory" in pi.run(["sftp", "-b-", "nas-sftp"], input="pwd\n").stdout


def test_scp_only(pi, nas):
    """The door without SFTP still takes files by the old scp."""
    (pi.home / "sent").write_text("x")
    assert pi.run(["sftp", "-b-", "nas-scp"], input="pwd\n", check=False).returncode
    pi.run(["scp", "-O", pi.home / "sent", "nas-scp:got"])
    assert (nas.home / "got").read_text() == "x"


@pytest.mark.parametrize("key", ["wrong", "none"])
def test_bad_host_key(pi, known, key):
    """A wrong or unknown host key is refused by ssh and by Fabric that is told to reject."""
    known(key)
    assert pi.run(["ssh", "-o", "BatchMode=yes", "nas", "true"], check=False).returncode == 255
    assert pi.run([sys.executable, "-c", FABRIC], check=False).returncode


def test_line(pi):
    """A cut line loses packets until it is mended."""
    ssh = ["ssh", "-o", "ConnectTimeout=1", "nas", "true"]
    pi.cut()
    try:
        assert pi.run(ssh, check=False).returncode == 255
    finally:
        pi.mend()
    assert pi.run(["ssh", "nas", "true"]).returncode == 0


def test_user_and_sudo(pi):
    """The user is not root, may use sudo without a password and may use the engine."""
    assert pi.run(["id", "-u"], user=USER).stdout == "1000\n"
    assert pi.run(["sudo", "-n", "id", "-u"], user=USER).stdout == "0\n"
    pi.run(["docker", "ps"], user=USER)


def test_apart_from_the_host(pi):
    """A machine neither sees the real root's home nor the host's network."""
    visible = {
        path.split("/")[2] for path in (sys.base_prefix, sys.prefix) if path[:6] == "/root/"
    }
    assert set(pi.run(["ls", "-A", "/root"]).stdout.split()) <= visible
    assert pi.run(["ip", "-o", "route", "show", "default"]).stdout == ""


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_signals_reach_the_program(pi, sig):
    """A signal sent to a started program ends that program, not only what waits for it."""
    marker = f"{700 + sig}"
    process = pi.popen(["sleep", marker])
    wait_for("sleep", lambda: f"sleep {marker}" in pi.run(["ps", "-eo", "args"]).stdout)
    process.send_signal(sig)
    assert process.wait(timeout=5) in {-sig, 128 + sig}
    assert f"sleep {marker}" not in pi.run(["ps", "-eo", "args"]).stdout


def test_time_limit(pi):
    """A command that takes too long is killed."""
    with pytest.raises(subprocess.TimeoutExpired):
        pi.run(["sleep", "799"], timeout=0.5)
    gone = wait_for("the kill", lambda: "sleep 799" not in pi.run(["ps", "-eo", "args"]).stdout)
    assert gone


# The IOTstack.


def test_stack_is_up(pi, stack):
    """All services of the compose file run."""
    names = pi.run(["docker", "ps", "--format", "{{.Names}}"]).stdout.split()
    assert sorted(names) == sorted(SERVICES)


def test_points_are_counted(pi, stack):
    """Points written are counted by database, retention policy and measurement."""
    write_points(pi, "home", *[f"cpu value={i} {i}000000000" for i in range(1, 51)])
    write_points(pi, "odd name", "Küche,ort=a b=1,c=2 1000000000")
    counted = count_points(pi)
    assert counted["home", "autogen", "cpu"] == 50
    assert counted["odd name", "autogen", "Küche"] == 2


def test_influx_backup(pi, stack):
    """A portable backup made in the container is seen on the host."""
    write_points(pi, "saved", "cpu value=1 1000000000")
    target = "/var/lib/influxdb/backup/x"
    pi.run(
        ["docker", "exec", "influxdb", "timeout", "60", "influxd", "backup", "-portable", target]
    )
    kinds = {path.suffix for path in (stack / "backups/influxdb/db/x").iterdir()}
    assert kinds == {".manifest", ".meta", ".gz"}


@USERS
def test_both_composes(pi, compose_version, user):
    """Either Compose starts and stops the stack, for root and for the user."""
    which = {"version": compose_version, "user": user}
    fresh_iotstack(pi, **which)
    compose_down(pi, **which)
    assert pi.run(["docker", "ps", "-aq"]).stdout == ""
    compose_up(pi, "influxdb", **which)
    assert "influxdb" in compose(pi, "ps", **which).stdout


def test_second_pi(stand, pi, stack):
    """Another Pi has its own engine and stack, with the same names, and is reached by ssh."""
    pi2 = stand.add("pi2", engine=True)
    pi.may_log_in_to(pi2, {"pi2": (22, "root")})
    fresh_iotstack(pi2)
    write_points(pi, "here", "cpu value=1 1000000000")
    write_points(pi2, "there", "cpu value=1 1000000000")
    assert count_points(pi2) == {("there", "autogen", "cpu"): 1}
    assert "influxdb" in pi.run(["ssh", "pi2", "docker ps"]).stdout
    assert pi.run(["ssh", "nas", "hostname"]).stdout == "nas\n"
    pi2.stop()


def test_hidden_program(pi):
    """A hidden program is not found by those who look before they call."""
    look = [sys.executable, "-c", "import shutil; print(shutil.which('docker-compose'))"]
    pi.hide("docker-compose")
    assert pi.run(look).stdout == "None\n"
    pi.show("docker-compose")
    assert pi.run(look).stdout == "/usr/bin/docker-compose\n"


def test_no_zombies(pi):
    """What has lost its parent is taken off by the machine when it ends."""
    pi.run(["sh", "-c", "(sleep 0.1 & echo $! >/run/orphan); :"])
    orphan = pi.run(["cat", "/run/orphan"]).stdout.strip()
    wait_for("its end", lambda: pi.run(["kill", "-0", orphan], check=False).returncode)


# The end.


def _belonging_to(name):
    """Pids of containers' processes, and of all others whose command line names the stand."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (
                process.joinpath("cmdline").read_bytes() + process.joinpath("environ").read_bytes()
            )
            group = process.joinpath("cgroup").read_text()
        except OSError:
            continue
        if name.encode() in words or name in group:
            found.append(int(process.name))
    return found


def _assert_nothing_left(name):
    assert _belonging_to(name) == []
    assert name not in Path("/proc/self/mountinfo").read_text()
    assert cgroups(f"{name}*") == []


@pytest.mark.usefixtures("_stand_possible")
def test_nothing_left_after_stop():
    """After its end no process, mount, control group, folder or link of a stand is left."""
    links = ["ip", "-o", "link"]
    before = subprocess.run(links, check=True, capture_output=True).stdout
    with Stand() as second:
        fresh_iotstack(second.pi)
        second.pi.popen(["setsid", "--fork", "sleep", "797"]).wait()
        assert len(_belonging_to(second.folder.name)) > 10
        assert subprocess.run(links, check=True, capture_output=True).stdout == before
    _assert_nothing_left(second.folder.name)
    assert not second.folder.exists()
    second.stop()


@pytest.mark.usefixtures("_stand_possible")
def test_nothing_left_after_failed_start(monkeypatch):
    """A start that fails half-way takes back what it had made."""
    made = []
    add = Stand.add

    def failing(self, name, **kw):
        made.append(self.folder)
        if name == "nas":
            raise StandError("on purpose")
        return add(self, name, **kw)

    monkeypatch.setattr(Stand, "add", failing)
    with pytest.raises(StandError, match="on purpose"), Stand():
        pass
    _assert_nothing_left(made[0].name)
    assert not made[0].exists()


@pytest.mark.usefixtures("_stand_possible")
def test_nothing_runs_after_kill():
    """When the test run itself is killed, every process of its stand ends all the same."""
    up = [sys.executable, Path(__file__).with_name("stand.py"), "up"]
    with subprocess.Popen(
        up, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        for line in run.stdout:
            if line.startswith("Ctrl-C"):
                break
        (folder,) = Path(tempfile.gettempdir()).glob(f"iotstack-stand-{run.pid}-*")
        assert len(_belonging_to(folder.name)) > 10
        run.kill()
    wait_for("the end", lambda: not _belonging_to(folder.name))
    with Stand():
        assert not folder.exists()
