"""Another machine over SSH, against a real sshd: commands, bytes, names, and who is let in."""

import contextlib
import functools
import getpass
import hashlib
import http.server
import io
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import fabric
import paramiko
import pytest
from contexts import until
from fabric.runners import Remote
from sshd import make_key, offspring

from iotstack_invoke.core.errors import Interrupted, StepFailed, TimedOut, Unreachable
from iotstack_invoke.core.processes import signals_raised
from iotstack_invoke.hosts import ssh as remote
from iotstack_invoke.hosts.base import Command, Received, Result
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.hosts.ssh import SftpStorage, SshHost, open_storage
from iotstack_invoke.hosts.ssh_connection import Limit, Login, UnattendedRemote, end_input
from iotstack_invoke.hosts.ssh_settings import Ssh

ODD_NAMES = (
    "two words",
    "Köln ☕.tar",
    "it's",
    'say "hi"',
    "-rf",
    "$HOME",
    "a;b",
    "*",
    "a\\b",
    "x\ty",
)


@pytest.fixture
def root(tmp_path):
    """The folder on the other machine."""
    folder = tmp_path / "far away"
    folder.mkdir()
    return folder


@pytest.fixture
def nas(sshd, root):
    """The other machine, as a host."""
    storage = open_storage(sshd.login(), str(root), "nas")
    assert isinstance(storage, SshHost)
    yield storage
    storage.close()


@pytest.fixture
def no_ssh(tmp_path, monkeypatch):
    """A machine of ours on which there is no `ssh` program."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


@pytest.fixture
def sftp(start_sshd, root):
    """A machine that offers only SFTP."""
    server = start_sshd("sftp", "ForceCommand internal-sftp")
    storage = open_storage(server.login(), str(root), "box")
    assert isinstance(storage, SftpStorage)
    storage.server = server
    yield storage
    storage.close()


def tried(act):
    """Return what an act gives, tried again as the engine does while it may help."""
    for _ in range(20):
        try:
            return act()
        except StepFailed as error:
            assert error.again  # noqa: PT017 - the last try is outside
            time.sleep(0.2)
    return act()


def test_small_files_need_no_connection_of_their_own(nas, root, tmp_path, monkeypatch):
    """They go through the one that is open; `ssh`, which fails here, is for what is large."""
    program = tmp_path / "ssh"
    program.write_text("#!/bin/sh\necho no line >&2\nexit 255\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    content = b"x" * remote.SMALL_BYTES
    nas.write(f"{root}/small", io.BytesIO(content), 0.0, size_bytes=len(content))
    assert nas.read_many(str(root), ["small"]) == {"small": content}
    with pytest.raises(StepFailed, match="no line"):
        nas.write(f"{root}/large", io.BytesIO(), 0.0, size_bytes=len(content) + 1)


def test_what_is_small_is_sent_at_once(nas):
    """Otherwise each command waits until the last answer is acknowledged, 40 ms."""
    line = nas.login.connection().transport.sock
    assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


class Slow(io.RawIOBase):
    """A file that can be read for as long as anybody wants, and tells when it was begun.

    That is when more of it was read than waits in a pipe for a line that does not stand yet.
    """

    def __init__(self):
        self.sent = 0
        self.begun = threading.Event()

    def readable(self):
        return True

    def read(self, size=-1):
        self.sent += 65536
        if self.sent > 4 << 20:
            self.begun.set()
            time.sleep(0.01)
        return bytes(65536)


# Commands


def test_a_command_runs_there(nas):
    """Words arrive as they are, output comes back whole, the input is at its end."""
    words = ("printf", "%s|", "a b", "$HOME", "it's", "é€😀", "")
    assert nas.run(Command(words)).out == "a b|$HOME|it's|é€😀||"
    assert nas.run(Command(("cat",), timeout_s=20)).out == ""


def test_lines_and_exit_codes_come_back(nas):
    """Both streams are told line by line; an exit code that is not accepted is a failure."""
    heard = []
    script = "echo one; echo two >&2; exit 3"
    command = Command(("sh", "-c", script), accept=frozenset({3}))
    outcome = nas.run(command, lambda stream, line: heard.append((stream, line)))
    assert outcome.exit_code == 3
    assert sorted(heard) == [("err", "two"), ("out", "one")]
    with pytest.raises(StepFailed, match=r"On nas: exit 3 .*two"):
        nas.run(Command(("sh", "-c", script)))


def test_much_output_is_whole_and_linear(nas):
    """8 MB of letters of several bytes arrive whole within seconds."""
    started = time.monotonic()
    told = nas.run(Command(("sh", "-c", "yes 'é€😀' | head -n 800000"), timeout_s=100))
    assert told.out == "é€😀\n" * 800_000
    assert time.monotonic() - started < 50


def test_a_command_that_takes_too_long_may_be_tried_again(nas):
    """A time limit is a failure that another attempt may mend."""
    with pytest.raises(StepFailed, match="On nas: it did not end within 1 s") as failure:
        nas.run(Command(("sleep", "30"), timeout_s=1))
    assert failure.value.again


def test_a_late_command_is_told_however_long_its_end_takes(nas, monkeypatch):
    """Its output may have ended while whoever ends it is still at work."""

    def slowly(runner):
        Remote.kill(runner)
        time.sleep(0.5)

    monkeypatch.setattr(UnattendedRemote, "kill", slowly, raising=False)
    with pytest.raises(StepFailed, match=r"On nas: it did not end within 0\.2 s"):
        nas.run(Command(("sleep", "30"), timeout_s=0.2))


@pytest.mark.parametrize("error", [EOFError, OSError(9, "Bad file descriptor")])
def test_a_late_command_whose_connection_is_lost_is_told(nas, monkeypatch, error):
    """Whoever ends it finds the connection gone: no exception is left in the timer's thread."""
    line, unseen = nas.login.connection().transport, []
    send = line._send_user_message

    def gone(message):
        if isinstance(threading.current_thread(), threading.Timer):
            line.close()
            raise error
        send(message)

    monkeypatch.setattr(line, "_send_user_message", gone)
    monkeypatch.setattr(threading, "excepthook", unseen.append)
    with pytest.raises(StepFailed, match=r"On nas: it did not end within 0\.2 s") as failure:
        nas.run(Command(("sleep", "30"), timeout_s=0.2))
    assert failure.value.again
    assert unseen == []
    nas.close()
    assert nas.run(Command(("echo", "x"))).out == "x\n"


@pytest.mark.parametrize("error", [EOFError(), OSError(9), AttributeError("sock"), ValueError()])
def test_a_limit_whose_line_is_gone_raises_nothing_in_its_thread(monkeypatch, error):
    """Paramiko may have taken the line apart when the time is over."""
    unseen, ended = [], threading.Event()
    monkeypatch.setattr(threading, "excepthook", unseen.append)

    class Gone:
        def close(self):
            ended.set()
            raise error

    limit = Limit(Gone(), 0.01)
    assert ended.wait(10)
    limit._timer.join(10)
    limit.stop()
    assert limit.is_over
    assert unseen == []


