"""A server that is restarted again and again under callers of every kind.

Every request has a number, and the server writes down what it runs. This shows what was run twice, what was
lost, and how long calls took beyond the time without a server. `RESTARTS=200` limits the number of restarts,
`SECONDS=900` the time that they take. With `LIVES=5` each server lives at least 5 seconds, so that what is
measured is a single restart: without it most servers live for less than a second, and a call meets several.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import numpy as np
import pytest

from penstock.core.tensors import DataType
from penstock_client import AsyncClient, Client, PenstockError
from server import kit
from support import zoo
from support.forked import ForkedProcess, ForkServer

RESTARTS = int(os.environ.get("RESTARTS", "2000"))
SECONDS = float(os.environ.get("SECONDS", "inf"))
LIVES = float(os.environ.get("LIVES", "0"))
TIMEOUT_SECONDS = 30.0
CLIENTS, CALLERS = 4, 8
"""Clients of each kind with a shared stream, and callers of each of them: 64 in all."""
FEW = 4
"""Callers of each other kind."""
ITEMS = 20
"""Items of a stream that one caller has to itself."""
PAUSE_SECONDS = 0.003
FIRST, NUMBERS = 1 << 40, 1 << 32
"""Where the numbers of requests begin, above all values that models are tried with; numbers of each kind."""
SLOW_SECONDS = 0.25
"""Calls that take less are not kept."""
BEYOND_SECONDS = 0.5
RETRY = {
    "maxAttempts": 5,  # gRPC makes no more
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
RETRIES = json.dumps({"methodConfig": [{"name": [{}], "waitForReady": True, "retryPolicy": RETRY}]})
PLAIN = "plain grpcio"
Gaps: TypeAlias = list[tuple[float, float]]
"""From a SIGTERM until the next server serves, by `time.monotonic()`."""
KINDS = ("multiplexed", "multiplexed asyncio", "unary", "unary asyncio", "stream", PLAIN)


IMPORTED = ("penstock.server", "penstock.signals", "penstock.backends.onnx")
"""What the process imports that servers are forked from."""


class Calls:
    """What became of the calls of one kind of callers.

    Args:
        first: the number of the first request.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self.answered: set[int] = set()
        self.failed: Counter[str] = Counter()
        self.slow: list[tuple[float, float]] = []
        self._last = first
        self._lock = threading.Lock()

    def numbers(self, count: int = 1) -> list[int]:
        """Numbers for further requests."""
        with self._lock:
            self._last += count
            return list(range(self._last - count, self._last))

    def ended(self, began: float, numbers: list[int], problem: object = None) -> None:
        """A call ended now, or a stream's first answer came."""
        end = time.monotonic()
        with self._lock:
            if end - began > SLOW_SECONDS:
                self.slow.append((began, end))
            if problem is not None:
                self.failed[str(problem)] += 1
            else:
                self.answered.update(numbers)

    def beyond(self, gaps: Gaps) -> list[float]:
        """For each gap how much longer than it the longest call took that met it, in seconds; sorted."""
        return sorted(
            max(
                (end - began - (up - down) for began, end in self.slow if began < up and down < end),
                default=0.0,
            )
            for down, up in gaps
        )


def inputs(number: int) -> dict[str, Any]:
    return {"x": np.array([[number]], np.int64)}


class Callers:
    """Callers of all kinds, each calling again as soon as it has its answer."""

    def __init__(self, target: str) -> None:
        self.calls = {kind: Calls(FIRST + NUMBERS * n) for n, kind in enumerate(KINDS)}
        self._over = threading.Event()
        self._target = target
        self._clients = [Client(target, transport="stream") for _ in range(CLIENTS)]
        self._unary = Client(target, transport="unary")
        channels = [kit.connect(target, ("grpc.service_config", RETRIES)) for _ in range(FEW)]
        work: list[Callable[[], None]] = [lambda: asyncio.run(self._asyncio())]
        work += [self._predicts(each, "multiplexed") for each in self._clients for _ in range(CALLERS)]
        work += [self._predicts(self._unary, "unary")] * FEW
        work += [self._streams] * FEW
        work += [self._plain(each) for each in channels]
        self._threads = [threading.Thread(target=each) for each in work]
        for each in self._threads:
            each.start()

    def stop(self) -> None:
        self._over.set()
        for each in self._threads:
            each.join(2 * TIMEOUT_SECONDS)
        for client in (*self._clients, self._unary):
            client.close()

    def _predicts(self, client: Client, kind: str) -> Callable[[], None]:
        def predict(number: int) -> int:
            return int(client.predict("identity", inputs(number), timeout=TIMEOUT_SECONDS)["y"][0, 0])

        return lambda: self._call(self.calls[kind], predict)

    def _plain(self, channel: grpc.Channel) -> Callable[[], None]:
        stub = kit.stub_of(channel)

        def predict(number: int) -> int:
            request = kit.request("identity", x=kit.raw([[number]], DataType.INT64))
            return int(kit.array_of(stub.Predict(request, timeout=TIMEOUT_SECONDS).outputs["y"])[0, 0])

        return lambda: self._call(self.calls[PLAIN], predict)

    def _call(self, calls: Calls, predict: Callable[[int], int]) -> None:
        while not self._over.is_set():
            (number,), began, problem = calls.numbers(), time.monotonic(), None
            try:
                assert predict(number) == number
            except (PenstockError, grpc.RpcError, AssertionError) as error:
                problem = error
            calls.ended(began, [number], problem)
            time.sleep(PAUSE_SECONDS)

    def _streams(self) -> None:
        """Streams that end with their server are not counted as failed: their callers open another one."""
        calls, began = self.calls["stream"], time.monotonic()
        with Client(self._target) as client:
            while not self._over.is_set():
                numbers = calls.numbers(ITEMS)
                try:
                    for result in client.predict_stream(
                        "identity", map(inputs, numbers), timeout=TIMEOUT_SECONDS
                    ):
                        calls.ended(began, [int(result["y"][0, 0])])
                        began = time.monotonic()
                except PenstockError:
                    time.sleep(0.05)

    async def _asyncio(self) -> None:
        clients = [AsyncClient(self._target, transport="stream") for _ in range(CLIENTS)]
        unary = AsyncClient(self._target, transport="unary")
        callers = [
            self._predicts_async(each, "multiplexed asyncio") for each in clients for _ in range(CALLERS)
        ]
        callers += [self._predicts_async(unary, "unary asyncio") for _ in range(FEW)]
        await asyncio.gather(*callers)
        for client in (*clients, unary):
            await client.close()

    async def _predicts_async(self, client: AsyncClient, kind: str) -> None:
        calls = self.calls[kind]
        while not self._over.is_set():
            (number,), began, problem = calls.numbers(), time.monotonic(), None
            try:
                answer = await client.predict("identity", inputs(number), timeout=TIMEOUT_SECONDS)
                assert int(answer["y"][0, 0]) == number
            except (PenstockError, AssertionError) as error:
                problem = error
            calls.ended(began, [number], problem)
            await asyncio.sleep(PAUSE_SECONDS)


