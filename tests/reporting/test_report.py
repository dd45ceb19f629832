"""What people see: words for sizes and times, text as it is, silence under cron, bars at a desk."""

import fcntl
import importlib
import inspect
import io
import json
import os
import pkgutil
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
import types
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from terminal import Terminal

import iotstack_invoke
from iotstack_invoke.engine.executor import JobResult, JobStatus
from iotstack_invoke.engine.plan import Plan, PlannedJob, Reason, Why, resolve
from iotstack_invoke.engine.rules import RuleBook, rule
from iotstack_invoke.engine.steps import HostAccess
from iotstack_invoke.reporting.report import (
    CompositeReporter,
    Report,
    age_text,
    duration_text,
    exact_size_text,
    size_text,
)
from iotstack_invoke.reporting.step_words import VERBS
from iotstack_invoke.stack.stop_start import StopContainers
from iotstack_invoke.workflows.backup import backup_book
from iotstack_invoke.workflows.pull import pull_book
from iotstack_invoke.workflows.rehearse import rehearsal_book
from iotstack_invoke.workflows.reload import reload_book
from iotstack_invoke.workflows.restore import restore_book

NOW = datetime(2026, 11, 23, 11, 0, tzinfo=UTC)
ODD_TEXTS = (
    "[bold]no[/bold]",
    "[/]",
    "exclude [/volumes/influxdb]",
    ":smile: {x} %s",
    "x" * 500,
    "/a path/with blanks and 12345 'quotes'",
    r"\[red]",
)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (1_234_567, "1.2 MB"),
        (32_100_000_000, "32.1 GB"),
    ],
)
def test_sizes_are_decimal(size_bytes, text):
    """A size is told as disks are sold."""
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (42.4, "42 s"),
        (59.7, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (3725, "1 h 02 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_durations_are_told_in_fitting_units(seconds, text):
    """A duration has at most two units, and never sixty of one."""
    assert duration_text(seconds) == text


@given(st.floats(0, 1e6))
def test_no_duration_has_sixty_of_a_unit(seconds):
    """Rounding never gives `60 s` or `60 min`."""
    assert not re.search(r"\b60 (s|min)", duration_text(seconds))


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(seconds=59), "just now"),
        (timedelta(minutes=1), "1 minute"),
        (timedelta(minutes=59, seconds=59), "59 minutes"),
        (timedelta(hours=1), "1 hour"),
        (timedelta(hours=47), "47 hours"),
        (timedelta(days=2), "2 days"),
        (timedelta(days=400), "400 days"),
        (timedelta(seconds=-1), "in the future"),
    ],
)
def test_ages_are_told_in_whole_units(age, text):
    """An age is told in its largest unit; a day and a half are hours."""
    assert age_text(NOW - age, NOW) == text


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(seconds=59), "now"),
        (timedelta(minutes=10), "10 min"),
        (timedelta(hours=47), "47 h"),
        (timedelta(days=2), "2 d"),
        (timedelta(seconds=-1), "future"),
    ],
)
def test_ages_in_a_column_are_short(age, text):
    """The same units by their signs."""
    assert age_text(NOW - age, NOW, short=True) == text


def test_an_unknown_age_is_a_question_mark():
    """A set that tells no time has no age."""
    assert age_text(None, NOW) == "?"


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_texts_are_printed_as_they_are(capsys, text):
    """Brackets, colons and long lines reach the reader unchanged, wherever they are printed."""
    report = Report(verbosity=1)
    report.write(text)
    report.write_json([text])
    report.fail(text)
    report.warn(text)
    report.tell(text, style="green")
    shown = capsys.readouterr()
    first, rest = shown.out.split("\n", 1)
    assert first == text
    assert json.loads(rest) == [text]
    assert shown.err == f"{text}\n" * 3


@pytest.mark.parametrize("text", [text for text in ODD_TEXTS if len(text) < 150])
def test_a_table_shows_its_cells_as_they_are(capsys, text):
    """A cell and a title are text, never markup."""
    Report().table(("runtag", "[size]"), [(text, "1.2 GB"), ("b", "3 kB")], right=(1,))
    shown = capsys.readouterr().out
    assert text in shown
    assert "[size]" in shown
    lines = [line.rstrip() for line in shown.splitlines() if "B" in line]
    assert {len(line) for line in lines if line.endswith(("1.2 GB", "3 kB"))} == {
        len(lines[0].rstrip())
    }


