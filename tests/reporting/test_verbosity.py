"""How much a run says: -q, -v and -vv, at a terminal, without one, and in the journal."""

import logging
import os
import subprocess

import pytest
from person import Person

from iotstack_invoke.reporting.report import Report

COMMAND = "    $ rm -rf -- "
STEP = "pack the stack: step 2 of 3: pack files of the stack\n"


def test_v_shows_each_step_without_a_terminal(little_stack):
    """As cron starts it: plain, it says nothing; -vv also shows commands."""
    assert little_stack.run("backup --runtag one").stderr == ""
    steps = little_stack.run("backup --runtag two -v").stderr
    assert STEP in steps
    assert "Backup two is complete." in steps
    assert COMMAND not in steps
    assert COMMAND in little_stack.run("backup --runtag three -vv").stderr


def test_vv_shows_what_programs_print(little_stack):
    """Each line with the job that started it."""
    little_stack.tool("tar", 'echo "a word of tar" >&2; exec /bin/tar "$@"')
    assert "pack the stack: a word of tar\n" in little_stack.run("backup -vv").stderr
    assert "a word of tar" not in little_stack.run("backup --runtag b -v").stderr


@pytest.fixture
def two_hosts(little_stack, sshd):
    """Let the settings name two hosts, a and b."""
    ssh = sshd.login()
    with little_stack.settings.open("a") as stream:
        for name in "ab":
            stream.write(
                f'[[hosts]]\nname = "{name}"\nhost = "127.0.0.1"\nport = {ssh.port}\n'
                f'key = "{ssh.key}"\nssh_config = "{ssh.config}"\n'
                f'known_hosts = "{ssh.known_hosts}"\n'
            )
    return little_stack


def test_vv_shows_how_a_connection_is_made(two_hosts):
    """What paramiko logs of it: the first thing to read if a login fails."""
    assert "\nparamiko.transport: " in two_hosts.run("hosts -vv").stderr
    assert "paramiko" not in two_hosts.run("hosts -v").stderr


def test_a_run_on_several_hosts_passes_it_on(two_hosts):
    """The run of each host says as much as was asked for."""
    shown = two_hosts.run("status --host a --host b -vv").stdout
    assert "\na: paramiko.transport: " in shown
    assert "\nb: paramiko.transport: " in shown
    assert "paramiko" not in two_hosts.run("status --host a --host b -v").stdout


def test_q_shows_results_and_troubles_alone(little_stack):
    """Also at a terminal, where a run says otherwise what it does."""
    loud = Person(little_stack.words("backup --runtag one"), little_stack.environment)
    assert loud.ends() == 0
    assert "Backup one is complete." in loud.shown
    quiet = Person(little_stack.words("backup --runtag two -q"), little_stack.environment)
    assert (quiet.ends(), quiet.shown) == (0, "")
    assert "two" in little_stack.run("list -q").stdout
    done = little_stack.run("backup -q --runtag a/b")
    assert (done.returncode, "is not a valid runtag" in done.stderr) == (2, True)


def test_both_are_refused(little_stack):
    done = little_stack.run("backup -q -v")
    assert done.returncode == 2
    assert done.stderr == "--quiet and --verbose are opposites: use one of them.\n"


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7)],
)
def test_the_journal_is_told_the_level(tmp_path, monkeypatch, level, priority):
    """Before each line, and only if stderr is the journal: systemd says which file that is."""
    told = {
        logging.ERROR: Report.fail,
        logging.WARNING: Report.warn,
        logging.INFO: Report.tell,
        logging.DEBUG: lambda report, text: report.heard(JOB, "out", text),
    }
    with (tmp_path / "journal").open("w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        monkeypatch.setattr("sys.stderr", stream)
        told[level](Report(verbosity=2), "one\ntwo")
    begin = "job: " if level == logging.DEBUG else ""
    shown = (tmp_path / "journal").read_text()
    assert shown == f"<{priority}>{begin}one\n<{priority}>two\n"


class JOB:
    title = "job"


def test_another_file_gets_no_levels(little_stack, tmp_path):
    """A unit whose stderr is redirected still has the variable."""
    environment = {**little_stack.environment, "JOURNAL_STREAM": "1:2"}
    words = little_stack.words("backup --runtag a/b")
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr.startswith("'a/b' is not a valid runtag")
