"""The end of a server: clients hear that calls without an answer were not run, and make them elsewhere."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import grpc
import pytest

from penstock.transport.grpc import call as contract
from penstock.transport.grpc.call import OK, STOPPING, ServerCall, Transport
from penstock.transport.grpc.sockets import connections, say_goodbye
from support.calls import SECONDS, Echo, Handlers, Silent, served, unary, wait_until

REFUSED = "failed to connect to all addresses"
"""What gRPC says of a call that it has not sent, or may send again."""


class Blocking(Silent):
    """Holds the polling thread, so that further calls arrive and are not seen, until its event is set."""

    begun, go_on = threading.Event(), threading.Event()

    def __init__(self, call: ServerCall) -> None:
        super().__init__(call)
        self.begun.set()
        self.go_on.wait(SECONDS)

    def received(self, message: bytes) -> None:
        super().received(message)
        self.call.finish(OK, message)


@pytest.fixture
def released() -> Iterator[None]:
    Blocking.begun.clear()
    Blocking.go_on.clear()
    yield
    Blocking.go_on.set()


def test_calls_that_nothing_has_taken_are_made_elsewhere(transport: type[Transport], released: None) -> None:
    """Without the goodbye their connection would just end, and their clients could not know what was run."""
    with served(transport, {"/t/Block": unary(Handlers(Blocking))}) as server, server.channel() as channel:
        futures = [channel.unary_unary("/t/Block").future(b"", timeout=SECONDS) for _ in range(5)]
        assert Blocking.begun.wait(SECONDS)
        server.transport.refuse(STOPPING)
        say_goodbye(server.port)
        for future in futures:
            assert future.code() is grpc.StatusCode.UNAVAILABLE
            assert future.details().startswith(REFUSED)
        wait_until(lambda: not connections(server.port))
        with server.channel() as another, pytest.raises(grpc.RpcError) as raised:
            another.unary_unary("/t/Block")(b"", timeout=SECONDS)
        assert raised.value.details().startswith(REFUSED)


def test_answers_on_their_way_arrive(transport: type[Transport]) -> None:
    with served(transport, {"/t/Echo": unary(Echo)}) as server, server.channel() as channel:
        sent = [bytes([n]) * 200_000 for n in range(50)]
        futures = [channel.unary_unary("/t/Echo").future(each, timeout=SECONDS) for each in sent]
        wait_until(lambda: all(each.done() for each in futures[:5]))
        server.transport.refuse(STOPPING)
        assert server.transport.drain(SECONDS)
        say_goodbye(server.port)
        for future, each in zip(futures, sent, strict=True):
            if future.code() is OK.code:
                assert future.result() == each
            else:
                assert future.details() == STOPPING.details or future.details().startswith(REFUSED)


def test_a_client_that_does_not_read_is_not_written_to() -> None:
    """A frame of gRPC's may be half sent there: another one in its middle would be nonsense."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, listener.accept()[0] as connection:
            connection.setblocking(False)
            sent = 0
            with suppress(BlockingIOError):
                while True:
                    sent += connection.send(bytes(100_000))
            say_goodbye(port)
            connection.close()
            client.settimeout(SECONDS)
            assert sum(iter(lambda: len(client.recv(1 << 20)), 0)) == sent


def test_a_listener_that_has_stopped_is_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RD)
        assert connections(port) == 0


def test_a_probe_in_the_last_moment_is_no_call_without_an_answer(
    transport: type[Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code says whether all was answered: it must not depend on whether a probe has just come."""
    monkeypatch.setattr(contract, "LAST_WRITES_SECONDS", 0.3)
    probes = Handlers(Silent)
    drained: list[bool] = []
    with served(transport, {"/t/Probe": unary(probes)}) as server, server.channel() as channel:
        server.transport.refuse(STOPPING, spared=("/t/Probe",))
        draining = threading.Thread(target=lambda: drained.append(server.transport.drain(SECONDS)))
        draining.start()
        future = channel.unary_unary("/t/Probe").future(b"", timeout=SECONDS)
        draining.join(SECONDS)
        assert probes.made
        assert drained == [True]
        future.cancel()
