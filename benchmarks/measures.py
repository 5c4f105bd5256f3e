"""How each thing is measured: functions from a run to one round's figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from benchmarks import load, streams
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.streams import Stream
from benchmarks.subjects import SUBJECTS

Measure: TypeAlias = Callable[[Bench], Figure]


def unary(subject: str, in_flight: int) -> Measure:
    """Unary calls by h2load: `rate`, `cpu_us`, and `mean_us`, the mean time of a call."""

    def measure(bench: Bench) -> Figure:
        server, key = bench.server(subject), (subject, in_flight)
        count = bench.count(key)
        before = server.cpu_seconds()
        seconds = load.unary(
            server.target,
            SUBJECTS[subject].calls(bench.files),
            count,
            load.shape(in_flight),
            bench.load_core,
        )
        cpu = server.cpu_seconds() - before
        bench.note_rate(key, count / seconds)
        mean = seconds / count * in_flight
        return {"rate": count / seconds, "cpu_us": cpu / count * 1e6, "mean_us": mean * 1e6}

    return measure


def stream(subject: str, sent: Stream) -> Measure:
    """Messages over one stream: `rate` of requests a second, and `cpu_us` a request."""

    def measure(bench: Bench) -> Figure:
        server, key = bench.server(subject), (subject, sent)
        count = max(1, bench.count(key) // sent.requests)
        before = server.cpu_seconds()
        seconds = streams.run(server.target, sent, count, bench.load_core)
        cpu = server.cpu_seconds() - before
        requests = count * sent.requests
        bench.note_rate(key, requests / seconds)
        return {"rate": requests / seconds, "cpu_us": cpu / requests * 1e6}

    return measure
