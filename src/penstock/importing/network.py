"""What the networks of Keras and TensorFlow have in common as originals."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penstock.importing.errors import Refused, exporting
from penstock.importing.graph_ends import finished
from penstock.importing.network_ends import Taken, Tensor, attach, replace_erfc, taken
from penstock.importing.recurrent import keep_missing
from penstock.importing.table import Inputs

PREFIX = "network/"
"""Of the names in the graph, so that it has none of a column."""
OPSET = 18
"""The newest that tf2onnx writes."""
ROWS = 1024
"""How many rows the original gets at a time."""


class Network(ABC):
    """A network with declared inputs, which another library writes as an ONNX file; see `Original`.

    Args:
        title: what it is.
        libraries: the distributions that it needs.
        tensors: its inputs, in the order in which it takes them.

    Raises:
        Refused: an axis other than that of rows is open.
    """

    def __init__(self, title: str, libraries: Sequence[str], tensors: Sequence[Tensor]) -> None:
        self.title, self.libraries, self.tensors = title, libraries, tensors
        self._taken: Taken | None = None
        self._outputs: Sequence[str] = ()
        for each in tensors:
            if None in each.shape:
                raise Refused(
                    f"{title}: its input is {each}: an open axis is lost or misread in recurrent layers; "
                    f"{self.way_out(each)}"
                )

    @abstractmethod
    def way_out(self, tensor: Tensor) -> str:
        """What to do about an input with an open axis."""

    @abstractmethod
    def run(self, values: Sequence[Any]) -> Mapping[str, Any]:
        """Its outputs for some rows, by name and in the order of the file's.

        Args:
            values: of its inputs, in their order.
        """

    @abstractmethod
    def export(self, path: Path) -> None:
        """Writes the ONNX file."""

    def texts(self, columns: Sequence[str]) -> Iterable[str]:
        """See `Original`."""
        return ()

    def inputs(self, frame: Any, vector: bool) -> Inputs:
        """See `Original`."""
        self._taken = taken(self.title, self.tensors, frame, vector)
        return self._taken.inputs

    def predict(self, frame: Any) -> Mapping[str, Any]:
        """See `Original`."""
        parts = [self._predict(frame[i : i + ROWS]) for i in range(0, len(frame), ROWS)]
        return {name: np.concatenate([each[name] for each in parts]) for name in self._outputs}

    def _predict(self, frame: Any) -> Mapping[str, Any]:
        assert self._taken is not None
        taken_names = {each.name for each in self._taken.inputs.columns}
        made = {}
        for name, values in self.run([self._taken.values(frame, each) for each in self.tensors]).items():
            if values.ndim < 1 or len(values) != len(frame):
                raise Refused(
                    f"{self.title}: its output {name} {list(values.shape)} has no row for each of "
                    f"{len(frame)} rows"
                )
            own = f"{name}_output" if name in taken_names else name
            made[own] = values if values.dtype.kind in "iub" else values.astype(np.float64)
        self._outputs = list(made)
        return made

    def convert(self, inputs: Inputs) -> Any:
        """See `Original`."""
        import onnx

        assert self._taken is not None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            with exporting(self.title):
                self.export(path)
                made = onnx.compose.add_prefix(onnx.load(path), PREFIX)
        replace_erfc(made.graph)
        keep_missing(made.graph)
        attach(made.graph, self._own([each.name for each in made.graph.input]), self._taken)
        return finished(made, inputs, list(self._outputs))

    def _own(self, names: Sequence[str]) -> list[tuple[str, Tensor]]:
        """The graph's inputs, each with what it is.

        Raises:
            Refused: the exporter left one out, or gave it another name.
        """
        if len(names) == len(self.tensors) == 1:
            return [(names[0], self.tensors[0])]
        by_name = {each.name: each for each in self.tensors}
        plain = [each.removeprefix(PREFIX).partition(":")[0] for each in names]
        if sorted(plain) != sorted(by_name):
            raise Refused(
                f"{self.title}: the exported graph has the inputs {', '.join(plain)}, the model has "
                f"{', '.join(by_name)}: leave out inputs that have no effect"
            )
        return [(name, by_name[own]) for name, own in zip(names, plain, strict=True)]
