"""The backend test cases that come with the `onnx` package: models, inputs, and what is expected of them.

onnx/backend/test/data/
  node/ simple/ pytorch-operator/ pytorch-converted/
    <case>/model.onnx
    <case>/test_data_set_0/input_0.pb, output_0.pb, ...
  light/light_<network>.onnx              large networks without their weights; the input is a ramp
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

DATA = Path(onnx.__file__).parent / "backend/test/data"
FOLDERS = ("node", "simple", "pytorch-operator", "pytorch-converted")
LIGHT = "light"
RTOL, ATOL = 1e-3, 1e-7
"""How far a backend may be from the expected output, where a case does not say; as ONNX itself has it."""


class Unreadable(Exception):
    """An input or output of a case that is no tensor."""


@dataclass(frozen=True)
class DataSet:
    """One set of inputs of a case, by name, and the outputs expected in the graph's order.

    `expected` is None where the case has none, or where one is no tensor.
    """

    inputs: dict[str, np.ndarray]
    expected: list[np.ndarray] | None


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        kind: the folder it lies in.
        name: its own folder, or its file without suffix.
        path: its model.
    """

    kind: str
    name: str
    path: Path

    @cached_property
    def model(self) -> onnx.ModelProto:
        return onnx.load(self.path)

    @cached_property
    def operator(self) -> str:
        """The operator a case of one node is about; else the kind."""
        nodes = self.model.graph.node
        return nodes[0].op_type if len(nodes) == 1 else self.kind

    @property
    def tolerance(self) -> tuple[float, float]:
        """How far from the expected output a backend may be: relative, absolute."""
        said = self.path.with_name("data.json")
        found = json.loads(said.read_text()) if said.is_file() and self.kind != LIGHT else {}
        return found.get("rtol", RTOL), found.get("atol", ATOL)

    def data_sets(self) -> Iterator[DataSet]:
        """Its inputs and expected outputs.

        Raises:
            Unreadable: an input is no tensor.
        """
        if self.kind == LIGHT:
            yield self._ramp()
            return
        for folder in sorted(self.path.parent.glob("test_data_set_*")):
            taken = [_tensor(path, info) for path, info in zip(_files(folder, "input"), self._inputs())]  # noqa: B905
            names = [info.name for info in self._inputs()]
            yield DataSet(dict(zip(names, taken, strict=False)), self._expected(folder))

    def _inputs(self) -> Sequence[onnx.ValueInfoProto]:
        weights = {tensor.name for tensor in self.model.graph.initializer}
        return [info for info in self.model.graph.input if info.name not in weights]

    def _expected(self, folder: Path) -> list[np.ndarray] | None:
        files = _files(folder, "output")
        try:
            return [_tensor(path, info) for path, info in zip(files, self.model.graph.output, strict=True)]
        except (Unreadable, ValueError):
            return None

    def _ramp(self) -> DataSet:
        (taken,) = self._inputs()
        shape = [axis.dim_value or 1 for axis in taken.type.tensor_type.shape.dim]
        count = int(np.prod(shape))
        ramp = (np.arange(count).reshape(shape) / count).astype(np.float32)
        output = self.path.with_name(f"{self.name}_output_0.pb")
        expected = [_tensor(output, self.model.graph.output[0])] if output.is_file() else None
        return DataSet({taken.name: ramp}, expected)


def missing() -> str | None:
    """Why there are no cases here; None where there are."""
    if any((DATA / "node").glob("*/model.onnx")):
        return None
    return f"onnx {onnx.__version__} does not bring the files of its node cases; 1.22.0 does"


def all_cases() -> Sequence[Case]:
    """Every case, by kind and name."""
    found = [
        Case(folder, path.parent.name, path)
        for folder in FOLDERS
        for path in sorted((DATA / folder).glob("*/model.onnx"))
    ]
    return found + [Case(LIGHT, path.stem, path) for path in sorted((DATA / LIGHT).glob("*.onnx"))]


def _files(folder: Path, role: str) -> Sequence[Path]:
    return sorted(folder.glob(f"{role}_*.pb"), key=lambda path: int(path.stem.rpartition("_")[2]))


def _tensor(path: Path, info: onnx.ValueInfoProto) -> np.ndarray:
    kind = info.type.WhichOneof("value")
    if kind != "tensor_type":
        raise Unreadable(f"{info.name} is a {str(kind).removesuffix('_type')}")
    return numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))
