"""Reads the few facts of an ONNX file that ONNX Runtime does not tell.

The file is a protobuf message of the `onnx.ModelProto` type, possibly of gigabytes. This walks over its
top-level fields without copying or understanding the rest; the field numbers are those of onnx.proto in
the ONNX specification.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

Value: TypeAlias = int | memoryview

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MODEL_OPSET_IMPORT, MODEL_GRAPH = 8, 7
OPSET_DOMAIN, OPSET_VERSION = 1, 2
GRAPH_INPUT, GRAPH_OUTPUT = 11, 12
VALUE_NAME, VALUE_TYPE = 1, 2
TYPE_TENSOR = 1
TENSOR_SHAPE = 2
STANDARD_DOMAIN = "ai.onnx"


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def opsets(path: Path) -> dict[str, int]:
    """The version of every operator set the file was written against, by domain.

    Raises:
        ValueError: the file is not a protobuf message.
    """
    found = {}
    with _mapped(path) as data:
        for number, value in _fields(data):
            if number == MODEL_OPSET_IMPORT and isinstance(value, memoryview):
                entry = dict(_fields(value))
                version = entry.get(OPSET_VERSION)
                found[_text(entry.get(OPSET_DOMAIN)) or STANDARD_DOMAIN] = (
                    version if isinstance(version, int) else 0
                )
    return found


def tensors_of_any_rank(path: Path) -> set[str]:
    """The graph's inputs and outputs that declare no shape at all, unlike a scalar's empty one.

    Raises:
        ValueError: the file is not a protobuf message.
    """
    found = set()
    with _mapped(path) as data:
        for graph in _messages(data, MODEL_GRAPH):
            for tensor in _messages(graph, GRAPH_INPUT, GRAPH_OUTPUT):
                types = [
                    kind for each in _messages(tensor, VALUE_TYPE) for kind in _messages(each, TYPE_TENSOR)
                ]
                if not any(list(_messages(kind, TENSOR_SHAPE)) for kind in types):
                    found.add(_text(dict(_fields(tensor)).get(VALUE_NAME)))
    return found


class _mapped:  # noqa: N801 - used as a function
    """The file's bytes, without reading them all."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> memoryview:
        self._data = self._path.read_bytes() if self._path.stat().st_size < 2**20 else self._map()
        return memoryview(self._data)

    def __exit__(self, *_: object) -> None:
        del self._data  # unmapped with the last view of it

    def _map(self) -> mmap.mmap:
        with self._path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _text(value: Value | None) -> str:
    return bytes(value).decode() if isinstance(value, memoryview) else ""


def _messages(data: memoryview, *numbers: int) -> Iterator[memoryview]:
    for number, value in _fields(data):
        if number in numbers and isinstance(value, memoryview):
            yield value


def _fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """The number and value of every field of one message (protobuf.dev/programming-guides/encoding)."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        kind = key & 7
        if kind == VARINT:
            value, position = _varint(data, position)
            yield key >> 3, value
            continue
        if kind == LENGTH:
            length, position = _varint(data, position)
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind} at byte {position}")
        if position + length > len(data):
            raise ValueError(f"a field of {length} bytes at byte {position} of {len(data)}")
        yield key >> 3, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError(f"a number without an end at byte {position}")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
