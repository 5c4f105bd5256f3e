"""A mixed load of the Open Inference Protocol on Penstock and on Triton with its Python backend, in turns.

    make bench-peers
    python -m benchmarks.mixed_peers [--rounds 3] [--seconds 3] [--delay 0 500] [--json FILE]

Both servers have the same 20 models, ten copies of the tiny MLP and ten of the bundled model, and get the
same bytes: unary calls to every model, two in flight for each, with raw values, typed values or a text among
raw values, half of them with an id, a timeout and a trace; and beside them one `ModelStreamInfer` with 32
messages in flight. The server runs on one core, the load on the other. In every round the servers take turns.
Triton batches up to 32 rows and waits up to `--delay` microseconds for more; a line for each.

Printed are the medians: calls a second, the server's CPU for a call in microseconds, and the share of its
core that the load took: near 100 % the load was the limit. Behind them the ratio of Penstock's calls a second
to this server's in the same round, the median, the lowest and the highest.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import load, loads, machine, messages
from benchmarks.load import Calls, Shape
from benchmarks.loads import Stream
from benchmarks.paired import LEADS
from benchmarks.peers import METHOD, python
from benchmarks.rounds import progress
from benchmarks.servers import ROOT, Server, started
from benchmarks.subjects import NO_EXPERIMENTS, PROGRAMS, SCRIPT, free_ports
from penstock_proto.inference import grpc_service_pb2 as oip

COPIES = 10
IN_FLIGHT = Shape(1, 2)
STREAM, STREAM_IN_FLIGHT = "/inference.GRPCInferenceService/ModelStreamInfer", 32
FIRST = 200
TIMEOUT_MICROSECONDS = 30_987_654
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SPARE_BYTES = 24
"""By how much the answers of one request may differ in length."""

Part = Callable[[Server, int, int], float]
"""Makes that many calls of the server, from a core, and says how many seconds they took."""


def mlp(name: str, typed: bool) -> oip.ModelInferRequest:
    """One row of the tiny MLP, as raw bytes or as a list."""
    request, row = oip.ModelInferRequest(model_name=name), messages.row("tiny_mlp")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=row.shape)
    if typed:
        tensor.contents.fp32_contents.extend(row[0].tolist())
    else:
        request.raw_input_contents.append(row.tobytes())
    return request


def leads(name: str) -> oip.ModelInferRequest:
    """One row of the bundled model: a text, a whole number and a fraction, as raw bytes."""
    import numpy as np

    request = oip.ModelInferRequest(model_name=name)
    text, number, fraction = LEADS.values()
    for key, datatype in zip(LEADS, ("BYTES", "INT64", "FP32"), strict=True):
        request.inputs.add(name=key, datatype=datatype, shape=(1, 1))
    content = str(text).encode()
    request.raw_input_contents.extend(
        (
            len(content).to_bytes(4, "little") + content,
            np.int64(number).tobytes(),
            np.float32(fraction).tobytes(),
        )
    )
    return request


def with_fields(request: oip.ModelInferRequest) -> oip.ModelInferRequest:
    """The request with an id, a timeout and a trace."""
    request.id = "request-0000001"
    request.parameters["timeout"].int64_param = TIMEOUT_MICROSECONDS
    request.parameters["traceparent"].string_param = TRACE
    return request


def unary(request: oip.ModelInferRequest) -> Part:
    """Unary calls with one request."""
    calls = Calls(METHOD, request.SerializeToString())
    sizes: dict[str, int] = {}

    def make(server: Server, count: int, core: int) -> float:
        if server.target not in sizes:
            answer = load.one_answer(server.target, calls)
            if not oip.ModelInferResponse.FromString(answer).outputs:
                raise load.LoadError(f"{request.model_name}: an answer without outputs")
            sizes[server.target] = len(answer)
        size = sizes[server.target]
        known = Calls(METHOD, calls.request, size - SPARE_BYTES, size + SPARE_BYTES)
        return load.unary(server.target, known, count, IN_FLIGHT, core)

    return make


def stream(request: oip.ModelInferRequest) -> Part:
    """Messages of one stream, each with one request."""
    sent = Stream(STREAM, request.SerializeToString(), 1, STREAM_IN_FLIGHT)
    return lambda server, count, core: loads.stream(server.target, sent, count, core)


def parts() -> Mapping[str, Part]:
    """The parts of the load, by the names of the models."""
    found: dict[str, Part] = {}
    for number in range(COPIES):
        request = mlp(f"tiny_mlp_{number:02}", typed=bool(number & 2))
        found[request.model_name] = unary(with_fields(request) if number & 1 else request)
        request = leads(f"lead_scoring_{number:02}")
        found[request.model_name] = unary(with_fields(request) if number & 1 else request)
    found["stream"] = stream(with_fields(mlp("tiny_mlp_00", typed=False)))
    return found


def repository(folder: Path) -> Path:
    """The models, in the layout that both servers read: NAME/1/model.onnx."""
    made = messages.make_models(folder / "made")
    os.symlink(ROOT / "examples/models/lead_scoring", made / "lead_scoring")
    for name in ("tiny_mlp", "lead_scoring"):
        for number in range(COPIES):
            copy = folder / "models" / f"{name}_{number:02}"
            copy.parent.mkdir(exist_ok=True)
            os.symlink((made / name).resolve(), copy)
    return folder / "models"


@contextmanager
def servers(delays: list[int], core: int) -> Iterator[Mapping[str, Server]]:
    """All servers, by their titles; only the one that is called has something to do."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        models = repository(folder)
        commands = {"Penstock": [SCRIPT, "serve", models, *free_ports(SCRIPT)]}
        for delay in delays:
            words = [PROGRAMS / "triton_peer.py", models, folder / f"triton-{delay}", str(delay)]
            commands[f"Triton, {delay} µs delay"] = [python("triton"), *words]
        yield {
            title: stack.enter_context(started(command, (core,), NO_EXPERIMENTS))
            for title, command in commands.items()
        }


