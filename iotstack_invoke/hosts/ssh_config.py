"""How `ssh` itself would reach another machine: the answer of `ssh -G`, as frozen values.

No configuration is read here, except by Paramiko if there is no `ssh` program. Not for: what
known_hosts says of a key (known_hosts.py), the connection (ssh_connection.py).
"""

from __future__ import annotations

import functools
import getpass
import hashlib
import os
import pwd
import re
import shlex
import shutil
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace

import paramiko
from paramiko import SSHException

from ..core.dataclass import dataclass
from ..core.errors import StepFailed, Unreachable, ended
from .base import ANY_EXIT, Command
from .known_hosts import SSH_PORT, name_with_port
from .local import LocalHost
from .ssh_settings import Ssh

CONNECT_LIMIT_S = 15
ANSWER_LIMIT_S = 30.0
"""For `ssh -G`: it may query name servers, and runs the commands of `Match exec`."""
MOST_GATEWAYS = 8
USERS_FILE, SYSTEMS_FILE = "~/.ssh/config", "/etc/ssh/ssh_config"
DEFAULTS = {
    "identityfile": tuple(f"~/.ssh/id_{each}" for each in ("rsa", "ecdsa", "ed25519")),
    "userknownhostsfile": ("~/.ssh/known_hosts ~/.ssh/known_hosts2",),
    "globalknownhostsfile": ("/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2",),
    "identityagent": ("SSH_AUTH_SOCK",),
}
"""The defaults for what Paramiko reads, which has none."""
ALGORITHMS = {
    "kexalgorithms": "kex",
    "ciphers": "ciphers",
    "macs": "digests",
    "hostkeyalgorithms": "key_types",
}
"""The names in ssh, and those in Paramiko's SecurityOptions."""
ALIASES = {"curve25519-sha256": "curve25519-sha256@libssh.org"}
"""Two names of one algorithm; Paramiko knows the second."""

_HOP = re.compile(
    r"(?:ssh://)?(?:(?P<user>.*)@)?(?:\[(?P<address>[^\]]+)\]|(?P<host>[^:/]+))(?::(?P<port>\d+))?/?"
)
FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
FOR_A_COMMAND = ("ssh", "-T", "-o", "RemoteCommand=none")
"""If a configuration has a RemoteCommand, ssh refuses any other, even when only asked with -G."""
PLAIN = {
    "sessiontype": "default",
    "stdinnull": "no",
    "forkafterauthentication": "no",
    "permitlocalcommand": "no",
    "controlmaster": "false",
    "controlpath": "none",
    "forwardagent": "no",
    "forwardx11": "no",
    "loglevel": "INFO",
    "visualhostkey": "no",
    "clearallforwardings": "yes",
}
"""The options for running a command, whatever a user configured for interactive logins.

Some user settings refuse a command or consume its input; with a shared connection it ends when
that is closed.
"""

_INCLUDE = re.compile(r"^\s*include\b", re.IGNORECASE | re.MULTILINE)
_NOISE = re.compile(r"terminating, \d+ bad configuration options|^Warning: Identity file ")

