"""The tables of `docs/configuration.md`, made from the models.

    python docs/write_configuration.py docs/configuration.md

writes them anew between their markers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from penstock.config.keys import section_of
from penstock.config.model_sections import ModelConfig
from penstock.config.sections import Config
from penstock.config.toml import toml_value

_NUMBERS = {int: "integer", float: "number", bool: "boolean", str: "text"}
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def reference(model: type[BaseModel]) -> str:
    """The settings of `model` as Markdown tables, one for each section."""
    return "\n".join(_section(model, ""))


def updated(text: str) -> str:
    """A page with its tables made anew: what stands between `<!-- settings -->` markers.

    Args:
        text: the page; `<!-- settings: server -->` and `<!-- settings: model -->` open a table,
            `<!-- end -->` closes it.
    """
    for name, model in (("server", Config), ("model", ModelConfig)):
        marker = f"<!-- settings: {name} -->"
        new = f"{marker}\n{reference(model)}\n<!-- end -->"
        text = re.sub(f"{marker}.*?<!-- end -->", lambda _, new=new: new, text, flags=re.DOTALL)  # type: ignore[misc]
    return text


def _section(model: type[BaseModel], name: str) -> Iterator[str]:
    fields = {key: field for key, field in model.model_fields.items() if not section_of(model, key)}
    if fields:
        yield f"\n### {f'`[{name}]`' if name else 'At the top'}\n\n{model.__doc__}\n"
        yield "| Setting | Type | Unit | Default | Meaning |\n|---|---|---|---|---|"
        yield from (_row(key, field) for key, field in fields.items())
    for key in model.model_fields:
        section = section_of(model, key)
        if section:
            yield from _section(section, f"{name}.{key}" if name else key)


def _row(name: str, field: FieldInfo) -> str:
    extra = field.json_schema_extra
    unit = extra.get("unit", "") if isinstance(extra, dict) else ""
    default = "inherited" if field.default is None else f"`{toml_value(field.default)}`"
    kind = _bounded(_type(field.annotation), field.metadata)
    return f"| `{name}` | {kind} | {unit} | {default} | {field.description} |"


def _type(kind: Any) -> str:
    """How a type is called for people: "integer", "`a` or `b`", "list of text"."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _bounded(_type(arguments[0]), arguments[1:])
    if origin is Literal:
        return _either([f"`{toml_value(each)}`" for each in arguments])
    if origin in (Union, UnionType):
        return _either([_type(each) for each in arguments if each is not NoneType])
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"table of {_type(arguments[1])}"
    return _NUMBERS[kind]


def _either(names: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _bounded(kind: str, metadata: Any) -> str:
    found = [each for one in metadata for each in getattr(one, "metadata", [one])]
    bounds = [
        f"{sign} {getattr(each, name)}"
        for each in found
        for name, sign in _SIGNS.items()
        if hasattr(each, name)
    ]
    return " ".join([kind, ", ".join(bounds)]).strip()


def main(paths: list[str]) -> None:
    """Writes the tables of the pages at `paths` anew."""
    for path in map(Path, paths):
        path.write_text(updated(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
