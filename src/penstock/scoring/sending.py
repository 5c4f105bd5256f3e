"""Sends chunks to a model: waits while a server is gone or full, and finds the rows that are to blame."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from time import monotonic

from penstock.row_files.fields import Invalid, has_row_axis
from penstock.scoring.chunk import Chunk, Scored
from penstock.scoring.one_model import OneModel
from penstock_client import (
    Client,
    DeadlineExceeded,
    Exhausted,
    InvalidInput,
    ModelFailed,
    ModelInfo,
    PenstockError,
    Prediction,
    Unavailable,
)

ROWS = 256
"""Rows of a request: more of them make a request hardly cheaper by the row."""

_LONGEST_WAIT_SECONDS = 1.0
_NOT_YET_CONNECTED = "the timeout passed while there was no connection to the server"
_FIRST_WAIT_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Request:
    """The options of all requests.

    Attributes:
        model: the model's name.
        version: a version number or a label; "" for the default.
        outputs: the outputs to return; None for all.
        timeout: of each request, in seconds; `math.inf` for no limit.
        priority: above 0 runs before normal requests, below 0 after them.
        patience_seconds: how long a server may be gone, or full, until the run ends.
    """

    model: str
    version: str = ""
    outputs: list[str] | None = None
    timeout: float = math.inf
    priority: int = 0
    patience_seconds: float = 0.0


def rows_of_requests(info: ModelInfo) -> int:
    """How many rows a request may carry: one where the rows of a request are not independent."""
    rows = all(has_row_axis(spec) for spec in (*info.inputs, *info.outputs) if not _is_one_for_all(spec))
    if not info.inputs or not info.batching.enabled or not rows or any(map(_is_one_for_all, info.inputs)):
        return 1
    return max(1, min(ROWS, info.batching.max_rows))


def _is_one_for_all(spec: object) -> bool:
    shape = getattr(spec, "shape", None)
    return not shape or isinstance(shape[0], int)


class Sender:
    """Sends chunks. Several threads use it at once.

    Args:
        client: the connection.
        request: the options of all requests.
        on_waiting: told the error for which a chunk waits, and None when the server answers again.
        stopping: ends all waiting.
        one_model: asked once the server was gone; None to take whatever answers.
    """

    def __init__(
        self,
        client: Client,
        request: Request,
        on_waiting: Callable[[PenstockError | None], None],
        stopping: Event,
        one_model: OneModel | None = None,
    ) -> None:
        self._client = client
        self._request = request
        self._on_waiting = on_waiting
        self._stopping = stopping
        self._one_model = one_model
        self._is_waiting = False

    def score(self, chunk: Chunk) -> Scored:
        """The answers to a chunk.

        Raises:
            PenstockError: the run cannot go on.
            OtherModel: the server has come back with another model.
        """
        scored = Scored()
        places: Sequence[int] = range(len(chunk))
        try:
            chunk.inputs()
        except Invalid:
            scored.errors = chunk.unreadable()
            places = [place for place in places if place not in scored.errors]
        if places:
            self._send(chunk, places, scored)
        scored.parts.sort(key=lambda part: part[0][0])
        return scored

    def _send(self, chunk: Chunk, places: Sequence[int], scored: Scored) -> None:
        """Sends the rows at these places, in halves if a row among them is refused."""
        part = chunk if len(places) == len(chunk) else chunk.some(places)
        try:
            prediction = self._predicted(part)
        except Invalid as error:
            why = str(error)
        except (InvalidInput, ModelFailed, DeadlineExceeded, Exhausted) as error:
            why = str(error)
        else:
            if len(places) == 1 or _has_rows(prediction, len(places)):
                scored.parts.append((places, prediction))
                scored.version = prediction.version
                return
            why = "the answer does not have a row for each row of the request"
        if len(places) == 1:
            scored.errors[places[0]] = why
            return
        half = len(places) // 2
        self._send(chunk, places[:half], scored)
        self._send(chunk, places[half:], scored)

    def _predicted(self, chunk: Chunk) -> Prediction:
        """The prediction for a chunk, after all waiting that may help.

        Raises:
            PenstockError: it failed, or waiting did not help.
        """
        request, attempt = self._request, 0
        since: float | None = None
        while True:
            try:
                prediction = self._asked(chunk)
            except (Unavailable, Exhausted) as error:
                if self._one_model is not None and isinstance(error, Unavailable):
                    self._one_model.lost()
                if error.message == _NOT_YET_CONNECTED:  # the timeout was shorter than opening a stream takes
                    raise DeadlineExceeded(error.message) from None
                hint = error.retry_after_seconds
                if isinstance(error, Exhausted) and hint is None:
                    raise  # such as a request that is too large: waiting does not help
                since = since or monotonic()
                patience = request.patience_seconds
                if isinstance(error, Exhausted):
                    patience = max(patience, _PATIENCE_IF_FULL_SECONDS)
                if monotonic() - since >= patience or self._stopping.is_set():
                    raise
                self._note(error if isinstance(error, Unavailable) else None)
                attempt += 1
                wait = max(hint or 0.0, _FIRST_WAIT_SECONDS * 2.0 ** min(attempt, 10))
                self._stopping.wait(min(wait, _LONGEST_WAIT_SECONDS))
            else:
                self._note(None)
                return prediction

    def _asked(self, chunk: Chunk) -> Prediction:
        """The prediction of the model of the beginning, whatever happens to the server meanwhile."""
        request, ensure = self._request, self._one_model.ensure if self._one_model is not None else None
        if ensure is not None:
            ensure()
        prediction = self._client.predict(
            request.model,
            chunk.inputs(),
            version=request.version,
            outputs=request.outputs,
            timeout=request.timeout,
            priority=request.priority,
        )
        if ensure is not None:  # another thread may have seen the server go
            ensure()
        return prediction

    def _note(self, error: PenstockError | None) -> None:
        if (error is not None) != self._is_waiting:
            self._is_waiting = error is not None
            self._on_waiting(error)


_PATIENCE_IF_FULL_SECONDS = 10.0
"""How long at least a full queue is waited for: it empties by itself."""


def _has_rows(prediction: Prediction, count: int) -> bool:
    return all(array.ndim > 0 and len(array) == count for array in prediction.values())
