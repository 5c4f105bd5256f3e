"""Sends the rows of a file to a model and writes the answers in the same order, however large the file is."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from threading import Condition
from typing import TypeAlias

from penstock.row_files.fields import Invalid
from penstock.row_files.readers import Row, RowReader
from penstock.scoring.writers import RowWriter
from penstock_client import Client, Exhausted, PenstockError, Prediction, Sequence

IN_FLIGHT = 256
"""Most unanswered rows: enough to keep a server busy without filling its queue."""

STEPS_IN_FLIGHT = 8
"""The same limit if rows are steps of a sequence, which run one after the other. More steps would only fill
the model's queue, and a step that the queue rejects is missing from the sequence."""

MOST_WAITING = 2 * IN_FLIGHT
"""Most rows in memory, including failed ones that wait for earlier unanswered rows."""

_TRIES = 10
_LONGEST_WAIT_SECONDS = 1.0
_FLUSH_SECONDS = 0.2
"""While rows wait all the time, a reader of the output gets the finished ones at least as often."""

_Inputs: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class RowRequest:
    """The options of each row's request.

    Attributes:
        model: the model's name.
        version: a version number or a label; "" for the default.
        outputs: the outputs to return; None for all.
        timeout: of each row, in seconds; `math.inf` for no limit.
        sequence: the sequence of the rows, if any: `start` applies to the first row, `end` to the last.
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


class OrderedWriter:
    """Writes rows in the order of the file, each after it and all earlier rows are answered or have failed.

    Two threads use it: the client's thread, which reads the file, and the thread that receives the answers.

    Args:
        writer: writes the rows.
        flush: called when no row is waiting, and from time to time, so that a reader of the output gets all
            finished rows.
        fail_fast: raise an error for the first row that fails, instead of writing it.

    Attributes:
        rows: the number of written rows.
        failed: the number of these without an answer.
    """

    def __init__(self, writer: RowWriter, flush: Callable[[], None], fail_fast: bool) -> None:
        self.rows = 0
        self.failed = 0
        self._writer = writer
        self._flush = flush
        self._fail_fast = fail_fast
        self._flush_at = 0.0
        # The first one is unanswered; all earlier rows are written.
        self._waiting: deque[_Waiting] = deque()
        self._changed = Condition()
        self._closed = False

    def sent(self, row: Row, inputs: _Inputs) -> None:
        """Adds a row that is about to be sent."""
        with self._changed:
            self._wait_for_room()
            self._waiting.append(_Waiting(row, inputs))

    def refused(self, row: Row, why: str) -> None:
        """Adds a row that will not be sent."""
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
        """Receives the next answer."""
        with self._changed:
            self._check_open()
            self._write(self._waiting.popleft().row, answer)
            while self._waiting and self._waiting[0].error:
                refused = self._waiting.popleft()
                self._failed(refused.row, refused.error)
            if not self._waiting or time.monotonic() >= self._flush_at:
                self._flush()
                self._flush_at = time.monotonic() + _FLUSH_SECONDS
            self._changed.notify_all()

    def close(self) -> bool:
        """Stops: no further rows are written, and waiting threads continue.

        Returns:
            Whether it has stopped; False if a write is blocked by a pipe without a reader.
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
            raise Invalid("it was stopped")

    def _write(self, row: Row, answer: Prediction | PenstockError) -> None:
        if isinstance(answer, PenstockError):
            self._failed(row, str(answer))
            return
        try:
            self._writer.answered(row, answer)
        except Invalid as error:
            self._failed(row, str(error))
        else:
            self.rows += 1

    def _failed(self, row: Row, why: str) -> None:
        if self._fail_fast:
            raise Invalid(f"line {row.line}: {why}")
        self._writer.failed(row, why)
        self.rows += 1
        self.failed += 1


def predict_rows(  # noqa: PLR0913 - everything that a file is read and written with
    client: Client,
    request: RowRequest,
    source: RowReader,
    read: Callable[[Row], _Inputs],
    line: OrderedWriter,
    are_steps: bool,
) -> None:
    """Sends all rows and writes them with their answers.

    Args:
        client: the connection.
        request: the options of each row's request.
        source: the rows.
        read: reads the inputs from a row.
        line: writes rows in order.
        are_steps: whether rows are steps of a sequence. A rejected step is not sent again, because later
            steps have run without it.

    Raises:
        Invalid: a row failed, and `line` has `fail_fast`.
        PenstockError: the connection was lost.
        OSError: the file cannot be read, or the answers cannot be written.
    """
    results = client.predict_stream(
        request.model,
        _items(source, read, line, request.sequence),
        version=request.version,
        outputs=request.outputs,
        timeout=request.timeout,
        errors="return",
        max_in_flight=STEPS_IN_FLIGHT if are_steps else IN_FLIGHT,
    )
    try:
        for result in results:
            if isinstance(result, Exhausted) and result.retry_after_seconds is not None and not are_steps:
                line.answered(_retried(client, request, line.next_inputs(), result))
            else:
                line.answered(result)
    finally:
        line.close()
        if isinstance(results, Generator):
            results.close()  # ends the call now, not at garbage collection


def _items(
    source: RowReader, read: Callable[[Row], _Inputs], line: OrderedWriter, sequence: Sequence | None
) -> Iterator[_Inputs | tuple[_Inputs, Sequence]]:
    """The items to send: `start` with the first readable row, `end` with the last row if it is readable."""
    begins = sequence is not None and sequence.start
    for row, is_last in _until_last(source) if sequence is not None and sequence.end else _each(source):
        if row.error:
            line.refused(row, row.error)
            continue
        try:
            inputs = read(row)
        except Invalid as error:
            line.refused(row, str(error))
        else:
            line.sent(row, inputs)
            if sequence is None:
                yield inputs
            else:
                yield inputs, replace(sequence, start=begins, end=is_last)
                begins = False


def _each(rows: Iterable[Row]) -> Iterator[tuple[Row, bool]]:
    """Each row with False, if the last row needs no mark: so no row waits for the next one."""
    return ((row, False) for row in rows)


def _until_last(rows: Iterable[Row]) -> Iterator[tuple[Row, bool]]:
    """Each row with whether it is the last one."""
    rest = iter(rows)
    row = next(rest, None)
    while row is not None:
        following = next(rest, None)
        yield row, following is None
        row = following


def _retried(
    client: Client, request: RowRequest, inputs: _Inputs, refused: Exhausted
) -> Prediction | PenstockError:
    """Sends a row again that was rejected because the queue was full."""
    for attempt in range(_TRIES):
        wait = max(refused.retry_after_seconds or 0, 0.01 * 2**attempt)
        time.sleep(min(wait, _LONGEST_WAIT_SECONDS))
        try:
            return client.predict(
                request.model,
                inputs,
                version=request.version,
                outputs=request.outputs,
                timeout=request.timeout,
            )
        except Exhausted as error:
            refused = error
        except PenstockError as error:
            return error
    return refused
