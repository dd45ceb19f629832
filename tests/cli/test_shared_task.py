"""Tasks: flags that each of them has, errors as messages and exit codes, never a traceback."""

import contextlib
import fcntl
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from shutil import copytree, ignore_patterns

import folders
import pytest
from contexts import alive, until
from invoke.context import Context
from invoke.exceptions import Exit

import iotstack_invoke
from iotstack_invoke.cli.program import program
from iotstack_invoke.cli.shared_task import RUN_FLAGS, SharedTask, shared_task
from iotstack_invoke.cli.tasks_and_flags import namespace
from iotstack_invoke.core import errors
from iotstack_invoke.hosts.local import locked
from iotstack_invoke.settings.model import Options

CHECKOUT = str(folders.CHECKOUT)
TASKS = {name: namespace[name] for name in sorted(namespace.task_names)}
RUNNING = [name for name, task in TASKS.items() if task.runs]


def run_by(program, little_stack, line):
    """Run a command line by `iotstack`, or by the `inv` of this checkout."""
    words = little_stack.words(line)
    if program == "inv":
        words[2:3] = ["invoke", "-r", CHECKOUT]
    return subprocess.run(
        words, env=little_stack.environment, capture_output=True, text=True, check=False
    )


def wrap_as_terminal(line, columns):
    """Return the rows that a terminal shows of a line."""
    return [line[begin : begin + columns] for begin in range(0, len(line), columns)]


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """A settings file of its own."""
    path = tmp_path / "hosts.toml"
    path.write_text(f'[stack]\nfolder = "{tmp_path}"\n')
    monkeypatch.setenv("IOTSTACK_SETTINGS", str(path))
    return path


def call(body, *, runs=False, context=None, **given):
    """Call a task as Invoke does, with the defaults of all flags that are not given."""
    made = shared_task(runs=runs)(body)
    flags = {each.attr_name or each.name: each.default for each in made.get_arguments()}
    return made(context or Context(), **{**flags, **given})


# Flags


def test_every_task_is_a_shared_task():
    """Each is one, and those that run a plan are known."""
    assert all(isinstance(task, SharedTask) for task in TASKS.values())
    assert "backup" in RUNNING


@pytest.mark.parametrize("name", TASKS)
def test_each_flag_is_there_once(name):
    """A task has its own flags and the shared ones, none twice; short ones are -q and -v."""
    flags = [flag for each in TASKS[name].get_arguments() for flag in each.names]
    assert len(flags) == len(set(flags))
    assert {"settings", "debug"} <= set(flags)
    assert {flag for flag in flags if len(flag) == 1} == {"q", "v"}
    shared = {flag for each in RUN_FLAGS for flag in each.names}
    assert (shared <= set(flags)) == (name in RUNNING)


@pytest.mark.parametrize("name", RUNNING)
def test_the_help_names_the_shared_flags_once(little_stack, name):
    """`--help` of a task that runs a plan shows each shared flag once, and the exit codes."""
    told = little_stack.run(f"--help {name}")
    assert told.returncode == 0
    for flag in ("--dry-run", "--why", "--jobs=STRING", "--force", "--[no-]keep-going", "--debug"):
        assert told.stdout.count(f"{flag} ") + told.stdout.count(f"{flag}\n") == 1
    assert "Exit codes: 0 success;" in told.stdout


def test_flags_become_options(settings):
    """What is typed is what the body is given; nothing typed gives the defaults."""
    seen = []
    body = lambda work, name="": seen.append((work.options, name))  # noqa: E731
    call(body, runs=True)
    call(body, runs=True, jobs="7", dry_run=True, why=True, force=True, keep_going=False, name="x")
    assert seen[0] == (Options(), "")
    assert seen[1] == (Options(dry_run=True, why=True, jobs=7, force=True, keep_going=False), "x")


