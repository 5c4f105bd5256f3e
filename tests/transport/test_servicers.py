"""Generated-style servicers on the contract: the four kinds, how they end, and the bounds on them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from penstock.transport.grpc.call import Transport
from penstock.transport.grpc.servicers import MAX_THREADS, MAX_WAITING, ServicerMethods
from support.calls import SECONDS, Quiet, Served, served, wait_until
from support.threads import NewThreads

NAME = "test.Words"


class Words:
    """What a service's generated base class would be, with a method of each kind."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.hold = threading.Event()

    def One(self, request: StringValue, context: grpc.ServicerContext) -> StringValue | None:
        return getattr(self, f"one_{request.value}")(context)

    def Many(self, request: StringValue, context: grpc.ServicerContext) -> Iterator[StringValue]:
        return getattr(self, f"many_{request.value}")(context)

    def Join(self, requests: Iterator[StringValue], context: grpc.ServicerContext) -> StringValue:
        words = []
        try:
            for request in requests:
                words.append(request.value)  # noqa: PERF401 - what came is kept when the rest does not
        except grpc.RpcError:
            self.log.append(("cut off after", words))
            raise
        self.log.append(("joined", words))
        return StringValue(value=" ".join(words))

    def Talk(self, requests: Iterator[StringValue], context: grpc.ServicerContext) -> Iterator[StringValue]:
        yield StringValue(value="hello")  # before anybody has said anything
        for request in requests:
            yield StringValue(value=request.value.upper())
        context.set_trailing_metadata((("said", "all"),))

    def one_ok(self, context: grpc.ServicerContext) -> StringValue:
        context.set_trailing_metadata((("rows", "1"), ("x-bin", b"\x00")))
        return StringValue(value=f"{context.peer()} {context.is_active()} {context.time_remaining()}")

    def one_code(self, context: grpc.ServicerContext) -> StringValue:
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("no such word")
        return StringValue()

    def one_code_without_answer(self, context: grpc.ServicerContext) -> None:
        context.set_code(grpc.StatusCode.OUT_OF_RANGE)

    def one_abort(self, context: grpc.ServicerContext) -> StringValue:
        context.set_trailing_metadata((("why", "because"),))
        context.abort(grpc.StatusCode.ABORTED, "enough")

    def one_abort_ok(self, context: grpc.ServicerContext) -> StringValue:
        context.abort(grpc.StatusCode.OK, "odd")

    def one_raise(self, context: grpc.ServicerContext) -> StringValue:
        raise LookupError("a secret of the server")

    def one_nothing(self, context: grpc.ServicerContext) -> None:
        return None

    def one_bad_answer(self, context: grpc.ServicerContext) -> Any:
        return "no message"

    def one_bad_metadata(self, context: grpc.ServicerContext) -> StringValue:
        context.set_trailing_metadata((("Not OK", "ü"),))
        return StringValue()

    def one_wait(self, context: grpc.ServicerContext) -> StringValue:
        context.add_callback(lambda: self.log.append("over"))
        self.log.append("waiting")
        self.hold.wait(SECONDS)
        self.log.append(context.is_active())
        return StringValue()

    def one_identity(self, context: grpc.ServicerContext) -> StringValue:
        assert context.peer_identities() is None
        assert context.peer_identity_key() is None
        assert context.auth_context()["transport_security_type"] == [b"insecure"]
        return StringValue(value=dict(context.invocation_metadata())["key"])

    def one_cancel(self, context: grpc.ServicerContext) -> StringValue:
        context.cancel()
        return StringValue()

    def many_three(self, context: grpc.ServicerContext) -> Iterator[StringValue]:
        return (StringValue(value=word) for word in ("a", "b", "c"))

    def many_abort(self, context: grpc.ServicerContext) -> Iterator[StringValue]:
        yield StringValue(value="a")
        context.abort(grpc.StatusCode.DATA_LOSS, "the rest is lost")

    def many_raise(self, context: grpc.ServicerContext) -> Iterator[StringValue]:
        yield StringValue(value="a")
        raise LookupError("a secret of the server")

    def many_endless(self, context: grpc.ServicerContext) -> Iterator[StringValue]:
        try:
            while True:
                self.log.append("yield")
                yield StringValue(value="x" * 100_000)
        finally:
            self.log.append("closed")

    def many_held(self, context: grpc.ServicerContext) -> Iterator[StringValue]:
        yield StringValue(value="open")
        self.hold.wait(SECONDS)


