"""The tasks of `inv` in this checkout: those of iotstack_invoke, and those for its developers."""

import importlib.util
import os
import sys
from collections.abc import Iterable

from invoke import Context, Exit, task
from invoke.main import program as inv

from iotstack_invoke.cli.program import IotstackProgram, open_streams, tell_stops
from iotstack_invoke.cli.tasks_and_flags import namespace

IN_ORDER = "--no-loadscope-reorder"
"""Start the slow files first, in the order of collection; short ones fill the gaps at the end."""
HERE = os.path.dirname(os.path.abspath(__file__))
open_streams()
tell_stops()
inv.__class__ = IotstackProgram  # reports a wrong command line as `iotstack` does
namespace.configure({"iotstack": {"checkout": HERE}})


@task(
    auto_shortflags=False,
    help={
        "quick": "Run only the tests of single modules: about two minutes, without root.",
        "live": "Run the tests on real servers too; they need root. To skip them: --no-live.",
        "long": "Run further cases too; they take an hour or two more.",
        "at-once": "Run this many files of tests at the same time.",
    },
)
def test(
    _context: Context,
    quick: bool = False,  # noqa: PT028 - a task
    live: bool = True,  # noqa: PT028
    long: bool = False,  # noqa: PT028
    at_once: int = 3,  # noqa: PT028
) -> None:
    """Run the tests. Those on real servers need root; without it, they are skipped."""
    _need_pytest("Tests")
    tiers = (("whole", not quick), ("live", live and not quick), ("long", long and not quick))
    left_out = [mark for mark, wanted in tiers if not wanted]
    chosen = ("-m", f"not {' and not '.join(left_out)}") if left_out else ()
    words = ("-m", "pytest", "-n", str(at_once), "--dist", "loadfile", IN_ORDER, *chosen)
    os.chdir(HERE)
    _become(sys.executable, *words)


@task(
    auto_shortflags=False,
    iterable=["name"],
    help={
        "name": "Run one of benchmarks/, such as general_part; repeat for more. Default: all.",
        "keep": "Save the results in docs/performance.md. Use it on an idle machine only.",
    },
)
def bench(_context: Context, name: Iterable[str] | None = None, keep: bool = False) -> None:
    """Run the benchmarks: measure this tool against others that do the same."""
    _need_pytest("Benchmarks")
    kept = ("--keep",) if keep else ()
    _become(sys.executable, f"{HERE}/benchmarks/report.py", *kept, *(name or ()))


def _need_pytest(what: str) -> None:
    """Raise Exit, with what to do, if plain `sh setup` installed only what the program needs."""
    if importlib.util.find_spec("pytest") is None:
        raise Exit(f"{what} need packages that are missing. Install them with: sh setup test")


def _become(*words: str) -> None:
    """Replace this process by a program, so that a signal to it reaches the program."""
    sys.stdout.flush()
    os.execv(words[0], words)  # noqa: S606 - words of our own


namespace.add_task(test)
namespace.add_task(bench)
