"""The floor: grpcio's completion queue in the shortest loop, which answers every call with the same bytes.

    python benchmarks/programs/queue_echo.py ANSWER_FILE [MODEL | --reject]

Prints its address. Any unary method. One thread takes one event after another and starts the same operations
as Penstock's reactor: one request for the next call, one for the message, one for the answer, the status and
the end of the call. It has no call objects and no limits. Nothing that serves from this queue can cost less,
unless it starts fewer operations. With MODEL, the tiny MLP's file, ONNX Runtime runs the last values of every
message, and the answer ends with what it gives: so much costs the model of a lone call, and nothing else.
With --reject, every call ends as one that finds Penstock's queue full: with such words and trailers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")  # as Penstock sets it

from grpc._cython import cygrpc as core

CALLS_ASKED_FOR = 128
ANSWER = Path(sys.argv[1]).read_bytes()
GREETING = core.SendInitialMetadataOperation((), 0)
GOOD_END = core.SendStatusFromServerOperation((), 0, b"", 0)
WORDS = b"the queue is full: 1 rows are waiting, 1 more arrived, the limit is 1"
TRAILERS = (("grpc-status-details-bin", bytes(130)), ("grpc-retry-pushback-ms", "1"))
RESOURCE_EXHAUSTED = 8


def model(path: str) -> Callable[[bytes], bytes]:
    """What makes an answer of a request: it has its values, float32 [1, 64], at its end."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    run = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])._sess.run

    def answer(request: bytes) -> bytes:
        [output] = run(["y"], {"x": np.ndarray((1, 64), np.float32, request[-256:])}, None)
        data: bytes = output.tobytes()
        return ANSWER[: -len(data)] + data

    return answer


def main() -> None:
    rejects = sys.argv[2:] == ["--reject"]
    answer_to = model(sys.argv[2]) if len(sys.argv) > 2 and not rejects else lambda _: ANSWER
    completions = core.CompletionQueue()
    server = core.Server((("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)), False)
    server.register_completion_queue(completions)
    port = server.add_http2_port(b"127.0.0.1:0")
    server.start()

    def arrived(event: Any) -> None:
        server.request_call(completions, completions, arrived)
        call = event.call

        def received(event: Any) -> None:
            if rejects:
                bad = core.SendStatusFromServerOperation(TRAILERS, RESOURCE_EXHAUSTED, WORDS, 0)
                call.start_server_batch((GREETING, bad, core.ReceiveCloseOnServerOperation(0)), closed)
                return
            answer = core.SendMessageOperation(answer_to(event.batch_operations[0].message()), 0)
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
