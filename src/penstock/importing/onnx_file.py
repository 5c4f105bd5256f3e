"""ONNX files: there is no original to compare with, so what they give now is what they have to give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock.backends.onnx import OnnxBackend
from penstock.config import RuntimeConfig
from penstock.core.errors import ModelLoadError
from penstock.core.tensors import Kind
from penstock.importing.errors import LacksColumns, Refused
from penstock.importing.table import Column, Inputs, column

BY_HAND = (
    "put the file into models/NAME/1/model.onnx yourself, and golden rows beside it (penstock predict --file "
    "writes them)"
)


def load(path: Path) -> OnnxFile:
    """Loads the file.

    Raises:
        Refused: ONNX Runtime cannot.
    """
    try:
        return OnnxFile(path, OnnxBackend(path, RuntimeConfig(), 1))
    except ModelLoadError as error:
        raise Refused(str(error)) from error


class OnnxFile:
    """A model with one input a column, or one vector; see `Original`."""

    def __init__(self, path: Path, backend: OnnxBackend) -> None:
        self.model, self._path, self._backend = None, path, backend
        self.title = "ONNX model (no original to compare with: its own outputs are the golden rows)"
        self.libraries: Sequence[str] = []

    def texts(self, columns: Sequence[str]) -> Iterable[str]:
        """See `Original`."""
        specs = self._backend.signature.inputs
        return [name for name, spec in specs.items() if spec.datatype.kind is Kind.BYTES]

    def inputs(self, frame: Any, vector: bool) -> Inputs:
        """See `Original`."""
        specs = self._backend.signature.inputs
        wide = [each for each in specs.values() if each.shape is None or len(each.shape) != 2]
        if wide or (len(specs) > 1 and any(each.shape and each.shape[1] != 1 for each in specs.values())):
            raise Refused(
                f"the inputs {', '.join(map(str, specs.values()))} are not columns of a table: {BY_HAND}"
            )
        other = [str(each) for each in specs.values() if each.datatype.label not in ("FP32", "BOOL", "BYTES")]
        if other:
            raise Refused(
                f"inputs other than FP32, BOOL and texts ({', '.join(other)}): put the file into place "
                "yourself"
            )
        if len(specs) == 1 and (name := next(iter(specs))) not in frame.columns:
            raise Refused(f"the one input {specs[name]} is a vector: {BY_HAND}")
        if missing := [each for each in specs if each not in frame.columns]:
            raise LacksColumns(f"the sample lacks columns of the model: {', '.join(missing)}", missing)
        columns = [
            Column(name, spec.datatype.kind is Kind.BYTES, spec.datatype.label == "BOOL")
            for name, spec in specs.items()
        ]
        for each in columns:
            held = column(frame, each.name)
            if held.text != each.text or (each.flag and not held.flag):
                raise Refused(f'column "{each.name}" of the sample does not fit input {specs[each.name]}')
        self._inputs = Inputs(columns)
        return self._inputs

    def predict(self, frame: Any) -> Mapping[str, Any]:
        """See `Original`."""
        names = tuple(self._backend.signature.outputs)
        return dict(zip(names, self._backend.run(names, self._inputs.feeds(frame)), strict=True))

    def convert(self, inputs: Inputs) -> Any:
        """See `Original`."""
        return self._path.read_bytes()
