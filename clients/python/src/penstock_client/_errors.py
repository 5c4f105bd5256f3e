"""The errors of the client, as one tree of classes.

PenstockError          any status that has no class of its own; `status` says which
├── InvalidInput       INVALID_ARGUMENT, from the server, or already from the client
├── NotFound           NOT_FOUND: no such model, version or label
├── FailedPrecondition FAILED_PRECONDITION: a step of a sequence that has no state
├── Exhausted          RESOURCE_EXHAUSTED: a queue, a limit or a quota is full
├── DeadlineExceeded   DEADLINE_EXCEEDED: no answer within the timeout
├── Cancelled          CANCELLED: the call was cancelled
├── Unavailable        UNAVAILABLE: no server, or the model is loading, draining or has failed too often
├── Unauthenticated    UNAUTHENTICATED: no credentials, or bad ones
├── PermissionDenied   PERMISSION_DENIED: good credentials that do not allow this
└── ModelFailed        INTERNAL: the model failed on these inputs, or the server has a fault
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

CLOSED = "the client was closed"
GONE = (
    "the server is stopping",
    "failed to connect to all addresses",
    "the server accepts no requests now",
)
"""Beginnings of a status text that mean that the server is gone, and unanswered requests were not run: a
Penstock server ended the stream after answering all that it had read; or gRPC found no connection, so nothing
was sent; or the server's health says so."""
UNCONNECTED = "the timeout passed while there was no connection to the server"
_UNCONNECTED = {grpc.ChannelConnectivity.CONNECTING, grpc.ChannelConnectivity.TRANSIENT_FAILURE}
_NOT_GRPC = "Failed parsing HTTP/2"
NOT_GRPC = (
    "what listens there does not speak gRPC (by default port 8001): is this the port of HTTP (8000) or of "
    "the operations (8002)?"
)
_DETAILS_KEY = "grpc-status-details-bin"


class PenstockError(Exception):
    """The root of the tree. `str()` of any of these is the message.

    Attributes:
        status: the status as gRPC names it.
        message: what happened, as a text for the user.
        retry_after_seconds: when a retry may help, according to the server; None if it gives no time.
        index: on a stream the position of the item in the iterable, from 0; None elsewhere, and if the
            whole stream failed.
        id: of the call of `predict`, or on a stream of the item; "" if it has none.
    """

    _status: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        status: grpc.StatusCode | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = self._status if status is None else status
        self.retry_after_seconds = retry_after_seconds
        self.index: int | None = None
        self.id = ""
        self._not_run = False  # the server said that it did not run the request, or it was not sent

    @property
    def retryable(self) -> bool:
        """Whether sending the request again may help, and is safe: the server has not run it."""
        if isinstance(self, (Exhausted, DeadlineExceeded)):  # a hint comes with what was rejected on arrival
            return self.retry_after_seconds is not None or self._not_run
        is_gone = self.message.startswith((*GONE, UNCONNECTED))
        return isinstance(self, Unavailable) and (self._not_run or is_gone)

    def again(self) -> PenstockError:
        """A copy for another caller: an exception that is raised twice mixes up its tracebacks."""
        copy = type(self)(self.message, status=self.status, retry_after_seconds=self.retry_after_seconds)
        copy._not_run = self._not_run
        return copy


class InvalidInput(PenstockError):
    """The inputs do not fit the model; `index`, `id` and the message name them."""

    _status = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(PenstockError):
    """There is no such model, version or label."""

    _status = grpc.StatusCode.NOT_FOUND


class FailedPrecondition(PenstockError):
    """A step's sequence has no state: it never began, has ended or has expired; `start` begins it again."""

    _status = grpc.StatusCode.FAILED_PRECONDITION


class Exhausted(PenstockError):
    """A limit of the server is reached; `retry_after_seconds` is the time to a retry, if that helps."""

    _status = grpc.StatusCode.RESOURCE_EXHAUSTED


class DeadlineExceeded(PenstockError):
    """There was no answer within the timeout."""

    _status = grpc.StatusCode.DEADLINE_EXCEEDED


class Cancelled(PenstockError):
    """The call was cancelled, by the server or because the client was closed."""

    _status = grpc.StatusCode.CANCELLED


class Unavailable(PenstockError):
    """No server answers at the target, or the model is loading, draining, gone or has failed too often."""

    _status = grpc.StatusCode.UNAVAILABLE


