"""How each thing is measured: functions from a run to one round's figure."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

from benchmarks import load, loads
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.loads import Stream
from benchmarks.servers import ROOT, Server, launched
from benchmarks.subjects import NO_EXPERIMENTS, SCRIPT

Measure: TypeAlias = Callable[[Bench], Figure]

MEMORY_PREDICTIONS = 1_000_000
MEMORY_WARM_UP = 200_000
START_SECONDS = 30


def unary(subject: str, in_flight: int) -> Measure:
    """Unary calls by h2load: `rate`, `cpu_us`, and `mean_us`, the mean time of a call."""

    def measure(bench: Bench) -> Figure:
        server, key = bench.server(subject), (subject, in_flight)
        count = bench.count(key)
        with _all_answered(server, count):
            before = server.cpu_seconds()
            seconds = load.unary(
                server.target, bench.calls(subject), count, load.shape(in_flight), bench.load_core
            )
            cpu = server.cpu_seconds() - before
        bench.note_rate(key, count / seconds)
        mean = seconds / count * in_flight
        return {"rate": count / seconds, "cpu_us": cpu / count * 1e6, "mean_us": mean * 1e6}

    return measure


@contextlib.contextmanager
def _all_answered(server: Server, count: int) -> Iterator[None]:
    """Proves by Penstock's own metrics that the block brought that many good answers.

    The size of its answers varies by a few bytes, so that those that came do not prove it alone.
    """
    before = server.predictions()
    yield
    after = server.predictions()
    if before is not None and after is not None and after - before != count:
        raise load.LoadError(f"the server answered {after - before} of {count} calls without an error")


def stream(subject: str, sent: Stream) -> Measure:
    """Messages over one stream: `rate` of requests a second, and `cpu_us` a request."""

    def measure(bench: Bench) -> Figure:
        server, key = bench.server(subject), (subject, sent)
        count = max(1, bench.count(key) // sent.requests)
        before = server.cpu_seconds()
        seconds = loads.stream(server.target, sent, count, bench.load_core)
        cpu = server.cpu_seconds() - before
        requests = count * sent.requests
        bench.note_rate(key, requests / seconds)
        return {"rate": requests / seconds, "cpu_us": cpu / requests * 1e6}

    return measure


def callers(number: int, *words: str, model: str = "tiny_mlp") -> Measure:
    """Callers through the Python client: `rate`, `cpu_us`, `client_cpu_us`, `p50_us`, `p99_us`."""

    def measure(bench: Bench) -> Figure:
        server = bench.server("penstock")
        options = {
            "--callers": number,
            "--seconds": bench.seconds,
            "--model": model,
            "--server-pid": server.process.pid,
        }
        given = itertools.chain(*options.items())
        figure = loads.callers(server.target, bench.load_core, *given, *words)
        return figure | {"mean_us": number / figure["rate"] * 1e6}

    return measure


def plain_unary(bench: Bench) -> Figure:
    """One caller with grpcio's own synchronous stub: `rate`, `p50_us`, `p99_us`."""
    return loads.plain_unary(bench.server("penstock").target, bench.seconds, bench.load_core)


def direct(model: str, rows: int) -> Measure:
    """ONNX Runtime itself, on the server's core: `rate` of rows a second, `cpu_us` of a row."""

    def measure(bench: Bench) -> Figure:
        path = bench.files.models / model / "1/model.onnx"
        each = loads.direct(path, rows, bench.seconds / 2, bench.server_core) / rows
        return {"rate": 1 / each, "cpu_us": each * 1e6}

    return measure


def fixed_rate(subject: str, rate: int) -> Measure:
    """An open loop: `rate`, `p50_us`, `p99_us`, `cpu_us`, and `busy`, the share of a core that takes."""

    def measure(bench: Bench) -> Figure:
        server, calls, seconds = bench.server(subject), bench.calls(subject), 2 * bench.seconds
        before = server.cpu_seconds()
        figure = loads.open_loop(server.target, calls, rate, seconds, bench.load_core)
        cpu = server.cpu_seconds() - before
        return figure | {"cpu_us": cpu / (rate * seconds) * 1e6, "busy": cpu / seconds}

    return measure


def half_rate(subject: str, in_flight: int) -> Measure:
    """An open loop at half of the rate just measured: `rate`, `p50_us`, `p99_us`, `late_us`, and
    `tail`, p99 over p50."""
    closed = unary(subject, in_flight)

    def measure(bench: Bench) -> Figure:
        half = closed(bench)["rate"] / 2
        server, calls = bench.server(subject), bench.calls(subject)
        figure = loads.open_loop(server.target, calls, half, 2 * bench.seconds, bench.load_core)
        return figure | {"tail": figure["p99_us"] / figure["p50_us"]}

    return measure


def memory(sent: Stream) -> Measure:
    """What the server's memory grows by: `growth_mb` over a million predictions, `resident_mb` in the end."""

    def measure(bench: Bench) -> Figure:
        server = bench.server("penstock")
        loads.stream(server.target, sent, MEMORY_WARM_UP // sent.requests, bench.load_core)
        before = server.resident_bytes()
        seconds = loads.stream(server.target, sent, MEMORY_PREDICTIONS // sent.requests, bench.load_core)
        after = server.resident_bytes()
        return {
            "rate": MEMORY_PREDICTIONS / seconds,
            "growth_mb": (after - before) / 2**20,
            "resident_mb": after / 2**20,
        }

    return measure


def start(bench: Bench) -> Figure:
    """From the start of a process with one small model, on both cores, to SERVING: `start_seconds`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [SCRIPT, "serve", ROOT / "examples/models", "--port", port, "--http-port", 0, "--ops-port", 0]
    begun = time.monotonic()
    with launched(command, (bench.server_core, bench.load_core), NO_EXPERIMENTS) as process:
        while time.monotonic() < begun + START_SECONDS and process.poll() is None:
            if _serving(port):
                return {"start_seconds": time.monotonic() - begun}
            time.sleep(0.005)
    raise load.LoadError(f"the server was not SERVING after {START_SECONDS} s, or ended")


def _serving(port: int) -> bool:
    """Whether the health check says SERVING; the first question is only whether anybody listens."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return load.is_serving(f"127.0.0.1:{port}")
    return False
