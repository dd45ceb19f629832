"""Whether a file read from a host was written by us: no other user may write it or its folder.

A journal that fails this ends the run; any other such file is skipped, with a warning.

"Us" means the user that runs this and root; for root also the owner of the stack's folder, where
root works anyway. Not for: what such a file contains, or what of it may be executed (bounds.py).
"""

from __future__ import annotations

import os
import posixpath
import shlex
import stat
from collections.abc import Callable, Iterable, Mapping

from ..core.dataclass import dataclass
from ..core.errors import Refused, StepFailed
from .base import ANY_EXIT, Command, Host, sh
from .local import NOT_THERE, LocalHost

# `-`: missing, `?`: unknown, because a folder on the way may not be read. A plus follows the
# permissions if an access control list grants more.
LOOK = (
    "LC_ALL=C; export LC_ALL; id -u; for p; do "
    'if [ -e "$p" ] || [ -L "$p" ]; then ls -ldn -- "$p" | '
    '{ read -r mode links user group rest; echo "$mode $user $group"; }; else '
    "up=$p; while :; do case $up in */*) up=${up%/*} ;; *) up=. ;; esac; "
    '[ ! -e "$up" ] && [ "$up" ] || break; done; '
    '{ [ -x "${up:-/}" ] || [ ! -d "$up" ]; } && echo - || echo "?"; fi; done'
)
GROUP = (
    'getent group "$1"; case $? in 0|2) ;; 127) cat /etc/group ;; *) exit 1 ;; esac; '
    "echo; getent passwd || cat /etc/passwd"
)
"""Print a group by number, if it exists (all of them without getent(1)), and all users."""
WITHOUT_OWNERS = frozenset({"msdos", "vfat", "exfat", "fuseblk", "ntfs", "ntfs3"})
"""File system types, named as in stat(1), in which one user owns everything, with one mode."""
ACCESS_LIST = "system.posix_acl_access"
GROUP_WRITES, OTHERS_WRITE = 5, 8
"""Their positions in the permissions of ls(1)."""


@dataclass(frozen=True, slots=True)
class Owned:
    """Who owns a file or folder, and who may write it."""

    path: str
    permissions: str = ""
    """As in ls(1); '' if the path does not exist, `?` if it may not be examined."""
    user: int = -1
    group: int = -1

    @property
    def is_there(self) -> bool:
        """Whether the path exists."""
        return bool(self.permissions)

    @property
    def is_hidden(self) -> bool:
        """Whether the path could not be examined."""
        return self.permissions == "?"


class Trust:
    """Who counts as us on a host, and what is ours there."""

    def __init__(self, host: Host, stack: str, as_root: tuple[str, ...] = ()) -> None:
        self.host = host
        self.as_root = as_root
        self.me = -1
        self._stack = stack
        self._us: frozenset[int] = frozenset()
        self._private: dict[tuple[int, int], bool] = {}

    def stat(self, paths: Iterable[str]) -> Mapping[str, Owned]:
        """Return who owns each path, in one round trip; links are not followed."""
        asked = (f"{self._stack}/.", *paths)
        if isinstance(self.host, LocalHost) and not self.as_root:
            self.me = os.geteuid() if self.me < 0 else self.me
            found = {path: _owned_here(path) for path in asked}
        else:
            found = self._look_there(asked)
        stack = found[asked[0]]
        also = {stack.user} if self.me == 0 and stack.is_there else set()
        self._us = frozenset({self.me, 0, *also})
        return found

    def _look_there(self, asked: tuple[str, ...]) -> dict[str, Owned]:
        words = (*self.as_root, *sh(LOOK, *asked))
        try:
            me, *told = self.host.run(Command(words)).out.splitlines()
            if self.me < 0:
                self.me = int(self.host.run(Command(("id", "-u"))).out if self.as_root else me)
            return {path: _owned(path, line) for path, line in zip(asked, told, strict=True)}
        except ValueError as error:
            why = f"unexpected answer about the owner of {asked[0]}"
            raise StepFailed(f"On {self.host.name}: {why}.") from error

    def is_us(self, owned: Owned) -> bool:
        """Return whether it belongs to us."""
        return owned.user in self._us

    def others(self, owned: Owned) -> str:
        """Return who else may write it, as a phrase; '' for no one.

        A group whose only members are its owner and us does not count: with the umask of many
        systems each user has such a group, which may write the user's files.
        """
        mode = owned.permissions
        if not self.is_us(owned):
            return f"it belongs to user {owned.user}"
        if mode[OTHERS_WRITE] == "w" and mode[0] != "l":
            return f"everyone can write to it ({mode})"
        if mode[GROUP_WRITES] == "w" and mode[0] != "l":
            if mode.endswith("+"):
                return f"an access control list lets others write to it ({mode})"
            if not self._is_private(owned):
                return f"others in group {owned.group} can write to it ({mode})"
        return ""

    def _is_private(self, owned: Owned) -> bool:
        key = (owned.group, owned.user)
        if key not in self._private:
            words = sh(GROUP, str(owned.group))
            told = self.host.run(Command(words, ANY_EXIT))
            users = self._us | {owned.user}
            known = not told.exit_code
            self._private[key] = known and is_private(told.out, owned.group, users)
        return self._private[key]

    def refuse(self, owned: Owned, kind: str = "-", about: str = "") -> None:
        """Raise Refused if others may have written a file, or that is unknown.

        `about`: the file, if `owned` is its folder.
        """
        if owned.is_hidden:
            why = "its folder cannot be read"
        elif owned.permissions[0] != kind:
            why = "it is not a plain file"
        else:
            why = self.others(owned)
        if why:
            why = f"{owned.path.removesuffix('/.')}: {why}" if about else why
            path = about or owned.path
            raise Refused(
                f"{_where(self.host)}{path} is not trusted: {why}. It lists what an interrupted "
                "run left to undo, so others who can write to it could run commands as this "
                "user. Nothing was changed. Check it; if one of your runs wrote it, make it and "
                "its folder writable only by you (chown, chmod go-w), then run this again. If "
                "not, remove it."
            )

    def take(self, paths: Iterable[Owned]) -> None:
        """Treat files of root as ours: we write them from now on."""
        roots = [each.path for each in paths if each.user == 0 != self.me]
        if roots and self.as_root:
            words = (*self.as_root, "chown", "-h", str(self.me), "--", *roots)
            self.host.run(Command(words))

    def make_private(self, folder: Owned, *, or_refuse: bool) -> str:
        """Remove others' permission to write a folder; return what was done, as a phrase.

        `or_refuse`: raise Refused if that is impossible, as on a file system without owners;
        otherwise only if it belongs to another user.
        """
        path = folder.path.removesuffix("/.")
        where = _where(self.host)
        quoted = shlex.quote(path)
        mend = f"sudo chown {self.me} {quoted} && sudo chmod go-w {quoted}"
        if folder.is_hidden:
            raise Refused(
                f"{where}{path} cannot be read, so it is unknown what an interrupted run left to "
                f"undo. Nothing was changed. Make it yours: {mend}"
            )
        why = self.others(folder) if folder.is_there else ""
        if not why:
            return ""
        if not self.is_us(folder):
            raise Refused(
                f"{where}{path} is not used: {why}, who could place files there that this user "
                f"would run. Nothing was changed. Make it yours: {mend}"
            )
        as_root = self.as_root if folder.user != self.me else ()
        for change in ("o-w", "g-w"):
            words = (*as_root, "chmod", change, "--", path)
            told = self.host.run(Command(words, ANY_EXIT))
            if not self.others(self.stat([folder.path])[folder.path]):
                return f"{where}{path}: {why}. Changed: now only its owner can."
        if or_refuse:
            raise Refused(
                f"{where}{path} is not used: {why}, and that cannot be changed: "
                f"{told.last_line if told.exit_code else 'its file system has no owners'}. "
                f"Nothing was changed. Make it yours: {mend}"
            )
        return ""


