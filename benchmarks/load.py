"""Unary load by h2load (Debian: nghttp2-client), and proof that what it counted were answers."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass

from benchmarks import machine

LIMIT_SECONDS = 120
HEADERS = ("content-type: application/grpc", "te: trailers")
LOADING = ("UNAVAILABLE", "NOT_FOUND")
"""How servers answer while their model is not there yet; MLServer says INVALID_ARGUMENT, "not ready yet"."""
START_SECONDS = 60
MICROSECONDS = {"us": 1.0, "ms": 1e3, "s": 1e6}


class LoadError(Exception):
    """The load did not run as it should have; its figures would mean nothing."""


@dataclass(frozen=True)
class Calls:
    """What is to be called, over and over.

    Attributes:
        method: the full method.
        request: the serialized request.
        least, most: the size of a good answer in bytes. An error has no answer: h2load itself counts one
            as a success, since gRPC sends it with the HTTP status 200, but its bytes are missing. Left
            out: exactly that of the first answer, which is checked.
    """

    method: str
    request: bytes
    least: int = 0
    most: int = 0


@dataclass(frozen=True)
class Shape:
    """How calls are made: how many connections, with how many calls in flight on each."""

    connections: int
    streams: int


def shape(in_flight: int) -> Shape:
    """One call at a time, or `in_flight` over four connections."""
    return Shape(1, 1) if in_flight == 1 else Shape(4, in_flight // 4)


def require_h2load() -> None:
    """Raises SystemExit where h2load is not installed."""
    if shutil.which("h2load") is None:
        raise SystemExit("the benchmarks need h2load (Debian: apt install nghttp2-client)")


def unary(target: str, calls: Calls, count: int, shape: Shape, core: int, *more: str) -> float:
    """Makes unary calls.

    Args:
        target: "host:port".
        calls: what is called.
        count: how many calls.
        shape: how many at a time.
        core: where h2load runs.
        more: arguments of h2load.

    Returns:
        Seconds, from the first call to the last answer.

    Raises:
        LoadError: a call failed.
    """
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\0" + len(calls.request).to_bytes(4, "big") + calls.request)
        body.flush()
        command = ["h2load", "-n", str(count), "-c", str(shape.connections), "-m", str(shape.streams)]
        command += ["-d", body.name, *(word for header in HEADERS for word in ("-H", header)), *more]
        output = _run([*machine.on_cores(core), *command, f"http://{target}{calls.method}"])
    return _seconds(output, calls, count)


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        raise LoadError(f"h2load did not finish in {LIMIT_SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        raise LoadError(f"h2load failed: {error.stdout}{error.stderr}") from None
    return done.stdout


def _seconds(output: str, calls: Calls, count: int) -> float:
    succeeded = re.search(r"(\d+) succeeded", output)
    data = re.search(r"\((\d+)\) data", output)
    finished = re.search(r"finished in ([\d.]+)(us|ms|s)", output)
    if not (succeeded and data and finished) or int(succeeded[1]) != count:
        raise LoadError(f"h2load did not finish all calls:\n{output}")
    least, most = (count * (5 + size) for size in (calls.least, calls.most))
    if not least <= int(data[1]) <= most:
        raise LoadError(f"{count} good answers have {least} to {most} bytes, and {data[1]} came")
    return float(finished[1]) * MICROSECONDS[finished[2]] / 1e6


def one_answer(target: str, calls: Calls) -> bytes:
    """One call, made by grpcio, once the server and its model are there.

    Raises:
        LoadError: it failed.
    """
    import grpc

    end = time.monotonic() + START_SECONDS
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary(calls.method)
        while True:
            try:
                return bytes(call(calls.request, timeout=START_SECONDS, wait_for_ready=True))
            except grpc.RpcError as error:
                loading = error.code().name in LOADING or "not ready" in str(error.details())
                if not loading or time.monotonic() > end:
                    raise LoadError(
                        f"{calls.method} failed: {error.code().name}, {error.details()}"
                    ) from None
            time.sleep(0.1)


def is_serving(target: str) -> bool:
    """Whether the server's health check answers SERVING; its connection is not used again."""
    import grpc
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
    from grpc_health.v1.health_pb2_grpc import HealthStub

    with grpc.insecure_channel(target, (("grpc.use_local_subchannel_pool", 1),)) as channel:
        try:
            answer = HealthStub(channel).Check(HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return False
    return bool(answer.status == HealthCheckResponse.SERVING)
