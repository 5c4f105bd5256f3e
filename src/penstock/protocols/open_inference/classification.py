"""Triton's classification extension: the largest values of an output, each as `value:index[:label]`.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from penstock.core.errors import InvalidRequest
from penstock.core.minifloats import BY_BITS, widened
from penstock.core.tensors import Array, DataType, Kind


def check_classes(name: str, datatype: DataType) -> None:
    """Checks that the values of an output can be ranked.

    Raises:
        InvalidRequest: they cannot.
    """
    if datatype.kind in (Kind.BOOL, Kind.BYTES):
        raise InvalidRequest(f"output {name} is {datatype}: its values cannot be ranked for a classification")


def top_classes(datatype: DataType, array: Array, count: int, batched: bool, labels: Sequence[str]) -> Array:
    """The largest values of an output, largest first; of each row if the model is batched.

    Args:
        datatype: the output's datatype.
        array: its values.
        count: how many to return; fewer if the output has fewer.
        batched: whether the first axis counts rows.
        labels: the class labels by index; may be incomplete.

    Returns:
        BYTES [rows, count] if there are rows, else [count]: the values as C's printf writes them with "%f" or
        "%d". Equal values are in the order of their index, NaN last.
    """
    numbers = widened(datatype, array) if datatype in BY_BITS else array
    by_row = batched and array.ndim > 0
    rows = numbers.reshape(len(array), prod(array.shape[1:])) if by_row else numbers.reshape(1, array.size)
    count = min(count, rows.shape[1])
    indices = _largest(rows)[:, :count]
    values = np.take_along_axis(rows, indices, axis=1)
    found = np.empty((len(rows), count), dtype=object)
    for place in range(len(rows)):
        pairs = zip(values[place].tolist(), indices[place].tolist(), strict=True)
        found[place] = [_written(number, index, labels) for number, index in pairs]
    return found if by_row else found.reshape(count)


def _largest(rows: Array) -> Array:
    """The indices of the values of each row, largest value first."""
    # A stable sort of the reversed values keeps equal values in the order of their index. NaN sorts last, so
    # it is first after reversing, and is moved to the end.
    order: Array = rows.shape[1] - 1 - np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1]
    if rows.dtype.kind != "f":
        return order
    nan = np.isnan(np.take_along_axis(rows, order, axis=1))
    return np.take_along_axis(order, np.argsort(nan, axis=1, kind="stable"), axis=1)


def _written(number: float, index: int, labels: Sequence[str]) -> str:
    text = f"{number:f}:{index}" if isinstance(number, float) else f"{number}:{index}"
    return f"{text}:{labels[index]}" if index < len(labels) else text
