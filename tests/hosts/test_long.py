"""Commands whose words grow with the user's data: thousands of long names, here and over SSH."""

import json
import os
import sqlite3
from contextlib import closing

import pytest
from remote_stacks import Laptop, Pi

from iotstack_invoke.core.errors import StepFailed
from iotstack_invoke.hosts import ssh as remote
from iotstack_invoke.hosts.base import Command
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.hosts.ssh import SshHost
from iotstack_invoke.hosts.ssh_connection import Login

ODD = ("it's", "a\nb", 'say "hi"', "$HOME `id` \\", "", " ", os.fsdecode(b"\xff"), "-rf", "ends\n")
LONG = tuple(f"{number:05}{'x' * 240}" for number in range(4000))
"""A megabyte: eight times what one word may have, and so what a shell takes as one command."""
COUNTED = ("sh", "-c", 'cat; printf "%s\\0" "$@" | sha256sum; echo "$#" >&2; exit 7', "sh")


@pytest.fixture(params=["here", "far", "far without ssh"])
def host(request, monkeypatch):
    """This machine; another one; another one from one that has no `ssh` program."""
    if request.param == "here":
        yield LocalHost("/")
        return
    login = Login(request.getfixturevalue("sshd").login(), "pi")
    host = SshHost(login, "/")
    host.run(Command(("true",)))
    if request.param == "far without ssh":
        monkeypatch.setattr(remote.shutil, "which", lambda _name: None)
    yield host
    login.close()


def test_thousands_of_long_words_arrive_as_they_are(host):
    """Whichever way a command goes: nothing is cut, joined or read as a line of a shell."""
    answers = set()
    for words in ((*ODD, *LONG), (*ODD, *LONG)):
        command = Command((*COUNTED, *words), frozenset({7}), 60)
        told = host.run(command)
        assert (told.exit_code, told.err.strip()) == (7, str(len(words)))
        said = []
        with host.pipe(command, lambda _stream, line, said=said: said.append(line)) as pipe:
            out = pipe.stdout.read().decode()
            assert pipe.finish() == 7
        assert said == [str(len(words))]
        answers |= {told.out, out}
    assert len(answers) == 1
    few = host.run(Command((*COUNTED, *ODD, *LONG[:2]), frozenset({7})))
    assert few.err.strip() == str(len(ODD) + 2)


def test_what_no_program_takes_is_told(host):
    """More than the kernel lets anybody say is a failure in words."""
    command = Command(("cat", *LONG, *LONG, *LONG, *LONG), timeout_s=60)
    with pytest.raises(StepFailed, match=r"(?i)argument list too long"):
        host.run(command)


def test_hundreds_of_sqlite_files_of_another_machine_are_copied(tmp_path, start_sshd):
    """Each name stands five times in the words of tar, more than one command over SSH may have."""
    pi = Pi(tmp_path / "pi", start_sshd, "pi")
    pi.backups.mkdir()
    folder = pi.folder / f"volumes/nodered/{'d' * 100}"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "0.db")) as database:
        database.execute("CREATE TABLE t (x)")
    content = (folder / "0.db").read_bytes()
    for number in range(1, 400):
        (folder / f"{number}.db").write_bytes(content)
    laptop = Laptop(tmp_path / "laptop", pi)
    told = laptop.run("backup --host pi --runtag t1")
    assert told.returncode in (0, 3), told.stderr
    manifest = json.loads((pi.backups / "t1.manifest.json").read_text())
    general = manifest["parts"]["general"]
    assert general.get("facts", general)["sqlite_files"] == 400