def test_a_calls_flags_are_not_anothers(settings):
    """A flag that was given to one task does not stay for the next one."""
    first, second = (namespace.tasks["backup"].get_arguments() for _ in range(2))
    by_name = {each.name: each for each in first}
    by_name["jobs"].value = "9"
    assert {each.name: each for each in second}["jobs"].value == "2"


@pytest.mark.parametrize("jobs", ["0", "17", "x", "-1", "", "²", "1.5", " 2"])
def test_a_wrong_number_of_jobs_is_wrong_usage(settings, capsys, jobs):
    """What is no number from 1 to 16 is told with what was typed, and ends with 2."""
    with pytest.raises(Exit) as ended:
        call(lambda work: pytest.fail("began"), runs=True, jobs=jobs)
    assert ended.value.code == 2
    assert f"--jobs {jobs}: must be a number" in capsys.readouterr().err


def test_invokes_own_dry_means_a_dry_run(settings):
    """`inv --dry` is the wish for a dry run, not for lies of an Invoke that runs nothing."""
    seen = []
    context = Context()
    context.config.run.dry = True
    call(lambda work: seen.append(work.options.dry_run), runs=True, context=context)
    assert seen == [True]


@pytest.mark.parametrize("program", ["iotstack", "inv"])
@pytest.mark.parametrize("flag", ["core", "task"])
def test_a_dry_run_changes_nothing(little_stack, program, flag):
    """Whichever way it is asked for, commands are shown and no file is made or touched."""
    before = little_stack.tree()
    dry, own = ("-R", "") if flag == "core" else ("", "--dry-run")
    told = run_by(program, little_stack, f"{dry} backup {own}")
    assert (told.returncode, told.stderr) == (0, "")
    assert "general_archive: pi:backups/" in told.stdout
    assert "$ env LC_ALL=C.UTF-8 tar --create" in told.stdout
    assert "Nothing was changed." in told.stdout
    assert little_stack.tree() == before


# Errors


TREE = [
    (errors.IotstackError("it broke"), 1),
    (errors.UsageError("it broke"), 2),
    (errors.RuntagError("it broke"), 2),
    (errors.SettingsError("it broke"), 2),
    (errors.RuleError("it broke"), 2),
    (errors.NotFound("it broke"), 10),
    (errors.Busy("it broke"), 11),
    (errors.Refused("it broke"), 13),
    (errors.StepFailed("it broke"), 1),
    (errors.Unreachable("it broke"), 1),
    (errors.Interrupted(15), 143),
    (KeyboardInterrupt(), 130),
]


@pytest.mark.parametrize(("error", "code"), TREE, ids=lambda each: type(each).__name__)
def test_an_error_is_a_message_and_an_exit_code(settings, capsys, error, code):
    """Each of our errors ends with its own code, its message on stderr and no traceback."""

    def body(work):
        raise error

    with pytest.raises(Exit) as ended:
        call(body)
    shown = capsys.readouterr()
    assert ended.value.code == code
    assert shown.out == ""
    assert shown.err.strip() == (str(error) or str(errors.Interrupted(2)))


def test_a_code_that_is_not_good_is_the_exit_code(settings):
    """What a body returns is the exit code; nothing, or 0, is good."""
    assert call(lambda work: None) is None
    assert call(lambda work: 0) == 0
    with pytest.raises(Exit) as ended:
        call(lambda work: 3)
    assert ended.value.code == 3


def test_a_mistake_of_ours_is_not_hidden(settings):
    """What is none of our errors comes out as it is."""
    with pytest.raises(ZeroDivisionError):
        call(lambda work: 1 / 0)


