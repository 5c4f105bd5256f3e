"""The send buffer of a stream: collects results while a message is being sent, and sends them in the next.

Nothing is delayed to collect more. A message grows only while the message before it has not left yet.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

SMALL_BYTES = 1024
"""Answers of up to this size do not count towards the bounds of memory: a call itself takes as much."""
SMALL_OF_MANY_BYTES = 256
"""Nor do several that are sent as one, if they have up to this size on average. How many of them wait is
limited for each stream."""
MESSAGE_BYTES = 1_048_576
"""Largest message that is joined from several parts: clients reject more than 4 MiB by default."""


def large_bytes(parts: Iterable[tuple[bytes, int]]) -> int:
    """The bytes of those parts that count as large, each given with the number of its answers."""
    size = 0
    for part, count in parts:
        if len(part) > SMALL_BYTES and len(part) > SMALL_OF_MANY_BYTES * count:
            size += len(part)
    return size


class SendBuffer:
    """Sends serialized parts, joined into messages, one message at a time.

    Parts are serialized protobuf messages of one type with a repeated field. Their concatenation is the
    message that holds all their elements: the protobuf encoding defines it so.

    Args:
        send: starts to send a message; `sent` is called when it has left.
        message_bytes: the largest message that is joined from several parts; 0 joins none.

    Attributes:
        large_bytes: in the message that is being sent or was sent last, the bytes of parts that count as
            large; see `penstock.protocols.answers`.
    """

    def __init__(self, send: Callable[[bytes], None], message_bytes: int = MESSAGE_BYTES) -> None:
        self._send = send
        self._message_bytes = message_bytes
        self._parts: deque[tuple[bytes, int]] = deque()
        self._lock = threading.Lock()
        self._under_way = 0
        self.large_bytes = 0

    def put(self, part: bytes, count: int = 1) -> None:
        """Adds a part with this number of elements; the next `flush` or `sent` sends it."""
        self._parts.append((part, count))

    def flush(self) -> int:
        """Sends what was collected, unless a message is being sent.

        Returns:
            The number of elements in that message; 0 if none was sent.
        """
        message = self.take()
        if message is None:
            return 0
        count = self._under_way
        self._send(message)
        return count

    def take(self) -> bytes | None:
        """Takes what was collected, to be sent now; None if nothing was, or a message is being sent."""
        with self._lock:
            if self._under_way or not self._parts:
                return None
            message, self._under_way = self._next()
        return message

    def is_waiting(self) -> bool:
        """Whether anything was collected. Needs no lock, since code that adds a part flushes afterwards."""
        return bool(self._parts)

    def sent(self) -> int:
        """The message that was being sent has left.

        Returns:
            The number of elements in the message that has left.
        """
        with self._lock:
            count, self._under_way = self._under_way, 0
        return count

    def is_empty(self) -> bool:
        """Whether nothing waits and nothing is being sent."""
        with self._lock:
            return not self._parts and not self._under_way

    def _next(self) -> tuple[bytes, int]:
        parts = self._parts
        first = parts.popleft()
        taken, size = [first], len(first[0])
        while parts and (size := size + len(parts[0][0])) <= self._message_bytes:
            taken.append(parts.popleft())
        self.large_bytes = large_bytes(taken)
        if len(taken) == 1:
            return first
        return b"".join([part for part, _ in taken]), sum([count for _, count in taken])
