"""The stream that the calls of a threaded client share.

Four kinds of threads meet here. Callers add requests and wait, each at a lock of its own. gRPC's sending
thread takes what has gathered. gRPC's receiving thread hands the answers out, from within what gRPC calls the
deserializer: that is one thread switch less for every answer than reading the call. One thread of our own
opens streams, reads them, which only keeps them going, and cleans up behind them.
"""

from __future__ import annotations

from _thread import LockType, allocate_lock
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Condition, Event, Lock, Thread, current_thread
from typing import Any

import grpc

from penstock_client._errors import CLOSED, Cancelled, DeadlineExceeded, PenstockError, from_call
from penstock_client._merge import Member
from penstock_client._messages import Deadline
from penstock_client._mux import OPENINGS, TOO_LATE, Multiplexer, Settled, Unsupported, backoff, lost

Open = Callable[[Iterator[bytes], Callable[[bytes], bytes]], Any]
"""Begins a call of PredictStream with these requests and this deserializer."""


class _Waiter:
    """A thread that waits for an answer."""

    __slots__ = ("abandoned", "answered", "outcome")

    def __init__(self) -> None:
        self.answered: LockType = allocate_lock()
        self.answered.acquire()
        self.outcome: Any = None
        self.abandoned = False

    def done(self) -> bool:
        return self.abandoned

    def settle(self, outcome: Any) -> None:
        self.outcome = outcome
        self.answered.release()


class _Feed:
    """The requests of one stream, as gRPC's sending thread takes them."""

    def __init__(self, lock: Lock, mux: Multiplexer, room: Condition) -> None:
        self._lock = lock
        self._mux = mux
        self._room = room
        self._woken: SimpleQueue[None] = SimpleQueue()
        self.idle = False
        self.over = False
        self.fault: PenstockError | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while True:
            with self._lock:
                if self.over:
                    raise StopIteration
                message = self._mux.take()
                self.idle = message is None
                if message is not None:
                    self._room.notify_all()
                    return message
            self._woken.get()

    def wake(self) -> None:
        """There is something to send, or nothing ever again. To be called with the lock held."""
        if self.idle:
            self.idle = False
            self.kick()

    def kick(self) -> None:
        """Makes the thread look again; for whoever has set `idle` to False."""
        self._woken.put(None)

    def end(self) -> None:
        """Nothing more is to be sent. To be called with the lock held."""
        self.over = True
        self.wake()


