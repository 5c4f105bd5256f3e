"""What gathers while a message is under way leaves in the next, once and in order."""

from __future__ import annotations

import random
import threading

import pytest

from penstock.protocols.send_buffer import MESSAGE_BYTES, SendBuffer, large_bytes


class Wire:
    """Takes messages, and leaves it to the test when they have left."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.box = SendBuffer(self.messages.append)


@pytest.fixture
def wire() -> Wire:
    return Wire()


def test_nothing_is_sent_before_a_flush(wire: Wire) -> None:
    wire.box.put(b"a")
    assert wire.messages == []
    assert not wire.box.is_empty()


def test_a_flush_sends_at_once(wire: Wire) -> None:
    wire.box.put(b"a")
    assert wire.box.flush() == 1
    assert wire.messages == [b"a"]


def test_an_empty_outbox_sends_nothing(wire: Wire) -> None:
    assert wire.box.flush() == 0
    assert wire.messages == []
    assert wire.box.is_empty()


def test_one_message_at_a_time_and_the_rest_together_in_order(wire: Wire) -> None:
    wire.box.put(b"a")
    wire.box.flush()
    for part in (b"b", b"c", b"d"):
        wire.box.put(part)
        assert wire.box.flush() == 0
    assert wire.messages == [b"a"]
    assert wire.box.sent() == 1
    assert wire.box.flush() == 3
    assert wire.messages == [b"a", b"bcd"]
    assert not wire.box.is_empty(), "it has not left yet"
    assert wire.box.sent() == 3
    assert wire.box.is_empty()


def test_a_lone_part_is_not_copied(wire: Wire) -> None:
    part = b"x" * 100
    wire.box.put(part)
    wire.box.flush()
    assert wire.messages[0] is part


def test_parts_of_no_bytes_count(wire: Wire) -> None:
    wire.box.put(b"")
    wire.box.put(b"")
    assert wire.box.flush() == 2
    assert wire.messages == [b""]


@pytest.mark.parametrize(
    ("sizes", "counts"),
    [
        ([MESSAGE_BYTES // 2] * 3, [2, 1]),
        ([MESSAGE_BYTES, 1], [1, 1]),
        ([1, MESSAGE_BYTES], [1, 1]),
        ([MESSAGE_BYTES - 1, 1, 1], [2, 1]),
        ([5 * MESSAGE_BYTES, 1, 1], [1, 2]),
        # Each of them is small enough for a client that takes 4 MiB; joined they were not.
        ([MESSAGE_BYTES - 1, 7 * MESSAGE_BYTES // 2], [1, 1]),
        ([1, 1, 4 * MESSAGE_BYTES, 1], [2, 1, 1]),
    ],
)
def test_messages_of_several_parts_are_bounded(wire: Wire, sizes: list[int], counts: list[int]) -> None:
    for size in sizes:
        wire.box.put(bytes(size))
    found = []
    while count := wire.box.flush():
        found.append(count)
        wire.box.sent()
    assert found == counts
    assert sum(map(len, wire.messages)) == sum(sizes)
    assert all(len(message) <= MESSAGE_BYTES or message in map(bytes, sizes) for message in wire.messages)


class Slow:
    """A wire on which every message is under way until another thread says that it has left."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.overlaps = 0
        self.box = SendBuffer(self._send)
        self._under_way = 0
        self._came = threading.Semaphore(0)

    def take_away(self, parts: int) -> None:
        """Tells of every message that it has left, and flushes, as a stream does."""
        while parts and self._came.acquire(timeout=20):
            self._under_way -= 1
            parts -= self.box.sent()
            self.box.flush()

    def _send(self, message: bytes) -> None:
        self.overlaps += self._under_way
        self._under_way += 1
        self.messages.append(message)
        self._came.release()


def test_nothing_is_lost_or_doubled_by_threads() -> None:
    slow, count, producers = Slow(), 2000, range(4)

    def produce(number: int) -> None:
        chance = random.Random(number)
        for index in range(count):
            slow.box.put(bytes([number]) + index.to_bytes(2, "big"))
            if chance.random() < 0.7:
                slow.box.flush()
        slow.box.flush()

    threads = [threading.Thread(target=produce, args=(number,)) for number in producers]
    threads.append(threading.Thread(target=slow.take_away, args=(count * len(producers),)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert slow.overlaps == 0
    assert slow.box.is_empty()
    data = b"".join(slow.messages)
    parts = [data[start : start + 3] for start in range(0, len(data), 3)]
    for number in producers:
        mine = [int.from_bytes(part[1:], "big") for part in parts if part[0] == number]
        assert mine == list(range(count))


def test_several_answers_sent_as_one_count_by_their_average_size() -> None:
    assert large_bytes([(bytes(1024), 1), (bytes(32 * 256), 32)]) == 0
    assert large_bytes([(bytes(1025), 1), (bytes(32 * 256 + 1), 32)]) == 1025 + 32 * 256 + 1