def test_a_command_whose_channel_cannot_be_closed_is_told(nas, monkeypatch):
    """A connection that is lost just after a command ended does not hide how it ended."""
    connection = nas.login.connection()
    real = connection.transport.open_session

    def opened(*words, **named):
        channel = real(*words, **named)

        def gone():
            raise EOFError

        monkeypatch.setattr(channel, "close", gone)
        return channel

    monkeypatch.setattr(connection.transport, "open_session", opened)
    assert nas.run(Command(("echo", "x"))).out == "x\n"


def test_what_a_listener_raises_comes_out(nas):
    """An exception of whoever hears a line is not swallowed by the line."""

    def refuse(_stream, _line):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        nas.run(Command(("echo", "x")), refuse)


def test_many_threads_share_one_connection(nas):
    """More threads than sshd takes sessions all get their answer."""
    with ThreadPoolExecutor(16) as pool:
        jobs = [
            pool.submit(nas.run, Command(("sh", "-c", f"sleep 0.1; echo {n}"))) for n in range(48)
        ]
        assert [job.result().out for job in jobs] == [f"{n}\n" for n in range(48)]


def test_threads_that_open_it_together_share_one_login(sshd, root):
    """A connection that many threads need first at once is opened once."""
    login = Login(sshd.login(), "nas")
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: login.connection(), range(8)))
    assert len({id(each) for each in opened}) == 1
    assert (sshd.folder / "log").read_text().count("Accepted publickey") == 1
    login.close()


def test_a_connection_that_was_closed_opens_again(nas):
    """Closing costs no more than the next login."""
    nas.close()
    assert nas.run(Command(("echo", "again"))).out == "again\n"


def test_a_line_that_breaks_may_be_mended_by_another_attempt(nas, sshd):
    """A command whose connection dies is a failure worth another attempt, which then works."""

    def cut():
        until(lambda: len(offspring(sshd.process.pid)) > 1)
        sshd.cut()

    thread = threading.Thread(target=cut)
    thread.start()
    with pytest.raises(Unreachable, match="Connection to nas lost") as failure:
        nas.run(Command(("sleep", "30"), timeout_s=60))
    thread.join()
    assert failure.value.again
    assert tried(lambda: nas.run(Command(("echo", "again")))).out == "again\n"


def test_a_signal_ends_a_command_of_the_main_thread_soon(nas, sshd):
    """Nobody who asks us to stop waits for the other machine."""
    before = len(offspring(sshd.process.pid))

    def interrupt():
        until(lambda: len(offspring(sshd.process.pid)) > before)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    started = time.monotonic()
    with pytest.raises(Interrupted), signals_raised():
        nas.run(Command(("sleep", "40"), timeout_s=60))
    assert time.monotonic() - started < 20


# Files


def test_a_file_is_received_whole_and_proven(nas, root):
    """What lies there afterwards has the bytes, hash, date and mode that were meant."""
    data = os.urandom(3_000_000)
    path = f"{root}/x.partial"
    received = nas.write(path, io.BytesIO(data), 1_234_567_890.7)
    assert (received.size_bytes, received.sha256) == (3_000_000, hashlib.sha256(data).hexdigest())
    assert (root / "x.partial").read_bytes() == data
    assert (root / "x.partial").stat().st_mode & 0o777 == 0o600
    with nas.read(path) as stream:
        assert stream.read() == data


def test_a_file_that_was_cut_is_gone_on_with(nas, root):
    """Reading leaves out what is there already; receiving adds to it, and hashes all of it."""
    data = os.urandom(300_000)
    path = f"{root}/x.partial"
    nas.write(path, io.BytesIO(data[:100_001]), 0)
    received = nas.write(path, io.BytesIO(data[100_001:]), 0, 100_001)
    assert received == Received(len(data), hashlib.sha256(data).hexdigest())
    with nas.read(path, 100_001) as stream:
        assert stream.read() == data[100_001:]


def test_the_hash_is_of_what_lies_there(nas, root, monkeypatch):
    """A far disk that stores something else is found out: the hash is not of what was sent."""
    monkeypatch.setattr(
        "iotstack_invoke.hosts.ssh.RECEIVE",
        'cat > "$1"; printf X | dd of="$1" conv=notrunc status=none; wc -c < "$1"; sha256sum < "$1"',
    )
    received = nas.write(f"{root}/x", io.BytesIO(b"abc"), 0)
    assert received.sha256 == hashlib.sha256(b"Xbc").hexdigest()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_only_names(nas, root, name):
    """Whatever a file is called, every act means that file and no other."""
    path = f"{root}/{name}"
    (root / "bystander").write_text("here")
    nas.write(path + ".partial", io.BytesIO(b"data"), 1e9)
    nas.rename(path + ".partial", path)
    assert set(nas.stat([path, path + ".partial"])) == {path}
    assert nas.listdir(str(root))[name].size_bytes == 4
    with nas.read(path) as stream:
        assert stream.read() == b"data"
    nas.append(path, name)
    assert (root / name).read_text() == f"data{name}\n"
    nas.remove([path])
    assert os.listdir(root) == ["bystander"]


def test_a_look_is_one_round_trip_and_tells_what_is_there(nas, root, monkeypatch):
    """Files and folders are told apart, what is missing has no entry, in the order of nobody."""
    (root / "file").write_bytes(b"abc")
    os.utime(root / "file", (1e9, 1e9))
    (root / "folder").mkdir()
    run, commands = nas.run, []
    monkeypatch.setattr(nas, "run", lambda command: (commands.append(command), run(command))[1])
    paths = [f"{root}/{name}" for name in ("none", "folder", "file", "")]
    found = nas.stat(paths)
    assert len(commands) == 1
    assert set(found) == {paths[1], paths[2], paths[3]}
    assert (found[paths[2]].size_bytes, found[paths[2]].modified_s) == (3, 1e9)
    assert found[paths[1]].is_folder
    assert not found[paths[2]].is_folder
    assert nas.stat([]) == {}


def test_ten_thousand_names_are_listed_quickly(nas, root):
    """A full vault is listed within seconds, in one command."""
    for number in range(10_000):
        (root / f"{number:05}.tar").touch()
    started = time.monotonic()
    assert sorted(nas.listdir(str(root))) == [f"{number:05}.tar" for number in range(10_000)]
    assert time.monotonic() - started < 10


def test_a_missing_folder_has_no_names(nas, root):
    """A folder that is not there is empty."""
    assert nas.listdir(f"{root}/none") == {}


@pytest.mark.parametrize("kind", ["nas", "sftp", "host"])
def test_small_files_are_read_together(root, request, kind):
    """Each file has its bytes, whatever they are; what is missing or no file has no entry."""
    storage = LocalHost(str(root)) if kind == "host" else request.getfixturevalue(kind)
    texts = {"a b": b"1\n2\n\x00\xff", "empty": b"", "'$(x)": b"no end of line"}
    for name, data in texts.items():
        (root / name).write_bytes(data)
    (root / "folder").mkdir()
    assert storage.read_many(str(root), ["none", *texts, "folder"]) == texts


