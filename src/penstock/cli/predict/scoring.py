"""Scores the rows of --file, and writes each row beside its answer or the reason why it has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Lock
from time import monotonic

from penstock.cli.predict.streaming import RowRequest
from penstock.row_files.fields import Invalid
from penstock.scoring.chunk import Chunk, Scored
from penstock.scoring.run import Stopping, run
from penstock.scoring.sending import Request, Sender
from penstock.scoring.writers import RowWriter
from penstock_client import Client

_CLOSE_SECONDS = 1.0
_FLUSH_SECONDS = 0.2


@dataclass(slots=True)
class Counts:
    """Counts the rows that have been written.

    Attributes:
        rows: all of them.
        failed: those without an answer.
    """

    rows: int = 0
    failed: int = 0


class Scoring:
    """One file.

    Args:
        client: the connection.
        request: the options of the requests.
        writer: writes the rows.
        flush: called when no further row waits, and from time to time: a reader of the output gets finished
            rows.
        fail_fast: raise an error for the first row that fails, instead of writing it.

    Attributes:
        counts: the rows that have been written.
    """

    def __init__(
        self,
        client: Client,
        request: RowRequest,
        writer: RowWriter,
        flush: Callable[[], None],
        fail_fast: bool,
    ) -> None:
        self.counts = Counts()
        self._stopping = Stopping()
        options = Request(request.model, request.version, request.outputs, request.timeout)
        self._sender = Sender(client, options, lambda _: None, self._stopping)
        self._writer = writer
        self._flush = flush
        self._fail_fast = fail_fast
        self._lock = Lock()
        self._flush_at = 0.0

    def run(self, chunks: Iterable[Chunk], size: int) -> None:
        """Scores and writes all rows.

        Raises:
            Invalid: a row failed, and `fail_fast` is set.
            PenstockError: the connection was lost.
            OSError: the file cannot be read, or the answers cannot be written.
        """
        run(chunks, self._sender.score, self._write, size, self._stopping)

    def close(self) -> bool:
        """Stops: no further rows are written.

        Returns:
            Whether it has stopped; False if a write is blocked by a pipe without a reader.
        """
        self._stopping.set()
        return self._lock.acquire(timeout=_CLOSE_SECONDS)  # for ever: nothing may be written any more

    def _write(self, chunk: Chunk, scored: Scored, is_idle: bool) -> None:
        with self._lock:
            if self._fail_fast and scored.errors:
                first = min(scored.errors)
                if first:
                    self._writer.chunk(chunk.some(range(first)), scored.before(first), with_failed=True)
                self.counts.rows += first
                row = chunk.rows()[first]
                raise Invalid(f"line {row.line}: {scored.errors[first]}")
            errors = self._writer.chunk(chunk, scored, with_failed=True)
            self.counts.rows += len(chunk)
            self.counts.failed += len(errors)
            if is_idle or monotonic() >= self._flush_at:
                self._flush()
                self._flush_at = monotonic() + _FLUSH_SECONDS
