"""Many streams of predictions in real time, and the time each answer took from when its frame was due.

    python benchmarks/programs/frames_load.py TARGET REQUESTS_FILE STREAMS CONNECTIONS PERIOD SECONDS [by-id]

Every stream is a `PredictStream` that sends one request each PERIOD seconds. The streams' frames are spread
evenly over a period, and each begins elsewhere among the requests: a JSON list of base64. With `by-id`,
STREAMS counts sequences with an id: each connection has one stream for its share of them, and frames that are
due at the same look at the clock are sent in one message. Frames of the first
fifth of SECONDS warm up and do not count. Prints JSON: `frames`, `in_time` (the share answered within a
period), `failed`, `p50_ms` and `p99_ms` of the answers, `batch_rows` (the mean that an answer saw), `late_ms`
(the 99th percentile of how late frames were sent), and `cpu` (this process's share of a core).

It writes HTTP/2 frames itself, as `open_loop.py` does, and looks at its sockets every half a millisecond, by
which latencies are uncertain: so a frame costs it few microseconds, and it does not keep its core busy.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import select
import socket
import struct
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
from open_loop import (
    ACK,
    DATA,
    END_HEADERS,
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

from penstock_proto.v1.prediction_pb2 import PredictStreamResponse

METHOD = "/penstock.v1.PredictionService/PredictStream"
TICK = 0.0005
LARGEST_FRAME = 16_384
INITIAL_WINDOW = 4  # its setting's number
LONGEST_WAIT = 2.0  # seconds for the last answers
WARM_UP = 0.2


class Stream:
    """One stream of predictions."""

    def __init__(self, number: int, window: int) -> None:
        self.number = struct.pack(">I", number)
        self.window = window
        self.unsent: deque[tuple[list[float], bytes]] = deque()  # when its frames were due, and the message
        self.unanswered: deque[float] = deque()
        self.data = b""


class Tally:
    """What is known of the answers so far."""

    def __init__(self) -> None:
        self.answers: list[tuple[float, float]] = []  # when it was due, how long it took
        self.late: list[float] = []
        self.failed: list[str] = []
        self.rows = 0

    def take(self, message: bytes, stream: Stream, now: float) -> None:
        for result in PredictStreamResponse.FromString(message).results:
            due = stream.unanswered.popleft()
            if result.HasField("error"):
                self.failed.append(result.error.message)
            else:
                self.answers.append((due, now - due))
                self.rows += result.response.timing.batch_rows


class Connection:
    """One HTTP/2 connection with its streams."""

    def __init__(self, target: str, tally: Tally) -> None:
        host, _, port = target.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._tally = tally
        self._target = target
        settings = frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, LARGEST_WINDOW))
        more = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGEST_WINDOW - FIRST_WINDOW))
        self._out = bytearray(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + more)
        self._in = b""
        self._window = self._first_window = FIRST_WINDOW
        self._streams: dict[int, Stream] = {}
        self._held: dict[Stream, None] = {}  # those with frames that the server's windows have no room for

    def open(self) -> Stream:
        number = 2 * len(self._streams) + 1
        stream = self._streams[number] = Stream(number, self._first_window)
        fields = {":method": "POST", ":scheme": "http", ":path": METHOD, ":authority": self._target}
        fields |= {"content-type": "application/grpc", "te": "trailers"}
        headers = b"".join(header(name, value) for name, value in fields.items())
        self._out += frame(HEADERS, END_HEADERS, number, headers)
        return stream

    def send(self, stream: Stream, due: list[float], body: bytes) -> None:
        stream.unsent.append((due, body))
        if not self._write(stream):
            self._held[stream] = None

    def flush(self) -> None:
        if self._out:
            with contextlib.suppress(BlockingIOError):
                del self._out[: self.socket.send(self._out)]

    def receive(self) -> None:
        try:
            data = self.socket.recv(2**20)
        except BlockingIOError:
            return
        if not data:
            sys.exit("the server closed the connection")
        self._take(self._in + data)
        for stream in [each for each in self._held if self._write(each)]:
            del self._held[stream]

    def _write(self, stream: Stream) -> bool:
        """Sends what the windows have room for; returns whether that was all.

        A message may be larger than a window ever is, and then leaves in parts.
        """
        while stream.unsent:
            due, body = stream.unsent.popleft()
            while body:
                room = min(self._window, stream.window, LARGEST_FRAME)
                if room <= 0:
                    stream.unsent.appendleft((due, body))
                    return False
                part, body = body[:room], body[room:]
                self._window -= len(part)
                stream.window -= len(part)
                self._out += len(part).to_bytes(3, "big") + bytes([DATA, 0]) + stream.number + part
            stream.unanswered += due
            now = time.perf_counter()
            self._tally.late += [now - each for each in due]
        return True

    def _take(self, data: bytes) -> None:
        start, now = 0, time.perf_counter()
        while len(data) - start >= 9:
            size = int.from_bytes(data[start : start + 3], "big")
            if len(data) - start < 9 + size:
                break
            kind, flags, number = struct.unpack_from(">BBI", data, start + 3)
            self._frame(kind, flags, number, data[start + 9 : start + 9 + size], now)
            start += 9 + size
        self._in = data[start:]

    def _frame(self, kind: int, flags: int, number: int, payload: bytes, now: float) -> None:
        if kind == DATA:
            self._answered(self._streams[number], payload, now)
        elif kind == WINDOW_UPDATE:
            more = int.from_bytes(payload, "big")
            if number:
                self._streams[number].window += more
            else:
                self._window += more
        elif kind == SETTINGS and not flags & ACK:
            self._set(payload)
        elif kind == PING and not flags & ACK:
            self._out += frame(PING, ACK, 0, payload)
        elif kind in {RESET, GOAWAY}:
            sys.exit(f"the server sent frame {kind} on stream {number}: {payload!r}")

    def _answered(self, stream: Stream, payload: bytes, now: float) -> None:
        data, start = stream.data + payload, 0
        while len(data) - start >= 5:
            end = start + 5 + int.from_bytes(data[start + 1 : start + 5], "big")
            if end > len(data):
                break
            self._tally.take(data[start + 5 : end], stream, now)
            start = end
        stream.data = data[start:]

    def _set(self, payload: bytes) -> None:
        for key, value in struct.iter_unpack(">HI", payload):
            if key == INITIAL_WINDOW:
                for stream in self._streams.values():
                    stream.window += value - self._first_window
                self._first_window = value
        self._out += frame(SETTINGS, ACK, 0, b"")


def varint(number: int) -> bytes:
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80]) + varint(number >> 7)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def body_of(requests: list[bytes]) -> bytes:
    """A message of a stream with these requests, as gRPC frames it."""
    message = b"".join([field(1, each) for each in requests])
    return b"\0" + len(message).to_bytes(4, "big") + message


class Frames:
    """The frames of all sequences, in the order in which they are due.

    Args:
        streams: the connection and the stream of each sequence.
        requests: those of the frames.
        by_id: whether sequences have ids, so that several may share a stream.
    """

    def __init__(self, streams: list[tuple[Connection, Stream]], requests: list[bytes], by_id: bool) -> None:
        self._streams = streams
        self._requests = requests
        self._by_id = by_id
        self._ready: dict[Stream, tuple[Connection, list[float], list[bytes]]] = {}

    def add(self, number: int, due: float) -> None:
        """Frame `number` is due."""
        count = len(self._streams)
        voice, turn = number % count, number // count
        connection, stream = self._streams[voice]
        # Everybody is at another place of the recording.
        request = self._requests[(voice * 7 + turn) % len(self._requests)]
        if self._by_id:
            start = b"" if turn else b"\x10\x01"
            request += field(10, field(1, f"voice-{voice:05}".encode()) + start)
        _, dues, requests = self._ready.setdefault(stream, (connection, [], []))
        dues.append(due)
        requests.append(request)
        if not self._by_id:
            self.send()

    def send(self) -> None:
        """Sends what is due, a message on each stream."""
        for stream, (connection, dues, requests) in self._ready.items():
            connection.send(stream, dues, body_of(requests))
        self._ready.clear()


def run(
    streams: list[tuple[Connection, Stream]],
    frames_due: Frames,
    period: float,
    seconds: float,
    tally: Tally,
) -> float:
    """Sends the frames and waits for the answers; returns when the first was due."""
    connections = {each.socket.fileno(): each for each, _ in streams}
    poll = select.epoll()
    for number in connections:
        poll.register(number, select.EPOLLIN)
    count, step, sent = len(streams), period / len(streams), 0
    frames = int(seconds / period) * count
    first = time.perf_counter() + 0.1
    while (now := time.perf_counter()) < first + seconds + LONGEST_WAIT:
        while sent < frames and first + sent * step <= now:
            frames_due.add(sent, first + sent * step)
            sent += 1
        frames_due.send()
        for number, _ in poll.poll(0):
            connections[number].receive()
        for connection in connections.values():
            connection.flush()
        if sent == frames and len(tally.answers) + len(tally.failed) == frames:
            break
        time.sleep(TICK)
    return first


def figures(tally: Tally, since: float, frames: int, period: float) -> dict[str, float]:
    taken = np.array([taken for due, taken in tally.answers if due >= since])
    p50, p99 = np.percentile(taken * 1e3, (50, 99)) if len(taken) else (float("nan"),) * 2
    return {
        "frames": frames,
        "in_time": int((taken <= period).sum()) / frames,
        "failed": len(tally.failed),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "batch_rows": tally.rows / max(len(tally.answers), 1),
        "late_ms": float(np.percentile(tally.late, 99) * 1e3),
    }


def main() -> None:
    target, path, count, connections, period_, seconds_, *how = sys.argv[1:]
    period, seconds, by_id = float(period_), float(seconds_), how == ["by-id"]
    requests = [base64.b64decode(each) for each in json.loads(Path(path).read_bytes())]
    gc.disable()  # a collection would hold frames up
    tally = Tally()
    opened = [Connection(target, tally) for _ in range(min(int(connections), int(count)))]
    if by_id:
        shared = [(each, each.open()) for each in opened]
        streams = [shared[n % len(shared)] for n in range(int(count))]
    else:
        streams = [(each, each.open()) for each in (opened[n % len(opened)] for n in range(int(count)))]
    began, used = time.perf_counter(), time.process_time()
    first = run(streams, Frames(streams, requests, by_id), period, seconds, tally)
    cpu = (time.process_time() - used) / (time.perf_counter() - began)
    warm_up = int(seconds / period * WARM_UP)
    counted = (int(seconds / period) - warm_up) * int(count)
    # Half a step earlier, for a time due is a sum that is rounded.
    since = first + (warm_up - 0.5 / int(count)) * period
    print(json.dumps({**figures(tally, since, counted, period), "cpu": cpu}))
    if tally.failed:
        print(tally.failed[0], file=sys.stderr)


if __name__ == "__main__":
    main()
