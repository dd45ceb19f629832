"""Commands to paste reach the program as words, through one shell and through two."""

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as some

from iotstack_invoke.hosts.pasted import host_flag, over_ssh
from iotstack_invoke.hosts.ssh_settings import Ssh


@given(some.lists(some.text(some.characters(exclude_characters="\0", codec="utf-8")), min_size=1))
def test_two_shells_make_the_words_of_it(words):
    """What the first shell hands to ssh is read by the second one as the words that are meant."""
    first = shlex.split(over_ssh(Ssh("nas", "bob", 2222, "/k y"), *words))
    assert first[:6] == ["ssh", "-p", "2222", "-i", "/k y", "bob@nas"]
    assert shlex.split(" ".join(first[6:])) == words


@pytest.mark.parametrize("name", ["My Backups", "it's", "$HOME", "`id`", 'a"b', "!!", "a\\b", "*"])
def test_real_shells_do_so_too(name):
    """As bash and dash read it, one behind the other."""
    there = over_ssh(Ssh("nas"), "printf", "<%s>", name).removeprefix("ssh nas ")
    for shell in ("bash", "dash"):
        read = ["bash", "-c", f"{shell} -c \"$(printf '%s ' {there})\""]
        assert subprocess.run(read, capture_output=True, check=True).stdout.decode() == f"<{name}>"


def test_plain_words_are_not_quoted():
    """What needs no quotes has none."""
    assert over_ssh(Ssh("nas"), "mkdir", "-p", "/srv/my-pi") == "ssh nas mkdir -p /srv/my-pi"
    assert over_ssh(Ssh("nas"), "mkdir", "/my pi") == "ssh nas mkdir \"'/my pi'\""
    assert host_flag("test pi") == " --host 'test pi'"
    assert host_flag("") == ""
