"""The batcher of models with a state: steps of one sequence run in order, those of several run together.

    put ── first of its sequence? ── queue ── run ── answered ── the sequence's next step ── queue
                  └ no: held back until the step before it has ended

A step that waits in the queue is always the first unfinished step of its sequence (the head). A step that
fails, expires or is cancelled leaves the state as it was, as if it had not been sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Lock

from typing_extensions import override

from penstock.backends.backend import Backend
from penstock.core.errors import InvalidRequest, QueueFull, RequestError
from penstock.core.request import Request
from penstock.scheduling.batcher import DynamicBatcher
from penstock.scheduling.cost import RunCost
from penstock.scheduling.execution.failures import expired, gone
from penstock.scheduling.packing.states import States
from penstock.scheduling.policy import BatchPolicy, Isolation
from penstock.scheduling.queue.limits import QueueTotal
from penstock.scheduling.sequence_table import SequenceLimits, SequenceTable
from penstock.scheduling.step_inputs import StepInputs


class SequenceBatcher(DynamicBatcher):
    """The queue of a model whose sequence states the server keeps.

    Args:
        backend: runs the batches.
        policy: how requests are batched.
        cost: how long a run is expected to take.
        states: puts requests together into runs, with their states.
        limits: how many states are kept, and for how long.
        total: what waits for all models, which is limited as well.
        isolation: when the circuit breaker opens, and when runs count as hanging; never, if not given.
        step_inputs: the inputs that some steps send and others do not; None if there are none.
    """

    _has_steps = True

    def __init__(  # noqa: PLR0913 - what it is composed of
        self,
        backend: Backend,
        policy: BatchPolicy,
        cost: RunCost,
        states: States,
        limits: SequenceLimits,
        total: QueueTotal | None = None,
        isolation: Isolation | None = None,
        step_inputs: StepInputs | None = None,
    ) -> None:
        self._sequences = SequenceTable(limits)
        self._states, self._step_inputs = states, step_inputs
        self._prepares = states.varies or states.has_limits or step_inputs is not None
        self._steps_lock = Lock()  # taken before the lock of the queue, never after it
        self._dropped = False
        self._counted = 0, 0
        states.sequences = self._sequences
        super().__init__(backend, policy, cost, states, total, isolation)

    @property
    def sequences(self) -> int:
        """How many sequences have a state, or a step that is queued or running."""
        return len(self._sequences)

    @property
    def sequences_expired(self) -> int:
        """How many states have expired."""
        return self._sequences.expired

    @property
    def sequences_evicted(self) -> int:
        """How many sequences were ended to make room for those of other callers."""
        return self._sequences.evicted

    @override
    def is_watched(self) -> bool:
        return len(self._sequences) > 0 or super().is_watched()

    @override
    def backlog(self) -> tuple[int, int]:
        return (
            self.waiting_rows + self._sequences.held_rows,
            self.waiting_bytes + self._sequences.held_bytes,
        )

    @override
    def put(self, request: Request) -> None:
        """Puts a step into the queue if it is the head of its sequence; if not, holds it back.

        Raises:
            QueueFull: the queue is full; says when to try again.
            DeadlineExpired: its deadline has passed already.
            UnknownSequence: its sequence has no state, and the step does not begin a sequence.
            TooManySequences: it would begin one sequence too many; says when to try again, if that is known.
            SequenceTaken: it would begin a sequence that another caller has begun.
            InvalidRequest: it lacks an input that begins a sequence, or sends a state that the server keeps.
            SequenceTooLong: the state of its sequence is as long as it may be.
            StatesTooLarge: the states of all sequences take as much memory as they may.
        """
        if self._step_inputs is not None:
            self._step_inputs.take(request)
        with self._steps_lock:
            if self._step_inputs is not None:
                self._check_inputs(request, self._step_inputs)
            if self._sequences.is_held_back(request):
                self._check_room(request)
            if self._sequences.enter(request):
                try:
                    if self._prepares:
                        self._prepare(request)
                    super().put(request)
                except RequestError:
                    self._sequences.leave(request, request.arrived, answered=False)
                    self._count_held()
                    raise
            else:
                self._count_held()

    @override
    def why_rejected(self, request: Request) -> RequestError | None:
        """None: what a step needs is only known when it enters its sequence."""
        self.rejecting = False
        return None

    @override
    def cancel(self, request: Request) -> None:
        request.cancelled = True
        with self._steps_lock:
            was_held = self._sequences.withdraw(request)
            self._count_held()
        if was_held:
            self._fail([request], gone)
        else:
            super().cancel(request)

    @override
    def expire(self, now: float) -> None:
        """Answers the waiting steps whose deadline has passed, and drops the states of idle sequences."""
        with self._steps_lock:
            late = self._sequences.late(now)
            self._sequences.drop_idle(now)
            self._count_held()
        if late:
            self._fail(late, expired)
        # After the held steps: otherwise a late one would follow a late head into the queue.
        super().expire(now)

    def release(self, owner: object) -> None:
        """Drops the states of the sequences that began on a stream which has ended."""
        with self._steps_lock:
            self._sequences.release(owner)

    def missed(self, owner: object) -> None:
        """A step of a stream's own sequence was rejected before it could be put: it must not begin later."""
        with self._steps_lock:
            self._sequences.missed(owner)

    @override
    def fail_all(self, error: RequestError) -> None:
        with self._steps_lock:
            held = self._sequences.withdraw_all()
            self._count_held()
        self._fail(held, lambda _: error)
        super().fail_all(error)

    def has_runnable_step(self) -> bool:
        """Whether steps were dropped since the last call, and another step may run now.

        The runners look at the queue only when they are notified, or after a run.
        """
        with self._steps_lock:
            dropped, self._dropped = self._dropped, False
        return dropped and self.waiting_rows > 0

    @override
    def _make_room(self, request: Request, full: QueueFull) -> bool:
        """No step can be taken out for another: the steps behind it would continue without it."""
        return False

    @override
    def _fail(self, requests: Sequence[Request], why: Callable[[Request], RequestError]) -> None:
        try:
            super()._fail(requests, why)
        finally:
            if requests:
                with self._steps_lock:
                    self._dropped = True

    @override
    def _ended(self, requests: Sequence[Request], unanswered: Sequence[Request]) -> None:
        lost: list[Request] = []
        rejected: dict[Request, RequestError] = {}
        now, not_answered = time.monotonic(), frozenset(unanswered)
        with self._steps_lock:
            for request in requests:
                following, left = self._sequences.leave(request, now, request not in not_answered)
                lost += left
                while following is not None and (error := self._why_not(following)) is not None:
                    rejected[following] = error
                    following, left = self._sequences.leave(following, now, answered=False)
                    lost += left
                if following is not None:
                    self._queue.add_held(following)
            self._count_held()
        if lost:
            self._fail(lost, self._sequences.unknown)
        if rejected:
            self._fail([*rejected], rejected.__getitem__)

    def _check_inputs(self, request: Request, inputs: StepInputs) -> None:
        """Checks that a step that arrives brings what it must, and no more than it may."""
        try:
            inputs.check(request, self._sequences.begins(request))
        except InvalidRequest:
            self._sequences.rejected(request)
            raise

    def _prepare(self, request: Request) -> None:
        """Readies a step that is now the head of its sequence, so that its state is known.

        Raises:
            RequestError: it cannot be run.
        """
        if self._step_inputs is not None:
            self._step_inputs.check(request, self._sequences.begins(request))
        if self._states.has_limits:
            self._states.check_limits(request)
        if self._states.varies:
            request.shape_key = self._states.key(request)

    def _why_not(self, request: Request) -> RequestError | None:
        """Why a step that is now the head of its sequence cannot be run; None if it can."""
        if not self._prepares:
            return None
        try:
            self._prepare(request)
        except RequestError as error:
            return error
        return None

    def _check_room(self, request: Request) -> None:
        """Makes sure that one more step may be held back; the queue itself checks those that are not.

        So a caller that sends many steps ahead cannot fill the queue for the first steps of others.
        """
        rows, size = self.backlog()
        policy, large = self.policy, self._queue.large
        rows, size = rows - large.rows, size - large.bytes
        if rows >= policy.queue_rows or size + request.size > policy.queue_bytes:
            raise QueueFull(
                f"the queue is full: {rows} steps of {size} bytes are waiting, one more of {request.size} "
                f"bytes arrived, the limits are {policy.queue_rows} steps and {policy.queue_bytes} bytes",
                self._seconds_to_empty(),
            )
        total = self._queue.total
        with total.lock:
            full = total.why_full(request.rows or 1, request.size)
        if full is not None:
            raise full

    def _count_held(self) -> None:
        """Updates the totals of all models with the steps that are held back."""
        held = self._sequences.held_rows, self._sequences.held_bytes
        if held != self._counted:
            self._queue.total.add(held[0] - self._counted[0], held[1] - self._counted[1])
            self._counted = held
