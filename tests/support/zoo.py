"""The ONNX models that tests serve: small, each with one property that a test needs.

Every function returns an `onnx.ModelProto`; `write` and `repository` put them on disk. Unless said
otherwise the input is `x`, the output `y`, both FP32. Shapes are written as the graph declares them:
`[N, 3]` has an open first axis named N.

What a server should make of each:

- batched: identity, scale, add, row_sum, multi_output, two_open_axes, axes_unnamed, fails_on, slow,
  tiny_mlp, external
- batched, once model.toml declares their state: running_sum, running_mean
- batched among requests of the same scalar: scaled
- served unbatched, for its shapes: scalar, constant, fixed_batch, fixed_vector, axes_not_shared,
  one_closed_output, rank_unknown
- served unbatched, for its rows mix: centred_rows, softmax_over_rows, cumulative_rows, reversed_rows,
  divided_by_rows
- batched, with ZipMap cut off: map_output
- refused: sequence_output, sequence_input, map_input
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from penstock.core.minifloats import FORMATS
from penstock.core.tensors import DataType
from support import beside

OPSET = 17
ML_OPSET = 3
IR_VERSION = 8
"""ONNX Runtime 1.20 and later take these; the defaults of `onnx.helper` are newer than some releases."""

Shape = Sequence[int | str | None]
"""One entry an axis: a length, the name of an open length, or None for an open length without a name."""

EXAMPLES = Path(__file__).parents[2] / "examples"


# Batched: the rows do not know of each other.


def identity(datatype: DataType = DataType.FP32, shape: Shape = ("N", 3)) -> onnx.ModelProto:
    """y = x, for any datatype and shape."""
    x, y = (_value(name, datatype, shape) for name in "xy")
    model = _model([_node("Identity", ["x"], "y")], [x], [y])
    if datatype in FORMATS:  # of 8 bits: they came later
        model.opset_import[0].version, model.ir_version = 21, 10
    return model


def with_metadata(model: onnx.ModelProto, entries: Mapping[str, str]) -> onnx.ModelProto:
    """The same model with metadata of its own."""
    onnx.helper.set_model_props(model, dict(entries))
    return model


def scale(factor: float, shape: Shape = ("N", 3)) -> onnx.ModelProto:
    """y = x * factor: tells one version from another."""
    return _floats([_node("Mul", ["x", "factor"], "y")], shape, shape, {"factor": np.float32(factor)})


def widened(width: int, named: str = "") -> onnx.ModelProto:
    """y FP32 [N, width]: x FP32 [N, 1], repeated `width` times; `named`: y is declared with an open axis."""
    nodes = [_node("Add", ["x", "zeros"], "y")]
    x, y = _value("x", DataType.FP32, ("N", 1)), _value("y", DataType.FP32, ("N", named or width))
    return _model(nodes, [x], [y], {"zeros": np.zeros((1, width), np.float32)})


def add(shape: Shape = ("N", 3)) -> onnx.ModelProto:
    """y = a + b, with two inputs, `a` and `b`."""
    a, b, y = (_value(name, DataType.FP32, shape) for name in "aby")
    return _model([_node("Add", ["a", "b"], "y")], [a, b], [y])


def row_sum() -> onnx.ModelProto:
    """x [N, L] to y [N], the sum of each row; rows of no elements sum to 0."""
    axes = {"axes": np.array([1], np.int64)}
    return _floats([_node("ReduceSum", ["x", "axes"], "y", keepdims=0)], ("N", "L"), ("N",), axes)


def multi_output() -> onnx.ModelProto:
    """x [N, 3] to `double` FP32 [N, 3], `total` FP32 [N] and `positive` BOOL [N, 3]."""
    return _model(
        [
            _node("Add", ["x", "x"], "double"),
            _node("ReduceSum", ["x", "axes"], "total", keepdims=0),
            _node("Greater", ["x", "zero"], "positive"),
        ],
        [_value("x", DataType.FP32, ("N", 3))],
        [
            _value("double", DataType.FP32, ("N", 3)),
            _value("total", DataType.FP32, ("N",)),
            _value("positive", DataType.BOOL, ("N", 3)),
        ],
        {"axes": np.array([1], np.int64), "zero": np.float32(0)},
    )


def two_open_axes() -> onnx.ModelProto:
    """x [N, L] to y [N, L], doubled: only requests of the same L may share a batch."""
    return scale(2, ("N", "L"))


def axes_unnamed() -> onnx.ModelProto:
    """x [?, 3] to y [?, 3], doubled: open first axes without a name, which count as one axis."""
    return _doubled((None, 3), (None, 3))


def fails_on(value: int) -> onnx.ModelProto:
    """y = x, INT64 [N, 1]; the run fails when any element is `value` or more, or below -`value`.

    ONNX Runtime raises for the whole run: `indices element out of data bounds`.
    """
    return _model(
        [_node("Gather", ["zeros", "x"], "zero"), _node("Add", ["x", "zero"], "y")],
        [_value("x", DataType.INT64, ("N", 1))],
        [_value("y", DataType.INT64, ("N", 1))],
        {"zeros": np.zeros(value, np.int64)},
    )


def slow(milliseconds: float) -> onnx.ModelProto:
    """y = x [N, 1], in at least about `milliseconds` a run, whatever the number of rows.

    The time is spent computing on one core, not sleeping. How much work that takes is measured once a run
    of the tests, so a busy machine makes runs longer, hardly ever shorter.
    """
    return slow_by_rounds(rounds_in(milliseconds))


def rounds_in(milliseconds: float) -> int:
    """How many rounds of `slow_by_rounds` and `as_slow_as_asked` take at least about that long."""
    return max(1, round(milliseconds * _rounds_per_millisecond()))


def slow_by_rounds(rounds: int) -> onnx.ModelProto:
    """y = x [N, 1], after `rounds` products of a 32 by 32 matrix of zeros, a few microseconds each."""
    # A product this small is never spread over threads, so the session's thread settings do not matter.
    # The optimizer does not fold loops, and adding a sum of zeros leaves every finite x as it was.
    state = [_value("keep_going", DataType.BOOL, ()), _value("state", DataType.FP32, (32, 32))]
    state_out = [_value("keep_going_out", DataType.BOOL, ()), _value("state_out", DataType.FP32, (32, 32))]
    steps = [
        _node("Identity", ["keep_going"], "keep_going_out"),
        _node("MatMul", ["state", "matrix"], "state_out"),
    ]
    body = helper.make_graph(steps, "round", [_value("round", DataType.INT64, ()), *state], state_out)
    return _floats(
        [
            _node("Loop", ["rounds", "forever", "zeros"], "zeros_out", body=body),
            _node("ReduceSum", ["zeros_out"], "zero", keepdims=0),
            _node("Add", ["x", "zero"], "y"),
        ],
        ("N", 1),
        ("N", 1),
        {
            "rounds": np.int64(rounds),
            "forever": np.bool_(True),
            "zeros": np.zeros((32, 32), np.float32),
            "matrix": np.full((32, 32), 1 / 32, np.float32),
        },
    )


def slow_rows(milliseconds: float) -> onnx.ModelProto:
    """y = x [N, 1], in at least about `milliseconds` for each row of a run; a batch saves next to nothing.

    The time is spent computing, as in `slow`; the graph is row-wise.
    """
    return slow_rows_by_products(max(1, round(milliseconds * _products_per_millisecond())))


def slow_rows_by_products(count: int) -> onnx.ModelProto:
    """y = x [N, 1], after `count` products of a 64 by 64 matrix of zeros for each row."""
    zeros = np.zeros((64, 64), np.float32)
    nodes = [_node("Mul", ["x", "row"], "flat"), _node("Reshape", ["flat", "square"], "state0")]
    nodes += [_node("MatMul", [f"state{n}", "matrix"], f"state{n + 1}") for n in range(count)]
    nodes += [
        _node("ReduceSum", [f"state{count}", "axes"], "sums", keepdims=0),
        _node("Reshape", ["sums", "column"], "zero"),
        _node("Add", ["x", "zero"], "y"),
    ]
    constants = {
        "row": zeros.reshape(1, -1),
        "square": np.array([-1, 64, 64], np.int64),
        "matrix": np.full((64, 64), 1 / 64, np.float32),
        "axes": np.array([1, 2], np.int64),
        "column": np.array([-1, 1], np.int64),
    }
    return _floats(nodes, ("N", 1), ("N", 1), constants)


@cache
def _products_per_millisecond() -> float:
    """How many of these products ONNX Runtime computes in a millisecond, on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(slow_rows_by_products(100).SerializeToString(), options)
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        session.run(None, {"x": np.ones((4, 1), np.float32)})
        seconds.append(time.perf_counter() - started)
    return 400 / (min(seconds) * 1000)


