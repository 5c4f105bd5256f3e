"""Packs requests of different lengths: pads them to a common length, and cuts outputs back to their own.

A request is always padded to the bucket that its length falls into, even if it runs alone, so that its answer
does not depend on the other requests of its batch. A request that is longer than every bucket, or has length
0, runs at its own length, together with requests of the same length.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import override

from penstock.core.errors import InvalidRequest
from penstock.core.request import Request, Response, Run
from penstock.core.tensors import Array
from penstock.scheduling.packing.rows import Alone, Rows, check_rows

LengthGroups = Mapping[int, Sequence[Request]]
"""The requests of a batch by their length. In the run, those of equal length lie side by side."""


class LengthRule(NamedTuple):
    """How long an output is for an input of length n: floor((factor * n + offset) / divisor), at least 0."""

    factor: int
    offset: int
    divisor: int

    def of(self, length: int) -> int:
        """The length of the output for an input of this length."""
        return max((self.factor * length + self.offset) // self.divisor, 0)

    @override
    def __str__(self) -> str:
        text = "n" if self.factor == 1 else f"{self.factor} * n"
        if self.offset:
            text = f"{text} {'+' if self.offset > 0 else '-'} {abs(self.offset)}"
        if self.divisor == 1:
            return text
        return f"({text}) // {self.divisor}" if " " in text else f"{text} // {self.divisor}"


@dataclass(frozen=True, slots=True)
class PaddingPlan:
    """What is padded, and how.

    Attributes:
        dtypes: the numpy dtype of every input, by name, in the signature's order.
        axes: the axis to pad, of every input that has one; never the first axis.
        fills: the value that these inputs are padded with.
        outputs: the axes to cut back to the request's length, or to the length that the model itself gives,
            of every output that has such axes.
        buckets: the lengths to pad to, ascending.
        mask: the input, [rows, length], that is 1 for a value and 0 for padding; "" if there is none.
        lengths: the input, [rows], that takes the length of each row; "" if there is none.
        max_bytes: the most bytes that the padded inputs of one request may take.
        rules: the axes to cut back that have another length than the request, and how long they are.
        output_lengths: for outputs that are cut back to a length that the model itself gives, the output that
            holds these lengths, [rows].
        shortest: the shortest length that the model takes.
        optional: the mask and the lengths, if there are any: the server fills them in if a request leaves
            them out.
    """

    dtypes: Mapping[str, np.dtype[Any]]
    axes: Mapping[str, int]
    fills: Mapping[str, object]
    outputs: Mapping[str, Sequence[int]]
    buckets: Sequence[int]
    mask: str = ""
    lengths: str = ""
    max_bytes: int = 64 * 2**20
    rules: Mapping[str, Mapping[int, LengthRule]] = field(default_factory=dict)
    output_lengths: Mapping[str, str] = field(default_factory=dict)
    shortest: int = 0
    optional: Collection[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "optional", frozenset(filter(None, (self.mask, self.lengths))))

    def key(self, inputs: Mapping[str, Array]) -> object:
        """The shape key of a request: the padded length, and the lengths of all other open axes.

        Raises:
            InvalidRequest: the inputs to be padded differ in length, are too short for the model, or would
                become too large.
        """
        lengths = {name: inputs[name].shape[axis] for name, axis in self.axes.items() if name in inputs}
        length, *others = set(lengths.values())
        if others:
            listed = ", ".join(f"{name} has {each}" for name, each in lengths.items())
            raise InvalidRequest(f"all padded inputs need the same length: {listed}")
        if length < self.shortest:
            name = next(iter(lengths))
            raise InvalidRequest(
                f"input {name} has length {length} along axis {self.axes[name]}; the model takes no less "
                f"than {self.shortest} (padding.shortest)"
            )
        padded = self.padded(length)
        if padded > length:
            self._check_size([inputs[name] for name in lengths], length, padded)
        rest = [self._rest(name, inputs[name].shape) for name in self.dtypes if name not in self.optional]
        return padded, tuple(rest)

    def length(self, inputs: Mapping[str, Array]) -> int:
        """The length of a request."""
        name = next(iter(self.axes))
        length: int = inputs[name].shape[self.axes[name]]
        return length

    def padded(self, length: int) -> int:
        """The length that a request of this length is padded to."""
        place = bisect_left(self.buckets, length)
        return self.buckets[place] if length and place < len(self.buckets) else length

    def cut(self, outputs: Mapping[str, Array], length: int, padded: int) -> dict[str, Array]:
        """Views of outputs without the padding.

        Args:
            outputs: the outputs, for rows of equal length.
            length: the length of these rows.
            padded: the length that they were padded to.
        """
        return {name: self._cut(name, output, outputs, length, padded) for name, output in outputs.items()}

    def _cut(self, name: str, output: Array, outputs: Mapping[str, Array], length: int, padded: int) -> Array:
        index = [slice(None)] * output.ndim
        own = self.output_lengths.get(name)
        stop = length if own is None else int(outputs[own].max(initial=0))
        for axis in self.outputs.get(name, ()):
            index[axis] = slice(stop)
        if padded > length and name in self.rules:
            for axis, rule in self.rules[name].items():
                index[axis] = slice(rule.of(length))
        return output[tuple(index)]

    def _check_size(self, arrays: Sequence[Array], length: int, padded: int) -> None:
        """Makes sure that many short rows, which are small to send, do not become too large."""
        size = sum([array.nbytes for array in arrays]) // length * padded
        if size > self.max_bytes:
            raise InvalidRequest(
                f"{len(arrays[0])} rows of length {length}, padded to {padded}, take {size} bytes, "
                f"limit {self.max_bytes} (padding.max_bytes); send fewer rows"
            )

    def _rest(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The lengths of the inner axes that are not padded."""
        axis = self.axes.get(name)
        return shape[1:] if axis is None else shape[1:axis] + shape[axis + 1 :]


