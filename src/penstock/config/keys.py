"""Dotted keys, such as "server.port": names of nested settings, used in flags, variables and messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

from pydantic import BaseModel

ALIKE = 0.6
"""The least likeness of a key that was meant, from 0 to 1."""
NEARLY_SAME = 0.8
"""The same for the name of a section, which is one word."""


def section_of(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The class of the section `name` of `model`; None if it is a plain setting or unknown."""
    field = model.model_fields.get(name)
    kind = field.annotation if field else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys of all settings, in the order of the model."""
    for name in model.model_fields:
        section = section_of(model, name)
        if section:
            yield from leaves(section, f"{prefix}{name}.")
        else:
            yield prefix + name


def flatten(
    model: type[BaseModel] | None, data: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested data. A table that is a setting's value is not flattened.

    Args:
        model: the class of these settings; None if the section is unknown.
        data: the nested data.
        prefix: the dotted key of `data`, with a dot at its end.
    """
    for name, value in data.items():
        section = section_of(model, name) if model else None
        is_setting = model is not None and name in model.model_fields and not section
        if isinstance(value, Mapping) and not is_setting and (value or section):
            yield from flatten(section, value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested data for dotted keys, the opposite of `flatten`."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return nested


def value_at(model: BaseModel, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = model
    for name in key.split("."):
        value = getattr(value, name)
    return value


def nearest(model: type[BaseModel], unknown: str) -> list[str]:
    """The settings that may have been meant by an unknown key, nearest name first.

    Those of the same section if there is such a section, otherwise all: first those of a section, or a table,
    of nearly the same name.
    """
    section = unknown.rpartition(".")[0]
    keys = list(leaves(model))
    candidates = [key for key in keys if key.rpartition(".")[0] == section] if section else keys
    return sorted(
        candidates or keys,
        key=lambda key: (not (section and _begins_alike(unknown, key)), -_likeness(unknown, key)),
    )


def is_alike(one: str, other: str) -> bool:
    """Whether a key is so much like another one that it may be a misspelling of it."""
    section, _, name = one.rpartition(".")
    if section and other.startswith(f"{section}."):  # what they have in common anyway says nothing
        one, other = name, other.removeprefix(f"{section}.")
    is_table = bool(section) and "." not in other  # whose keys are not ours
    return (is_table and _begins_alike(one, other)) or _likeness(one, other) >= ALIKE


def _begins_alike(one: str, other: str) -> bool:
    """Whether the first names of two keys are nearly the same."""
    return SequenceMatcher(None, one.partition(".")[0], other.partition(".")[0]).ratio() >= NEARLY_SAME


def _likeness(one: str, other: str) -> float:
    whole = SequenceMatcher(None, one, other).ratio()
    names = SequenceMatcher(None, one.rpartition(".")[2], other.rpartition(".")[2]).ratio()
    return max(whole, names)
