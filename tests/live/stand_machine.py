"""One simulated computer: its own network, mounts, accounts, processes, sshd and Docker engine.

A machine is a set of Linux namespaces held by one first process that waits on a pipe to us. When
the pipe closes (we stop, crash or are killed), that process ends, and the kernel ends every
process of the machine with it, containers included; its mounts and network go the same way.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # by hand the stand runs without pytest
from shut import COVERED, keep_and_cover

PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
USER = "iotpi"
UIDS = {None: 0, USER: 1000}
PROGRAM = (sys.executable, "-m", "iotstack_invoke")

PROGRAMS = {  # program: the apt package that has it
    "docker": "docker.io",
    "dockerd": "docker.io",
    "docker-compose": "docker-compose",
    "influx": "influxdb-client",
    "influxd": "influxdb",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "sudo": "sudo",
    "tar": "tar",
    "unshare": "util-linux",
}

_FIRST_PROCESS = f"""
set -eu
ip link set lo up
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/sshd
mkdir -m 1777 /run/lock
for file in group hosts passwd shadow sudoers; do mount --bind "$ETC/$file" "/etc/$file"; done
hostname "$NAME"
# Nothing may see or change the real root's home.
{COVERED}
[ -z "$SHARED" ] || mount --make-rshared /
echo ready
exec env --ignore-signal=CHLD cat >/dev/null  # who is left without a parent leaves no zombie
"""

_SWITCH = """
set -eu
ip link add switch type bridge
ip link set switch up
echo ready
exec cat >/dev/null
"""

# The key exchange that OpenSSH prefers takes a client 50 ms of processor time, this one 2 ms.
_SSHD_CONFIG = """
Port {port}
ListenAddress 0.0.0.0
HostKey {folder}/host_key
PidFile {folder}/sshd-{port}.pid
AuthorizedKeysFile .ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM no
KexAlgorithms -sntrup*,mlkem*
UseDNS no
MaxStartups 100
PrintMotd no
SetEnv PATH={path}
{kind}
"""

SSH_KINDS = {
    "shell": "Subsystem sftp internal-sftp",
    "sftp": "Subsystem sftp internal-sftp\nForceCommand internal-sftp",
    "scp": "",  # no SFTP subsystem: only programs, so `scp -O`
}


class StandError(RuntimeError):
    """The stand cannot be built here; the message says what is missing."""


def check_programs():
    """Raise when a program is missing or we are not root, naming what would help."""
    if os.geteuid() != 0:
        raise StandError("the stand needs root (namespaces, mounts, a Docker engine)")
    missing = {p: apt for p, apt in PROGRAMS.items() if not shutil.which(p, path=PATH)}
    if missing:
        packages = " ".join(sorted(set(missing.values())))
        raise StandError(f"missing {', '.join(missing)}: apt-get install {packages}")
    _check(["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "true"])


def wait_for(what, ready, *, timeout=180, pause=0.05):
    """Call `ready` until it is true; raise with `what` when it never is."""
    end = time.monotonic() + timeout
    while not (answer := ready()):
        if time.monotonic() > end:
            raise StandError(f"{what}: not ready after {timeout} s")
        time.sleep(pause)
    return answer


def _child_of(pid):
    """The only child of a process, or None while (or when) there is none."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return None
    return int(text.split()[0]) if text else None


