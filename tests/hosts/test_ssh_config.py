"""The way to another machine is what `ssh -G` answers, for commands and for bytes."""

import base64
import getpass
import hashlib
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import pytest
from contexts import until
from sshd import make_key

from iotstack_invoke.core.errors import KeyRefused, Unreachable
from iotstack_invoke.hosts import ssh_config
from iotstack_invoke.hosts.base import Command
from iotstack_invoke.hosts.ssh import open_storage
from iotstack_invoke.hosts.ssh_config import find_way
from iotstack_invoke.hosts.ssh_connection import Login, offered_key
from iotstack_invoke.hosts.ssh_settings import Ssh
from iotstack_invoke.settings.model import read_settings

RELAY = """
import os, select, socket, sys
line = socket.create_connection((sys.argv[1], int(sys.argv[2])))
while True:
    for each in select.select([0, line], [], [])[0]:
        data = os.read(0, 65536) if each == 0 else line.recv(65536)
        if not data:
            sys.exit()
        line.sendall(data) if each == 0 else os.write(1, data)
"""


@pytest.fixture
def config(tmp_path):
    """Write an ssh configuration, and return the way to a host that it describes."""

    def way(text, host="nas", **given):
        ssh_config._answer.cache_clear()
        (tmp_path / "config").write_text(text)
        return find_way(Ssh(host, config=str(tmp_path / "config"), **given), "nas")

    return way


