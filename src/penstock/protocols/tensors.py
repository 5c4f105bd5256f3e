"""Makes arrays from the tensors of any protocol, and checks them against the model's signature.

Raw bytes are not copied here: an input is a view of the message's own bytes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import count
from struct import Struct
from typing import Any

import numpy as np

from penstock.core.errors import InvalidRequest
from penstock.core.names import listed, many
from penstock.core.tensors import Array, DataType, TensorSpec
from penstock.models.model import Model
from penstock.protocols import typed_lists as values

LENGTH = Struct("<I")
COPIED_BYTES = 65_536  # of a tensor; a view of a smaller one costs more than a copy
"""The length before each element of a raw BYTES tensor."""

MAX_AXES = 32  # the limit of all supported releases of numpy
MAX_EMPTY = 2**20  # limits the product of an empty tensor's other axes: it costs its sender nothing


_alone = count()
"""Numbers the requests that share a batch with no other request."""


def wanted_outputs(model: Model, wanted: Collection[str]) -> Sequence[str]:
    """The requested outputs, each once, in the signature's order.

    Raises:
        InvalidRequest: the model has no such output.
    """
    names, asked = model.output_names, set(wanted)
    if not asked.issubset(names):
        unknown = listed([name for name in dict.fromkeys(wanted) if name not in names])
        raise InvalidRequest(
            f"there is no output {unknown}; {model} has {listed(names)}{_kept(model, asked)}"
        )
    return tuple([name for name in names if name in asked])


def bytes_of(array: Array) -> memoryview:
    """The values of an array of numbers, row after row; not copied, unless they lie in another order."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def layout(model: Model, arrays: Mapping[str, Array]) -> tuple[int, object]:
    """The number of rows of a request, and its shape key: only requests with equal keys share a batch.

    Returns:
        The length of the axis of the rows if the model is read by rows, else 1; and the lengths of the other
        axes, if some are open, with the values of scalars, else None. A padded axis has its padded length.

    Raises:
        InvalidRequest: the inputs differ in their number of rows, or in the length of a padded axis.
    """
    if not model.by_rows:
        return 1, None
    values: tuple[object, ...] = ()
    if model.kept_inputs or model.row_axes:
        arrays = _rows_first(model, arrays)
    sent = arrays
    if model.scalars:
        values = tuple([_identity(arrays[name]) for name in model.scalars])
        arrays = {name: array for name, array in arrays.items() if name not in model.scalars}
    if model.defaults and not arrays.keys().isdisjoint(model.defaults):
        values = (*values, f"alone {next(_alone)}")  # a text: the costs of runs remember no keys with texts
        arrays = {name: array for name, array in arrays.items() if name not in model.defaults}
    rows = _common_rows(arrays)
    inner: object = None
    if model.padding is not None:
        inner = model.padding.key(sent)
    elif model.open_shapes:
        inner = tuple([array.shape[1:] for array in arrays.values()])
    return rows, (inner, *values) if values else inner


def _common_rows(arrays: Mapping[str, Array]) -> int:
    """How many rows the arrays have; 1 if there are none, but only inputs that are kept for a sequence."""
    rows = -1
    for array in arrays.values():
        length: int = array.shape[0]
        if rows < 0:
            rows = length
        elif rows != length:
            lengths = ", ".join(f"{name} has {each.shape[0]}" for name, each in arrays.items())
            raise InvalidRequest.of_form(f"all inputs need the same number of rows: {lengths}")
    return abs(rows)


