"""Invoke's Local and Fabric's Remote, fixed for unattended work. Decides nothing.

The fixes, each measured: stdin at EOF instead of an open pipe; a separate process group, so that
a timeout and an interrupt reach grandchildren; linear instead of quadratic reading (invoke#1079:
16 MB took 27 s, now 0.1 s); characters kept whole across reads; on request, no waiting for a
daemon that holds open the output of a command that has ended.
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
"""The first wait before checking whether a command has ended; it doubles each time."""
LONG_BYTES = 100_000
"""A command of more bytes goes through the stdin of a shell."""
MOST_LINE = 1 << 16
"""A line of more characters is passed on in pieces."""
LOOK_S = 0.1
"""How often a reader with a time limit checks whether the program has ended."""


class SaidTooMuch(Exception):
    """The output of a command is longer than any valid answer."""


class Unattended:
    """The fixes that Local and Remote share."""

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
    """Invoke checks whether the timer's thread lives, which may still end the command (race)."""
    _timer: Any

    def start_timer(self, timeout: float | None) -> None:
        """Start a timer that ends the command, and keep it.

        If a signal arrives before the timer is stopped, Python must not wait for it at exit.
        """
        if timeout is not None:
            self._timer = threading.Timer(timeout, self._end_late)
            self._timer.daemon = True
            self._timer.start()

    def _end_late(self) -> None:
        self.timed_out = True
        with contextlib.suppress(Exception):  # the timeout is reported elsewhere
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
        """Run a command to its end; `read_on_s` and `most_bytes` as in base.Command.

        `leashed` as in login_shell.py, `first`: the input of a leashed command.
        """
        self.read_on_s, self.most_bytes = read_on_s, most_bytes
        self.leashed, self.first = leashed, first
        return super().run(command, **given)  # type: ignore[misc]

    def generate_result(self, **given: Any) -> Any:
        """Return the result, and whether the output was still held open."""
        result = super().generate_result(**given)  # type: ignore[misc]
        result.held = self.held
        return result

    def read_proc_output(
        self, reader: Callable[[int], bytes | None]
    ) -> Generator[str, None, None]:
        """Yield the program's output, to the end of the stream or the limit `read_on_s`.

        With `read_on_s` a reader without data raises TimeoutError after LOOK_S.
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
        """Look for prompts only if a watcher is given."""
        if self.watchers:
            super().respond(buffer_)  # type: ignore[misc]

    def wait(self) -> None:
        """Wait for the end; a signal that stops this program ends the command first.

        Invoke joins its readers without a limit, and they read until the command has ended. It
        checks for the end every 10 ms; most commands take less.
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
        """Return text, keeping the beginning of a split character for the next read.

        Each stream is read by a separate thread, so each thread has its decoder.
        """
        decoders = self.__dict__.setdefault("_decoders", threading.local())
        if not hasattr(decoders, "mine"):
            decoders.mine = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        return str(decoders.mine.decode(data))


class UnattendedLocal(Unattended, Local):
    """Invoke's Local for unattended work."""

    process: Any = None

    def start(self, command: str, shell: str, env: dict[str, Any]) -> None:
        """Start the command in a new process group, with empty stdin.

        Linux allows at most 128 KiB per argument, and the command is one argument of the shell: a
        long one is passed through stdin.
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
        """Wait for data or the end; raises TimeoutError if there is a time limit."""
        if self.read_on_s is not None:
            waiting = select.poll()
            waiting.register(stream, select.POLLIN)
            if not waiting.poll(LOOK_S * 1000):
                raise TimeoutError

    def kill(self) -> None:
        """End the whole group: children of a dead leader may hold the pipes open."""
        processes.kill_group(self.process)

    def send_interrupt(self, interrupt: KeyboardInterrupt) -> None:  # noqa: ARG002
        """Pass an interrupt on to the whole group."""
        processes.signal_group(self.process, signal.SIGINT)

    def stop(self) -> None:
        """Take the process off the list of running ones, and close its pipes."""
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
    """A text stream that passes on whole lines; Invoke writes the output of a program into it."""

    def __init__(self, name: str, heard: Heard) -> None:
        self.name = name
        self.heard = heard
        self.rest = ""

    def write(self, text: str) -> None:
        """Add some text."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.heard(self.name, line.rstrip("\r"))
        while len(self.rest) > MOST_LINE:
            self.heard(self.name, self.rest[:MOST_LINE])
            self.rest = self.rest[MOST_LINE:]

    def flush(self) -> None:
        """Do nothing: a line is passed on when it is complete."""

    def close(self) -> None:
        """Pass on the last line if it has no newline."""
        if self.rest:
            self.heard(self.name, self.rest)
        self.rest = ""
