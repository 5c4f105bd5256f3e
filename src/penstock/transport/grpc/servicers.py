"""Runs ordinary generated servicers, such as health and reflection, on the transport contract.

Pass the servicer to the `add_XServicer_to_server` function that grpcio-tools generated for it, with a
`ServicerMethods` in place of grpc's own server:

    methods = ServicerMethods(workers, failed)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, methods)
    transport = Reactor({**methods.methods(), ...}, ...)

Unary methods run on the worker threads. A method that streams may block for as long as its client likes, so
each call gets its own thread, up to a limit. A method marked `experimental_non_blocking`, grpc's own
convention that grpc_health follows, streams through a callback and needs no thread. Neither does one marked
with `answers_each`, which answers each request by itself.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from enum import Enum
from typing import Any

import grpc
from typing_extensions import override

from penstock.core.names import many
from penstock.transport.grpc.call import (
    BROKEN,
    NO_MESSAGE,
    STOPPING,
    CallHandler,
    Kind,
    Method,
    ServerCall,
    Status,
)
from penstock.transport.grpc.servicer_context import Aborted, CallIsOver, Context

UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED
MAX_THREADS = 64
TOO_MANY_STREAMS = Status(
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    f"{MAX_THREADS} such streams are open, the server's limit",
)
MAX_WAITING = 256
TOO_SLOW = Status(
    grpc.StatusCode.RESOURCE_EXHAUSTED, f"the client has left {MAX_WAITING} messages waiting to be read"
)


MOST_KEPT, MOST_KEPT_BYTES = 256, 1024
"""Answers that are kept for a method that answers each request by itself, and their largest request."""


def answers_each(method: Any) -> Any:
    """Marks a method that streams: each request has one answer, the same whenever it comes."""
    method.answers_each = True
    return method


class ServicerMethods:
    """Gathers the methods of servicers; takes the place of a `grpc.Server`.

    Args:
        workers: runs the unary methods.
        failed: called with an exception that a servicer raised.
    """

    def __init__(self, workers: Executor, failed: Callable[[BaseException], None]) -> None:
        self.workers = workers
        self.failed = failed
        self.threads = threading.Semaphore(MAX_THREADS)
        self._handlers: dict[str, Any] = {}
        self._streams: set[_Served] = set()  # changed on the polling thread only
        self._stopping = False

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Part of grpc's server interface; the registered handlers below have all of it."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Takes the methods of one service; called by generated code."""
        self._handlers.update({f"/{service}/{name}": handler for name, handler in handlers.items()})

    def methods(self) -> dict[str, Method]:
        """The methods gathered so far, by full name."""
        return {name: self._method(handler) for name, handler in self._handlers.items()}

    def stop(self) -> None:
        """Ends the streams that are open with UNAVAILABLE, and those that open from now on."""
        self._stopping = True
        for stream in tuple(self._streams):
            stream.stop()

    def closed(self, stream: _Served) -> None:
        """A stream is over."""
        self._streams.discard(stream)

    def _method(self, handler: Any) -> Method:
        if not (handler.request_streaming or handler.response_streaming):
            return Method(Kind.UNARY, lambda call: _Unary(call, handler, self))
        if getattr(handler.stream_stream, "answers_each", False):
            kept: dict[bytes, bytes] = {}
            return Method(Kind.STREAM, lambda call: self._open(_OneByOne(call, handler, self, kept)))
        blocking = not getattr(handler.unary_stream, "experimental_non_blocking", False)
        kind = _Threaded if blocking else _Callback
        return Method(Kind.STREAM, lambda call: self._open(kind(call, handler, self)))

    def _open(self, stream: _Served) -> CallHandler:
        self._streams.add(stream)
        if self._stopping:
            stream.stop()
        else:
            stream.open()
        return stream


class _Served:
    """A call of a servicer's method: the part that all kinds share."""

    def __init__(self, call: ServerCall, handler: Any, methods: ServicerMethods) -> None:
        self._call = call
        self._handler = handler
        self._methods = methods
        self._context = Context(call, methods.failed)

    def open(self) -> None:
        """The call has come, and no message of it yet."""

    def stop(self) -> None:
        """Ends the call because the server stops."""
        self._call.finish(STOPPING)

    def received(self, message: bytes) -> None: ...

    def half_closed(self) -> None:
        self._call.finish(NO_MESSAGE)

    def sent(self) -> None: ...

    def closed(self, cancelled: bool) -> None:
        self._methods.closed(self)
        self._context.close()

    def _guarded(self, work: Callable[..., None], *arguments: object) -> None:
        """Runs the servicer's code; ends the call if it raises an exception."""
        try:
            work(*arguments)
        except Aborted:
            self._finish()
        except CallIsOver:
            pass
        except Exception as error:
            if isinstance(error, NotImplementedError) and self._context.code() is UNIMPLEMENTED:
                # What grpcio-tools generates for a method of the .proto file that the servicer does not have.
                self._call.finish(
                    Status(UNIMPLEMENTED, f"{self._call.method} is not implemented by this server")
                )
                return
            self._methods.failed(error)
            self._call.finish(BROKEN)

    def _finish(self, answer: Any = None) -> None:
        """Ends the call with the status that the servicer has set; only a success carries the answer."""
        try:
            status = self._context.status()
            good = answer is not None and status.code is grpc.StatusCode.OK
            self._call.finish(status, self._serialized(answer) if good else None)
        except Exception as error:
            self._methods.failed(error)
            self._call.finish(BROKEN)

    def _parsed(self, message: bytes) -> Any:
        try:
            return self._handler.request_deserializer(message)
        except Exception as error:
            self._context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"the request ({many(len(message), 'byte')}) cannot be parsed: {error}",
            )

    def _serialized(self, answer: Any) -> bytes:
        data: bytes = self._handler.response_serializer(answer)
        return data


