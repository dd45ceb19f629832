"""`config` shows and checks the settings as a person sees them."""

import json
import tomllib

import pytest
from jsonschema import Draft7Validator

ROWS = """\
keep_daily = 7

[[stack.exclude]]
path = "volumes/x"
reason = "it's \\"big\\""

[[vaults]]
name = "nas"
kind = "ssh"
host = "nas"
folder = "backups"

[[vaults]]
name = "cloud"
kind = "rclone"
remote = "dropbox:x"
"""


@pytest.fixture
def stack(little_stack):
    """A stack whose settings have rows, a value with quotes, and a rule of retention."""
    path = little_stack.folder / "rows.toml"
    path.write_text(f'[stack]\nfolder = "{little_stack.folder}"\n{ROWS}')
    little_stack.rows = path
    return little_stack


def told(stack, line):
    return stack.run(f"{line} --settings {stack.rows}")


def test_what_it_shows_is_a_file_that_says_the_same(stack):
    """With each default and its mark; the default of `keep` goes where another rule is given."""
    shown = told(stack, "config.show").stdout
    assert shown == told(stack, "config").stdout
    read = tomllib.loads(shown)
    assert read["stack"].pop("folder") == str(stack.folder)
    assert read["stack"] == {
        "keep_daily": 7,
        "keep_previous": 1,
        "keep_previous_days": 14,
        "adopt": False,
        "sudo": True,
        "role": "test",
        "exclude_defaults": True,
        "exclude": [{"path": "volumes/x", "reason": 'it\'s "big"'}],
    }
    assert [each["name"] for each in read["vaults"]] == ["nas", "cloud"]
    assert read["vaults"][1] == {
        "name": "cloud",
        "kind": "rclone",
        "remote": "dropbox:x",
        "write_once": False,
        "layout": "flat",
    }
    assert "\nkeep_daily = 7\n" in shown
    assert "\nkeep_previous = 1  # default\n" in shown


def test_for_programs(stack):
    """Each value with its table, the name of its row, and where it comes from."""
    read = json.loads(told(stack, "config.show --json").stdout)
    assert read["file"] == str(stack.rows)
    rows = {(e["table"], e["row"], e["key"]): (e["value"], e["from"]) for e in read["values"]}
    assert rows["stack", None, "keep_daily"] == (7, str(stack.rows))
    assert rows["influxdb", None, "limit_s"] == (3600, "default")
    assert rows["vaults", "nas", "host"] == ("nas", str(stack.rows))
    assert ("vaults", "cloud", "host") not in rows


def test_all_mistakes_are_shown_and_the_exit_code_is_2(stack):
    """As before any other task, but without one."""
    assert (
        told(stack, "config.check").stdout
        == f"{stack.rows} has no mistakes (vaults: 2, hosts: 0).\n"
    )
    stack.rows.write_text('[stack]\nkeep = "5"\nrol = "live"\n')
    found = told(stack, "config.check")
    assert found.returncode == 2
    assert found.stderr.count("[stack]") == 2


def test_without_a_file_the_places_are_named(stack):
    """Where to write one."""
    environment = {**stack.environment, "HOME": str(stack.folder)}
    environment.pop("IOTSTACK_SETTINGS", None)
    stack.environment = environment
    for line in ("config.check", "config.show"):
        assert f"{stack.folder}/.config/iotstack/hosts.toml" in stack.run(line).stdout


def test_the_schema_is_one(stack):
    """As it is printed."""
    Draft7Validator.check_schema(json.loads(told(stack, "config.schema").stdout))
