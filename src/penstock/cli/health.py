"""`penstock health`: asks a server whether it serves."""

from __future__ import annotations

import sys

import click


@click.command()
@click.argument("target", default="127.0.0.1:8001")
@click.option("--model", default="", help="Ask for one model instead of the whole server.")
@click.option("--timeout", default=3.0, show_default=True, help="Seconds to wait for an answer.")
def health(target: str, model: str, timeout: float) -> None:
    """Ask the server at TARGET whether it serves; exit code 0 if so, else 1."""
    from penstock_client import Client, PenstockError

    try:
        with Client(target, timeout=timeout) as client:
            answer = client.health(model)
    except PenstockError as error:
        raise click.ClickException(f"{target}: {error}") from None
    click.echo(answer)
    sys.exit(0 if answer == "SERVING" else 1)
