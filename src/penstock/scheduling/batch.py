"""Putting requests together into one run and taking the answer apart again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
from typing_extensions import override

from penstock.errors import ModelFailed
from penstock.messages import InferRequest, InferResponse, Run
from penstock.tensors import Array


class Packing(Protocol):
    """How requests become one run, and the run's answer theirs."""

    def wanted(self, batch: Sequence[InferRequest]) -> Sequence[str]:
        """The outputs that the run is to give."""

    def assemble(self, batch: Sequence[InferRequest]) -> Mapping[str, Array]:
        """The inputs of the run."""

    def split(self, batch: Sequence[InferRequest], run: Run) -> Sequence[InferResponse]:
        """Every request's answer, in the order of the requests.

        Raises:
            ModelFailed: the answer cannot be taken apart.
        """


class Rows:
    """Every request's rows, one after another; without batching, the one request as it is.

    Args:
        batched: whether requests run together.
    """

    def __init__(self, batched: bool) -> None:
        self._batched = batched

    def wanted(self, batch: Sequence[InferRequest]) -> Sequence[str]:
        """The outputs that at least one request of a batch wants, each once."""
        first = batch[0].outputs
        for request in batch:
            if request.outputs is not first and request.outputs != first:
                return list(dict.fromkeys(name for request in batch for name in request.outputs))
        return first

    def assemble(self, batch: Sequence[InferRequest]) -> Mapping[str, Array]:
        """One new buffer an input. A lone request's arrays are used as they are."""
        first = batch[0].inputs
        if len(batch) == 1:
            return first
        return {name: np.concatenate([request.inputs[name] for request in batch]) for name in first}

    def split(self, batch: Sequence[InferRequest], run: Run) -> list[InferResponse]:
        """Every request's own rows of the outputs it wants."""
        started = run.started
        if not self._batched:
            return [InferResponse(run, each.outputs, started - each.arrived) for each in batch]
        check_rows(run)
        if len(batch) == 1:
            only = batch[0]
            return [InferResponse(run, only.outputs, started - only.arrived, 0, only.rows)]
        stop = 0
        return [
            InferResponse(run, each.outputs, started - each.arrived, stop, stop := stop + each.rows)
            for each in batch
        ]


class RowsBesideScalars(Rows):
    """As `Rows`, of a model that also takes scalars: one value for a whole batch, equal in all its requests.

    Args:
        batched: whether requests run together.
        scalars: the inputs that are.
    """

    def __init__(self, batched: bool, scalars: Collection[str]) -> None:
        super().__init__(batched)
        self._scalars = frozenset(scalars)

    @override
    def assemble(self, batch: Sequence[InferRequest]) -> Mapping[str, Array]:
        first = batch[0].inputs
        if len(batch) == 1:
            return first
        return {
            name: array
            if name in self._scalars
            else np.concatenate([request.inputs[name] for request in batch])
            for name, array in first.items()
        }


def check_rows(run: Run) -> None:
    """Makes sure that the answer can be taken apart.

    Raises:
        ModelFailed: an output has not one entry a row, whatever the graph declares.
    """
    for name, output in run.outputs.items():
        if not output.shape or output.shape[0] != run.rows:
            raise ModelFailed(f"output {name} came with shape {list(output.shape)} for {run.rows} rows")