def _rows_first(model: Model, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
    """Views of the inputs with their rows along the first axis; without those kept for a sequence."""
    turned = {name: array for name, array in arrays.items() if name not in model.kept_inputs}
    for name, axis in model.row_axes.items():
        if name in turned:
            turned[name] = np.moveaxis(turned[name], axis, 0)
    return turned


def empty_outputs(model: Model, names: Sequence[str], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs for a request without rows, without running the model.

    Args:
        model: the model it is for, which is batched.
        names: the requested outputs.
        inputs: the request's inputs; an axis of an output that has the name of one of theirs is as long.

    Returns:
        Each output, with no rows and the other axes of its signature.

    Raises:
        InvalidRequest: neither the signature nor the inputs give the length of another axis.
    """
    lengths = _lengths_by_name(model, inputs)
    outputs = {}
    for name in names:
        spec = model.signature.outputs[name]
        shape = [lengths.get(axis) if isinstance(axis, str) else axis for axis in spec.shape or ()]
        shape[spec.row_axis : spec.row_axis + 1] = [0]
        known = [length for length in shape if length is not None]
        if spec.shape is None or len(known) < len(shape):
            raise InvalidRequest(
                f"the inputs have no rows, and the shape of output {spec} is only known once the model "
                "has run: send at least one row"
            )
        outputs[name] = np.empty(known, spec.datatype.dtype)
    return outputs


def _lengths_by_name(model: Model, inputs: Mapping[str, Array]) -> dict[str, int | None]:
    """The lengths of the inputs' named axes; None for a name that is used for different lengths."""
    lengths: dict[str, int | None] = {}
    for name, array in inputs.items():
        for axis, length in zip(model.signature.inputs[name].shape or (), array.shape, strict=False):
            if isinstance(axis, str) and axis != "?":
                lengths[axis] = length if lengths.get(axis, length) == length else None
    return lengths


def _identity(scalar: Array) -> object:
    """A key that is equal only for identical scalars: bytes, because -0.0 == 0.0 although they differ."""
    return scalar.item() if scalar.dtype.hasobject else scalar.tobytes()


def expected_inputs(model: Model, sent: Mapping[str, Any] | Collection[str]) -> str:
    """The inputs of a model and those that were received, for an error message."""
    came = listed(sorted(sent))
    optional = model.optional_inputs
    specs = [
        f"{spec} (optional)" if name in optional else str(spec)
        for name, spec in model.signature.inputs.items()
    ]
    return f"expected {', '.join(specs) or 'none'}; got {came}{_kept(model, sent)}"


def _kept(model: Model, names: Collection[str]) -> str:
    """A hint if some of these names belong to the state that the server keeps; else ""."""
    found = model.sequence_state.names_among(names) if model.sequence_state else ()
    return (
        f"; the server keeps {' and '.join(found)}; requests must not send it or ask for it" if found else ""
    )


def of_nothing(spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    """The flat array of a tensor without values, which is valid only if its shape is empty."""
    if 0 not in shape:
        raise InvalidRequest(f"input {spec.name} has no values, expected {spec}")
    return np.empty(0, spec.datatype.dtype)


def of_raw(spec: TensorSpec, raw: bytes) -> Array:
    """The flat array of a tensor's raw bytes: row-major, little-endian.

    Raises:
        InvalidRequest: their number is not a multiple of the element size, or an element is invalid.
    """
    if spec.datatype is DataType.BYTES:
        return values.text_array(_unpacked(spec, raw))
    size = spec.datatype.dtype.itemsize
    if len(raw) % size:
        raise InvalidRequest.of_form(
            f"input {spec.name} has {many(len(raw), 'byte')}, not a multiple of the {size} bytes of "
            f"{spec.datatype}"
        )
    flat = np.frombuffer(raw, spec.datatype.dtype)
    if spec.datatype is DataType.BOOL and flat.view(np.uint8).max(initial=0) > 1:
        raise InvalidRequest(f"input {spec.name} is BOOL: every byte must be 0 or 1")
    return flat


def _unpacked(spec: TensorSpec, raw: bytes) -> list[str]:
    texts: list[str] = []
    position, end = 0, len(raw)
    unpack, decoded, append = LENGTH.unpack_from, values.decoded, texts.append
    while position < end:
        start = position + 4
        length = unpack(raw, position)[0] if start <= end else 0
        position = start + length
        if position > end:
            raise InvalidRequest(
                f"input {spec.name}: element {len(texts)} ends after the {many(end, 'byte')} of the input"
            )
        append(decoded(spec, len(texts), raw[start:position]))
    return texts


def shaped(flat: Array, shape: tuple[int, ...], spec: TensorSpec) -> Array:
    """The array in its shape, which is inferred if none was sent."""
    count = len(flat)
    if not shape and spec.shape != () and count:
        shape = _inferred(count, spec)
    if not fits(shape, spec):
        raise InvalidRequest.of_form(f"input {spec.name} has shape {list(shape)}, expected {spec}")
    holds = math.prod(shape)
    if holds != count:
        sent = f"{many(count, 'value')}, but shape {list(shape)} needs {holds}"
        raise InvalidRequest.of_form(f"input {spec.name} has {sent}")
    if not count and math.prod(filter(None, shape)) > MAX_EMPTY:
        raise InvalidRequest(f"input {spec.name} is empty, and its shape {list(shape)} is too large")
    return flat.reshape(shape)


def fits(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    """Whether a shape fits the one that `spec` declares."""
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
    """The only shape that `spec` allows for this number of values.

    Raises:
        InvalidRequest: there is no such shape, or more than one.
    """
    declared = spec.shape
    if declared is None:
        if count == 1:
            return ()
        raise InvalidRequest(f"input {spec.name} has no shape, and the model declares none")
    open_axes = sum(isinstance(size, str) for size in declared)
    if open_axes > 1:
        raise InvalidRequest(
            f"input {spec.name} has no shape; it is ambiguous with {open_axes} open axes: {spec}"
        )
    fixed = math.prod(size for size in declared if isinstance(size, int))
    if not open_axes and count == fixed:
        return tuple(size for size in declared if isinstance(size, int))
    if not open_axes or not fixed or count % fixed:
        do = "does" if count == 1 else "do"
        raise InvalidRequest(f"input {spec.name} has {many(count, 'value')}, which {do} not fill {spec}")
    return tuple(size if isinstance(size, int) else count // fixed for size in declared)


def pack_bytes(array: Array) -> bytes:
    """The elements of a text array, each after its length in 4 bytes, little-endian."""
    parts: list[bytes] = []
    for text in array.ravel():
        data = text.encode()
        parts += (LENGTH.pack(len(data)), data)
    return b"".join(parts)
