"""Tables and columns of polars: answered as those of pandas are, or an error that says what to do."""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np
import pytest

from client.standin import model
from penstock_client import Client, InvalidInput, _tensors
from penstock_client._messages import Signature
from penstock_proto.v1 import prediction_pb2

pl = pytest.importorskip("polars")

NAN = math.nan


def send(table: object, **inputs: str) -> dict[str, Any]:
    """What a server reads from a table."""
    written = Signature(model("m", **inputs)).write(table)
    request = prediction_pb2.PredictRequest.FromString(b"".join(written))
    return {name: _tensors.decode(name, tensor) for name, tensor in request.inputs.items()}


def column(values: Any, spec: str, kind: Any = None) -> Any:
    """What a server reads from a column, which is sent as one of a table and by itself."""
    series = pl.Series("x", values, dtype=kind)
    found = send(series.to_frame(), x=spec)["x"]
    assert repr(send({"x": series}, x=spec)["x"].tolist()) == repr(found.tolist())  # NaN as well
    return found


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1.5, None, 3.0], pl.Float64, [1.5, NAN, 3.0]),
        ([1.5, NAN], pl.Float32, [1.5, NAN]),
        ([1, None, 2], pl.Int64, [1, NAN, 2]),
        ([True, None, False], pl.Boolean, [1, NAN, 0]),
        ([None, None], pl.Null, [NAN, NAN]),
        (["1.5", None], pl.Decimal(10, 2), [1.5, NAN]),
        ([], pl.Float64, []),
    ],
)
@pytest.mark.parametrize("spec", ["FP32 N", "FP32 N,1", "FP64 N,1", "FP16 N", "BF16 N,1"])
def test_numbers_and_missing_ones(spec: str, values: list[Any], kind: Any, expected: list[float]) -> None:
    found = column(values, spec, kind)
    assert found.ndim == spec.count(",") + 1
    np.testing.assert_array_equal(found.ravel().astype(float), expected)


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical, pl.Enum(["a", "ü"])])
def test_texts(kind: Any) -> None:
    assert column(["a", "ü", "a"], "BYTES N,1", kind).ravel().tolist() == ["a", "ü", "a"]
    with pytest.raises(
        InvalidInput, match=r'position 1 is missing .*fill them in first, for example with ""'
    ):
        column(["a", None], "BYTES N", kind)


def test_vectors_as_lists_arrays_and_columns() -> None:
    rows = [[1.0, 2.0, 3.0], [4.0, NAN, 6.0]]
    frame = pl.DataFrame(rows, schema=["x.0", "x.1", "x.2"], orient="row")
    for found in (
        column(rows, "FP32 N,3", pl.List(pl.Float64)),
        column(rows, "FP32 N,3", pl.Array(pl.Float64, 3)),
        send(frame, x="FP32 N,3")["x"],
        send({"x": frame}, x="FP32 N,3")["x"],
        send({"x": frame.with_columns(pl.col("x.1").replace(NAN, None))}, x="FP32 N,3")["x"],
    ):
        np.testing.assert_array_equal(found, rows)


def test_a_table_of_several_columns_and_its_records() -> None:
    frame = pl.DataFrame({"a": [1.5, None], "b": ["x", "y"], "c": [1, 2]})
    specs = {"a": "FP32 N,1", "b": "BYTES N,1", "c": "INT64 N,1"}
    for table in (frame, frame.to_dicts(), frame.lazy().collect(), frame.slice(0, 2)):
        found = send(table, **specs)
        assert repr(found["a"].ravel().tolist()) == "[1.5, nan]"
        assert (found["b"].ravel().tolist(), found["c"].ravel().tolist()) == (["x", "y"], [1, 2])


@pytest.mark.parametrize(
    ("table", "spec", "words"),
    [
        (
            pl.LazyFrame({"x": [1.0]}),
            "FP32 N",
            r"a LazyFrame has no values yet: send what its collect\(\) gives",
        ),
        (pl.Series("x", [1.0]), "FP32 N", "a dict by name, not Series; a DataFrame"),
        (pl.DataFrame({"x": [1, None]}), "INT64 N", "position 1 is missing, and INT64 has no missing values"),
        (pl.DataFrame({"x": [True, None]}), "BOOL N", "position 1 is missing, .* for example with False"),
        (pl.DataFrame({"x": [1e300]}), "FP32 N", r"1e\+300 at position 0 is too large"),
        (pl.DataFrame({"x": [datetime.date(2020, 1, 1)]}), "FP32 N", "not numeric; got a Series of Date"),
        (pl.DataFrame({"x": [1.0], "id": [7]}), "FP32 N", "unknown: 'id'"),
        (pl.DataFrame({"y": [1.0]}), "FP32 N", "missing: 'x'"),
        (pl.DataFrame({"x": ["a"]}), "FP32 N", "not numeric"),
        (pl.DataFrame({"x": [{"a": 1, "b": 2}]}), "FP32 N", "it has 2 axes, expected 1"),
    ],
)
def test_what_cannot_be_sent_is_said(table: object, spec: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        send(table, x=spec)


def test_a_table_is_no_stream() -> None:
    with (
        Client("127.0.0.1:1") as client,
        pytest.raises(TypeError, match=r"not DataFrame; table\.to_dicts\(\) gives its rows"),
    ):
        client.predict_stream("m", pl.DataFrame({"a": [1]}))
