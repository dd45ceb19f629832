"""What is sent to the login shell of another machine, and where its answer begins.

The shell may be any (sh, bash, fish, csh …) and may print before it runs the command: `echo` in
a .bashrc, a notice of an update. So each command is passed to a known shell, in characters that
all shells leave alone, and prints a mark first, on both streams. All before the mark is noise.
Not for: the transport (ssh_connection.py, ssh.py).
"""

from __future__ import annotations

import os
import shlex
from collections import deque
from collections.abc import Callable

from ..core.errors import Unreachable
from .base import Command, Heard
from .invoke_runners import LONG_BYTES
from .sftp import encoded

MOST_NOISE_BYTES = 1 << 20
"""The most that a login may print before a command."""
MOST_NOISE_LINES = 100
SHOWN_LETTERS = 60
START_FILES = (
    "~/.bashrc",
    "~/.profile",
    "~/.ssh/rc",
    "/etc/ssh/sshrc",
    "/etc/bash.bashrc",
)
"""The usual causes of login output, likeliest first; bash reads its .bashrc for each command."""

# Runs a command there with a leash: its stdin carries no data, and the end of stdin (our limit,
# our Ctrl-C, a lost connection) ends the command and all its children. Those of root take no
# signal of the user: sudo sends it. A process that put itself into the background continues.
LEASH = (
    "exec 3<&0 </dev/null; { while read -r _ <&3; do :; done; trap '' TERM; "
    "me=$(exec sh -c 'echo $PPID'); all=$(grep -s ^PPid: /proc/[0-9]*/status | "
    "tr -s '/:\\t' ' ' | awk -v r=$$ -v s=$me '{ up[$2] = $5 } END { for (each in up) { "
    "for (at = each; at in up && at != r && at != s; at = up[at]); "
    "if (at == r && each != r) print each } }'); "
    "tell() { others=; for p in $all; do [ ! -e /proc/$p ] || kill -s $1 $p || "
    'others="$others $p"; done; [ -z "$others" ] || sudo -n kill -s $1 $others; }; '
    "tell TERM; n=0; while [ $n -lt 30 ] && kill -0 $$; do sleep 0.1; n=$((n + 1)); done; "
    'tell KILL; } >/dev/null 2>&1 & leash=$!; exec 3<&-; "$@"; code=$?; kill $leash; exit $code'
)
# exec replaces the login shell, and with it anything that it would print at its end.
TOLD = """exec sh -c 'eval "$(printf %%b "$1")"' sh '%s'"""
READ = """exec sh -c 'eval "$(head -c %d)"'"""
# Within quotes csh interprets `!` and a newline, and fish reads `\\` as one backslash.
TAKEN_APART = {each: f"\\{ord(each):04o}" for each in "\\!'\n"}


class LoginPrints(Unreachable):
    """The login shell of a machine prints, or ends early, and the command does not start.

    `said` is its output.
    """

    def __init__(self, message: str, said: str) -> None:
        super().__init__(message)
        self.said = said


class Mark:
    """What a command prints first; sent in two halves, so that an echo of it does not match."""

    def __init__(self) -> None:
        self.halves = ("iotstack-begins-", os.urandom(6).hex())
        self.line = "".join(self.halves)
        self.told = encoded(f"{self.line}\n")

    def sent(self, command: Command, *, leashed: bool) -> tuple[str, bytes]:
        """Return what is sent to a login shell to run a command, and the first input of that.

        `leashed`: its stdin is the leash, as above; else it is the command's own.
        """
        say = f"printf '%s%s\\n' {shlex.join(self.halves)}"
        words = str(command)
        run = f"set -- {words}; {LEASH}" if leashed else f"exec {words}"
        line = f"{say} >&2; {say}; {run}"
        sent = TOLD % "".join(TAKEN_APART.get(each, each) for each in line)
        if len(encoded(sent)) <= LONG_BYTES or not leashed:
            return sent, b""
        first = encoded(line)
        return READ % len(first), first


