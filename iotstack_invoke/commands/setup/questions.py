"""The questions of `init`: each has a flag, and as its default the answer that counts now."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ...core.dataclass import dataclass
from ...core.errors import UsageError
from ...hosts.ssh_aliases import ssh_aliases
from ...settings.validation import local_policy
from .answers import (
    NEVER,
    NONE,
    NTFY,
    PING,
    USUAL_AT,
    USUAL_FOLDER,
    USUAL_IN_CLOUD,
    USUAL_KEEP,
    USUAL_KEEP_COPIES,
    USUAL_NAME,
    Answers,
    is_same_place,
    is_url,
    keep_text,
    read_at,
    read_keep,
    read_place,
    read_receiver,
)
from .candidates import MOST, find_drives, find_remotes, find_stacks
from .dialog import Choice, Dialog

YES, NO = "yes", "no"
SAME, OTHER, OTHER_MACHINE = "same", "other", "machine"
MORE_KEEP = "5,daily=7,weekly=4"
AT_QUESTION = (
    "\nA schedule also rehearses a restore each week, verifies the backups each month, and looks "
    "for problems each hour.\nWhen to back up each day (HH:MM, or never)"
)
NTFY_SERVER = "https://ntfy.sh"


@dataclass(frozen=True, slots=True)
class InitFlags:
    """The answers that flags gave, '' for those that are asked."""

    stack: str = ""
    copies: str = ""
    keep: str = ""
    keep_copies: str = ""
    at: str = ""
    notify: str = ""
    mqtt: str = ""
    """yes, no, or '' for what suits the stack."""

    def missing(self) -> tuple[str, ...]:
        """Return the flags of the questions that have no answer."""
        asked = (each.name for each in fields(self) if each.name not in ("keep_copies", "mqtt"))
        return tuple(f"--{name}" for name in asked if not getattr(self, name))


@dataclass(frozen=True, slots=True)
class CurrentAnswers:
    """What counts now."""

    stack: str
    """An absolute path."""
    content: Mapping[str, Any]
    """What the settings file says."""
    at: str
    """HH:MM, '' if nothing is scheduled."""
    has_file: bool

    @property
    def vaults(self) -> Sequence[Mapping[str, Any]]:
        """The rows of vaults."""
        rows: Sequence[Mapping[str, Any]] = self.content.get("vaults", ())
        return rows

    @property
    def notify(self) -> Sequence[Mapping[str, Any]]:
        """The rows of notify."""
        rows: Sequence[Mapping[str, Any]] = self.content.get("notify", ())
        return rows

    @property
    def keep(self) -> str:
        """The rules of this machine, as read_keep reads them."""
        return keep_text(local_policy(self.content.get("stack", {})))


def gather_answers(given: InitFlags, current: CurrentAnswers, dialog: Dialog | None) -> Answers:
    """Return what is wanted: from flags, or asked, or else as it is now.

    Raises UsageError for a flag that is wrong, and for missing ones if there is no one to ask and
    no file that has the answers.
    """
    if dialog is None and not current.has_file and given.missing():
        raise UsageError(
            "No terminal to ask on (or --yes was given), so each answer must be a flag. Missing: "
            f"{', '.join(given.missing())}. Not wanted: --copies none, --at never, --notify none."
        )
    for flag, text in (("--keep", given.keep), ("--keep-copies", given.keep_copies)):
        if text and text != NONE:
            read_keep(text, flag)
    if given.at:
        read_at(given.at)
    if given.mqtt not in ("", YES, NO):
        raise UsageError(f"--mqtt {given.mqtt}: use {YES} or {NO}.")
    flagged = _new_receiver(given.notify, current) if given.notify else None
    stack = _stack(given, current, dialog)
    vault = _vault(given, current, dialog, stack)
    keep = _keep(given, current, dialog)
    return Answers(
        stack=stack,
        vault=vault,
        keep=read_keep(keep),
        keep_copies=_keep_copies(given) if vault else {},
        at=_at(given, current, dialog),
        notify=flagged if given.notify or dialog is None else _receiver(current, dialog),
    )


def read_stack(text: str) -> str:
    """Return the path of a folder that exists; raises UsageError."""
    folder = os.path.abspath(os.path.expanduser(text))
    if not text or not os.path.isdir(folder):
        raise UsageError(f"--stack {text}: there is no such folder.")
    return folder


def _stack(given: InitFlags, current: CurrentAnswers, dialog: Dialog | None) -> str:
    """Return the folder of the stack, absolute."""
    if given.stack:
        return read_stack(given.stack)
    if dialog is None:
        return current.stack
    told = {each.value: each.told for each in find_stacks()}
    if current.has_file or (os.path.isdir(current.stack) and not told):
        now = ("as now",) if current.has_file else ()
        shown = ", ".join((*now, *filter(None, (told.pop(current.stack, ""),))))
        told = {current.stack: shown, **told}
    if not told:
        return read_stack(dialog.text("The folder of the stack", "~/IOTstack", read_stack))
    choices = [(each, _shown(each, said)) for each, said in told.items()]
    default = current.stack if current.stack in told else choices[0][0]
    choices.append((OTHER, "another folder"))
    chosen = dialog.choose("Where is the stack?", choices, default)
    if chosen == OTHER:
        return read_stack(dialog.text("The folder of the stack", "", read_stack))
    return chosen


def _vault(
    given: InitFlags, current: CurrentAnswers, dialog: Dialog | None, stack: str
) -> Mapping[str, Any] | None:
    """Return the row of a new vault, None for no new one."""
    if given.copies:
        return _new_place(given.copies, current)
    return None if dialog is None else _asked_place(current, dialog, stack)


def _new_place(text: str, current: CurrentAnswers) -> Mapping[str, Any] | None:
    """Return the row of a place that is no vault yet; raises UsageError."""
    if text in [each["name"] for each in current.vaults]:
        return None
    row = read_place(text)
    if row is None and current.vaults:
        raise UsageError(_removes_nothing("--copies", "[[vaults]]", current.vaults))
    if row is None or any(is_same_place(row, each) for each in current.vaults):
        return None
    return row


def _asked_place(current: CurrentAnswers, dialog: Dialog, stack: str) -> Mapping[str, Any] | None:
    names = ", ".join(each["name"] for each in current.vaults)
    drives, remotes = find_drives(stack), find_remotes()
    choices: list[Choice] = [(SAME, f"as now: {names}")] if names else []
    choices += [
        (f"{each.value}/{USUAL_NAME}", _shown(f"the drive at {each.value}", each.told))
        for each in drives
    ]
    choices += [
        (f"ssh:{each}", f"{each}, over SSH (an alias of ~/.ssh/config)")
        for each in ssh_aliases()[:MOST]
    ]
    choices += [
        (f"rclone:{each.value}", f"the cloud {each.value} (a remote of rclone)")
        for each in remotes[:MOST]
    ]
    choices.append((OTHER_MACHINE, "another machine over SSH, such as a NAS"))
    choices.append((OTHER, "another folder, such as a USB drive or a mounted share"))
    if not names:
        choices.append((NONE, "none yet: backups stay on this machine only"))
    default = SAME if names else NONE
    if not names and (drives or remotes):
        default = choices[0][0] if drives else f"rclone:{remotes[0].value}"
    chosen = dialog.choose("Where do second copies go?", choices, default)
    if chosen in (SAME, NONE):
        return None
    return _new_place(_whole_place(chosen, dialog), current)


def _whole_place(chosen: str, dialog: Dialog) -> str:
    """Return a place with what the choice did not say: its machine, its folder."""
    if chosen == OTHER:

        def check(text: str) -> None:
            if not text.startswith(("/", "~/")):
                raise UsageError("It must begin with / or ~/.")

        return dialog.text("The folder", "", check)
    if chosen == OTHER_MACHINE:

        def check_machine(text: str) -> None:
            read_place(f"ssh:{text}:x")

        chosen = f"ssh:{dialog.text('The machine, as USER@HOST', '', check_machine)}"
    if chosen.startswith("/"):
        return chosen
    begin = chosen if chosen.endswith(":") else f"{chosen}:"

    def check_folder(text: str) -> None:
        read_place(f"{begin}{text}")

    is_cloud = chosen.startswith("rclone:")
    question = "The folder there" if is_cloud else "The folder there (below the home of the user)"
    usual = USUAL_IN_CLOUD if is_cloud else USUAL_FOLDER
    return f"{begin}{dialog.text(question, usual, check_folder)}"


def _keep(given: InitFlags, current: CurrentAnswers, dialog: Dialog | None) -> str:
    """Return the rules of this machine."""
    if given.keep:
        return keep_text(read_keep(given.keep))
    if dialog is None:
        return current.keep
    choices = {
        current.keep: f"as now: {current.keep}",
        USUAL_KEEP: f"the newest {USUAL_KEEP}",
        MORE_KEEP: "the newest 5, and the newest of each of 7 days and 4 weeks",
    }
    if not current.has_file:
        choices[current.keep] = f"the newest {current.keep}"
    listed = [*choices.items(), (OTHER, f"other rules, such as {USUAL_KEEP_COPIES}")]
    chosen = dialog.choose("Which backups stay on this machine?", listed, current.keep)
    return dialog.text("The rules", current.keep, read_keep) if chosen == OTHER else chosen


def _keep_copies(given: InitFlags) -> Mapping[str, Any]:
    return {} if given.keep_copies == NONE else read_keep(given.keep_copies or USUAL_KEEP_COPIES)


def _at(given: InitFlags, current: CurrentAnswers, dialog: Dialog | None) -> str:
    """Return when to back up, '' for never."""
    if given.at:
        return read_at(given.at)
    if dialog is None:
        return current.at
    default = current.at or (NEVER if current.has_file else USUAL_AT)
    return read_at(dialog.text(AT_QUESTION, default, read_at))


def _new_receiver(text: str, current: CurrentAnswers) -> Mapping[str, Any] | None:
    """Return the row of a receiver that is not yet told; raises UsageError."""
    row = read_receiver(text)
    if row is None and current.notify:
        raise UsageError(_removes_nothing("--notify", "[[notify]]", current.notify))
    if row is None or any({**each, **row} == each for each in current.notify):
        return None
    return row


def _receiver(current: CurrentAnswers, dialog: Dialog) -> Mapping[str, Any] | None:
    names = ", ".join(f"{each['name']} ({each['kind']})" for each in current.notify)
    choices: list[Choice] = [(SAME, f"as now: {names}")] if names else [(NONE, "nowhere")]
    choices += [
        (NTFY, "a phone, by ntfy (an app)"),
        (PING, "healthchecks.io or Uptime Kuma, which also warn if no backup comes"),
    ]
    chosen = dialog.choose("Where are problems reported?", choices, choices[0][0])
    if chosen in (SAME, NONE):
        return None
    topic = f"{NTFY_SERVER}/iotstack-{secrets.token_urlsafe(9)}" if chosen == NTFY else ""

    def check(text: str) -> None:
        if not is_url(text):
            raise UsageError("It must begin with https:// or http://.")

    question = "The address (subscribe to it in the app)" if topic else "The address of the check"
    return _new_receiver(f"{chosen}:{dialog.text(question, topic, check)}", current)


def _removes_nothing(flag: str, table: str, rows: Sequence[Mapping[str, Any]]) -> str:
    names = ", ".join(each["name"] for each in rows)
    return (
        f"{flag} none: there is {names} already, and init removes nothing. Remove its {table} "
        "from hosts.toml yourself."
    )


def _shown(text: str, told: str) -> str:
    return f"{text} ({told})" if told else text
