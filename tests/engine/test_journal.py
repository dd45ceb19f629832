"""What a journal undoes, after a failure and after a crash; the host is a folder of files."""

import json
import os
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotstack_invoke.core.errors import Busy, StepFailed
from iotstack_invoke.engine.journal import Journal
from iotstack_invoke.engine.steps import HostAccess, UndoableStep

PATH = "backups/.journal"


class MemoryHost:
    """A host whose files are texts; `room` is how many characters still fit on its disk."""

    def __init__(self, space=10**9):
        self.files = {}
        self.lamps = {}
        self.undone = []
        self.refusing = set()
        self.space = space

    def append(self, path, line):
        line += "\n"
        line.encode()
        fits, self.space = line[: self.space], self.space - len(line[: self.space])
        self.files[path] = self.files.get(path, "") + fits
        if fits != line:
            raise StepFailed("no space left on device")

    def remove(self, paths):
        for path in paths:
            self.files.pop(path, None)

    @property
    def lines(self):
        return self.files.get(PATH, "").splitlines(keepends=True)


@dataclass(frozen=True)
class Light:
    """Turn a lamp on; undone it is as it was before, however often."""

    access: HostAccess
    lamp: str
    before: int = 0
    words: tuple[str, ...] = ()

    def commands(self):
        return (f"light {self.lamp}",)

    def do(self, context):
        context.lamps[self.lamp] = self.before + 1

    def undo(self, host):
        if self.lamp in host.refusing:
            raise StepFailed(f"lamp {self.lamp} does not answer.")
        host.lamps[self.lamp] = self.before
        host.undone.append(self.lamp)


@dataclass(frozen=True)
class Ring(Light):
    """Another step with the same fields."""


def journal(host, steps=(Light, Ring)):
    return Journal(host, PATH, steps)


def act(book, job, lamp, before=0):
    step = Light(HostAccess("pi"), lamp, before)
    book.write(job, step)
    step.do(book.host)


def after_a_crash(host):
    """Return the journal of the next run, and what is left of the host's file."""
    return journal(host), host.lines


def test_the_steps_of_these_tests_are_steps():
    """The fakes here are what the journal takes for a step that can be undone."""
    assert isinstance(Light(HostAccess("pi"), "a"), UndoableStep)


def test_a_step_is_on_the_disk_before_it_acts():
    """What is to be undone is in the file when `write` returns."""
    host = MemoryHost()
    journal(host).write("job", Light(HostAccess("pi"), "a", 3, ("-n", "x y")))
    assert json.loads(host.files[PATH]) == {
        "job": "job",
        "step": "Light",
        "fields": {"host_role": "pi", "lamp": "a", "before": 3, "words": ["-n", "x y"]},
    }


def test_undo_goes_from_the_newest_to_the_oldest():
    """The last step is undone first, and then nothing is owed and no file is left."""
    host = MemoryHost()
    book = journal(host)
    for lamp in "abc":
        act(book, "job", lamp)
    assert book.undo() == ("job: Light", "job: Light", "job: Light")
    assert host.undone == ["c", "b", "a"]
    assert host.lamps == {"a": 0, "b": 0, "c": 0}
    assert host.files == {}
    assert book.undo() == ()
    assert host.undone == ["c", "b", "a"]


def test_two_steps_on_one_thing_end_where_it_began():
    """Undone in turn, the oldest undo has the last word."""
    host = MemoryHost()
    book = journal(host)
    act(book, "job", "a", before=0)
    act(book, "job", "a", before=1)
    book.undo()
    assert host.lamps == {"a": 0}


def test_a_forgotten_job_is_not_undone():
    """What is done for good leaves the file when nothing else is owed, and never is undone."""
    host = MemoryHost()
    book = journal(host)
    act(book, "one", "a")
    act(book, "two", "b")
    book.forget("one")
    book.forget("nobody")
    again, lines = after_a_crash(host)
    assert again.recover(lines) == ("two: Light",)
    assert host.lamps == {"a": 1, "b": 0}
    assert host.files == {}


def test_the_last_job_forgotten_takes_the_file_along():
    """A journal in which nothing is owed is no file."""
    host = MemoryHost()
    book = journal(host)
    act(book, "one", "a")
    book.forget("one")
    assert host.files == {}


def test_undoing_one_job_leaves_the_others_owed():
    """A failed job is undone alone, in the run and for the run after a crash."""
    host = MemoryHost()
    book = journal(host)
    act(book, "one", "a")
    act(book, "two", "b")
    act(book, "one", "c")
    assert book.undo("one") == ("one: Light", "one: Light")
    assert host.undone == ["c", "a"]
    again, lines = after_a_crash(host)
    assert again.recover(lines) == ("two: Light",)
    assert host.undone == ["c", "a", "b"]


def test_a_job_that_is_tried_again_is_undone_for_its_last_attempt():
    """What a job wrote after its undo is owed again."""
    host = MemoryHost()
    book = journal(host)
    act(book, "other", "x")
    act(book, "job", "a")
    book.undo("job")
    act(book, "job", "b")
    again, lines = after_a_crash(host)
    assert again.recover(lines) == ("job: Light", "other: Light")
    assert host.undone == ["a", "b", "x"]


