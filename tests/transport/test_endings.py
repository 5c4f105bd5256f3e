"""Calls that end before they are finished: deadlines, cancellations, lost connections, failing handlers."""

from __future__ import annotations

import gc
import math
import random
import resource
import time
from collections import Counter
from collections.abc import Iterator

import grpc
import pytest

from penstock.transport.grpc.call import OK, Limits, ServerCall, Transport
from support.calls import (
    SECONDS,
    Echo,
    Handlers,
    Reading,
    Served,
    Silent,
    StreamEcho,
    served,
    stream,
    unary,
    wait_until,
)


def endless() -> Iterator[bytes]:
    while True:
        yield b"x" * 1000


def test_no_deadline(transport: type[Transport]) -> None:
    handlers = Handlers(Echo)
    with served(transport, {"/t/M": unary(handlers)}) as server, server.channel() as channel:
        channel.unary_unary("/t/M")(b"")
        assert handlers.only().call.deadline == math.inf


@pytest.mark.alone
@pytest.mark.parametrize("seconds", [1.5, 3600.0])
def test_the_deadline_is_the_clients(transport: type[Transport], seconds: float) -> None:
    handlers = Handlers(Echo)
    with served(transport, {"/t/M": unary(handlers)}) as server, server.channel() as channel:
        before = time.monotonic()
        channel.unary_unary("/t/M")(b"", timeout=seconds)
        deadline = handlers.only().call.deadline
        # Long deadlines travel rounded up, to three digits.
        assert before + seconds - 0.1 < deadline < time.monotonic() + seconds * 1.01 + 0.1


def test_a_deadline_passes(transport: type[Transport]) -> None:
    handlers = Handlers(Silent)
    methods = {"/t/M": unary(handlers)}
    with served(transport, methods) as server, server.channel() as channel:
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary("/t/M")(b"", timeout=0.2)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        server.wait_until_empty()
        handler = handlers.only()
        wait_until(lambda: handler.is_over)
        handler.call.finish(OK, b"too late")
        server.check_alive()
        assert handler.told == ["received", "cancelled"]


def test_a_deadline_passes_mid_stream(transport: type[Transport]) -> None:
    handlers = Handlers(StreamEcho)
    with served(transport, {"/t/S": stream(handlers)}) as server, server.channel() as channel:
        call = channel.stream_stream("/t/S")(endless(), timeout=0.3)
        with pytest.raises(grpc.RpcError):
            for _ in call:
                pass
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        server.wait_until_empty()
        wait_until(lambda: handlers.only().is_over)
        assert handlers.only().told.count("cancelled") == 1
        assert "half_closed" not in handlers.only().told


def test_the_client_cancels_a_unary_call(transport: type[Transport]) -> None:
    handlers = Handlers(Silent)
    with served(transport, {"/t/M": unary(handlers)}) as server, server.channel() as channel:
        future = channel.unary_unary("/t/M").future(b"", timeout=SECONDS)
        wait_until(lambda: handlers.only().told == ["received"])
        assert server.transport.calls_in_flight() == 1
        future.cancel()
        wait_until(lambda: handlers.only().told == ["received", "cancelled"])
        server.wait_until_empty()
        assert handlers.only().call.peer() == ""
        assert handlers.only().call.identities() == ()
        assert handlers.only().call.auth_context() == {}


def test_the_client_cancels_mid_stream(transport: type[Transport]) -> None:
    handlers = Handlers(Reading)
    with served(transport, {"/t/S": stream(handlers)}) as server, server.channel() as channel:
        call = channel.stream_stream("/t/S")(endless(), timeout=SECONDS)
        wait_until(lambda: len(handlers.only().messages) > 3)
        call.cancel()
        wait_until(lambda: handlers.only().is_over)
        handler = handlers.only()
        handler.call.receive()
        handler.call.send(b"too late")
        handler.call.finish()
        server.check_alive()
        # Going away is not the same as having finished: a half-sent upload must not look whole.
        assert set(handler.told[:-1]) == {"received"}
        assert handler.told[-1] == "cancelled"


