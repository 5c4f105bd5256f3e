"""The address of the server for client commands: the same flags, variable and default for all of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.arguments import NamedPath

if TYPE_CHECKING:
    from penstock_client import PenstockError

VARIABLE = "PENSTOCK_TARGET"
SCHEME = "http://"
LARGEST_PORT = 65_535
REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "localhost"}
"""The address of a server on this machine that listens on all addresses."""


HINTS = {
    "Connection refused": "no process listens there: is the server started, and is this its gRPC port?",
}
"""What usually is the matter, by a part of gRPC's own message."""

DEFAULT = "127.0.0.1:8001"
"""The address of a server with default settings."""


def with_target(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command `--target` and the flags of its default; the command gets `target`, as host:port.

    The first of these that is given applies: an argument `TARGET` of the command, `--target`, `--port`, the
    variable, the settings of the server.
    """

    @wraps(command)
    def run(
        target: str | None, config_file: Path | None, port: int | None, place: str | None = None, **rest: Any
    ) -> Any:
        return command(target=_target(place, target, config_file, port), **rest)

    made: Callable[..., Any] = run
    for add in (
        click.option(
            "--config",
            "config_file",
            type=NamedPath(),
            help="TOML file with the settings of a server on this machine.",
        ),
        click.option(
            "--port", type=int, help="Port of a server on this machine, instead of the one in its settings."
        ),
        click.option(
            "--target",
            metavar="HOST:PORT",
            help=f"The server.  [{VARIABLE}, or else the host and port of the settings: {DEFAULT}]",
        ),
    ):
        made = add(made)
    return made


def with_target_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """As `with_target`, for commands that take TARGET as an argument as well."""
    return click.argument("place", metavar="[TARGET]", required=False)(with_target(command))


def said(target: str, error: PenstockError, model: str = "") -> str:
    """An error on one line, with the server's address if the error concerns the server.

    Args:
        target: the server.
        error: the error.
        model: what the user gave as the name of a model.
    """
    from penstock_client import InvalidInput, ModelFailed, NotFound

    texts = [str(error) or error.status.name, *getattr(error, "__notes__", ())]
    texts += [hint for part, hint in HINTS.items() if part in texts[0]]
    text = "; ".join(" ".join(each.split()) for each in texts)
    if isinstance(error, NotFound) and os.sep in model and os.path.exists(model):
        text += f"; {model} is a path, and what is expected here is the name of a model of the server"
    return text if isinstance(error, InvalidInput | ModelFailed | NotFound) else f"{target}: {text}"


def _target(place: str | None, flag: str | None, config_file: Path | None, port: int | None) -> str:
    """The server, as host:port.

    Raises:
        click.UsageError: several are given, or one is invalid.
        click.ClickException: the settings are invalid.
    """
    given = {
        "TARGET": place is not None,
        "--target": flag is not None,
        "--port": port is not None,
        "--config": config_file is not None,
    }
    names = [name for name, is_given in given.items() if is_given]
    if len(names) > 1 and names != ["--port", "--config"]:
        raise click.UsageError(f"give either {names[0]} or {names[1]}")
    named = place if place is not None else flag
    if named is not None:
        return _checked(named, names[0])
    if not names and os.environ.get(VARIABLE):
        return _checked(os.environ[VARIABLE], VARIABLE)
    return _of_settings(config_file, port)


def _checked(text: str, where: str) -> str:
    """A target without its scheme.

    Raises:
        click.UsageError: it has another scheme, or a path.
    """
    scheme, separator, rest = text.strip().rpartition("://")
    if separator and f"{scheme.lower()}://" != SCHEME:
        raise click.UsageError(f"{where}: {text}: expected HOST:PORT or {SCHEME}HOST:PORT")
    target = rest.rstrip("/")
    if not target or "/" in target:
        raise click.UsageError(f"{where}: {text!r} is not HOST:PORT")
    port = target.rpartition(":")[2]
    if not port.isdecimal():  # gRPC would take port 443
        raise click.UsageError(f"{where}: {text!r} has no port, expected HOST:PORT")
    if int(port) > LARGEST_PORT:  # gRPC would take it modulo 65536
        raise click.UsageError(f"{where}: {text!r} has a port above {LARGEST_PORT}")
    return target


def _of_settings(config_file: Path | None, port: int | None) -> str:
    """The address on this machine of a server with these settings.

    Raises:
        click.UsageError: the port is 0, so only the server's output shows it.
        click.ClickException: the settings are invalid.
    """
    if config_file is None and port is None and not any(map(_is_of_server, os.environ)):
        return DEFAULT  # importing the settings would double the cost of a health check
    from penstock.cli.settings import loaded
    from penstock.core.address import address

    server = loaded(config_file, {} if port is None else {"server_port": port}).config.server
    if not server.port:
        raise click.UsageError("the port in the settings is 0 (a free port); give the address with --target")
    return address(REACHABLE.get(server.host, server.host), server.port)


def _is_of_server(variable: str) -> bool:
    """Whether an environment variable may set the server's address."""
    return variable.upper().startswith("PENSTOCK_SERVER_")
