"""The realistic set: what services send, to one model and to several, by every kind of call, and all mixed.

    python -m benchmarks.real_set [--checkout PATH] [--rounds 3] [--seconds 0.3] [--only CALLS ...]
                                  [--json FILE]

CALLS are `unary` (32 in flight, or 40 to 20 models), `stream` (messages of 32 requests), `shared` (64 callers
of the Python client on one stream) and `mixed`. The requests have raw values, typed values or, those of the
bundled model, one text among three raw inputs; with an id, a timeout and a trace, or without. They go to one
model, to a canary (two versions of a model in turn, called by their numbers), or to 20 models in turn. On
`shared`, each request has its own id and a fresh trace; on streams, each request of a message. There, the
client sends no typed values and calls no canary. `mixed` is all of unary and stream at once, to 20 models,
and messages of one request on another stream.

The server runs on one core, the load on the other. In every round all lines take turns. Printed is the
server's CPU for a prediction: the median in microseconds, and the median of its ratios to the plain raw
request to one model, by the same kind of call in the same round. That of `mixed` is the ratio to the mean of
its parts, each measured alone.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from benchmarks import load, loads, machine, messages
from benchmarks.load import Calls
from benchmarks.loads import Stream
from benchmarks.paired import Build, Run, leads, plain, typed_floats
from benchmarks.rounds import progress
from benchmarks.servers import ROOT, started
from benchmarks.subjects import NO_EXPERIMENTS, TIMING_BYTES, free_ports
from penstock_proto.v1 import prediction_pb2 as pb

MODELS, CANARY = 20, 2
"""To how many models, or versions of one model, the requests go in turn."""
CANARY_MODEL = "canary"
PREDICT = messages.SERVICE + "Predict"
CONTENTS = ("raw", "typed", "text")
A_MESSAGE, MESSAGES = 32, 4
IN_FLIGHT, CALLERS = 32, 64
FIRST = 1000
TIMEOUT = 30.987654321

Made = Callable[[Run, Build, int], int]
"""Makes about that many predictions, and returns how many it made."""


def request(content: str, has_fields: bool, number: int = 0, models: int = MODELS) -> pb.PredictRequest:
    """One request; its id and its trace are those of this number.

    Args:
        content: one of `CONTENTS`.
        has_fields: whether it has an id, a timeout and a trace.
        number: also says to which of several models or versions it goes; 0 for the one model.
        models: how many there are.
    """
    calls = {"raw": plain(), "typed": typed_floats, "text": leads(False)}[content]()
    made = pb.PredictRequest.FromString(calls.request)
    if number and models == CANARY:
        made.model, made.version = f"{made.model}_{CANARY_MODEL}", str(1 + number % CANARY)
    elif number:
        made.model = f"{made.model}_{number % MODELS:02}"
    if has_fields:
        made.id = f"request-{number:08}"
        made.timeout.FromNanoseconds(round(TIMEOUT * 1e9))
        made.metadata["traceparent"] = f"00-{number + 1:032x}-{number + 1:016x}-01"
    return made


def unary(content: str, has_fields: bool, models: int) -> Made:
    """Unary calls by one h2load for each model, all at once."""
    answers: dict[tuple[str, int], Calls] = {}
    numbers = range(1, models + 1) if models > 1 else (0,)

    def make(run: Run, build: Build, count: int) -> int:
        each = -(-count // len(numbers))
        shape = (
            load.shape(IN_FLIGHT) if models == 1 else load.Shape(1, 2 if models == MODELS else IN_FLIGHT // 2)
        )

        def calls(number: int) -> None:
            sent = Calls(PREDICT, request(content, has_fields, number, models).SerializeToString())
            if (build.server.target, number) not in answers:
                size = len(load.one_answer(build.server.target, sent))
                answers[build.server.target, number] = replace(
                    sent, least=size - TIMING_BYTES, most=size + TIMING_BYTES
                )
            known = answers[build.server.target, number]
            load.unary(build.server.target, known, each, shape, run.load_core)

        with ThreadPoolExecutor(len(numbers)) as pool:
            list(pool.map(calls, numbers))
        return each * len(numbers)

    return make


def stream(content: str, has_fields: bool, models: int, a_message: int = A_MESSAGE) -> Made:
    """Messages of one stream, whose requests go to one model after the other."""
    numbers = [number + 1 if models > 1 else 0 for number in range(a_message)]
    made = [request(content, has_fields, number, models) for number in numbers]
    if has_fields and models == 1:
        for number, each in enumerate(made):
            each.id = f"request-{number:08}"
    data = pb.PredictStreamRequest(requests=made).SerializeToString()
    sent = Stream(messages.SERVICE + "PredictStream", data, a_message, MESSAGES * A_MESSAGE // a_message)

    def make(run: Run, build: Build, count: int) -> int:
        number = -(-count // a_message)
        loads.stream(build.server.target, sent, number, run.load_core)
        return number * a_message

    return make


Line = Callable[[Run, Build], float]
"""Measures the server's CPU for a prediction, in microseconds."""


