"""Runs ordinary generated servicers, such as health and reflection, on the transport contract.

Hand the servicer to the `add_XServicer_to_server` function that grpcio-tools generated for it, with a
`ServicerMethods` where grpc's own server would be:

    methods = ServicerMethods(workers, failed)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, methods)
    transport = Reactor({**methods.methods(), ...}, ...)

Unary methods run on the worker threads. A method that streams may block for as long as its client likes,
so it gets a thread of its own, up to a bound; a method marked `experimental_non_blocking`, grpc's own
convention that grpc_health follows, streams through a callback and needs no thread at all.
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

from penstock.transport.call import (
    BROKEN,
    NO_MESSAGE,
    STOPPING,
    CallHandler,
    Kind,
    Method,
    ServerCall,
    Status,
)
from penstock.transport.servicer_context import Aborted, CallIsOver, Context

MAX_THREADS = 64
TOO_MANY_STREAMS = Status(
    grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_THREADS} such streams are open, as many as this server keeps"
)
MAX_WAITING = 256
TOO_SLOW = Status(
    grpc.StatusCode.RESOURCE_EXHAUSTED, f"the client has left {MAX_WAITING} messages waiting to be read"
)


class ServicerMethods:
    """Gathers the methods of servicers; stands where a `grpc.Server` would.

    Args:
        workers: runs the unary methods.
        failed: told of an exception that a servicer let out.
    """

    def __init__(self, workers: Executor, failed: Callable[[BaseException], None]) -> None:
        self.workers = workers
        self.failed = failed
        self.threads = threading.Semaphore(MAX_THREADS)
        self._handlers: dict[str, Any] = {}
        self._streams: set[_Served] = set()  # changed on the polling thread only
        self._stopping = False

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Part of grpc's server interface; the registered handlers below say it all."""

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
    """A call of a servicer's method: what the calls of all kinds share."""

    def __init__(self, call: ServerCall, handler: Any, home: ServicerMethods) -> None:
        self._call = call
        self._handler = handler
        self._home = home
        self._context = Context(call, home.failed)

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
        self._home.closed(self)
        self._context.close()

    def _guarded(self, work: Callable[..., None], *arguments: object) -> None:
        """Runs the servicer's code; ends the call where an exception comes out of it."""
        try:
            work(*arguments)
        except Aborted:
            self._finish()
        except CallIsOver:
            pass
        except Exception as error:
            self._home.failed(error)
            self._call.finish(BROKEN)

    def _finish(self, answer: Any = None) -> None:
        """Ends the call as the servicer has settled it; only a success carries the answer."""
        try:
            status = self._context.status()
            good = answer is not None and status.code is grpc.StatusCode.OK
            self._call.finish(status, self._serialized(answer) if good else None)
        except Exception as error:
            self._home.failed(error)
            self._call.finish(BROKEN)

    def _parsed(self, message: bytes) -> Any:
        try:
            return self._handler.request_deserializer(message)
        except Exception as error:
            self._context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"the {len(message)} bytes that came are no such message: {error}",
            )

    def _serialized(self, answer: Any) -> bytes:
        data: bytes = self._handler.response_serializer(answer)
        return data


class _Unary(_Served):
    """A call with one request and one answer, on a worker thread."""

    def received(self, message: bytes) -> None:
        self._home.workers.submit(self._guarded, self._run, message)

    def _run(self, message: bytes) -> None:
        if not self._context.is_active():
            return  # the client has not waited for a free worker
        answer = self._handler.unary_unary(self._parsed(message), self._context)
        if answer is None and self._context.code() is grpc.StatusCode.OK:
            raise TypeError(f"{self._call.method} gave no answer")
        self._finish(answer)


class _Callback(_Served):
    """A stream whose method takes a callback for its answers. The callback may be called by any thread."""

    def __init__(self, call: ServerCall, handler: Any, home: ServicerMethods) -> None:
        super().__init__(call, handler, home)
        self._waiting: deque[Any] = deque()
        self._sending = False
        self._lock = threading.Lock()

    def received(self, message: bytes) -> None:
        self._guarded(self._run, message)

    def sent(self) -> None:
        with self._lock:
            self._sending = False
            self._send_next()

    def _run(self, message: bytes) -> None:
        method = self._handler.unary_stream
        method(self._parsed(message), self._context, send_response_callback=self._respond)

    def _respond(self, answer: Any) -> None:
        """Sends an answer once those before it have left; None ends the stream."""
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


class _Mark(Enum):
    """What stands in a stream's queue of requests where they end."""

    HALF_CLOSED = "the client has finished sending"
    OVER = "the call is over"


class _Threaded(_Served):
    """A stream on a thread of its own, which may block on receiving and on sending."""

    def __init__(self, call: ServerCall, handler: Any, home: ServicerMethods) -> None:
        super().__init__(call, handler, home)
        self._requests: queue.SimpleQueue[bytes | _Mark] = queue.SimpleQueue()
        self._may_send = threading.Semaphore(1)
        self._begun = False

    def open(self) -> None:
        if self._handler.request_streaming:  # it may well send before it receives
            self._begin()

    def received(self, message: bytes) -> None:
        self._requests.put(message)
        self._begin()

    def half_closed(self) -> None:
        if self._begun:
            self._requests.put(_Mark.HALF_CLOSED)
        else:
            super().half_closed()

    def sent(self) -> None:
        self._may_send.release()

    def closed(self, cancelled: bool) -> None:
        super().closed(cancelled)
        self._requests.put(_Mark.OVER)
        self._may_send.release()

    def _begin(self) -> None:
        if self._begun:
            return
        if not self._home.threads.acquire(blocking=False):
            self._call.finish(TOO_MANY_STREAMS)
            return
        self._begun = True
        try:
            threading.Thread(target=self._run, name="penstock-servicer", daemon=True).start()
        except RuntimeError:  # the system gives no more threads
            self._home.threads.release()
            raise

    def _run(self) -> None:
        try:
            self._guarded(self._exchange)
        finally:
            self._home.threads.release()

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
