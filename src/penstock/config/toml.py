"""Values as TOML writes them."""

from __future__ import annotations

import json


def toml_value(value: object) -> str:
    """A setting's value as TOML writes it: booleans, numbers, text, tuples and mappings of these."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_value(key)} = {toml_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, float):
        return repr(value)
    # JSON's text is TOML's, but for one control character and the escapes of characters beyond 16 bits.
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")
