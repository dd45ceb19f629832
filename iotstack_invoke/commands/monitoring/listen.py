"""Waits for the button in Home Assistant, and starts a backup when it is pressed.

The backup is a process of its own, one at a time. Not for: the button itself, which is part of
what each run publishes.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from ...core import processes
from ...core.errors import StepFailed, UsageError
from ...environment.environment import Environment, open_environment
from ...environment.stack_host import machine_mark
from ...hosts.inspect import host_name
from ...hosts.local import locked
from ...monitoring.home_assistant import OFFLINE, ONLINE, PRESSED, topics_of
from ...monitoring.mqtt import Connection, connected
from ...monitoring.state import make_state_folder, state_of
from ...reporting.report import Report
from ...settings.model import Settings
from .brokers import find_broker

if TYPE_CHECKING:
    from paho.mqtt.client import MQTTMessage

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0
"""Between two attempts to connect; each is twice as long as the one before."""
PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))


def listen(settings: Settings, report: Report) -> int:
    """Listen until a signal comes, and return 128 and its number.

    Raises UsageError unless hosts.toml allows it, and Busy if another one listens.
    """
    config = settings.monitoring.mqtt
    if config is None or not config.allow_start:
        raise UsageError(
            "The button is not allowed to start a backup. To allow it, set allow_start = true in "
            "[mqtt] of hosts.toml. Whoever may write to the broker may then press it."
        )
    folder = state_of(settings.stack.folder)
    make_state_folder(folder)
    with (
        locked(f"{folder}/listen.lock", "listen"),
        open_environment(settings) as environment,
        processes.signals_noted() as noted,
    ):
        return 128 + _Listener(environment, report, noted).run()


class _Listener:
    """Listens, and starts a backup."""

    def __init__(self, environment: Environment, report: Report, noted: list[int]) -> None:
        config = environment.settings.monitoring.mqtt
        assert config is not None  # noqa: S101 - checked before
        self._environment = environment
        self._config = config
        self._report = report
        self._noted = noted
        """The signals that came."""
        host = environment.host
        self._topics = topics_of(config, host_name(host), machine_mark(host))
        self._backup: subprocess.Popen[bytes] | None = None
        self._trouble = ""
        """Why there is no connection now: the last message about it."""

    def run(self) -> int:
        """Connect again and again, until a signal comes; return it."""
        pause_s = FIRST_PAUSE_S
        try:
            while not self._noted:
                began_s = time.monotonic()
                try:
                    self._serve()
                except StepFailed as error:
                    self._report_once(str(error))
                if time.monotonic() - began_s > LONGEST_PAUSE_S:
                    pause_s = FIRST_PAUSE_S
                self._pause(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        finally:
            self._end_backup()
        return self._noted[0]

    def _serve(self) -> None:
        """Listen on one connection until a signal comes; raises StepFailed if it is lost."""
        name = f"iotstack-{self._topics.device}"
        password = self._config.password.read()
        broker = find_broker(self._environment)  # a container may have another address now
        with connected(
            self._config, broker, password, client_id=name, will=self._topics.listener
        ) as connection:
            connection.subscribe(self._topics.start, self._heard)
            connection.publish(self._topics.listener, ONLINE)
            self._report.write(f"Listening for the button at {broker}.")
            self._trouble = ""
            self._listen(connection)

    def _listen(self, connection: Connection) -> None:
        try:
            while not self._noted:
                connection.serve(processes.SIGNAL_LOOK_S)
                self._look_after_backup()
        finally:
            with contextlib.suppress(StepFailed):
                connection.publish(self._topics.listener, OFFLINE)

    def _heard(self, message: MQTTMessage) -> None:
        """Start a backup if the button was pressed now.

        A retained message was not: it would start one at each connection.
        """
        self._look_after_backup()
        if message.retain:
            self._report.warn(
                f"A retained message at {message.topic} was ignored. The button sends none: who "
                "did?"
            )
        elif message.payload != PRESSED.encode():
            self._report.warn(
                f"A message at {message.topic} was ignored: the button's is {PRESSED}."
            )
        elif self._backup:
            self._report.write("The button was pressed, but its backup still runs.")
        else:
            self._report.write("The button was pressed: a backup begins.")
            self._backup = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        """Start it in a session of its own: it gets a signal only through this process, once."""
        file = os.path.abspath(os.path.expanduser(self._environment.settings.file))
        own = os.environ.get("PYTHONPATH", "")
        environment = {
            **os.environ,
            "PYTHONPATH": f"{PACKAGE_PARENT}{os.pathsep}{own}" if own else PACKAGE_PARENT,
        }
        if self._environment.settings.file:
            environment["IOTSTACK_SETTINGS"] = file
        named = (f"--settings={file}",) if self._report.settings_file else ()
        # -P: nothing is imported from the current folder.
        words = (sys.executable, "-P", "-m", __package__.partition(".")[0], "backup", *named)
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
        )

    def _look_after_backup(self) -> None:
        """Report the end of the backup that was started, if it ended."""
        code = self._backup.poll() if self._backup else None
        if code is not None:
            self._backup = None
            self._report.write(f"The backup ended with exit code {code}.")

    def _end_backup(self) -> None:
        """Pass the signal on to a backup that runs, and wait until it has put all in order."""
        if self._backup and self._backup.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._backup.send_signal(self._noted[0] if self._noted else 15)
            self._backup.wait()
        self._look_after_backup()

    def _report_once(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._report.warn(trouble)
        self._trouble = trouble

    def _pause(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while not self._noted and time.monotonic() < until_s:
            time.sleep(processes.SIGNAL_LOOK_S)
            self._look_after_backup()
