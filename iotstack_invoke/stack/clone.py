"""What a clone of IOTstack has and its repository does not: files and commits of the owner.

Git makes no comparison itself, because it may then run programs that the clone names (filters, a
file system monitor). It only lists files, by their hashes, of the newest commit that is both here
and at a remote, and hashes the present files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable

from ..core.dataclass import dataclass
from ..core.errors import StepFailed
from ..hosts.base import Host, sh
from .answers import answer
from .inside import above, is_in

LOOK_LIMIT_S = 240.0

# $1 is the folder of the clone; names in it follow. Prints NUL-separated: the number of commits
# that no remote has; the files below these names in the newest commit that a remote has; the
# present files and links (f: hashed later, u: not read, l: a link and its target); the hashes; the
# word done.
_SCRIPT = r"""
cd "$1" || exit 1
shift
export LC_ALL=C GIT_DIR=.git GIT_ALLOW_PROTOCOL=none GIT_OPTIONAL_LOCKS=0 GIT_TERMINAL_PROMPT=0
export GIT_NO_LAZY_FETCH=1
git() { timeout 60 git --no-pager --no-replace-objects -c core.fsmonitor=false "$@" 2>/dev/null; }
remotes=$(git for-each-ref --format='%(objectname)' refs/remotes) || exit 0
stash=$(git rev-parse -q --verify refs/stash)
count=$(git rev-list --count HEAD --branches $stash --not --remotes) || exit 0
printf '%s\0' "$count"
base=
[ -z "$remotes" ] || base=$(git merge-base HEAD $remotes)
[ -z "$base" ] || git ls-tree -r -z "$base" -- "$@" || exit 0
printf '\0'
look() { find "$@" 2>/dev/null; }
small='-type f -readable -size -40960k'
made='-name __pycache__ -prune -o -name *.pyc -o'
closed='( ! -readable -o ! -executable )'
set -f
look "$@" $made $small -printf 'f%p\0' -o -type f -printf 'u%p\0' \
  -o -type l -printf 'l%p\0%l\0' -o -type d $closed -printf 'u%p\0'
printf '\0'
look "$@" $made $small -print0 | timeout 60 xargs -0 -r \
  git --no-pager hash-object --no-filters -- 2>/dev/null | tr '\n' '\0'
printf '\0done\0'
"""


@dataclass(frozen=True, slots=True)
class Own:
    """What is in a clone and in none of its remotes."""

    paths: tuple[str, ...] = ()
    """Changed or new files, relative to the clone; for a new folder, the folder itself."""
    commits: int = 0


def own_in_clone(
    host: Host,
    folder: str,
    names: Iterable[str],
    packed: Collection[str],
    as_root: tuple[str, ...],
) -> Own | None:
    """Return what only the owner has below some names of a clone; None if Git does not answer.

    The number of commits is that of the whole clone. A file of more than 40 MiB, or one that
    cannot be read, counts as the owner's: it is not compared. `packed`: paths to leave out.
    """
    words = (*as_root, *sh(_SCRIPT, folder, *sorted(names)))
    try:
        told = answer(host, words, LOOK_LIMIT_S)
    except StepFailed:
        return None
    if told[-1:] != ["done"]:
        return None
    end = told.index("")
    tree = dict(map(_of_tree, told[1:end]))
    found = _hashes(told[end + 1 : -2])
    if found is None:
        return None
    new = [
        path
        for path, hashed in found.items()
        if hashed != tree.get(path) and not any(is_in(path, each) for each in packed)
    ]
    known = {each for path in (*tree, *packed) for each in above(path)}
    return Own(tuple(sorted({_outermost(path, known) for path in new})), int(told[0]))


def _of_tree(told: str) -> tuple[str, str]:
    """Return the path and the hash of a line of `git ls-tree`."""
    facts, _, path = told.partition("\t")
    return path, facts.split()[2]


def _hashes(told: list[str]) -> dict[str, str] | None:
    """Return the hash of each present path, '' if unknown; None if one is missing."""
    end = told.index("")
    hashes, texts = iter(told[end + 1 :]), iter(told[:end])
    found = {}
    for each in texts:
        kind, path = each[0], each[1:]
        found[path] = ""
        if kind == "l":
            said = os.fsencode(next(texts))
            found[path] = hashlib.sha1(b"blob %d\0" % len(said) + said).hexdigest()  # noqa: S324
        elif kind == "f":
            found[path] = next(hashes, "")
            if not found[path]:
                return None
    return None if next(hashes, "") else found


def _outermost(path: str, known: Collection[str]) -> str:
    """Return the outermost folder around a path that is not known, or the path itself."""
    return next((each for each in reversed([*above(path)]) if each not in known), path)
