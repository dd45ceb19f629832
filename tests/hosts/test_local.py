"""This machine as a host: its files, its commands, the lock; with runner and children."""

import contextlib
import errno
import fcntl
import http.server
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from contexts import alive, until

from iotstack_invoke.core import processes as children
from iotstack_invoke.core.errors import Busy, Interrupted, StepFailed
from iotstack_invoke.core.processes import signals_raised
from iotstack_invoke.hosts import local as hosts
from iotstack_invoke.hosts.base import Command
from iotstack_invoke.hosts.inspect import stat_on
from iotstack_invoke.hosts.invoke_runners import LineStream, UnattendedLocal, local_context
from iotstack_invoke.hosts.local import (
    EARLY_BYTES,
    PIPE_BYTES,
    LocalHost,
    locked,
    read_chunk,
    run_parallel,
    within,
)


@pytest.fixture
def host(tmp_path):
    return LocalHost(str(tmp_path))


def python(code, *arguments):
    """Return the words that run some Python."""
    return (sys.executable, "-c", code, *arguments)


# Commands


def test_a_command_finds_its_input_at_its_end(host):
    """A program that reads its standard input ends at once instead of waiting for us."""
    assert host.run(Command(("cat",), timeout_s=20)).out == ""


def test_words_arrive_as_they_are(host):
    """No word of a command is taken for anything but itself by a shell."""
    words = ("a b", "$HOME", "`id`", "it's", '"', "*", "", "ü", "-n", ";", "a\nb")
    told = host.run(Command(python("import sys, json; print(json.dumps(sys.argv[1:]))", *words)))
    assert tuple(json.loads(told.out)) == words


def test_characters_stay_whole_across_the_edges_of_reads(host):
    """A letter of several bytes is never cut, however the output falls into reads."""
    code = "import sys; sys.stdout.write('x' * int(sys.argv[1]) + 'é€😀' * 3000)"
    for shift in range(4):
        told = host.run(Command(python(code, str(shift)), timeout_s=30))
        assert told.out == "x" * shift + "é€😀" * 3000


def test_bytes_that_are_no_text_are_shown_as_escapes(host):
    """Output that is no UTF-8 neither fails nor becomes a question mark."""
    assert host.run(Command(("printf", r"a\377b"))).out == r"a\xffb"


def test_much_output_is_read_in_linear_time(host):
    """16 MB of lines take a few seconds at the most; Invoke's own runner took 27."""
    started = time.monotonic()
    code = "import sys\nfor n in range(160_000): sys.stdout.write('y' * 99 + chr(10))"
    told = host.run(Command(python(code), timeout_s=100))
    assert len(told.out) == 16_000_000
    assert time.monotonic() - started < 10


def test_lines_are_handed_on_by_stream(host):
    """Each line goes to whoever listens, with its stream; the last one needs no end."""
    heard = []
    host.run(
        Command(("sh", "-c", r"printf 'one\ntwo'; printf 'oops\r\n' >&2")),
        lambda stream, line: heard.append((stream, line)),
    )
    assert sorted(heard) == [("err", "oops"), ("out", "one"), ("out", "two")]


@pytest.mark.parametrize("code", [0, 3])
def test_an_accepted_exit_code_is_an_outcome(host, code):
    """An exit code that the command accepts is told, not raised."""
    command = Command(("sh", "-c", f"exit {code}"), accept=frozenset({0, 3}))
    assert host.run(command).exit_code == code


def test_another_exit_code_is_a_failure_with_its_last_words(host):
    """The message names the machine, the code, the command and what it said last."""
    with pytest.raises(StepFailed) as failure:
        host.run(Command(("sh", "-c", "echo first >&2; echo no such thing >&2; exit 4")))
    for part in (host.name, "exit 4", "sh -c", "no such thing"):
        assert part in str(failure.value)
    assert "first" not in str(failure.value).rpartition("`")[2]


