"""Reads facts of an ONNX file that ONNX Runtime does not tell, such as opsets and external data.

The file is a protobuf message of the `onnx.ModelProto` type, possibly of gigabytes. This walks over its
fields without copying or understanding the rest; the field numbers are those of onnx.proto in the ONNX
specification.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

from penstock.core.wire import LENGTH_DELIMITED, VARINT, fields, read_varint

MODEL_IR_VERSION, MODEL_GRAPH, MODEL_OPSET_IMPORT, MODEL_FUNCTIONS = 1, 7, 8, 25
MODEL_PRODUCER = 2
OPSET_DOMAIN, OPSET_VERSION = 1, 2
GRAPH_INPUT, GRAPH_OUTPUT = 11, 12
VALUE_NAME, VALUE_TYPE = 1, 2
TYPE_TENSOR = 1
TENSOR_SHAPE = 2
TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION = 13, 14
ENTRY_KEY, ENTRY_VALUE = 1, 2
EXTERNAL = 1  # the data location of a tensor whose values lie in another file
LOCATION = b"location"  # the key of that file's name
STANDARD_DOMAIN = "ai.onnx"

TENSORS: Mapping[str, Mapping[int, str]] = {
    "model": {MODEL_GRAPH: "graph", MODEL_FUNCTIONS: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
"""Where tensors with values lie: the fields of each type of message that lead to them, and their types."""

CHUNK_BYTES = 1 << 20
SMALL_BYTES = 1 << 20  # a file of fewer bytes is read, a larger one mapped


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file says, for a later start of the same file: it need not be searched again.

    Attributes:
        opsets: as `opsets`.
        any_rank: as `tensors_of_any_rank`.
        tensors_only: whether all inputs and outputs of the graph are tensors.
    """

    opsets: Mapping[str, int]
    any_rank: tuple[str, ...]
    tensors_only: bool


@dataclass(slots=True)
class _Kept:
    """What is known of the files that are read within `reading_once`.

    Attributes:
        data: the bytes of small files.
        external: as `external_files`.
        facts: what was found at an earlier start.
    """

    data: dict[Path, bytes] = field(default_factory=dict)
    external: dict[Path, Sequence[str]] = field(default_factory=dict)
    facts: dict[Path, FileFacts] = field(default_factory=dict)


_kept: ContextVar[_Kept | None] = ContextVar("kept", default=None)


@contextmanager
def reading_once() -> Iterator[None]:
    """Until the `with` statement ends, this thread reads a small file once, whatever is asked about it."""
    token = _kept.set(_Kept())
    try:
        yield
    finally:
        _kept.reset(token)


def remember(path: Path, facts: FileFacts) -> None:
    """Until `reading_once` ends, takes these facts of a file as known; to be called within it."""
    kept = _kept.get()
    if kept is not None:
        kept.facts[path] = facts


def remembered(path: Path) -> FileFacts | None:
    """What is known of a file; None for nothing."""
    kept = _kept.get()
    return None if kept is None else kept.facts.get(path)


