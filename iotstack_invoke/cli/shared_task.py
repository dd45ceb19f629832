"""What every task shares: the flags that all have; errors as messages and exit codes.

A SharedTask is an Invoke task whose body is given a TaskContext instead of a Context. The tasks
themselves, with the flags of each, are in tasks_and_flags.py.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.parser.argument import Argument
from invoke.tasks import Task

from ..core.errors import ExitCode, Interrupted, IotstackError, Refused, SettingsError, UsageError

if TYPE_CHECKING:  # --list and --help need none of it: a task imports them when it runs
    from ..commands.monitoring.watched_run import WatchedRun
    from ..reporting.report import Report
    from ..settings.model import Options, Settings

EXIT_CODES = """
Exit codes: 0 success; 1 failed; 2 wrong usage or settings; 3 finished with warnings;
10 no such backup; 11 another run is active; 13 refused before anything was changed;
129, 130, 143 stopped by a signal.
"""

ALARMS = frozenset({"monitor", "notify"})
"""Tasks that tell people what is wrong: they must be told, too, why these cannot."""
CRITICAL = 2
"""The exit code that Nagios and similar monitors take for an alarm."""


def _taking(values: str, argument: Argument) -> Argument:
    """Return a flag with the values that a shell completes: see `values` of `shared_task`."""
    vars(argument)["values"] = values
    return argument


SETTINGS_FLAG = _taking(
    "<files>",
    Argument(
        name="settings", kind=str, default="", help="Use this settings file instead of hosts.toml."
    ),
)
DEBUG_FLAG = Argument(
    name="debug", kind=bool, default=False, help="Show a traceback when something fails."
)
SAYING_FLAGS = (
    Argument(
        names=("quiet", "q"),
        kind=bool,
        default=False,
        help="Print results, warnings and errors alone, also at a terminal.",
    ),
    Argument(
        names=("verbose", "v"),
        kind=int,
        default=0,
        incrementable=True,
        help="Print each step, also without a terminal; -vv: also commands, and what they print.",
    ),
)
RUN_FLAGS = (
    Argument(
        names=("dry-run",),
        attr_name="dry_run",
        kind=bool,
        default=False,
        help="Show every job, why it would run, and its commands; change nothing.",
    ),
    Argument(name="why", kind=bool, default=False, help="Show why each job runs or does not."),
    Argument(name="jobs", kind=str, default="2", help="Run this many jobs at once."),
    Argument(
        name="force",
        kind=bool,
        default=False,
        help="Backup: rebuild existing parts. Restore: no effect.",
    ),
    Argument(
        names=("keep-going",),
        attr_name="keep_going",
        kind=bool,
        default=True,
        help="After a failure, start other jobs (the default); --no-keep-going starts none.",
    ),
)
FLEET_FLAGS = (
    _taking(
        "<hosts>",
        Argument(
            name="host",
            kind=list,
            help="Run for this host of hosts.toml; repeatable. Default: this machine.",
        ),
    ),
    _taking(
        "live test all",
        Argument(
            name="hosts",
            kind=str,
            default="",
            help="Run for all hosts of this role: live, test or all.",
        ),
    ),
    Argument(
        names=("at-once",),
        attr_name="at_once",
        kind=str,
        default="8",
        help="With several hosts: run for this many at once.",
    ),
)
"""The flags of a task that runs for one host, or for several at once."""
IDENTITY_FLAG = _taking(
    "<files>",
    Argument(
        name="identity", kind=str, default="", help="Decrypt copies with the key in this file."
    ),
)


def plain_name(argument: Argument) -> str:
    """Return the name of an argument as it is typed, such as `dry-run`."""
    return argument.names[0].replace("_", "-").strip("-")


class SharedTask(Task):  # type: ignore[type-arg]
    """An Invoke task with our shared flags; our errors become messages and exit codes."""

    runs = False
    monitored = False
    fleet = False
    opens = False
    founds = False
    group = ""
    watched = False
    latest = False
    values: Mapping[str, str] = {}
    _run: WatchedRun | None = None

    @property
    def title(self) -> str:
        """The name as it is typed, such as `config.show`."""
        return f"{self.group}.{self.name}" if self.group else str(self.name)

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """Return the task's own flags and the shared ones."""
        shared = (*self._shared(), *SAYING_FLAGS, SETTINGS_FLAG, DEBUG_FLAG)
        own = super().get_arguments(ignore_unknown_help)
        if self.fleet:  # the body gets one host
            own = [each for each in own if each.name != "host"]
        for each in own:
            _taking(self.values.get(plain_name(each), ""), each)
            if self.latest and each.positional:
                vars(each)["unless_given"] = "latest"  # program.py takes it
        return own + [deepcopy(each) for each in shared]

    def _shared(self) -> tuple[Argument, ...]:
        identity = (IDENTITY_FLAG,) if self.opens else ()
        return (
            *(RUN_FLAGS if self.runs else ()),
            *(FLEET_FLAGS if self.fleet else ()),
            *identity,
        )

    def __call__(self, context: Context, **given: Any) -> Any:
        """Run the body with settings, report and options in place of the shared flags."""
        # Invoke prevents Python from writing bytecode: each run would compile the package again.
        sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
        from ..core.processes import signals_raised
        from ..hosts.trust import warn_with
        from ..reporting.log_handler import QUIET, WITH_LINES
        from ..reporting.report import Report

        debug = given.pop("debug", False)
        quiet, verbose = given["quiet"], given["verbose"]
        report = Report(verbosity=QUIET if quiet else min(verbose, WITH_LINES))
        warn_with(report.warn)
        code: Any = ExitCode.FAILED
        came: list[int] = []
        with self._told(lambda: code), _threads_told(report, debug=debug) as troubles:
            try:
                with signals_raised() as came:
                    code = self._do(context, given, report, debug=debug)
            except Interrupted as error:
                report.fail(str(error))
                code = error.exit_code
            if came and code != 128 + came[0]:  # it came after all work, or was ignored
                report.fail(str(Interrupted(came[0])))
                code = 128 + came[0]
            elif troubles and code in {None, ExitCode.GOOD, ExitCode.WARNINGS}:
                code = ExitCode.FAILED
        if code:
            raise Exit(code=int(code))
        return code

    @contextlib.contextmanager
    def _told(self, code: Callable[[], Any]) -> Iterator[None]:
        """Let those who watch the task know how the block ended: its exit code."""
        try:
            yield
        finally:
            if self._run:
                self._run.end(int(code() or ExitCode.GOOD))
                self._run = None

    def _body(self, work: TaskContext, given: dict[str, Any]) -> Any:
        """Run the body; those who watch the task learn that it begins."""
        dry = work.options.dry_run or given.get("dry_run")
        if self.watched and not dry:
            from ..monitoring.kept_settings import keep_settings

            keep_settings(work.settings)
        if self.watched and work.settings.monitoring and not dry:
            from ..commands.monitoring.watched_run import WatchedRun

            run = WatchedRun(work.settings, self.title, given.get("host") or "", work.report)
            run.begin()
            self._run = run
        return self.body(work, **given)

    def _do(self, context: Context, given: dict[str, Any], report: Report, *, debug: bool) -> Any:
        """Run the body and return the exit code; raises Interrupted, or an unexpected error."""
        settings_file = report.settings_file = given.pop("settings", "")
        as_json = bool(given.get("json"))
        try:
            if {"--help", "-h"} & {value for value in given.values() if isinstance(value, str)}:
                raise UsageError(f"Use: inv --help {self.title}")  # noqa: TRY301 - told as others
            if given.pop("quiet") & bool(given.pop("verbose")):
                raise UsageError("--quiet and --verbose are opposites: use one of them.")  # noqa: TRY301
            if of_fab := vars(context).get("host"):  # it is a Connection, as `fab -H` makes it
                self._refuse_host_of_fab(str(of_fab))
            _refuse_blank(given)
            _refuse_joined(given)
            dry = bool(context.config.run.dry)
            checkout = context.config.get("iotstack", {}).get("checkout", "")
            if self.fleet:
                code = self._on_hosts(given, settings_file, checkout, report, dry=dry)
            else:
                settings, options = self._known(given, settings_file, checkout, dry=dry)
                code = self._body(TaskContext(settings, report, options), given)
            self.times_called += 1
            report.flush()
        except BrokenPipeError:  # `| head` stops reading
            report.pass_over_output()
            code = 128 + signal.SIGPIPE
        except Interrupted:
            raise
        except IotstackError as error:
            if debug:
                traceback.print_exc()
            if isinstance(error, SettingsError) and (self.watched or self.title in ALARMS):
                from ..commands.monitoring.settings_watch import tell_of_settings

                tell_of_settings(error, self.title, report)
            code = self._tell(error, report, error.exit_code, as_json=as_json)
        except Exception as error:
            if debug or not self.monitored:
                raise
            code = self._tell(error, report, ExitCode.FAILED, as_json=as_json)
        except KeyboardInterrupt:
            report.fail(str(Interrupted(2)))
            code = 130
        return code

    def _refuse_host_of_fab(self, host: str) -> NoReturn:
        """Raise UsageError: the task would otherwise be one of this machine."""
        if any(each.name == "host" for each in self.get_arguments()):
            raise UsageError(
                f"-H {host}: name the host after the task: fab {self.title} --host {host}"
            )
        raise UsageError(f"-H {host}: {self.title} works on this machine only: remove -H.")

    def _known(
        self, given: dict[str, Any], file: str, checkout: str, *, dry: bool
    ) -> tuple[Settings, Options]:
        """Return the settings, and the flags that all runs share, removed from `given`."""
        from ..settings.model import Options, load_settings

        options = _options(given, dry=dry) if self.runs else Options(dry_run=dry)
        if self.opens:
            options = replace(options, identity=given.pop("identity"))
        settings = load_settings(file, checkout=checkout, may_be_missing=self.founds)
        if (self.watched or self.monitored or self.title in ALARMS) and not file:
            from ..monitoring.kept_settings import refuse_if_gone

            refuse_if_gone(settings, checkout)
        return settings.opened_by(options.identity), options

    def _on_hosts(
        self, given: dict[str, Any], file: str, checkout: str, report: Report, *, dry: bool
    ) -> int | None:
        """Run the body for one host, or the whole command for each of several."""
        names, role, at_once = (given.pop(each) for each in ("host", "hosts", "at_once"))
        words = self._words(given)
        settings, options = self._known(given, file, checkout, dry=dry)
        if role or len(names) > 1:
            from .fleet import choose_hosts, read_at_once, run_fleet

            if given.get("json"):
                raise UsageError("--json works with one host only.")
            hosts = choose_hosts(settings, names, role)
            if given.get("yes") is False and not options.dry_run:
                raise Refused("Several hosts: add --yes.")
            has_dry = any("dry" in str(each.name) for each in self.get_arguments())
            dry_word = ("--dry-run",) if options.dry_run and has_dry else ()
            words = tuple(each for each in words if each != "--dry-run")
            return run_fleet(settings, (*words, *dry_word), hosts, read_at_once(at_once), report)
        host = names[0] if names else ""
        code: int | None = self._body(
            TaskContext(settings, report, options), {**given, "host": host}
        )
        return code

    def _words(self, given: dict[str, Any]) -> tuple[str, ...]:
        """Return the command line of this task with the flags that differ from their defaults."""
        words = [str(self.name)]
        for each in self.get_arguments():
            value, flag = given.get(str(each.name)), plain_name(each)
            if value is None or value == (each.default if each.kind is not list else []):
                continue
            if each.kind is bool:
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                values = value if each.kind is list else (value,)
                words += [f"--{flag}={one}" for one in values]
        return tuple(words)

    def _tell(self, error: Exception, report: Report, code: int, *, as_json: bool) -> int:
        """Print an error, and return the exit code; for a monitor, one line, and 2.

        For a program, which reads stdout, it is JSON there too.
        """
        from ..reporting.report import one_line

        line = one_line(str(error) or repr(error))
        if not self.monitored:
            report.fail(str(error))
            if as_json:
                mistakes = getattr(error, "mistakes", ())
                more = {"mistakes": mistakes} if mistakes else {}
                report.write_json({"error": str(error), "exit_code": int(code), **more})
            return code
        if as_json:
            report.write_json({"state": "CRITICAL", "exit_code": CRITICAL, "text": line})
        else:
            report.write(f"CRITICAL {line}")
        return CRITICAL


