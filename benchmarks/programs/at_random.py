"""Calls at random times, as from many callers that know nothing of each other (a Poisson process).

    python benchmarks/programs/at_random.py rest TARGET REQUEST_FILE RATE SECONDS
    python benchmarks/programs/at_random.py grpc TARGET METHOD REQUEST_FILE RATE SECONDS

REQUEST_FILE has a whole request of HTTP/1.1, or the message of the gRPC METHOD. A call takes one of the
connections of REST that are free, or any of those of gRPC. h2load sends what is due in bursts a hundred times
a second, so that each of ten calls waits for those before it, and everything else for all ten. This sends a
call when it is due, and sleeps between calls. Prints JSON: `rate`, `p50_us` and `p99_us` of these calls, and
`late_us`, the 99th percentile of how late they were sent.
"""

from __future__ import annotations

import json
import random
import re
import select
import socket
import sys
import time
from pathlib import Path

import numpy as np
from open_loop import Connection

CONNECTIONS = 16
LONGEST_WAIT = 10.0  # seconds for the last answers
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
SEED = 1


class Rest:
    """A connection that makes one call at a time.

    Args:
        target: "host:port".
        request: the whole request.
    """

    def __init__(self, target: str, request: bytes) -> None:
        host, _, port = target.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._request = request
        self._due: float | None = None
        self._in = b""
        self.latencies: list[tuple[float, float]] = []
        self.late: list[float] = []

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def unanswered(self) -> int:
        return self._due is not None

    def call(self, due: float) -> None:
        """Sends a call that is due."""
        self._due = due
        self.late.append(time.perf_counter() - due)
        self._socket.send(self._request)

    def work(self) -> None:
        """Takes what has come."""
        self._in += self._socket.recv(2**20)
        head = self._in.find(b"\r\n\r\n")
        if head < 0:
            return
        found = LENGTH.search(self._in[: head + 2])
        if not self._in.startswith(b"HTTP/1.1 200") or found is None:
            sys.exit(f"a call ended without a good answer: {self._in[:200]!r}")
        if len(self._in) < head + 4 + int(found[1]):
            return
        assert self._due is not None, "an answer comes to a call"
        self.latencies.append((self._due, time.perf_counter() - self._due))
        self._in, self._due = b"", None


class Grpc(Connection):
    """A connection that makes any number of calls at a time."""

    def fileno(self) -> int:
        return self._socket.fileno()

    def call(self, due: float) -> None:
        """Sends a call that is due."""
        super().call(due)
        self.work()


def run(connections: list[Rest] | list[Grpc], rate: float, seconds: float) -> None:
    """Makes the calls and waits for the answers."""
    made = random.Random(SEED)
    due, end = time.perf_counter() + 0.05, time.perf_counter() + 0.05 + seconds
    while due < end or any(each.unanswered for each in connections):
        now = time.perf_counter()
        if now > end + LONGEST_WAIT:
            sys.exit(f"{sum(each.unanswered for each in connections)} calls were not answered")
        while due < min(now, end):
            free = [each for each in connections if isinstance(each, Grpc) or not each.unanswered]
            if not free:
                break
            made.choice(free).call(due)
            due += made.expovariate(rate)
        wait = max(due - time.perf_counter(), 0.0) if due < end else LONGEST_WAIT
        for each in select.select(connections, (), (), wait)[0]:
            each.work()


def main() -> None:
    kind, target, *method, path, rate, seconds = sys.argv[1:]
    request = Path(path).read_bytes()
    connections: list[Rest] | list[Grpc]
    if kind == "rest":
        connections = [Rest(target, request) for _ in range(CONNECTIONS)]
    else:
        connections = [Grpc(target, method[0], request, 0) for _ in range(CONNECTIONS)]
    run(connections, float(rate), float(seconds))
    latencies = np.array([taken for each in connections for _, taken in each.latencies]) * 1e6
    late = np.concatenate([each.late for each in connections]) * 1e6
    p50, p99 = np.percentile(latencies, (50, 99))
    figures = {"rate": len(latencies) / float(seconds), "p50_us": p50, "p99_us": p99}
    print(json.dumps({**figures, "late_us": float(np.percentile(late, 99))}))


if __name__ == "__main__":
    main()
