"""How large the answers of a model are expected to be."""

from __future__ import annotations

import math
from collections.abc import Sequence

from penstock.core.request import Request
from penstock.core.tensors import DataType, TensorSpec
from penstock.models.model import Model
from penstock.protocols.codec import attached
from penstock.protocols.send_buffer import SMALL_BYTES

UNKNOWN_BYTES = 2**20
"""The expected size while no answer of the model is known and its shapes do not tell it. Larger, and a stream
of few requests would not be read until the first of them is answered: not even what cancels them. Where
answers turn out larger, what still waits is taken back; see `Answers.take_back`."""
SURPRISING, SURPRISING_BYTES = 2, 2**14
"""An answer of more than this many times the expected size says that others will be larger as well, if it has
more than this many bytes."""
FORGETTING = 7 / 8
"""A size that was expected wrongly counts less with every further answer."""
REMEMBERED = 256  # shapes, for a model


class AnswerSizes:
    """How large the answers of a model are: as its signature tells, or as they were.

    Args:
        model: the model.

    Attributes:
        most: the most bytes of a row of an answer; infinity if the signature does not tell it.
    """

    def __init__(self, model: Model) -> None:
        self._batched = model.by_rows
        self._fixed = {
            name: _row_bytes(spec, self._batched) for name, spec in model.signature.outputs.items()
        }
        self.most = sum(self._fixed.values())  # infinity if one is not fixed
        self._by_shape: dict[object, float] = {}
        self._largest = 0.0  # of a row, whatever its shape

    def is_known(self, outputs: Sequence[str]) -> bool:
        """Whether the size of an answer with these outputs follows from the signature."""
        return self.most < math.inf or all(self._fixed[name] < math.inf for name in outputs)

    def expected(self, outputs: Sequence[str], rows: int, shape_key: object) -> int:
        """The bytes of the answer to a request for these outputs; 0 if it is small."""
        if rows * self.most <= SMALL_BYTES:
            return 0
        size = sum([self._fixed[name] for name in outputs])
        if size == math.inf:
            size = self._by_shape.get(shape_key, self._largest)
            if not size:
                return UNKNOWN_BYTES
        size *= rows
        return int(size) if size > SMALL_BYTES else 0

    def learn(self, request: Request, size: int) -> bool:
        """Takes the size of an answer.

        Returns:
            Whether it is far larger than was expected.
        """
        if self.most < math.inf:
            return False
        expected = self.expected(request.outputs, request.rows, request.shape_key)
        each = max(size, 1) / (request.rows or 1)
        known, key = self._by_shape, request.shape_key
        if key in known or len(known) < REMEMBERED:
            known[key] = max(each, known.get(key, 0.0) * FORGETTING)
        self._largest = max(each, self._largest * FORGETTING)
        return size > max(SURPRISING * expected, SURPRISING_BYTES)


def _row_bytes(spec: TensorSpec, batched: bool) -> float:
    """The bytes of an output for a row, or of all of it if the model is not batched; infinity if open."""
    if spec.shape is None or spec.datatype is DataType.BYTES:
        return math.inf
    lengths = [size for axis, size in enumerate(spec.shape) if not batched or axis != spec.row_axis]
    if any(isinstance(size, str) for size in lengths):
        return math.inf
    return float(math.prod([int(size) for size in lengths]) * spec.datatype.dtype.itemsize)


def sizes_of(model: Model) -> AnswerSizes:
    """The sizes of a model's answers."""
    return model.attachments.get(AnswerSizes) or attached(model, AnswerSizes)
