"""The fast road: the transport contract straight on grpcio's completion queue.

grpcio's own synchronous server (`grpc/_server.py`) is written on the same module, `grpc._cython.cygrpc`,
and so uses the same few names; but it hands every call to a thread. Here one thread takes the events and
calls their tags, plain functions, and any thread may start operations. Nothing waits, so one thread
serves any number of calls.

The module is private to grpcio. Three things keep that honest: only this file and `reactor_calls.py` import
it, `self_test.py` tries it before a server relies on it, and the tests run on several releases of grpcio.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
from grpc._cython import cygrpc as core
from typing_extensions import override

from penstock.transport.call import (
    BROKEN,
    NO_MESSAGE,
    STOPPING,
    IdleWork,
    Limits,
    Methods,
    Status,
    Transport,
    channel_arguments,
    listening_failed,
)
from penstock.transport.reactor_calls import ReactorCall, by_monotonic_clock, refuse, text

CALLS_ASKED_FOR = 128  # arrivals that core may hand over before we ask again
EMPTY_POLLS = 2
"""So many times nothing must be ready before a turn ends. A poll that says so may just have read from a
connection what the next one tells of: with 1, the calls of four connections came in four turns, and so ran
in four batches (32 in flight: 8 rows a batch and 44 µs of CPU a call, with 2 all 31 and 37 µs)."""
ALONE_BEFORE = 8
"""A message is answered before further events are taken if it came alone and so many before it did. With 0,
four callers with a connection each were answered one by one, at 172 µs of CPU a call instead of 78."""
CANCELLATION_SECONDS = 0.001  # how long after the end of a client's messages its going away may be told
WATCH_SECONDS = 0.02  # how long a call may be unwatched while the thread is busy; twice that at most
EVENTS_A_TURN = 256  # taken before idle work gets its turn even under a flood of events
SHUTDOWN_SECONDS = 5.0
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
        self._young: set[ReactorCall] = set()  # unary calls that are neither watched nor answered
        self._old: set[ReactorCall] = set()  # the same, from before the last sweep
        self._ending: list[ReactorCall] = []  # calls from which nothing more comes
        self._sweep_at = 0.0
        self._messages = 0  # in this turn
        self._alone = 0  # messages in a row that came alone
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
            # Calls that are on their way are told that the server stops; cancelled, they would not know.
            self._thread.join(0.0 if self._in_flight else GRACE_SECONDS)
        with self._lock:
            if not self._destroyed:
                self._server.cancel_all_calls()
        if threading.current_thread() is not self._thread:
            self._thread.join(SHUTDOWN_SECONDS)

    @property
    @override
    def polling_thread(self) -> int | None:
        return self._thread.ident

    def message_taken(self) -> None:
        """Notes that a message has been handled: if it came alone, as did others before, it waits for none.

        That no other call is known does not make it alone: others may lie unread in their connections. So
        those before it must have been alone when all was looked through, and now and then it is made sure of.
        """
        self._messages += 1
        if self._in_flight > 1 or self._messages > 1:
            self._alone = 0
            return
        self._alone += 1
        if self._alone == 2 * ALONE_BEFORE:
            self._alone = ALONE_BEFORE
        elif self._alone > ALONE_BEFORE:
            self.hurry()

    def nothing_more_comes(self, call: ReactorCall) -> None:
        """Notes that a client sends nothing more.

        So it looks when a client has finished sending, and as well just before its going away is told. Which
        it is shows in the next turn, which waits a moment for that.
        """
        self._ending.append(call)

    def when_nothing_came(self) -> Status:
        """How a unary call ends whose message has not come; when calls are cancelled, it looks the same."""
        return STOPPING if self._stopping else NO_MESSAGE

    def call_opened(self, call: ReactorCall) -> set[ReactorCall]:
        """Counts a call that has begun.

        Returns:
            Where the call is kept until it is watched or answered: from there it takes itself out.
        """
        self._in_flight += 1
        self._young.add(call)
        return self._young

    def call_closed(self) -> None:
        """Counts a call that is over."""
        self._in_flight -= 1

    def _start(self) -> None:
        self._server.start()
        self._started = True
        self._thread.start()

    def _watch(self, waits: bool) -> None:
        """Watches calls that were not answered soon: all if the thread is about to wait, else old ones."""
        now = time.monotonic()
        if not waits and now < self._sweep_at:
            return
        for call in (*self._old, *(self._young if waits else ())):
            call.watch()
        self._old, self._young = (set() if waits else self._young), set()
        self._sweep_at = now + WATCH_SECONDS

    def _ask_for_a_call(self) -> None:
        try:  # noqa: SIM105 - contextlib.suppress costs as much as the rest of this
            self._server.request_call(self._completions, self._completions, self._arrived)
        except ValueError:
            pass  # so says grpcio of a server that is shutting down

    def _server_gone(self, event: Any) -> None:
        self._gone = True

    def _serve(self) -> None:
        """Takes events in turns until the server is gone and every handler knows."""
        poll, more = self._completions.poll, False
        while not self._gone or self._in_flight:
            ending, self._messages = len(self._ending), 0
            # No event is kept in a variable here: while the next is waited for it would keep its call.
            all_taken = self._take_events(self._first_event(more, bool(ending)))
            if all_taken and ending:
                self._tell_half_closed(ending)
            more = self._do_idle_work() or not all_taken
            if self._young or self._old:
                self._watch(waits=not more)
        with self._lock:  # not while close() is still at it
            self._server.destroy()
            self._destroyed = True
        self._completions.shutdown()
        while poll().completion_type != SHUTDOWN:
            pass  # ends of operations that nobody waits for

    def _first_event(self, more: bool, ending: bool) -> Any:
        """What begins the next turn: at once if more work waits, soon if the end of calls is to be told."""
        if more:
            return self._completions.poll(deadline=0)
        return self._completions.poll(deadline=time.time() + CANCELLATION_SECONDS if ending else None)

    def _take_events(self, event: Any) -> bool:
        """Takes `event` and others that are ready.

        Returns:
            Whether it took all.
        """
        poll, taken, empty = self._completions.poll, 0, 0
        while empty < EMPTY_POLLS:
            if event.completion_type == TIMEOUT:
                empty += 1
            else:
                empty = 0
                taken += 1
                try:
                    event.tag(event)
                except Exception as error:
                    self._failed_at(event.tag, error)
                if self._hurried or taken == EVENTS_A_TURN:
                    self._hurried = False
                    return False
            if self._alone > ALONE_BEFORE and not self._young and not self._ending:
                return True  # what is alone has been answered, and nobody is expected
            if empty < EMPTY_POLLS:
                event = poll(deadline=0)
        return True

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

    def _do_idle_work(self) -> bool:
        try:
            return self._idle()
        except Exception as error:
            self.report(error)
            return False

    def _arrived(self, event: Any) -> None:
        if not event.success:  # the server is shutting down: this is the waiting request coming back
            return
        self._ask_for_a_call()
        details = event.call_details
        name, method = self._by_wire_name.get(details.method) or (text(details.method, "replace"), None)
        refusal = STOPPING if self._stopping else self.why_not(method, name)
        if method is None or refusal is not None:
            refuse(event.call, refusal or BROKEN)
            return
        ReactorCall(name, method.kind, event, by_monotonic_clock(details.deadline), self).open(method.handler)