@pytest.mark.parametrize("kind", ["nas", "sftp", "host"])
def test_a_claim_is_made_once(root, request, kind):
    """Whoever comes first has it, and whoever comes later is told whose it is."""
    storage = LocalHost(str(root)) if kind == "host" else request.getfixturevalue(kind)
    assert storage.create_exclusive(f"{root}/a b", "it's mine") == "it's mine"
    assert storage.create_exclusive(f"{root}/a b", "no, mine") == "it's mine"
    assert (root / "a b").read_text() == "it's mine\n"
    assert (root / "a b").stat().st_mode & 0o777 == 0o600
    with pytest.raises(StepFailed):
        storage.create_exclusive(f"{root}/none/x", "mine")


@pytest.mark.parametrize("kind", ["nas", "sftp", "host"])
def test_a_folder_is_made_once(root, request, kind):
    """A folder is private; one that is there stays as it is, and nothing else gives way to it."""
    storage = LocalHost(str(root)) if kind == "host" else request.getfixturevalue(kind)
    storage.mkdir(f"{root}/a b")
    assert (root / "a b").stat().st_mode & 0o777 == 0o700
    (root / "a b" / "file").write_text("x")
    storage.mkdir(f"{root}/a b")
    assert (root / "a b" / "file").exists()
    assert storage.listdir(str(root))["a b"].is_folder
    (root / "file").write_text("x")
    for path in (f"{root}/file", f"{root}/none/x"):
        with pytest.raises(StepFailed):
            storage.mkdir(path)


@pytest.mark.parametrize("kind", ["nas", "sftp", "host"])
def test_what_is_no_file_is_told_as_such(root, request, kind):
    """A listing names links and pipes, each as what it is, and opens none."""
    storage = LocalHost(str(root)) if kind == "host" else request.getfixturevalue(kind)
    (root / "file").write_text("x")
    (root / "link").symlink_to("file")
    os.mkfifo(root / "pipe")
    assert {name: each.other for name, each in storage.listdir(str(root)).items()} == {
        "file": "",
        "link": "symlink",
        "pipe": "pipe",
    }
    assert [name for name, each in storage.listdir(str(root)).items() if each.is_file] == ["file"]


def test_names_that_break_lines_spoil_no_listing(nas, root):
    """A name with a line break in it, which is none of ours, hides none of the others."""
    for name in ("good", "a\nb", "\n", "c\u2028d", "e\x0bf", "g\r"):
        (root / name).write_text("x")
    (root / os.fsdecode(b"not-utf8-\xff")).write_text("x")
    assert {"good", "c\u2028d", "e\x0bf"} <= set(nas.listdir(str(root)))


def test_a_file_that_goes_during_the_listing_spoils_nothing(start_sshd, root, tmp_path):
    """The other files are listed although one vanished between the listing and the look at it."""
    tools = tmp_path / "tools"
    tools.mkdir()
    real = shutil.which("stat")
    script = f'case "$*" in *gone*) rm -f "{root}/gone" ;; esac; exec {real} "$@"'
    (tools / "stat").write_text(f"#!/bin/sh\n{script}\n")
    (tools / "stat").chmod(0o755)
    server = start_sshd("racing", path=f"{tools}:/usr/bin:/bin")
    for name in ("gone", "stays"):
        (root / name).touch()
    storage = open_storage(server.login(), str(root), "nas")
    assert set(storage.listdir(str(root))) == {"stays"}
    storage.close()


BSD = {
    "stat": """
[ "$1" = -f ] || { echo "stat: illegal option -- c" >&2; exit 1; }
form=$(printf %s "$2" | sed 's/%Xp/%f/; s/%z/%s/; s/%m/%Y/; s/%N/%n/'); shift 2
exec REAL -c "$form" "$@"
""",
    "shasum": '[ "$1 $2" = "-a 256" ] || exit 1; exec sha256sum_real\n',
    "sync": '[ $# = 0 ] || { echo "usage: sync" >&2; exit 1; }; exec REAL\n',
}


def test_a_machine_with_bsd_tools_is_as_good(start_sshd, root, tmp_path):
    """A Mac or a NAS without GNU's options takes files in, hashes, lists and looks."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in (
        "sh",
        "cat",
        "touch",
        "wc",
        "mv",
        "rm",
        "df",
        "find",
        "sed",
        "dirname",
        "ls",
        "grep",
    ):
        (tools / name).symlink_to(shutil.which(name))
    (tools / "sha256sum_real").symlink_to(shutil.which("sha256sum"))
    for name, script in BSD.items():
        (tools / name).write_text("#!/bin/sh\n" + script.replace("REAL", shutil.which(name) or ""))
        (tools / name).chmod(0o755)
    server = start_sshd("bsd", path=tools)
    storage = open_storage(server.login(), str(root), "mac")
    data = os.urandom(100_000)
    received = storage.write(f"{root}/a b.partial", io.BytesIO(data), 1e9)
    assert received.sha256 == hashlib.sha256(data).hexdigest()
    storage.rename(f"{root}/a b.partial", f"{root}/a b")
    storage.append(f"{root}/journal", "line")
    assert set(storage.listdir(str(root))) == {"a b", "journal"}
    found = storage.stat([f"{root}/a b", f"{root}/none"])
    assert found[f"{root}/a b"].size_bytes == 100_000
    assert found[f"{root}/a b"].modified_s == 1e9
    assert storage.stat([str(root)])[str(root)].is_folder
    assert storage.free_bytes(str(root)) > 0
    storage.close()


@pytest.mark.parametrize("takes_files", [True, False])
def test_what_the_disk_says_at_the_sync_is_told(start_sshd, root, tmp_path, takes_files):
    """A disk that loses what it took makes no copy; a sync that takes no file is used without."""
    tools = tmp_path / "tools"
    tools.mkdir()
    said = "sync: error syncing: Input/output error" if takes_files else "usage: sync"
    (tools / "sync").write_text(f'#!/bin/sh\n[ $# = 0 ] || {{ echo "{said}" >&2; exit 1; }}\n')
    (tools / "sync").chmod(0o755)
    server = start_sshd(f"sync-{takes_files}", path=f"{tools}:/usr/bin:/bin")
    storage = open_storage(server.login(), str(root), "nas")

    def rename():
        storage.rename(f"{root}/x", f"{root}/y")

    (root / "x").touch()
    for act in (lambda: storage.write(f"{root}/x", io.BytesIO(b"data"), 0), rename):
        if takes_files:
            with pytest.raises(StepFailed, match="Input/output error"):
                act()
        else:
            act()
    storage.close()


def test_a_file_is_on_its_way_to_the_disk_before_its_sync(start_sshd, root, tmp_path):
    """Where GNU's dd is, each piece is sent on to the disk; where it is not, all is received."""
    data = os.urandom(3_000_000)
    for name, script in (
        ("gnu", f'echo "$*" >> {tmp_path}/words; exec {shutil.which("dd")} "$@"'),
        ("other", "echo 'dd: invalid argument' >&2; exit 1"),
    ):
        tools = tmp_path / name
        tools.mkdir()
        (tools / "dd").write_text(f"#!/bin/sh\n{script}\n")
        (tools / "dd").chmod(0o755)
        server = start_sshd(f"dd-{name}", path=f"{tools}:/usr/bin:/bin")
        storage = open_storage(server.login(), str(root), "nas")
        storage.write(f"{root}/{name}", io.BytesIO(data[:1_000_001]), 0)
        received = storage.write(f"{root}/{name}", io.BytesIO(data[1_000_001:]), 0, 1_000_001)
        assert received == Received(len(data), hashlib.sha256(data).hexdigest())
        assert (root / name).read_bytes() == data
        with storage.create(f"{root}/made") as stream:
            stream.write(data)
        assert (root / "made").read_bytes() == data
        storage.close()
    assert "oflag=nocache" in (tmp_path / "words").read_text().splitlines()[-1]


