"""The group of commands."""

from __future__ import annotations

from importlib import import_module

import click

from penstock import __version__

COMMANDS = {
    "serve": "penstock.cli.serve",
    "config": "penstock.cli.config",
    "health": "penstock.cli.health",
    "models": "penstock.cli.models",
    "predict": "penstock.cli.predict",
    "bench": "penstock.cli.bench",
}
"""The module of every command; the command in it has the same name."""


class _Commands(click.Group):
    """Loads a command's module only when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        return command if isinstance(command, click.Command) else None


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="penstock")
def main() -> None:
    """Penstock serves ONNX models over gRPC."""
