"""A backup's own warnings, for commands that use it. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

from ...backups.manifest import Manifest, file_warned_of

MOST_TOLD = 3
"""How many warnings of a backup are shown in full, if they are not the main point."""


def told_of_data(manifest: Manifest | None, names: Collection[str] = ()) -> tuple[str, ...]:
    """Return the backup's own warnings about its data: a few in full, then how many more.

    With `names` only those of these services.
    """
    warnings = manifest.of_data if manifest else ()
    told = [each for each in warnings if _is_of(each, names)]
    lines = [f"The backup warned: {each}" for each in told[:MOST_TOLD]]
    if manifest and len(told) > MOST_TOLD:
        more = len(told) - MOST_TOLD
        lines.append(f"{more} more warnings of the backup: inv show '{manifest.runtag}'")
    return tuple(lines)


def damaged_told(manifest: Manifest | None, names: Collection[str] = ()) -> str:
    """Return that a backup holds damaged or torn databases, and what to do; '' if not."""
    if manifest is None:
        return ""
    told = []
    for what, warnings in (
        ("files that were damaged before the backup", manifest.damaged),
        ("files that may be inconsistent", manifest.torn),
    ):
        found = [file_warned_of(each) for each in warnings if _is_of(each, names)]
        more = f" and {len(found) - MOST_TOLD:,} more" if len(found) > MOST_TOLD else ""
        told += [f"{what}: {', '.join(found[:MOST_TOLD])}{more}"] if found else []
    if not told:
        return ""
    return (
        f"{manifest.runtag} holds {', and '.join(told)}. An older backup may have a good copy. "
        f"For details: inv show '{manifest.runtag}'"
    )


def _is_of(warning: str, names: Collection[str]) -> bool:
    return not names or any(re.search(rf"\b{re.escape(each)}\b", warning) for each in names)
