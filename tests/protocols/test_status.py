"""Every error that ends a request has a status code, and says when to try again where that helps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from urllib.parse import quote

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status as StatusMessage

from penstock.core import errors
from penstock.protocols import status


def below(kind: type[errors.RequestError]) -> Iterator[type[errors.RequestError]]:
    """The classes of the tree that are raised: those that nothing is derived from."""
    subclasses = [each for each in kind.__subclasses__() if each.__module__ == errors.__name__]
    if not subclasses:
        yield kind
    for each in subclasses:
        yield from below(each)


LEAVES = list(below(errors.RequestError))


def test_every_error_is_in_the_table_and_nothing_else_is() -> None:
    assert set(status.CODES) == set(LEAVES)
    assert len(LEAVES) == 17


def test_every_error_has_a_status_of_http() -> None:
    assert {kind.__name__: code for kind, code in status.HTTP_CODES.items()} == {
        "NotFound": 404,
        "InvalidRequest": 400,
        "Unauthenticated": 401,
        "PermissionDenied": 403,
        "QueueFull": 429,
        "Overloaded": 429,
        "TooManySequences": 429,
        "StatesTooLarge": 429,
        "MessageTooLarge": 413,
        "UnknownSequence": 409,
        "SequenceTooLong": 409,
        "DeadlineExpired": 504,
        "RequestCancelled": 499,
        "Unavailable": 503,
        "ModelFailed": 500,
        "AnswerTooLarge": 413,
        "SequenceTaken": 409,
    }
    assert set(status.HTTP_CODES) == set(LEAVES)


def test_the_codes_are_those_of_the_design() -> None:
    assert {kind.__name__: code.name for kind, code in status.CODES.items()} == {
        "NotFound": "NOT_FOUND",
        "InvalidRequest": "INVALID_ARGUMENT",
        "Unauthenticated": "UNAUTHENTICATED",
        "PermissionDenied": "PERMISSION_DENIED",
        "QueueFull": "RESOURCE_EXHAUSTED",
        "Overloaded": "RESOURCE_EXHAUSTED",
        "TooManySequences": "RESOURCE_EXHAUSTED",
        "StatesTooLarge": "RESOURCE_EXHAUSTED",
        "MessageTooLarge": "RESOURCE_EXHAUSTED",
        "AnswerTooLarge": "RESOURCE_EXHAUSTED",
        "UnknownSequence": "FAILED_PRECONDITION",
        "SequenceTaken": "FAILED_PRECONDITION",
        "SequenceTooLong": "FAILED_PRECONDITION",
        "DeadlineExpired": "DEADLINE_EXCEEDED",
        "RequestCancelled": "CANCELLED",
        "Unavailable": "UNAVAILABLE",
        "ModelFailed": "INTERNAL",
    }


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_an_error_becomes_a_status_and_a_message(kind: type[errors.RequestError]) -> None:
    error = kind("what came, and what was expected: ü")
    code = status.code_of(error)
    ended = status.to_status(error)
    assert (ended.code, ended.details, ended.trailing) == (code, str(error), ())
    message = status.to_message(error)
    assert (message.code, message.message, len(message.details)) == (code.value[0], str(error), 0)
    assert status.code_name(error) == code.name
    assert code is not grpc.StatusCode.OK


@pytest.mark.parametrize("kind", [errors.QueueFull, errors.TooManySequences, errors.MessageTooLarge])
@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, (0, 0)), (1e-9, (0, 1)), (0.25, (0, 250_000_000)), (3.5, (3, 500_000_000)), (1e6, (1_000_000, 0))],
)
def test_when_to_try_again_is_in_the_details(
    kind: type[errors.Exhausted], seconds: float, expected: tuple[int, int]
) -> None:
    error = kind("full", seconds)
    ended = status.to_status(error)
    (key, data), pushback = ended.trailing
    assert key == "grpc-status-details-bin"
    assert pushback == ("grpc-retry-pushback-ms", str(math.ceil(seconds * 1000)))
    message = StatusMessage.FromString(data if isinstance(data, bytes) else data.encode())
    assert message == status.to_message(error)
    assert (message.code, message.message) == (8, "full")
    retry = RetryInfo()
    assert message.details[0].Unpack(retry)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == expected


@pytest.mark.parametrize("text", ["x", "ü", "😀", "%"])
def test_a_message_of_any_length_fits_the_headers_of_a_call(text: str) -> None:
    """A client gets RESOURCE_EXHAUSTED instead of the error where its headers are above 8 KiB."""
    for error in (errors.InvalidRequest(text * 10**5), errors.QueueFull(text * 10**5, 1.0)):
        ended = status.to_status(error)
        trailing = sum(len(key) + len(value) * 4 // 3 for key, value in ended.trailing)
        assert len(quote(ended.details)) + trailing < 8000
        assert ended.details.startswith(text * 100)


@pytest.mark.parametrize("seconds", [None, 0.0, 1e-9, 0.5, 1.0, 12.25, 60.0, 300.000000001, 2.0**31])
@pytest.mark.parametrize("text", ["the queue is full", "", "größer als 4 µs", "x" * 1000])
@pytest.mark.parametrize("kind", [errors.QueueFull, errors.Unavailable, errors.InvalidRequest])
def test_the_message_written_by_hand_is_what_protobuf_writes(
    kind: type[errors.RequestError], text: str, seconds: float | None
) -> None:
    error = kind(text)
    error.retry_after_seconds = seconds
    message = StatusMessage(code=status.code_of(error).value[0], message=status.words(error))
    if seconds is not None:
        info = RetryInfo()
        info.retry_delay.FromNanoseconds(int(seconds * 1e9))
        message.details.add().Pack(info)
    assert status.to_bytes(error) == message.SerializeToString(deterministic=True)
    assert status.to_message(error) == message
