"""A second night with an unchanged stack, and a third night with a few changes, against restic.

    python benchmarks/unchanged.py [MEGABYTES]

No reach: this shows where we lose. Ours makes a set here and a copy of it in a vault over SSH;
restic makes a repository here, or on the other side of the same sshd over SFTP. Before the third
night, one file of a hundred is rewritten, and a log and a database have grown a little, as they do
each night. CPU and bytes written are those of this side. Everything that passes the loopback
counts as sent, so no other program may use it: `unshare -n` with `ip link set lo up` gives a
separate loopback. "Here" and "there" are the totals of all nights. This needs restic: apt-get
install restic.
"""

import itertools
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
from contextlib import closing
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))
import pairs
from line import far_vault

ROUNDS = 3
NIGHTS = ("first", "second, unchanged", "third, 1 % changed")


def counter(path, before):
    """Return the number behind some words of a file of the kernel's."""
    return int(Path(path).read_text().partition(before)[2].split()[0])


def written_bytes():
    """Return what this process and its ended children gave to disks (proc(5), io)."""
    return counter("/proc/self/io", "\nwrite_bytes:")


def sent_bytes():
    """Return what went over the loopback."""
    return counter("/proc/net/dev", " lo:")


def kept_bytes(folder):
    """Return the size of all files below a folder; 0 where there is none."""
    return sum(path.lstat().st_size for path in Path(folder).rglob("*") if path.is_file())


class Ours:
    """`inv backup`: a set here, and its copy in the vault."""

    name = "inv backup"

    def __init__(self, context):
        self.context, self.numbers = context, itertools.count()
        self.here, self.there = context.stack.folder / "backups", context.vault

    def begin(self):
        """Forget all nights."""
        for path in (*self.here.glob("*"), *self.there.glob("*")):
            path.unlink()

    def back_up(self):
        self.context.run(f"backup --runtag r{next(self.numbers)}")


class Restic:
    """restic into a repository here or, with `ssh`, over SFTP into one there."""

    def __init__(self, context, name, ssh=None):
        self.context, self.name = context, name
        folder, nothing = Path(context.top) / name.replace(" ", "-"), Path(context.top) / "nothing"
        self.here, self.there = (nothing, folder) if ssh else (folder, nothing)
        self.cache = f"{folder}.cache"
        self.words = ["restic", "--quiet", "--cache-dir", self.cache, "-r", str(folder)]
        if ssh:
            known = f"UserKnownHostsFile={ssh.known_hosts}"
            line = f"ssh -F {ssh.config} -p {ssh.port} -i {ssh.key} -o {known}"
            line += f" {ssh.user}@{ssh.host} -s sftp"
            self.words[-1] = f"sftp:{ssh.host}:{folder}"
            self.words += ["-o", f"sftp.command={line}"]

    def run(self, *words, folder=None):
        environment = {**os.environ, "RESTIC_PASSWORD": "benchmark"}
        subprocess.run([*self.words, *words], check=True, cwd=folder, env=environment)

    def begin(self):
        """Forget all nights."""
        for each in (self.here, self.there, self.cache):
            shutil.rmtree(each, ignore_errors=True)
        self.run("init")

    def back_up(self):
        members = ("docker-compose.yml", "services", "volumes")
        self.run("backup", *members, folder=self.context.stack.folder)


def change(folder, number):
    """Let a night's work happen to a stack."""
    modules = sorted((folder / "volumes/nodered/data/node_modules").rglob("*.json"))
    for path in modules[number::100]:
        path.write_text(path.read_text()[::-1])
    with (folder / "volumes/zigbee2mqtt/data/log/log.1.txt").open("a") as stream:
        stream.writelines(f"night {number}: {n * 7919 % 10007}\n" for n in range(1000))
    path = folder / "volumes/home_assistant/home-assistant_v2.db"
    with closing(sqlite3.connect(path)) as database, database:
        rows = [(f"sensor.room_{n % 60}", n * 0.7) for n in range(1000)]
        database.executemany("INSERT INTO states (entity, state) VALUES (?, ?)", rows)


def night(way):
    """Back up once; return wall and CPU seconds, and bytes: written, sent, kept here and there."""
    written, sent = written_bytes(), sent_bytes()
    wall_s, cpu_s = pairs.measure(way.back_up)
    written, sent = written_bytes() - written, sent_bytes() - sent
    return wall_s, cpu_s, written, sent, kept_bytes(way.here), kept_bytes(way.there)


def main():
    if not shutil.which("restic"):
        sys.exit("There is no restic here: apt-get install restic")
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with far_vault(megabytes) as context:
        ours = Ours(context)
        ways = (ours, Restic(context, "restic here"), Restic(context, "restic far", context.login))
        found = {(each, way): [] for each in NIGHTS for way in ways}
        for number in range(ROUNDS):
            for way in ways:
                way.begin()
            for each in NIGHTS:
                if each is NIGHTS[-1]:
                    change(context.stack.folder, number)
                for way in ways:
                    found[each, way].append(night(way))
        version = subprocess.run(["restic", "version"], check=True, capture_output=True, text=True)
        print(f"{megabytes} MB, {version.stdout.split(' compiled')[0]}")
        print("| night | way | wall s | CPU s | MB written | MB sent | MB here | MB there |")
        print("|---|---|---|---|---|---|---|---|")
        for (each, way), rounds in found.items():
            wall_s, cpu_s, *sizes = map(statistics.median, zip(*rounds, strict=True))
            numbers = " | ".join(f"{size / 1e6:.1f}" for size in sizes)
            print(f"| {each} | {way.name} | {wall_s:.2f} | {cpu_s:.2f} | {numbers} |")
        for each in NIGHTS:
            for rival in ways[1:]:
                both = list(zip(found[each, ours], found[each, rival], strict=True))
                wall, cpu = (statistics.median(a[n] / b[n] for a, b in both) for n in (0, 1))
                print(f"{each}: {ours.name} / {rival.name}, wall: {wall:.2f}, CPU: {cpu:.2f}")


main()
