"""What known_hosts says of a key is what `ssh` makes of it, whatever else is in the file."""

import os
import pty
import re
import shutil
import socket
import subprocess
import sys

import paramiko
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sshd import make_key

from iotstack_invoke.core.errors import KeyRefused, Refused, Unreachable
from iotstack_invoke.hosts import ssh_config
from iotstack_invoke.hosts.known_hosts import KeyVerdict, fits, hashed, keys_in, known_keys
from iotstack_invoke.hosts.ssh import open_storage
from iotstack_invoke.hosts.ssh_connection import Login, offered_key, remember_key
from iotstack_invoke.hosts.ssh_line import judge

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPUyhkifbvz8GGdOZg0R2X+rt89ux0+dwKpPViVMULO0"
ECDSA_SK = (
    "sk-ssh-ed25519@openssh.com "
    "AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIPUyhkifbvz8GGdOZg0R2X+rt89ux0+dwKpPViVMULO0"
    "AAAABHNzaDo="
)
ODD_LINES = (
    "",
    "# a comment",
    "   # one with blanks before",
    KEY,
    f"nas.lan {KEY}",
    f"\tnas.lan\t{KEY.replace(' ', chr(9))}\tcomment and more",
    f"  nas.lan   {KEY}  ",
    f"nas.lan {KEY}\r",
    f"nas.lan,other {KEY}",
    f"other,NAS.LAN {KEY}",
    f"*.lan {KEY}",
    f"n?s.* {KEY}",
    f"*.lan,!nas.lan {KEY}",
    f"!nas.lan {KEY}",
    f"!other,* {KEY}",
    f"[nas.lan]:2222 {KEY}",
    f"[!n]as.lan {KEY}",
    f"nas.lan, {KEY}",
    f",nas.lan {KEY}",
    f"{hashed('nas.lan')} {KEY}",
    f"{hashed('other')} {KEY}",
    f"|1|x|y {KEY}",
    f"|1| {KEY}",
    f"|2|x|y {KEY}",
    f"@cert-authority *.lan {KEY}",
    f"@revoked nas.lan {KEY}",
    f"@revoked * {KEY}",
    f"@else nas.lan {KEY}",
    f"@revoked @revoked nas.lan {KEY}",
    "@revoked",
    "@ nas.lan",
    "nas.lan",
    "nas.lan ssh-ed25519",
    "nas.lan ssh-ed25519 AAAA",
    "nas.lan ssh-ed25519 no base64!",
    f"nas.lan ssh-rsa {KEY.split()[1]}",
    f"nas.lan ssh-dss {KEY.split()[1]}",
    f"nas.lan {ECDSA_SK}",
    f"nas.lan webauthn-sk-ecdsa-sha2-nistp256@openssh.com {KEY.split()[1]}",
    f"nas.lan x{KEY}",
    f"nas.lan 2048 35 {'7' * 300}",
    "ü.lan \udcff\udcfe",
    f"nas.lan\x0b{KEY}",
    f"nas.lan {KEY}\x00more",
    f"na\u2028s.lan {KEY}",
    f"{'*' * 100}b {KEY}",
)


def encoded(lines):
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def test_the_lines_about_a_host_are_those_that_ssh_finds(tmp_path):
    """Each odd line is passed over, or is about a host, as for OpenSSH's own reader."""
    file = tmp_path / "known_hosts"
    file.write_bytes(encoded(ODD_LINES))
    for name in ("nas.lan", "other", "[nas.lan]:2222", "x"):
        told = subprocess.run(
            ["ssh-keygen", "-l", "-F", name, "-f", file], check=False, capture_output=True
        ).stdout.decode("utf-8", "replace")
        theirs = {
            int(each) for each in re.findall(r"^# Host .* found: line (\d+)", told, re.MULTILINE)
        }
        ours = {each.line for each in known_keys(name, [str(file)])}
        assert ours == theirs, [ODD_LINES[n - 1] for n in ours ^ theirs]
        assert name == "x" or theirs


@given(
    st.lists(
        st.one_of(st.binary(max_size=80), st.sampled_from([*map(str.encode, ODD_LINES[:40])]))
    )
)
def test_no_file_is_too_odd_to_be_read(lines):
    """Whatever bytes it holds, a file has keys or has none."""
    for each in keys_in(b"\n".join(lines), "nas.lan", "file"):
        assert each.blob


