"""Reads, sends and writes at the same time, in the order of the input and with bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Condition, Event, Thread
from typing import TypeAlias

from penstock.scoring.chunk import Chunk, Scored

WORKERS = 4
"""Threads that send: that many requests of many rows keep a server busy."""
SINGLE_WORKERS = 32
"""The same for requests of one row."""
MOST_ROWS = 1024
"""Rows between being read and being written, if requests have many rows."""
MOST_SINGLE_ROWS = 256
"""The same for requests of one row."""
JOIN_SECONDS = 1.0

_Item: TypeAlias = "tuple[Chunk, Future[Scored]] | BaseException | None"


class Stopping(Event):
    """Ends a run. It may be set by a signal's handler, while the thread of the run waits."""

    def __init__(self) -> None:
        super().__init__()
        self._items: list[SimpleQueue[_Item]] = []

    def wakes(self, items: SimpleQueue[_Item]) -> None:
        """Setting it wakes the threads that wait for one of these items."""
        self._items.append(items)

    def set(self) -> None:
        """Ends the run after the chunk that is being written."""
        super().set()
        for items in self._items:
            items.put(None)


class _Reader:
    """The thread that reads chunks and hands them to the threads that send.

    A thread of its own: if the input is a pipe, the next row may take its time, and what has been answered
    must not wait for it.
    """

    def __init__(
        self,
        chunks: Iterable[Chunk],
        submit: Callable[[Chunk], Future[Scored]],
        most: int,
        stopping: Stopping,
    ) -> None:
        self.items: SimpleQueue[_Item] = SimpleQueue()
        self._chunks = chunks
        self._submit = submit
        self._most = most
        self._pending = 0
        self._changed = Condition()
        self._is_over = False
        self._stopping = stopping
        self._thread = Thread(target=self._read, name="penstock-score-reader", daemon=True)
        self._thread.start()

    def written(self, rows: int) -> None:
        """So many rows have been written; as many new ones may be read."""
        with self._changed:
            self._pending -= rows
            self._changed.notify()

    def stop(self) -> None:
        """Ends the thread, unless it waits for a pipe."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._thread.join(JOIN_SECONDS)

    def _read(self) -> None:
        try:
            for chunk in self._chunks:
                with self._changed:
                    self._changed.wait_for(lambda: self._has_room(chunk))  # noqa: B023
                    self._pending += len(chunk)
                    if self._is_over or self._stopping.is_set():
                        return
                self.items.put((chunk, self._submit(chunk)))
            self.items.put(None)
        except BaseException as error:  # the writing thread raises it
            self.items.put(error)

    def _has_room(self, chunk: Chunk) -> bool:
        has_room = not self._pending or self._pending + len(chunk) <= self._most
        return has_room or self._is_over or self._stopping.is_set()


def run(
    chunks: Iterable[Chunk],
    score: Callable[[Chunk], Scored],
    write: Callable[[Chunk, Scored, bool], None],
    rows: int,
    stopping: Stopping,
) -> bool:
    """Scores chunks, and writes them in their order.

    Args:
        chunks: what to score; iterated on a thread of its own.
        score: sends a chunk; called on several threads.
        write: writes a chunk with its answers, on this thread; told whether no other chunk waits.
        rows: how many rows a chunk has at most.
        stopping: ends the run after the chunk that is being written.

    Returns:
        Whether all chunks are written.

    Raises:
        Exception: what reading, sending or writing raised first, in the order of the chunks.
    """
    pool = ThreadPoolExecutor(WORKERS if rows > 1 else SINGLE_WORKERS, thread_name_prefix="penstock-score")
    most = MOST_ROWS if rows > 1 else MOST_SINGLE_ROWS
    reader = _Reader(chunks, lambda chunk: pool.submit(score, chunk), most, stopping)
    stopping.wakes(reader.items)
    is_done = False
    try:
        while not stopping.is_set():
            item = reader.items.get()
            if item is None:
                is_done = not stopping.is_set()
                return is_done
            if isinstance(item, BaseException):
                raise item
            chunk, answer = item
            write(chunk, answer.result(), reader.items.empty())
            reader.written(len(chunk))
        return False
    finally:
        reader.stop()
        pool.shutdown(wait=is_done, cancel_futures=True)