def test_free_bytes_are_those_of_the_folders_disk(nas, root):
    """What is told is what df tells, and a folder that is not there has none."""
    expected = shutil.disk_usage(root).free
    assert abs(nas.free_bytes(str(root)) - expected) < 1 << 30
    assert nas.free_bytes(f"{root}/none") is None


def test_a_disk_is_known_by_all_folders_on_it(nas, root, small_disk):
    """Also one of memory, whose device has a name that others have as well."""
    (root / "below").mkdir()
    disk = nas.disk(str(root))
    assert nas.disk(f"{root}/below").name == disk.name
    assert nas.disk(str(small_disk)).name not in (disk.name, nas.disk("/dev/shm").name)
    assert nas.disk(f"{root}/none") is None


@pytest.mark.parametrize(
    ("line", "free"),
    [
        ("/dev/sda1 100 60 40 60% /mnt", 40 * 1024),
        ("//wash@nas/My Share 100 60 40 60% /mnt/My Share", 40 * 1024),
        ("tmpfs 0 0 0 - /proc", None),
        ("df: nothing here", None),
    ],
)
def test_free_bytes_are_read_whatever_the_disk_is_called(line, free):
    """A share with blanks in its name does not shift the columns."""

    class Df(SshHost):
        def try_run(self, command, heard=None):
            titles = "Filesystem 1024-blocks Used Available Capacity Mounted on"
            return Result(0, f"{titles}\n{line}\n", "")

    assert Df(Login(Ssh("nas"), "nas"), "").free_bytes("/x") == free


def test_a_rename_replaces(nas, root):
    """The new file stands in the place of the old one."""
    (root / "a.partial").write_text("new")
    (root / "a").write_text("old")
    nas.rename(f"{root}/a.partial", f"{root}/a")
    assert (root / "a").read_text() == "new"
    assert os.listdir(root) == ["a"]
    with pytest.raises(StepFailed, match="On nas: exit 1"):
        nas.rename(f"{root}/none", f"{root}/a")


def test_removing_twice_is_as_good_as_once(nas, root):
    """A file that is not there counts as removed."""
    (root / "a").touch()
    nas.remove([f"{root}/a", f"{root}/b"])
    nas.remove([f"{root}/a"])
    nas.remove([])
    assert os.listdir(root) == []


def test_lines_and_small_files_are_written_for_their_owner_only(nas, root):
    """A journal and a small file are of mode 0600, and hold what was written."""
    nas.append(f"{root}/journal", '{"a": "it\'s %s \\n"}')
    nas.append(f"{root}/journal", "two")
    assert (root / "journal").read_text() == '{"a": "it\'s %s \\n"}\ntwo\n'
    with nas.create(f"{root}/small") as stream:
        stream.write(b"content")
    assert (root / "small").read_bytes() == b"content"
    for name in ("journal", "small"):
        assert (root / name).stat().st_mode & 0o777 == 0o600


def test_a_large_file_is_written_while_it_is_made(nas, root, monkeypatch):
    """Nothing of it waits here: it grows there while more is written, through ssh or a channel."""
    for name in ("ssh", "channel"):
        if name == "channel":
            monkeypatch.setattr(remote.shutil, "which", lambda _name: None)
        with nas.create(f"{root}/{name}") as stream:
            for _ in range(8):
                stream.write(b"x" * 1_000_000)
            until(lambda name=name: (root / name).stat().st_size > 4_000_000)
        assert (root / name).stat().st_size == 8_000_000
        assert (root / name).stat().st_mode & 0o777 == 0o600


def test_a_file_whose_line_is_cut_while_it_is_written_is_a_failure(nas, root, sshd):
    """What is cut is never taken for whole; the next one is another file, whoever still writes."""

    def write_until_cut():
        with nas.create(f"{root}/x") as stream:
            stream.write(b"x" * 1_000_000)
            until((root / "x").exists)
            sshd.cut()
            for _ in range(100):
                stream.write(b"x" * 1_000_000)

    with pytest.raises(StepFailed, match="Sending to nas failed"):
        write_until_cut()
    with open(root / "x", "ab") as orphan, nas.create(f"{root}/x") as stream:
        stream.write(b"new")
        until((root / "x").exists)
        orphan.write(b"old")
    assert (root / "x").read_bytes() == b"new"


def test_a_disk_that_refuses_a_file_is_told(nas, root):
    """The reason is what the far side says, at the latest when the file ends."""
    with (
        pytest.raises(StepFailed, match="Sending to nas failed"),
        nas.create(f"{root}/none/x") as stream,
    ):
        stream.write(b"x")


def test_a_file_that_is_not_there_cannot_be_read(nas, root):
    """Reading what is missing is a failure, not an empty file."""
    with (
        pytest.raises(StepFailed, match=f"{root}/none cannot be read"),
        nas.read(f"{root}/none") as s,
    ):
        s.read()


def test_a_folder_that_takes_nothing_is_told(nas, root):
    """Sending to where nothing can be written fails with the far side's own words."""
    with pytest.raises(StepFailed, match=r"Sending to nas failed: .*none/x"):
        nas.write(f"{root}/none/x", io.BytesIO(bytes(1 << 20)), 0)


@pytest.mark.parametrize(
    ("why", "again"),
    [
        ("cat: write error: No space left on device", False),
        ("cat: write error: Disk quota exceeded", False),
        ("sh: 1: cannot create x: Permission denied", False),
        ("sh: 1: cannot create x: Read-only file system", False),
        ("Connection reset by peer", True),
    ],
)
def test_what_a_disk_refuses_is_not_tried_again(nas, root, monkeypatch, why, again):
    """A full disk stays full; a line that broke may come back."""
    monkeypatch.setattr(remote, "RECEIVE", f"cat >/dev/null; echo '{why}' >&2; exit 1")
    with pytest.raises(StepFailed, match="Sending to nas failed") as failure:
        nas.write(f"{root}/x", io.BytesIO(b"x"), 0)
    assert failure.value.again is again


