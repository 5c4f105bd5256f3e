"""The group of all commands, which loads each command's module when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from penstock.cli.output import explaining, say

COMMANDS = {
    "serve": "penstock.cli.serve",
    "config": "penstock.cli.config",
    "health": "penstock.cli.health",
    "models": "penstock.cli.models",
    "predict": "penstock.cli.predict.command",
    "check": "penstock.cli.check",
    "import": "penstock.cli.import_model",
    "score": "penstock.cli.score.command",
    "optimize": "penstock.cli.optimize",
}
"""The module of each command; the command has the same name as the module."""

NAMES = {"import": "import_model"}
"""What a command is called in its module, where its own name is a word of Python."""

PLUGINS = "penstock.commands"
"""The entry point group with which other distributions, such as penstock-bench, add commands."""

ELSEWHERE = {"bench": "./tools/bench"}
"""Commands of other distributions, and the folder of each in the checkout: no package index has them."""


class _Commands(click.Group):
    """Loads a command's module only when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        # Imported here and below because importlib.metadata takes longer to import than click to parse.
        from importlib.metadata import entry_points

        return [*COMMANDS, *sorted(entry_points(group=PLUGINS).names)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module = COMMANDS[cmd_name]
            command = getattr(import_module(module), NAMES.get(cmd_name, cmd_name))
        else:
            from importlib.metadata import entry_points

            found = tuple(entry_points(group=PLUGINS, name=cmd_name))
            if not found and cmd_name in ELSEWHERE:
                ctx.fail(
                    f"`penstock {cmd_name}` is in another distribution: pip install {ELSEWHERE[cmd_name]} in "
                    "Penstock's checkout"
                )
            command = found[0].load() if found else None
        return command if isinstance(command, click.Command) else None

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with explaining():  # without arguments it prints the help
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with explaining():
            return super().invoke(ctx)


def _print_versions(ctx: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if not is_asked or ctx.resilient_parsing:
        return
    from penstock.cli.versions import versions

    say("".join(f"{line}\n" for line in versions()))
    ctx.exit()


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_versions,
    help="Show the versions of Penstock, grpcio and ONNX Runtime.",
)
def penstock() -> None:
    """Penstock serves ONNX models over gRPC and HTTP."""