def test_a_long_cell_is_not_cut(capsys, monkeypatch):
    """However narrow it is, no character of a cell is lost."""
    monkeypatch.setenv("COLUMNS", "40")
    Report().table(("runtag", "state"), [("0123456789" * 12, "complete")])
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert sum(character.isdigit() for character in shown) == 120


LISTED = ("2026-11-29_0611", "3 minutes", "pi1", "842.9 kB", "general outside influx mariadb")


@pytest.mark.parametrize(
    ("width", "row"),
    [
        (140, (*LISTED, "warnings", "warnings", "7 minutes, by restore", "pinned")),
        (80, (*LISTED, "warnings", "complete", "7 minutes, by restore", "pinned")),
        (60, (*LISTED, "warnings", "complete")),
        (50, (*LISTED, "warnings", "complete", "never", "pinned")),
    ],
)
def test_a_table_breaks_no_word_that_people_copy(monkeypatch, width, row):
    """As wide as the terminal; a runtag stays whole where not all can be."""
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", str(width))
    Report().table(tuple("abcdefghi"[: len(row)]), [row, row], right=(3,))
    lines = re.sub(r"\x1b\[[\d;]*m", "", sys.stdout.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    whole = row if width > 50 else row[:1]
    for word in " ".join(whole).split():
        assert sum(word in re.split(r"\s+", line) for line in lines) >= 2, word


PATH = "/home/pi/IOTstack/restore/previous-2026-11-29_0611-20261129T061130Z"
COPIED = ("2026-11-29 06:11", "1.2 GB", "a sentence of a few words, which may be broken", PATH)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("path", [PATH, "/media/usb  disk/a b", "/" + "x" * 400])
def test_what_people_copy_out_of_a_table_is_whole(monkeypatch, capsys, width, path):
    """A path is in one line, below its row where that has no room; in a pipe always in its row."""
    row = (*COPIED[:-1], path)
    titles = ("since", "size", "what", "folder")
    Report().table(titles, [row, row], right=(1,), copied=(3,))
    piped = capsys.readouterr().out
    assert [line.endswith(f"   {path}") for line in piped.splitlines()] == [False, True, True]
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", str(width))
    Report().table(titles, [row, row], right=(1,), copied=(3,))
    lines = re.sub(r"\x1b\[[\d;]*m", "", sys.stdout.getvalue()).splitlines()
    assert sum(line.rstrip().endswith(path) for line in lines) == 2
    below = sum(line == f"  folder: {path}" for line in lines)
    if path == PATH:
        assert below == (0 if width == 200 else 2)
    assert "".join(lines).count("1.2 GB") == 2
    columns = {line.index("1.2 GB") for line in lines if "1.2 GB" in line}
    assert len(columns) == 1
    assert sum("since" in line for line in lines) == 1


def test_rows_of_several_lines_stand_apart(monkeypatch):
    """On a terminal that has no room for two columns of what people copy."""
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "40")
    rows = [("a", "x" * 30, "y" * 30), ("b", "x" * 30, "")]
    Report().table(("name", "one", "two"), rows, copied=(1, 2))
    text = re.sub(r"\x1b\[[\d;]*m", "", sys.stdout.getvalue())
    assert text.endswith(f"  two: {'y' * 30}\n\nb   \n  one: {'x' * 30}\n") or print(repr(text))


def test_what_is_broken_anyway_leaves_room_for_sentences(monkeypatch):
    """A long path takes no more of a narrow table than a sentence beside it."""
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "50")
    row = ("homeassistant", "/an/image/of/so/long/a/name:stable", "files; SQLite by online backup")
    Report().table(("container", "image", "saved"), [row])
    assert "files; SQLite by" in sys.stdout.getvalue()