def test_a_step_comes_back_as_it_was():
    """A recovered step has the class, the texts and the tuples it was written with."""
    host = MemoryHost()
    steps = [Light(HostAccess("pi"), "Köln \udce9\n", 7, ("a", "b")), Ring(HostAccess("pi"), "x")]
    for step in steps:
        journal(host).write("job ü", step)
    assert host.files[PATH].isascii()
    again, lines = after_a_crash(host)
    host.refusing = {"x"}
    with pytest.raises(StepFailed):
        again.recover(lines)
    assert again._owed == [("job ü", steps[0]), ("job ü", steps[1])]


@given(st.integers(0, 3), st.data())
def test_a_torn_last_line_never_acted(whole, data):
    """Wherever a crash tore the last line, exactly the steps before it are undone."""
    host = MemoryHost()
    book = journal(host)
    for lamp in "abc"[:whole]:
        act(book, "job", lamp)
    before = len(host.files.get(PATH, ""))
    book.write("job", Light(HostAccess("pi"), "torn"))
    cut = data.draw(st.integers(before, len(host.files[PATH]) - 2))
    host.files[PATH] = host.files[PATH][:cut]
    again, lines = after_a_crash(host)
    again.recover(lines)
    assert host.undone == list(reversed("abc"[:whole]))
    assert host.files == {}


def test_a_line_torn_by_a_full_disk_swallows_no_later_line():
    """A step that could not be written does not act; one that could be written later is undone."""
    host = MemoryHost()
    book = journal(host)
    act(book, "one", "a")
    host.space = 20
    with pytest.raises(StepFailed, match="no space left"):
        book.write("two", Light(HostAccess("pi"), "never"))
    host.space = 10**9
    act(book, "three", "b")
    again, lines = after_a_crash(host)
    assert again.recover(lines) == ("three: Light", "one: Light")
    assert host.undone == ["b", "a"]


STRANGE = [
    '{"job": "j", "step": "Melt", "fields": {"host_role": "pi"}}',
    '{"job": "j", "step": "Light", "fields": {"host_role": "pi", "lamp": "b", "colour": "red"}}',
    '{"job": "j", "step": "Light", "fields": {"host_role": "pi"}}',
    '{"job": "j", "step": "Light"}',
    '{"job": "j", "step": ["Light"], "fields": {}}',
    '{"step": "Light", "fields": {"host_role": "pi", "lamp": "b"}}',
    '{"format": 2}',
    "[1]",
    "12",
    "null",
    '"done"',
]


@pytest.mark.parametrize("line", STRANGE)
def test_an_entry_that_we_do_not_know_refuses_and_keeps_the_file(line):
    """A journal of another version is left as it is: nothing is undone, not even what we know."""
    host = MemoryHost()
    book = journal(host)
    act(book, "job", "a")
    host.append(PATH, line)
    before = dict(host.files)
    again, lines = after_a_crash(host)
    for _ in range(2):
        with pytest.raises(
            StepFailed, match=r"backups/\.journal line 2: .* does not know this step"
        ):
            again.recover(lines)
        assert again.undo() == ()
        assert host.undone == []
        assert host.files == before


def test_the_version_that_wrote_a_journal_can_undo_it():
    """What one version refuses, another that knows the step undoes."""
    host = MemoryHost()
    book = journal(host)
    book.write("job", Light(HostAccess("pi"), "a"))
    book.write("job", Ring(HostAccess("pi"), "b"))
    older = journal(host, [Light])
    with pytest.raises(StepFailed, match="does not know this step"):
        older.recover(host.lines)
    assert journal(host).recover(host.lines) == ("job: Ring", "job: Light")
    assert host.files == {}


def test_a_failed_undo_keeps_the_file_and_what_is_still_owed():
    """A step that cannot be undone stops the undo there; it names itself, and can be retried."""
    host = MemoryHost()
    book = journal(host)
    for lamp in "abc":
        act(book, "job", lamp)
    host.refusing = {"b"}
    with pytest.raises(StepFailed) as failure:
        book.undo()
    assert str(failure.value) == (
        "Undoing 'Light' of 'job' failed: lamp b does not answer. The steps to undo are in backups/.journal; the next run tries again first."
    )
    assert host.undone == ["c"]
    assert len(host.lines) == 3
    host.refusing = set()
    assert book.undo() == ("job: Light", "job: Light")
    assert host.undone == ["c", "b", "a"]
    assert host.files == {}


def test_a_recovery_that_failed_can_be_done_again():
    """The same journal, or that of the next run, undoes from the newest on: undo may be repeated."""
    host = MemoryHost()
    book = journal(host)
    for lamp in "abc":
        act(book, "job", lamp)
    for again in (journal(host), journal(host)):
        host.refusing = {"a"}
        with pytest.raises(StepFailed):
            again.recover(host.lines)
        with pytest.raises(StepFailed):
            again.recover(host.lines)
        assert len(host.lines) == 3
    host.refusing, host.undone = set(), []
    assert len(again.recover(host.lines)) == 3
    assert host.undone == ["c", "b", "a"]
    assert host.lamps == {"a": 0, "b": 0, "c": 0}
    assert host.files == {}


