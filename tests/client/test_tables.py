"""Inputs as people have them: tables, records, missing values; and Python's scalars, encoded quickly."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.standin import model
from penstock_client import Client, InvalidInput, _tensors
from penstock_client._frames import loose
from penstock_client._messages import Signature
from penstock_client._wire import input_of
from penstock_proto.v1 import prediction_pb2, tensor_pb2

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")

NAN = math.nan


def sent(written: list[bytes]) -> dict[str, Any]:
    """What a server reads from encoded inputs."""
    request = prediction_pb2.PredictRequest.FromString(b"".join(written))
    return {name: _tensors.decode(name, tensor) for name, tensor in request.inputs.items()}


def send(spec: str, value: object) -> np.ndarray:
    return sent(Signature(model("m", x=spec)).write({"x": value}))["x"]


COLUMNS = {
    "list": [1.5, None, 3.0],
    "object array": np.array([1.5, None, 3.0], object),
    "masked array": np.ma.MaskedArray([1.5, 2.0, 3.0], [False, True, False]),
    "float series": pd.Series([1.5, NAN, 3.0]),
    "nullable series": pd.Series([1.5, None, 3.0], dtype="Float64"),
    "arrow series": pd.Series([1.5, None, 3.0], dtype="float64[pyarrow]"),
    "object series": pd.Series([1.5, pd.NA, 3.0], dtype=object),
    "NaT": pd.Series([1.5, pd.NaT, 3.0], dtype=object),
    "categories": pd.Series(pd.Categorical([1.5, None, 3.0])),
    "decimals": [Decimal("1.5"), None, Decimal(3)],
    "arrow": pa.array([1.5, None, 3.0]),
    "chunks": pa.chunked_array([[1.5, None], [3.0]]),
    "arrow decimals": pa.array([Decimal("1.5"), None, Decimal("3.0")]),
    "dictionary": pa.array([1.5, None, 3.0]).dictionary_encode(),
}


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("spec", ["FP32 N,1", "FP64 N", "FP16 N,1", "BF16 N"])
def test_a_missing_value_is_nan_in_a_floating_point_input(kind: str, spec: str) -> None:
    column = COLUMNS[kind]
    if spec[:4] in {"FP16", "BF16"} and kind not in {"list", "object array", "object series", "NaT"}:
        column = pd.Series(column).astype("float64") if kind != "decimals" else [1.5, None, 3.0]
    values = send(spec, column).astype(float).ravel().tolist()
    assert values == pytest.approx([1.5, NAN, 3.0], nan_ok=True)


WHOLE = {
    "nullable": pd.Series([2**53 + 1, 7], dtype="Int64"),
    "arrow series": pd.Series([2**53 + 1, 7], dtype="int64[pyarrow]"),
    "categories": pd.Series(pd.Categorical([2**53 + 1, 7])),
    "arrow": pa.array([2**53 + 1, 7]),
    "records": [2**53 + 1, 7],
}


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_numbers_stay_exact(kind: str) -> None:
    assert send("INT64 N,1", WHOLE[kind]).tolist() == [[2**53 + 1], [7]]
    with pytest.raises(InvalidInput, match="the value 9007199254740993 at position 0 does not fit FP32"):
        send("FP32 N", WHOLE[kind])


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, None, 2**53 + 1], dtype="Int64"),
        pa.array([1, None, 2**53 + 1]),
        [1, None, 2**53 + 1],
    ],
    ids=["nullable", "arrow", "list"],
)
def test_whole_numbers_beside_a_missing_one_are_not_rounded_unnoticed(column: object) -> None:
    with pytest.raises(InvalidInput, match="the value 9007199254740993 at position 2 does not fit FP64"):
        send("FP64 N", column)
    with pytest.raises(InvalidInput, match="position 1 is missing, and INT64 has no missing values: fill"):
        send("INT64 N", column)


TEXTS = {
    "series": pd.Series(["a", "ü"]),
    "object": pd.Series(["a", "ü"], dtype=object),
    "categories": pd.Series(["a", "ü"], dtype="category"),
    "arrow": pa.array(["a", "ü"]),
    "dictionary": pa.array(["a", "ü"]).dictionary_encode(),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_columns_of_texts(kind: str) -> None:
    assert send("BYTES N,1", TEXTS[kind]).tolist() == [["a"], ["ü"]]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["a", None]),
        pd.Series(["a", pd.NA], dtype="string"),
        pd.Series(["a", None], dtype="category"),
        pa.array(["a", None]),
    ],
    ids=["str", "string", "category", "arrow"],
)
def test_a_missing_text_is_an_error_that_says_what_to_do(column: object) -> None:
    with pytest.raises(
        InvalidInput, match=r"position 1 is missing.*has no missing values: fill them in first"
    ):
        send("BYTES N", column)


def test_bools_with_missing_values() -> None:
    assert send("BOOL N", pd.Series([True, False], dtype="boolean")).tolist() == [True, False]
    with pytest.raises(InvalidInput, match="position 1 is missing"):
        send("BOOL N", pd.Series([True, None], dtype="boolean"))
    assert send("FP32 N", pd.Series([True, None], dtype="boolean")).tolist() == pytest.approx(
        [1, NAN], nan_ok=True
    )


def test_dates_are_not_numbers() -> None:
    with pytest.raises(InvalidInput, match="not numeric; got a Series of datetime64"):
        send("FP32 N", pd.Series(pd.to_datetime(["2020-01-01"])))


def test_a_missing_scalar() -> None:
    for value in (None, NAN, pd.NA, pd.NaT):
        assert math.isnan(send("FP32 N,1", value).item())
        with pytest.raises(InvalidInput, match="missing"):
            send("INT64 N,1", value)


FRAME = {"a": [1, 2], "b": [0.1, NAN], "c": ["x", "y"]}
SIGNATURE = {"a": "FP32 N,1", "b": "FP32 N", "c": "BYTES N,1"}
TABLES = {
    "dict": FRAME,
    "pandas": pd.DataFrame(FRAME),
    "arrow": pa.table(FRAME),
    "batch": pa.table(FRAME).to_batches()[0],
    "records": [{"a": 1, "b": 0.1, "c": "x"}, {"a": 2, "b": None, "c": "y"}],
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_gives_all_inputs(kind: str) -> None:
    found = sent(Signature(model("m", **SIGNATURE)).write(TABLES[kind]))
    assert found["a"].tolist() == [[1], [2]]
    assert found["b"].tolist() == pytest.approx([np.float32(0.1), NAN], nan_ok=True)
    assert found["c"].tolist() == [["x"], ["y"]]


@pytest.mark.parametrize("kind", TABLES)
def test_columns_that_the_model_does_not_take_are_named_or_left_out(kind: str) -> None:
    signature = Signature(model("m", a="FP32 N,1", b="FP32 N"))
    with pytest.raises(
        InvalidInput, match=r"wrong inputs \(unknown: 'c'\); expected: a FP32\[N,1\], b FP32\[N\]"
    ):
        signature.write(TABLES[kind])
    assert sent(signature.write(loose(TABLES[kind], "ignore"))).keys() == {"a", "b"}
    assert sent(signature.write_loose_item(TABLES[kind])).keys() == {"a", "b"}


@pytest.mark.parametrize("kind", TABLES)
def test_the_error_says_how_unknown_columns_are_left_out_unless_a_name_is_wrong(kind: str) -> None:
    hint = 'extra="ignore" leaves out what the model does not take'
    with pytest.raises(InvalidInput, match=hint):
        Signature(model("m", a="FP32 N,1", b="FP32 N")).write(TABLES[kind])
    with pytest.raises(InvalidInput, match="missing: 'd'") as caught:
        Signature(model("m", a="FP32 N,1", b="FP32 N", d="FP32 N")).write(TABLES[kind])
    assert hint not in str(caught.value)


@pytest.mark.parametrize(
    ("items", "hint"),
    [
        (FRAME, r"not dict; \[inputs\] is a stream of one prediction"),
        ("abc", r"not str; \[inputs\] is a stream of one prediction"),
        (TABLES["pandas"], r'not DataFrame; table\.to_dict\("records"\) gives its rows'),
        (TABLES["arrow"], r"not Table; table\.to_pylist\(\) gives its rows"),
        (TABLES["batch"], r"not RecordBatch; table\.to_pylist\(\) gives its rows"),
    ],
)
def test_a_table_is_no_stream(items: Any, hint: str) -> None:
    """Iterating would give the names of its columns."""
    with Client("127.0.0.1:1") as client, pytest.raises(TypeError, match=hint):
        client.predict_stream("m", items)


def test_leaving_out_does_not_hide_what_is_missing() -> None:
    with pytest.raises(InvalidInput, match=r"\(missing: 'd'\)"):
        Signature(model("m", a="FP32 N,1", d="FP32 N")).write(loose(FRAME, "ignore"))
    with pytest.raises(ValueError, match='extra is "error" or "ignore", not \'drop\''):
        loose(FRAME, "drop")  # type: ignore[arg-type]


def test_lists_in_the_cells_of_a_column() -> None:
    sent_rows = send("FP32 N,3", pd.Series([[1, 2, 3], [4, 5, None]]))
    np.testing.assert_array_equal(sent_rows, [[1, 2, 3], [4, 5, NAN]])
    with pytest.raises(InvalidInput, match="the value at position 3 is missing, and INT64 has no"):
        send("INT64 N,2", pd.Series([[1, 2], [3, None]]))
    with pytest.raises(InvalidInput, match="the value at position 1 is missing, where others are lists"):
        send("FP32 N,3", pd.Series([[1, 2, 3], None]))
    with pytest.raises(InvalidInput, match=r"at position 1 is not numeric, or out of range \(dict\)"):
        send("FP32 N,1", pd.Series([1, {}], dtype=object))


def test_no_records_are_told_apart_from_other_lists() -> None:
    for nothing in ([], ()):
        with pytest.raises(InvalidInput, match=r"of records will do as well \(this one is empty\)$"):
            Signature(model("m", x="FP32 N,1")).write(nothing)
    with pytest.raises(InvalidInput, match=r"a dict by name, not list; .* as well$"):
        Signature(model("m", x="FP32 N,1")).write([1])


def test_a_vector_may_have_columns_of_its_own() -> None:
    signature = Signature(model("m", x="FP32 N,2", y="FP32 N"))
    frame = pd.DataFrame({"x.0": [1, 2], "y": [5, 6], "x.1": [3, None]})
    found = sent(signature.write(frame))
    assert found["x"].tolist() == [[1, 3], [2, pytest.approx(NAN, nan_ok=True)]]
    assert sent(signature.write(frame.assign(**{"x.2": 0})))["x"].shape == (2, 3)  # for the server to reject
    assert send("FP32 N,2", frame[["x.0", "x.1"]])[0].tolist() == [1, 3]


def test_tables_that_cannot_be_used() -> None:
    signature = Signature(model("m", a="FP32 N"))
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(InvalidInput, match="several columns have the same name: 'a'"):
        signature.write(twice)
    with pytest.raises(InvalidInput, match="record 1 has no value for 'a'; a missing number is None or NaN"):
        signature.write([{"a": 1}, {"b": 2}])
    with pytest.raises(InvalidInput, match="by name, not list; a DataFrame"):
        signature.write([])


SCALARS = st.one_of(
    st.floats(), st.integers(-(2**65), 2**65), st.booleans(), st.none(), st.text(max_size=5),
    st.binary(max_size=5), st.floats().map(np.float64), st.integers(-(2**63), 2**63 - 1).map(np.int64),
)  # fmt: skip
DATATYPES = [
    name for name in tensor_pb2.DataType.DESCRIPTOR.values_by_name if name != "DATA_TYPE_UNSPECIFIED"
]


def outcome(write: Any, inputs: object) -> object:
    try:
        return {
            name: (array.dtype, array.shape, array.tolist()) for name, array in sent(write(inputs)).items()
        }
    except InvalidInput as error:
        return str(error)


@given(st.lists(st.tuples(st.sampled_from(DATATYPES), SCALARS), min_size=1, max_size=5))
def test_quick_encoding_does_what_numpy_does(pairs: list[tuple[str, object]]) -> None:
    made = {f"x{place}": f"{datatype} N,1" for place, (datatype, _) in enumerate(pairs)}
    inputs = {f"x{place}": value for place, (_, value) in enumerate(pairs)}
    quick, slow = Signature(model("m", **made)), Signature(model("m", **made))
    slow._planned = False
    for spec in slow._inputs.values():
        spec._quick = {}
    expected = repr(outcome(slow.write, inputs))
    assert repr(outcome(quick.write, inputs)) == expected
    assert repr(outcome(quick.write, inputs)) == expected  # by the plan that was made
    assert repr(outcome(quick.write_apart, inputs)) == expected


@given(st.sampled_from(["FP16", "FP32", "FP64"]), st.lists(st.floats(), min_size=1, max_size=4))
def test_lists_of_floats_are_encoded_as_numpy_does(datatype: str, values: list[float]) -> None:
    for axes in ("N", f"N,{len(values)}", "N,1"):
        signature = Signature(model("m", x=f"{datatype} {axes}"))
        expected = repr(outcome(signature.write, {"x": [*map(np.array, values)]}))
        if "does not fit" in expected or "large" in expected:
            continue
        assert repr(outcome(signature.write, {"x": values})) == expected


def test_many_scalars_need_no_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    signature = Signature(model("m", **{f"c{place}": "FP32 N,1" for place in range(60)}, t="BYTES N,1"))
    record = {f"c{place}": place / 7 for place in range(60)} | {"t": "text"}
    expected = sent(signature.write_apart({name: [value] for name, value in record.items()}))

    def refuse(*_: object) -> None:
        raise AssertionError("this goes through numpy")

    monkeypatch.setattr("penstock_client._inputs.column_of", refuse)
    monkeypatch.setattr("penstock_client._inputs._objects", refuse)
    for write in (signature.write, signature.write_apart):
        found = sent(write(record))
        assert {name: array.tolist() for name, array in found.items()} == {
            name: array.tolist() for name, array in expected.items()
        }


def test_what_is_in_a_list_is_still_checked() -> None:
    head, raw = Signature(model("m", x="FP32 N,3")).write({"x": [0.1, 0.2, 0.3]})
    assert input_of(head) == ("x", tensor_pb2.FP32, (1, 3))
    assert raw == np.array([0.1, 0.2, 0.3], "<f4").tobytes()
    for values in ([0.1, 1e39, 0.0], [0.1, 0.2]):
        with pytest.raises(InvalidInput):
            send("FP32 N,3", values)
