"""Shows a model with a state as one whose rows lie along the first axis of all tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from penstock.backends.backend import Backend, RunControl
from penstock.core.tensors import Array, Signature, TensorSpec
from penstock.models.checks.turned import back, front
from penstock.models.sequence import SequenceState
from penstock.scheduling.packing.states import StateTensor


class RowsFirst:
    """A model with a state, with rows along the first axis of all tensors, so that it can be checked.

    Args:
        backend: the model.
        state: of its sequences.
    """

    def __init__(self, backend: Backend, state: SequenceState) -> None:
        self._backend = backend
        self._axes = {
            name: each.axis or 0
            for each in state.tensors
            for name in (each.input, each.output)
            if each.initial.ndim
        }
        self.file, self.providers = backend.file, backend.providers
        whole = backend.signature
        shapes = {each.input: _rows_first(each, whole.inputs[each.input]) for each in state.tensors}
        shapes |= {
            each.output: _rows_first(each, whole.inputs[each.input], whole.outputs[each.output])
            for each in state.tensors
        }
        self.signature = Signature(_reshaped(whole.inputs, shapes), _reshaped(whole.outputs, shapes))

    def run(
        self, outputs: Sequence[str], inputs: Mapping[str, Array], control: RunControl | None = None, /
    ) -> Sequence[Array]:
        """Runs the graph once; see `penstock.backends.backend.Backend.run`."""
        axes = self._axes
        turned = {name: back(array, axes.get(name, 0)) for name, array in inputs.items()}
        results = self._backend.run(outputs, turned, control)
        return [front(array, axes.get(name, 0)) for name, array in zip(outputs, results, strict=True)]

    def close(self) -> None:
        """Frees the model's memory."""
        self._backend.close()


def _rows_first(
    tensor: StateTensor, spec: TensorSpec, output: TensorSpec | None = None
) -> tuple[int | str, ...]:
    """The shape of a state, or of its output, with its batch axis first.

    Axes whose length may change are open; other open axes have the length of the initial state's.
    """
    shape: list[int | str] = list(tensor.initial.shape)
    named = spec.shape if output is None or output.shape is None else output.shape
    for axis in tensor.open_axes:
        shape[axis] = (named or ())[axis]
    if tensor.axis is not None and spec.shape is not None:
        del shape[tensor.axis]
        shape.insert(0, spec.shape[tensor.axis])
    return tuple(shape)


def _reshaped(
    specs: Mapping[str, TensorSpec], shapes: Mapping[str, tuple[int | str, ...]]
) -> dict[str, TensorSpec]:
    return {
        name: replace(spec, shape=shapes[name]) if name in shapes else spec for name, spec in specs.items()
    }