@pytest.fixture
def no_ssh(tmp_path, monkeypatch):
    """A machine of ours on which there is no `ssh` program."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


def facts(way):
    return way.host, way.port, way.user


ME = getpass.getuser()
SHAPES = (
    ("Host nas\n  HostName 192.0.2.1\n  User u\n  Port 2200\n", ("192.0.2.1", 2200, "u")),
    ("Host n*\n  HostName %h.lan\n", ("nas.lan", 22, ME)),
    ("Host n?s !x\nHostName = a\nPort=23\n", ("a", 23, ME)),
    ("Host * !nas\n  HostName a\n", ("nas", 22, ME)),
    ('Host "nas"\n  User "a b"\n', ("nas", 22, "a b")),
    ("Match host nas\n  User u\n", ("nas", 22, "u")),
    ("Match originalhost nas exec true\n  User u\n", ("nas", 22, "u")),
    ("Match exec false\n  User u\n", ("nas", 22, ME)),
    ('Match exec "test %h = nas"\n  User u\n', ("nas", 22, "u")),
    ("User first\nHost nas\n  User second\n", ("nas", 22, "first")),
    ("Host nas\n  HostName ::1\n", ("::1", 22, ME)),
)


@pytest.mark.parametrize(("text", "right"), SHAPES)
def test_a_configuration_means_what_it_means_to_ssh(config, text, right):
    """Patterns, matches, tokens and quotes are read by ssh alone."""
    assert facts(config(text)) == right


def test_included_files_are_read(config, tmp_path):
    """From a file that was included itself, and by a pattern, as ssh does."""
    (tmp_path / "config.d").mkdir()
    (tmp_path / "config.d/x.conf").write_text(f"Include {tmp_path}/deep\n")
    (tmp_path / "deep").write_text("Host nas\n  HostName 192.0.2.1\n  User u\n")
    assert facts(config(f"Include {tmp_path}/config.d/*.conf\n")) == ("192.0.2.1", 22, "u")


def test_what_hosts_toml_says_comes_first(config, tmp_path):
    """Its user, port, key and known hosts stand before those of the configuration."""
    make_key(tmp_path / "a %h")
    (tmp_path / "known hosts").write_text("")
    text = f"Host nas\n  User u\n  Port 1\n  IdentityFile {tmp_path}/b\n"
    key, known = str(tmp_path / "a %h"), str(tmp_path / "known hosts")
    make_key(tmp_path / "b")
    way = config(text, user="me", port=22, key=key, known_hosts=known)
    assert facts(way) == ("nas", 22, "me")
    assert way.identities == (key, str(tmp_path / "b"))
    assert way.own_known_hosts == (known,)


def test_a_name_with_a_user_or_a_port_is_taken_apart(config):
    """As people write it; an address of IPv6 stays whole."""
    assert facts(config("Host nas\n  Port 1\n", host="u@nas")) == ("nas", 1, "u")
    for host, right in (("nas:2200", ("nas", 2200)), ("::1", ("::1", 0)), ("u@a:1", ("u@a", 1))):
        vault = {"name": "nas", "kind": "ssh", "folder": "/x", "host": host}
        (found,) = read_settings({"vaults": [vault]}, "").vaults
        assert (found.ssh.host, found.ssh.port) == right


def test_files_are_found_as_ssh_finds_them(config, tmp_path, monkeypatch):
    """With tokens, quotes, variables and blanks; keys that are not there are passed over."""
    monkeypatch.setenv("WHERE", str(tmp_path))
    monkeypatch.setenv("AGENT", "/run/agent")
    (tmp_path / "a b").mkdir()
    for name in ("a b/nas", "c", "d%"):
        make_key(tmp_path / name)
    (tmp_path / "a b/known").write_text("")
    way = config(
        f'IdentityFile "{tmp_path}/a b/%n"\nIdentityFile ${{WHERE}}/c\nIdentityFile {tmp_path}/d%%\n'
        f"IdentityFile {tmp_path}/none\nIdentityAgent $AGENT\nIdentitiesOnly yes\n"
        f'UserKnownHostsFile "{tmp_path}/a b/known" {tmp_path}/%k {tmp_path}/other\n'
        "HostKeyAlias alias\nHashKnownHosts yes\nConnectTimeout 7\n"
    )
    assert way.identities == tuple(f"{tmp_path}/{each}" for each in ("a b/nas", "c", "d%"))
    assert way.own_known_hosts == tuple(f"{tmp_path}/{e}" for e in ("a b/known", "alias", "other"))
    assert (way.agent, way.identities_only, way.hashes_names) == ("/run/agent", True, True)
    assert (way.known_as, way.limit_s) == ("alias", 7)
    home = os.path.expanduser("~root") if os.geteuid() == 0 else os.path.expanduser("~")
    way = config("ServerAliveInterval 1\n", host="other")
    assert way.own_known_hosts[0] == f"{home}/.ssh/known_hosts"
    assert (way.known_as, way.limit_s) == ("other", 15)


def test_none_is_no_name(config):
    """Of a machine to jump through, a command, a key, an agent or a file: it means none."""
    way = config(
        "Host nas\n  ProxyJump none\n  ProxyCommand none\n  IdentityFile none\n"
        "  IdentityAgent none\n  UserKnownHostsFile none\nHost *\n  ProxyJump bastion.example\n"
    )
    assert (way.gateway, way.command, way.identities, way.agent) == (None, "", (), "")
    assert way.own_known_hosts == ()


def test_machines_on_the_way_have_settings_of_their_own(config):
    """The last is spoken to through those before; the first may have more before it."""
    way = config(
        "Host nas\n  ProxyJump u@a:2200,[::1]:23,ssh://b\n"
        "Host a\n  HostName a.lan\n  ProxyJump outer\n"
        "Host b\n  HostName b.lan\n  User bob\n  ProxyJump never\n"
    )
    found = []
    while way:
        found.append(facts(way))
        way = way.gateway
    assert found == [
        ("nas", 22, ME),
        ("b.lan", 22, "bob"),
        ("::1", 23, ME),
        ("a.lan", 2200, "u"),
        ("outer", 22, ME),
    ]


def test_a_circle_is_told(config):
    """Machines that are reached through each other are none."""
    text = "Host nas\n  ProxyJump a\nHost a\n  ProxyJump b\nHost b\n  ProxyJump a\n"
    with pytest.raises(
        Unreachable, match=r": ProxyJump in the ssh configuration forms a circle\."
    ):
        config(text)
    with pytest.raises(Unreachable, match="jumphost loop via a"):
        config("Host *\n  ProxyJump a\n")


def test_a_command_that_leads_there_has_its_tokens(config):
    """As ssh fills them in, a percent sign included."""
    way = config("HostName 192.0.2.1\nPort 7\nProxyCommand x %h:%p %n %r 100%% # more\n")
    assert way.command == f"x 192.0.2.1:7 nas {ME} 100% # more"


def test_what_ssh_cannot_read_is_told(config, tmp_path):
    """Its own words, once, as a machine that is not reached, which no other try would mend."""
    with pytest.raises(Unreachable) as failure:
        config("Host other\n  Foo bar\n  Foo bar\n")
    file = tmp_path / "config"
    told = f"nas: `ssh` cannot resolve nas: {file}: line 2: Bad configuration option:"
    assert str(failure.value).startswith(told)
    assert not failure.value.again
    with pytest.raises(Unreachable, match="Could not resolve host"):
        config(
            "CanonicalizeHostname yes\nCanonicalDomains invalid\nCanonicalizeFallbackLocal no\n"
        )


def test_ssh_is_given_time_to_answer_and_no_more(config, monkeypatch):
    """A `Match exec` that hangs keeps a machine from being reached, and nothing else."""
    monkeypatch.setattr(ssh_config, "ANSWER_LIMIT_S", 1.0)
    with pytest.raises(Unreachable, match=r"nas: .*within 1 s"):
        config('Match exec "sleep 60"\n  User u\n')


def test_ssh_is_asked_once(tmp_path, monkeypatch):
    """However often a machine is logged in to in a run; what failed is asked anew."""
    asked = []
    run = ssh_config.LocalHost.run
    monkeypatch.setattr(
        ssh_config.LocalHost, "run", lambda host, command: asked.append(1) or run(host, command)
    )
    ssh = Ssh("nas", config=str(tmp_path / "config"))
    with pytest.raises(Unreachable, match="No such file"):
        find_way(ssh, "nas")
    (tmp_path / "config").write_text("User u\n")
    for name in ("nas", "nas", "box"):
        assert find_way(ssh, name).user == "u"
    assert len(asked) == 2


# Against real servers, both for commands and for bytes


def reached(ssh, root="/"):
    """Expect that both ways in lead to a machine; return what `ssh -G` had to say."""
    ssh_config._answer.cache_clear()
    storage = open_storage(ssh, root, "nas")
    assert storage.run(Command(("echo", "there"))).out == "there\n"
    words = [*Login(ssh, "nas").words(), "echo there"]
    assert subprocess.run(words, check=True, capture_output=True, timeout=60).stdout == b"there\n"
    storage.close()


def host_lines(server, name="nas", *more):
    """Return the block of a server in a configuration."""
    lines = [
        f"Host {name}",
        "HostName 127.0.0.1",
        f"Port {server.port}",
        f"IdentityFile {server.user_key}",
        f"UserKnownHostsFile {server.known_hosts}",
        *more,
    ]
    return "\n  ".join(lines) + "\n"


def settings(server, text):
    server.config.write_text(text)
    return Ssh("nas", config=str(server.config))


def test_a_host_of_an_included_file_is_reached(sshd):
    """As `ssh nas` reaches it."""
    (sshd.folder / "x.conf").write_text(host_lines(sshd))
    reached(settings(sshd, f"Include {sshd.folder}/*.conf\n"))


def test_a_host_without_the_jump_of_all_others_is_reached(sshd):
    """`ProxyJump none` is no machine."""
    reached(
        settings(
            sshd, host_lines(sshd, "nas", "ProxyJump none") + "Host *\n ProxyJump no.invalid\n"
        )
    )


def test_a_host_is_reached_through_a_command(sshd):
    """Which gets its tokens filled in, and ends with the line; what it says is told."""
    (sshd.folder / "relay").write_text(RELAY)
    command = f"{sys.executable} {sshd.folder}/relay %h %p"
    reached(settings(sshd, host_lines(sshd, "nas", f"ProxyCommand {command}")))
    ssh = settings(sshd, host_lines(sshd, "nas", "ProxyCommand echo no such way >&2"))
    ssh_config._answer.cache_clear()
    with pytest.raises(Unreachable, match=r"^nas: its ProxyCommand printed: no such way"):
        open_storage(ssh, "/", "nas")


def test_of_what_a_command_says_the_end_is_kept(sshd):
    """However much that is."""
    said = "head -c 50000000 /dev/zero >&2; echo >&2; echo no such way >&2"
    ssh = settings(sshd, host_lines(sshd, "nas", f"ProxyCommand sh -c '{said}'"))
    tracemalloc.start()
    with pytest.raises(Unreachable, match=r"^nas: its ProxyCommand printed: no such way"):
        open_storage(ssh, "/", "nas")
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 20_000_000


def test_a_command_may_hand_its_line_over(sshd):
    """As `ProxyUseFdpass` wants; one that hands over none is told."""
    (sshd.folder / "hand").write_text(
        "import socket, sys\n"
        "line = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "socket.send_fds(socket.socket(fileno=1), [b'x'], [line.fileno()])\n"
    )
    command = f"ProxyCommand {sys.executable} {sshd.folder}/hand %h %p"
    reached(settings(sshd, host_lines(sshd, "nas", command, "ProxyUseFdpass yes")))
    ssh = settings(sshd, host_lines(sshd, "nas", "ProxyCommand true", "ProxyUseFdpass yes"))
    ssh_config._answer.cache_clear()
    with pytest.raises(Unreachable, match="its ProxyCommand passed no connection"):
        open_storage(ssh, "/", "nas")


def test_the_program_of_a_line_ends_with_it(sshd):
    """No ProxyCommand is left behind, also where the key of the machine is refused."""
    (sshd.folder / "relay").write_text(RELAY)
    note = sshd.folder / "pid"
    command = f"sh -c 'echo $$ > {note}; exec {sys.executable} {sshd.folder}/relay %h %p'"
    ssh = settings(sshd, host_lines(sshd, "nas", f"ProxyCommand {command}"))
    ssh_config._answer.cache_clear()
    storage = open_storage(ssh, "/", "nas")
    assert os.path.exists(f"/proc/{note.read_text().strip()}")
    storage.close()
    until(lambda: not os.path.exists(f"/proc/{note.read_text().strip()}"))
    sshd.known_hosts.write_text("")
    with pytest.raises(KeyRefused):
        open_storage(ssh, "/", "nas")
    until(lambda: not os.path.exists(f"/proc/{note.read_text().strip()}"))


def test_a_host_is_known_by_its_alias(sshd):
    """`HostKeyAlias` stands in for the name and the port."""
    public = (sshd.folder / "host_key.pub").read_text()
    sshd.known_hosts.write_text(f"the-nas {public}")
    reached(settings(sshd, host_lines(sshd, "nas", "HostKeyAlias the-nas")))


def test_several_files_of_known_hosts_are_read(sshd):
    """A key in the second is as good."""
    text = host_lines(sshd).replace(str(sshd.known_hosts), f"/no/such/file {sshd.known_hosts}")
    reached(settings(sshd, text))


def test_an_address_of_ipv6_is_reached(start_sshd):
    """In known_hosts it stands in brackets with its port."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    server = start_sshd("six", "ListenAddress ::1")
    public = (server.folder / "host_key.pub").read_text()
    server.known_hosts.write_text(f"[::1]:{server.port} {public}")
    reached(settings(server, host_lines(server).replace("127.0.0.1", "::1")))