def test_a_pattern_of_many_stars_is_no_work():
    """A file cannot hold us up: patterns are matched without going back."""
    assert not fits("*a" * 60 + "b", "a" * 250)


def test_places_that_are_no_file_hold_no_keys(tmp_path):
    """A folder, a missing file, a pipe and a name that can be none are passed over."""
    os.mkfifo(tmp_path / "pipe")
    for each in (tmp_path, tmp_path / "none", tmp_path / "pipe", "a\0b"):
        assert known_keys("nas", [str(each)]) == ()


class Server:
    """An sshd with two host keys, and what may be known of them."""

    def __init__(self, server):
        self.server = server
        make_key(server.folder / "other")
        self.words = {
            "name": f"[127.0.0.1]:{server.port}",
            "hash": hashed(f"[127.0.0.1]:{server.port}"),
            "key": self.key("host_key.pub"),
            "rsa": self.key("rsa.pub"),
            "ecdsa": f"ecdsa-sha2-nistp256 {paramiko.ECDSAKey.generate().get_base64()}",
            "other": self.key("other.pub"),
            "sk": ECDSA_SK,
        }
        self.ssh = server.login()

    def key(self, file):
        return " ".join((self.server.folder / file).read_text().split()[:2])

    def refused_by_ssh(self):
        """Tell whether the program refuses the host key."""
        words = [*Login(self.ssh, "nas").words(), "true"]
        told = subprocess.run(
            [*words[:1], "-o", "PreferredAuthentications=none", *words[1:]],
            check=False,
            capture_output=True,
            text=True,
        )
        assert re.search("Host key verification failed|Permission denied", told.stderr), told
        return "Host key verification failed" in told.stderr

    def refused_by_us(self):
        """Tell whether we refuse the host key that the server shows us."""
        login = Login(self.ssh, "nas")
        line = login.closed_connection()
        return judge(login.way, line.offered_key())[0] is not KeyVerdict.KNOWN


@pytest.fixture
def nas(start_sshd, tmp_path):
    make_rsa = ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", tmp_path / "rsa"]
    subprocess.run(make_rsa, check=True)
    server = start_sshd("nas", f"HostKey {tmp_path}/rsa")
    (server.folder / "rsa.pub").write_text((tmp_path / "rsa.pub").read_text())
    return Server(server)


TABLE = (
    ("accepted", "{name} {key}"),
    ("accepted", "{name} {rsa}"),
    ("accepted", "{hash} {key}"),
    ("accepted", "127.0.0.1 {key}"),
    ("accepted", "127.0.* {key}"),
    ("accepted", "a,{name},b {key} comment"),
    ("accepted", "[127.0.0.?]:* {key}"),
    ("accepted", "{name} {other}\n{name} {key}"),
    ("accepted", "{name} {key}\n{name} {other}"),
    ("accepted", "{name} {ecdsa}\n{name} {rsa}"),
    ("accepted", "{name} {ecdsa}\n{name} {key}"),
    ("accepted", "{name} {key}\r\n{name} {rsa}\r\n"),
    ("accepted", "@cert-authority *.lan {other}\n{name} {key}"),
    ("accepted", "@cert-authority * {other}\n{name} {key}"),
    ("accepted", "@revoked {name} {other}\n{name} {key}"),
    ("accepted", "@revoked 127.0.0.1 {key}\n{name} {key}"),
    ("accepted", "{name} {sk}\n{name} {key}"),
    ("accepted", "no key at all\n\n#\n@what {name} {key}\n{name} ssh-ed25519 AA\n{name} {key}"),
    ("refused", ""),
    ("refused", "{name} {other}"),
    ("refused", "127.0.0.1 {other}"),
    ("refused", "127.0.* {rsa}"),  # it is not asked for, as it is not under the name with a port
    ("refused", "{name} {ecdsa}"),
    ("refused", "{name} {sk}"),
    ("accepted", "*,!{name} {key}"),  # by the name without its port
    ("refused", "*,!{name},!127.0.0.1 {key}"),
    ("refused", "127.0.0.1 {key}\n{name} {other}"),
    ("refused", "@revoked {name} {key}\n{name} {key}"),
    ("refused", "{name} {key}\n@revoked * {key}"),
    ("refused", "@revoked {hash} {key}\n{name} {key}"),
    ("refused", "@cert-authority {name} {other}"),
    ("refused", "@cert-authority {name} {key}"),
)