def sha256(path: Path, stopped: Callable[[], bool] = lambda: False) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal.

    Args:
        path: the file.
        stopped: asked every few milliseconds whether to give up; the result then means nothing.
    """
    kept = _kept.get()
    if kept is not None and path in kept.data:
        return hashlib.sha256(kept.data[path]).hexdigest()
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while not stopped() and (chunk := file.read(CHUNK_BYTES)):
            digest.update(chunk)
    return digest.hexdigest()


def opsets(path: Path) -> dict[str, int]:
    """The version of every operator set the file was written against, by domain.

    Raises:
        ValueError: the file is not a protobuf message.
    """
    found = {}
    with opened(path) as message:
        for entry in message.messages(MODEL_OPSET_IMPORT):
            found[entry.text(OPSET_DOMAIN) or STANDARD_DOMAIN] = entry.number(OPSET_VERSION)
    return found


def ir_version(path: Path) -> int:
    """The version of the file format itself; 0 if the file does not say.

    Raises:
        ValueError: the file is not a protobuf message.
    """
    with opened(path) as message:
        return message.number(MODEL_IR_VERSION)


def tensors_of_any_rank(path: Path) -> set[str]:
    """The graph's inputs and outputs that declare no shape at all, unlike a scalar's empty one.

    Raises:
        ValueError: the file is not a protobuf message.
    """
    found = set()
    with opened(path) as message:
        for graph in message.messages(MODEL_GRAPH):
            for tensor in graph.messages(GRAPH_INPUT, GRAPH_OUTPUT):
                types = [kind for each in tensor.messages(VALUE_TYPE) for kind in each.messages(TYPE_TENSOR)]
                if not any(list(kind.messages(TENSOR_SHAPE)) for kind in types):
                    found.add(tensor.text(VALUE_NAME))
    return found


def external_files(path: Path) -> Sequence[str]:
    """The names of the files that hold the values of tensors, as the model has them, sorted.

    They are relative to the model's folder. Unsafe names in a hostile file are included: see `beside`.

    Raises:
        ValueError: the file is not a protobuf message.
    """
    kept = _kept.get()
    if kept is not None and path in kept.external:
        return kept.external[path]
    found: Sequence[str] = ()
    small = _small(path)
    if small is None or LOCATION in small:  # most models have no such file, and need no walk
        with opened(path) as message:
            if message.data.find(LOCATION) >= 0:
                found = sorted({_location(tensor) for tensor in _tensors(message)} - {""})
    if kept is not None:
        kept.external[path] = found
    return found


def beside(path: Path, names: Sequence[str]) -> Sequence[str]:
    """Those of the named files that are there, in the model's folder or below it, in the same order."""
    inside = [name for name in names if "\0" not in name and ".." not in Path(name).parts]
    return [name for name in inside if not Path(name).is_absolute() and (path.parent / name).is_file()]


def _tensors(message: Message) -> Iterator[Message]:
    """All tensors with values; no recursion, for a hostile file nests as deep as it likes."""
    waiting = [("model", message)]
    while waiting:
        kind, outer = waiting.pop()
        leads = TENSORS[kind]
        for number, inner in outer.numbered(leads):
            if leads[number] == "tensor":
                yield inner
            else:
                waiting.append((leads[number], inner))


def _location(tensor: Message) -> str:
    if tensor.number(TENSOR_DATA_LOCATION) != EXTERNAL:
        return ""
    entries = {entry.text(ENTRY_KEY): entry for entry in tensor.messages(TENSOR_EXTERNAL_DATA)}
    found = entries.get(LOCATION.decode())
    return found.text(ENTRY_VALUE) if found else ""


class Message(NamedTuple):
    """A message within the bytes of a file.

    Attributes:
        data: the whole file; of a large one a mapping, which is read as bytes are.
        start: where the message begins.
        end: where it ends.
    """

    data: bytes
    start: int
    end: int

    def numbered(self, numbers: Mapping[int, str] | Sequence[int]) -> Iterator[tuple[int, Message]]:
        """The messages and texts in these fields, each with the field's number."""
        for key, start, stop in fields(self.data, self.start, self.end):
            if key & 7 == LENGTH_DELIMITED and key >> 3 in numbers:
                yield key >> 3, Message(self.data, start, stop)

    def messages(self, *numbers: int) -> Iterator[Message]:
        """The messages in these fields."""
        for _, message in self.numbered(numbers):
            yield message

    def text(self, number: int) -> str:
        """The text of a field, the last of several; "" if there is no such field."""
        found = [message.data[message.start : message.end] for message in self.messages(number)]
        return found[-1].decode() if found else ""

    def number(self, number: int) -> int:
        """The number of a field, the last of several; 0 if there is no such field of numbers."""
        found = 0
        for key, start, _ in fields(self.data, self.start, self.end):
            if key >> 3 == number:
                found = read_varint(self.data, start)[0] if key & 7 == VARINT else 0
        return found


def _small(path: Path) -> bytes | None:
    """The bytes of a small file; None of a large one.

    Raises:
        OSError: it cannot be read.
    """
    kept = _kept.get()
    data = None if kept is None else kept.data.get(path)
    if data is None and os.stat(path).st_size < SMALL_BYTES:
        data = path.read_bytes()
        if kept is not None:
            kept.data[path] = data
    return data


@contextmanager
def opened(path: Path) -> Iterator[Message]:
    """The message of a file, without reading all of it.

    Raises:
        OSError: it cannot be read.
    """
    data = _small(path)
    if data is not None:
        yield Message(data, 0, len(data))
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        yield Message(cast(bytes, mapped), 0, len(mapped))
