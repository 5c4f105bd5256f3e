"""The models of `support.zoo` do what the tests that use them rely on, in ONNX Runtime itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from penstock.core.minifloats import BY_BITS
from penstock.core.tensors import DataType
from support import zoo

ROWS = np.array([[1, 2, 3], [5, -7, 11]], np.float32)
WIDE_ROWS = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64)

BATCHED: dict[str, tuple[Any, dict[str, Any]]] = {
    "identity": (zoo.identity, {"x": ROWS}),
    "scale": (lambda: zoo.scale(3), {"x": ROWS}),
    "add": (zoo.add, {"a": ROWS, "b": ROWS[::-1]}),
    "row_sum": (zoo.row_sum, {"x": ROWS}),
    "multi_output": (zoo.multi_output, {"x": ROWS}),
    "two_open_axes": (zoo.two_open_axes, {"x": ROWS}),
    "fails_on": (lambda: zoo.fails_on(10), {"x": np.array([[3], [-10]])}),
    "slow_by_rounds": (lambda: zoo.slow_by_rounds(1), {"x": ROWS[:, :1]}),
    "tiny_mlp": (zoo.tiny_mlp, {"x": WIDE_ROWS}),
    "external": (zoo.external, {"x": WIDE_ROWS}),
}
MIXING = [
    zoo.centred_rows, zoo.softmax_over_rows, zoo.cumulative_rows, zoo.reversed_rows, zoo.divided_by_rows
]  # fmt: skip

EXPECTED = [
    (zoo.identity(), {"x": ROWS}, [ROWS]),
    (zoo.scale(3), {"x": ROWS}, [ROWS * 3]),
    (zoo.add(), {"a": ROWS, "b": ROWS[::-1]}, [ROWS + ROWS[::-1]]),
    (zoo.row_sum(), {"x": ROWS}, [ROWS.sum(axis=1)]),
    (zoo.row_sum(), {"x": np.zeros((2, 0), np.float32)}, [np.zeros(2, np.float32)]),
    (zoo.row_sum(), {"x": np.zeros((0, 3), np.float32)}, [np.zeros(0, np.float32)]),
    (zoo.multi_output(), {"x": ROWS}, [ROWS * 2, ROWS.sum(axis=1), ROWS > 0]),
    (zoo.two_open_axes(), {"x": ROWS}, [ROWS * 2]),
    (zoo.fails_on(10), {"x": np.array([[9], [-10]])}, [np.array([[9], [-10]])]),
    (zoo.slow_by_rounds(3), {"x": ROWS[:, :1]}, [ROWS[:, :1]]),
    (zoo.scalar(), {"x": np.array(3, np.float32)}, [np.array(6, np.float32)]),
    (zoo.constant(), {}, [np.array([1, 2, 3], np.float32)]),
    (zoo.fixed_batch(), {"x": ROWS[:1]}, [ROWS[:1] * 2]),
    (zoo.fixed_vector(), {"x": np.ones(4, np.float32)}, [np.full(4, 2, np.float32)]),
    (zoo.axes_not_shared(), {"x": ROWS, "z": ROWS[:1]}, [ROWS * 2, ROWS[:1] * 2]),
    (zoo.axes_unnamed(), {"x": ROWS}, [ROWS * 2]),
    (zoo.one_closed_output(), {"x": ROWS}, [ROWS * 2, np.array(15, np.float32)]),
    (zoo.rank_unknown(), {"x": ROWS}, [ROWS * 2]),
    (zoo.centred_rows(), {"x": ROWS}, [ROWS - ROWS.mean(axis=0)]),
    (zoo.softmax_over_rows(), {"x": np.zeros((4, 3), np.float32)}, [np.full((4, 3), 0.25, np.float32)]),
    (zoo.cumulative_rows(), {"x": ROWS}, [ROWS.cumsum(axis=0)]),
    (zoo.reversed_rows(), {"x": ROWS}, [ROWS[::-1]]),
    (zoo.divided_by_rows(), {"x": ROWS}, [ROWS / 2]),
    (zoo.external(), {"x": WIDE_ROWS}, [np.roll(WIDE_ROWS, -1, axis=1)]),
]

DECLARED = [
    (zoo.identity(), [["N", 3]], [["N", 3]]),
    (zoo.multi_output(), [["N", 3]], [["N", 3], ["N"], ["N", 3]]),
    (zoo.two_open_axes(), [["N", "L"]], [["N", "L"]]),
    (zoo.scalar(), [[]], [[]]),
    (zoo.constant(), [], [[3]]),
    (zoo.fixed_batch(), [[1, 3]], [[1, 3]]),
    (zoo.fixed_vector(), [[4]], [[4]]),
    (zoo.axes_not_shared(), [["A", 3], ["B", 3]], [["A", 3], ["B", 3]]),
    (zoo.axes_unnamed(), [[None, 3]], [[None, 3]]),
    (zoo.one_closed_output(), [["N", 3]], [["N", 3], []]),
    (zoo.centred_rows(), [["N", 3]], [["N", 3]]),
    (zoo.divided_by_rows(), [["N", 3]], [["N", 3]]),
]


def run(model: Any, feed: dict[str, Any]) -> list[Any]:
    return list(zoo.session(model).run(None, feed))


@pytest.mark.parametrize(("model", "feed", "expected"), EXPECTED)
def test_gives_what_its_docstring_says(model: Any, feed: dict[str, Any], expected: list[Any]) -> None:
    answers = run(model, feed)
    assert len(answers) == len(expected)
    for answer, wanted in zip(answers, expected, strict=True):
        assert answer.dtype == wanted.dtype
        np.testing.assert_array_equal(answer, wanted)


@pytest.mark.parametrize(("model", "inputs", "outputs"), DECLARED)
def test_declares_its_shapes(model: Any, inputs: list[Any], outputs: list[Any]) -> None:
    session = zoo.session(model)
    assert [each.shape for each in session.get_inputs()] == inputs
    assert [each.shape for each in session.get_outputs()] == outputs


@pytest.mark.parametrize("name", BATCHED)
def test_rows_of_batched_models_are_independent(name: str) -> None:
    make, feed = BATCHED[name]
    session = zoo.session(make())
    together = session.run(None, feed)
    for row in range(2):
        alone = session.run(None, {key: value[row : row + 1] for key, value in feed.items()})
        for all_rows, one_row in zip(together, alone, strict=True):
            np.testing.assert_allclose(all_rows[row : row + 1], one_row, rtol=1e-5)


@pytest.mark.parametrize("make", MIXING, ids=lambda make: make.__name__)
def test_rows_of_mixing_models_depend_on_each_other(make: Any) -> None:
    session = zoo.session(make())
    together = session.run(None, {"x": ROWS})[0]
    alone = np.concatenate([session.run(None, {"x": ROWS[row : row + 1]})[0] for row in range(2)])
    assert not np.allclose(together, alone)


@pytest.mark.parametrize("shape", [(), ("N", 3)], ids=["scalar", "matrix"])
@pytest.mark.parametrize("datatype", [each for each in DataType if each not in BY_BITS], ids=str)
def test_identity_takes_every_datatype(datatype: DataType, shape: tuple[Any, ...]) -> None:
    value: Any = np.ones([2 if axis == "N" else axis for axis in shape], datatype.dtype)
    if datatype is DataType.BYTES:
        value = np.full(value.shape, "grüße\0😀", object)
    answer = run(zoo.identity(datatype, shape), {"x": value})[0]
    assert answer.dtype == datatype.dtype
    assert answer.shape == value.shape
    np.testing.assert_array_equal(answer, value)


@pytest.mark.parametrize("datatype", sorted(BY_BITS, key=str), ids=str)
def test_identity_takes_what_numpy_lacks(datatype: DataType) -> None:
    bits = np.array([[0x3F80, 0x7FC1, 0x8000]], np.uint16).astype(datatype.dtype)
    value = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, datatype.onnx_type)
    answer = np.zeros_like(bits)
    session = zoo.session(zoo.identity(datatype))
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", value)
    binding.bind_output("y", "cpu", 0, datatype.onnx_type, [1, 3], answer.ctypes.data)
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(answer, bits)


@pytest.mark.parametrize("element", [10, 99, -11])
def test_fails_on_fails_on_what_it_says(element: int) -> None:
    with pytest.raises(Exception, match="out of data bounds"):
        run(zoo.fails_on(10), {"x": np.array([[1], [element]])})


def test_slow_takes_its_time() -> None:
    session, feed = zoo.session(zoo.slow(40)), {"x": ROWS[:, :1]}
    started = time.perf_counter()
    session.run(None, feed)
    assert time.perf_counter() - started > 0.02


@pytest.mark.parametrize(
    ("make", "side", "kind"),
    [
        (zoo.sequence_output, "output", "seq(tensor(float))"),
        (zoo.sequence_input, "input", "seq(tensor(float))"),
        (zoo.map_output, "output", "seq(map(int64,tensor(float)))"),
        (zoo.map_input, "input", "map(int64,tensor(float))"),
    ],
    ids=["sequence_output", "sequence_input", "map_output", "map_input"],
)
def test_refused_models_load_and_show_what_they_are(make: Any, side: str, kind: str) -> None:
    session = zoo.session(make())
    values = session.get_inputs() if side == "input" else session.get_outputs()
    assert [each.type for each in values] == [kind]


def test_write_puts_weights_beside_the_model(tmp_path: Path) -> None:
    model = zoo.external()
    path = zoo.write(model, tmp_path / "deep" / "model.onnx", external=True)
    assert (path.parent / "model.onnx.data").stat().st_size >= 64 * 64 * 4
    answer = ort.InferenceSession(path).run(None, {"x": WIDE_ROWS})[0]
    np.testing.assert_array_equal(answer, run(model, {"x": WIDE_ROWS})[0])


def test_repository_writes_models_by_name_and_version(tmp_path: Path) -> None:
    root = zoo.repository(
        tmp_path / "models", {"one": zoo.add(), "two": {3: zoo.scale(3), 10: zoo.scale(10)}}
    )
    found = sorted(str(path.relative_to(root)) for path in root.rglob("*.onnx"))
    assert found == ["one/1/model.onnx", "two/10/model.onnx", "two/3/model.onnx"]
    answer = ort.InferenceSession(root / "two" / "10" / "model.onnx").run(None, {"x": ROWS})[0]
    np.testing.assert_array_equal(answer, ROWS * 10)
