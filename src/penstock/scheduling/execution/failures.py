"""The errors of requests that end without an answer."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from penstock.core.errors import (
    AnswerTooLarge,
    DeadlineExpired,
    ModelFailed,
    Overloaded,
    RequestCancelled,
    RequestError,
    SequenceTooLong,
    StatesTooLarge,
)
from penstock.core.names import many
from penstock.core.request import Request
from penstock.scheduling.cost import RunCost

LONGEST_RETRY_SECONDS = 60.0
"""The longest retry hint, however long the queue: by then the load may have changed."""

LIMITS = (SequenceTooLong, StatesTooLarge)
"""Errors of a run that say nothing about the model: its request exceeds a limit."""


class Ends(Protocol):
    """Ends requests without an answer; see `Responder`."""

    def fail(self, request: Request, error: RequestError) -> None:
        """Ends a request with an error."""

    def drop(self, request: Request) -> None:
        """Ends a request that no caller waits for any more."""


class HasDeadline(Protocol):
    """A request, or the call that it came on."""

    @property
    def deadline(self) -> float:
        """When its caller stops waiting, by `time.monotonic()`."""


def gone(request: HasDeadline) -> RequestError:
    """The error of a request whose call has ended: it timed out, or its caller went away."""
    if time.monotonic() >= request.deadline:
        return DeadlineExpired("the deadline passed before the answer was ready")
    return RequestCancelled("the call was cancelled before the answer was ready")


def expired(request: Request) -> RequestError:
    """The error of a request whose deadline passed while it waited, or will pass before it is answered."""
    now = time.monotonic()
    left, waited = request.deadline - now, now - request.arrived
    if left > 0:
        return DeadlineExpired(
            f"the deadline cannot be met: {waited * 1000:.1f} ms waited, {left * 1000:.1f} ms left, and a "
            "run is expected to take longer"
        )
    return DeadlineExpired(f"the deadline passed after {waited * 1000:.1f} ms in the queue")


def too_late(
    request: Request, now: float, seconds: float, ahead: float, cost: RunCost
) -> Overloaded | DeadlineExpired | None:
    """The error of a request that is expected to be answered after its deadline; None if it is in time.

    Requests that get the same words share it: to raise it would add to its traceback each time.

    Args:
        request: the request.
        now: the time, by `time.monotonic()`.
        seconds: in how many seconds its answer is expected.
        ahead: how many rows wait ahead of it.
        cost: the cost of runs.
    """
    late = now + seconds - request.deadline
    if late <= 0.0:
        return None
    # When it would be in time if no other request came, but at least until a run has ended. In whole
    # milliseconds, as gRPC's clients take it, so that requests in a row share
    # an error and a status, made once.
    retry = math.ceil(max(late, cost.expect(request.rows)) * 1000)
    left = request.deadline - now
    return _too_late(round(ahead) if ahead >= 1 else 0, round(seconds * 10_000), round(left * 10_000), retry)


@lru_cache(64)
def _too_late(ahead: int, expected: int, left: int, retry: int) -> Overloaded | DeadlineExpired:
    """See `too_late`; `expected` and `left` in tenths of a millisecond, `retry` in milliseconds."""
    waiting = f"{many(ahead, 'row')} ahead, and " if ahead else ""
    error = (Overloaded if waiting else DeadlineExpired)(
        f"the answer would be too late: expected in {expected / 10:.1f} ms ({waiting}the run in "
        f"flight), but the deadline is in {left / 10:.1f} ms"
    )
    error.retry_after_seconds = min(retry / 1000, LONGEST_RETRY_SECONDS)
    return error


def cancelled_by_tag() -> RequestCancelled:
    """The error of a request that its caller has cancelled by its tag."""
    return RequestCancelled("the caller cancelled the request")


def answer_too_large(size: int, most: int) -> AnswerTooLarge:
    """The error of a request whose answer has this number of bytes, where `most` are allowed."""
    return AnswerTooLarge(
        f"the answer has {size} bytes, and at most {most} are sent (server.max_answer_bytes, and protobuf "
        "itself carries no more than 2 GiB)"
    )


def model_failed(error: Exception) -> RequestError:
    """The error of a request whose run ended with `error`.

    The text of an error that is not the model's own stays in the server's log.
    """
    if isinstance(error, (ModelFailed, *LIMITS)):
        return error
    failure = ModelFailed("the model could not be run on this request; see the server's log")
    failure.__cause__ = error
    return failure


def still_wanted(requests: Sequence[Request], responder: Ends) -> list[Request]:
    """The requests of a failed batch that callers still wait for; the others are ended."""
    now, wanted = time.monotonic(), []
    for request in requests:
        if request.cancelled:
            responder.drop(request)
        elif request.deadline <= now:
            responder.fail(request, expired(request))
        else:
            wanted.append(request)
    return wanted
