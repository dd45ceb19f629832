"""The plan of 1,000 rules, and the engine's time for a job, against snakemake and doit.

    python benchmarks/plan.py [JOBS]

The reach: plan ≤ 50 ms, ≤ 2 ms a job in addition to its command. Chains of ten jobs, two jobs at
once. All ways are whole processes. The plan is that of a build with nothing to do (`snakemake -n`,
`doit`). A build makes each file with `touch`, or in Python if its row says so. Ours syncs each
file, its record and its name; the rivals sync nothing. "A job" is (build - plan) / jobs. If a
`touch` is run, its bare cost is subtracted; the rest includes the time of Invoke and of a shell.
"""

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))
import pairs

from iotstack_invoke.backups.manifest import record_line
from iotstack_invoke.engine.executor import Run
from iotstack_invoke.engine.journal import Journal
from iotstack_invoke.engine.plan import decide, resolve
from iotstack_invoke.engine.rules import Rule, RuleBook
from iotstack_invoke.hosts.base import Command
from iotstack_invoke.hosts.local import LocalHost

CHAIN = 10
AT_ONCE = 2
PLAN_MS = 50
JOB_MS = 2
IN_PYTHON = "in Python"


class Ledger(dict):
    """Records in a file, each synced, as those of a set."""

    def __init__(self, host):
        self.host = host

    def known(self):
        return self

    def add(self, record):
        self.host.append(f"{self.host.root}/.records", record_line(record))
        self[record.output] = record


class Quiet:
    def __getattr__(self, _name):
        return lambda *_words: None


class Touch:
    """Makes an empty file, by a command or in Python."""

    def __init__(self, output, by_command):
        self.output, self.by_command = output, by_command

    def commands(self):
        return (f"touch {self.output.partial}",)

    def do(self, context):
        host = context.host("pi")
        if self.by_command:
            host.run(Command(("touch", self.output.partial)))
        else:
            with host.create(self.output.partial):
                pass


def book_of(jobs, by_command):
    """Return the rules: each file is made from the one before it, but for the first of a chain."""

    def body(job):
        yield Touch(job.output, by_command)

    rules = [
        Rule(f"rule{n}", (f"pi:f{n}",), body, inputs=(f"pi:f{n - 1}",) if n % CHAIN else ())
        for n in range(jobs)
    ]
    return RuleBook(*rules), [f"pi:f{n}" for n in range(jobs)]


def ours(jobs, by_command):
    """Make what is missing here: this is what the whole processes of ours do."""
    book, targets = book_of(jobs, by_command)
    host = LocalHost(os.getcwd())
    graph = resolve(book, targets, {"pi": host.root})
    found = host.stat(file.absolute for file in graph.files)
    plan = decide(graph, {f: found[f.absolute] for f in graph.files if f.absolute in found})
    journal = Journal(host, f"{host.root}/.journal", ())
    run = Run(plan, {"pi": host}, store=Ledger(host), journal=journal, reporter=Quiet())
    assert not run.do().failed


def snakefile(jobs):
    """Return the same rules for snakemake."""
    names = ", ".join(f'"f{n}"' for n in range(jobs))
    rules = [f"rule all:\n    input: {names}\n"]
    for n in range(jobs):
        source = f'    input: "f{n - 1}"\n' if n % CHAIN else ""
        rules.append(f'rule r{n}:\n{source}    output: "f{n}"\n    shell: "touch {{output}}"\n')
    return "\n".join(rules)


def dodo(jobs, by_command):
    """Return the same rules for doit."""
    action = 'f"touch f{n}"' if by_command else '(Path.touch, [Path(f"f{n}")])'
    return f"""
from pathlib import Path
from doit.tools import run_once

def task_f():
    for n in range({jobs}):
        after = {{"file_dep": [f"f{{n - 1}}"]}} if n % {CHAIN} else {{"uptodate": [run_once]}}
        yield {{"name": n, "targets": [f"f{{n}}"], "actions": [{action}], **after}}
"""


class Way:
    """One program: how it plans and builds in a folder of its own."""

    def __init__(self, name, top, texts, plan, build):
        self.name, self.plan_words, self.build_words, self.texts = name, plan, build, texts
        self.folders = (Path(top) / f"{name}-{n}" for n in itertools.count())
        self.built = None
        self.plans, self.builds = [], []

    def build(self):
        self.built = next(self.folders)
        self.built.mkdir()
        for name, text in self.texts.items():
            (self.built / name).write_text(text)
        self._run(self.build_words)

    def plan(self):
        self._run(self.plan_words)

    def _run(self, words):
        told = subprocess.run(words, cwd=self.built, capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stdout + told.stderr


def touches(top, jobs):
    """Run `touch` as often, nothing around it."""

    def touch(n):
        subprocess.run(["touch", f"{top}/alone{n}"], check=True, stdin=subprocess.DEVNULL)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(touch, range(jobs)))