def test_an_http_status_is_asked_through_the_line(nas, root):
    """What the other machine sees on its own ports is told, and 0 where nobody answers."""
    handler = functools.partial(_Quiet, directory=str(root))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert nas.http_status(server.server_address[1], "/") == 200
        assert nas.http_status(server.server_address[1], "/none") == 404
    finally:
        server.shutdown()
        server.server_close()
    assert nas.http_status(1, "/") == 0


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_the_raw_channel_serves_where_there_is_no_ssh_program(nas, root, no_ssh):
    """Without the `ssh` program the same bytes go and come over our own connection."""
    data = os.urandom(3_000_000)
    received = nas.write(f"{root}/x y", io.BytesIO(data), 1e9)
    assert received.sha256 == hashlib.sha256(data).hexdigest()
    with nas.read(f"{root}/x y") as stream:
        assert stream.read() == data
    with pytest.raises(StepFailed, match="cannot be read"), nas.read(f"{root}/none") as stream:
        stream.read()
    with pytest.raises(StepFailed, match="Sending to nas failed"):
        nas.write(f"{root}/none/x", io.BytesIO(b"x"), 0)


@pytest.mark.parametrize("way", ["ssh", "channel"])
def test_a_line_that_breaks_while_sending_may_be_tried_again(nas, sshd, root, way, request):
    """A connection that is cut in the middle is a failure worth another attempt, and not a hang."""
    if way == "channel":
        request.getfixturevalue("no_ssh")
    source = Slow()
    threading.Thread(target=lambda: (source.begun.wait(30), sshd.cut())).start()
    with pytest.raises(StepFailed, match=r"Sending to nas failed: \w") as failure:
        nas.write(f"{root}/x.partial", source, 0)
    assert failure.value.again
    again = tried(lambda: nas.write(f"{root}/x.partial", io.BytesIO(b"whole"), 0))
    assert again.size_bytes == 5


@pytest.mark.parametrize("way", ["ssh", "channel"])
def test_a_line_that_breaks_while_reading_is_not_the_end_of_the_file(
    nas, sshd, root, way, request
):
    """A file that is cut short in the middle fails, for another attempt."""
    if way == "channel":
        request.getfixturevalue("no_ssh")
    with open(root / "big", "wb") as stream:
        stream.truncate(1 << 28)
    with pytest.raises(StepFailed) as failure, nas.read(f"{root}/big") as stream:  # noqa: PT012
        assert len(stream.read(100_000)) == 100_000
        sshd.cut()
        while stream.read(1 << 18):
            pass
    assert failure.value.again


def test_keys_can_be_exchanged_while_an_input_ends(nas):
    """Paramiko's other thread needs the channel's lock for that; it would wait half a minute."""
    channel = nas.login.start(Command(("cat",)))
    line = channel.transport
    line.clear_to_send.clear()
    with ThreadPoolExecutor() as pool:
        ending = pool.submit(end_input, channel)
        try:
            for _ in range(20):
                assert channel.lock.acquire(timeout=5)
                channel.lock.release()
                time.sleep(0.01)
            assert not ending.done()
        finally:
            line.clear_to_send.set()
        ending.result(timeout=20)
    assert channel.recv_exit_status() == 0
    channel.close()


def test_commands_that_end_at_once_never_cut_the_line(nas):
    """Their input ends in one step: sshd cuts the line for an end that comes after theirs."""
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: nas.try_run(Command(("true",))), range(600)))
    assert {outcome.exit_code for outcome in outcomes} == {0}


@pytest.mark.parametrize("way", ["channel", "sftp"])
def test_a_request_that_finds_the_line_broken_is_not_the_end_of_the_file(
    nas, root, way, request, monkeypatch
):
    """Paramiko says EOFError for a socket that is closed while it sends, as for a file's end."""
    request.getfixturevalue("no_ssh")
    storage = nas if way == "channel" else SftpStorage(nas.login, str(root))
    with open(root / "big", "wb") as stream:
        stream.truncate(1 << 25)

    def broken(*_):
        raise EOFError

    with pytest.raises(StepFailed) as failure, storage.read(f"{root}/big") as stream:  # noqa: PT012
        assert len(stream.read(100_000)) == 100_000
        monkeypatch.setattr(nas.login.connection().transport, "_send_user_message", broken)
        while stream.read(1 << 18):
            pass
    assert failure.value.again
    monkeypatch.undo()


@pytest.mark.parametrize("way", ["ssh", "channel", "sftp"])
def test_a_line_that_breaks_while_small_files_are_read_hides_none(
    nas, sshd, root, way, request, monkeypatch
):
    """A file that was not read is not one that is not there."""
    monkeypatch.setattr(remote, "MOST_CONTENT_BYTES", 1 << 30)
    monkeypatch.setattr("iotstack_invoke.hosts.sftp_storage.MOST_CONTENT_BYTES", 1 << 30)
    storage = SftpStorage(nas.login, str(root)) if way == "sftp" else nas
    names = ["big", *(f"{number}" for number in range(1 if way == "channel" else 20))]
    for name in names:
        (root / name).write_bytes(b"x")
    with open(root / "big", "wb") as stream:
        stream.truncate(1 << 28)
    cutting = threading.Timer(0.5, sshd.cut)
    cutting.start()
    with pytest.raises(StepFailed) as failure:
        storage.read_many(str(root), names)
    assert failure.value.again
    cutting.join()


