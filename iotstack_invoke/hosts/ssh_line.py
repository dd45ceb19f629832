"""A connection to another machine as `ssh` would open it, with gateways, keys and host key.

Fabric's connection, given everything by a Way (ssh_config.py), so that it reads no settings. Not
for: what runs over it (ssh_connection.py). Fabric takes a fifth of a second to import.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import shlex
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import IO, Any, cast

import fabric
import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from paramiko import AuthenticationException, ChannelException, SSHException
from paramiko.agent import AgentKey, AgentSSH
from paramiko.packet import Packetizer
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import IncompatiblePeer
from paramiko.transport import ChannelMap

from ..core import processes
from ..core.errors import ended
from .base import ANY_EXIT, Command
from .known_hosts import KeyVerdict, KnownKey, known_keys, listed, name_with_port, verdict
from .local import LocalHost
from .ssh_config import Way

KRL = b"SSHKRL\n\0"
KRL_REVOKED_EXIT = 1
SO_BINDTODEVICE = 25
"""Linux only; other systems refuse the option."""
CHANNEL_LIMIT_S = 60.0
"""How long a server may take to open a session."""
MOST_PACKET_BYTES = 1 << 20
"""RFC 4253 requires 35,000, OpenSSH sends at most 256 KiB."""
MOST_BANNER_BYTES = 1 << 16
"""The most that a server may send before its SSH version (RFC 4253, 4.2)."""
MOST_WORDS_BYTES = 1 << 12
"""How much is read of the end of a ProxyCommand's error output."""
MOST_WHY_LETTERS = 100
"""How many characters are shown of why a message could not be read."""
SIGNATURE_BYTES = 64
"""Of an Ed25519 signature."""
AGENT_LIMIT_S = 60.0
"""For an answer of the agent, which may ask its owner."""
SECURITY_KEY, LENGTH_BYTES = b"sk-", 4
"""How the type of a key in a hardware token begins, after its length."""
OWN_KIND = b"openssh-key-v1\0"
"""The beginning of OpenSSH's private keys (PROTOCOL.key)."""
READ_AS: Mapping[type, type[paramiko.PKey]] = {
    rsa.RSAPrivateKey: paramiko.RSAKey,
    ed25519.Ed25519PrivateKey: paramiko.Ed25519Key,
    ec.EllipticCurvePrivateKey: paramiko.ECDSAKey,
}
COMMON = {
    "kex": ("key exchanges", "kex_algo_list", "KexAlgorithms", "curve25519-sha256@libssh.org"),
    "host key": ("kinds of host keys", "server_key_algo_list", "HostKey", "an Ed25519 key"),
    "cipher": ("ciphers", "server_encrypt_algo_list", "Ciphers", "aes256-ctr"),
    "macs": ("MACs", "server_mac_algo_list", "MACs", "hmac-sha2-256"),
}
"""By Paramiko's word for what client and server have not in common: our name for it, where the
server's offer is, the sshd setting, and what both know."""
AGENTS = "the agent's "
NOT_SIGNED = "The agent does not sign with {}: it was not confirmed, or its card is missing."
TOO_MANY_KEYS = (
    "It may allow fewer attempts (MaxAuthTries) than the agent has keys: set `IdentitiesOnly "
    "yes` and the right key as `IdentityFile` in the ssh configuration."
)
UNUSABLE = (OSError, ValueError, SSHException, UnknownKeyType, UnsupportedAlgorithm)
"""The errors for a file without a key, or with one that Paramiko does not support."""


class HostKeyRefused(SSHException):
    """A machine showed a key that known_hosts does not confirm."""

    def __init__(
        self, way: Way, found: KeyVerdict, known: tuple[KnownKey, ...], key: paramiko.PKey
    ) -> None:
        super().__init__(f"the host key of {way.known_as} is {found.value}")
        self.way = way
        self.found = found
        self.known = known
        self.key = key


class LoginRefused(AuthenticationException):
    """A machine accepts none of our keys; the message says why, as far as is known.

    `unusable`: sentences about keys that were not offered, and how to fix that.
    """

    def __init__(self, way: Way, why: str, unusable: str = "") -> None:
        super().__init__(why)
        self.way = way
        self.unusable = unusable


