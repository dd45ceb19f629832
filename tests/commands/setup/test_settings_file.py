"""Which settings file `init` changes, and how it is replaced."""

import tomllib

import folders
import pytest

from iotstack_invoke.commands.setup.settings_file import settings_file
from iotstack_invoke.core.errors import Refused, StepFailed
from iotstack_invoke.settings.edit import NEW_FILE
from iotstack_invoke.settings.model import read_settings


def known(path, text):
    path.write_text(text)
    return read_settings(tomllib.loads(text), str(path))


def test_the_file_of_a_checkout_is_not_changed(tmp_path):
    """A new one begins as a copy if it says more than the defaults; its own comes first."""
    home = {"HOME": str(tmp_path)}
    sample = (folders.CHECKOUT / "hosts.toml").read_text("utf-8")
    found = settings_file(known(tmp_path / "hosts.toml", sample), "", home)
    assert found.path == f"{tmp_path}/.config/iotstack/hosts.toml"
    assert (found.text, found.has_answers) == (NEW_FILE, False)
    own = "# mine\n[stack]\nkeep = 9\n"
    found = settings_file(known(tmp_path / "hosts.toml", own), "", home)
    assert (found.text, found.content, found.has_answers) == (own, None, True)
    found.replace_by(own, has_secret=False)
    assert (tmp_path / "hosts.toml").read_text() == own
    again = settings_file(read_settings(found.parsed, found.path), "", home)
    assert (again.path, again.text) == (found.path, own)
    assert not (tmp_path / ".config/iotstack/hosts.schema.json").exists()


def test_what_changed_meanwhile_is_not_replaced(tmp_path):
    """Nor is anything left beside it."""
    path = tmp_path / "hosts.toml"
    found = settings_file(known(path, "[stack]\n"), str(path), {})
    path.write_text("[stack]\nkeep = 3\n")
    with pytest.raises(Refused, match="was changed meanwhile"):
        found.replace_by("x", has_secret=False)
    assert path.read_text() == "[stack]\nkeep = 3\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_file_as_it_is(small_disk):
    """With the reason, and without a partial file."""
    path = small_disk / "hosts.toml"
    found = settings_file(known(path, "[stack]\n"), str(path), {})
    with pytest.raises(StepFailed, match="No space left"):
        found.replace_by("# x\n" * 100_000, has_secret=False)
    assert path.read_text() == "[stack]\n"
    assert list(small_disk.iterdir()) == [path]


def test_a_schema_that_cannot_be_written_is_left_out(tmp_path):
    """The settings are written, and editors do without it."""
    path = tmp_path / "hosts.toml"
    (tmp_path / "hosts.schema.json").mkdir()
    found = settings_file(known(path, "[stack]\n"), str(path), {})
    found.replace_by(NEW_FILE, has_secret=False)
    assert path.read_text() == NEW_FILE
