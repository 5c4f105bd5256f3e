"""`penstock serve`: runs a server until it is told to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from penstock.cli.settings import loaded, with_settings
from penstock.errors import StartupError

if TYPE_CHECKING:
    from penstock.config import Config
    from penstock.server import Server


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@with_settings
def serve(path: Path, config_file: Path | None, **flags: object) -> None:
    """Serve the models at PATH: one .onnx file, or a folder of <model>/<version>/model.onnx.

    Stops on SIGTERM or Ctrl-C once all accepted requests are answered; on a second one, at once.
    """
    config = loaded(config_file, flags).config
    from penstock.telemetry import logs

    logs.configure(config.log)
    stop = _on_signals()
    server = _started(config, path)
    click.echo(_summary(server), nl=False)
    sys.stdout.flush()
    stop.wait()
    answered_all = server.stop(config.server.drain_seconds)
    sys.exit(0 if answered_all else 1)


def _started(config: Config, path: Path) -> Server:
    from penstock.server import Server

    server = None
    try:
        server = Server(config, path)
        server.start()
    except StartupError as error:
        if server is not None:
            server.close()
        raise click.ClickException(str(error)) from None
    return server


def _summary(server: Server) -> str:
    from penstock.summary import summary

    host = server.config.server.host
    shown = f"[{host}]" if ":" in host else host
    return summary(
        server.models, f"{shown}:{server.port}", f"{shown}:{server.ops_port}", server.transport_name
    )


def _on_signals() -> threading.Event:
    """An event that the first SIGTERM or SIGINT sets. The second ends the process."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return stop
