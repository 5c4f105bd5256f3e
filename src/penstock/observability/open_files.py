"""The limit on a process's open files (file descriptors): how much of it connections may use, and its watch.

Each connection is an open file. At the limit, a process cannot open files or accept probes.
"""

from __future__ import annotations

import errno
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from penstock.observability.logs import logger

WATCH_SECONDS = 1.0
LOG_SECONDS = 30
"""How often the log says so while no connection is accepted."""
RESERVED = 128
"""Of the limit, what is left to everything but connections: probes, model files, the log."""
FRESH_SECONDS = 0.05
"""How long a count of open files is used again."""
FOLDER = "/proc/self/fd" if sys.platform.startswith("linux") else "/dev/fd"
UNKNOWN = 1 << 20  # where the system has no limit, or does not tell it

log = logger(__name__)


def raise_limit() -> None:
    """Raises the limit of the process as far as the system lets it."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_connections() -> int:
    """How many connections may be open: the limit less `RESERVED`, but at least half of it."""
    limit = _limit()
    return max(limit - RESERVED, limit // 2)


class OpenFiles:
    """Looks every second whether connections are rejected because the limit on open files is reached.

    Args:
        most: the most connections.
        count: counts the connections.

    Attributes:
        seconds_at_limit: for how many seconds that was so.
    """

    def __init__(self, most: int, count: Callable[[], int]) -> None:
        self.seconds_at_limit = 0
        self._most = most
        self._count = count
        self._in_a_row = 0
        self._rejected = False  # a connection, since the last look
        self._count_at_most = 0
        self._counted = -math.inf
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="penstock-files", daemon=True)

    def start(self) -> None:
        """Starts to watch, on a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stops."""
        self._over.set()

    def is_full(self) -> bool:
        """Whether a connection that has just been accepted over HTTP must be closed; then it is noted.

        gRPC closes connections by itself, and an eighth of the places are left to it.
        """
        now, most = time.monotonic(), self._most - self._most // 8
        self._count_at_most += 1  # if none has been closed since the last count
        if now - self._counted > FRESH_SECONDS or self._count_at_most >= most:
            used = _used()
            self._count_at_most, self._counted = most if used is None else used, now
        full = self._count_at_most >= most
        self._rejected |= full
        return full

    def look(self) -> None:
        """Looks once; logs the beginning and the end, and meanwhile every `LOG_SECONDS`."""
        used, rejected, self._rejected = _used(), self._rejected, False
        if (
            rejected
            or used is None
            or used >= _limit()
            or (used >= self._most and self._count() >= self._most)
        ):
            if self._in_a_row % LOG_SECONDS == 0:
                log.error(
                    "new connections are rejected: the limit on open files is nearly reached",
                    open_files=used,
                    limit=_limit(),
                    most_connections=self._most,
                )
            self._in_a_row += 1
            self.seconds_at_limit += 1
        elif self._in_a_row:
            log.info("new connections are accepted again", open_files=used, after_seconds=self._in_a_row)
            self._in_a_row = 0

    def _watch(self) -> None:
        while not self._over.wait(WATCH_SECONDS):
            with suppress(Exception):  # the next look comes
                self.look()


def _limit() -> int:
    with suppress(ImportError, OSError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return min(soft, UNKNOWN) if soft > 0 else UNKNOWN
    return UNKNOWN


def _used() -> int | None:
    """How many files are open; None if the system has no room for one more."""
    try:
        return os.stat(FOLDER).st_size or len(os.listdir(FOLDER))  # Linux before 6.2 gives a size of 0
    except OSError as error:
        return None if error.errno in (errno.EMFILE, errno.ENFILE) else 0
