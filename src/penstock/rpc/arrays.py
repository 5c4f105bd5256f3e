"""Arrays from what either door brings, held against the model's signature.

What comes as raw bytes is never copied here: an input is a view of the message's own bytes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from struct import Struct
from typing import Any

import numpy as np

from penstock.errors import InvalidRequest
from penstock.models.model import Model
from penstock.rpc import values
from penstock.tensors import Array, DataType, TensorSpec

LENGTH = Struct("<I")
"""What is before each element of a raw BYTES tensor: its length."""

MAX_AXES = 32  # as many as every numpy takes
MAX_EMPTY = 2**20  # the product of an empty tensor's other axes: it costs its sender nothing


def wanted_outputs(model: Model, wanted: Collection[str]) -> Sequence[str]:
    """The outputs wanted, each once, in the signature's order.

    Raises:
        InvalidRequest: the model has no such output.
    """
    names = model.output_names
    unknown = [name for name in wanted if name not in names]
    if unknown:
        has = ", ".join(names)
        raise InvalidRequest(
            f"there is no output {', '.join(unknown)}; {model} has {has}{_kept(model, wanted)}"
        )
    return tuple(name for name in names if name in wanted)


def layout(model: Model, arrays: Mapping[str, Array]) -> tuple[int, object]:
    """How many rows a request has, and what requests must have in common to share a batch with it.

    Returns:
        The length of the first axis where the model is batched, else 1; and the lengths of the inner
        axes where some are open, and the values of scalars, else None. For an axis that is padded, it is the
        length that it gets.

    Raises:
        InvalidRequest: the inputs differ in their number of rows, or in a length that is to be padded.
    """
    if not model.batching.enabled:
        return 1, None
    values: tuple[object, ...] = ()
    sent = arrays
    if model.scalars:
        values = tuple([_identity(arrays[name]) for name in model.scalars])
        arrays = {name: array for name, array in arrays.items() if name not in model.scalars}
    rows = -1
    for array in arrays.values():
        length: int = array.shape[0]
        if rows < 0:
            rows = length
        elif rows != length:
            lengths = ", ".join(f"{name} has {each.shape[0]}" for name, each in arrays.items())
            raise InvalidRequest(f"all inputs need the same number of rows: {lengths}")
    inner: object = None
    if model.padding is not None:
        inner = model.padding.key(sent)
    elif model.open_shapes:
        inner = tuple([array.shape[1:] for array in arrays.values()])
    return rows, (inner, *values) if values else inner


def _identity(scalar: Array) -> object:
    """What is equal for equal scalars only: bytes, since -0.0 equals 0.0 and is another value."""
    return scalar.item() if scalar.dtype.hasobject else scalar.tobytes()


def expected_inputs(model: Model, sent: Mapping[str, Any] | Collection[str]) -> str:
    """What inputs a model takes, and which of them came."""
    came = ", ".join(sorted(sent)) or "none"
    optional = model.optional_inputs
    specs = [
        f"{spec} (optional)" if name in optional else str(spec)
        for name, spec in model.signature.inputs.items()
    ]
    return f"expected {', '.join(specs) or 'none'}; came {came}{_kept(model, sent)}"


def _kept(model: Model, names: Collection[str]) -> str:
    """What to say where some of these names are of the state that the server keeps; else nothing."""
    found = model.kept.names_among(names) if model.kept else ()
    return f"; the server keeps {' and '.join(found)}, which callers neither send nor get" if found else ""


def of_nothing(spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    """The flat array of a tensor that came without values: fine where its shape holds none."""
    if 0 not in shape:
        raise InvalidRequest(f"input {spec.name} came without values, expected {spec}")
    return np.empty(0, spec.datatype.dtype)


def of_raw(spec: TensorSpec, raw: bytes) -> Array:
    """The flat array of a tensor's raw bytes: row-major, little-endian.

    Raises:
        InvalidRequest: they are no whole number of elements, or an element cannot be one.
    """
    if spec.datatype is DataType.BYTES:
        return values.text_array(_unpacked(spec, raw))
    size = spec.datatype.dtype.itemsize
    if len(raw) % size:
        raise InvalidRequest(
            f"input {spec.name} came with {len(raw)} bytes, which is no multiple of "
            f"the {size} of {spec.datatype}"
        )
    flat = np.frombuffer(raw, spec.datatype.dtype)
    if spec.datatype is DataType.BOOL and flat.view(np.uint8).max(initial=0) > 1:
        raise InvalidRequest(f"input {spec.name} is BOOL: every byte must be 0 or 1")
    return flat


def _unpacked(spec: TensorSpec, raw: bytes) -> list[str]:
    texts: list[str] = []
    position = 0
    while position < len(raw):
        start = position + LENGTH.size
        length = LENGTH.unpack_from(raw, position)[0] if start <= len(raw) else 0
        position = start + length
        if position > len(raw):
            raise InvalidRequest(
                f"input {spec.name}: element {len(texts)} reaches beyond the {len(raw)} bytes that came"
            )
        texts.append(values.decoded(spec, len(texts), raw[start:position]))
    return texts


def shaped(flat: Array, shape: tuple[int, ...], spec: TensorSpec) -> Array:
    """The flat array in its shape, which is inferred where none was sent."""
    count = len(flat)
    if not shape and spec.shape != () and count:
        shape = _inferred(count, spec)
    if not fits(shape, spec):
        raise InvalidRequest(f"input {spec.name} came with shape {list(shape)}, expected {spec}")
    holds = math.prod(shape)
    if holds != count:
        raise InvalidRequest(
            f"input {spec.name} came with {count} values for shape {list(shape)}, which holds {holds}"
        )
    if not count and math.prod(filter(None, shape)) > MAX_EMPTY:
        raise InvalidRequest(f"input {spec.name} came empty with shape {list(shape)}, which is too large")
    return flat.reshape(shape)


def fits(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    """Whether a shape is one that `spec` declares."""
    declared = spec.shape
    if declared is None:
        return len(shape) <= MAX_AXES and all(length >= 0 for length in shape)
    if len(shape) != len(declared):
        return False
    for length, expected in zip(shape, declared):  # noqa: B905 - equally long, and this is the hot path
        if length != expected and (length < 0 or isinstance(expected, int)):
            return False
    return True


def _inferred(count: int, spec: TensorSpec) -> tuple[int, ...]:
    """The one shape that `spec` allows for so many values.

    Raises:
        InvalidRequest: there is none, or more than one.
    """
    declared = spec.shape
    if declared is None:
        if count == 1:
            return ()
        raise InvalidRequest(f"input {spec.name} came without a shape, and the model declares none")
    open_axes = sum(isinstance(size, str) for size in declared)
    if open_axes > 1:
        raise InvalidRequest(
            f"input {spec.name} came without a shape, which {open_axes} open axes make unclear: {spec}"
        )
    fixed = math.prod(size for size in declared if isinstance(size, int))
    if not open_axes and count == fixed:
        return tuple(size for size in declared if isinstance(size, int))
    if not open_axes or not fixed or count % fixed:
        raise InvalidRequest(f"input {spec.name} came with {count} values, which do not fill {spec}")
    return tuple(size if isinstance(size, int) else count // fixed for size in declared)


def pack_bytes(array: Array) -> bytes:
    """The elements of a text array, each behind its length in 4 bytes, little-endian."""
    parts: list[bytes] = []
    for text in array.ravel():
        data = text.encode()
        parts += (LENGTH.pack(len(data)), data)
    return b"".join(parts)
