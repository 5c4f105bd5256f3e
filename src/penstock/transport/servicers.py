"""Runs ordinary generated servicers, such as health and reflection, on the transport contract.

Hand the servicer to the `add_XServicer_to_server` function that grpcio-tools generated for it, with a
`ServicerMethods` where grpc's own server would be:

    methods = ServicerMethods(workers)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, methods)
    transport = Reactor({**methods.methods(), ...}, ...)

Unary methods run on the worker threads. A method that streams may block for as long as its client likes,
so it gets a thread of its own, up to a bound; a method marked `experimental_non_blocking`, grpc's own
convention that grpc_health follows, streams through a callback and needs no thread at all.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import grpc
from typing_extensions import override

from penstock.transport.call import STOPPING, CallHandler, Kind, Metadata, Method, ServerCall, Status

MAX_STREAMS = 64
TOO_MANY_STREAMS = Status(
    grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_STREAMS} such streams are open, as many as this server keeps"
)


class ServicerMethods:
    """Gathers the methods of servicers; stands where a `grpc.Server` would.

    Args:
        workers: runs the unary methods.
        failed: told of an exception that a servicer let out.
    """

    def __init__(self, workers: Executor, failed: Callable[[BaseException], None]) -> None:
        self._workers = workers
        self._failed = failed
        self._handlers: dict[str, Any] = {}
        self._open: set[_Exchange] = set()

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Part of grpc's server interface; the registered handlers below say it all."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Takes the methods of one service; called by generated code."""
        self._handlers.update({f"/{service}/{name}": handler for name, handler in handlers.items()})

    def methods(self) -> dict[str, Method]:
        """The methods gathered so far, by full name."""
        return {name: self._method(handler) for name, handler in self._handlers.items()}

    def stop(self) -> None:
        """Ends the streams that are open with UNAVAILABLE."""
        for exchange in tuple(self._open):
            exchange.stop()

    def _method(self, handler: Any) -> Method:
        if handler.request_streaming or handler.response_streaming:
            return Method(Kind.STREAM, lambda call: self._exchange(call, handler))
        return Method(Kind.UNARY, lambda call: _Unary(call, handler, self._workers, self._failed))

    def _exchange(self, call: ServerCall, handler: Any) -> CallHandler:
        exchange = _Exchange(call, handler, self._failed, self._open.discard)
        if len(self._open) >= MAX_STREAMS:
            call.finish(TOO_MANY_STREAMS)
        self._open.add(exchange)
        return exchange


class _Context(grpc.ServicerContext):  # type: ignore[misc]  # grpc is untyped
    """What a servicer's method may ask of and tell to its call."""

    def __init__(self, call: ServerCall) -> None:
        self._call = call
        self._callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._active = True
        self._code: grpc.StatusCode = grpc.StatusCode.OK
        self._details = ""
        self._trailing: Metadata = ()

    def status(self) -> Status:
        """The status the method has settled on."""
        return Status(self._code, self._details, self._trailing)

    def close(self) -> None:
        """Tells whoever asked that the call is over."""
        with self._lock:
            self._active, callbacks = False, self._callbacks
        for callback in callbacks:
            callback()

    @override
    def is_active(self) -> bool:
        return self._active

    @override
    def time_remaining(self) -> float | None:
        left = self._call.deadline - time.monotonic()
        return None if left == float("inf") else max(left, 0.0)

    @override
    def add_callback(self, callback: Callable[[], None]) -> bool:
        with self._lock:
            if self._active:
                self._callbacks.append(callback)
            return self._active

    @override
    def cancel(self) -> None:
        self._call.finish(Status(grpc.StatusCode.CANCELLED, "cancelled by the server"))

    @override
    def invocation_metadata(self) -> Metadata:
        return self._call.metadata

    @override
    def peer(self) -> str:
        return self._call.peer()

    @override
    def peer_identities(self) -> Sequence[bytes] | None:
        return self._call.identities() or None

    @override
    def peer_identity_key(self) -> str | None:
        return None

    @override
    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return self._call.auth_context()

    @override
    def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        raise grpc.RpcError("initial metadata of its own is not offered to servicers here")

    @override
    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        self._trailing = trailing_metadata

    @override
    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    @override
    def set_details(self, details: str) -> None:
        self._details = details

    @override
    def abort(self, code: grpc.StatusCode, details: str) -> None:
        self._code, self._details = code, details
        raise _AbortError

    @override
    def abort_with_status(self, status: Any) -> None:
        self._trailing = status.trailing_metadata or ()
        self.abort(status.code, status.details)


class _AbortError(Exception):
    """Leaves a servicer's method once it has aborted its call."""