class TaskContext:
    """What a task is given: the settings, the report, and the shared flags as options."""

    def __init__(self, settings: Settings, report: Report, options: Options) -> None:
        self.settings = settings
        self.report = report
        self.options = options


def shared_task(
    *,
    runs: bool = False,
    monitored: bool = False,
    fleet: bool = False,
    opens: bool = False,
    watched: bool = False,
    latest: bool = False,
    founds: bool = False,
    group: str = "",
    values: Mapping[str, str] | None = None,
    **keywords: Any,
) -> Callable[[Callable[..., Any]], SharedTask]:
    """Return a decorator that makes a SharedTask of `body(work, …flags)`.

    `runs`: it has the flags of a task that runs a plan. `monitored`: a monitor reads it, so that
    any error is one line on stdout and exit 2. `fleet`: it is done on one host, which the body is
    given as `host`, or on several at once. `opens`: it reads encrypted copies, which takes the key
    that its flag names. `watched`: its end may be a notification, if hosts.toml says so. `latest`:
    its runtag may be omitted. `founds`: it makes the settings file, which need not exist.
    `values`: what a shell completes after a flag, by its name as typed: words, and kinds such as
    `<vaults>`, which completion.py knows; a flag that is not named takes `<text>`. A parameter
    named `context` would be Invoke's; ours is the TaskContext.
    """

    def make(body: Callable[..., Any]) -> SharedTask:
        if runs:
            body.__doc__ = f"{(body.__doc__ or '').rstrip()}\n{EXIT_CODES}"
        # Short flags are assigned in the order of parameters: a new one would rename others.
        made = SharedTask(body, auto_shortflags=False, **keywords)
        made.runs = runs
        made.monitored = monitored
        made.fleet = fleet
        made.opens = opens
        made.watched = watched
        made.latest = latest
        made.founds = founds
        made.group = group
        made.values = values or {}
        return made

    return make