def test_debug_shows_where_it_failed(little_stack):
    """With --debug there is a traceback before the message, without it there is none."""
    little_stack.settings.write_text("[stack]\nfolde = 1\n")
    plain, debug = (little_stack.run(f"list {flag}") for flag in ("", "--debug"))
    assert plain.returncode == debug.returncode == 2
    assert "did you mean 'folder'?" in plain.stderr
    assert "Traceback" not in plain.stderr
    assert debug.stderr.startswith("Traceback")
    assert debug.stderr.endswith(plain.stderr)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("backup --no-such-flag", "inv backup has no option --no-such-flag."),
        ("no-such-task", "There is no task 'no-such-task'."),
        ("--no-such-flag backup", "inv has no option --no-such-flag."),
        ("backup positional", "inv backup takes no argument 'positional' here."),
        ("backup --runtag", "--runtag needs a value. All its options: inv --help backup\n"),
        ("restore --from", "--from needs a value."),
        ("backup --jobs many", "--jobs many"),
        ("backup --runtag a/b", "is not a valid runtag"),
        ("backup --settings none.toml", "Settings file none.toml not found"),
        ("graph --format svg", "--format svg"),
        ("why", "Use: inv why FILE. FILE: Name a file of a backup"),
        ("restore --only a,b", "--only a,b: give each name its own flag: --only a --only b\n"),
        ("restore --only 'a, b c'", "--only a --only 'b c'\n"),
        ("restore --live a,b", "--live a --live b\n"),
        ("restore --only ''", "--only is empty"),
        ("sync --vault nas,usb", "--vault nas --vault usb\n"),
        ("doctor --host a,b", "--host a --host b\n"),
        ("why nobody:makes/this", "unknown role; use one of"),
    ],
)
def test_a_wrong_command_line_is_exit_2(little_stack, line, said):
    """Whoever types something wrong learns what, and a script learns exit code 2."""
    told = little_stack.run(line)
    assert told.returncode == 2
    assert said in told.stderr
    assert "Traceback" not in told.stderr
    assert told.stdout == ""


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("restore latest", "To name a backup: inv restore --runtag latest ("),
        ("verify 'two words'", "To name a backup: inv verify --runtag 'two words' ("),
        ("verify 2026-11-23_1100", "backup: inv verify --runtag 2026-11-23_1100 ("),
        ("verify nas", "backup: inv verify --runtag nas; a vault: inv verify --at nas ("),
        ("sync nas", "To name a vault: inv sync --vault nas ("),
        ("prune usb", "To name a vault: inv prune --at usb ("),
        ("status nas", "To name a vault: inv status --at nas; a host: inv status --host nas ("),
        ("backup pi2", "backup: inv backup --runtag pi2; a host: inv backup --host pi2 ("),
        ("show before the move", "needs quotes: inv show 'before the …' ("),
        ("diff a before the move", "needs quotes: inv diff 'before the …' ("),
        ("backup --runtag before the move", "needs quotes: inv backup --runtag 'before the …' ("),
        ("restore --runtga t1", "Did you mean --runtag? (All its options: inv --help restore)"),
        ("restore yes", "Use: inv restore --yes ("),
        ("sync --to nas", "no option --to. To name a vault: inv sync --vault NAME ("),
        ("restore --vault nas", "To name a vault: inv restore --from NAME ("),
        ("prune --from nas", "To name a vault: inv prune --at NAME ("),
        ("list --at nas", "no option --at. It always lists here and every vault. ("),
        (
            "init --vault nas",
            "no option --vault. To name a place for copies: inv init --copies PLACE (",
        ),
        ("init nas", "inv init takes no argument 'nas' here. All its options: inv --help init"),
        ("prune --keep-dayly 3", "Did you mean --keep-daily or --keep-"),
        ("bakcup", "Did you mean backup? (All tasks: inv --list)"),
        ("--help bakcup", "Did you mean backup? (All tasks: inv --list)"),
        ("help bakcup", "Did you mean backup? (All tasks: inv --list)"),
        (
            "diff",
            "inv diff BEFORE AFTER. BEFORE: Compare this backup; latest is the newest. AFTER:",
        ),
        ("diff a", "inv diff a AFTER. AFTER: Compare with this backup."),
        ("key", "WHAT: Write new to make a key, sheet to print a recovery sheet, or check to"),
        ("hosts x", "argument 'x' here. All its options: inv --help hosts"),
    ],
)
@pytest.mark.parametrize("program", ["iotstack", "inv"])
def test_a_wrong_command_line_is_told_with_what_to_write(little_stack, program, line, hint):
    """By both programs, with exit 2; what is wrong comes first."""
    told = run_by(program, little_stack, line)
    assert told.returncode == 2
    assert hint in told.stderr
    assert told.stderr.count("\n") == 1
    assert told.stderr.startswith(("inv ", "There is no task ", "An argument is missing."))
    assert told.stdout == ""


