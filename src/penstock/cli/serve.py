"""`penstock serve`: runs a server until it is told to stop."""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.arguments import NamedPath
from penstock.cli.loading import Progress, progress
from penstock.cli.output import show_in_time
from penstock.cli.settings import loaded, with_settings
from penstock.core.errors import StartupError
from penstock.core.garbage import resume_after_imports
from penstock.signals import StopSignals

if TYPE_CHECKING:
    from penstock.config import Config
    from penstock.server import Server


@click.command()
@click.argument("path", type=NamedPath())
@with_settings
def serve(path: Path, config_file: Path | None, **flags: object) -> None:
    """Serve the models at PATH: one .onnx file, or a folder of <model>/<version>/model.onnx.

    SIGTERM or Ctrl-C stops the server once all accepted requests are answered, a second one at once. While
    models are being loaded, no request is accepted, and the first signal stops the server at once.
    """
    from penstock.observability.open_files import raise_limit

    config = loaded(config_file, flags).config
    raise_limit()
    if config.server.processes > 1:
        _supervise(config, path)
    else:
        _serve(config, path)


def _supervise(config: Config, path: Path) -> None:
    from penstock.observability import logs
    from penstock.processes.supervisor import Supervisor

    resume_after_imports()
    logs.configure(config.log, values={"process": "supervisor", "pid": os.getpid()})
    logs.report_what_python_reports()
    try:
        sys.exit(Supervisor(config, path, show_in_time).run())
    except StartupError as error:
        raise click.ClickException(str(error)) from None


def _serve(config: Config, path: Path) -> None:
    from penstock.core.allocator import use_one_arena
    from penstock.core.interpreter import share_fairly
    from penstock.observability import logs

    use_one_arena()
    share_fairly()
    # A model can crash the process with a signal; then this prints the signal and the stack of each thread.
    faulthandler.enable(all_threads=False)
    with progress() as shown:
        logs.configure(config.log)  # its lines are written above the progress
        logs.report_what_python_reports()
        signals = StopSignals(lambda: _leave(shown))
        server = _started(config, path, signals, shown)
    logs.configure(config.log)
    if not signals.stop.is_set():
        show_in_time(_summary(server))
    gc.freeze()  # the current objects live until the end, so the garbage collector can skip them
    signals.stop.wait()
    answered_all = server.stop(config.server.drain_seconds)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    logs.flush()
    # Neither closed nor finalized: gRPC would cancel calls that arrive now, but callers whose connection ends
    # get UNAVAILABLE, which they may retry; and a run may still be active.
    os._exit(0 if answered_all else 1)


def _leave(shown: Progress) -> None:
    from penstock.observability.logs import flush, logger

    shown.abandon()
    logger(__name__).info("stopped before the server was ready")
    flush()


def _started(config: Config, path: Path, signals: StopSignals, shown: Progress) -> Server:
    from penstock.server import Server

    resume_after_imports()
    server = None
    try:
        server = Server(config, path)
        server.on_loading = shown.update
        server.start(signals.accept)
    except StartupError as error:
        if server is not None:
            server.close()
        raise click.ClickException(str(error)) from None
    return server


def _summary(server: Server) -> str:
    from penstock.core.address import address
    from penstock.core.processors import available
    from penstock.protocols.rest import docs
    from penstock.summary import Facts, summary

    host = server.config.server.host
    facts = Facts(
        address(host, server.port),
        address(host, server.ops_port),
        server.transport_name,
        str(available()),
        http_address=address(host, server.http_port) if server.http_port else "",
        has_docs=docs.folder() is not None,
    )
    return summary(server.models, facts)
