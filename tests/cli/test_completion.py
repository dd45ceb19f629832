"""Tab in bash, zsh and fish: tasks, flags and values, from this disk alone, and never an error."""

import os
import shlex
import shutil
import subprocess
import sys

import folders
import pytest
from hypothesis import given
from hypothesis import strategies as st
from person import Person

from iotstack_invoke.cli.bash_line import bash_replies, split_line
from iotstack_invoke.cli.completion import FILES, NO_FILES, PROGRAMS, SHELLS, LocalNames, script
from iotstack_invoke.cli.fleet import EVERY as EVERY_HOST
from iotstack_invoke.cli.shared_task import plain_name
from iotstack_invoke.cli.tasks_and_flags import namespace
from iotstack_invoke.commands.setup.timetable import EVERY as HOW_OFTEN
from iotstack_invoke.monitoring.dashboards import DASHBOARDS
from iotstack_invoke.reporting.report import GRAPH_FORMS
from iotstack_invoke.settings.keys import ROLES

TASKS = {name: namespace[name] for name in sorted(namespace.task_names)}
FREE = {
    *("jobs", "at-once", "keep", "keep-daily", "keep-weekly", "keep-monthly", "keep-yearly"),
    *("keep-within", "keep-at-least", "keep-old", "max-age", "note", "unit", "sample"),
    *("random-delay", "credential"),
}
"""The flags that take a number or a text of one's own."""
OFTEN_FREE = {("pull", "runtag"), ("schedule.install", "at")}
"""The same, of one task: a backup of another machine, and a time of day."""
KINDS = {*LocalNames({}, "")._kinds, "<tasks>"}
BIN = os.path.dirname(sys.executable)


@pytest.fixture
def stack(little_stack):
    """A stack with three backups, two services, and names that a shell must quote."""
    backups = little_stack.folder / "backups"
    backups.mkdir()
    for runtag, made_s in (("2026-11-20_1100", 9e8), ("2026-11-23_1100", 9e8), ("my own", 9e8)):
        path = backups / f"{runtag}.general-backup.tar.gz"
        path.touch()
        os.utime(path, (made_s, made_s))
    (backups / "2026-11-23_1100.influx-backup.tar").touch()
    (little_stack.folder / "volumes" / "grafana").mkdir()
    with little_stack.settings.open("a") as stream:
        for name in ("nas", "usb stick", "off:site"):
            stream.write(f'[[vaults]]\nname = "{name}"\nkind = "folder"\nfolder = "/x/{name}"\n')
        stream.write('[[hosts]]\nname = "attic"\nssh = "attic"\n')
    little_stack.environment["PATH"] = f"{BIN}:{little_stack.environment['PATH']}"
    return little_stack


def values(argument):
    """Return the words and kinds that an argument of a task declares."""
    return getattr(argument, "values", "").split()