def measuring(name: str, make: Made) -> Line:
    """Measures predictions that are counted."""

    def measure(run: Run, build: Build) -> float:
        count = max(FIRST, int(build.rates.get(name, 0.0) * run.seconds))
        before = build.server.cpu_seconds()
        begun = time.monotonic()
        done = make(run, build, count)
        build.rates[name] = done / (time.monotonic() - begun)
        return (build.server.cpu_seconds() - before) / done * 1e6

    return measure


def shared(content: str, has_fields: bool, models: int) -> Line:
    """Callers of the Python client that share one stream."""
    words: list[object] = ["--callers", CALLERS, "--transport", "stream"]
    words += ["--model", "lead_scoring" if content == "text" else "tiny_mlp"]
    words += ["--models", MODELS] if models > 1 else []
    words += ["--timeout", TIMEOUT, "--ids", "--traces"] if has_fields else []

    def measure(run: Run, build: Build) -> float:
        server = build.server
        more = ("--seconds", run.seconds, "--server-pid", server.process.pid)
        return float(loads.callers(server.target, run.load_core, *words, *more)["cpu_us"])

    return measure


def _mixed() -> Mapping[str, Made]:
    """The parts of the mixed load."""
    each = [*itertools.product(CONTENTS, (False, True))]
    return {
        **{f"unary {content} {fields} {MODELS}": unary(content, fields, MODELS) for content, fields in each},
        **{
            f"stream {content} {fields} {MODELS}": stream(content, fields, MODELS) for content, fields in each
        },
        "single": stream("raw", True, MODELS, a_message=1),
    }