def add_to_server(servicer: Any, server: ServicerMethods) -> None:
    """As grpcio-tools writes it."""
    kinds = {
        "One": grpc.unary_unary_rpc_method_handler,
        "Many": grpc.unary_stream_rpc_method_handler,
        "Join": grpc.stream_unary_rpc_method_handler,
        "Talk": grpc.stream_stream_rpc_method_handler,
        "Call": grpc.unary_stream_rpc_method_handler,
    }
    handlers = {
        name: kind(
            getattr(servicer, name),
            request_deserializer=StringValue.FromString,
            response_serializer=StringValue.SerializeToString,
        )
        for name, kind in kinds.items()
        if hasattr(servicer, name)
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))
    server.add_registered_method_handlers(NAME, handlers)


class Client:
    """What a generated stub would be."""

    def __init__(self, channel: grpc.Channel) -> None:
        formats = (StringValue.SerializeToString, StringValue.FromString)
        self.one = channel.unary_unary(f"/{NAME}/One", *formats)
        self.many = channel.unary_stream(f"/{NAME}/Many", *formats)
        self.join = channel.stream_unary(f"/{NAME}/Join", *formats)
        self.talk = channel.stream_stream(f"/{NAME}/Talk", *formats)
        self.call = channel.unary_stream(f"/{NAME}/Call", *formats)


class Setting(NamedTuple):
    """A servicer that is served, and a client of it."""

    server: Served
    servicer: Any
    methods: ServicerMethods
    client: Client
    errors: list[BaseException]

    def failures(self) -> list[str]:
        """What the servicer let out so far, taken."""
        failures = [f"{type(error).__name__}: {error}" for error in self.errors]
        self.errors.clear()
        return failures


def serve(transport: type[Transport], servicer: Any) -> Iterator[Setting]:
    errors: list[BaseException] = []
    with ThreadPoolExecutor(4) as workers:
        methods = ServicerMethods(workers, errors.append)
        add_to_server(servicer, methods)
        with served(transport, methods.methods()) as server, server.channel() as channel:
            yield Setting(server, servicer, methods, Client(channel), errors)
        if isinstance(servicer, Words):
            servicer.hold.set()
    assert errors == []


@pytest.fixture
def words(transport: type[Transport]) -> Iterator[Setting]:
    yield from serve(transport, Words())


def ask(word: str) -> StringValue:
    return StringValue(value=word)


def error_of(call: Callable[[], Any]) -> Any:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value


def test_unary(words: Setting) -> None:
    answer, call = words.client.one.with_call(ask("ok"), timeout=SECONDS)
    peer, active, left = answer.value.split()
    assert peer.startswith("ipv4:127.0.0.1:")
    assert active == "True"
    assert SECONDS - 2 < float(left) < SECONDS + 1
    assert dict(call.trailing_metadata()) == {"rows": "1", "x-bin": b"\x00"}


def test_no_deadline_is_no_time_remaining(words: Setting) -> None:
    assert words.client.one(ask("ok")).value.endswith(" None")


def test_what_a_servicer_sees_of_its_caller(words: Setting) -> None:
    answer = words.client.one(ask("identity"), metadata=(("key", "value"),), timeout=SECONDS)
    assert answer.value == "value"


@pytest.mark.parametrize(
    ("word", "code", "details", "failure"),
    [
        ("code", grpc.StatusCode.NOT_FOUND, "no such word", None),
        ("code_without_answer", grpc.StatusCode.OUT_OF_RANGE, "", None),
        ("abort", grpc.StatusCode.ABORTED, "enough", None),
        ("abort_ok", grpc.StatusCode.UNKNOWN, "odd", None),
        ("cancel", grpc.StatusCode.CANCELLED, "cancelled by the server", None),
        ("raise", grpc.StatusCode.INTERNAL, None, "LookupError: a secret of the server"),
        ("nothing", grpc.StatusCode.INTERNAL, None, "TypeError: /test.Words/One gave no answer"),
        ("bad_answer", grpc.StatusCode.INTERNAL, None, "TypeError"),
        ("bad_metadata", grpc.StatusCode.INTERNAL, None, "ValueError: gRPC cannot carry the metadata"),
    ],
)
def test_unary_ends(
    words: Setting, word: str, code: grpc.StatusCode, details: str | None, failure: str | None
) -> None:
    error = error_of(lambda: words.client.one(ask(word), timeout=SECONDS))
    assert error.code() is code
    if details is None:
        assert "secret" not in error.details()
    else:
        assert error.details() == details
    failures = words.failures()
    assert len(failures) == (failure is not None)
    assert all(each.startswith(failure or "") for each in failures)
    words.server.wait_until_empty()


