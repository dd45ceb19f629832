"""Keeps this machine from being shut down meanwhile, if systemd runs it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

from ..core.processes import GRACE_S, signals_held, watched
from .base import Host
from .local import LocalHost

RUNS_SYSTEMD = "/run/systemd/system"
"""systemd made this folder, if it runs the machine (sd_booted(3))."""
HOLD = "echo held; exec cat"


def blocked_if_local(
    host: Host, why: str, as_root: tuple[str, ...]
) -> contextlib.AbstractContextManager[object]:
    """Return shutdown_blocked, or a block that does nothing if the host is another machine."""
    is_local = isinstance(host, LocalHost)
    return shutdown_blocked(why, as_root) if is_local else contextlib.nullcontext()


@contextlib.contextmanager
def shutdown_blocked(why: str, as_root: tuple[str, ...]) -> Iterator[bool]:
    """Hold a lock of systemd-logind against a shutdown; yields whether it is held.

    The power button, a desktop and `systemctl reboot` of a user name the reason and refuse. Up to
    systemd 256 root's `reboot` goes on (systemctl(1), --check-inhibitors). The lock is gone when
    this process is, however it ends: its holder reads from it. The block runs without it too.
    """
    if not os.path.isdir(RUNS_SYSTEMD):
        yield False
        return
    flags = ("--what=shutdown", "--mode=block", "--who=iotstack", f"--why={why}")
    with signals_held():
        process = subprocess.Popen(
            (*as_root, "systemd-inhibit", *flags, "sh", "-c", HOLD),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    assert process.stdin is not None  # noqa: S101 - we asked for a pipe
    assert process.stdout is not None  # noqa: S101
    with watched(process), process.stdin, process.stdout:
        yield process.stdout.readline() == b"held\n"
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
