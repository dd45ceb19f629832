"""Patterns of paths, as tar matches them. Pure."""

from __future__ import annotations

from fnmatch import fnmatchcase


def fits_all_of(pattern: str, path: str) -> bool:
    """Tell whether a pattern fits a path and all that lies below; `*` means `/` too, as tar's."""
    whole = fnmatchcase(path, pattern) or fnmatchcase(path, f"{pattern}/*")
    return whole or fnmatchcase(f"{path}/\0", pattern)
