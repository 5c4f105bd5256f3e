"""Streams: prepared messages sent by a Python client in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass

from benchmarks import machine, messages
from benchmarks.load import LIMIT_SECONDS, LoadError
from benchmarks.servers import ROOT


@dataclass(frozen=True)
class Stream:
    """What is sent over one stream.

    Attributes:
        method: the full method.
        message: one message, serialized.
        requests: how many requests it holds.
        in_flight: how many messages may be unanswered.
    """

    method: str
    message: bytes
    requests: int
    in_flight: int


def gathered(model: str, requests: int, in_flight: int) -> Stream:
    """Messages of `requests` requests each, for Penstock."""
    return Stream(messages.SERVICE + "PredictStream", messages.gathered(model, requests), requests, in_flight)


def echoed(in_flight: int) -> Stream:
    """Messages of one request each, for servers that only echo."""
    return Stream("/bench/EchoStream", messages.request().SerializeToString(), 1, in_flight)


def run(target: str, stream: Stream, count: int, core: int) -> float:
    """Sends so many messages from `core`.

    Returns:
        Seconds, from the first message to the last answer.

    Raises:
        LoadError: an answer was an error, or missing.
    """
    program = ROOT / "benchmarks/programs/stream_client.py"
    with tempfile.NamedTemporaryFile() as body:
        body.write(stream.message)
        body.flush()
        command = [sys.executable, program, target, stream.method, body.name, count, stream.in_flight]
        done = subprocess.run(
            [*machine.on_cores(core), *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_SECONDS,
        )
    if done.returncode:
        raise LoadError(f"the stream failed: {done.stderr}")
    return float(done.stdout)
