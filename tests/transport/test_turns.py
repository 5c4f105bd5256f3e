"""Fast streams and new calls: a call waits for few messages of streams, however many are there to read."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Sequence

import pytest

from benchmarks.programs.open_loop import DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, frame, header
from penstock.transport.grpc.call import Limits, Transport
from penstock.transport.grpc.portable import Portable
from penstock.transport.grpc.reactor import TIMED
from penstock.transport.grpc.turns import STREAM_SECONDS, TURN_SECONDS
from support.calls import Reading, Silent, no_idle_work, served, stream, unary, wait_until

CONNECTIONS = 40
FRAME = 16_384
EACH = 2_000
"""Messages on a connection: fewer than fit into the first window of HTTP/2."""
MESSAGE = b"x" * 20
BUSY, EACH_BUSY, ANSWERED = 8, 25, 100  # connections, streams of each, and messages of each stream
MANY = 60
CALLS, MOST_TURNS, WORK_SECONDS = 50, 2, 0.002
MOST_BETWEEN = CONNECTIONS * EACH // 4


class Counting(Reading):
    """A stream that counts what all such streams have received.

    Attributes:
        count: the number of messages.
        when_called: how many they were when a unary call was received.
    """

    count = 0
    when_called = -1

    def received(self, message: bytes) -> None:
        Counting.count += 1
        self.call.receive()


class Called(Silent):
    """A unary method that notes how many messages of streams came before it."""

    def received(self, message: bytes) -> None:
        Counting.when_called = Counting.count
        self.call.finish()


def connected(target: str) -> socket.socket:
    """A connection that the server need not have accepted yet."""
    host, _, port = target.rpartition(":")
    return socket.create_connection((host, int(port)))


def call(method: str, messages: Sequence[bytes], flags: int = 0, streams: int = 1) -> bytes:
    """What a client sends on a connection with its calls: all messages of each, without waiting."""
    fields = {":method": "POST", ":scheme": "http", ":path": method, ":authority": "localhost"}
    fields |= {"content-type": "application/grpc", "te": "trailers"}
    headers = b"".join(header(name, value) for name, value in fields.items())
    data = b"".join(b"\0" + len(each).to_bytes(4, "big") + each for each in messages)
    pieces = [data[start : start + FRAME] for start in range(0, len(data), FRAME)]
    numbers = range(1, 2 * streams, 2)
    return b"".join(
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b""),
            *[frame(HEADERS, END_HEADERS, number, headers) for number in numbers],
            *[frame(DATA, flags, number, each) for number in numbers for each in pieces],
        ]
    )


def test_a_call_waits_for_few_messages_of_the_streams_before_it(transport: type[Transport]) -> None:
    """The streams' messages have all been sent before the server takes its first event."""
    failures: list[BaseException] = []
    methods = {"/t/S": stream(Counting), "/t/U": unary(Called)}
    Counting.count, Counting.when_called = 0, -1
    server = transport(methods, Limits(), no_idle_work, failures.append)
    target = f"127.0.0.1:{server.bind('127.0.0.1:0')}"
    connections = [connected(target) for _ in range(CONNECTIONS + 1)]
    for each in connections[1:]:
        each.sendall(call("/t/S", [MESSAGE] * EACH))
    late = call("/t/U", [b""], END_STREAM)
    try:
        server.start()
        wait_until(lambda: Counting.count)
        before = Counting.count
        connections[0].sendall(late)
        wait_until(lambda: Counting.count == CONNECTIONS * EACH)
    finally:
        for each in connections:
            each.close()
        server.close()
    assert 0 <= Counting.when_called - before < MOST_BETWEEN
    assert failures == []


class Answering(Counting):
    """A stream that answers each message, and receives the next once that has left."""

    def received(self, message: bytes) -> None:
        Counting.count += 1
        self.call.send(message)

    def sent(self) -> None:
        self.call.receive()


@pytest.mark.alone
def test_a_call_waits_for_few_answers_of_the_streams_before_it() -> None:
    """grpc.aio has several steps to take for the call, each behind the events of the streams.

    Its own thread takes some of them: where that is kept from running, the call waits longer, so the least of
    three counts.
    """
    assert min(answers_before_a_call() for _ in range(3)) < 5 * BUSY * EACH_BUSY