def as_slow_as_asked() -> onnx.ModelProto:
    """y = x, INT64 [N, 1], after as many rounds, a few microseconds each, as the largest x."""
    state = [_value("keep_going", DataType.BOOL, ()), _value("state", DataType.FP32, (32, 32))]
    state_out = [_value("keep_going_out", DataType.BOOL, ()), _value("state_out", DataType.FP32, (32, 32))]
    steps = [
        _node("Identity", ["keep_going"], "keep_going_out"),
        _node("MatMul", ["state", "matrix"], "state_out"),
    ]
    body = helper.make_graph(steps, "round", [_value("round", DataType.INT64, ()), *state], state_out)
    return _model(
        [
            _node("ReduceMax", ["x"], "rounds", keepdims=0),
            _node("Loop", ["rounds", "forever", "zeros"], "zeros_out", body=body),
            _node("ReduceSum", ["zeros_out"], "zero", keepdims=0),
            _node("Cast", ["zero"], "whole", to=DataType.INT64.onnx_type),
            _node("Add", ["x", "whole"], "y"),
        ],
        [_value("x", DataType.INT64, ("N", 1))],
        [_value("y", DataType.INT64, ("N", 1))],
        {
            "forever": np.bool_(True),
            "zeros": np.zeros((32, 32), np.float32),
            "matrix": np.full((32, 32), 1 / 32, np.float32),
        },
    )


