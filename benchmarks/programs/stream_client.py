"""Sends the same message many times over one stream and waits for all answers.

    python benchmarks/programs/stream_client.py TARGET METHOD MESSAGE_FILE MESSAGES IN_FLIGHT

Prints the seconds between the first message and the last answer. IN_FLIGHT messages may be unanswered. The
requests in Penstock's messages are counted, and an error among its results ends the program; of any other
server, a message is one answer.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc

SECONDS = 120


def main() -> None:
    target, method, path, messages, in_flight = sys.argv[1:]
    ours = method.startswith("/penstock.")
    message = Path(path).read_bytes()
    print(
        run(
            target,
            method,
            message,
            int(messages),
            int(in_flight),
            _requests(message) if ours else 1,
            _results if ours else lambda _: 1,
        )
    )


def run(
    target: str,
    method: str,
    message: bytes,
    messages: int,
    in_flight: int,
    each: int,
    results_of: Callable[[bytes], int],
) -> float:
    room = threading.Semaphore(in_flight * each)

    def requests() -> Iterator[bytes]:
        for _ in range(messages):
            for _ in range(each):
                room.acquire()
            yield message

    answered = 0
    with grpc.insecure_channel(target, (("grpc.max_receive_message_length", -1),)) as channel:
        grpc.channel_ready_future(channel).result(10)
        started = time.monotonic()
        for answer in channel.stream_stream(method)(requests(), timeout=SECONDS):
            results = results_of(answer)
            answered += results
            room.release(results)
        seconds = time.monotonic() - started
    if answered != messages * each:
        sys.exit(f"{answered} answers came for {messages * each} requests")
    return seconds


def _requests(message: bytes) -> int:
    from penstock_proto.v1.prediction_pb2 import PredictStreamRequest

    return len(PredictStreamRequest.FromString(message).requests)


def _results(message: bytes) -> int:
    from penstock_proto.v1.prediction_pb2 import PredictStreamResponse

    results = PredictStreamResponse.FromString(message).results
    for result in results:
        if result.HasField("error"):
            sys.exit(f"an error among the results: {result.error}")
    return len(results)


if __name__ == "__main__":
    main()
