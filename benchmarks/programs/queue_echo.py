"""The floor: grpcio's completion queue in the shortest loop, which answers every call with the same bytes.

    python benchmarks/programs/queue_echo.py ANSWER_FILE

Prints its address. Any unary method. One thread takes one event after another and starts the same operations
as Penstock's reactor: one request for the next call, one for the message, one for the answer, the status and
the end of the call. It has no call objects and no limits. Nothing that serves from this queue can cost less,
unless it starts fewer operations.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")  # as Penstock sets it

from grpc._cython import cygrpc as core

CALLS_ASKED_FOR = 128
ANSWER = Path(sys.argv[1]).read_bytes()
GREETING = core.SendInitialMetadataOperation((), 0)
GOOD_END = core.SendStatusFromServerOperation((), 0, b"", 0)


def main() -> None:
    completions = core.CompletionQueue()
    server = core.Server((("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)), False)
    server.register_completion_queue(completions)
    port = server.add_http2_port(b"127.0.0.1:0")
    server.start()

    def arrived(event: Any) -> None:
        server.request_call(completions, completions, arrived)
        call = event.call

        def received(event: Any) -> None:
            answer = core.SendMessageOperation(ANSWER, 0)
            end = core.ReceiveCloseOnServerOperation(0)
            call.start_server_batch((GREETING, answer, GOOD_END, end), closed)

        call.start_server_batch((core.ReceiveMessageOperation(0),), received)

    def closed(event: Any) -> None:
        """The end of a call, after which nothing is left to be done."""

    for _ in range(CALLS_ASKED_FOR):
        server.request_call(completions, completions, arrived)
    print(f"gRPC        127.0.0.1:{port}", flush=True)
    poll = completions.poll
    while True:
        event = poll()
        event.tag(event)
        del event  # it would keep its call in memory


if __name__ == "__main__":
    main()