def all_at_once(
    server: Server, made: Mapping[str, Part], counts: Mapping[str, int], core: int
) -> dict[str, float]:
    """Makes all parts at once; gives the seconds of each."""
    with ThreadPoolExecutor(len(made)) as pool:
        took = pool.map(lambda name: made[name](server, counts[name], core), made)
        return dict(zip(made, took, strict=True))


def measured(
    server: Server, made: Mapping[str, Part], rates: dict[str, float], seconds: float, core: int
) -> dict[str, float]:
    """The figures of one measurement: each part makes as many calls as it can in about that time."""
    counts = {name: max(FIRST, int(rates.get(name, 0.0) * seconds)) for name in made}
    used, before, began = _load_seconds(), server.cpu_seconds(), time.monotonic()
    took = all_at_once(server, made, counts, core)
    elapsed, cpu = time.monotonic() - began, server.cpu_seconds() - before
    rates.update({name: counts[name] / took[name] for name in made})
    calls = sum(counts.values())
    return {
        "rate": sum(rates.values()),
        "cpu_us": cpu / calls * 1e6,
        "load": (_load_seconds() - used) / elapsed,
    }


def _load_seconds() -> float:
    """The CPU time of the load's processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def show(found: Mapping[str, list[dict[str, float]]]) -> None:
    """Prints the table."""
    print(f"{'':28}{'calls/s':>10}{'CPU µs':>9}{'load':>7}   Penstock's calls/s over its")
    base = found["Penstock"]
    for title, figures in found.items():
        rate, cpu, share = (
            statistics.median(one[key] for one in figures) for key in ("rate", "cpu_us", "load")
        )
        line = f"{title:28}{rate:10,.0f}{cpu:9.1f}{share:7.0%}"
        if title != "Penstock" and figures:
            ratios = [one["rate"] / other["rate"] for one, other in zip(base, figures, strict=True)]
            line += f"   {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(line)


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mixed_peers", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--delay", type=int, nargs="+", default=[0, 500], help="of Triton, in microseconds")
    parser.add_argument("--json", type=Path, help="write every round's figures to this file")
    arguments = parser.parse_args()
    load.require_h2load()
    if not python("triton").exists():
        raise SystemExit("Triton is not there: `make bench-peers` installs it")
    server_core, load_core = machine.cores()
    found: dict[str, list[dict[str, float]]] = {}
    with servers(arguments.delay, server_core) as all_servers:
        first = Calls(METHOD, mlp("tiny_mlp_00", typed=False).SerializeToString())
        for server in all_servers.values():
            load.one_answer(server.target, first)  # Triton listens once all its models are loaded
        made = {title: parts() for title in all_servers}
        rates: dict[str, dict[str, float]] = {title: {} for title in all_servers}
        for number in range(arguments.rounds + 1):
            for title, server in all_servers.items():
                progress(f"round {number} of {arguments.rounds}: {title}")
                figures = measured(server, made[title], rates[title], arguments.seconds, load_core)
                if number:  # the first one warms up
                    found.setdefault(title, []).append(figures)
    progress("")
    show(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
