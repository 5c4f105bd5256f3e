"""Answers requests that need no run, and rejects known requests before their inputs are read.

While a model rejects one request after another, most of what comes is rejected as well. If a request matches
a known request, its rows, priority and deadline are known: what its queue decides by. So it is asked first.
Whatever is not rejected here goes the usual way. So a request whose values are not valid may be rejected for
the queue instead.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

from penstock.core.errors import RequestError
from penstock.core.request import Request, Response, Run
from penstock.core.tensors import Array
from penstock.models.model import Model
from penstock.protocols.answer_sizes import sizes_of
from penstock.protocols.answers import Account
from penstock.protocols.service import Service

NO_INPUTS: dict[str, Array] = {}
"""The inputs of a request whose inputs have not been read."""


class Asking(Protocol):
    """What a request came on: an `Origin`."""

    service: Service
    account: Account | None

    def refused(self, error: RequestError, id: str, tag: int) -> None:
        """Receives the error of a request that is not submitted."""


def rejects(origin: Asking, model: Model, request: Any) -> bool:
    """Rejects a request whose inputs have not been read, if its queue would; says whether it has.

    If its answer may have to wait for room, the request is not submitted yet, so its queue is not asked.
    """
    service, account = origin.service, origin.account
    if service.is_draining or (account is not None and (account.held or account.submitting)):
        return False
    if service.answers.used and sizes_of(model).expected(request.outputs, request.rows, request.shape_key):
        return False
    error = model.batcher.why_rejected(request)
    if error is None:
        return False
    model.observer.failed(request.rpc, error, 1, time.monotonic() - request.arrived)
    origin.refused(error, request.id, request.tag)
    return True


def answer_without_rows(request: Request, model: Model, outputs: Mapping[str, Array]) -> None:
    """Answers a request without rows; it never reaches the model."""
    run = Run(request.arrived, request.arrived, request.arrived, 0, outputs)
    flush = request.reply(Response(run, request.outputs, 0.0))
    model.observer.batch_done([request], run, time.monotonic())
    if flush is not None:
        flush()
