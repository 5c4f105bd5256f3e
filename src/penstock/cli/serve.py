"""`penstock serve`: runs a server until it is told to stop."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.settings import loaded, with_settings
from penstock.errors import StartupError
from penstock.signals import signal_socket

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
    if config.server.processes > 1:
        _supervise(config, path)
    else:
        _serve(config, path)


def _supervise(config: Config, path: Path) -> None:
    from penstock.processes.supervisor import Supervisor
    from penstock.telemetry import logs

    logs.configure(config.log, values={"process": "supervisor", "pid": os.getpid()})
    try:
        sys.exit(Supervisor(config, path, _print).run())
    except StartupError as error:
        raise click.ClickException(str(error)) from None


def _print(text: str) -> None:
    click.echo(text, nl=False)
    sys.stdout.flush()


def _serve(config: Config, path: Path) -> None:
    from penstock.telemetry import logs

    logs.configure(config.log)
    stop = _on_signals()
    server = _started(config, path)
    _print(_summary(server))
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
    from penstock.summary import address, summary

    host = server.config.server.host
    return summary(
        server.models, address(host, server.port), address(host, server.ops_port), server.transport_name
    )


def _on_signals() -> threading.Event:
    """An event that the first SIGTERM or SIGINT sets. The second ends the process."""
    stop = threading.Event()
    received = signal_socket((signal.SIGTERM, signal.SIGINT))

    def listen() -> None:
        received.recv(1)
        stop.set()
        os._exit(128 + received.recv(1)[0])

    threading.Thread(target=listen, name="penstock-signals", daemon=True).start()
    return stop
