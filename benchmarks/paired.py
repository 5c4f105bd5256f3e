"""Two builds of Penstock in one run: this one beside an earlier one, line by line, in turns.

    python -m benchmarks.paired CHECKOUT [--processes 5] [--rounds 3] [--seconds 0.5] [--only NAME ...]
                                [--json FILE]

CHECKOUT is an earlier checkout with an environment of its own (`make .venv/.serve` there). Each server runs
on one core, the load on the other. In every round the two builds take turns, line by line, so that a machine
that becomes slower meets both.

One server differs from the next of the same build by several percent, for as long as it lives: where its
memory lies is chance. So both servers are started anew `--processes` times, and what is compared is the
median of the rounds of each. Printed are the medians of the processes; the median of the ratios of the pairs,
this build's server CPU for a prediction over the earlier one's, so that below 1 is better; the ratio of the
lowest round of each build, which says more where other work disturbs the rounds; the ratios of all pairs,
from the lowest to the highest; and by how much the processes of one build differ: the highest over the lowest
of those before, and of those after.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

from benchmarks import load, loads, machine, messages
from benchmarks.load import Calls
from benchmarks.rounds import progress
from benchmarks.servers import ROOT, Server, environment, launched, started
from benchmarks.subjects import NO_EXPERIMENTS, TIMING_BYTES, free_ports
from penstock_proto.inference import grpc_service_pb2 as oip
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2

INFER = "/inference.GRPCInferenceService/ModelInfer"
LEADS = {"lead_source": "paid_ads", "number_of_courses_viewed": 2, "annual_income": 79276.0}
FIRST_CALLS = 5000
START_SECONDS = 30
MEMORY_PREDICTIONS = 300_000


@dataclass
class Build:
    """One of the two builds, and its server.

    Attributes:
        name: "before" or "after".
        checkout: where it lies.
        server: its server, with the benchmark models and the bundled one.
        rates: calls a second of each line, as measured last, also with an earlier server.
    """

    name: str
    checkout: Path
    server: Server
    rates: dict[str, float] = field(default_factory=dict)

    @property
    def script(self) -> Path:
        """Its `penstock`."""
        return self.checkout / ".venv/bin/penstock"

    @property
    def python(self) -> Path:
        """Its interpreter, which imports its client."""
        return self.checkout / ".venv/bin/python"


@dataclass(frozen=True)
class Run:
    """What all measurements share: how long each takes, and the cores of the server and of the load."""

    seconds: float
    server_core: int
    load_core: int


class Values(NamedTuple):
    """The values of one line: of each process of a build those of its rounds."""

    before: list[list[float]]
    after: list[list[float]]


Line: TypeAlias = Callable[[Run, Build], Mapping[str, float]]
"""Measures one thing of one build: `value`, which is compared, and `rate` where there is one."""


def unary(name: str, calls: Callable[[], Calls], in_flight: int) -> Line:
    """Unary calls by h2load: microseconds of server CPU for a call."""

    def measure(run: Run, build: Build) -> Mapping[str, float]:
        made = _answered(build.server, calls())
        count = max(FIRST_CALLS, int(build.rates.get(name, 0) * run.seconds))
        before = build.server.cpu_seconds()
        seconds = load.unary(build.server.target, made, count, load.shape(in_flight), run.load_core)
        cpu = build.server.cpu_seconds() - before
        build.rates[name] = count / seconds
        return {"value": cpu / count * 1e6, "rate": count / seconds}

    return measure


def stream(name: str, requests: int, in_flight: int) -> Line:
    """Messages of one stream: microseconds of server CPU for a prediction."""

    def measure(run: Run, build: Build) -> Mapping[str, float]:
        sent = loads.gathered("tiny_mlp", requests, in_flight)
        count = max(FIRST_CALLS, int(build.rates.get(name, 0) * run.seconds)) // requests + 1
        before = build.server.cpu_seconds()
        seconds = loads.stream(build.server.target, sent, count, run.load_core)
        cpu = build.server.cpu_seconds() - before
        build.rates[name] = count * requests / seconds
        return {"value": cpu / (count * requests) * 1e6, "rate": count * requests / seconds}

    return measure


def multiplexed(callers: int, what: str = "server_cpu_us", fields: Sequence[object] = ()) -> Line:
    """Callers that share a stream of the build's own client: CPU for a call, the server's or the client's.

    Args:
        callers: how many there are.
        what: the figure of benchmarks/callers.py.
        fields: further arguments of it, which set fields of the requests.
    """

    def measure(run: Run, build: Build) -> Mapping[str, float]:
        words = [build.python, ROOT / "benchmarks/callers.py", build.server.target, "--transport", "stream"]
        words += [
            *fields,
            "--callers",
            callers,
            "--seconds",
            run.seconds,
            "--server-pid",
            build.server.process.pid,
        ]
        command = [*machine.on_cores(run.load_core), *map(str, words), "--json"]
        figures = json.loads(_output(command))
        return {"value": figures[what], "rate": figures["predictions_per_second"]}

    return measure


def start(run: Run, build: Build) -> Mapping[str, float]:
    """Seconds from the start of a process with the bundled model, on both cores, to SERVING."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [build.script, "serve", ROOT / "examples/models", *free_ports(build.script), "--port", port]
    begun = time.monotonic()
    with launched(command, (run.server_core, run.load_core), NO_EXPERIMENTS):
        while time.monotonic() < begun + START_SECONDS:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                if load.is_serving(f"127.0.0.1:{port}"):
                    return {"value": time.monotonic() - begun}
            time.sleep(0.005)
    raise load.LoadError(f"{build.name}: not SERVING after {START_SECONDS} s")


