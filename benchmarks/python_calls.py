"""How many Python functions the server's polling thread calls for a prediction: a figure without noise.

    python -m benchmarks.python_calls [CHECKOUT ...] [--count 2000] [--only NAME ...] [--functions 0]

Each CHECKOUT has an environment of its own (`make .venv/.serve` there); without one, it is this one. cProfile
counts every call of a function, those written in C as well. Printed are the calls for a prediction of each
line. They hardly differ from run to run, however busy the machine is, but they are not times: a call may take
20 ns or a millisecond. With `--functions N`, the functions that are called most are printed as well.
"""

from __future__ import annotations

import argparse
import asyncio
import pstats
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import load, loads, machine, messages
from benchmarks.paired import infer, plain, typed_floats
from benchmarks.rounds import progress
from benchmarks.servers import ROOT, Server, started
from benchmarks.subjects import NO_EXPERIMENTS, TIMING_BYTES, free_ports
from penstock_proto.v1 import prediction_pb2 as pb

PROGRAM = ROOT / "benchmarks/programs/profiled_server.py"
IN_FLIGHT = CALLERS = 64
MESSAGES = 4  # in flight on a stream
MODELS = 20
SWITCHED_SECONDS = 0.5
"""How long the server may take to see that the profile is to end."""
SECONDS = 30.0
"""How long it may take to begin or to write a profile."""

Line = Callable[[Server, int, int], int]
"""Makes about that many predictions, with the load on a core, and says how many it made."""


def _unary(calls: Callable[[], load.Calls], in_flight: int) -> Line:
    def make(server: Server, count: int, core: int) -> int:
        made = calls()
        size = len(load.one_answer(server.target, made))
        made = replace(made, least=size - TIMING_BYTES, most=size + TIMING_BYTES)
        load.unary(server.target, made, count, load.shape(in_flight), core)
        return count + 1

    return make


def _stream(requests: int) -> Line:
    def make(server: Server, count: int, core: int) -> int:
        sent = count // requests
        loads.stream(server.target, loads.gathered("tiny_mlp", requests, MESSAGES), sent, core)
        return sent * requests

    return make


