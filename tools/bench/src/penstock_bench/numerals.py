"""Formats numbers and times for people."""

from __future__ import annotations

import math


def plain(value: float, digits: int = 3) -> str:
    """A number with at least this many significant digits, and never with an exponent.

    Args:
        value: any number.
        digits: significant digits; all digits before the decimal point are always written.

    Returns:
        As "1,000,000", "12.5" or "0.004"; "nan" or "inf" for these.
    """
    if not value or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def duration(seconds: float) -> str:
    """A time with three digits and its unit: "12.5 ms"."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= 0.9995 * size:  # rounds to 1 with three digits
            return f"{plain(seconds / size)} {unit}"
    return f"{plain(seconds * 1e6)} µs"
