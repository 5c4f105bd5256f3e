"""A server in this process: for a model file that no server serves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

STOP_SECONDS = 5.0
MODEL_FILE = "model.onnx"


@contextmanager
def local_server(path: Path) -> Iterator[tuple[str, str]]:
    """Serves a model on this machine's loopback address, on a free port.

    Args:
        path: a model file, or a folder with one model.

    Yields:
        The address, and the name of the model.

    Raises:
        click.ClickException: it cannot be loaded, or there are several models.
    """
    # Before gRPC is imported: it would tell how it closes a port.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from penstock.cli.settings import loaded
    from penstock.core.address import address
    from penstock.core.errors import StartupError
    from penstock.observability import logs
    from penstock.server import Server

    flags = {
        "server_host": "127.0.0.1",
        "server_port": 0,
        "server_ops_port": 0,
        "server_http": False,
        "log_level": "error",
    }
    config = loaded(None, flags).config
    logs.configure(config.log)
    server = None
    try:
        server = Server(config, path)
        server.start()
        names = sorted({model.name for model in server.models})
        if len(names) != 1:
            raise click.ClickException(
                f"{path} has {len(names)} models: {', '.join(names)}; name the file of one, such as "
                f"{_file_in(path)}"
            )
        yield address("127.0.0.1", server.port), names[0]
    except StartupError as error:
        raise click.ClickException(_words(path, error)) from None
    finally:
        if server is not None:
            server.stop(STOP_SECONDS)
            server.close()


def _words(path: Path, error: Exception) -> str:
    """Why a model cannot be loaded; for a folder that is no repository, which file to name."""
    found = _file_in(path) if path.is_dir() and not any(path.glob(f"*/*/{MODEL_FILE}")) else None
    if found is None:
        return str(error)
    if not any(map(_version, path.glob(f"*/{MODEL_FILE}"))):
        return f"{error}; or name the file: --model {found}"
    return (
        f"{path} is the folder of one model: name its file, --model {found}; or, with its model.toml, serve "
        "the folder above it and give the model's name without --model"
    )


def _file_in(folder: Path) -> Path | None:
    """A model file in a folder: of the newest version, if it has versions."""
    files = [file for depth in ("", "*/", "*/*/") for file in sorted(folder.glob(f"{depth}*.onnx"))]
    return max(files, key=_version, default=None)


def _version(file: Path) -> int:
    name = file.parent.name
    return int(name) if name.isdecimal() else 0