class _Unary(_Served):
    """A call with one request and one answer, on a worker thread."""

    @override
    def received(self, message: bytes) -> None:
        self._methods.workers.submit(self._guarded, self._run, message)

    def _run(self, message: bytes) -> None:
        if not self._context.is_active():
            return  # the client is gone
        answer = self._handler.unary_unary(self._parsed(message), self._context)
        if answer is None and self._context.code() is grpc.StatusCode.OK:
            raise TypeError(f"{self._call.method} gave no answer")
        self._finish(answer)


class _Callback(_Served):
    """A stream whose method takes a callback for its answers. The callback may be called by any thread."""

    def __init__(self, call: ServerCall, handler: Any, methods: ServicerMethods) -> None:
        super().__init__(call, handler, methods)
        self._waiting: deque[Any] = deque()
        self._sending = False
        self._lock = threading.Lock()

    @override
    def received(self, message: bytes) -> None:
        self._guarded(self._run, message)

    @override
    def sent(self) -> None:
        with self._lock:
            self._sending = False
            self._send_next()

    def _run(self, message: bytes) -> None:
        method = self._handler.unary_stream
        method(self._parsed(message), self._context, send_response_callback=self._respond)

    def _respond(self, answer: Any) -> None:
        """Sends an answer after those before it; None ends the stream."""
        with self._lock:
            if len(self._waiting) >= MAX_WAITING:
                self._call.finish(TOO_SLOW)
                return
            self._waiting.append(answer)
            self._send_next()

    def _send_next(self) -> None:
        if self._sending or not self._waiting:
            return
        answer = self._waiting.popleft()
        if answer is None:
            self._finish()
        else:
            self._sending = True
            self._call.send(self._serialized(answer))


class _OneByOne(_Served):
    """A stream whose requests are answered one after another, on the worker threads; known ones at once.

    Args:
        call: the call.
        handler: the method.
        methods: has the workers.
        kept: the answers that are known, by their requests.
    """

    def __init__(
        self, call: ServerCall, handler: Any, methods: ServicerMethods, kept: dict[bytes, bytes]
    ) -> None:
        super().__init__(call, handler, methods)
        self._kept = kept

    @override
    def received(self, message: bytes) -> None:
        answer = self._kept.get(message)
        if answer is not None:
            self._call.send(answer)
        else:
            self._methods.workers.submit(self._guarded, self._run, message)

    @override
    def half_closed(self) -> None:  # asked for only when the request before it is answered
        self._finish()

    @override
    def sent(self) -> None:
        self._call.receive()

    def _run(self, message: bytes) -> None:
        if not self._context.is_active():
            return  # the client is gone
        answers = self._handler.stream_stream(iter((self._parsed(message),)), self._context)
        answer = self._serialized(next(iter(answers)))
        if len(message) <= MOST_KEPT_BYTES and len(self._kept) < MOST_KEPT:
            self._kept[message] = answer
        self._call.send(answer)


class _Mark(Enum):
    """What ends a stream's queue of requests."""

    HALF_CLOSED = "the client has finished sending"
    OVER = "the call is over"


class _Threaded(_Served):
    """A stream on its own thread, which may block on receiving and on sending."""

    def __init__(self, call: ServerCall, handler: Any, methods: ServicerMethods) -> None:
        super().__init__(call, handler, methods)
        self._requests: queue.SimpleQueue[bytes | _Mark] = queue.SimpleQueue()
        self._may_send = threading.Semaphore(1)
        self._begun = False

    @override
    def open(self) -> None:
        if self._handler.request_streaming:  # it may well send before it receives
            self._begin()

    @override
    def received(self, message: bytes) -> None:
        self._requests.put(message)
        self._begin()

    @override
    def half_closed(self) -> None:
        if self._begun:
            self._requests.put(_Mark.HALF_CLOSED)
        else:
            super().half_closed()

    @override
    def sent(self) -> None:
        self._may_send.release()

    @override
    def closed(self, cancelled: bool) -> None:
        super().closed(cancelled)
        self._requests.put(_Mark.OVER)
        self._may_send.release()

    def _begin(self) -> None:
        if self._begun:
            return
        if not self._methods.threads.acquire(blocking=False):
            self._call.finish(TOO_MANY_STREAMS)
            return
        self._begun = True
        try:
            threading.Thread(target=self._run, name="penstock-servicer", daemon=True).start()
        except RuntimeError:  # the system gives no more threads
            self._methods.threads.release()
            raise

    def _run(self) -> None:
        try:
            self._guarded(self._exchange)
        finally:
            self._methods.threads.release()

    def _exchange(self) -> None:
        handler, requests = self._handler, self._requests_received()
        if handler.stream_unary is not None:
            self._finish(handler.stream_unary(requests, self._context))
            return
        if handler.stream_stream is not None:
            answers = handler.stream_stream(requests, self._context)
        else:
            answers = handler.unary_stream(next(requests), self._context)
        for answer in answers:
            self._wait_until_sent()
            self._call.send(self._serialized(answer))
        self._wait_until_sent()
        self._finish()

    def _wait_until_sent(self) -> None:
        self._may_send.acquire()
        if not self._context.is_active():
            raise CallIsOver

    def _requests_received(self) -> Iterator[Any]:
        while (message := self._requests.get()) is not _Mark.HALF_CLOSED:
            if isinstance(message, _Mark):
                raise CallIsOver
            self._call.receive()
            yield self._parsed(message)