class Beginning:
    """One stream of a command: its own output, and the noise before it."""

    def __init__(self, mark: Mark, name: str) -> None:
        self._mark = mark.told
        self._name = name
        self._held = bytearray()
        self._told = False
        self._given_up = False
        self.begun = False

    def give_up(self) -> None:
        """Accept no beginning any more: the end of its input may start the command too late."""
        self._given_up = True

    @property
    def noise(self) -> str:
        """The output before the command, or instead of it."""
        return self._held.decode("utf-8", "backslashreplace")

    def own(self, data: bytes) -> bytes:
        """Return the command's part of the next bytes; raises LoginPrints if none will come."""
        if self.begun:
            return data
        start = max(0, len(self._held) - len(self._mark))
        self._held += data
        at = self._held.find(self._mark, start)
        if at >= 0 and not self._given_up:
            own = bytes(self._held[at + len(self._mark) :])
            del self._held[at:]
            self.begun = True
            return own
        if len(self._held) > MOST_NOISE_BYTES:
            raise prints_on(self._name, self.noise)
        return b""

    def left(self) -> bytes:
        """Return once, at the end, the content if no command began: the error message."""
        words = b"" if self.begun or self._told else bytes(self._held)
        self._told = True
        return words

    def pass_over(self, read: Callable[[int], bytes]) -> bool:
        """Read up to the command's first byte; return whether the command began.

        `read` returns at most the given number of bytes; no byte of the command is read.
        """
        while not self.begun:
            size = len(self._mark)
            end = bytes(self._held[-size:])
            have = next(n for n in range(size - 1, -1, -1) if end.endswith(self._mark[:n]))
            data = read(size - have)
            if not data:
                return False
            self.own(data)
        return True


class Lines:
    """Passes on the lines of a command, and holds back what came before; see Beginning."""

    def __init__(self, mark: Mark, heard: Heard | None) -> None:
        self._mark = mark.line
        self._heard = heard or (lambda _stream, _line: None)
        self._held: deque[str] = deque(maxlen=MOST_NOISE_LINES)
        self.begun = False

    def __call__(self, stream: str, line: str) -> None:
        """Add a line."""
        if self.begun:
            self._heard(stream, line)
        elif line.endswith(self._mark):
            self.begun = True
        else:
            self._held.append(line)

    def end(self) -> list[str]:
        """Pass on the lines held back if no command began, and return them."""
        held = [] if self.begun else list(self._held)
        self._held.clear()
        for line in held:
            self._heard("err", line)
        return held


def shown(noise: str) -> str:
    """Return the first words of a login's output, for messages."""
    line = next((each for each in noise.splitlines() if each.strip()), "").strip()
    short = line if len(line) <= SHOWN_LETTERS else f"{line[:SHOWN_LETTERS]}…"
    return "".join(each if each.isprintable() else "?" for each in short) or "nothing to be read"


def advice(noise: str) -> str:
    """Return where to look for the cause of a login's output."""
    files = ", ".join(START_FILES)
    return (
        f"Its login prints: {shown(noise)}. Check {files} there (or those of another shell): "
        "print only on a terminal ([ -t 1 ] && …)."
    )


def prints_on(name: str, noise: str) -> LoginPrints:
    """Return the failure of a login that prints without end."""
    return LoginPrints(
        f"{name} does not run commands: its login shell printed {len(noise):,} characters first. "
        f"{advice(noise)}",
        f"{shown(noise)}, without end. {advice(noise)}",
    )


def no_sftp(name: str, noise: str) -> LoginPrints:
    """Return the failure of SFTP if a login prints, or another program answers, in its place."""
    return LoginPrints(f"{name} does not answer with SFTP. {advice(noise)}", shown(noise))


def not_begun(name: str, said: str) -> LoginPrints:
    """Return the failure of a command that the login shell of a machine did not start."""
    words = shown(said) if said.strip() else "nothing"
    return LoginPrints(
        f"{name} accepts the login, but its login shell does not run commands; it printed: "
        f"{words}. A line in {', '.join(START_FILES)} there may end it early.",
        words,
    )
