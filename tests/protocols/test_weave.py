"""Answers that differ in some bytes only are written together, as if each had been written alone."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.core.tensors import Array
from penstock.protocols.penstock_v1.encoder import Piece, weave, width


def some(generator: np.random.Generator, count: int, size: int) -> Array:
    values: Array = generator.integers(0, 256, (count, size), np.uint8)
    return values


@pytest.mark.parametrize("count", [1, 2, 33])
@pytest.mark.parametrize("sizes", [[(3, 5)], [(0, 2), (7, 0), (1, 1)], [(300, 1), (0, 300), (0, 4)], []])
def test_messages_are_joined_one_after_another(count: int, sizes: list[tuple[int, int]]) -> None:
    generator = np.random.default_rng(len(sizes) + count)
    pieces: list[Piece] = [(generator.bytes(same), some(generator, count, varied)) for same, varied in sizes]
    expected = b"".join(
        b"".join(same + varied[place].tobytes() for same, varied in pieces) for place in range(count)
    )
    assert weave(pieces, count) == expected
    assert width(pieces) * count == len(expected)