def test_each_machine_on_the_way_has_its_own_key_and_user(start_sshd):
    """A chain of two gateways, the outer with a port and a user in its name."""
    inner, near, far = (start_sshd(name) for name in ("inner", "near", "far"))
    text = (
        host_lines(inner, "nas", f"ProxyJump {ME}@far:{far.port},near")
        + host_lines(near, "near", "HostKeyAlias the-near")
        + host_lines(far, "far").replace(f"Port {far.port}", "Port 1")
    )
    public = (near.folder / "host_key.pub").read_text()
    near.known_hosts.write_text(f"the-near {public}")
    reached(settings(inner, text))
    near.known_hosts.write_text("")
    with pytest.raises(KeyRefused, match="host key of the-near, on the way to nas") as failure:
        open_storage(Ssh("nas", config=str(inner.config)), "/", "nas")
    assert "--trust" not in failure.value.fix
    near.known_hosts.write_text(f"the-near {public}")
    inner.stop()
    with pytest.raises(Unreachable, match=r"near does not reach \[127.0.0.1\]:\d+") as failure:
        open_storage(Ssh("nas", config=str(inner.config)), "/", "nas")
    assert failure.value.again
    near.user_key.write_text("")
    with pytest.raises(Unreachable, match=r"^near, on the way to nas, refused the login"):
        open_storage(Ssh("nas", config=str(inner.config)), "/", "nas")
    far.stop()
    with pytest.raises(Unreachable, match=r"far, on the way to nas, is unreachable: "):
        open_storage(Ssh("nas", config=str(inner.config)), "/", "nas")


