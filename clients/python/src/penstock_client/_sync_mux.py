"""The shared stream of a threaded client: many `predict` calls over one PredictStream call.

It uses four kinds of threads. Callers add requests and wait, each at its own lock. gRPC's sending thread
takes the added requests. gRPC's receiving thread delivers the answers, from inside gRPC's deserializer: this
saves a thread switch per answer compared with reading the call. One thread of our own opens streams, reads
them (only to keep them going), and cleans up after them.
"""

from __future__ import annotations

from _thread import LockType, allocate_lock
from collections.abc import Callable, Iterator
from functools import partial
from queue import SimpleQueue
from threading import Condition, Event, Lock, Thread, current_thread
from typing import Any
from weakref import finalize

import grpc

from penstock_client import _health
from penstock_client._deadline import FULL, UNOPENED, Deadline
from penstock_client._errors import (
    CLOSED,
    Cancelled,
    PenstockError,
    from_call,
    not_run,
    without_stream,
)
from penstock_client._local import Local
from penstock_client._lost_ends import end_with_status
from penstock_client._merge import Member
from penstock_client._messages import BY_ID, COMPLETION_ORDER
from penstock_client._mux import OPENINGS, Multiplexer, Settled, Unsupported, backoff, lost
from penstock_client._requests import PREDICT_STREAM
from penstock_client._sync_calls import reach, state_of

Open = Callable[[Iterator[bytes], Callable[[bytes], bytes]], Any]
"""Begins a call of PredictStream with these requests and this deserializer."""

_UNKNOWN = grpc.ChannelConnectivity.SHUTDOWN
_sharing = Lock()


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
    """The iterator of messages that gRPC's sending thread reads."""

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
                self._room.notify_all()
                if message is not None:
                    return message
            self._woken.get()

    def wake(self) -> None:
        """Wakes the sending thread, to send something or to end. Call it with the lock held."""
        if self.idle:
            self.idle = False
            self.kick()

    def kick(self) -> None:
        """Makes the thread check again. The caller has set `idle` to False before."""
        self._woken.put(None)

    def end(self) -> None:
        """Ends the messages. Call it with the lock held."""
        self.over = True
        self.wake()


class SharedStream(Local):
    """The shared stream: one at a time, opened when it is first needed, and again after it was lost.

    Args:
        open_call: begins a call.
        probe: makes a small unary call first, so that a stream is opened only if there is a server: a
            request passed to a failed stream may have reached the server.
        state: tells the state of the channel, within a second.
        limit: most pending requests.
        merging: whether compatible requests are merged.
    """

    def __init__(
        self,
        open_call: Open,
        probe: Callable[[], None],
        state: Callable[[], grpc.ChannelConnectivity],
        limit: int,
        merging: bool,
    ) -> None:
        super().__init__()
        self._open = open_call
        self._probe = probe
        self._state = state
        self._mux = Multiplexer(limit, merging)
        self._lock = Lock()
        self._room = Condition(self._lock)
        self._feed: _Feed | None = None
        self._call: Any = None
        self._thread: Thread | None = None
        self._failed: PenstockError | None = None  # the error of the last attempt to open a stream
        self._closed = Event()

    @property
    def has_room(self) -> bool:
        """Whether a request may be sent at once."""
        return self._mux.has_room

    def room(self, deadline: Deadline) -> None:
        """Waits for a free slot; another caller may still take it first.

        Raises:
            DeadlineExceeded: the deadline passed first.
            Unavailable: the deadline passed while there was no connection.
            Cancelled: the client was closed.
        """
        with self._lock:
            self._wait_for_room(deadline)

    def send(self, parts: list[bytes], deadline: Deadline) -> Any:
        """Sends a request and returns the serialized answer.

        Raises:
            PenstockError: the request failed.
        """
        waiter = _Waiter()
        with self._lock:
            self._wait_for_room(deadline)
            self._mux.add(waiter, parts)
            feed = self._idle_feed()
        if feed is not None:  # without the lock, so that its thread does not wait for it
            feed.kick()
        return self._wait(waiter, deadline)

    def send_member(self, member: Member, deadline: Deadline) -> Any:
        """Sends a request that may be merged with others, and returns the prediction, or the answer.

        Raises:
            PenstockError: the request failed.
        """
        member.waiter = waiter = _Waiter()
        with self._lock:
            self._wait_for_room(deadline)
            self._mux.add_member(member)
            feed = self._idle_feed()
        if feed is not None:
            feed.kick()
        return self._wait(waiter, deadline)

    def close(self, wait: bool = True) -> None:
        """Ends the stream; callers that wait get `Cancelled`. Nothing in a forked process."""
        if self._is_forked:
            return
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
                is_open, failed = self._feed is not None, self._failed
                self._lock.release()
                try:
                    raise self._too_late(deadline, is_open, failed, FULL)
                finally:
                    self._lock.acquire()
        if self._closed.is_set():
            raise Cancelled(CLOSED)

    def _idle_feed(self) -> _Feed | None:
        """The feed to wake for the added requests, or None; starts our thread if necessary."""
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
            self._abandon(waiter, deadline)
            raise
        if not answered:
            raise self._abandon(waiter, deadline)
        if isinstance(waiter.outcome, Exception):
            raise waiter.outcome
        return waiter.outcome

    def _abandon(self, waiter: _Waiter, deadline: Deadline) -> PenstockError:
        """A caller has stopped waiting: its request is dropped or cancelled; returns a timeout's error."""
        with self._lock:
            waiter.abandoned = True
            self._mux.abandoned = True
            if self._feed is not None:
                self._feed.wake()
            is_open, failed = self._feed is not None, self._failed
        return self._too_late(deadline, is_open, failed)

    def _too_late(
        self, deadline: Deadline, is_open: bool, failed: PenstockError | None, why: str = ""
    ) -> PenstockError:
        """The error of a request whose deadline has passed; without a stream, nothing pending was sent.

        Call it without the lock, as it asks for the channel's state. `is_open` says whether there was a
        stream, and `failed` is the error of the last attempt to open one.
        """
        if is_open:
            return deadline.passed(why)
        error = deadline.passed(why or UNOPENED)
        return without_stream(error, failed, self._state() if failed is None else _UNKNOWN)

    def _run(self) -> None:
        """Keeps a stream open while there is something to send: the work of our own thread."""
        failures = 0
        while self._goes_on():
            error = self._failed = self._connect()
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
            _fail(waiters, not_run(error))

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
        end_with_status(self._call)
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
        """Delivers the answers in a message of the server. It must return a value, and never raise."""
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


def share(client: Any, channel: Any, metadata: tuple[Any, ...], limit: int, merging: bool) -> SharedStream:
    """Makes the shared stream of a client, unless another thread has made it.

    Args:
        client: the client, whose `_shared` it becomes.
        channel: of the client.
        metadata: of every call.
        limit: most pending requests.
        merging: whether compatible requests are merged.
    """
    check = channel.unary_unary(_health.METHOD, _health.encode, _health.decode)

    # Nothing here refers to the client, so that it is closed when its last reference is gone.
    def open_call(requests: Iterator[bytes], deserializer: Callable[[bytes], bytes]) -> Any:
        method = channel.stream_stream(PREDICT_STREAM, None, deserializer)
        return method(requests, metadata=(*metadata, COMPLETION_ORDER, BY_ID))

    with _sharing:
        if client._shared is None:
            probe = partial(reach, channel, check, client._get_model, metadata)
            stream = SharedStream(open_call, probe, partial(state_of, channel), limit, merging)
            finalize(client, stream.close, wait=False)
            client._shared = stream
        shared: SharedStream = client._shared
        return shared
