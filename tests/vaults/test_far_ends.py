"""Far ends that misbehave: each costs its own copy, and neither the backup nor another vault.

`nas` is a vault on a machine that plays a part over a real sshd, or on a port where something else
listens; `usb` is a good one beside it. Nothing hangs, nothing grows, nothing is told as a traceback.
"""

import contextlib
import hashlib
import io
import os
import re
import shlex
import shutil
import socket
import sys
import threading
import time
from pathlib import Path

import folders
import odd_shell
import paramiko
import pytest
from contexts import LittleStack
from peak import kib_in, measured
from remote_stacks import names_in

from iotstack_invoke.backups.transfer import Claim, hash_there
from iotstack_invoke.core.errors import StepFailed, TimedOut, Unreachable
from iotstack_invoke.engine.steps import File
from iotstack_invoke.hosts import ssh as remote
from iotstack_invoke.hosts import ssh_config
from iotstack_invoke.hosts.base import Command
from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.settings.model import VaultConfig
from iotstack_invoke.vaults.access import vault_storage

TAG = "2026-11-30_0900"
SFTP_SERVER = shutil.which("sftp-server", path="/usr/lib/openssh:/usr/libexec/openssh")
PLAYER = folders.TESTS / "odd_sftp.py"
LIMIT_S = 2
MOST_KIB = 100 << 10
SOON = f"""
import runpy
import iotstack_invoke.engine.executor as engine, iotstack_invoke.hosts.ssh_connection as login
import iotstack_invoke.hosts.ssh as remote, iotstack_invoke.hosts.sftp as sftp
import iotstack_invoke.hosts.ssh_config as ssh_config
ssh_config.CONNECT_LIMIT_S = remote.CONNECT_LIMIT_S = login.ANSWER_LIMIT_S = {LIMIT_S}
login.START_LIMIT_S = remote.START_LIMIT_S = login.SFTP_SILENCE_S = {LIMIT_S}
remote.STALL_S = remote.QUESTION_LIMIT_S = {LIMIT_S}
engine.RETRY_WAIT_S = 0
runpy.run_module("iotstack_invoke", run_name="__main__", alter_sys=True)
"""
"""The program, whose limits are seconds."""
WORDS_OF_A_TRACEBACK = (
    *("Traceback", "Exception", "Unexpected error", "Errno", 'File "'),
    "unexpected answer. This is a bug in this program (",
)


class Listener:
    """A port at which something else listens: `play` is given each line."""

    def __init__(self, play):
        self.play = play
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.over = False
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while not self.over:
            with contextlib.suppress(OSError):
                line, _ = self.socket.accept()
                threading.Thread(target=self._talk, args=(line,), daemon=True).start()

    def _talk(self, line):
        with contextlib.suppress(OSError), line:
            self.play(line)
            line.shutdown(socket.SHUT_RDWR)  # another thread may wait for what comes

    def stop(self):
        self.over = True
        self.socket.close()


def silent(line):
    line.recv(1000)
    time.sleep(120)


def closes(line):
    line.recv(10)


def endless(line):
    while True:
        line.sendall(os.urandom(60_000).replace(b"\n", b"x"))


def lines(line):
    while True:
        line.sendall(b"welcome\r\n" * 1000)


