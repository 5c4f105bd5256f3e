"""ONNX Runtime takes and gives every tensor unharmed, and says in plain words what it cannot do."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from penstock.backends import onnx as backend_module
from penstock.backends.onnx import OnnxBackend, _runner
from penstock.config import RuntimeConfig
from penstock.core.errors import ModelFailed
from penstock.core.minifloats import BY_BITS, FORMATS
from penstock.core.processors import available
from penstock.core.tensors import Array, DataType, TensorSpec
from penstock.scheduling.execution.execution import InFlightRun
from support import zoo
from support.work import ONE_THREAD, opened

# Every value that is easy to get wrong, as bits where numpy has no literal for it.
EXTREMES: dict[DataType, Array] = {
    DataType.BOOL: np.array([True, False, True]),
    **{
        datatype: np.array([np.iinfo(datatype.dtype).min, 1, np.iinfo(datatype.dtype).max], datatype.dtype)
        for datatype in DataType
        if datatype.dtype.kind in "iu" and datatype not in BY_BITS
    },
    # NaNs with payloads, quiet and signalling; both infinities; -0; subnormals; the largest.
    DataType.FP16: np.array(
        [0x7E01, 0xFDFF, 0x7C01, 0x7C00, 0xFC00, 0x8000, 0x0001, 0x7BFF, 0x3C01], "<u2"
    ).view("<f2"),
    **{datatype: np.arange(256).repeat(3).astype("u1") for datatype in FORMATS},
    DataType.BF16: np.array([0x7FC1, 0xFFFF, 0x7F81, 0x7F80, 0xFF80, 0x8000, 0x0001, 0x7F7F, 0x3F81], "<u2"),
    DataType.FP32: np.array(
        [0x7FC00001, 0xFFFFFFFF, 0x7F800001, 0x7F800000, 0xFF800000, 0x80000000, 1, 0x7F7FFFFF, 0x3F800001],
        "<u4",
    ).view("<f4"),
    DataType.FP64: np.array(
        [
            0x7FF8 << 48 | 1,
            2**64 - 1,
            0x7FF0 << 48 | 1,
            0x7FF0 << 48,
            0xFFF0 << 48,
            1 << 63,
            1,
            2**52,
            0x3FF1 << 48,
        ],
        "<u8",
    ).view("<f8"),
    DataType.BYTES: np.array(["", "\0", "a\0b", "grüße", "😀\U0010ffff", " \n"], object),
}


def ids(value: object) -> str:
    return str(value)


def through(model: onnx.ModelProto, folder: Path, value: Array) -> Array:
    (answer,) = opened(model, folder).run(["y"], {"x": value})
    return answer


def assert_same(one: Array, other: Array) -> None:
    assert isinstance(one, np.ndarray)
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    if one.dtype.hasobject:
        assert one.tolist() == other.tolist()
        assert all(type(text) is str for text in one.ravel())
    else:
        assert one.tobytes() == other.tobytes()


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


# Tensors


@pytest.mark.parametrize("datatype", DataType, ids=ids)
def test_every_value_comes_back_bit_for_bit(datatype: DataType, tmp_path: Path) -> None:
    value = EXTREMES[datatype].reshape(-1, 3)
    assert_same(through(zoo.identity(datatype), tmp_path, value), value)


@pytest.mark.parametrize("datatype", DataType, ids=ids)
def test_a_scalar_comes_back_as_an_array_of_rank_0(datatype: DataType, tmp_path: Path) -> None:
    value = EXTREMES[datatype][:1].reshape(())
    assert_same(through(zoo.identity(datatype, ()), tmp_path, value), value)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)], ids=ids)
@pytest.mark.parametrize("datatype", DataType, ids=ids)
def test_tensors_of_no_elements_come_back(datatype: DataType, shape: tuple[int, ...], tmp_path: Path) -> None:
    value = np.empty(shape, datatype.dtype)
    assert_same(through(zoo.identity(datatype, ("N", "L")), tmp_path, value), value)


@pytest.mark.parametrize("datatype", DataType, ids=ids)
def test_memory_that_is_read_only_or_scattered_is_taken(datatype: DataType, tmp_path: Path) -> None:
    """Requests are views of their message's bytes, and their rows slices of those."""
    base = np.tile(EXTREMES[datatype][:3], (4, 2))
    base.flags.writeable = False
    for value in (base[:, :3], base[1:3, ::2], base[::-1, 3:]):
        assert_same(through(zoo.identity(datatype), tmp_path, value), value.copy())


