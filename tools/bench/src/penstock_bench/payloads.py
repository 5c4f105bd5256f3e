"""Payloads: the inputs of requests as encoded tensors, for both protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.core.minifloats import BY_BITS, widened
from penstock.core.tensors import Array, DataType
from penstock_bench.errors import BenchError
from penstock_client import InvalidInput, TensorInfo

# The client's own encoding, from the distribution of the same version: values are checked and cast as in
# `Client.predict`.
from penstock_client._inputs import InputSpec

_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class EncodedTensor:
    """One input.

    Attributes:
        datatype: the element type by its Open Inference name.
        shape: the length of every axis, outermost first.
        raw: the elements: row-major, little-endian, those of BYTES after their lengths.
    """

    datatype: str
    shape: tuple[int, ...]
    raw: bytes

    def array(self) -> Array:
        """The elements in the client's form; datatypes that numpy lacks as float32, without loss."""
        if self.datatype == "BYTES":
            parts = _elements(self.raw)
            array: Array = np.empty(len(parts), object)
            array[:] = parts
            return array.reshape(self.shape)
        datatype = DataType[self.datatype]
        values: Array = np.frombuffer(self.raw, datatype.dtype).reshape(self.shape)
        return widened(datatype, values) if datatype in BY_BITS else values


@dataclass(frozen=True, slots=True)
class Payload:
    """The inputs of one request by name, and their number of rows."""

    tensors: Mapping[str, EncodedTensor]
    rows: int

    @property
    def size(self) -> int:
        """The size of all elements in bytes."""
        return sum(len(tensor.raw) for tensor in self.tensors.values())


class Encoder:
    """Makes payloads from values.

    Args:
        inputs: the model's inputs.
    """

    def __init__(self, inputs: Sequence[TensorInfo]) -> None:
        self._specs = {info.name: InputSpec(info) for info in inputs}

    def payload(self, values: Mapping[str, object]) -> Payload:
        """Encodes the inputs of one request, as `Client.predict` does.

        Args:
            values: every input of the model by name.

        Raises:
            BenchError: an input is missing, unknown, or does not fit.
        """
        if values.keys() != self._specs.keys():
            expected = ", ".join(f"{name} {spec.info}" for name, spec in self._specs.items()) or "none"
            raise BenchError(f"the inputs are {', '.join(values) or 'none'}; expected: {expected}")
        try:
            tensors = {name: self._encoded(name, value) for name, value in values.items()}
        except InvalidInput as error:
            raise BenchError(str(error)) from None
        return Payload(tensors, self._rows(tensors))

    def _encoded(self, name: str, value: object) -> EncodedTensor:
        spec = self._specs[name]
        shape, raw = spec.encode(value)
        return EncodedTensor(spec.info.datatype, tuple(shape), raw)

    def _rows(self, tensors: Mapping[str, EncodedTensor]) -> int:
        """The length of the open first axis; 1 if the model has none."""
        for name, tensor in tensors.items():
            shape = self._specs[name].info.shape
            if tensor.shape and (shape is None or (shape and isinstance(shape[0], str))):
                return tensor.shape[0]
        return 1


def stacked(payloads: Sequence[Payload]) -> Payload:
    """One request with the rows of several.

    Raises:
        BenchError: their shapes differ after the first axis, or they have no axes.
    """
    tensors = {}
    for name, first in payloads[0].tensors.items():
        parts = [payload.tensors[name] for payload in payloads]
        if not first.shape or any(part.shape[1:] != first.shape[1:] for part in parts):
            shapes = ", ".join(sorted({str(list(part.shape)) for part in parts}))
            raise BenchError(f'input "{name}": rows of the shapes {shapes} cannot be sent as one request')
        shape = (sum(part.shape[0] for part in parts), *first.shape[1:])
        tensors[name] = EncodedTensor(first.datatype, shape, b"".join(part.raw for part in parts))
    return Payload(tensors, sum(payload.rows for payload in payloads))


def _elements(raw: bytes) -> list[str | bytes]:
    """The elements of BYTES: texts, or `bytes` if one is not UTF-8."""
    parts, at = [], 0
    while at < len(raw):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(raw[at:start], "little")
        parts.append(raw[start:at])
    try:
        return [part.decode() for part in parts]
    except UnicodeDecodeError:
        return list(parts)