def http(line):
    line.sendall(b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html>no</html>\r\n")
    line.recv(1000)


def telnet(line):
    line.sendall(b"\xff\xfd\x18\xff\xfd\x20\xff\xfd\x23\r\nLinux 2.4 (nas)\r\nlogin: ")
    time.sleep(120)


def too_long(line):
    line.sendall(b"SSH-2.0-x\r\n" + b"\x7f\xff\xff\xf4" + bytes(4))
    while True:
        line.sendall(bytes(60_000))


def slow(line):
    for each in b"SSH-2.0-OpenSSH_9.9 and so on" * 100:
        line.sendall(bytes([each]))
        time.sleep(0.3)


RAW = (silent, closes, endless, lines, http, telnet, too_long, slow)

# What a login shell is told in the place of the command, which is in $SSH_ORIGINAL_COMMAND.
RUN = 'sh -c "$SSH_ORIGINAL_COMMAND"'
SHELLS = {
    "silent": "exec sleep 600",
    "endless": "exec cat /dev/zero",
    "endless words": "exec yes 'Kein Platz'",
    "endless errors": "yes no >&2; exec sleep 600",
    "bytes": "head -c 300000 /dev/urandom; exit 0",
    "exits": "exit 0",
    "answers on": f"{RUN}; exec cat /dev/zero",
    "errs on": f"{RUN}; exec cat /dev/zero >&2",
    "answers garbage": f"{RUN} | head -c 29; exec head -c 3000 /dev/urandom",
    "other hash": f"{RUN} | sed -u 's/[0-9a-f]\\{{64\\}}/{'0' * 64}/'",
    "hangs after": f"{RUN}; exec sleep 600",
    "kills itself": f"{RUN}; kill -9 $$",
}
SHELLS["hung disk"] = (
    "echo >> $HOME/asked; mkdir -p $HOME/slow; for each in stat ls find df rm mkdir dd wc; do "
    r"printf '#!/bin/sh\nexec sleep 600\n' > $HOME/slow/$each; chmod 755 $HOME/slow/$each; done; "
    f"PATH=$HOME/slow:$PATH {RUN}"
)
SFTPS = (
    *("silent", "endless", "printing", "too_long", "cut", "close"),
    *("silent@lstat", "stray@lstat", "attributes@lstat", "cut@lstat", "garbage@lstat"),
    *("listing@readdir", "count@readdir", "handle@opendir", "silent@readdir", "close@opendir"),
    *("failure@write", "silent@write", "denied@open", "close@write"),
    *("other@read", "cut@read", "silent@read", "endless@read"),
)
DAILY = {"raw endless", "sftp other@read", "sftp attributes@lstat"}


def every_part():
    names = [f"raw {each.__name__}" for each in RAW]
    names += [*(f"shell {each}" for each in SHELLS), *(f"sftp {each}" for each in SFTPS)]
    names += [f"answer {each}" for each in odd_shell.WAYS]
    marks = {name: () if name in DAILY else pytest.mark.long for name in names}
    return [pytest.param(name, marks=marks[name]) for name in names]


@pytest.fixture
def far_end(start_sshd, tmp_path):
    """Return what plays a part, as the keys of a vault's row."""
    running = []

    def start(name):
        kind, _, what = name.partition(" ")
        if kind == "raw":
            running.append(Listener(globals()[what]))
            server = start_sshd("nas")
            return server.login(port=running[-1].port)
        if kind == "shell":
            script = tmp_path / "part"
            script.write_text(f"#!/bin/sh\n{SHELLS[what]}\n")
            script.chmod(0o755)
            return start_sshd("nas", f"ForceCommand {script}").login()
        words = shlex.join([sys.executable, str(PLAYER), what, SFTP_SERVER])
        if kind == "answer":
            words = shlex.join([sys.executable, odd_shell.__file__, what])
        return start_sshd("nas", f"ForceCommand {words}").login()

    yield start
    for each in running:
        each.stop()


class Fleet(LittleStack):
    """A stack with two vaults: `nas` plays a part, `usb` is a folder."""

    def __init__(self, base, ssh):
        super().__init__(base)
        self.usb, self.nas = base / "usb", base / "nas"
        for each in (self.usb, self.nas):
            each.mkdir()
        (self.folder / "volumes/nodered/data").write_bytes(os.urandom(400_000))
        with self.settings.open("a") as stream:
            stream.write(
                f'[[vaults]]\nname = "nas"\nkind = "ssh"\nhost = "{ssh.host}"\n'
                f'user = "{ssh.user}"\nport = {ssh.port}\nkey = "{ssh.key}"\n'
                f'ssh_config = "{ssh.config}"\nknown_hosts = "{ssh.known_hosts}"\n'
                f'folder = "{self.nas}"\n'
                f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{self.usb}"\n'
            )
        self.peak = base / "peak"
        self.program = SOON

    def words(self, line):
        return measured([sys.executable, "-c", self.program, *shlex.split(line)], self.peak)

    def did(self, line):
        """Return exit code, what was said, seconds and KiB of a command."""
        started = time.monotonic()
        process = self.start(line)
        out, err = process.communicate()
        seconds = time.monotonic() - started
        return process.returncode, out + err, seconds, kib_in(self.peak)


def content_in(folder):
    """Return the files of the set, without what a run keeps for the next one."""
    files = [each for each in folder.iterdir() if each.name.startswith(TAG)]
    return {each.name: each.read_bytes() for each in files if "unfinished" not in each.name}


def is_whole(folder):
    return {f"{TAG}.manifest.json", f"{TAG}.general-backup.tar.gz"} <= set(names_in(folder))


@pytest.mark.parametrize("name", every_part())
def test_a_vault_that_misbehaves_costs_its_own_copy(tmp_path, far_end, name):
    """The backup is made, the other vault served, the vault named, and the exit code not 0."""
    stack = Fleet(tmp_path / "stack", far_end(name))
    for line in (f"backup --runtag {TAG}", "sync"):
        code, said, seconds, kib = stack.did(line)
        assert code in (1, 3), said
        assert "nas" in said
        assert not [each for each in WORDS_OF_A_TRACEBACK if each in said], said
        assert is_whole(stack.folder / "backups"), said
        assert is_whole(stack.usb), said
        assert seconds < 240, (line, said)
        assert kib < MOST_KIB, said
    if not name.endswith(("@readdir", "@opendir")):  # a copy is made without a listing
        assert not (stack.nas / f"{TAG}.manifest.json").exists()


@pytest.mark.parametrize(
    "way", [e if e == "huge" else pytest.param(e, marks=pytest.mark.long) for e in odd_shell.WAYS]
)
def test_an_answer_that_cannot_be_read_is_told(far_end, tmp_path, way):
    """It is a failure of that machine, told with what it said, and bounded."""
    storage = remote.open_storage(far_end(f"answer {way}"), str(tmp_path), "nas")
    (tmp_path / "x").write_bytes(b"1")
    with pytest.raises(StepFailed, match="On nas: ") as failure:
        storage.stat([f"{tmp_path}/x"])
    assert len(str(failure.value)) < 300
    with contextlib.suppress(StepFailed):
        storage.read_many(str(tmp_path), ["x"])
    with contextlib.suppress(StepFailed):
        storage.write(f"{tmp_path}/y", io.BytesIO(b"x"), 0, size_bytes=1)
    with contextlib.suppress(StepFailed):
        Claim(File("nas", "x", str(tmp_path)), "a", "b", "c", frozenset(), replaces=False)._make(
            storage
        )
    storage.disk(str(tmp_path))
    storage.close()


@pytest.mark.parametrize("size", [10, 30_000_000])
@pytest.mark.parametrize("way", ["ssh", "channel"])
def test_a_far_end_that_takes_nothing_is_given_up(sshd, tmp_path, monkeypatch, way, size):
    """Its line is good and its sshd answers: its disk is gone, or its hash never comes."""
    monkeypatch.setattr(remote, "RECEIVE", "exec sleep 60")
    monkeypatch.setattr(remote, "STALL_S", 0.5)
    monkeypatch.setattr(remote, "SLOWEST_BYTES_S", 1 << 40)
    if way == "channel":
        monkeypatch.setattr(remote.shutil, "which", lambda _name: None)
    storage = remote.open_storage(sshd.login(), str(tmp_path), "nas")
    with pytest.raises(
        Unreachable, match="Sending to nas failed: no data for too long"
    ) as failure:
        storage.write(f"{tmp_path}/x", io.BytesIO(bytes(size)), 0)
    assert failure.value.again
    storage.close()


BYTES_A_SECOND = 1000
AS_IT_IS = """
import runpy
import iotstack_invoke.engine.executor as engine, iotstack_invoke.hosts.ssh as remote
engine.RETRY_WAIT_S = 0
remote.SMALL_BYTES, remote.TRANSFER_LIMIT_S = {small_bytes}, {limit_s}
runpy.run_module("iotstack_invoke", run_name="__main__", alter_sys=True)
"""
"""The program with the limits that it has, but for how long a file may take."""


class Throttle:
    """Passes on what an sshd sends and takes, so many bytes a second in each direction."""

    def __init__(self, port):
        self.port = port
        self.is_slow = True

    def __call__(self, line):
        with socket.create_connection(("127.0.0.1", self.port)) as behind:
            threading.Thread(target=self._pass, args=(line, behind), daemon=True).start()
            self._pass(behind, line)

    def _pass(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(BYTES_A_SECOND // 10):
                target.sendall(data)
                if self.is_slow:
                    time.sleep(0.1)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def slow_stack(start_sshd, tmp_path):
    """A stack whose vault `nas` is behind a throttle, reached in a way: the stack, the throttle."""
    running = []

    def start(way, limit_s=remote.TRANSFER_LIMIT_S):
        sshd = start_sshd("nas", *(("ForceCommand internal-sftp",) if way == "sftp" else ()))
        throttle = Throttle(sshd.port)
        running.append(Listener(throttle))
        port = running[-1].port
        sshd.known_hosts.write_text(
            sshd.known_hosts.read_text().replace(f":{sshd.port}", f":{port}")
        )
        stack = Fleet(tmp_path / "stack", sshd.login(port=port))
        small_bytes = 0 if way == "ssh" else remote.SMALL_BYTES
        stack.program = AS_IT_IS.format(small_bytes=small_bytes, limit_s=limit_s)
        (stack.folder / "volumes/nodered/data").write_bytes(os.urandom(15_000))
        return stack, throttle

    yield start
    for each in running:
        each.stop()


@pytest.mark.long
@pytest.mark.parametrize("way", ["channel", "ssh", "sftp"])
def test_a_line_of_a_thousand_bytes_a_second_is_used(slow_stack, way):
    """Its handshake takes seconds, and so does each answer: the copy is made for all that."""
    stack, _ = slow_stack(way)
    code, said, seconds, kib = stack.did(f"backup --runtag {TAG}")
    assert (code, said.strip()) == (0, "")
    for folder in (stack.usb, stack.nas):
        assert content_in(folder) == content_in(stack.folder / "backups")
    assert seconds < 240
    assert kib < MOST_KIB


@pytest.mark.long
@pytest.mark.parametrize("way", ["channel", "ssh"])
def test_a_line_that_is_too_slow_is_told_and_gone_on_with(slow_stack, way):
    """A file that does not arrive in its time costs that vault its copy; what came of it stays."""
    stack, throttle = slow_stack(way, limit_s=10.0)
    code, said, seconds, kib = stack.did(f"backup --runtag {TAG}")
    assert code == 3, said
    assert re.search(r"to nas: Sending to nas failed: it did not end within 10 s\. .*slow", said)
    assert not [each for each in WORDS_OF_A_TRACEBACK if each in said], said
    assert is_whole(stack.folder / "backups")
    assert content_in(stack.usb) == content_in(stack.folder / "backups")
    assert not (stack.nas / f"{TAG}.manifest.json").exists()
    assert seconds < 240
    assert kib < MOST_KIB
    throttle.is_slow = False
    assert stack.did("sync")[0] == 0
    assert content_in(stack.nas) == content_in(stack.folder / "backups")


def test_a_disk_that_hangs_is_waited_for_once(far_end, monkeypatch, tmp_path):
    """The shell answers, and the folder does not: no other job waits for it as well."""
    monkeypatch.setattr(remote, "QUESTION_LIMIT_S", 0.5)
    ssh = far_end("shell hung disk")
    storage = vault_storage(VaultConfig("nas", str(tmp_path), ssh))
    with pytest.raises(TimedOut, match=r"did not end within 0\.5 s: stat .*Does its disk work"):
        storage.listdir(str(tmp_path))
    asked = Path(ssh.config).with_name("asked")
    came = asked.read_text()
    for ask in (
        lambda: storage.listdir(str(tmp_path)),
        lambda: storage.mkdir(str(tmp_path)),
        lambda: storage.create_exclusive(f"{tmp_path}/x", "x"),
    ):
        with pytest.raises(Unreachable, match="not contacted again for 10 minutes"):
            ask()
    assert asked.read_text() == came
    storage.close()


CUTS = (0, 1, 4, 5, 20, 41, 42, 43, 60, 200, 800, 1200, 1500, 2000, 3000)


@pytest.mark.parametrize(
    "cut", [*CUTS[::4], *(pytest.param(e, marks=pytest.mark.long) for e in range(0, 2500, 25))]
)
def test_a_line_that_ends_at_any_byte_of_the_handshake_is_told(sshd, tmp_path, cut):
    """Whatever came by then: it is no answer, and another try may help."""

    def play(line):
        with socket.create_connection(("127.0.0.1", sshd.port)) as behind:
            threading.Thread(target=passed_on, args=(line, behind), daemon=True).start()
            left = cut
            while left and (data := behind.recv(left)):
                line.sendall(data)
                left -= len(data)

    listener = Listener(play)
    sshd.known_hosts.write_text(
        sshd.known_hosts.read_text().replace(f":{sshd.port}", f":{listener.port}")
    )
    with pytest.raises(Unreachable) as failure:
        remote.open_storage(sshd.login(port=listener.port), str(tmp_path), "nas")
    assert failure.value.again
    assert not [each for each in WORDS_OF_A_TRACEBACK if each in str(failure.value)]
    listener.stop()


def test_a_line_that_ends_while_a_channel_is_opened_is_told(sshd, tmp_path, monkeypatch):
    """Paramiko's thread breaks at a channel that knows no line yet, and nobody is told of the end."""

    def late(channel, transport, known=paramiko.Channel._set_transport):
        if isinstance(transport.sock, socket.socket):
            transport.sock.shutdown(socket.SHUT_RDWR)
        transport.join(1)
        known(channel, transport)

    monkeypatch.setattr(paramiko.Channel, "_set_transport", late)
    with pytest.raises(Unreachable):
        remote.open_storage(sshd.login(), str(tmp_path), "nas")


HANDSHAKE_BYTES = 1150
FLIPS = (5, 60, 300, 1040, 1130)
"""In the version, the lists of algorithms, their last one, the host key, the exchanged key."""


class Flips:
    """Passes on what an sshd sends, with one byte of it changed by `mask`."""

    def __init__(self, sshd, mask):
        self.sshd, self.mask, self.at = sshd, mask, 0

    def __call__(self, line):
        left = self.at
        with socket.create_connection(("127.0.0.1", self.sshd.port)) as behind:
            threading.Thread(target=passed_on, args=(line, behind), daemon=True).start()
            while data := bytearray(behind.recv(65536)):
                if 0 <= left < len(data):
                    data[left] ^= self.mask
                left -= len(data)
                line.sendall(data)


@pytest.mark.parametrize(
    ("offsets", "mask"),
    [
        (FLIPS, 0xFF),
        *(
            pytest.param(range(HANDSHAKE_BYTES), mask, marks=pytest.mark.long)
            for mask in (0xFF, 0x80, 0x01)
        ),
    ],
)
def test_a_byte_of_the_handshake_that_is_another_is_told(
    sshd, tmp_path, monkeypatch, offsets, mask
):
    """Whatever it makes of the message that it is in: that is no SSH, and no traceback."""
    for each in (remote, ssh_config):
        monkeypatch.setattr(each, "CONNECT_LIMIT_S", LIMIT_S)
    flips = Flips(sshd, mask)
    listener = Listener(flips)
    sshd.known_hosts.write_text(
        sshd.known_hosts.read_text().replace(f":{sshd.port}", f":{listener.port}")
    )
    told = []
    for flips.at in offsets:
        try:
            remote.open_storage(sshd.login(port=listener.port), str(tmp_path), "nas").close()
        except Unreachable as error:
            told.append(str(error))
    assert len(told) > 0.9 * len(offsets)
    assert not [each for each in told if any(word in each for word in WORDS_OF_A_TRACEBACK)]
    listener.stop()


class OddMessages(paramiko.ServerInterface):
    """Lets everybody in, and answers what is to be run with one message of its own."""

    def __init__(self, message):
        self.message = paramiko.Message()
        self.message.add_bytes(message)

    def get_allowed_auths(self, _user):
        return "publickey"

    def check_auth_publickey(self, _user, _key):
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, _kind, _number):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, _command):
        channel.get_transport()._send_message(self.message)
        return True


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"\xc8hello", "a message is of an unknown kind"),
        (b"\x01\0\0\0\x0b\0\0\0\x06Ger\xe4t.\0\0\0\0", "a text in it is not UTF-8"),
    ],
    ids=["unknown", "disconnect"],
)
def test_a_message_that_cannot_be_read_is_told(sshd, tmp_path, message, why):
    """Also after the login, to whoever waits."""

    def play(line):
        with contextlib.closing(paramiko.Transport(line)) as transport:
            transport.add_server_key(paramiko.PKey.from_path(str(sshd.host_key)))
            transport.start_server(server=OddMessages(message))
            transport.join(60)

    listener = Listener(play)
    sshd.known_hosts.write_text(
        sshd.known_hosts.read_text().replace(f":{sshd.port}", f":{listener.port}")
    )
    with pytest.raises(Unreachable, match=f"what it sends is not SSH: {why}") as failure:
        remote.open_storage(sshd.login(port=listener.port), str(tmp_path), "nas")
    assert "neither a shell nor SFTP" not in str(failure.value)
    listener.stop()