class Inside(subprocess.Popen):
    """A program in a machine: signals reach the program, not the nsenter that waits for it."""

    def send_signal(self, sig):
        if (pid := self.inner()) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sig)

    def inner(self):
        """The pid of the program itself, as seen from outside; None when it has ended."""
        while self.poll() is None:
            if (pid := _child_of(self.pid)) is not None:
                return pid
            time.sleep(0.002)
        return None

    def end(self):
        """Kill the program and its process group if it still runs; reap it, close its pipes."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe:
                pipe.close()
        self.wait()


class Holder:
    """The first process of a set of namespaces."""

    def __init__(self, flags, script, env):
        argv = ["unshare", *flags, "--pid", "--fork", "--kill-child", "/bin/sh", "-c", script]
        self._outer = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={"PATH": PATH, **env},
        )
        said = []
        while (line := self._outer.stdout.readline()) not in {"ready\n", ""}:
            said.append(line)
        if not line:
            self.stop()
            raise StandError(
                f"cannot make namespaces: {''.join(said).strip() or 'no reason given'}"
            )
        self.pid = _child_of(self._outer.pid)

    def stop(self):
        """Close the pipe: the first process ends and everything in its namespaces with it."""
        self._outer.stdin.close()
        try:
            self._outer.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._outer.kill()
            self._outer.wait()
        self._outer.stdout.close()


class Switch:
    """The wire between machines: a bridge in a network namespace of its own, not the host's."""

    def __init__(self, folder):
        self._holder = Holder(["--net"], _SWITCH, {"STAND": str(folder)})
        self.stop = self._holder.stop

    def plug(self, machine):
        """Join a machine to the wire with a cable named after it."""
        cable = ["link", "add", "name", "eth0", "netns", str(machine.pid), "type", "veth"]
        _check(["ip", *cable, "peer", "name", machine.name, "netns", str(self._holder.pid)])
        self._ip("link", "set", machine.name, "master", "switch", "up")

    def carry(self, name, *, on):
        """Pull or put back the cable of a machine."""
        self._ip("link", "set", name, "up" if on else "down")

    def _ip(self, *argv):
        _check(["nsenter", f"--target={self._holder.pid}", "--net", "ip", *argv])


def _check(argv, **kw):
    kw.setdefault("env", {"PATH": PATH})
    done = subprocess.run(argv, check=False, capture_output=True, text=True, **kw)
    if done.returncode:
        raise StandError(f"{shlex.join(argv)}: {done.stdout}{done.stderr}")
    return done