Answer = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Way:
    """How a machine is reached, and the name and files under which its key is known."""

    asked: str
    """The name in hosts.toml or `ProxyJump`."""
    host: str
    port: int
    user: str
    identities: tuple[str, ...]
    """The key files that exist, at least their public halves, in ssh's order."""
    certificates: tuple[str, ...]
    identities_only: bool
    bound_to: str
    """The local address that the connection comes from, '' for any."""
    bound_interface: str
    family: int
    """Address family: socket.AF_INET, AF_INET6, or AF_UNSPEC for both."""
    unshown: str
    """A sentence about keys that are not offered, and how to fix that; '' for none."""
    accepted_keys: tuple[str, ...]
    """The algorithms with which our keys may be offered; () if any may be."""
    least_rsa_bits: int
    agent: str
    """The socket of the agent, '' for none."""
    alias: str
    own_known_hosts: tuple[str, ...]
    """The user's files; a new key is added to the first."""
    system_known_hosts: tuple[str, ...]
    revoked_keys: str
    hashes_names: bool
    limit_s: int
    """The time limit for the machine's answer."""
    algorithms: tuple[tuple[str, tuple[str, ...]], ...]
    """The allowed algorithms, by SecurityOptions' names; () if Paramiko's own choice applies."""
    command: str
    """The ProxyCommand with its tokens expanded; '' for none."""
    is_handed_over: bool
    """Whether the ProxyCommand opens a connection and passes it on, not copying the data."""
    gateway: Way | None
    plainly: tuple[str, ...]
    """The flags that switch off interactive features of `ssh` (PLAIN)."""
    is_verified_further: bool
    """Whether ssh checks more than files of known keys: an address, the output of a command."""
    unread: str
    """A sentence about options that only the `ssh` program reads, if that is missing."""

    @property
    def known_as(self) -> str:
        """The name under which known_hosts has the machine."""
        return self.alias or name_with_port(self.host, self.port)

    @property
    def known_hosts(self) -> tuple[str, ...]:
        """All files with known keys."""
        return self.own_known_hosts + self.system_known_hosts

    @property
    def first(self) -> Way:
        """The machine that this way connects to first."""
        return self.gateway.first if self.gateway else self

    @property
    def machines(self) -> tuple[Way, ...]:
        """The machine, and the gateways on the way to it."""
        return (self, *(self.gateway.machines if self.gateway else ()))


def flags(ssh: Ssh) -> tuple[str, ...]:
    """Return the settings of hosts.toml as flags of `ssh`."""
    return (
        *(("-F", ssh.config) if ssh.config else ()),
        *(("-o", f"UserKnownHostsFile={_one_file(ssh.known_hosts)}") if ssh.known_hosts else ()),
        *(("-p", str(ssh.port)) if ssh.port else ()),
        *(("-i", _escaped(ssh.key)) if ssh.key else ()),
        *(("-l", ssh.user) if ssh.user else ()),
    )


def find_way(ssh: Ssh, name: str) -> Way:
    """Return how ssh reaches a machine.

    Raises Unreachable if ssh has no answer, if it cannot be read, or if ProxyJump is wrong.
    """
    return _way(ssh, name, "", 0)


def _way(ssh: Ssh, name: str, jumps: str, depth: int) -> Way:
    """Return the way to a machine through `jumps`, in place of the configured ones."""
    if depth > MOST_GATEWAYS:
        raise Unreachable(f"{name}: ProxyJump in the ssh configuration forms a circle.")
    if shutil.which("ssh"):
        answer, unread = _asked(ssh, name, jumps), ""
    else:
        answer, unread = _read_plainly(ssh, name)
    way = _read_answer(ssh, answer, unread)
    rest, _, last = (jumps or _word(answer, "proxyjump")).rpartition(",")
    if not last:
        return way
    hop = _HOP.fullmatch(last.strip())
    if hop is None:
        raise Unreachable(f"{name}: ProxyJump {last} in the ssh configuration is not a host.")
    through = Ssh(
        hop["address"] or hop["host"], hop["user"] or "", int(hop["port"] or 0), config=ssh.config
    )
    return replace(way, command="", gateway=_way(through, name, rest, depth + 1))


def _asked(ssh: Ssh, name: str, jumps: str) -> Answer:
    """Return the answer of `ssh -G`; raises Unreachable if it fails."""
    through = ("-J", jumps) if jumps else ()
    try:
        return _answer((*FOR_A_COMMAND, "-G", *flags(ssh), *through, "--", ssh.host, "true"))
    except StepFailed as error:
        raise Unreachable(
            f"{name}: `ssh` cannot resolve {ssh.host}: {error}", again=error.again
        ) from error


@functools.cache
def _answer(words: tuple[str, ...]) -> Answer:
    """Return all values of each keyword, asked once in a run; raises StepFailed."""
    told = LocalHost("/").run(Command(words, ANY_EXIT, ANSWER_LIMIT_S))
    if told.exit_code:
        said = [each for each in told.err.splitlines() if each.strip() and not _NOISE.search(each)]
        raise StepFailed(ended("; ".join(dict.fromkeys(said)) or f"exit {told.exit_code}"))
    answer: dict[str, tuple[str, ...]] = {}
    for line in told.out.split("\n"):
        key, _, value = line.strip("\r").partition(" ")
        answer[key.lower()] = (*answer.get(key.lower(), ()), value)
    return answer


