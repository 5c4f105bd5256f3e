"""Observers that log: a line for every failure of a model, and for a sample of its requests."""

from __future__ import annotations

import math
import random
import re
import threading
import time
from collections.abc import Sequence

from penstock.core.errors import ModelFailed, RequestError
from penstock.core.observers import SilentObserver
from penstock.core.request import Request, Run
from penstock.observability.logs import logger

log = logger(__name__)

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")

FAILURES_A_SECOND = 32
"""The most lines about failures of one model in a second. Callers decide how many failures there are."""

EVENT_LINES = {
    "terminated": (log.debug, "run ended early: all its callers are gone"),
    "hung": (log.error, "a run hangs"),
    "returned": (log.warning, "the hanging run has ended"),
    "opened": (log.error, "circuit breaker open: the model fails on every input"),
    "closed": (log.warning, "circuit breaker closed: the model works again"),
    "mismatch": (
        log.error,
        "a batch changed an answer, as earlier ones may have: the model's requests run alone from now on",
    ),
    "dearer": (
        log.info,
        "batches of these requests take longer than one request at a time: until the next start, the model's "
        "requests run alone",
    ),
    "verified": (log.debug, "a batch was verified"),
    "overran": (
        log.warning,
        "a run took far longer than expected of its shapes: until the next start, the threads that take "
        "calls make no run of this model",
    ),
    "unsteady": (log.warning, "not verified any more: the same request alone gets different answers"),
}
"""The level and the text of each of `penstock.core.request.EVENTS`."""


class FailureLog(SilentObserver):
    """Logs the failures and the events of one version of a model.

    Args:
        model: the model's name.
        version: its version.
    """

    def __init__(self, model: str, version: str) -> None:
        self._names = {"model": model, "version": version}
        self._limit = LineLimit(FAILURES_A_SECOND)

    def failed(self, rpc: str, error: RequestError, count: int = 1, seconds: float = 0.0) -> None:
        """Logs the failure, if the model itself failed."""
        if not isinstance(error, ModelFailed) or not self._limit.has_room(time.monotonic()):
            return
        cause = error.__cause__ or error
        # ONNX Runtime's message may quote a value, such as an index that is out of bounds.
        words = NUMBER.sub("#", str(cause))
        more = {"left_out": left_out} if (left_out := self._limit.left_out()) else {}
        log.error("model failed", **self._names, rpc=rpc, error=words, kind=type(cause).__name__, **more)

    def on_event(self, event: str, **facts: object) -> None:
        """Logs an event of the model itself."""
        write, words = EVENT_LINES[event]
        write(words, **self._names, **facts)


class AccessLog(SilentObserver):
    """Logs a sample of the answered requests of one version of a model.

    Args:
        model: the model's name.
        version: its version.
        sample: the share of answered requests that get a line, from 0 to 1.
    """

    def __init__(self, model: str, version: str, sample: float) -> None:
        self._names = {"model": model, "version": version}
        self._sample = sample

    def batch_done(self, requests: Sequence[Request], run: Run, answered: float) -> None:
        """Logs some of the requests of a batch."""
        for request in requests:
            if random.random() < self._sample:
                log.info(
                    "request",
                    **self._names,
                    rpc=request.rpc,
                    rows=request.rows,
                    batch_rows=run.rows,
                    queue_seconds=round(run.started - request.arrived, 6),
                    compute_seconds=round(run.finished - run.started, 6),
                )


class LineLimit:
    """Allows a number of lines a second, and counts the others. May be used by several threads at once.

    Args:
        most: the lines allowed in a second.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._second_started = -math.inf
        self._lines = 0  # allowed in this second
        self._left_out = 0

    def has_room(self, now: float) -> bool:
        """Whether one more line may be written; if not, it counts as left out."""
        with self._lock:
            if now - self._second_started >= 1.0:
                self._second_started, self._lines = now, 0
            if self._lines >= self._most:
                self._left_out += 1
                return False
            self._lines += 1
            return True

    def left_out(self) -> int:
        """How many lines were left out since the last call."""
        with self._lock:
            count, self._left_out = self._left_out, 0
            return count