@pytest.mark.parametrize("words", [("find",), ("du", "-s")])
def test_folders_that_may_not_be_read_are_named(host, words):
    """The first few and how many more, and what to do; not each line of a program."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o755)
        for number in range(5):
            (top / f"data {number}").mkdir(mode=0)
        user = ("setpriv", "--reuid=65534", "--clear-groups") if os.geteuid() == 0 else ()
        with pytest.raises(StepFailed) as failure:
            stat_on(host, (*words, str(top)), user)
        told = str(failure.value)
        assert told.startswith(f"On {host.name}: this user has no permission to read {name}/data ")
        assert told.count(f"{name}/data ") == 3
        assert " and 2 more. Set sudo = true in hosts.toml" in told
        assert "denied" not in told
        with pytest.raises(StepFailed, match=r"exit 2 from .*Permission denied"):
            stat_on(host, ("env", "ls", str(top / "data 0")), user)


def test_the_text_of_a_script_is_not_told(host):
    """A failure names the shell and what it was told, not a page that nobody would read."""
    script = f"exit 4; {'true; ' * 20}"
    with pytest.raises(StepFailed) as failure:
        host.run(Command(("env", "sh", "-c", script, "sh", "/a b")))
    assert "exit 4 from `env sh -c … sh '/a b'`" in str(failure.value)


@pytest.mark.parametrize("way", ["run", "pipe"])
def test_a_missing_program_is_named(host, way):
    """A program that is not installed is a failure that names it, however it is started."""
    command = Command(("no-such-program", "x"))
    with pytest.raises(StepFailed, match="no-such-program"):  # noqa: PT012 - two ways
        if way == "run":
            host.run(command)
        else:
            with host.pipe(command) as pipe:
                pipe.finish()


def test_a_missing_file_in_the_block_is_not_taken_for_the_program(host):
    """What goes wrong while a pipe is read is not blamed on the program that feeds it."""
    with pytest.raises(FileNotFoundError), host.pipe(Command(("true",))):
        open("/no/such/file")  # noqa: SIM115


def test_a_time_limit_ends_grandchildren(host, tmp_path):
    """A command that takes too long is stopped with all that it started."""
    script = 'sleep 300 & echo $! > "$1"; wait'
    started = time.monotonic()
    with pytest.raises(StepFailed, match="did not end within 1 s"):
        host.run(Command(("sh", "-c", script, "sh", str(tmp_path / "pid")), timeout_s=1))
    assert time.monotonic() - started < 20
    until(lambda: not alive(int((tmp_path / "pid").read_text())))


def test_a_pipe_that_takes_too_long_is_ended(host, tmp_path):
    """The time limit of a pipe ends the program with all that it started."""
    script = 'sleep 300 & echo $! > "$1"; wait'
    command = Command(("sh", "-c", script, "sh", str(tmp_path / "pid")), timeout_s=1)
    with host.pipe(command) as pipe:
        assert pipe.stdout.read() == b""
        assert pipe.finish() != 0
    until(lambda: not alive(int((tmp_path / "pid").read_text())))


class Told(Exception):
    """What a listener raises."""


def refuse(_stream, line):
    raise Told(line)


def test_what_a_listener_raises_ends_the_command(host, tmp_path):
    """An exception of whoever hears a line comes out, and the program does not go on."""
    script = 'echo $$ > "$1"; echo no; exec sleep 300'
    started = time.monotonic()
    with pytest.raises(Told, match="no"):
        host.run(Command(("sh", "-c", script, "sh", str(tmp_path / "pid")), timeout_s=100), refuse)
    assert time.monotonic() - started < 30
    until(lambda: not alive(int((tmp_path / "pid").read_text())))


def test_what_left_a_program_and_holds_its_words_open_is_not_waited_for(host, monkeypatch):
    """How the program ended is known, and what it said until then."""
    monkeypatch.setattr("iotstack_invoke.hosts.local.LISTEN_S", 0.5)
    said, started = [], time.monotonic()
    words = ("sh", "-c", "echo told >&2; setsid sleep 30 >/dev/null & echo out; exit 7")
    with host.pipe(Command(words), lambda _stream, line: said.append(line)) as pipe:
        assert pipe.stdout.read() == b"out\n"
        assert pipe.finish() == 7
    assert said == ["told"]
    assert time.monotonic() - started < 20


def test_what_a_listener_raises_comes_out_of_a_pipe(host):
    """An exception of whoever hears a line of a pipe's error stream comes out at its end."""
    with (  # noqa: PT012
        pytest.raises(Told, match="no"),
        host.pipe(Command(("sh", "-c", "echo no >&2")), refuse) as p,
    ):
        p.stdout.read()
        p.finish()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much a pipe holds")
