"""Answers requests that need no run, and rejects known requests before their inputs are read.

While a model rejects one request after another, most of what comes is rejected as well. If a request matches
a known request, its rows, priority and deadline are known: what its queue decides by. So it is asked first.
Whatever is not rejected here goes the usual way. So a request whose values are not valid may be rejected for
the queue instead.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from typing_extensions import override

from penstock.core.errors import RequestError
from penstock.core.request import Request, Response, Run
from penstock.core.tensors import Array
from penstock.models.model import Model
from penstock.protocols.answer_sizes import sizes_of
from penstock.protocols.answers import Account
from penstock.protocols.codec import Asked
from penstock.protocols.service import Service
from penstock.transport.grpc.call import ServerCall

NO_INPUTS: dict[str, Array] = {}
"""The inputs of a request whose inputs have not been read."""


class Asking(Protocol):
    """What a request came on: an `Origin`."""

    service: Service
    call: ServerCall
    rpc: str
    account: Account | None

    def refused(self, error: RequestError, id: str, tag: int) -> None:
        """Receives the error of a request that is not submitted."""


class Candidate(Request):
    """What a queue decides by: a request that is not made yet, without what is needed only to run it.

    Args:
        call: the call that it came on.
        asked: its content besides the inputs.
        seconds: its own timeout in seconds; infinity for no limit.
        size: the size of its message in bytes.
    """

    __slots__ = ("_call",)

    def __init__(self, call: ServerCall, asked: Asked, seconds: float, size: int) -> None:
        self._call = call
        _, self.outputs, self.rows, self.shape_key, _, self.priority, _, _ = asked
        self.size = size
        self.arrived = arrived = time.monotonic()
        deadline = arrived + seconds
        self.deadline = deadline if deadline < call.deadline else call.deadline

    @property
    @override
    def sender(self) -> object:
        return self._call.peer()


def rejects(origin: Asking, model: Model, asked: Asked, seconds: float, labels: tuple[str, int, int]) -> bool:
    """Rejects a request whose inputs have not been read, if its queue would; says whether it has.

    If its answer may have to wait for room, the request is not submitted yet, so its queue is not asked.

    Args:
        origin: what it came on.
        model: the model that answers.
        asked: its content besides the inputs.
        seconds: its own timeout in seconds; infinity for no limit.
        labels: its id, its tag, and the size of its message in bytes.
    """
    service, account, (id, tag, size) = origin.service, origin.account, labels
    if service.is_draining or (account is not None and (account.held or account.submitting)):
        return False
    if service.answers.used and sizes_of(model).expected(asked.outputs, asked.rows, asked.shape_key):
        return False
    request = Candidate(origin.call, asked, seconds, size)
    error = model.batcher.why_rejected(request)
    if error is None:
        return False
    model.observer.failed(origin.rpc, error, 1, time.monotonic() - request.arrived)
    origin.refused(error, id, tag)
    return True


def answer_without_rows(request: Request, model: Model, outputs: Mapping[str, Array]) -> None:
    """Answers a request without rows; it never reaches the model."""
    run = Run(request.arrived, request.arrived, request.arrived, 0, outputs)
    flush = request.reply(Response(run, request.outputs, 0.0))
    model.observer.batch_done([request], run, time.monotonic())
    if flush is not None:
        flush()
