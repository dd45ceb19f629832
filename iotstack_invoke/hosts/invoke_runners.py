"""Invoke's Local and Fabric's Remote, mended for unattended work. Decides nothing.

What is mended, each measured: stdin at EOF instead of an open pipe; a process group of its own,
so that a timeout and an interrupt reach grandchildren; linear instead of quadratic reading
(invoke#1079: 16 MB took 27 s, now 0.1 s); characters whole across the edge of a read; where it is
asked for, no waiting for a daemon that holds the output of a command which has ended.
"""

from __future__ import annotations

import codecs
import contextlib
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Generator
from subprocess import DEVNULL, PIPE, Popen
from typing import IO, Any

from invoke.config import Config
from invoke.context import Context
from invoke.runners import Local

from ..core import processes
from ..core.errors import Interrupted
from .base import MOST_BYTES, Heard

FIRST_LOOK_S = 0.0005
"""How soon it is first asked whether a command has ended; each later time after twice as long."""
LONG_BYTES = 100_000
"""A command of more bytes goes through the stdin of a shell."""
MOST_LINE = 1 << 16
"""A line of more letters is handed on in pieces."""
LOOK_S = 0.1
"""How often a reader that must not wait for ever looks whether the program has ended."""


class SaidTooMuch(Exception):
    """A command said more than any answer has."""


class Unattended:
    """What Local and Remote need alike."""

    watchers: Any
    encoding: str
    read_chunk_size: int
    process_is_finished: bool
    has_dead_threads: bool
    input_sleep: float
    read_on_s: float | None = None
    most_bytes = MOST_BYTES
    leashed = False
    first = b""
    held = False
    timed_out = False
    """Invoke asks whether the timer's thread lives, which still ends the command (a race)."""
    _timer: Any

    def start_timer(self, timeout: float | None) -> None:
        """End the command after so long, and remember it.

        A signal may come before it is stopped again: Python must not wait for it at our end.
        """
        if timeout is not None:
            self._timer = threading.Timer(timeout, self._end_late)
            self._timer.daemon = True
            self._timer.start()

    def _end_late(self) -> None:
        self.timed_out = True
        with contextlib.suppress(Exception):  # in a thread of its own: that it is late is told
            self.kill()  # type: ignore[attr-defined]

    def run(
        self,
        command: str,
        *,
        read_on_s: float | None = None,
        most_bytes: int = MOST_BYTES,
        leashed: bool = False,
        first: bytes = b"",
        **given: Any,
    ) -> Any:
        """Run a command to its end; `read_on_s` and `most_bytes` as in steps.Command.

        `leashed` as in login_shell.py, `first` is what a leashed command reads.
        """
        self.read_on_s, self.most_bytes = read_on_s, most_bytes
        self.leashed, self.first = leashed, first
        return super().run(command, **given)  # type: ignore[misc]

    def generate_result(self, **given: Any) -> Any:
        """Return the result, and whether the output was still held."""
        result = super().generate_result(**given)  # type: ignore[misc]
        result.held = self.held
        return result

    def read_proc_output(
        self, reader: Callable[[int], bytes | None]
    ) -> Generator[str, None, None]:
        """Return what the program says, to the end of the stream or until it is held too long.

        With `read_on_s` a reader that has nothing to read raises TimeoutError after LOOK_S.
        Raises SaidTooMuch.
        """
        deadline_s, left_bytes = math.inf, self.most_bytes
        while time.monotonic() < deadline_s:
            with contextlib.suppress(TimeoutError):
                data = reader(self.read_chunk_size)
                if not data:
                    return
                left_bytes -= len(data)
                if left_bytes < 0:
                    raise SaidTooMuch
                yield self.decode(data)
            if self.read_on_s is not None and deadline_s == math.inf and self.process_is_finished:
                deadline_s = time.monotonic() + self.read_on_s
        self.held = True

    def respond(self, buffer_: list[str]) -> None:
        """Look for prompts only where somebody watches for them."""
        if self.watchers:
            super().respond(buffer_)  # type: ignore[misc]

    def wait(self) -> None:
        """Wait for the end; a signal that stops us ends the command first.

        Invoke joins its readers without a limit, and they read until the command has ended. It
        looks for the end each 10 ms; most commands take less.
        """
        pause_s = FIRST_LOOK_S
        try:
            while not (self.process_is_finished or self.has_dead_threads):
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, self.input_sleep)
        except Interrupted:
            self.kill()  # type: ignore[attr-defined]
            raise

    def decode(self, data: bytes) -> str:
        """Return text, keeping the beginning of a cut character for the next read.

        Each stream is read by a thread of its own, so each thread has a decoder of its own.
        """
        decoders = self.__dict__.setdefault("_decoders", threading.local())
        if not hasattr(decoders, "mine"):
            decoders.mine = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        return str(decoders.mine.decode(data))


