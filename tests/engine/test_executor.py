"""The engine: outputs whole or not at all, steps undone, whatever ends the run."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import folders
import pytest
from contexts import alive, until
from killable_run import FileLedger, MakeScratch, Nobody

from iotstack_invoke.core.errors import Interrupted, StepFailed
from iotstack_invoke.core.processes import signals_raised
from iotstack_invoke.databases.influxdb.dump import wait_for_ping
from iotstack_invoke.databases.sql.dump import wait_for_server
from iotstack_invoke.databases.sql.servers import SqlServer
from iotstack_invoke.engine import executor as engine
from iotstack_invoke.engine.executor import JobStatus, Run
from iotstack_invoke.engine.journal import Journal
from iotstack_invoke.engine.plan import decide, resolve
from iotstack_invoke.engine.rules import Rule, RuleBook
from iotstack_invoke.engine.steps import COMMIT, File, HostAccess, UndoableStep
from iotstack_invoke.hosts.base import Command
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.stack.isolated import remove_ours
from iotstack_invoke.stack.parallel import InParallel

LITTLE_RUN = os.path.join(str(folders.TESTS), "killable_run.py")


@dataclass(frozen=True, eq=False)
class Call:
    """A step that calls a function with the scene."""

    act: object
    text: str = "call"

    def commands(self):
        return (self.text,)

    def do(self, context):
        self.act(context)


def write(output, text="made"):
    """Return a step that writes a file under its partial name."""

    def act(context):
        with context.host(output.role).create(output.partial) as target:
            target.write(text.encode())

    return Call(act, f"write {output} {text}")


def test_steps_together_all_end_before_one_fails():
    """Each waits for the other here, so they are done at once; the first failure is told."""
    both, ended = threading.Barrier(2, timeout=10), []

    def first(_scene):
        both.wait()
        raise StepFailed("the first")

    def second(_scene):
        both.wait()
        time.sleep(0.1)
        ended.append("second")
        raise StepFailed("the second")

    step = InParallel((Call(first, "a"), Call(second, "b")))
    assert step.commands() == ("a", "b")
    with pytest.raises(StepFailed, match="the first"):
        step.do(None)
    assert ended == ["second"]
    assert not isinstance(step, UndoableStep)


def fail(message="broken", **given):
    """Return a step that fails."""

    def act(context):
        raise StepFailed(message, **given)

    return Call(act, "fail")


def makes(name, body=None, **given):
    """Return a rule that makes `pi:name`; a body is given the job and returns its steps."""
    rule = Rule(
        name=name,
        outputs=(f"pi:{name}",),
        body=body or (lambda job: [write(job.output)]),
        **given,
    )
    return replace(rule, inputs=tuple(f"pi:{each}" for each in rule.inputs))


class Notes(Nobody):
    """A watcher that writes down what it is told."""

    def __init__(self):
        self.told = []

    def said(self, job, text):
        self.told.append(("said", job.rule.name, text))

    def warned(self, job, text):
        self.told.append(("warned", job.rule.name, text))

    def heard(self, job, stream, line):
        self.told.append(("heard", job.rule.name, stream, line))

    def moved(self, job, done_bytes, expected_bytes):
        self.told.append(("moved", job.rule.name, done_bytes, expected_bytes))

    def started(self, planned):
        self.told.append(("started", planned.job.rule.name))

    def ended(self, result):
        self.told.append(("ended", result.job.rule.name, result.end))

    def all(self, kind):
        return [each[1:] for each in self.told if each[0] == kind]


class Bench:
    """A folder in which rulebooks are run."""

    def __init__(self, folder):
        self.folder = folder
        self.folder.mkdir()
        self.host = LocalHost(str(folder))
        self.notes = Notes()
        self.journal = Journal(self.host, f"{folder}/.journal", [MakeScratch])
        self.store = FileLedger(self.host, f"{folder}/.records")

    def run(self, *rules, targets=None, jobs=1, keep_going=True):
        names = targets or [rule.name for rule in rules]
        wanted = [name if ":" in name else f"pi:{name}" for name in names]
        roots = {"pi": str(self.folder), "vault": str(self.folder)}
        graph = resolve(RuleBook(*rules), wanted, roots)
        looked = self.host.stat(file.absolute for file in graph.files)
        files = {f: looked[f.absolute] for f in graph.files if f.absolute in looked}
        return Run(
            decide(graph, files, self.store.known()),
            {"pi": self.host, "vault": self.host},
            store=self.store,
            journal=self.journal,
            reporter=self.notes,
            jobs_at_once=jobs,
            keep_going=keep_going,
        ).do()

    def ends(self, result):
        return {each.job.rule.name: each.end for each in result.jobs}

    @property
    def files(self):
        return {each.name for each in self.folder.iterdir() if each.name[0] != "."}

    def text(self, name):
        return (self.folder / name).read_text()


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "RETRY_WAIT_S", 0.01)
    return Bench(tmp_path / "bench")


# Order and parallel jobs


def test_jobs_run_after_what_they_need(bench):
    """A job reads its inputs when they bear their final names."""

    def joined(job):
        def act(context):
            text = "+".join(bench.text(each.path) for each in job.inputs)
            write(job.output, f"({text})").do(context)

        return [Call(act)]

    result = bench.run(
        makes("d", joined, inputs=("b", "c")),
        makes("c", joined, inputs=("a",)),
        makes("b", joined, inputs=("a",)),
        makes("a"),
        targets=["d"],
    )
    assert bench.text("d") == "((made)+(made))"
    assert [name for (name,) in bench.notes.all("started")] in (list("abcd"), list("acbd"))
    assert set(bench.ends(result).values()) == {JobStatus.DONE}


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_takes_long_elsewhere_holds_no_slot(bench, monkeypatch, jobs):
    """All jobs of a slow vault are begun before the others, which are done beside them."""
    monkeypatch.setattr(engine, "SLOW_S", 0.05)
    away = tuple(f"away{number}" for number in range(3))
    others = tuple(f"b{number}" for number in range(4))
    done = threading.Event()
    at_once = []

    def slowly(job):
        def act(context):
            at_once.append(job.output.path)
            assert done.wait(30)
            write(job.output, "there").do(context)

        return [Call(act)]

    def last(job):
        def act(context):
            assert len(at_once) == jobs  # of the slow place no more are begun than slots there are
            done.set()
            write(job.output, "last").do(context)

        return [Call(act)]

    slow = [
        replace(makes(name, slowly), outputs=(f"vault:{name}",), elsewhere=True) for name in away
    ]
    result = bench.run(
        *slow,
        *(makes(name) for name in others),
        makes("last", last, inputs=others),
        targets=[*(f"vault:{name}" for name in away), *others, "last"],
        jobs=jobs,
    )
    assert set(bench.ends(result).values()) == {JobStatus.DONE}
    assert bench.notes.all("said") == [(name, engine.SLOW_TOLD) for name in at_once[:jobs]]


def test_what_is_done_once_holds_for_a_while(bench, monkeypatch):
    """Jobs that need the same do it once, whoever comes first; what failed is done again."""
    did = []

    def needs(job):
        def ask():
            did.append(job.output.path)
            if len(did) == 1:
                raise StepFailed("not yet")

        def act(context):
            context.once("it", ask)
            write(job.output, "made").do(context)

        return [Call(act)]

    ends = bench.ends(bench.run(*(makes(name, needs) for name in "abc")))
    assert len(did) == 2
    assert [name for name, end in ends.items() if end is not JobStatus.DONE] == did[:1]
    monkeypatch.setattr(engine, "ONCE_S", -1)
    bench.run(*(makes(name, needs) for name in "de"))
    assert sorted(did[2:]) == ["d", "e"]


def random_rules(count, seed):
    """Return rules whose files are hashes of the files that they need."""
    chance = random.Random(seed)  # noqa: S311 - the same each time
    rules = []
    for number in range(count):

        def body(job):
            def act(context):
                digest = hashlib.sha256(job.rule.name.encode())
                for each in job.inputs:
                    with context.storage(each).read(each.absolute) as source:
                        digest.update(source.read())
                context.warn(f"of {job.rule.name}")
                write(job.output, digest.hexdigest()).do(context)
                context.record(
                    job.output, size_bytes=64, sha256=digest.hexdigest(), made_from=len(job.inputs)
                )

            return [Call(act)]

        needs = [f"f{n}" for n in range(number) if chance.random() < 3 / (number + 1)]
        rules.append(makes(f"f{number}", body, inputs=tuple(needs)))
    return rules


@pytest.mark.parametrize("seed", range(3))
def test_one_job_and_eight_give_the_same(tmp_path, seed):
    """How many jobs run at once changes neither a file nor a record nor a warning."""
    seen = []
    for jobs in (1, 8):
        bench = Bench(tmp_path / str(jobs))
        result = bench.run(*random_rules(30, seed), jobs=jobs)
        records = {
            name: (r.size_bytes, r.sha256, r.warnings, dict(r.facts), r.parameters)
            for name, r in bench.store.known().items()
        }
        files = {name: bench.text(name) for name in bench.files}
        seen.append((files, records, sorted(result.warnings), bench.ends(result)))
    assert seen[0] == seen[1]
    assert len(seen[0][0]) == 30


def test_jobs_run_side_by_side(bench):
    """As many jobs as are allowed run at the same time."""
    meeting = threading.Barrier(4)

    def body(job):
        return [Call(lambda _scene: meeting.wait(30)), write(job.output)]

    result = bench.run(*(makes(name, body) for name in "abcd"), jobs=4)
    assert not result.failed


def test_no_more_jobs_run_than_are_allowed(bench):
    """With two jobs at once, a third waits."""
    now, most = [], []

    def act(_scene):
        now.append(1)
        most.append(len(now))
        time.sleep(0.02)
        now.pop()

    rules = [makes(name, lambda job: [Call(act), write(job.output)]) for name in "abcdefgh"]
    bench.run(*rules, jobs=2)
    assert max(most) == 2


# Failure


def test_a_failed_job_stops_only_what_needs_it(bench):
    """When we keep going, everything is made that does not hang on the failure; all is told."""
    result = bench.run(
        makes("a", lambda _job: [fail("no tape")]),
        makes("b", inputs=("a",)),
        makes("c", inputs=("b",)),
        makes("d"),
        makes("e", inputs=("d",)),
    )
    assert bench.files == {"d", "e"}
    assert bench.ends(result) == {
        "a": JobStatus.FAILED,
        "b": JobStatus.SKIPPED,
        "c": JobStatus.SKIPPED,
        "d": JobStatus.DONE,
        "e": JobStatus.DONE,
    }
    messages = {each.job.rule.name: each.message for each in result.jobs}
    assert messages["a"] == "no tape"
    assert messages["b"] == "it needs 'a'"
    assert messages["c"] == "it needs 'b'"
    assert [each.job.rule.name for each in result.failed] == ["a"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_without_keep_going_nothing_new_is_started(bench, jobs):
    """After a failure, what is not yet running is not started, however free it is."""
    rules = [makes(f"n{number}") for number in range(6)]
    order = []

    def body(job):
        def act(context):
            order.append(job.rule.name)
            if order[0] == job.rule.name:
                raise StepFailed("the first")
            time.sleep(0.3)
            write(job.output).do(context)

        return [Call(act)]

    result = bench.run(*(replace(each, body=body) for each in rules), jobs=jobs, keep_going=False)
    assert len(order) <= jobs
    ends = list(bench.ends(result).values())
    assert ends.count(JobStatus.SKIPPED) == 6 - len(order)
    assert {each.message for each in result.jobs if each.end is JobStatus.SKIPPED} == {
        f"'{order[0]}' failed"
    }


@pytest.mark.parametrize("keep_going", [True, False])
def test_an_always_rule_runs_when_all_is_settled(bench, keep_going):
    """It runs after its inputs whether they were made or not, and learns why not."""
    seen = {}

    def body(job):
        def act(context):
            seen.update(context.failures())
            seen["made"] = set(context.records())
            write(job.output).do(context)

        return [Call(act)]

    result = bench.run(
        makes("a", lambda _job: [fail("no tape")]),
        makes("b"),
        makes("list", body, inputs=("a", "b"), always=True),
        targets=["list", "b"],
        keep_going=keep_going,
    )
    assert bench.ends(result)["list"] is JobStatus.DONE
    assert seen["pi:a"] == "no tape"
    if keep_going:
        assert seen["made"] == {"pi:b"}


def test_only_a_passing_failure_is_tried_again(bench):
    """A job is tried again as often as its rule says, if its failure may pass, and not else."""
    tries = {"passes": 0, "stays": 0, "final": 0}

    def body(job):
        def act(context):
            name = job.rule.name
            tries[name] += 1
            write(job.output, str(tries[name])).do(context)
            if name == "stays" or (name == "passes" and tries[name] < 3):
                raise StepFailed("busy", again=True)
            if name == "final":
                raise StepFailed("never")

        return [Call(act)]

    result = bench.run(*(makes(name, body, retries=2) for name in tries))
    assert tries == {"passes": 3, "stays": 3, "final": 1}
    assert bench.ends(result) == {
        "passes": JobStatus.DONE,
        "stays": JobStatus.FAILED,
        "final": JobStatus.FAILED,
    }
    assert bench.text("passes") == "3"
    assert bench.files == {"passes"}
    assert [t for n, t in bench.notes.all("said") if n == "passes"] == [
        "busy. Trying again in 0.01 s.",
        "busy. Trying again in 0.02 s.",
    ]


def test_each_attempt_begins_anew(bench):
    """What an attempt warned, learnt and journaled before it failed is not in the record."""
    tries = []

    def body(job):
        def act(context):
            tries.append(1)
            context.warn(f"try {len(tries)}")
            context.record(job.output, **{f"fact{len(tries)}": 1})
            if len(tries) == 1:
                raise StepFailed("busy", again=True)
            assert os.listdir(scratch) == ["file"]
            write(job.output).do(context)

        scratch = f"{job.output.root}/scratch"
        return [MakeScratch(HostAccess("pi"), scratch), Call(act)]

    result = bench.run(makes("a", body, retries=1))
    record = bench.store.known()["pi:a"]
    assert record.warnings == ("try 2",)
    assert record.facts == {"fact2": 1}
    assert result.warnings == ("try 2",)


def test_a_failed_remake_keeps_the_old_file(bench):
    """The previous output stays bit-identical, with its date, and no partial file is left."""
    (bench.folder / "a").write_text("old")
    os.utime(bench.folder / "a", (1e9, 1e9))
    (bench.folder / "in").write_text("newer")
    before = (bench.folder / "a").stat()

    result = bench.run(
        makes("a", lambda job: [write(job.output), fail()], inputs=("in",)), targets=["a"]
    )
    assert result.failed
    after = (bench.folder / "a").stat()
    assert bench.files == {"a", "in"}
    assert bench.text("a") == "old"
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_no_output_of_a_failed_job_appears(bench):
    """A job of two files that fails shows neither."""
    both = Rule("both", ("pi:x", "pi:y"), lambda job: [*map(write, job.outputs), fail()])
    result = bench.run(both, targets=["x"])
    assert result.failed
    assert bench.files == set()


def test_a_job_that_did_not_write_its_output_fails(bench):
    """A job whose steps all went well but left no file is a failure that names it."""
    result = bench.run(makes("a", lambda _job: []))
    assert "a.partial" in result.failed[0].message
    assert bench.files == set()


def test_an_output_is_renamed_only_after_its_record_is_kept(bench):
    """When the record comes, the file still bears its partial name; without record no file."""
    seen = []
    add = bench.store.add
    bench.store.add = lambda record: (seen.append((record.output, set(bench.files))), add(record))
    bench.run(makes("a"))
    assert seen == [("pi:a", {"a.partial"})]

    def full(_record):
        raise StepFailed("No space left on device")

    bench.store.add = full
    result = bench.run(makes("b"))
    assert result.failed[0].message == "No space left on device"
    assert bench.files == {"a"}


def test_a_record_holds_what_was_learnt(bench):
    """Size, hash, duration, warnings, parameters and other facts of an output are kept."""

    def body(job):
        def act(context):
            write(job.output).do(context)
            context.warn("careful")
            context.record(job.output, size_bytes=4, sha256="abc", shards=3)

        return [Call(act, "the words")]

    bench.run(makes("a", body))
    record = FileLedger(bench.host, f"{bench.folder}/.records").known()["pi:a"]
    assert (record.size_bytes, record.sha256, record.warnings) == (4, "abc", ("careful",))
    assert record.facts == {"shards": 3}
    assert record.seconds >= 0
    assert len(record.parameters) == 16
    assert bench.run(makes("a", body)).jobs == ()


def test_what_steps_tell_reaches_the_watcher(bench):
    """Lines, words, warnings and bytes are passed on with their job."""

    def act(context):
        context.log_output("err", "line")
        context.status("now")
        context.warn("careful")
        context.set_total(10)
        context.advance(4)
        context.advance(6)

    bench.run(makes("a", lambda job: [Call(act), write(job.output)]))
    assert bench.notes.told == [
        ("started", "a"),
        ("heard", "a", "err", "line"),
        ("said", "a", "now"),
        ("warned", "a", "careful"),
        ("moved", "a", 4, 10),
        ("moved", "a", 10, 10),
        ("ended", "a", JobStatus.DONE),
    ]


@pytest.mark.parametrize(("again", "left"), [(True, {"a.partial"}), (False, set())])
def test_a_rule_that_resumes_keeps_what_a_passing_reason_left(bench, again, left):
    """A cut line leaves the partial file for a later try; any other failure leaves nothing."""

    def body(job):
        return [write(job.output), fail("cut", again=again)]

    assert bench.run(makes("a", body, resumes=True)).failed
    assert bench.files == left


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_unexpected_exception_comes_out(bench, jobs):
    """A mistake of ours is not swallowed; what the job did is undone, no partial file is left."""
    order = []

    def body(job):
        def act(context):
            order.append(job.rule.name)
            write(job.output).do(context)
            if order[0] == job.rule.name:
                raise ZeroDivisionError
            time.sleep(0.3)

        return [
            MakeScratch(HostAccess("pi"), f"{job.output.root}/scratch-{job.rule.name}"),
            Call(act),
        ]

    with pytest.raises(ZeroDivisionError):
        bench.run(*(makes(name, body) for name in "abcd"), jobs=jobs)
    assert len(order) <= jobs  # nothing new was started
    assert bench.files == {each for name in order[1:] for each in (name, f"scratch-{name}")}
    assert not (bench.folder / ".journal").exists()


# The journal


def test_steps_of_a_failed_job_are_undone(bench):
    """What a job journaled is undone when it fails, newest first, and owed no more."""
    undone = []

    @dataclass(frozen=True)
    class Mark:
        access: HostAccess
        name: str

        def commands(self):
            return ()

        def do(self, context):
            if self.name == "third":
                raise StepFailed("broken")

        def undo(self, host):
            undone.append(self.name)

    steps = [Mark(HostAccess("pi"), name) for name in ("first", "second", "third", "fourth")]
    assert all(isinstance(each, UndoableStep) for each in steps)
    result = bench.run(makes("a", lambda _job: steps))
    assert result.failed
    assert undone == ["third", "second", "first"]
    assert not (bench.folder / ".journal").exists()


def test_a_failed_job_undoes_nothing_of_another_of_its_name(bench):
    """Two jobs of one rule name and one wildcard run side by side: each undoes its own steps."""
    made, undone = threading.Event(), threading.Event()

    def fails(_job):
        return [Call(lambda _scene: made.wait(30)), fail("no tape")]

    def works(job):
        def act(_scene):
            made.set()
            undone.wait(30)
            assert os.listdir(scratch) == ["file"]

        scratch = f"{job.output.root}/scratch"
        return [MakeScratch(HostAccess("pi"), scratch), Call(act), write(job.output)]

    ended = bench.notes.ended
    bench.notes.ended = lambda result: (ended(result), undone.set())
    rules = (makes("a", fails), replace(makes("b", works), name="a"))
    result = bench.run(*rules, targets=["a", "b"], jobs=2)
    assert [(each.job.output.path, each.message) for each in result.failed] == [("a", "no tape")]
    assert bench.files == {"b", "scratch"}


def test_steps_of_a_good_job_are_forgotten(bench):
    """What a job journaled stays done when it succeeds, even if another fails meanwhile."""
    begun = threading.Event()
    ended = threading.Event()

    def good(job):
        return [
            MakeScratch(HostAccess("pi"), f"{job.output.root}/scratch"),
            Call(lambda _scene: begun.set()),
            Call(lambda _scene: ended.wait(20)),
            write(job.output),
        ]

    def bad(job):
        return [
            Call(lambda _scene: begun.wait(20)),
            MakeScratch(HostAccess("pi"), f"{job.output.root}/other"),
            fail(),
        ]

    bench.notes.ended = lambda result: ended.set() if result.end is JobStatus.FAILED else None
    bench.run(makes("good", good), makes("bad", bad), jobs=2)
    assert bench.files == {"scratch", "good"}
    assert not (bench.folder / ".journal").exists()


def test_a_step_is_journaled_before_it_acts(bench):
    """When a step acts, the line that undoes it is on the disk already."""
    seen = []

    def watch(_scene):
        seen.append((bench.folder / ".journal").read_text())

    def body(job):
        return [
            MakeScratch(HostAccess("pi"), f"{job.output.root}/scratch"),
            Call(watch),
            write(job.output),
        ]

    do = MakeScratch.do
    acted = []
    MakeScratch.do = lambda self, context: (acted.append(watch(context)), do(self, context))
    try:
        bench.run(makes("a", body))
    finally:
        MakeScratch.do = do
    assert len(acted) == 1
    assert [json.loads(text)["step"] for text in seen] == ["MakeScratch"] * 2


def test_after_the_commit_nothing_is_undone(bench):
    """What came before the commit stays; what came after it is undone."""

    def body(job):
        return [
            MakeScratch(HostAccess("pi"), f"{job.output.root}/before"),
            COMMIT,
            MakeScratch(HostAccess("pi"), f"{job.output.root}/after"),
            fail(),
        ]

    assert bench.run(makes("a", body)).failed
    assert bench.files == {"before"}
    assert not (bench.folder / ".journal").exists()


def test_an_undo_that_fails_is_told_and_still_owed(bench):
    """The message tells both failures, no other attempt is made, and the journal keeps it."""
    tries = []

    @dataclass(frozen=True)
    class Stuck:
        access: HostAccess

        def commands(self):
            return ()

        def do(self, context):
            tries.append(1)
            raise StepFailed("busy", again=True)

        def undo(self, host):
            raise StepFailed("cannot go back")

    result = bench.run(makes("a", lambda _job: [Stuck(HostAccess("pi"))], retries=3))
    assert len(tries) == 1
    assert "busy" in result.failed[0].message
    assert "cannot go back" in result.failed[0].message
    assert "Stuck" in (bench.folder / ".journal").read_text()


# Signals and crashes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_cleanly(tmp_path, number):
    """The child's child is gone, the exit code tells the signal, nothing half is left."""
    folder = tmp_path / "bench"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, LITTLE_RUN, folder, "slow"], stderr=subprocess.PIPE
    )
    try:
        until((folder / "moving.txt.partial").exists)
        until(lambda: (folder / "pid").read_text().endswith("\n"))
        child = int((folder / "pid").read_text())
        assert alive(child)
        assert (folder / "scratch").exists()
        process.send_signal(number)
        process.send_signal(number)  # impatience changes nothing
        error = process.communicate(timeout=30)[1].decode()
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert error == ""
    assert not alive(child)
    assert {each.name for each in folder.iterdir()} <= {"pid"}


