"""What both transports do in turns, so that no caller's work stops anyone else's.

In a turn a transport takes the events that are ready, and hands messages to handlers as they come. Messages
of streams are handled for a moment only: the others wait, and their streams are not read, until all events
have been taken and gRPC has read its sockets. Then they have their own turn, and idle work ends the turn.
gRPC's core reads sockets only while no event is ready, and the next message of a fast stream is always ready.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Protocol, TypeVar

EVENTS_A_TURN = 256  # taken before idle work gets its turn even under a flood of events
TURN_SECONDS = 0.016
"""After this time, too. Of four callers whose messages were much work to reject, 80 were rejected in a turn,
and a request that was ready for its run waited for 70 ms. With 4 ms, 256 calls in flight took 5 % more CPU a
call: batches were smaller."""
STREAM_SECONDS = 0.002
"""For this long in a turn, messages of streams are handled as they come. The rest waits, in order. Without
this, 200 streams that sent as fast as they could kept new calls unread for seconds."""


class TakesMessages(Protocol):
    """A call of a stream."""

    def take(self, message: bytes) -> None:
        """Handles a message."""

    def fail(self, error: Exception) -> None:
        """Ends the call because its handler raised an exception."""


Stream = TypeVar("Stream", bound=TakesMessages)


def take_up(later: deque[tuple[Stream, bytes]], most: int) -> Iterator[None]:
    """Handles messages of streams that waited, for a while, the oldest first; yields after each.

    Args:
        later: the messages that wait; those that are handled are taken out.
        most: how many are handled at most.
    """
    end = time.monotonic() + STREAM_SECONDS
    for _ in range(min(most, len(later))):
        call, message = later.popleft()
        try:
            call.take(message)
        except Exception as error:
            call.fail(error)
        yield
        if time.monotonic() > end:
            return
