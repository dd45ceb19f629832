"""What answers change in the text of hosts.toml. Pure, but for a look at the mounts of drives."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from ...backups.retention import RULE_KEYS
from ...reporting.report import as_called
from ...settings.edit import with_row, with_values
from ...vaults.folder import unnamed_mount
from .answers import Answers, free_name, keep_text, place_name, place_text
from .questions import CurrentAnswers

COMMENTS = {
    "": "A place for second copies. What these rules do not keep is removed each week by the "
    "schedule of init, or by `inv prune --at NAME`.",
    "keep": "the newest good backups",
    "keep_daily": "the newest of each day",
    "keep_weekly": "the newest of each week",
    "keep_monthly": "the newest of each month",
    "keep_yearly": "the newest of each year",
    "mount": "nothing is written while no drive is mounted here",
}
TOLD = "Where problems are reported. The key `on` says which runs are."


def changed_text(text: str, current: CurrentAnswers, answers: Answers) -> str:
    """Return the text of the settings with these answers, and nothing else changed.

    Raises Refused if the text cannot be changed so.
    """
    values: dict[str, Any] = {}
    if not current.has_file or answers.stack != current.stack:
        values["folder"] = _from_home(answers.stack)
    if not current.has_file or keep_text(answers.keep) != current.keep:
        values |= {key: answers.keep.get(key) for key in RULE_KEYS}
    text = with_values(text, "stack", values)
    if answers.vault:
        row = _vault_row(answers.vault, answers.keep_copies, current)
        is_below_home = row["kind"] == "ssh" and not row["folder"].startswith(("/", "~"))
        below_home = {"folder": "in that user's home"} if is_below_home else {}
        comments = {**COMMENTS, "": as_called(COMMENTS[""].replace("NAME", row["name"]))}
        text = with_row(text, "vaults", row, {**comments, **below_home})
    if answers.notify:
        name = _receiver_name(current, answers.notify)
        text = with_row(text, "notify", {"name": name, **answers.notify}, {"": TOLD})
    return text


def summary(current: CurrentAnswers, answers: Answers) -> Iterator[str]:
    """Yield a line for each answer, without secrets."""
    yield f"  stack    {answers.stack}"
    vaults = [f"{each['name']} ({place_text(each)})" for each in current.vaults]
    vaults += [place_text(answers.vault)] if answers.vault else []
    yield f"  copies   {', '.join(vaults) or 'none'}"
    copies = keep_text(answers.keep_copies)
    of_copies = f"; of the new copies {copies or 'all'}" if answers.vault else ""
    yield f"  keep     {keep_text(answers.keep)} here{of_copies}"
    more = ", rehearsed weekly, verified monthly, looked after hourly" if answers.at else ""
    yield f"  at       {answers.at or 'never'}{more}"
    told = [each["name"] for each in current.notify]
    told += [_receiver_name(current, answers.notify)] if answers.notify else []
    yield f"  notify   {', '.join(told) or 'none'}"


def _vault_row(
    place: Mapping[str, Any], policy: Mapping[str, Any], current: CurrentAnswers
) -> Mapping[str, Any]:
    """Return the whole row of a new vault."""
    name = place_name(place, (each["name"] for each in current.vaults))
    drive = ""
    if place["kind"] == "folder":
        drive = unnamed_mount(os.path.expanduser(place["folder"]))
    return {"name": name, **place, **({"mount": drive} if drive else {}), **policy}


def _receiver_name(current: CurrentAnswers, row: Mapping[str, Any]) -> str:
    kind: str = row["kind"]
    return free_name(kind, (each["name"] for each in current.notify), kind)


def _from_home(folder: str) -> str:
    """Return a folder as people write it: with ~ for the home."""
    home = os.path.expanduser("~")
    return f"~{folder.removeprefix(home)}" if folder.startswith(f"{home}/") else folder
