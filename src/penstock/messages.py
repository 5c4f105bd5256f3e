"""What travels through the server: a request, its answer, and who is told how it ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from penstock.errors import RequestError
from penstock.tensors import Array


@dataclass(slots=True)
class Run:
    """One run of a model, shared by all requests that were part of it.

    Attributes:
        started: when the model began, by `time.monotonic()`.
        finished: when it ended, by the same clock.
        rows: the rows of the batch.
        encoded: what the front door has made of it, once for all of its answers.
    """

    started: float
    finished: float
    rows: int
    encoded: bytes = b""


@dataclass(slots=True)
class InferResponse:
    """The answer to one request.

    Attributes:
        outputs: its own rows of the outputs it asked for, by name.
        run: the run it was part of.
        queue_seconds: how long it waited for that.
    """

    outputs: Mapping[str, Array]
    run: Run
    queue_seconds: float


Flush: TypeAlias = Callable[[], None]
Reply: TypeAlias = Callable[["InferResponse | RequestError"], "Flush | None"]
"""Takes the one answer or error of a request, on whichever thread has it.

What it returns, if anything, is to be called once after the whole batch has been answered: a stream
gathers answers in its outbox and sends them then. Equal flushes are called only once.
"""


class InferRequest:
    """One request on its way: inputs that fit the model's signature, and whom to answer.

    Attributes:
        inputs: every input of the signature, by name; see `penstock.tensors` for the convention.
        outputs: the outputs wanted, by name, in the signature's order.
        rows: the length of the first axis where the model is batched, else 1.
        shape_key: equal for requests that may share a batch.
        rpc: the RPC it came by, such as "Predict"; a metric label.
        reply: takes the answer.
        arrived: when it arrived, by `time.monotonic()`.
        deadline: when it must be answered, by the same clock; `math.inf` for never.
        priority: above 0 goes first, below 0 gives way.
        cancelled: set once nobody waits for the answer any more.
    """

    __slots__ = (
        "arrived", "cancelled", "deadline", "inputs", "outputs", "priority", "reply", "rows", "rpc",
        "shape_key",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - the attributes, in one place
        self,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        rows: int,
        shape_key: object,
        rpc: str,
        reply: Reply,
        arrived: float,
        deadline: float = math.inf,
        priority: int = 0,
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.rows = rows
        self.shape_key = shape_key
        self.rpc = rpc
        self.reply = reply
        self.arrived = arrived
        self.deadline = deadline
        self.priority = priority
        self.cancelled = False


class Observer(Protocol):
    """Is told how the requests of one model end, every request once, a whole batch at a time."""

    def batch_done(
        self, requests: Sequence[InferRequest], rows: int, started: float, finished: float
    ) -> None:
        """A batch was run and answered.

        Args:
            requests: the requests that were answered with a response.
            rows: the rows of the batch.
            started: when the model's run began, by `time.monotonic()`.
            finished: when it ended, by the same clock.
        """

    def failed(self, rpc: str, error: RequestError) -> None:
        """A request that came by `rpc` ended with `error`."""
