"""A hosts.toml is changed where it was asked, and nowhere else."""

import difflib
import tomllib

import folders
import pytest

from iotstack_invoke.core.errors import Refused
from iotstack_invoke.settings.edit import NEW_FILE, with_row, with_values

SAMPLE = (folders.CHECKOUT / "hosts.toml").read_text("utf-8")
OWN = """\
# The Pi in the cellar.
[stack]   # mine
  keep = 3            # few: the card is small
folder = '/srv/iot'   # on the SSD
# keep_daily = 7

# What is made again.
[[stack.exclude]]
path = "volumes/x"   # large
reason = "cache"

[[vaults]]
name = "usb"
kind = "folder"
folder = "/media/usb"

# The other Pi:
[[hosts]]
name = "pi"
host = "pi"
"""


def changed_lines(before, after):
    """Return the lines that were removed and added, with their signs."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [each for each in lines if each[:1] in "+-" and each[:3] not in ("+++", "---")]


@pytest.mark.parametrize(
    ("values", "changed"),
    [
        (
            {"keep": 9},
            [
                "-  keep = 3            # few: the card is small",
                "+  keep = 9            # few: the card is small",
            ],
        ),
        (
            {"folder": "~/IOTstack"},
            ["-folder = '/srv/iot'   # on the SSD", '+folder = "~/IOTstack"   # on the SSD'],
        ),
        ({"keep_daily": 7}, ["+keep_daily = 7"]),
        (
            {"keep": None, "keep_daily": 7},
            ["-  keep = 3            # few: the card is small", "+keep_daily = 7"],
        ),
        ({"keep": 3, "folder": "/srv/iot", "keep_weekly": None}, []),
    ],
)
def test_a_value_changes_on_its_line(values, changed):
    """With its comment and indent; a new one comes before the comments of what follows."""
    after = with_values(OWN, "stack", values)
    assert changed_lines(OWN, after) == changed
    assert after.index("# What is made again.") == after.index("\n\n# What") + 2
    assert (after == OWN) == (changed == [])


def test_a_value_comes_behind_a_last_one_that_is_true_or_false():
    """Before the comment of what follows: tomlkit gives such a value as one of Python."""
    text = "[stack]\nkeep = 3\nsudo = false\n\n# Far:\n[hooks]\n"
    after = with_values(text, "stack", {"keep": None, "keep_daily": 7})
    assert after == "[stack]\nsudo = false\nkeep_daily = 7\n\n# Far:\n[hooks]\n"


def test_a_row_comes_at_the_end():
    """Where it stands between nothing and its comment, as [[hosts]] and its own here."""
    after = with_row(
        OWN, "vaults", {"name": "nas", "keep_daily": 14}, {"": "Far.", "keep_daily": "days"}
    )
    assert after == (
        f'{OWN}\n# Far.\n[[vaults]]\nname = "nas"\nkeep_daily = 14                   # days\n'
    )


@pytest.mark.parametrize(
    "text",
    [
        SAMPLE,
        OWN,
        NEW_FILE,
        "",
        "# nothing but a comment",
        "[stack]\nkeep = 5",
        "[stack]\n[[stack.exclude]]\n",
        "[[stack.exclude]]\npath = 'a'\nreason = 'b'\n[stack]\nkeep = 4\n",
        "stack.keep = 5 # x\nstack.folder = '/a'\n",
        "stack = { keep = 5, folder = '/x' } # c\nvaults = [{ name = 'a' }]\n",
        "[stack]\nexclude = [\n  { path = 'a', reason = 'b' },  # c\n]\n",
        '[influxdb]\nnote = """\n[stack]\nkeep = 1\n"""\n',
    ],
    ids=range(12),
)
def test_it_says_what_it_said_and_what_was_asked(text):
    """However it is written; each comment stays."""
    before = tomllib.loads(text)
    after = with_values(text, "stack", {"folder": "/new # folder", "keep_daily": 7, "keep": None})
    after = with_row(after, "vaults", {"name": "nas", "folder": 'a "b"'}, {"name": "its name"})
    told = tomllib.loads(after)
    stack = {key: value for key, value in before.get("stack", {}).items() if key != "keep"}
    assert told.pop("stack") == {**stack, "folder": "/new # folder", "keep_daily": 7}
    assert told.pop("vaults") == [*before.pop("vaults", []), {"name": "nas", "folder": 'a "b"'}]
    before.pop("stack", None)
    assert told == before
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            assert line in after.splitlines()


APART = "[stack]\nkeep = 3\n[[vaults]]\nname = 'a'\n[influxdb]\n[[vaults]]\nname = 'b'\n"


def test_what_would_get_another_order_is_refused():
    """Tomlkit puts the rows of a table together; a row more is added all the same."""
    with pytest.raises(
        Refused, match=r"Change it yourself: in \[stack\] remove keep, keep_daily = 7\.$"
    ):
        with_values(APART, "stack", {"keep": None, "keep_daily": 7})
    assert with_row(APART, "vaults", {"name": "c"}, {}) == f'{APART}\n[[vaults]]\nname = "c"\n'