def test_much_goes_through_a_pipe_at_once(host):
    """A pipe holds more than the system's own 64 KiB; it works where that is refused as well."""
    with host.pipe(Command(("echo", "x"))) as pipe:
        assert fcntl.fcntl(pipe.stdout, fcntl.F_GETPIPE_SZ) == PIPE_BYTES
    with open(os.devnull) as no_pipe:
        hosts._widen(no_pipe)
    with host.pipe(Command(("echo", "x"))) as pipe:
        assert pipe.stdout.read() == b"x\n"


def test_bytes_of_a_pipe_are_untouched(host):
    """All 256 byte values pass a pipe as they are, and its error lines go to whoever listens."""
    heard = []
    code = (
        "import sys; sys.stdout.buffer.write(bytes(range(256)) * 5000); sys.stderr.write('a\\nb')"
    )
    command = Command(python(code))
    with host.pipe(command, lambda stream, line: heard.append((stream, line))) as pipe:
        read = pipe.stdout.read()
        assert pipe.finish() == 0
    assert read == bytes(range(256)) * 5000
    assert heard == [("err", "a"), ("err", "b")]


def test_much_on_the_error_stream_blocks_no_pipe(host):
    """A program may fill its error stream while its output is not being read."""
    code = "import sys; sys.stderr.write('warn\\n' * 100_000); sys.stdout.write('done')"
    count = []
    with host.pipe(Command(python(code)), lambda *_: count.append(1)) as pipe:
        assert pipe.stdout.read() == b"done"
        assert pipe.finish() == 0
    assert len(count) == 100_000


def test_a_pipe_that_is_left_early_is_ended(host):
    """Leaving the block ends a program that still has much to say."""
    with pytest.raises(ZeroDivisionError), host.pipe(Command(("yes",))) as pipe:  # noqa: PT012
        assert pipe.stdout.read(2) == b"y\n"
        process = next(iter(children._running))
        raise ZeroDivisionError
    assert process.poll() is not None
    assert not children._running


# Ending


@pytest.fixture
def resumed():
    """Whatever a test ended, the next one may start programs."""
    yield
    children.resume()


@pytest.mark.usefixtures("resumed")
def test_a_command_that_was_ended_by_us_is_interrupted(host, tmp_path):
    """Ending everything ends a running command soon, and it counts as interrupted."""
    outcome = []

    def run():
        try:
            host.run(Command(("sh", "-c", 'echo $$ > "$1"; sleep 300', "sh", str(pid))))
        except BaseException as error:  # noqa: BLE001 - looked at below
            outcome.append(error)

    pid = tmp_path / "pid"
    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: pid.read_text().endswith("\n"))
    children.end_all()
    thread.join(20)
    assert isinstance(outcome[0], Interrupted)
    assert not alive(int(pid.read_text()))


@pytest.mark.usefixtures("resumed")
def test_nothing_starts_while_everything_ends(host):
    """A program that is started after all others were ended does not run on."""
    children.end_all()
    started = time.monotonic()
    with pytest.raises(Interrupted):
        host.run(Command(("sleep", "300"), timeout_s=100))
    assert time.monotonic() - started < 20
    children.resume()
    assert host.run(Command(("echo", "again"))).out == "again\n"


@pytest.mark.usefixtures("resumed")
def test_one_that_ignores_sigterm_is_killed(host, monkeypatch):
    """After a grace, a program that does not end by itself is killed."""
    monkeypatch.setattr(children, "GRACE_S", 0.3)
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(300)"
    with host.pipe(Command(python(code))) as pipe:
        assert pipe.stdout.readline() == b"up\n"
        children.end_all()
        assert pipe.finish() == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_a_look_ends_its_command_soon(host, tmp_path, number):
    """A command of the main thread does not outlive the signal that asks us to stop."""
    pid = tmp_path / "pid"

    def interrupt():
        until(lambda: pid.read_text().endswith("\n"))
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt).start()
    started = time.monotonic()
    with pytest.raises(Interrupted) as stopped, signals_raised():
        host.run(Command(("sh", "-c", 'echo $$ > "$1"; sleep 40; true', "sh", str(pid))))
    assert time.monotonic() - started < 20
    assert stopped.value.exit_code == 128 + number
    until(lambda: not alive(int(pid.read_text())))