class _PassedOver:
    """What was skipped in this process, each file named once."""

    def __init__(self) -> None:
        self.warn: Callable[[str], None] = lambda _text: None
        self.named: set[tuple[str, str]] = set()


_passed_over = _PassedOver()


def warn_with(warn: Callable[[str], None]) -> None:
    """Set the function that reports each skipped file from now on."""
    _passed_over.warn = warn
    _passed_over.named = set()


def believed(host: Host, path: str, as_root: tuple[str, ...] = ()) -> bool:
    """Return whether a file beside the backups can be trusted, or is missing; warn if not.

    A link is not followed. On a file system without owners, the apparent owner is accepted.
    """
    trust = Trust(host, posixpath.dirname(posixpath.dirname(path)), as_root)
    owned = trust.stat([path])[path]
    kind = owned.permissions[:1]
    if kind not in ("-", "l"):  # missing, or of a kind that its reader refuses
        return True
    why = "it is a symbolic link" if kind == "l" else trust.others(owned)
    if not why or (kind == "-" and trust.is_us(owned) and _has_no_owners(host, path)):
        return True
    if (host.name, path) not in _passed_over.named:
        _passed_over.named.add((host.name, path))
        quoted = shlex.quote(path)
        mend = (
            f"If it is yours: sudo chown {trust.me} {quoted} && sudo chmod go-w {quoted}. If not, "
        )
        _passed_over.warn(
            f"{_where(host)}{path} is ignored: {why}, so others may have written its content. "
            f"{mend if kind == '-' else ''}remove it: sudo rm {quoted}"
        )
    return False


def _has_no_owners(host: Host, path: str) -> bool:
    words = ("stat", "-f", "-c", "%T", "--", path)
    return host.run(Command(words, ANY_EXIT)).out.strip() in WITHOUT_OWNERS


def is_private(told: str, group: int, users: Iterable[int]) -> bool:
    """Return whether a group has only these users, by the lines of group(5) and passwd(5).

    An unknown group has no members.
    """
    ours = {*users}
    lines, _, people = told.partition("\n\n") if not told.startswith("\n") else ("", "", told)
    of_it = (line for line in lines.splitlines() if _field(line, 2) == str(group))
    members = {name for line in of_it for name in _field(line, 3).split(",") if name}
    for line in people.splitlines():
        name, number, first = _field(line, 0), _field(line, 2), _field(line, 3)
        is_ours = number.isdigit() and int(number) in ours
        if first == str(group) and not is_ours:
            return False
        if is_ours:
            members.discard(name)
    return not members


def _field(line: str, number: int) -> str:
    parts = line.split(":")
    return parts[number] if len(parts) > number else ""


def _owned(path: str, line: str) -> Owned:
    if line in ("-", "?"):
        return Owned(path, "" if line == "-" else "?")
    permissions, user, group = line.split()
    return Owned(path, permissions, int(user), int(group))


def _owned_here(path: str) -> Owned:
    try:
        found = os.lstat(path)
    except NOT_THERE:
        return Owned(path)
    except OSError:  # a folder on the way may not be read, or is a link to itself
        return Owned(path, "?")
    listed = ""
    if hasattr(os, "listxattr"):  # missing on macOS
        try:
            listed = "+" if ACCESS_LIST in os.listxattr(path, follow_symlinks=False) else ""
        except OSError:  # its file system has no such lists
            listed = ""
    return Owned(path, stat.filemode(found.st_mode) + listed, found.st_uid, found.st_gid)


def _where(host: Host) -> str:
    return "" if host.name == "this machine" else f"On {host.name}: "
