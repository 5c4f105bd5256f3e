"""Requests, runs, responses and observers: the data that all layers of the server share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol, TypeAlias

from penstock.core.caller import Caller
from penstock.core.errors import RequestError
from penstock.core.tensors import Array


class CutReason(Enum):
    """Why a batch was cut where it was, instead of taking more requests."""

    FULL = "full"
    """It has as many rows as it may have."""
    FREE = "thread_free"
    """No further request waited, and a thread was free to run it."""
    DEADLINE = "deadline"
    """One more row would have made a request of the batch late."""
    DELAY = "delay"
    """It was held back for more requests, until its delay was over."""
    DRAIN = "drain"
    """The server is stopping: nothing is held back."""
    RETRY = "retry"
    """It is a part of a batch that failed."""
    NEW_SHAPE = "new_shape"
    """No request of its shape had run before: the first one runs alone."""

    # Enum's own hash is written in Python, and batches are counted by these.
    __hash__ = object.__hash__


@dataclass(slots=True, eq=False)
class Run:
    """One run of a model, shared by all requests that were part of it.

    Attributes:
        started: when it began, by `time.monotonic()`: from then on its requests do not wait any more.
        assembled: when their inputs had been put together and the model began, by the same clock.
        finished: when the model ended, by the same clock.
        rows: the rows of the batch.
        outputs: the model's outputs, by name, for all requests together.
        cut_reason: why it has no more rows.
        encoded: what a protocol encodes once for all answers of the run.
        shared: the same for the forms of answers over HTTP, by what encodes them; None for nothing.
        padding: along the padded axis, over all rows, how many values were received and how many were
            added; None if nothing is padded.
    """

    started: float
    assembled: float
    finished: float
    rows: int
    outputs: Mapping[str, Array]
    cut_reason: CutReason = CutReason.FREE
    encoded: object = field(init=False, default=None)
    shared: dict[object, object] | None = field(init=False, default=None)
    padding: tuple[int, int] | None = field(init=False, default=None)


@dataclass(slots=True, eq=False)
class Response:
    """The answer to one request: its own rows of the outputs of a run.

    Attributes:
        run: the run it was part of.
        names: the outputs it asked for.
        queue_seconds: how long it waited for the run.
        start: where its rows begin.
        stop: where they end; None if the model is not batched: then all of the outputs are the request's.
    """

    run: Run
    names: Sequence[str]
    queue_seconds: float
    start: int = 0
    stop: int | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of its outputs; for texts, those of references to them."""
        return sum([array.nbytes for array in self.outputs.values()])

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
        key: the sequence: its id; or the stream itself, for the sequence without an id of a stream.
        start: whether the step begins the sequence anew.
        end: whether the state is dropped once the step is answered.
        owner: the stream it came on; sequences that began on a stream end with it. None for a unary call.
        given: the inputs that it brings for the state, by name; None if there are none.
        caller: who sent it; None if this is not known.
    """

    key: object
    start: bool = False
    end: bool = False
    owner: object | None = None
    given: Mapping[str, Array] | None = None
    caller: Caller | None = None


@dataclass(slots=True, eq=False)
class Request:
    """One request: inputs that fit the model's signature, and how it is answered.

    Each protocol has a subclass, whose `reply` sends the answer.

    Attributes:
        inputs: every input of the signature, by name; see `penstock.core.tensors` for the convention.
        outputs: the requested outputs, by name, in the signature's order.
        rows: how many rows it has, if the model is batched; else 1.
        shape_key: equal for requests that may share a batch.
        rpc: the RPC it came by, such as "Predict"; a metric label.
        arrived: when it arrived, by `time.monotonic()`.
        deadline: when it must be answered, by the same clock; `math.inf` for never.
        priority: above 0 goes before others, below 0 after them.
        size: the bytes of its message.
        sequence: which sequence it is a step of, where the model keeps a state.
        caller: who sent it, as the connection or the call proves; None if this is not known.
        trace: its `traceparent`, if the server was asked to read it.
        key: its route key, if the server was asked to read it.
        cancelled: set once no caller waits for the answer any more.
        count: how many of the callers' requests it stands for.
    """

    inputs: Mapping[str, Array]
    outputs: Sequence[str]
    rows: int
    shape_key: object
    rpc: str
    arrived: float
    deadline: float = math.inf
    priority: int = 0
    size: int = 0
    sequence: Step | None = None
    caller: str | None = None
    trace: str | None = None
    key: str | None = None
    cancelled: bool = field(init=False, default=False)

    count = 1

    @property
    def sender(self) -> object:
        """The sender, equal for all requests of one sender; None if it is unknown."""
        return None

    def split(self) -> Iterable[Request]:
        """The requests that it stands for. They are run separately after their common run has failed."""
        return (self,)

    def apart(self, most: int) -> Sequence[tuple[int, Request]]:
        """Up to `most` of the requests that it stands for, and the first row of each among its own rows.

        Unlike those of `split`, they cannot be answered, and their arrays are views of this request's.
        """
        return ((0, self),)

    def reply(self, result: Response | RequestError) -> Flush | None:
        """Takes the answer or the error; called exactly once, on any thread.

        Returns:
            A function to call after the whole batch has been answered, if needed: a stream gathers answers
            in its send buffer and then sends them. Equal functions are called only once.
        """
        raise NotImplementedError


class Observer(Protocol):
    """Is told how the requests of one model end, every request once, a whole batch at a time."""

    def batch_done(self, requests: Sequence[Request], run: Run, answered: float) -> None:
        """A batch was run and answered.

        Args:
            requests: the requests that were answered with a response.
            run: the run they were part of.
            answered: when all had been, by `time.monotonic()`.
        """

    def failed(self, rpc: str, error: RequestError, count: int = 1, seconds: float = 0.0) -> None:
        """`count` requests that came by `rpc` ended with `error`, each after `seconds` seconds."""

    def on_event(self, event: str, **facts: object) -> None:
        """Takes an event of the model itself.

        Args:
            event: one of `penstock.core.request.EVENTS`.
            facts: further values of the event, such as `seconds`.
        """


EVENTS = (
    "terminated", "hung", "returned", "opened", "closed", "mismatch", "verified", "unsteady", "dearer",
    "overran",
)  # fmt: skip
"""Events of a model: a run was ended early, since all its callers had gone; a run hangs; a hanging run has
ended; the circuit breaker has opened, since the model fails on every input, or has closed; the requests of
a batch affected each other, so every request runs alone from now on; a batch was compared with runs of its
requests alone, and they agreed; a request that runs alone twice gets two answers, so batches are not
compared any more; batches take longer than their requests one by one, so every request runs alone from now
on; a run took far longer than expected, so no further run is made by a thread that takes calls."""
