"""ZipMap at the end of a graph is cut off while the model is loaded; other ends are refused before that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from penstock.backends import onnx as backend_module
from penstock.backends.onnx import OnnxBackend
from penstock.backends.onnx_ends import read_ends
from penstock.core.errors import ModelLoadError
from penstock.core.tensors import DataType
from support import zoo
from support.work import ONE_THREAD

X = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)
INTEGERS = {"classlabels_int64s": [-3, 7]}
TEXTS = {"classlabels_strings": ["no", "yes"]}


def zipped(
    classes: dict[str, list[int]] | dict[str, list[str]],
    *,
    opsets: dict[str, int] | None = None,
    external: bool = False,
) -> onnx.ModelProto:
    """As classifiers have it: `label`, the column of the larger value, and `scores`, made of x + shift."""
    key = TensorProto.INT64 if "classlabels_int64s" in classes else TensorProto.STRING
    maps = helper.make_sequence_type_proto(
        helper.make_map_type_proto(key, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    shift = np.zeros((1, 2), np.float32)
    nodes = [
        helper.make_node("Add", ["x", "shift"], ["values"]),
        helper.make_node("ArgMax", ["values"], ["label"], axis=1, keepdims=0),
        helper.make_node("ZipMap", ["values"], ["scores"], name="zip", domain="ai.onnx.ml", **classes),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
            helper.make_value_info("scores", maps),
        ],
        [onnx.numpy_helper.from_array(shift, "shift")],
    )
    wanted = opsets or {"": 17, "ai.onnx.ml": 3}
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid(*each) for each in wanted.items()], ir_version=8
    )


def loaded(model: onnx.ModelProto, folder: Path, **how: bool) -> OnnxBackend:
    return OnnxBackend(zoo.write(model, folder / "model.onnx", **how), ONE_THREAD, 1)


@pytest.mark.parametrize(("classes", "columns"), [(INTEGERS, "-3, 7"), (TEXTS, "no, yes")])
def test_the_tensor_behind_zipmap_is_the_output(
    classes: dict[str, list[int]], columns: str, tmp_path: Path
) -> None:
    backend = loaded(zipped(classes), tmp_path)
    spec = backend.signature.outputs["scores"]
    assert (spec.datatype, spec.shape) == (DataType.FP32, ("N", 2))
    labels, scores = backend.run(["label", "scores"], {"x": X})
    assert labels.tolist() == [1, 1, 1]
    np.testing.assert_array_equal(scores, X)
    assert backend.file.changes == (f"ZipMap was cut off: the columns of scores are the classes {columns}",)


def test_the_file_is_told_as_it_is(tmp_path: Path) -> None:
    """Its digest, size and operator sets are those of the file, not of what was loaded."""
    path = zoo.write(zipped(INTEGERS), tmp_path / "model.onnx")
    file = OnnxBackend(path, ONE_THREAD, 1).file
    assert file.size_bytes == path.stat().st_size
    assert file.opsets == {"ai.onnx": 17, "ai.onnx.ml": 3}


def test_a_model_without_the_standard_operators_gets_them(tmp_path: Path) -> None:
    """CatBoost's models import ai.onnx.ml alone."""
    model = zipped(INTEGERS)
    model.graph.node[0].CopyFrom(helper.make_node("Scaler", ["x"], ["values"], domain="ai.onnx.ml"))
    model.graph.node[0].attribute.extend(
        [helper.make_attribute("offset", [0.0, 0.0]), helper.make_attribute("scale", [1.0, 1.0])]
    )
    del model.graph.node[1], model.graph.output[0], model.graph.initializer[:], model.opset_import[0]
    backend = loaded(model, tmp_path)
    np.testing.assert_array_equal(backend.run(["scores"], {"x": X})[0], X)
    assert backend.file.opsets == {"ai.onnx.ml": 3}


def test_weights_beside_the_model_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = zipped(INTEGERS)
    wide = onnx.numpy_helper.from_array(np.full((512, 2), 1.0, np.float32), "wide")
    model.graph.initializer.append(wide)
    model.graph.node.insert(0, helper.make_node("ReduceMean", ["wide"], ["one"], axes=[0], keepdims=1))
    model.graph.node[1].input[1] = "one"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    backend = loaded(model, tmp_path / "models", external=True)
    np.testing.assert_array_equal(backend.run(["scores"], {"x": X})[0], X + 1)


