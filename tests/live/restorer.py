"""A person at the Pi who restores: there, or to another host over SSH. And what is there then."""

import hashlib
import json
import os
import shutil
import stat
import sys
from pathlib import Path
from urllib.parse import urlencode

from owner import PROGRAM
from stand import _HTTP, NO_NEXTCLOUD, _python, fresh_iotstack, query
from stand_machine import UIDS, USER

LOGINS = {"test-pi": USER, "test-root": None}
"""The names of the far host in hosts.toml, and who logs in there."""
OWN = ("backups", "restore")
"""Folders of a stack that a restore works in: no part of its state."""


class Restorer:
    """Stacks on two machines, one vault, one settings file, and the program run as a user does."""

    def __init__(self, pi, far, nas, *, user=USER):
        self.pi, self.far, self.nas, self.user = pi, far, nas, user
        self.top = pi.home_of(user) / "IOTstack"
        self.vault = nas.home / "vault"
        self.vault.mkdir(exist_ok=True)
        self.settings_file = pi.home_of(user) / "hosts.toml"
        self.set()

    def set(self, *, stack="", hosts="", vault=True):
        """Write the settings: lines of [stack], of each of [[hosts]], with or without a vault.

        All is packed, what can be fetched anew as well, where the lines do not say otherwise.
        """
        if "exclude_defaults" not in stack:
            stack += "\nexclude_defaults = false"
        if "exclude_defaults" not in hosts:
            hosts += "\nexclude_defaults = false"
        text = f'[stack]\nfolder = "~/IOTstack"\n{stack}\n{NO_NEXTCLOUD}'
        if vault:
            text += '[[vaults]]\nname = "nas"\nkind = "ssh"\nhost = "nas"\nfolder = "vault"\n'
        for name in LOGINS:
            text += f'[[hosts]]\nname = "{name}"\nhost = "{name}"\n{hosts}\n'
        self.settings_file.write_text(text)

    def fresh(self, machine, *, host="", version=None):
        """Lay out a new running stack and return its folder; on the far machine for `host`."""
        user = LOGINS[host] if host else self.user
        return fresh_iotstack(machine, user=user, version=version)

    def usb(self, *files):
        """Copies of some files in a folder of the user's, and of nothing else; its path."""
        folder = self.pi.home_of(self.user) / "usb"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for file in files:
            shutil.copy(file, folder)
        for path in (folder, *folder.iterdir()):
            os.chown(path, UIDS[self.user], UIDS[self.user])
        return folder

    def far_top(self, host="test-pi"):
        """The folder of the far machine's stack for whoever logs in as `host`."""
        return self.far.home_of(LOGINS[host]) / "IOTstack"

    def iot(self, *words, code=0, env=None, **kw):
        """Run the program; it must end with `code`. Return what it said."""
        env = {"IOTSTACK_SETTINGS": str(self.settings_file), **(env or {})}
        kw = {"timeout": 300, "user": self.user, **kw}
        done = self.pi.run([*PROGRAM, *words], check=False, env=env, **kw)
        said = f"{done.stdout}{done.stderr}"
        assert done.returncode == code, f"exit {done.returncode}, not {code}: {said}"
        assert "Traceback" not in said
        return said

    def start(self, *words, **kw):
        """Start the program and do not wait for it."""
        env = {"IOTSTACK_SETTINGS": str(self.settings_file)}
        return self.pi.popen([*PROGRAM, *words], user=self.user, env=env, **kw)

    def logs(self, *, host=False):
        """The text of all logs of restores: of those to this machine, or to other hosts."""
        here = self.top / "backups"
        there = self.pi.home_of(self.user) / ".local/state/iotstack"
        folder = there if host else here
        return "\n".join(p.read_text() for p in sorted(folder.glob("*.restore-*.log")))


def tree(top):
    """All of a stack but InfluxDB's own files: kind, mode, owner, time, content, links, xattrs."""
    found, inodes = {}, {}
    for folder, folders, files in os.walk(top):
        if folder == str(top):
            folders[:] = [name for name in folders if name not in OWN]
            found["."] = _fact(top, inodes, "")
        if folder.endswith("/volumes/influxdb"):
            folders[:] = []
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, top)
            if relative == "volumes/influxdb/data":
                continue
            found[relative] = _fact(path, inodes, relative)
    return found


def without_counters(content):
    """The bytes of a file; of a SQLite database without what each copy of it has anew."""
    if content.startswith(b"SQLite format 3\0"):  # https://sqlite.org/fileformat2.html, 1.3
        counted = bytearray(content)
        for begin, end in ((24, 28), (40, 44), (92, 100)):
            counted[begin:end] = bytes(end - begin)
        content = bytes(counted)
    return content