def tiny_mlp() -> onnx.ModelProto:
    """The benchmarks' perceptron: x [N, 64] to y [N, 8]; its last bits depend on the size of the batch."""
    model: onnx.ModelProto = example("mlp/make.py").tiny()
    return model


def summed_rows(width: int) -> onnx.ModelProto:
    """y [N] = the sum of each row of x [N, width]; where a row lies decides how it is rounded."""
    return _floats([_node("ReduceSum", ["x", "last"], "y", keepdims=0)], ("N", width), ("N",), {"last": [1]})


def summed_beside(width: int) -> onnx.ModelProto:
    """The same, and z = first [N, 3]: a request that is a block of bytes has x behind 12 bytes of first."""
    taken = [_value("first", DataType.FP32, ("N", 3)), _value("x", DataType.FP32, ("N", width))]
    given = [_value("y", DataType.FP32, ("N",)), _value("z", DataType.FP32, ("N", 3))]
    nodes = [_node("ReduceSum", ["x", "last"], "y", keepdims=0), _node("Identity", ["first"], "z")]
    return _model(nodes, taken, given, {"last": [1]})


def divided() -> onnx.ModelProto:
    """y = a / b, whole numbers [N, 3]: nothing can be divided by 0."""
    shape = ("N", 3)
    taken = [_value(name, DataType.INT64, shape) for name in "ab"]
    return _model([_node("Div", ["a", "b"], "y")], taken, [_value("y", DataType.INT64, shape)])


def scaled() -> onnx.ModelProto:
    """y = x [N, 3] * factor, an FP32 scalar: one for a whole batch."""
    x, y = (_value(name, DataType.FP32, ("N", 3)) for name in "xy")
    return _model([_node("Mul", ["x", "factor"], "y")], [x, _value("factor", DataType.FP32, ())], [y])


# With a state that one step hands to the next.


def running_sum(most: int = 1000) -> onnx.ModelProto:
    """y = sumN = sum + x, INT64 [N, 1] all: the state is `sum`, its batch axis 0.

    The run fails where an x is `most` or more, or below -`most`, as in `fails_on`.
    """
    names = ("x", "sum", "y", "sumN")
    x, total, y, after = (_value(name, DataType.INT64, ("N", 1)) for name in names)
    nodes = [
        _node("Gather", ["zeros", "x"], "zero"),
        _node("Add", ["x", "zero"], "checked"),
        _node("Add", ["sum", "checked"], "sumN"),
        _node("Identity", ["sumN"], "y"),
    ]
    return _model(nodes, [x, total], [y, after], {"zeros": np.zeros(most, np.int64)})


def running_scalar() -> onnx.ModelProto:
    """y = sumN = sum + x, all of them INT64 scalars: a state without axes."""
    nodes = [_node("Add", ["x", "sum"], "sumN"), _node("Identity", ["sumN"], "y")]
    inputs, outputs = (
        [_value(name, DataType.INT64, ()) for name in names] for names in (("x", "sum"), ("y", "sumN"))
    )
    return _model(nodes, inputs, outputs, {})