class _Unary:
    """A call of a method with one request and one answer."""

    def __init__(
        self, call: ServerCall, handler: Any, workers: Executor, failed: Callable[[BaseException], None]
    ) -> None:
        self._call = call
        self._handler = handler
        self._workers = workers
        self._failed = failed
        self._context = _Context(call)

    def received(self, message: bytes) -> None:
        self._workers.submit(self._run, message)

    def half_closed(self) -> None: ...

    def sent(self) -> None: ...

    def closed(self, cancelled: bool) -> None:
        self._context.close()

    def _run(self, message: bytes) -> None:
        request = _deserialized(self._handler, message, self._call)
        if request is None:
            return
        answer = None
        try:
            answer = self._handler.unary_unary(request, self._context)
        except _AbortError:
            pass
        except Exception as error:
            self._failed(error)
            self._context.set_code(grpc.StatusCode.INTERNAL)
        status = self._context.status()
        good = answer is not None and status.code is grpc.StatusCode.OK
        self._call.finish(status, self._handler.response_serializer(answer) if good else None)


class _Exchange:
    """A call of a method that streams, on a thread of its own."""

    def __init__(
        self,
        call: ServerCall,
        handler: Any,
        failed: Callable[[BaseException], None],
        gone: Callable[[_Exchange], None],
    ) -> None:
        self._call = call
        self._handler = handler
        self._failed = failed
        self._gone = gone
        self._context = _Context(call)
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._may_send = threading.Semaphore(1)
        self._outbox = _CallbackOutbox(call)
        self._begun = False

    def received(self, message: bytes) -> None:
        self._requests.put(message)
        if not self._begun:
            self._begun = True
            self._begin(message)

    def half_closed(self) -> None:
        self._requests.put(None)
        if not self._begun:
            self._call.finish(
                Status(grpc.StatusCode.INVALID_ARGUMENT, "the call ended before a message came")
            )

    def sent(self) -> None:
        self._may_send.release()
        self._outbox.sent()

    def closed(self, cancelled: bool) -> None:
        self._gone(self)
        self._context.close()
        self._requests.put(None)
        self._may_send.release()

    def stop(self) -> None:
        """Ends the call because the server stops."""
        self._call.finish(STOPPING)

    def _begin(self, message: bytes) -> None:
        method = self._handler.unary_stream
        if method is not None and getattr(method, "experimental_non_blocking", False):
            self._begin_without_a_thread(method, message)
        else:
            threading.Thread(target=self._run, name="penstock-servicer", daemon=True).start()

    def _begin_without_a_thread(self, method: Any, message: bytes) -> None:
        request = _deserialized(self._handler, message, self._call)
        if request is None:
            return

        def send(response: Any) -> None:
            if response is not None and self._context.is_active():
                self._outbox.put(self._handler.response_serializer(response))

        method(request, self._context, send_response_callback=send)

    def _run(self) -> None:
        try:
            self._send_all()
        except _AbortError:
            pass
        except Exception as error:
            self._failed(error)
            self._context.set_code(grpc.StatusCode.INTERNAL)
        self._call.finish(self._context.status())

    def _send_all(self) -> None:
        handler, requests = self._handler, self._received_requests()
        if handler.request_streaming:
            method, argument = handler.stream_stream or handler.stream_unary, requests
        else:
            method, argument = handler.unary_stream, next(requests)
        answers = method(argument, self._context)
        for answer in answers if handler.response_streaming else (answers,):
            self._may_send.acquire()
            if not self._context.is_active():
                return
            self._call.send(handler.response_serializer(answer))
        self._may_send.acquire()  # the last message is on its way

    def _received_requests(self) -> Iterator[Any]:
        while (message := self._requests.get()) is not None:
            request = _deserialized(self._handler, message, self._call)
            if request is None:
                return
            self._call.receive()
            yield request


class _CallbackOutbox:
    """Sends messages one after another, as they are put, on whichever thread puts them."""

    def __init__(self, call: ServerCall) -> None:
        self._call = call
        self._waiting: list[bytes] = []
        self._sending = False
        self._lock = threading.Lock()

    def put(self, message: bytes) -> None:
        with self._lock:
            self._waiting.append(message)
            self._send_next()

    def sent(self) -> None:
        with self._lock:
            self._sending = False
            self._send_next()

    def _send_next(self) -> None:
        if self._waiting and not self._sending:
            self._sending = True
            self._call.send(self._waiting.pop(0))


def _deserialized(handler: Any, message: bytes, call: ServerCall) -> Any:
    """The request in `message`; None, with the call ended, where there is none."""
    try:
        return handler.request_deserializer(message)
    except Exception as error:
        call.finish(Status(grpc.StatusCode.INVALID_ARGUMENT, f"the request cannot be parsed: {error}"))
        return None
