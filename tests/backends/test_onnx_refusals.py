"""What cannot be loaded or run is refused in plain words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from penstock.backends.onnx import OnnxBackend
from penstock.config import RuntimeConfig
from penstock.core.errors import ModelFailed, ModelLoadError
from penstock.core.tensors import Array, DataType
from support import zoo
from support.work import ONE_THREAD, opened


def graph(
    nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any], *, opset: int = zoo.OPSET, ir: int = 8
) -> onnx.ModelProto:
    return helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=ir,
    )


def identity_of(onnx_type: int, shape: Any = ("N", 3), **changes: Any) -> onnx.ModelProto:
    """As `zoo.identity`, for types that cannot be served."""
    x, y = (helper.make_tensor_value_info(name, onnx_type, shape) for name in "xy")
    return graph([helper.make_node("Identity", ["x"], ["y"])], [x], [y], **changes)


def cast_to(onnx_type: int) -> onnx.ModelProto:
    """x, FP32, to y, of a type that cannot be served."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])
    y = helper.make_tensor_value_info("y", onnx_type, ["N", 3])
    return graph([helper.make_node("Cast", ["x"], ["y"], to=onnx_type)], [x], [y], opset=21, ir=10)


def maps_in_the_middle() -> onnx.ModelProto:
    """As `zoo.map_output`, but its output comes from behind the ZipMap."""
    model = zoo.map_output()
    model.graph.node[0].output[0] = "maps"
    model.graph.node.append(helper.make_node("Identity", ["maps"], ["y"]))
    return model


def reason(path: Path, config: RuntimeConfig = ONE_THREAD) -> str:
    """Why a file cannot be loaded; the message names it."""
    with pytest.raises(ModelLoadError) as refused:
        OnnxBackend(path, config, 1)
    text = str(refused.value)
    assert str(path) in text
    assert_plain(text)
    return text


def assert_plain(text: str) -> None:
    """No places, functions or error codes of ONNX Runtime's source code."""
    for noise in ("onnxruntime::", "/onnxruntime_src", "ONNXRuntimeError", ".cc:", ".h:", "std::", "\n"):
        assert noise not in text


# Refused


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (zoo.sequence_output, "output y is seq(tensor(float)): only tensors can be served"),
        (zoo.sequence_input, "input x is seq(tensor(float)): only tensors can be served"),
        (maps_in_the_middle, "output y is seq(map(int64,tensor(float))): only tensors can be served"),
        (zoo.map_input, "input x is map(int64,tensor(float))"),
        (lambda: cast_to(TensorProto.UINT4), "this datatype cannot be served"),
        (lambda: identity_of(TensorProto.INT4, ir=10, opset=21), "Identity"),
        (lambda: identity_of(TensorProto.COMPLEX64), "complex64"),
        (lambda: identity_of(TensorProto.COMPLEX128), "complex128"),
        (lambda: identity_of(TensorProto.FLOAT, ir=99), "Unsupported model IR version: 99"),
        (lambda: identity_of(TensorProto.FLOAT, opset=99), "Opset 99"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(
    make: Callable[[], onnx.ModelProto], words: str, tmp_path: Path
) -> None:
    assert words in reason(zoo.write(make(), tmp_path / "model.onnx"))


def test_text_beside_bf16_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in "st"]
    values = [
        [helper.make_tensor_value_info(name + end, kind, ["N"]) for name, kind in (("s", 8), ("t", 16))]
        for end in ("", "_out")
    ]
    assert "both BYTES and BF16" in reason(zoo.write(graph(nodes, *values), tmp_path / "model.onnx"))


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    model = zoo.identity()
    model.graph.node[0].op_type = "Nonesuch"
    assert "Nonesuch" in reason(zoo.write(model, tmp_path / "model.onnx"))