@pytest.mark.parametrize("line", ["list --at nas", "--list x", "--help restore"])
def test_no_word_is_broken_at_a_terminal(little_stack, line):
    """Rows of 61 columns; what is piped stays in lines of any length."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 61, 0, 0))
    words, environment = little_stack.words(line), {**little_stack.environment, "TERM": "dumb"}
    shown = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    told = ""
    with contextlib.suppress(OSError):  # as it ends at a terminal that is closed
        while piece := os.read(ours, 65536):
            told += piece.decode()
    shown.wait()
    os.close(ours)
    piped = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    for row in [row for each in told.splitlines() for row in wrap_as_terminal(each, 61)]:
        assert row.split()[-1:] in (
            [],
            *[[each] for each in (piped.stdout + piped.stderr).split()],
        )


@pytest.mark.parametrize("program", ["iotstack", "inv"])
@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (
            "--config hosts.toml list",
            "For a settings file of this program use: inv TASK --settings hosts.toml",
        ),
        ("-f /nope list", "inv TASK --settings /nope"),
        ("--list backup", "Its options: inv --help backup"),
    ],
)
def test_flags_of_invoke_that_mean_something_else_are_told(little_stack, program, line, hint):
    """With the flag of ours that was meant, exit 2, and no traceback."""
    told = run_by(program, little_stack, line)
    assert (told.returncode, told.stdout) == (2, "")
    assert hint in told.stderr
    assert told.stderr.count("\n") == 1


@pytest.mark.parametrize("program", ["iotstack", "inv"])
@pytest.mark.parametrize(
    ("line", "task"),
    [
        ("key --help", "key"),
        ("show -h", "show"),
        ("diff a --help", "diff"),
        ("restore --only --help", "restore"),
        ("verify --help nonsense", "verify"),
        ("help backup", "backup"),
    ],
)
def test_help_is_shown_wherever_it_is_asked_for(little_stack, program, line, task):
    """Also where a runtag, or a flag's value, would be due; and as `help TASK`."""
    told = run_by(program, little_stack, line)
    assert (told.returncode, told.stderr) == (0, "")
    assert f" {task} [--options]" in told.stdout
    assert "--settings" in told.stdout


@pytest.mark.parametrize("program", ["iotstack", "inv"])
def test_who_types_no_task_is_shown_all(little_stack, program):
    """And not forty lines of Invoke's own flags."""
    told = run_by(program, little_stack, "")
    assert (told.returncode, told.stderr) == (0, "")
    assert "  backup " in told.stdout
    assert "--no-dedupe" not in told.stdout


@pytest.mark.parametrize("flag", ["host", "only", "live"])
def test_a_flag_that_may_be_given_several_times_shows_its_value(little_stack, flag):
    """As others that take one."""
    assert f"  --{flag}=STRING " in little_stack.run("--help restore").stdout


FLAGS_WITH_VALUE = [
    (name, each.names[0].strip("_").replace("_", "-"))
    for name, task in TASKS.items()
    for each in task.get_arguments()
    if each.takes_value and not each.positional
]
NOT_MEANT = ("--{flag}", "--{flag} --debug", "--debug --{flag}", "--{flag}=one --{flag}")
"""What is typed by who forgot the value, or by a script whose variable is not set."""


