"""How much work a message is: estimated from its bytes, before anything is made of them.

The thread that polls gRPC decodes small messages itself. What a message costs does not follow from its size:
a quarter of a megabyte of raw values costs nearly nothing, as many bytes of empty texts some milliseconds. So
a message that may be much work is looked at first, and workers decode it where it is.

The times are those of one core of an ordinary server; they need to be right within a factor of two or so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from penstock.core import wire
from penstock.core.errors import InvalidRequest
from penstock.core.request import Response
from penstock.core.wire import Names
from penstock.protocols.tensors import LENGTH

LIGHT_BYTES = 8192
"""A message up to this size is never much work: at worst 1 ms, for as many names as fit into it."""
FIELD_SECONDS = 1e-6
NUMBER_SECONDS = 10e-9
"""For each byte of a typed list of numbers. A byte may be an integer of its own."""
TEXT_SECONDS = 50e-9
"""For each byte of a typed list of texts, each of which takes two bytes at least."""
PACKED_TEXT_SECONDS = 125e-9
"""For each byte of raw texts, each of which takes four bytes at least."""
WRITTEN_TEXT_SECONDS = 500e-9
WRITTEN_SECONDS = 2e-6
"""No element of an answer takes longer to write, whatever it is, and in whatever format."""
BYTE_SECONDS = 0.2e-9
"""For each byte that is only copied."""
LOOKED_AT = 512
"""Fields that are looked at; a message with more of them is much work."""
TEXTS_LOOKED_AT = 16
"""Texts, and fields of a tensor, that are looked at; the others are taken for the smallest ones."""
FIELDS_A_NAME = 4
OTHER_FIELDS = 64


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a message may be.

    Attributes:
        inline_seconds: the thread that polls gRPC decodes a message that takes at most about this long.
        names: how many inputs, outputs and parameters a request may have together.
        requests: how many requests a message of a stream may have.
    """

    inline_seconds: float = 0.002
    names: int = 1024
    requests: int = 16_384


@dataclass(frozen=True, slots=True)
class Work:
    """How much work the messages of a protocol are.

    Attributes:
        seconds: how long decoding a request takes, at most about; infinity for too long to find out.
        names: the fields of a request that count as names.
        answer_seconds: how long it takes to write an answer, given its format.
        labels: reads the id and the tag of a request that is not parsed; "" and 0 if that is not possible.
    """

    seconds: Callable[[bytes], float]
    names: Names
    answer_seconds: Callable[[Response, Any], float]
    labels: Callable[[bytes], tuple[str, int]]


def too_many_names(data: bytes, names: Names, most: int) -> InvalidRequest | None:
    """The error of a request that has more names than it may; None for any other.

    Args:
        data: the request.
        names: the fields that count as names.
        most: how many a request may have.
    """
    limit = FIELDS_A_NAME * most + OTHER_FIELDS
    found, fields = wire.count_names(data, names, most, limit)
    if found <= most and fields <= limit:
        return None
    came = f"{found} or more inputs, outputs and parameters"
    if found <= most:  # how many fields there are is not known: some count as several
        came = f"more fields than {most} inputs, outputs and parameters need"
    return InvalidRequest(
        f"the request ({len(data)} bytes) has {came}; at most {most} inputs, outputs and parameters are "
        "allowed (server.max_request_names)"
    )


def reader_of_labels(id_field: int, tag_field: int | None = None) -> Callable[[bytes], tuple[str, int]]:
    """A function that reads the id and the tag of a request, and nothing else of it.

    Args:
        id_field: the number of the field of the id.
        tag_field: that of the tag; None if requests have none.
    """
    file = FileDescriptorProto(name="labels.proto", syntax="proto3", package="penstock.work")
    labels = file.message_type.add(name="Labels")
    labels.field.add(name="id", number=id_field, type=Field.TYPE_STRING, label=Field.LABEL_OPTIONAL)
    if tag_field is not None:
        labels.field.add(name="tag", number=tag_field, type=Field.TYPE_UINT64, label=Field.LABEL_OPTIONAL)
    pool = DescriptorPool()
    pool.Add(file)
    kind = GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{labels.name}"))

    def labels_of(data: bytes) -> tuple[str, int]:
        try:
            message: Any = kind.FromString(data)
        except DecodeError:
            return "", 0
        return message.id, 0 if tag_field is None else message.tag

    return labels_of


def list_seconds(data: bytes, start: int, end: int, seconds_a_byte: Mapping[int, float]) -> float:
    """How long it takes to read a tensor, or the typed lists of one.

    Args:
        data: the message.
        start: where the tensor begins.
        end: where it ends.
        seconds_a_byte: what each byte of a field takes, by the field's key; 0 for those that are counted
            elsewhere. Fields with another key are texts, or are not known.
    """
    seconds = 0.0
    for number, (key, first, last) in enumerate(wire.fields(data, start, end)):
        if number == TEXTS_LOOKED_AT:
            return seconds + (end - first) * TEXT_SECONDS
        seconds += FIELD_SECONDS / 4 + (last - first) * seconds_a_byte.get(key, BYTE_SECONDS)
    return seconds


def packed_text_seconds(data: bytes, start: int, end: int) -> float:
    """How long it takes to read raw texts between two positions."""
    for _ in range(TEXTS_LOOKED_AT):
        if start + LENGTH.size > end:
            return 0.0
        start += LENGTH.size + LENGTH.unpack_from(data, start)[0]
    return max(end - start, 0) * PACKED_TEXT_SECONDS


def elements_of(response: Response, name: str) -> int:
    """How many elements an output has in a response."""
    array, stop = response.run.outputs[name], response.stop
    if stop is None or not array.size:
        return int(array.size)
    return int(array.size) // len(array) * (stop - response.start)


def text_seconds(response: Response) -> float:
    """How long it takes to write the texts in a response."""
    outputs = response.run.outputs
    count = sum([elements_of(response, name) for name in response.names if outputs[name].dtype.hasobject])
    return count * WRITTEN_TEXT_SECONDS


def guarded(seconds: Callable[[bytes], float]) -> Callable[[bytes], float]:
    """The function, with infinity for messages that cannot be parsed: the parser says so elsewhere."""

    def guarded_seconds(data: bytes) -> float:
        try:
            return seconds(data)
        except ValueError:
            return math.inf

    return guarded_seconds