WHOLE = zoo.scale(2).SerializeToString()


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"<html>not found</html>", bytes(range(256)) * 8, WHOLE[:-10], WHOLE[: len(WHOLE) // 2]],
    ids=["empty", "one byte", "text", "garbage", "truncated", "half"],
)
def test_files_that_are_no_models_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    reason(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "exist" in reason(tmp_path / "model.onnx")
    reason(tmp_path)


def test_nothing_is_written_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"garbage")
    reason(path)
    with pytest.raises(ModelFailed):
        opened(zoo.fails_on(3), tmp_path).run(["y"], {"x": np.array([[9]])})
    assert capfd.readouterr() == ("", "")


def test_a_provider_that_is_not_there_is_refused(tmp_path: Path) -> None:
    config = RuntimeConfig(providers=("NonesuchProvider", "CPUExecutionProvider"))
    path = zoo.write(zoo.identity(), tmp_path / "model.onnx")
    with pytest.raises(
        ModelLoadError, match=r"execution provider NonesuchProvider is not available; .*CPUExecution"
    ):
        OnnxBackend(path, config, 1)


# External data


def test_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    path = zoo.write(zoo.external(), tmp_path / "model.onnx", external=True)
    value = np.arange(64, dtype=np.float32)[None]
    (answer,) = OnnxBackend(path, ONE_THREAD, 1).run(["y"], {"x": value})
    np.testing.assert_array_equal(answer, np.roll(value, -1, axis=1))


def test_external_data_is_looked_for_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo.write(zoo.external(), tmp_path / "models" / "model.onnx", external=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for path in (tmp_path / "models" / "model.onnx", Path("../models/model.onnx")):
        backend = OnnxBackend(path, ONE_THREAD, 1)
        assert backend.run(["y"], {"x": np.ones((1, 64), np.float32)})[0].sum() == 64


@pytest.mark.parametrize("data", [None, b"", b"short"])
def test_external_data_that_is_missing_or_too_short_is_refused(data: bytes | None, tmp_path: Path) -> None:
    path = zoo.write(zoo.external(), tmp_path / "model.onnx", external=True)
    weights = tmp_path / "model.onnx.data"
    weights.unlink()
    if data is not None:
        weights.write_bytes(data)
    assert "xternal" in reason(path)


# Failing runs


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"a": np.ones((2, 3), np.float32), "b": np.ones((4, 3), np.float32)}, "Attempting to broadcast"),
        ({"a": np.ones((2, 3), np.float32)}, "Missing Input: b"),
        ({"a": np.ones((2, 4), np.float32), "b": np.ones((2, 3), np.float32)}, "Got: 4 Expected: 3"),
        ({"a": np.ones((2, 3)), "b": np.ones((2, 3), np.float32)}, "tensor(double)"),
    ],
)
def test_a_failing_run_says_why(inputs: dict[str, Array], words: str, tmp_path: Path) -> None:
    backend = opened(zoo.add(), tmp_path)
    with pytest.raises(ModelFailed) as failed:
        backend.run(["y"], inputs)
    assert words in str(failed.value)
    assert_plain(str(failed.value))
    assert failed.value.__cause__ is not None


def test_after_a_failing_run_the_model_runs_on(tmp_path: Path) -> None:
    backend = opened(zoo.fails_on(3), tmp_path)
    with pytest.raises(ModelFailed, match="out of data bounds"):
        backend.run(["y"], {"x": np.array([[9]])})
    assert backend.run(["y"], {"x": np.array([[2]])})[0].tolist() == [[2]]


def test_a_long_reason_is_cut_off(tmp_path: Path) -> None:
    backend = opened(zoo.identity(), tmp_path)
    with pytest.raises(ModelFailed) as failed:
        backend.run(["n" * 5000], {"x": np.ones((1, 3), np.float32)})
    assert len(str(failed.value)) < 400


@pytest.mark.parametrize("said", [r'"\ud800"', "", "unknown", "1", "null", '["a"]'])
def test_a_missing_text_that_is_no_text_of_json_is_refused(said: str, tmp_path: Path) -> None:
    model = zoo.with_metadata(zoo.identity(DataType.BYTES), {"penstock.missing_text": said})
    text = reason(zoo.write(model, tmp_path / "model.onnx"))
    assert f'its metadata penstock.missing_text is {said}, expected a text of JSON, such as ""' in text
