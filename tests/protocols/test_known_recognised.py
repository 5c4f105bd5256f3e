"""Which requests are recognised without parsing, and that a flood of odd ones pushes no regular one out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytest

from penstock.core import wire
from penstock.protocols.fast_path import known_lists, known_requests
from penstock.protocols.open_inference.service import InferenceService
from penstock.protocols.penstock_v1.micro_batches import Members
from penstock.protocols.penstock_v1.service import PredictionService
from penstock_proto.inference import grpc_service_pb2 as oip
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2
from protocols.test_known_spans import INFER, PARENT, PREDICT, SMALL, STREAM, Side, pieces

WORDS = ("a", "", "two words", "Größe", "x" * 300)


@pytest.fixture(autouse=True)
def _learning_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_requests, "LEARNING_SECONDS", 0.0)


def text_bytes(*words: str) -> bytes:
    return b"".join(len(word.encode()).to_bytes(4, "little") + word.encode() for word in words)


def predict(x: float = 0, word: str = "word", as_list: bool = False, **fields: Any) -> pb.PredictRequest:
    made = pb.PredictRequest(model="m", **fields)
    made.inputs["b"].raw = b"\1"
    made.inputs["i"].int_values.append(int(x) * 100 - 100)
    if as_list:
        made.inputs["x"].float_values.extend([x, x])
        made.inputs["t"].string_values.append(word)
        made.inputs["d"].double_values.append(x)
        return made
    values = {"x": np.full((1, 2), x, "<f4").tobytes(), "t": text_bytes(word), "d": np.full(1, x).tobytes()}
    for name, raw in values.items():
        made.inputs[name].CopyFrom(tensor_pb2.Tensor(shape=(1, 2) if name == "x" else (1,), raw=raw))
    return made


def infer(x: float = 0, word: str = "word", as_list: bool = False, **fields: Any) -> oip.ModelInferRequest:
    made = oip.ModelInferRequest(model_name="m", **fields)
    raws = {
        "x": ("FP32", (1, 2), np.full((1, 2), x, "<f4").tobytes(), "fp32_contents", [x, x]),
        "t": ("BYTES", (1,), text_bytes(word), "bytes_contents", [word.encode()]),
        "d": ("FP64", (1,), np.full(1, x).tobytes(), "fp64_contents", [x]),
    }
    for name, (datatype, shape, raw, field, values) in raws.items():
        tensor = made.inputs.add(name=name, datatype=datatype, shape=shape)
        if as_list:
            getattr(tensor.contents, field).extend(values)
        else:
            made.raw_input_contents.append(raw)
    tensor = made.inputs.add(name="i", datatype="INT32", shape=(1,))
    if as_list:
        tensor.contents.int_contents.append(7)
    else:
        made.raw_input_contents.append(np.full(1, 7, "<i4").tobytes())
    tensor = made.inputs.add(name="b", datatype="BOOL", shape=(1,))
    if as_list:
        tensor.contents.bool_contents.append(True)
    else:
        made.raw_input_contents.append(b"\1")
    return made


def micros(number: int) -> Mapping[str, oip.InferParameter]:
    return {"timeout": oip.InferParameter(int64_param=number)}


def words(text: str) -> Mapping[str, oip.InferParameter]:
    return {"traceparent": oip.InferParameter(string_param=text)}


TIMEOUTS = ({"seconds": 1}, {"nanos": 5}, {"seconds": 2, "nanos": 999_999_999}, {"seconds": 300})
VARIATIONS: Mapping[str, tuple[Any, str, Iterable[Any]]] = {
    "ids": (PredictionService, PREDICT, [predict(id=word) for word in WORDS if word]),
    "tags": (PredictionService, PREDICT, [predict(tag=1 << 7 * n) for n in range(8)]),
    "timeouts": (PredictionService, PREDICT, [predict(timeout=each) for each in TIMEOUTS]),
    "metadata": (
        PredictionService, PREDICT, [predict(metadata={"traceparent": word}) for word in WORDS if word]
    ),
    "texts": (PredictionService, PREDICT, [predict(word=word) for word in WORDS]),
    "lists": (PredictionService, PREDICT, [predict(n, word, True) for n, word in enumerate(WORDS) if word]),
    "all": (
        PredictionService, PREDICT,
        [
            predict(n, word, id="i" * n, tag=1 << n, timeout={"nanos": n}, metadata={"traceparent": "t" * n})
            for n, word in enumerate(WORDS, 1)
        ],
    ),
    "OIP ids": (InferenceService, INFER, [infer(id=word) for word in WORDS if word]),
    "OIP timeouts": (
        InferenceService, INFER, [infer(parameters=micros(n)) for n in (1, 10**3, 10**6, 10**9)]
    ),
    "OIP parameters": (
        InferenceService, INFER, [infer(parameters=words(word)) for word in WORDS if word]
    ),
    "OIP texts": (InferenceService, INFER, [infer(n, word, id="i") for n, word in enumerate(WORDS)]),
}  # fmt: skip


def fields_in_order(message: Any, order: Callable[[list[bytes]], list[bytes]]) -> bytes:
    return b"".join(order(pieces(message)))


@pytest.mark.parametrize("order", [list, lambda parts: parts[::-1], lambda parts: [*parts[2:], *parts[:2]]])
@pytest.mark.parametrize("variation", VARIATIONS)
def test_what_differs_is_not_parsed(variation: str, order: Any) -> None:
    kind, method, messages = VARIATIONS[variation]
    known, parsed = Side(kind), Side(kind, learns=False)
    sent = [fields_in_order(each, order) for each in messages]
    known.send(method, sent[0])
    known.send(method, sent[-1])
    known.decoded = 0
    for data in [*sent, *sent]:
        assert known.send(method, data) == parsed.send(method, data)
    if order is list:
        assert known.decoded == 0
    else:  # a field that differs comes first: the message is found by its length only
        assert known.decoded <= len(sent)


def test_a_message_of_many_with_ids_timeouts_and_traces_is_one_entry() -> None:
    side, parsed = Side(PredictionService, SMALL), Side(PredictionService, SMALL, learns=False)

    side.service.reads = parsed.service.reads = ()  # else each needs metadata of its own

    def one(number: int, **fields: Any) -> bytes:
        made = pb.PredictRequest(
            model="m", id=f"request-{number:05}", tag=1000 + number, metadata={"x-trace": PARENT[:-2] + "00"},
            timeout={"nanos": 990_000_000 + 1000 * number}, **fields,
        )  # fmt: skip
        made.inputs["x"].CopyFrom(tensor_pb2.Tensor(shape=(1, 2), raw=np.full(2, number, "<f4").tobytes()))
        return wire.field(b"\x0a", made.SerializeToString())

    side.send(STREAM, one(1))
    many = b"".join(one(number) for number in range(30))
    assert side.send(STREAM, many) == parsed.send(STREAM, many)
    assert [type(each) for each in side.engine.taken] == [Members]
    wide = b"".join(one(number) for number in range(0, 60_000, 3000))  # the timeouts are further apart
    assert side.send(STREAM, wide) == parsed.send(STREAM, wide)
    assert len(side.engine.taken) > 1


def plain(rows: int = 1, model: str = "m", **fields: Any) -> bytes:
    made = pb.PredictRequest(model=model, **fields)
    made.inputs["x"].CopyFrom(tensor_pb2.Tensor(shape=(rows, 2), raw=bytes(8 * rows)))
    return made.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    "odd",
    [
        lambda n: plain(n + 2),
        lambda n: plain(n + 2, id="i"),
        lambda n: plain(priority=n + 1, id="i"),
        lambda n: plain(metadata={f"key-{n}": "value"}),
        lambda n: plain(outputs=["y"] * (n % 50 + 1), priority=n, tag=7),
    ],
    ids=["shapes", "shapes with ids", "priorities", "metadata", "outputs"],
)
def test_a_flood_of_odd_requests_pushes_no_regular_one_out(odd: Callable[[int], bytes]) -> None:
    side = Side(PredictionService, SMALL)
    regular = [plain(), plain(id="abc"), plain(timeout={"seconds": 3}, tag=5), plain(outputs=["y"])]
    for data in regular * 3:
        side.send(PREDICT, data)
    flood = 4 * known_lists.MOST
    parsed = 0
    for number in range(flood):
        side.send(PREDICT, odd(number))
        if number % 16 == 0:
            before = side.decoded
            for data in regular:
                side.send(PREDICT, data)
            parsed += side.decoded - before
        assert len(side.service.known_requests) <= known_lists.MOST
    assert parsed == 0
    assert side.decoded >= flood - known_lists.MOST, "the odd ones are not odd"


def test_those_that_are_not_used_any_more_make_room() -> None:
    side = Side(PredictionService, SMALL)
    for number in range(known_lists.MOST):
        for _ in range(20):
            side.send(PREDICT, plain(number + 1))
    for number in range(12 * known_lists.MOST):  # the counts of old uses are halved now and then
        side.send(PREDICT, plain(1, metadata={f"key-{number}": "v"}))
    news = [plain(priority=number) for number in range(1, 5)]
    for data in news * 10:
        side.send(PREDICT, data)
    side.decoded = 0
    for data in news * 5:
        side.send(PREDICT, data)
    assert side.decoded == 0


def test_many_shapes_of_one_caller_are_all_recognised() -> None:
    side = Side(PredictionService, SMALL)
    shapes = [plain(rows, id=f"{rows}") for rows in range(1, 65)]
    for data in shapes * 2:
        side.send(PREDICT, data)
    side.decoded = 0
    for data in shapes * 2:
        side.send(PREDICT, data)
    assert side.decoded == 0


@pytest.mark.parametrize(
    "other",
    [
        b"\x08\x02\x10" + wire.varint(3_100_000_000),  # as 32 bits the nanoseconds are negative
        b"\x08\x05\x10" + wire.varint(2**34 + 100_000_000),
        b"\x10\x05\x08" + wire.varint(3_100_000_000),
        b"\x08\x05\x10\x80\xc2\xd7\x2f\x00"[:7],
    ],
)
def test_an_odd_timeout_among_many_is_read_as_a_parser_reads_it(other: bytes) -> None:
    side, parsed = Side(PredictionService, SMALL), Side(PredictionService, SMALL, learns=False)
    first = b"\x08\x05\x10" + b"\x80\xc2\xd7\xaf\x00"  # 5.1 s, of the same width

    def one(timeout: bytes) -> bytes:
        return wire.field(b"\x0a", plain() + wire.field(b"\x3a", timeout))

    side.send(STREAM, one(first))
    for message in (one(first) * 4 + one(other) + one(first) * 4, one(other) * 9):
        assert side.send(STREAM, message) == parsed.send(STREAM, message)


@pytest.mark.parametrize(
    "bad",
    [(b"word", b"wo\xff\xfe"), (b"*\x02\xac\x02", b"*\x02\xac\x82"), (b"*\x02\xac\x02", b"*\x02\xff\xff")],
    ids=["text", "number", "numbers"],
)
def test_what_no_parser_accepts_is_not_recognised(bad: tuple[bytes, bytes]) -> None:
    """On a stream as well, whose message it is all of, or a part: the stream ends as if none were known."""
    good = predict(4, as_list=True).SerializeToString(deterministic=True)
    assert bad[0] in good
    broken = good.replace(*bad)
    for message in (wire.field(b"\x0a", broken), wire.field(b"\x0a", good) + wire.field(b"\x0a", broken)):
        known, parsed = Side(PredictionService), Side(PredictionService, learns=False)
        for _ in range(3):
            known.send(STREAM, wire.field(b"\x0a", good))
        assert known.send(STREAM, message) == parsed.send(STREAM, message)
        assert known.send(STREAM, message) == [
            f"the request ({len(broken)} bytes) cannot be parsed as PredictRequest"
        ]
    assert known.send(PREDICT, broken) == parsed.send(PREDICT, broken)


@pytest.mark.parametrize(
    "length", [b"\xff" * 20, b"\x80" * 16, b"\xff" * 10 + b"\x01" * 10], ids=["long", "zeros", "odd"]
)
def test_a_message_whose_first_length_is_no_number_cannot_be_parsed(length: bytes) -> None:
    known = Side(PredictionService, SMALL)
    assert known.send(STREAM, b"\x0a" + length) == [
        f"the request ({len(length) + 1} bytes) cannot be parsed as PredictStreamRequest"
    ]
