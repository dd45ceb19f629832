"""The child processes of this program, so that they end when it does. Starts none itself.

Each leads its own process group: Ctrl-C at the terminal reaches only this program, which then
ends the group. SIGTERM to Invoke's own runner would leave the child running (measured). A child
that runs as root under sudo cannot be signalled by another user: sudo sends the signal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

from .errors import Interrupted

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIGNAL_LOOK_S = 0.2
"""How often the main thread, while it waits for others, checks whether to stop."""
GRACE_S = 3.0
"""How long a process may take to end by itself after SIGTERM."""
END_LIMIT_S = 4 * GRACE_S
"""How long end() takes at most, with sudo twice."""

_lock = threading.Lock()
_running: set[subprocess.Popen[bytes]] = set()
_ending = threading.Event()
_came: list[list[int]] = []
"""Inside signals_raised(): the signals received so far, the first of which was raised."""
_held: list[list[int]] = []
"""For each block of signals_held(), the signals received meanwhile."""
_committed = threading.Event()
"""Once set, signals are put off, except in blocks of signals_let_in()."""
_let_in = threading.Event()
_put_off: list[int] = []
"""The signals that were put off."""


def ending() -> bool:
    """Return whether everything is to end."""
    return _ending.is_set()


def pause(seconds: float) -> None:
    """Wait a moment between two checks; raises Interrupted at once if everything is to end."""
    if _ending.wait(seconds):
        raise Interrupted(signal.SIGTERM)


@contextlib.contextmanager
def watched(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Keep a process on the list during the block; end it if it still runs afterwards."""
    with _lock:
        _running.add(process)
    try:
        if ending():  # started while the others were being ended
            end(process)
        yield process
    finally:
        if process.poll() is None:
            end(process)
        with _lock:
            _running.discard(process)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Put off what interrupt() raises until the block ends.

    Otherwise a process that was started but is not yet on the list would be left running.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are handled there
        yield
        return
    _held.append([])
    try:
        yield
    finally:
        came = _held.pop()
        if came:
            interrupt(came[0])


@contextlib.contextmanager
def signals_raised() -> Iterator[list[int]]:
    """Turn the first signal that asks to stop into Interrupted, in the main thread.

    Yields the list of signals received; a nested block yields that of the outer one.
    """
    if _came or threading.current_thread() is not threading.main_thread():
        yield _came[-1] if _came else []
        return
    came: list[int] = []
    over = False

    def stop(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1 or over:  # a second one would interrupt the cleanup
            return
        if _committed.is_set() and not _let_in.is_set():
            _put_off.append(number)
        else:
            interrupt(number)

    _came.append(came)
    try:
        with _handled(stop):
            try:
                yield came
            finally:
                over = True
    finally:
        _came.pop()
        _committed.clear()
        _put_off.clear()


def put_signals_off() -> None:
    """Let signals_raised() raise only within signals_let_in() from now on, until it ends.

    Whatever follows a commit is completed, no matter when a signal arrives.
    """
    _committed.set()


@contextlib.contextmanager
def signals_let_in() -> Iterator[None]:
    """Let a signal interrupt the block, even after a commit."""
    _let_in.set()
    try:
        yield
    finally:
        _let_in.clear()


def signals_put_off() -> tuple[int, ...]:
    """Return the signal that came after a commit and interrupted nothing, if any."""
    return tuple(_put_off)


@contextlib.contextmanager
def signals_noted() -> Iterator[list[int]]:
    """Yield a list that collects the signals that ask to stop.

    Raising an exception out of a wait for threads is unreliable: a signal just before the wait
    does not end it (3 of 24 runs hung), and a second one breaks its lock. For an enclosing
    signals_raised() the first of these counts as raised: none interrupts the cleanup that follows.
    """
    noted: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        noted.append(number)
        if _came:
            _came[-1].append(number)

    with _handled(note):
        yield noted


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def interrupt(number: int) -> None:
    """Raise Interrupted, now or as soon as the process being started is on the list."""
    if not _held:
        raise Interrupted(number)
    _held[-1].append(number)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, its group and its children that run as root: SIGTERM, a grace, SIGKILL."""
    others = _others_below(process.pid)
    signal_group(process, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    signal_group(process, signal.SIGKILL)
    _signal_others(others, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)


def end_all() -> None:
    """End every process on the list, and every one that is started from now on."""
    _ending.set()
    with _lock:
        running = list(_running)
    for process in running:
        signal_group(process, signal.SIGTERM)
    for process in running:
        end(process)


def resume() -> None:
    """Allow processes to be started again: rolling back an interrupted run needs some."""
    _ending.clear()


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process, its group, and its children that run as root, if any."""
    if process.returncode is None:
        others = _others_below(process.pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        _signal_others(others, number)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its group; if the leader has ended, the rest of the group."""
    if process.returncode is None or not _is_there(process.pid):
        others = _others_below(process.pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        _signal_others(others, signal.SIGKILL)


def _others_below(leader: int) -> dict[int, int]:
    """Return the processes below `leader` that belong to another user: root.

    Those that run in its session or were started there: process ID to start time, because an ID
    may be reused. {} if this program runs as root or there is no /proc.
    """
    if os.geteuid() == 0:
        return {}
    known: dict[int, tuple[int, int, int]] = {}
    with contextlib.suppress(FileNotFoundError):  # macOS has no /proc
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError):  # ended meanwhile
                known[int(name)] = _parent_session_begin(name)
    below = {pid for pid, (_, session, _) in known.items() if leader in (pid, session)}
    while more := {p for p, (parent, _, _) in known.items() if parent in below} - below:
        below |= more  # sudo starts its command in a separate session (use_pty)
    others = {}
    for pid in below:
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
                others[pid] = known[pid][2]
    return others


def _parent_session_begin(pid: int | str) -> tuple[int, int, int]:
    """Return three numbers of a process from proc_pid_stat(5); raises OSError."""
    with open(f"/proc/{pid}/stat", "rb") as stream:
        told = stream.read().rpartition(b")")[2].split()
    return int(told[1]), int(told[3]), int(told[19])


def _signal_others(others: Mapping[int, int], number: signal.Signals) -> None:
    """Let sudo send a signal to those processes of other users that still run."""
    there = []
    for pid, began in others.items():
        with contextlib.suppress(OSError):
            if _parent_session_begin(pid)[2] == began:
                there.append(str(pid))
    if there:
        name = number.name.removeprefix("SIG")
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                ("sudo", "-n", "kill", "-s", name, *there),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=GRACE_S,
                check=False,
                start_new_session=True,
            )


def _is_there(pid: int) -> bool:
    """Return whether a process has that ID; the ID of a group with members is not reused."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
