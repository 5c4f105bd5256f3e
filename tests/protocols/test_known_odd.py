"""Odd encodings that look like a known request and mean something else, or nothing."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from penstock.core import wire
from penstock.core.tensors import DataType
from penstock.protocols.fast_path import known_requests
from penstock.protocols.open_inference.service import InferenceService
from penstock.protocols.penstock_v1.service import PredictionService
from penstock_proto.v1 import prediction_pb2 as pb
from protocols.test_known_spans import INFER, PREDICT, SMALL, Side
from support.work import signature_of, spec

NUMBERS = signature_of([spec("i", ("N",), DataType.INT32)], [spec("y", ("N",))])


@pytest.fixture(autouse=True)
def _learning_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_requests, "LEARNING_SECONDS", 0.0)


def field(number: int, content: bytes) -> bytes:
    return wire.field(bytes([number << 3 | wire.LENGTH_DELIMITED]), content)


def number(number: int, value: int) -> bytes:
    return bytes([number << 3 | wire.VARINT]) + wire.varint(value)


def are_equal(kind: Any, method: str, signature: Any, usual: bytes, odd: bytes) -> bool:
    """Whether `odd` means after several requests like `usual` what it means to a parser."""
    known, parsed = Side(kind, signature), Side(kind, signature, learns=False)
    for _ in range(4):
        known.send(method, usual)
    return known.send(method, odd) == parsed.send(method, odd)


def test_integers_that_are_packed_in_part() -> None:
    def request(packed: bytes) -> bytes:
        return field(1, b"m") + field(4, field(1, b"i") + field(2, number(5, 3) + field(5, packed)))

    assert are_equal(PredictionService, PREDICT, NUMBERS, request(b"\1\2"), request(b"\1\2\7"))
    assert are_equal(PredictionService, PREDICT, NUMBERS, request(b"\1\2"), request(b"\7\2"))


def infer(*others: bytes) -> bytes:
    x = field(5, field(1, b"x") + field(2, b"FP32") + field(3, b"\1\2"))
    return field(1, b"m") + b"".join(others) + x + field(7, struct.pack("<2f", 1, 2))


def test_a_parameter_that_comes_twice() -> None:
    """The last one counts."""

    def request(first: int) -> bytes:
        one = field(4, field(1, b"timeout") + field(2, number(2, first)))
        return infer(one, field(4, field(1, b"timeout") + field(2, number(2, 1) + number(2, 10_000_000))))

    assert are_equal(InferenceService, INFER, SMALL, request(5_000_000), request(1))


def test_lengths_of_more_bytes_than_a_parser_takes() -> None:
    usual, odd = field(3, b"bb"), b"\x1a\x82\x80\x80\x80\x80\x00bb"
    assert are_equal(InferenceService, INFER, SMALL, infer() + usual, infer() + odd)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("value", [1, 300, -1])
def test_a_long_list_like_a_short_one_takes_no_step_for_each_value(
    count: int, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parser reads it. Looking at each of 250,000 values held up everything else for 60 ms."""

    def request(many: int) -> bytes:
        made = pb.PredictRequest(model="m")
        made.inputs["i"].int_values.extend([value] * many)
        return made.SerializeToString()

    known = Side(PredictionService, NUMBERS)
    for _ in range(2):
        known.send(PREDICT, request(count))
    assert known.decoded == 1
    steps = 0
    read = wire.read_varint

    def counted(data: bytes, position: int) -> tuple[int, int]:
        nonlocal steps
        steps += 1
        return read(data, position)

    monkeypatch.setattr(wire, "read_varint", counted)
    assert known.service.known_requests.find(request(50_000)) is None
    assert known.service.known_requests.find(request(count)) is not None
    assert steps < 50