def test_off_a_terminal_talk_is_silent_and_trouble_is_not(capsys):
    """Under cron, what goes well prints nothing; failures and warnings are told on stderr."""
    report = Report()
    report.tell("all is well")
    report.start_bars()
    report.ended(JobResult(types.SimpleNamespace(outputs=(), title="x"), JobStatus.DONE))
    report.stop_bars()
    assert capsys.readouterr() == ("", "")
    report.fail("trouble")
    report.warn("careful")
    assert capsys.readouterr() == ("", "trouble\ncareful\n")


@pytest.mark.parametrize("watched", [True, False])
def test_why_a_job_failed_is_told_once(capsys, watched):
    """As it happens to whoever watches, and at the end to all others."""
    job = types.SimpleNamespace(outputs=(), title="put it in place")
    result = JobResult(job, JobStatus.FAILED, message="No room. With --exact it is put aside.")
    report = Report(verbosity=int(watched))
    report.ended(result)
    report.failed([result])
    told = capsys.readouterr().err
    assert told.count("put it in place") == told.count("With --exact") == 1


def test_a_terminal_that_cannot_write_a_letter_gets_an_escape():
    """Under LC_ALL=POSIX a name with an umlaut does not end the run."""
    code = (
        "from iotstack_invoke.reporting.report import Report\n"
        "r = Report(verbosity=1)\n"
        "r.table_of = lambda text: r.table((text,), [(text,)])\n"
        "for act in (r.write, r.fail, r.tell, r.write_json, r.table_of):\n"
        "    act('K\\xf6ln \\u2615 \\udcff')\n"
    )
    environment = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=False, capture_output=True
    )
    assert told.returncode == 0, told.stderr.decode()
    assert rb"K\xf6ln" in told.stdout
    assert rb"K\xf6ln" in told.stderr


# Plans and pictures


@rule("pi:x[1].tar")
def pack(job):
    """Pack [everything]."""
    yield types.SimpleNamespace(commands=lambda: ("tar [-c] .",))


@rule("nas:x[1].tar", input="pi:x[1].tar")
def copy(job):
    """Copy it."""
    yield types.SimpleNamespace(commands=lambda: ("cp",))


@pytest.fixture
def graph():
    return resolve(RuleBook(pack, copy), ["nas:x[1].tar"], {"pi": "/pi", "nas": "/nas"})


def test_a_plan_shows_jobs_reasons_and_commands(capsys, graph):
    """What would run is shown with its reasons and commands; what is settled only if asked for."""
    first, second = graph.jobs
    plan = Plan(
        (
            PlannedJob(first, (), ()),
            PlannedJob(
                second, (Reason(Why.MISSING, "nas:x[1].tar"), Reason(Why.FORCED)), (first,)
            ),
        )
    )
    Report().plan(plan)
    assert capsys.readouterr().out.splitlines() == [
        "copy: nas:x[1].tar",
        "    why: missing: nas:x[1].tar",
        "    why: forced",
        "    $ cp",
        "1 job would run. Nothing was changed.",
    ]
    Report().plan(plan, also_settled=True, commands=False)
    assert capsys.readouterr().out.splitlines()[:3] == [
        "pack: pi:x[1].tar",
        "    exists: nothing to do",
        "copy: nas:x[1].tar",
    ]


def test_the_rules_are_drawn_in_three_ways(capsys, graph):
    """Each picture shows every file and how it comes from the other."""
    Report().graph(graph, "tree")
    tree = capsys.readouterr().out
    assert tree.index("nas:x[1].tar") < tree.index("pi:x[1].tar")
    assert "pack: Pack [everything]." in tree
    Report().graph(graph, "mermaid")
    mermaid = capsys.readouterr().out.splitlines()
    assert mermaid[0] == "flowchart BT"
    names = dict(re.fullmatch(r' +(\w+)\["(.*)"\]', line).groups()[::-1] for line in mermaid[1:3])
    assert mermaid[3].strip() == f"{names['pi:x[1].tar']} -->|copy| {names['nas:x[1].tar']}"
    Report().graph(graph, "dot")
    dot = capsys.readouterr().out
    assert '"pi:x[1].tar" -> "nas:x[1].tar";' in dot
    assert dot.startswith("digraph rules {")
    assert dot.rstrip().endswith("}")


