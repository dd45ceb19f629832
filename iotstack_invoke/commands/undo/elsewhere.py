"""What an undo leaves on other file systems: former live data are noted, empty folders removed.

During the undo of a change its journal names these folders; afterwards nothing else would, and
they would never be listed or removed.
"""

from __future__ import annotations

import contextlib
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from ...core.errors import StepFailed
from ...core.stack_folders import RESTORE
from ...engine.steps import UndoableStep
from ...hosts.base import ANY_EXIT, Command, Host
from ...hosts.inspect import which_may_be_there

ELSEWHERE_FILE = "elsewhere.json"
"""In the data that an undo moved aside in restore/: its folders on other file systems."""
_USED = re.compile(r"(?P<folder>/.*/\.(?P<name>previous-[^/]+-\d{8}T\d{6}Z-undone))(/.*)?")
_ASIDE = re.compile(r"(?P<folder>/.*/\.previous-[^/]+-\d{8}T\d{6}Z)(/.*)?")
# Root may have made the folder; later it is listed without root.
_NOTE = (
    'mkdir -p -m 0700 "$1" && printf %s "$2" > "$1/$3" && '
    '{ [ "$(id -u)" != 0 ] || chown --reference="$(dirname "$1")" "$1" "$1/$3"; } && '
    'chmod go-w "$1" "$1/$3" && sync "$1/$3" "$1"'
)


def used_by(steps: Iterable[UndoableStep]) -> Mapping[str, tuple[str, ...]]:
    """Return the folders outside restore/ to which undoing steps moves data, by state name."""
    found: dict[str, dict[str, None]] = {}
    for each in steps:
        used = _USED.fullmatch(str(getattr(each, "used", "")))
        if used and ".." not in used["folder"].split("/"):
            found.setdefault(used["name"], {})[used["folder"]] = None
    return {name: tuple(folders) for name, folders in found.items()}


def note_elsewhere(
    host: Host, stack: str, root: Callable[[], tuple[str, ...]], steps: Iterable[UndoableStep]
) -> Iterator[str]:
    """Record what steps left on other file systems when they were undone.

    Yields a message if it could not be recorded.
    """
    for name, folders in used_by(steps).items():
        try:
            there = which_may_be_there(host, folders)
            left = [each for each in folders if each in there]
            if left:
                note = (f"{stack}/{RESTORE}/{name}", json.dumps({"with": left}), ELSEWHERE_FILE)
                host.run(Command((*root(), "sh", "-c", _NOTE, "sh", *note), timeout_s=60))
        except StepFailed as error:
            yield (
                f"Data from before this undo may be in {', '.join(folders)}, but `inv undo "
                f"--list` will not list them, because this could not be recorded. {error}"
            )


def remove_emptied(
    host: Host, root: Callable[[], tuple[str, ...]], steps: Iterable[UndoableStep]
) -> None:
    """Remove the empty folders on other file systems from which everything was put back.

    Only if no step is pending: an empty folder may be what is still to be put back. A folder that
    cannot be removed holds nothing, and is left.
    """
    found = (_ASIDE.fullmatch(str(getattr(each, "aside", ""))) for each in steps)
    folders = dict.fromkeys(each["folder"] for each in found if each)
    asked = [each for each in folders if ".." not in each.split("/")]
    with contextlib.suppress(StepFailed):
        if there := sorted(which_may_be_there(host, asked)):
            words = ("find", *there, "-xdev", "-depth", "-type", "d", "-empty", "-delete")
            host.run(Command((*root(), *words), ANY_EXIT, 600))


def noted(text: str, name: str) -> Iterator[str]:
    """Yield the folders that a note names for a state; skips names that are no such folder."""
    try:
        told = [str(each) for each in json.loads(text)["with"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return
    for path in told:
        if posixpath.basename(path) == f".{name}" and ".." not in path.split("/"):
            yield path
