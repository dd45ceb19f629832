"""Steps that run in parallel, if they do not depend on each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from ..core.dataclass import dataclass
from ..engine.steps import Step, StepContext


@dataclass(frozen=True, slots=True)
class InParallel:
    """Steps that run at the same time; none of them has an undo.

    When all have ended, the failure of the first failed step is raised.
    """

    steps: tuple[Step, ...]

    def commands(self) -> tuple[str, ...]:
        """Return the commands of all, in their order."""
        return tuple(line for step in self.steps for line in step.commands())

    def do(self, context: StepContext) -> None:
        """Run them; raises StepFailed."""
        with ThreadPoolExecutor(len(self.steps)) as pool:
            tasks = [pool.submit(step.do, context) for step in self.steps]
        for task in tasks:
            task.result()
