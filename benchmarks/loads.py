"""Loads made by Python programs, each in a process of its own on the load's core."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine, messages
from benchmarks.load import LIMIT_SECONDS, Calls, LoadError
from benchmarks.servers import ROOT, environment

PROGRAMS = ROOT / "benchmarks/programs"
CALLERS = ROOT / "benchmarks/callers.py"


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


def stream(target: str, sent: Stream, count: int, core: int) -> float:
    """Sends that many messages over one stream.

    Returns:
        Seconds, from the first message to the last answer.

    Raises:
        LoadError: an answer was an error, or missing.
    """
    with _file(sent.message) as body:
        words = (target, sent.method, body, count, sent.in_flight)
        return float(_run(core, PROGRAMS / "stream_client.py", *words))


def open_loop(target: str, calls: Calls, rate: float, seconds: float, core: int) -> dict[str, float]:
    """Unary calls at a fixed rate; the figures that programs/open_loop.py explains."""
    with _file(calls.request) as body:
        words = (target, calls.method, body, rate, seconds, calls.least)
        return _figures(_run(core, PROGRAMS / "open_loop.py", *words))


def plain_unary(target: str, seconds: float, core: int) -> dict[str, float]:
    """One synchronous caller with grpcio's stub: `rate`, `p50_us`, `p99_us`."""
    with _file(messages.request().SerializeToString()) as body:
        return _figures(_run(core, PROGRAMS / "plain_unary.py", target, body, seconds))


def callers(target: str, core: int, *words: object) -> dict[str, float]:
    """Concurrent callers through the Python client, by benchmarks/callers.py with these arguments.

    Returns:
        `rate`, `client_cpu_us`, `p50_us`, `p99_us`, and `cpu_us` where the server's process was named.

    Raises:
        LoadError: a call failed.
    """
    given = _figures(_run(core, CALLERS, target, *words, "--json"))
    if given.get("failed"):
        raise LoadError(f"{given['failed']:.0f} calls of benchmarks/callers.py failed")
    names = {"predictions_per_second": "rate", "server_cpu_us": "cpu_us"}
    return {
        names.get(name, name): value
        for name, value in given.items()
        if name in {*names, "client_cpu_us", "p50_us", "p99_us"}
    }


def direct(model: Path, rows: int, seconds: float, core: int) -> float:
    """The seconds of a run of that many rows by ONNX Runtime itself."""
    return float(_run(core, PROGRAMS / "onnx_direct.py", model, rows, seconds)) / 1e6


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    with tempfile.NamedTemporaryFile() as body:
        body.write(content)
        body.flush()
        yield body.name


def _run(core: int, program: Path, *words: object) -> str:
    command = [*machine.on_cores(core), sys.executable, str(program), *map(str, words)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_SECONDS,
            env=environment({"GRPC_EXPERIMENTS": None}),
        )
    except subprocess.TimeoutExpired:
        raise LoadError(f"{program.name} did not finish in {LIMIT_SECONDS} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise LoadError(f"{program.name} failed: {said[-1]}")
    return done.stdout


def _figures(output: str) -> dict[str, Any]:
    return dict(json.loads(output))