FOR_PEOPLE = (
    "RemoteCommand tmux new -A -s x\n  RequestTTY yes",
    "StdinNull yes",
    "ForkAfterAuthentication yes",
    "SessionType none",
    "PermitLocalCommand yes\n  LocalCommand echo hello",
    "ControlMaster auto\n  ControlPersist 60\n  ControlPath {folder}/shared",
    "ForwardAgent yes\n  ForwardX11 yes\n  VisualHostKey yes\n  LogLevel DEBUG3",
    "LocalForward {port} 127.0.0.1:80\n  ExitOnForwardFailure yes",
)


@pytest.mark.parametrize("line", FOR_PEOPLE)
def test_what_is_for_people_changes_no_command_of_ours(sshd, line):
    """A command gets what we send, and we get what it says; whatever a login of theirs does."""
    line = line.format(folder=sshd.folder, port=sshd.port)  # which is taken
    ssh = settings(sshd, host_lines(sshd, "nas", line))
    reached(ssh)
    words = [*Login(ssh, "nas").words(), "cat; echo done >&2"]
    told = subprocess.run(words, input=b"sent", check=True, capture_output=True, timeout=60)
    assert (told.stdout, told.stderr) == (b"sent", b"done\n")
    assert not (sshd.folder / "shared").exists()