class Prepared:
    """A server that has loaded its models, and serves once `go` is called.

    It is forked from a process that has imported all that it needs: to start one takes a tenth of the CPU.
    """

    def __init__(self, models: Path, port: int, record: Path, by: ForkServer) -> None:
        self._process = ForkedProcess(
            ["recording_server", str(models), str(port), str(record)],
            os.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            module="soak.recording_server",
            by=by,
        )

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def loaded(self) -> None:
        assert self._line() == "loaded"

    def go(self) -> int:
        """Has it listen; returns its port."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return int(self._line())

    def stop(self) -> None:
        """Stops it as an operator does."""
        self._process.terminate()
        assert self._process.wait(TIMEOUT_SECONDS) == 0

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def restart(models: Path, record: Path, restarts: int) -> tuple[dict[str, Calls], Gaps]:
    """Restarts a server this often under callers; returns their calls and the gaps between two servers."""
    gaps: Gaps = []
    end = time.monotonic() + SECONDS
    by = ForkServer(IMPORTED, PYTHONPATH=str(Path(__file__).parents[1]))
    by.note_environment()
    server = Prepared(models, 0, record, by)
    server.loaded()
    port = server.go()
    following = Prepared(models, port, record, by)
    callers = Callers(f"127.0.0.1:{port}")
    try:
        for n in range(restarts):
            if time.monotonic() > end:
                break
            following.loaded()
            time.sleep(LIVES + random.uniform(0.0, 0.2))
            down = time.monotonic()
            server.stop()
            server.close()
            server, following = following, Prepared(models, port, record, by)
            time.sleep(random.choice((0.0, 0.0, random.uniform(0.0, 2.0))))
            server.go()
            gaps.append((down, time.monotonic()))
            if n % 50 == 49:
                show(callers.calls, record, gaps)
        time.sleep(1.0)
    finally:
        callers.stop()
        for each in (server, following):
            each.close()
        by.close()
    return callers.calls, gaps


def runs(record: Path) -> Counter[int]:
    """How often each request was run."""
    numbers = np.fromfile(record, np.int64)
    values, counts = np.unique(numbers[numbers >= FIRST], return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def show(calls: dict[str, Calls], record: Path, gaps: Gaps) -> None:
    """Prints what became of the calls so far."""
    ran = runs(record)
    print(f"{len(gaps)} restarts, {len(ran)} requests run")
    for kind, each in calls.items():
        twice = twice_of(each, ran)
        beyond = each.beyond(gaps)
        print(f"  {kind}: {len(each.answered)} answered, {each.failed.total()} failed {dict(each.failed)}")
        middle, most, longest = beyond[len(beyond) // 2], usual(beyond), beyond[-1]
        print(f"    {len(twice)} run twice; beyond the gap, median, 95 of 100, all: ", end="")
        print(f"{middle:.2f} {most:.2f} {longest:.2f} s")


def usual(beyond: list[float]) -> float:
    """What 95 of 100 restarts stay below: a busy machine may stand still in one of them."""
    return beyond[len(beyond) * 95 // 100]


def twice_of(calls: Calls, ran: Counter[int]) -> list[int]:
    """The requests of these callers that were run more than once."""
    return [n for n, count in ran.items() if count > 1 and calls.first <= n < calls.first + NUMBERS]


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_restarts_under_callers_of_every_kind(tmp_path: Path) -> None:
    models = zoo.repository(tmp_path, {"identity": {1: zoo.identity(DataType.INT64, ("N", 1))}})
    record = tmp_path / "record"
    calls, gaps = restart(models, record, RESTARTS)
    show(calls, record, gaps)
    ran = runs(record)
    for kind, each in calls.items():
        assert each.answered
        assert not each.failed, kind
        assert each.answered <= ran.keys()
        assert twice_of(each, ran) == [], kind
        if kind != PLAIN:  # gRPC by itself waits for a second before it connects again
            assert usual(each.beyond(gaps)) <= BEYOND_SECONDS, kind