class SharedStream:
    """One stream at a time, opened when it is first needed and again after it was lost.

    Args:
        open_call: begins a call.
        probe: makes a small unary call, so that a stream is opened only where there is a server: what
            is handed to a stream may have reached the server, whatever becomes of it.
        limit: the most requests that are pending.
        merging: whether requests that fit together are merged.
    """

    def __init__(self, open_call: Open, probe: Callable[[], None], limit: int, merging: bool) -> None:
        self._open = open_call
        self._probe = probe
        self._mux = Multiplexer(limit, merging)
        self._lock = Lock()
        self._room = Condition(self._lock)
        self._feed: _Feed | None = None
        self._call: Any = None
        self._thread: Thread | None = None
        self._closed = Event()

    def send(self, parts: list[bytes], deadline: Deadline) -> Any:
        """Sends a request and returns the serialized answer.

        Raises:
            PenstockError: how the request ended.
        """
        waiter = _Waiter()
        with self._lock:
            self._wait_for_room(deadline)
            self._mux.add(waiter, parts)
            feed = self._idle_feed()
        if feed is not None:  # without the lock, for which its thread would only wait
            feed.kick()
        return self._wait(waiter, deadline)

    def send_member(self, member: Member, deadline: Deadline) -> Any:
        """Sends a request that may be merged with others, and returns the prediction, or the answer.

        Raises:
            PenstockError: how the request ended.
        """
        member.waiter = waiter = _Waiter()
        with self._lock:
            self._wait_for_room(deadline)
            self._mux.add_member(member)
            feed = self._idle_feed()
        if feed is not None:
            feed.kick()
        return self._wait(waiter, deadline)

    def pause(self, attempt: int, deadline: Deadline) -> None:
        """Waits before a request is sent once more.

        Raises:
            DeadlineExceeded: the deadline passed.
        """
        remaining = deadline.remaining()
        seconds = backoff(attempt)
        self._closed.wait(seconds if remaining is None else min(seconds, remaining))
        if remaining is not None and seconds >= remaining:
            raise DeadlineExceeded(TOO_LATE)

    def close(self, wait: bool = True) -> None:
        """Ends the stream; whoever waits gets `Cancelled`."""
        self._closed.set()
        with self._lock:
            waiters, thread, call = self._mux.give_up(), self._thread, self._call
            if self._feed is not None:
                self._feed.end()
            self._room.notify_all()
        _fail(waiters, Cancelled(CLOSED))
        if call is not None:
            call.cancel()
        if wait and thread is not None and thread is not current_thread():
            thread.join()

    def _wait_for_room(self, deadline: Deadline) -> None:
        if not self._mux.has_room and not self._closed.is_set():
            ready = self._room.wait_for(
                lambda: self._mux.has_room or self._closed.is_set(), deadline.remaining()
            )
            if not ready:
                raise DeadlineExceeded(f"{TOO_LATE}: too many requests are pending")
        if self._closed.is_set():
            raise Cancelled(CLOSED)

    def _idle_feed(self) -> _Feed | None:
        """The feed that is to be kicked, so that it sends what was added; starts our thread if need be."""
        feed = self._feed
        if feed is None and self._thread is None:
            self._thread = Thread(target=self._run, name="penstock-stream", daemon=True)
            self._thread.start()
        if feed is None or not feed.idle:
            return None
        feed.idle = False
        return feed

    def _wait(self, waiter: _Waiter, deadline: Deadline) -> Any:
        try:
            remaining = deadline.remaining()
            answered = waiter.answered.acquire(timeout=-1 if remaining is None else remaining)
        except BaseException:  # such as KeyboardInterrupt
            self._abandon(waiter)
            raise
        if not answered:
            self._abandon(waiter)
            raise DeadlineExceeded(TOO_LATE)
        if isinstance(waiter.outcome, Exception):
            raise waiter.outcome
        return waiter.outcome

    def _abandon(self, waiter: _Waiter) -> None:
        with self._lock:
            waiter.abandoned = True
            self._mux.abandoned = True

    def _run(self) -> None:
        """Keeps a stream open as long as there is anything to send: the work of our own thread."""
        failures = 0
        while self._goes_on():
            error = self._connect()
            if error is None:
                failures = 0
                self._serve()
                continue
            failures += 1
            if failures < OPENINGS:
                self._closed.wait(backoff(failures))
                continue
            failures = 0
            with self._lock:
                waiters = self._mux.give_up()
                self._room.notify_all()
            _fail(waiters, error)

    def _goes_on(self) -> bool:
        with self._lock:
            if self._mux.has_queued and not self._closed.is_set():
                return True
            self._thread = None
            return False

    def _connect(self) -> PenstockError | None:
        try:
            self._probe()
        except PenstockError as error:
            return error
        except ValueError as error:  # the channel is closed
            return Cancelled(str(error))
        return None

    def _serve(self) -> None:
        """Runs one stream, from its opening to its end."""
        feed = _Feed(self._lock, self._mux, self._room)
        with self._lock:
            if self._closed.is_set():
                return
            self._feed = feed
            self._call = self._open(feed, lambda data: self._deliver(feed, data))
        ended = PenstockError("the server ended the stream")
        try:
            for _ in self._call:
                if feed.fault is not None:
                    break
        except grpc.RpcError as error:
            ended = from_call(error)
        self._call.cancel()
        with self._lock:
            self._feed = None
            feed.end()
            waiters = self._mux.broken()
            self._room.notify_all()
        _fail(waiters, lost(feed.fault or ended))

    def _deliver(self, feed: _Feed, data: bytes) -> bytes:
        """Hands out what a message of the server holds. gRPC must get something back, and no exception."""
        settled: Settled = []
        with self._lock:
            if not feed.over:
                try:
                    self._mux.receive(data, settled)
                except PenstockError as error:
                    feed.fault = error
                if self._mux.has_queued:
                    feed.wake()
                self._room.notify_all()
        for waiter, outcome in settled:
            waiter.settle(outcome)
        return data


def _fail(waiters: list[_Waiter], error: PenstockError | Unsupported) -> None:
    for waiter in waiters:
        waiter.settle(error.again())
