import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock_client._cast import Refusal, cast, to_bf16
from penstock_client._tensors import bf16_bits, widen_bf16

NUMBERS = ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]
EDGES = {
    "f": [0.0, -0.0, 0.1, 1.5, -1.0, 255.0, 256.0, 65504.0, 65505.0, 65536.0, 2.0**24 + 1, 2.0**31,
          -(2.0**31), 2.0**53 + 2, 2.0**63, -(2.0**63), 2.0**64, 1e300, 5e-324,
          math.inf, -math.inf, math.nan],
    "i": [0, 1, -1, 127, 128, -128, 255, 256, 2048, 2049, 65504, 65520, 2**24 + 1, 2**31 - 1, 2**31, -(2**31),
          2**53 + 1, 2**63 - 1, -(2**63)],
    "u": [0, 1, 255, 2049, 2**24 + 1, 2**32 - 1, 2**53 + 1, 2**63, 2**63 + 1, 2**64 - 1],
    "b": [False, True],
}  # fmt: skip


def exact(value: object) -> Fraction | str:
    """A number as exactly as Python can say it."""
    number = value.item()
    return Fraction(number) if not isinstance(number, float) or math.isfinite(number) else str(number)


def check(array: np.ndarray, dtype: np.dtype) -> None:
    """The cast succeeds just where some value of `dtype` is the same number, for every element."""
    with np.errstate(all="ignore"):
        nearest = array.astype(dtype)
    possible = [exact(new) == exact(old) for old, new in zip(array.ravel(), nearest.ravel(), strict=True)]
    try:
        result = cast(array, dtype)
    except Refusal:
        assert not all(possible)
    else:
        assert result.dtype == dtype
        assert all(possible)
        assert [exact(each) for each in result.ravel()] == [exact(each) for each in array.ravel()]


@pytest.mark.parametrize("source", NUMBERS)
@pytest.mark.parametrize("target", NUMBERS)
def test_at_the_edges_an_array_is_cast_just_where_nothing_is_lost(source, target) -> None:
    dtype = np.dtype(source)
    values = EDGES[dtype.kind]
    if dtype.kind in "iu":
        values = [each for each in values if np.iinfo(dtype).min <= each <= np.iinfo(dtype).max]
    with np.errstate(all="ignore"):
        array = np.array(values, dtype)
    for at in range(len(array)):
        check(array[at : at + 1], np.dtype(target))
    check(array, np.dtype(target))
    check(array[:0], np.dtype(target))


@given(st.data())
def test_an_array_is_cast_just_where_nothing_is_lost(data) -> None:
    source = data.draw(st.sampled_from(NUMBERS))
    target = np.dtype(data.draw(st.sampled_from(NUMBERS)))
    check(
        data.draw(hnp.arrays(source, hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))),
        target,
    )


def test_the_same_dtype_is_passed_on_as_it_is() -> None:
    array = np.zeros(3, np.float32)
    assert cast(array, np.dtype("f4")) is array


@pytest.mark.parametrize("source", ["u2", "i8", "f4", "f8"])
def test_byte_order_is_turned(source) -> None:
    array = np.array([1, 2, 300], np.dtype(source).newbyteorder(">"))
    result = cast(array, np.dtype(source).newbyteorder("<"))
    assert result.tolist() == [1, 2, 300]
    assert result.tobytes() == np.array([1, 2, 300], "<" + source).tobytes()


def literal(value: object, dtype: str) -> object:
    return cast(np.asarray(value), np.dtype(dtype), value).tolist()


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (0.1, "f4", float(np.float32(0.1))),
        ([0.1, 1e-300], "f2", [float(np.float16(0.1)), 0.0]),
        ([math.inf, math.nan], "f2", pytest.approx([math.inf, math.nan], nan_ok=True)),
        ([1, 2], "f4", [1.0, 2.0]),
        ([1, 0.5], "f4", [1.0, 0.5]),
        ([2.0, 3.0], "i8", [2, 3]),
        (True, "?", True),
        ([2**24 + 1.0], "f4", [2.0**24]),
        (2**64 - 1, "u8", 2**64 - 1),
        ([2**53 + 1, 2.0], "i8", [2**53 + 1, 2]),
        ([2**64 - 1, 2.0], "u8", [2**64 - 1, 2]),
        ([[2.0**62, True], [2**63 - 1, -(2.0**63)]], "i8", [[2**62, 1], [2**63 - 1, -(2**63)]]),
    ],
)
def test_literals_that_go(value, dtype, expected) -> None:
    assert literal(value, dtype) == expected


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (1.5, "i8"),
        ([1e39], "f4"),
        (70000.0, "f2"),
        ([2**24 + 1], "f4"),
        ([2**24 + 1, 0.5], "f4"),
        ([2**53 + 1, 1.5], "i8"),
        ([2**63, 1.0], "i8"),
        ([2**53 + 1, 1.0, math.inf], "i8"),
        ([2**53 + 1, 1.0, math.nan], "i8"),
        ([2**53 + 1, -1.0], "u8"),
        ([2**53 + 1, 0.5], "f8"),
        (-1, "u8"),
        (256, "u1"),
        (math.nan, "i4"),
        (2, "?"),
        (0.5, "?"),
        ("1", "i8"),
    ],
)
def test_literals_that_are_refused(value, dtype) -> None:
    with pytest.raises(Refusal):
        literal(value, dtype)


def test_widening_and_narrowing_bfloat16_is_exact() -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    wide = widen_bf16(bits)
    back = bf16_bits(wide)
    nan = np.isnan(wide)
    np.testing.assert_array_equal(back[~nan], bits[~nan])
    assert np.isnan(widen_bf16(back[nan])).all()


@given(hnp.arrays(np.float32, 20, elements=st.floats(width=32)))
def test_rounding_to_bfloat16_is_that_of_ml_dtypes(values) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with np.errstate(all="ignore"):
        expected = values.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(widen_bf16(bf16_bits(values)), expected)


def test_bfloat16_keeps_to_the_same_rules() -> None:
    assert to_bf16(np.array([1.5, -2.0])).tolist() == [0x3FC0, 0xC000]
    assert to_bf16(np.array([256])).tolist() == [0x4380]
    assert to_bf16(np.array(0.1), 0.1).item() == 0x3DCD
    for array, was in [
        (np.array([0.1]), None),
        (np.array([257]), [257]),
        (np.array([257, 0.5]), [257, 0.5]),
        (np.array([3.4e38, 1.0]), [3.4e38, 1.0]),
        (np.array(["1"]), ["1"]),
    ]:
        with pytest.raises(Refusal):
            to_bf16(array, was)
