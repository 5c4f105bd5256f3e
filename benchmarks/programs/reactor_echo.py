"""A floor: Penstock's reactor with a handler that answers every message with the same bytes.

    python benchmarks/programs/reactor_echo.py ANSWER_FILE

Prints its address. Unary `/bench/Echo` and bidirectional `/bench/EchoStream`; no protobuf, no queue, no
model: what is left is grpc itself and the transport.
"""

from __future__ import annotations

import sys
import threading
import traceback
from pathlib import Path

from penstock.transport.grpc.call import OK, Ignoring, Kind, Limits, Method, ServerCall
from penstock.transport.grpc.reactor import Reactor

ANSWER = Path(sys.argv[1]).read_bytes()


class Echo(Ignoring):
    def __init__(self, call: ServerCall) -> None:
        self._call = call

    def received(self, message: bytes) -> None:
        self._call.finish(OK, ANSWER)


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
        "/bench/Echo": Method(Kind.UNARY, Echo),
        "/bench/EchoStream": Method(Kind.STREAM, EchoStream),
    }
    reactor = Reactor(methods, Limits(), lambda: False, traceback.print_exception)
    port = reactor.bind("127.0.0.1:0")
    reactor.start()
    print(f"gRPC        127.0.0.1:{port}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