def rivals(top, jobs):
    """Return the ways of the rivals, from PyPI into a folder that goes."""
    venv.create(f"{top}/rivals", with_pip=True)
    tools = f"{top}/rivals/bin"
    pip = [f"{tools}/pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "snakemake", "doit"], check=True, stderr=subprocess.PIPE)
    listed = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout
    version = dict(line.split("==") for line in listed.split() if "==" in line)
    doit = [f"{tools}/doit", "-n", str(AT_ONCE), "-P", "thread", "-v", "0"]
    snake = [f"{tools}/snakemake", "-c", str(AT_ONCE), "-q", "all"]
    shell, python = ({"dodo.py": dodo(jobs, each)} for each in (True, False))
    return [
        Way(f"doit {version['doit']}", top, shell, doit, doit),
        Way(f"doit {version['doit']}, {IN_PYTHON}", top, python, doit, doit),
        Way(
            f"snakemake {version['snakemake']}",
            top,
            {"Snakefile": snakefile(jobs)},
            [*snake, "-n"],
            snake,
        ),
    ]


def engine_alone(jobs):
    """Return a function that plans in this process, where all is imported and looked at."""
    book, targets = book_of(jobs, by_command=True)
    roots = {"pi": "/nowhere"}
    return lambda: decide(resolve(book, targets, roots), {})


def main():
    if sys.argv[1:2] == ["ours"]:
        ours(int(sys.argv[2]), sys.argv[3] == "command")
        return
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    plan, planned = engine_alone(jobs), []
    with tempfile.TemporaryDirectory(prefix="iotstack-bench-") as top:
        me = [sys.executable, os.path.abspath(__file__), "ours", str(jobs)]
        ways = [
            Way("ours", top, {}, [*me, "command"], [*me, "command"]),
            Way(f"ours, {IN_PYTHON}", top, {}, [*me, "python"], [*me, "python"]),
            *rivals(top, jobs),
        ]
        os.sync()  # what pip wrote would be waited for by the first that syncs
        alone = []
        for _ in range(2):
            planned += [pairs.measure(plan) for _ in range(5)]
            alone.append(pairs.measure(lambda: touches(top, jobs)))
            for way in ways:
                way.builds.append(pairs.measure(way.build))
        for _ in range(3):
            planned += [pairs.measure(plan) for _ in range(5)]
            for way in ways:
                way.plans.append(pairs.measure(way.plan))
        tell_plan(jobs, planned)
        tell(jobs, ways, alone)


def tell_plan(jobs, planned):
    """Print what the plan costs; it is measured several times, between the others."""
    walls = sorted(1000 * wall for wall, _ in planned)
    wall = statistics.median(walls)
    print(
        f"Plan of {jobs:,} rules, engine alone: {wall:.0f} ({walls[0]:.0f} … {walls[-1]:.0f}) ms "
        f"wall{pairs.verdict(wall, PLAN_MS)}"
    )


def tell(jobs, ways, alone):
    """Print the table: of each way the medians, and what is left of a job without its command."""
    print("| way | plan: wall s | CPU s | build: wall s | CPU s | a job: wall ms | CPU ms |")
    print("|---|---|---|---|---|---|---|")
    bare, own_ms = medians(alone), {}
    for way in ways:
        plan, build = medians(way.plans), medians(way.builds)
        less = (0, 0) if IN_PYTHON in way.name else bare
        own = [1000 * (b - p - t) / jobs for b, p, t in zip(build, plan, less, strict=True)]
        own_ms[way.name] = own[0]
        numbers = " | ".join(f"{each:.2f}" for each in (*plan, *build, *own))
        print(f"| {way.name} | {numbers} |")
    print(f"| {jobs:,} `touch`, nothing around | | | {bare[0]:.2f} | {bare[1]:.2f} | | |")
    mine = own_ms[f"ours, {IN_PYTHON}"]
    print(f"A job of ours, in Python: {mine:.2f} ms wall{pairs.verdict(mine, JOB_MS)}")


def medians(pairs_of_s):
    """Return the median of the wall and of the processor seconds."""
    return tuple(map(statistics.median, zip(*pairs_of_s, strict=True)))


main()