@pytest.mark.parametrize(("task", "flag"), FLAGS_WITH_VALUE)
def test_a_flag_without_its_value_is_not_one_that_is_left_out(task, flag, capsys):
    """`restore --only` and `restore --host` are not the whole of this machine."""
    for form in NOT_MEANT:
        with pytest.raises(SystemExit) as ended:
            program.run(["iotstack", task, *form.format(flag=flag).split()])
        told = capsys.readouterr()
        assert (ended.value.code, told.out) == (2, "")
        assert told.err == f"--{flag} needs a value. All its options: inv --help {task}\n"


@pytest.mark.parametrize(("task", "flag"), FLAGS_WITH_VALUE)
def test_a_flag_with_a_blank_value_is_not_one_that_is_left_out(task, flag, capsys):
    """`--settings "$FILE"` and `--from "$VAULT"` do not mean the default if nothing is in it."""
    for form in ([f"--{flag}", ""], [f"--{flag}= ", "--debug"], [f"--{flag}=", f"--{flag}=one"]):
        with pytest.raises(SystemExit) as ended:
            program.run(["iotstack", task, *form])
        told = capsys.readouterr()
        assert (ended.value.code, told.out) == (2, "")
        assert told.err == f"--{flag} is empty. All its options: inv --help {task}\n"


@pytest.mark.parametrize("program", ["iotstack", "inv"])
@pytest.mark.parametrize("line", ["restore --only --yes", "restore --dry-run --host"])
def test_both_programs_refuse_a_flag_without_its_value(little_stack, program, line):
    """Before anything is read."""
    told = run_by(program, little_stack, line)
    assert (told.returncode, told.stdout) == (2, "")
    assert "needs a value. All its options: inv --help restore" in told.stderr


def test_the_name_of_a_database_may_hold_a_comma(settings):
    """It is no list of names."""
    seen = []
    call(lambda work, only=(): seen.append(only), only=["influxdb:a,b"])
    assert seen == [["influxdb:a,b"]]


@pytest.mark.parametrize(
    "line", ["--list", "--help", "--version", "--help backup", "list", "graph"]
)
def test_a_good_command_line_is_exit_0(little_stack, line):
    """Whatever only looks says something on stdout and ends well."""
    told = little_stack.run(line)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.strip()


def test_the_picture_has_each_part_that_a_stack_may_have(little_stack):
    """Recipes aside, which few have."""
    told = little_stack.run("graph").stdout
    parts = ("general", "outside", "influx", "influxdb2", "mariadb", "postgres")
    assert [each for each in parts if f"{each}_archive:" not in told] == []


# Whole runs


def test_a_second_run_is_busy(little_stack):
    """While somebody holds the lock, a run ends with 11 and says who."""
    (little_stack.folder / "backups").mkdir()
    with locked(f"{little_stack.folder}/backups/.lock", "backup by hand"):
        told = little_stack.run("backup")
    assert told.returncode == 11
    assert "backup by hand" in told.stderr
    assert little_stack.run("backup").returncode == 0


def test_a_folder_without_a_stack_is_refused(little_stack):
    """Where there is nothing to back up, nothing is made and the code is 13."""
    (little_stack.folder / "docker-compose.yml").unlink()
    told = little_stack.run("backup")
    assert told.returncode == 13
    assert "No IOTstack found in" in told.stderr
    assert f'folder = "…" in {little_stack.settings}. If its' in told.stderr


def test_a_failed_part_is_exit_1_and_a_warning_is_exit_3(little_stack):
    """A script tells a backup that lacks a part from one that has only warnings."""
    little_stack.tool("tar", 'echo "tar: disk on fire" >&2; exit 2')
    told = little_stack.run("backup --runtag bad")
    assert told.returncode == 1
    assert "disk on fire" in told.stderr
    assert "--runtag 'bad'" in told.stderr
    little_stack.tool(
        "tar", '/usr/bin/tar "$@"; echo "tar: ./a: file changed as we read it" >&2; exit 1'
    )
    told = little_stack.run("backup --runtag warned")
    assert told.returncode == 3
    assert "./a: file changed as we read it" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize("words", ["list", "list --json", "graph", "prune --dry-run", "--help"])
