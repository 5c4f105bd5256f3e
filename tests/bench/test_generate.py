"""Inputs that are generated from a signature."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock.core.tensors import DataType
from penstock_bench.errors import BenchError
from penstock_bench.generate import Wishes, generated
from penstock_bench.payloads import Encoder, Payload, stacked
from penstock_client import TensorInfo
from support.dtypes import SMALL


def info(name: str, datatype: str = "FP32", *shape: int | str) -> TensorInfo:
    return TensorInfo(name, datatype, shape)


def one(*inputs: TensorInfo, **wishes: Any) -> Payload:
    [payload] = generated(inputs, Wishes(distinct=1, **wishes))
    return payload


def arrays(payload: Payload) -> dict[str, np.ndarray]:
    return {name: tensor.array() for name, tensor in payload.tensors.items()}


@pytest.mark.parametrize("datatype", DataType, ids=str)
def test_every_datatype(datatype: DataType) -> None:
    x = one(info("x", datatype.label, "N", 5), rows=3).tensors["x"]
    assert (x.datatype, x.shape) == (datatype.label, (3, 5))
    array = x.array()
    assert array.shape == (3, 5)
    assert len(set(array.ravel().tolist())) > 1
    if datatype in SMALL:
        assert array.astype(SMALL[datatype]).astype(np.float32).tolist() == array.tolist()
    elif datatype is not DataType.BYTES:
        assert array.dtype == datatype.dtype


def test_the_same_seed_gives_the_same_inputs() -> None:
    wanted = [info("x", "FP32", "N", 4), info("word", "BYTES", "N")]
    first, again, other = (generated(wanted, Wishes(seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len({payload.tensors["x"].raw for payload in first}) == 16


def test_rows_are_the_open_first_axis() -> None:
    payload = one(info("a", "FP32", "N", 2), info("b", "INT64", "?"), info("c", "FP32", 1, 2), rows=7)
    assert {name: tensor.shape for name, tensor in payload.tensors.items()} == {
        "a": (7, 2),
        "b": (7,),
        "c": (1, 2),
    }
    assert payload.rows == 7
    assert payload.size == 7 * 2 * 4 + 7 * 8 + 2 * 4


def test_a_shape_holds_for_axes_of_the_same_name() -> None:
    payload = one(info("a", "FP32", "N", "L"), info("b", "FP32", "L", "N"), shapes={"a": (2, 5)})
    assert payload.tensors["b"].shape == (5, 2)
    assert payload.rows == 2


def test_any_rank_takes_the_shape_that_is_given() -> None:
    payload = one(TensorInfo("x", "FP32", None), shapes={"x": (2, 3, 4)})
    assert (payload.tensors["x"].shape, payload.rows) == ((2, 3, 4), 2)


def test_a_model_without_an_open_axis_has_one_row() -> None:
    assert one(info("x", "FP32", 4)).rows == 1
    assert one(info("x", "FP32")).tensors["x"].shape == ()


def test_ranges_and_choices() -> None:
    inputs = [info("i", "INT8", "N"), info("f", "FP64", "N"), info("s", "BYTES", "N"), info("b", "BOOL", "N")]
    made = arrays(
        one(
            *inputs,
            rows=500,
            ranges={"i": (-2, 1), "f": (10, 11)},
            choices={"s": ["x", "ü"], "b": ["true"]},
        )
    )
    assert set(made["i"].tolist()) == {-2, -1, 0, 1}
    assert ((made["f"] >= 10) & (made["f"] < 11)).all()
    assert set(made["s"].tolist()) == {"x", "ü"}
    assert made["b"].all()


def test_numbers_can_be_chosen_too() -> None:
    inputs = [info("i", "UINT16", "N"), info("h", "FP16", "N"), info("b", "BF16", "N")]
    made = arrays(one(*inputs, rows=100, choices={"i": ["7", "9"], "h": ["0.5", "2"], "b": ["-1", "0.25"]}))
    assert [set(made[name].tolist()) for name in "ihb"] == [{7, 9}, {0.5, 2.0}, {-1.0, 0.25}]


@pytest.mark.parametrize(
    ("shape", "wishes", "said"),
    [
        (("N", "L"), {}, "--shape x:1,1"),
        (("N", 3, "L"), {"rows": 2}, "axis L is open"),
        (None, {}, "any shape"),
        (("N", 3), {"shapes": {"x": (1, 4)}}, r"x.*\[1, 4\]"),
        (("N", 3), {"shapes": {"x": (3,)}}, r"x.*\[3\]"),
        (("N", "N"), {"shapes": {"x": (2, 3)}}, r"\[2, 3\]"),
        (("N", 3), {"shapes": {"x": (2, 3)}, "rows": 4}, "--rows 4"),
        (("N", 3), {"shapes": {"z": (1,)}}, '--shape: no input "z"; inputs: x'),
        (("N", 3), {"ranges": {"z": (0, 1)}}, "--range: no input"),
        (("N", 3), {"choices": {"z": ["a"]}}, "--choices: no input"),
        (("N", 3), {"choices": {"x": ["a"]}}, "--choices.*got a"),
    ],
)
def test_what_cannot_be_is_refused(shape: Any, wishes: dict[str, Any], said: str) -> None:
    with pytest.raises(BenchError, match=said):
        one(TensorInfo("x", "FP32", shape), **wishes)


@pytest.mark.parametrize(
    ("datatype", "wishes", "said"),
    [
        ("INT8", {"ranges": {"x": (0, 128)}}, "0 to 128 does not fit"),
        ("INT8", {"ranges": {"x": (0, 1.5)}}, "does not fit"),
        ("BYTES", {"ranges": {"x": (0, 1)}}, "not of numbers"),
        ("BOOL", {"choices": {"x": ["maybe"]}}, "got maybe"),
        ("INT8", {"choices": {"x": ["300"]}}, "300 to 300 does not fit"),
    ],
)
def test_values_that_do_not_fit_the_datatype(datatype: str, wishes: dict[str, Any], said: str) -> None:
    with pytest.raises(BenchError, match=said):
        one(info("x", datatype, "N"), **wishes)


def test_stacked_rows_are_one_request() -> None:
    inputs = [info("x", "FP32", "N", 2), info("s", "BYTES", "N", 1)]
    singles = generated(inputs, Wishes(distinct=3))
    whole = stacked(singles)
    assert (whole.rows, whole.tensors["x"].shape) == (3, (3, 2))
    for name in "xs":
        parts = [single.tensors[name].array() for single in singles]
        assert whole.tensors[name].array().tolist() == np.concatenate(parts).tolist()


def test_rows_of_different_shapes_cannot_be_stacked() -> None:
    inputs = [info("x", "FP32", "N", "L")]
    parts = [one(*inputs, shapes={"x": (1, length)}) for length in (2, 3)]
    with pytest.raises(BenchError, match=r"\[1, 2\], \[1, 3\]"):
        stacked(parts)


def test_wrong_names_and_values_are_refused() -> None:
    encoder = Encoder([info("x", "FP32", "N", 2)])
    with pytest.raises(BenchError, match=r"inputs are y; expected: x FP32\[N,2\]"):
        encoder.payload({"y": 1})
    with pytest.raises(BenchError, match='input "x"'):
        encoder.payload({"x": "text"})