def test_the_verdict_is_that_of_ssh(nas):
    """For each file, the program and we accept the same real server, or both refuse it."""
    for right, text in TABLE:
        nas.server.known_hosts.write_text(text.format(**nas.words))
        verdicts = [refused() for refused in (nas.refused_by_ssh, nas.refused_by_us)]
        assert verdicts == [right == "refused"] * 2, text


@pytest.mark.parametrize("kind", ["list", "krl"])
def test_revoked_keys_of_the_configuration_are_refused(nas, kind, tmp_path):
    """`RevokedHostKeys` is obeyed, be it a list of keys or made by ssh-keygen."""
    make = {"list": ["cp"], "krl": ["ssh-keygen", "-q", "-k", "-f"]}[kind]
    file, key = tmp_path / "revoked", f"{nas.server.host_key}.pub"
    words = [*make, key, file] if kind == "list" else [*make, file, key]
    subprocess.run(words, check=True)
    assert [nas.refused_by_ssh(), nas.refused_by_us()] == [False, False]
    nas.server.config.write_text(f"RevokedHostKeys {file}\n")
    ssh_config._answer.cache_clear()
    assert [nas.refused_by_ssh(), nas.refused_by_us()] == [True, True]
    with pytest.raises(KeyRefused, match=re.escape(str(file))) as failure:
        open_storage(nas.ssh, "/", "nas")
    assert "--trust" not in failure.value.fix


@pytest.fixture
def certified(nas, start_sshd):
    """A server whose certificate is by the key `other`; return what files may say of it."""
    folder, key = nas.server.folder, nas.server.host_key
    make_key(folder / "stranger")
    sign = ["ssh-keygen", "-q", "-s", folder / "other", "-h", "-I", "x", "-z", "7"]
    subprocess.run([*sign, "-n", "127.0.0.1", f"{key}.pub"], check=True, capture_output=True)
    other = start_sshd("certified", f"HostKey {key}", f"HostCertificate {key}-cert.pub")
    nas.server, nas.ssh = other, other.login()
    nas.words |= {"name": f"[127.0.0.1]:{other.port}", "folder": folder}
    nas.words["stranger"] = " ".join((folder / "stranger.pub").read_text().split()[:2])
    return nas


REVOKED_TABLE = (
    ("accepted", "@revoked * {stranger}\n{name} {key}", ""),
    ("accepted", "@cert-authority * {stranger}\n{name} {key}", ""),
    ("accepted", "@revoked *.lan {other}\n{name} {key}", ""),
    ("accepted", "{name} {key}", "{stranger}"),
    ("refused", "{name} {key}\n@revoked * {other}", ""),
    ("refused", "@revoked {name} {other}\n@cert-authority * {other}\n{name} {key}", ""),
    ("refused", "{name} {key}", "{other}"),
)


def test_a_certificate_by_a_revoked_authority_is_refused(certified):
    """As ssh does, though the key itself is known; before a command is begun or a byte sent."""
    file, list_of_keys = certified.server.known_hosts, certified.server.folder / "revoked"
    for right, text, revoked in REVOKED_TABLE:
        file.write_text(text.format(**certified.words))
        list_of_keys.write_text(revoked.format(**certified.words))
        certified.server.config.write_text(f"RevokedHostKeys {list_of_keys}\n" if revoked else "")
        ssh_config._answer.cache_clear()
        assert certified.refused_by_ssh() == (right == "refused"), text
        if right == "accepted":
            open_storage(certified.ssh, "/", "nas").close()
            continue
        with pytest.raises(KeyRefused, match=r"known: .*revoked.*Keys are revoked in") as failure:
            open_storage(certified.ssh, "/", "nas")
        assert str(list_of_keys if revoked else file) in str(failure.value)


def test_a_key_that_a_command_revokes_is_refused(certified):
    """`KnownHostsCommand` says more than the files do; ssh hears it."""
    certified.server.known_hosts.write_text("{name} {key}".format(**certified.words))
    for who in ("stranger", "other"):
        certified.server.config.write_text(
            f"KnownHostsCommand /bin/echo @revoked * {certified.words[who]}\n"
        )
        ssh_config._answer.cache_clear()
        assert certified.refused_by_ssh() == (who == "other")
        if who == "stranger":
            open_storage(certified.ssh, "/", "nas").close()
    with pytest.raises(KeyRefused, match=r"`ssh` refuses its host key, .*: .*CERT"):
        open_storage(certified.ssh, "/", "nas")


