"""Requests of different lengths in one batch: padded to a common length, and answers cut back to their own.

A request is always padded to the bucket that its length falls into, even where it runs alone: so its answer
does not depend on who else happens to be in the batch. One longer than every bucket, or of no length at all,
runs at its own length, with its equals.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from penstock.errors import InvalidRequest
from penstock.messages import InferRequest, InferResponse, Run
from penstock.scheduling.batch import Rows, check_rows
from penstock.tensors import Array

Groups = Mapping[int, Sequence[InferRequest]]
"""The requests of a batch by their length: so they lie in the run, those of equal length side by side."""


@dataclass(frozen=True, slots=True)
class PaddingPlan:
    """What is padded, and how.

    Attributes:
        dtypes: the numpy dtype of every input, by name, in the signature's order.
        axes: the axis to pad, of every input that has one; never the first.
        fills: what the padding of these holds.
        outputs: the axes to cut back, of every output that has any.
        buckets: the lengths that are padded to, ascending.
        mask: the input, [rows, length], that is 1 where there is a value and 0 where there is padding.
        lengths: the input, [rows], that takes how long each row is.
        max_bytes: the most that the padded inputs of one request may take.
        optional: those of the two that there are: where a request leaves them out, they are made up.
    """

    dtypes: Mapping[str, np.dtype[Any]]
    axes: Mapping[str, int]
    fills: Mapping[str, object]
    outputs: Mapping[str, Sequence[int]]
    buckets: Sequence[int]
    mask: str = ""
    lengths: str = ""
    max_bytes: int = 64 * 2**20
    optional: Collection[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "optional", frozenset(filter(None, (self.mask, self.lengths))))

    def key(self, inputs: Mapping[str, Array]) -> object:
        """What requests must have in common to share a batch: the padded length, and all other open axes.

        Raises:
            InvalidRequest: the inputs that are to be padded differ in length, or would become too large.
        """
        lengths = {name: inputs[name].shape[axis] for name, axis in self.axes.items() if name in inputs}
        length, *others = set(lengths.values())
        if others:
            listed = ", ".join(f"{name} has {each}" for name, each in lengths.items())
            raise InvalidRequest(f"all inputs that are padded need the same length: {listed}")
        padded = self.padded(length)
        if padded > length:
            self._check_size([inputs[name] for name in lengths], length, padded)
        rest = [self._rest(name, inputs[name].shape) for name in self.dtypes if name not in self.optional]
        return padded, tuple(rest)

    def length(self, inputs: Mapping[str, Array]) -> int:
        """How long a request is."""
        name = next(iter(self.axes))
        length: int = inputs[name].shape[self.axes[name]]
        return length

    def padded(self, length: int) -> int:
        """How long a request of this length becomes."""
        place = bisect_left(self.buckets, length)
        return self.buckets[place] if length and place < len(self.buckets) else length

    def cut(self, name: str, output: Array, length: int) -> Array:
        """A view of an output, without what belongs to the padding."""
        index = [slice(None)] * output.ndim
        for axis in self.outputs.get(name, ()):
            index[axis] = slice(length)
        return output[tuple(index)]

    def _check_size(self, arrays: Sequence[Array], length: int, padded: int) -> None:
        """Makes sure that many short rows, which are little to send, do not become too much."""
        size = sum([array.nbytes for array in arrays]) // length * padded
        if size > self.max_bytes:
            raise InvalidRequest(
                f"{len(arrays[0])} rows of length {length}, padded to {padded}, take {size} bytes; "
                f"{self.max_bytes} is the most (padding.max_bytes): send fewer rows at once"
            )

    def _rest(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The lengths of the inner axes that are not padded."""
        axis = self.axes.get(name)
        return shape[1:] if axis is None else shape[1:axis] + shape[axis + 1 :]