@pytest.mark.parametrize("way", ["ssh", "channel", "sftp"])
def test_small_files_have_one_limit_together(nas, root, way, monkeypatch):
    """A far end may list a few bytes of each of many, and send megabytes."""
    for module in ("ssh", "sftp_storage"):
        monkeypatch.setattr(f"iotstack_invoke.hosts.{module}.MOST_CONTENT_BYTES", 1000)
    storage = SftpStorage(nas.login, str(root)) if way == "sftp" else nas
    names = [f"{number}" for number in range(20 if way == "ssh" else 5)]
    for name in names:
        (root / name).write_bytes(b"x" * (1000 // len(names)))
    assert len(storage.read_many(str(root), names)) == len(names)
    (root / "0").write_bytes(b"x" * 900)
    with pytest.raises(StepFailed, match="together they have more than 1,000 bytes") as failure:
        storage.read_many(str(root), names)
    assert failure.value.again


@pytest.mark.parametrize("way", ["ssh", "channel", "sftp"])
def test_what_still_writes_for_an_earlier_line_reaches_no_copy(nas, root, way, request):
    """A program that hung over there may go on when another run's copy has its name."""
    if way == "channel":
        request.getfixturevalue("no_ssh")
    storage = SftpStorage(nas.login, str(root)) if way == "sftp" else nas
    partial = root / "x.partial"
    partial.write_bytes(b"earlier" * 9)
    with open(partial, "r+b", buffering=0) as earlier:
        storage.write(str(partial), io.BytesIO(b"whole"), 0)
        storage.rename(str(partial), f"{root}/x")
        earlier.write(b"?" * 9)
    assert (root / "x").read_bytes() == b"whole"


@pytest.mark.parametrize("way", ["ssh", "sftp"])
def test_a_copy_follows_no_link_that_lies_under_its_partial_name(nas, root, way):
    storage = SftpStorage(nas.login, str(root)) if way == "sftp" else nas
    (root / "other").write_text("of somebody")
    (root / "x.partial").symlink_to("other")
    storage.write(f"{root}/x.partial", io.BytesIO(b"whole"), 0)
    assert (root / "other").read_text() == "of somebody"
    assert (root / "x.partial").read_bytes() == b"whole"


def test_a_file_that_grows_while_it_is_read_moves_no_other(start_sshd, root, tmp_path):
    """What is told of it is as long as it was found."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "wc").write_text(f'#!/bin/sh\n/usr/bin/wc "$@"\necho 12345 >> "{root}/a"\n')
    (tools / "wc").chmod(0o755)
    server = start_sshd("growing", path=f"{tools}:/usr/bin:/bin")
    storage = open_storage(server.login(), str(root), "nas")
    texts = {"a": b"one", "b": b"two"}
    for name, text in texts.items():
        (root / name).write_bytes(text)
    assert storage.read_many(str(root), texts) == texts
    storage.close()


def test_a_server_that_takes_no_more_sessions_is_told(start_sshd, root, request, monkeypatch):
    """A channel that sshd refuses is a failure worth another attempt, on every way."""
    monkeypatch.setattr("iotstack_invoke.hosts.ssh_connection.SESSION_TRIES", 1)
    server = start_sshd("busy", "MaxSessions 1")
    request.getfixturevalue("no_ssh")
    storage = open_storage(server.login(), str(root), "nas")
    (root / "x").write_bytes(bytes(1 << 26))
    with storage.read(f"{root}/x") as stream:
        with pytest.raises(StepFailed) as failure:
            storage.write(f"{root}/y", io.BytesIO(b"y"), 0)
        assert failure.value.again
        with pytest.raises(StepFailed) as failure, storage.read(f"{root}/x"):
            pass
        assert failure.value.again
        with pytest.raises(StepFailed) as failure:
            storage.run(Command(("true",)))
        assert failure.value.again
        while stream.read(1 << 18):
            pass
    storage.close()


class _BreaksFirst(threading.Event):
    """The sign that a request was answered; the line breaks just before it is waited for."""

    def __init__(self, line, cut):
        super().__init__()
        self.line, self.cut = line, cut

    def clear(self):
        self.cut()
        until(lambda: not self.line.is_active() and self.is_set())  # it is told as closed
        super().clear()


@pytest.mark.parametrize("way", ["command", "channel", "sftp"])
def test_a_line_that_breaks_just_before_an_answer_is_waited_for(nas, sshd, way, monkeypatch):
    """Paramiko takes away the sign that it is closed, and would wait for ever."""
    line = nas.login.connection().transport
    open_session = line.open_session

    def opened(*words, **given):
        channel = open_session(*words, **given)
        channel.event = _BreaksFirst(line, sshd.cut)
        return channel

    monkeypatch.setattr(line, "open_session", opened)
    ways = {
        "command": lambda: nas.run(Command(("true",))),
        "channel": lambda: nas.login.start(Command(("true",))),
        "sftp": nas.login.sftp,
    }
    failures = []

    def act():
        try:
            ways[way]()
        except Unreachable as error:
            failures.append(error)

    asking = threading.Thread(target=act, daemon=True)
    asking.start()
    asking.join(30)
    assert not asking.is_alive()
    assert failures[0].again


@pytest.mark.parametrize("way", ["ssh", "channel"])
def test_what_goes_on_too_long_is_ended(nas, root, request, way):
    """It is told as that, and not as a line that broke, be it through `ssh` or our connection."""
    if way == "channel":
        request.getfixturevalue("no_ssh")
    started = time.monotonic()
    with nas.pipe(Command(("sleep", "60"), timeout_s=1)) as pipe:
        assert pipe.stdout.read() == b""
        with pytest.raises(StepFailed, match="did not end within 1 s: sleep 60"):
            pipe.finish()
    assert time.monotonic() - started < 20
    assert nas.run(Command(("echo", "good"))).out == "good\n"


def test_a_question_that_takes_too_long_is_told_with_its_limit(nas, root, monkeypatch):
    """Of many small files: the line is good, and the disk, or what is asked, is slow."""
    names = [f"m{number}" for number in range(remote.FEW + 1)]
    slow = "sleep 60"
    monkeypatch.setattr(remote, "CONTENTS", slow)
    monkeypatch.setitem(remote._script.__kwdefaults__, "limit_s", 1)
    with pytest.raises(TimedOut, match=r"did not end within 1 s: .*Does its disk work\?"):
        nas.read_many(str(root), names)


# SFTP only


def test_a_server_with_sftp_only_is_a_place(sftp, root):
    """Without a shell, files are taken in, listed, renamed, read and removed all the same."""
    data = os.urandom(1_000_000)
    received = sftp.write(f"{root}/a b.partial", io.BytesIO(data), 1e9)
    assert received == Received(1_000_000, hashlib.sha256(data).hexdigest())
    (root / "a b").write_text("old")
    sftp.rename(f"{root}/a b.partial", f"{root}/a b")
    assert (root / "a b").read_bytes() == data
    assert (root / "a b").stat().st_mode & 0o777 == 0o600
    found = sftp.stat([f"{root}/a b", f"{root}/none", str(root)])
    assert (found[f"{root}/a b"].size_bytes, found[f"{root}/a b"].modified_s) == (1_000_000, 1e9)
    assert found[str(root)].is_folder
    assert f"{root}/none" not in found
    assert set(sftp.listdir(str(root))) == {"a b"}
    assert sftp.listdir(f"{root}/none") == {}
    with sftp.read(f"{root}/a b") as stream:
        assert stream.read() == data
    assert sftp.free_bytes(str(root)) > 1_000_000
    sftp.remove([f"{root}/a b", f"{root}/none"])
    assert os.listdir(root) == []


SFTP_SERVERS = ("/usr/lib/openssh", "/usr/libexec/openssh", "/usr/lib/ssh", "/usr/libexec")


def test_a_copy_over_sftp_is_on_the_disk_before_it_is_read_back(start_sshd, root, tmp_path):
    """The server is asked to sync the file when all of it was sent: of a power cut it knows none."""
    server = shutil.which("sftp-server", path=":".join(SFTP_SERVERS))
    if server is None:
        pytest.skip("there is no sftp-server as a program")
    listening, asked = tmp_path / "listening", tmp_path / "asked"
    listening.write_text(f"#!/bin/sh\ntee -a {asked} | {server}\n")
    listening.chmod(0o755)
    box = start_sshd("box", f"ForceCommand {listening}")
    storage = SftpStorage(Login(box.login(), "box"), str(root))
    storage.write(f"{root}/x", io.BytesIO(b"its first bytes" + b"x" * 100_000 + b"its end"), 0)
    storage.close()
    told = asked.read_bytes()
    reading = told.rindex(f"{root}/x".encode())
    assert told.index(b"its end") < told.index(b"fsync@openssh.com") < reading


def test_what_an_sftp_server_refuses_is_a_failure(sftp, root):
    """A path that cannot be written or read is told with the machine's name."""
    with pytest.raises(StepFailed, match=r"On box: .*No such file"):
        sftp.write(f"{root}/none/x", io.BytesIO(b"x"), 0)
    with pytest.raises(StepFailed, match=r"On box: .*No such file"), sftp.read(f"{root}/none"):
        pass
    with pytest.raises(StepFailed, match="On box"):
        sftp.rename(f"{root}/none", f"{root}/x")


def test_a_server_that_takes_nothing_says_so(start_sshd, root):
    """Where a claim is refused, the reason is told, with the path, and not that there is none."""
    (root / "shut").write_text("x")
    storage = open_storage(start_sshd("shut", "ForceCommand internal-sftp -R").login(), "/", "box")
    for path in (f"{root}/x.unfinished.jsonl", f"{root}/none/x.unfinished.jsonl"):
        with pytest.raises(StepFailed, match=f"On box: {path} cannot be written: Permission den"):
            storage.create_exclusive(path, "me")
    with pytest.raises(StepFailed, match=f"On box: {root}/y: Permission denied"):
        storage.rename(f"{root}/shut", f"{root}/y")
    storage.close()


def test_what_a_script_of_ours_could_not_do_is_told_without_the_script(nas, root):
    """People read what was done to which path, and what the far side said."""
    with pytest.raises(
        StepFailed, match=f"On nas: exit 1 from `mkdir {re.escape(repr(str(root)))[:-1]}"
    ):
        nas.mkdir(f"{root}/none/x")
    with pytest.raises(StepFailed) as failure:
        nas.create_exclusive(f"{root}/none/x", "me")
    assert "umask" not in str(failure.value)


def test_an_sftp_line_that_breaks_may_be_tried_again(sftp, root):
    """A connection that is cut while a file is sent is a failure worth another attempt."""
    source = Slow()
    threading.Thread(target=lambda: (source.begun.wait(30), sftp.server.cut())).start()
    with pytest.raises(StepFailed) as failure:
        sftp.write(f"{root}/x.partial", source, 0)
    assert failure.value.again
    again = tried(lambda: sftp.write(f"{root}/x.partial", io.BytesIO(b"whole"), 0))
    assert again.size_bytes == 5


@pytest.mark.parametrize("doing", ["sending", "looking"])
def test_a_server_that_hangs_is_given_up(sftp, root, monkeypatch, doing):
    """A server that stands still while its machine's kernel answers is not waited for for ever."""
    monkeypatch.setattr("iotstack_invoke.hosts.ssh_connection.KEEPALIVE_S", 0.1)
    monkeypatch.setattr("iotstack_invoke.hosts.ssh_connection.SILENCE_S", 1.0)
    sftp.close()
    sftp.stat([str(root)])  # on a new line
    source = Slow()

    def tell_all(number=signal.SIGSTOP):
        for each in (sftp.server.process.pid, *offspring(sftp.server.process.pid)):
            with contextlib.suppress(ProcessLookupError):  # the first line's
                os.kill(each, number)

    def act():
        if doing == "sending":
            threading.Thread(target=lambda: (source.begun.wait(30), tell_all())).start()
            sftp.write(f"{root}/x.partial", source, 0)
        else:
            tell_all()
            sftp.stat([str(root)])

    try:
        with pytest.raises(Unreachable, match="box") as failure:
            act()
    finally:
        tell_all(signal.SIGCONT)
    assert failure.value.again
    assert tried(lambda: sftp.stat([str(root)]))


def test_an_sftp_server_that_hangs_on_a_good_line_is_given_up(start_sshd, root, monkeypatch):
    """As one does whose disk is gone: sshd itself answers on."""
    program = shutil.which("sftp-server", path="/usr/lib/openssh:/usr/libexec/openssh")
    if not program:
        pytest.skip("there is no sftp-server as a program")
    monkeypatch.setattr("iotstack_invoke.hosts.ssh_connection.SFTP_SILENCE_S", 1.0)
    server = start_sshd("own-sftp", f"Subsystem sftp {program}", sftp=False)
    storage = SftpStorage(Login(server.login(), "box"), str(root))

    def hang(session):
        for pid in offspring(server.process.pid):
            if os.readlink(f"/proc/{pid}/exe") == os.path.realpath(program):
                os.kill(pid, signal.SIGSTOP)
        session.lstat(str(root))

    with (
        pytest.raises(
            Unreachable, match="Connection to box lost: its SFTP server does not answer"
        ),
        storage._sftp() as session,
    ):
        hang(session)
    assert storage.stat([str(root)])  # in another session
    storage.close()
    server.cut()


def test_a_server_that_runs_scp_alone_is_refused(start_sshd, root):
    """Where nothing can be listed or renamed, nothing is begun; the message says what is missing."""
    script = 'case "$SSH_ORIGINAL_COMMAND" in scp*) exec $SSH_ORIGINAL_COMMAND;; esac; echo no >&2'
    server = start_sshd("scp", f"ForceCommand {script}; exit 1", sftp=False)
    failure = refused(
        server.login(), "neither a shell nor SFTP.*its answer to a command: no.*ForceCommand int"
    )
    assert not failure.again


def test_where_there_is_no_sftp_people_fetch_with_the_old_scp(start_sshd, root, tmp_path):
    """What the README tells to do by hand works with a server that has a shell alone."""
    server = start_sshd("shell", sftp=False)
    (tmp_path / "x").write_text("data")
    ssh = server.login()
    options = {
        "Port": ssh.port,
        "User": ssh.user,
        "IdentityFile": ssh.key,
        "UserKnownHostsFile": ssh.known_hosts,
        "BatchMode": "yes",
    }
    words = [f"-o{name}={value}" for name, value in options.items()]
    fetch = [*words, f"{ssh.host}:{tmp_path}/x", tmp_path / "fetched"]
    new, old = (
        subprocess.run(["scp", *way, *fetch], check=False, capture_output=True).returncode
        for way in ((), ("-O",))
    )
    assert new != 0
    assert old == 0
    assert (tmp_path / "fetched").read_text() == "data"


# Who is let in, and to whom we go


def refused(ssh, match, root="/"):
    """Expect that a login is refused, and return the failure."""
    with pytest.raises(Unreachable, match=match) as failure:
        open_storage(ssh, root, "nas")
    assert "Errno" not in str(failure.value)
    return failure.value


def test_an_unknown_host_key_is_refused(sshd):
    """A machine that we have never met is not talked to; the message says how to meet it."""
    sshd.known_hosts.write_text("")
    failure = refused(sshd.login(), "host key of nas .* is not known. Log in once")
    assert not failure.again


def test_a_changed_host_key_is_refused(sshd):
    """A machine that shows another key than before is not talked to; the message says why."""
    make_key(sshd.folder / "other_key")
    sshd.learn_host_key("other_key")
    failure = refused(sshd.login(), "a different host key than the known one.*ssh-keygen ")
    assert not failure.again
    for name in ("other_key", "host_key"):  # both are shown, as ssh-keygen calls them
        told = subprocess.run(
            ["ssh-keygen", "-lf", sshd.folder / f"{name}.pub"], capture_output=True, check=True
        )
        assert told.stdout.decode().split()[1] in str(failure)
    forget, _, trust = failure.fix.partition(" && ")
    assert trust == "inv hosts --trust nas"
    subprocess.run(shlex.split(forget), check=True, capture_output=True)
    refused(sshd.login(), "is not known")


def test_the_ssh_program_verifies_too(sshd, root):
    """The way of the bytes refuses an unknown host as the way of the commands does."""
    login = Login(sshd.login(), "nas")
    host = SshHost(login, str(root))
    host.run(Command(("true",)))
    sshd.known_hosts.write_text("")
    with pytest.raises(StepFailed, match="Host key verification failed"):
        host.write(f"{root}/x", io.BytesIO(b"x"), 0)
    assert os.listdir(root) == []
    login.close()


def test_another_key_of_ours_is_refused_with_the_way_out(sshd, tmp_path):
    """A user key that the other machine does not know gives the command that makes it known."""
    make_key(tmp_path / "stranger")
    failure = refused(sshd.login(key=str(tmp_path / "stranger")), "refused the login.*ssh-copy-id")
    assert not failure.again
    flags = f"-p {sshd.port} -i {tmp_path}/stranger {getpass.getuser()}@127.0.0.1`"
    assert str(failure).partition("ssh-copy-id")[2].partition(". Passwords ")[0].endswith(flags)


def test_a_key_under_a_password_asks_nobody(sshd, tmp_path):
    """A key that wants a password is a failure, not a question."""
    make_key(tmp_path / "locked", "secret")
    refused(sshd.login(key=str(tmp_path / "locked")), "refused the login as .*has a password")


@pytest.mark.parametrize("what", ["key", "config"])
def test_a_file_of_ours_that_is_missing_is_named(sshd, tmp_path, what):
    """A missing key or configuration is not blamed on the other machine."""
    failure = refused(sshd.login(**{what: str(tmp_path / "none")}), str(tmp_path / "none"))
    assert "switched on" not in str(failure)
    assert not failure.again


def test_a_machine_that_is_off_may_answer_later(sshd):
    """A port where nobody listens, and a name that nobody knows, are told as such."""
    sshd.stop()
    failure = refused(sshd.login(), "is unreachable.*switched on")
    assert failure.again
    refused(sshd.login(host="no.such.name.invalid"), "host no.such.name.invalid not found")
    refused(sshd.login(host="pi..local"), "host pi..local not found")


def test_a_line_that_is_no_ssh_is_told(sshd, root):
    """A port where something else listens is a failure for people."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        refused(sshd.login(port=server.server_address[1]), "nas.*or another program uses")
    finally:
        server.shutdown()
        server.server_close()


def jump_config(inner, *gateways):
    """Return an ssh configuration with a machine behind others, each under a name of its own."""
    lines = []
    names = [f"gate{number}" for number in range(len(gateways))]
    for name, server in zip(["inner", *names], [inner, *gateways], strict=True):
        lines += [f"Host {name}", "  HostName 127.0.0.1", f"  Port {server.port}"]
        lines += [
            f"  IdentityFile {server.user_key}",
            f"  UserKnownHostsFile {server.known_hosts}",
        ]
        if name == "inner":
            lines += [f"  ProxyJump {','.join(names)}"]
    inner.config.write_text("\n".join(lines) + "\n")
    return Ssh("inner", config=str(inner.config))


def test_a_machine_behind_a_gateway_is_reached(start_sshd, root):
    """Commands and bytes go through the gateway when both keys are known."""
    inner, gate = start_sshd("inner"), start_sshd("gate")
    storage = open_storage(jump_config(inner, gate), str(root), "nas")
    data = os.urandom(500_000)
    received = storage.write(f"{root}/x", io.BytesIO(data), 0)
    assert received.sha256 == hashlib.sha256(data).hexdigest()
    for server in (inner, gate):
        assert (server.folder / "log").read_text().count("Accepted publickey") == 2
    storage.close()


@pytest.mark.parametrize("which", ["inner", "gate"])
@pytest.mark.parametrize("known", ["nothing", "another"])
def test_each_machine_on_the_way_is_verified(start_sshd, root, which, known):
    """An unknown or changed key is refused, be it of the gateway or of the machine behind it."""
    servers = {name: start_sshd(name) for name in ("inner", "gate")}
    ssh = jump_config(servers["inner"], servers["gate"])
    if known == "nothing":
        servers[which].known_hosts.write_text("")
    else:
        make_key(servers[which].folder / "other_key")
        servers[which].learn_host_key("other_key")
    unknown = (
        f"of [127.0.0.1]:{servers['gate'].port}, on the way to nas" if which == "gate" else "nas"
    )
    unknown = re.escape(unknown)
    refused(ssh, unknown if known == "nothing" else "has a different host key than the known one")
    words = Login(ssh, "nas").words()
    told = subprocess.run([*words, "echo in"], check=False, capture_output=True, timeout=60)
    assert told.returncode == 255
    assert b"in" not in told.stdout


def test_every_connection_refuses_unknown_hosts(start_sshd):
    """However many gateways there are, each connection rejects a missing host key."""
    servers = [start_sshd(name) for name in ("a", "b", "c")]
    each = Login(jump_config(*servers), "nas").closed_connection()
    policies = []
    while isinstance(each, fabric.Connection):
        policies.append(each.client._policy)
        each = each.gateway
    assert len(policies) == 3
    for policy in policies:
        with pytest.raises(paramiko.SSHException, match="unknown"):
            policy.missing_host_key(None, "inner", paramiko.ECDSAKey.generate())


def test_a_read_only_file_system_is_named_over_sftp(sftp, root, read_only):
    """The protocol has no word for it; the server tells how a folder is mounted."""
    (root / "old").write_text("x")
    read_only(root)
    named = r"its file system is mounted read-only \(the card may be failing"
    for act in (
        lambda: sftp.write(f"{root}/new", io.BytesIO(b"x"), 0),
        lambda: sftp.create_exclusive(f"{root}/claim", "line"),
        lambda: sftp.mkdir(f"{root}/folder"),
        lambda: sftp.rename(f"{root}/old", f"{root}/new"),
        lambda: sftp.remove([f"{root}/old"]),
    ):
        with pytest.raises(StepFailed, match=named) as failure:
            act()
        assert not failure.value.again
