"""Shows a model with its rows along the first axis of every tensor, so that one code checks all models."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from penstock.backends.backend import Backend, RunControl
from penstock.core.tensors import Array, Signature, TensorSpec


def turned(backend: Backend, signature: Signature, decided: Collection[str], name: str) -> Backend:
    """A model with its rows along the first axis of every tensor.

    Args:
        backend: the model.
        signature: its signature, with the axis of the rows in each tensor.
        decided: the tensors whose axis of rows is known: it gets the name of the rows.
        name: the name of the rows; "" for none.

    Returns:
        `backend` itself if there is nothing to change.
    """
    shown = Signature(
        {each: _in_front(spec, decided, name) for each, spec in signature.inputs.items()},
        {each: _in_front(spec, decided, name) for each, spec in signature.outputs.items()},
    )
    is_moved = any(spec.row_axis for spec in (*signature.inputs.values(), *signature.outputs.values()))
    return _Turned(backend, signature, shown) if is_moved or shown != backend.signature else backend


class _Turned:
    def __init__(self, backend: Backend, signature: Signature, shown: Signature) -> None:
        self._backend = backend
        self._inputs = {each: spec.row_axis for each, spec in signature.inputs.items() if spec.row_axis}
        self._outputs = {each: spec.row_axis for each, spec in signature.outputs.items() if spec.row_axis}
        self.signature = shown
        self.file, self.providers, self.close = backend.file, backend.providers, backend.close

    def run(
        self, outputs: Sequence[str], inputs: Mapping[str, Array], control: RunControl | None = None, /
    ) -> Sequence[Array]:
        """Runs the graph once; see `penstock.backends.backend.Backend.run`."""
        if self._inputs:
            inputs = {each: back(array, self._inputs.get(each, 0)) for each, array in inputs.items()}
        results = self._backend.run(outputs, inputs, control)
        if not self._outputs:
            return results
        return [
            front(array, self._outputs.get(each, 0)) for each, array in zip(outputs, results, strict=True)
        ]


def _in_front(spec: TensorSpec, decided: Collection[str], name: str) -> TensorSpec:
    shape, axis = spec.shape, spec.row_axis
    if shape and axis < len(shape):
        rows = shape[axis]
        if name and spec.name in decided and isinstance(rows, str):
            rows = name
        if not axis and rows == shape[0]:
            return spec
        shape = (rows, *shape[:axis], *shape[axis + 1 :])
    return replace(spec, shape=shape, row_axis=0)


def back(array: Array, axis: int) -> Array:
    """The array with its rows along an axis, which lie first; contiguous if that is another one."""
    return np.ascontiguousarray(np.moveaxis(array, 0, axis)) if axis else array


def front(array: Array, axis: int) -> Array:
    """The array with its rows first, which lie along an axis; as it is if it has fewer axes than declared."""
    return np.moveaxis(array, axis, 0) if 0 < axis < array.ndim else array
