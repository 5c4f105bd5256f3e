"""A load process: connects, and then runs one level of load after another on command."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from selectors import SelectSelector
from typing import TypeAlias

from penstock_bench.calls import Calls, Job, Mode, calls_of
from penstock_bench.codecs import Ask, Codec, ProtocolName
from penstock_bench.pacing import GRACE_SECONDS, Load, Run
from penstock_bench.payloads import Payload
from penstock_bench.tally import Outcome, Tally

PROGRESS_SECONDS = 0.2

SWITCH_SECONDS = 0.0005
"""The interpreter's switch interval, so that gRPC's thread can deliver an answer soon; Python's default of
5 ms would increase the latencies of a busy process."""

REFUSALS = frozenset(
    ("INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNAVAILABLE", "UNIMPLEMENTED")
)
"""Status codes of a first request that mean that all others will fail, too."""


@dataclass(frozen=True, slots=True)
class Task:
    """The parts that are the same for all levels.

    Attributes:
        target: the server, as "host:port".
        protocol: its protocol.
        mode: how requests are sent.
        ask: the options of the requests.
        payloads: the inputs, which are sent in turn.
        first: the number of the process's first payload.
    """

    target: str
    protocol: ProtocolName
    mode: Mode
    ask: Ask
    payloads: Sequence[Payload]
    first: int = 0


@dataclass(frozen=True, slots=True)
class Ready:
    """A report: the process is connected, and has its first answer.

    Attributes:
        refused: why a measurement is not possible; "" if it is possible.
    """

    refused: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """A report: the numbers of answered, failed and unanswered requests of a level."""

    answered: int
    failed: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Tells a process to end its level now."""


Command: TypeAlias = Load | Interrupt | None
"""A command to a process; None to end."""

Report: TypeAlias = Ready | Progress | Tally
"""A report of a process."""


def work(connection: Connection, task: Task) -> None:
    """Runs a load process.

    Args:
        connection: for commands and reports.
        task: the parts that are the same for all levels.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    # Asyncio's default selector rounds up to milliseconds, which would send requests late.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(SelectSelector())) as runner:
        runner.run(_Worker(connection, task).run())


class _Worker:
    def __init__(self, connection: Connection, task: Task) -> None:
        self._connection = connection
        self._task = task
        self._rows = [payload.rows for payload in task.payloads]
        self._loads: asyncio.Queue[Load | None] = asyncio.Queue()
        self._current: Run | None = None

    async def run(self) -> None:
        task = self._task
        loop = asyncio.get_running_loop()
        calls = calls_of(task.mode, task.target, codec_of(task.protocol, task.ask), task.ask, task.payloads)
        try:
            self._connection.send(Ready(await _refusal(calls, task.ask.timeout)))
            threading.Thread(target=self._listen, args=(loop,), name="bench-commands", daemon=True).start()
            gc.freeze()
            while (load := await self._loads.get()) is not None:
                self._connection.send(await self._level(load, calls))
        finally:
            await calls.close()

    async def _level(self, load: Load, calls: Calls) -> Tally:
        if load.idle:
            return Tally()
        self._current = run = Run(load, calls, self._rows, self._task.first)
        reporter = asyncio.get_running_loop().create_task(self._tell(run))
        try:
            return await run.run()
        finally:
            self._current = None
            reporter.cancel()

    async def _tell(self, run: Run) -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            tally = run.tally
            self._connection.send(Progress(tally.ok, tally.failed.total(), run.in_flight))

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hands commands to the event loop, from a thread that waits for them."""
        try:
            while True:
                command: Command = self._connection.recv()
                loop.call_soon_threadsafe(self._take, command)
                if command is None:
                    return
        except (EOFError, OSError):
            os._exit(1)  # the main process has ended, so no results are needed

    def _take(self, command: Command) -> None:
        if not isinstance(command, Interrupt):
            self._loads.put_nowait(command)
        if not isinstance(command, Load) and self._current is not None:
            self._current.interrupt()


async def _refusal(calls: Calls, timeout: float) -> str:
    """The error of a first request that all others will get, too; "" if there is none."""
    settled: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def settle(job: Job, outcome: Outcome) -> None:
        if not settled.done():
            settled.set_result(outcome)

    calls.settle = settle
    calls.start((0.0, 0))
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout + GRACE_SECONDS):
            outcome = await settled
            return f"{outcome.code}: {outcome.detail}" if outcome.code in REFUSALS else ""
    await calls.abandon()
    return f"no answer to a first request within {timeout + GRACE_SECONDS:g} s"


def codec_of(protocol: ProtocolName, ask: Ask) -> Codec:
    """The codec of a protocol. The stubs of the Open Inference Protocol are loaded only for it."""
    if protocol == "penstock":
        from penstock_bench.penstock_codec import PenstockCodec

        return PenstockCodec(ask)
    from penstock_bench.oip_codec import OipCodec

    return OipCodec(ask)
