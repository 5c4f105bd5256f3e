"""A file of rows through a model and out again, in order, however large it is."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from threading import Condition, Thread
from typing import TypeAlias

from penstock.cli.cells import Bad
from penstock.cli.rows import Row, Source
from penstock.cli.sinks import Sink
from penstock_client import Client, Exhausted, PenstockError, Prediction, Sequence

IN_FLIGHT = 256
"""Rows on their way at once: enough to keep a server busy, few enough to leave its queue to others."""

STEPS_IN_FLIGHT = 8
"""The same where rows are steps of a sequence: they run one after the other, so that more would only fill the
model's queue, and a step that is refused there is missing from the sequence."""

MOST_WAITING = 2 * IN_FLIGHT
"""Rows held, those that failed behind unanswered ones included."""

_TRIES = 10
_LONGEST_WAIT_SECONDS = 1.0

_Inputs: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked for with every row.

    Attributes:
        model: the model's name.
        version: a version number or a label; "" for the default.
        outputs: the outputs wanted; None for all.
        timeout: the longest a row may take, in seconds; `math.inf` for no limit.
        sequence: what the rows are steps of, where one is named: `start` is for the first, `end` the last.
    """

    model: str
    version: str = ""
    outputs: list[str] | None = None
    timeout: float = math.inf
    sequence: Sequence | None = None


@dataclass(slots=True)
class _Waiting:
    row: Row
    inputs: _Inputs = field(default_factory=dict)
    error: str = ""


class InOrder:
    """The rows on their way: each is written when it and all before it are settled.

    Two threads meet here: the client's, which reads the file, and the one that takes the answers.

    Args:
        sink: where rows go.
        flush: called when no row is left waiting: whoever reads the answers should not wait either.
        fail_fast: raise for the first row that fails instead of writing it.

    Attributes:
        rows: how many were written.
        failed: how many of these have no answer.
    """

    def __init__(self, sink: Sink, flush: Callable[[], None], fail_fast: bool) -> None:
        self.rows = 0
        self.failed = 0
        self._sink = sink
        self._flush = flush
        self._fail_fast = fail_fast
        # The first one, where there is one, is unanswered: all that are settled before it are written.
        self._waiting: deque[_Waiting] = deque()
        self._changed = Condition()
        self._closed = False

    def sent(self, row: Row, inputs: _Inputs) -> None:
        """Takes a row that is about to be sent."""
        with self._changed:
            self._wait_for_room()
            self._waiting.append(_Waiting(row, inputs))

    def refused(self, row: Row, why: str) -> None:
        """Takes a row that will not be sent."""
        with self._changed:
            self._wait_for_room()
            if self._waiting:
                self._waiting.append(_Waiting(row, error=why))
            else:
                self._failed(row, why)
                self._flush()

    def next_inputs(self) -> _Inputs:
        """The inputs of the row that the next answer is for."""
        return self._waiting[0].inputs

    def answered(self, answer: Prediction | PenstockError) -> None:
        """Takes the next answer."""
        with self._changed:
            self._check_open()
            self._write(self._waiting.popleft().row, answer)
            while self._waiting and self._waiting[0].error:
                refused = self._waiting.popleft()
                self._failed(refused.row, refused.error)
            if not self._waiting:
                self._flush()
            self._changed.notify_all()

    def close(self) -> bool:
        """Ends it: nothing more is written, and whoever waits for room shall go.

        Returns:
            Whether it has ended; False where a row is being written to somebody who does not read.
        """
        if not self._changed.acquire(timeout=_LONGEST_WAIT_SECONDS):
            return False
        self._closed = True
        self._changed.notify_all()
        self._changed.release()
        return True

    def _wait_for_room(self) -> None:
        self._changed.wait_for(lambda: len(self._waiting) < MOST_WAITING or self._closed)
        self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise Bad("it was given up")

    def _write(self, row: Row, answer: Prediction | PenstockError) -> None:
        if isinstance(answer, PenstockError):
            self._failed(row, str(answer))
            return
        try:
            self._sink.answered(row, answer)
        except Bad as error:
            self._failed(row, str(error))
        else:
            self.rows += 1

    def _failed(self, row: Row, why: str) -> None:
        if self._fail_fast:
            raise Bad(f"line {row.line}: {why}")
        self._sink.failed(row, why)
        self.rows += 1
        self.failed += 1


def predict_rows(  # noqa: PLR0913 - everything that a file is read and written with
    client: Client,
    ask: Ask,
    source: Source,
    read: Callable[[Row], _Inputs],
    line: InOrder,
    are_steps: bool,
) -> None:
    """Sends all rows and writes them with their answers.

    Args:
        client: the connection.
        ask: what is asked for with every row.
        source: the rows.
        read: makes inputs of a row.
        line: where rows wait for their answers.
        are_steps: whether rows are steps of a sequence: one that was refused is not sent again, since others
            have gone on without it.

    Raises:
        Bad: a row failed, and `line` was to fail fast.
        PenstockError: the server went away.
        OSError: the file cannot be read, or the answers cannot be written.
    """
    results = client.predict_stream(
        ask.model,
        _items(source, read, line, ask.sequence),
        version=ask.version,
        outputs=ask.outputs,
        timeout=ask.timeout,
        errors="return",
        max_in_flight=STEPS_IN_FLIGHT if are_steps else IN_FLIGHT,
    )
    try:
        for result in results:
            if isinstance(result, Exhausted) and result.retry_after_seconds is not None and not are_steps:
                line.answered(_retried(client, ask, line.next_inputs(), result))
            else:
                line.answered(result)
    finally:
        line.close()
        if isinstance(results, Generator):
            results.close()  # the call ends now, not when this is collected


def interruptible(work: Callable[[], None]) -> None:
    """Runs `work` on a thread of its own and waits for it.

    Ctrl-C then interrupts the waiting. It could leave gRPC with a lock taken, which hangs for ever.

    Raises:
        KeyboardInterrupt: on Ctrl-C; the thread goes on.
        Exception: whatever `work` raises.
    """
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    Thread(target=run, name="penstock-predict", daemon=True).start()
    done.result()


def _items(
    source: Source, read: Callable[[Row], _Inputs], line: InOrder, sequence: Sequence | None
) -> Iterator[_Inputs | tuple[_Inputs, Sequence]]:
    """What is sent of the rows: `start` goes with the first that can be, `end` with the last if it can be."""
    begins = sequence is not None and sequence.start
    for row, is_last in _until_last(source) if sequence is not None and sequence.end else _each(source):
        if row.error:
            line.refused(row, row.error)
            continue
        try:
            inputs = read(row)
        except Bad as error:
            line.refused(row, str(error))
        else:
            line.sent(row, inputs)
            if sequence is None:
                yield inputs
            else:
                yield inputs, replace(sequence, start=begins, end=is_last)
                begins = False


def _each(rows: Iterable[Row]) -> Iterator[tuple[Row, bool]]:
    """Rows of which nobody needs to know whether they are the last: none waits for the next one."""
    return ((row, False) for row in rows)


def _until_last(rows: Iterable[Row]) -> Iterator[tuple[Row, bool]]:
    """Each row with whether it is the last one."""
    rest = iter(rows)
    row = next(rest, None)
    while row is not None:
        following = next(rest, None)
        yield row, following is None
        row = following


def _retried(client: Client, ask: Ask, inputs: _Inputs, refused: Exhausted) -> Prediction | PenstockError:
    """Sends a row again that found a full queue: others use the server too."""
    for attempt in range(_TRIES):
        wait = max(refused.retry_after_seconds or 0, 0.01 * 2**attempt)
        time.sleep(min(wait, _LONGEST_WAIT_SECONDS))
        try:
            return client.predict(
                ask.model, inputs, version=ask.version, outputs=ask.outputs, timeout=ask.timeout
            )
        except Exhausted as error:
            refused = error
        except PenstockError as error:
            return error
    return refused
