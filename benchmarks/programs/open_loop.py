"""Unary calls at a fixed rate, whatever the server does, and the time each took from when it was due.

    python benchmarks/programs/open_loop.py TARGET METHOD REQUEST_FILE RATE SECONDS LEAST_BYTES

RATE calls a second are due at even intervals, in turn on each of four connections. A latency counts from the
time a call was due and not from when it could be sent, so that a stall of either side shows in all calls it
held up. Calls of the first fifth of SECONDS warm up and do not count. Prints JSON: `p50_us`, `p99_us`,
`p999_us`, `max_us`, `rate` (answers a second), and `late_us`, the 99th percentile of how late calls were
sent.

grpcio's own client costs more than a server's whole call, and h2load sends what is due in bursts a
hundred times a second; so this writes HTTP/2 frames itself, prepared but for the number of the stream, and
reads no more of an answer than whether it holds a message of LEAST_BYTES. It keeps its core busy, to be on
time.
"""

from __future__ import annotations

import contextlib
import gc
import json
import socket
import struct
import sys
import time
from pathlib import Path

import numpy as np

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
CONNECTIONS = 4
LONGEST_WAIT = 10.0  # seconds for the last answers
LARGEST_WINDOW = 2**31 - 1
FIRST_WINDOW = 65_535
WARM_UP = 0.2


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def header(name: str, value: str) -> bytes:
    """A header that neither side is to remember (RFC 7541, 6.2.2), its lengths below 127."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))


class Connection:
    """One HTTP/2 connection, and the calls in flight on it.

    Args:
        target: "host:port".
        method: the full method.
        request: the serialized request.
        least: the least size of a good answer's message.
    """

    def __init__(self, target: str, method: str, request: bytes, least: int) -> None:
        host, _, port = target.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = struct.pack(">HI", 4, LARGEST_WINDOW)
        self._out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings)
        self._out += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGEST_WINDOW - FIRST_WINDOW))
        self._socket.setblocking(False)
        fields = {":method": "POST", ":scheme": "http", ":path": method, ":authority": target}
        fields |= {"content-type": "application/grpc", "te": "trailers"}
        headers = b"".join(header(name, value) for name, value in fields.items())
        body = b"\0" + len(request).to_bytes(4, "big") + request
        self._headers = len(headers).to_bytes(3, "big") + bytes([HEADERS, END_HEADERS]), headers
        self._body = len(body).to_bytes(3, "big") + bytes([DATA, END_STREAM]), body
        self._least = least + 5
        self._window = FIRST_WINDOW
        self._stream = 1
        self._in = b""
        self._due: dict[int, float] = {}
        self._bytes: dict[int, int] = {}
        self.waiting: list[float] = []
        self.latencies: list[tuple[float, float]] = []
        self.late: list[float] = []

    @property
    def unanswered(self) -> int:
        return len(self._due) + len(self.waiting)

    def call(self, due: float) -> None:
        """Notes a call that is due."""
        self.waiting.append(due)

    def work(self) -> None:
        """Sends what is due as far as the server lets us, and takes what has come."""
        while self.waiting and self._window >= len(self._body[1]):
            self._begin(self.waiting.pop(0))
        if self._out:
            with contextlib.suppress(BlockingIOError):
                self._out = self._out[self._socket.send(self._out) :]
        try:
            data = self._socket.recv(2**20)
        except BlockingIOError:
            return
        if not data:
            sys.exit("the server closed the connection")
        self._take(self._in + data)

    def _begin(self, due: float) -> None:
        number = struct.pack(">I", self._stream)
        self._out += number.join(self._headers) + number.join(self._body)
        self._window -= len(self._body[1])
        self._due[self._stream] = due
        self._stream += 2
        self.late.append(time.perf_counter() - due)

    def _take(self, data: bytes) -> None:
        start, now = 0, time.perf_counter()
        while len(data) - start >= 9:
            size = int.from_bytes(data[start : start + 3], "big")
            if len(data) - start < 9 + size:
                break
            kind, flags, stream = struct.unpack_from(">BBI", data, start + 3)
            self._frame(kind, flags, stream, data[start + 9 : start + 9 + size], now)
            start += 9 + size
        self._in = data[start:]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes, now: float) -> None:
        if kind == DATA:
            self._bytes[stream] = self._bytes.get(stream, 0) + len(payload)
        elif kind == HEADERS and flags & END_STREAM:
            if self._bytes.pop(stream, 0) < self._least:
                sys.exit("a call ended without a good answer")
            due = self._due.pop(stream)
            self.latencies.append((due, now - due))
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += struct.unpack(">I", payload)[0]
        elif kind == SETTINGS and not flags & ACK:
            self._out += frame(SETTINGS, ACK, 0, b"")
        elif kind == PING and not flags & ACK:
            self._out += frame(PING, ACK, 0, payload)
        elif kind in {RESET, GOAWAY}:
            sys.exit(f"the server sent frame {kind} on stream {stream}: {payload!r}")


def run(connections: list[Connection], rate: float, seconds: float) -> float:
    """Makes the calls and waits for the answers; returns when the first was due."""
    calls, begun = int(rate * seconds), 0
    first = time.perf_counter() + 0.05
    while begun < calls or any(each.unanswered for each in connections):
        now = time.perf_counter()
        if now > first + seconds + LONGEST_WAIT:
            sys.exit(f"{sum(each.unanswered for each in connections)} calls were not answered")
        while begun < calls and first + begun / rate <= now:
            connections[begun % len(connections)].call(first + begun / rate)
            begun += 1
        for each in connections:
            each.work()
    return first


def figures(connections: list[Connection], since: float, seconds: float) -> dict[str, float]:
    counted = [taken for each in connections for due, taken in each.latencies if due >= since]
    p50, p99, p999, largest = np.percentile(np.array(counted) * 1e6, (50, 99, 99.9, 100))
    late = np.percentile(np.concatenate([each.late for each in connections]) * 1e6, 99)
    return {
        "rate": len(counted) / seconds,
        "p50_us": p50,
        "p99_us": p99,
        "p999_us": p999,
        "max_us": largest,
        "late_us": float(late),
    }


def main() -> None:
    target, method, path, rate, seconds, least = sys.argv[1:]
    request = Path(path).read_bytes()
    gc.disable()  # a collection would hold calls up
    connections = [Connection(target, method, request, int(least)) for _ in range(CONNECTIONS)]
    first = run(connections, float(rate), float(seconds))
    warm_up = WARM_UP * float(seconds)
    print(json.dumps(figures(connections, first + warm_up, float(seconds) - warm_up)))


if __name__ == "__main__":
    main()
