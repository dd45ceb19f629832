"""What runs as root behind a real sudo ends with its limit and with us, here and over SSH.

As root the user without root is made in a mount namespace of its own, with a sudo for him.
"""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from contexts import until
from shut import COVERED, keep_and_cover
from sshd import Sshd, require_sshd

from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.hosts.base import Command
from iotstack_invoke.hosts.ssh import SshHost
from iotstack_invoke.hosts.ssh_connection import Login

USER, USER_ID = "iotuser", 54321
NUMBERS = itertools.count(os.getpid() % 30_000 * 100 + 1_000_000)
OWN_ETC = f"""
set -e
for f in passwd group shadow sudoers; do mount --bind "$0/$f" "/etc/$f"; done
{COVERED}
exec "$@"
"""
STUBBORN = ("sh", "-c", "trap '' TERM; sleep {0} & sleep {0}")
"""It passes over SIGTERM, and so does what it starts."""
HERE = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from iotstack_invoke.core import processes
from iotstack_invoke.core.processes import signals_raised
from iotstack_invoke.core.errors import Interrupted, StepFailed
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.hosts.base import Command

def act(way, limit_s, words):
    host, command = LocalHost("/"), Command(tuple(words), timeout_s=limit_s)
    if way == "run":
        host.run(command)
    else:
        with host.pipe(command) as pipe:
            pipe.stdout.read()
            if pipe.finish():
                raise StepFailed("ended")

way, limit, *words = sys.argv[1:]
try:
    with signals_raised():
        if way == "thread":
            with ThreadPoolExecutor() as pool:
                ended = pool.submit(act, "run", float(limit), words)
                try:
                    ended.result()
                finally:
                    processes.end_all()
        else:
            act(way, float(limit), words)
except StepFailed:
    sys.exit(1)
except Interrupted:
    sys.exit(3)
"""
FAR = """
import sys
from iotstack_invoke.core.processes import signals_raised
from iotstack_invoke.core.errors import Interrupted
from iotstack_invoke.hosts.ssh_connection import Login
from iotstack_invoke.hosts.ssh import SshHost
from iotstack_invoke.settings.model import Ssh
from iotstack_invoke.hosts.base import Command
host, user, port, key, config, known_hosts, *words = sys.argv[1:]
ssh = Ssh(host, user, int(port), key, config=config, known_hosts=known_hosts)
try:
    with signals_raised():
        SshHost(Login(ssh, "pi"), "/").run(Command(tuple(words), timeout_s=200))
except Interrupted:
    sys.exit(3)
"""


PLAIN, USE_PTY = "", "Defaults use_pty\n"


@pytest.fixture
def sudo_settings():
    """Debian's own, in which sudo gives what it starts a terminal, and so a session of its own."""
    return USE_PTY


