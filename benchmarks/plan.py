"""The plan of 1,000 jobs, and the engine's own time for a job.

    python benchmarks/plan.py

The reach: plan ≤ 50 ms, ≤ 2 ms a job.
"""

import os
import statistics
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(__file__))
import pairs

from iotstack_invoke.engine import Run
from iotstack_invoke.hosts import LocalHost
from iotstack_invoke.journal import Journal
from iotstack_invoke.plan import decide, resolve
from iotstack_invoke.rules import Rule, RuleBook

JOBS = 1000


class Ledger(dict):
    def known(self):
        return self

    def add(self, record):
        self[record.output] = record


class Quiet:
    def __getattr__(self, _name):
        return lambda *_words: None


class Touch:
    def __init__(self, output):
        self.output = output

    def commands(self):
        return (f"touch {self.output}",)

    def do(self, scene):
        with scene.host("pi").create(self.output.partial):
            pass


def body(job):
    yield Touch(job.output)


def main():
    chain = [
        Rule(f"rule{n}", (f"pi:f{n}",), body, inputs=(f"pi:f{n - 1}",) if n % 10 else ())
        for n in range(JOBS)
    ]
    targets = [f"pi:f{n}" for n in range(JOBS)]
    book = RuleBook(*chain)
    times = []
    for _ in range(9):
        started = time.perf_counter()
        plan = decide(resolve(book, targets, {"pi": "/nowhere"}), {})
        times.append(time.perf_counter() - started)
    print(f"plan of {JOBS} jobs: {statistics.median(times) * 1000:.1f} ms")
    with tempfile.TemporaryDirectory() as top:
        host = LocalHost(top)
        plan = decide(resolve(book, targets, {"pi": top}), {})
        journal = Journal(host, f"{top}/.journal", ())
        run = Run(plan, {"pi": host}, ledger=Ledger(), journal=journal, watcher=Quiet())
        wall, cpu = pairs.measure(run.do)
    print(
        f"{JOBS} jobs done: {wall / JOBS * 1000:.2f} ms wall, {cpu / JOBS * 1000:.2f} ms CPU each"
    )


main()