def test_a_plain_configuration_needs_no_flags(config):
    """Older programs know none of some options: what is as it should be is not said."""
    assert config("Host nas\n  User u\n").plainly == ("-o", "clearallforwardings=yes")


def test_a_line_comes_from_the_address_that_ssh_takes(sshd):
    """`BindAddress` and `BindInterface`, where the machine knows us by where we come from."""
    public = sshd.folder / "user_key.pub"
    public.write_text(f'from="127.0.0.2" {public.read_text()}')
    reached(settings(sshd, host_lines(sshd, "nas", "BindAddress 127.0.0.2")))
    with pytest.raises(Unreachable, match="it accepts none of"):
        reached(settings(sshd, host_lines(sshd)))
    if os.geteuid() == 0:
        public.write_text(public.read_text().replace("127.0.0.2", "127.0.0.1"))
        reached(settings(sshd, host_lines(sshd, "nas", "BindInterface lo")))
    with pytest.raises(Unreachable, match="is unreachable: "):
        reached(settings(sshd, host_lines(sshd, "nas", "BindAddress 192.0.2.1")))


def test_only_addresses_of_the_family_are_tried(sshd):
    """`AddressFamily inet6` has none of 127.0.0.1."""
    reached(settings(sshd, host_lines(sshd, "nas", "AddressFamily inet")))
    with pytest.raises(Unreachable, match=r"host 127\.0\.0\.1 not found: "):
        reached(settings(sshd, host_lines(sshd, "nas", "AddressFamily inet6")))


@pytest.fixture
def agent(tmp_path):
    """An agent at a socket of its own, which is told of keys."""
    path = f"{tmp_path}/agent"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", path],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "SSH_ASKPASS": "/bin/false", "SSH_ASKPASS_REQUIRE": "force"},
    )
    while not os.path.exists(path):
        assert process.poll() is None
    yield lambda *keys: [
        subprocess.run(
            ["ssh-add", "-q", *keys],
            check=True,
            env={**os.environ, "SSH_AUTH_SOCK": path},
            capture_output=True,
        ),
        path,
    ][1]
    process.terminate()
    process.wait(10)


def test_keys_of_the_agent_are_shown_as_ssh_shows_them(sshd, agent, tmp_path):
    """All, or those of the files alone; a file's own may be locked, or be its public half."""
    strangers = [make_key(tmp_path / f"stranger{number}") for number in range(7)]
    socket_path = agent(*strangers, sshd.user_key)
    shutil.move(sshd.user_key, tmp_path / "away")
    lines = host_lines(sshd).replace(
        "IdentityFile", f"IdentityAgent {socket_path}\n  IdentityFile"
    )
    public = host_lines(sshd, "nas", f"IdentityAgent {socket_path}", "IdentitiesOnly yes").replace(
        str(sshd.user_key), f"{sshd.user_key}.pub"
    )
    reached(settings(sshd, public))
    only = lines + "  IdentitiesOnly yes\n"
    ssh_config._answer.cache_clear()
    with pytest.raises(Unreachable, match="refused the login"):
        open_storage(settings(sshd, only.replace(f"{socket_path}", "none")), "/", "nas")


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_a_key_with_which_the_agent_does_not_sign_hides_no_other(sshd, agent, tmp_path, kind):
    """One that nobody confirms (`ssh-add -c`); where it is the only one, that is told."""
    asked = tmp_path / "asked"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", asked], check=True)
    public = sshd.folder / "user_key.pub"
    public.write_text(public.read_text() + (tmp_path / "asked.pub").read_text())
    more = [f"IdentityAgent {agent('-c', asked)}", f"IdentityFile {asked}"]
    reached(settings(sshd, host_lines(sshd, "nas", *more)))
    public.write_text((tmp_path / "asked.pub").read_text())
    ssh_config._answer.cache_clear()
    with pytest.raises(Unreachable, match=r"The agent does not sign with .*confirmed") as failure:
        open_storage(settings(sshd, host_lines(sshd, "nas", *more)), "/", "nas")
    assert "ssh-copy-id" not in str(failure.value)


