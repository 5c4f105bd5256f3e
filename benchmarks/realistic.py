"""Requests as services send them, beside the plain one: timeouts, ids, fresh traces, typed values, texts.

    python -m benchmarks.realistic [--checkout PATH] [--rounds 5] [--seconds 1] [--only NAME ...]

The server runs on one core, the load on the other. In every round all lines take turns. Printed are the
medians of the server's CPU for a prediction, and the medians of the ratios to the plain request of the same
round and the same kind of call. Unary calls by h2load all have the same bytes; those of the Python
client, which share one stream, each have an id, a remaining time and a trace of their own. The lines that
begin with "client" give the CPU of the client's process instead.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks import load, machine, messages
from benchmarks.load import Calls
from benchmarks.paired import (
    INFER,
    Build,
    Line,
    Run,
    infer,
    leads,
    multiplexed,
    plain,
    stream,
    typed_floats,
    unary,
)
from benchmarks.rounds import progress
from benchmarks.servers import ROOT, started
from benchmarks.subjects import NO_EXPERIMENTS
from penstock_proto.inference import grpc_service_pb2 as oip

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FIELDS = {"id": "request-0000001", "timeout": {"nanos": 987_654_321}, "metadata": {"traceparent": PARENT}}
CALLERS = 64
IN_FLIGHT = 32


def infer_with_fields() -> Calls:
    """A ModelInfer with an id, a timeout and a trace in its parameters."""
    request = oip.ModelInferRequest.FromString(infer().request)
    request.id = str(FIELDS["id"])
    request.parameters["timeout"].int64_param = 987_654
    request.parameters["traceparent"].string_param = PARENT
    return Calls(INFER, request.SerializeToString())


def _shared(*fields: object) -> Line:
    return multiplexed(CALLERS, "server_cpu_us", fields)


def _client(*fields: object) -> Line:
    return multiplexed(CALLERS, "client_cpu_us", fields)


LINES: Mapping[str, tuple[str, str, Line]] = {
    "unary": ("unary, plain", "unary", unary("unary", plain(), IN_FLIGHT)),
    "unary-fields": (
        "unary, id + timeout + trace", "unary", unary("unary-fields", plain(**FIELDS), IN_FLIGHT)
    ),
    "typed": ("unary, typed floats", "unary", unary("typed", typed_floats, IN_FLIGHT)),
    "leads-raw": ("unary, bundled model, raw", "unary", unary("leads-raw", leads(False), IN_FLIGHT)),
    "leads-typed": ("unary, bundled model, typed", "unary", unary("leads-typed", leads(True), IN_FLIGHT)),
    "infer": ("Open Inference, plain", "infer", unary("infer", infer, IN_FLIGHT)),
    "infer-fields": (
        "Open Inference, id + timeout + trace", "infer", unary("infer-fields", infer_with_fields, IN_FLIGHT)
    ),
    "stream": ("stream, 32 a message, plain", "stream", stream("stream", 32, 4)),
    "shared": ("multiplexed, plain", "shared", _shared()),
    "shared-timeout": ("multiplexed, timeout", "shared", _shared("--timeout", 10)),
    "shared-id": ("multiplexed, id", "shared", _shared("--ids")),
    "shared-trace": ("multiplexed, fresh trace", "shared", _shared("--traces")),
    "shared-all": ("multiplexed, all three", "shared", _shared("--timeout", 10, "--ids", "--traces")),
    "client": ("client, plain", "client", _client()),
    "client-timeout-id": ("client, timeout + id", "client", _client("--timeout", 10, "--ids")),
    "client-all": ("client, timeout + id + trace", "client", _client("--timeout", 10, "--ids", "--traces")),
}  # fmt: skip
"""By name: the title, the name of the plain line that it is compared with, and how it is measured."""


@contextlib.contextmanager
def _build(checkout: Path, server_core: int) -> Iterator[Build]:
    with tempfile.TemporaryDirectory() as folder:
        models = messages.make_models(Path(folder) / "models")
        os.symlink(ROOT / "examples/models/lead_scoring", models / "lead_scoring")
        command = [checkout / ".venv/bin/penstock", "serve", models, "--port", "0", "--ops-port", "0"]
        with started(command, (server_core,), NO_EXPERIMENTS) as server:
            yield Build("this", checkout, server)


def measured(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """The CPU of every round in microseconds, by line: the server's, or the client's."""
    server_core, load_core = machine.cores()
    run = Run(arguments.seconds, server_core, load_core)
    names = arguments.only or list(LINES)
    values: dict[str, list[float]] = {name: [] for name in names}
    with _build(arguments.checkout.resolve(), server_core) as build:
        for number in range(arguments.rounds + 1):
            for name in names:
                progress(f"{LINES[name][0]}: round {number} of {arguments.rounds}")
                figures = LINES[name][2](run, build)
                if number:  # the first one warms up
                    values[name].append(figures["value"])
    progress("")
    return values


def show(values: Mapping[str, list[float]]) -> None:
    """Prints the table."""
    print(f"{'':42}{'µs':>10}{'ratio':>9}   of the rounds")
    for name, found in values.items():
        title, base, _ = LINES[name]
        line = f"{title:42}{statistics.median(found):10.2f}"
        if base != name and base in values:
            ratios = [one / other for one, other in zip(found, values[base], strict=True)]
            line += f"{statistics.median(ratios):9.3f}   {min(ratios):.3f} to {max(ratios):.3f}"
        print(line)


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.realistic", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--checkout", type=Path, default=ROOT, help="of the server; this one if not given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--only", nargs="+", choices=LINES, metavar="NAME", help=", ".join(LINES))
    parser.add_argument("--json", type=Path, help="write every round's values to this file")
    arguments = parser.parse_args()
    load.require_h2load()
    values = measured(arguments)
    show(values)
    if arguments.json:
        arguments.json.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
