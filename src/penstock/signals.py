"""Signals as bytes on a socket, so that any thread can wait for them."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterable


def signal_socket(signals: Iterable[signal.Signals]) -> socket.socket:
    """From now on these signals do nothing but to put their numbers, one byte each, onto a socket.

    Python runs handlers on the main thread only, and the operating system may give a signal to any: then
    the main thread sleeps on. The number is written to the socket in either case. Main thread only, once.

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
