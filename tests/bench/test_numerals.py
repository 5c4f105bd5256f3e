"""Numbers in tables: never with an exponent, never wider than a column."""

from __future__ import annotations

import pytest

from penstock_bench.numerals import duration, plain


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [
        (1e6, 6, "1,000,000"),
        (1e9, 6, "1,000,000,000"),
        (2500.5, 6, "2,500.5"),
        (5e3, 3, "5,000"),
        (999.6, 3, "1,000"),
        (9.996, 3, "10"),
        (1.314, 3, "1.31"),
        (0.01, 6, "0.01"),
        (4.2e-7, 3, "0.00000042"),
        (0, 3, "0"),
    ],
)
def test_numbers_are_written_plainly(value: float, digits: int, said: str) -> None:
    assert plain(value, digits) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (5e3, "5,000 s"),
        (1.0, "1 s"),
        (0.9999, "1 s"),
        (0.0496, "49.6 ms"),
        (999.7e-6, "1 ms"),
        (509.4e-6, "509 µs"),
        (2e-7, "0.2 µs"),
    ],
)
def test_times_have_three_digits_and_a_unit(seconds: float, said: str) -> None:
    assert duration(seconds) == said
