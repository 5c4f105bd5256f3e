"""What one model's requests leave behind: counts, a line for every failure, and sampled access lines."""

from __future__ import annotations

import math
import random
import re
import threading
import time
from collections.abc import Sequence

from penstock.errors import ModelFailed, RequestError
from penstock.messages import InferRequest, Observer, Run
from penstock.telemetry.logs import logger

log = logger(__name__)

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")

FAILURES_A_SECOND = 32
"""So many lines about failures are logged of one model in a second: callers decide how many there are."""

EVENT_LINES = {
    "terminated": (log.debug, "a run ended early, as nobody waits for it"),
    "hung": (log.error, "a run hangs"),
    "returned": (log.warning, "the run that hung has come to an end"),
    "opened": (log.error, "model fails on whatever it is given and is left alone"),
    "closed": (log.warning, "model works again"),
}
"""How loud, and the words of each of `penstock.messages.EVENTS`."""


class LoggingObserver:
    """Passes on to another observer, and logs.

    Args:
        inner: counts.
        model: the model's name.
        version: its version.
        access_sample: the share of answered requests that get a line, from 0 to 1.
    """

    def __init__(self, inner: Observer, model: str, version: str, access_sample: float) -> None:
        self._inner = inner
        self._names = {"model": model, "version": version}
        self._access_sample = access_sample
        self._failures = Sparing(FAILURES_A_SECOND)

    def batch_done(self, requests: Sequence[InferRequest], run: Run, answered: float) -> None:
        """A batch was run and answered."""
        self._inner.batch_done(requests, run, answered)
        if self._access_sample:
            for request in requests:
                if random.random() < self._access_sample:
                    self._log_access(request, run)

    def failed(self, rpc: str, error: RequestError, count: int = 1, seconds: float = 0.0) -> None:
        """Requests ended with an error."""
        self._inner.failed(rpc, error, count, seconds)
        if isinstance(error, ModelFailed) and self._failures.has_room(time.monotonic()):
            self._log_failure(rpc, error)

    def happened(self, event: str, **facts: object) -> None:
        """Something happened to the model itself."""
        self._inner.happened(event, **facts)
        write, words = EVENT_LINES[event]
        write(words, **self._names, **facts)

    def _log_failure(self, rpc: str, error: ModelFailed) -> None:
        cause = error.__cause__ or error
        # What ONNX Runtime says may quote a value, such as an index that is out of bounds.
        words = NUMBER.sub("#", str(cause))
        more = {"left_out": left_out} if (left_out := self._failures.left_out()) else {}
        log.error("model failed", **self._names, rpc=rpc, error=words, kind=type(cause).__name__, **more)

    def _log_access(self, request: InferRequest, run: Run) -> None:
        log.info(
            "request",
            **self._names,
            rpc=request.rpc,
            rows=request.rows,
            batch_rows=run.rows,
            queue_seconds=round(run.started - request.arrived, 6),
            compute_seconds=round(run.finished - run.started, 6),
        )


class Sparing:
    """Lets so many lines a second through, and counts the others. May be used by several threads at once.

    Args:
        most: the lines.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._since = -math.inf  # when the second began
        self._lines = 0  # that were let through in it
        self._left_out = 0

    def has_room(self, now: float) -> bool:
        """Whether one more line may be written; else it counts as left out."""
        with self._lock:
            if now - self._since >= 1.0:
                self._since, self._lines = now, 0
            if self._lines >= self._most:
                self._left_out += 1
                return False
            self._lines += 1
            return True

    def left_out(self) -> int:
        """How many were left out since this was asked last."""
        with self._lock:
            count, self._left_out = self._left_out, 0
            return count
