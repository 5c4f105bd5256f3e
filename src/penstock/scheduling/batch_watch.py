"""Keeps some batches of a model, one at a time, and verifies them; see `penstock.scheduling.verification`."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from penstock.backends.backend import Backend
from penstock.core.errors import ModelFailed
from penstock.core.request import Observer, Request, Response
from penstock.core.tensors import Array
from penstock.scheduling.live_worth import LiveWorth
from penstock.scheduling.packing.rows import Packing
from penstock.scheduling.verification import Compare, Interrupted, Mismatch, Outputs, Postponed, Verifier

MOST_REQUESTS = 8
"""The most requests of a batch that are run alone: in the same time, a few of several batches show more."""

LONGEST_BETWEEN = 0.1
"""In seconds. Of an unproven model, a batch is kept about once in this time, however small the share: only
the time that verification may take limits it."""

MOST_INTERRUPTIONS = 16
"""A kept batch is dropped after this many runs that ended early."""


class Verified(Protocol):
    """The model whose batches are verified.

    Attributes:
        observer: is told of events; see `penstock.core.request.EVENTS`.
    """

    observer: Observer

    def found_mixing(self, found: Mismatch) -> None:
        """The requests of a batch affect each other."""

    def found_dearer(self, reason: str) -> None:
        """Batches take longer than their requests alone."""

    def verifying(self, runs: int) -> None:
        """This many runs of the model are made for verification now."""


class _KeptRequest(NamedTuple):
    """One request of a kept batch.

    Attributes:
        names: the outputs to compare.
        inputs: of a run of it alone.
        outputs: what it was answered, and the state after it.
    """

    names: Sequence[str]
    inputs: Mapping[str, Array]
    outputs: Outputs


@dataclass(slots=True)
class _Kept:
    """A kept batch.

    Attributes:
        requests: those that are to be run alone.
        together: makes the inputs of a run of all of them; None if they are not to be timed.
        together_first: whether that run is the first one. A thread that has slept gets more of a machine with
            other work at first, so neither order may always be the same.
        together_seconds: how long it took; None if it was not made.
        alone: the outputs of those that have been.
        seconds: how long these took.
        agreed: whether all have been, and agreed with the batch.
        interruptions: how many runs ended early.
    """

    requests: Sequence[_KeptRequest]
    together: Callable[[], Outputs] | None = None
    together_first: bool = False
    together_seconds: float | None = None
    alone: list[Outputs] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    agreed: bool = False
    interruptions: int = 0


class BatchWatch:
    """Keeps some batches of one model, one at a time, and verifies them.

    The first batches are kept more often than later ones, until the share is reached: so a model whose rows
    mix is soon found.

    Args:
        verifier: verifies the batches of all models.
        backend: runs the model.
        model: the model.
        compare: compares the outputs.
        share: the share of batches that are kept, above 0.
        cores: how many cores a run works on.
        unproven: see `penstock.scheduling.verification.Kept`.
        timed: whether batches are given up if they take longer than their requests alone.

    Attributes:
        unproven: as given.
    """

    def __init__(  # noqa: PLR0913 - what it is composed of
        self,
        verifier: Verifier,
        backend: Backend,
        model: Verified,
        compare: Compare,
        share: float,
        cores: int = 1,
        unproven: bool = False,
        timed: bool = False,
    ) -> None:
        self.unproven = unproven
        self._worth = LiveWorth() if timed else None
        self._verifier, self._backend, self._model = verifier, backend, model
        self._compare, self._cores = compare, cores
        self._most_between = 1.0 / share
        self._between = 1.0
        self._last_offer = (0.0, 0.0)  # when, and after how many more batches the next one was asked for
        self._kept: _Kept | None = None
        self._together_first = True  # of the last batch
        self._ended = False

    def offer(
        self, batch: Sequence[Request], packing: Packing, responses: Sequence[Response], outputs: Outputs
    ) -> float:
        """Keeps a batch that was answered, if no other is kept and it is not too large.

        Args:
            batch: its requests.
            packing: put them together.
            responses: their answers.
            outputs: all outputs of the run, by name.

        Returns:
            After how many more batches one is to be offered again; infinity for never.
        """
        if self._ended:
            return math.inf
        if self._kept is None:
            try:
                self._keep(batch, packing, responses, outputs)
            except Exception as error:  # the batch has been answered: only verification fails
                self._verifier.failed(error)
        # At random, so that callers with a rhythm of their own are all seen.
        after = self._between * 2.0 * random.random() if self._most_between > 1.0 else 0.0
        self._between = min(2.0 * self._between, self._most_between)
        return self._soon(after) if self.unproven else after

    def _soon(self, after: float) -> float:
        """As many batches, but no more than are run within `LONGEST_BETWEEN`."""
        now = self._verifier.clock()
        since, batches = self._last_offer
        if batches and now > since:
            after = min(after, batches / (now - since) * LONGEST_BETWEEN)
        self._last_offer = now, max(after, 1.0)
        return after

    def end(self) -> None:
        """From now on keeps no batch; drops the one that is kept."""
        self._ended = True
        self._drop()

    def verify(self) -> None:
        """Runs the requests of the kept batch alone, and compares.

        Raises:
            Postponed: there is other work, or no time is left; what has been run is remembered.
        """
        kept = self._kept
        if kept is None:
            return
        self._model.verifying(1)
        try:
            found, dearer = self._shown(kept)
        except ModelFailed:  # perhaps there was no memory; it says nothing about the other requests
            self._drop()
        except Interrupted:
            kept.interruptions += 1
            if kept.agreed or kept.interruptions >= MOST_INTERRUPTIONS:
                self._drop()
            raise
        except Exception as error:
            if not isinstance(error, Postponed):  # trying it again would hold up the batches of other models
                self._drop()
            raise
        else:
            self._drop()
            if found is not None:
                self._model.found_mixing(found)
            elif dearer:
                self._model.found_dearer(dearer)
        finally:
            self._model.verifying(0)

    def _keep(
        self, batch: Sequence[Request], packing: Packing, responses: Sequence[Response], outputs: Outputs
    ) -> None:
        room, size = self._verifier.room(self), _size(outputs)
        alone, requests, ones, states = packing.alone(), [], [], False
        step = -(-len(batch) // MOST_REQUESTS)
        most = max(MOST_REQUESTS // len(batch), 1)
        for place in range(random.randrange(step), len(batch), step):
            request, response = batch[place], responses[place]
            answered, state = response.outputs, packing.passed_on(outputs, place)
            for start, one in request.apart(most):
                inputs = alone.assemble([one])
                size += _size(inputs)
                if size > room:
                    return  # a batch of so large requests is not worth the memory
                of_one = answered if one is request else _rows(answered, start, start + one.rows)
                requests.append(_KeptRequest((*response.names, *state), inputs, {**of_one, **state}))
                ones.append(one)
                states = states or bool(state)
        together = None if self._worth is None or states else partial(packing.assemble, ones)
        self._together_first = not self._together_first
        self._kept = _Kept(requests, together, self._together_first)
        self._verifier.has_kept(self, max(size, 1))

    def _shown(self, kept: _Kept) -> tuple[Mismatch | None, str]:
        """Whether the requests of a kept batch affect each other, and why batches are to be given up."""
        if kept.together_first:
            self._time(kept)
        found = None if kept.agreed else self._found(kept)
        if found is None and not kept.agreed and not self._ended:
            kept.agreed = True
            self._model.observer.on_event("verified", requests=len(kept.requests))
        return found, self._dearer(kept) if kept.agreed else ""

    def _found(self, kept: _Kept) -> Mismatch | None:
        for each in kept.requests[len(kept.alone) :]:
            outputs, seconds = self._run(each.names, each.inputs)
            kept.alone.append(outputs)
            kept.seconds.append(seconds)
        verifier = self._verifier
        started = verifier.clock()
        found = self._compare([each.outputs for each in kept.requests], kept.alone)
        verifier.spend(verifier.clock() - started)
        if found is None:
            return None
        twice = kept.requests[found.place]
        again, _ = self._run(twice.names, twice.inputs)
        if self._compare([kept.alone[found.place]], [again]) is None:
            return found
        self.end()
        self._model.observer.on_event("unsteady", output=found.output)
        return None

    def _dearer(self, kept: _Kept) -> str:
        """Why batches are to be given up, as far as this one shows it; "" if they are not."""
        self._time(kept)
        if self._worth is None or kept.together_seconds is None:
            return ""
        return self._worth.note(kept.together_seconds, kept.seconds)

    def _time(self, kept: _Kept) -> None:
        """Times a run of all requests of a kept batch, if that is to be done and was not.

        It is tried once only: comparing the answers matters more.
        """
        if kept.together is None or kept.together_seconds is not None or len(kept.requests) < 2:
            return
        names = tuple(dict.fromkeys(name for each in kept.requests for name in each.names))
        try:
            _, kept.together_seconds = self._run(names, kept.together())
        except ModelFailed:  # as `verify`: it says nothing about the requests alone
            kept.together = None
        except Interrupted:
            kept.together = None
            raise

    def _run(self, names: Sequence[str], inputs: Outputs) -> tuple[Outputs, float]:
        """The outputs of a run, and how long it took."""
        # Copies: some sums are rounded differently depending on where in memory their input begins.
        copied = {name: array.copy() for name, array in inputs.items()}
        started = self._verifier.clock()
        outputs = self._verifier.run(self._backend, names, copied, self._cores)
        return dict(zip(names, outputs, strict=True)), self._verifier.clock() - started

    def _drop(self) -> None:
        self._kept = None
        self._verifier.has_kept(self, 0)


def _rows(outputs: Outputs, start: int, stop: int) -> Outputs:
    return {name: array[start:stop] for name, array in outputs.items()}


def _size(arrays: Mapping[str, Array]) -> int:
    """The bytes of arrays, and the characters of texts."""
    size = 0
    for array in arrays.values():
        size += array.nbytes
        if array.dtype.hasobject:
            size += sum(map(len, array.ravel()))
    return size
