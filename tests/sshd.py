"""A real sshd on a free port of the loopback, with keys and settings of its own."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess

import pytest
from contexts import until
from ports import free_port

from iotstack_invoke.hosts.ssh_settings import Ssh

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def require_sshd():
    """Skip where there is no sshd; where CI promised one, fail."""
    if SSHD and shutil.which("ssh") and shutil.which("ssh-keygen"):
        return
    if os.environ.get("CI") == "true":
        pytest.fail("OpenSSH is not installed: sshd, ssh, ssh-keygen")
    pytest.skip("OpenSSH is not installed: sshd, ssh, ssh-keygen")


def make_key(path, password=""):
    """Make a key pair and return the path of the private key."""
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", password, "-C", "test", "-f", path]
    subprocess.run(words, check=True)
    return path


def offspring(pid):
    """Return the processes below one."""
    parents = {}
    for each in os.listdir("/proc"):
        with contextlib.suppress(ValueError, OSError), open(f"/proc/{int(each)}/stat") as stream:
            parents.setdefault(int(stream.read().rpartition(")")[2].split()[1]), []).append(
                int(each)
            )
    found, waiting = [], [pid]
    while waiting:
        mine = parents.get(waiting.pop(), [])
        found += mine
        waiting += mine
    return found


SHELL_OF_ITS_OWN = 'mount --bind "$0" /etc/passwd && exec "$@"'


def _with_login_shell(folder, shell):
    """Return the words before a program that sees us with another login shell; or skip."""
    me, lines = getpass.getuser(), []
    with open("/etc/passwd") as stream:
        for line in stream:
            fields = line.rstrip("\n").split(":")
            lines.append(
                ":".join([*fields[:-1], str(shell)]) if fields[0] == me else line.rstrip()
            )
    passwd = folder / "passwd"
    passwd.write_text("\n".join([*lines, ""]))
    passwd.chmod(0o644)
    own = ("unshare", "--mount", "--propagation", "private", "sh", "-c", SHELL_OF_ITS_OWN, passwd)
    if subprocess.run([*own, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespace: needs root")
    return own


class Sshd:
    """One server.

    `extra` are more lines of its settings, `path` its PATH, `sftp` if it has that, or as which
    program; `before` the words before its command, `shell` the login shell of whoever runs it.
    The home is a folder of its own, whose start files the shell reads: there is none at first.
    """

    def __init__(
        self,
        folder,
        extra=(),
        path="/usr/local/bin:/usr/bin:/bin",
        *,
        sftp=True,
        before=(),
        shell="",
    ):
        folder.mkdir()
        self.before = (*before, *_with_login_shell(folder, shell)) if shell else before
        self.folder = folder
        self.port = free_port()
        self.host_key = make_key(folder / "host_key")
        self.user_key = make_key(folder / "user_key")
        self.config = folder / "ssh_config"
        self.config.write_text("")
        self.known_hosts = folder / "known_hosts"
        self.learn_host_key()
        (folder / "sshd_config").write_text(
            "\n".join(
                [
                    *extra,
                    f"SetEnv HOME={folder} PATH={path}",
                    f"Port {self.port}",
                    "ListenAddress 127.0.0.1",
                    f"HostKey {self.host_key}",
                    f"AuthorizedKeysFile {self.user_key}.pub",
                    "PasswordAuthentication no",
                    "KbdInteractiveAuthentication no",
                    "PermitRootLogin yes",
                    "KexAlgorithms -sntrup*,mlkem*",  # the preferred one takes 50 ms more
                    "StrictModes no",
                    "UsePAM no",
                    "PidFile none",
                    "MaxStartups 100",
                    f"Subsystem sftp {'internal-sftp' if sftp is True else sftp}" if sftp else "",
                    "",
                ]
            )
        )
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        self.start()

    def start(self):
        """Let it answer; again, after stop()."""
        self.log = open(self.folder / "log", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*self.before, SSHD, "-D", "-e", "-f", self.folder / "sshd_config"], stderr=self.log
        )
        until(self._answers)

    def _answers(self):
        if self.process.poll() is not None:
            pytest.fail((self.folder / "log").read_text())
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as line:
            return line.recv(4) == b"SSH-"

    def learn_host_key(self, key=None):
        """Write the known_hosts of whoever logs in; with the key of another server if given."""
        public = (self.folder / f"{key or self.host_key}.pub").read_text()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}")

    def login(self, **changed):
        """Return how to log in."""
        given = {
            "host": "127.0.0.1",
            "user": getpass.getuser(),
            "port": self.port,
            "key": str(self.user_key),
            "config": str(self.config),
            "known_hosts": str(self.known_hosts),
        }
        return Ssh(**{**given, **changed})

    def cut(self):
        """End all connections at once, as a machine does that loses its power."""
        for pid in offspring(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self):
        self.process.terminate()
        self.cut()
        self.process.wait(10)
        self.log.close()
