"""Streams that send as much as the server takes, and read the answers or never do.

    python benchmarks/programs/greedy_streams.py TARGET METHOD MESSAGE_FILE STREAMS CONNECTIONS SECONDS READS

Every stream sends the message again and again, as far as the windows of HTTP/2 let it. With READS "yes" the
windows for answers are as wide as they can be; with "no" they keep their first size and are never opened
again, so that after 64 KiB on a connection the server can send nothing. Prints JSON: `messages` sent,
`bytes` received, `ended` (streams that the server ended) and `closed` (connections that it closed).
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import sys
import time
from pathlib import Path

from open_loop import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    GOAWAY,
    HEADERS,
    LARGEST_WINDOW,
    PING,
    RESET,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    header,
)

INITIAL_WINDOW = 4  # its setting's number
LARGEST_FRAME = 16_384
MOST_UNSENT = 2**18  # bytes; more would only wait here instead of in the socket


class Greedy:
    """One HTTP/2 connection with its streams."""

    def __init__(self, target: str, method: str, message: bytes, streams: int, reads: bool) -> None:
        host, _, port = target.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._body = b"\0" + len(message).to_bytes(4, "big") + message
        self._window, self._first_window = FIRST_WINDOW, FIRST_WINDOW
        self._windows = {1 + 2 * number: FIRST_WINDOW for number in range(streams)}
        self._sent = dict.fromkeys(self._windows, 0)  # bytes of the message under way
        self._in = b""
        window = struct.pack(">HI", INITIAL_WINDOW, LARGEST_WINDOW if reads else FIRST_WINDOW)
        out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, window)
        if reads:
            out += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGEST_WINDOW - FIRST_WINDOW))
        fields = {":method": "POST", ":scheme": "http", ":path": method, ":authority": target}
        fields |= {"content-type": "application/grpc", "te": "trailers"}
        headers = b"".join(header(name, value) for name, value in fields.items())
        out += b"".join(frame(HEADERS, END_HEADERS, number, headers) for number in self._windows)
        self._out = bytearray(out)
        self.messages = self.received = self.ended = 0
        self.is_closed = False

    def write(self) -> None:
        """Sends what the windows and the socket take."""
        while len(self._out) < MOST_UNSENT and self._fill():
            pass
        if self._out:
            with contextlib.suppress(BlockingIOError):
                del self._out[: self.socket.send(self._out)]

    @property
    def is_blocked(self) -> bool:
        """Whether nothing can be sent before the server opens a window."""
        return not self._out and (self._window <= 0 or all(each <= 0 for each in self._windows.values()))

    def read(self) -> None:
        """Takes what has come."""
        try:
            data = self.socket.recv(2**20)
        except BlockingIOError:
            return
        self.is_closed = not data
        self._in += data
        start = 0
        while len(self._in) - start >= 9:
            size = int.from_bytes(self._in[start : start + 3], "big")
            if len(self._in) - start < 9 + size:
                break
            kind, flags, stream = struct.unpack_from(">BBI", self._in, start + 3)
            self._frame(kind, flags, stream, self._in[start + 9 : start + 9 + size])
            start += 9 + size
        self._in = self._in[start:]

    def _fill(self) -> bool:
        """Puts a frame of each stream into what is to be sent; whether any could be."""
        before = len(self._out)
        for stream, window in self._windows.items():
            sent = self._sent[stream]
            size = min(window, self._window, LARGEST_FRAME, len(self._body) - sent)
            if size <= 0:
                continue
            self._out += frame(DATA, 0, stream, self._body[sent : sent + size])
            self._windows[stream] = window - size
            self._window -= size
            self._sent[stream] = (sent + size) % len(self._body)
            self.messages += not self._sent[stream]
        return len(self._out) > before

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self.received += len(payload)
        elif kind == WINDOW_UPDATE:
            more = struct.unpack(">I", payload)[0]
            if stream:
                self._windows[stream] = self._windows.get(stream, 0) + more
            else:
                self._window += more
        elif kind == SETTINGS and not flags & ACK:
            for number, value in struct.iter_unpack(">HI", payload):
                if number == INITIAL_WINDOW:
                    change, self._first_window = value - self._first_window, value
                    self._windows = {each: window + change for each, window in self._windows.items()}
            self._out += frame(SETTINGS, ACK, 0, b"")
        elif kind == PING and not flags & ACK:
            self._out += frame(PING, ACK, 0, payload)
        elif kind == RESET or (kind == HEADERS and flags & END_STREAM):
            self.ended += self._windows.pop(stream, None) is not None
        elif kind == GOAWAY:
            self.is_closed = True


def run(connections: list[Greedy], seconds: float) -> None:
    """Sends until the time is over."""
    end = time.monotonic() + seconds
    open_ones = list(connections)
    while open_ones and time.monotonic() < end:
        for each in open_ones:
            each.write()
        blocked = [each for each in open_ones if each.is_blocked]
        select.select(open_ones_of(open_ones), open_ones_of(set(open_ones) - set(blocked)), (), 0.05)
        for each in open_ones:
            each.read()
        open_ones = [each for each in open_ones if not each.is_closed]


def open_ones_of(connections: list[Greedy] | set[Greedy]) -> list[socket.socket]:
    return [each.socket for each in connections]


def main() -> None:
    target, method, path, streams, count, seconds, reads = sys.argv[1:]
    message = Path(path).read_bytes()
    each = int(streams) // int(count)
    connections = [Greedy(target, method, message, each, reads == "yes") for _ in range(int(count))]
    run(connections, float(seconds))
    figures = {
        "messages": sum(each.messages for each in connections),
        "bytes": sum(each.received for each in connections),
        "ended": sum(each.ended for each in connections),
        "closed": sum(each.is_closed for each in connections),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