@pytest.mark.parametrize("way", ["run", "pipe"])
def test_a_program_that_just_starts_is_not_lost(host, monkeypatch, way):
    """A signal that comes between the start of a program and our noting it ends the program."""
    started = []

    class Popen(subprocess.Popen):
        def __init__(self, *given, **named):
            super().__init__(*given, **named)
            started.append(self)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("iotstack_invoke.hosts.invoke_runners.Popen", Popen)
    monkeypatch.setattr("iotstack_invoke.hosts.local.subprocess.Popen", Popen)
    command = Command(("sleep", "300"))
    with pytest.raises(Interrupted), signals_raised():  # noqa: PT012 - two ways
        if way == "run":
            host.run(command)
        else:
            host.pipe(command).__enter__()
    assert [each.poll() is not None for each in started] == [True]
    assert not children._running


def test_invokes_own_ways_of_stopping_reach_the_group(tmp_path):
    """The interrupt that Invoke passes on reaches the program below the shell."""
    context = local_context()
    runner = UnattendedLocal(context)
    pid = tmp_path / "pid"
    outcome = []
    thread = threading.Thread(
        target=lambda: outcome.append(
            runner.run(f"sleep 300 & echo $! > '{pid}'; wait", hide=True, warn=True)
        )
    )
    thread.start()
    until(lambda: runner.process and pid.read_text().endswith("\n"))
    runner.send_interrupt(KeyboardInterrupt())
    runner.kill()
    thread.join(20)
    assert not alive(int(pid.read_text()))
    assert outcome[0].exited != 0


def test_a_short_command_is_not_waited_for_long(host, monkeypatch, tmp_path):
    """The first look at whether it has ended comes within a millisecond, the others every ten."""
    pauses, sleep, enough = [], time.sleep, tmp_path / "enough"

    def pause(seconds):
        pauses.append(seconds)
        if seconds == UnattendedLocal.input_sleep:
            enough.touch()
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", pause)
    host.run(Command(("sh", "-c", 'until [ -e "$0" ]; do sleep 0.01; done', str(enough))))
    assert pauses[0] < 0.001
    assert pauses[-1] == max(pauses) == UnattendedLocal.input_sleep


def test_a_limit_ends_what_a_program_left_behind(host, tmp_path):
    """A child that outlives its program and holds its output is ended at the limit as well."""
    script = 'sleep 300 & echo $! > "$1"'
    with pytest.raises(StepFailed, match="did not end within 1 s"):
        host.run(Command(("sh", "-c", script, "sh", str(tmp_path / "pid")), timeout_s=1))
    until(lambda: not alive(int((tmp_path / "pid").read_text())))


def test_a_line_stream_hands_on_whole_lines_only():
    """Lines are put together however the text falls into pieces."""
    heard = []
    stream = LineStream("out", lambda name, line: heard.append((name, line)))
    for piece in ("a", "b\nc", "\r\n", "", "\n", "rest"):
        stream.write(piece)
        stream.flush()
    stream.close()
    stream.close()
    assert heard == [("out", "ab"), ("out", "c"), ("out", ""), ("out", "rest")]


# Files


def test_a_look_tells_what_is_there(host, tmp_path):
    """Files and folders are told apart, a link is itself, and what is missing has no entry."""
    (tmp_path / "file").write_bytes(b"abc")
    os.utime(tmp_path / "file", (1_000_000_000, 1_000_000_000))
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("file")
    paths = {name: f"{tmp_path}/{name}" for name in ("file", "folder", "link", "none")}
    found = host.stat(paths.values())
    assert set(found) == {paths["file"], paths["folder"], paths["link"]}
    assert (found[paths["file"]].size_bytes, found[paths["file"]].modified_s) == (3, 1e9)
    assert found[paths["folder"]].is_folder
    assert not found[paths["link"]].is_folder
    assert set(host.listdir(str(tmp_path))) == {"file", "folder", "link"}


def test_a_missing_folder_has_no_names(host, tmp_path):
    """A folder that is not there is empty."""
    assert host.listdir(str(tmp_path / "none")) == {}


