"""What tells something tells it as JSON, too: whole, alone on stdout, and for errors as well."""

import json

import pytest

from iotstack_invoke.cli.tasks_and_flags import namespace

TASKS = namespace.task_names
WITH_JSON = [
    name for name in TASKS if any(each.name == "json" for each in namespace[name].get_arguments())
]
WORDS = {
    "diff": "one one",
    "prune": "--keep 5 --yes",
    "undo": "--list",
    "why": "backups/one.general-backup.tar.gz",
}


@pytest.fixture
def with_backup(little_stack):
    """A stack with one backup."""
    assert little_stack.run("backup --runtag one").returncode == 0
    return little_stack


@pytest.mark.parametrize("name", WITH_JSON)
def test_stdout_is_json_and_nothing_else(with_backup, name):
    """Of each task that has the flag."""
    done = with_backup.run(f"{name} {WORDS.get(name, '')} --json")
    assert done.returncode in (0, 1, 3), done.stderr
    assert isinstance(json.loads(done.stdout), dict | list)


@pytest.mark.parametrize("name", WITH_JSON)
def test_an_error_is_json_too(little_stack, name):
    """A program that reads stdout finds what failed; a person finds it on stderr."""
    with little_stack.settings.open("a") as stream:
        stream.write("wrong = 1\n")
    done = little_stack.run(f"{name} {WORDS.get(name, '')} --json")
    told = json.loads(done.stdout)
    assert done.returncode == told["exit_code"] == 2
    if name == "status":
        assert told["state"] == "CRITICAL"
        return
    assert told["error"] in done.stderr
    assert "wrong" in told["mistakes"][0]


def test_the_state_of_each_place(with_backup, tmp_path):
    """Good, or with a vault that has no backup."""
    told = json.loads(with_backup.run("status --json").stdout)
    assert (told["state"], told["exit_code"]) == ("OK", 0)
    assert told["text"].startswith("one was made just now")
    (here,) = told["places"]
    assert (here["place"], here["runtag"], here["state"]) == ("here", "one", "complete")
    assert here["made"].endswith("+00:00")
    (tmp_path / "nas").mkdir()
    with with_backup.settings.open("a") as stream:
        stream.write(f'[[vaults]]\nname = "nas"\nkind = "folder"\nfolder = "{tmp_path}/nas"\n')
    done = with_backup.run("status --json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["state"]) == (2, "CRITICAL")
    assert [(each["place"], each["runtag"]) for each in told["places"]] == [
        ("here", "one"),
        ("nas", None),
    ]


def test_each_problem_that_goes_on(little_stack):
    """Those that were told before, too."""
    little_stack.run("backup --runtag one")
    for _ in range(2):
        done = little_stack.run("monitor --json --max-age 1min --no-vaults")
        assert (done.returncode, json.loads(done.stdout)) == (0, [])
    little_stack.run("prune --keep 1 --yes")
    (little_stack.folder / "backups/one.manifest.json").unlink()
    for _ in range(2):
        done = little_stack.run("monitor --json")
        (problem,) = json.loads(done.stdout)
        assert (done.returncode, problem["key"]) == (3, "overdue here")
        assert problem["is_failure"]


def test_why_a_file_would_be_made(with_backup):
    """Each job with what it makes, from what, and its commands."""
    told = json.loads(with_backup.run("why backups/one.manifest.json --json").stdout)
    assert told["exists"]
    (job,) = [each for each in told["jobs"] if each["rule"] == "general_archive"]
    assert job["makes"] == [f"{with_backup.folder}/backups/one.general-backup.tar.gz"]
    assert job["commands"]


def test_the_hosts(little_stack):
    """One that cannot be reached, with why."""
    with little_stack.settings.open("a") as stream:
        stream.write('[[hosts]]\nname = "pi"\nhost = "127.0.0.1"\nport = 1\n')
    done = little_stack.run("hosts --json")
    (host,) = json.loads(done.stdout)
    assert (done.returncode, host["host"], host["reached"]) == (1, "pi", "no")
    assert host["trouble"] in done.stderr


def test_undo_tells_its_list_alone(little_stack):
    done = little_stack.run("undo --json")
    assert done.returncode == 2
    assert "--json works with --list only" in json.loads(done.stdout)["error"]


def test_the_settings_have_no_mistakes(little_stack):
    told = json.loads(little_stack.run("config.check --json").stdout)
    assert told == {"file": str(little_stack.settings), "mistakes": []}
