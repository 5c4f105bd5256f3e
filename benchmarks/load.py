"""Load: unary calls by h2load, streams by a small Python client that sends prepared bytes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

CONNECTIONS = 4


class LoadError(Exception):
    """The load did not run as it should have; the figures would mean nothing."""


def unary(
    target: str, method: str, request: bytes, answer_bytes: int, calls: int, in_flight: int, core: int
) -> float:
    """Makes unary calls with h2load (Debian: nghttp2-client).

    Args:
        target: "host:port".
        method: the full method.
        request: the serialized request.
        answer_bytes: the least size of a good answer: h2load itself counts gRPC errors as successes.
        calls: how many.
        in_flight: how many at a time.
        core: where h2load runs.

    Returns:
        Seconds.
    """
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\0" + len(request).to_bytes(4, "big") + request)
        body.flush()
        command = ["h2load", "-n", str(calls), "-c", str(CONNECTIONS), "-m", str(in_flight // CONNECTIONS)]
        command += ["-d", body.name, "-H", "content-type: application/grpc", "-H", "te: trailers"]
        started = time.monotonic()
        done = subprocess.run(
            [*on_core(core), *command, f"http://{target}{method}"],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        wall = time.monotonic() - started
    return _seconds(done.stdout, calls, answer_bytes) or wall


def _seconds(output: str, calls: int, answer_bytes: int) -> float:
    succeeded = re.search(r"(\d+) succeeded", output)
    data = re.search(r"\((\d+)\) data", output)
    finished = re.search(r"finished in ([\d.]+)(us|ms|s)", output)
    if not (succeeded and data and finished) or int(succeeded[1]) != calls:
        raise LoadError(f"h2load did not finish all calls:\n{output}")
    if int(data[1]) < calls * (5 + answer_bytes):
        raise LoadError(f"answers are too short to be good ones: {data[1]} bytes for {calls} calls")
    return float(finished[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[finished[2]]


def have_h2load() -> bool:
    """Whether unary load can be made here."""
    return shutil.which("h2load") is not None


def stream(target: str, method: str, message: bytes, messages: int, in_flight: int, core: int) -> float:
    """Sends the same message many times over one stream, from a process of its own.

    Args:
        target: "host:port".
        method: the full method.
        message: the serialized message.
        messages: how many.
        in_flight: how many may be unanswered.
        core: where the client runs.

    Returns:
        Seconds.
    """
    with tempfile.NamedTemporaryFile() as body:
        body.write(message)
        body.flush()
        command = [*on_core(core), sys.executable, __file__, target, method, body.name]
        done = subprocess.run(
            [*command, str(messages), str(in_flight)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    if done.returncode:
        raise LoadError(done.stderr)
    return float(done.stdout)


def on_core(core: int) -> list[str]:
    """The beginning of a command that is to run on one core only."""
    return ["taskset", "-c", str(core)] if shutil.which("taskset") else []


def _stream_client(target: str, method: str, body: Path, messages: int, in_flight: int) -> float:
    import grpc

    message = body.read_bytes()
    results_of = _results if method.startswith("/penstock.") else lambda _: 1
    each = _requests(message) if method.startswith("/penstock.") else 1
    room = threading.Semaphore(in_flight * each)

    def requests() -> Iterator[bytes]:
        for _ in range(messages):
            for _ in range(each):
                room.acquire()
            yield message

    with grpc.insecure_channel(target, (("grpc.max_receive_message_length", -1),)) as channel:
        grpc.channel_ready_future(channel).result(10)
        started = time.monotonic()
        for answer in channel.stream_stream(method)(requests()):
            for _ in range(results_of(answer)):
                room.release()
        return time.monotonic() - started


def _requests(message: bytes) -> int:
    from penstock_proto.v1.prediction_pb2 import PredictStreamRequest

    return len(PredictStreamRequest.FromString(message).requests)


def _results(message: bytes) -> int:
    from penstock_proto.v1.prediction_pb2 import PredictStreamResponse

    results = PredictStreamResponse.FromString(message).results
    if results[0].HasField("error"):
        raise LoadError(str(results[0].error))
    return len(results)


if __name__ == "__main__":
    print(_stream_client(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])))
