"""A machine with a systemd of its own as PID 1: a small Debian in a container without a network."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

from contexts import until

PROGRAMS = ("debootstrap", "systemd-nspawn", "nsenter")
PACKAGES = (
    "dbus",
    "dbus-user-session",
    "libpam-systemd",
    "openssh-client",
    "python3",
    "sudo",
    "systemd",
    "systemd-sysv",
)
USER = "pi"
UP_LIMIT_S = 120.0


class NoMachineError(Exception):
    """What this computer lacks to boot one."""


def make_tree(folder, *, more=()):
    """Make the files of such a machine, with a user who may use sudo; raises NoMachineError.

    `more`: further packages of Debian.
    """
    lacking = [each for each in PROGRAMS if shutil.which(each) is None]
    if lacking or os.geteuid():
        raise NoMachineError(f"needs root, and the programs {', '.join(PROGRAMS)}")
    unpack_debian(folder, more)
    for words in (
        ("useradd", "--create-home", "--shell", "/bin/sh", USER),
        ("rm", "/etc/hostname"),
    ):
        subprocess.run(["chroot", str(folder), *words], check=True)
    (folder / "etc/sudoers.d/pi").write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")
    return folder


def unpack_debian(folder, more=()):
    """Unpack a small Debian from the mirror of packages that this computer uses."""
    words = ("apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)")
    asked = [*words, "Created-By: Packages"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    lines = Path("/etc/os-release").read_text().splitlines()
    suite = dict(each.partition("=")[::2] for each in lines).get("VERSION_CODENAME", "")
    rows = (line.split() for line in told.splitlines())
    mirror = next((row[0] for row in rows if row[1:] == [suite, "main"]), "")
    words = ["debootstrap", "--variant=minbase", f"--include={','.join((*PACKAGES, *more))}"]
    made = subprocess.run(
        [*words, suite, folder, mirror], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise NoMachineError(f"debootstrap: {made.stdout[-500:]} {made.stderr[-500:]}")


class Booted:
    """Such a machine while it runs: commands in it, and how to turn it off and on again."""

    def __init__(self, tree, *, shared=(), words=("--private-network",), before=()):
        self.tree = tree
        self.words = [
            *before,
            *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit"),
            *("--boot", "-D", str(tree)),
            *(f"--bind-ro={each}" for each in shared),
            *words,
        ]
        self._nspawn = None
        self._leader = 0

    def start(self):
        """Turn it on, and wait until it is up."""
        log = open(f"{self.tree}.log", "ab")  # noqa: SIM115 - of the process
        with log:
            self._nspawn = subprocess.Popen(
                self.words, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(self._find_leader, UP_LIMIT_S)
        until(self._is_up, UP_LIMIT_S)
        return self

    def _find_leader(self):
        """Tell whether its first process is there: a descendant of what was started."""
        if self._nspawn.poll() is not None:
            raise NoMachineError(Path(f"{self.tree}.log").read_text()[-1000:])
        below = [self._nspawn.pid]
        while below:
            below = [each for pid in below for each in _children(pid)]
            for child in below:
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    self._leader = child
                    return True
        return False

    def _is_up(self):
        told = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return told in {"running", "degraded"}

    def enter(self, user="", environment=()):
        """Return the words before a command in it, as root or as a user."""
        as_user = ("runuser", "-u", user, "--") if user else ()
        home = f"/home/{user}" if user else "/root"
        path = "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        inside = ("env", "-i", f"HOME={home}", path, *environment)
        namespaces = ("-m", "-u", "-i", "-n", "-p", "-r", "-w")
        return ("nsenter", "-t", str(self._leader), *namespaces, *as_user, *inside)

    def run(self, *words, user="", check=True, environment=(), limit_s=120):
        """Run a command in it, and return what it told."""
        told = subprocess.run(
            [*self.enter(user, environment), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=limit_s,
        )
        assert told.returncode == 0 or not check, (words, told.stdout, told.stderr)
        return told

    def stop(self):
        """Turn it off, as a power cut does: nothing in it has time to end."""
        if self._nspawn and self._nspawn.poll() is None:
            os.kill(self._leader, signal.SIGKILL)
            self._nspawn.wait(30)
        self._nspawn = None


def _children(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(each) for each in path.read_text().split()]