def _stream_to_many(server: Server, count: int, core: int) -> int:
    """Messages of 32 requests, which go to one model after the other."""
    requests = []
    for number in range(32):
        requests.append(messages.request())
        requests[-1].model = _name(number)
    data = pb.PredictStreamRequest(requests=requests).SerializeToString()
    sent = loads.Stream(messages.SERVICE + "PredictStream", data, len(requests), MESSAGES)
    loads.stream(server.target, sent, count // sent.requests, core)
    return count // sent.requests * sent.requests


def _name(number: int) -> str:
    return f"tiny_mlp_{number % MODELS:02}"


def _multiplexed(named: bool, many: bool = False) -> Line:
    """Callers that share a stream of this build's client.

    Args:
        named: whether each request has an id and a timeout.
        many: whether the callers call one model after the other.
    """

    def make(server: Server, count: int, core: int) -> int:
        each = count // CALLERS
        asyncio.run(_callers(server.target, each, named, many))
        return each * CALLERS

    return make


async def _callers(target: str, each: int, named: bool, many: bool) -> None:
    from penstock_client import AsyncClient

    inputs = {"x": messages.row("tiny_mlp")}

    async def call(client: AsyncClient, caller: int) -> None:
        for number in range(each):
            id = f"request-{caller:03}{number:05}" if named else ""
            model = _name(caller + number) if many else "tiny_mlp"
            await client.predict(model, inputs, id=id, timeout=60.0 if named else None)

    async with AsyncClient(target, transport="stream") as client:
        await asyncio.gather(*[call(client, caller) for caller in range(CALLERS)])


LINES: Mapping[str, tuple[str, Line]] = {
    "unary-32": ("unary, 32 in flight", _unary(plain(), 32)),
    "lone": ("unary, one at a time", _unary(plain(), 1)),
    "with-id": ("unary with an id, 32 in flight", _unary(plain(id="request-0000001"), 32)),
    "unary-256": ("unary, 256 in flight", _unary(plain(), 256)),
    "infer-256": ("Open Inference, 256 in flight", _unary(infer, 256)),
    "typed": ("unary with a typed list, 32 in flight", _unary(typed_floats, 32)),
    "stream-32": ("stream, 32 requests a message", _stream(32)),
    "shared-64": ("64 callers of one client", _multiplexed(named=False)),
    "shared-64-id": ("64 callers, each request with an id and a timeout", _multiplexed(named=True)),
    "stream-32-many": ("stream, 32 requests a message, to 20 models", _stream_to_many),
    "shared-64-many": ("64 callers of one client, to 20 models", _multiplexed(named=False, many=True)),
}


def profile(checkout: Path, name: str, count: int) -> tuple[float, pstats.Stats, int]:
    """Profiles one line.

    Args:
        checkout: of the build.
        name: of the line.
        count: about how many predictions.

    Returns:
        Calls for a prediction, the profile, and the predictions.
    """
    line = LINES[name][1]
    server_core, load_core = machine.cores()
    with tempfile.TemporaryDirectory() as temporary:
        models = messages.make_models(Path(temporary) / "models")
        for number in range(MODELS):
            (models / _name(number)).symlink_to(models / "tiny_mlp")
        file = Path(temporary) / "profile"
        ports = free_ports(checkout / ".venv/bin/penstock")
        command = [checkout / ".venv/bin/python", PROGRAM, file, "serve", models, *ports]
        with started(command, (server_core,), {**NO_EXPERIMENTS, "PYTHONPATH": None}) as server:
            line(server, count, load_core)  # what is learned from the first requests is learned now
            switch = file.with_suffix(".on")
            switch.touch()
            _wait(server, file.with_suffix(".began"))
            made = line(server, count, load_core)
            switch.unlink()
            time.sleep(SWITCHED_SECONDS)
            _wait(server, file)
            found = pstats.Stats(str(file))
    return _calls(found) / made, found, made


def _wait(server: Server, file: Path) -> None:
    """Gives the polling thread something to do until it has written a file."""
    end = time.monotonic() + SECONDS
    while not file.exists():
        if time.monotonic() > end:
            raise load.LoadError(f"no {file.name} was written: has the server's reactor been replaced?")
        load.one_answer(server.target, plain()())


def _calls(found: pstats.Stats) -> int:
    """All calls but those of the profiling itself."""
    return sum(
        each[1]
        for (path, _, _), each in found.stats.items()
        if path != str(PROGRAM)  # type: ignore[attr-defined]
    )


def _most(found: pstats.Stats, made: int, count: int) -> Sequence[str]:
    ordered = sorted(found.stats.items(), key=lambda each: -each[1][1])  # type: ignore[attr-defined]
    return [
        f"    {each[1] / made:8.3f}  {'/'.join(Path(path).parts[-2:])}:{name}"
        for (path, _, name), each in ordered[:count]
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.python_calls", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("checkout", type=Path, nargs="*", default=[ROOT], help="of each build")
    parser.add_argument("--count", type=int, default=2000, help="predictions of a line")
    parser.add_argument("--only", nargs="+", choices=LINES, default=[*LINES], metavar="NAME")
    parser.add_argument("--functions", type=int, default=0, help="how many functions are printed")
    arguments = parser.parse_args(words)
    load.require_h2load()
    for name in arguments.only:
        rows: list[str] = []
        figures = ""
        for checkout in arguments.checkout:
            progress(f"{LINES[name][0]}: {checkout}")
            calls, found, made = profile(checkout.resolve(), name, arguments.count)
            figures += f"{calls:10.2f}"
            rows += _most(found, made, arguments.functions)
        progress("")
        print(f"{LINES[name][0]:52}{figures}", *rows, sep="\n", flush=True)


if __name__ == "__main__":
    main()