def test_bf16_beside_other_datatypes(tmp_path: Path) -> None:
    types = {"b": TensorProto.BFLOAT16, "f": TensorProto.FLOAT}
    values = {name: helper.make_tensor_value_info(name, kind, ["N"]) for name, kind in types.items()}
    outputs = [helper.make_tensor_value_info(f"{name}_out", kind, ["N"]) for name, kind in types.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in types]
    backend = opened(graph(nodes, list(values.values()), outputs), tmp_path)
    inputs: dict[str, Array] = {"b": np.array([0x3F80], np.uint16), "f": np.array([2.5], np.float32)}
    for names in (["b_out", "f_out"], ["f_out", "b_out"], ["f_out"], ["b_out"]):
        answers = backend.run(names, inputs)
        for name, answer in zip(names, answers, strict=True):
            assert_same(answer, inputs[name.removesuffix("_out")])


@pytest.mark.parametrize("taken", [TensorProto.FLOAT, TensorProto.BFLOAT16])
def test_bf16_on_one_side_only(taken: int, tmp_path: Path) -> None:
    given = TensorProto.BFLOAT16 if taken == TensorProto.FLOAT else TensorProto.FLOAT
    x, y = helper.make_tensor_value_info("x", taken, ["N"]), helper.make_tensor_value_info("y", given, ["N"])
    model = graph([helper.make_node("Cast", ["x"], ["y"], to=given)], [x], [y])
    single, bits = np.array([1.5, -2.0], np.float32), np.array([0x3FC0, 0xC000], np.uint16)
    value, expected = (single, bits) if taken == TensorProto.FLOAT else (bits, single)
    assert_same(through(model, tmp_path, value), expected)


def test_answers_outlive_the_session(tmp_path: Path) -> None:
    backend = opened(zoo.identity(DataType.BF16), tmp_path)
    value = np.full((1000, 3), 0x3F81, np.uint16)
    (answer,) = backend.run(["y"], {"x": value})
    backend.close()
    assert_same(answer, value)


@pytest.mark.parametrize("datatype", [DataType.FP32, DataType.BF16], ids=str)
def test_a_run_that_is_asked_to_stop_fails(tmp_path: Path, datatype: DataType) -> None:
    backend = opened(zoo.identity(datatype), tmp_path)
    feeds = {"x": np.ones((1, 3), datatype.dtype)}
    control = InFlightRun((), 0.0)
    assert backend.run(("y",), feeds, control)[0].tolist() == [[1, 1, 1]]
    control.stop()
    with pytest.raises(ModelFailed, match="terminate"):
        backend.run(("y",), feeds, control)


def test_outputs_come_in_the_order_asked_for(tmp_path: Path) -> None:
    backend = opened(zoo.multi_output(), tmp_path)
    total, double = backend.run(["total", "double"], {"x": np.ones((1, 3), np.float32)})
    assert (total.tolist(), double.tolist()) == ([3.0], [[2.0, 2.0, 2.0]])


def test_a_model_without_inputs_runs(tmp_path: Path) -> None:
    (answer,) = opened(zoo.constant(), tmp_path).run(["y"], {})
    assert answer.tolist() == [1, 2, 3]


def test_several_threads_may_run_at_once(tmp_path: Path) -> None:
    backend = opened(zoo.tiny_mlp(), tmp_path)
    rows = np.random.default_rng(0).standard_normal((8, 1, 64), dtype=np.float32)
    expected = [backend.run(["y"], {"x": row})[0] for row in rows]
    wrong: list[Array] = []

    def run(index: int) -> None:
        answers = [backend.run(["y"], {"x": rows[index]})[0] for _ in range(50)]
        wrong.extend(answer for answer in answers if not np.array_equal(answer, expected[index]))

    threads = [threading.Thread(target=run, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# Signatures


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (zoo.identity, ("N", 3)),
        (zoo.axes_unnamed, ("?", 3)),
        (zoo.scalar, ()),
        (zoo.rank_unknown, None),
        (zoo.fixed_batch, (1, 3)),
        (zoo.two_open_axes, ("N", "L")),
        (lambda: identity_of(TensorProto.FLOAT, (-1, 3)), ("?", 3)),
        (lambda: identity_of(TensorProto.FLOAT, ("", 3)), ("?", 3)),
    ],
)
def test_shapes_are_what_the_graph_declares(
    make: Callable[[], onnx.ModelProto], shape: tuple[Any, ...] | None, tmp_path: Path
) -> None:
    signature = opened(make(), tmp_path).signature
    assert signature.inputs == {"x": TensorSpec("x", DataType.FP32, shape)}
    assert signature.outputs == {"y": TensorSpec("y", DataType.FP32, shape)}


def test_names_and_datatypes_are_in_the_graphs_order(tmp_path: Path) -> None:
    signature = opened(zoo.multi_output(), tmp_path).signature
    assert [(spec.name, spec.datatype) for spec in signature.outputs.values()] == [
        ("double", DataType.FP32),
        ("total", DataType.FP32),
        ("positive", DataType.BOOL),
    ]
    assert list(opened(zoo.add(), tmp_path).signature.inputs) == ["a", "b"]