class Line(fabric.Connection):  # type: ignore[misc]
    """A Fabric connection along a way, not opened yet, with those to its gateways.

    Fabric alone accepts any host: it sets AutoAddPolicy and loads no known_hosts (fabric#2071,
    measured).
    """

    def __init__(self, way: Way, config: fabric.Config) -> None:
        super().__init__(
            way.host,
            user=way.user,
            port=way.port,
            gateway=Line(way.gateway, config) if way.gateway else way.command or False,
            config=config,
            connect_timeout=way.limit_s,
            connect_kwargs={
                "transport_factory": self._begin,
                "auth_strategy": _Keys(way),
                "channel_timeout": CHANNEL_LIMIT_S,
            },
        )
        self._set(way=way, _proxy=None, _offers={})
        self.client.set_missing_host_key_policy(_KnownHostPolicy(way))

    def _begin(self, sock: Any, **given: Any) -> paramiko.Transport:
        """Return Paramiko's transport, which keeps what the server offers."""
        transport: Any = _transport(self.way, sock, **given)
        read = transport._really_parse_kex_init  # noqa: SLF001 - otherwise it is only in its log

        def offers(message: paramiko.Message) -> dict[str, Any]:
            self._set(_offers=read(message))
            return dict(self._offers)

        transport._really_parse_kex_init = offers  # noqa: SLF001
        return cast("paramiko.Transport", transport)

    def derive_shorthand(self, host_string: str) -> dict[str, str | None]:
        """Return the host unchanged: ssh has parsed it."""
        return {"host": host_string, "user": None, "port": None}

    def open(self) -> Any:
        """Open the connection and its gateways; all are closed if one fails."""
        try:
            if not self.gateway and not self.is_connected:
                self.connect_kwargs["sock"] = _dialled(self.way)
            return super().open()
        except BaseException as error:
            self.client.close()
            self._close_gateway()
            refused = isinstance(error, (HostKeyRefused, LoginRefused))
            if self._proxy and self._proxy.last_line and not refused:
                raise SSHException(f"its ProxyCommand printed: {self._proxy.last_line}") from error
            if isinstance(error, IncompatiblePeer):
                raise SSHException(_nothing_in_common(self._offers, str(error))) from error
            raise

    def close(self) -> None:
        """Close the connection and its gateways."""
        super().close()
        self._close_gateway()

    def _close_gateway(self) -> None:
        if self._proxy:
            self._proxy.close()
        if isinstance(self.gateway, Line):
            self.gateway.close()

    def open_gateway(self) -> Any:
        """Return what carries the bytes: a program, or a channel of the gateway."""
        if isinstance(self.gateway, str):
            self._set(_proxy=_Proxy(self.gateway))
            if self.way.is_handed_over:
                self._proxy.take_over(self.connect_timeout)
            return self._proxy
        self.gateway.open()
        there = (self.host, self.port)
        try:
            return self.gateway.transport.open_channel(
                "direct-tcpip", there, ("", 0), timeout=self.connect_timeout
            )
        except ChannelException as error:
            asked = self.gateway.way.asked
            raise SSHException(
                f"{asked} does not reach {name_with_port(*there)}: {error.text}"
            ) from error

    def offered_key(self) -> paramiko.PKey:
        """Return the key that the machine offers now, unverified."""
        try:
            sock = self.open_gateway() if self.gateway else _dialled(self.way)
            transport = self._begin(sock)
            try:
                transport.start_client(timeout=self.connect_timeout)
                return transport.get_remote_server_key()
            except IncompatiblePeer as error:
                raise SSHException(_nothing_in_common(self._offers, str(error))) from error
            finally:
                transport.close()
        finally:
            self.close()


def _nothing_in_common(offers: Mapping[str, Any], said: str) -> str:
    """Return which algorithms a server offers, if Paramiko has none of them, and what to do."""
    for word, (what, key, setting, usual) in COMMON.items():
        if word in said:
            theirs = ", ".join(offers.get(key, ()))
            return (
                f"none of the {what} that it offers ({theirs}) is supported by Paramiko, used "
                f"here, and allowed by the ssh configuration. Add {usual} to `{setting}` in the "
                "sshd_config there"
            )
    return said