def mixed(run: Run, build: Build) -> float:
    """All parts at once, each with as many predictions as it makes alone in a part of the time."""
    parts = _mixed()
    counts = {name: max(FIRST, int(build.rates.get(name, 0.0) * run.seconds)) // 4 for name in parts}
    before = build.server.cpu_seconds()
    with ThreadPoolExecutor(len(parts)) as pool:
        done = list(pool.map(lambda name: parts[name](run, build, counts[name]), parts))
    build.rates.update({f"mixed {name}": float(count) for name, count in zip(parts, done, strict=True)})
    return (build.server.cpu_seconds() - before) / sum(done) * 1e6


def lines(only: Sequence[str]) -> Mapping[str, Line]:
    """The lines of these kinds of calls, by name: kind, content, whether it has fields, and models."""
    found: dict[str, Line] = {}
    if "mixed" in only:
        only = [*only, "unary", "stream"]  # its parts
    for models, fields, content in itertools.product((1, CANARY, MODELS), (False, True), CONTENTS):
        end = f"{content} {fields} {models}"
        if "unary" in only:
            found[f"unary {end}"] = measuring(f"unary {end}", unary(content, fields, models))
        if "stream" in only:
            found[f"stream {end}"] = measuring(f"stream {end}", stream(content, fields, models))
        if "shared" in only and content != "typed" and models != CANARY:
            found[f"shared {end}"] = shared(content, fields, models)
    if "mixed" in only:
        found["single"] = measuring("single", stream("raw", True, MODELS, a_message=1))
        found["mixed"] = mixed
    return found


@contextlib.contextmanager
def serving(checkout: Path, server_core: int) -> Iterator[Build]:
    """A server of the models and of 20 copies of each."""
    with tempfile.TemporaryDirectory() as folder:
        models = messages.make_models(Path(folder) / "models")
        os.symlink(ROOT / "examples/models/lead_scoring", models / "lead_scoring")
        for name, number in itertools.product(("tiny_mlp", "lead_scoring"), range(MODELS)):
            os.symlink((models / name).resolve(), models / f"{name}_{number:02}")
        for name in ("tiny_mlp", "lead_scoring"):
            _make_canary(models / name, models / f"{name}_{CANARY_MODEL}")
        script = checkout / ".venv/bin/penstock"
        command = [script, "serve", models, *free_ports(script)]
        with started(command, (server_core,), NO_EXPERIMENTS) as server:
            yield Build("this", checkout, server)


def _make_canary(model: Path, made: Path) -> None:
    """Makes a model whose two versions are the one of another model."""
    made.mkdir()
    for each in model.resolve().iterdir():
        if not each.name.isdigit():
            os.symlink(each, made / each.name)
    for number in range(CANARY):
        os.symlink((model / "1").resolve(), made / str(1 + number))


def measure(arguments: argparse.Namespace, found: dict[str, list[float]]) -> None:
    """Adds the values of every complete round, by line; `mean of the parts` beside `mixed`."""
    run = Run(arguments.seconds, *machine.cores())
    with serving(arguments.checkout.resolve(), run.server_core) as build:
        for number in range(arguments.rounds + 1):
            values: dict[str, float] = {}
            for name, line in lines(arguments.only).items():
                progress(f"{name}: round {number} of {arguments.rounds}")
                values[name] = line(run, build)
            if "mixed" in values:
                counts = {name: build.rates[f"mixed {name}"] for name in _mixed() if name in values}
                parts = sum(values[name] * count for name, count in counts.items())
                values["mean of the parts"] = parts / sum(counts.values())
            if number:  # the first one warms up
                for name, value in values.items():
                    found.setdefault(name, []).append(value)
    progress("")


def table(found: Mapping[str, list[float]]) -> Iterator[str]:
    """The table, in Markdown."""
    columns = list(itertools.product((1, CANARY, MODELS), (False, True)))
    names = {1: "1 model", CANARY: f"{CANARY} versions", MODELS: f"{MODELS} models"}
    titles = [f"{names[models]}{', fields' * fields}" for models, fields in columns]
    yield f"| calls | values | {' | '.join(titles)} |"
    yield "|---" * (2 + len(columns)) + "|"
    for calls, content in itertools.product(("unary", "stream", "shared"), CONTENTS):
        base = found.get(f"{calls} raw False 1")
        cells = [found.get(f"{calls} {content} {fields} {models}") for models, fields in columns]
        if base and any(cells):
            yield f"| {calls} | {content} | {' | '.join(_cell(each, base) for each in cells)} |"
    if "mixed" in found:
        yield f"\nMixed: {_cell(found['mixed'], found['mean of the parts'])}"


def _cell(values: Sequence[float] | None, base: Sequence[float]) -> str:
    if values is None:
        return ""
    ratios = [one / other for one, other in zip(values, base, strict=True)]
    spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if values is not base else ""
    return f"{statistics.median(values):.1f} µs, {statistics.median(ratios):.2f}{spread}"


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_set", description=(__doc__ or "").split("\n")[0]
    )
    kinds = ("unary", "stream", "shared", "mixed")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="of the server; this one if not given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds, metavar="CALLS")
    parser.add_argument("--json", type=Path, help="write every round's values to this file")
    arguments = parser.parse_args()
    load.require_h2load()
    values: dict[str, list[float]] = {}
    with contextlib.suppress(KeyboardInterrupt):  # what has been measured by then is printed
        measure(arguments, values)
    print("\n".join(table(values)))
    if arguments.json:
        arguments.json.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