def _read_plainly(ssh: Ssh, name: str) -> tuple[Answer, str]:
    """Return what Paramiko reads of the configuration, and a sentence about the rest."""
    config, included = paramiko.SSHConfig(), []
    user, _, host = ssh.host.rpartition("@")
    files = (ssh.config,) if ssh.config else tuple(map(_from_home, (USERS_FILE, SYSTEMS_FILE)))
    try:
        for file in files:
            if ssh.config or os.path.isfile(file):
                with open(file, encoding="utf-8", errors="surrogateescape") as stream:
                    text = stream.read()
                config.parse(text.splitlines())
                included += [file] if _INCLUDE.search(text) else []
        found = config.lookup(host)
    except OSError as error:
        raise Unreachable(f"{name}: cannot read {file}: {error.strerror}.") from error
    except (SSHException, ValueError, KeyError) as error:
        raise Unreachable(
            f"{name}: {' and '.join(files)} cannot be parsed: {ended(str(error))} Install "
            "openssh-client, whose `ssh` program can read them."
        ) from error
    answer: dict[str, tuple[str, ...]] = dict(DEFAULTS)
    for key, value in found.items():
        if value is not None:
            answer[key] = tuple(value) if isinstance(value, list) else (str(value),)
    given = {"user": ssh.user or user, "port": str(ssh.port or ""), "host": host}
    given["userknownhostsfile"] = ssh.known_hosts
    answer |= {key: (value,) for key, value in given.items() if value}
    if ssh.key:
        answer["identityfile"] = (ssh.key, *found.get("identityfile", ()))
    unread = (
        f" What {' and '.join(included)} includes was not read, because the `ssh` program is "
        "missing. Install openssh-client."
    )
    return answer, unread if included else ""


def _read_answer(ssh: Ssh, answer: Answer, unread: str) -> Way:
    """Return the way that an answer describes, without its gateways."""
    host = _word(answer, "hostname") or ssh.host
    port = _number(answer, "port") or SSH_PORT
    user = _word(answer, "user") or getpass.getuser()
    alias = _word(answer, "hostkeyalias")
    asked = _word(answer, "host") or ssh.host
    tokens = {
        "%": "%",
        "h": host,
        "n": asked,
        "p": str(port),
        "r": user,
        "k": alias or asked,
        "j": _word(answer, "proxyjump"),
        "u": getpass.getuser(),
        "i": str(os.getuid()),
        "d": _home(),
        "l": socket.gethostname(),
        "L": socket.gethostname().partition(".")[0],
    }
    one = "".join(tokens[each] for each in "lhprj").encode("utf-8", "surrogateescape")
    tokens["C"] = hashlib.sha1(one, usedforsecurity=False).hexdigest()

    def filled(text: str) -> str:
        return re.sub("%(.)", lambda found: tokens.get(found[1], found[0]), text)

    def files(key: str) -> tuple[str, ...]:
        words = (filled(_variables(each)) for each in answer.get(key, ()) if each != "none")
        return tuple(map(_from_home, words))

    ways_in = _word(answer, "preferredauthentications") or "publickey"
    shows_keys = "publickey" in ways_in.split(",") and _word(
        answer, "pubkeyauthentication"
    ) not in ("no", "false")
    card = _word(answer, "pkcs11provider")
    if not shows_keys:
        unshown = (
            "The ssh configuration forbids login with a key (PubkeyAuthentication, "
            "PreferredAuthentications), and no other method works here."
        )
    elif card:
        unshown = f"Keys of {card} need an agent: `ssh-add -s {shlex.quote(card)}`."
    else:
        unshown = ""
    accepted = _word(answer, "pubkeyacceptedalgorithms") or _word(answer, "pubkeyacceptedkeytypes")
    identities = files("identityfile") if shows_keys else ()
    if shows_keys and ssh.key and ssh.key not in identities:  # ssh ignores missing files
        identities = (ssh.key, *identities)
    return Way(
        asked=asked,
        host=host,
        port=port,
        user=user,
        identities=tuple(e for e in dict.fromkeys(identities) if e == ssh.key or _has_half(e)),
        certificates=tuple(filter(_is_file, files("certificatefile"))),
        identities_only=_is_on(answer, "identitiesonly"),
        bound_to=_word(answer, "bindaddress"),
        bound_interface=_word(answer, "bindinterface"),
        family=FAMILIES.get(_word(answer, "addressfamily"), socket.AF_UNSPEC),
        unshown=unshown,
        accepted_keys=tuple(accepted.split(",")) if accepted and not unread else (),
        least_rsa_bits=_number(answer, "requiredrsasize"),
        agent=_agent(
            next(iter(answer.get("identityagent", ())), "SSH_AUTH_SOCK") if shows_keys else "none",
            filled,
        ),
        alias=alias,
        own_known_hosts=_files(answer, "userknownhostsfile", filled),
        system_known_hosts=_files(answer, "globalknownhostsfile", filled),
        revoked_keys=next(iter(files("revokedhostkeys")), ""),
        hashes_names=_is_on(answer, "hashknownhosts"),
        limit_s=_number(answer, "connecttimeout") or CONNECT_LIMIT_S,
        algorithms=tuple(
            (ours, tuple(ALIASES.get(e, e) for e in _word(answer, theirs).split(",")))
            for theirs, ours in ALGORITHMS.items()
            if not unread and _word(answer, theirs)
        ),
        command=filled(_word(answer, "proxycommand")),
        is_handed_over=_is_on(answer, "proxyusefdpass"),
        gateway=None,
        plainly=tuple(
            word
            for key, plain in PLAIN.items()
            if answer.get(key, (plain,)) != (plain,)  # older versions lack some of them
            for word in ("-o", f"{key}={plain}")
        ),
        is_verified_further=(
            _is_on(answer, "checkhostip") or bool(_word(answer, "knownhostscommand"))
        ),
        unread=unread,
    )


