"""What the checks of tritonclient share: clients, tensors, and errors that must come."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

SECONDS = 20.0
"""No answer may take longer."""


@contextmanager
def connected(target: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(target) as client:
        yield client


def tensor(name: str, array: Any, datatype: str = "FP32") -> triton.InferInput:
    """An input with its values."""
    wanted = triton.InferInput(name, list(np.shape(array)), datatype)
    wanted.set_data_from_numpy(np.asarray(array))
    return wanted


def rows(*values: float, width: int = 3) -> np.ndarray:
    """One row for each value, which fills it."""
    return np.repeat(np.array(values, np.float32)[:, None], width, axis=1)


def x(*values: float, width: int = 3) -> list[triton.InferInput]:
    """The input `x` of most models, with such rows; one row of ones where no values are given."""
    return [tensor("x", rows(*(values or (1,)), width=width))]


def refused(call: Callable[[], Any], status: str, *words: str) -> InferenceServerException:
    """Makes sure that a call fails, with this status and a message that has these words."""
    try:
        answer = call()
    except InferenceServerException as error:
        fails(error, status, *words)
        return error
    raise AssertionError(f"{status} was expected, but this came: {answer}")


def fails(error: Any, status: str | None, *words: str) -> None:
    """Makes sure of what an error says; a status of None means that it has none."""
    assert error is not None, f"{status} was expected, but all is well"
    expected = status and f"StatusCode.{status}"
    assert error.status() == expected, f"{expected} was expected, but: {error.status()} {error.message()}"
    for word in words:
        assert word in error.message(), f"no {word!r} in {error.message()!r}"


class Answers:
    """A callback that keeps what it is called with."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()

    def __call__(self, result: Any, error: Any) -> None:
        self._queue.put((result, error))

    def next(self) -> tuple[Any, Any]:
        """The next answer: a result, or None and an error."""
        return self._queue.get(timeout=SECONDS)

    def next_result(self) -> Any:
        result, error = self.next()
        assert error is None, error
        return result

    def next_error(self) -> Any:
        result, error = self.next()
        assert result is None, result.get_response()
        return error

    def none_left(self) -> bool:
        return self._queue.empty()
