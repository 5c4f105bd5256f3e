"""What one model's requests leave behind: counts, a line for every failure, and sampled access lines."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from penstock.errors import ModelFailed, RequestError
from penstock.messages import InferRequest, Observer, Run
from penstock.telemetry.logs import logger

log = logger(__name__)

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")

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
        if isinstance(error, ModelFailed):
            cause = error.__cause__ or error
            # What ONNX Runtime says may quote a value, such as an index that is out of bounds.
            words = NUMBER.sub("#", str(cause))
            log.error("model failed", **self._names, rpc=rpc, error=words, kind=type(cause).__name__)

    def happened(self, event: str, **facts: object) -> None:
        """Something happened to the model itself."""
        self._inner.happened(event, **facts)
        write, words = EVENT_LINES[event]
        write(words, **self._names, **facts)

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
