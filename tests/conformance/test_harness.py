"""The conformance harness sees what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from penstock.core.tensors import DataType
from tests.conformance import graphs
from tests.conformance.batching import Answered
from tests.conformance.closeness import apart, is_within
from tests.conformance.page import groups
from tests.conformance.suite import Shared
from tests.conformance.tensors import Raw, difference, packed
from tests.conformance.variants import ROWS, Rows, Variant, examine, with_open_axis


def raw(*values: float, datatype: DataType = DataType.FP32) -> Raw:
    return packed(np.array(values, datatype.dtype), datatype)


def test_the_same_bits_are_no_difference() -> None:
    assert difference({"y": raw(1, np.nan)}, {"y": raw(1, np.nan)}) is None


@pytest.mark.parametrize(
    ("came", "words"),
    [
        ({}, "outputs"),
        ({"y": raw(1, 2), "z": raw(1)}, "outputs"),
        ({"y": raw(1, 2, 3)}, "FP32[3], not FP32[2]"),
        ({"y": raw(1, 2, datatype=DataType.FP64)}, "FP64[2], not FP32[2]"),
        ({"y": raw(1, np.nextafter(np.float32(2), np.float32(3)))}, "at 1"),
    ],
)
def test_any_other_is_one(came: dict[str, Raw], words: str) -> None:
    assert words in str(difference({"y": raw(1, 2)}, came))


def test_zeros_of_other_signs_differ() -> None:
    assert difference({"y": raw(0.0)}, {"y": raw(-0.0)}) is not None


def test_text_is_packed_as_the_protocol_has_it() -> None:
    made = packed(np.array(["", "ü"], object), DataType.BYTES)
    assert made == ("BYTES", (2,), b"\0\0\0\0\2\0\0\0\xc3\xbc")


def test_another_datatype_is_not_taken() -> None:
    with pytest.raises(TypeError):
        packed(np.zeros(1, np.float64), DataType.FP32)


@pytest.mark.parametrize(
    ("one", "other", "close"),
    [
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0, 2.0], [1.0, 2.00001], True),
        ([1.0, 2.0], [1.0, 2.01], False),
        ([1.0, np.nan], [1.0, np.nan], True),
        ([1.0, np.nan], [1.0, 2.0], False),
        ([1.0, np.inf], [1.0, -np.inf], False),
        ([1.0], [1.0, 1.0], False),
    ],
)
def test_closeness(one: list[float], other: list[float], close: bool) -> None:
    first, second = (np.array([each], np.float32) for each in (one, other))
    assert is_within(DataType.FP32, apart(DataType.FP32, first, first, second)) == close


def test_integers_are_equal_or_not() -> None:
    first, second = np.array([[1000000]]), np.array([[1000001]])
    assert not is_within(DataType.INT64, apart(DataType.INT64, first, first, second))


@pytest.mark.parametrize(
    ("model", "verdict"),
    [
        (graphs.model([graphs.node("Abs", "x")]), Rows.EQUAL),
        (graphs.along("Softmax"), Rows.MIXED),
        (graphs.model([graphs.node("Abs", "x")], TensorProto.INT64), Rows.EQUAL),
        (graphs.model([graphs.node("RandomNormalLike", "x")]), Rows.RANDOM),
        (graphs.model([graphs.node("Reshape", "x s")], s=graphs.ints(1, 4)), Rows.NOT_RUN),
    ],
)
def test_rows_are_compared(tmp_path: Path, model: onnx.ModelProto, verdict: Rows) -> None:
    variant = Variant("one", "one", model)
    examine(variant, graphs.rows(model, ROWS), tmp_path)
    assert variant.verdict is verdict


def test_inputs_without_rows_become_constants() -> None:
    two = graphs.model([graphs.node("Add", "x other")], extra="other")
    values = {name: np.ones((1, 4), np.float32) for name in ("x", "other")}
    made = with_open_axis(two, values, ["x"])
    assert [info.name for info in made.graph.input] == ["x"]
    assert [tensor.name for tensor in made.graph.initializer] == ["other"]
    assert made.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize(
    ("verdict", "batched", "answered", "words"),
    [
        (Rows.EQUAL, True, Answered(4, 2, 4), None),
        (Rows.CLOSE, True, Answered(4, 2, 3, 1e-7), None),
        (Rows.EQUAL, False, Answered(4, 1, 4), None),
        (Rows.EQUAL, True, Answered(4, 1, 4), "never ran together"),
        (Rows.EQUAL, True, Answered(4, 2, 3, wrong=["y differs"]), "y differs"),
        (Rows.MIXED, True, None, "batched, though its rows are mixed"),
        (Rows.MIXED, False, Answered(4, 1, 3), "not the same"),
    ],
)
def test_what_is_a_failure(
    verdict: Rows, batched: bool, answered: Answered | None, words: str | None
) -> None:
    variant = Variant("one", "one", onnx.ModelProto(), verdict=verdict)
    failure = Shared(variant, batched, "", answered).failure
    assert (failure is None) == (words is None)
    assert (words or "") in (failure or "")


def test_reasons_that_differ_in_names_only_are_one() -> None:
    found = groups(
        [("a", "input x is tensor(int4): no"), ("b", "input y is tensor(int4): no"), ("c", "else")]
    )
    assert found == {"input … is tensor(int4): no": ["a", "b"], "else": ["c"]}
