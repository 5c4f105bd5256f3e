"""Formats values of settings as TOML."""

from __future__ import annotations

import json
import re


def toml_key(name: str) -> str:
    """A name as a key of TOML: quoted if it holds more than letters, digits, "_" and "-"."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)


def toml_value(value: object) -> str:
    """A setting's value as TOML: booleans, numbers, text, tuples and mappings of these."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_value(key)} = {toml_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, float):
        return repr(value)
    # JSON strings are valid TOML, except for one control character and escapes of characters beyond 16 bits.
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")
