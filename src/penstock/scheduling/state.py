"""The state that a model hands from one step of a sequence to the next: into a run, and out of it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from penstock.errors import ModelFailed
from penstock.messages import InferRequest, InferResponse, Run
from penstock.scheduling.batch import Packing
from penstock.tensors import Array

State: TypeAlias = tuple[Array, ...]
"""The values of one sequence, an array for each of the model's state tensors."""


class StateTensor(NamedTuple):
    """An output that is an input of the next step.

    Attributes:
        input: the input's name.
        output: the output's name.
        axis: along which the states of several sequences are put together; None where they never are.
        initial: what a sequence begins with: the input's datatype and shape, of length 1 along the axis.
    """

    input: str
    output: str
    axis: int | None
    initial: Array


class Kept(Protocol):
    """Where the states are between the runs."""

    def state_of(self, request: InferRequest) -> State | None:
        """The state that a step goes on from; None where it begins afresh."""

    def advance(self, request: InferRequest, state: State) -> None:
        """A step has been run well: this is the state after it, if it is answered."""


class States:
    """A `penstock.scheduling.batch.Packing`: as rows, and the states of their sequences beside them.

    Args:
        rows: packs all but the states.
        tensors: what is kept.

    Attributes:
        kept: where; set by whoever keeps them.
    """

    kept: Kept

    def __init__(self, rows: Packing, tensors: Sequence[StateTensor]) -> None:
        self._rows = rows
        self._tensors = tensors
        self._outputs = [each.output for each in tensors]
        self._initial = tuple(each.initial for each in tensors)
        # All of the axes before the one along which the states lie.
        self._before = [None if each.axis is None else (slice(None),) * each.axis for each in tensors]

    def wanted(self, batch: Sequence[InferRequest]) -> Sequence[str]:
        """The outputs that at least one step wants, and the states."""
        return [*self._rows.wanted(batch), *self._outputs]

    def assemble(self, batch: Sequence[InferRequest]) -> Mapping[str, Array]:
        """The steps' inputs, and the states that they go on from."""
        inputs = dict(self._rows.assemble(batch))
        states = [self.kept.state_of(request) or self._initial for request in batch]
        for place, tensor in enumerate(self._tensors):
            arrays = [state[place] for state in states]
            one = len(batch) == 1 or tensor.axis is None
            inputs[tensor.input] = arrays[0] if one else np.concatenate(arrays, tensor.axis)
        return inputs

    def split(self, batch: Sequence[InferRequest], run: Run) -> Sequence[InferResponse]:
        """Every step's answer; the states are kept apart from what is answered.

        Raises:
            ModelFailed: the answer or a state cannot be taken apart; then no state is.
        """
        outputs = dict(run.outputs)
        states = [outputs.pop(name) for name in self._outputs]
        run.outputs = outputs
        answers = self._rows.split(batch, run)
        for tensor, array in zip(self._tensors, states, strict=True):
            _check(tensor, array, len(batch))
        for place, request in enumerate(batch):
            self.kept.advance(request, self._share(states, place))
        return answers

    def _share(self, states: Sequence[Array], place: int) -> State:
        """The state of one sequence, in memory of its own: a view would hold that of the whole batch."""
        return tuple(
            [
                (array if axes is None else array[(*axes, slice(place, place + 1))]).copy()
                for axes, array in zip(self._before, states, strict=True)
            ]
        )


def _check(tensor: StateTensor, array: Array, steps: int) -> None:
    """Makes sure that a state came back as one that can go in again."""
    shape, axis = tensor.initial.shape, tensor.axis
    if axis is not None and steps > 1:
        shape = (*shape[:axis], steps, *shape[axis + 1 :])
    if array.shape != shape:
        came, wanted = list(array.shape), list(shape)
        raise ModelFailed(
            f"state output {tensor.output} came with shape {came}, expected {wanted} for {steps} "
            f"step{'s' if steps > 1 else ''}, as input {tensor.input} has it"
        )
