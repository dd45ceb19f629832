"""The owner's own programs, before and after a backup and a restore: run with a limit, logged.

They run on their host as its login user, without a shell. Not for: steps of a backup itself
(workflows), or the settings of hooks in hosts.toml (settings).
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING

from ..core.dataclass import dataclass
from ..core.errors import Refused, StepFailed
from ..hosts.base import Command, Host
from ..reporting.report import Report
from ..settings.model import Hook, Hooks

if TYPE_CHECKING:
    from ..reporting.run_log import RunLog

KILL_AFTER_S = 2
"""How long a hook at its limit may take to end by itself."""
READ_ON_S = 2.0
"""How long a hook's output is read after its end, if a process that it started holds it open."""
MOST_SHOWN = 1_000
"""Characters of a hook: it may hold a whole script, or be a typing error."""
HELD = (
    "a process that it started still holds its output, which is no longer read. Redirect the "
    "output of that process: >/dev/null 2>&1"
)
# Prints what env(1) would find for a program: no shell built-ins, and the interpreter of its `#!`.
FIND_PROGRAM = (
    'look() { if [ -d "$1" ]; then [ $said != missing ] || said=folder; '
    'elif [ -f "$1" ] && [ -x "$1" ]; then by=; '
    'if [ -r "$1" ] && [ "$(head -c 2 -- "$1" | tr -d "\\0")" = "#!" ]; then '
    'IFS= read -r first < "$1"; IFS=" 	"; set -- ${first#??}; by=$1; fi; '
    'if [ -z "$by" ] || [ -x "$by" ]; then echo there; else echo "interpreter $by"; fi; exit; '
    'elif [ -e "$1" ]; then said=shut; fi; }; '
    'set -f; said=missing; case $1 in */*) look "$1";; '
    '*) IFS=:; for each in $PATH; do look "${each:-.}/$1"; done;; esac; echo $said'
)
ANY_END = frozenset(range(-64, 256))
"""Every exit code, and Popen's codes of a program that a signal ended."""


@dataclass(frozen=True, slots=True)
class HooksResult:
    """The messages of failed hooks: failures, and warnings for those that may fail."""

    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Occasion:
    """One run with hooks: where they run, their environment, and where messages go."""

    host: Host
    task: str
    runtag: str
    folder: str
    log: RunLog
    report: Report

    def run_before(self, hooks: Iterable[Hook]) -> tuple[str, ...]:
        """Run hooks up to the first failure that is not allowed; return the warnings.

        Raises Refused for that failure.
        """
        warnings = []
        for each in hooks:
            trouble = self._run(each, f"before_{self.task}")
            if trouble and not each.may_fail:
                raise Refused(f"The {self.task} did not start: {trouble}")
            warnings += [trouble] if trouble else []
        return tuple(warnings)

    def run_after(self, hooks: Iterable[Hook], result: str) -> HooksResult:
        """Run all hooks, whatever each of them does, and pass them the outcome of the run."""
        failures: list[str] = []
        warnings: list[str] = []
        for each in hooks:
            trouble = self._run(each, f"after_{self.task}", f"IOTSTACK_RESULT={result}")
            if trouble:
                (warnings if each.may_fail else failures).append(trouble)
        return HooksResult(tuple(failures), tuple(warnings))

    def _run(self, hook: Hook, name: str, *told: str) -> str:
        """Run one hook; return the message about its failure, or ''."""
        words = shown(hook)
        self.log.write(name, f"$ {words}")
        self.report.tell(f"{name}: {words}")
        started = time.monotonic()
        trouble, read_on_s = "", 0.0
        try:
            outcome = self.host.run(
                self._command(hook, *told),
                lambda stream, line: self.log.write(f"{name} {stream}", line),
            )
            if outcome.held:
                read_on_s = READ_ON_S
                self.log.write(name, HELD)
                self.report.tell(f"{name}: {HELD}", style="yellow")
            if outcome.exit_code:
                trouble = f"{outcome.ended}: {outcome.last_line}"
        except StepFailed as error:
            trouble = str(error)
        if trouble and time.monotonic() - started - read_on_s >= hook.limit_s:
            trouble = f"it did not end within {hook.limit_s:g} s, so it was stopped ({trouble})"
        ended, why = ("failed", f": {trouble}") if trouble else ("done", "")
        self.log.write(name, f"{ended} after {time.monotonic() - started:.1f} s{why}")
        return f"{name} `{words}` failed on {self.host.name}: {trouble}" if trouble else ""

    def _command(self, hook: Hook, *told: str) -> Command:
        environment = (
            f"IOTSTACK_TASK={self.task}",
            f"IOTSTACK_RUNTAG={self.runtag}",
            f"IOTSTACK_FOLDER={self.folder}",
            *told,
        )
        # A limit of ours would end a hook on this machine, and leave it running on another one.
        # Without `exec` timeout(1) would lead a group of its own, which a Ctrl-C does not reach.
        limited = ("exec", "timeout", f"--kill-after={KILL_AFTER_S}", f"{hook.limit_s:g}")
        return Command(
            (*limited, "env", *environment, *hook.words),
            ANY_END,
            hook.limit_s + 2 * KILL_AFTER_S + READ_ON_S,
            read_on_s=READ_ON_S,
        )


def shown(hook: Hook) -> str:
    """Return the command of a hook as users type it, cut if it is very long."""
    words = shlex.join(hook.words)
    return words if len(words) <= MOST_SHOWN else f"{words[:MOST_SHOWN]}… ({len(words):,} letters)"


def hook_lines(hooks: Hooks, task: str) -> tuple[str, ...]:
    """Return the hooks of a task for a dry run, as a user could type them."""
    return tuple(
        f"{each.name}: $ {shown(hook)}"
        for each in fields(hooks)
        if each.name.endswith(f"_{task}")
        for hook in getattr(hooks, each.name)
    )
