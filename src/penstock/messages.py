"""What travels through the server: a request, its answer, and who is told how it ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple, Protocol, TypeAlias

from penstock.errors import RequestError
from penstock.tensors import Array


class Closed(Enum):
    """Why a batch was run as it was, and not with more in it."""

    FULL = "full"
    """It has as many rows as it may have."""
    FREE = "executor_free"
    """There was nothing more, and somebody to run it."""
    DEADLINE = "deadline"
    """One row more would have made somebody in it late."""
    DELAY = "delay"
    """It was held back for more, and now is the time."""
    DRAIN = "drain"
    """The server is stopping: nothing is held back."""
    RETRY = "retry"
    """It is a part of one that failed."""

    # Enum's own hash is written in Python, and batches are counted by these.
    __hash__ = object.__hash__


class Run:
    """One run of a model, shared by all requests that were part of it.

    Attributes:
        started: when it began, by `time.monotonic()`: from then on its requests do not wait any more.
        assembled: when their inputs had been put together and the model began, by the same clock.
        finished: when the model ended, by the same clock.
        rows: the rows of the batch.
        outputs: what the model gave, by name, for all requests together.
        closed: why there were not more rows in it.
        encoded: what a front door has made of it, once for all of its answers.
        padding: along the axis that is padded, how many values came, over all rows, and how many were put
            in; None where nothing is padded.
    """

    __slots__ = ("assembled", "closed", "encoded", "finished", "outputs", "padding", "rows", "started")

    def __init__(  # noqa: PLR0913 - the attributes, in one place
        self,
        started: float,
        assembled: float,
        finished: float,
        rows: int,
        outputs: Mapping[str, Array],
        closed: Closed = Closed.FREE,
    ) -> None:
        self.started = started
        self.assembled = assembled
        self.finished = finished
        self.rows = rows
        self.outputs = outputs
        self.closed = closed
        self.encoded: object = None
        self.padding: tuple[int, int] | None = None


class InferResponse:
    """The answer to one request: its own rows of what a run gave.

    Attributes:
        run: the run it was part of.
        names: the outputs it asked for.
        queue_seconds: how long it waited for the run.
        start: where its rows begin.
        stop: where they end; None where the model is not batched, and all there is belongs to the request.
    """

    __slots__ = ("names", "queue_seconds", "run", "start", "stop")

    def __init__(
        self, run: Run, names: Sequence[str], queue_seconds: float, start: int = 0, stop: int | None = None
    ) -> None:
        self.run = run
        self.names = names
        self.queue_seconds = queue_seconds
        self.start = start
        self.stop = stop

    @property
    def outputs(self) -> dict[str, Array]:
        """The outputs by name, as views."""
        outputs = self.run.outputs
        if self.stop is None:
            return {name: outputs[name] for name in self.names}
        return {name: outputs[name][self.start : self.stop] for name in self.names}


Flush: TypeAlias = Callable[[], None]


class Step(NamedTuple):
    """Which sequence a request is a step of, for a model whose state the server keeps.

    Attributes:
        key: the sequence: its id; or the stream itself, for the one that a stream has without an id.
        start: whether it begins afresh.
        end: whether its state is dropped once it is answered.
        owner: the stream it came on, which takes with it what began on it; None for a unary call.
    """

    key: object
    start: bool = False
    end: bool = False
    owner: object | None = None


class InferRequest:
    """One request on its way: inputs that fit the model's signature, and how it is answered.

    A front door makes a class of its own of it, which says what becomes of the answer.

    Attributes:
        inputs: every input of the signature, by name; see `penstock.tensors` for the convention.
        outputs: the outputs wanted, by name, in the signature's order.
        rows: the length of the first axis where the model is batched, else 1.
        shape_key: equal for requests that may share a batch.
        rpc: the RPC it came by, such as "Predict"; a metric label.
        arrived: when it arrived, by `time.monotonic()`.
        deadline: when it must be answered, by the same clock; `math.inf` for never.
        priority: above 0 goes first, below 0 gives way.
        cancelled: set once nobody waits for the answer any more.
        count: how many of the callers' requests it stands for.
        size: the bytes that it came in.
        sequence: which sequence it is a step of, where the model keeps a state.
    """

    __slots__ = (
        "arrived", "cancelled", "deadline", "inputs", "outputs", "priority", "rows", "rpc", "shape_key",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - the attributes, in one place
        self,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        rows: int,
        shape_key: object,
        rpc: str,
        arrived: float,
        deadline: float = math.inf,
        priority: int = 0,
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.rows = rows
        self.shape_key = shape_key
        self.rpc = rpc
        self.arrived = arrived
        self.deadline = deadline
        self.priority = priority
        self.cancelled = False

    count = 1
    size = 0
    sequence: Step | None = None

    @property
    def sender(self) -> object:
        """Who it came from, equal for all that come from there; None where nobody can tell."""
        return None

    def apart(self) -> Iterable[InferRequest]:
        """The requests that it stands for: they are run apart from each other where its run has failed."""
        return (self,)

    def reply(self, result: InferResponse | RequestError) -> Flush | None:
        """Takes the one answer or error, on whichever thread has it.

        Returns:
            What is to be called once after the whole batch has been answered, if anything: a stream gathers
            answers in its outbox and sends them then. Equal flushes are called only once.
        """
        raise NotImplementedError


class Observer(Protocol):
    """Is told how the requests of one model end, every request once, a whole batch at a time."""

    def batch_done(self, requests: Sequence[InferRequest], run: Run, answered: float) -> None:
        """A batch was run and answered.

        Args:
            requests: the requests that were answered with a response.
            run: the run they were part of.
            answered: when all had been, by `time.monotonic()`.
        """

    def failed(self, rpc: str, error: RequestError, count: int = 1, seconds: float = 0.0) -> None:
        """So many requests that came by `rpc` ended with `error`, each after so many seconds."""

    def happened(self, event: str, **facts: object) -> None:
        """Something happened to the model itself.

        Args:
            event: one of `penstock.messages.EVENTS`.
            facts: what else there is to say.
        """


EVENTS = ("terminated", "hung", "returned", "opened", "closed")
"""What happens to a model: a run ended early as nobody waited for it; a run hangs, or has ended after all; it
is shut off since it fails on whatever it is given, or let on again."""
