"""Triton's classification extension: the largest values of an output, each as `value:index[:label]`.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from penstock.bits import BY_BITS, widened
from penstock.errors import InvalidRequest
from penstock.tensors import Array, DataType, Kind


def check_classes(name: str, datatype: DataType) -> None:
    """Makes sure that an output has values that can be the largest.

    Raises:
        InvalidRequest: it has not.
    """
    if datatype.kind in (Kind.BOOL, Kind.BYTES):
        raise InvalidRequest(f"output {name} is {datatype}: its values cannot be ranked for a classification")


def top_classes(datatype: DataType, array: Array, count: int, batched: bool, labels: Sequence[str]) -> Array:
    """The largest values of an output, of each row where the model is batched, the largest first.

    Args:
        datatype: the output's.
        array: its values.
        count: how many are wanted; fewer where there are not as many.
        batched: whether the first axis is that of the rows.
        labels: what the indices stand for, as far as is known.

    Returns:
        BYTES [rows, count] where there are rows, else [count]: the values as C's printf has them with "%f" or
        "%d", equal ones by their index, and those that are no numbers last.
    """
    numbers = widened(datatype, array) if datatype in BY_BITS else array
    by_row = batched and array.ndim > 0
    rows = numbers.reshape(len(array), prod(array.shape[1:])) if by_row else numbers.reshape(1, array.size)
    count = min(count, rows.shape[1])
    found = np.empty((len(rows), count), dtype=object)
    for place, row in enumerate(rows):
        for rank, index in enumerate(_largest(row)[:count]):
            found[place, rank] = _written(row[index], int(index), labels)
    return found if by_row else found.reshape(count)


def _largest(row: Array) -> Array:
    """The indices of a row's values, those of the largest first."""
    # Sorting the reverse of what is sorted stably keeps equal values by their index; NaN sorts last, so first
    # here: those are put behind.
    order = len(row) - 1 - np.argsort(row[::-1], kind="stable")[::-1]
    return order[np.argsort(np.isnan(row[order].astype(np.float64)), kind="stable")]


def _written(value: np.generic, index: int, labels: Sequence[str]) -> str:
    number = value.item()
    text = f"{number:f}:{index}" if isinstance(number, float) else f"{number}:{index}"
    return f"{text}:{labels[index]}" if index < len(labels) else text
