"""A little rulebook as a program, for tests that kill it: four files, one journaled step.

`python killable_run.py FOLDER run` runs it; `... crash` runs it again and again in FOLDER/0, /1 …,
killed at each boundary in turn, finishes each and tells how as JSON lines; `... slow` has two jobs
that last until a signal comes.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass

from iotstack_invoke.backups.manifest import read_records, record_line
from iotstack_invoke.core.errors import Interrupted
from iotstack_invoke.engine.executor import Run
from iotstack_invoke.engine.journal import Journal
from iotstack_invoke.engine.plan import decide, resolve
from iotstack_invoke.engine.rules import RuleBook, rule
from iotstack_invoke.engine.steps import File, HostAccess
from iotstack_invoke.hosts.base import PARTIAL, Command
from iotstack_invoke.hosts.local import LocalHost

FATE = {"passed": 0, "killed_at": 0}


def boundary():
    """Die here, if it is our turn."""
    FATE["passed"] += 1
    if FATE["passed"] == FATE["killed_at"]:
        os.kill(os.getpid(), signal.SIGKILL)


class Mortal(LocalHost):
    """This machine, on which every change may be the last thing before or after a crash."""

    def rename(self, old, new):
        boundary()
        super().rename(old, new)
        boundary()

    def append(self, path, line):
        boundary()
        super().append(path, line)
        boundary()

    def remove(self, paths):
        boundary()
        super().remove(paths)
        boundary()


@dataclass(frozen=True)
class Write:
    """Write the texts of the inputs and one more, half of it before a boundary."""

    output: File
    text: str
    inputs: tuple = ()

    def commands(self):
        return (f"write {self.output}",)

    def do(self, context):
        host = context.host(self.output.role)
        host.did(str(self.output))
        with host.create(self.output.partial) as target:
            target.write(b"half")
            target.flush()
            boundary()
            target.seek(0)
            target.truncate()
            for each in self.inputs:
                with host.read(each.absolute) as source:
                    target.write(source.read())
            target.write(self.text.encode())
        boundary()


@dataclass(frozen=True)
class MakeScratch:
    """Make a folder that must not outlive the job."""

    access: HostAccess
    folder: str

    def commands(self):
        return (f"mkdir {self.folder}",)

    def do(self, context):
        boundary()
        os.mkdir(self.folder)
        boundary()
        with open(f"{self.folder}/file", "w") as stream:
            stream.write("x")
        boundary()

    def undo(self, host):
        boundary()
        shutil.rmtree(self.folder, ignore_errors=True)
        boundary()


@dataclass(frozen=True)
class RemoveScratch:
    """Remove the folder at the good end of the job."""

    folder: str

    def commands(self):
        return (f"rm -r {self.folder}",)

    def do(self, context):
        boundary()
        shutil.rmtree(self.folder)
        boundary()


@dataclass(frozen=True)
class Sleep:
    """Run a program that does not end by itself, with a child of its own."""

    output: File

    def commands(self):
        return ("sleep 300",)

    def do(self, context):
        host = context.host("pi")
        with host.create(self.output.partial) as target:
            target.write(b"half")
        script = 'sleep 300 & echo $! > "$1.new"; mv "$1.new" "$1"; wait'
        host.run(Command(("sh", "-c", script, "sh", f"{host.root}/pid"), timeout_s=300))


@dataclass(frozen=True)
class Move:
    """Move bytes for as long as it is allowed to."""

    output: File

    def commands(self):
        return ("move",)

    def do(self, context):
        with context.host("pi").create(self.output.partial) as target:
            for _ in range(30_000):
                target.write(b"x")
                context.advance(1)
                time.sleep(0.01)


@rule("pi:a.txt")
def first(job):
    """Make the first file."""
    yield Write(job.output, "a")


@rule("pi:b.txt", input="pi:a.txt")
def second(job):
    """Make the second with a folder that is only needed meanwhile."""
    scratch = f"{job.output.root}/scratch"
    yield MakeScratch(HostAccess("pi"), scratch)
    yield Write(job.output, "b", job.inputs)
    yield RemoveScratch(scratch)


@rule("pi:c.txt", input="pi:b.txt")
def third(job):
    """Replace the third."""
    yield Write(job.output, "c", job.inputs)


@rule("pi:list.txt", input=("pi:a.txt", "pi:b.txt", "pi:c.txt"), always=True)
def listed(job):
    """Write all down."""
    yield Write(job.output, "!", job.inputs)


@rule("pi:slow.txt")
def slow(job):
    """Never end, with something to undo."""
    yield MakeScratch(HostAccess("pi"), f"{job.output.root}/scratch")
    yield Sleep(job.output)


@rule("pi:moving.txt")
def moving(job):
    """Move bytes without an end."""
    yield Move(job.output)


@rule("pi:later.txt", input="pi:slow.txt")
def later(job):
    """Wait for the one that never ends."""
    yield Write(job.output, "later")


BOOK = RuleBook(first, second, third, listed)
SLOW_BOOK = RuleBook(slow, moving, later)


class FileLedger:
    """Records in a file, synced one by one."""

    def __init__(self, host, path):
        self.host = host
        self.path = path
        lines = []
        with contextlib.suppress(FileNotFoundError), open(path) as stream:
            lines = stream.readlines()
        self.records = read_records(lines)

    def known(self):
        return self.records

    def add(self, record):
        self.host.append(self.path, record_line(record))
        self.records = {**self.records, record.output: record}


class Nobody:
    """A watcher that does not look."""

    def __getattr__(self, name):
        return lambda *_: None


def run(folder, book, targets, jobs=1):
    """Recover, sweep, plan and run, in the order of every task."""
    host = Mortal(folder)
    acted = f"{folder}.acted"

    def did(output):
        with open(acted, "a") as stream:
            stream.write(output + "\n")

    host.did = did
    journal = Journal(host, f"{folder}/.journal", [MakeScratch])
    lines = []
    with contextlib.suppress(FileNotFoundError), open(journal.path) as stream:
        lines = stream.readlines()
    journal.recover(lines)
    host.remove(f"{folder}/{name}" for name in os.listdir(folder) if name.endswith(PARTIAL))
    store = FileLedger(host, f"{folder}/.records")
    graph = resolve(book, targets, {"pi": folder})
    looked = host.stat(file.absolute for file in graph.files)
    files = {file: looked[file.absolute] for file in graph.files if file.absolute in looked}
    plan = decide(graph, files, store.known())
    return Run(
        plan, {"pi": host}, store=store, journal=journal, reporter=Nobody(), jobs_at_once=jobs
    ).do()


TARGETS = ("pi:c.txt", "pi:list.txt")


def begin(folder):
    """Make the folder as it was before the first run: with an old third file."""
    os.makedirs(folder)
    with open(f"{folder}/c.txt", "w") as stream:
        stream.write("old c")
    os.utime(f"{folder}/c.txt", (1e9, 1e9))


def contents(folder):
    found = {}
    for name in sorted(os.listdir(folder)):
        path = f"{folder}/{name}"
        if os.path.isfile(path):
            with open(path) as stream:
                found[name] = stream.read()
        else:
            found[name + "/"] = ""
    return found


def acted(folder):
    """Return what was made since the last look."""
    made = []
    with contextlib.suppress(FileNotFoundError):
        with open(f"{folder}.acted") as stream:
            made = stream.read().split()
        os.unlink(f"{folder}.acted")
    return made


def forked(folder, killed_at):
    """Run in a child that is killed at a boundary (0: at none); return its wait status."""
    pid = os.fork()
    if pid == 0:
        FATE["killed_at"] = killed_at
        code = 1
        try:
            code = 0 if not run(folder, BOOK, TARGETS).failed else 1
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def crash_everywhere(base):
    """Kill a run at each boundary, and the run that recovers at each of its first; finish all."""
    number = 0
    while True:
        number += 1
        folder = f"{base}/{number}"
        begin(folder)
        status = forked(folder, number)
        if status == 0:
            break
        told = {
            "killed": os.WIFSIGNALED(status),
            "crashed": contents(folder),
            "made": acted(folder),
        }
        again = 2 + number % 5
        told["killed_again"] = os.WIFSIGNALED(forked(folder, again))
        told["crashed_again"] = contents(folder)
        told["made_again"] = acted(folder)
        told["last"] = forked(folder, 0)
        told["made_last"] = acted(folder)
        told["end"] = contents(folder)
        told["idle"] = forked(folder, 0)
        told["made_idle"] = acted(folder)
        print(json.dumps(told), flush=True)
    print(json.dumps({"boundaries": number - 1, "made": acted(folder), "end": contents(folder)}))


def main():
    folder, what = sys.argv[1:]
    if what == "crash":
        crash_everywhere(folder)
        return
    try:
        result = run(folder, *{"run": (BOOK, TARGETS), "slow": (SLOW_BOOK, SLOW_TARGETS, 2)}[what])
    except Interrupted as error:
        sys.exit(error.exit_code)
    sys.exit(1 if result.failed else 0)


SLOW_TARGETS = ("pi:later.txt", "pi:moving.txt")

if __name__ == "__main__":
    main()
