"""People learn that hosts.toml cannot be used, though it says who they are."""

import os

import pytest
from listeners import listening
from person import Person

from iotstack_invoke.monitoring.kept_settings import KeptSettings

TITLE = "Nothing is backed up: hosts.toml cannot be used"
SCHEDULED = ("backup", "monitor", "notify --unit iotstack-backup.service", "verify", "prune")


@pytest.fixture
def listener():
    with listening() as found:
        yield found


@pytest.fixture
def good(little_stack, listener):
    """A good backup has been made with these settings, whose text is returned."""
    with little_stack.settings.open("a") as stream:
        stream.write(
            f'[[notify]]\nname = "hc"\nkind = "ping"\nurl = "{listener.url}/ping/u"\n'
            f'[[notify]]\nname = "phone"\nkind = "ntfy"\nurl = "{listener.url}/phone"\n'
        )
    assert little_stack.run("backup").returncode == 0
    listener.heard.clear()
    return little_stack.settings.read_text()


def messages(listener):
    return [(e["title"], e["body"]) for e in listener.heard if e["path"] == "/phone"]


def kept(stack):
    """Return the copies of settings files."""
    folder = f"{stack.environment['HOME']}/.local/state/iotstack/settings"
    return [f"{folder}/{name}" for name in os.listdir(folder)]


@pytest.mark.parametrize(
    ("was", "becomes", "why"),
    [
        ("sudo = false", "sudo = false\nkep = 5", "'kep' is unknown; did you mean 'keep'?"),
        ("sudo = false", 'sudo = "false', "Is a closing quote missing?"),
        ('kind = "ntfy"', 'kind = "nfty"', "nfty"),
    ],
)
def test_mistakes_are_one_message_whatever_is_run(little_stack, listener, good, was, becomes, why):
    """Also if the mistake is in the row of those who are told; its end is one message more."""
    little_stack.settings.write_text(good.replace(was, becomes))
    for line in SCHEDULED * 2:
        done = little_stack.run(line)
        assert done.returncode == 2
        assert done.stderr.count(why) == 1
    ((title, body),) = messages(listener)
    assert title.endswith(TITLE)
    assert why in body
    assert listener.paths("/ping/") == ["/ping/u/2"] * 2  # each backup, to who watches backups
    listener.heard.clear()
    little_stack.settings.write_text(good)
    assert little_stack.run("monitor").returncode == 0
    ((title, _),) = messages(listener)
    assert title.endswith(TITLE)


def test_a_file_that_is_gone_is_told(little_stack, listener, good):
    """A later run says so too, and people are told once."""
    little_stack.settings.unlink()
    for _ in range(2):
        assert little_stack.run("backup").returncode == 2
    ((title, body),) = messages(listener)
    assert title.endswith(TITLE)
    assert "not found" in body


def test_a_file_that_is_gone_is_not_replaced_by_defaults(little_stack, listener):
    """The settings of a user are gone: neither the defaults nor another file take their place."""
    home = little_stack.environment["HOME"]
    own = f"{home}/.config/iotstack/hosts.toml"
    os.makedirs(os.path.dirname(own))
    little_stack.settings.rename(own)
    del little_stack.environment["IOTSTACK_SETTINGS"]
    with open(own, "a") as stream:
        stream.write(f'[[notify]]\nname = "phone"\nkind = "ntfy"\nurl = "{listener.url}/phone"\n')
    assert little_stack.run("backup").returncode == 0
    os.unlink(own)
    done = little_stack.run("backup")
    (copy,) = kept(little_stack)
    assert done.returncode == 2
    assert f"{own} is gone" in done.stderr
    assert copy in done.stderr
    for line in ("monitor", "status", "prune"):
        assert little_stack.run(line).returncode == 2
    assert len(messages(listener)) == 1
    os.unlink(copy)  # as the message says
    assert "is gone" not in little_stack.run("backup --dry-run").stderr


def test_the_copy_is_for_its_owner_alone(little_stack, good):
    """It holds the addresses and tokens of the file."""
    (copy,) = kept(little_stack)
    assert os.stat(copy).st_mode & 0o777 == 0o600
    with open(copy) as stream:
        assert stream.read() == good


def test_a_copy_that_others_may_write_is_not_believed(little_stack, listener, good):
    """It could send the reasons, and what is in them, to an address of theirs."""
    (copy,) = kept(little_stack)
    os.chmod(copy, 0o602)  # noqa: S103
    little_stack.settings.write_text("[stack]\nkep = 5\n")
    assert little_stack.run("backup").returncode == 2
    assert listener.heard == []


def test_who_is_told_no_more_is_forgotten(little_stack, listener, good):
    """Without rows that tell people, there is no copy, and a mistake is printed alone."""
    little_stack.settings.write_text(good.partition("[[notify]]")[0])
    assert little_stack.run("backup").returncode == 0
    assert kept(little_stack) == []
    little_stack.settings.write_text("[stack]\nkep = 5\n")
    assert little_stack.run("backup").returncode == 2
    assert messages(listener) == []


def test_at_a_terminal_the_error_is_enough(little_stack, listener, good):
    """Its owner reads it there."""
    little_stack.settings.write_text("[stack]\nkep = 5\n")
    person = Person(little_stack.words("backup"), little_stack.environment)
    person.sees("kep")
    assert person.ends() == 2
    assert listener.heard == []


def test_what_is_no_file_is_not_kept(tmp_path, monkeypatch):
    """Settings may come through a pipe: `--settings <(…)`."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    os.mkfifo(tmp_path / "pipe")
    one = KeptSettings(str(tmp_path / "pipe"))
    one.keep()
    assert not one.exists()
    assert one.read() is None
    one.forget()
    assert os.listdir(tmp_path) == ["pipe"]