@rule("usb:x[1].tar", input="pi:x[1].tar", name="copy")
def copy_to_usb(job):
    """Copy it."""
    yield types.SimpleNamespace(commands=lambda: ("cp",))


def test_what_the_tree_has_shown_is_named_and_not_shown_again(capsys):
    """Of a second vault a copy is one line, which says what it is a copy of."""
    roots = {"pi": "/pi", "nas": "/nas", "usb": "/usb"}
    targets = ["usb:x[1].tar", "nas:x[1].tar"]
    Report().graph(resolve(RuleBook(pack, copy, copy_to_usb), targets, roots), "tree")
    tree = capsys.readouterr().out
    assert tree.count("Pack [everything].") == tree.count("Copy it.") == 1
    assert tree.splitlines()[-1].endswith(": copy from pi:x[1].tar (above)")


# Bars


BOOKS = (
    backup_book(("nas",)),
    pull_book("shelf"),
    rehearsal_book(),
    reload_book(),
    restore_book(),
)


@pytest.mark.parametrize(
    "each", [one for book in BOOKS for one in book.rules], ids=lambda each: each.name
)
def test_each_job_is_called_in_plain_words(each):
    """Names of rules are for those who read rulebooks."""
    assert each.title
    assert "_" not in each.title
    assert len(each.title) <= 40


def test_a_job_names_the_part_that_it_is_about():
    """A copy names its vault, too."""
    book = backup_book(("nas",))
    made, wildcards = book.find("nas:2026.influx-backup.tar")
    assert book.title(made, wildcards) == "copy the influx part to nas"


def test_each_step_is_told_in_a_few_plain_words():
    """While it runs there is no room for more."""
    modules = [
        each.name for each in pkgutil.walk_packages(iotstack_invoke.__path__, "iotstack_invoke.")
    ]
    found = {
        kind
        for name in modules
        if not name.endswith("__main__")
        for _, kind in inspect.getmembers(importlib.import_module(name), inspect.isclass)
        if {"do", "commands"} <= {*dir(kind)} and not getattr(kind, "_is_protocol", False)
    }
    lacking = {kind.__name__ for kind in found if kind.__module__.startswith("iotstack_invoke")}
    lacking -= {"CommandStep", "ContainersStep"}  # what others are made of
    lacking -= {name for name, words in VERBS.items() if 0 < len(words) <= 40}
    assert lacking == set()


def test_bars_follow_the_jobs(monkeypatch, graph):
    """Each running job has a bar with what it says; a guess that was too low is no 120 %."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    job = graph.jobs[0]
    report = Report()
    report.start_bars()
    report.started(PlannedJob(job, (), ()))
    report.stepped(job, 1, StopContainers(HostAccess("pi", docker=()), tuple("abcdef")))
    report.moved(job, 50_000_000, 100_000_000)
    report._bars.refresh()
    report.said(job, "checking [all]")
    (bar,) = report._bars.tasks
    assert (bar.percentage, bar.fields["saying"]) == (50, "checking [all]")
    report._bars.refresh()
    report.moved(job, 120_000_000, 100_000_000)
    assert bar.percentage == 100
    report.ended(JobResult(job, JobStatus.FAILED, 1.0, "no [tape]"))
    assert report._bars.tasks == []
    report.stop_bars()
    shown = stream.getvalue()
    assert f"step 1 of {len(job.steps)} stop a, b, c, d and 2 more" in " ".join(shown.split())
    assert "50.0 MB of 100.0 MB" in shown
    assert "0:00" in shown
    assert "checking [all]" in shown
    assert "✗ pack (1.0 s): no [tape]" in shown
    report.ended(JobResult(job, JobStatus.FAILED, 1.0, "no [tape]"))  # as all jobs of one vault
    assert "✗ pack (1.0 s): as above" in stream.getvalue()
    assert stream.getvalue().count("no [tape]") == 1
    report.moved(job, 1, 1)  # whoever comes late is passed over


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_running_job_has_one_line(monkeypatch, graph, width):
    """On a narrow terminal too: what is waited for is cut, and never the clock."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", str(width))
    job = graph.jobs[0]
    report = Report()
    report.start_bars()
    report.started(PlannedJob(job, (), ()))
    report.stepped(job, 1, StopContainers(HostAccess("pi", docker=()), ("nodered",)))
    report.said(job, f"waiting for {'x' * 150}")
    report.moved(job, 50_000_000, 100_000_000)
    lines = report.console(error=True).render_lines(report._bars.get_renderable())
    text = ["".join(each.text for each in line).rstrip() for line in lines]
    report.stop_bars()
    assert len([line for line in text if line]) == 1
    assert text[0].endswith("0:00")
    most = report.console(error=True).width - len("^C")
    assert len(text[0]) <= most, "the terminal echoes it behind that"
    if width > 40:
        assert "waiting for x" in text[0]