class PaddedRows:
    """Rows of different lengths in one run: a `penstock.scheduling.batch.Packing`.

    Args:
        plan: what is padded, and how.
    """

    def __init__(self, plan: PaddingPlan) -> None:
        self._plan = plan
        self.wanted = Rows(batched=True).wanted

    def assemble(self, batch: Sequence[InferRequest]) -> Mapping[str, Array]:
        """One new buffer an input, padded to the bucket."""
        plan = self._plan
        groups = self._by_length(batch)
        rows = sum([request.rows for request in batch])
        size = plan.padded(next(iter(groups)))
        inputs: dict[str, Array] = {}
        for name, dtype in plan.dtypes.items():
            if name == plan.mask:
                inputs[name] = self._masks(groups, np.zeros((rows, size), dtype))
            elif name == plan.lengths:
                inputs[name] = self._lengths(groups, np.empty(rows, dtype))
            elif name in plan.axes:
                inputs[name] = self._padded(name, groups, rows, size)
            else:
                arrays = [request.inputs[name] for group in groups.values() for request in group]
                inputs[name] = np.concatenate(arrays) if arrays[0].ndim else arrays[0]
        return inputs

    def split(self, batch: Sequence[InferRequest], run: Run) -> list[InferResponse]:
        """Every request's own rows of the outputs it wants, cut back to its length.

        Where an output is cut, requests of equal length share a run of their own, with the rows of the whole.

        Raises:
            ModelFailed: an output has not one entry a row.
        """
        check_rows(run)
        plan, started = self._plan, run.started
        is_cut = not plan.outputs.keys().isdisjoint(run.outputs)
        responses: dict[InferRequest, InferResponse] = {}
        first = real = 0
        groups = self._by_length(batch)
        for length, group in groups.items():
            rows = sum([request.rows for request in group])
            part, stop = (self._part(run, first, rows, length), 0) if is_cut else (run, first)
            for each in group:
                start, stop = stop, stop + each.rows
                responses[each] = InferResponse(part, each.outputs, started - each.arrived, start, stop)
            first += rows
            real += rows * length
        run.padding = real, run.rows * plan.padded(next(iter(groups))) - real
        return [responses[each] for each in batch]

    def _by_length(self, batch: Sequence[InferRequest]) -> Groups:
        length = self._plan.length
        groups: dict[int, list[InferRequest]] = {}
        for request in batch:
            groups.setdefault(length(request.inputs), []).append(request)
        return groups

    def _part(self, run: Run, first: int, rows: int, length: int) -> Run:
        """What a run gave for some of its rows, which are all of one length."""
        outputs = {
            name: self._plan.cut(name, output[first : first + rows], length)
            for name, output in run.outputs.items()
        }
        return Run(run.started, run.assembled, run.finished, run.rows, outputs)

    def _padded(self, name: str, groups: Groups, rows: int, size: int) -> Array:
        plan = self._plan
        axis = plan.axes[name]
        inner = next(iter(groups.values()))[0].inputs[name].shape[1:]
        shape = (rows, *inner[: axis - 1], size, *inner[axis:])
        padded = np.full(shape, plan.fills[name], plan.dtypes[name])
        between, stop = (slice(None),) * (axis - 1), 0
        for length, group in groups.items():
            for request in group:
                start, stop = stop, stop + request.rows
                padded[(slice(start, stop), *between, slice(length))] = request.inputs[name]
        return padded

    def _masks(self, groups: Groups, masks: Array) -> Array:
        """The masks that were sent; else 1 up to the length that was sent, or up to the request's own."""
        plan, stop = self._plan, 0
        for length, group in groups.items():
            for request in group:
                start, stop = stop, stop + request.rows
                mask, lengths = request.inputs.get(plan.mask), request.inputs.get(plan.lengths)
                if mask is not None:
                    masks[start:stop, :length] = mask
                elif lengths is not None:
                    masks[start:stop, :length] = np.arange(length) < lengths[:, np.newaxis]
                else:
                    masks[start:stop, :length] = 1
        return masks

    def _lengths(self, groups: Groups, all_lengths: Array) -> Array:
        """The lengths that were sent; else what the masks say that were sent, or the request's own."""
        plan, stop = self._plan, 0
        for length, group in groups.items():
            for request in group:
                start, stop = stop, stop + request.rows
                mask, lengths = request.inputs.get(plan.mask), request.inputs.get(plan.lengths)
                if lengths is not None:
                    all_lengths[start:stop] = lengths
                else:
                    all_lengths[start:stop] = length if mask is None else np.count_nonzero(mask, axis=1)
        return all_lengths