def _dialled(way: Way) -> socket.socket:
    """Return a TCP connection to a machine, from the address that ssh uses; raises OSError."""
    failure: OSError | None = None
    try:
        found = socket.getaddrinfo(way.host, way.port, way.family, socket.SOCK_STREAM)
    except UnicodeError as error:  # such as `pi..local`
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from error
    for family, *_, address in found:
        line = socket.socket(family)
        try:
            line.settimeout(way.limit_s)
            if way.bound_interface:
                name = os.fsencode(way.bound_interface)
                line.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, name)
            if way.bound_to:
                line.bind(socket.getaddrinfo(way.bound_to, 0, family)[0][4])
            line.connect(address)
        except OSError as error:
            line.close()
            failure = error
        else:
            return line
    raise failure or OSError(f"{way.host} has no address")


class _Proxy(socket.socket):
    """Our end of a connection through a ProxyCommand, whose program ends with it."""

    last_words = ""
    """The last line of the program's error output, set when the connection is closed."""

    def __init__(self, command: str) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(fileno=ours.detach())
        self._at_the_end = contextlib.ExitStack()
        said = self._at_the_end.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        self._at_the_end.callback(self._listen, said)
        shell = os.environ.get("SHELL") or "/bin/sh"  # as ssh_config(5) says
        with theirs, processes.signals_held():
            process = subprocess.Popen(
                (shell, "-c", f"exec {command}"),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=said,
                start_new_session=True,
            )
            self._at_the_end.enter_context(processes.watched(process))

    def take_over(self, limit_s: float) -> None:
        """Become the connection that the program opens and passes on (`ProxyUseFdpass`)."""
        self.settimeout(limit_s)
        _, passed, _, _ = socket.recv_fds(self, 1, 1)
        if not passed:
            raise SSHException("its ProxyCommand passed no connection")
        os.dup2(passed[0], self.fileno())
        os.close(passed[0])

    def _listen(self, said: IO[bytes]) -> None:
        said.seek(max(0, said.seek(0, os.SEEK_END) - MOST_WORDS_BYTES))
        words = said.read().decode("utf-8", "replace").strip()
        self.last_line = words.rpartition("\n")[2].strip()

    def close(self) -> None:
        """Close the connection, and end the program."""
        super().close()
        self._at_the_end.close()


def known_of(way: Way) -> tuple[KnownKey, ...]:
    """Return what known_hosts says about a machine now."""
    return known_keys(way.known_as, way.known_hosts)


def judge(way: Way, key: paramiko.PKey) -> tuple[KeyVerdict, tuple[KnownKey, ...]]:
    """Return how ssh would judge a key that a machine shows, and the lines about it."""
    known, blob = known_of(way), key.asbytes()
    found = verdict(known, key.get_name(), blob)
    if found is KeyVerdict.UNKNOWN and not way.alias and way.known_as != way.host:
        bare = known_keys(way.host, way.known_hosts)
        if verdict(bare, key.get_name(), blob) is KeyVerdict.KNOWN:  # "without port identifier"
            found = KeyVerdict.KNOWN
    if way.revoked_keys and _is_revoked(way.revoked_keys, key):
        return KeyVerdict.REVOKED, ()
    return found, known


def _is_revoked(file: str, key: paramiko.PKey) -> bool:
    """Return whether `RevokedHostKeys` lists a key; raises OSError if it cannot be read."""
    with open(file, "rb") as stream:
        content = stream.read()
    if not content.startswith(KRL):
        return listed(content, key.asbytes())
    with tempfile.NamedTemporaryFile("w", suffix=".pub") as asked:
        asked.write(f"{key.get_name()} {key.get_base64()}\n")
        asked.flush()
        words = ("ssh-keygen", "-Q", "-f", file, asked.name)
        return LocalHost("/").run(Command(words, ANY_EXIT)).exit_code != 0


