"""The command-line flags for settings, and the loading of the settings for a command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.arguments import NamedPath
from penstock.core.errors import StartupError

if TYPE_CHECKING:
    from penstock.config import Loaded

FLAGS: Mapping[str, tuple[str, Any, str]] = {
    "server.host": ("--host", str, "Address to listen on.  [127.0.0.1]"),
    "server.port": ("--port", int, "Port of gRPC; 0 chooses a free one.  [8001]"),
    "server.http": ("--http/--no-http", bool, "Whether predictions are served over HTTP, too.  [on]"),
    "server.http_port": ("--http-port", int, "Port of HTTP; 0 chooses a free one.  [8000]"),
    "server.ops_port": ("--ops-port", int, "Port of operations (HTTP); 0 chooses a free one.  [8002]"),
    "server.drain_seconds": (
        "--drain-seconds",
        float,
        "Longest time to finish accepted requests when stopping.  [20]",
    ),
    "server.processes": (
        "--processes",
        int,
        "Processes that share the port and the cores; SIGHUP restarts them one by one.  [1]",
    ),
    "server.transport": (
        "--transport",
        click.Choice(["auto", "reactor", "portable"]),
        "How gRPC is served.  [auto]",
    ),
    "server.on_broken": (
        "--on-broken",
        click.Choice(["exit", "serve"]),
        "If a model cannot be loaded: end with the reason, or serve the others.  [exit]",
    ),
    "log.level": (
        "--log-level",
        click.Choice(["debug", "info", "warning", "error"]),
        "Lowest level that is logged.  [info]",
    ),
}
"""The settings with a flag: its name, type and help. Others are set by the file or the environment."""


def with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--config` and the flags of settings to a command; `loaded` reads their values."""
    for key, (flag, kind, text) in reversed(list(FLAGS.items())):
        command = click.option(flag, _parameter(key), type=kind, default=None, help=text)(command)
    return click.option(
        "--config",
        "config_file",
        type=NamedPath(),
        default=None,
        help="TOML file with settings; `penstock config` lists them.",
    )(command)


def loaded(config_file: Path | None, flags: Mapping[str, object]) -> Loaded:
    """The settings from the file, the environment and the flags.

    Args:
        config_file: a TOML file, or None.
        flags: by the names of click's parameters; None, or omitted, if a flag is not given.

    Raises:
        click.ClickException: a setting is unknown or invalid.
    """
    from penstock.config import load  # it takes most of the time of a --help

    found = {key: flags.get(_parameter(key)) for key in FLAGS}
    given = {key: value for key, value in found.items() if value is not None}
    try:
        return load(config_file, given)
    except StartupError as error:
        raise click.ClickException(str(error)) from None


def _parameter(key: str) -> str:
    return key.replace(".", "_")
