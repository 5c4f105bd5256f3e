"""Tries the reactor before a server relies on it: it uses a module that is private to grpcio."""

from __future__ import annotations

import grpc
from typing_extensions import override

from penstock.core.large_bytes import forget
from penstock.transport.grpc.call import OK, Kind, Limits, Method, ServerCall, Status
from penstock.transport.grpc.reactor import Reactor


class _Echo:
    """The self-test's handler: sends back every message, and uses all that a call offers."""

    def __init__(self, call: ServerCall) -> None:
        self._call = call
        self._seen = (call.peer(), call.identities(), call.auth_context(), dict(call.metadata))

    def received(self, message: bytes) -> None:
        self._call.send(message)

    def half_closed(self) -> None:
        self._call.finish(Status(grpc.StatusCode.OK, "", (("seen", self._seen[0]),)))

    def sent(self) -> None:
        self._call.receive()

    def closed(self, cancelled: bool) -> None: ...


class _UnaryEcho(_Echo):
    @override
    def received(self, message: bytes) -> None:
        self._call.finish(OK, message)
        forget(message)  # as is done with larger ones: gRPC must have copied it


LARGER = b"1" * 2**16
"""Many pages."""
ECHOES = {"/penstock/Unary": Method(Kind.UNARY, _UnaryEcho), "/penstock/Stream": Method(Kind.STREAM, _Echo)}


def self_test(seconds: float = 5.0) -> None:
    """Makes calls to a reactor over the loopback interface.

    Raises:
        Exception: of any kind, if grpcio's private module is not as the reactor expects.
    """
    failures: list[BaseException] = []

    def failed(error: BaseException) -> None:
        failures.append(error)
        channel.close()  # ends the calls, whose answers will not come

    reactor = Reactor(ECHOES, Limits(), lambda: False, failed)
    target = f"127.0.0.1:{reactor.bind('127.0.0.1:0')}"
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
    channel = grpc.insecure_channel(target, options)
    try:
        reactor.start()
        one = channel.unary_unary("/penstock/Unary")(LARGER, timeout=seconds)
        two = list(channel.stream_stream("/penstock/Stream")(iter((b"1", b"2")), timeout=seconds))
    except (grpc.RpcError, ValueError):
        if not failures:
            raise
    finally:
        channel.close()
        reactor.close()
    if failures:
        raise failures[0]
    if one != LARGER or two != [b"1", b"2"] or reactor.calls_in_flight():
        raise RuntimeError(f"sent {LARGER[:1]!r}, and 1 and 2, got {one[:1]!r} and {two!r}")
