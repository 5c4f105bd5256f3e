"""Files are read without their weights, and a file that cannot be read stops nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from penstock.models.analysis.facts import Verdict
from penstock.models.analysis.proof import analyse
from penstock.models.analysis.reading import KEPT_BYTES, read
from tests.models.analysis.graphs import model
from tests.support import zoo

LARGE = 1 << 20


def _with_weights() -> onnx.ModelProto:
    """Large values in an initializer, in a Constant and in a branch; small ones beside them."""
    made = model("""g (float[N,4] x) => (float[N,4] y) <int64[2] shape = {-1, 4}> {
        a = Reshape (x, shape) w = Constant <value = float[1] {1}> () y = Add (a, w) }""")
    large = numpy_helper.from_array(np.ones(LARGE, np.float32), "large")
    made.graph.initializer.append(large)
    made.graph.node[1].attribute[0].t.CopyFrom(numpy_helper.from_array(np.ones(LARGE, np.float32)[:LARGE]))
    return made


def test_large_values_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(_with_weights(), path)
    found = read(path)
    assert found.ByteSize() < KEPT_BYTES < path.stat().st_size
    assert [list(tensor.dims) for tensor in found.graph.initializer] == [[2], [LARGE]]
    assert numpy_helper.to_array(found.graph.initializer[0]).tolist() == [-1, 4]
    assert list(found.graph.node[1].attribute[0].t.dims) == [LARGE]


def test_external_data_is_not_read(tmp_path: Path) -> None:
    path = zoo.write(zoo.external(), tmp_path / "model.onnx", external=True)
    for other in tmp_path.iterdir():
        if other != path:
            other.unlink()
    assert analyse(path, {"x": 0}).verdict is Verdict.ROW_WISE


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"not a model at all", b"\x3a\xff\xff\xff\xff\x7f", b"\x3a" * 99]
)
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    found = analyse(path, {"x": 0})
    assert found.verdict is Verdict.UNKNOWN
    assert found.reason


def test_a_missing_file(tmp_path: Path) -> None:
    assert "cannot be read" in analyse(tmp_path / "none.onnx", {"x": 0}).reason


def _nested(depth: int) -> onnx.GraphProto:
    """An If within an If, and so on."""
    output = helper.make_tensor_value_info("y", 1, None)
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    for _ in range(depth):
        graph = helper.make_graph(nodes, "g", [], [output])
        nodes = [helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)]
    inputs = [helper.make_tensor_value_info("x", 1, ["N"]), helper.make_tensor_value_info("c", 9, [])]
    return helper.make_graph(nodes, "g", inputs, [output])


def test_graphs_that_grow_when_they_are_followed_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.models.analysis.follower.MOST_STEPS", 100)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(_nested(8)), path)
    assert "it has too many nodes" in analyse(path, {"x": 0, "c": None}).reason
    monkeypatch.setattr("penstock.models.analysis.follower.MOST_STEPS", 10**6)
    assert analyse(path, {"x": 0, "c": None}).verdict is Verdict.ROW_WISE
    monkeypatch.setattr("penstock.models.analysis.follower.DEEPEST", 5)
    assert "it nests too deep" in analyse(path, {"x": 0, "c": None}).reason
