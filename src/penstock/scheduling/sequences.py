"""Requests that are steps of sequences: one step of a sequence at a time, those of different ones together.

    put ── first of its sequence? ── queue ── run ── answered ── the sequence's next step ── queue
                  └ no: held back until the step before it has ended

Who waits in the queue is always the head of its sequence. A step that fails, expires or is cancelled leaves
the state as it was, as if it had not been sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Lock

from typing_extensions import override

from penstock.backends.backend import Backend
from penstock.errors import QueueFull, RequestError
from penstock.messages import InferRequest
from penstock.scheduling.batcher import BatchPolicy, DynamicBatcher
from penstock.scheduling.bounds import Total
from penstock.scheduling.cost import RunCost
from penstock.scheduling.delivery import expired, gone
from penstock.scheduling.execution import Isolation
from penstock.scheduling.state import States
from penstock.scheduling.steps import SequenceBounds, Sequences


class SequenceBatcher(DynamicBatcher):
    """The queue of a model whose state the server keeps.

    Args:
        backend: runs the batches.
        policy: how they are made up.
        cost: how long they are expected to take.
        states: puts them together, with their states.
        bounds: how many states are kept, and for how long.
        total: what waits before all models, which is bounded as well.
        isolation: when the model is shut off, and its runs are said to hang; never, where not given.
    """

    def __init__(  # noqa: PLR0913 - what it is composed of
        self,
        backend: Backend,
        policy: BatchPolicy,
        cost: RunCost,
        states: States,
        bounds: SequenceBounds,
        total: Total | None = None,
        isolation: Isolation | None = None,
    ) -> None:
        self._sequences = Sequences(bounds)
        self._steps = Lock()  # taken before that of the queue, never after it
        self._dropped = False
        self._counted = 0, 0
        states.kept = self._sequences
        super().__init__(backend, policy, cost, states, total, isolation)

    @property
    def sequences(self) -> int:
        """The sequences that have a state, or a step under way."""
        return len(self._sequences)

    @property
    def sequences_expired(self) -> int:
        """How many sequences have lost their state because nothing came."""
        return self._sequences.expired

    @override
    def backlog(self) -> tuple[int, int]:
        return (
            self.waiting_rows + self._sequences.held_rows,
            self.waiting_bytes + self._sequences.held_bytes,
        )

    @override
    def put(self, request: InferRequest) -> None:
        """Lets a step in: into the queue where it is the head of its sequence, else behind that.

        Raises:
            QueueFull: there is no room; says when there should be.
            DeadlineExpired: its deadline has passed already.
            UnknownSequence: its sequence has no state and the step does not begin one.
            TooManySequences: it would be one too many; says when there may be room.
        """
        with self._steps:
            if self._sequences.is_held_back(request):
                self._check_room(request)
            if self._sequences.enter(request):
                try:
                    super().put(request)
                except RequestError:
                    self._sequences.leave(request, request.arrived, answered=False)
                    raise
            self._count_held()

    @override
    def cancel(self, request: InferRequest) -> None:
        request.cancelled = True
        with self._steps:
            was_held = self._sequences.withdraw(request)
            self._count_held()
        if was_held:
            self._fail([request], gone)
        else:
            super().cancel(request)

    @override
    def expire(self, now: float) -> None:
        """Answers the waiting steps whose deadline has passed, and drops the states of idle sequences."""
        with self._steps:
            late = self._sequences.late(now)
            self._sequences.drop_idle(now)
            self._count_held()
        if late:
            self._fail(late, expired)
        super().expire(now)  # after those behind: else one that is late, too, would follow it into the queue

    def release(self, owner: object) -> None:
        """Drops the states of the sequences that began on a stream which has ended."""
        with self._steps:
            self._sequences.release(owner)

    @override
    def fail_all(self, error: RequestError) -> None:
        with self._steps:
            held = self._sequences.withdraw_all()
            self._count_held()
        self._fail(held, lambda _: error)
        super().fail_all(error)

    def wants_a_look(self) -> bool:
        """Whether steps have been dropped since this was asked last, and one waits that may follow them.

        Only whoever runs batches looks at the queue by himself.
        """
        with self._steps:
            dropped, self._dropped = self._dropped, False
        return dropped and self.waiting_rows > 0

    @override
    def _make_room(self, request: InferRequest, full: QueueFull) -> bool:
        """Nobody gives way: what comes behind a step would go on without it."""
        return False

    @override
    def _fail(self, requests: Sequence[InferRequest], why: Callable[[InferRequest], RequestError]) -> None:
        try:
            super()._fail(requests, why)
        finally:
            if requests:
                with self._steps:
                    self._dropped = True

    @override
    def _ended(self, requests: Sequence[InferRequest], unanswered: Sequence[InferRequest]) -> None:
        lost: list[InferRequest] = []
        now = time.monotonic()
        with self._steps:
            for request in requests:
                following, left = self._sequences.leave(request, now, request not in unanswered)
                lost += left
                if following is not None:
                    self._queue.follow(following)
            self._count_held()
        if lost:
            self._fail(lost, self._sequences.unknown)

    def _check_room(self, request: InferRequest) -> None:
        """Makes sure that one more step may be held back; those that are not are the queue's concern.

        So whoever sends many steps ahead leaves room for the first ones of others.
        """
        rows, size = self.backlog()
        policy = self.policy
        if rows >= policy.queue_rows or size + request.size > policy.queue_bytes:
            raise QueueFull(
                f"the queue is full: {rows} steps of {size} bytes wait, one more of {request.size} bytes "
                f"came, {policy.queue_rows} and {policy.queue_bytes} are the most",
                self._seconds_to_empty(),
            )
        self._queue.check_total(request)

    def _count_held(self) -> None:
        """Lets the steps that are held back count as what waits before all models."""
        held = self._sequences.held_rows, self._sequences.held_bytes
        if held != self._counted:
            self._queue.count_elsewhere(held[0] - self._counted[0], held[1] - self._counted[1])
            self._counted = held
