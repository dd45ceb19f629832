"""Everything that a user sees: progress, tables, errors. Nothing is decided here.

Results go to stdout, everything else to stderr. Without a terminal there is no progress: a
successful run under cron prints nothing. Text from elsewhere is never taken for markup.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shlex
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from operator import add
from typing import IO, TYPE_CHECKING, Any

from ..core.errors import StepFailed
from .log_handler import (
    LOGGER,
    QUIET,
    WITH_LINES,
    WITH_STEPS,
    for_journal,
    handle_messages,
    is_journal,
)
from .step_words import step_words
from .wrapping import columns_of, wrapped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from ..engine.executor import JobResult
    from ..engine.plan import Graph, Plan, PlannedJob
    from ..engine.rules import Job
    from ..engine.steps import File, Step

GRAPH_FORMS = ("tree", "mermaid", "dot")
MOST_IN_A_CELL = 300
MOST_TROUBLES = 20
WATCHED_VARIABLE = "IOTSTACK_WATCHED"
"""If 1, a user watches the program that reads this output: a run on several hosts."""
LONGEST_WORD = 20
"""A word in a cell up to this length, such as a runtag, is broken only if it must be."""
WIDE_GAP = 3
"""The gap between columns of a table with enough space; then it also has a margin."""
COMMAND = re.compile(r"\binv [a-z]+([-.][a-z]+)*\b(?! --settings)")
"""A command in a message, up to its task's name."""
PROGRAM = "iotstack"
"""The name of the console script."""
_OF_INV = re.compile(r"\binv(?= (?:--)?[a-z])")
LINE_WIDTH = 200
"""Without a terminal Rich would wrap at 80 columns, in the middle of a path."""


def size_text(size_bytes: int) -> str:
    """Return a size in decimal units, as disks are sold: `1.2 GB`."""
    from rich.filesize import decimal

    return decimal(size_bytes)


def exact_size_text(size_bytes: int) -> str:
    """Return a size rounded and in bytes: `1.2 kB (1,234 bytes)`, `677 bytes`."""
    rounded, exact = size_text(size_bytes), f"{size_bytes:,} bytes"
    return f"{rounded} ({exact})" if size_bytes >= 1000 else rounded  # noqa: PLR2004