@pytest.mark.parametrize("numbers", [(signal.SIGTERM,), (signal.SIGHUP, signal.SIGINT)])
def test_a_signal_that_reaches_another_thread_is_not_lost(bench, numbers):
    """A wait that the signal does not end by itself, and a second signal at once, do no harm."""

    def act(context):
        write(context.job.output).do(context)
        for number in numbers:
            signal.pthread_kill(threading.get_ident(), number)
        for _ in range(1500):
            context.advance(1)
            time.sleep(0.02)
        raise StepFailed("nobody stopped it")

    def body(job):
        return [MakeScratch(HostAccess("pi"), f"{job.output.root}/scratch"), Call(act)]

    started = time.monotonic()
    with pytest.raises(Interrupted) as stopped:
        bench.run(makes("a", body))
    assert time.monotonic() - started < 20
    assert stopped.value.exit_code in {128 + number for number in numbers}
    assert bench.files == set()
    assert bench.run(makes("b")).failed == ()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_goes_on_elsewhere_is_ended_after_a_signal(bench):
    """A step whose work outlives our programs ends it, when programs may be started again."""
    ended = []

    class Leaves:
        def commands(self):
            return ()

        def do(self, context):
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            for _ in range(1500):
                context.advance(1)
                time.sleep(0.02)

        def end_left(self, context):
            ended.append(context.host("pi").run(Command(("echo", "ended"))).out)

    with pytest.raises(Interrupted):
        bench.run(makes("a", lambda _job: [Leaves()]))
    assert ended == ["ended\n"]