def running_mean() -> onnx.ModelProto:
    """y [N, 3] = half of x [N, 3] and half of the state, which is h [2, N, 3], its batch axis 1.

    Row 0 of the state becomes y, row 1 what row 0 was: `hn`.
    """
    half = {"half": np.float32(0.5), "first": np.int64(0), "axis": np.array([0], np.int64)}
    nodes = [
        _node("Gather", ["h", "first"], "before", axis=0),
        _node("Add", ["x", "before"], "sum"),
        _node("Mul", ["sum", "half"], "y"),
        _node("Unsqueeze", ["y", "axis"], "upper"),
        _node("Unsqueeze", ["before", "axis"], "lower"),
        _node("Concat", ["upper", "lower"], "hn", axis=0),
    ]
    x, y = (_value(name, DataType.FP32, ("N", 3)) for name in "xy")
    h, after = (_value(name, DataType.FP32, (2, "N", 3)) for name in ("h", "hn"))
    return _model(nodes, [x, h], [y, after], half)


# Served, but never batched: the shapes do not allow it.


def scalar() -> onnx.ModelProto:
    """y = 2 * x, both of rank 0."""
    return scale(2, ())


def constant() -> onnx.ModelProto:
    """No inputs; y is always [1, 2, 3]."""
    value = numpy_helper.from_array(np.array([1, 2, 3], np.float32))
    return _model([_node("Constant", [], "y", value=value)], [], [_value("y", DataType.FP32, (3,))])


def fixed_batch() -> onnx.ModelProto:
    """y = 2 * x, [1, 3]: one row exactly."""
    return scale(2, (1, 3))


def fixed_vector() -> onnx.ModelProto:
    """y = 2 * x, [4]."""
    return scale(2, (4,))


def axes_not_shared() -> onnx.ModelProto:
    """x [A, 3] to y [A, 3] and z [B, 3] to w [B, 3], doubled: the graph says that the lengths may differ."""
    shapes = {"x": "A", "y": "A", "z": "B", "w": "B"}
    x, y, z, w = (_value(name, DataType.FP32, (first, 3)) for name, first in shapes.items())
    return _model([_node("Add", ["x", "x"], "y"), _node("Add", ["z", "z"], "w")], [x, z], [y, w])


def one_closed_output() -> onnx.ModelProto:
    """x [N, 3] to y [N, 3], doubled, and `total`, of rank 0, the sum of everything."""
    return _model(
        [_node("Add", ["x", "x"], "y"), _node("ReduceSum", ["x"], "total", keepdims=0)],
        [_value("x", DataType.FP32, ("N", 3))],
        [_value("y", DataType.FP32, ("N", 3)), _value("total", DataType.FP32, ())],
    )


def rank_unknown() -> onnx.ModelProto:
    """y = 2 * x, for which the graph declares no shape at all."""
    return _doubled(None, None)


# Served, but never batched: the graph declares a shared open first axis and yet its rows mix.


def centred_rows() -> onnx.ModelProto:
    """y = x [N, 3] less the mean of all rows."""
    return _mixing(
        [_node("ReduceMean", ["x"], "mean", axes=[0], keepdims=1), _node("Sub", ["x", "mean"], "y")]
    )


def softmax_over_rows() -> onnx.ModelProto:
    """y = softmax of x [N, 3] along the rows."""
    return _mixing([_node("Softmax", ["x"], "y", axis=0)])


def cumulative_rows() -> onnx.ModelProto:
    """y = running sum of x [N, 3] along the rows: the first row never changes."""
    return _mixing([_node("CumSum", ["x", "first_axis"], "y")], {"first_axis": np.int64(0)})


def reversed_rows() -> onnx.ModelProto:
    """y = the rows of x [N, 3] from last to first: a batch of equal rows shows nothing."""
    bounds = {"start": [-1], "end": [np.iinfo(np.int64).min], "axes": [0], "step": [-1]}
    return _mixing(
        [_node("Slice", ["x", *bounds], "y")],
        {name: np.array(values, np.int64) for name, values in bounds.items()},
    )


def divided_by_rows() -> onnx.ModelProto:
    """y = x [N, 3] / N: the number of rows alone changes the answer."""
    return _mixing(
        [
            _node("Shape", ["x"], "rows", start=0, end=1),
            _node("Cast", ["rows"], "divisor", to=TensorProto.FLOAT),
            _node("Div", ["x", "divisor"], "y"),
        ]
    )


# Refused: not everything they take and give is a tensor.


def sequence_output() -> onnx.ModelProto:
    """x [N, 3] to y, a sequence of tensors."""
    return _model(
        [_node("SequenceConstruct", ["x", "x"], "y")],
        [_value("x", DataType.FP32, ("N", 3))],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, ["N", 3])],
    )


