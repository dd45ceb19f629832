"""What a task imports: a Raspberry Pi feels each room that nobody needs."""

import importlib.util
import re
import subprocess

import pytest

FAR = {"fabric", "paramiko", "rich.console", "sqlite3", "asyncssh", "dateutil.relativedelta"}
FAR |= {"unittest.mock", "asyncio", "ssl", "tomlkit", "questionary"}
RUNS = {
    "iotstack_invoke.engine.executor",
    "iotstack_invoke.workflows.restore",
    "concurrent.futures.thread",
}
PARTS = {
    f"iotstack_invoke.{name}"
    for name in (
        "databases.influxdb.dump",
        "databases.influxdb.check",
        "databases.influxdb2.dump",
        "databases.sql.read_dump",
        "databases.sql.dump",
        "parts.restore_text",
    )
}
YAML = {"iotstack_invoke.stack.compose_text"}
"""PyYAML itself comes with Invoke, whose own copy of it asks for its parser in C."""
CRYPTO = {"iotstack_invoke.vaults.encrypted", "iotstack_invoke.vaults.age"}


def test_what_is_not_to_be_imported_has_these_names():
    """A module that got another name would be missed by no test."""
    for name in (*RUNS, *PARTS, *YAML, *CRYPTO):
        assert name == "concurrent.futures.thread" or importlib.util.find_spec(name), name


def imported_by(stack, line):
    """Return the names of all modules that a task imports."""
    python, *words = stack.words(line)
    told = subprocess.run(
        [python, "-X", "importtime", *words],
        env=stack.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode in {0, 2, 10}
    return set(re.findall(r"^import time:.*\| +(\S+)$", told.stderr, re.MULTILINE))


def test_a_dry_run_imports_what_the_stack_has(little_stack):
    """Not what runs a plan or undoes one, nor what makes parts that this stack does not have."""
    found = imported_by(little_stack, "backup --dry-run")
    assert "iotstack_invoke.workflows.backup" in found
    assert found >= YAML
    assert found & (FAR | RUNS | PARTS | CRYPTO) == set()


@pytest.mark.parametrize("line", ["list", "status"])
def test_who_only_looks_imports_no_rules(little_stack, line):
    """The sets are listed and judged without a rulebook, a plan or a service's steps."""
    found = imported_by(little_stack, line)
    assert "iotstack_invoke.backups.sets" in found
    assert found & (FAR | RUNS | PARTS | CRYPTO | YAML | {"iotstack_invoke.engine.plan"}) == set()
    assert not [name for name in found if name.startswith("iotstack_invoke.workflows.")]


@pytest.mark.parametrize("words", ["show ''", "sync --vault ''", "''"])
def test_who_presses_tab_waits_for_no_task(little_stack, words):
    """What completes a command line lists names on this disk; a task's modules stay away."""
    found = imported_by(little_stack, f"--complete -- iotstack {words}")
    assert "iotstack_invoke.cli.completion" in found
    assert found & (FAR | RUNS | PARTS | CRYPTO | YAML) == set()
    assert not [name for name in found if name.startswith("iotstack_invoke.commands")]


def test_the_list_of_tasks_imports_nothing_of_a_task(little_stack):
    """Names and help need neither settings nor a report."""
    found = imported_by(little_stack, "--list")
    assert found & FAR == set()
    ours = {name.removeprefix("iotstack_invoke.") for name in found if "iotstack_invoke." in name}
    cli = {f"cli.{name}" for name in ("command", "shared_task", "program", "tasks_and_flags")}
    assert ours <= {"cli", "core", "core.errors", *cli}


def test_help_shows_no_flag_of_invoke_that_does_nothing_here(little_stack):
    """Those work still for who knows them."""
    told = little_stack.run("--help").stdout
    assert told.startswith("Usage: ")
    assert "Back up the stack" in told
    assert all(each in told for each in ("--help", "--list", "--version", "--dry"))
    assert not any(each in told for each in ("--write-pyc", "--pty", "--list-depth", "--hide"))
    assert little_stack.run("--list-depth 1 --list").returncode == 0