def test_cancelling_is_never_taken_for_half_close(transport: type[Transport]) -> None:
    handlers = Handlers(Reading)
    with served(transport, {"/t/S": stream(handlers)}) as server, server.channel() as channel:
        for _ in range(50):
            call = channel.stream_stream("/t/S")(endless(), timeout=SECONDS)
            wait_until(lambda: handlers.made and handlers.made[-1].messages)
            call.cancel()
            server.wait_until_empty()
        wait_until(lambda: all(handler.is_over for handler in handlers.made))
        assert [handler for handler in handlers.made if "half_closed" in handler.told] == []


def test_the_connection_is_closed_mid_stream(transport: type[Transport]) -> None:
    handlers = Handlers(StreamEcho)
    with served(transport, {"/t/S": stream(handlers)}) as server:
        channel = server.channel()
        calls = [channel.stream_stream("/t/S")(endless(), timeout=SECONDS) for _ in range(3)]
        for call in calls:
            next(call)
        channel.close()
        server.wait_until_empty()
        wait_until(lambda: all(handler.is_over for handler in handlers.made))
        assert [handler.told[-1] for handler in handlers.made] == ["cancelled"] * 3
        server.check_alive()


def test_a_message_above_the_limit(transport: type[Transport]) -> None:
    handlers = Handlers(Reading)
    methods = {"/t/M": unary(handlers), "/t/S": stream(handlers)}
    with served(transport, methods, limits=Limits(message_bytes=1000)) as server, server.channel() as channel:
        assert channel.unary_unary("/t/Echo")(b"x" * 1000, timeout=SECONDS) == b"x" * 1000
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary("/t/M")(b"x" * 1001, timeout=SECONDS)
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        call = channel.stream_stream("/t/S")(iter((b"x", b"x" * 1001)), timeout=SECONDS)
        with pytest.raises(grpc.RpcError):
            list(call)
        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        server.wait_until_empty()
        wait_until(lambda: all(handler.is_over for handler in handlers.made))
        assert [handler.told[-1] for handler in handlers.made] == ["cancelled", "cancelled"]
        server.check_alive()


class Raising(Silent):
    """Lets an exception out of one of its methods."""

    where = ""

    def __init__(self, call: ServerCall) -> None:
        super().__init__(call)
        self._raise_in("made")

    def received(self, message: bytes) -> None:
        super().received(message)
        self._raise_in("received")
        self.call.send(message)

    def sent(self) -> None:
        super().sent()
        self._raise_in("sent")
        self.call.receive()

    def half_closed(self) -> None:
        super().half_closed()
        self._raise_in("half_closed")
        self.call.finish()

    def closed(self, cancelled: bool) -> None:
        super().closed(cancelled)
        self._raise_in("closed")

    def _raise_in(self, where: str) -> None:
        if where == self.where:
            raise RuntimeError(f"raised in {where}")


@pytest.mark.parametrize("where", ["made", "received", "sent", "half_closed"])
def test_a_handler_lets_an_exception_out(transport: type[Transport], where: str) -> None:
    handlers = Handlers(type("Here", (Raising,), {"where": where}))
    with served(transport, {"/t/S": stream(handlers)}) as server, server.channel() as channel:
        call = channel.stream_stream("/t/S")(iter((b"1", b"2")), timeout=SECONDS)
        with pytest.raises(grpc.RpcError):
            list(call)
        assert call.code() is grpc.StatusCode.INTERNAL
        assert "raised" not in call.details()  # what is inside stays inside
        server.wait_until_empty()
        assert [str(error) for error in server.failures] == [f"raised in {where}"]
        server.failures.clear()
        assert [handler.is_over for handler in handlers.made] == [True] * len(handlers.made)
        server.check_alive()


def test_a_unary_handler_lets_an_exception_out(transport: type[Transport]) -> None:
    for where in ("made", "received"):
        make = type("Here", (Raising,), {"where": where})
        with served(transport, {"/t/M": unary(make)}) as server, server.channel() as channel:
            with pytest.raises(grpc.RpcError) as raised:
                channel.unary_unary("/t/M")(b"", timeout=SECONDS)
            assert raised.value.code() is grpc.StatusCode.INTERNAL
            server.wait_until_empty()
            assert [str(error) for error in server.failures] == [f"raised in {where}"]
            server.failures.clear()
            server.check_alive()


