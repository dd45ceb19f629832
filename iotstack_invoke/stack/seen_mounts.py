"""Which containers see something else at a mount than what lies at its path on the host now.

A bind mount holds on to what lay at its path when the container started. What is renamed into
that place later, or mounted over it, such as a drive that came late, the container never sees.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..hosts.base import Command, Host, sh
from .compose import InspectedContainer, Mount

LOOK_LIMIT_S = 600.0
MOUNTS_AT_ONCE = 100
_ESCAPED = {"\\": "\\134", " ": "\\040", "\t": "\\011", "\n": "\\012"}
"""As the kernel writes them into mountinfo."""

# Of each PID INSIDE ESCAPED SOURCE a line: "other", or nothing. What is no mount of its own by
# that very name (links in the container lead there) is not judged, nor what we may not read. An
# empty folder holds nothing, nor does a file that an editor replaced and nobody wrote since.
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
    """Return the mounts at which a container keeps something else: its name, the path in it."""
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
