"""What another machine's login shell is sent, whichever that is, and where its answer begins.

It may be any (sh, bash, fish, csh …) and may print before it runs what we ask: `echo` in a
.bashrc, a notice of an update. So each command is told to a shell that we know, in letters that
all of them leave alone, and says a mark first, on both streams. What comes before that is noise.
Not for: how it gets there (login.py, remote.py).
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
"""So much a login may print before a command."""
MOST_NOISE_LINES = 100
SHOWN_LETTERS = 60
START_FILES = (
    "~/.bashrc",
    "~/.profile",
    "~/.ssh/rc",
    "/etc/ssh/sshrc",
    "/etc/bash.bashrc",
)
"""Where people let a login print, the likeliest first; bash reads its .bashrc for each command."""

# What runs a command there: nothing comes through its stdin, and the end of that (our limit, our
# Ctrl-C, a line that broke) ends the command and all that it started. What is root's takes no
# signal of the user's; then sudo sends it. What put itself into the background goes on.
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
# The login shell goes, and with it what it would print at its end.
TOLD = """exec sh -c 'eval "$(printf %%b "$1")"' sh '%s'"""
READ = """exec sh -c 'eval "$(head -c %d)"'"""
# csh takes `!` and the end of a line apart within quotes, fish takes `\\` for one backslash.
TAKEN_APART = {each: f"\\{ord(each):04o}" for each in "\\!'\n"}


class LoginPrints(Unreachable):
    """The login shell of a machine prints, or ends early, and no command begins.

    `said` is what it said.
    """

    def __init__(self, message: str, said: str) -> None:
        super().__init__(message)
        self.said = said


class Mark:
    """What a command says first; made of two halves, so that no shell that echoes it says it."""

    def __init__(self) -> None:
        self.halves = ("iotstack-begins-", os.urandom(6).hex())
        self.line = "".join(self.halves)
        self.told = encoded(f"{self.line}\n")

    def sent(self, command: Command, *, leashed: bool) -> tuple[str, bytes]:
        """Return what is sent to a login shell to run a command, and what that reads first.

        `leashed`: its stdin is for its leash, as told above; else it is the command's own.
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
    """One stream of a command: what is its own, and the noise before that."""

    def __init__(self, mark: Mark, name: str) -> None:
        self._mark = mark.told
        self._name = name
        self._held = bytearray()
        self._told = False
        self._given_up = False
        self.begun = False

    def give_up(self) -> None:
        """Take nothing for begun any more: the end of its input may let it begin, too late."""
        self._given_up = True

    @property
    def noise(self) -> str:
        """What came before the command, or instead of it."""
        return self._held.decode("utf-8", "backslashreplace")

    def own(self, data: bytes) -> bytes:
        """Return what of the next bytes is the command's; raises LoginPrints if none will be."""
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
        """Return once, at the end of the stream, what it held if no command began: its words."""
        words = b"" if self.begun or self._told else bytes(self._held)
        self._told = True
        return words

    def pass_over(self, read: Callable[[int], bytes]) -> bool:
        """Read up to the first byte that is the command's; tell whether there was a command.

        `read` gives at most so many bytes; none is read that would be the command's.
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
    """Hands the lines of a command on, and holds back what came before; see Beginning."""

    def __init__(self, mark: Mark, heard: Heard | None) -> None:
        self._mark = mark.line
        self._heard = heard or (lambda _stream, _line: None)
        self._held: deque[str] = deque(maxlen=MOST_NOISE_LINES)
        self.begun = False

    def __call__(self, stream: str, line: str) -> None:
        """Take a line."""
        if self.begun:
            self._heard(stream, line)
        elif line.endswith(self._mark):
            self.begun = True
        else:
            self._held.append(line)

    def end(self) -> list[str]:
        """Hand on what was held back where no command began, and return it."""
        held = [] if self.begun else list(self._held)
        self._held.clear()
        for line in held:
            self._heard("err", line)
        return held


def shown(noise: str) -> str:
    """Return the first words of what a login prints, for people."""
    line = next((each for each in noise.splitlines() if each.strip()), "").strip()
    short = line if len(line) <= SHOWN_LETTERS else f"{line[:SHOWN_LETTERS]}…"
    return "".join(each if each.isprintable() else "?" for each in short) or "nothing to be read"


def advice(noise: str) -> str:
    """Return where to look for what a login prints."""
    files = ", ".join(START_FILES)
    return (
        f"Its login prints: {shown(noise)}. Check {files} there (or those of another shell): "
        "print only on a terminal ([ -t 1 ] && …)."
    )


def prints_on(name: str, noise: str) -> LoginPrints:
    """Return the failure of a login that prints and prints."""
    return LoginPrints(
        f"{name} does not run commands: its login shell printed {len(noise):,} characters first. "
        f"{advice(noise)}",
        f"{shown(noise)}, without end. {advice(noise)}",
    )


def no_sftp(name: str, noise: str) -> LoginPrints:
    """Return the failure of an SFTP in whose place a login prints, or anything else speaks."""
    return LoginPrints(f"{name} does not answer with SFTP. {advice(noise)}", shown(noise))


def not_begun(name: str, said: str) -> LoginPrints:
    """Return the failure of a command that the login shell of a machine did not begin."""
    words = shown(said) if said.strip() else "nothing"
    return LoginPrints(
        f"{name} accepts the login, but its login shell does not run commands; it printed: "
        f"{words}. A line in {', '.join(START_FILES)} there may end it early.",
        words,
    )