@pytest.fixture
def with_sudo(sudo_settings, tmp_path, monkeypatch):
    """Return the words before a program that begins as root, and sees a user whom sudo lets in."""
    if not shutil.which("sudo") or not shutil.which("unshare") or os.geteuid() != 0:
        pytest.skip("needs sudo, unshare and root")
    etc = tmp_path / "etc"
    etc.mkdir()
    for name, line in (
        ("passwd", f"{USER}:x:{USER_ID}:{USER_ID}::/tmp:/bin/sh"),
        ("group", f"{USER}:x:{USER_ID}:"),
        ("shadow", f"{USER}:*:19000:0:99999:7:::"),
    ):
        with open(f"/etc/{name}") as stream:
            (etc / name).write_text(f"{stream.read()}{line}\n")
    (etc / "shadow").chmod(0o600)
    (etc / "sudoers").write_text(f"{sudo_settings}{USER} ALL=(ALL) NOPASSWD: ALL\n")
    (etc / "sudoers").chmod(0o440)
    monkeypatch.setenv("HOME", "/tmp")  # other runs of pytest shut the folder of its own
    variables = [f"{name}={value}" for name, value in keep_and_cover(used=[tmp_path]).items()]
    own = ("unshare", "--mount", "--propagation", "private", "sh", "-c", OWN_ETC, etc)
    words = ("env", *variables, *own)
    done = subprocess.run([*words, "true"], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no mount namespace: {done.stderr}")
    return words


def as_user(words):
    ids = (f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups")
    return (*words, "setpriv", *ids)


def running(number):
    """Return the processes that bear a number of ours in their words."""
    found = []
    for each in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{each}/cmdline", "rb") as stream:
                words = stream.read().decode(errors="replace").split("\0")
        except OSError:
            continue
        if words[0] in ("sleep", "/usr/bin/sleep") and str(number) in words:
            found.append(int(each))
    return found


@pytest.fixture
def number():
    """Return a number for the sleep of a test; what still bears it at the end is ended."""
    number = next(NUMBERS)
    yield number
    for pid in running(number):
        os.kill(pid, signal.SIGKILL)


def words_of(number, *, stubborn):
    plain = [each.format(number) for each in STUBBORN] if stubborn else ["sleep", str(number)]
    return ["sudo", "-n", *plain]


@pytest.mark.parametrize("sudo_settings", [PLAIN, USE_PTY], ids=["plain", "use_pty"])
@pytest.mark.parametrize(("way", "stubborn"), [("run", True), ("pipe", False)])
def test_a_limit_ends_what_sudo_started_here(with_sudo, number, way, stubborn):
    """Past its limit it is gone, whatever it does about a SIGTERM, and we did not wait for its end."""
    words = words_of(number, stubborn=stubborn)
    script = [sys.executable, "-c", HERE, way, "2", *words]
    with subprocess.Popen([*as_user(with_sudo), *script]) as asking:
        until(lambda: running(number))
        assert asking.wait(60) == 1
    until(lambda: not running(number), 10)


@pytest.mark.parametrize(
    ("way", "number_of", "sudo_settings"),
    [
        ("run", signal.SIGINT, PLAIN),
        ("run", signal.SIGTERM, USE_PTY),
        ("pipe", signal.SIGTERM, PLAIN),
        ("thread", signal.SIGINT, USE_PTY),
    ],
)
def test_a_signal_ends_what_sudo_started_here(with_sudo, number, way, number_of):
    """A Ctrl-C and a SIGTERM to us leave nothing of root's behind."""
    script = [sys.executable, "-c", HERE, way, "200", *words_of(number, stubborn=False)]
    with subprocess.Popen([*as_user(with_sudo), *script]) as asking:
        until(lambda: running(number))
        asking.send_signal(number_of)
        assert asking.wait(60) == 3
    until(lambda: not running(number), 10)


@pytest.fixture
def pi(with_sudo, monkeypatch):
    """Return how that user logs in to a machine of his."""
    require_sshd()
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)  # noqa: S103 - he reads his key there
        server = Sshd(Path(folder) / "pi", before=with_sudo)
        yield server.login(user=USER)
        server.stop()


def ended_there(host, command, way):
    if way == "run":
        host.run(command)
    with host.pipe(command) as pipe:
        pipe.stdout.read()
        raise StepFailed(f"ended with {pipe.finish()}")


@pytest.mark.parametrize(("way", "stubborn"), [("run", True), ("pipe", False)])
def test_a_limit_ends_what_sudo_started_there(pi, number, way, stubborn):
    """Over SSH as well, for what the user started himself and for what is root's."""
    login = Login(pi, "pi")
    host = SshHost(login, "/")
    words = words_of(number, stubborn=stubborn)
    started = time.monotonic()
    with pytest.raises(StepFailed):
        ended_there(host, Command(tuple(words), timeout_s=3), way)
    assert time.monotonic() - started < 60
    until(lambda: not running(number), 20)
    assert host.run(Command(("echo", "good"))).out == "good\n"
    login.close()


@pytest.mark.parametrize(
    ("number_of", "sudo"),
    [
        (signal.SIGINT, ("sudo", "-n")),
        (signal.SIGTERM, ("sudo", "-n")),
        (signal.SIGKILL, ("sudo", "-n")),
        (signal.SIGTERM, ()),
    ],
)
def test_what_was_started_there_ends_with_us(pi, number, number_of, sudo):
    """However we end: nothing of it works on there."""
    given = (pi.host, pi.user, str(pi.port), pi.key, pi.config, pi.known_hosts)
    script = [sys.executable, "-c", FAR, *given, *sudo, "sleep", str(number)]
    with subprocess.Popen(script) as asking:
        until(lambda: running(number))
        asking.send_signal(number_of)
        asking.wait(60)
    until(lambda: not running(number), 20)


def test_a_command_there_reads_nothing_and_tells_how_it_ended(pi, number):
    """What runs it changes neither its output nor its exit code, and what it left goes on."""
    login = Login(pi, "pi")
    host = SshHost(login, "/")
    told = host.run(Command(("sh", "-c", "cat; echo out; echo err >&2; exit 7"), frozenset({7})))
    assert (told.exit_code, told.out, told.err) == (7, "out\n", "err\n")
    host.run(Command(("sh", "-c", f"sleep {number} </dev/null >/dev/null 2>&1 &")))
    login.close()
    time.sleep(1)
    assert running(number)


_LIMIT_LEFT = """
from iotstack_invoke.core.errors import Interrupted
from iotstack_invoke.hosts.invoke_runners import UnattendedLocal, local_context

class Signalled(UnattendedLocal):
    def stop(self):
        self._timer, timer = None, self._timer  # a signal comes before it is stopped
        super().stop()
        raise Interrupted(15)

try:
    Signalled(local_context()).run("true", timeout=60, hide=True, in_stream=False)
except Interrupted:
    print("interrupted", flush=True)
"""


def test_a_limit_that_a_signal_left_does_not_hold_up_our_end():
    """A signal just before the limit of a command is taken away must not keep us to its end."""
    words = [sys.executable, "-c", _LIMIT_LEFT]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "interrupted\n", done.stderr
    assert done.returncode == 0