class Unauthenticated(PenstockError):
    """The call carried no credentials, or bad ones."""

    _status = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(PenstockError):
    """The credentials are valid but do not allow this."""

    _status = grpc.StatusCode.PERMISSION_DENIED


class ModelFailed(PenstockError):
    """The model failed on these inputs, or the server has a fault; see the server's log."""

    _status = grpc.StatusCode.INTERNAL


_BY_STATUS: dict[grpc.StatusCode, type[PenstockError]] = {
    each._status: each
    for each in (
        InvalidInput, NotFound, FailedPrecondition, Exhausted, DeadlineExceeded, Cancelled, Unavailable,
        Unauthenticated, PermissionDenied, ModelFailed,
    )
}  # fmt: skip
_BY_NUMBER: dict[int, grpc.StatusCode] = {each.value[0]: each for each in grpc.StatusCode}


def not_run(error: PenstockError) -> PenstockError:
    """Marks the error: the server did not run the request."""
    error._not_run = True
    return error


def was_not_run(error: PenstockError) -> bool:
    """Whether the server reported that it did not run the request."""
    return error._not_run


def from_code(
    status: grpc.StatusCode, message: str, retry_after_seconds: float | None = None
) -> PenstockError:
    """The error for a status; `PenstockError` itself for a status without a class of its own."""
    kind = _BY_STATUS.get(status, PenstockError)
    return kind(message, status=status, retry_after_seconds=retry_after_seconds)


def from_status(status: status_pb2.Status) -> PenstockError:
    """The error for a `google.rpc.Status`, as a stream carries it for one of its items.

    A number that gRPC does not know, and OK, which cannot be an error, become UNKNOWN.
    """
    code = _BY_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN)
    if code is grpc.StatusCode.OK:
        return PenstockError("the server sent an answer that is neither a prediction nor an error")
    return from_code(code, status.message, _retry_after(status))


def from_call(failed: Any) -> PenstockError:
    """The error for a call that failed.

    Args:
        failed: a `grpc.RpcError`, of a plain or an asyncio channel: both have `code()`, `details()` and
            `trailing_metadata()`.
    """
    return from_parts(failed.code(), failed.details(), failed.trailing_metadata())


def from_parts(status: grpc.StatusCode, details: str | None, trailers: Any) -> PenstockError:
    """The error for the status, the text and the trailing metadata that a call ended with."""
    more = _details(trailers or ())
    if details and _NOT_GRPC in details:
        details = f"{details}; {NOT_GRPC}"
    return from_code(status, details or "", None if more is None else _retry_after(more))


def _details(metadata: Iterable[tuple[str, str | bytes]]) -> status_pb2.Status | None:
    for key, value in metadata:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:  # only the hint is lost, not the error
                return None
    return None


def _retry_after(status: status_pb2.Status) -> float | None:
    for detail in status.details:
        info = error_details_pb2.RetryInfo()
        if detail.Is(info.DESCRIPTOR):
            try:
                detail.Unpack(info)
            except DecodeError:
                return None
            return float(info.retry_delay.seconds + info.retry_delay.nanos * 1e-9)
    return None


def if_unconnected(error: DeadlineExceeded, state: grpc.ChannelConnectivity) -> PenstockError:
    """The error of a call whose timeout passed: Unavailable if there was no connection.

    Args:
        error: of the call.
        state: of the channel, after the call.
    """
    return Unavailable(UNCONNECTED) if state in _UNCONNECTED else error


def without_stream(
    error: DeadlineExceeded, failed: PenstockError | None, state: grpc.ChannelConnectivity
) -> PenstockError:
    """The error of a request whose timeout passed while no stream was open, so that it was not sent.

    Args:
        error: the error if there was a connection.
        failed: the error of the last attempt to open a stream; None if the first one has not ended.
        state: of the channel, after the request.
    """
    if failed is None and state is grpc.ChannelConnectivity.READY:
        return not_run(error)
    return Unavailable(UNCONNECTED if failed is None else f"{UNCONNECTED}: {failed.message}")


def if_closed(error: Exception) -> Exception:
    """The error to raise for an exception of gRPC, which may mean that the channel is closed."""
    return Cancelled(CLOSED) if "closed" in str(error).lower() else error


def no_utf8(what: str, error: UnicodeEncodeError) -> InvalidInput:
    """The error of a text that has no UTF-8, such as one with half of a surrogate pair."""
    return InvalidInput(f"the {what} {error.object[:100]!a} cannot be written as UTF-8")