class Machine:
    """A computer with `home` (root's) and `user_home` (iotpi's, uid 1000, sudo without password).

    Paths are the same inside and outside, so a test may look at files directly. Not shared with
    the outside: /run, /root, /etc/{passwd,group,shadow,sudoers,hosts}, network, processes.
    `shared`: its mounts are, as systemd makes them; else its engine binds its folder to itself,
    which is a mount of its own then.
    """

    def __init__(self, name, address, switch, folder, hosts, *, shared=False):
        self.name, self.address, self.folder = name, address, folder
        self.home, self.user_home = folder / "root", folder / USER
        self._switch = switch
        self.ports = []  # of its sshds
        self.host_key_pub = folder / "host_key.pub"
        self._daemons = []
        self._forking = {}
        self._cgroup = None
        etc = folder / "etc"
        for made in (self.home, self.user_home, etc):
            made.mkdir(parents=True)
        os.chown(self.user_home, 1000, 1000)
        self._write_accounts(etc)
        os.link(hosts, etc / "hosts")
        with hosts.open("a") as file:
            file.write(f"{address} {name}\n")
        flags = ["--net", "--mount", "--uts", "--ipc", "--mount-proc"]
        names = {"ETC": str(etc), "NAME": name, "SHARED": "yes" if shared else ""}
        names |= keep_and_cover(Path("/root"), used=[folder.parent])
        self._holder = Holder(flags, _FIRST_PROCESS, names)
        self.pid = self._holder.pid
        try:
            switch.plug(self)
            self.run(["ip", "address", "add", f"{address}/24", "dev", "eth0"])
            self.run(["ip", "link", "set", "eth0", "up"])
            for who in (None, USER):
                ssh = self.home_of(who) / ".ssh"
                self.run(["mkdir", "-m", "700", str(ssh)], user=who)
                key = [
                    "ssh-keygen",
                    "-q",
                    "-t",
                    "ed25519",
                    "-N",
                    "",
                    "-f",
                    str(ssh / "id_ed25519"),
                ]
                self.run(key, user=who)
        except BaseException:
            self.stop()
            raise

    def _write_accounts(self, etc):
        """Accounts of the machine: the system's own, root with our home, and one ordinary user."""
        ours = {"root": f"root:x:0:0:root:{self.home}:/bin/bash"}
        ours[USER] = f"{USER}:x:1000:1000::{self.user_home}:/bin/bash"
        lines = [
            line
            for line in Path("/etc/passwd").read_text().splitlines()
            if line.split(":")[0] not in ours and 0 < int(line.split(":")[2]) < 1000
        ]
        groups = [
            line
            for line in Path("/etc/group").read_text().splitlines()
            if line.split(":")[0] not in {"docker", USER} and int(line.split(":")[2]) != 1000
        ]
        groups += [f"docker:x:998999:{USER}", f"{USER}:x:1000:"]
        files = {
            "passwd": [*ours.values(), *lines],
            "group": groups,
            "shadow": [f"{name}:*:19000:0:99999:7:::" for name in ours],
            "sudoers": [
                "Defaults env_reset",
                f'Defaults secure_path="{PATH}"',
                "root ALL=(ALL:ALL) ALL",
                f"{USER} ALL=(ALL) NOPASSWD: ALL",
            ],
        }
        for name, content in files.items():
            (etc / name).write_text("\n".join(content) + "\n")
        (etc / "shadow").chmod(0o600)
        (etc / "sudoers").chmod(0o440)

    def home_of(self, user=None):
        """The home folder of root (None) or of a user."""
        return self.user_home if user == USER else self.home

    def enter(self, user=None, cwd=None):
        """The words to put before a command so that it runs in this machine."""
        # Tests that run in the background of a shell were started with some signals ignored.
        words = ["env", "--default-signal", "nsenter", f"--target={self.pid}"]
        words += ["--net", "--mount", "--uts", "--ipc", "--pid"]
        if user and user != "root":
            words += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return [*words, "env", "-C", str(cwd or self.home_of(user))]

    def popen(self, argv, *, env=None, user=None, cwd=None, **kw):
        """Start a program; it leads a process group of its own. End it with `.end()`."""
        kw.setdefault("stdin", subprocess.DEVNULL)
        words = [str(word) for word in (*self.enter(user, cwd), *argv)]
        return Inside(words, env=self._environment(user, env), start_new_session=True, **kw)

    def _environment(self, user, env):
        home = str(self.home_of(user))
        full = {"HOME": home, "PATH": f"{home}/bin:{PATH}", "LANG": "C.UTF-8"}
        return full | {"USER": user or "root", "LOGNAME": user or "root", **(env or {})}

    def run(self, argv, *, input=None, env=None, check=True, user=None, cwd=None, timeout=300):  # noqa: A002 - as subprocess.run has it
        """Run a program to its end, with a clean environment; text in, text out.

        Where it is ours, it is a fork of one that has imported it.
        """
        full = self._environment(user, env)
        forks = self._forks(user, full) if (*argv[:3],) == PROGRAM and input is None else None
        if forks:
            done = forks.run(
                [str(word) for word in argv[3:]],
                full,
                limit_s=timeout,
                folder=str(cwd or self.home_of(user)),
                errors="surrogateescape",
            )
        else:
            done = self._run(argv, input, timeout, env=env, user=user, cwd=cwd)
        if check and done.returncode:
            words = shlex.join(map(str, argv))
            raise AssertionError(
                f"{self.name}: {words} exits {done.returncode}: {done.stdout}{done.stderr}"
            )
        return done

    def _run(self, argv, text, timeout, **kw):
        pipe = subprocess.PIPE
        stdin = subprocess.DEVNULL if text is None else pipe
        kw |= {"stdin": stdin, "stdout": pipe, "stderr": pipe, "text": True}
        process = self.popen(argv, errors="surrogateescape", **kw)
        try:
            out, err = process.communicate(text, timeout=timeout)
        finally:
            process.end()
        return subprocess.CompletedProcess(list(argv), process.returncode, out, err)

    def _forks(self, user, environment):
        """What forks the program for a user, if it can; started when it is needed first."""
        from forks import Forks, serves

        if not serves(environment):
            return None
        if user not in self._forking:

            def start(words, kept):
                return self.popen(words, user=user, stdout=subprocess.DEVNULL, pass_fds=(kept,))

            self._forking[user] = Forks(start)
        return self._forking[user]

    def cut(self):
        """Pull the network cable: packets are lost, nothing is refused."""
        self._switch.carry(self.name, on=False)

    def mend(self):
        """Put the cable back, and wait until the machine sees it."""
        self._switch.carry(self.name, on=True)
        show = ["ip", "link", "show", "eth0"]
        wait_for("the line", lambda: "state UP" in self.run(show).stdout, timeout=5)

    def hide(self, program):
        """Make a program unusable (as if not installed) until `show`."""
        self.run(["mount", "--bind", "/dev/null", shutil.which(program, path=PATH)])

    def show(self, program):
        """Undo `hide`."""
        self.run(["umount", shutil.which(program, path=PATH)])

    def start_engine(self):
        """Start a Docker engine at the usual place, /run/docker.sock."""
        self._cgroup = f"{self.folder.parent.name}-{self.name}"
        data, log = self.folder / "docker", self.folder / "dockerd.log"
        options = [f"--data-root={data}", "--group=docker", f"--cgroup-parent=/{self._cgroup}"]
        options += ["--exec-opt=native.cgroupdriver=cgroupfs", "--shutdown-timeout=2"]
        with log.open("wb") as file:
            argv = ["dockerd", *options]
            self._daemons.append(self.popen(argv, stdout=file, stderr=subprocess.STDOUT))

        def ready():
            if self._daemons[-1].poll() is not None:
                raise StandError(f"dockerd ended: {log.read_text()[-2000:]}")
            return not self.run(["docker", "version"], check=False).returncode

        wait_for("dockerd", ready, timeout=60)

    def serve_ssh(self, port=22, kind="shell"):
        """Start an sshd of one of `SSH_KINDS` on a port; all share the machine's host key."""
        self.ports.append(port)
        if not self.host_key_pub.exists():
            key = self.host_key_pub.with_suffix("")
            _check(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
        config = self.folder / f"sshd-{port}.conf"
        text = _SSHD_CONFIG.format(port=port, folder=self.folder, path=PATH, kind=SSH_KINDS[kind])
        config.write_text(text)
        log = self.folder / f"sshd-{port}.log"
        argv = ["/usr/sbin/sshd", "-D", "-f", config, "-E", log]
        self._daemons.append(self.popen(argv))
        probe = ["bash", "-c", f": </dev/tcp/127.0.0.1/{port}"]
        wait_for("sshd", lambda: not self.run(probe, check=False).returncode)

    def may_log_in_to(self, server, aliases):
        """Let root and the user here in at `server`; aliases: name -> (port, login name)."""
        for who in (None, USER):
            ssh = self.home_of(who) / ".ssh"
            for door in (None, USER):
                allowed = server.home_of(door) / ".ssh" / "authorized_keys"
                with allowed.open("a") as file:
                    file.write((ssh / "id_ed25519.pub").read_text())
            with (ssh / "config").open("a") as file:
                for alias, (port, login) in aliases.items():
                    file.write(f"Host {alias}\n  HostName {server.address}\n  Port {port}\n")
                    file.write(f"  User {login}\n  IdentityFile ~/.ssh/id_ed25519\n")
            os.chown(ssh / "config", UIDS[who], UIDS[who])
        self.know(server)

    def know(self, server, key="right"):
        """Set what known_hosts says of a server: its "right" key, a "wrong" one, or "none"."""
        holder = self.home / ".ssh/id_ed25519.pub" if key == "wrong" else server.host_key_pub
        names = [server.name, server.address]
        names += [f"[{name}]:{port}" for port in server.ports if port != 22 for name in names]
        line = " ".join([",".join(names), *holder.read_text().split()[:2]])
        for who in (None, USER):
            known = self.home_of(who) / ".ssh" / "known_hosts"
            old = known.read_text().splitlines() if known.exists() else []
            lines = [one for one in old if not one.startswith(f"{server.name},")]
            lines += [line] if key != "none" else []
            known.write_text("".join(f"{one}\n" for one in lines))
            os.chown(known, UIDS[who], UIDS[who])

    def stop(self):
        """End every process of the machine and leave nothing of it but its folder."""
        for each in self._forking.values():
            each.stop()
        self._holder.stop()
        for daemon in self._daemons:
            daemon.end()
        if self._cgroup:
            wait_for("the control groups", lambda: remove_cgroups(self._cgroup))


def cgroups(pattern):
    """Return the control groups of that name; those of others come and go meanwhile."""
    root = Path("/sys/fs/cgroup")
    return [*root.glob(pattern), *root.glob(f"*/{pattern}")]  # version 2, version 1


def remove_cgroups(pattern):
    """Remove the control groups of that name; false when one would not go yet."""
    groups = cgroups(pattern)
    for group in groups:
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
    return not any(group.exists() for group in groups)
