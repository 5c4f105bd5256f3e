import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import penstock_client
from client.standin import model
from penstock_client import _messages, _tensors
from penstock_client._messages import Signature, Signatures
from penstock_client._wire import input_of
from penstock_proto.v1 import tensor_pb2


def send(spec: str, value: object) -> np.ndarray:
    """What a server reads where `value` is given for an input `x` of this spec."""
    head, raw = Signature(model("m", x=spec)).write({"x": value})
    name, datatype, shape = input_of(head)
    return _tensors.decode(name, tensor_pb2.Tensor(datatype=datatype, shape=shape, raw=raw))


@pytest.mark.parametrize(
    ("spec", "value", "expected"),
    [
        ("FP32 N,1", 2.5, [[2.5]]),
        ("FP32 N", 2.5, [2.5]),
        ("FP32", 2.5, 2.5),
        ("FP32 1,1,1", 2.5, [[[2.5]]]),
        ("FP32 N,1", [1, 2, 3], [[1], [2], [3]]),
        ("FP32 N,1", [1], [[1]]),
        ("FP32 N,1", [], []),
        ("FP32 N,1", [[1], [2]], [[1], [2]]),
        ("FP32 N,3", [1, 2, 3], [[1, 2, 3]]),
        ("FP32 1,3", [1, 2, 3], [[1, 2, 3]]),
        ("FP32 N,L", [1, 2], [[1, 2]]),
        ("FP32 N", [1, 2], [1, 2]),
        ("FP32 N,2,2", [[1, 2], [3, 4]], [[[1, 2], [3, 4]]]),
        ("FP32 N,2,1", [[1, 2], [3, 4]], [[[1], [2]], [[3], [4]]]),
        ("FP32 N,1", np.float32(4), [[4]]),
        ("FP32 N,1", np.array(4.0, np.float32), [[4]]),
        ("FP32 *", [[[1]]], [[[1]]]),
        ("FP32 *", np.ones((1, 2), np.float32), [[1, 1]]),
        ("FP32 *", 1.0, 1.0),
        ("FP32 N,1", (1, 2), [[1], [2]]),
        ("FP64 N", np.array([1, 2], object), [1, 2]),
        ("INT64 N,1", [True, False], [[1], [0]]),
        ("BOOL N", [True, False], [True, False]),
        ("BYTES N,1", "paid", [["paid"]]),
        ("BYTES N,1", ["a", "bc"], [["a"], ["bc"]]),
        ("BYTES N", [b"a", "ü"], ["a", "ü"]),
        ("BYTES N", np.array(["a", "long"]), ["a", "long"]),
        ("BYTES N", np.array([b"a", b"long"]), ["a", "long"]),
        ("BYTES N", np.array(["a", b"b"], object), ["a", "b"]),
        ("BYTES", "x", "x"),
        ("BYTES N,1", np.str_("x"), [["x"]]),
        ("BYTES *", [["x"]], [["x"]]),
    ],
)
def test_values_get_the_shape_of_the_model(spec, value, expected) -> None:
    assert send(spec, value).tolist() == expected