def asked(stack, *words, asks="zsh"):
    """Return what `--complete` prints as lines, and its exit code; it prints no error."""
    environment = {**stack.environment, "IOTSTACK_COMPLETE": asks}
    told = subprocess.run(
        [*stack.words("--complete --"), "iotstack", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.stderr == ""
    return told.stdout.splitlines(), told.returncode


@pytest.mark.parametrize("name", TASKS)
def test_each_flag_that_takes_a_value_says_which(name):
    """By words and known kinds; or it is listed here as one that takes any text."""
    found = {plain_name(each): each for each in TASKS[name].get_arguments() if each.takes_value}
    assert set(TASKS[name].values) <= set(found)
    for flag, argument in found.items():
        words = values(argument)
        assert {each for each in words if each.startswith("<")} <= KINDS, flag
        assert bool(words) != (flag in FREE or (name, flag) in OFTEN_FREE), flag


def test_the_words_are_those_that_the_tasks_take():
    """What is offered is not refused."""
    said = {
        (name, plain_name(each)): values(each)
        for name, task in TASKS.items()
        for each in task.get_arguments()
        if each.takes_value
    }
    assert said["metrics", "dashboard"] == [*DASHBOARDS]
    assert said["graph", "format"] == [*GRAPH_FORMS]
    assert said["backup", "hosts"] == [*ROLES, EVERY_HOST]
    assert all(said["schedule.install", each] == [*HOW_OFTEN] for each in ("verify", "prune"))


RUNTAGS = ["2026-11-23_1100", "2026-11-20_1100", "my own"]


@pytest.mark.parametrize(
    ("words", "lines", "code"),
    [
        (["show", ""], [*RUNTAGS, "latest"], NO_FILES),
        (["restore", "--runtag", ""], [*RUNTAGS, "latest"], NO_FILES),
        (["diff", "2026-11-20_1100", ""], [*RUNTAGS, "latest"], NO_FILES),
        (
            ["show", "latest", "--at", ""],
            ["here", "vault", "nas", "usb stick", "off:site"],
            NO_FILES,
        ),
        (["show", "--at=n"], ["here", "vault", "nas", "usb stick", "off:site"], NO_FILES),
        (["sync", "--vault", "nas", "--vault", ""], ["nas", "usb stick", "off:site"], NO_FILES),
        (["restore", "--host", ""], ["attic"], NO_FILES),
        (["backup", "--hosts", ""], ["live", "test", "all"], NO_FILES),
        (["restore", "--only", ""], ["grafana", "nodered"], NO_FILES),
        (["show", "2026-11-23_1100", "--files", ""], ["general", "influx"], NO_FILES),
        (["show", "2026-11-20_1100", "--files", ""], ["general"], NO_FILES),
        (["metrics", "--dashboard", ""], ["influxdb", "prometheus"], NO_FILES),
        (["key", ""], ["new", "sheet", "check"], NO_FILES),
        (["list", "--settings", ""], [], FILES),
        (["prune", "--keep", ""], [], NO_FILES),
        (["pin", "latest", "--note", ""], [], NO_FILES),
        (["--print-completion-script", ""], [*SHELLS], NO_FILES),
        (["no-such-task", "--no-such-flag", "--at=x"], [], NO_FILES),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else None,
)
def test_the_values_of_a_flag_or_an_argument(stack, words, lines, code):
    """In their order, the newest backup first; names of files only where a file is meant."""
    found, ended = asked(stack, *words)
    told = [] if found and found[0].startswith("--") else found
    assert (told, ended) == (lines, code)


def test_tasks_and_flags_come_with_their_help(stack):
    """A task first; then its flags, without those that were given and cannot be repeated."""
    tasks, _ = asked(stack, "")
    assert "list\tList the backups here and in the vaults: age, size, parts, state." in tasks
    assert asked(stack, "help", "")[0] == tasks == asked(stack, "--help", "")[0]
    flags = [
        each.partition("\t")[0] for each in asked(stack, "backup", "--host", "x", "--why", "-")[0]
    ]
    assert {"--host", "--no-keep-going", "--help"} <= set(flags)
    assert not {"--why", "--keep-going"} & set(flags)
    after = [each.partition("\t")[0] for each in asked(stack, "show", "latest", "")[0]]
    assert "--at" in after
    assert "--runtag" not in after


def test_a_script_of_invoke_is_answered_too(stack):
    """It drops an empty last word, so that what may follow the last word is offered as well."""
    lines, _ = asked(stack, "show", asks="")
    assert {"show", *RUNTAGS} <= set(lines)


@pytest.mark.parametrize(
    ("settings", "lines"),
    [("[[vaults\n", []), ("vaults = 3\nhosts = [1]\n", []), ('[[vaults]]\nname = "a\\nb"\n', [])],
    ids=["no TOML", "other kinds", "a line break"],
)
def test_settings_with_mistakes_are_no_error(stack, settings, lines):
    """What can be read is offered; nothing is printed into what is being typed."""
    stack.settings.write_text(settings)
    assert asked(stack, "sync", "--vault", "") == (lines, NO_FILES)
    assert asked(stack, "show", "") == ([*RUNTAGS, "latest"], NO_FILES)  # of ~/IOTstack


@pytest.mark.parametrize("words", [["show", ""], ["restore", "--only", ""], ["why", ""]])
def test_a_folder_that_cannot_be_read_is_no_error(stack, words):
    """As on a card that fails; here each of them is a file."""
    for name in ("backups", "volumes", "services"):
        shutil.rmtree(stack.folder / name)
        (stack.folder / name).write_text("")
    lines, code = asked(stack, *words)
    assert set(lines) <= {"latest"}
    assert code == NO_FILES


@pytest.mark.parametrize("words", [[], ['show "my', "x"], ["\udcff"]])
def test_no_words_and_odd_ones_are_no_error(stack, words):
    """Neither where a script gives none, nor text that is no UTF-8."""
    asked(stack, *words)
    asked(stack, *words, asks="bash")


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_a_line_of_bash_is_read_as_bash_does(words):
    """Whatever the words are, quoted as a shell needs it; then the one that has not begun."""
    assert split_line(f"{shlex.join(['inv', *words])} ") == (["inv", *words, ""], "")


@pytest.mark.parametrize(
    ("line", "text", "replies"),
    [
        ("x my", "my", [r"my\ own"]),
        (r"x my\ o", r"my\ o", [r"my\ own"]),
        ('x "my', "my", ["my own"]),
        ("x 'my o", "my o", ["my own"]),
        ("x off:s", "s", ["site"]),
        (r"x off\:s", r"off\:s", ["off:site"]),
        ('x "a', "a", [r"a\$b\"c"]),
        ("x a", "a", [r"a\$b\"c"]),
        ("x ", "", [r"my\ own", "off:site", r"a\$b\"c"]),
    ],
)
def test_bash_gets_the_rest_of_a_word_quoted_as_it_was_begun(line, text, replies):
    """Bash replaces only what follows a quote, a colon or an equals sign."""
    _, raw = split_line(line)
    assert [*bash_replies(["my own", "off:site", 'a$b"c'], raw, text)] == replies


def require_shell(name):
    """Skip where a shell is missing; where CI promised it, fail."""
    if shutil.which(name):
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{name} is not installed")
    pytest.skip(f"{name} is not installed")


@pytest.fixture(params=["iotstack", "inv"])
def program(request):
    """The installed program, and the one of a checkout."""
    return request.param


def script_of(stack, shell):
    """Return the path of a script, as `iotstack --print-completion-script` prints it."""
    told = stack.run(f"--print-completion-script {shell}")
    assert (told.returncode, told.stdout) == (0, script(shell))
    path = stack.folder.parent / f"completion.{shell}"
    path.write_text(told.stdout)
    return path


INTERACTIVE = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}
CLEAR = "\x15"
"""Ctrl-U, which empties the line."""


@pytest.mark.parametrize("shell", INTERACTIVE)
def test_a_person_presses_tab(stack, shell, program):
    """What is typed is completed in place, with quotes, colons and equals signs as they were."""
    require_shell(shell)
    path = script_of(stack, shell)
    environment = {**stack.environment, "PS1": "ready> ", "TERM": "xterm"}
    person = Person(["env", "-C", folders.CHECKOUT, *INTERACTIVE[shell]], environment)
    person.sees("ready> ")
    person.types(f". {path}")
    person.sees("ready> ")
    for typed, shown in [
        ("show my", r"show my\ own "),
        ('show "my', 'show "my own" '),
        ("show --at=n", "show --at=nas "),
        ("show --at off:s", "show --at off:site "),
        ("metrics --dashboard pro", "metrics --dashboard prometheus "),
        ("rehea", "rehearse "),
        ("reload-influxdb --no-c", "reload-influxdb --no-count "),
        (f"list --settings={path}"[:-3], f"list --settings={path}"),
    ]:
        person.presses(f"{program} {typed}")
        person.presses("\t")
        person.sees(f"{program} {shown}")
        person.presses(CLEAR)
    person.presses(f"{program} show 2026-11-2")
    person.presses("\t\t")
    before = person.sees("2026-11-20_1100")
    assert "2026-11-23_1100" in before  # the newest first
    person.presses(f"{CLEAR}exit\r")
    assert person.ends() == 0
    assert "Traceback" not in person.shown


def replies_of_bash(stack, folder, line, text):
    """Return what the function of our script gives bash, called as bash calls it."""
    call = 'COMP_LINE=$1; COMP_POINT=${#1}; _iotstack_complete "${1%% *}" "$2"'
    told = subprocess.run(
        [
            *("bash", "--norc", "-u", "-c"),
            f'. {script_of(stack, "bash")}; {call}; printf "%s\\n" "${{COMPREPLY[@]}}"',
            *("bash", line, text),
        ],
        env=stack.environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.stderr == ""
    return told.stdout.split("\n")[:-1]


def test_bash_is_given_words_of_its_own(stack, program):
    """In place of what it would replace, quoted; an empty line if there is nothing."""
    require_shell("bash")
    for line, text, replies in [
        ("sync --vault ", "", ["nas", r"usb\ stick", "off:site"]),
        ("sync --vault=us", "us", [r"usb\ stick"]),
        ("sync --vault=nowhere", "nowhere", [""]),
    ]:
        assert replies_of_bash(stack, folders.CHECKOUT, f"{program} {line}", text) == replies


def test_the_script_serves_other_projects_of_invoke(stack, tmp_path):
    """Their `inv` is Invoke's own, and answers with its tasks and flags; or there is none."""
    require_shell("bash")
    assert replies_of_bash(stack, tmp_path, "inv bu", "bu") == [""]
    (tmp_path / "tasks.py").write_text(
        "from invoke import task\n@task\ndef build(c, fast=False): pass\n"
    )
    assert replies_of_bash(stack, tmp_path, "inv bu", "bu") == ["build"]
    assert replies_of_bash(stack, tmp_path, "inv build --f", "--f") == ["--fast"]


def test_fish_offers_values_with_their_help(stack, program):
    """As fish itself lists what may follow a line."""
    require_shell("fish")
    source = f"source {script_of(stack, 'fish')}; complete -C $argv[1]"
    for line, lines in [
        ("show ", [*RUNTAGS, "latest"]),
        ('show "my', ["my own"]),
        ("show --at=off:", ["--at=off:site"]),
        ("backup --hosts ", ["live", "test", "all"]),
        ("diff --bef", ["--before\tCompare this backup; latest is the newest."]),
        (f"restore --from {stack.settings}"[:-2], [f"{stack.settings}"]),
        ("prune --keep ", []),
    ]:
        told = subprocess.run(
            ["fish", "--no-config", "-c", source, f"{program} {line}"],
            env=stack.environment,
            cwd=folders.CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (told.stdout.splitlines(), told.stderr) == (lines, "")


def test_each_script_is_for_all_programs():
    """One that is read in a shell serves `inv` in each checkout as well."""
    for shell in SHELLS:
        assert " ".join(PROGRAMS) in script(shell)
        assert "{" + "names}" not in script(shell)


def test_an_unknown_shell_is_wrong_usage(stack):
    """With the shells that there are."""
    told = stack.run("--print-completion-script tcsh")
    assert told.returncode == 2
    assert "use one of bash, zsh, fish" in told.stderr