def test_more_keys_of_the_agent_than_may_be_tried_are_told(start_sshd, agent, tmp_path):
    """`ssh-copy-id` helps nobody whose right key is not shown any more."""
    server = start_sshd("few", "MaxAuthTries 3")
    socket_path = agent(*(make_key(tmp_path / f"stranger{number}") for number in range(4)))
    lines = host_lines(server, "nas", f"IdentityAgent {socket_path}")
    ssh_config._answer.cache_clear()
    with pytest.raises(
        Unreachable, match=r"closed the connection after .*IdentitiesOnly yes"
    ) as failure:
        open_storage(settings(server, lines), "/", "nas")
    assert "ssh-copy-id" not in str(failure.value)
    reached(settings(server, f"{lines}  IdentitiesOnly yes\n"))


def test_a_certificate_of_ours_is_shown(start_sshd, tmp_path):
    """Beside its key, or where `CertificateFile` says."""
    authority, key = make_key(tmp_path / "authority"), make_key(tmp_path / "mine")
    server = start_sshd("ca", f"TrustedUserCAKeys {authority}.pub")
    sign = ["ssh-keygen", "-q", "-s", authority, "-I", "me", "-n", ME, f"{key}.pub"]
    subprocess.run(sign, check=True, capture_output=True)
    text = host_lines(server).replace(str(server.user_key), str(key))
    reached(settings(server, text))
    shutil.move(f"{key}-cert.pub", tmp_path / "elsewhere.pub")
    reached(settings(server, f"{text}  CertificateFile {tmp_path}/elsewhere.pub\n"))


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
@pytest.mark.parametrize("only", ["yes", "no"])
@pytest.mark.parametrize("where", ["agent", "file"])
def test_a_key_of_the_agent_has_its_certificate(start_sshd, agent, tmp_path, where, only, kind):
    """Which the agent has as well, or a file; the private key itself is in none."""
    authority, key, stranger = make_key(tmp_path / "authority"), tmp_path / "mine", tmp_path / "x"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", key], check=True)
    make_key(stranger)
    server = start_sshd("ca", f"TrustedUserCAKeys {authority}.pub")
    socket_path = agent(key)
    sign = ["ssh-keygen", "-q", "-s", authority, "-I", "me", "-n", ME, f"{key}.pub"]
    subprocess.run(sign, check=True, capture_output=True)
    certificate = tmp_path / "mine-cert.pub"
    if where == "file":
        certificate = shutil.move(certificate, tmp_path / "elsewhere.pub")
        more = [f"CertificateFile {certificate}"]
    else:
        agent("-D")
        agent(stranger, key)
        more = []
    key.unlink()
    text = host_lines(
        server, "nas", f"IdentitiesOnly {only}", f"IdentityAgent {socket_path}", *more
    )
    for identity in (key, f"{key}.pub"):
        ssh = settings(server, text.replace(str(server.user_key), str(identity)))
        if where == "file" or identity == key:
            reached(ssh)
    os.unlink(certificate)
    if (where, only) != ("agent", "no"):
        with pytest.raises(Unreachable, match="refused the login"):
            reached(ssh)


FORMATS = (("rsa", "PKCS8"), ("ecdsa", "PKCS8"), ("rsa", "PEM"), ("ecdsa", "PEM"))


@pytest.mark.parametrize(("kind", "format_of_file"), FORMATS)
def test_keys_are_read_in_each_format_that_ssh_reads(sshd, kind, format_of_file):
    """Named in the configuration or in hosts.toml."""
    for each in (sshd.user_key, sshd.folder / "user_key.pub"):
        each.unlink()
    make = ["ssh-keygen", "-q", "-t", kind, "-m", format_of_file, "-N", "", "-f", sshd.user_key]
    subprocess.run(make, check=True)
    reached(settings(sshd, host_lines(sshd)))
    reached(sshd.login())


def refusal(server, advised="chmod|ssh-add|ssh-keygen|public key whose private"):
    ssh_config._answer.cache_clear()
    told = subprocess.run(
        [*Login(server.login(), "nas").words(), "true"], check=False, capture_output=True
    )
    assert told.returncode == 255
    with pytest.raises(
        Unreachable, match=r"refused the login .*: there is no key to offer"
    ) as failure:
        open_storage(server.login(), "/", "nas")
    assert re.search(advised, str(failure.value))
    assert "ssh-copy-id" not in str(failure.value)
    return str(failure.value)


