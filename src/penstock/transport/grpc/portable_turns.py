"""The turns of the portable transport: when it does what on its event loop.

A turn begins with an event and ends with idle work, once no further events come: see
`penstock.transport.grpc.turns`. All else, such as what grpc.aio itself does, comes in between.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from penstock.transport.grpc.call import IdleWork, Limits, Methods, Transport
from penstock.transport.grpc.portable_calls import StreamCall
from penstock.transport.grpc.portable_loop import new_loop
from penstock.transport.grpc.turns import EVENTS_A_TURN, STREAM_SECONDS, TURN_SECONDS, take_up

EMPTY_PASSES = 8
"""A turn ends after this number of passes of the loop in a row without an event. About as many passes lie
between two calls that wait in core, and between a call's arrival and its message, so with fewer nearly every
call ran in a batch of its own (32 in flight: 1.1 rows a batch and 268 µs of CPU a call, with 8 passes 23 rows
and 140 µs). A lone call pays 16 µs for it."""
STREAMS_A_TURN = 16
"""Messages of at most so many streams are handled in a turn, also if that takes less than `STREAM_SECONDS`:
each stream then sends its answers and is read again, which takes the loop 100 µs, five times as long as to
handle its message. Without this, a call beside 200 streams that sent as fast as they could waited for 60 to
250 ms (99th percentile), with it for 8 to 23 ms."""
READING_SECONDS = 0.0001
"""While work waits that was put off, a turn ends after so much time without an event. The loop sleeps
meanwhile: where grpc's own thread shares a core with it, that thread reads its sockets now or not at all."""
LOOKS = 16
"""The longest that such work waits, as a number of such times. They are counted, not timed: the time that
other processes, and the loop's own long passes, take must not end a turn before grpc's thread has run."""


class PortableTurns(Transport):
    """The part of the portable transport that has the event loop, and divides its time."""

    def __init__(
        self, methods: Methods, limits: Limits, idle: IdleWork, failed: Callable[[BaseException], None]
    ) -> None:
        super().__init__(methods, limits, idle, failed)
        self._loop, self._selector = new_loop()
        self._in_turn = False
        self._events = self._empty_passes = self._looks = 0  # in this turn; passes since the last event
        self._turn_until = 0.0  # when idle work gets its turn, even if more events are ready
        self._later: deque[tuple[StreamCall, bytes]] = deque()  # messages of streams that wait for their turn
        self._streams: set[StreamCall] = set()  # those of which a message was handled in this turn
        self._stream_seconds = 0.0  # how long that took

    def schedule_idle_work(self) -> None:
        """Notes an event that a handler was told of: the turn ends once no further events come."""
        self._events += 1
        self._empty_passes = 0
        if not self._in_turn:
            self._begin_turn()

    def stream_message(self, call: StreamCall, message: bytes) -> None:
        """Has a message of a stream handled: now, or later if the streams' time in this turn is over."""
        if not self._later and self._stream_seconds < STREAM_SECONDS:
            self._streams.add(call)
            if len(self._streams) <= STREAMS_A_TURN:
                began = time.monotonic()
                call.take(message)
                self._stream_seconds += time.monotonic() - began
                return
        self._later.append((call, message))
        if not self._in_turn:
            self._begin_turn()

    def _begin_turn(self, puts_off: bool = False) -> None:
        """Begins a turn.

        Args:
            puts_off: whether work waits that was put off until events have been taken.
        """
        self._in_turn = True
        self._events = self._empty_passes = self._looks = 0
        self._turn_until = time.monotonic() + TURN_SECONDS
        if puts_off:
            self._look_later()
        else:
            self._loop.call_soon(self._pass)

    def _pass(self) -> None:
        """Ends the turn if no event has come for some passes of the loop; else looks again in the next."""
        self._empty_passes += 1
        if self._later:
            self._look_later()
        elif self._empty_passes > EMPTY_PASSES or self._is_long():
            self._end_turn()
        else:
            self._loop.call_soon(self._pass)

    def _look_later(self) -> None:
        self._selector.found = False
        self._loop.call_later(READING_SECONDS, self._look)

    def _look(self) -> None:
        """Ends the turn if no event has come for a while; else looks again later."""
        self._looks += 1
        if not self._selector.found or self._looks >= LOOKS:
            self._end_turn()
            return
        if self._is_long():
            self._events, self._turn_until = 0, time.monotonic() + TURN_SECONDS
            self._do_idle_work()
        self._look_later()

    def _is_long(self) -> bool:
        """Whether so much has come in this turn that idle work is due."""
        return self._events >= EVENTS_A_TURN or time.monotonic() > self._turn_until

    def _end_turn(self) -> None:
        self._streams.clear()
        self._stream_seconds = 0.0
        for _ in take_up(self._later, STREAMS_A_TURN):
            pass
        self._in_turn = False  # first: an event that comes from here on begins the next turn
        more = self._do_idle_work()
        if (more or self._later) and not self._in_turn:
            self._begin_turn(puts_off=True)

    def _do_idle_work(self) -> bool:
        """Does idle work; returns whether more is left."""
        try:
            return self._idle()
        except Exception as error:
            self.report(error)
            return False
