"""The JSON Schema of hosts.toml agrees with what the program accepts and refuses."""

import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from iotstack_invoke.settings.keys import TABLES
from iotstack_invoke.settings.schema import plain, schema
from iotstack_invoke.settings.validation import mistakes_in

SAMPLE = Path(__file__).parents[2] / "hosts.toml"


@pytest.fixture(scope="module")
def validator():
    Draft7Validator.check_schema(schema())
    return Draft7Validator(schema())


def uncommented(text):
    """Return the sample with its rows and keys in use; sentences stay comments."""
    lines = []
    for line in text.splitlines():
        bare = line.removeprefix("# ")
        is_setting = bare.startswith("[") or bare.partition(" = ")[0].replace("_", "").isalpha()
        is_hook = bare.startswith("hooks.")
        lines.append(bare if is_setting or is_hook else line)
    return "\n".join(lines)


def test_the_sample_of_the_checkout_fits(validator):
    """As it is, and with each of its keys in use."""
    text = SAMPLE.read_text("utf-8")
    assert list(validator.iter_errors(tomllib.loads(text))) == []
    content = tomllib.loads(uncommented(text))
    assert {"stack", "vaults", "hosts", "services", "hooks"} <= set(content)
    assert [each.message for each in validator.iter_errors(content)] == []


@pytest.mark.parametrize(
    "text",
    [
        "[elsewhere]",
        '[stack]\nfolders = "/x"',
        '[stack]\nrole = "old"',
        '[stack]\nkeep = "5"',
        "[stack]\nkeep_previous = -1",
        "[influxdb]\nlimit_s = 0",
        '[[vaults]]\nname = "nas"',
        '[[vaults]]\nname = "nas"\nkind = "ftp"\nfolder = "/x"',
        '[[vaults]]\nname = "nas"\nkind = "rclone"\nfolder = "/x"',
        '[[vaults]]\nname = "nas"\nkind = "folder"',
        '[[vaults]]\nname = "nas"\nkind = "folder"\nfolder = "/x"\nlayout = "deep"',
        '[[hosts]]\nname = "pi"',
        '[[stack.exclude]]\npath = "volumes/x"',
        '[hooks]\nbefore_backup = ["echo"]',
        '[hooks]\nbefore_backup = [{ run = ["echo"], limit = 5 }]',
        '[[services]]\nname = "x"\nkind = "frozen"',
    ],
)
def test_both_refuse(validator, text):
    """What an editor marks is what the program refuses."""
    content = tomllib.loads(text)
    assert mistakes_in(content)
    assert list(validator.iter_errors(content))


@pytest.mark.parametrize("name", TABLES)
def test_each_key_says_what_it_means(name):
    """A sentence for the editor and for the reference, without a link in the schema."""
    for key, each in TABLES[name].items():
        assert each.meaning.endswith("."), key
        assert "](" not in plain(each.meaning), key