@contextlib.contextmanager
def _threads_told(report: Report, *, debug: bool) -> Iterator[list[BaseException]]:
    """Yield a list of the exceptions that end threads; each is reported in a line at once."""
    troubles: list[BaseException] = []
    before = threading.excepthook

    def tell(left: threading.ExceptHookArgs) -> None:
        error = left.exc_value or left.exc_type()
        troubles.append(error)
        if debug:
            before(left)
        _tell_of_thread(error, report)

    threading.excepthook = tell
    try:
        yield troubles
    finally:
        # A thread that was left behind runs until the process ends, and may fail until then.
        is_raw = before is threading.__excepthook__
        threading.excepthook = _tell_late if is_raw and not debug else before


def _tell_late(left: threading.ExceptHookArgs) -> None:
    from ..reporting.report import Report

    _tell_of_thread(left.exc_value or left.exc_type(), Report())


def _tell_of_thread(error: BaseException, report: Report) -> None:
    words = traceback.format_exception_only(error)[-1].strip()
    report.fail(f"Unexpected error in a thread: {words}. Add --debug to see where.")


def _refuse_blank(given: Mapping[str, Any]) -> None:
    """Refuse a blank name, as a script passes if a variable is not set; raises UsageError."""
    for flag in ("runtag", "before", "after"):
        if isinstance(given.get(flag), str) and not given[flag].strip():
            from ..core.runtag import read_runtag

            read_runtag(given[flag].strip())
    names = given.get("host") or [] if isinstance(given.get("host"), list) else [given.get("host")]
    if any(isinstance(each, str) and not each.strip() for each in names):
        raise UsageError("--host is empty. For this machine, remove it.")


def _refuse_joined(given: Mapping[str, Any]) -> None:
    """Refuse several names in one value, as other programs take them, or none; raises UsageError.

    The name of a database, after `influxdb:`, may contain a comma.
    """
    for flag in ("host", "live", "only", "vault"):
        for value in given.get(flag) or () if isinstance(given.get(flag), list) else ():
            names = [each.strip() for each in value.split(",")]
            if not any(names):
                raise UsageError(f"--{flag} is empty.")
            if len(names) > 1 and not value.startswith("influxdb:"):
                words = " ".join(f"--{flag} {shlex.quote(each)}" for each in names if each)
                raise UsageError(f"--{flag} {value}: give each name its own flag: {words}")


def _options(given: dict[str, Any], *, dry: bool) -> Options:
    jobs = given.pop("jobs")
    if jobs not in map(str, range(1, 17)):  # each is a thread
        raise UsageError(f"--jobs {jobs}: must be a number from 1 to 16.")
    from ..settings.model import Options

    return Options(
        dry_run=given.pop("dry_run") or dry,
        why=given.pop("why"),
        jobs=int(jobs),
        force=given.pop("force"),
        keep_going=given.pop("keep_going"),
    )