def test_recovery_of_nothing_leaves_nothing():
    """No file, an empty one, a torn line alone: nothing is undone, and no file stays."""
    for content in ("", "\n", '{"job": "j", "st', "\0\0\0"):
        host = MemoryHost()
        host.files[PATH] = content
        assert journal(host).recover(host.lines) == ()
        assert host.files == {}


def test_a_journal_that_was_not_read_is_not_removed():
    """Undoing when nothing is owed leaves the file of a dead run where it is."""
    host = MemoryHost()
    act(journal(host), "dead", "a")
    other = journal(host)
    assert other.undo() == ()
    assert other.undo("job") == ()
    other.forget("job")
    assert len(host.lines) == 1


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["act", "forget", "undo"]), st.sampled_from(["p", "q"])), max_size=12
)


@given(ACTIONS)
def test_a_crash_at_any_moment_is_undone(actions):
    """After a crash, exactly the lamps of jobs neither forgotten nor undone are put back."""
    host = MemoryHost()
    book = journal(host)
    owed = []
    for number, (action, job) in enumerate(actions):
        if action == "act":
            act(book, job, f"{job}{number}")
            owed.append(f"{job}{number}")
        else:
            book.forget(job) if action == "forget" else book.undo(job)
            owed = [lamp for lamp in owed if lamp[0] != job]
        assert bool(host.files) == bool(owed)
    host.undone = []
    again, lines = after_a_crash(host)
    again.recover(lines)
    assert host.undone == list(reversed(owed))
    assert host.files == {}


def test_the_journal_is_a_file_of_lines(tmp_path):
    """Read back from a real file, line by line, a journal is the same."""

    class FolderHost(MemoryHost):
        def append(self, path, line):
            with open(tmp_path / "journal", "a", encoding="utf-8") as target:
                target.write(line + "\n")

        def remove(self, paths):
            (tmp_path / "journal").unlink(missing_ok=True)

    host = FolderHost()
    book = journal(host)
    act(book, "one", "a")
    act(book, "two", "b")
    with open(tmp_path / "journal", encoding="utf-8") as stream:
        assert journal(host).recover(stream) == ("two: Light", "one: Light")
    assert os.listdir(tmp_path) == []


class LosingHost(MemoryHost):
    """A host whose line breaks at a rename: before it, or when it is done and nobody hears it."""

    def __init__(self, done):
        super().__init__()
        self.done = done
        self.broken = False

    def rename(self, old, new):
        if self.broken or self.done:
            if old not in self.files:
                raise StepFailed(f"{old} is not there")
            self.files[new] = self.files.pop(old)
        if not self.broken:
            self.broken = True
            raise StepFailed("the line broke")


@pytest.mark.parametrize("done", [True, False])
def test_a_commit_of_which_nobody_knows_whether_it_was_done(done):
    """It is undone under its own name: a kill meanwhile leaves it there, and no second one."""
    host = LosingHost(done)
    book = journal(host)
    act(book, "job", "a")
    act(book, "job", "b")
    with pytest.raises(StepFailed, match="the line broke"):
        book.forget("job", keep="restore/previous/journal")
    host.refusing = {"a"}
    with pytest.raises(StepFailed, match="lamp a does not answer"):
        book.undo("job")
    assert set(host.files) == {PATH}
    host.refusing = set()
    book.undo("job")
    assert host.files == {}
    assert host.lamps == {"a": 0, "b": 0}


@pytest.mark.parametrize("done", [True, False])
def test_whether_a_commit_stands_is_looked_for(done):
    """Where its answer was lost; what stands is not undone by this run any more."""
    host = LosingHost(done)
    host.stat = lambda paths: {path: None for path in paths if path in host.files}
    book = journal(host)
    act(book, "job", "a")
    assert not book.stands()
    with pytest.raises(StepFailed, match="the line broke"):
        book.forget("job", keep="restore/previous/journal")
    assert book.stands() == done
    assert book.kept == ("restore/previous/journal" if done else "")
    book.undo()
    assert host.lamps == {"a": 1 if done else 0}


def test_nothing_is_undone_without_the_lock():
    """A line that broke may have taken it, and another may be at work by then."""
    host = MemoryHost()
    book = journal(host)
    act(book, "job", "a")
    before = dict(host.files)

    def lost():
        assert host.undone == []
        raise Busy("another run holds the lock")

    book.hold = lost
    again = Journal(host, PATH, (Light, Ring), hold=lost)
    for undo in (book.undo, lambda: book.undo("job"), lambda: again.recover(host.lines)):
        with pytest.raises(Busy):
            undo()
        assert (host.undone, host.files) == ([], before)
    held = []
    book.hold = lambda: held.append(list(host.undone))
    assert book.undo() == ("job: Light",)
    assert held == [[]]
    assert book.undo() == ()
    assert len(held) == 1