class UnattendedLocal(Unattended, Local):
    """Invoke's Local for unattended work."""

    process: Any = None

    def start(self, command: str, shell: str, env: dict[str, Any]) -> None:
        """Start the command in its own process group, with nothing to read.

        Linux takes no word of more than 128 KiB, and the command is one to the shell: a long one
        is read from its stdin.
        """
        script = os.fsencode(f"exec {command} </dev/null\n")
        is_long = len(script) > LONG_BYTES
        with processes.signals_held():
            self.process = Popen(
                (shell,) if is_long else (shell, "-c", command),
                env=env,
                stdin=PIPE if is_long else DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                start_new_session=True,
            )
            self._watch = processes.watched(self.process)
            self._watch.__enter__()
        if is_long:
            with contextlib.suppress(BrokenPipeError), self.process.stdin as stdin:
                stdin.write(script)

    def read_proc_stdout(self, num_bytes: int) -> bytes | None:
        """Return the next bytes of its output, b"" at the end."""
        self._wait_for(self.process.stdout)
        return super().read_proc_stdout(num_bytes)

    def read_proc_stderr(self, num_bytes: int) -> bytes | None:
        """Return the next bytes of its error stream, b"" at the end."""
        self._wait_for(self.process.stderr)
        return super().read_proc_stderr(num_bytes)

    def _wait_for(self, stream: IO[bytes]) -> None:
        """Wait for something to read, or for the end; raises TimeoutError, if we must not wait."""
        if self.read_on_s is not None:
            waiting = select.poll()
            waiting.register(stream, select.POLLIN)
            if not waiting.poll(LOOK_S * 1000):
                raise TimeoutError

    def kill(self) -> None:
        """End the whole group: what its leader left behind may hold our pipes open."""
        processes.kill_group(self.process)

    def send_interrupt(self, interrupt: KeyboardInterrupt) -> None:  # noqa: ARG002
        """Pass an interrupt on to the whole group."""
        processes.signal_group(self.process, signal.SIGINT)

    def stop(self) -> None:
        """Take the process off the list of the running, and close its pipes."""
        super().stop()
        if self.process is not None:
            self._watch.__exit__(None, None, None)
            self.process.stdout.close()
            self.process.stderr.close()


def local_context() -> Context:
    """Return an Invoke Context whose commands run through UnattendedLocal."""
    config = Config(overrides=RUN_OVERRIDES)
    config.runners.local = UnattendedLocal
    return Context(config)


RUN_OVERRIDES = {
    "run": {
        "hide": True,
        "warn": True,
        "in_stream": False,
        "encoding": "utf-8",
        "shell": "/bin/sh",
    }
}


class LineStream:
    """A text stream that hands on whole lines; Invoke writes what a program says into it."""

    def __init__(self, name: str, heard: Heard) -> None:
        self.name = name
        self.heard = heard
        self.rest = ""

    def write(self, text: str) -> None:
        """Take some text."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.heard(self.name, line.rstrip("\r"))
        while len(self.rest) > MOST_LINE:
            self.heard(self.name, self.rest[:MOST_LINE])
            self.rest = self.rest[MOST_LINE:]

    def flush(self) -> None:
        """Do nothing: a line is handed on when it is whole."""

    def close(self) -> None:
        """Hand on the last line, if it lacks its end."""
        if self.rest:
            self.heard(self.name, self.rest)
        self.rest = ""