def answers_before_a_call() -> int:
    """How many messages of the streams are handled between a call and its message."""
    failures: list[BaseException] = []
    methods = {"/t/S": stream(Answering), "/t/U": unary(Called)}
    Counting.count, Counting.when_called = 0, -1
    server = Portable(methods, Limits(), no_idle_work, failures.append)
    target = f"127.0.0.1:{server.bind('127.0.0.1:0')}"
    connections = [connected(target) for _ in range(BUSY + 1)]
    for each in connections[1:]:
        each.sendall(call("/t/S", [MESSAGE] * ANSWERED, streams=EACH_BUSY))
    late = call("/t/U", [b""], END_STREAM)
    try:
        server.start()
        wait_until(lambda: Counting.count > 2 * BUSY * EACH_BUSY)
        before = Counting.count
        connections[0].sendall(late)
        wait_until(lambda: Counting.when_called >= 0)
    finally:
        for each in connections:
            each.close()
        server.close()
    assert failures == []
    return Counting.when_called - before


class Slow(Counting):
    """A stream whose every message takes longer than all streams may take in a turn."""

    def received(self, message: bytes) -> None:
        time.sleep(2 * STREAM_SECONDS)
        super().received(message)


def test_a_turn_takes_few_messages_that_are_much_work(transport: type[Transport]) -> None:
    """One when it comes, and one of those that waited: then others have their turn."""
    at_idle: list[int] = []
    failures: list[BaseException] = []
    Counting.count = 0
    server = transport(
        {"/t/S": stream(Slow)}, Limits(), lambda: bool(at_idle.append(Counting.count)), failures.append
    )
    target = f"127.0.0.1:{server.bind('127.0.0.1:0')}"
    connections = [connected(target) for _ in range(8)]
    for each in connections:
        each.sendall(call("/t/S", [MESSAGE] * 8))
    try:
        server.start()
        wait_until(lambda: Counting.count == 64)
    finally:
        for each in connections:
            each.close()
        server.close()
    assert max(later - before for before, later in itertools.pairwise(at_idle)) <= 2
    assert failures == []


class SlowCall(Called):
    """A unary call that takes longer than a turn."""

    def received(self, message: bytes) -> None:
        time.sleep(2 * TURN_SECONDS)
        Counting.count += 1
        self.call.finish()


def test_a_turn_takes_few_calls_that_are_much_work(transport: type[Transport]) -> None:
    """However many are ready: what other calls wait for is done in between."""
    at_idle: list[int] = []
    failures: list[BaseException] = []
    Counting.count = 0
    server = transport(
        {"/t/U": unary(SlowCall)}, Limits(), lambda: bool(at_idle.append(Counting.count)), failures.append
    )
    target = f"127.0.0.1:{server.bind('127.0.0.1:0')}"
    connections = [connected(target) for _ in range(MANY)]
    for each in connections:
        each.sendall(call("/t/U", [b""], END_STREAM))
    try:
        server.start()
        wait_until(lambda: Counting.count == MANY)
    finally:
        for each in connections:
            each.close()
        server.close()
    at_idle.append(MANY)
    assert max(after - before for before, after in itertools.pairwise([0, *at_idle])) <= TIMED
    assert failures == []


def test_a_call_waits_for_few_turns_of_idle_work(transport: type[Transport]) -> None:
    """Work in turns, as on a message of many requests: events that come meanwhile are taken in between."""
    turns: list[int] = []

    def work() -> bool:
        time.sleep(WORK_SECONDS)
        turns.append(1)
        return True

    waited: list[int] = []
    with served(transport, {}, idle=work) as server, server.channel() as channel:
        echo = channel.unary_unary("/t/Echo")
        for _ in range(CALLS):
            before = len(turns)
            echo(b"")
            waited.append(len(turns) - before)
    # While the client waits for the processor, turns go on: so the least counts.
    assert min(waited[1:]) <= MOST_TURNS
