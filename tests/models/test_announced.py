"""Outputs are announced as they come, where runs contradict what the graph declares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from penstock.backends.onnx import OnnxBackend
from penstock.core.tensors import Signature
from penstock.models.checks.announced import announce_as_it_comes, announced
from support import zoo
from support.work import ONE_THREAD, signature_of, spec

FLOAT = TensorProto.FLOAT


def tree_like(declared: Any, *, keepdims: int = 0, ml: bool = True) -> onnx.ModelProto:
    """y INT64, the column of the largest value: one a row, whatever is declared.

    Between them lies an operator outside the standard ones, so that ONNX Runtime cannot infer a shape.
    """
    shift = {"offset": [0.0, 0.0], "scale": [1.0, 1.0]}
    nodes = [
        helper.make_node("Scaler", ["x"], ["scaled"], domain="ai.onnx.ml", **shift)
        if ml
        else helper.make_node("Identity", ["x"], ["scaled"]),
        helper.make_node("Shape", ["scaled"], ["shape"]),
        helper.make_node("ArgMax", ["scaled"], ["label"], axis=1, keepdims=1),
        helper.make_node("Slice", ["shape", "zero", "one"], ["rows"]),
        helper.make_node("Concat", ["rows", *(["one"] if keepdims else [])], ["wanted"], axis=0),
        helper.make_node("Reshape", ["label", "wanted"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, declared)],
        [
            onnx.numpy_helper.from_array(np.array([n], np.int64), name)
            for n, name in ((0, "zero"), (1, "one"))
        ],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=8
    )


def corrected(model: onnx.ModelProto, folder: Path) -> OnnxBackend:
    backend = OnnxBackend(zoo.write(model, folder / "model.onnx"), ONE_THREAD, 1)
    announce_as_it_comes(backend)
    return backend


def test_a_label_that_is_declared_as_one_and_comes_for_each_row(tmp_path: Path) -> None:
    backend = corrected(tree_like([1]), tmp_path)
    assert backend.signature.outputs["y"].shape == ("N",)
    assert backend.file.changes == ("output y is declared as y INT64[1] and comes as y INT64[N]",)


def test_a_vector_that_comes_as_a_column(tmp_path: Path) -> None:
    backend = corrected(tree_like(["N"], keepdims=1), tmp_path)
    assert backend.signature.outputs["y"].shape == ("N", 1)


def test_what_is_not_contradicted_stays(tmp_path: Path) -> None:
    backend = corrected(tree_like(["rows"]), tmp_path)
    assert backend.signature.outputs["y"].shape == ("rows",)
    assert backend.file.changes == ()


class Counted:
    """A backend that counts its runs."""

    def __init__(self, backend: OnnxBackend) -> None:
        self._backend, self.runs = backend, 0
        self.signature, self.file, self.providers = backend.signature, backend.file, backend.providers
        self.close = backend.close

    def run(self, *arguments: Any) -> Any:
        self.runs += 1
        return self._backend.run(*arguments)


@pytest.mark.parametrize(("model", "runs"), [(zoo.scale(2), 0), (tree_like(["N"]), 1), (tree_like([1]), 3)])
def test_only_doubtful_models_are_run_for_it(model: onnx.ModelProto, runs: int, tmp_path: Path) -> None:
    if not runs:
        del model.opset_import[1:]
    counted = Counted(OnnxBackend(zoo.write(model, tmp_path / "model.onnx"), ONE_THREAD, 1))
    announce_as_it_comes(counted)
    assert counted.runs == runs


def outputs(signature: Signature, **seen: list[tuple[int, ...]]) -> dict[str, Any]:
    """The announced shapes, of outputs seen in runs of two rows, one and three."""
    rows = {
        count: {name: shapes[place] for name, shapes in seen.items()} for place, count in enumerate((2, 1, 3))
    }
    return {name: each.shape for name, each in announced(signature, rows).outputs.items()}


def test_a_length_that_is_the_same_in_all_runs_is_announced() -> None:
    signature = signature_of([spec("x", ["N", 3])], [spec("y", ["N"])])
    assert outputs(signature, y=[(2, 5), (1, 5), (3, 5)]) == {"y": ("N", 5)}


def test_a_length_that_may_follow_another_axis_stays_open() -> None:
    signature = signature_of([spec("x", ["N", "L"])], [spec("y", ["N", 7])])
    assert outputs(signature, y=[(2, 4), (1, 4), (3, 4)]) == {"y": ("N", "?")}


def test_a_length_that_follows_nothing_known_is_open() -> None:
    signature = signature_of([spec("x", ["N", 3])], [spec("y", [1, 3])])
    assert outputs(signature, y=[(7, 3), (2, 3), (2, 3)]) == {"y": ("?", 3)}


def test_another_number_of_axes_in_every_run_is_any_rank() -> None:
    signature = signature_of([spec("x", ["N", 3])], [spec("y", ["N"])])
    assert outputs(signature, y=[(2,), (), (3, 1)]) == {"y": None}
