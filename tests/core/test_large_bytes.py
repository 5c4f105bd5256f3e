"""Large bytes are joined and cut as Python does it, and other threads go on meanwhile."""

from __future__ import annotations

import random

import numpy as np
import pytest

from penstock.core.large_bytes import HUGE_BYTES, LARGE_BYTES, joined, part_of

NOISE = random.Random(0).randbytes(HUGE_BYTES + 12_345)
SIZES = (0, 1, LARGE_BYTES - 1, LARGE_BYTES, HUGE_BYTES - 3, HUGE_BYTES, HUGE_BYTES + 12_345)


@pytest.mark.parametrize("size", SIZES)
def test_joined_is_what_python_joins(size: int) -> None:
    large = NOISE[:size]
    for parts in ((large,), (b"head", large, b""), (b"", memoryview(large), b"tail"), (large, b"x", large)):
        assert joined(parts) == b"".join(parts)
        assert hash(joined(parts)) == hash(b"".join(parts))


@pytest.mark.parametrize("size", SIZES)
def test_a_part_is_what_python_cuts(size: int) -> None:
    data = NOISE[: size + 7]
    assert part_of(data, 3, 3 + size) == data[3 : 3 + size]


def test_memory_is_not_shared_with_the_parts() -> None:
    values = np.zeros(LARGE_BYTES, np.uint8)
    data = joined((b"head", values.data))
    values[:] = 1
    assert data == b"head" + bytes(LARGE_BYTES)


def test_no_parts() -> None:
    assert joined(()) == b""