def test_a_key_that_cannot_be_used_is_named_with_the_way_out(sshd, agent):
    """Under a password, open to others, damaged, or the public half alone; no ssh-copy-id helps."""
    key, public = sshd.user_key, sshd.folder / "user_key.pub"
    key.chmod(0o644)
    assert f"{key} is readable by others, so ssh does not use it: `chmod 600`" in refusal(sshd)
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", key], check=True)
    assert f"{key} has a password: add it to an agent with `ssh-add {key}`" in refusal(sshd)
    content = key.read_text()
    key.write_text(content[:80])
    assert f"`ssh-keygen -p -f {key}` rewrites it." in refusal(sshd)
    key.write_text(public.read_text())
    assert f"{key} is a public key whose private key is not in the agent" in refusal(sshd)


def test_a_locked_key_that_the_agent_holds_needs_no_public_file(sshd, agent, tmp_path):
    """Its own file tells which of the agent's it is, also where no other may be shown."""
    socket_path = agent(sshd.user_key)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", sshd.user_key], check=True)
    shutil.copy(sshd.user_key, tmp_path / "locked")
    more = [f"IdentityAgent {socket_path}", "IdentitiesOnly yes"]
    text = host_lines(sshd, "nas", *more).replace(str(sshd.user_key), f"{tmp_path}/locked")
    reached(settings(sshd, text))


FORBIDDING = (
    "PubkeyAuthentication no",
    "PreferredAuthentications password",
    "PubkeyAcceptedAlgorithms -ssh-rsa,rsa-sha2-*",
    "RequiredRSASize 4096",
)


@pytest.mark.parametrize("line", FORBIDDING)
def test_no_key_is_shown_that_ssh_does_not_show(sshd, line):
    """What the configuration forbids is refused to us, too, and with it what we would send."""
    for each in (sshd.user_key, sshd.folder / "user_key.pub"):
        each.unlink()
    make = ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", sshd.user_key]
    subprocess.run(make, check=True)
    reached(settings(sshd, host_lines(sshd)))
    settings(sshd, host_lines(sshd, "127.0.0.1", line))
    refusal(
        sshd,
        advised="The ssh configuration forbids login with a key"
        if "Auth" in line
        else "configuration forbids",
    )


def test_a_security_key_wants_an_agent(sshd):
    """Paramiko cannot ask the device; rewriting the file helps nobody."""
    kind, owner = b"sk-ssh-ed25519@openssh.com", b"ssh:"
    fields = (kind, bytes(32), owner)
    blob = b"".join(struct.pack(">I", len(each)) + each for each in fields)
    public = f"{kind.decode()} {base64.b64encode(blob).decode()}\n"
    (sshd.folder / "user_key.pub").write_text(public)
    settings(sshd, "")
    refusal(sshd, advised="user_key is on a security key.* `ssh-add .*user_key`")


def test_a_file_may_be_called_by_the_hash_of_a_connection(config, tmp_path):
    """%C, as for the sockets of shared lines."""
    name = f"{socket.gethostname()}nas22{ME}"
    key = make_key(tmp_path / hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest())
    assert config(f"IdentityFile {tmp_path}/%C\n").identities == (str(key),)


def test_keys_of_a_card_are_shown_by_an_agent_alone(sshd):
    """`PKCS11Provider` is none of ours to load; what does is told."""
    settings(sshd, host_lines(sshd, "127.0.0.1", "PKCS11Provider /usr/lib/card.so"))
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "x", "-f", sshd.user_key], check=True)
    refusal(sshd, advised="need an agent: `ssh-add -s /usr/lib/card.so`")


def test_a_host_key_that_is_too_small_for_ssh_is_refused(start_sshd, tmp_path):
    """`RequiredRSASize` is about keys of machines as well."""
    make = ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", tmp_path / "rsa"]
    subprocess.run(make, check=True)
    server = start_sshd("small", f"HostKey {tmp_path}/rsa")
    public = (tmp_path / "rsa.pub").read_text()
    server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {public}")
    reached(settings(server, host_lines(server)))
    with pytest.raises(Unreachable, match="its host key has 2,048 bits"):
        reached(settings(server, host_lines(server, "nas", "RequiredRSASize 4096")))


def test_old_algorithms_are_used_where_the_configuration_allows_them(start_sshd):
    """What ssh would not use by itself is used if it is told to, and is not otherwise."""
    server = start_sshd("old", "Ciphers aes256-cbc")
    ssh = settings(server, host_lines(server))
    ssh_config._answer.cache_clear()
    with pytest.raises(Unreachable, match=r"(?i)cipher"):
        open_storage(ssh, "/", "nas")
    reached(settings(server, host_lines(server, "nas", "Ciphers +aes256-cbc")))


