"""One task on several hosts at once: a process for each, one table, one exit code.

Each process's output is shown line by line after its host's name, and written to its own log.
A host that does not answer stops no other. Not for: the work on a host.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from urllib.parse import quote

from ..core import processes
from ..core.dataclass import dataclass
from ..core.errors import ExitCode, StepFailed, UsageError
from ..core.nearest import did_you_mean
from ..core.processes import signals_noted
from ..environment.stack_host import find_machine
from ..hosts.local import state_folder
from ..reporting.report import WATCHED_VARIABLE, Report, duration_text, one_line
from ..reporting.run_log import RunLog, new_log
from ..settings.keys import ROLES
from ..settings.model import Settings

EVERY = "all"
MOST_AT_ONCE = 64
LOG_DAYS = 30
"""How long the logs of earlier runs are kept."""
ENDING_LIMIT_S = 300.0
"""How long a process may take to undo its work after a signal."""
PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

BEST_FIRST = (
    ExitCode.GOOD,
    ExitCode.WARNINGS,
    ExitCode.NOT_FOUND,
    ExitCode.BUSY,
    ExitCode.REFUSED,
    ExitCode.USAGE,
    ExitCode.FAILED,
)
"""The order of the exit codes: the worst of all hosts is that of the run. A signal is worse."""
_CALLED = {
    ExitCode.GOOD: "good",
    ExitCode.FAILED: "failed",
    ExitCode.USAGE: "wrong usage",
    ExitCode.WARNINGS: "warnings",
    ExitCode.NOT_FOUND: "not found",
    ExitCode.BUSY: "busy",
    ExitCode.REFUSED: "refused",
}


def choose_hosts(settings: Settings, names: Iterable[str], role: str) -> tuple[str, ...]:
    """Return the named hosts, then those of a role, each once.

    Raises UsageError for an unknown name, or a role without hosts.
    """
    chosen = [find_machine(settings, name).name for name in names]
    if role and role not in (*ROLES, EVERY):
        known = (*ROLES, EVERY)
        near = did_you_mean(role, known)
        raise UsageError(f"--hosts {role}: use one of {', '.join(known)}.{near}")
    of_role = [each.name for each in settings.machines if role in (each.role, EVERY)]
    if role and not of_role:
        raise UsageError(f"--hosts {role}: no host in hosts.toml has this role ([[hosts]] role).")
    return tuple(dict.fromkeys([*chosen, *of_role]))


def read_at_once(text: str) -> int:
    """Return the number of hosts at once; raises UsageError."""
    if text not in map(str, range(1, MOST_AT_ONCE + 1)):
        raise UsageError(f"--at-once {text}: must be a number from 1 to {MOST_AT_ONCE}.")
    return int(text)


def worst_of(codes: Iterable[int]) -> int:
    """Return the worst of some exit codes; an unknown one is the worst."""
    return max(codes, key=lambda code: (_rank(code), code))


def _rank(code: int) -> int:
    return BEST_FIRST.index(ExitCode(code)) if code in BEST_FIRST else len(BEST_FIRST)


@dataclass(frozen=True, slots=True)
class HostResult:
    """How the task ended on one host."""

    host: str
    exit_code: int
    seconds: float
    last_line: str
    log: str = ""

    def called(self, task: str) -> str:
        """Return the result as a word."""
        if task == "status" and self.exit_code == ExitCode.USAGE:
            return "critical"
        if self.exit_code not in BEST_FIRST:
            return "stopped"
        return _CALLED[ExitCode(self.exit_code)]


def run_fleet(
    settings: Settings, words: Sequence[str], hosts: Sequence[str], at_once: int, report: Report
) -> int:
    """Run `iotstack WORDS --host HOST` for each host, and return the worst of the exit codes.

    Prints a table at the end; without a terminal not if all is well and no host printed anything.
    Left on disk: a log for each host, readable by this user only.
    """
    run = _Fleet(settings, words, report)
    stopped_by = 0
    with ThreadPoolExecutor(at_once, thread_name_prefix="host") as pool, signals_noted() as noted:
        waiting = {pool.submit(run.do, host) for host in hosts}
        results = []
        while waiting:
            ended, waiting = wait(waiting, processes.SIGNAL_LOOK_S)
            results += [each.result() for each in ended]
            if noted and not stopped_by:
                stopped_by = noted[0]
                run.stop(stopped_by)
    results.sort(key=lambda each: hosts.index(each.host))
    worst = 128 + stopped_by if stopped_by else worst_of(each.exit_code for each in results)
    if worst or report.live or run.anybody_spoke:
        rows = [
            (each.host, each.called(words[0]), duration_text(each.seconds), each.last_line)
            for each in results
        ]
        report.table(("host", "result", "time", "last line"), rows, right=(2,), copied=(3,))
    bad = [each for each in results if each.exit_code]
    if bad:
        names = ", ".join(each.host for each in bad)
        report.fail(
            f"{words[0]} failed or warned on {len(bad)} of {len(hosts)} hosts: {names}. Logs: "
            f"{run.folder}"
        )
    return worst


class _Fleet:
    """The processes of one task."""

    def __init__(self, settings: Settings, words: Sequence[str], report: Report) -> None:
        self.words = tuple(words)
        self.report = report
        self.file = os.path.abspath(os.path.expanduser(settings.file))
        self.folder = f"{state_folder()}/hosts"
        self.anybody_spoke = False
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped_by = 0
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            self._remove_old_logs()
        except OSError as error:
            raise StepFailed(f"Cannot write a log: {error}.") from error

    def _remove_old_logs(self) -> None:
        oldest_s = time.time() - LOG_DAYS * 86400
        with os.scandir(self.folder) as entries:
            for each in entries:
                with contextlib.suppress(FileNotFoundError):  # another run removes them, too
                    if each.stat(follow_symlinks=False).st_mtime < oldest_s:
                        os.unlink(each.path)

    def do(self, host: str) -> HostResult:
        """Run the task for one host to its end."""
        started = time.monotonic()
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        path = f"{self.folder}/{quote(host, safe='')}.{self.words[0]}-{now}.log"
        try:
            log = new_log(path)
        except OSError as error:
            why = f"its log could not be written: {error.strerror}"
            return HostResult(host, ExitCode.FAILED, 0.0, why)
        last = ""
        try:
            code, last = self._run(host, log)
        except OSError as error:
            code, last = ExitCode.FAILED, f"could not start: {error.strerror}"
            log.write(self.words[0], last)
        log.finish(os.rename)
        return HostResult(host, code, time.monotonic() - started, last, log.path)

    def _run(self, host: str, log: RunLog) -> tuple[int, str]:
        with self._lock:
            if self._stopped_by:
                return 128 + self._stopped_by, "not started"
            process = self._start(host)
            self._running.add(process)
        last = ""
        try:
            assert process.stdout is not None  # noqa: S101 - we asked for a pipe
            with process.stdout:
                for raw in process.stdout:
                    line = raw.decode("utf-8", "backslashreplace").rstrip("\r\n")
                    log.write(self.words[0], line)
                    with self._lock:
                        self.anybody_spoke = True
                        self.report.write(f"{host}: {line}")
                    last = line if line.strip() else last
            code = process.wait()
        except BaseException:
            processes.end(process)
            raise
        finally:
            with self._lock:
                self._running.discard(process)
        return (code if code >= 0 else 128 - code), one_line(last)

    def _start(self, host: str) -> subprocess.Popen[bytes]:
        """Start it as a session leader: it gets a Ctrl-C only through this process, and once."""
        own = os.environ.get("PYTHONPATH", "")
        environment = {
            **os.environ,
            "PYTHONPATH": f"{PACKAGE_PARENT}{os.pathsep}{own}" if own else PACKAGE_PARENT,
            WATCHED_VARIABLE: "1" if self.report.live else "0",
            "IOTSTACK_SETTINGS": self.file,
        }
        named = (f"--settings={self.file}",) if self.report.settings_file else ()
        # -P: nothing is imported from the current folder.
        python = (sys.executable, "-P", "-m", __package__.partition(".")[0])
        return subprocess.Popen(
            (*python, *self.words, *self.report.verbosity_flags, *named, f"--host={host}"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )

    def stop(self, number: int) -> None:
        """Pass a signal on to every process, and start no more; one that never ends is killed."""
        with self._lock:
            self._stopped_by = number
            running = list(self._running)
        for each in running:
            with contextlib.suppress(ProcessLookupError):
                each.send_signal(signal.Signals(number))
            timer = threading.Timer(ENDING_LIMIT_S, processes.end, [each])
            timer.daemon = True
            timer.start()