def test_a_graph_in_two_pieces(tmp_path: Path) -> None:
    """Protobuf merges a field that comes twice: the ZipMap may stand in one, its output in the other."""
    whole = zipped(INTEGERS)
    first, second = onnx.ModelProto(), onnx.ModelProto()
    first.CopyFrom(whole)
    del first.graph.output[:]
    second.graph.output.extend(whole.graph.output)
    path = tmp_path / "model.onnx"
    path.write_bytes(first.SerializeToString() + second.SerializeToString())
    np.testing.assert_array_equal(OnnxBackend(path, ONE_THREAD, 1).run(["scores"], {"x": X})[0], X)


def test_many_classes_are_not_all_listed(tmp_path: Path) -> None:
    model = zipped({"classlabels_int64s": list(range(100))})
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 100
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.zeros((1, 100), np.float32), "shift"))
    (change,) = loaded(model, tmp_path).file.changes
    assert change.endswith("are the classes 0, 1, 2, 3, 4, 5, 6, 7 and 92 more")


def test_a_model_of_tensors_is_loaded_as_it_is(tmp_path: Path) -> None:
    path = zoo.write(zoo.scale(2), tmp_path / "model.onnx")
    ends = read_ends(path)
    assert ends is not None
    assert not ends.others
    assert ends.repaired is None
    assert OnnxBackend(path, ONE_THREAD, 1).file.changes == ()


WHOLE = zipped(INTEGERS).SerializeToString()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 3), st.binary(max_size=3)), min_size=1))
def test_hostile_bytes_end_in_an_answer(tmp_path: Path, changes: list[tuple[int, int, bytes]]) -> None:
    data = WHOLE
    for position, length, new in changes:
        data = data[:position] + new + data[position + length :]
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    ends = read_ends(path)
    if ends is not None:
        assert all(isinstance(each, str) for each in (*ends.changes, ends.refusal))
        assert isinstance(ends.repaired, bytes | None)


# Refused, before the whole model is loaded


def no_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(backend_module.ort, "InferenceSession", fail)


@pytest.mark.parametrize(
    ("producer", "advice"),
    [
        ("skl2onnx", "skl2onnx writes tensors with options={id(model): {'zipmap': False}}"),
        ("OnnxMLTools", "onnxmltools writes tensors with zipmap=False"),
        ("pytorch", "let forward return tensors, such as torch.stack(list)"),
        ("tf2onnx", "let the function return tensors"),
        ("", "export the model with tensors as inputs and outputs"),
    ],
)
def test_the_advice_is_the_producers(
    producer: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = zoo.sequence_output()
    model.producer_name, model.producer_version = producer, "1.2.3"
    path = zoo.write(model, tmp_path / "model.onnx")
    no_load(monkeypatch)
    with pytest.raises(ModelLoadError) as refused:
        OnnxBackend(path, ONE_THREAD, 1)
    text = str(refused.value)
    assert text.startswith(f"{path}: output y is seq(tensor(float)): only tensors can be served; ")
    assert text.endswith(advice)


def test_a_zipmap_in_the_middle_is_not_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what ZipMap itself gives out is known to be a tensor in another form."""
    model = zipped(INTEGERS)
    model.graph.node[2].output[0] = "maps"
    model.graph.node.append(helper.make_node("Identity", ["maps"], ["scores"]))
    path = zoo.write(model, tmp_path / "model.onnx")
    no_load(monkeypatch)
    with pytest.raises(ModelLoadError, match=r"output scores is seq\(map\(int64,tensor\(float\)\)\)"):
        OnnxBackend(path, ONE_THREAD, 1)


def test_types_that_nest_without_end_are_refused(tmp_path: Path) -> None:
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    for _ in range(60):
        kind = helper.make_sequence_type_proto(kind)
    model = zoo.scale(2)
    model.graph.output[0].type.CopyFrom(kind)
    with pytest.raises(ModelLoadError, match="output y is seq"):
        loaded(model, tmp_path)