def duration_text(seconds: float) -> str:
    """Return a duration for users: `0.4 s`, `42 s`, `3 min 05 s`, `1 h 02 min`."""
    if seconds < 9.95:  # noqa: PLR2004 - what rounds to ten is shown as ten
        return f"{seconds:.1f} s"
    if seconds < 59.5:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:  # noqa: PLR2004
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def age_text(made: datetime | None, now: datetime, *, short: bool = False) -> str:
    """Return the age of a set for users: `3 hours`, `12 days`; `short`: `3 h`, `12 d`."""
    if made is None:
        return "?"
    seconds = (now - made).total_seconds()
    if seconds < 0:
        return "future" if short else "in the future"
    for unit, sign, length in (("day", "d", 86400), ("hour", "h", 3600), ("minute", "min", 60)):
        count = int(seconds // length)
        if count >= (2 if unit == "day" else 1):
            return f"{count} {sign}" if short else f"{count} {unit}{'s' if count > 1 else ''}"
    return "now" if short else "just now"


def as_called(text: str) -> str:
    """Return a text with `inv` commands as `iotstack` ones, if the program was started as that."""
    is_program = os.path.basename(sys.argv[0]) == PROGRAM
    return _OF_INV.sub(PROGRAM, text) if is_program else text


def shown(name: str) -> str:
    """Return a name on one line, with unprintable characters escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)


def one_line(text: str) -> str:
    """Return a text without line breaks, for output of one line only."""
    return " ".join(text.split())


class Report:
    """Prints to the user who started the run."""

    def __init__(self, *, verbosity: int = 0) -> None:
        self.verbosity = verbosity
        """-1 for -q, 1 for -v, 2 for -vv, else 0."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # under LC_ALL=POSIX "é" would abort the run
                stream.reconfigure(errors="backslashreplace")
        watched = sys.stderr.isatty() or os.environ.get(WATCHED_VARIABLE) == "1"
        self.live = verbosity >= WITH_STEPS or (watched and verbosity != QUIET)
        self._bars: Progress | None = None
        self._rows: dict[int, TaskID] = {}
        self._lock = threading.Lock()
        self._told: list[str] = []
        """Messages printed during the run: one unreachable vault is one reason for many jobs."""
        self.troubles: deque[str] = deque(maxlen=MOST_TROUBLES)
        """The last failures and warnings, printed or not."""
        self._consoles: dict[bool, Console] = {}
        self.settings_file = ""
        """The file given with --settings: each command in a message repeats it."""
        handle_messages(self._print, verbosity)

    @property
    def verbosity_flags(self) -> tuple[str, ...]:
        """The flags with which another run says as much as this one."""
        return ("--quiet",) if self.verbosity == QUIET else ("--verbose",) * self.verbosity

    def console(self, *, error: bool = False) -> Console:
        """Return the console for results, or the one for messages and errors."""
        if error not in self._consoles:
            from rich.console import Console

            stream = sys.stderr if error else sys.stdout
            width = None if stream.isatty() else int(os.environ.get("COLUMNS", LINE_WIDTH))
            self._consoles[error] = Console(
                stderr=error, width=width, highlight=False, emoji=False
            )
        return self._consoles[error]

    def tell(self, text: str, *, style: str | None = None) -> None:
        """Print a message if a user watches; without a terminal, nothing."""
        if self.live:
            self._told.append(text)
            LOGGER.info("%s", text, extra={"style": style})

    def has_told(self, text: str) -> bool:
        """Return whether a text was printed during the run; without a terminal none was."""
        return any(text in told for told in self._told)

    def fail(self, text: str) -> None:
        """Print an error, for a user or for cron's mail.

        Of a reason that a terminal shows already, in the line of its step, it prints where it is.
        """
        self._keep(text)
        told, _, why = text.partition(": ")
        shown = why and any(line.endswith(f": {why}") for line in self._told)
        LOGGER.error("%s", f"{told}: failed, see above" if shown else text)

    def failed(self, results: Iterable[JobResult]) -> None:
        """Print at the end which jobs failed and why, without reasons printed before."""
        for each in results:
            text = f"{each.job.title}: {each.message}"
            if self.has_told(each.message):
                self._keep(text)
            else:
                self.fail(text)

    def warn(self, text: str) -> None:
        """Print a warning, while the run continues."""
        self._keep(text)
        LOGGER.warning("%s", text)

    def _keep(self, text: str) -> None:
        self.troubles.append(self._repeating(text))

    def write(self, text: str) -> None:
        """Print a result unchanged."""
        self._line(text, error=False)

    def _print(self, text: str, level: int, style: str | None) -> None:
        """Print a message to stderr, for the journal with its level."""
        try:
            if is_journal(sys.stderr):
                sys.stderr.write(f"{for_journal(_visible(self._repeating(text)), level)}\n")
            else:
                self._line(text, style or _STYLE_OF_LEVEL.get(level))
        except OSError:  # a full disk behind `2>`: the run matters more than what it says
            self._pass_over(sys.stderr)

    def _line(self, text: str, style: str | None = None, *, error: bool = True) -> None:
        """Print a line unchanged; Rich, which takes long to load, is used only for a terminal."""
        stream = sys.stderr if error else sys.stdout
        text = wrapped(_visible(self._repeating(text)), columns_of(stream))
        if self._bars or (style and stream.isatty()):
            console = self._bars.console if self._bars and error else self.console(error=error)
            console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
        elif error:
            sys.stderr.write(f"{text}\n")
        else:
            self._put(f"{text}\n")

    def _repeating(self, text: str) -> str:
        """Return a text whose commands have this program's name, and the settings file again."""
        if not self.settings_file:
            return as_called(text)
        flag = f" --settings {shlex.quote(self.settings_file)}"
        return as_called(COMMAND.sub(lambda found: found[0] + flag, text))

    def write_line(self, text: str) -> None:
        """Print one of very many lines of a result; Rich would take 20 s for 100,000."""
        with self._writing():
            sys.stdout.write(f"{text}\n")

    def flush(self) -> None:
        """Write out the buffered output; raises StepFailed if that fails."""
        self._put("")

    def _put(self, text: str) -> None:
        with self._writing():
            sys.stdout.write(text)
            sys.stdout.flush()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Raise StepFailed if stdout cannot be written in the block."""
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            self.pass_over_output()
            raise StepFailed(f"Cannot write the output: {error.strerror}.") from error

    def pass_over_output(self) -> None:
        """Discard the buffered output: Python would try to write it once more at exit."""
        self._pass_over(sys.stdout)

    @staticmethod
    def _pass_over(stream: IO[str]) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

    def write_json(self, content: Any) -> None:
        """Print a result as JSON; of a list, one item per line.

        With an indent Python's slow encoder would be used: 0.3 s for a list of 10,000 sets.
        """
        if isinstance(content, list):
            lines = (json.dumps(each, ensure_ascii=False, default=str) for each in content)
            self._put("[\n" + ",\n".join(lines) + "\n]\n" if content else "[]\n")
            return
        self._put(json.dumps(content, ensure_ascii=False, indent=1, default=str) + "\n")

    def table(
        self,
        titles: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        right: Sequence[int] = (),
        copied: Sequence[int] = (),
        below: Sequence[str] = (),
    ) -> None:
        """Print rows under titles; `right` lists the columns of numbers.

        `copied`: columns with text to copy, such as paths and commands. It is never cut or broken:
        on a terminal too narrow for it, it is printed below its row. `below`: a line for each row,
        printed below it on a terminal; "" for none. Without a terminal as plain text: Rich took 6
        s for 10,000 rows.
        """
        shown = [
            tuple(
                _on_a_line(cell) if number in copied else _in_a_cell(cell)
                for number, cell in enumerate(map(self._repeating, row))
            )
            for row in rows
        ]
        if not sys.stdout.isatty():
            self._put(_plain_table([tuple(titles), *shown], right))
            return
        if copied and not _have_space([tuple(titles), *shown], copied, self.console().width):
            self._table_with_lines(titles, shown, right, copied)
            return
        if below:
            self._table_with_notes([tuple(titles), *shown], right, below)
            return
        gap, widths = _fit([tuple(titles), *shown], self.console().width)
        self._grid(titles, shown, right, gap, widths, edge=gap == WIDE_GAP)

    def _table_with_lines(
        self,
        titles: Sequence[str],
        rows: Sequence[Sequence[str]],
        right: Sequence[int],
        copied: Sequence[int],
    ) -> None:
        """Print rows without some of their columns, and below each a line for each of these."""
        kept = [number for number in range(len(titles)) if number not in copied]
        short = [tuple(row[number] for number in kept) for row in (titles, *rows)]
        gap, widths = _fit(short, self.console().width)
        moved = [kept.index(number) for number in right if number in kept]
        head = short[0]
        for number_of_row, (row, cells) in enumerate(zip(rows, short[1:], strict=True)):
            if number_of_row and len(copied) > 1:
                self._put("\n")
            if widths:
                self._grid(head, [cells], moved, gap, widths)
                head = ()
            else:
                self.write("; ".join(filter(None, cells)))
            for number in copied:
                line = f"  {titles[number]}: {row[number]}"
                if row[number].startswith("/") and " " in row[number]:  # more text will follow
                    self._put(f"{line}\n")
                elif row[number]:
                    self.write(line)

    def has_room(self, rows: Sequence[Sequence[str]], *, folded: bool = False) -> bool:
        """Return whether a table fits with each row on a line, or `folded` between words.

        The first row holds the titles. Without a terminal every table fits.
        """
        if not sys.stdout.isatty():
            return True
        _, widths = _fit(rows, self.console().width, longest=None)
        return bool(widths) and (folded or list(widths) == _full_widths(rows))

    def _table_with_notes(
        self, rows: Sequence[Sequence[str]], right: Sequence[int], below: Sequence[str]
    ) -> None:
        """Print rows, the titles first, and a line below those that have one."""
        width = self.console().width
        longest = None if self.has_room(rows, folded=True) else LONGEST_WORD
        gap, widths = _fit(rows, width, longest=longest)
        head, together = rows[0], []
        for row, note in zip(rows[1:], below, strict=True):
            together.append(row)
            if note:
                self._grid(head, together, right, gap, widths)
                self.write(f"  {note}")
                head, together = (), []
        if together:
            self._grid(head, together, right, gap, widths)

    def _grid(
        self,
        titles: Sequence[str],
        rows: Sequence[Sequence[str]],
        right: Sequence[int],
        gap: int,
        widths: Sequence[int],
        *,
        edge: bool = False,
    ) -> None:
        """Print rows by Rich; without titles they continue a table of the same widths."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(
            box=box.SIMPLE_HEAD,
            show_header=bool(titles),
            pad_edge=False,
            show_edge=edge,
            padding=(0, 1 if gap > 1 else 0),
            collapse_padding=gap == 2,  # noqa: PLR2004 - one of padding, one of the box
        )
        is_short = all(len(row[0]) <= LONGEST_WORD for row in rows)
        for number, title in enumerate(titles or ("",) * len(widths)):
            table.add_column(
                Text(title),
                justify="right" if number in right else "left",
                overflow="fold",
                width=widths[number] if widths else None,
                no_wrap=is_short and not number and not widths,
            )
        for row in rows:
            table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
        self.console().print(table)

    def finding(self, verdict: str, name: str, found: str, fix: str) -> None:
        """Print a finding as one line: on a terminal with a mark, elsewhere with a word."""
        mark, word, style = _MARKS[verdict]
        at_terminal = sys.stdout.isatty()
        text = f"{mark if at_terminal else word} {name}: {one_line(found)}"
        if fix:
            text += f" → {one_line(fix)}"
        self._line(text, style, error=False)

    # The engine's Reporter, called from its threads.

    def start_bars(self) -> None:
        """Show a bar for each running job from now on, at a terminal."""
        if not self.live or not sys.stderr.isatty():
            return
        from .bars import bars_on

        self._bars = bars_on(self.console(error=True))
        self._bars.start()

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show what the program waits for, and for how long, at a terminal."""
        if not self.live or not sys.stderr.isatty() or self._bars:
            yield
            return
        self.start_bars()
        try:
            if self._bars:
                self._bars.add_task("", total=None, job=what, **_at_step())
            yield
        finally:
            self.stop_bars()

    def stop_bars(self) -> None:
        """Stop showing bars."""
        if self._bars:
            self._bars.stop()
        self._bars = None
        self._rows.clear()

    def started(self, planned: PlannedJob) -> None:
        """A job starts."""
        if self._bars:
            with self._lock:
                self._rows[id(planned.job)] = self._bars.add_task(
                    "", total=None, job=planned.job.title, **_at_step()
                )

    def stepped(self, job: Job, number: int, step: Step) -> None:
        """A job begins its n-th step."""
        if self.verbosity >= WITH_STEPS:
            of = f"step {number} of {len(job.steps)}"
            LOGGER.debug("%s", f"{job.title}: {of}: {step_words(step)}")
        if self.verbosity >= WITH_LINES:
            for command in step.commands():
                LOGGER.debug("%s", f"    $ {command}")
        row = self._rows.get(id(job))
        if self._bars and row is not None:
            self._bars.update(
                row, **_at_step(f"step {number} of {len(job.steps)}", step_words(step))
            )

    def heard(self, job: Job, stream: str, line: str) -> None:  # noqa: ARG002
        """A program printed a line: only the log has it, and who asked for all."""
        if self.verbosity >= WITH_LINES:
            LOGGER.debug("%s", f"{job.title}: {line}")

    def said(self, job: Job, text: str) -> None:
        """A job reports its current activity."""
        row = self._rows.get(id(job))
        if self._bars and row is not None:
            self._bars.update(row, saying=text)

    def moved(self, job: Job, done_bytes: int, expected_bytes: int) -> None:
        """A job moved bytes."""
        row = self._rows.get(id(job))
        if self._bars and row is not None:
            # The expected size of a live stack is a guess: a bar never shows more than 100 %.
            total = max(expected_bytes, done_bytes) if expected_bytes else None
            self._bars.update(row, completed=done_bytes, total=total)

    def warned(self, job: Job, text: str) -> None:
        """A job warns: the warning is printed at the end of the run."""

    def ended(self, result: JobResult) -> None:
        """A job ended."""
        with self._lock:
            row = self._rows.pop(id(result.job), None)
            if self._bars and row is not None:
                self._bars.remove_task(row)
        mark, style = _ENDS[result.end.value]
        took = f" ({duration_text(result.seconds)})" if result.was_started else ""
        why = f": {result.message}" if result.message else ""
        if result.message and self.has_told(result.message):
            why = ": as above"
        self.tell(f"{mark} {result.job.title}{took}{why}", style=style)

    # Plans and rulebooks.

    def plan(
        self,
        plan: Plan,
        *,
        commands: bool = True,
        also_settled: bool = False,
        shown_only: bool = True,
    ) -> None:
        """Print every job that would run, why, and its commands.

        `shown_only`: nothing runs afterwards; otherwise they run next.
        """
        for planned in plan.planned:
            if not planned.runs and not also_settled:
                continue
            outputs = ", ".join(map(str, planned.job.outputs))
            self.write(f"{planned.job.rule.name}: {outputs or planned.job.name}")
            for reason in planned.reasons:
                self.write(f"    why: {reason}")
            if not planned.runs:
                self.write("    exists: nothing to do")
            if commands and planned.runs:
                for step in planned.job.steps:
                    for line in step.commands():
                        self.write(f"    $ {line}")
        count = len(plan.to_run)
        jobs = f"{count} job{'s' if count != 1 else ''}"
        self.write(f"{jobs} would run. Nothing was changed." if shown_only else f"{jobs} to run.")

    def graph(self, graph: Graph, form: str) -> None:
        """Print which file is made from which: as a tree, or for Mermaid or Graphviz."""
        {"tree": self._tree, "mermaid": self._mermaid, "dot": self._dot}[form](graph)

    def _tree(self, graph: Graph) -> None:
        """Print each file with its inputs below it; a file shown before is only named."""
        shown: set[File] = set()
        told: set[str] = set()

        def grow(file: File, depth: int) -> None:
            maker, begin = graph.makers.get(file), "    " * depth
            if maker is None or file in shown:
                self.write(f"{begin}{file}{' (above)' if maker else ''}")
                return
            shown.add(file)
            sources, rule = (*maker.inputs, *maker.ancient), maker.rule
            if rule.name in told and len(sources) == 1 and shown.issuperset(sources):
                self.write(f"{begin}{file}: {rule.name} from {sources[0]} (above)")
                return
            self.write(f"{begin}{file}")
            self.write(f"{begin}  {rule.name}{'' if rule.name in told else f': {rule.sentence}'}")
            told.add(rule.name)
            for each in sources:
                grow(each, depth + 1)

        used = {file for job in graph.jobs for file in (*job.inputs, *job.ancient)}
        for job in reversed(graph.jobs):
            for output in job.outputs:
                if not set(job.outputs) & used:
                    grow(output, 0)

    def _mermaid(self, graph: Graph) -> None:
        names = {file: f"f{number}" for number, file in enumerate(sorted(graph.files))}
        self.write("flowchart BT")
        for file, name in names.items():
            self.write(f'    {name}["{file}"]')
        for job in graph.jobs:
            for output in job.outputs:
                for file in (*job.inputs, *job.ancient):
                    self.write(f"    {names[file]} -->|{job.rule.name}| {names[output]}")

    def _dot(self, graph: Graph) -> None:
        self.write("digraph rules {")
        self.write("    rankdir=BT;")
        for job in graph.jobs:
            for output in job.outputs:
                self.write(f'    "{output}" [xlabel="{job.rule.name}"];')
                for file in (*job.inputs, *job.ancient):
                    self.write(f'    "{file}" -> "{output}";')
        self.write("}")


_STYLE_OF_LEVEL: Mapping[int, str] = {logging.ERROR: "red", logging.WARNING: "yellow"}
_STYLES: Mapping[str, str] = {
    "complete": "green",
    "warnings": "yellow",
    "incomplete": "red",
    "damaged": "red",
    "unfinished": "yellow",
    "failed": "red",
}


_ENDS: Mapping[str, tuple[str, str]] = {
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "not started": ("-", "yellow"),
}


_MARKS: Mapping[str, tuple[str, str, str]] = {
    "good": ("✓", "ok   ", "green"),
    "warning": ("!", "WARN ", "yellow"),
    "failed": ("✗", "FAIL ", "red"),
}


def _plain_table(rows: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    """Return rows as lines with aligned columns; the first row holds the titles."""
    columns = []
    for number, column in enumerate(zip(*rows, strict=True)):
        wider = [0 if cell.isascii() else _wider_by(cell) for cell in column]
        width = max(map(add, map(len, column), wider))
        pad = str.rjust if number in right else str.ljust
        columns.append([pad(c, width - more) for c, more in zip(column, wider, strict=True)])
    lines = ("   ".join(row).rstrip() for row in zip(*columns, strict=True))
    return "\n".join(lines) + "\n"


def _have_space(rows: Sequence[Sequence[str]], columns: Sequence[int], width: int) -> bool:
    """Return whether no cell of some columns is broken on a terminal of that width."""
    _, widths = _fit(rows, width)
    return bool(widths) and all(
        len(row[number]) + _wider_by(row[number]) <= widths[number]
        for row in rows
        for number in columns
    )


def _fit(
    rows: Sequence[Sequence[str]], width: int, *, longest: int | None = LONGEST_WORD
) -> tuple[int, tuple[int, ...]]:
    """Return the gap between columns and their widths, such that no word is broken.

    One longer than `longest` may be. The widths are () if there is too little space. Wide columns
    are narrowed first.
    """
    from rich.cells import cell_len

    columns = tuple(zip(*rows, strict=True))
    full = _full_widths(rows)
    for gap in (WIDE_GAP, 2, 1):
        space = width - gap * (len(columns) - 1) - (2 if gap == WIDE_GAP else 0)
        if sum(full) <= space:
            return gap, tuple(full)
    words = (max(map(cell_len, " ".join(column).split()), default=0) for column in columns)
    widths = [longest // 2 if longest and word > longest else word for word in words]
    if sum(widths) > space:
        return gap, ()
    while sum(widths) < space:
        narrow = [number for number, each in enumerate(widths) if each < full[number]]
        widths[min(narrow, key=widths.__getitem__)] += 1
    return gap, tuple(widths)


def _full_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the width of each column with nothing broken."""
    from rich.cells import cell_len

    return [max(map(cell_len, column)) for column in zip(*rows, strict=True)]


