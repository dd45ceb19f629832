"""Which containers see other data at a mount than the present data at its path on the host.

A bind mount keeps the data that were at its path when the container started. The container never
sees data that are renamed to that path later, or mounted over it, such as a drive that came late.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..hosts.base import Command, Host, sh
from .compose import InspectedContainer, Mount

LOOK_LIMIT_S = 600.0
MOUNTS_AT_ONCE = 100
_ESCAPED = {"\\": "\\134", " ": "\\040", "\t": "\\011", "\n": "\\012"}
"""As the kernel writes them into mountinfo."""

# Prints for each PID INSIDE ESCAPED SOURCE a line: "other", or nothing. It skips paths that are
# not a mount by exactly that name (links in the container lead there) or not readable, empty
# folders, and files that an editor replaced and that were not written since.
_SCRIPT = """
last=
holds() {
  if [ -d "$1" ]; then [ -n "$(ls -A -- "$1" 2>/dev/null | head -c 1)" ]
  else [ ! -e "$2" ] || [ "$1" -nt "$2" ]; fi
}
while [ $# -gt 0 ]; do
  if [ "$1" != "$last" ]; then last=$1; table=$(cat "/proc/$1/mountinfo" 2>/dev/null); fi
  case $table in
    *" $3 "*)
      inside=$(stat -L -c %d:%i -- "/proc/$1/root$2" 2>/dev/null)
      if [ -n "$inside" ] && [ "$inside" != "$(stat -L -c %d:%i -- "$4" 2>/dev/null)" ] &&
        holds "/proc/$1/root$2" "$4"
      then echo other; else echo; fi ;;
    *) echo ;;
  esac
  shift 4
done
"""


def seen_otherwise(
    host: Host, mounts: Iterable[tuple[InspectedContainer, Mount]], as_root: tuple[str, ...]
) -> set[tuple[str, str]]:
    """Return the mounts at which a container sees other data: its name, the path in it."""
    asked = [
        (each, mount)
        for each, mount in mounts
        if each.pid and mount.writable and mount.source.startswith("/")
    ]
    found = set()
    for start in range(0, len(asked), MOUNTS_AT_ONCE):
        some = asked[start : start + MOUNTS_AT_ONCE]
        words = (
            word
            for each, mount in some
            for word in (str(each.pid), mount.inside, _escaped(mount.inside), mount.source)
        )
        command = Command((*as_root, *sh(_SCRIPT, *words)), timeout_s=LOOK_LIMIT_S)
        lines = host.run(command).out.splitlines()
        found |= {
            (each.container.name, mount.inside)
            for (each, mount), line in zip(some, lines, strict=False)
            if line == "other"
        }
    return found


def _escaped(path: str) -> str:
    return "".join(_ESCAPED.get(letter, letter) for letter in path)
