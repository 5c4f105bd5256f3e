"""The command line: the entry point of the `penstock` command.

Nothing is imported here, so that a signal also ends the process while libraries are being loaded. Each
command has its own module, which is loaded when the command is called: `penstock health` should not wait for
ONNX Runtime to load.
"""

from __future__ import annotations

from collections.abc import Sequence

SERVE = "serve"
SIGNAL_OFFSET = 128  # shells report a signal as this number plus the signal's number


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command, and ends the process with its exit code.

    Args:
        arguments: the command and its flags. By default those of the process. Then the process is also
            prepared: from now on SIGTERM ends it, even as process 1 of a container, where the kernel
            drops a signal without a handler.
    """
    if arguments is None:
        _end_on_signals()
        _collect_later()
        from penstock.cli.output import prepare

        prepare()
    from penstock.cli.group import penstock

    penstock(arguments)


def _collect_later() -> None:
    """Switches the garbage collector off until `penstock serve` has imported the server's code."""
    import gc

    if _is_server():
        gc.disable()


def _is_server() -> bool:
    import sys

    return sys.argv[1:2] == [SERVE]


def _end_on_signals() -> None:
    import os
    import signal

    # No request was accepted yet, so none is lost: exit code 0.
    is_server = _is_server()
    for each in (signal.SIGTERM, signal.SIGINT) if is_server else (signal.SIGTERM,):
        signal.signal(each, lambda number, _: os._exit(0 if is_server else SIGNAL_OFFSET + number))