def test_an_input_with_a_default_need_not_be_given(tmp_path: Path) -> None:
    model = zoo.scale(3)
    model.graph.input.append(helper.make_tensor_value_info("factor", TensorProto.FLOAT, []))
    backend = opened(model, tmp_path)
    assert list(backend.signature.inputs) == ["x"]
    assert backend.run(["y"], {"x": np.ones((1, 3), np.float32)})[0].tolist() == [[3, 3, 3]]


# The file and the session


def test_what_the_file_says_of_itself(tmp_path: Path) -> None:
    model = zoo.identity()
    model.doc_string, model.domain, model.model_version = "what it does", "org.example", 7
    helper.set_model_props(model, {"trained": "today"})
    path = zoo.write(model, tmp_path / "model.onnx")
    file = OnnxBackend(path, ONE_THREAD, 1).file
    assert file.metadata == {
        "producer": "penstock-tests",
        "domain": "org.example",
        "graph": "zoo",
        "description": "what it does",
        "model_version": "7",
        "trained": "today",
    }
    assert file.opsets == {"ai.onnx": zoo.OPSET, "ai.onnx.ml": zoo.ML_OPSET}
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.size_bytes == path.stat().st_size


def test_a_file_that_says_nothing(tmp_path: Path) -> None:
    file = opened(identity_of(TensorProto.FLOAT), tmp_path).file
    assert file.metadata == {"graph": "g"}


def test_the_providers_in_use(tmp_path: Path) -> None:
    assert opened(zoo.identity(), tmp_path).providers == ("CPUExecutionProvider",)


@pytest.mark.parametrize(
    ("config", "parallel", "intra", "inter"),
    [
        (RuntimeConfig(intra_op_threads=3), 1, 3, 1),
        (RuntimeConfig(intra_op_threads=3), 5, 3, 1),
        (RuntimeConfig(), 1, available().count, 1),
        (RuntimeConfig(), 10_000, 1, 1),
        (RuntimeConfig(intra_op_threads=1, inter_op_threads=4), 1, 1, 4),
    ],
)
def test_threads_are_those_of_the_settings(
    config: RuntimeConfig, parallel: int, intra: int, inter: int, tmp_path: Path
) -> None:
    path = zoo.write(zoo.identity(), tmp_path / "model.onnx")
    options = OnnxBackend(path, config, parallel)._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (intra, inter)
    parallel_mode = options.execution_mode == ort.ExecutionMode.ORT_PARALLEL
    assert parallel_mode == (inter > 1)


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("level", ["disable", "basic", "extended", "all"])
def test_the_other_settings_reach_the_session(on: bool, level: Any, tmp_path: Path) -> None:
    path = zoo.write(zoo.scale(2), tmp_path / "model.onnx")
    config = RuntimeConfig(optimization=level, arena=on, spinning=on)
    backend = OnnxBackend(path, config, 1)
    options = backend._session.get_session_options()
    assert options.graph_optimization_level == backend_module.OPTIMIZATION[level]
    assert options.enable_cpu_mem_arena == on
    for kind in ("intra", "inter"):
        assert options.get_session_config_entry(f"session.{kind}_op.allow_spinning") == str(int(on))
    assert backend.run(["y"], {"x": np.ones((1, 3), np.float32)})[0].tolist() == [[2, 2, 2]]


def test_close_lets_go_of_the_session(tmp_path: Path) -> None:
    backend = opened(zoo.identity(), tmp_path)
    backend.close()
    with pytest.raises(ModelFailed):
        backend.run(["y"], {"x": np.ones((1, 3), np.float32)})


def test_a_model_of_more_than_a_mebibyte_leaves_nothing_open(tmp_path: Path) -> None:
    """Files of that size are mapped into memory to be read; warnings are errors here."""
    model = zoo.identity()
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(2**19, np.float32), "unused"))
    path = zoo.write(model, tmp_path / "model.onnx")
    script = (
        "import sys, warnings; warnings.simplefilter('error');"
        "from pathlib import Path;"
        "from penstock.backends import onnx_file as f;"
        "path = Path(sys.argv[1]);"
        "print(f.opsets(path), f.tensors_of_any_rank(path), f.sha256(path)[:1] != '');"
        "maps = Path('/proc/self/maps');"
        "print(maps.exists() and str(path) in maps.read_text())"
    )
    found = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stderr == ""
    assert found.stdout.splitlines() == [
        f"{{'ai.onnx': {zoo.OPSET}, 'ai.onnx.ml': {zoo.ML_OPSET}}} set() True",
        "False",
    ]


def test_a_release_without_the_inner_session_is_run_as_it_is() -> None:
    outer = SimpleNamespace(run=lambda *_: ["outer"])
    assert _runner(outer)(["y"], {}, None) == ["outer"]
    outer._sess = SimpleNamespace(run=lambda *_: ["inner"])
    assert _runner(outer)(["y"], {}, None) == ["inner"]
