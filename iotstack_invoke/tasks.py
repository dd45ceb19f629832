"""The doors: names, flags and help of every task. No logic.

`inv` finds them through tasks.py in the checkout; the installed program is `iotstack`.
"""

from __future__ import annotations

from invoke.collection import Collection

from .doors import Work, door


@door(
    runs=True, help={"runtag": "The backup's name; this minute, as 2026-11-23_1100, if left out."}
)
def backup(work: Work, runtag: str = "") -> int:
    """Back up the stack, prove it, and copy it to every vault."""
    from .actions.backup import back_up

    return back_up(work.settings, runtag, work.options, work.report)


@door(name="list", help={"json": "Print JSON for programs."})
def list_(work: Work, json: bool = False) -> None:
    """List the backups here and in the vaults: age, size, parts, state."""
    from .actions.listing import list_backups

    list_backups(work.settings, work.report, as_json=json)


@door(help={"format": "tree, mermaid or dot."})
def graph(work: Work, format: str = "tree") -> None:  # noqa: A002 - it is the flag's name
    """Show what a backup is made of, as a picture of the rules."""
    from .actions.listing import show_graph

    show_graph(work.settings, work.report, format)


@door(help={"file": "A file of a backup, such as backups/2026-11-23_1100.influx-backup.tar."})
def why(work: Work, file: str) -> None:
    """Say how a file is made, from what, and why it would or would not be made now."""
    from .actions.listing import show_why

    show_why(work.settings, work.report, file)


@door()
def demo(work: Work) -> int:
    """Make a sample stack, back it up, break it, and show what was proven."""
    from .actions.demo import show_demo

    return show_demo(work.report)


namespace = Collection(backup, list_, graph, why, demo)
