"""Packs sequence states: tensors that a model passes from one step of a sequence to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from penstock.core.errors import ModelFailed, SequenceTooLong, StatesTooLarge
from penstock.core.request import Request, Response, Run
from penstock.core.tensors import Array
from penstock.scheduling.packing.rows import OtherRows, Packing

State: TypeAlias = tuple[Array, ...]
"""The state of one sequence: an array for each of the model's state tensors."""


class StateTensor(NamedTuple):
    """An input that is kept for the next step: an output of this step, or a value that stays.

    Attributes:
        input: the input's name.
        output: the output that is its value at the next step; "" if its value stays.
        axis: along which the states of several sequences are concatenated; None if they never are.
        initial: the state that a sequence begins with: of the input's datatype and shape, and of length 1
            along the axis. If a step that begins a sequence has to send it, the open axes have length 0.
        open_axes: the axes whose length may change from step to step.
        grows: the one of these along which each step adds; None if none does.
    """

    input: str
    output: str
    axis: int | None
    initial: Array
    open_axes: Sequence[int] = ()
    grows: int | None = None


class StateLimits(NamedTuple):
    """How large states may become.

    Attributes:
        max_length: the longest state along an axis that grows.
        max_bytes: the most bytes that the states of all sequences may take; None for any number.
    """

    max_length: int = 0
    max_bytes: int | None = None


NO_LIMITS = StateLimits()


class SequenceStates(Protocol):
    """Where the states of sequences are between runs.

    Attributes:
        state_bytes: the bytes of the states of all sequences.
    """

    state_bytes: int

    def state_of(self, request: Request) -> State | None:
        """The state that a step continues from; None if it begins a sequence."""

    def advance(self, request: Request, state: State) -> None:
        """A step has succeeded: `state` is the state after it, once it has been answered."""