def _wider_by(cell: str) -> int:
    """Return by how many columns a text is wider than its number of characters."""
    from rich.cells import cell_len

    return cell_len(cell) - len(cell)


def _visible(text: str) -> str:
    """Return a text without terminal control characters: names may contain any."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def _on_a_line(text: str) -> str:
    """Return the display of a text to copy: unchanged if it is printable."""
    return text if text.isprintable() else _visible(one_line(text))


def _in_a_cell(text: str) -> str:
    """Return the display of a text, from any source, in a cell of a table."""
    if text.isprintable() and len(text) <= MOST_IN_A_CELL:
        return text
    text = _visible(one_line(text))
    return f"{text[:MOST_IN_A_CELL]}…" if len(text) > MOST_IN_A_CELL else text


def _at_step(step: str = "", doing: str = "") -> dict[str, Any]:
    """Return the fields of a job's line from the beginning of a step."""
    return {"step": step, "doing": doing, "saying": "", "began_s": time.monotonic()}


class CompositeReporter:
    """A reporter that passes everything on to several."""

    def __init__(self, *watchers: Any) -> None:
        self._watchers = watchers

    def __getattr__(self, name: str) -> Any:
        methods = [getattr(each, name) for each in self._watchers]

        def call(*arguments: Any) -> None:
            for method in methods:
                method(*arguments)

        return call
