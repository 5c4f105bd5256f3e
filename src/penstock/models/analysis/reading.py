"""Reads an ONNX file without its weights: large values are left out before the message is parsed."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from penstock.backends.onnx_file import TENSORS
from penstock.core.wire import LENGTH_DELIMITED, field, fields, varint

if TYPE_CHECKING:
    import onnx

KEPT_BYTES = 1 << 16
"""Values of more bytes are left out: a table of shapes or axes has far fewer."""
DEEPEST = 60
"""The most messages within each other that are looked into; graphs nest a few levels."""

LEADS: Mapping[str, Mapping[int, str]] = {
    **TENSORS,
    # float_data, int32_data, string_data, int64_data, raw_data, double_data, uint64_data
    "tensor": dict.fromkeys((4, 5, 6, 7, 9, 10, 11), "values"),
}
"""The fields of each type of message that lead to values of tensors, and the type they are of."""


def read(path: Path) -> onnx.ModelProto:
    """The model without the values of large tensors, and without those that lie in other files.

    Raises:
        ValueError: the file is not an ONNX model.
        OSError: it cannot be read.
    """
    import onnx
    from google.protobuf.message import DecodeError

    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            light = _without_values(cast(bytes, mapped), 0, len(mapped), "model", 0)
    try:
        return onnx.ModelProto.FromString(light)
    except DecodeError as error:
        raise ValueError("the file is not an ONNX model") from error


def _without_values(data: bytes, start: int, end: int, kind: str, depth: int) -> bytes:
    """The bytes of a message without large values in it.

    Raises:
        ValueError: it is not a message, or nests too deep.
    """
    if end - start <= KEPT_BYTES and kind != "model":
        return data[start:end]
    if kind == "values":
        return b""
    if depth > DEEPEST:
        raise ValueError("the graph nests too deep")
    leads = LEADS[kind]
    parts = []
    before = start
    for key, begin, stop in fields(data, start, end):
        inner = leads.get(key >> 3) if key & 7 == LENGTH_DELIMITED else None
        if inner is None or stop - begin <= KEPT_BYTES:
            parts.append(data[before:stop])
        elif inner != "values":
            parts.append(field(varint(key), _without_values(data, begin, stop, inner, depth + 1)))
        before = stop
    return b"".join(parts)
