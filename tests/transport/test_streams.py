"""Streams: order, many messages, half-close, and either side ending early."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import grpc
import pytest

from penstock.transport.grpc.call import OK, ServerCall, Status, Transport
from support.calls import (
    SECONDS,
    Handlers,
    Reading,
    Silent,
    StreamEcho,
    served,
    stream,
    unary,
    wait_until,
)


class Requests:
    """An iterator of requests that a test feeds."""

    def __init__(self, *messages: bytes) -> None:
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        for message in messages:
            self.put(message)

    def put(self, message: bytes) -> None:
        self._queue.put(message)

    def end(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[bytes]:
        while (message := self._queue.get()) is not None:
            yield message


def test_an_ordered_echo(transport: type[Transport]) -> None:
    handlers = Handlers(StreamEcho)
    with served(transport, {"/t/S": stream(handlers)}) as server, server.channel() as channel:
        requests, answers = Requests(), []
        call = channel.stream_stream("/t/S")(iter(requests), timeout=SECONDS)
        for i in range(50):
            requests.put(b"%d" % i)
            answers.append(next(call))
        requests.end()
        assert list(call) == []
        assert answers == [b"%d" % i for i in range(50)]
        assert call.code() is grpc.StatusCode.OK
        server.wait_until_empty()
        handler = handlers.only()
        assert handler.told == [*["received", "sent"] * 50, "half_closed", "closed"]
        assert handler.threads == {server.transport.polling_thread}


def test_many_messages(transport: type[Transport]) -> None:
    sent = [b"%d" % i for i in range(5_000)]
    with served(transport, {"/t/S": stream(StreamEcho)}) as server, server.channel() as channel:
        assert list(channel.stream_stream("/t/S")(iter(sent), timeout=60)) == sent
        server.wait_until_empty()


def test_large_messages_both_ways(transport: type[Transport]) -> None:
    sent = [bytes([i]) * 2**20 for i in range(20)]
    with served(transport, {"/t/S": stream(StreamEcho)}) as server, server.channel() as channel:
        assert list(channel.stream_stream("/t/S")(iter(sent), timeout=60)) == sent


def test_three_streams_at_once(transport: type[Transport]) -> None:
    with served(transport, {"/t/S": stream(StreamEcho)}) as server, server.channel() as channel:
        feeds = [Requests() for _ in range(3)]
        calls = [channel.stream_stream("/t/S")(iter(feed), timeout=SECONDS) for feed in feeds]
        for turn in range(20):
            for who, (feed, call) in enumerate(zip(feeds, calls, strict=True)):
                feed.put(b"%d/%d" % (who, turn))
                assert next(call) == b"%d/%d" % (who, turn)
        assert server.transport.calls_in_flight() == 3
        for feed in feeds:
            feed.end()
        assert [list(call) for call in calls] == [[], [], []]
        server.wait_until_empty()


def test_a_stream_without_messages(transport: type[Transport]) -> None:
    handlers = Handlers(StreamEcho)
    with served(transport, {"/t/S": stream(handlers)}) as server, server.channel() as channel:
        assert list(channel.stream_stream("/t/S")(iter(()), timeout=SECONDS)) == []
        server.wait_until_empty()
        assert handlers.only().told == ["half_closed", "closed"]


def test_empty_messages_are_messages(transport: type[Transport]) -> None:
    with served(transport, {"/t/S": stream(StreamEcho)}) as server, server.channel() as channel:
        assert list(channel.stream_stream("/t/S")(iter((b"", b"", b"x")), timeout=SECONDS)) == [
            b"",
            b"",
            b"x",
        ]


def test_answers_after_half_close(transport: type[Transport]) -> None:
    class Late(Reading):
        def half_closed(self) -> None:
            super().half_closed()
            self.call.send(self.messages.pop(0))

        def sent(self) -> None:
            super().sent()
            if self.messages:
                self.call.send(self.messages.pop(0))
            else:
                self.call.finish(Status(grpc.StatusCode.OK, "", (("left", "0"),)), b"last")

    with served(transport, {"/t/S": stream(Late)}) as server, server.channel() as channel:
        call = channel.stream_stream("/t/S")(iter((b"1", b"2", b"3")), timeout=SECONDS)
        assert list(call) == [b"1", b"2", b"3", b"last"]
        assert dict(call.trailing_metadata()) == {"left": "0"}


def test_the_server_finishes_early(transport: type[Transport]) -> None:
    class Once(Silent):
        def received(self, message: bytes) -> None:
            super().received(message)
            self.call.finish(Status(grpc.StatusCode.RESOURCE_EXHAUSTED, "one is enough"), b"last")

    handlers = Handlers(Once)
    with served(transport, {"/t/S": stream(handlers)}) as server, server.channel() as channel:
        requests = Requests(b"1", b"2", b"3")
        call = channel.stream_stream("/t/S")(iter(requests), timeout=SECONDS)
        assert next(call) == b"last"
        with pytest.raises(grpc.RpcError):
            next(call)
        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert call.details() == "one is enough"
        requests.end()
        server.wait_until_empty()
        assert handlers.only().told == ["received", "closed"]


def test_after_finish_only_closed_is_told(transport: type[Transport]) -> None:
    class Both(Silent):
        def received(self, message: bytes) -> None:
            super().received(message)
            self.call.send(b"large" * 1000)
            self.call.receive()
            self.call.finish()
            self.call.send(b"too late")
            self.call.receive()

    handlers = Handlers(Both)
    with served(transport, {"/t/S": stream(handlers)}) as server, server.channel() as channel:
        assert list(channel.stream_stream("/t/S")(iter((b"1", b"2")), timeout=SECONDS)) == [b"large" * 1000]
        server.wait_until_empty()
        assert handlers.only().told == ["received", "closed"]


def test_another_thread_sends(transport: type[Transport]) -> None:
    count = 500

    class Pushed(Silent):
        def __init__(self, call: ServerCall) -> None:
            super().__init__(call)
            self.may_send = threading.Semaphore(1)
            threading.Thread(target=self.push, daemon=True).start()

        def push(self) -> None:
            for i in range(count):
                assert self.may_send.acquire(timeout=SECONDS)
                self.call.send(b"%d" % i)
            assert self.may_send.acquire(timeout=SECONDS)
            self.call.finish(OK, b"end")

        def sent(self) -> None:
            self.may_send.release()

    with served(transport, {"/t/S": stream(Pushed)}) as server, server.channel() as channel:
        call = channel.stream_stream("/t/S")(iter(Requests()), timeout=SECONDS)
        assert list(call) == [*(b"%d" % i for i in range(count)), b"end"]


def test_messages_wait_in_the_client_until_they_are_asked_for(transport: type[Transport]) -> None:
    handlers = Handlers(Silent)
    with served(transport, {"/t/S": stream(handlers)}) as server, server.channel() as channel:
        taken = []

        def requests() -> Iterator[bytes]:
            for i in range(300):
                taken.append(i)
                yield b"x" * 2**20

        call = channel.stream_stream("/t/S")(requests(), timeout=SECONDS)
        handler = handlers.only()
        wait_until(lambda: handler.messages)
        server.check_alive()  # some time later
        assert len(taken) < 100
        assert handler.told == ["received"]
        call.cancel()


def test_a_slow_reader_holds_the_sender_back(transport: type[Transport]) -> None:
    class Flood(Silent):
        def received(self, message: bytes) -> None:
            self.count = 0
            self.sent()

        def sent(self) -> None:
            self.count += 1
            self.call.send(b"x" * 2**20)

    handlers = Handlers(Flood)
    with served(transport, {"/t/S": stream(handlers)}) as server, server.channel() as channel:
        call = channel.stream_stream("/t/S")(iter((b"",)), timeout=60)
        next(call)
        server.check_alive()
        assert handlers.only().count < 100
        call.cancel()
        server.wait_until_empty()
        assert handlers.only().is_over


def test_a_call_of_one_kind_does_not_stop_the_other(transport: type[Transport]) -> None:
    with (
        served(transport, {"/t/S": stream(StreamEcho), "/t/U": unary(Silent)}) as server,
        server.channel() as channel,
    ):
        waiting = channel.unary_unary("/t/U").future(b"", timeout=SECONDS)
        assert list(channel.stream_stream("/t/S")(iter((b"1",)), timeout=SECONDS)) == [b"1"]
        waiting.cancel()
        server.wait_until_empty()
