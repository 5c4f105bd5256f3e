"""Penstock beside its floor, a bare grpc.aio echo, in one run.

    make bench                              all of it
    make bench ARGS="--rounds 3 --calls 5000"

Every server runs on the first core and the load on the second; the servers take turns, round after round,
so that a machine whose speed drifts does it to all of them. Figures are medians; what counts are the
ratios and the CPU time of the server process, since other work on the machine changes both much less.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2

sys.path.insert(0, str(Path(__file__).parent))
import load

ROOT = Path(__file__).parents[1]
SERVER_CORE, LOAD_CORE = 0, 1
ROWS_A_MESSAGE = 32
STREAM_IN_FLIGHT = 4
SERVICE = "/penstock.v1.PredictionService/"


@dataclass
class Figure:
    """One measurement: how much, in how long, at what cost to the server."""

    predictions: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        return self.predictions / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu_seconds / self.predictions * 1e6


@dataclass
class Running:
    """A server under test."""

    name: str
    process: subprocess.Popen[str]
    target: str

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    arguments = _arguments()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        models = models_in(folder)
        servers = [
            stack.enter_context(server("echo", [sys.executable, "benchmarks/echo.py", _answer(folder)])),
            *(stack.enter_context(server(road, penstock(models, road))) for road in ("reactor", "portable")),
        ]
        figures = _measure(servers, arguments)
    _print(figures)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--calls", type=int, default=20_000, help="unary calls a round; the echo gets a third"
    )
    parser.add_argument("--in-flight", type=int, nargs="*", default=[32, 256])
    return parser.parse_args()


def models_in(folder: Path) -> Path:
    """Makes the benchmark models below `folder`."""
    subprocess.run(
        [sys.executable, "examples/mlp/make.py", folder / "models"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return folder / "models"


def penstock(models: Path, road: str) -> list[str]:
    """The command that serves `models` on a road."""
    command = Path(sys.executable).with_name("penstock")
    return [str(command), "serve", str(models), "--port", "0", "--ops-port", "0", "--transport", road]


def _answer(folder: Path) -> str:
    """A file with an answer as long as the model's, for the echo."""
    message = pb.PredictResponse(model="tiny_mlp", version="1")
    tensor = message.outputs["y"]
    tensor.datatype, tensor.raw = tensor_pb2.FP32, bytes(32)
    tensor.shape.extend((1, 8))
    message.timing.queue.nanos = message.timing.compute.nanos = 100_000
    message.timing.batch_rows = 8
    path = folder / "answer"
    path.write_bytes(message.SerializeToString())
    return str(path)


@contextlib.contextmanager
def server(name: str, command: list[str], **settings: str) -> Iterator[Running]:
    """Runs a server on its core; `settings` are variables of its environment."""
    pinned = [*load.on_core(SERVER_CORE), *command]
    with subprocess.Popen(
        pinned,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **settings},
    ) as process:
        try:
            assert process.stdout is not None
            target = next(found[1] for line in process.stdout if (found := re.match(r"gRPC\s+(\S+)", line)))
            yield Running(name, process, target)
        finally:
            process.terminate()


def request_message() -> pb.PredictRequest:
    """One row of the tiny MLP's input."""
    message = pb.PredictRequest(model="tiny_mlp")
    tensor = message.inputs["x"]
    tensor.datatype = tensor_pb2.FP32
    tensor.shape.extend((1, 64))
    tensor.raw = np.random.default_rng(0).standard_normal((1, 64), np.float32).tobytes()
    return message


def _measure(servers: list[Running], arguments: argparse.Namespace) -> dict[tuple[str, str], list[Figure]]:
    figures: dict[tuple[str, str], list[Figure]] = {}
    for number in range(arguments.rounds + 1):  # the first warms up
        for server in servers:
            for what, figure in _round(server, arguments):
                if number:
                    figures.setdefault((what, server.name), []).append(figure)
                if sys.stderr.isatty():
                    print(
                        f"\rround {number}/{arguments.rounds} {server.name:9} {what:20}",
                        end="",
                        file=sys.stderr,
                    )
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return figures


def _round(server: Running, arguments: argparse.Namespace) -> Iterator[tuple[str, Figure]]:
    echo = server.name == "echo"
    request = request_message().SerializeToString()
    if load.have_h2load():
        method = "/bench/Echo" if echo else SERVICE + "Predict"
        calls = arguments.calls // (3 if echo else 1)
        for in_flight in arguments.in_flight:
            before = server.cpu_seconds()
            seconds = load.unary(server.target, method, request, 40, calls, in_flight, LOAD_CORE)
            yield f"unary, {in_flight} in flight", Figure(calls, seconds, server.cpu_seconds() - before)
    method = "/bench/EchoStream" if echo else SERVICE + "PredictStream"
    message = (
        request
        if echo
        else pb.PredictStreamRequest(requests=[request_message()] * ROWS_A_MESSAGE).SerializeToString()
    )
    messages = arguments.calls // 3 if echo else arguments.calls * 2 // ROWS_A_MESSAGE
    in_flight = ROWS_A_MESSAGE * STREAM_IN_FLIGHT if echo else STREAM_IN_FLIGHT
    before = server.cpu_seconds()
    seconds = load.stream(server.target, method, message, messages, in_flight, LOAD_CORE)
    predictions = messages if echo else messages * ROWS_A_MESSAGE
    yield f"stream of {ROWS_A_MESSAGE}", Figure(predictions, seconds, server.cpu_seconds() - before)


def _print(figures: dict[tuple[str, str], list[Figure]]) -> None:
    print(f"{'':22}{'server':10}{'a second':>12}{'min':>10}{'max':>10}{'CPU µs':>9}{'/ echo':>9}")
    for (what, name), rounds in sorted(figures.items()):
        rates = [figure.rate for figure in rounds]
        ratio = statistics.median(
            figure.rate / echo.rate for figure, echo in zip(rounds, figures[what, "echo"], strict=True)
        )
        cpu = statistics.median(figure.cpu_us for figure in rounds)
        middle = statistics.median(rates)
        print(
            f"{what:22}{name:10}{middle:12,.0f}{min(rates):10,.0f}{max(rates):10,.0f}{cpu:9.1f}{ratio:9.2f}"
        )
    if not load.have_h2load():
        print("unary calls were not measured: h2load (Debian: nghttp2-client) is not here")


if __name__ == "__main__":
    main()
