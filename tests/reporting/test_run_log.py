"""The log: every line whole, with its time; partial until the run ends; private."""

import os
import re
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from iotstack_invoke.engine.executor import JobResult, JobStatus
from iotstack_invoke.engine.plan import PlannedJob, Reason, Why
from iotstack_invoke.engine.rules import Job, Rule
from iotstack_invoke.reporting.run_log import LogReporter, RunLog, new_log, unfinished_log

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.backup-log.txt")


def read(path):
    with open(path, encoding="utf-8", newline="") as stream:
        return stream.read()


def words(path):
    """Return the lines of a log without their times."""
    found = []
    for line in read(path).removesuffix("\n").split("\n"):
        time, _, rest = line.partition(" ")[2].partition(" ")
        assert re.fullmatch(TIME, f"{line.partition(' ')[0]} {time}"), line
        found.append(rest)
    return found


def test_a_log_is_partial_until_it_ends(path):
    """While the run lasts, nobody can take the log for a whole one."""
    log = RunLog(path)
    log.write("backup", "begins")
    assert not os.path.exists(path)
    assert words(path + ".partial") == ["backup: begins"]
    log.finish(os.rename)
    assert words(path) == ["backup: begins"]
    assert not os.path.exists(path + ".partial")


def test_a_closed_log_takes_nothing_more(path):
    """What is told after the end is neither written nor an error; closing twice is once."""
    log = RunLog(path)
    log.write("backup", "one")
    log.finish(os.rename)
    log.write("backup", "two")
    log.finish(lambda *_: pytest.fail("renamed twice"))
    log.leave()
    assert words(path) == ["backup: one"]


def test_a_run_that_goes_on_adds_to_the_log(path):
    """Neither a run that died nor one that ended loses its lines to the next one."""
    first = RunLog(path)
    first.write("backup", "died")
    first.leave()
    second = RunLog(path)
    second.write("backup", "ended")
    second.finish(os.rename)
    third = RunLog(path)
    third.write("backup", "made again")
    assert words(path) == ["backup: died", "backup: ended"]
    third.finish(os.rename)
    assert words(path) == ["backup: died", "backup: ended", "backup: made again"]


def test_a_run_that_adds_to_a_finished_log_and_dies_loses_no_line(path):
    """A set is copied, or made again, by a run that is killed: the next one has its lines too."""
    for text, end in (("ended", "finish"), ("died", "leave"), ("ended again", "finish")):
        log = RunLog(path)
        log.write("backup", text)
        log.finish(os.rename) if end == "finish" else log.leave()
    assert words(path) == ["backup: ended", "backup: died", "backup: ended again"]


def test_a_partial_log_that_lacks_the_finished_one_is_replaced(path):
    """Its run was killed while it copied that."""
    log = RunLog(path)
    log.write("backup", "ended")
    log.finish(os.rename)
    Path(path + ".partial").write_bytes(Path(path).read_bytes()[:-3])
    log = RunLog(path)
    log.write("backup", "ended again")
    log.finish(os.rename)
    assert words(path) == ["backup: ended", "backup: ended again"]


def test_a_log_is_for_its_owner_only(path):
    """A log is of mode 0600 at every time, also when an earlier one is gone on with."""
    before = os.umask(0)
    try:
        for _ in range(2):
            log = RunLog(path)
            assert os.stat(path + ".partial").st_mode & 0o777 == 0o600
            log.finish(os.rename)
            assert os.stat(path).st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize("earlier", [True, False])
def test_a_link_is_not_written_through(path, tmp_path, earlier):
    """A link at the partial name is refused, whether there is an earlier log or not."""
    (tmp_path / "victim").write_text("precious")
    os.symlink("victim", path + ".partial")
    if earlier:
        with open(path, "w") as stream:
            stream.write("earlier\n")
    with pytest.raises(OSError, match="symbolic links"):
        RunLog(path)
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize(
    "newline", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"]
)
def test_each_line_bears_its_time(path, newline):
    """Whatever breaks a line, each part of it begins with the time and the source."""
    log = RunLog(path)
    log.write("tar", f"one{newline}two")
    log.write("tar", "")
    log.finish(os.rename)
    assert words(path) == ["tar: one", "tar: two", "tar: "]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("a\bb", r"a\x08b"),
        ("a\tb", "a\tb"),
        ("a\u202eb", r"a\u202eb"),
        ("bad \udcff name", r"bad \udcff name"),
        ("Köln ☕", "Köln ☕"),
        (r"C:\x", r"C:\x"),
    ],
)
def test_no_character_moves_the_cursor_of_a_reader(path, text, shown):
    """What a program says cannot play with the terminal of whoever reads the log."""
    log = RunLog(path)
    log.write("tar", text)
    log.finish(os.rename)
    assert words(path) == [f"tar: {shown}"]