def say_on(context, _host, _docker):
    for _ in range(1500):
        context.status("waiting")
        time.sleep(0.02)


WAITS = {
    "whoever tells": say_on,
    "a ping": lambda _scene, host, docker: wait_for_ping(host, "x", docker),
    "a server": lambda context, host, docker: wait_for_server(
        context, host, SqlServer("x", "mariadb"), docker
    ),
    "a removal": lambda _scene, host, docker: remove_ours(
        host, HostAccess("pi", docker=docker, guard=f"{host.root}/.guard"), "x"
    ),
}


@pytest.mark.parametrize("what", WAITS)
def test_a_signal_ends_a_wait_for_what_does_not_come(bench, tmp_path, what):
    """Whatever is looked at again and again, and answers that it is not there yet."""
    docker = tmp_path / "docker"
    docker.write_text(
        '#!/bin/sh\ncase $1 in inspect) echo "true 9 ";; ps) echo x;; *) exit 1;; esac'
    )
    docker.chmod(0o755)

    def act(context):
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        WAITS[what](context, bench.host, (str(docker),))
        raise StepFailed("nobody stopped it")

    started = time.monotonic()
    with pytest.raises(Interrupted):
        bench.run(makes("a", lambda _job: [Call(act)]))
    assert time.monotonic() - started < 10


