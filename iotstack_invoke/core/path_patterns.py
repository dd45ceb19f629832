"""Patterns of paths, as tar matches them. Pure."""

from __future__ import annotations

from fnmatch import fnmatchcase


def fits_all_of(pattern: str, path: str) -> bool:
    """Return whether a pattern matches a path and all below it; `*` matches `/` too, as in tar."""
    whole = fnmatchcase(path, pattern) or fnmatchcase(path, f"{pattern}/*")
    return whole or fnmatchcase(f"{path}/\0", pattern)
