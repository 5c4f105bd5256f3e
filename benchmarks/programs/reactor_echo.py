"""A floor: Penstock's reactor with a handler that answers every message with the same bytes.

    python benchmarks/programs/reactor_echo.py ANSWER_FILE [--reject]

Prints its address. Unary `/bench/Echo` and bidirectional `/bench/EchoStream`; no protobuf, no queue, no
model: what is left is grpc itself and the transport. With --reject, every unary call ends as one that finds
Penstock's queue full: with such words and trailers.
"""

from __future__ import annotations

import sys
import threading
import traceback
from pathlib import Path

# grpc comes from there, since the variables that the package sets must be set before it is imported.
from penstock.transport.grpc.call import OK, Ignoring, Kind, Limits, Method, ServerCall, Status, grpc
from penstock.transport.grpc.reactor import Reactor

ANSWER = Path(sys.argv[1]).read_bytes()
WORDS = "the queue is full: 1 rows are waiting, 1 more arrived, the limit is 1"
TRAILERS = (("grpc-status-details-bin", bytes(130)), ("grpc-retry-pushback-ms", "1"))
FULL = Status(grpc.StatusCode.RESOURCE_EXHAUSTED, WORDS, TRAILERS)


class Echo(Ignoring):
    def __init__(self, call: ServerCall) -> None:
        self._call = call

    def received(self, message: bytes) -> None:
        self._call.finish(OK, ANSWER)


class Reject(Echo):
    def received(self, message: bytes) -> None:
        self._call.finish_in_turn(FULL)


class EchoStream(Ignoring):
    def __init__(self, call: ServerCall) -> None:
        self._call = call

    def received(self, message: bytes) -> None:
        self._call.send(ANSWER)

    def sent(self) -> None:
        self._call.receive()

    def half_closed(self) -> None:
        self._call.finish()


def main() -> None:
    methods = {
        "/bench/Echo": Method(Kind.UNARY, Reject if sys.argv[2:] == ["--reject"] else Echo),
        "/bench/EchoStream": Method(Kind.STREAM, EchoStream),
    }
    reactor = Reactor(methods, Limits(), lambda: False, traceback.print_exception)
    port = reactor.bind("127.0.0.1:0")
    reactor.start()
    print(f"gRPC        127.0.0.1:{port}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