@pytest.mark.parametrize(
    ("spec", "value", "reason"),
    [
        ("FP32 N,3", np.zeros(3, np.float32), "it has 1 axis, expected 2; got a float32 "
         r"array of shape \(3,\), expected FP32\[N,3\]"),
        ("FP32 N,3,1", np.zeros(3, np.float32), "1 axis, expected 3"),
        ("FP32 N", np.zeros((1, 3), np.float32), "2 axes, expected 1"),
        ("FP32 N,3", 1.0, "0 axes, expected 2.*got float 1.0"),
        ("FP32 N,3", [1.0, 2.0], "1 axis, expected 2"),
        ("FP32 2,3", [[1.0], [2, 3]], "not of equal lengths"),
        ("FP32 N", [[1.0], [2.0]], "2 axes, expected 1"),
        ("FP32", [1.0], "1 axis, expected 0"),
        ("INT64 N", [1.5], "the value 1.5 at position 0 does not fit INT64; got"),
        ("INT64 N", [7] * 99 + [2**63, 1.5], "the value 9223372036854775808 at position 99 does not fit "
         "INT64"),
        ("INT64 N", [7] * 99 + [2**64, 1.5], "the value 18446744073709551616 at position 99 does not "
         "fit INT64"),
        ("INT64 N", [-7] * 99 + [2**63, 1.5], "the value 9223372036854775808 at position 99 does not "
         "fit INT64"),
        ("INT64 N", [7] * 99 + [1.5, 2.5], "the value 1.5 at position 99 does not fit INT64; got"),
        ("INT64 N", [7] * 99 + ["x", "y"], "the value 'x' at position 99 is not numeric; got"),
        ("INT64 N", [7] * 99 + [{}, "y"], r"the value {} at position 99 is not numeric, or out of range "
         r"\(dict\)"),
        ("INT64 N,3", [[1, 2, 3], [4, 1.5, 6]], "the value 1.5 at position 4 does not fit INT64; got"),
        ("INT64 N", 2**63, "the value 9223372036854775808 does not fit INT64; got int 9223372036854775808"),
        ("INT64 N", [10**5000], "the value of too many digits at position 0 does not fit INT64; got "
         "list of too many"),
        ("INT64 N", [2**53 + 1, 2.0, 2.5], "the value 2.5 at position 2 does not fit INT64; got"),
        ("UINT8 N", np.array([7] * 99 + [256]), r"the value 256 at position 99 does not fit UINT8; got "
         r"an int64 array"),
        ("UINT8 N", np.array([7, -1]), "the value -1 at position 1 does not fit UINT8"),
        ("BOOL N", [True, False, 2], "the value 2 at position 2 does not fit BOOL"),
        ("FP32 N", [None, 1, 2**24 + 1], "the value 16777217 at position 2 does not fit FP32"),
        ("FP32 N", [None, 1, {}], r"the value {} at position 2 is not numeric, or out of range \(dict\)"),
        ("FP32 N", [None, 1, "x"], "the value 'x' at position 2 is not numeric"),
        ("INT64 N", 1.5, r"got float 1.5, expected INT64\[N\]"),
        ("FP32 N", np.array([0, 1e39]), "the value 1e.39 at position 1 is too large for float32"),
        ("FP32 N", [np.float64(-1e39)], "too large for float32"),
        ("FP32 N", [np.array([1e39])], "too large for float32"),
        ("FP16 N", np.array([0.5, 0.1]), "the value 0.1 at position 1 does not fit FP16; got a float64 "
         "array"),
        ("FP32 N", np.array([2**24 + 1]), "the value 16777217 at position 0 does not fit FP32, which "
         "does not "
         "have every whole number; floating-point numbers are rounded; got an int64 array"),
        ("BF16 N", np.array([0.5, 0.1], np.float32), "the value 0.10000000149011612 at position 1 does "
         "not fit BF16"),
        ("BF16 N", [0.1, 257], "the value 257 at position 1 does not fit BF16, which does not have "
         "every whole"),
        ("BF16 N", [0.1, 2**24 + 1], "the value 16777217 at position 1 does not fit BF16, which"),
        ("FP32 N", ["1"], "not numeric"),
        ("FP32 N", [None, "1"], "not numeric"),
        ("INT64 N", [1, None, None], r"position 1 is missing, and 1 more, and INT64 has no missing"),
        ("INT64 N", np.array([1, np.nan]), "position 1 is missing, and INT64 has no missing values"),
        ("BOOL N", [True, None], "position 1 is missing, .* for example with False"),
        ("FP32 N", {1: 2}, "not numeric"),
        ("INT64 N", [2**70], "the value 1180591620717411303424 at position 0 does not fit INT64"),
        ("FP32 N", [2**70], "the value 1180591620717411303424 at position 0 is not numeric, or out of range"),
        ("FP32 N", np.array(["2020"], "M8[D]"), "not numeric"),
        ("FP32 N", [1j], "not numeric"),
        ("BYTES N", [1], "int 1 is neither text nor bytes"),
        ("BYTES N", ["a", 1], "int 1 is neither"),
        ("BYTES N", ["a", None], r"position 1 is missing \(NoneType None\), and BYTES has no missing values: "
         'fill them in first, for example with ""'),
        ("BYTES N", np.array([1.0]), "neither text nor bytes"),
        ("BYTES N", ["\ud800"], "cannot be written as UTF-8"),
        ("BYTES N,1", [["a"], ["b", "c"]], "neither text nor bytes"),
        ("BYTES N,2", np.array(["a", "b"]), "1 axis, expected 2"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_came_and_what_was_expected(spec, value, reason) -> None:
    with pytest.raises(penstock_client.InvalidInput, match=f'^input "x": .*{reason}'):
        send(spec, value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, [[""]]),
        (float("nan"), [[""]]),
        (["a", None], [["a"], [""]]),
        ([["a"], [np.nan]], [["a"], [""]]),
        (np.array(["a", None], object), [["a"], [""]]),
        (np.array([np.nan, np.nan]), [[""], [""]]),
        (np.array(["NaT"], "M8[s]"), [[""]]),
        (pd.Series(["a", pd.NA], dtype="string"), [["a"], [""]]),
        (pd.Series(["a", np.nan]), [["a"], [""]]),
        (pd.Series(["a", None], dtype="category"), [["a"], [""]]),
        (pa.array(["a", None]), [["a"], [""]]),
        (pa.array([None, None]), [[""], [""]]),
        (pl.Series(["a", None]), [["a"], [""]]),
    ],
    ids=str,
)
def test_a_missing_text_is_what_the_model_says(value: object, expected: object) -> None:
    made = model("m", x="BYTES N,1", y="FP32 N,1")
    made.metadata["penstock.missing_text"] = '""'
    written = Signature(made).write({"x": value, "y": np.zeros((len(expected), 1), np.float32)})
    name, datatype, shape = input_of(written[0])
    came = _tensors.decode(name, tensor_pb2.Tensor(datatype=datatype, shape=shape, raw=written[1]))
    assert came.tolist() == expected
    with pytest.raises(penstock_client.InvalidInput, match="neither text nor bytes"):
        Signature(made).write({"x": [1.0], "y": 0.0})
    del made.metadata["penstock.missing_text"]
    with pytest.raises(penstock_client.InvalidInput, match=r'BYTES has no missing values: fill .* with ""'):
        Signature(made).write({"x": value, "y": 0.0})


def test_long_values_are_not_shown_in_full() -> None:
    with pytest.raises(penstock_client.InvalidInput) as caught:
        send("INT64 N", ["secret"] * 1000)
    assert len(str(caught.value)) < 200


def test_wrong_names_are_refused_with_the_right_ones() -> None:
    signature = Signature(model("m", a="FP32 N,3", b="BYTES N"))
    with pytest.raises(penstock_client.InvalidInput) as caught:
        signature.write_item({"a": 1, "c": 2, "d": 3})
    assert str(caught.value) == (
        "wrong inputs (unknown: 'c', 'd'; missing: 'b'); expected: a FP32[N,3], b BYTES[N]"
    )
    with pytest.raises(penstock_client.InvalidInput, match=r"missing: 'a', 'b'\)"):
        signature.write_item({})
    with pytest.raises(penstock_client.InvalidInput, match="by name, not list"):
        signature.write_item([1])


def test_a_state_that_the_server_keeps_is_not_sent() -> None:
    made = model("m", x="INT64 N")
    made.kept_state.state["total"] = "total_out"
    for send in (Signature(made).write_item, Signature(made).write):
        with pytest.raises(penstock_client.InvalidInput) as caught:
            send({"x": 1, "total": 0})
        assert str(caught.value) == (
            "wrong inputs (unknown: 'total'); expected: x INT64[N]; the server keeps total; requests must "
            "not send it or ask for it"
        )
        with pytest.raises(penstock_client.InvalidInput) as caught:
            send({"x": 1, "y": 0})
        assert "keeps" not in str(caught.value)


def test_only_the_signature_that_was_contradicted_is_forgotten() -> None:
    signatures = Signatures()
    old = signatures.put(("m", ""), model("m"))
    new = signatures.put(("m", ""), model("m", x="FP32"))
    signatures.drop(("m", ""), old)
    assert signatures.get(("m", "")) is new
    signatures.drop(("m", ""), new)
    assert signatures.get(("m", "")) is None


def test_a_model_without_inputs_takes_none() -> None:
    signature = Signature(model("m"))
    assert signature.write_item({}) == []
    with pytest.raises(penstock_client.InvalidInput, match="expected: none"):
        signature.write_item({"x": 1})


def test_more_than_a_message_can_carry_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(_messages, "MAX_BYTES", 11)  # two gigabytes are too much for a test
    with pytest.raises(penstock_client.InvalidInput, match="12 bytes; one request carries at most 11"):
        send("FP32 N", np.zeros(3, np.float32))


def test_things_that_turn_into_arrays_are_arrays() -> None:
    class Column:
        def __array__(self, dtype=None, copy=None):
            return np.array([1.5, 2.5])

    assert send("FP32 N", Column()).tolist() == [1.5, 2.5]
    assert send("FP32 N,1", Column()).tolist() == [[1.5], [2.5]]
    with pytest.raises(penstock_client.InvalidInput, match="1 axis, expected 2"):
        send("FP32 N,2", Column())
