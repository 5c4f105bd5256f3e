"""Numbers that numpy lacks: every code, and every rounding, as ml_dtypes has them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.minifloats import BY_BITS, FORMATS, narrowed, widened
from penstock.core.tensors import DataType
from support.dtypes import SMALL

every = pytest.mark.parametrize("datatype", sorted(BY_BITS, key=str), ids=str)
small = pytest.mark.parametrize("datatype", sorted(FORMATS, key=str), ids=str)


def all_codes(datatype: DataType) -> np.ndarray:
    return np.arange(2 ** (8 * datatype.dtype.itemsize)).astype(datatype.dtype)


@every
def test_every_code_has_its_value(datatype: DataType) -> None:
    codes = all_codes(datatype)
    found = widened(datatype, codes)
    assert found.dtype == np.float32
    expected = codes.view(SMALL[datatype]).astype(np.float32)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found[found == 0]), np.signbit(expected[expected == 0]))
    assert (np.signbit(found) == np.signbit(codes.view(SMALL[datatype]).astype(np.float32)))[
        ~np.isnan(found)
    ].all()


@every
def test_every_value_comes_back(datatype: DataType) -> None:
    codes = all_codes(datatype)
    values = widened(datatype, codes)
    numbers = ~np.isnan(values)
    np.testing.assert_array_equal(narrowed(datatype, values)[numbers], codes[numbers])
    assert np.isnan(widened(datatype, narrowed(datatype, values))[~numbers]).all()


@small
def test_what_is_between_two_is_rounded_to_the_nearest_ties_to_even(datatype: DataType) -> None:
    values = widened(datatype, all_codes(datatype))
    finite = np.unique(values[np.isfinite(values)]).astype(np.float32)
    middles = (finite[1:] + finite[:-1]) / 2
    step = (finite[-1] - finite[-2]) / 2
    limits = np.array([finite[-1] + step, np.nextafter(finite[-1] + step, 0), 2 * finite[-1], np.inf, 1e30])
    tried = np.concatenate(
        [middles, np.nextafter(middles, np.inf), np.nextafter(middles, -np.inf), limits, -limits]
    ).astype(np.float32)
    with np.errstate(all="ignore"):
        expected = tried.astype(SMALL[datatype]).astype(np.float32)
    np.testing.assert_array_equal(widened(datatype, narrowed(datatype, tried)), expected)


@small
def test_doubles_are_rounded_once(datatype: DataType) -> None:
    """Not to a single first: that would make a middle of what is just beside one."""
    values = widened(datatype, all_codes(datatype)).astype(np.float64)
    finite = np.unique(values[np.isfinite(values)])
    middles = (finite[1:] + finite[:-1]) / 2
    np.testing.assert_array_equal(
        widened(datatype, narrowed(datatype, np.nextafter(middles, np.inf))), finite[1:]
    )
    np.testing.assert_array_equal(
        widened(datatype, narrowed(datatype, np.nextafter(middles, -np.inf))), finite[:-1]
    )


@small
@settings(max_examples=200, deadline=None)
@given(values=st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_any_single_is_rounded_as_ml_dtypes_does(datatype: DataType, values: list[float]) -> None:
    singles = np.array(values, np.float32)
    with np.errstate(all="ignore"):
        expected = singles.astype(SMALL[datatype]).astype(np.float32)
    np.testing.assert_array_equal(widened(datatype, narrowed(datatype, singles)), expected)


@every
def test_shapes_are_kept(datatype: DataType) -> None:
    for shape in ((), (0, 3), (2, 3)):
        bits = narrowed(datatype, np.ones(shape, np.float64))
        assert (bits.shape, bits.dtype) == (shape, datatype.dtype)
        assert widened(datatype, bits).shape == shape
