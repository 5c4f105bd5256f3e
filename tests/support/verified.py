"""A batched model whose batches are verified when a test says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from penstock.core.request import Request
from penstock.models.checks.live import LiveCheck
from penstock.models.model import Batching, Model
from penstock.scheduling.batch_watch import BatchWatch
from penstock.scheduling.batcher import DynamicBatcher
from penstock.scheduling.cost import RunCost
from penstock.scheduling.packing.rows import Packing
from penstock.scheduling.packing.states import States
from penstock.scheduling.sequence_batcher import SequenceBatcher
from penstock.scheduling.sequence_table import SequenceLimits
from penstock.scheduling.verification import Verifier
from support.work import HandBackend, RunByHand, Tally, policy, request, run_all


class Clock:
    """A clock that moves only when it is told to; by default there has always been time enough."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float = 1e6) -> None:
        self.now += seconds


class House:
    """A batched model, and the verifier of its batches, which works when it is told to.

    Args:
        run: what the model does.
        share: the share of batches that are verified.
        packing: how requests are packed; as rows, if not given.
        batching: what the check at load has found.
        unproven: whether nothing shows from the graph that the rows keep apart.
        timed: whether batches are given up if they take longer.
        changes: of the policy.
    """

    def __init__(
        self,
        run: RunByHand,
        *,
        share: float = 1.0,
        packing: Packing | None = None,
        batching: Batching = Batching(True, "for a test"),  # noqa: B008 - it cannot be changed
        signature: Any = None,
        unproven: bool = False,
        timed: bool = False,
        **changes: object,
    ) -> None:
        self.clock, self.errors = Clock(), list[BaseException]()
        self.verifier = Verifier(self.errors.append, self.clock)
        self.backend = HandBackend(run, signature)
        made = policy(**changes)
        if isinstance(packing, States):
            limits = SequenceLimits(10.0, 100)
            self.batcher: DynamicBatcher = SequenceBatcher(self.backend, made, RunCost(1e-5), packing, limits)
        else:
            self.batcher = DynamicBatcher(self.backend, made, RunCost(1e-5), packing)
        self.model = Model("m", 1, self.backend, self.batcher, batching)
        self.tally = Tally()
        self.batcher.observer = self.tally
        self.watch(self.verifier, share, unproven, timed)

    def watch(self, verifier: Verifier, share: float, unproven: bool = False, timed: bool = False) -> None:
        """Has a share of the batches verified."""
        if not share:
            self.batcher.verify(verifier, None)
            return
        compare = LiveCheck(self.backend.signature.outputs, self.model.batching)
        backend, cores = self.backend, self.batcher.policy.cores
        watch = BatchWatch(verifier, backend, self.batcher, compare, share, cores, unproven, timed)
        self.batcher.verify(verifier, watch)

    def ask(self, *rows: float | Sequence[float]) -> list[Request]:
        """Requests of these rows, answered as one batch if there is room."""
        requests: list[Request] = [
            request([each] if isinstance(each, float | int) else each) for each in rows
        ]
        run_all(self.batcher, *requests)
        return requests

    def verify(self, is_idle: Callable[[], bool] | None = None) -> None:
        """Lets the verifier work, as its thread would."""
        self.clock.wait()
        self.verifier.look(is_idle or (lambda: not self.batcher.is_busy()))
        if self.verifier._wake.is_set():
            self.verifier._wake.clear()
            self.verifier.work()

    @property
    def kept(self) -> int:
        """How many batches are kept."""
        return len(self.verifier._kept)
