"""The owner of a Pi: one stack, one settings file, one vault, and the program run as a user does.

Also what an owner would look at afterwards: files, owners, hashes, points, leftovers.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

from stand import NO_NEXTCLOUD, compose, compose_up, count_points, fresh_iotstack, remove_iotstack
from stand_machine import PROGRAM, UIDS, wait_for

ENDINGS = {
    "general": "general-backup.tar.gz",
    "influx": "influx-backup.tar",
    "log": "backup-log.txt",
    "manifest": "manifest.json",
    "restore": "RESTORE.txt",
}
SQL_ENDINGS = {"mariadb": "mariadb-backup.tar.gz", "postgres": "postgres-backup.sql.gz.tar"}
ALL_ENDINGS = {**ENDINGS, **SQL_ENDINGS}
"""With those of a stack that has databases saved as SQL."""
HANG_S = 900
"""A run that takes longer hangs: one took 200 s where a hundred others wanted each core."""
MARKS = (".partial", ".unfinished.jsonl", ".removing", ".journal")


class Owner:
    """A user of a machine with a fresh, running stack and an empty vault on the NAS."""

    def __init__(self, pi, nas, *, user=None, version=None, fresh=fresh_iotstack):
        self.pi, self.nas, self.user = pi, nas, user
        self.top = fresh(pi, user=user, version=version)
        self.backups = self.top / "backups"
        self.vault = nas.home / "vault"
        self.settings_file = pi.home_of(user) / "hosts.toml"
        self.renew()

    def renew(self):
        """Begin again: no set here and in the vault, settings as usual."""
        for name in os.listdir(self.backups):
            if name != "influxdb":
                (self.backups / name).unlink()
        for name in os.listdir(self.backups / "influxdb/db"):
            shutil.rmtree(self.backups / "influxdb/db" / name)
        shutil.rmtree(self.vault, ignore_errors=True)
        self.vault.mkdir()
        self.set()

    def set(self, text="", *, stack="", vaults=None):
        """Write the settings: lines of [stack], other tables, and (host, folder) of vaults.

        All is packed, what can be fetched anew as well, where the lines do not say otherwise.
        """
        if "exclude_defaults" not in stack:
            stack += "\nexclude_defaults = false"
        vaults = {"nas": ("nas", "vault")} if vaults is None else vaults
        text = f'[stack]\nfolder = "~/IOTstack"\n{stack}\n{text}\n'
        text += "" if 'name = "nextcloud"' in text else NO_NEXTCLOUD
        for name, (host, folder) in vaults.items():
            text += f'[[vaults]]\nname = "{name}"\nkind = "ssh"\nhost = "{host}"\n'
            text += f'folder = "{folder}"\n'
        self.settings_file.write_text(text)

    def start(self, *words, **kw):
        """Start a backup and do not wait for it."""
        env = {"IOTSTACK_SETTINGS": str(self.settings_file), **kw.pop("env", {})}
        kw = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **kw}
        return self.pi.popen([*PROGRAM, "backup", *words], user=self.user, env=env, **kw)

    def backup(self, *words, code=0, env=None, timeout=HANG_S, **kw):
        """Make a backup; it must end with `code`, None for 0 or 3. Return what it said on stderr."""
        env = {"IOTSTACK_SETTINGS": str(self.settings_file), **(env or {})}
        done = self.pi.run(
            [*PROGRAM, "backup", *words],
            user=self.user,
            env=env,
            check=False,
            timeout=timeout,
            **kw,
        )
        said = f"{done.stdout}{done.stderr}"
        expected = (0, 3) if code is None else (code,)
        assert done.returncode in expected, f"exit {done.returncode}, not {expected}: {said}"
        assert "Traceback" not in said
        if code == 0 and "--dry-run" not in words:
            assert said == ""  # there is no terminal: a good run is silent
        return said

    def iot(self, *words, code=0, timeout=HANG_S):
        """Do another task; it must end with `code`. Return what it said."""
        env = {"IOTSTACK_SETTINGS": str(self.settings_file)}
        words = [*PROGRAM, *words]
        done = self.pi.run(words, user=self.user, env=env, check=False, timeout=timeout)
        said = f"{done.stdout}{done.stderr}"
        assert done.returncode == code, f"exit {done.returncode}, not {code}: {said}"
        assert "Traceback" not in said
        return said

    # What there is afterwards.

    def here(self, runtag, kind):
        """The path of a file of a set on the Pi."""
        return self.backups / f"{runtag}.{ALL_ENDINGS[kind]}"

    def there(self, runtag, kind):
        """The path of a file of a set in the vault."""
        return self.vault / f"{runtag}.{ALL_ENDINGS[kind]}"

    def manifest(self, runtag):
        """The manifest of a set as JSON."""
        return json.loads(self.here(runtag, "manifest").read_text())

    def log(self, runtag):
        """The text of the log of a set."""
        return self.here(runtag, "log").read_text()

    def kinds_there(self, runtag):
        """Which files of a set are in the vault."""
        return {kind for kind in ALL_ENDINGS if self.there(runtag, kind).exists()}

    def runtags(self, folder=None):
        """The runtags that have a manifest here, or in another folder."""
        ending = f".{ENDINGS['manifest']}"
        names = os.listdir(folder or self.backups)
        return sorted(n.removesuffix(ending) for n in names if n.endswith(ending))

    def assert_set(self, runtag, *, kinds=frozenset(ENDINGS)):
        """The files of a set are here and in the vault, whole, equal, private, the user's."""
        assert self.kinds_there(runtag) == set(kinds)
        for kind in ALL_ENDINGS:
            assert self.here(runtag, kind).exists() == (kind in kinds), kind
        for kind in kinds:
            path = self.here(runtag, kind)
            status = path.lstat()
            assert stat.S_IMODE(status.st_mode) == 0o600, path
            assert (status.st_uid, status.st_gid) == (UIDS[self.user],) * 2, path
            assert path.read_bytes() == self.there(runtag, kind).read_bytes(), path
            assert stat.S_IMODE(self.there(runtag, kind).stat().st_mode) == 0o600
        for part in self.manifest(runtag)["parts"].values():
            if not part["error"]:
                content = (self.backups / part["file"]).read_bytes()
                assert part["size_bytes"] == len(content)
                assert part["sha256"] == hashlib.sha256(content).hexdigest()
        self.assert_finals_whole()

    def assert_finals_whole(self):
        """Every file under a final name, here and in the vault, is whole."""
        for folder in filter(Path.exists, (self.backups, self.vault)):
            for path in folder.iterdir():
                kind = next((k for k, e in ALL_ENDINGS.items() if path.name.endswith(f".{e}")), "")
                if kind:
                    _assert_whole(path.read_bytes(), kind, path)

    def assert_nothing_left(self):
        """No partial file, mark, journal, dump folder or dump that runs is left."""
        left = [
            p for folder in (self.backups, self.vault) for p in folder.iterdir()
            if p.name.endswith(MARKS)
        ]  # fmt: skip
        assert left == []
        assert os.listdir(self.backups / "influxdb/db") == []
        assert self.processes("influxd backup") == []

    def processes(self, *words):
        """Command lines on the Pi, those in its containers too, that hold one of some words."""
        lines = self.pi.run(["ps", "-eo", "args"]).stdout.splitlines()
        return [line for line in lines if any(word in line for word in words)]

    def tree_hash(self):
        """One number for all that the stack, the backups and the vault hold."""
        digest = hashlib.sha256()
        for top in (self.top, self.vault):
            for folder, names, files in sorted(os.walk(top)):
                if "/volumes/influxdb" in folder:  # a server writes there by itself
                    continue
                for name in sorted({*names, *files} - {".lock"}):
                    path = os.path.join(folder, name)
                    facts = os.lstat(path)
                    digest.update(
                        repr((path, facts.st_mode, facts.st_uid)).encode(
                            "utf-8", "surrogateescape"
                        )
                    )
                    if stat.S_ISREG(facts.st_mode):
                        digest.update(repr((facts.st_mtime_ns, facts.st_size)).encode())
        return digest.hexdigest()

    # The way back, as the seed's restore goes it.

    def empty_influx(self):
        """Replace the InfluxDB of the stack by an empty one."""
        compose(self.pi, "rm", "-s", "-f", "influxdb", user=self.user)
        shutil.rmtree(self.top / "volumes/influxdb/data")
        (self.top / "volumes/influxdb/data").mkdir()
        compose_up(self.pi, "influxdb", user=self.user)

    def restore_influx(self, archive, expected):
        """Unpack an archive into the backup folder, load it, wait for the expected points."""
        folder = self.backups / "influxdb/db"
        subprocess.run(["tar", "-xf", archive, "-C", folder], check=True)
        load = ["influxd", "restore", "-portable", "/var/lib/influxdb/backup"]
        said = self.pi.run(["docker", "exec", "influxdb", *load]).stdout
        for path in folder.iterdir():
            path.unlink()
        wait_for("all points", lambda: count_points(self.pi) == expected, timeout=10)
        return said

    def away(self):
        """Remove the stack and the vault."""
        remove_iotstack(self.pi)
        shutil.rmtree(self.vault, ignore_errors=True)


