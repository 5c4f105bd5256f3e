"""Starts the load processes, and runs the levels of load on all of them, one after another."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from time import monotonic
from typing import Any

from penstock_bench.errors import BenchError
from penstock_bench.pacing import Load
from penstock_bench.tally import Tally, Usage
from penstock_bench.worker import Command, Interrupt, Progress, Ready, Task, work

START_SECONDS = 60.0
STOP_SECONDS = 5.0

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """The results of one level, over all processes.

    Attributes:
        load: the level.
        tally: the counts and times.
        usages: the resources used by each process.
        interrupted: whether it was ended early.
    """

    load: Load
    tally: Tally
    usages: list[Usage]
    interrupted: bool


class Fleet:
    """Load processes that are connected and wait for levels.

    Args:
        task: the parts that are the same for all levels.
        processes: the number of processes.

    Raises:
        BenchError: a process cannot reach the server, or a first request fails with a permanent error.
    """

    def __init__(self, task: Task, processes: int) -> None:
        self._members: list[tuple[SpawnProcess, Connection]] = []
        try:
            with _ignoring_interrupts():
                for number in range(processes):
                    first = number * len(task.payloads) // processes
                    self._members.append(_spawned(replace(task, first=first)))
            self._wait_until_ready()
        except BaseException:
            self.close(wait_seconds=0.0)
            raise

    def run(self, load: Load, on_progress: OnProgress) -> Measured:
        """Makes one level of load, divided among the processes.

        Ctrl-C ends it early; a second one is raised.

        Args:
            load: the level.
            on_progress: called several times a second with the sums over all processes.

        Raises:
            BenchError: a process died.
            KeyboardInterrupt: Ctrl-C while waiting for the last answers after one before.
        """
        for (_, connection), share in zip(self._members, shares(load, len(self._members)), strict=True):
            connection.send(share)
        tallies: dict[Connection, Tally] = {}
        latest: dict[Connection, Progress] = {}
        interrupted = False
        with _noting_interrupts() as noted:
            while len(tallies) < len(self._members):
                self._collect(tallies, latest)
                on_progress(_sum(latest.values()))
                if len(noted) > 1:
                    raise KeyboardInterrupt
                if noted and not interrupted:
                    interrupted = True
                    self._tell_all(Interrupt())
        in_order = [tallies[connection] for _, connection in self._members]
        usages = [tally.usage for tally in in_order if tally.usage.wall]
        merged = in_order[0]
        for tally in in_order[1:]:
            merged.merge(tally)
        return Measured(load, merged, usages, interrupted)

    def close(self, wait_seconds: float = STOP_SECONDS) -> None:
        """Ends the processes; kills those that have not ended after a while."""
        self._tell_all(None)
        for process, connection in self._members:
            process.join(wait_seconds)
            if process.is_alive():
                process.kill()
                process.join()
            connection.close()
        self._members.clear()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(STOP_SECONDS if kind is None else 0.0)

    def _tell_all(self, command: Command) -> None:
        for _, connection in self._members:
            with suppress(OSError):  # the process has ended already
                connection.send(command)

    def _wait_until_ready(self) -> None:
        end = monotonic() + START_SECONDS
        for _, connection in self._members:
            if not connection.poll(max(0.0, end - monotonic())):
                raise BenchError(f"a load process did not start within {START_SECONDS:g} s")
            ready = self._received(connection)
            if isinstance(ready, Ready) and ready.refused:
                raise BenchError(ready.refused)

    def _collect(self, tallies: dict[Connection, Tally], latest: dict[Connection, Progress]) -> None:
        """Reads the reports of the processes; waits briefly for them."""
        for each in wait([connection for _, connection in self._members if connection not in tallies], 0.2):
            assert isinstance(each, Connection)
            report = self._received(each)
            if isinstance(report, Tally):
                tallies[each] = report
            elif isinstance(report, Progress):
                latest[each] = report

    def _received(self, connection: Connection) -> Any:
        try:
            return connection.recv()
        except (EOFError, OSError):
            process = next(process for process, other in self._members if other is connection)
            process.join(STOP_SECONDS)
            raise BenchError(f"a load process died with exit code {process.exitcode}") from None


def shares(load: Load, processes: int) -> list[Load]:
    """The share of each process in a level.

    If a closed loop has fewer requests in flight than there are processes, some processes are idle.
    """
    active = min(processes, load.concurrency or processes)
    return [
        replace(
            load,
            concurrency=_share(load.concurrency, number, active),
            rate=load.rate / active if number < active else 0.0,
            offset=number / active,
            max_in_flight=max(1, load.max_in_flight // active),
            requests=None if load.requests is None else _share(load.requests, number, active),
            seed=load.seed + number,
        )
        for number in range(processes)
    ]


def _share(whole: int, number: int, processes: int) -> int:
    return whole // processes + (number < whole % processes) if number < processes else 0


def _sum(reports: Iterable[Progress]) -> Progress:
    every = list(reports)
    return Progress(
        sum(each.answered for each in every),
        sum(each.failed for each in every),
        sum(each.in_flight for each in every),
    )


def _spawned(task: Task) -> tuple[SpawnProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, task), name="penstock-bench", daemon=True)
    process.start()
    theirs.close()
    return process, ours


@contextmanager
def _noting_interrupts() -> Iterator[list[int]]:
    """Notes each Ctrl-C in a list. Raised as an exception, it could come while a report is half read."""
    noted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: noted.append(number))
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Ctrl-C reaches all processes of a terminal; the load processes ignore it, this one handles it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