def test_revoked_certificates_of_a_krl_are_refused(certified):
    """By their serial number, which is not the key that Paramiko sees."""
    file, krl = certified.server.known_hosts, certified.server.folder / "krl"
    authority = certified.words["folder"] / "other.pub"
    file.write_text("{name} {key}".format(**certified.words))
    certified.server.config.write_text(f"RevokedHostKeys {krl}\n")
    for serial, right in (("8", False), ("7", True)):
        krl.with_name("spec").write_text(f"serial: {serial}\n")
        make = ["ssh-keygen", "-q", "-k", "-f", krl, "-s", authority, krl.with_name("spec")]
        subprocess.run(make, check=True)
        assert certified.refused_by_ssh() == right
        if right:
            with pytest.raises(KeyRefused, match=re.escape(str(krl))):
                open_storage(certified.ssh, "/", "nas")
        else:
            open_storage(certified.ssh, "/", "nas").close()


def test_without_ssh_a_machine_is_refused_where_keys_are_revoked(nas, tmp_path, monkeypatch):
    """Only the program reads certificates of machines; where it does not get in, we do not."""
    nas.server.known_hosts.write_text("{name} {key}\n@revoked * {other}".format(**nas.words))
    open_storage(nas.ssh, "/", "nas").close()
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "ssh").write_text(
        f'#!/bin/sh\n[ "$4" = -G ] && exec {shutil.which("ssh")} "$@"\necho too bad >&2\nexit 255\n'
    )
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(Unreachable, match="`ssh` login failed: too bad"):
        open_storage(nas.ssh, "/", "nas")
    (programs / "ssh").unlink()
    with pytest.raises(KeyRefused, match="Install openssh-client"):
        open_storage(nas.ssh, "/", "nas")


ADDRESS = "::ffff:127.0.0.1"
"""The loopback, by an address that ssh does not take for it: of that it checks none."""
OWN_HOSTS = 'mount --bind "$0" /etc/hosts && exec "$@"'
OPENS = """
import sys
from iotstack_invoke.core.errors import KeyRefused
from iotstack_invoke.hosts.ssh import open_storage
from iotstack_invoke.settings.model import Ssh
name, user, port, key, config, known_hosts = sys.argv[1:]
try:
    open_storage(Ssh(name, user, int(port), key, config, known_hosts), "/", name).close()
except KeyRefused as error:
    sys.exit(f"{error}\\nfix: {error.fix}")
"""


