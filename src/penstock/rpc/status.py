"""The one table from the errors of the house to gRPC's status codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status as StatusMessage

from penstock import errors
from penstock.transport.call import Status

Codes: TypeAlias = Mapping[type[errors.PenstockError], grpc.StatusCode]

CODES: Codes = {
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.TooManyCalls: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.TooManySequences: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.MessageTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnknownSequence: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DeadlineExpired: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.RequestCancelled: grpc.StatusCode.CANCELLED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.ModelFailed: grpc.StatusCode.INTERNAL,
}
"""Every error that ends a request; the test of this table fails when one is missing."""

DETAILS_KEY = "grpc-status-details-bin"
"""Where gRPC's richer error model puts a `google.rpc.Status` in the trailing metadata."""


MESSAGE_LENGTH = 400
"""Characters of an error's words that are sent. They travel in a header, each up to twelve bytes long
there, and clients refuse headers of more than 8 KiB, in all, with a status that says nothing."""


def words(error: errors.RequestError) -> str:
    """What the error says, cut to a length that every client takes."""
    text = str(error)
    return text if len(text) <= MESSAGE_LENGTH else f"{text[:MESSAGE_LENGTH]}..."


def code_of(error: errors.RequestError) -> grpc.StatusCode:
    """The status code of an error."""
    return CODES[type(error)]


def code_name(error: errors.RequestError) -> str:
    """The name of its status code, such as "NOT_FOUND"."""
    return str(code_of(error).name)


TRITON_CODES = {
    **CODES,
    **dict.fromkeys(
        (errors.QueueFull, errors.Overloaded, errors.DeadlineExpired), grpc.StatusCode.UNAVAILABLE
    ),
}
"""The codes that Triton gives where it refuses a request: retry policies are written for them."""


def to_message(error: errors.RequestError, codes: Codes = CODES) -> StatusMessage:
    """The error as a message: how it stands on a stream, and in the details of a call's status."""
    message = StatusMessage(code=codes[type(error)].value[0], message=words(error))
    if error.retry_after_seconds is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
        message.details.add().Pack(RetryInfo(retry_delay=delay))
    return message


def to_status(error: errors.RequestError, codes: Codes = CODES) -> Status:
    """The error as the status that ends a call."""
    code = codes[type(error)]
    if error.retry_after_seconds is None:
        return Status(code, words(error))
    return Status(code, words(error), ((DETAILS_KEY, to_message(error, codes).SerializeToString()),))
