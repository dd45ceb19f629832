"""The JSON Schema of hosts.toml, with which editors check the file while it is written. Pure.

Draft 7, which taplo reads, the language server behind the TOML extensions of VS Code, Neovim and
Helix: https://taplo.tamasfe.dev/configuration/developing-schemas.html.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .keys import ROWS, TABLES, TOP, Key

_LINK = re.compile(r"\[(`[^`]*`|[^\[\]]*)\]\([^)]*\)")
_TYPES = {str: "string", bool: "boolean", int: "integer", dict: "object"}
_NEEDS: Mapping[str, Mapping[str, Any]] = {
    "vaults": {
        "if": {"properties": {"kind": {"const": "rclone"}}},
        "then": {"required": ["remote"]},
        "else": {"required": ["folder"]},
    },
    "notify": {
        "oneOf": [{"required": [key]} for key in ("url", "url_file", "url_command")],
    },
}
"""What a row must have besides its own required keys."""


def schema() -> dict[str, Any]:
    """Return the schema, ready for json.dumps."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "hosts.toml of iotstack-invoke",
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _list_of(name) if name in ROWS else _ref(name) for name in TOP},
        "definitions": {name: _table(name, keys) for name, keys in TABLES.items()},
    }


def plain(meaning: str) -> str:
    """Return a meaning as editors show it: links as their text."""
    return _LINK.sub(r"\1", meaning)


def _table(name: str, keys: Mapping[str, Key]) -> dict[str, Any]:
    needed = [key for key, each in keys.items() if each.needed]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {key: _value(each) for key, each in keys.items()},
        **({"required": needed} if needed else {}),
        **_NEEDS.get(name, {}),
    }


def _value(key: Key) -> dict[str, Any]:
    found: dict[str, Any] = {"description": plain(key.meaning)}
    if key.default is not None:
        found["default"] = key.default
    if key.items == "hook":
        words = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        return {**found, "type": "array", "items": {"anyOf": [words, _ref("hook")]}}
    if key.type is list:
        texts = {**_TEXTS, "items": {"enum": list(key.choices)}} if key.choices else _TEXTS
        return {**found, **(_list_of(key.items) if key.items else texts)}
    if key.type is dict:
        return {**found, "allOf": [_ref("hooks")]}
    if isinstance(key.type, tuple):  # seconds
        return {**found, "type": "number", "exclusiveMinimum": 0, "maximum": key.most}
    found["type"] = _TYPES[key.type]
    if key.choices:
        found["enum"] = list(key.choices)
    limits = {"minimum": key.least, "maximum": key.most}
    return {**found, **{name: limit for name, limit in limits.items() if limit is not None}}


_TEXTS = {"type": "array", "items": {"type": "string"}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/definitions/{name}"}


def _list_of(name: str) -> dict[str, Any]:
    return {"type": "array", "items": _ref(name)}
