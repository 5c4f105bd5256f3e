"""`penstock serve`: runs a server until it is told to stop."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
from pathlib import Path
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
    gc.freeze()  # what is there now stays, and need not be looked through again and again
    stop.wait()
    if not server.stop(config.server.drain_seconds):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # a run may still be going on, which the end of the interpreter would wait for or break


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
    received, wakeup = socket.socketpair()
    wakeup.setblocking(False)

    def listen() -> None:
        received.recv(1)
        stop.set()
        os._exit(128 + received.recv(1)[0])

    # Python runs handlers on the main thread only, and the operating system may give the signal to any:
    # then the main thread sleeps on. The number of the signal is written to the socket in either case.
    signal.set_wakeup_fd(wakeup.fileno())
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda number, frame: None)
    threading.Thread(target=listen, name="penstock-signals", daemon=True).start()
    wakeup.detach()  # it lives as long as the process
    return stop
