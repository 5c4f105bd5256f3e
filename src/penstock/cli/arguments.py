"""What the arguments of several commands have in common: names that are not empty."""

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