def test_lines_of_many_threads_stay_whole(path):
    """Jobs that speak at once do not break each other's lines."""
    log = RunLog(path)
    text = "x" * 500
    threads = [
        threading.Thread(target=lambda n=n: [log.write(f"job{n}", text) for _ in range(200)])
        for n in range(8)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    log.finish(os.rename)
    found = words(path)
    assert sorted(found) == sorted(f"job{n}: {text}" for n in range(8) for _ in range(200))


def test_a_finished_log_is_on_the_disk(path, monkeypatch):
    """The log is synced before it gets its final name."""
    order = []
    monkeypatch.setattr(os, "fsync", lambda fd: order.append(os.readlink(f"/proc/self/fd/{fd}")))
    log = RunLog(path)
    log.write("backup", "x")
    log.finish(lambda *names: order.append(names))
    assert order == [path + ".partial", (path + ".partial", path)]


def test_a_full_disk_is_remembered_and_stops_nothing(tmp_path, mount_disk):
    """A line that cannot be written ends no run; the log knows why."""
    log = RunLog(f"{mount_disk(tmp_path / 'disk', '16k')}/log")
    assert log.broken == ""
    log.write("tar", "x" * 100_000)
    log.write("tar", "more")
    assert log.broken == "No space left on device"
    log.leave()


def test_what_happens_to_a_job_is_written_down(path):
    """Reasons, commands, both streams, words, warnings and the end of a job are in the log."""
    step = types.SimpleNamespace(commands=lambda: ("tar -c .", "gzip"))
    job = Job(Rule("pack", ("pi:x",), lambda _job: [step]), {}, (), ())
    log = RunLog(path)
    reporter = LogReporter(log)
    reporter.started(PlannedJob(job, (Reason(Why.MISSING, "pi:x"), Reason(Why.FORCED)), ()))
    reporter.heard(job, "out", "hello")
    reporter.heard(job, "err", "oops")
    reporter.said(job, "checking")
    reporter.moved(job, 1, 2)
    reporter.warned(job, "careful")
    reporter.ended(JobResult(job, JobStatus.FAILED, 1.25, "no tape"))
    reporter.ended(JobResult(job, JobStatus.DONE, 2))
    log.finish(os.rename)
    assert words(path) == [
        "pack: starts: missing: pi:x; forced",
        "pack: $ tar -c .",
        "pack: $ gzip",
        "pack out: hello",
        "pack err: oops",
        "pack: checking",
        "pack: warning: careful",
        "pack: failed after 1.2 s: no tape",
        "pack: done after 2.0 s",
    ]


def test_the_log_of_a_run_that_died_is_gone_on_with(little_stack):
    """Its partial archive goes, also in the next backup; its log waits for who finishes the set."""
    backups = little_stack.folder / "backups"
    backups.mkdir()
    log = backups / "t1.backup-log.txt.partial"
    log.write_text("a line of the run that died\n")
    archive = backups / "t1.general-backup.tar.gz.partial"
    for runtag in ("t2", "t1"):
        archive.write_text("half")
        assert log.exists()
        assert little_stack.run(f"backup --runtag {runtag}").returncode == 0
        assert not archive.exists()
    assert not log.exists()
    told = (backups / "t1.backup-log.txt").read_text()
    assert told.startswith("a line of the run that died\n")
    assert "t1 is complete" in told


def test_a_new_log_never_takes_the_name_of_another(tmp_path):
    """Neither of one that ended nor of one that is being written, however many begin at once."""
    path = f"{tmp_path}/x.restore-1.log"
    assert unfinished_log(path) is None
    with ThreadPoolExecutor(8) as pool:
        logs = list(pool.map(lambda _: new_log(path), range(24)))
    for number, each in enumerate(logs):
        each.write("me", str(number))
        if number % 2:
            each.finish(os.rename)
    assert len({each.path for each in logs}) == 24
    later = new_log(path)
    assert later.path not in {each.path for each in logs}
    found = unfinished_log(path)
    assert found.path == later.path
    found.leave()
    later.finish(os.rename)
    for number, each in enumerate(logs):
        text = Path(each.path if number % 2 else f"{each.path}.partial").read_text()
        assert text.endswith(f"me: {number}\n")
        each.leave()
