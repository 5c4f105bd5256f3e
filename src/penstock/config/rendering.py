"""The effective configuration as text that can itself be read as a configuration file."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.config.keys import leaves, value_at
from penstock.config.loading import Loaded
from penstock.config.toml import toml_value


def render(loaded: Loaded) -> str:
    """The settings as TOML, each line with a comment that says where the value came from."""
    lines = list(_lines(loaded))
    width = max(len(line) for line, _ in lines) + 2
    return "\n".join(f"{line:<{width}}# {origin}" if origin else line for line, origin in lines) + "\n"


def _lines(loaded: Loaded) -> Iterator[tuple[str, str]]:
    """Lines of TOML, and the origin for those that hold a value."""
    section = ""
    for key in leaves(type(loaded.config)):
        head, _, name = key.rpartition(".")
        if head != section:
            yield from [("", "")] if section else []
            yield f"[{head}]", ""
            section = head
        yield f"{name} = {toml_value(value_at(loaded.config, key))}", " ".join(loaded.origins[key].split())