def test_a_folder_that_cannot_be_listed_is_a_failure(host, tmp_path):
    """What is no folder is a failure for people, not for programmers."""
    (tmp_path / "file").touch()
    with pytest.raises(StepFailed, match="cannot be listed"):
        host.listdir(str(tmp_path / "file"))


def test_what_is_created_is_private_and_synced(host, tmp_path, monkeypatch):
    """A new file is for its owner only, and on the disk when the block ends."""
    order = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append(os.fstat(fd).st_size), fsync(fd)))
    before = os.umask(0)
    try:
        with host.create(f"{tmp_path}/new") as stream:
            stream.write(b"x" * 1000)
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    assert order == [1000]


def test_what_is_written_is_on_its_way_to_the_disk_early(host, tmp_path, monkeypatch):
    """All but the last few MiB has been handed to the disk before the sync, from any place on."""
    told, advise = [], os.posix_fadvise

    def noted(descriptor, start, size, advice):
        told.append((start, size))
        advise(descriptor, start, size, advice)

    monkeypatch.setattr(os, "posix_fadvise", noted)
    (tmp_path / "new").write_bytes(b"old")
    piece = os.urandom(1 << 20)
    with host.create(f"{tmp_path}/new", 3) as stream:
        for _ in range(10):
            stream.write(piece)
    assert told == [(3, EARLY_BYTES), (3 + EARLY_BYTES, EARLY_BYTES)]
    assert (tmp_path / "new").read_bytes() == b"old" + piece * 10


def test_a_link_at_the_name_is_not_written_through(host, tmp_path):
    """Somebody who plants a link at a name that we write gets nothing written elsewhere."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "new").symlink_to("victim")
    for write in (
        lambda: host.create(f"{tmp_path}/new").__enter__(),
        lambda: host.append(f"{tmp_path}/new", "line"),
        lambda: host.write(f"{tmp_path}/new", io.BytesIO(b"data"), 0),
        lambda: locked(f"{tmp_path}/new", "test").__enter__(),
    ):
        with pytest.raises(StepFailed, match="symbolic links"):
            write()
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_block_that_fails_syncs_nothing(host, tmp_path, monkeypatch):
    """What was written half is not made to last."""
    monkeypatch.setattr(os, "fsync", lambda fd: pytest.fail("synced"))
    with pytest.raises(ZeroDivisionError), host.create(f"{tmp_path}/new"):
        raise ZeroDivisionError


@pytest.mark.parametrize("half", [0, 1, 400_000])
def test_what_is_received_is_hashed_and_dated(host, tmp_path, half):
    """Size, hash and date of a file that was taken in, at once or in two halves, are all of it."""
    data = os.urandom(700_000)
    path = f"{tmp_path}/new"
    if half:
        host.write(path, io.BytesIO(data[:half] + b"more"), 0)
    received = host.write(path, io.BytesIO(data[half:]), 1_234_567_890, half)
    told = subprocess.run(["sha256sum", tmp_path / "new"], check=True, capture_output=True)
    assert received.sha256 == told.stdout.decode().split()[0]
    assert received.size_bytes == 700_000
    assert (tmp_path / "new").stat().st_mtime == 1_234_567_890
    with host.read(f"{tmp_path}/new") as stream:
        assert stream.read() == data


def test_lines_are_added_and_synced(host, tmp_path, monkeypatch):
    """Each line is on the disk when append returns, and a new file's folder too."""
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))
    )
    path = str(tmp_path / "journal")
    host.append(path, "one")
    host.append(path, "zwei ü")
    assert (tmp_path / "journal").read_text() == "one\nzwei ü\n"
    assert synced == [path, str(tmp_path), path]
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600


def test_a_claim_and_a_folder_last_through_a_power_cut(host, tmp_path, monkeypatch):
    """A claim that is empty afterwards would keep everybody out."""
    synced, fsync = [], os.fsync

    def watched(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        synced.append((path, os.path.isdir(path) or os.path.getsize(path)))
        return fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    assert host.create_exclusive(f"{tmp_path}/mark", "mine") == "mine"
    assert host.create_exclusive(f"{tmp_path}/mark", "theirs") == "mine"
    host.mkdir(f"{tmp_path}/folder")
    assert synced == [(f"{tmp_path}/mark", 5), (str(tmp_path), True)]


def test_a_rename_replaces_and_lasts(host, tmp_path, monkeypatch):
    """The new file stands in the place of the old one, and the folder is synced behind it."""
    (tmp_path / "a.partial").write_text("new")
    (tmp_path / "a").write_text("old")
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))
    )
    host.rename(f"{tmp_path}/a.partial", f"{tmp_path}/a")
    assert (tmp_path / "a").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["a"]
    assert synced == [str(tmp_path)]