def test_abort_keeps_the_trailing_metadata(words: Setting) -> None:
    error = error_of(lambda: words.client.one(ask("abort"), timeout=SECONDS))
    assert dict(error.trailing_metadata()) == {"why": "because"}


def test_a_request_that_is_no_message(words: Setting) -> None:
    with words.server.channel() as channel:
        for kind in (channel.unary_unary, channel.unary_stream):
            method = "One" if kind == channel.unary_unary else "Many"
            call = kind(f"/{NAME}/{method}")
            error = error_of(lambda call=call: list(call(b"\xff\xff", timeout=SECONDS)))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        error = error_of(lambda: channel.stream_unary(f"/{NAME}/Join")(iter((b"\xff",)), timeout=SECONDS))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words.failures() == []


def test_a_deadline_ends_a_unary_call(words: Setting) -> None:
    error = error_of(lambda: words.client.one(ask("wait"), timeout=0.2))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: "over" in words.servicer.log)
    words.servicer.hold.set()
    wait_until(lambda: words.servicer.log == ["waiting", "over", False])


def test_unary_calls_wait_for_a_worker_and_not_if_cancelled(words: Setting) -> None:
    futures = [words.client.one.future(ask("wait"), timeout=SECONDS) for _ in range(6)]
    wait_until(lambda: words.servicer.log.count("waiting") == 4)
    for future in futures:
        future.cancel()
    words.server.wait_until_empty()
    words.servicer.hold.set()
    words.client.one(ask("ok"), timeout=SECONDS)
    assert words.servicer.log.count("waiting") == 4


def test_unary_stream(words: Setting) -> None:
    assert [each.value for each in words.client.many(ask("three"), timeout=SECONDS)] == ["a", "b", "c"]


def test_stream_unary(words: Setting) -> None:
    assert words.client.join(map(ask, "abc"), timeout=SECONDS).value == "a b c"
    assert words.client.join(iter(()), timeout=SECONDS).value == ""
    many = [str(i) for i in range(500)]
    assert words.client.join(map(ask, many), timeout=SECONDS).value == " ".join(many)


def test_stream_stream(words: Setting) -> None:
    call = words.client.talk(map(ask, "abc"), timeout=SECONDS)
    assert [each.value for each in call] == ["hello", "A", "B", "C"]
    assert dict(call.trailing_metadata()) == {"said": "all"}


def test_a_servicer_may_speak_first(words: Setting) -> None:
    quiet = Quiet()
    call = words.client.talk(iter(quiet), timeout=SECONDS)
    assert next(call).value == "hello"
    quiet.end()
    assert list(call) == []


def test_a_stream_aborts(words: Setting) -> None:
    call = words.client.many(ask("abort"), timeout=SECONDS)
    assert next(call).value == "a"
    error = error_of(lambda: next(call))
    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "the rest is lost")


def test_a_stream_raises(words: Setting) -> None:
    error = error_of(lambda: list(words.client.many(ask("raise"), timeout=SECONDS)))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()
    assert words.failures() == ["LookupError: a secret of the server"]


def test_a_stream_without_its_request(words: Setting) -> None:
    with words.server.channel() as channel:
        call = channel.stream_stream(f"/{NAME}/Many")
        assert (
            error_of(lambda: list(call(iter(()), timeout=SECONDS))).code() is grpc.StatusCode.INVALID_ARGUMENT
        )


def test_a_slow_client_holds_the_servicer_back(words: Setting) -> None:
    call = words.client.many(ask("endless"), timeout=60)
    next(call)
    words.server.check_alive()
    assert words.servicer.log.count("yield") < 500  # of 100 kB each
    call.cancel()
    wait_until(lambda: words.servicer.log[-1] == "closed")


def test_a_deadline_ends_a_stream(words: Setting) -> None:
    error = error_of(lambda: list(words.client.many(ask("endless"), timeout=0.3)))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: words.servicer.log[-1] == "closed")
    assert words.failures() == []


def test_a_half_sent_upload_does_not_look_whole(words: Setting) -> None:
    sent = threading.Event()

    def requests() -> Iterator[StringValue]:
        yield ask("a")
        sent.set()
        yield from Quiet()

    future = words.client.join.future(requests(), timeout=SECONDS)
    assert sent.wait(SECONDS)
    words.server.check_alive()
    future.cancel()
    wait_until(lambda: words.servicer.log)
    assert words.servicer.log[0][0] == "cut off after"
    assert words.failures() == []


