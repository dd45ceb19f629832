"""The progress lines of running jobs, drawn by Rich: step, activity, elapsed time, bytes.

Imported only if a user watches at a terminal: Rich takes long to load.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.filesize import decimal
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

WIDE = 100
"""The terminal width from which a bar is drawn besides the numbers."""
BAR = 16


def clock_text(seconds: float) -> str:
    """Return an elapsed time like a clock: `0:07`, `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Doing(ProgressColumn):
    """The current step, or what it reports to wait for; cut if there is no space."""

    def render(self, task: Task) -> Text:
        text = task.fields["saying"] or task.fields["doing"]
        return Text(text, no_wrap=True, overflow="ellipsis")


class _Since(ProgressColumn):
    """How long the step has been running."""

    def render(self, task: Task) -> Text:
        return Text(clock_text(time.monotonic() - task.fields["began_s"]), style="cyan")


class _Moved(ProgressColumn):
    """Bytes transferred, speed and remaining time; '' if none."""

    def __init__(self, *, wide: bool) -> None:
        super().__init__(Column(no_wrap=True))
        self.wide = wide

    def render(self, task: Task) -> Text:
        if not task.completed:
            return Text("")
        left = f", {clock_text(task.time_remaining)} left" if task.time_remaining else ""
        size = decimal(int(task.completed))
        if task.total and not self.wide:
            return Text(f"{100 * task.completed / task.total:.0f} %{left}")
        speed = f", {decimal(int(task.speed))}/s" if task.speed else ""
        if not task.total:
            return Text(f"{size}{speed}")
        told = f"{size} of {decimal(int(task.total))}{speed}{left}"
        done = round(BAR * min(task.completed / task.total, 1))
        return Text.assemble(
            ("━" * done, "green"), ("━" * (BAR - done), "bright_black"), f" {told}"
        )


class _Lines(Progress):
    """Lines that leave space for what a terminal echoes.

    `^C` after a full line would begin another one, and the first progress line would never go.
    """

    def __init__(self, *columns: ProgressColumn, console: Console, **given: Any) -> None:
        self._shown_on = console
        super().__init__(*columns, console=console, **given)

    def get_renderables(self) -> Iterator[RenderableType]:
        """Yield the lines."""
        table = self.make_tasks_table(self.tasks)
        yield Constrain(table, max(1, self._shown_on.width - len("^C^C")))


def bars_on(console: Console) -> Progress:
    """Return the progress lines for a console, one per job; they disappear when stopped."""
    return _Lines(
        SpinnerColumn(),
        TextColumn("{task.fields[job]}", markup=False, table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[step]}", markup=False, table_column=Column(no_wrap=True)),
        _Doing(Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        _Moved(wide=console.width >= WIDE),
        _Since(Column(no_wrap=True, justify="right", min_width=4)),
        console=console,
        transient=True,
        expand=True,
        refresh_per_second=5,
    )