def test_removing_twice_is_as_good_as_once(host, tmp_path):
    """A file that is not there counts as removed; a folder does not."""
    (tmp_path / "a").touch()
    host.remove([f"{tmp_path}/a", f"{tmp_path}/b"])
    host.remove([f"{tmp_path}/a"])
    assert os.listdir(tmp_path) == []
    (tmp_path / "folder").mkdir()
    with pytest.raises(StepFailed, match="cannot be removed"):
        host.remove([f"{tmp_path}/folder"])


@pytest.mark.parametrize("act", ["read", "create", "append", "rename", "lock"])
def test_what_the_system_refuses_is_worded_for_people(host, tmp_path, act):
    """Each failure names the path and the reason, without a number or a Python name."""
    path = f"{tmp_path}/none/file"
    with pytest.raises(StepFailed) as failure, contextlib.ExitStack() as stack:  # noqa: PT012
        if act == "read":
            stack.enter_context(host.read(path))
        elif act == "create":
            stack.enter_context(host.create(path))
        elif act == "append":
            host.append(path, "x")
        elif act == "rename":
            host.rename(path, f"{path}2")
        else:
            stack.enter_context(locked(path, "x"))
    assert path in str(failure.value)
    assert "No such file or directory" in str(failure.value)
    assert "Errno" not in str(failure.value)


def test_a_stream_that_breaks_is_a_failure():
    """An error of the disk while reading is told as such."""

    class Broken(io.RawIOBase):
        def readable(self):
            return True

        def read(self, size=-1):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(StepFailed, match="Input/output error"):
        read_chunk(Broken())


def test_a_full_disk_is_told_with_advice(host, small_disk):
    """Writing to a full disk says that it is full and what to do."""
    with (
        pytest.raises(StepFailed, match=r"No space left.*Free some space"),
        host.create(f"{small_disk}/big") as stream,
    ):
        stream.write(bytes(1 << 20))
    with pytest.raises(StepFailed, match=r"No space left.*Free some space"):
        host.write(f"{small_disk}/big", io.BytesIO(bytes(1 << 20)), 0)


def test_a_line_that_fits_only_in_part_is_a_failure(host, small_disk):
    """A line of the journal is whole on the disk, or its writing failed."""
    free = host.free_bytes(str(small_disk))
    (small_disk / "filler").write_bytes(bytes(free - 8192))
    with pytest.raises(StepFailed, match="No space left"):
        host.append(f"{small_disk}/journal", "x" * 20_000)


def test_free_bytes_are_those_of_the_folders_disk(host, small_disk, tmp_path):
    """What fits is asked of the disk that the folder lies on; nobody knows for a missing one."""
    assert host.free_bytes(str(small_disk)) <= 256 * 1024
    assert host.free_bytes(str(tmp_path)) > 256 * 1024
    assert host.free_bytes(f"{tmp_path}/none") is None


# The lock


def test_a_held_lock_says_who_holds_it(tmp_path):
    """A second run learns the purpose, the process and the time of the first."""
    path = str(tmp_path / ".lock")
    with locked(path, "backup 2026-11-23_1100"):
        with pytest.raises(Busy) as busy, locked(path, "restore"):
            pytest.fail("held twice")
        for part in ("backup 2026-11-23_1100", f"process {os.getpid()}", "since 2"):
            assert part in str(busy.value)
        assert busy.value.exit_code == 11
    with locked(path, "restore"):
        pass
    assert (tmp_path / ".lock").stat().st_mode & 0o777 == 0o600


def test_a_lock_with_nonsense_in_it_is_still_a_lock(tmp_path):
    """Whoever holds it without writing who they are is another run."""
    path = str(tmp_path / ".lock")
    (tmp_path / ".lock").write_text("[]")
    holder = subprocess.Popen(["flock", path, "sleep", "300"], start_new_session=True)
    try:
        until(lambda: subprocess.run(["flock", "-n", path, "true"], check=False).returncode)
        with pytest.raises(Busy, match="another run"), locked(path, "backup"):
            pytest.fail("held twice")
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()