def memory(run: Run, build: Build) -> Mapping[str, float]:
    """MiB of the server's memory after all that the lines before have sent, and a few predictions more."""
    sent = loads.gathered("tiny_mlp", 32, 4)
    loads.stream(build.server.target, sent, MEMORY_PREDICTIONS // 32, run.load_core)
    return {"value": build.server.resident_bytes() / 2**20}


def plain(**more: object) -> Callable[[], Calls]:
    """A Predict of the tiny MLP, as the benchmarks send it; `more` sets fields of the request."""

    def calls() -> Calls:
        request = messages.request()
        request.MergeFrom(pb.PredictRequest(**more))  # type: ignore[arg-type]
        return Calls(messages.SERVICE + "Predict", request.SerializeToString())

    return calls


def leads(typed: bool) -> Callable[[], Calls]:
    """A Predict of the bundled model, three inputs of which one is text, as raw bytes or as typed values."""

    def calls() -> Calls:
        request = pb.PredictRequest(model="lead_scoring")
        source, courses, income = (request.inputs[name] for name in LEADS)
        if typed:
            source.string_values.append(str(LEADS["lead_source"]))
            courses.int_values.append(int(LEADS["number_of_courses_viewed"]))
            income.float_values.append(float(LEADS["annual_income"]))
        else:
            import numpy as np

            text = str(LEADS["lead_source"]).encode()
            source.datatype, source.raw = tensor_pb2.BYTES, len(text).to_bytes(4, "little") + text
            courses.datatype, courses.raw = tensor_pb2.INT64, np.int64(2).tobytes()
            income.datatype, income.raw = tensor_pb2.FP32, np.float32(79276).tobytes()
            for tensor in (source, courses, income):
                tensor.shape.extend((1, 1))
        return Calls(messages.SERVICE + "Predict", request.SerializeToString())

    return calls


def typed_floats() -> Calls:
    """A Predict of the tiny MLP with its values as a typed list."""
    request = pb.PredictRequest(model="tiny_mlp")
    request.inputs["x"].float_values.extend(messages.row("tiny_mlp").ravel().tolist())
    return Calls(messages.SERVICE + "Predict", request.SerializeToString())


def infer() -> Calls:
    """A ModelInfer of the tiny MLP."""
    row = messages.row("tiny_mlp")
    request = oip.ModelInferRequest(model_name="tiny_mlp", raw_input_contents=[row.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=row.shape)
    return Calls(INFER, request.SerializeToString())


LINES: Mapping[str, tuple[str, Line]] = {
    "unary-32": ("unary, 32 in flight, µs", unary("unary-32", plain(), 32)),
    "unary-256": ("unary, 256 in flight, µs", unary("unary-256", plain(), 256)),
    "lone": ("unary, alone, µs", unary("lone", plain(), 1)),
    "multiplexed-64": ("multiplexed, 64 callers, µs", multiplexed(64)),
    "multiplexed-256": ("multiplexed, 256 callers, µs", multiplexed(256)),
    "client-64": ("the same, the client's own CPU, µs", multiplexed(64, "client_cpu_us")),
    "stream-32": ("stream, 32 a message, µs", stream("stream-32", 32, 4)),
    "stream-1": ("stream, 1 a message, µs", stream("stream-1", 1, 128)),
    "infer-256": ("Open Inference, 256 in flight, µs", unary("infer-256", infer, 256)),
    "with-id": ("unary, 32 in flight, with an id, µs", unary("with-id", plain(id="request-0000001"), 32)),
    "typed": ("unary, 32 in flight, typed floats, µs", unary("typed", typed_floats, 32)),
    "leads-raw": ("bundled model, raw, 32 in flight, µs", unary("leads-raw", leads(False), 32)),
    "leads-typed": ("bundled model, typed, 32 in flight, µs", unary("leads-typed", leads(True), 32)),
    "start": ("start, s", start),
    "memory": ("memory, MiB", memory),
}


def _answered(server: Server, calls: Calls) -> Calls:
    """The calls, with the size that good answers have: that of one, but for its times."""
    size = len(load.one_answer(server.target, calls))
    return Calls(calls.method, calls.request, size - TIMING_BYTES, size + TIMING_BYTES)


def _output(command: list[str]) -> str:
    import subprocess

    variables = environment({"GRPC_EXPERIMENTS": None, "PYTHONPATH": None})
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        raise load.LoadError(done.stderr[-500:])
    return done.stdout


@contextlib.contextmanager
def builds(
    checkouts: Mapping[str, Path], models: Path, server_core: int, rates: Mapping[str, dict[str, float]]
) -> Iterator[list[Build]]:
    """The builds with a fresh server each, started in this order, on the same core with the same models."""
    with contextlib.ExitStack() as stack:
        made = []
        for name, checkout in checkouts.items():
            script = checkout / ".venv/bin/penstock"
            command = [script, "serve", models, *free_ports(script)]
            server = stack.enter_context(started(command, (server_core,), NO_EXPERIMENTS))
            made.append(Build(name, checkout, server, rates[name]))
        yield made


def make_models(folder: Path) -> Path:
    """A repository with the benchmark models and the bundled one."""
    models = messages.make_models(folder / "models")
    os.symlink(ROOT / "examples/models/lead_scoring", models / "lead_scoring")
    return models


def measured(arguments: argparse.Namespace) -> dict[str, Values]:
    """All values, by line."""
    server_core, load_core = machine.cores()
    run = Run(arguments.seconds, server_core, load_core)
    checkouts = {"before": arguments.checkout.resolve(), "after": ROOT}
    found = {name: Values([], []) for name in arguments.only or LINES}
    rates: dict[str, dict[str, float]] = {name: {} for name in checkouts}
    with tempfile.TemporaryDirectory() as folder:
        models = make_models(Path(folder))
        for process in range(arguments.processes):
            in_turn = dict(reversed(checkouts.items())) if process % 2 else checkouts
            with builds(in_turn, models, server_core, rates) as pair:
                for name, values in found.items():
                    _measure(run, name, pair, arguments.rounds, values)
    progress("")
    return found


def _measure(run: Run, name: str, pair: Sequence[Build], rounds: int, values: Values) -> None:
    """Measures a line of both builds, and adds the values of these two processes."""
    title, line = LINES[name]
    rows: dict[str, list[float]] = {build.name: [] for build in pair}
    for number in range(rounds + 1):
        for build in pair if number % 2 else reversed(pair):
            progress(f"{title}: process {len(values.before) + 1}, round {number} of {rounds}, {build.name}")
            value = line(run, build)["value"]
            if number:  # the first one warms up
                rows[build.name].append(value)
    values.before.append(rows["before"])
    values.after.append(rows["after"])


def row(title: str, values: Values) -> str:
    """A line of the table."""
    before, after = ([statistics.median(rounds) for rounds in each] for each in values)
    ratios = [new / old for old, new in zip(before, after, strict=True)]
    lowest = min(map(min, values.after)) / min(map(min, values.before))
    figures = f"{statistics.median(before):10.2f}{statistics.median(after):10.2f}"
    figures += f"{statistics.median(ratios):9.3f}{lowest:9.3f}"
    differ = "".join(f"{max(each) / min(each):8.2f}" for each in (before, after))
    return f"{title:42}{figures}   {min(ratios):.3f} to {max(ratios):.3f}{differ}"


def main(words: Sequence[str] | None = None) -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paired", description=__doc__.split("\n")[0])
    parser.add_argument("checkout", type=Path, help="the earlier build's checkout")
    parser.add_argument("--processes", type=int, default=5, help="servers of each build, one after another")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each server and line")
    parser.add_argument("--seconds", type=float, default=0.5, help="about how long each measurement takes")
    parser.add_argument("--only", nargs="+", choices=LINES, metavar="NAME", help=", ".join(LINES))
    parser.add_argument("--json", type=Path, help="write the values of every process and round to this file")
    arguments = parser.parse_args(words)
    load.require_h2load()
    found = measured(arguments)
    print(f"{'':42}{'before':>10}{'after':>10}{'ratio':>9}{'lowest':>9}   of the pairs      they differ")
    for name, values in found.items():
        print(row(LINES[name][0], values))
    if arguments.json:
        found_of = {name: values._asdict() for name, values in found.items()}
        arguments.json.write_text(json.dumps(found_of, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
