"""The options of Docker's driver for local volumes, without possible secrets. Pure.

They are those of mount(8): `o=` of a network share may hold a user name and password. Only options
that are known to hold none are shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..backups.manifest import VOLUME_OPTIONS
from ..core.dataclass import dataclass

_FLAGS = frozenset(
    (
        *(
            "ac",
            "acl",
            "async",
            "atime",
            "auto",
            "bg",
            "bind",
            "cto",
            "defaults",
            "dev",
            "dirsync",
        ),
        *("discard", "diratime", "exec", "fg", "forcegid", "forceuid", "guest", "hard", "intr"),
        *(
            "lazytime",
            "lock",
            "mfsymlinks",
            "noac",
            "noacl",
            "noatime",
            "noauto",
            "nobrl",
            "nocto",
        ),
        *("nodev", "nodiratime", "noexec", "nofail", "nointr", "nolock", "noperm", "noresvport"),
        *("noserverino", "nosuid", "nounix", "nouser_xattr", "rbind", "relatime", "resvport"),
        *("ro", "rw", "serverino", "sfu", "soft", "strictatime", "suid", "sync", "tcp", "udp"),
        "user_xattr",
    )
)
_KEYS_IN_O = frozenset(
    (
        *("acdirmax", "acdirmin", "acregmax", "acregmin", "actimeo", "addr", "cache", "codepage"),
        *(
            "commit",
            "compress",
            "data",
            "dir_mode",
            "dmask",
            "errors",
            "file_mode",
            "fmask",
            "gid",
        ),
        *(
            "iocharset",
            "local_lock",
            "lookupcache",
            "minorversion",
            "mode",
            "mountport",
            "nconnect",
        ),
        *("mountproto", "mountvers", "nfsvers", "nr_inodes", "port", "proto", "retrans", "rsize"),
        *("sec", "size", "subvol", "subvolid", "timeo", "uid", "umask", "vers", "wsize"),
    )
)
_LOGIN = re.compile(r"//[^/]*@")


@dataclass(frozen=True, slots=True)
class Told:
    """The options of a volume that may be shown, and the names of those that may not."""

    options: Mapping[str, str]
    left_out: tuple[str, ...] = ()


def told_options(options: Mapping[str, str]) -> Told:
    """Return the options of a local volume that hold no secret."""
    kept = {key: options[key] for key in VOLUME_OPTIONS if options.get(key)}
    left_out = [key for key in options if key not in VOLUME_OPTIONS and options[key]]
    if _LOGIN.search(kept.get("device", "")):
        del kept["device"]
        left_out.append("device")
    words = kept.pop("o", "").split(",")
    good = [each for each in words if _is_harmless(each)]
    if good:
        kept["o"] = ",".join(good)
    known = (word.partition("=")[0] for word in words if word not in good and "=" in word)
    left_out += [name if re.fullmatch(r"[a-z_]{1,20}", name) else "another" for name in known]
    if any(word and word not in good and "=" not in word for word in words):
        left_out.append("another")
    return Told(kept, tuple(sorted({*left_out})))


def _is_harmless(word: str) -> bool:
    key, equals, value = word.partition("=")
    return word in _FLAGS or bool(equals and key in _KEYS_IN_O and value.isprintable())


def options_text(options: Mapping[str, str]) -> str:
    """Return options in words, such as `device /dev/sda1, type ext4, o noatime`."""
    return ", ".join(f"{key} {options[key]}" for key in ("device", "type", "o") if key in options)
