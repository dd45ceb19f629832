"""What `inv` can do in this checkout: the doors of iotstack_invoke, and those of its makers."""

import importlib.util
import os
import sys
from collections.abc import Iterable

from invoke import Context, Exit, task
from invoke.main import program as inv

from iotstack_invoke.cli.program import IotstackProgram, tell_stops
from iotstack_invoke.cli.tasks_and_flags import namespace

IN_ORDER = "--no-loadscope-reorder"
"""The files on the stand first, as they are collected: what is short fills the gaps at the end."""
HERE = os.path.dirname(os.path.abspath(__file__))
tell_stops()
inv.__class__ = IotstackProgram  # it tells a wrong command line as `iotstack` does
namespace.configure({"iotstack": {"checkout": HERE}})


@task(
    auto_shortflags=False,
    help={
        "quick": "Only the tests of single modules, about two minutes; needs no root.",
        "live": "With the tests on the stand, or --no-live; they need root.",
        "long": "With further cases of what is tested anyway, which take an hour or two.",
        "at-once": "How many files of tests run side by side; each has a stand of its own.",
    },
)
def test(
    _context: Context,
    quick: bool = False,  # noqa: PT028 - a task
    live: bool = True,  # noqa: PT028
    long: bool = False,  # noqa: PT028
    at_once: int = 3,  # noqa: PT028
) -> None:
    """Run the tests; those on the stand need root, and are skipped without it."""
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
        "name": "One of benchmarks/, such as general_part; also several times. Without: all.",
        "keep": "Put what is found in docs/performance.md, for a machine that does nothing else.",
    },
)
def bench(_context: Context, name: Iterable[str] | None = None, keep: bool = False) -> None:
    """Measure against what people would use instead."""
    _need_pytest("Benchmarks")
    kept = ("--keep",) if keep else ()
    _become(sys.executable, f"{HERE}/benchmarks/report.py", *kept, *(name or ()))


def _need_pytest(what: str) -> None:
    """End with what to do where plain `sh setup` has installed what runs the program alone."""
    if importlib.util.find_spec("pytest") is None:
        raise Exit(f"{what} need more than the program does. Install it with: sh setup test")


def _become(*words: str) -> None:
    """Let a program run in our place: what stops us stops it, and nobody watches it meanwhile."""
    sys.stdout.flush()
    os.execv(words[0], words)  # noqa: S606 - words of our own


namespace.add_task(test)
namespace.add_task(bench)