def _word(answer: Answer, key: str) -> str:
    """Return the value of a keyword, '' if it has none or is `none`."""
    told = next(iter(answer.get(key, ())), "").strip()
    return "" if told.lower() == "none" else told


def _is_on(answer: Answer, key: str) -> bool:
    """Return whether a keyword is on; Paramiko keeps the value as written."""
    return _word(answer, key).lower() in ("yes", "true")


def _number(answer: Answer, key: str) -> int:
    told = _word(answer, key)
    return int(told) if told.isdecimal() else 0


def _files(answer: Answer, key: str, filled: Callable[[str], str]) -> tuple[str, ...]:
    """Return the files of a list; `ssh -G` prints a path with spaces unquoted."""
    words = _word(answer, key).split(" ")
    found = []
    while words:
        longest = next((n for n in range(len(words), 1, -1) if _is_file(" ".join(words[:n]))), 1)
        found.append(_from_home(filled(_variables(" ".join(words[:longest])))))
        words = words[longest:]
    return tuple(filter(None, found))


def _agent(told: str, filled: Callable[[str], str]) -> str:
    """Return the socket of `IdentityAgent`: a path, or a variable that holds it."""
    if told == "none":
        return ""
    name = told.removeprefix("$") if told.startswith("$") and "{" not in told else ""
    if told == "SSH_AUTH_SOCK" or name:
        return os.environ.get(name or told, "")
    return _from_home(filled(_variables(told)))


def _variables(text: str) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda found: os.environ.get(found[1], found[0]), text)


def _from_home(path: str) -> str:
    """Return a path with ~ expanded to the home in the user database, as ssh does."""
    if path == "~" or path.startswith("~/"):
        return _home() + path[1:]
    return os.path.expanduser(path)


def _home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return os.path.expanduser("~")


def _is_file(path: str) -> bool:
    try:
        return os.path.isfile(path)
    except ValueError:  # a null byte
        return False


def _has_half(key: str) -> bool:
    """Return whether a key or its public half exists: an agent may hold the private one."""
    return any(_is_file(key + end) for end in ("", ".pub", "-cert.pub"))


def _escaped(path: str) -> str:
    """Return a path with its percent signs doubled, for a program that expands tokens."""
    return path.replace("%", "%%") if _is_file(path) else path


def _one_file(path: str) -> str:
    """Return a path quoted for `UserKnownHostsFile`, which takes a list separated by spaces."""
    if not _is_file(path) or not re.search(r"[\s%'\"\\]", path):
        return path
    return '"' + re.sub(r'(["\\])', r"\\\1", _escaped(path)) + '"'
