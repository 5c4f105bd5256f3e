"""Typed lists become the model's datatype where every value fits, and are refused where one does not."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.core.errors import InvalidRequest
from penstock.core.minifloats import BY_BITS, narrowed, widened
from penstock.core.tensors import Array, DataType, Kind
from penstock.protocols import typed_lists as values
from penstock_proto.v1.tensor_pb2 import Tensor
from support.dtypes import NO_INFINITY
from support.work import spec

INTEGERS = [each for each in DataType if each.kind in (Kind.INT, Kind.UINT)]
FLOATS = [each for each in DataType if each.kind in (Kind.FLOAT, Kind.DOUBLE)]


def ids(value: object) -> str:
    return str(value)


def read(datatype: DataType, field: str, *given: Any) -> Array:
    """What becomes of the values of a real message."""
    message = Tensor()
    getattr(message, field).extend(given)
    message = Tensor.FromString(message.SerializeToString())
    array = values.read(spec("x", ("N",), datatype), field, getattr(message, field))
    assert array.dtype == datatype.dtype
    assert array.shape == (len(given),)
    return array


def refused(datatype: DataType, field: str, *given: Any) -> str:
    with pytest.raises(InvalidRequest) as error:
        read(datatype, field, *given)
    text = str(error.value)
    assert text.startswith("input x: ")
    assert str(datatype) in text
    return text


def bounds(datatype: DataType) -> tuple[int, int]:
    info = np.iinfo(datatype.dtype)
    return int(info.min), int(info.max)


# Integers


@pytest.mark.parametrize("datatype", INTEGERS, ids=ids)
def test_integers_fit_up_to_the_bounds_and_not_beyond(datatype: DataType) -> None:
    low, high = bounds(datatype)
    for field, lowest, highest in (("int_values", -(2**63), 2**63 - 1), ("uint_values", 0, 2**64 - 1)):
        for value in (low, high, 0, 1):
            if lowest <= value <= highest:
                assert read(datatype, field, value).tolist() == [value]
        for value in (low - 1, high + 1, lowest, highest):
            if lowest <= value <= highest and not low <= value <= high:
                text = refused(datatype, field, 1, value, 1)
                assert f"the value {value} at position 1 does not fit {datatype}" in text


@pytest.mark.parametrize("field", ["float_values", "double_values"])
@pytest.mark.parametrize("datatype", INTEGERS, ids=ids)
def test_whole_floating_point_numbers_become_integers_within_the_bounds(
    datatype: DataType, field: str
) -> None:
    low, high = bounds(datatype)
    kind = np.float32 if field == "float_values" else np.float64
    # The numbers next to the bounds that the list can hold, inside and outside.
    inside, outside = [kind(low), kind(0), kind(-0.0)], [np.nextafter(kind(low), kind(-np.inf)) - 1]
    top = kind(high)
    while int(top) > high:
        outside.append(top)
        top = np.nextafter(top, kind(0))
    inside.append(np.trunc(top))
    outside.append(kind(2.0 ** round(math.log2(high))))
    for value in inside:
        assert read(datatype, field, float(value)).tolist() == [int(value)]
    for value in outside:
        refused(datatype, field, float(value))


@pytest.mark.parametrize("value", [1.5, -0.25, 1e-300, math.nan, math.inf, -math.inf, 1e300])
@pytest.mark.parametrize("datatype", INTEGERS, ids=ids)
def test_nothing_is_cut_off_to_become_an_integer(datatype: DataType, value: float) -> None:
    text = refused(datatype, "double_values", 1.0, value)
    assert "at position 1" in text
    assert str(value).removesuffix("0") in text


def test_the_first_value_that_does_not_fit_is_named() -> None:
    assert "the value 300 at position 2" in refused(DataType.UINT8, "int_values", 1, 255, 300, -1)


# Floating point


@pytest.mark.parametrize("field", ["float_values", "double_values"])
@pytest.mark.parametrize("datatype", [each for each in FLOATS if each not in NO_INFINITY], ids=ids)
def test_what_is_no_number_stays_what_it_is(datatype: DataType, field: str) -> None:
    array = read(datatype, field, math.nan, math.inf, -math.inf, -0.0)
    numbers = widened(datatype, array) if datatype in BY_BITS else array
    assert np.isnan(numbers[0])
    assert numbers[1:3].tolist() == [math.inf, -math.inf]
    assert math.copysign(1, numbers[3]) == -1


@pytest.mark.parametrize("datatype", NO_INFINITY, ids=ids)
def test_where_there_is_no_infinity_none_is_taken(datatype: DataType) -> None:
    array = read(datatype, "float_values", math.nan, 1.0)
    assert np.isnan(widened(datatype, array)[0])
    for value in (math.inf, -math.inf):
        assert f"the value {value} at position 0" in refused(datatype, "float_values", value)


@pytest.mark.parametrize(
    ("datatype", "largest", "too_large"),
    [
        # Rounded to the nearest, numbers up to half a step above the largest still are the largest.
        (DataType.FP16, 65504.0, 65520.0),
        (DataType.FP16, 65519.99, 65520.0),
        (DataType.FP32, float(np.finfo("<f4").max), 1e39),
        (DataType.FP32, 3.4028235677973362e38, 3.4028235677973366e38),
        (DataType.BF16, 3.3895313892515355e38, 3.4028234663852886e38),
        (DataType.BF16, 3.3961775292304e38, 3.3961775292304e38 * (1 + 1e-12)),
        (DataType.FP8E4M3FN, 464.0, 464.1),  # the largest, 448, is the even one
        (DataType.FP8E4M3FNUZ, 247.9, 248.0),
        (DataType.FP8E5M2, 61439.9, 61440.0),
        (DataType.FP8E5M2FNUZ, 61439.9, 61440.0),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_may_be_rounded_but_not_become_infinite(
    datatype: DataType, largest: float, too_large: float, sign: int
) -> None:
    array = read(datatype, "double_values", sign * largest)
    assert np.isfinite(widened(datatype, array) if datatype in BY_BITS else array).all()
    assert f"{sign * too_large}" in refused(datatype, "double_values", sign * too_large)


def test_numbers_are_rounded_to_the_nearest() -> None:
    assert read(DataType.FP32, "double_values", 0.1, 1e-46).tolist() == [float(np.float32(0.1)), 0.0]
    assert read(DataType.FP16, "float_values", 0.1, 1e-9).tolist() == [float(np.float16(0.1)), 0.0]
    assert read(DataType.FP64, "double_values", 0.1).tolist() == [0.1]
    assert read(DataType.FP64, "float_values", 0.1).tolist() == [float(np.float32(0.1))]


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1.0, 0x3F80),
        (1.00390625, 0x3F80),  # in the middle: the even one
        (1.01171875, 0x3F82),  # in the middle: the even one
        (1.00390625 + 2**-23, 0x3F81),  # above the middle, as single precision knows
        (1.00390625 + 2**-40, 0x3F81),  # above the middle, as single precision does not know
        (1.01171875 - 2**-40, 0x3F81),
        (-(1.00390625 + 2**-40), 0xBF81),
        (2.0**-133, 0x0001),  # the least
        (2.0**-134, 0x0000),
        (2.0**-134 * (1 + 2**-50), 0x0001),
        (5e-324, 0x0000),
        (-5e-324, 0x8000),
    ],
)
def test_bf16_is_rounded_once_and_ties_to_even(value: float, bits: int) -> None:
    assert read(DataType.BF16, "double_values", value).tolist() == [bits]


def exact(bits: int) -> Fraction:
    return Fraction(struct.unpack("<f", struct.pack("<I", bits << 16))[0])


@given(st.floats(-3.38e38, 3.38e38, allow_nan=False))
@example(1.00390625)
def test_bf16_is_always_the_nearest(value: float) -> None:
    (bits,) = read(DataType.BF16, "double_values", value).tolist()
    near = [each for each in (bits - 1, bits, bits + 1) if 0 <= each < 2**16 and (each & 0x7F80) != 0x7F80]
    distance = {each: abs(exact(each) - Fraction(value)) for each in near}
    assert distance[bits] == min(distance.values())
    ties = [each for each in near if distance[each] == distance[bits] and exact(each) != exact(bits)]
    assert not ties or bits % 2 == 0


@given(st.integers(0, 2**16 - 1))
def test_bf16_comes_back_from_single_precision_bit_for_bit(bits: int) -> None:
    array = np.array([bits], np.uint16)
    again = narrowed(DataType.BF16, widened(DataType.BF16, array))
    if (bits & 0x7F80) == 0x7F80 and bits & 0x7F:
        assert again[0] == bits | 0x40, "a NaN becomes a quiet one"
    else:
        assert again[0] == bits


@pytest.mark.parametrize("payload", [0x7FF0000000000001, 0xFFF0000000000001, 0x7FF8000000000001])
@pytest.mark.parametrize("datatype", FLOATS, ids=ids)
def test_odd_nans_become_nans_without_a_warning(datatype: DataType, payload: int) -> None:
    data = struct.pack("<Q", payload)
    message = Tensor.FromString(b"\x42\x08" + data)  # double_values, packed
    array = values.read(spec("x", ("N",), datatype), "double_values", message.double_values)
    assert np.isnan(widened(datatype, array) if datatype in BY_BITS else array).all()


@pytest.mark.parametrize(
    ("datatype", "value", "fits"),
    [
        (DataType.FP64, 2**53, True),
        (DataType.FP64, 2**53 + 1, False),
        (DataType.FP64, -(2**53) - 1, False),
        (DataType.FP64, 2**53 + 2, True),
        (DataType.FP64, 2**63 - 1, False),
        (DataType.FP64, -(2**63), True),
        (DataType.FP32, 2**24, True),
        (DataType.FP32, 2**24 + 1, False),
        (DataType.FP32, 2**62, True),
        (DataType.FP16, 2048, True),
        (DataType.FP16, 2049, False),
        (DataType.FP16, 65504, True),
        (DataType.FP16, 65505, False),
        (DataType.FP16, 65536, False),
        (DataType.BF16, 256, True),
        (DataType.BF16, 257, False),
        (DataType.BF16, 258, True),
    ],
)
def test_an_integer_survives_unchanged_or_is_refused(datatype: DataType, value: int, fits: bool) -> None:
    for field in ("int_values", "uint_values"):
        if field == "uint_values" and value < 0:
            continue
        if fits:
            array = read(datatype, field, value)
            assert int((widened(datatype, array) if datatype in BY_BITS else array)[0]) == value
        else:
            assert f"the value {value} at position 1" in refused(datatype, field, 0, value)


@pytest.mark.parametrize(("value", "fits"), [(2**64 - 1, False), (2**63, True), (2**64 - 2**11, True)])
def test_large_unsigned_integers_into_floating_point(value: int, fits: bool) -> None:
    if fits:
        assert int(read(DataType.FP64, "uint_values", value)[0]) == value
    else:
        refused(DataType.FP64, "uint_values", value)


# Truth and text


def test_truth_is_for_bool_and_nothing_else_is() -> None:
    assert read(DataType.BOOL, "bool_values", True, False).tolist() == [True, False]
    for field, value in (
        ("int_values", 1),
        ("uint_values", 0),
        ("float_values", 1.0),
        ("string_values", "true"),
    ):
        assert f"{field} cannot be given for BOOL" in refused(DataType.BOOL, field, value)


@pytest.mark.parametrize("datatype", [*INTEGERS, *FLOATS], ids=ids)
@pytest.mark.parametrize(
    ("field", "value"), [("bool_values", True), ("string_values", "1"), ("bytes_values", b"1")]
)
def test_truth_and_text_are_no_numbers(datatype: DataType, field: str, value: object) -> None:
    assert f"{field} cannot be given for {datatype}" in refused(datatype, field, value)


def test_text_comes_as_text_or_as_bytes() -> None:
    texts = ["", "\0", "a\0b", "grüße 😀\U0010ffff"]
    for array in (
        read(DataType.BYTES, "string_values", *texts),
        read(DataType.BYTES, "bytes_values", *(text.encode() for text in texts)),
    ):
        assert array.tolist() == texts
        assert all(type(text) is str for text in array)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff", "element 1 is not UTF-8 (invalid start byte at byte 0)"),
        (b"ab\xc3", "element 1 is not UTF-8 (unexpected end of data at byte 2)"),
        (b"\xed\xa0\x80", "element 1 is not UTF-8"),  # half of a surrogate pair
        (b"\xc0\x80", "element 1 is not UTF-8"),  # a NUL in two bytes
    ],
)
def test_bytes_that_are_no_text_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        read(DataType.BYTES, "bytes_values", b"fine", data)
    assert words in str(error.value)
    assert str(error.value).startswith("input x: ")
    assert error.value.__suppress_context__


@pytest.mark.parametrize(
    ("field", "value"), [("int_values", 1), ("bool_values", True), ("double_values", 1.0)]
)
def test_numbers_are_no_text(field: str, value: object) -> None:
    assert "use string_values" in refused(DataType.BYTES, field, value)


# There and back


@pytest.mark.parametrize(
    ("datatype", "field", "numbers"),
    [
        (DataType.BOOL, "bool_values", [True, False]),
        (DataType.UINT8, "uint_values", [0, 255]),
        (DataType.UINT16, "uint_values", [0, 2**16 - 1]),
        (DataType.UINT32, "uint_values", [0, 2**32 - 1]),
        (DataType.UINT64, "uint_values", [0, 2**64 - 1]),
        (DataType.INT8, "int_values", [-128, 127]),
        (DataType.INT16, "int_values", [-(2**15), 2**15 - 1]),
        (DataType.INT32, "int_values", [-(2**31), 2**31 - 1]),
        (DataType.INT64, "int_values", [-(2**63), 2**63 - 1]),
        (DataType.FP16, "float_values", [1.5, -0.0, 6e-8, math.inf]),
        (DataType.BF16, "float_values", [1.5, -0.0, 1e-40, -math.inf]),
        (DataType.FP32, "float_values", [0.1, -0.0, 1e-45, math.inf]),
        (DataType.FP64, "double_values", [0.1, -0.0, 5e-324, math.inf]),
        (DataType.BYTES, "string_values", ["", "a\0b", "😀"]),
    ],
)
def test_every_datatype_is_written_to_the_list_that_suits_it_and_read_back(
    datatype: DataType, field: str, numbers: list[Any]
) -> None:
    array = read(datatype, field, *numbers)
    message = Tensor()
    values.write(message, datatype, array.reshape(-1, 1))
    message = Tensor.FromString(message.SerializeToString())
    assert [name.name for name, _ in message.ListFields()] == [field]
    again = values.read(spec("x", ("N",), datatype), field, getattr(message, field))
    assert again.tolist() == array.tolist()
    assert datatype is DataType.BYTES or again.tobytes() == array.tobytes()


def test_every_datatype_has_a_list() -> None:
    for datatype in DataType:
        message = Tensor()
        values.write(
            message,
            datatype,
            np.zeros((), datatype.dtype) if datatype is not DataType.BYTES else np.array("", object),
        )
        assert len(message.ListFields()) == 1


@given(st.data())
def test_values_of_one_width_are_those_of_the_packed_list(data: st.DataObject) -> None:
    """What is sliced from the values of a whole run is what protobuf writes of a part of it."""
    datatype = data.draw(st.sampled_from([each for each in DataType if each is not DataType.BYTES]))
    count = data.draw(st.sampled_from([1, 2, 6, 2 * values.FEW]))
    raw = data.draw(st.binary(min_size=count * datatype.dtype.itemsize, max_size=None))
    array = np.frombuffer(raw[: count * datatype.dtype.itemsize], datatype.dtype)
    if datatype.kind in (Kind.INT, Kind.UINT) and data.draw(st.booleans()):
        array = array % datatype.dtype.type(data.draw(st.sampled_from([100, 127])))
    if datatype is DataType.BOOL:
        array = array.view(np.uint8) % 2 == 1
    array = array.reshape(-1, 2).T if count % 2 == 0 else array
    message = Tensor()
    values.write(message, datatype, array)
    written = message.SerializeToString()
    found = values.of_one_width(datatype, array)
    if datatype.kind not in (Kind.INT, Kind.UINT):
        assert found is not None
    elif found is None:
        assert not 0 <= int(array.min()) <= int(array.max()) <= 127
    if found is not None:
        assert len(found) % count == 0
        width = len(found) // count
        flat = array.ravel()
        for at in range(min(count, 3)):
            again = Tensor()
            values.write(again, datatype, flat[at : at + 1])
            part = found[at * width : (at + 1) * width]
            nan = datatype.kind in (Kind.FLOAT, Kind.DOUBLE) and math.isnan(widest(datatype, flat[at]))
            assert nan or again.SerializeToString().endswith(part)
        assert len(written) - len(found) in (2, 3, 4)


def widest(datatype: DataType, value: Any) -> float:
    """A number as Python's own."""
    return float(widened(datatype, np.array([value]))[0]) if datatype in BY_BITS else float(value)


def test_texts_and_large_integers_have_no_one_width() -> None:
    assert values.of_one_width(DataType.BYTES, np.array(["a"], object)) is None
    for wrong in (-1, 128, 255, 256, 2**40):
        for count in (1, 1000):
            assert values.of_one_width(DataType.INT64, np.array([*[5] * count, wrong])) is None


def test_a_scattered_array_is_written_row_by_row() -> None:
    message = Tensor()
    values.write(message, DataType.INT64, np.arange(6).reshape(2, 3).T)
    assert list(message.int_values) == [0, 3, 1, 4, 2, 5]
