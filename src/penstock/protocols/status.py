"""Maps Penstock's errors to the status codes of gRPC and of HTTP, for all protocols."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status as StatusMessage

from penstock.core import errors
from penstock.transport.grpc.call import Status

Codes: TypeAlias = Mapping[type[errors.PenstockError], grpc.StatusCode]

CODES: Codes = {
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.TooManySequences: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.StatesTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.MessageTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.AnswerTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnknownSequence: grpc.StatusCode.FAILED_PRECONDITION,
    errors.SequenceTaken: grpc.StatusCode.FAILED_PRECONDITION,
    errors.SequenceTooLong: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DeadlineExpired: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.RequestCancelled: grpc.StatusCode.CANCELLED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.ModelFailed: grpc.StatusCode.INTERNAL,
}
"""Every error that ends a request. A test fails if one is missing."""

HTTP_CODES: Mapping[type[errors.PenstockError], int] = {
    errors.NotFound: 404,
    errors.InvalidRequest: 400,
    errors.Unauthenticated: 401,
    errors.PermissionDenied: 403,
    errors.QueueFull: 429,
    errors.Overloaded: 429,
    errors.TooManySequences: 429,
    errors.StatesTooLarge: 429,
    errors.MessageTooLarge: 413,
    errors.UnknownSequence: 409,
    errors.SequenceTooLong: 409,
    errors.DeadlineExpired: 504,
    errors.RequestCancelled: 499,
    errors.Unavailable: 503,
    errors.ModelFailed: 500,
    errors.AnswerTooLarge: 413,
    errors.SequenceTaken: 409,
}
"""HTTP's status for every error. A test fails if one is missing."""

DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata: the key of gRPC's richer error model for a `google.rpc.Status`."""

PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""Trailing metadata: the delay for a gRPC client with a retry policy, instead of its own backoff."""

LONGEST_PUSHBACK = 2**31 - 1  # milliseconds

MESSAGE_LENGTH = 400
"""Most characters of an error's text that are sent. The text is sent in a header, where a character takes up
to twelve bytes. Clients reject headers of more than 8 KiB in total, with a status that hides the reason."""


def words(error: errors.RequestError) -> str:
    """The error's text, cut to a length that every client accepts."""
    text = str(error)
    return text if len(text) <= MESSAGE_LENGTH else f"{text[:MESSAGE_LENGTH]}..."


def code_of(error: errors.RequestError) -> grpc.StatusCode:
    """The status code of an error."""
    return CODES[type(error)]


NAMES: Mapping[type[errors.PenstockError], str] = {kind: str(code.name) for kind, code in CODES.items()}


def code_name(error: errors.RequestError) -> str:
    """The name of its status code, such as "NOT_FOUND"."""
    return NAMES[type(error)]


TRITON_CODES = {
    **CODES,
    **dict.fromkeys(
        (errors.QueueFull, errors.Overloaded, errors.DeadlineExpired), grpc.StatusCode.UNAVAILABLE
    ),
}
"""The codes that Triton rejects requests with: retry policies are written for them."""


def to_message(error: errors.RequestError, codes: Codes = CODES) -> StatusMessage:
    """The error as a message, for a stream and for the details of a call's status."""
    message = StatusMessage(code=codes[type(error)].value[0], message=words(error))
    if error.retry_after_seconds is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
        message.details.add().Pack(RetryInfo(retry_delay=delay))
    return message


def to_status(error: errors.RequestError, codes: Codes = CODES) -> Status:
    """The error as the status that ends a call."""
    code, seconds = codes[type(error)], error.retry_after_seconds
    if seconds is None:
        return Status(code, words(error))
    details = to_message(error, codes).SerializeToString()
    # Rounded up: never earlier than RetryInfo says.
    milliseconds = min(math.ceil(seconds * 1000), LONGEST_PUSHBACK)
    return Status(code, words(error), ((DETAILS_KEY, details), (PUSHBACK_KEY, str(milliseconds))))
