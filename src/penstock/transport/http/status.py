"""How the end of a call looks over HTTP: a status code, and a problem report (RFC 9457) for an error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any

import grpc
import orjson

from penstock.transport.grpc.call import Metadata, Status

PROBLEM = "application/problem+json"
JSON = "application/json"

BY_CODE: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
"""The status of HTTP for each of gRPC's, where a call's end does not say another."""

RETRY_STATUSES = (429, 503)
TITLES = {499: "Client Closed Request"}
"""Titles of statuses that the standard library does not know."""


@dataclass(frozen=True, slots=True)
class HttpStatus(Status):
    """How a call ends, where HTTP says more than gRPC.

    Attributes:
        http: the status code; 0 for the one that belongs to `code`.
        retry_after_seconds: after how long trying again may help; None if that is not known.
        headers: headers of the answer.
        line: the number of the line that it is about, on a stream; 0 for none.
    """

    http: int = 0
    retry_after_seconds: float | None = None
    headers: Metadata = ()
    line: int = 0


@cache
def status_line(http: int) -> bytes:
    """The first line of an answer with this status code, and its end."""
    return f"HTTP/1.1 {http} {TITLES.get(http) or HTTPStatus(http).phrase}\r\n".encode()


def status_of(status: Status) -> int:
    """The status code of HTTP."""
    return (status.http if isinstance(status, HttpStatus) else 0) or BY_CODE[status.code]


def problem(status: Status, *, has_error: bool = False) -> bytes:
    """The report of an error as JSON.

    Args:
        status: how the call ended.
        has_error: whether the text is repeated as `error`, where the Open Inference Protocol has it.
    """
    return orjson.dumps(problem_fields(status, has_error=has_error))


def problem_fields(status: Status, *, has_error: bool = False) -> dict[str, Any]:
    """The members of the report; see `problem`."""
    http = status_of(status)
    fields: dict[str, Any] = {
        "type": "about:blank",
        "title": TITLES.get(http) or HTTPStatus(http).phrase,
        "status": http,
        "detail": status.details,
        "code": status.code.name,
    }
    if isinstance(status, HttpStatus) and status.retry_after_seconds is not None:
        fields["retry_after_seconds"] = status.retry_after_seconds
    if isinstance(status, HttpStatus) and status.line:
        fields["line"] = status.line
    if has_error:
        fields["error"] = status.details
    return fields


def retry_after(status: Status) -> int | None:
    """The seconds for the header Retry-After, at least 1; None if trying again does not help."""
    if status_of(status) not in RETRY_STATUSES:
        return None
    seconds = status.retry_after_seconds if isinstance(status, HttpStatus) else None
    return max(math.ceil(seconds or 0.0), 1)


def bad_request(details: str, http: int = 400) -> HttpStatus:
    """The status of a request that cannot be read."""
    return HttpStatus(grpc.StatusCode.INVALID_ARGUMENT, details, http=http)


def too_large(limit: int, *, is_json: bool, line: int = 0) -> HttpStatus:
    """The status of a request whose body, or the JSON in it or on a line of it, is above the limit."""
    what, setting = ("JSON", "http_max_json_bytes") if is_json else ("body", "http_max_body_bytes")
    words = f"the {what} is larger than {limit} bytes, the server's limit (server.{setting})"
    return HttpStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, words, http=413, line=line)


def deadline_passed() -> Status:
    """The status of a call whose deadline passes before it is answered."""
    return Status(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before the answer was ready")


def whole_answer(status: Status, id: bytes = b"") -> bytes:
    """The whole answer to what was no request, or not a complete one; it is the last of its connection.

    Args:
        status: how it ends.
        id: of the request, as its header has it; b"" for none.
    """
    http = status_of(status)
    body = problem(status, has_error=True)
    head = [f"HTTP/1.1 {http} {HTTPStatus(http).phrase}", f"content-type: {PROBLEM}"]
    seconds = retry_after(status)
    if seconds is not None:
        head.append(f"retry-after: {seconds}")
    head += [f"x-request-id: {id.decode('latin-1')}"] if id else []
    head += [f"content-length: {len(body)}", "connection: close", "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def headers_too_large(limit: int) -> HttpStatus:
    """The status of a request whose head is above the limit."""
    words = f"the headers are larger than {limit} bytes, the server's limit (server.max_metadata_bytes)"
    return HttpStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, words, http=431)


def no_room() -> HttpStatus:
    """The status of a connection for which the process has no open file left."""
    words = "no further connection is accepted: the server's limit on open files is nearly reached"
    return HttpStatus(grpc.StatusCode.UNAVAILABLE, words, retry_after_seconds=1.0)


def too_slow(seconds: float, rate: int) -> HttpStatus:
    """The status of a request that does not come."""
    words = (
        f"the request did not come in time: its head and its body may take {seconds:g} s, and the body one "
        f"second more for every {rate} bytes"
    )
    return HttpStatus(grpc.StatusCode.CANCELLED, words, http=408)


def too_many(calls: int) -> HttpStatus:
    """The status of a call that arrives while as many as allowed are in flight."""
    words = f"{calls} calls are in flight, the server's limit"
    return HttpStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, words, retry_after_seconds=1.0)


def wrong_host(version: str, headers: Iterable[tuple[bytes, bytes]]) -> Status | None:
    """The status of a request that does not have exactly one Host, as RFC 9112 (3.2) demands; None if it has.

    Args:
        version: of HTTP; before 1.1, there need not be one.
        headers: of the request, names in lower case.
    """
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) == 1 or (not hosts and version in ("0.9", "1.0")):
        return None
    return bad_request(f"a request has the header host {len(hosts)} times, expected once")
