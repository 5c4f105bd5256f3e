"""Handles SIGTERM and SIGINT: signals become bytes on a socket, so that any thread can wait for them."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable


def signal_socket(signals: Iterable[signal.Signals]) -> socket.socket:
    """From now on these signals only put their numbers, one byte each, onto a socket.

    Python runs handlers on the main thread only, and the operating system may give a signal to any thread:
    then the main thread stays asleep. The number is written to the socket in either case.

    Main thread only, once.

    Returns:
        The end to read from, which blocks.
    """
    received, wakeup = socket.socketpair()
    wakeup.setblocking(False)
    signal.set_wakeup_fd(wakeup.fileno())
    for each in signals:
        signal.signal(each, lambda number, frame: None)
    wakeup.detach()  # it lives as long as the process
    return received


class StopSignals:
    """What SIGTERM and SIGINT do to a server in one process.

    Before any request is accepted, the first signal ends the process at once, with exit code 0: nothing is
    lost, and loading may take minutes. Afterwards the first signal asks for a graceful stop, and the second
    one ends the process at once. Main thread only, once.

    Args:
        leaving: called on another thread before the process ends at once because nothing was accepted yet.

    Attributes:
        stop: set once the server is to stop.
    """

    def __init__(self, leaving: Callable[[], None]) -> None:
        self.stop = threading.Event()
        self._leaving = leaving
        self._accepts = False
        self._deciding = threading.Lock()  # whether a signal came before the first request
        self._received = signal_socket((signal.SIGTERM, signal.SIGINT))
        threading.Thread(target=self._listen, name="penstock-signals", daemon=True).start()

    def accept(self) -> None:
        """From now on requests are accepted, so that a stop has to answer them first."""
        with self._deciding:
            self._accepts = True

    def _listen(self) -> None:
        self._received.recv(1)
        with self._deciding:
            if not self._accepts:
                self._leaving()
                os._exit(0)
            self.stop.set()
        os._exit(128 + self._received.recv(1)[0])
