"""Any login shell, and whatever it prints: what a command answers is told from it."""

import hashlib
import io
import os
import shutil
import subprocess

import pytest
from sshd import Sshd, require_sshd

from iotstack_invoke.commands.doctor.doctor import login_told
from iotstack_invoke.core.errors import StepFailed, TimedOut, Unreachable
from iotstack_invoke.hosts import ssh as remote
from iotstack_invoke.hosts.base import Command
from iotstack_invoke.hosts.login_shell import Beginning, LoginPrints, Mark
from iotstack_invoke.hosts.ssh import SftpStorage, SshHost, open_host, open_storage
from iotstack_invoke.settings.model import VaultConfig
from iotstack_invoke.vaults.access import vault_storage

SFTP_SERVER = shutil.which("sftp-server", path="/usr/lib/openssh:/usr/libexec/openssh")
SHELLS = ("sh", "bash", "dash", "fish", "tcsh", "busybox sh")
WORDS = ("a b", "$HOME", "it's", "é€😀", "", "a!b", "!!", "x\ny", "x\n", "\\", "a\\'b", "\\0041")
WORDS = (*WORDS, "*", "~", "{a,b}", "`id`", "%d", "\t", "-n", '"', "^a^b", "a\udcffb", "#")

GREETING = "echo Welcome\necho welcome, too >&2\n"
NOISES = {
    "a greeting": GREETING,
    "no end of line": "printf Welcome; printf Wel >&2\n",
    "what looks like an answer": "echo -; echo 41ed 4096 1; echo held 1; echo '! no'\n",
    "bytes": "head -c 20000 /dev/urandom; head -c 20000 /dev/urandom >&2\n",
    "itself": "set -x\n",
    "each line": "set -v\n",
    "at its end": "trap 'echo bye; echo bye >&2' EXIT\n",
    "much": "yes Welcome | head -c 300000\n",
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("leashed", [True, False])
def test_words_reach_a_command_through_any_shell(shell, leashed):
    """Each shell quotes in its own way; none of them changes a letter."""
    if not shutil.which(shell.split()[0]):
        pytest.skip(f"there is no {shell}")
    mark = Mark()
    sent, first = mark.sent(Command(("printf", "%s|", *WORDS)), leashed=leashed)
    words = [*shell.split(), "-c", os.fsencode(sent)]
    done = subprocess.run(words, input=first, capture_output=True, check=False)
    assert done.stdout == mark.told + os.fsencode("".join(f"{each}|" for each in WORDS))
    assert done.stderr == mark.told


@pytest.fixture
def noisy(start_sshd, tmp_path):
    """Return a machine whose login prints, as a host."""
    root = tmp_path / "far away"
    root.mkdir()

    def make(start_file, **given):
        server = start_sshd("noisy", **given)
        (server.folder / ".bashrc").write_text(start_file)
        storage = open_storage(server.login(), str(root), "nas")
        storage.server = server
        made.append(storage)
        return storage

    made = []
    yield make
    for each in made:
        each.close()


def all_done(storage, root):
    """Do all that is done to a place, and see that each answer is its own."""
    data = os.urandom(700_000)
    hashed = hashlib.sha256(data).hexdigest()
    (root / "there").write_bytes(b"old")
    assert set(storage.stat([f"{root}/there", f"{root}/none"])) == {f"{root}/there"}
    received = storage.write(f"{root}/big.partial", io.BytesIO(data), 1e9)
    assert (received.size_bytes, received.sha256) == (len(data), hashed)
    storage.rename(f"{root}/big.partial", f"{root}/big")
    assert storage.write(f"{root}/a!b", io.BytesIO(b"small"), 1e9, size_bytes=5).size_bytes == 5
    assert set(storage.listdir(str(root))) == {"there", "big", "a!b"}
    with storage.read(f"{root}/big") as stream:
        assert stream.read() == data
    with storage.read(f"{root}/big", 600_000) as stream:
        assert stream.read() == data[600_000:]
    assert storage.read_many(str(root), ["there", "none"]) == {"there": b"old"}
    assert storage.read_many(str(root), ["there", *map(str, range(20))]) == {"there": b"old"}
    assert storage.create_exclusive(f"{root}/claim", "me") == "me"
    assert storage.create_exclusive(f"{root}/claim", "you") == "me"
    storage.mkdir(f"{root}/it's")
    assert storage.free_bytes(str(root)) > 0
    storage.remove([f"{root}/there", f"{root}/claim"])
    assert sorted(os.listdir(root)) == ["a!b", "big", "it's"]
    with pytest.raises(StepFailed, match="none/x"):
        storage.write(f"{root}/none/x", io.BytesIO(b"x"), 0)


@pytest.mark.parametrize("noise", NOISES)
def test_what_a_login_prints_is_in_no_answer(noisy, tmp_path, noise, monkeypatch):
    """Neither before it nor after it, through `ssh` and the open connection."""
    storage = noisy(NOISES[noise])
    assert isinstance(storage, SshHost)
    heard = []
    told = storage.run(
        Command(("sh", "-c", "echo out; echo err >&2")), lambda *line: heard.append(line)
    )
    assert (told.out, told.err) == ("out\n", "err\n")
    assert sorted(heard) == [("err", "err"), ("out", "out")]
    all_done(storage, tmp_path / "far away")
    if noise in ("a greeting", "bytes"):
        monkeypatch.setattr(remote.shutil, "which", lambda _name: None)
        with storage.read(f"{tmp_path}/far away/big") as stream:
            assert len(stream.read()) == 700_000


def test_where_sftp_goes_through_the_shell_it_is_used(noisy, tmp_path):
    """As Debian has it: what the login prints spoils SFTP, and the shell serves."""
    storage = noisy("echo Welcome\n", sftp=SFTP_SERVER)
    assert isinstance(storage, SshHost)
    all_done(storage, tmp_path / "far away")
    with pytest.raises(Unreachable, match=r"Its login prints: Welcome.*\.bashrc") as failure:
        storage.login.sftp()
    assert "Garbage" not in str(failure.value)


def test_a_login_that_prints_without_end_is_told(start_sshd, tmp_path, monkeypatch):
    """The noise is bounded; the message has its first words, and where to look for it."""
    monkeypatch.setattr(remote, "CONNECT_LIMIT_S", 3)
    for name, start_file in (("yes", "yes Hi\n"), ("err", "yes Hi >&2\n")):
        server = start_sshd(name, sftp=SFTP_SERVER)
        (server.folder / ".bashrc").write_text(start_file)
        with pytest.raises(Unreachable, match=r"Hi.*Check ~/\.bashrc"):
            open_storage(server.login(), str(tmp_path), "nas")


def test_sftp_serves_where_the_shell_runs_nothing(start_sshd, tmp_path):
    """Its own SFTP asks no shell."""
    for name, start_file in (("exit", "exit\n"), ("prints", "yes Hi\n")):
        server = start_sshd(name)
        (server.folder / ".bashrc").write_text(start_file)
        storage = open_storage(server.login(), str(tmp_path), "nas")
        assert isinstance(storage, SftpStorage)
        storage.close()
        with pytest.raises(Unreachable, match=r"offers only SFTP, so commands cannot run there\."):
            open_host(server.login(), str(tmp_path), "nas")


def test_a_shell_that_ends_early_answers_nothing(noisy, tmp_path):
    """Its words are no answer, also where it ends well; what it said is told."""
    storage = noisy("")
    (storage.server.folder / ".bashrc").write_text("echo 81a4 5 1\nexit 0\n")
    root = tmp_path / "far away"
    (root / "x").write_text("x")
    for act in (
        lambda: storage.stat([f"{root}/x"]),
        lambda: storage.read_many(str(root), ["x"]),
        lambda: storage.read_many(str(root), ["x"] * 20),
        lambda: storage.write(f"{root}/y", io.BytesIO(b"y"), 0),
        lambda: storage.write(f"{root}/y", io.BytesIO(b"y"), 0, size_bytes=1),
        lambda: storage.read(f"{root}/x").__enter__(),
    ):
        with pytest.raises(LoginPrints, match="does not run commands; it printed: 81a4 5 1"):
            act()


@pytest.mark.parametrize("start_file", ["sleep 60", "read -p 'press enter ' x"])
def test_a_shell_that_hangs_is_given_up(noisy, tmp_path, monkeypatch, start_file):
    """On each way; the command has no share in it."""
    storage = noisy("")
    (storage.server.folder / ".bashrc").write_text(f"{start_file}\n")
    monkeypatch.setattr("iotstack_invoke.hosts.ssh_connection.START_LIMIT_S", 0.5)
    monkeypatch.setattr("iotstack_invoke.hosts.ssh.START_LIMIT_S", 0.5)
    for act in (
        lambda: storage.stat([str(tmp_path)]),
        lambda: storage.run(Command(("true",), timeout_s=0.3)),
        lambda: storage.read_many(str(tmp_path), ["x"]),
        lambda: storage.read_many(str(tmp_path), ["x"] * 20),
        lambda: storage.write(f"{tmp_path}/y", io.BytesIO(b"y"), 0),
    ):
        with pytest.raises(
            TimedOut, match="accepts the login, but its login shell did not start a command"
        ) as failure:
            act()
        assert failure.value.again


def test_what_begins_after_it_was_given_up_has_not_begun():
    """A start file that waits for input goes on when ours ends, and its command begins too late."""
    mark = Mark()
    for given_up in (False, True):
        beginning = Beginning(mark, "pi")
        if given_up:
            beginning.give_up()
        beginning.own(mark.told + b"words")
        assert beginning.begun is not given_up


def test_a_limit_of_the_login_is_named(noisy, tmp_path):
    """What no file may be larger than is no full disk."""
    storage = noisy("")
    (storage.server.folder / ".bashrc").write_text("ulimit -f 8\n")
    for size in (100_000, 400_000):  # through the open line, and through `ssh`
        with pytest.raises(StepFailed, match=r"limit exceeded\. .*`ulimit -f` in ~/.bashrc"):
            storage.write(f"{tmp_path}/y", io.BytesIO(bytes(size)), 0, size_bytes=size)


def test_a_server_that_opens_no_session_is_told_soon(start_sshd, tmp_path, monkeypatch):
    """MaxSessions 0 lets no command and no SFTP be: it is asked a few times, and not for long."""
    monkeypatch.setattr(remote, "FIRST_SESSION_TRIES", 2)
    with pytest.raises(
        Unreachable, match=r"does not open a session: Connect failed\. .*MaxSessions"
    ):
        open_storage(start_sshd("none", "MaxSessions 0").login(), str(tmp_path), "nas")


def test_a_vault_whose_login_prints_is_a_vault(start_sshd, tmp_path):
    """All the way through what a vault is given."""
    (tmp_path / "far away").mkdir()
    server = start_sshd("nas", sftp=SFTP_SERVER)
    (server.folder / ".bashrc").write_text(GREETING)
    storage = vault_storage(VaultConfig("nas", str(tmp_path / "far away"), server.login()))
    all_done(storage, tmp_path / "far away")
    storage.close()


def test_doctor_says_which_line_prints(noisy):
    """The file and the line; where no line has the words, the files that may."""
    storage = noisy("# mine\necho Welcome home\n")
    (found,) = login_told(storage)
    assert "prints: Welcome home" in found.found
    assert f"{storage.server.folder}/.bashrc:2: echo Welcome home" in found.fix
    (storage.server.folder / ".bashrc").write_text("echo $((6 * 7))\n")
    (found,) = login_told(storage)
    assert "prints: 42" in found.found
    assert f"{storage.server.folder}/.bashrc" in found.fix
    (storage.server.folder / ".bashrc").write_text("")
    assert list(login_told(storage)) == []


@pytest.fixture
def german(tmp_path):
    """Return the lines of a start file that let programs speak German; skip where none can."""
    made = tmp_path / "de_DE.UTF-8"
    if not shutil.which("localedef"):
        pytest.skip("there is no localedef")
    subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", made], check=False)
    spoken = {"LOCPATH": str(tmp_path), "LC_ALL": "de_DE.UTF-8"}
    words = ["ls", tmp_path / "none"]
    told = subprocess.run(
        words, env={**os.environ, **spoken}, check=False, capture_output=True, text=True
    )
    if "nicht" not in told.stderr:
        pytest.skip("there are no German words of programs")
    return "".join(f"export {name}={value}\n" for name, value in spoken.items())


def test_a_machine_that_speaks_german_is_understood(noisy, german, tmp_path, small_disk):
    """What is not there, what is full and what is shut is known, whatever its words are."""
    storage = noisy(german)
    told = storage.try_run(Command(("ls", f"{tmp_path}/none")))
    assert "nicht gefunden" in told.err
    all_done(storage, tmp_path / "far away")
    assert storage.listdir(f"{tmp_path}/none") == {}
    for size_bytes in (None, 400_000):
        with pytest.raises(StepFailed, match=r"No space left.*Free some space there") as failure:
            storage.write(f"{small_disk}/x", io.BytesIO(bytes(400_000)), 0, 0, size_bytes)
        assert not failure.value.again


@pytest.fixture
def odd_shell(tmp_path, monkeypatch):
    """Start an sshd for a user with another login shell, and maybe other programs."""
    require_sshd()
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    running = []

    def start(shell, **given):
        running.append(Sshd(tmp_path / "odd", shell=shell, **given))
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.mark.parametrize("shell", ["tcsh", "fish", "busybox"])
def test_a_user_with_another_login_shell(odd_shell, tmp_path, shell):
    """All that is done to a place is done there, and what its start file prints is in no answer."""
    found, given = shutil.which(shell), {}
    if not found:
        pytest.skip(f"there is no {shell}")
    if shell == "busybox":  # and no other program
        tools = tmp_path / "tools"
        tools.mkdir()
        subprocess.run([found, "--install", "-s", tools], check=True)
        found, given = tools / "ash", {"path": tools}
    server = odd_shell(found, **given)
    root = tmp_path / "far! away"
    root.mkdir()
    (server.folder / ".tcshrc").write_text("echo Welcome\n")
    storage = open_storage(server.login(), str(root), "nas")
    told = storage.run(Command(("sh", "-c", 'echo "$0" "$@"', *WORDS[:5], "a!b")))
    assert told.out == " ".join((*WORDS[:5], "a!b")) + "\n"
    all_done(storage, root)
    storage.close()