class _KnownHostPolicy(paramiko.MissingHostKeyPolicy):
    """Accepts only a machine whose key is known. Paramiko itself gets no known keys."""

    def __init__(self, way: Way) -> None:
        self._way = way

    def missing_host_key(self, client: Any, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002
        """Raise HostKeyRefused, unless the key is known; SSHException for one too small."""
        if key.get_name() == "ssh-rsa" and key.get_bits() < self._way.least_rsa_bits:
            raise SSHException(
                f"its host key has {key.get_bits():,} bits, but the ssh configuration requires "
                f"{self._way.least_rsa_bits:,} (RequiredRSASize)"
            )
        found, known = judge(self._way, key)
        if found is not KeyVerdict.KNOWN:
            raise HostKeyRefused(self._way, found, known, key)


SILENT = "it accepts the connection but does not answer"


class _Packets(Packetizer):
    """The packets of a connection, limited to the length that servers send."""

    banner_bytes = 0

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """Return `n` bytes; raises SSHException if a packet claims to have too many."""
        if n > MOST_PACKET_BYTES:
            raise SSHException(f"it sends a packet of {n:,} bytes")
        return bytes(super().read_all(n, check_rekey))

    def readline(self, timeout: float) -> str:
        """Return a line that a server sends before the handshake."""
        try:
            return str(super().readline(timeout))
        except UnicodeDecodeError as error:
            raise SSHException(": its answer is not SSH") from error

    def _read_timeout(self, timeout: float) -> bytes:
        """Return the next bytes that a server sends before the handshake."""
        told = bytes(super()._read_timeout(timeout))  # type: ignore[misc]
        self.banner_bytes += len(told)
        if self.banner_bytes > MOST_BANNER_BYTES:
            raise SSHException(": its answer has no end")
        return told


class _Channels(ChannelMap):
    """The channels of a connection, except those being opened: they have no transport yet.

    Paramiko's thread would fail at such a channel when it closes all of them.
    """

    def __init__(self, opening: threading.Lock) -> None:
        super().__init__()
        self._opening = opening

    def values(self) -> list[paramiko.Channel]:
        """Return the channels that are open."""
        with self._opening:
            return list(super().values())


class _Transport(paramiko.Transport):
    """Paramiko's transport, which raises only errors that `Login.talk` handles.

    Paramiko raises whatever ends its thread in the waiting threads (`Transport.run`): after one
    unreadable byte a UnicodeDecodeError, a KeyError and many more.
    """

    _saved: Exception | None = None
    broke_by: Exception | None = None
    """What ended its thread, possibly while it still counts as active."""

    def __init__(self, *words: Any, **given: Any) -> None:
        super().__init__(*words, **given)
        self._channels = _Channels(self.lock)

    @property
    def saved_exception(self) -> Exception | None:
        """The last error, until one of the waiting threads has raised it."""
        return self._saved

    @saved_exception.setter
    def saved_exception(self, error: Exception | None) -> None:
        if error is not None and not isinstance(error, (SSHException, OSError, EOFError)):
            unread = SSHException(f"what it sends is not SSH: {_why_unread(error)}")
            unread.__cause__ = error
            error = unread
        self._saved = error
        if error and not isinstance(error, (ChannelException, AuthenticationException)):
            self.broke_by = error

    def start_client(self, event: Any = None, timeout: float | None = None) -> None:
        """Start, as Paramiko does; raises SSHException if the server is silent until the limit."""
        super().start_client(event, timeout)
        if event is None and not self.initial_kex_done:
            raise SSHException(f"{SILENT} within {timeout or 0:g} s")

    def get_exception(self) -> Exception | None:
        """Return the last error; all waiting threads get one that ended the connection."""
        return super().get_exception() or self.broke_by


def _why_unread(error: Exception) -> str:
    """Return why a message of a server could not be read, for users."""
    if isinstance(error, UnicodeError):
        return "a text in it is not UTF-8"
    if isinstance(error, KeyError):
        return "a message is of an unknown kind"
    return f"{error}"[:MOST_WHY_LETTERS].removesuffix(".") or "a message cannot be read"


def _transport(way: Way, sock: Any, **given: Any) -> paramiko.Transport:
    """Return Paramiko's transport, with the algorithms that ssh would use.

    Those that Paramiko does not know are skipped. Types of known host keys come first: a machine
    that has several keys shows one of those.
    """
    transport = _Transport(sock, packetizer_class=_Packets, **given)
    options = transport.get_security_options()
    told = {"key_types": tuple(options.key_types), **dict(way.algorithms)}
    known = {each.algorithm for each in known_of(way) if not each.marker}
    told["key_types"] = tuple(sorted(told["key_types"], key=lambda e: _kind(e) not in known))
    for what, names in told.items():
        usable = tuple(name for name in names if _is_usable(options, what, name))
        if usable:
            setattr(options, what, usable)
    return transport


def _kind(algorithm: str) -> str:
    """Return the type of key that a host key algorithm uses."""
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


def _is_usable(options: paramiko.transport.SecurityOptions, what: str, name: str) -> bool:
    """Return whether Paramiko knows an algorithm; it adds those for certificates itself."""
    before = getattr(options, what)
    try:
        setattr(options, what, (name,))
    except ValueError:
        return False
    setattr(options, what, before)
    return "-cert-" not in name


class _AgentKey(AgentKey):
    """A key of the agent, which may fail to sign: unconfirmed, or a token is missing."""

    is_refused = False

    def sign_ssh_data(self, data: Any, algorithm: str | None = None) -> Any:
        """Return a signature; an invalid one if the agent gives none.

        Any exception here would end the connection, and no other key could be offered.
        """
        try:
            return super().sign_ssh_data(data, algorithm)
        except (OSError, SSHException):
            self.is_refused = True
        signature = paramiko.Message()
        signature.add_string(algorithm or self.get_name())
        signature.add_string(bytes(SIGNATURE_BYTES))
        return signature.asbytes()


class _Agent(AgentSSH):
    """The keys of the agent at a socket; none if it does not answer."""

    def __init__(self, path: str) -> None:
        super().__init__()
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(AGENT_LIMIT_S)
        try:
            line.connect(path)
            self._connect(line)  # type: ignore[attr-defined]
        except (OSError, SSHException):
            line.close()

    def get_keys(self) -> tuple[_AgentKey, ...]:
        """Return its keys."""
        return tuple(_AgentKey(self, each.blob, each.comment) for each in super().get_keys())

    def close(self) -> None:
        """Close the connection to the agent."""
        self._close()  # type: ignore[attr-defined]


class _Keys:
    """Offers a machine the keys that ssh would, in its order, like Paramiko's AuthStrategy.

    Never asks for a password, neither of the machine nor of a key.
    """

    def __init__(self, way: Way) -> None:
        self._way = way
        self._unusable: list[str] = []

    def authenticate(self, transport: paramiko.Transport) -> None:
        """Log in; raises LoginRefused, and OSError if the key of hosts.toml is missing."""
        shown, of_agent = list[str](), 0
        self._unusable = [self._way.unshown] if self._way.unshown else []
        with contextlib.closing(_Agent(self._way.agent)) as agent:
            for name, key in self._keys(agent):
                if not _may_be_shown(self._way, key):
                    forbidden = f"{name} has a type or size that the ssh configuration forbids."
                    self._unusable += [] if forbidden in self._unusable else [forbidden]
                    continue
                with contextlib.suppress(AuthenticationException):
                    wanted = transport.auth_publickey(self._way.user, key)
                    if not wanted:
                        return
                    raise LoginRefused(self._way, f"it also requires {' or '.join(wanted)}")
                of_agent += isinstance(key, _AgentKey)
                if isinstance(key, _AgentKey) and key.is_refused:
                    refused = NOT_SIGNED.format(name.removeprefix(AGENTS))
                    self._unusable += [] if refused in self._unusable else [refused]
                else:
                    shown += [] if name in shown else [name]
                if not transport.is_active():
                    tried = ", ".join(shown) or name
                    many = of_agent > 1 and not self._way.identities_only
                    told = TOO_MANY_KEYS if many else ""
                    raise LoginRefused(self._way, f"it closed the connection after {tried}", told)
        with contextlib.suppress(SSHException):  # some identify us by address
            if not transport.auth_none(self._way.user):
                return
        why = f"it accepts none of {', '.join(shown)}" if shown else "there is no key to offer"
        raise LoginRefused(self._way, why, " ".join(self._unusable))

    def _keys(self, agent: _Agent) -> Iterator[tuple[str, paramiko.PKey]]:
        """Yield keys with their names: those of the agent, first those with files; then the files.

        Each is offered with its certificates first, wherever the two come from.
        """
        way = self._way
        files = {path: _public_part(path) for path in way.identities}
        beside = (f"{path}-cert.pub" for path in way.identities)
        certificates = {path: _public_part(path) for path in way.certificates or beside}
        ours = {*files.values(), *certificates.values()}
        held = {key.blob: key for key in agent.get_keys()}
        named = [key for blob, key in held.items() if blob in ours]
        others = [key for blob, key in held.items() if blob not in ours]
        for key in (*named, *(() if way.identities_only else others)):
            if "-cert-" in key.get_name():
                key.inner_key = None  # otherwise it is offered as the bare key
            for each in _certified(key, certificates):
                yield f"{AGENTS}{key.comment or key.fingerprint}", each
        for path, public in files.items():
            if public not in held:
                for read in self._read(path, is_public=bool(_public_half(path))):
                    yield from ((path, each) for each in _certified(read, certificates))

    def _read(self, path: str, *, is_public: bool) -> Iterator[paramiko.PKey]:
        """Yield the key of a file; if it cannot be used, record why."""
        rewrite = f"`ssh-keygen -p -f {shlex.quote(path)}` rewrites it."
        try:
            mode = os.stat(path).st_mode
            if _public_part(path).startswith(SECURITY_KEY, LENGTH_BYTES):
                self._unusable.append(
                    f"{path} is on a security key, which Paramiko, used here, does not support: "
                    f"add it to an agent with `ssh-add {shlex.quote(path)}`."
                )
            elif is_public:
                self._unusable.append(
                    f"{path} is a public key whose private key is not in the agent."
                )
            elif mode & 0o077 and os.stat(path).st_uid == os.getuid():
                self._unusable.append(
                    f"{path} is readable by others, so ssh does not use it: `chmod 600` it."
                )
            else:
                yield _private_key(path)
        except TypeError:  # how cryptography asks for a password
            self._unusable.append(
                f"{path} has a password: add it to an agent with `ssh-add {shlex.quote(path)}`."
            )
        except FileNotFoundError:
            if not _public_part(path):
                raise
            self._unusable.append(f"{path} is missing, and no agent has that key.")
        except OSError as error:
            self._unusable.append(f"{path} cannot be read: {error.strerror}.")
        except UNUSABLE as error:
            self._unusable.append(f"{path} cannot be used: {ended(str(error))} {rewrite}")


def _may_be_shown(way: Way, key: paramiko.PKey) -> bool:
    """Return whether ssh would offer it: `PubkeyAcceptedAlgorithms` and `RequiredRSASize`."""
    name = key.public_blob.key_type if key.public_blob else key.get_name()
    names = [name]
    if name.startswith("ssh-rsa"):
        if key.get_bits() < way.least_rsa_bits:
            return False
        names += [name.replace("ssh-rsa", each) for each in ("rsa-sha2-256", "rsa-sha2-512")]
    return not way.accepted_keys or any(each in way.accepted_keys for each in names)


def _private_key(path: str) -> paramiko.PKey:
    """Return the key of a file, also one in PKCS #8, which Paramiko does not read."""
    with open(path, "rb") as stream:
        content = stream.read()
    try:
        loaded: Any = serialization.load_ssh_private_key(content, None)
    except ValueError:
        loaded = serialization.load_pem_private_key(content, None)
    text = loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    ).decode()
    for kind, read in READ_AS.items():
        if isinstance(loaded, kind):
            return read.from_private_key(io.StringIO(text))
    raise SSHException("Paramiko, used here, does not support keys of its type.")


