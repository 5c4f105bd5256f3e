"""Maps Penstock's errors to the status codes of gRPC and of HTTP, for all protocols."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeAlias

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status as StatusMessage

from penstock.core import errors, wire
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


NANOS_A_SECOND = 1_000_000_000

# Keys of the fields that are written by hand.
CODE = wire.key(StatusMessage.CODE_FIELD_NUMBER, wire.VARINT)
MESSAGE = wire.key(StatusMessage.MESSAGE_FIELD_NUMBER, wire.LENGTH_DELIMITED)
DETAILS = wire.key(StatusMessage.DETAILS_FIELD_NUMBER, wire.LENGTH_DELIMITED)
ANY_VALUE = wire.key(Any.VALUE_FIELD_NUMBER, wire.LENGTH_DELIMITED)
RETRY_DELAY = wire.key(RetryInfo.RETRY_DELAY_FIELD_NUMBER, wire.LENGTH_DELIMITED)
SECONDS = wire.key(Duration.SECONDS_FIELD_NUMBER, wire.VARINT)
NANOS = wire.key(Duration.NANOS_FIELD_NUMBER, wire.VARINT)
RETRY_INFO = wire.field(
    wire.key(Any.TYPE_URL_FIELD_NUMBER, wire.LENGTH_DELIMITED),
    b"type.googleapis.com/" + RetryInfo.DESCRIPTOR.full_name.encode(),
)
"""The field of an `Any` that says it is a `RetryInfo`."""
HEAD = len(RETRY_DELAY) + 1
AROUND = len(RETRY_INFO) + len(ANY_VALUE) + 1 + HEAD
"""The bytes of a `RetryInfo`, and of the `Any` around it, besides the delay."""
BY_NUMBER: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


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
    """The error as a message, for a stream."""
    return StatusMessage.FromString(to_bytes(error, codes))


def to_bytes(error: errors.RequestError, codes: Codes = CODES) -> bytes:
    """The error as a serialized `google.rpc.Status`, for the details of a call's status.

    Written by hand: with protobuf's classes, a `RetryInfo` costs several times what a whole call does, and
    is needed most when a server is overloaded.
    """
    # An enumeration's `value` is looked up by Python code; `_value_` is what it finds.
    return _to_bytes(codes[type(error)]._value_[0], words(error), error.retry_after_seconds)


def _to_bytes(number: int, text: str, retry_after_seconds: float | None) -> bytes:
    encoded = text.encode()
    data = CODE + wire.varint(number) + (wire.field(MESSAGE, encoded) if encoded else b"")
    if retry_after_seconds is None:
        return data
    seconds, nanos = divmod(max(int(retry_after_seconds * 1e9), 0), NANOS_A_SECOND)
    delay = SECONDS + wire.varint(seconds) if seconds else b""
    if nanos:
        delay += NANOS + wire.varint(nanos)
    size = len(delay)  # at most 16, so all lengths around it have one byte
    around = (DETAILS, AROUND + size, RETRY_INFO, ANY_VALUE, HEAD + size, RETRY_DELAY, size, delay)
    return data + b"%b%c%b%b%c%b%c%b" % around


def to_status(error: errors.RequestError, codes: Codes = CODES) -> Status:
    """The error as the status that ends a call."""
    # An enumeration's `value` is looked up by Python code; `_value_` is what it finds.
    return _status(codes[type(error)]._value_[0], words(error), error.retry_after_seconds)


@lru_cache(64)
def _status(number: int, text: str, seconds: float | None) -> Status:
    """The status, with the time to try again. Calls that are rejected get the same one in a row."""
    if seconds is None:
        return Status(BY_NUMBER[number], text)
    # Rounded up: never earlier than RetryInfo says.
    milliseconds = min(math.ceil(seconds * 1000), LONGEST_PUSHBACK)
    trailing = ((DETAILS_KEY, _to_bytes(number, text, seconds)), (PUSHBACK_KEY, str(milliseconds)))
    return Status(BY_NUMBER[number], text, trailing)