def test_streams_above_the_bound(words: Setting) -> None:
    threads = NewThreads()
    calls = [words.client.many(ask("held"), timeout=60) for _ in range(MAX_THREADS)]
    assert {next(call).value for call in calls} == {"open"}
    error = error_of(lambda: next(words.client.many(ask("held"), timeout=SECONDS)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    error = error_of(lambda: next(words.client.talk(iter(()), timeout=SECONDS)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert words.client.one(ask("ok"), timeout=SECONDS)  # these need no thread of their own
    words.servicer.hold.set()
    assert [list(call) for call in calls] == [[]] * MAX_THREADS
    wait_until(lambda: not threads.named("penstock-servicer"))
    assert len(list(words.client.many(ask("three"), timeout=SECONDS))) == 3


def test_stop_ends_the_open_streams(words: Setting) -> None:
    threads = NewThreads()
    quiet = Quiet()
    calls = [words.client.talk(iter(quiet), timeout=SECONDS) for _ in range(3)]
    assert [next(call).value for call in calls] == ["hello"] * 3
    words.methods.stop()
    assert [error_of(lambda call=call: next(call)).code() for call in calls] == [
        grpc.StatusCode.UNAVAILABLE
    ] * 3
    late = words.client.talk(iter(quiet), timeout=SECONDS)
    assert error_of(lambda: next(late)).code() is grpc.StatusCode.UNAVAILABLE
    quiet.end()
    words.server.wait_until_empty()
    wait_until(lambda: not threads.named("penstock-servicer"))


class Callbacks:
    """A method that streams through a callback, as grpc_health's Watch does."""

    def __init__(self) -> None:
        self.senders: list[Callable[[StringValue | None], None]] = []

    def Call(
        self,
        request: StringValue,
        context: grpc.ServicerContext,
        send_response_callback: Callable[[StringValue | None], None],
    ) -> None:
        if request.value == "raise":
            raise LookupError("a secret of the server")
        if request.value == "abort":
            context.abort(grpc.StatusCode.NOT_FOUND, "nothing to call")
        self.senders.append(send_response_callback)

    Call.experimental_non_blocking = True  # type: ignore[attr-defined]


@pytest.fixture
def callbacks(transport: type[Transport]) -> Iterator[Setting]:
    yield from serve(transport, Callbacks())


def test_a_callback_sends_and_ends(callbacks: Setting) -> None:
    call = callbacks.client.call(ask(""), timeout=SECONDS)
    wait_until(lambda: callbacks.servicer.senders)
    send = callbacks.servicer.senders[0]
    for word in "abc":
        send(ask(word))
    send(None)
    send(ask("too late"))
    assert [each.value for each in call] == ["a", "b", "c"]
    assert call.code() is grpc.StatusCode.OK


def test_callbacks_need_no_threads(callbacks: Setting) -> None:
    threads = NewThreads()
    calls = [callbacks.client.call(ask(""), timeout=60) for _ in range(MAX_THREADS + 50)]
    wait_until(lambda: len(callbacks.servicer.senders) == len(calls))
    for send in callbacks.servicer.senders:
        send(ask("to all"))
    assert {next(call).value for call in calls} == {"to all"}
    assert not threads.named("penstock-servicer")
    callbacks.methods.stop()
    assert {error_of(lambda call=call: next(call)).code() for call in calls} == {grpc.StatusCode.UNAVAILABLE}


@pytest.mark.parametrize(
    ("word", "code"), [("raise", grpc.StatusCode.INTERNAL), ("abort", grpc.StatusCode.NOT_FOUND)]
)
def test_a_callback_method_fails(callbacks: Setting, word: str, code: grpc.StatusCode) -> None:
    assert error_of(lambda: next(callbacks.client.call(ask(word), timeout=SECONDS))).code() is code
    assert len(callbacks.failures()) == (word == "raise")


def test_a_client_that_does_not_read_is_cut_off(callbacks: Setting) -> None:
    call = callbacks.client.call(ask(""), timeout=60)
    wait_until(lambda: callbacks.servicer.senders)
    send = callbacks.servicer.senders[0]
    for _ in range(MAX_WAITING + 100):
        send(ask("x" * 200_000))
    assert error_of(lambda: list(call)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    callbacks.server.wait_until_empty()
