"""Lists of varints in bulk are what protobuf makes of them, and what it would write."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.core import varints, wire
from penstock_proto.inference.grpc_service_pb2 import InferTensorContents
from penstock_proto.v1.tensor_pb2 import Tensor

LISTS: dict[str, tuple[Any, str]] = {
    "?": (InferTensorContents, "bool_contents"),
    "<i4": (InferTensorContents, "int_contents"),
    "<i8": (Tensor, "int_values"),
    "<u4": (InferTensorContents, "uint_contents"),
    "<u8": (Tensor, "uint_values"),
}
"""A list of protobuf for each dtype."""

NUMBERS = st.one_of(
    st.integers(0, 127),
    st.integers(0, 2**16),
    st.integers(0, 2**64 - 1),
    st.integers(2**64 - 200, 2**64 - 1),
    st.sampled_from([each + more for bits in range(7, 64, 7) for each in (2**bits,) for more in (-1, 0, 1)]),
)
CHUNKS = [10, 11, 64, 2**18]


def overlong(number: int, more: int) -> bytes:
    """A number in more bytes than it needs, as far as protobuf accepts them."""
    short = wire.varint(number)
    more = min(more, varints.LONGEST - len(short))
    if not more:
        return short
    return short[:-1] + bytes([short[-1] | 0x80]) + b"\x80" * (more - 1) + b"\0"


def by_protobuf(data: bytes, dtype: str) -> list[Any]:
    kind, name = LISTS[dtype]
    number = kind.DESCRIPTOR.fields_by_name[name].number
    message = kind.FromString(wire.field(wire.key(number, wire.LENGTH_DELIMITED), data))
    return list(getattr(message, name))


def content_is_short(data: bytes) -> bool:
    """Whether each number has one byte."""
    return bool(data) and data.isascii()


def in_bulk(data: bytes, dtype: str) -> list[Any]:
    found = varints.read(np.frombuffer(data, np.uint8), np.dtype(dtype))
    if dtype != "?" and content_is_short(data):
        assert found.dtype == np.uint8
    else:
        assert found.dtype == np.dtype(dtype)
    assert found.flags.writeable
    return list(found.tolist())


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("dtype", LISTS)
@given(data=st.data())
def test_a_list_is_what_protobuf_reads(dtype: str, chunk: int, data: st.DataObject) -> None:
    each = st.tuples(NUMBERS, st.one_of(st.just(0), st.integers(0, 9)))
    content = b"".join([overlong(*one) for one in data.draw(st.lists(each, max_size=60))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(varints, "CHUNK_BYTES", chunk)
        assert in_bulk(content, dtype) == by_protobuf(content, dtype)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("dtype", LISTS)
@given(
    content=st.one_of(st.binary(max_size=64), st.text("\x00\x01\x7f\x80\xff", max_size=40).map(str.encode))
)
@example(content=b"\x80" * 9 + b"\x01")
@example(content=b"\x80" * 9 + b"\x02")
@example(content=b"\x80" * 10 + b"\x00")
@example(content=b"\x01" * 30 + b"\x80" * 11 + b"\x01" * 30)
@example(content=b"\x01\xff")
def test_what_is_read_of_any_bytes_is_what_protobuf_reads(dtype: str, chunk: int, content: bytes) -> None:
    """What protobuf rejects is never read; and it alone decides about numbers of more than 64 bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(varints, "CHUNK_BYTES", chunk)
        try:
            found = in_bulk(content, dtype)
        except ValueError:
            if not has_too_large(content):
                with pytest.raises(DecodeError):
                    by_protobuf(content, dtype)
            return
        assert found == by_protobuf(content, dtype)


def has_too_large(content: bytes) -> bool:
    """Whether the bytes are numbers, and one of them has more than 64 bits."""
    found, at = False, 0
    while at < len(content):
        try:
            number, at = wire.read_varint(content, at)
        except ValueError:
            return False
        found = found or number >= 2**64
    return found


@pytest.mark.parametrize(
    "content", [b"\xff", b"\x01\x80", b"\x80" * 10 + b"\1", b"\x80" * 9 + b"\x02", b"\x80" * 99]
)
def test_what_is_no_list_of_numbers_is_rejected(content: bytes) -> None:
    with pytest.raises(ValueError, match="number"):
        varints.read(np.frombuffer(content, np.uint8), np.dtype("<i8"))


@pytest.mark.parametrize("chunk", [1, 5, 2**16])
@given(numbers=st.lists(NUMBERS, max_size=60))
def test_a_list_is_what_protobuf_writes(chunk: int, numbers: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(varints, "CHUNK_NUMBERS", chunk)
        found = b"".join(varints.written(np.array(numbers, np.uint64)))
    assert found == b"".join(map(wire.varint, numbers))
    assert Tensor.FromString(wire.field(b"\x32", found)) == Tensor(uint_values=numbers)


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
def test_numbers_of_every_width_are_written(dtype: str) -> None:
    bounds = np.iinfo(dtype)
    numbers = np.array([bounds.min, bounds.max, 0, 1, bounds.max // 3], dtype)
    name = "int_values" if numbers.dtype.kind == "i" else "uint_values"
    number = Tensor.DESCRIPTOR.fields_by_name[name].number
    data = wire.field(wire.key(number, wire.LENGTH_DELIMITED), b"".join(varints.written(numbers)))
    assert list(getattr(Tensor.FromString(data), name)) == numbers.tolist()


def test_no_step_is_taken_for_each_number() -> None:
    """Whatever the numbers: a step of Python for each would hold the interpreter for a tenth of a second."""
    numbers = np.random.default_rng(0).integers(-(2**40), 2**40, 300_000)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        data = b"".join(varints.written(numbers))
        again = varints.read(np.frombuffer(data, np.uint8), np.dtype("<i8"))
    finally:
        sys.setprofile(None)
    assert (again == numbers).all()
    assert calls < 5_000
