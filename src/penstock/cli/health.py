"""`penstock health`: checks the health of a server."""

from __future__ import annotations

import sys

import click

from penstock.cli.output import show
from penstock.cli.target import said, with_target_argument


@click.command()
@with_target_argument
@click.option("--model", default="", help="Check one model instead of the whole server.")
@click.option("--timeout", default=3.0, show_default=True, help="Seconds to wait for an answer.")
def health(target: str, model: str, timeout: float) -> None:
    """Check the health of a server: exit code 0 if it serves, else 1.

    Without TARGET: the server that the settings describe, on this machine.
    """
    from penstock_client import Client, PenstockError

    try:
        with Client(target, timeout=timeout) as client:
            answer = client.health(model)
    except PenstockError as error:
        raise click.ClickException(said(target, error)) from None
    if answer == "UNKNOWN":
        click.echo(f"{target} has no model {model!r}; `penstock models` lists them", err=True)
    show(f"{answer}\n")  # the exit code is set even if the text cannot be printed
    sys.exit(0 if answer == "SERVING" else 1)
