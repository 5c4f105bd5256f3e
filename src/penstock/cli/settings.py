"""The flags that set settings, and how settings are loaded for a command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from penstock.config import Loaded, load
from penstock.errors import StartupError

FLAGS: Mapping[str, tuple[str, Any, str]] = {
    "server.host": ("--host", str, "Address to listen on.  [127.0.0.1]"),
    "server.port": ("--port", int, "Port of gRPC; 0 takes a free one.  [8001]"),
    "server.ops_port": ("--ops-port", int, "Port of operations (HTTP); 0 takes a free one.  [8002]"),
    "server.drain_seconds": ("--drain-seconds", float, "Longest wait for accepted work at a stop.  [20]"),
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
    "log.level": (
        "--log-level",
        click.Choice(["debug", "info", "warning", "error"]),
        "The least level that is logged.  [info]",
    ),
}
"""The settings that have a flag: its name, type and help. All others are set by file or environment."""


def with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--config` and the flags of settings to a command; `loaded` takes what they give."""
    for key, (flag, kind, text) in reversed(list(FLAGS.items())):
        command = click.option(flag, _parameter(key), type=kind, default=None, help=text)(command)
    return click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        default=None,
        help="TOML file with settings; `penstock config` shows all there are.",
    )(command)


def loaded(config_file: Path | None, flags: Mapping[str, object]) -> Loaded:
    """The settings from the file, the environment and the flags.

    Raises:
        click.ClickException: a setting is unknown or bad.
    """
    given = {key: flags[_parameter(key)] for key in FLAGS if flags[_parameter(key)] is not None}
    try:
        return load(config_file, given)
    except StartupError as error:
        raise click.ClickException(str(error)) from None


def _parameter(key: str) -> str:
    return key.replace(".", "_")
