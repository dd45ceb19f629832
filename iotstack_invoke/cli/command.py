"""The entry points: `iotstack`, and `python -m iotstack_invoke`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType

MOCK = "unittest.mock"


def main() -> None:
    """Run the command line."""
    with _mock_left_out():
        from .program import main as run_program
    run_program()


@contextlib.contextmanager
def _mock_left_out() -> Iterator[None]:
    """Import Invoke without `unittest.mock`, which imports asyncio and TLS.

    That takes a fifth of a short command. Invoke needs it only for its MockContext, which is
    for tests.
    """
    if MOCK in sys.modules:
        yield
        return
    stand_in = ModuleType(MOCK)
    vars(stand_in)["Mock"] = object
    sys.modules[MOCK] = stand_in
    try:
        yield
    finally:
        del sys.modules[MOCK]
