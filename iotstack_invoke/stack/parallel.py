"""Steps side by side, where neither needs what the other does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from ..core.dataclass import dataclass
from ..engine.steps import Step, StepContext


@dataclass(frozen=True, slots=True)
class InParallel:
    """Steps that are done at the same time; none of them has an undo.

    When all have ended, the failure of the first one that failed is raised.
    """

    steps: tuple[Step, ...]

    def commands(self) -> tuple[str, ...]:
        """Return those of all, in their order."""
        return tuple(line for step in self.steps for line in step.commands())

    def do(self, context: StepContext) -> None:
        """Do them; raises StepFailed."""
        with ThreadPoolExecutor(len(self.steps)) as pool:
            tasks = [pool.submit(step.do, context) for step in self.steps]
        for task in tasks:
            task.result()