def test_who_reads_no_further_gets_no_traceback(little_stack, words):
    """A closed pipe ends a task with 141 or earlier, and in silence."""
    reader, writer = os.pipe()
    os.close(reader)
    process = little_stack.start(words, stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert process.returncode in {1, 141}
    assert err == ""


@pytest.mark.parametrize("words", ["--list", "--help list"])
def test_who_reads_no_further_of_what_invoke_prints_gets_no_traceback(little_stack, words):
    """The `inv` of a checkout is Invoke's own program until it has read tasks.py."""
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        (sys.executable, "-m", "invoke", "-r", CHECKOUT, *words.split()),
        env=little_stack.environment,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (141, "")


LONG = "metrics --dashboard influxdb"


@pytest.mark.parametrize(
    "words", ["list --json", "backup --dry-run", LONG, "--help backup", "--list"]
)
@pytest.mark.parametrize("at_once", ["", "1"])
def test_a_result_that_cannot_be_written_is_a_failure(little_stack, words, at_once):
    """A full disk behind `>` is told, with exit 1."""
    little_stack.environment["PYTHONUNBUFFERED"] = at_once
    with open("/dev/full", "w") as full:
        process = little_stack.start(words, stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == "Cannot write the output: No space left on device.\n"


def test_messages_that_cannot_be_written_stop_nothing(little_stack):
    """A full disk behind `2>`: the backup is made, and the results come."""
    with open("/dev/full", "w") as full:
        process = little_stack.start("backup -v --runtag here", stderr=full)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "complete" in out
    assert (little_stack.folder / "backups/here.manifest.json").exists()


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_a_closed_stream_stops_no_backup(little_stack, closed):
    """Python has None in its place; a file that is opened later must not get its number."""
    line = shlex.join(little_stack.words("backup --runtag here"))
    done = subprocess.run(
        ("sh", "-c", f"{line} {closed}"), env=little_stack.environment, check=False
    )
    assert done.returncode == 0
    assert (little_stack.folder / "backups/here.manifest.json").exists()


def test_a_result_for_a_closed_stdout_is_a_failure(little_stack):
    """As on a full disk."""
    line = shlex.join(little_stack.words("list"))
    words = ("sh", "-c", f"{line} >&-")
    done = subprocess.run(
        words, env=little_stack.environment, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (
        1,
        "Cannot write the output: Bad file descriptor.\n",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_backup_with_its_code(little_stack, number):
    """A backup that is stopped leaves no program and no half-written part, and says so."""
    pid = little_stack.folder.parent / "pid"
    little_stack.tool("tar", f"echo $$ > {pid}; exec sleep 300")
    process = little_stack.start("backup --runtag stopped")
    try:
        until(lambda: pid.read_text().endswith("\n"))
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert out == ""
    assert "Incomplete files keep partial names" in err
    assert "Traceback" not in err
    assert not alive(int(pid.read_text()))
    left = os.listdir(little_stack.folder / "backups")
    assert not [name for name in left if name.endswith(".partial") and "log" not in name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_look_ends_it_soon(little_stack, number):
    """A Docker that does not answer is not waited for by whoever presses Ctrl-C."""
    pid = little_stack.folder.parent / "pid"
    little_stack.tool("docker", f"echo $$ > {pid}; exec sleep 50")
    process = little_stack.start("backup")
    try:
        until(lambda: pid.read_text().endswith("\n"))
        process.send_signal(number)
        _, err = process.communicate(timeout=25)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert "Traceback" not in err
    assert not alive(int(pid.read_text()))


BEFORE = "program.program.run = stop; program.main()"
AFTER = "run = program.program.run; program.program.run = lambda: run(exit=False) or stop()"
AT_THE_END = "threading._register_atexit(stop)"
IN_THE_CHECKOUT = "threading._register_atexit(stop); from invoke.main import program as inv"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "moment",
    [
        BEFORE,
        f"{AFTER}; program.main()",
        f"{AT_THE_END}; program.main()",
        f"{IN_THE_CHECKOUT}; inv.run(['inv', 'list'])",
    ],
)
def test_a_signal_while_no_task_runs_ends_it_with_our_code(little_stack, moment, number):
    """From the first moment to the last: its code, one line, and what was written before."""
    kill = f"stop = lambda: os.kill(os.getpid(), {int(number)}) or time.sleep(60)"
    python = little_stack.words("")[0]
    script = (
        f"import os, threading, time; from iotstack_invoke.cli import program; {kill}; {moment}"
    )
    told = subprocess.run(
        [python, "-c", script, "list"],
        cwd=CHECKOUT,
        env=little_stack.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 128 + number, told.stderr
    assert told.stderr == f"{errors.Interrupted(number)}\n"
    assert ("No backups found in" in told.stdout) == (moment != BEFORE), told.stdout


def test_a_thread_that_fails_when_all_is_done_prints_no_traceback(little_stack):
    """One is left behind where a share hangs: what it says in the end is a line."""
    fail = "stop = lambda: threading.Thread(target=lambda: 1 / 0).start()"
    script = f"import threading; from iotstack_invoke.cli import program; {fail}; {AFTER}; program.main()"
    words = [little_stack.words("")[0], "-c", script, "list"]
    told = subprocess.run(
        words, env=little_stack.environment, capture_output=True, text=True, check=False
    )
    assert "Unexpected error in a thread: ZeroDivisionError" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_signal_while_python_ends_changes_nothing(little_stack):
    """All is done and told by then."""
    kill = "atexit.register(lambda: os.kill(os.getpid(), 15))"
    script = f"import atexit, os; from iotstack_invoke.cli import program; {kill}; program.main()"
    told = subprocess.run(
        [little_stack.words("")[0], "-c", script, "list"],
        env=little_stack.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("passed_over", [False, True])
def test_a_signal_in_any_task_is_told(settings, capsys, number, passed_over):
    """Also where the task passes over whatever fails, and where it comes when all is done."""
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]

    def body(_work):
        try:
            os.kill(os.getpid(), number)
        except errors.IotstackError:
            if not passed_over:
                raise

    with pytest.raises(Exit) as ended:
        call(body)
    assert ended.value.code == 128 + number
    assert capsys.readouterr().err == f"{errors.Interrupted(number)}\n"
    after = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert before == after


@pytest.mark.parametrize("code", [None, 0, 3, 13])
def test_what_leaves_a_thread_is_told_in_a_line_and_is_a_failure(settings, capsys, code):
    """No traceback is printed, and nobody takes such a run for a good one."""

    def body(_work):
        def fail():
            raise EOFError("nothing")

        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        return code

    with pytest.raises(Exit) as ended:
        call(body)
    assert ended.value.code == (code if code == 13 else 1)
    told = capsys.readouterr().err
    assert "Unexpected error in a thread: EOFError: nothing. Add --debug" in told
    assert "Traceback" not in told


def test_the_module_is_the_program():
    """`python -m iotstack_invoke` and the installed `iotstack` are the same."""
    told = subprocess.run(
        [sys.executable, "-m", "iotstack_invoke", "--version"], check=True, capture_output=True
    )
    assert told.stdout.startswith(b"iotstack-invoke ")


def test_a_run_leaves_bytecode_for_the_next(little_stack, tmp_path):
    """Invoke turns that off, and each run would compile all of us anew: half of its start."""
    ours = ignore_patterns("__pycache__")
    copytree(Path(iotstack_invoke.__file__).parent, tmp_path / "iotstack_invoke", ignore=ours)
    words, environment = little_stack.words("list"), little_stack.environment
    subprocess.run(words, cwd=tmp_path, env=environment, check=True)
    left = {path.name.partition(".")[0] for path in tmp_path.rglob("iotstack_invoke/**/*.pyc")}
    assert {"listing", "model", "report"} <= left


def test_commands_that_are_told_repeat_the_settings_file(little_stack, tmp_path):
    """Who gave --settings would else be sent to another stack, or to none."""
    mine = tmp_path / "my hosts.toml"
    mine.write_text(little_stack.settings.read_text())
    little_stack.settings.unlink()
    for line in ("list", "doctor", "prune --at here"):
        told = little_stack.run(f"{line} --settings '{mine}'")
        both = told.stdout + told.stderr
        commands = re.findall(r"\binv [a-z][a-z-]*.{50}", both)
        assert all(f" --settings '{mine}'"[:40] in each for each in commands), both
        assert commands or not line.startswith(("list", "doctor"))
    told = little_stack.run(f"backup --runtag x --settings={mine.name}")
    assert told.returncode == 2  # it is looked for where the command runs
    little_stack.settings.write_text(mine.read_text())
    assert "To make one: inv backup\n" in little_stack.run("list").stdout


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("restore latest", "To name a backup: iotstack restore --runtag latest ("),
        ("bakcup", "(All tasks: iotstack --list)"),
        ("doctor", "iotstack backup"),
    ],
)
def test_a_hint_calls_the_program_as_it_was_called(little_stack, tmp_path, line, hint):
    """Where `iotstack` is typed, `inv` may not be there, or may read another folder's tasks."""
    script = tmp_path / "iotstack"
    script.write_text("from iotstack_invoke.cli.command import main\n\nmain()\n")
    words = [sys.executable, script, *line.split()]
    told = subprocess.run(
        words, env=little_stack.environment, capture_output=True, text=True, check=False
    )
    assert hint in told.stdout + told.stderr
    assert "inv " not in told.stdout + told.stderr


def test_show_and_pin_without_a_runtag_mean_the_newest(little_stack):
    """As with `latest`; another positional is still refused."""
    for tag in ("older", "newer"):
        assert little_stack.run(f"backup --runtag {tag}").returncode == 0
        time.sleep(1.1)  # two sets of one second: the second one is of the next, the future
    assert little_stack.run("show").stdout == little_stack.run("show latest").stdout
    assert "newer" in little_stack.run("show").stdout.splitlines()[0]
    told = little_stack.run("pin --note why")
    assert told.returncode == 0
    assert "newer" in told.stdout
    assert (little_stack.folder / "backups/newer.pin.txt").exists()
    assert little_stack.run("show older newer").returncode == 2


def fab(little_stack, *words):
    """Run Fabric's own program in this checkout."""
    program = os.path.join(os.path.dirname(sys.executable), "fab")
    return subprocess.run(
        [program, *words],
        env=little_stack.environment,
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_fab_runs_the_same_tasks(little_stack):
    """Those who know Fabric find the tasks of `inv`, with their flags."""
    told = fab(little_stack, "--list")
    assert (told.returncode, told.stderr) == (0, "")
    assert re.search(r"^  backup +Back up the stack", told.stdout, re.MULTILINE)
    dry = fab(little_stack, "backup", "--dry-run", "--runtag", "x")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert dry.stdout == run_by("inv", little_stack, "backup --dry-run --runtag x").stdout
    unknown = fab(little_stack, "backup", "--host", "attic")
    assert unknown.returncode == 2
    assert "attic" in unknown.stderr


@pytest.mark.parametrize(
    ("task", "hint"),
    [
        ("backup", "name the host after the task: fab backup --host attic"),
        ("list", "list works on this machine only: remove -H."),
    ],
)
def test_a_host_of_fab_is_not_passed_over(little_stack, task, hint):
    """`fab -H attic backup` would otherwise be a backup of this machine."""
    told = fab(little_stack, "-H", "attic", task)
    assert told.returncode == 2
    assert hint in told.stderr
    assert not (little_stack.folder / "backups").exists()


def test_the_program_tells_its_own_version(little_stack):
    """And Invoke's, for reports of bugs."""
    told = little_stack.run("--version").stdout
    assert re.fullmatch(r"iotstack-invoke [\d.]+ \(Invoke [\d.]+\)\n", told)