def _fact(path, inodes, relative):
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    content, when = "", 0
    if stat.S_ISLNK(kind):
        content = os.readlink(path)
    elif stat.S_ISREG(kind):
        content, when = (
            hashlib.sha256(without_counters(Path(path).read_bytes())).hexdigest(),
            int(status.st_mtime),
        )
    names = sorted(os.listxattr(path, follow_symlinks=False))
    attributes = [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names]
    linked = ""
    if status.st_nlink > 1 and not stat.S_ISDIR(kind):
        linked = inodes.setdefault(status.st_ino, relative)
    mode = oct(status.st_mode)
    return (mode, status.st_uid, status.st_gid, when, content, attributes, linked)


def below(found, *places):
    """What of a tree lies in some places of it, themselves included."""
    return {
        name: fact
        for name, fact in found.items()
        if any(name == place or name.startswith(f"{place}/") for place in places)
    }


def points(machine, *, ask=query):
    """Every point of a server as text, by (database, policy); a database without any has []."""
    (databases,) = ask(machine, "SHOW DATABASES")
    found = {}
    for (name,) in databases[0].get("values", []):
        if name == "_internal":
            continue
        (policies,) = ask(machine, f'SHOW RETENTION POLICIES ON "{name}"')
        for policy, *settings in policies[0]["values"]:
            said = ask(machine, f'SELECT * FROM "{name}"."{policy}"./.*/ GROUP BY *')[0]  # noqa: S608
            found[name, policy] = (settings, sorted(json.dumps(s, sort_keys=True) for s in said))
    return found


def only(database, found):
    """What of the points is in one database."""
    return {place: held for place, held in found.items() if place[0] == database}


def asking(name, password):
    """Return a `query` that logs in."""

    def ask(machine, statement):
        login = urlencode({"epoch": "ns", "u": name, "p": password})
        body = urlencode({"q": statement})
        url = f"http://127.0.0.1:8086/query?{login}"
        (result,) = json.loads(_python(machine, _HTTP, url, input=body))["results"]
        assert "error" not in result, result
        return [result.get("series", [])]

    return ask


_CLIENT = """
import sys, time, urllib.error, urllib.parse, urllib.request
taken = 0
while True:
    for url, body in (
        ("query", urllib.parse.urlencode({"q": 'CREATE DATABASE "home"'})),
        ("write?db=home", f"client value=1 {time.time_ns()}"),
    ):
        try:
            request = urllib.request.Request("http://127.0.0.1:8086/" + url, data=body.encode())
            urllib.request.urlopen(request, timeout=5).close()
            taken += 1
        except OSError:
            time.sleep(0.01)
    print(taken, flush=True)
"""


def start_client(machine):
    """Start what keeps creating its database and writing into it, not in a container."""
    return machine.popen([sys.executable, "-I", "-S", "-c", _CLIENT], stdout=-3)


def containers(machine):
    """Every container of a machine with whether it runs and when it was started."""
    ids = machine.run(["docker", "ps", "-aq"]).stdout.split()
    if not ids:
        return {}
    form = "{{.Name}} {{.State.Running}} {{.State.StartedAt}}"
    lines = machine.run(["docker", "inspect", "--format", form, *ids]).stdout.splitlines()
    return {n.lstrip("/"): (r == "true", at) for n, r, at in map(str.split, lines)}


def running(machine):
    """The names of the containers that run."""
    return {name for name, (runs, _) in containers(machine).items() if runs}


def write_oddities(folder, owner=UIDS[USER]):
    """Put into a folder of a stack the kinds of files that are easily lost on the way."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "two\nlines").write_bytes(b"n")
    (folder / " blanks ").write_bytes(b"b")
    (folder / "-rf").write_bytes(b"dash")
    (folder / "Küche 'q\" $(id) \\").write_bytes(b"q")
    Path(os.fsdecode(os.fsencode(folder) + b"/latin1-\xe9")).write_bytes(b"no UTF-8")
    (folder / "suid").write_bytes(b"s")
    (folder / "suid").chmod(0o4755)
    (folder / "unreadable").write_bytes(b"u")
    (folder / "unreadable").chmod(0)
    (folder / "first").write_bytes(b"one inode, two names")
    os.setxattr(folder / "first", "user.comment", "Bär".encode())
    (folder / "second").hardlink_to(folder / "first")
    (folder / "link").symlink_to("first")
    (folder / "absolute").symlink_to("/etc/hostname")
    (folder / "empty folder").mkdir()
    (folder / "sticky").mkdir()
    (folder / "sticky").chmod(0o1777)
    (folder / "huge ids").write_bytes(b"h")
    os.chown(folder / "huge ids", 3_000_000_000, 2_999_999_999)
    os.mkfifo(folder / "pipe")
    os.chown(folder / "pipe", owner, owner)
