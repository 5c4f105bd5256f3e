"""A transport's life: binding, refusing, draining, closing; its bounds; and the work it does when idle."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import grpc
import pytest

from penstock.core.errors import StartupError
from penstock.transport.grpc.call import OK, STOPPING, Limits, ServerCall, Transport
from support.calls import (
    SECONDS,
    Echo,
    Handlers,
    Quiet,
    Reading,
    Silent,
    StreamEcho,
    no_idle_work,
    served,
    stream,
    unary,
    wait_until,
)


def make(transport: type[Transport], idle: Callable[[], bool] = no_idle_work) -> Transport:
    def failed(error: BaseException) -> None:
        raise AssertionError from error

    return transport({"/t/Echo": unary(Echo)}, Limits(), idle, failed)


def error_of(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    code: grpc.StatusCode = raised.value.code()
    return code


def test_refusing_lets_open_calls_go_on(transport: type[Transport]) -> None:
    with served(transport, {"/t/S": stream(StreamEcho)}) as server, server.channel() as channel:
        go_on = threading.Event()
        feed = iter(lambda: go_on.wait(SECONDS) and b"2", None)
        call = channel.stream_stream("/t/S")((next(feed) if i else b"1" for i in range(2)), timeout=SECONDS)
        assert next(call) == b"1"
        server.transport.refuse(STOPPING)
        assert error_of(lambda: channel.unary_unary("/t/Echo")(b"", timeout=SECONDS)) is STOPPING.code
        assert error_of(lambda: channel.unary_unary("/t/Nobody")(b"", timeout=SECONDS)) is STOPPING.code
        go_on.set()
        assert list(call) == [b"2"]
        assert server.transport.drain(SECONDS)


def test_drain_waits_for_the_calls_in_flight(transport: type[Transport]) -> None:
    handlers = Handlers(Silent)
    with served(transport, {"/t/M": unary(handlers)}) as server, server.channel() as channel:
        assert server.transport.drain(0)
        future = channel.unary_unary("/t/M").future(b"", timeout=SECONDS)
        call = handlers.only().call
        assert not server.transport.drain(0.05)
        timer = threading.Timer(0.1, call.finish, (OK, b"answer"))
        timer.start()
        assert server.transport.drain(SECONDS)
        server.transport.close()
        assert future.result() == b"answer"
        timer.join()


def test_drain_ends_calls_whose_message_has_not_come(transport: type[Transport]) -> None:
    """It might never come. A call that has its message goes on."""
    handlers, never = Handlers(Silent), threading.Event()
    with served(transport, {"/t/M": unary(handlers)}) as server, server.channel() as channel:

        def messages() -> Iterator[bytes]:
            never.wait(SECONDS)
            yield b"too late"

        waiting = [channel.stream_unary("/t/M").future(messages(), timeout=SECONDS) for _ in range(3)]
        wait_until(lambda: len(handlers.made) == 3)
        going_on = channel.unary_unary("/t/M").future(b"", timeout=SECONDS)
        wait_until(lambda: any(each.messages for each in handlers.made))
        call = next(each for each in handlers.made if each.messages).call
        server.transport.refuse(STOPPING)
        drained: list[bool] = []
        draining = threading.Thread(target=lambda: drained.append(server.transport.drain(SECONDS)))
        draining.start()
        for each in waiting:
            assert error_of(each.result) is STOPPING.code
        assert drained == []
        call.finish(OK, b"answer")
        assert going_on.result() == b"answer"
        draining.join(SECONDS)
        assert drained == [True]
        never.set()
        wait_until(lambda: all(each.is_over for each in handlers.made))
        assert sorted(map(len, (each.messages for each in handlers.made))) == [0, 0, 0, 1]


def test_what_is_answered_before_close_arrives(transport: type[Transport]) -> None:
    for _ in range(5):
        handlers = Handlers(Silent)
        with served(transport, {"/t/M": unary(handlers)}) as server, server.channel() as channel:
            futures = [channel.unary_unary("/t/M").future(b"", timeout=SECONDS) for _ in range(100)]
            wait_until(lambda handlers=handlers: len(handlers.made) == 100)
            told = [handler.told for handler in handlers.made]
            wait_until(lambda told=told: all(told))
            for handler in handlers.made:
                handler.call.finish(OK, b"answer" * 100)
            assert server.transport.drain(SECONDS)
            server.transport.close()
            assert {future.result() for future in futures} == {b"answer" * 100}


@pytest.mark.alone
def test_close_ends_the_calls_in_flight(transport: type[Transport]) -> None:
    handlers = Handlers(Reading)
    methods = {"/t/M": unary(handlers), "/t/S": stream(handlers)}
    with served(transport, methods) as server, server.channel() as channel:
        future = channel.unary_unary("/t/M").future(b"", timeout=SECONDS)
        quiet = Quiet()
        call = channel.stream_stream("/t/S")(iter(quiet), timeout=SECONDS)
        wait_until(lambda: len(handlers.made) == 2)
        began = time.monotonic()
        server.transport.close()
        assert time.monotonic() - began < 3
        assert error_of(future.result) in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert error_of(lambda: next(call)) in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert [handler.told[-1] for handler in handlers.made] == ["cancelled", "cancelled"]
        assert server.transport.calls_in_flight() == 0
        quiet.end()


def test_late_answers_do_no_harm(transport: type[Transport]) -> None:
    def answer(calls: list[ServerCall]) -> None:
        for i, call in enumerate(calls):
            if i % 2:
                call.send(b"late")
                call.finish()
            else:
                call.finish(OK, b"late")

    for _ in range(5):
        handlers = Handlers(Reading)
        with served(transport, {"/t/S": stream(handlers)}) as server, server.channel() as channel:
            quiet = Quiet()
            held = [channel.stream_stream("/t/S")(iter(quiet), timeout=SECONDS) for _ in range(60)]
            wait_until(lambda handlers=handlers: len(handlers.made) == 60)
            calls = [handler.call for handler in handlers.made]
            threads = [threading.Thread(target=answer, args=(calls[i::2],)) for i in range(2)]
            for thread in threads:
                thread.start()
            server.transport.close()  # meanwhile
            for thread in threads:
                thread.join()
            answer(calls)
            calls[0].receive()
            assert {call.peer() for call in calls} == {""}
            assert all(handler.is_over for handler in handlers.made)
            quiet.end()
            for each in held:
                with suppress(grpc.RpcError):
                    assert list(each) == [b"late"]


def test_close_without_start(transport: type[Transport]) -> None:
    made = make(transport)
    port = made.bind("127.0.0.1:0")
    made.close()
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))  # it has let go of its port


def test_close_without_anything(transport: type[Transport]) -> None:
    made = make(transport)
    made.close()
    made.close()


def test_close_twice_and_from_two_threads(transport: type[Transport]) -> None:
    with served(transport, {}) as server:
        server.check_alive()
        threads = [threading.Thread(target=server.transport.close) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
            assert not thread.is_alive()
        server.transport.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), 1).close()


@pytest.mark.alone
def test_close_on_the_polling_thread(transport: type[Transport]) -> None:
    class Closing(Silent):
        def received(self, message: bytes) -> None:
            server.transport.close()

    with served(transport, {"/t/M": unary(Closing)}) as server, server.channel() as channel:
        began = time.monotonic()
        assert error_of(lambda: channel.unary_unary("/t/M")(b"", timeout=SECONDS))
        server.transport.close()
        assert time.monotonic() - began < 3


def test_the_thread_ends_with_close(transport: type[Transport]) -> None:
    with served(transport, {}) as server:
        thread = server.transport.polling_thread
        assert thread in {each.ident for each in threading.enumerate()}
        server.transport.close()
        assert thread not in {each.ident for each in threading.enumerate()}


def test_a_port_that_is_taken(transport: type[Transport]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        made = make(transport)
        with pytest.raises(StartupError, match="cannot listen on"):
            made.bind(f"127.0.0.1:{other.getsockname()[1]}")
        made.close()


def test_a_port_that_another_transport_has(transport: type[Transport]) -> None:
    with served(transport, {}) as server:
        made = make(transport)
        with pytest.raises(StartupError):
            made.bind(server.target)
        made.close()


@pytest.mark.parametrize("address", ["no-such-host.invalid:0", "127.0.0.1:notaport"])
def test_an_address_that_cannot_be(transport: type[Transport], address: str) -> None:
    made = make(transport)
    with pytest.raises(StartupError):
        made.bind(address)
    made.close()


def test_ipv6(transport: type[Transport]) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loop-back address")
    made = make(transport)
    port = made.bind("[::1]:0")
    made.start()
    with grpc.insecure_channel(f"[::1]:{port}") as channel:
        assert channel.unary_unary("/t/Echo")(b"6", timeout=SECONDS) == b"6"
    made.close()


def test_two_addresses(transport: type[Transport]) -> None:
    made = make(transport)
    ports = [made.bind("127.0.0.1:0") for _ in range(2)]
    made.start()
    for port in ports:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert channel.unary_unary("/t/Echo")(b"x", timeout=SECONDS) == b"x"
    made.close()


def test_calls_above_the_limit(transport: type[Transport]) -> None:
    handlers = Handlers(Silent)
    with (
        served(transport, {"/t/M": unary(handlers)}, limits=Limits(calls=3)) as server,
        server.channel() as channel,
    ):
        futures = [channel.unary_unary("/t/M").future(b"", timeout=SECONDS) for _ in range(3)]
        wait_until(lambda: len(handlers.made) == 3)
        for _ in range(5):
            assert (
                error_of(lambda: channel.unary_unary("/t/Echo")(b"", timeout=SECONDS))
                is grpc.StatusCode.RESOURCE_EXHAUSTED
            )
        assert server.transport.calls_in_flight() == 3
        futures[0].cancel()
        wait_until(lambda: server.transport.calls_in_flight() == 2)
        server.check_alive()
        for future in futures:
            future.cancel()


def test_calls_that_bring_no_message_count(transport: type[Transport]) -> None:
    with (
        served(transport, {"/t/M": unary(Silent)}, limits=Limits(calls=3)) as server,
        server.channel() as channel,
    ):
        quiet = Quiet()
        calls = [channel.stream_unary("/t/M").future(iter(quiet), timeout=SECONDS) for _ in range(3)]
        wait_until(lambda: server.transport.calls_in_flight() == 3)
        call = channel.unary_unary("/t/Echo")
        assert error_of(lambda: call(b"", timeout=SECONDS)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        for each in calls:
            each.cancel()
        quiet.end()
        server.wait_until_empty()
        server.check_alive()


def test_idle_work_runs_on_the_polling_thread_after_events(transport: type[Transport]) -> None:
    waiting: list[ServerCall] = []
    threads = set()

    class Batched(Silent):
        def received(self, message: bytes) -> None:
            waiting.append(self.call)

    def idle() -> bool:
        threads.add(threading.get_ident())
        while waiting:
            waiting.pop().finish(OK, b"idle")
        return False

    with served(transport, {"/t/M": unary(Batched)}, idle=idle) as server, server.channel() as channel:
        futures = [channel.unary_unary("/t/M").future(b"", timeout=SECONDS) for _ in range(100)]
        assert {future.result() for future in futures} == {b"idle"}
        assert threads == {server.transport.polling_thread}


def test_idle_work_follows_every_kind_of_event(transport: type[Transport]) -> None:
    told: list[str] = []

    class Noting(StreamEcho):
        def note(self, event: str) -> None:
            super().note(event)
            told.append(event)

    done = []

    def idle() -> bool:
        done.extend(told[len(done) :])
        return False

    with served(transport, {"/t/S": stream(Noting)}, idle=idle) as server, server.channel() as channel:
        assert list(channel.stream_stream("/t/S")(iter((b"1",)), timeout=SECONDS)) == [b"1"]
        wait_until(lambda: done == ["received", "sent", "half_closed", "closed"])


def test_idle_work_is_asked_for_more_while_there_is_more(transport: type[Transport]) -> None:
    asked = []

    def idle() -> bool:
        if handlers.made:
            asked.append(len(asked))
        return len(asked) < 1000

    handlers = Handlers(Echo)
    with served(transport, {"/t/M": unary(handlers)}, idle=idle) as server, server.channel() as channel:
        channel.unary_unary("/t/M")(b"", timeout=SECONDS)
        wait_until(lambda: len(asked) >= 1000)
        server.check_alive()  # and it stops being asked: events alone bring it back
        assert len(asked) < 1100


def test_calls_are_served_while_idle_work_always_has_more(transport: type[Transport]) -> None:
    def idle() -> bool:
        time.sleep(0.0005)
        return True

    with served(transport, {}, idle=idle) as server:
        server.check_alive()
        server.check_alive()


def test_failing_idle_work_does_not_end_the_thread(transport: type[Transport]) -> None:
    def idle() -> bool:
        raise RuntimeError("idle work failed")

    with served(transport, {}, idle=idle) as server:
        server.check_alive()
        server.check_alive()
        wait_until(lambda: server.failures)
        server.transport.close()
        assert {str(error) for error in server.failures} == {"idle work failed"}
        server.failures.clear()