def passed_on(source, target):
    """Pass on what comes, until either end is gone."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


def test_a_file_that_never_ends_is_read_as_far_as_it_goes(far_end, tmp_path):
    """A server may answer each question for more with more: to hash that would never end."""
    (tmp_path / "x").write_bytes(b"its own bytes")
    storage = remote.open_storage(far_end("sftp other@read"), str(tmp_path), "nas")
    assert hash_there(storage, f"{tmp_path}/x") == hashlib.sha256(b"?" * 13).hexdigest()
    assert storage.read_many(str(tmp_path), ["x"]) == {"x": b"?" * 13}
    storage.close()


@pytest.mark.parametrize("way", ["run", "ssh", "channel"])
def test_what_never_ends_is_no_answer(sshd, tmp_path, monkeypatch, way):
    """It is stopped where an answer ends; here as well as there."""
    monkeypatch.setattr(remote, "MOST_SAID_BYTES", 1000)
    monkeypatch.setattr(remote, "RECEIVE", "exec yes")
    if way == "channel":
        monkeypatch.setattr(remote.shutil, "which", lambda _name: None)
    storage = remote.open_storage(sshd.login(), str(tmp_path), "nas")
    if way == "run":
        for host in (storage, LocalHost("/")):
            for words in (("yes",), ("sh", "-c", "yes >&2")):
                with pytest.raises(StepFailed, match="its output exceeded 100,000 bytes"):
                    host.run(Command(words, timeout_s=60, most_bytes=100_000))
    else:
        with pytest.raises(StepFailed, match="its answer is incomplete: y"):
            storage.write(f"{tmp_path}/x", io.BytesIO(b"x"), 0)
    storage.close()


LISTINGS = {
    "a minus": r"s/ \([0-9]\)/ -\1/",
    "carriage returns": r"s/$/\r/",
    "letters": r"s/[0-9]/x/g",
    "another line": r"1i Willkommen",
    "no size for any file": r"s/ [0-9]* / 99999999999999999999999999 /",
    "nothing": r"d",
    "the half": r"2,$d",
}


@pytest.mark.parametrize("way", LISTINGS)
def test_a_listing_that_cannot_be_read_is_no_empty_folder(start_sshd, tmp_path, way):
    """A file whose line is odd would be gone, and a full vault an empty one."""
    root, script = tmp_path / "files", tmp_path / "part"
    root.mkdir()
    for name in ("one", "two"):
        (root / name).write_text("content")
    script.write_text(
        "#!/bin/bash\ncase $SSH_ORIGINAL_COMMAND in\n"
        f'*mindepth*) {{ while read -r each; do echo "$each"; [[ $each = *begins* ]] && break; '
        f"done; sed {shlex.quote(LISTINGS[way])}; }} < <({RUN});;\n*) {RUN};;\nesac\n"
    )
    script.chmod(0o755)
    storage = remote.open_storage(
        start_sshd("nas", f"ForceCommand {script}").login(), str(root), "nas"
    )
    with pytest.raises(Unreachable, match=f"On nas: cannot read its listing of {root}") as told:
        storage.listdir(str(root))
    assert told.value.again
    assert len(str(told.value)) < 1000
    storage.close()


@pytest.mark.parametrize("way", ["unsized@readdir", "negative@readdir"])
def test_a_listing_over_sftp_without_sizes_is_none(far_end, tmp_path, way):
    """A file that has no size there would be a damaged one here."""
    storage = remote.open_storage(far_end(f"sftp {way}"), str(tmp_path), "nas")
    with pytest.raises(
        Unreachable, match=r"cannot read its listing of .*: it has no size for x\.manifest\.json"
    ):
        storage.listdir(str(tmp_path))
    storage.close()


def test_a_server_that_takes_a_line_and_is_silent_is_told_as_such(tmp_path, far_end):
    """Such as an sshd that hangs: no line to it ever stood that could break."""
    _, said, _, _ = Fleet(tmp_path / "stack", far_end("raw silent")).did("list")
    assert "does not answer within 2 s. Its SSH server hangs, or" in said
    assert "lost" not in said