@pytest.fixture
def named(nas, tmp_path):
    """Return what runs a program where the server is known as `nas.lan`, at ADDRESS."""
    try:
        socket.create_connection((ADDRESS, nas.server.port)).close()
    except OSError:
        pytest.skip("no IPv6")
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{ADDRESS} nas.lan\n")
    own = ("unshare", "--mount", "--propagation", "private", "sh", "-c", OWN_HOSTS, hosts)
    if subprocess.run([*own, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespace: needs root")
    nas.ssh = nas.server.login(host="nas.lan")
    port = nas.server.port
    nas.words |= {"name": f"[nas.lan]:{port}", "address": f"[{ADDRESS}]:{port}"}

    def run(*words):
        return subprocess.run(
            [*own, *words], check=False, capture_output=True, text=True, timeout=60
        )

    return run


ADDRESS_TABLE = (
    ("accepted", "{name} {key}", "yes"),
    ("accepted", "{name} {key}\n{address} {key}", "yes"),
    ("accepted", "{name} {key}\n{address} {other}", "no"),
    ("accepted", "{name} {key}\n::ffff:127.0.0.1 {other}", "yes"),
    ("accepted", "{name} {key}\n@revoked {address} {key}", "yes"),
    ("refused", "{name} {key}\n{address} {other}", "yes"),
    ("refused", "nas.lan {key}\n{address} {other}", "yes"),
    ("refused", "{address} {key}", "yes"),
)


def test_an_address_of_which_another_key_is_known_is_refused_as_by_ssh(nas, named):
    """`CheckHostIP yes`, the default before OpenSSH 8.5; what ssh learns of an address stays."""
    ssh, file = nas.ssh, nas.server.known_hosts
    ours = (sys.executable, "-c", OPENS, ssh.host, ssh.user, str(ssh.port), ssh.key, ssh.config)
    for right, text, checks in ADDRESS_TABLE:
        nas.server.config.write_text(f"CheckHostIP {checks}\n")
        ssh_config._answer.cache_clear()
        learnt = set()
        for words in ((*Login(ssh, "nas").words(), "true"), (*ours, ssh.known_hosts)):
            file.write_text(text.format(**nas.words) + "\n")
            told = named(*words)
            assert (told.returncode != 0) == (right == "refused"), (words, text, told.stderr)
            learnt.add(file.read_text())
        assert len(learnt) == 1, text
        if right == "refused" and "{other}" in text:
            address = nas.words["address"]
            assert (
                f"its address {address} is known with another key ({file}, line 2)" in told.stderr
            )
            assert f"fix: ssh-keygen -f {file} -R '{address}'" in told.stderr


@pytest.mark.parametrize(
    "line", ["CheckHostIP yes", "CheckHostIP True", "KnownHostsCommand /bin/echo"]
)
def test_what_ssh_alone_verifies_is_told_where_there_is_none(nas, monkeypatch, line):
    """In a whole sentence, however the value is written."""
    nas.server.known_hosts.write_text("{name} {key}\n".format(**nas.words))
    nas.server.config.write_text(f"{line}\n")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(KeyRefused) as failure:
        open_storage(nas.ssh, "/", "nas")
    assert str(failure.value) == (
        "nas (127.0.0.1) cannot be verified. Only `ssh` supports CheckHostIP and "
        "KnownHostsCommand. Install openssh-client."
    )


def refused(nas, text):
    """Return what is said of a server of which known_hosts says this."""
    nas.server.known_hosts.write_text(text.format(**nas.words))
    with pytest.raises(KeyRefused) as failure:
        open_storage(nas.ssh, "/", "nas")
    return failure.value


def test_why_a_key_is_refused_is_told(nas):
    """With the line that says so; a revoked key cannot be trusted, also not by `--trust`."""
    file = nas.server.known_hosts
    told = refused(nas, "\n@revoked {name} {key}\n{name} {key}")
    assert f"has a revoked host key ({file}, line 2)" in str(told)
    assert "--trust" not in told.fix
    with pytest.raises(KeyRefused, match="has a revoked host key"):
        offered_key(nas.ssh, "nas")
    told = refused(nas, "@cert-authority {name} {other}")
    assert f"is known only by a certificate ({file}, line 1)" in str(told)
    assert "run `inv hosts --trust nas`" in str(told)
    assert f"A key of another type is known ({file}, line 1)" in str(
        refused(nas, "{name} {ecdsa}")
    )
    told = refused(nas, "\n\n{name} {other}")
    assert f"a different host key than the known one ({file}, line 3)" in str(told)
    with pytest.raises(KeyRefused, match="If that matches, remove the old key with `"):
        offered_key(nas.ssh, "nas")


def trust(nas, config, name="127.0.0.1"):
    """Trust the server under a configuration, and return the new line; ssh accepts it then."""
    nas.server.config.write_text(config)
    ssh_config._answer.cache_clear()
    nas.ssh = nas.server.login(host=name)
    key = offered_key(nas.ssh, "nas")
    assert not key.is_known
    file = remember_key(key)
    assert not nas.refused_by_ssh()
    open_storage(nas.ssh, "/", "nas").close()
    assert offered_key(nas.ssh, "nas").is_known
    with open(file) as stream:
        return stream.read().splitlines()[-1]


def test_a_trusted_key_is_where_ssh_looks_for_it(nas):
    """Under the name that it looks for, hashed where it hashes; no line before it is spoilt."""
    nas.server.known_hosts.write_text("# no line end")
    assert trust(nas, "").startswith(f"{nas.words['name']} ssh-ed25519 ")
    assert nas.server.known_hosts.read_text().startswith("# no line end\n")
    nas.server.known_hosts.unlink()
    assert trust(nas, "HashKnownHosts yes\n").startswith("|1|")
    assert trust(nas, "HostKeyAlias the-nas\n").startswith("the-nas ssh-ed25519 ")


def test_a_trusted_key_goes_to_the_first_of_the_users_files(nas, tmp_path):
    """Where hosts.toml names none, ssh's own; without any, nothing is written."""
    link, files = tmp_path / "link", tmp_path / "made/here"
    link.symlink_to(files)
    config = f"Host nas\n  HostName 127.0.0.1\n  UserKnownHostsFile {link} {tmp_path}/b\n"
    nas.server.login = lambda **given: type(nas.ssh)(
        "nas", nas.ssh.user, nas.ssh.port, nas.ssh.key, nas.ssh.config
    )
    trust(nas, config, "nas")
    assert "ssh-ed25519" in files.read_text()
    for nothing in ("none", "/dev/null"):
        nas.server.config.write_text(
            f"Host nas\n  HostName 127.0.0.1\n  UserKnownHostsFile {nothing}\n"
        )
        ssh_config._answer.cache_clear()
        with pytest.raises(Refused, match="Nothing was written"):
            remember_key(offered_key(nas.ssh, "nas"))
    with pytest.raises(Unreachable, match="is not known"):
        open_storage(nas.ssh, "/", "nas")


def test_a_host_that_is_known_by_its_certificate_alone_is_told(nas, start_sshd):
    """`ssh` accepts it and we do not, in words; with the key itself both do."""
    sign = [
        "ssh-keygen",
        "-q",
        "-s",
        nas.server.folder / "other",
        "-h",
        "-I",
        "x",
        "-n",
        "127.0.0.1",
    ]
    subprocess.run([*sign, f"{nas.server.host_key}.pub"], check=True, capture_output=True)
    certified = f"HostCertificate {nas.server.host_key}-cert.pub"
    other = start_sshd("other", f"HostKey {nas.server.host_key}", certified)
    known = f"@cert-authority [127.0.0.1]:{other.port} {nas.words['other']}\n"
    nas.server, nas.ssh = other, other.login()
    other.known_hosts.write_text(known)
    assert not nas.refused_by_ssh()
    with pytest.raises(KeyRefused, match=r"only by a certificate .*, which `ssh` can verify"):
        open_storage(nas.ssh, "/", "nas")
    remember_key(offered_key(nas.ssh, "nas"))
    assert not nas.refused_by_ssh()
    open_storage(nas.ssh, "/", "nas").close()


def name_it(stack, nas):
    """Put the machine into the settings of a stack."""
    with stack.settings.open("a") as stream:
        stream.write(
            f'[[hosts]]\nname = "pi"\nhost = "127.0.0.1"\nport = {nas.ssh.port}\n'
            f'key = "{nas.ssh.key}"\nssh_config = "{nas.ssh.config}"\n'
            f'known_hosts = "{nas.ssh.known_hosts}"\n'
        )


@pytest.mark.parametrize(
    ("answer", "code"), [("y", 0), ("Yes", 0), ("", 13), ("n", 13), ("yess", 13)]
)
def test_a_key_is_trusted_by_a_word_and_by_its_letter(nas, little_stack, answer, code):
    """Whatever else is answered, nothing is written."""
    name_it(little_stack, nas)
    nas.server.known_hosts.unlink()
    screen, terminal = pty.openpty()
    process = little_stack.start("hosts --trust pi", stdin=terminal)
    os.write(screen, f"{answer}\n".encode())
    _, said = process.communicate(timeout=60)
    for each in (screen, terminal):
        os.close(each)
    assert process.returncode == code, said
    assert nas.server.known_hosts.exists() == (code == 0)


def test_trusting_a_machine_twice_writes_once(nas, little_stack):
    """The task says that it is known; a revoked key is refused (13), and doctor sends nobody to it."""
    name_it(little_stack, nas)
    nas.server.known_hosts.unlink()
    told = little_stack.run("hosts --trust pi --yes")
    assert (told.returncode, told.stderr) == (0, "")
    assert f"Written to {nas.ssh.known_hosts}." in told.stdout
    written = nas.server.known_hosts.read_text()
    told = little_stack.run("hosts --trust pi --yes")
    assert (told.returncode, "The key is known already" in told.stdout) == (0, True)
    assert nas.server.known_hosts.read_text() == written
    nas.server.known_hosts.write_text(written + f"@revoked * {nas.words['key']}\n")
    told = little_stack.run("hosts --trust pi --yes")
    assert (told.returncode, "has a revoked host key" in told.stderr) == (13, True)
    told = little_stack.run("doctor --host pi")
    assert "has a revoked host key" in told.stdout
    assert "--trust" not in told.stdout