def test_an_exception_in_closed(transport: type[Transport]) -> None:
    make = type("Here", (Raising,), {"where": "closed"})
    with served(transport, {"/t/S": stream(make)}) as server, server.channel() as channel:
        call = channel.stream_stream("/t/S")(iter((b"1",)), timeout=SECONDS)
        assert list(call) == [b"1"]
        assert call.code() is grpc.StatusCode.OK
        server.wait_until_empty()
        wait_until(lambda: server.failures)
        assert [str(error) for error in server.failures] == ["raised in closed"]
        server.failures.clear()
        server.check_alive()


def test_a_failing_failed_does_not_end_the_thread(transport: type[Transport]) -> None:
    def failed(error: BaseException) -> None:
        raise BrokenPipeError("the log has nobody to read it")

    make = type("Here", (Raising,), {"where": "received"})
    with served(transport, {"/t/M": unary(make)}) as server, server.channel() as channel:
        server.transport._failed = failed
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as raised:
                channel.unary_unary("/t/M")(b"", timeout=SECONDS)
            assert raised.value.code() is grpc.StatusCode.INTERNAL
        server.check_alive()


HELD = 1
"""Older releases of grpcio keep their last event, and the call it was for, until the next one comes."""


def calls_in_memory() -> int:
    """How many calls there are on the server's side, finished or not."""
    return sum(isinstance(thing, ServerCall) for thing in gc.get_objects())


def test_two_thousand_calls_cancelled_at_random(transport: type[Transport]) -> None:
    chance = random.Random(7)
    waiting: list[ServerCall] = []

    class Late(Silent):
        def received(self, message: bytes) -> None:
            super().received(message)
            waiting.append(self.call)

    def idle() -> bool:
        while len(waiting) > 20:
            waiting.pop(chance.randrange(len(waiting))).finish(OK, b"answer")
        return False

    def call_and_cancel(server: Served, channel: grpc.Channel, count: int) -> None:
        call, futures = channel.unary_unary("/t/M"), []
        for _ in range(count):
            futures.append(call.future(b"x" * 1000, timeout=60))
            if len(futures) > 50:
                futures.pop(chance.randrange(len(futures))).cancel()
        for future in futures:
            future.cancel()
        server.wait_until_empty()

    def is_forgotten() -> bool:  # cancelled calls may still be arriving
        waiting.clear()
        handlers.made.clear()
        gc.collect()
        return calls_in_memory() <= before

    gc.collect()
    before = calls_in_memory()  # of other tests
    handlers = Handlers(Late)
    with served(transport, {"/t/M": unary(handlers)}, idle=idle) as server, server.channel() as channel:
        call_and_cancel(server, channel, 500)
        kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        call_and_cancel(server, channel, 2_000)
        wait_until(lambda: all(handler.is_over for handler in tuple(handlers.made)))
        ends = Counter(handler.told[-1] for handler in tuple(handlers.made) if handler.told)
        assert ends["cancelled"] > 0  # how many, of those that were, is a matter of speed
        wait_until(is_forgotten)
        server.wait_until_empty()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < kibibytes + 30_000
        server.check_alive()


def test_a_call_that_is_over_is_freed_without_the_garbage_collector(transport: type[Transport]) -> None:
    with served(transport, {"/t/S": stream(StreamEcho)}) as server, server.channel() as channel:
        gc.collect()
        before = calls_in_memory()  # of other tests
        gc.disable()
        try:
            for _ in range(20):
                channel.unary_unary("/t/Echo")(b"", timeout=SECONDS)
                list(channel.stream_stream("/t/S")(iter((b"1", b"2")), timeout=SECONDS))
            server.wait_until_empty()
            wait_until(lambda: calls_in_memory() <= before)
        finally:
            gc.enable()