def test_a_signal_when_the_last_job_has_ended_is_not_lost(bench, monkeypatch):
    """Whoever started the run learns of it; the outputs are there, and later ones break off nothing."""

    class Pool(ThreadPoolExecutor):
        def shutdown(self, **how):
            super().shutdown(**how)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("iotstack_invoke.engine.executor.ThreadPoolExecutor", Pool)
    with signals_raised() as came:
        with pytest.raises(Interrupted):
            bench.run(makes("a"))
        signal.raise_signal(signal.SIGINT)
    assert came == [signal.SIGTERM, signal.SIGINT]
    assert bench.files == {"a"}


@pytest.mark.parametrize("how", ["signal", "failure"])
def test_what_still_works_is_waited_for_before_anything_is_undone(bench, how):
    """A command may outlive the line that it came by; of jobs that make files none is waited for."""
    events = []
    bench.journal.settle = lambda: events.append(f"scratch is there: {bench.files}")

    def act(context):
        if how == "failure":
            raise StepFailed("broken")
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        for _ in range(1500):
            context.advance(1)
            time.sleep(0.02)

    def body(job):
        return [MakeScratch(HostAccess("pi"), f"{job.output.root}/scratch"), Call(act)]

    for transaction in (True, False):
        rule = makes("a", body, transaction=transaction)
        if how == "failure":
            assert bench.run(rule).failed
        else:
            with pytest.raises(Interrupted):
                bench.run(rule)
        assert bench.files == set()
        assert events == ["scratch is there: {'scratch'}"]


