"""Large bytes are joined and cut as Python does it, and other threads go on meanwhile."""

from __future__ import annotations

import mmap
import random
import sys

import numpy as np
import pytest

from penstock.core.large_bytes import HUGE_BYTES, LARGE_BYTES, forget, joined, part_of

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


def test_views_of_other_elements_count_with_their_bytes() -> None:
    for count in (3, LARGE_BYTES // 4):
        numbers = np.arange(count, dtype=np.float32)
        assert joined((b"head", memoryview(numbers), b"tail")) == b"head" + numbers.tobytes() + b"tail"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is given back")
@pytest.mark.parametrize("size", [0, 1, mmap.PAGESIZE, HUGE_BYTES, HUGE_BYTES + 12_345])
def test_the_pages_of_forgotten_bytes_are_given_back(size: int) -> None:
    """All but those that hold something else as well; these and other bytes stay as they are."""
    data, other = joined((b"\1" * size,)), joined((b"\1" * size,))
    forget(data)
    left = np.count_nonzero(np.frombuffer(data, np.uint8))
    assert left < 2 * mmap.PAGESIZE
    assert size < 2 * mmap.PAGESIZE or left < size
    assert other == b"\1" * size