class PaddedRows:
    """Rows of different lengths in one run: a `penstock.scheduling.packing.rows.Packing`.

    Args:
        plan: what is padded, and how.
    """

    batched = packs_single = True

    def __init__(self, plan: PaddingPlan) -> None:
        self._plan = plan
        self._wanted = Rows(batched=True).wanted
        self._cuts = {*plan.outputs, *plan.rules}

    def wanted(self, batch: Sequence[Request]) -> Sequence[str]:
        """The outputs that at least one request asks for, and the lengths that these are cut to."""
        names, own = self._wanted(batch), self._plan.output_lengths
        return [*dict.fromkeys([*names, *[own[name] for name in names if name in own]])] if own else names

    def assemble(self, batch: Sequence[Request]) -> Mapping[str, Array]:
        """A new array for each input, padded to the bucket."""
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

    def split(self, batch: Sequence[Request], run: Run) -> list[Response]:
        """Every request's own rows of the outputs that it asks for, cut back to its length.

        If an output is cut, requests of equal length share a `Run` of their own, with the rows of the whole.
        If it is cut to a length that the model gives, every request has its own.

        Raises:
            OtherRows: an output does not have one entry for each row.
        """
        check_rows(run)
        plan, started = self._plan, run.started
        is_cut = not self._cuts.isdisjoint(run.outputs)
        responses: dict[Request, Response] = {}
        first = real = 0
        groups = self._by_length(batch)
        for length, group in groups.items():
            rows = sum([request.rows for request in group])
            if is_cut and plan.output_lengths:
                responses.update(self._each_alone(run, first, group, length))
                first, real = first + rows, real + rows * length
                continue
            part, stop = (self._part(run, first, rows, length), 0) if is_cut else (run, first)
            for each in group:
                start, stop = stop, stop + each.rows
                responses[each] = Response(part, each.outputs, started - each.arrived, start, stop)
            first += rows
            real += rows * length
        run.padding = real, run.rows * plan.padded(next(iter(groups))) - real
        return [responses[each] for each in batch]

    def passed_on(self, outputs: Mapping[str, Array], place: int) -> Mapping[str, Array]:
        """Nothing."""
        return {}

    def alone(self) -> Alone:
        """Requests at their own lengths, with the mask and the lengths that they leave out."""
        return _Unpadded(self._plan)

    def _by_length(self, batch: Sequence[Request]) -> LengthGroups:
        length = self._plan.length
        groups: dict[int, list[Request]] = {}
        for request in batch:
            groups.setdefault(length(request.inputs), []).append(request)
        return groups

    def _part(self, run: Run, first: int, rows: int, length: int) -> Run:
        """The part of a run for some of its rows, which are all of one length."""
        plan = self._plan
        own = {name: output[first : first + rows] for name, output in run.outputs.items()}
        outputs = plan.cut(own, length, plan.padded(length))
        return Run(run.started, run.assembled, run.finished, run.rows, outputs)

    def _each_alone(
        self, run: Run, first: int, group: Sequence[Request], length: int
    ) -> Iterator[tuple[Request, Response]]:
        """The responses to requests of one length, each cut to the longest of its own rows."""
        for each in group:
            part = self._part(run, first, each.rows, length)
            yield each, Response(part, each.outputs, run.started - each.arrived, 0, each.rows)
            first += each.rows

    def _padded(self, name: str, groups: LengthGroups, rows: int, size: int) -> Array:
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

    def _masks(self, groups: LengthGroups, masks: Array) -> Array:
        """The masks that were sent; if none, 1 up to the lengths that were sent, or to the request's own."""
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

    def _lengths(self, groups: LengthGroups, all_lengths: Array) -> Array:
        """The lengths that were sent; if none, those of the masks that were sent, or the request's own."""
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


class _Unpadded(Alone):
    """One request at its own length, for a model whose requests were padded before.

    Args:
        plan: what was padded; says which inputs a request may leave out.
    """

    def __init__(self, plan: PaddingPlan) -> None:
        self._plan = plan

    @override
    def assemble(self, batch: Sequence[Request]) -> Mapping[str, Array]:
        plan, sent = self._plan, super().assemble(batch)
        missing = [name for name in plan.optional if name not in sent]
        if not missing:
            return sent
        array = sent[next(iter(plan.axes))]
        rows, length = len(array), plan.length(sent)
        inputs = dict(sent)
        mask, lengths = sent.get(plan.mask), sent.get(plan.lengths)
        if plan.mask in missing:
            each = np.full(rows, length) if lengths is None else lengths
            inputs[plan.mask] = (np.arange(length) < each[:, np.newaxis]).astype(plan.dtypes[plan.mask])
        if plan.lengths in missing:
            each = np.full(rows, length) if mask is None else np.count_nonzero(mask, axis=1)
            inputs[plan.lengths] = each.astype(plan.dtypes[plan.lengths])
        return {name: inputs[name] for name in plan.dtypes if name in inputs}