def test_a_crash_at_every_boundary_is_mended_by_the_next_run(tmp_path):
    """Killed anywhere, and again while recovering: the end is right, the finished stays.

    A file under its final name is whole at every moment, and is not made again.
    """
    told = subprocess.run(
        [sys.executable, LITTLE_RUN, tmp_path, "crash"],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    *crashes, last = map(json.loads, told.stdout.splitlines())
    right = {"a.txt": "a", "b.txt": "ab", "c.txt": "abc", "list.txt": "aababc!"}
    assert last["made"] == ["pi:a.txt", "pi:b.txt", "pi:c.txt", "pi:list.txt"]
    assert last["boundaries"] == len(crashes) > 30
    assert all(each["killed"] for each in crashes)
    assert sum(each["killed_again"] for each in crashes) > 20
    for crash in crashes:
        for state in (crash["crashed"], crash["crashed_again"]):
            for name, text in right.items():
                assert state.get(name, text) in (text, "old c")
        for state, made in (("crashed", "made_again"), ("crashed_again", "made_last")):
            finished = {f"pi:{n}" for n, text in right.items() if crash[state].get(n) == text}
            assert not finished & set(crash[made])
        assert crash["last"] == 0
        assert {n: t for n, t in crash["end"].items() if n != ".records"} == right
        assert crash["idle"] == 0
        assert crash["made_idle"] == []


def test_the_little_run_is_what_it_seems(tmp_path):
    """Without a crash, the same program makes its files and leaves nothing else."""
    folder = tmp_path / "bench"
    folder.mkdir()
    subprocess.run([sys.executable, LITTLE_RUN, folder, "run"], check=True)
    assert {each.name for each in folder.iterdir()} == {
        "a.txt",
        "b.txt",
        "c.txt",
        "list.txt",
        ".records",
    }


def test_a_sampler_never_sees_a_file_that_is_not_whole(bench):
    """Whoever reads while jobs run finds each file complete or not at all."""
    text = "x" * 200_000
    seen, stop = [], threading.Event()

    def sample():
        while not stop.is_set():
            for number in range(10):
                path = bench.folder / f"f{number}"
                if path.exists():
                    seen.append(path.stat().st_size)

    def body(job):
        def act(context):
            with context.host("pi").create(job.output.partial) as target:
                for piece in range(20):
                    target.write(text[piece * 10_000 : (piece + 1) * 10_000].encode())
                    target.flush()
                    time.sleep(0.001)

        return [Call(act)]

    thread = threading.Thread(target=sample)
    thread.start()
    bench.run(*(makes(f"f{number}", body) for number in range(10)), jobs=4)
    stop.set()
    thread.join()
    assert seen
    assert set(seen) == {200_000}


def test_a_file_names_its_place():
    """The engine finds files by the root of their role."""
    assert File("pi", "a/b", "/root/").partial == "/root/a/b.partial"