_seen_whole = set()


def _assert_whole(content, kind, path):
    """A file of a set can be read to its end by what reads such files."""
    key = hashlib.sha256(content).digest()
    if key in _seen_whole:
        return
    if kind == "manifest":
        assert json.loads(content)["format"], path
    elif kind in ("log", "restore"):
        assert content.endswith(b"\n"), path
    elif kind == "general":
        names = _read_tar(gzip.decompress(content))
        assert {"./docker-compose.yml", "./services", "./volumes"} <= set(names), path
    elif kind in SQL_ENDINGS:
        _assert_dumps_whole(_read_tar(gzip.decompress(content)))
    else:
        shards = _read_tar(content)
        listed = next(json.loads(c) for n, c in shards.items() if n.endswith(".manifest"))
        for each in listed["files"] or ():
            inner = gzip.decompress(shards[f"./{each['fileName']}"])
            assert len(inner) == each["size"], path
            _read_tar(inner)
    _seen_whole.add(key)


def _assert_dumps_whole(members):
    """Each dump of a part has its last line."""
    assert members
    dumps = {name: dump for name, dump in members.items() if "/config/" not in name}
    for name, dump in dumps.items():
        text = gzip.decompress(dump) if name.endswith(".gz") else dump
        end = b"-- Dump completed" if name.endswith("backup.sql") else b"dump complete"
        assert end in text[-200:], name


def _read_tar(content):
    """The members of a tar with the bytes of the files; it must have its end."""
    assert content.endswith(bytes(1024))
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content), errorlevel=2) as archive:
        for member in archive:
            source = archive.extractfile(member) if member.isreg() else None
            found[member.name] = source.read() if source else b""
    return found


def inodes(*paths):
    """The inode of each file that is there: the same one afterwards was not made again."""
    return {Path(path): os.stat(path).st_ino for path in paths if os.path.exists(path)}
