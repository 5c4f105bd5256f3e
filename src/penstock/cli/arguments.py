"""What the arguments of several commands have in common: names that are not empty, and where models lie."""

from __future__ import annotations

import os
from pathlib import Path

import click


class NamedPath(click.Path):
    """A path that is not empty: `pathlib` takes an empty one, as an unset variable gives it, for "."."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """The path.

        Raises:
            click.BadParameter: it is empty.
        """
        if value == "":
            self.fail("the name is empty", param, ctx)
        return super().convert(value, param, ctx)


class ModelFolder(NamedPath):
    """The folder of a model, in which a command makes a version that a server is to serve."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """The path.

        Raises:
            click.BadParameter: it is empty, or no server would find a model there.
        """
        path = super().convert(value, param, ctx)
        why = _why_not_served(Path(value))
        if why:
            self.fail(f"{os.fspath(value)}: {why}", param, ctx)
        return path


def _why_not_served(given: Path) -> str:
    """Why a folder cannot be that of a model; "" if it can."""
    folder = Path(os.path.abspath(given))
    name = folder.name
    if not name:
        return "it has no name, and that would be the name of the model"
    if name.startswith("."):
        return "servers pass over names that begin with a dot"
    there = next(each for each in (folder, *folder.parents) if os.path.exists(each))
    if not os.path.isdir(there):
        return f"{there.name} is no folder"
    # A model may be called by a number as well: then there are versions in its folder.
    if _is_version(name) and not any(map(_is_version, _names(folder))):
        model = given.parent if given.parent.name else Path("models/leads")
        return f"{name} is the name of a version, and this is the folder of its model, such as {model}"
    return ""


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and name[0] != "0"


def wanted_outputs(text: str | None) -> list[str] | None:
    """The names of outputs in `--outputs a,b`; None, for all of them, if the flag is not given.

    Raises:
        click.UsageError: it names none.
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise click.UsageError("--outputs is empty")
    return names
