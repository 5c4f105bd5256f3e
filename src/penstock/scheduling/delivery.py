"""Hands answers out, so that what goes wrong with one keeps no other request from its own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from penstock.errors import DeadlineExpired, ModelFailed, RequestCancelled, RequestError
from penstock.messages import Flush, InferRequest, InferResponse, Observer, Run


class Delivery:
    """Answers requests and tells the observer how they ended.

    Replies and observers are not supposed to raise. Where one does, the others are called all the same,
    and `close` lets the first exception out.

    Args:
        observer: is told.
        later: where given, takes what lets streams send: it is called by whoever gave this.

    Attributes:
        unanswered: the requests that have been given no answer.
    """

    __slots__ = ("_error", "_flushes", "_later", "_observer", "unanswered")

    def __init__(self, observer: Observer, later: dict[Flush, None] | None = None) -> None:
        self._observer = observer
        self._later = later
        self._flushes: dict[Flush, None] = {}
        self._error: Exception | None = None
        self.unanswered: list[InferRequest] = []

    def answer(self, batch: Sequence[InferRequest], responses: Sequence[InferResponse], run: Run) -> None:
        """Hands every request of a batch its answer, and then lets streams send what has gathered."""
        answered = []
        for request, response in zip(batch, responses, strict=True):
            if request.cancelled:
                self.drop(request)
                continue
            deadline = request.deadline  # after it nobody is given an answer as if it had come in time
            if deadline != math.inf and deadline < time.monotonic():
                self.fail(request, gone(request))
                continue
            try:
                flush = request.reply(response)
            except Exception as error:
                self._keep(error)
                self.fail(request, ModelFailed("the answer could not be sent; the server's log says why"))
                continue
            answered.append(request)
            if flush is not None:
                self._flushes[flush] = None
        if self._flushes:
            self.flush()
        self._call(self._observer.batch_done, answered, run, time.monotonic())

    def fail(self, request: InferRequest, error: RequestError) -> None:
        """Ends a request with an error; streams send it with the next `flush`."""
        flush = self._call(request.reply, error)
        if flush is not None:
            self._flushes[flush] = None
        self._tell(request, error)

    def drop(self, request: InferRequest) -> None:
        """Ends a request that nobody waits for any more: only the observer is told."""
        self._tell(request, gone(request))

    def abandon(self, batch: Sequence[InferRequest]) -> None:
        """Ends requests that nobody waits for; a stream may still ask what became of those too late."""
        for request in batch:
            if request.cancelled:
                self.drop(request)
            else:
                self.fail(request, gone(request))

    def happened(self, event: str, **facts: object) -> None:
        """Tells the observer what happened to the model; see `penstock.messages.Observer`."""
        self._call(partial(self._observer.happened, event, **facts))

    def flush(self) -> None:
        """Lets streams send what has gathered, each once."""
        flushes, self._flushes = self._flushes, {}
        if self._later is not None:
            self._later.update(flushes)
            return
        for flush in flushes:
            self._call(flush)

    def close(self) -> None:
        """Flushes, and raises what a reply, a flush or the observer has raised first, if any did."""
        if self._flushes:
            self.flush()
        if self._error is not None:
            raise self._error

    def _tell(self, request: InferRequest, error: RequestError) -> None:
        self.unanswered.append(request)
        seconds = time.monotonic() - request.arrived
        self._call(self._observer.failed, request.rpc, error, request.count, seconds)

    def _call(self, function: Callable[..., Any], *arguments: object) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            self._keep(error)
            return None

    def _keep(self, error: Exception) -> None:
        self._error = self._error or error


def gone(request: InferRequest) -> RequestError:
    """The error of a request whose call has ended: it timed out, or its caller went away."""
    if time.monotonic() >= request.deadline:
        return DeadlineExpired("the deadline passed before the answer was ready")
    return RequestCancelled("the caller went away before the answer was ready")


def expired(request: InferRequest) -> RequestError:
    """The error of a request whose deadline passed while it waited, or will before it can be answered."""
    now = time.monotonic()
    left, waited = request.deadline - now, now - request.arrived
    if left > 0:
        return DeadlineExpired(
            f"the deadline cannot be met any more: after {waited * 1000:.1f} ms in the queue, "
            f"{left * 1000:.1f} ms are left, and a run is expected to take longer"
        )
    return DeadlineExpired(f"the deadline passed after {waited * 1000:.1f} ms in the queue")