class States:
    """A `penstock.scheduling.packing.rows.Packing` that adds the states of sequences to their steps.

    Args:
        rows: packs everything but the states.
        tensors: the state tensors, those that stay as they are last.
        limits: how large states may become.
        may_be_sent: whether steps may bring states.

    Attributes:
        sequences: where the states are; set by the batcher.
        has_limits: whether a step may be rejected because of the size of states.
        varies: whether states differ in shape, or hold values of scalars: then only steps whose states are
            alike may share a batch.
    """

    packs_single = True

    sequences: SequenceStates

    def __init__(
        self,
        rows: Packing,
        tensors: Sequence[StateTensor],
        limits: StateLimits = NO_LIMITS,
        may_be_sent: bool = False,
    ) -> None:
        self._rows = rows
        self.batched = rows.batched
        self._tensors = tensors
        self._changing = [each for each in tensors if each.output]
        self._limits = limits
        self._outputs = [each.output for each in self._changing]
        self._initial = tuple(each.initial for each in tensors)
        # An index of all axes before the one along which the states are concatenated.
        self._before = [None if each.axis is None else (slice(None),) * each.axis for each in self._changing]
        # The places of states whose shapes differ, and of scalars that stay.
        self._varied = [place for place, each in enumerate(tensors) if each.open_axes]
        self._scalars = [
            place for place, each in enumerate(tensors) if not each.output and not each.initial.ndim
        ]
        self._has_constants = len(self._changing) < len(tensors)
        self._may_be_sent = may_be_sent or self._has_constants
        self._growing = [place for place, each in enumerate(tensors) if each.grows is not None]
        self.varies = bool(self._varied or self._scalars)
        self.has_limits = bool(self._growing) or limits.max_bytes is not None

    def wanted(self, batch: Sequence[Request]) -> Sequence[str]:
        """The outputs that at least one step asks for, and the states."""
        return [*self._rows.wanted(batch), *self._outputs]

    def key(self, request: Request) -> object:
        """The shape key of a step, and what of its state has to be equal for steps that share a batch."""
        state = self._state_of(request)
        shapes = tuple([state[place].shape for place in self._varied])
        values = [state[place].tobytes() for place in self._scalars]
        own = request.shape_key
        parts = (
            own if isinstance(own, tuple) and any(isinstance(each, bytes | str) for each in own) else (own,)
        )
        return (*parts, shapes, *values)

    def check_limits(self, request: Request) -> None:
        """Makes sure that the state of a step that is to be run may become larger.

        Raises:
            SequenceTooLong: the state is as long as it may be.
            StatesTooLarge: the states of all sequences take as much memory as they may.
        """
        state = self._state_of(request)
        for place in self._growing:
            tensor = self._tensors[place]
            length = state[place].shape[tensor.grows or 0]
            if length >= self._limits.max_length:
                raise self._too_long(tensor, f"is {length} long")
        begins = self.sequences.state_of(request) is None
        if (self._growing or begins) and not _ends(request):
            self._check_bytes(1)

    def assemble(self, batch: Sequence[Request]) -> Mapping[str, Array]:
        """The inputs of the steps, and the states that they continue from."""
        inputs = dict(self._rows.assemble(batch))
        if self._may_be_sent:
            states = [self._state_of(request) for request in batch]
        else:
            states = [self.sequences.state_of(request) or self._initial for request in batch]
        for place, tensor in enumerate(self._tensors):
            arrays = [state[place] for state in states]
            one = len(batch) == 1 or tensor.axis is None
            inputs[tensor.input] = arrays[0] if one else np.concatenate(arrays, tensor.axis)
        return inputs

    def split(self, batch: Sequence[Request], run: Run) -> Sequence[Response]:
        """The response to every step; the states are not part of it.

        Raises:
            OtherRows: an output or a state does not have one entry for each step; then no state changes.
            ModelFailed: the outputs or a state cannot be split for another reason; no state changes either.
            SequenceTooLong: a state has become longer than it may; then no state changes.
            StatesTooLarge: the states would take more memory than they may; then no state changes.
        """
        outputs = dict(run.outputs)
        states = [outputs.pop(name) for name in self._outputs]
        run.outputs = outputs
        answers = self._rows.split(batch, run)
        for tensor, array in zip(self._changing, states, strict=True):
            check_state(tensor, array, len(batch))
        if self.has_limits:
            self._check_new(batch, states)
        for place, request in enumerate(batch):
            state = self._share(states, place)
            if self._has_constants:
                state = (*state, *self._constants_of(request))
            self.sequences.advance(request, state)
        return answers

    def _state_of(self, request: Request) -> State:
        """The state that a step continues from, with what it brings itself."""
        state = self.sequences.state_of(request) or self._initial
        given = request.sequence.given if request.sequence is not None else None
        if not given:
            return state
        return tuple([given.get(each.input, array) for each, array in zip(self._tensors, state, strict=True)])

    def _constants_of(self, request: Request) -> State:
        """The part of a step's state that stays as it is."""
        return self._state_of(request)[len(self._changing) :]

    def passed_on(self, outputs: Mapping[str, Array], place: int) -> Mapping[str, Array]:
        """The state after one step, as views."""
        return {
            tensor.output: outputs[tensor.output]
            if axes is None
            else outputs[tensor.output][(*axes, slice(place, place + 1))]
            for axes, tensor in zip(self._before, self._changing, strict=True)
        }

    def alone(self) -> Packing:
        """One step at a time, with the same states."""
        made = States(self._rows.alone(), self._tensors, self._limits, self._may_be_sent)
        made.sequences = self.sequences
        return made

    def _share(self, states: Sequence[Array], place: int) -> State:
        """A copy of the state of one sequence: a view would keep the whole batch in memory."""
        return tuple(
            [
                (array if axes is None else array[(*axes, slice(place, place + 1))]).copy()
                for axes, array in zip(self._before, states, strict=True)
            ]
        )

    def _check_new(self, batch: Sequence[Request], states: Sequence[Array]) -> None:
        """Makes sure that the states after a run are no larger than they may be."""
        for place in self._growing:
            tensor = self._tensors[place]
            length = states[place].shape[tensor.grows or 0]
            if length > self._limits.max_length:
                raise self._too_long(tensor, f"would be {length} long after this step")
        staying = [request for request in batch if not _ends(request)]
        if self._limits.max_bytes is not None and staying:
            more = _bytes(states) // len(batch) * len(staying)
            for request in staying:
                more += _bytes(self._constants_of(request)) - _bytes(self.sequences.state_of(request) or ())
            self._check_bytes(more)

    def _check_bytes(self, more: int) -> None:
        most, held = self._limits.max_bytes, self.sequences.state_bytes
        if most is not None and held + more > most:
            raise StatesTooLarge(
                f"the states of all sequences take {held} bytes, the step needs {more} more, the "
                f"limit is {most} (sequence.max_state_bytes); end some sequences"
            )

    def _too_long(self, tensor: StateTensor, what: str) -> SequenceTooLong:
        return SequenceTooLong(
            f"the state {tensor.input} {what}, the limit is {self._limits.max_length} (sequence.max_length); "
            "begin the sequence anew"
        )


def _bytes(arrays: Sequence[Array]) -> int:
    return sum(array.nbytes for array in arrays)


def _ends(request: Request) -> bool:
    """Whether the state after a step is dropped."""
    return request.sequence is not None and request.sequence.end


def check_state(tensor: StateTensor, array: Array, steps: int) -> None:
    """Makes sure that a state has the shape that the next step needs.

    Args:
        tensor: the state tensor.
        array: what the model gave.
        steps: the number of steps in the run.

    Raises:
        ModelFailed: it has another shape.
    """
    shape, axis = tensor.initial.shape, tensor.axis
    if axis is not None and steps > 1:
        shape = (*shape[:axis], steps, *shape[axis + 1 :])
    if tensor.open_axes and len(shape) == array.ndim:
        shape = tuple(
            [
                array.shape[place] if place in tensor.open_axes else length
                for place, length in enumerate(shape)
            ]
        )
    if array.shape != shape:
        came, wanted = list(array.shape), list(shape)
        words = (
            f"state output {tensor.output} has shape {came}, expected {wanted} for {steps} "
            f"step{'s' if steps > 1 else ''}, the shape of input {tensor.input}"
        )
        has_steps = axis is None or array.shape[axis : axis + 1] == shape[axis : axis + 1]
        raise ModelFailed(words) if steps == 1 or has_steps else OtherRows(tensor.output, words)
