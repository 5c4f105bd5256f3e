"""`penstock config`: prints the settings in effect."""

from __future__ import annotations

from pathlib import Path

import click

from penstock.cli.output import say
from penstock.cli.settings import loaded, with_settings


@click.command()
@with_settings
def config(config_file: Path | None, **flags: object) -> None:
    """Print every setting with its value and source."""
    from penstock.config import render

    say(render(loaded(config_file, flags)))
