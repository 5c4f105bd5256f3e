"""Unary calls: what comes in, what goes out, and what may end them."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import grpc
import pytest

from penstock.transport.grpc.call import OK, ServerCall, Status, Transport
from support.calls import SECONDS, Echo, Handlers, Silent, served, unary, wait_until


class Finishing(Silent):
    """Ends every call with one status."""

    status = OK
    message: bytes | None = None

    def received(self, message: bytes) -> None:
        super().received(message)
        self.call.finish(self.status, self.message)


def finishing(status: Status, message: bytes | None = None) -> type[Finishing]:
    return type("Finishing", (Finishing,), {"status": status, "message": message})


def error_of(channel: grpc.Channel, method: str = "/t/M", **more: Any) -> Any:
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(method)(b"", timeout=SECONDS, **more)
    return raised.value


def test_echo(transport: type[Transport]) -> None:
    handlers = Handlers(Echo)
    with served(transport, {"/t/M": unary(handlers)}) as server, server.channel() as channel:
        assert channel.unary_unary("/t/M")(b"hello", timeout=SECONDS) == b"hello"
        server.wait_until_empty()
        handler = handlers.only()
        assert handler.told == ["received", "closed"]
        assert handler.threads == {server.transport.polling_thread}
        assert handler.call.method == "/t/M"


def test_many_one_after_the_other(transport: type[Transport]) -> None:
    with served(transport, {}) as server, server.channel() as channel:
        call = channel.unary_unary("/t/Echo")
        assert [call(b"%d" % i, timeout=SECONDS) for i in range(200)] == [b"%d" % i for i in range(200)]


def test_many_at_once(transport: type[Transport]) -> None:
    with served(transport, {}) as server, server.channel() as channel:
        call = channel.unary_unary("/t/Echo")
        futures = [call.future(b"%d" % i, timeout=SECONDS) for i in range(300)]
        assert [future.result() for future in futures] == [b"%d" % i for i in range(300)]
        server.wait_until_empty()


def test_a_burst_is_answered_to_the_last_call(transport: type[Transport]) -> None:
    with served(transport, {}) as server, server.channel() as channel:
        call = channel.unary_unary("/t/Echo")
        futures = [call.future(b"", timeout=60) for _ in range(5_000)]
        assert Counter(future.code() for future in futures) == {grpc.StatusCode.OK: 5_000}


@pytest.mark.parametrize("size", [0, 1, 64 * 2**20])
def test_sizes(transport: type[Transport], size: int) -> None:
    with served(transport, {}) as server, server.channel() as channel:
        message = b"\xa5" * size
        assert channel.unary_unary("/t/Echo")(message, timeout=60) == message


def test_a_status_reaches_the_client_whole(transport: type[Transport]) -> None:
    status = Status(
        grpc.StatusCode.FAILED_PRECONDITION,
        "größer als π % und\nneue Zeile ☂",
        (("text", "plain words"), ("bytes-bin", bytes(range(256)))),
    )
    with served(transport, {"/t/M": unary(finishing(status))}) as server, server.channel() as channel:
        error = error_of(channel)
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert error.details() == "größer als π % und\nneue Zeile ☂"
        assert dict(error.trailing_metadata()) == {"text": "plain words", "bytes-bin": bytes(range(256))}


def test_a_success_has_trailing_metadata_too(transport: type[Transport]) -> None:
    make = finishing(Status(grpc.StatusCode.OK, "", (("rows", "3"),)), b"answer")
    with served(transport, {"/t/M": unary(make)}) as server, server.channel() as channel:
        answer, call = channel.unary_unary("/t/M").with_call(b"", timeout=SECONDS)
        assert answer == b"answer"
        assert dict(call.trailing_metadata()) == {"rows": "3"}


def test_details_that_are_no_unicode_are_sent_as_far_as_they_are(transport: type[Transport]) -> None:
    make = finishing(Status(grpc.StatusCode.INVALID_ARGUMENT, "half \ud800 a pair"))
    with served(transport, {"/t/M": unary(make)}) as server, server.channel() as channel:
        assert error_of(channel).details() == "half ? a pair"


@pytest.mark.parametrize(
    "pair",
    [
        ("Upper", "x"),
        ("a space", "x"),
        ("", "x"),
        ("text", "ümlaut"),
        ("text", "line\n"),
        ("text", b"x"),
        ("x-bin", "x"),
    ],
)
def test_metadata_that_http_cannot_carry_is_refused_where_it_is_made(pair: tuple[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot carry"):
        Status(grpc.StatusCode.OK, "", (pair,))


def test_an_unknown_method(transport: type[Transport]) -> None:
    with served(transport, {}) as server, server.channel() as channel:
        error = error_of(channel, "/t/Nobody")
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "/t/Nobody" in error.details()
        server.check_alive()
        server.wait_until_empty()


def test_a_call_without_a_message(transport: type[Transport]) -> None:
    handlers = Handlers(Echo)
    with served(transport, {"/t/M": unary(handlers)}) as server, server.channel() as channel:
        with pytest.raises(grpc.RpcError) as raised:
            channel.stream_unary("/t/M")(iter(()), timeout=SECONDS)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "message" in raised.value.details()
        server.wait_until_empty()
        assert handlers.only().told == ["closed"]


def test_of_two_messages_the_first_is_taken(transport: type[Transport]) -> None:
    handlers = Handlers(Echo)
    with served(transport, {"/t/M": unary(handlers)}) as server, server.channel() as channel:
        assert channel.stream_unary("/t/M")(iter((b"1", b"2")), timeout=SECONDS) == b"1"
        server.wait_until_empty()
        assert handlers.only().messages == [b"1"]


def test_a_second_finish_does_nothing(transport: type[Transport]) -> None:
    class Twice(Silent):
        def received(self, message: bytes) -> None:
            self.call.finish(OK, b"first")
            self.call.finish(OK, b"second")
            self.call.finish(Status(grpc.StatusCode.INTERNAL))

        def closed(self, cancelled: bool) -> None:
            self.call.finish(OK, b"third")
            super().closed(cancelled)

    with served(transport, {"/t/M": unary(Twice)}) as server, server.channel() as channel:
        assert channel.unary_unary("/t/M")(b"", timeout=SECONDS) == b"first"
        server.wait_until_empty()


def test_two_threads_finish_at_once(transport: type[Transport]) -> None:
    def finish(call: ServerCall, barrier: threading.Barrier, answer: bytes) -> None:
        barrier.wait(SECONDS)
        call.finish(OK, answer)

    class Raced(Silent):
        def received(self, message: bytes) -> None:
            barrier = threading.Barrier(2)
            for answer in (b"a", b"b"):
                threading.Thread(target=finish, args=(self.call, barrier, answer)).start()

    with served(transport, {"/t/M": unary(Raced)}) as server, server.channel() as channel:
        answers = {channel.unary_unary("/t/M")(b"", timeout=SECONDS) for _ in range(100)}
        assert answers <= {b"a", b"b"}
        server.wait_until_empty()


def test_another_thread_finishes(transport: type[Transport]) -> None:
    handlers = Handlers(Silent)
    with served(transport, {"/t/M": unary(handlers)}) as server, server.channel() as channel:
        future = channel.unary_unary("/t/M").future(b"", timeout=SECONDS)
        handler = handlers.only()
        wait_until(lambda: handler.told)
        handler.call.finish(OK, b"from afar")
        assert future.result() == b"from afar"


def test_a_handler_that_finishes_before_the_message_comes(transport: type[Transport]) -> None:
    class Forbidding(Silent):
        def __init__(self, call: ServerCall) -> None:
            super().__init__(call)
            call.finish(Status(grpc.StatusCode.PERMISSION_DENIED, "not you"))

    handlers = Handlers(Forbidding)
    with served(transport, {"/t/M": unary(handlers)}) as server, server.channel() as channel:
        assert error_of(channel).code() is grpc.StatusCode.PERMISSION_DENIED
        server.wait_until_empty()
        assert handlers.only().told == ["closed"]