def _certified(key: paramiko.PKey, certificates: Mapping[str, bytes]) -> Iterator[paramiko.PKey]:
    """Yield a key with each of its certificates, then without."""
    for path, blob in certificates.items():
        if _is_of(blob, key.asbytes()):
            key.load_certificate(path)
            yield key
    key.public_blob = None
    yield key


def _is_of(certificate: bytes, public: bytes) -> bool:
    """Return whether a certificate is for a key: it contains it after its type and a nonce."""
    words, key = paramiko.Message(certificate), paramiko.Message(public)
    kind, plain = words.get_binary(), key.get_binary()
    words.get_binary()
    fields: bytes = key.get_remainder()
    return kind.startswith(plain + b"-cert-") and bool(words.get_remainder().startswith(fields))


def _public_part(path: str) -> bytes:
    """Return the public half of a key, from the file beside it or its own; b'' for none."""
    return _public_half(f"{path}.pub") or _public_half(path) or _half_of_private(path)


def _public_half(file: str) -> bytes:
    """Return the key in a public key file; b'' for none."""
    with contextlib.suppress(OSError, ValueError), open(file, encoding="utf-8") as stream:
        words = stream.readline().split()
        if len(words) > 1:
            return base64.b64decode(words[1], validate=True)
    return b""


def _half_of_private(path: str) -> bytes:
    """Return the public key in an OpenSSH private key file, where it is not encrypted."""
    with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as stream:
        lines = stream.read().strip().splitlines()[1:-1]
        content = base64.b64decode("".join(lines))
        if content.startswith(OWN_KIND):
            words = paramiko.Message(content[len(OWN_KIND) :])
            for _ in ("cipher", "derivation", "its options"):
                words.get_binary()
            words.get_int()
            return bytes(words.get_binary())
    return b""