def test_a_key_exchange_has_two_names(sshd):
    """A configuration may have the one of which Paramiko does not know."""
    reached(settings(sshd, host_lines(sshd, "nas", "KexAlgorithms curve25519-sha256")))


NEW_ONLY = (
    ("KexAlgorithms", "sntrup761x25519-sha512@openssh.com", "curve25519-sha256@libssh.org"),
    ("Ciphers", "chacha20-poly1305@openssh.com", "aes256-ctr"),
    ("MACs", "umac-128-etm@openssh.com", "hmac-sha2-256"),
)


@pytest.mark.parametrize(("setting", "theirs", "usual"), NEW_ONLY)
def test_a_server_with_which_paramiko_has_nothing_in_common_is_told(
    start_sshd, setting, theirs, usual
):
    """What it offers, and the line of its settings that changes that, which does."""
    server = start_sshd("new", f"{setting} {theirs}", "Ciphers aes256-ctr")
    with pytest.raises(Unreachable, match=rf"it offers \({theirs}.* Add {usual} to `{setting}`"):
        reached(settings(server, host_lines(server)))
    with pytest.raises(Unreachable, match=f"Add {usual}"):
        offered_key(settings(server, host_lines(server)), "nas")
    server.stop()
    file = server.folder / "sshd_config"
    file.write_text(file.read_text().replace(theirs, f"{theirs},{usual}", 1))
    server.start()
    reached(settings(server, host_lines(server)))


# Without the program


def test_paramiko_reads_where_there_is_no_ssh(start_sshd, request):
    """Jumps, `none`, and files of known hosts are read as well."""
    inner, gate = start_sshd("inner"), start_sshd("gate")
    request.getfixturevalue("no_ssh")
    text = (
        host_lines(inner, "nas", "ProxyJump gate")
        + host_lines(gate, "gate", "ProxyJump none")
        + "Host *\n  ProxyJump never.invalid\n"
    )
    ssh = replace(settings(inner, text), host=f"{ME}@nas")
    storage = open_storage(ssh, "/", "nas")
    assert storage.run(Command(("echo", "there"))).out == "there\n"
    storage.close()


def test_what_paramiko_cannot_read_is_told(tmp_path, no_ssh):
    """Where a name is not found, and only the program knows what it is."""
    file = tmp_path / "config"
    file.write_text("Include config.d/*\n")
    with pytest.raises(
        Unreachable, match=f"What {file} includes was not read, because .*openssh-client"
    ):
        open_storage(Ssh("nas.invalid", config=str(file)), "/", "nas")
    for text in ("Host nas\n  Port x\n", "CanonicalizeHostname yes\n", "Match nonsense\n", "x"):
        file.write_text(text)
        with pytest.raises(Unreachable, match="nas"):
            open_storage(Ssh("nas.invalid", config=str(file)), "/", "nas")


# Another machine never keeps the backup here from being made


@pytest.mark.parametrize(
    ("config_text", "known"),
    [
        ("Foo bar\n", ""),
        ('Match exec "exit 3"\n  Port x\n', ""),
        ("", "@cert-authority *.lan ssh-ed25519 AAAAC3Nz any\n\udcff\x00\n@revoked\n"),
    ],
)
def test_the_backup_here_is_made_whatever_the_files_hold(
    little_stack, sshd, tmp_path, config_text, known
):
    """A vault whose files of ssh are odd is not reached, in words; the other one gets its copy."""
    sshd.config.write_text(config_text)
    sshd.known_hosts.write_bytes(known.encode("utf-8", "surrogateescape"))
    (tmp_path / "usb").mkdir()
    ssh = sshd.login()
    with little_stack.settings.open("a") as stream:
        stream.write(
            f'[[vaults]]\nname = "nas"\nkind = "ssh"\nhost = "{ssh.host}"\nfolder = "/tmp"\n'
            f'port = {ssh.port}\nkey = "{ssh.key}"\nssh_config = "{ssh.config}"\n'
            f'known_hosts = "{ssh.known_hosts}"\n'
            f'[[vaults]]\nname = "usb"\nkind = "folder"\nfolder = "{tmp_path}/usb"\n'
        )
    told = little_stack.run("backup --runtag t1")
    assert told.returncode == 3
    assert "Traceback" not in told.stderr + told.stdout
    assert "nas" in told.stderr + told.stdout
    assert (tmp_path / "usb/t1.manifest.json").exists()
