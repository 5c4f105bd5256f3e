"""The fast transport: the contract of `call` directly on grpcio's completion queue.

grpcio's own synchronous server (`grpc/_server.py`) is written on the same module, `grpc._cython.cygrpc`,
and uses the same few names, but gives every call a thread. Here one thread takes the events and calls their
tags, which are plain functions; any thread may start operations. Nothing waits, so one thread serves any
number of calls.

The module is private to grpcio and may change in any release. So only this file and `reactor_calls.py` import
it, `self_test.py` tries it before a server relies on it, and the tests run on several releases of grpcio.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import grpc
from grpc._cython import cygrpc as core
from typing_extensions import override

from penstock.transport.grpc.call import (
    BROKEN,
    HELD_UP_SECONDS,
    NO_MESSAGE,
    STOPPING,
    IdleWork,
    Limits,
    Methods,
    Status,
    Transport,
    listening_failed,
)
from penstock.transport.grpc.channel_arguments import channel_arguments
from penstock.transport.grpc.reactor_calls import NEVER, ReactorCall, by_monotonic_clock, refuse, text
from penstock.transport.grpc.turns import EVENTS_A_TURN, STREAM_SECONDS, TURN_SECONDS, take_up

CALLS_ASKED_FOR = 128  # arrivals that core may hand over before we ask again
EMPTY_POLLS = 2
"""A turn ends after this number of polls that find no event. Such a poll may have read bytes of which the
next one gives the event: with 1, the calls of four connections came in four turns, and so ran in four batches
(32 in flight: 8 rows a batch and 44 µs of CPU a call, with 2 all 31 and 37 µs)."""
ALONE_BEFORE = 8
"""A message is answered before further events are taken if it came alone, as did this number before it. With
0, four callers with a connection each were answered one by one, at 172 µs of CPU a call instead of 78."""
CHECKED_AGAIN = 2 * ALONE_BEFORE  # after this number, all events are taken once more before the answer
CANCELLATION_SECONDS = 0.001  # a cancellation may become known this long after the end of the messages
WATCH_SECONDS = 0.02  # a call may be unwatched for this time while the thread is busy; twice that at most
TIMED = 8  # the time is looked at after this number of events
MORE_POLLS = 32
"""At most this many more polls without an event end a turn while messages of streams wait. Each poll reads
one connection, so there is one poll for each connection with streams, and one for each unary call in flight.
An empty poll takes 2 to 3 µs: with one for each stream, 64 streams on 8 connections paid four a message."""
SHUTDOWN_SECONDS = 5.0
RESPONSE_POLL_SECONDS = 0.01
GRACE_SECONDS = 0.5  # for calls that were on their way when the server was shut down
TIMEOUT = core.CompletionType.queue_timeout
SHUTDOWN = core.CompletionType.queue_shutdown


class Reactor(Transport):
    """One thread on one completion queue."""

    name = "reactor"

    def __init__(
        self, methods: Methods, limits: Limits, idle: IdleWork, failed: Callable[[BaseException], None]
    ) -> None:
        super().__init__(methods, limits, idle, failed)
        self._by_wire_name = {name.encode(): (name, method) for name, method in methods.items()}
        self._started = self._stopping = self._gone = self._destroyed = False
        self._lock = threading.Lock()  # starting and closing come one after the other
        # Unary calls that are neither watched nor answered: opened since the last sweep, and before.
        self.unwatched: set[ReactorCall] = set()
        self._unwatched_before: set[ReactorCall] = set()
        self.unread: set[ReactorCall] = set()  # watched unary calls whose message has not come
        self.refused: list[tuple[ReactorCall, Status]] = []  # see `Events`
        self.serving = 0
        self._ending: list[ReactorCall] = []  # calls whose client sends no further messages
        self._sweep_at = 0.0
        self._messages = self._of_streams = 0  # in this turn
        self._alone = 0  # messages in a row that came alone
        self._streams: Counter[str] = Counter()  # those in flight, by the far end of their connection
        self._streams_in_flight = 0
        self._turn, self._waits = 0, False  # counts turns; whether the thread waits for an event
        self._taken = 0  # events since streams had their turn
        self._later: deque[tuple[ReactorCall, bytes]] = deque()  # messages of streams that wait for it
        self.streams_until = 0.0  # see `Events`
        self.streams_wait = False
        self._completions = core.CompletionQueue()
        self._server = core.Server(channel_arguments(limits), False)
        self._server.register_completion_queue(self._completions)
        self._thread = threading.Thread(target=self._serve, name="penstock-reactor", daemon=True)

    @override
    def bind(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        secret = () if credentials is None else (credentials._credentials,)
        try:
            port = self._server.add_http2_port(address.encode(), *secret)
        except RuntimeError:
            port = 0
        if not port:
            raise listening_failed(address)
        return int(port)

    @override
    def start(self) -> None:
        with self._lock:
            self._start()
        for _ in range(CALLS_ASKED_FOR):
            self._ask_for_a_call()

    @override
    def close(self) -> None:
        with self._lock:
            if not self._stopping:
                self._stopping = True
                if not self._started:  # core wants a server to have run before it is shut down
                    self._start()
                self._server.shutdown(self._completions, self._server_gone)
        if threading.current_thread() is not self._thread:
            # Calls that are on their way get UNAVAILABLE; if cancelled, their clients would not know why.
            self._thread.join(0.0 if self.in_flight else GRACE_SECONDS)
        with self._lock:
            if not self._destroyed:
                self._server.cancel_all_calls()
        if threading.current_thread() is not self._thread:
            self._thread.join(SHUTDOWN_SECONDS)

    @override
    def end_unread(self) -> None:
        for each in (*self.unread, *self.unwatched, *self._unwatched_before):
            each.end_unread(STOPPING)

    @property
    @override
    def polling_thread(self) -> int | None:
        return self._thread.ident

    @override
    def is_responsive(self, seconds: float = HELD_UP_SECONDS) -> bool:
        end, turn = time.monotonic() + seconds, self._turn
        while not self._waits and self._turn == turn and self._thread.is_alive():
            if time.monotonic() > end:
                return False
            time.sleep(RESPONSE_POLL_SECONDS)
        return True

    def message_taken(self) -> None:
        """Notes that a message was handled. If it came alone, as did others before, it is answered at once.

        Even if no other call is known, others may wait unread in their connections. So it counts as alone
        only if the messages before it were alone after all events had been taken, and this is checked again
        now and then.
        """
        self._messages = messages = self._messages + 1
        if messages > 1 or self.in_flight > 1:
            self._alone = 0
            return
        self._alone = alone = self._alone + 1
        if alone == CHECKED_AGAIN:
            self._alone = ALONE_BEFORE
        elif alone > ALONE_BEFORE:
            self._flush_due = True

    def begin_streams(self) -> None:
        """Begins the streams' time in this turn."""
        self.streams_until = time.monotonic() + STREAM_SECONDS

    def stream_message_taken(self) -> None:
        """Notes that a message of a stream was handled; if the streams' time is over, the next ones wait."""
        if self.in_flight > 1:  # as `message_taken`, but without a call
            self._messages += 1
            self._alone = 0
        else:
            self.message_taken()
        self._of_streams += 1
        if time.monotonic() > self.streams_until:
            self.streams_wait = True

    def handle_later(self, call: ReactorCall, message: bytes) -> None:
        """Keeps a stream's message until the streams' next turn. Its stream is not read meanwhile."""
        self._later.append((call, message))

    def nothing_more_comes(self, call: ReactorCall) -> None:
        """Notes that a client sends no further messages.

        Either it has finished sending, or it has disconnected and that is not known yet. The next turn waits
        a moment to find out which.
        """
        self._ending.append(call)

    def when_nothing_came(self) -> Status:
        """How a unary call ends whose message has not come; when calls are cancelled, it looks the same."""
        return STOPPING if self._stopping else NO_MESSAGE

    def stream_opened(self, peer: str) -> None:
        """Counts a stream that has begun, by the far end of its connection."""
        self._streams[peer] += 1
        self._streams_in_flight += 1

    def stream_closed(self, peer: str) -> None:
        """Counts a stream that has ended."""
        self._streams_in_flight -= 1
        self._streams[peer] -= 1
        if not self._streams[peer]:
            del self._streams[peer]

    def _start(self) -> None:
        self._server.start()
        self._started = True
        self._thread.start()

    def _watch(self, waits: bool) -> None:
        """Watches calls that are not answered yet: all if the thread is about to wait, else older ones."""
        now = time.monotonic()
        if not waits and now < self._sweep_at:
            return
        for call in (*self._unwatched_before, *(self.unwatched if waits else ())):
            try:
                call.watch()
            except Exception as error:
                call.fail(error)
        self._unwatched_before, self.unwatched = (set() if waits else self.unwatched), set()
        self._sweep_at = now + WATCH_SECONDS

    def _ask_for_a_call(self) -> None:
        try:  # noqa: SIM105 - contextlib.suppress costs as much as the rest of this
            self._server.request_call(self._completions, self._completions, self._arrived)
        except ValueError:
            pass  # the server is shutting down

    def _server_gone(self, event: Any) -> None:
        self._gone = True

    def _serve(self) -> None:
        """Takes events in turns until the server is gone and every handler has been told."""
        poll, more, puts_off = self._completions.poll, False, False
        self.serving = threading.get_ident()
        while not self._gone or self.in_flight:
            ending, self._messages, self._of_streams = len(self._ending), 0, 0
            self._turn += 1
            # No event is kept in a variable here: it would keep its call in memory until the next one comes.
            if more or ending:
                all_taken = self._take_events(self._event_beside(more))
            else:
                self._waits = True
                all_taken = self._take_events(poll())
            if all_taken and ending:
                self._tell_half_closed(ending)
            waited = bool(self._later)
            if waited and (all_taken or self._taken >= EVENTS_A_TURN):
                self._take_up_streams()
            elif all_taken:
                self._taken, self.streams_until, self.streams_wait = 0, 0.0, False
            # The next messages of streams that had to wait are ready: they belong into the same batch.
            puts_off = waited and not puts_off and self._messages == self._of_streams
            more = puts_off or self._do_idle_work() or not all_taken or bool(self._later)
            if self.unwatched or self._unwatched_before:
                self._watch(waits=not more)
        with self._lock:  # not while close() is still at it
            self._server.destroy()
            self._destroyed = True
        self._completions.shutdown()
        while poll().completion_type != SHUTDOWN:
            pass  # ends of operations that nothing waits for

    def _event_beside(self, more: bool) -> Any:
        """The next turn's first event: does not wait for it if work is left, and briefly if calls end."""
        return self._completions.poll(deadline=0 if more else time.time() + CANCELLATION_SECONDS)

    def _take_events(self, event: Any) -> bool:
        """Takes `event` and others that are ready.

        Returns:
            Whether it took all.
        """
        self._waits = False
        poll, taken, empty, end = self._completions.poll, 0, 0, time.monotonic() + TURN_SECONDS
        enough = EMPTY_POLLS + (self._more_polls() if self.streams_wait else 0)
        while True:
            if event.completion_type != TIMEOUT:
                empty = 0
                taken += 1
                try:
                    event.tag(event)
                except Exception as error:
                    self._failed_at(event.tag, error)
                enough_taken = not taken % TIMED and (taken >= EVENTS_A_TURN or time.monotonic() > end)
                if enough_taken or self._flush_due:
                    self._flush_due = False
                    # A message that came alone is answered here: another turn costs a tenth of its call.
                    if enough_taken or self._alone <= ALONE_BEFORE or self._do_idle_work():
                        self._taken += taken
                        return False
                    event = poll(deadline=0)  # the end of its call
                    continue
            else:
                empty += 1
                if empty == enough:
                    return True
            if self._alone > ALONE_BEFORE and not self.unwatched and not self._ending:
                return True  # the lone call has been answered, and no others are expected
            event = poll(deadline=0)

    def _more_polls(self) -> int:
        """How many connections may have something to read, as far as this is known."""
        unary = self.in_flight - self._streams_in_flight
        return min(unary + len(self._streams), MORE_POLLS)

    def _take_up_streams(self) -> None:
        """Gives streams their next turn: handles messages that waited, for a while, the oldest first."""
        for _ in take_up(self._later, len(self._later)):
            if self._flush_due:
                self._flush_due = False
                self._do_idle_work()
        self._taken, self.streams_until, self.streams_wait = 0, 0.0, bool(self._later)

    def _failed_at(self, tag: Callable[[Any], None], error: Exception) -> None:
        call = getattr(tag, "__self__", None)
        if isinstance(call, ReactorCall):
            call.fail(error)
        else:
            self.report(error)

    def _tell_half_closed(self, count: int) -> None:
        calls, self._ending = self._ending[:count], self._ending[count:]
        for call in calls:
            try:
                call.half_close()
            except Exception as error:
                call.fail(error)

    def _finish_refused(self) -> None:
        """Finishes the calls that were refused in this turn, one after the other.

        Each answer wakes a client that sleeps, which costs this thread about 10 µs. By the time of the second
        one it is awake.
        """
        refused, self.refused = self.refused, []
        for call, status in refused:
            try:
                call.finish(status)
            except Exception as error:
                call.fail(error)

    def _do_idle_work(self) -> bool:
        if self.refused:
            self._finish_refused()
        try:
            return self._idle()
        except Exception as error:
            self.report(error)
            return False

    def _arrived(self, event: Any) -> None:
        if not event.success:  # the server is shutting down: this is the waiting request coming back
            return
        # Written out, as in `ReactorCall`: a call of a function costs a lone call more than what most do.
        try:  # noqa: SIM105 - as in `_ask_for_a_call`
            self._server.request_call(self._completions, self._completions, self._arrived)
        except ValueError:
            pass
        details = event.call_details
        name, method = self._by_wire_name.get(details.method) or (text(details.method, "replace"), None)
        is_full = self.in_flight >= self._limits.calls
        if method is None or is_full or self._refusal is not None or self._stopping:
            refusal = STOPPING if self._stopping else self.why_not(method, name)
            if method is None or refusal is not None:
                refuse(event.call, refusal or BROKEN)
                return
        until = details.deadline
        deadline = math.inf if until is None or until > NEVER else by_monotonic_clock(until)
        ReactorCall(name, method.kind, event, deadline, self).open(method.handler)
