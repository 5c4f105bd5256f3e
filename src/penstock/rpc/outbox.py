"""What a stream has to send: whatever gathers while one message is under way leaves in the next.

Nothing is held back to gather more. A message grows only because the one before it has not left yet.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

MESSAGE_BYTES = 1_048_576
"""No message of several parts is larger than this: clients refuse more than 4 MiB by default."""


class Outbox:
    """Sends serialized parts, joined into messages, one message at a time.

    Parts are serialized protobuf messages of one type with a repeated field. Their concatenation is the
    message that holds all their elements: the protobuf encoding defines it so.

    Args:
        send: starts to send a message; its end is told by `sent`.
        message_bytes: the largest message that is joined from several parts; 0 joins none.
    """

    def __init__(self, send: Callable[[bytes], None], message_bytes: int = MESSAGE_BYTES) -> None:
        self._send = send
        self._message_bytes = message_bytes
        self._parts: deque[tuple[bytes, int]] = deque()
        self._lock = threading.Lock()
        self._under_way = 0

    def put(self, part: bytes, count: int = 1) -> None:
        """Adds a part with so many elements; it leaves with the next `flush` or `sent`."""
        self._parts.append((part, count))

    def flush(self) -> int:
        """Sends what has gathered, unless a message is under way.

        Returns:
            How many elements that message holds; 0 where none was sent.
        """
        with self._lock:
            if self._under_way or not self._parts:
                return 0
            message, count = self._next()
            self._under_way = count
        self._send(message)
        return count

    def sent(self) -> int:
        """The message that was under way has left.

        Returns:
            How many elements it held.
        """
        with self._lock:
            count, self._under_way = self._under_way, 0
        return count

    def is_empty(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        with self._lock:
            return not self._parts and not self._under_way

    def _next(self) -> tuple[bytes, int]:
        part, count = self._parts.popleft()
        taken, size = [part], len(part)
        while self._parts and (size := size + len(self._parts[0][0])) <= self._message_bytes:
            part, more = self._parts.popleft()
            taken.append(part)
            count += more
        return (taken[0] if len(taken) == 1 else b"".join(taken)), count
