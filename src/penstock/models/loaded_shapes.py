"""Records the shapes that ran while a model was tried: their requests need no separate first run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from penstock.backends.backend import Backend, RunControl
from penstock.core.tensors import Array
from penstock.models.model import Model

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of the inputs of one run, by their names."""


class ShapeNotes:
    """A backend that notes the shapes of the inputs that it is run on.

    Args:
        backend: does the runs.

    Attributes:
        example: the inputs of the first run that did not fail.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.signature, self.file, self.providers = backend.signature, backend.file, backend.providers
        self.close = backend.close
        self.example: Mapping[str, Array] = {}
        self._noted: dict[object, Shapes] = {}

    def run(
        self, outputs: Sequence[str], inputs: Mapping[str, Array], control: RunControl | None = None, /
    ) -> Sequence[Array]:
        """Runs the graph once; see `penstock.backends.backend.Backend.run`."""
        results = self._backend.run(outputs, inputs, control)
        inner = tuple([array.shape[1:] for array in inputs.values()])
        self.example = self.example or inputs
        if inner not in self._noted:
            self._noted[inner] = {name: array.shape for name, array in inputs.items()}
        return results

    def shapes(self) -> tuple[Shapes, ...]:
        """The shapes that ran, those that differ only in their first axis once."""
        return tuple(self._noted.values())


def note_shapes(model: Model, ran: Iterable[Shapes]) -> None:
    """Tells the batcher of a model which shapes have run."""
    if not model.by_rows or not (model.open_shapes or model.padding):
        return  # all requests have one shape, which counts as run
    for shapes in ran:
        model.batcher.costs.note_run(_shape_key(model, shapes))


def _shape_key(model: Model, shapes: Shapes) -> object:
    """The `Request.shape_key` of a request with inputs of these shapes, without the values of scalars."""
    left_out = {*model.kept_inputs, *model.defaults}
    specs = {name: spec for name, spec in model.signature.inputs.items() if name not in left_out}
    inner: object
    if model.padding is not None:
        # Views of one element each: only shapes and datatypes matter here.
        sent = {
            name: np.broadcast_to(np.zeros((), specs[name].datatype.dtype), shapes[name]) for name in specs
        }
        inner = model.padding.key(sent)
    else:
        inner = tuple([shapes[name][1:] for name in specs if name not in model.scalars])
    return (inner,) if model.scalars else inner