def test_a_wait_is_told_where_somebody_looks(monkeypatch, capsys):
    """With how long it lasts already; elsewhere not a word."""
    with Report().waiting("until a command ends"):
        pass
    assert capsys.readouterr() == ("", "")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    report = Report()
    with report.waiting("until a command ends"):
        report._bars.refresh()
    assert "until a command ends" in stream.getvalue()
    assert report._bars is None


def test_everything_is_passed_on_to_all(graph):
    """A fanout tells each of its watchers the same."""
    told = []
    watchers = [
        types.SimpleNamespace(heard=lambda *given, n=n: told.append((n, given))) for n in range(2)
    ]
    CompositeReporter(*watchers).heard(graph.jobs[0], "out", "x")
    assert told == [(0, (graph.jobs[0], "out", "x")), (1, (graph.jobs[0], "out", "x"))]


# Whole runs


def test_a_good_run_under_cron_prints_nothing(little_stack):
    """Off a terminal, a backup that goes well says not a word."""
    told = little_stack.run("backup --runtag quiet")
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
    assert "quiet.general-backup.tar.gz" in os.listdir(little_stack.folder / "backups")


def test_at_a_terminal_there_are_bars_and_a_table(little_stack):
    """Whoever watches a backup sees its bar, the end of each job and the parts with their sizes."""
    (little_stack.folder / "volumes" / "random").write_bytes(os.urandom(3_000_000))
    little_stack.tool("tar", 'sleep 1; exec /usr/bin/tar "$@"')
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
    process = subprocess.Popen(
        little_stack.words("backup --runtag shown"),
        env={**little_stack.environment, "TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and select.select([ours], [], [], 60)[0]:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # EIO: nobody writes any more
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    before, _, after = text.partition("✓ pack the stack")
    assert "pack the stack" in before  # its bar
    assert re.search(r"step \d+ of \d+ +pack files of the stack", before)
    assert re.search(r" 0:0\d", before)
    assert re.search(r"part +file +size +time +state +copied to", after)
    assert re.search(r"general +shown\.general-backup\.tar\.gz +3\.0 MB .*complete", after)
    assert "Backup shown is complete." in after


@pytest.mark.parametrize(
    ("stream", "line"),
    [(Terminal(), "✗ docker [x]: it broke → mend it"), (io.StringIO(), "FAIL  docker [x]: it")],
)
def test_a_finding_is_one_line(monkeypatch, stream, line):
    """A mark at a terminal, a word elsewhere; text of several lines is one, and no markup."""
    monkeypatch.setattr(sys, "stdout", stream)
    Report().finding("failed", "docker [x]", "it\nbroke", "mend\n  it")
    told = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())
    assert told.startswith(line)
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("size", "told"), [(1, "1 byte"), (677, "677 bytes"), (1234, "1.2 kB (1,234 bytes)")]
)
def test_an_exact_size_is_told_once(size, told):
    """What is not rounded needs no second number."""
    assert exact_size_text(size) == told


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_what_others_wrote_acts_on_no_terminal(monkeypatch, stream):
    """A cell of a table is one line of visible text, of a length that leaves a table."""
    out = stream()
    monkeypatch.setattr(sys, "stdout", out)
    rows = [("nas\x1b[2J\nroot", "1"), ("pi\u202e", "2"), ("h" * 100_000, "3")]
    Report(verbosity=-1).table(("host", "n"), rows)
    told = out.getvalue()
    assert r"nas\x1b[2J root" in told
    assert "\x1b[2J" not in told
    assert "\u202e" not in told
    assert len(told) < 10_000