def sequence_input() -> onnx.ModelProto:
    """x, a sequence of tensors [N, 3], to y [N, 3], its first."""
    return _model(
        [_node("SequenceAt", ["x", "first"], "y")],
        [helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [_value("y", DataType.FP32, ("N", 3))],
        {"first": np.int64(0)},
    )


def map_output() -> onnx.ModelProto:
    """x [N, 2] to y, one map from class to probability a row: what exporting with zipmap gives."""
    node = _node("ZipMap", ["x"], "y", domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    output = helper.make_value_info("y", helper.make_sequence_type_proto(_map()))
    return _model([node], [_value("x", DataType.FP32, ("N", 2))], [output])


def map_input() -> onnx.ModelProto:
    """x, a map from INT64 to FP32, to y [1, 2], its values."""
    node = _node("DictVectorizer", ["x"], "y", domain="ai.onnx.ml", int64_vocabulary=[0, 1])
    return _model([node], [helper.make_value_info("x", _map())], [_value("y", DataType.FP32, (1, 2))])


# On disk.


def external() -> onnx.ModelProto:
    """y = x [N, 64] times a matrix whose rows are turned by one; write it with `external=True`."""
    matrix = {"matrix": np.roll(np.eye(64, dtype=np.float32), 1, axis=0)}
    return _floats([_node("MatMul", ["x", "matrix"], "y")], ("N", 64), ("N", 64), matrix)


def write(model: onnx.ModelProto, path: Path, *, external: bool = False) -> Path:
    """Write a model to `path`, making its folders, and give the path back.

    Args:
        model: what to write; it stays as it is.
        path: the file.
        external: put the weights into a file of their own beside it, with `.data` appended to the name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if external:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        onnx.save_model(
            copy, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0
        )
    else:
        path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def repository(
    root: Path, models: Mapping[str, onnx.ModelProto | Mapping[int | str, onnx.ModelProto]]
) -> Path:
    """Write models as `<name>/<version>/model.onnx` and give the root back.

    Args:
        root: the repository's folder; it may exist.
        models: by name, either a model, which becomes version 1, or models by version.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name, given in models.items():
        versions = {1: given} if isinstance(given, onnx.ModelProto) else given
        for version, model in versions.items():
            write(model, root / name / str(version) / "model.onnx")
    return root


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """ONNX Runtime itself on one thread: what the answers of a server are compared with."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@cache
def example(path: str) -> Any:
    """A script of the examples, which are no package, as a module; `path` is relative to `EXAMPLES`."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, EXAMPLES / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# How they are made.


def _doubled(taken: Shape | None, given: Shape | None) -> onnx.ModelProto:
    return _floats([_node("Add", ["x", "x"], "y")], taken, given)


def _mixing(nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Any] | None = None) -> onnx.ModelProto:
    return _floats(nodes, ("N", 3), ("N", 3), constants)


def _floats(
    nodes: Sequence[onnx.NodeProto],
    taken: Shape | None,
    given: Shape | None,
    constants: Mapping[str, Any] | None = None,
) -> onnx.ModelProto:
    x, y = _value("x", DataType.FP32, taken), _value("y", DataType.FP32, given)
    return _model(nodes, [x], [y], constants)


def _node(operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], **attributes)


def _map() -> onnx.TypeProto:
    value = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    return helper.make_map_type_proto(TensorProto.INT64, value)


def _value(name: str, datatype: DataType, shape: Shape | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, datatype.onnx_type, shape)


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Mapping[str, Any] | None = None,
) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    return helper.make_model(
        helper.make_graph(nodes, "zoo", inputs, outputs, weights),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)],
        ir_version=IR_VERSION,
        producer_name="penstock-tests",
    )


@cache
def _rounds_per_millisecond() -> float:
    """Measured by the first process of a run of the tests that wants to know.

    So all of them make the same files, and a server finds in the cache what an earlier one learned of a file.
    """
    folder = os.environ.get(beside.FOLDER)
    if folder is None:
        return _measured_rounds_per_millisecond()
    path = Path(folder) / "rounds"
    with beside.locked(path.with_suffix(".lock")):
        if not path.exists():
            path.write_text(repr(_measured_rounds_per_millisecond()))
        return float(path.read_text())


def _measured_rounds_per_millisecond() -> float:
    """The most of several short measurements: the others were disturbed."""
    rounds = 500
    runner, feed = session(slow_by_rounds(rounds)), {"x": np.zeros((1, 1), np.float32)}
    times = []
    for _ in range(10):
        started = time.perf_counter()
        runner.run(None, feed)
        times.append(time.perf_counter() - started)
    return rounds / (1000 * min(times))
