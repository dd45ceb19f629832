"""The console script `iotstack`: the same doors as `inv`, from any working directory."""

from __future__ import annotations

import sys

from invoke.exceptions import ParseError
from invoke.program import Program

from . import __version__
from .errors import ExitCode
from .tasks import namespace


class IotstackProgram(Program):
    """Invoke's Program, which ends with our exit code where the command line is wrong."""

    def parse_core(self, argv: list[str] | None) -> None:
        """Read the flags before the task."""
        self._or_usage(super().parse_core, argv)

    def parse_tasks(self) -> None:
        """Read the tasks and their flags."""
        self._or_usage(super().parse_tasks)

    @staticmethod
    def _or_usage(parse: object, *arguments: object) -> None:
        try:
            parse(*arguments)  # type: ignore[operator]
        except ParseError as error:
            sys.stderr.write(f"{error}\n")
            sys.exit(int(ExitCode.USAGE))


program = IotstackProgram(name="iotstack", namespace=namespace, version=__version__)


def main() -> None:
    """Run the command line."""
    program.run()
