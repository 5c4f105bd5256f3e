"""Packs the rows of requests into one run, and splits its outputs into their responses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
from typing_extensions import override

from penstock.core.errors import ModelFailed
from penstock.core.names import many
from penstock.core.request import Request, Response, Run
from penstock.core.tensors import Array


class RunsAlone(Exception):
    """These requests must not run together."""


class OtherRows(ModelFailed):
    """An output of a batch does not have one entry for each row.

    Args:
        output: its name.
        words: what it has.
    """

    def __init__(self, output: str, words: str) -> None:
        super().__init__(words)
        self.output = output


class Packing(Protocol):
    """How requests become one run, and its outputs their responses.

    Attributes:
        batched: whether requests run together, so that outputs have one entry for each row.
        packs_single: whether a request that runs alone is packed, too. If not, its inputs are those of the
            run, and the outputs of the run are its response.
    """

    batched: bool
    packs_single: bool

    def wanted(self, batch: Sequence[Request]) -> Sequence[str]:
        """The names of the outputs that the run is to give."""

    def assemble(self, batch: Sequence[Request]) -> Mapping[str, Array]:
        """The inputs of the run."""

    def split(self, batch: Sequence[Request], run: Run) -> Sequence[Response]:
        """The response to every request, in the order of the requests.

        Raises:
            OtherRows: an output does not have one entry for each row.
            ModelFailed: the outputs cannot be split for another reason.
        """

    def passed_on(self, outputs: Mapping[str, Array], place: int) -> Mapping[str, Array]:
        """The outputs of a run that are not part of a response but of the state of one request's sequence.

        Args:
            outputs: of the run, by name.
            place: the request's place in the batch.
        """

    def alone(self) -> Packing:
        """How the same requests run if none may run together with others any more.

        Its `assemble` raises RunsAlone for several requests, or for one that stands for several.
        """


class Alone:
    """One request as it is; several never run together.

    This is for a model whose requests ran together before: some that wait may still stand for several.
    """

    batched = False
    packs_single = True

    def wanted(self, batch: Sequence[Request]) -> Sequence[str]:
        """The outputs that the request asks for."""
        return batch[0].outputs

    def assemble(self, batch: Sequence[Request]) -> Mapping[str, Array]:
        """The inputs of the request.

        Raises:
            RunsAlone: there are several requests, or it stands for several.
        """
        if len(batch) > 1 or len(batch[0].apart(2)) > 1:
            raise RunsAlone
        return batch[0].inputs

    def split(self, batch: Sequence[Request], run: Run) -> list[Response]:
        """All of the outputs, whatever their shapes."""
        return [Response(run, each.outputs, run.started - each.arrived) for each in batch]

    def passed_on(self, outputs: Mapping[str, Array], place: int) -> Mapping[str, Array]:
        """Nothing."""
        return {}

    def alone(self) -> Packing:
        """This."""
        return self


class Rows:
    """Every request's rows, one after another; without batching, the one request as it is.

    Args:
        batched: whether requests run together.
    """

    packs_single = False

    def __init__(self, batched: bool) -> None:
        self.batched = batched

    def wanted(self, batch: Sequence[Request]) -> Sequence[str]:
        """The outputs that at least one request of a batch asks for, each once."""
        first = batch[0].outputs
        for request in batch:
            if request.outputs is not first and request.outputs != first:
                return list(dict.fromkeys(name for request in batch for name in request.outputs))
        return first

    def assemble(self, batch: Sequence[Request]) -> Mapping[str, Array]:
        """A new array for each input. The arrays of a single request are used as they are."""
        first = batch[0].inputs
        if len(batch) == 1:
            return first
        return {name: np.concatenate([request.inputs[name] for request in batch]) for name in first}

    def split(self, batch: Sequence[Request], run: Run) -> list[Response]:
        """Every request's own rows of the outputs that it asks for."""
        started = run.started
        if not self.batched:
            return [Response(run, each.outputs, started - each.arrived) for each in batch]
        check_rows(run)
        if len(batch) == 1:
            only = batch[0]
            return [Response(run, only.outputs, started - only.arrived, 0, only.rows)]
        stop = 0
        return [
            Response(run, each.outputs, started - each.arrived, stop, stop := stop + each.rows)
            for each in batch
        ]

    def passed_on(self, outputs: Mapping[str, Array], place: int) -> Mapping[str, Array]:
        """Nothing."""
        return {}

    def alone(self) -> Packing:
        """Requests as they come."""
        return Alone()


class RowsBesideScalars(Rows):
    """As `Rows`, for a model that also takes scalars: one value for a whole batch, equal in all its requests.

    Args:
        batched: whether requests run together.
        scalars: the names of the scalar inputs.
    """

    def __init__(self, batched: bool, scalars: Collection[str]) -> None:
        super().__init__(batched)
        self._scalars = frozenset(scalars)

    @override
    def assemble(self, batch: Sequence[Request]) -> Mapping[str, Array]:
        first = batch[0].inputs
        if len(batch) == 1:
            return first
        return {
            name: array
            if name in self._scalars
            else np.concatenate([request.inputs[name] for request in batch])
            for name, array in first.items()
        }


class RowsAlong(Rows):
    """As `Rows`, for a batched model some of whose tensors have their rows along another axis than the first.

    Every request gets arrays of its own, cut out along those axes.

    Args:
        axes: the axis of the rows, of every tensor where it is not the first.
        scalars: the names of the scalar inputs.
    """

    packs_single = True

    def __init__(self, axes: Mapping[str, int], scalars: Collection[str] = ()) -> None:
        super().__init__(batched=True)
        self._axes = dict(axes)
        self._scalars = frozenset(scalars)
        # An index of all axes before that of the rows.
        self._before = {name: (slice(None),) * axis for name, axis in axes.items()}

    @override
    def assemble(self, batch: Sequence[Request]) -> Mapping[str, Array]:
        first, axes = batch[0].inputs, self._axes
        if len(batch) == 1:
            return first
        return {
            name: array
            if name in self._scalars
            else np.concatenate([request.inputs[name] for request in batch], axes.get(name, 0))
            for name, array in first.items()
        }

    @override
    def split(self, batch: Sequence[Request], run: Run) -> list[Response]:
        for name, output in run.outputs.items():
            axis = self._axes.get(name, 0)
            if axis >= output.ndim or output.shape[axis] != run.rows:
                raise _misfit(name, output, run)
        started, stop = run.started, 0
        if len(batch) == 1:
            only = batch[0]
            return [Response(run, only.outputs, started - only.arrived)]
        responses = []
        for each in batch:
            start, stop = stop, stop + each.rows
            part = self._part(run, each.outputs, slice(start, stop))
            responses.append(Response(part, each.outputs, started - each.arrived))
        return responses

    def _part(self, run: Run, names: Sequence[str], rows: slice) -> Run:
        """The part of a run for some of its rows."""
        before = self._before
        outputs = {name: run.outputs[name][(*before.get(name, ()), rows)] for name in names}
        return Run(run.started, run.assembled, run.finished, run.rows, outputs, run.cut_reason)


def check_rows(run: Run) -> None:
    """Makes sure that the outputs can be split.

    Raises:
        OtherRows: an output does not have one entry for each row, although the graph declares it so.
    """
    for name, output in run.outputs.items():
        if not output.shape or output.shape[0] != run.rows:
            raise _misfit(name, output, run)


def _misfit(name: str, output: Array, run: Run) -> OtherRows:
    return OtherRows(name, f"output {name} has shape {list(output.shape)} for {many(run.rows, 'row')}")
