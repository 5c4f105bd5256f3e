"""Measure one process of concurrent callers through the Python client.

    python benchmarks/callers.py TARGET [--callers 64 256] [--transport stream] [--merge-rows]

Every caller makes one prediction after the other, one row each, with a raw array for every input. Callers
are asyncio tasks over one `AsyncClient`, or with `--threads` threads over one `Client`. Prints, for each
number of callers: predictions a second, CPU microseconds of this process for each prediction, those of the
server where `--server-pid` says which it is, and the median and 99th percentile of the latency.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
import time
from typing import Any

import numpy as np

from penstock_client import AsyncClient, Client, ModelInfo, PenstockError

DTYPES = {"FP32": "<f4", "FP64": "<f8", "FP16": "<f2", "INT64": "<i8", "INT32": "<i4", "UINT8": "u1"}
TEXT = "paid_ads"
WARM_UP_SECONDS = 0.5
SAMPLED = 2**16  # latencies, the last ones
PROCESS_CLOCK = 2  # as in benchmarks/machine.py, which this file does without: it runs with older builds


def inputs_of(info: ModelInfo) -> dict[str, Any]:
    """One row of random values for every input; open axes have length 1."""
    generator = np.random.default_rng(0)
    made = {}
    for spec in info.inputs:
        if spec.datatype == "BYTES" and spec.shape is not None:
            made[spec.name] = np.full(
                [axis if isinstance(axis, int) else 1 for axis in spec.shape], "paid_ads"
            )
            continue
        if spec.datatype not in DTYPES or spec.shape is None:
            raise SystemExit(f"no values can be made for input {spec.name} {spec}")
        shape = [axis if isinstance(axis, int) else 1 for axis in spec.shape]
        if spec.datatype == "BYTES":
            made[spec.name] = np.full(shape, TEXT)
        else:
            made[spec.name] = (generator.random(shape) * 10).astype(DTYPES[spec.datatype])
    return made


class Fields:
    """What differs from call to call, besides the inputs.

    Args:
        timeout: of every call, in seconds; None for none.
        ids: whether every call has an id of its own.
        traces: whether every call has a fresh trace context.
    """

    def __init__(self, timeout: float | None, ids: bool, traces: bool) -> None:
        self._always = {} if timeout is None else {"timeout": timeout}
        self._ids, self._traces = ids, traces
        self._count = 0

    def next(self) -> dict[str, Any]:
        """The arguments of the next call of `predict`."""
        if not self._ids and not self._traces:
            return self._always
        self._count = count = self._count + 1
        fields: dict[str, Any] = dict(self._always)
        if self._ids:
            fields["id"] = f"request-{count:08}"
        if self._traces:
            fields["metadata"] = {"traceparent": f"00-{count:032x}-{count:016x}-01"}
        return fields


def names_of(arguments: argparse.Namespace) -> list[str]:
    """The models that are called."""
    return [f"{arguments.model}_{number:02}" for number in range(arguments.models)] or [arguments.model]


class Meter:
    """What one run counts, from `begin` on."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self.done = 0
        self.latencies = [0.0] * SAMPLED
        self.running = True

    def begin(self) -> None:
        self.done = 0
        self._since = time.monotonic()
        self._own, self._server = time.process_time(), self._server_seconds()

    def figures(self) -> dict[str, float]:
        elapsed = time.monotonic() - self._since
        done = self.done
        each = 1e6 / max(done, 1)
        taken = np.sort(np.array(self.latencies[: min(done, SAMPLED)])) * 1e6
        figures = {
            "predictions_per_second": done / elapsed,
            "client_cpu_us": (time.process_time() - self._own) * each,
            "p50_us": float(taken[len(taken) // 2]) if done else 0.0,
            "p99_us": float(taken[len(taken) * 99 // 100]) if done else 0.0,
        }
        if self._pid is not None:
            figures["server_cpu_us"] = (self._server_seconds() - self._server) * each
        return figures

    def took(self, seconds: float) -> None:
        self.latencies[self.done & SAMPLED - 1] = seconds
        self.done += 1

    def _server_seconds(self) -> float:
        if self._pid is None:
            return 0.0
        return time.clock_gettime(~self._pid << 3 | PROCESS_CLOCK)


async def tasks(arguments: argparse.Namespace, callers: int) -> dict[str, float]:
    """The figures of that many asyncio callers."""
    meter = Meter(arguments.server_pid)
    fields = Fields(arguments.timeout, arguments.ids, arguments.traces)
    settings = {"transport": arguments.transport, "merge_rows": arguments.merge_rows}
    async with AsyncClient(arguments.target, **settings) as client:
        infos = [await client.model(name) for name in names_of(arguments)]

        async def call(number: int) -> None:
            info = infos[number % len(infos)]
            inputs, output = inputs_of(info), info.outputs[0].name
            predict, clock, model = client.predict, time.perf_counter, info.name
            while meter.running:
                started = clock()
                (await predict(model, inputs, **fields.next()))[output]
                meter.took(clock() - started)

        running = [asyncio.create_task(call(number)) for number in range(callers)]
        await asyncio.sleep(WARM_UP_SECONDS)
        meter.begin()
        await asyncio.wait(running, timeout=arguments.seconds)
        figures = meter.figures()
        meter.running = False
        await asyncio.gather(*running)
    return figures


def threads(arguments: argparse.Namespace, callers: int) -> dict[str, float]:
    """The figures of that many calling threads."""
    meter = Meter(arguments.server_pid)
    fields = Fields(arguments.timeout, arguments.ids, arguments.traces)
    settings = {"transport": arguments.transport, "merge_rows": arguments.merge_rows}
    with Client(arguments.target, **settings) as client:
        infos = [client.model(name) for name in names_of(arguments)]

        def call(number: int) -> None:
            info = infos[number % len(infos)]
            inputs, output = inputs_of(info), info.outputs[0].name
            predict, clock, model = client.predict, time.perf_counter, info.name
            while meter.running:
                started = clock()
                predict(model, inputs, **fields.next())[output]
                meter.took(clock() - started)

        running = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
        for each in running:
            each.start()
        time.sleep(WARM_UP_SECONDS)
        meter.begin()
        time.sleep(arguments.seconds)
        figures = meter.figures()
        meter.running = False
        for each in running:
            each.join()
    return figures


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure concurrent callers through the Python client.")
    parser.add_argument("target", help="the server, host:port")
    parser.add_argument("--callers", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--transport", choices=["auto", "unary", "stream"], default="auto")
    parser.add_argument("--merge-rows", action="store_true")
    parser.add_argument("--threads", action="store_true", help="threads over Client, not asyncio tasks")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--model", default="tiny_mlp")
    parser.add_argument("--models", type=int, default=0, help="callers take turns: MODEL_00, MODEL_01, ...")
    parser.add_argument("--server-pid", type=int)
    parser.add_argument("--timeout", type=float, help="seconds, of every call")
    parser.add_argument("--ids", action="store_true", help="every call has an id of its own")
    parser.add_argument("--traces", action="store_true", help="every call has a fresh trace context")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    if not arguments.json:
        print(f"{'callers':>8}{'a second':>12}{'client µs':>11}{'server µs':>11}{'p50 µs':>10}{'p99 µs':>10}")
    try:
        if arguments.threads:
            for callers in arguments.callers:
                show(arguments, callers, threads(arguments, callers))
        else:
            asyncio.run(in_turn(arguments))
    except PenstockError as error:
        raise SystemExit(f"{arguments.target}: {type(error).__name__}: {error}") from None


async def in_turn(arguments: argparse.Namespace) -> None:
    """All numbers of callers on one event loop: gRPC does not like several in a process."""
    for callers in arguments.callers:
        show(arguments, callers, await tasks(arguments, callers))


def show(arguments: argparse.Namespace, callers: int, figures: dict[str, float]) -> None:
    if arguments.json:
        settings = {"transport": arguments.transport, "merge_rows": arguments.merge_rows}
        print(json.dumps({"callers": callers, **settings, **figures}), flush=True)
        return
    server = figures.get("server_cpu_us", float("nan"))
    print(
        f"{callers:8}{figures['predictions_per_second']:12,.0f}{figures['client_cpu_us']:11.2f}"
        f"{server:11.2f}{figures['p50_us']:10,.0f}{figures['p99_us']:10,.0f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