def test_the_lock_goes_with_its_holder(tmp_path):
    """A holder that is killed leaves the lock free, even if a program that it started lives on."""
    path = str(tmp_path / ".lock")
    code = (
        "import subprocess, sys, time\n"
        "from iotstack_invoke.hosts.local import locked\n"
        "with locked(sys.argv[1], 'backup'):\n"
        "    child = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
        "    print(child.pid, flush=True)\n"
        "    time.sleep(300)\n"
    )
    holder = subprocess.Popen(python(code, path), stdout=subprocess.PIPE, text=True)
    orphan = int(holder.stdout.readline())
    try:
        with pytest.raises(Busy, match=f"process {holder.pid}"), locked(path, "restore"):
            pytest.fail("held twice")
        holder.kill()
        holder.wait()
        assert alive(orphan)
        with locked(path, "restore"):
            pass
    finally:
        holder.kill()
        holder.stdout.close()
        os.kill(orphan, signal.SIGKILL)


# HTTP


class Answers(http.server.BaseHTTPRequestHandler):
    """Says 204 to /ping and 500 to all else."""

    def do_GET(self):
        self.send_response(204 if self.path == "/ping" else 500)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    """An HTTP server on a free port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_an_http_status_is_told(host, web):
    """The status of whoever answers is told, and 0 where nobody does."""
    assert host.http_status(web, "/ping") == 204
    assert host.http_status(web, "/query") == 500
    assert host.http_status(1, "/ping") == 0
    assert host.http_status(1, "/ping", "no.such.name.invalid") == 0


# Questions without an end


def test_a_question_is_answered_or_given_up():
    """An answer and an error come back as they are; one that takes too long is told by name."""
    assert within(20, "it", lambda: None) is None
    with pytest.raises(KeyError, match="x"):
        within(20, "it", lambda: {}["x"])
    asked = threading.Event()
    with pytest.raises(StepFailed, match=r"^the share did not answer within 0.1 s\.$"):
        within(0.1, "the share", lambda: asked.wait(60))
    asked.set()


def test_questions_to_several_are_asked_at_the_same_time():
    """Each waits for the other; what failed is told beside what was answered, by name."""
    met = threading.Barrier(2, timeout=60)
    failure = StepFailed("away")

    def fail():
        met.wait()
        raise failure

    assert run_parallel({"one": met.wait, "two": fail}, 60)["two"] is failure
    assert run_parallel({}, 60) == {}
    with pytest.raises(KeyError, match="x"):
        run_parallel({"one": lambda: {}["x"], "two": lambda: 2}, 60)


def test_a_signal_ends_the_wait_for_several(host, tmp_path):
    """And their programs; one that cannot be ended is left behind."""
    pid, asked = tmp_path / "pid", threading.Event()
    command = Command(("sh", "-c", 'echo $$ > "$0"; exec sleep 300', str(pid)))

    def interrupt():
        until(lambda: pid.read_text().endswith("\n"))
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    with pytest.raises(Interrupted), signals_raised():
        run_parallel({"one": lambda: host.run(command), "two": lambda: asked.wait(300)}, 300)
    assert not alive(int(pid.read_text()))
    assert not children.ending()
    asked.set()


def test_two_that_replace_a_file_at_once_both_succeed(host, tmp_path):
    """As a run that ends, and the hourly look; the file is one of theirs, whole."""
    path, contents = f"{tmp_path}/x", [bytes([each]) * 20_000 for each in b"abcd"]

    def replace_often(content):
        for _ in range(20):
            host.replace(path, content)

    asks = {str(each): lambda each=each: replace_often(each) for each in contents}
    assert set(run_parallel(asks, 60).values()) == {None}
    assert Path(path).read_bytes() in contents
    assert os.listdir(tmp_path) == ["x"]


def test_a_file_that_cannot_be_replaced_leaves_nothing_beside_it(host, tmp_path):
    """A folder is in its place."""
    (tmp_path / "x/y").mkdir(parents=True)
    with pytest.raises(StepFailed, match="cannot be renamed"):
        host.replace(f"{tmp_path}/x", b"new")
    assert os.listdir(tmp_path) == ["x"]
