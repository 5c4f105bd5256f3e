"""Long lists of integers are read apart from their message, and mean what they mean in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core import wire
from penstock.core.errors import InvalidRequest
from penstock.core.tensors import DataType
from penstock.models.model import Batching, Model
from penstock.protocols import long_lists
from penstock.protocols.codec import Decoded
from penstock.protocols.open_inference import decoder as of_infer
from penstock.protocols.open_inference.service import InferenceService
from penstock.protocols.penstock_v1 import decoder as of_predict
from penstock.protocols.penstock_v1.service import PredictionService
from penstock_proto.inference import grpc_service_pb2 as oip
from penstock_proto.v1 import prediction_pb2 as pb
from protocols.test_known_spans import INFER, PREDICT, STREAM, Side, damaged
from support.work import HandBackend, batcher, echo, signature_of, spec

DATATYPES = [
    DataType.BOOL,
    DataType.INT8,
    DataType.INT32,
    DataType.INT64,
    DataType.UINT8,
    DataType.UINT32,
    DataType.UINT64,
    DataType.FP16,
    DataType.FP32,
    DataType.FP64,
    DataType.BF16,
    DataType.FP8E4M3FN,
    DataType.FP8E5M2FNUZ,
    DataType.BYTES,
]
COUNT = 70_000
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
Decode: TypeAlias = Callable[[bytes], Decoded]
LISTS = {
    PREDICT: ("bool_values", "int_values", "uint_values"),
    INFER: ("bool_contents", "int_contents", "int64_contents", "uint_contents", "uint64_contents"),
}


@contextmanager
def taken_from(message_bytes: int) -> Iterator[None]:
    """Lists are taken from messages of this size on, whatever their own size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_lists, "MESSAGE_BYTES", message_bytes)
        patch.setattr(long_lists, "LEAST", 1)
        patch.setattr(long_lists, "LEAST_WIDE", 1)
        yield


NUMBERS = st.one_of(
    st.integers(0, 1),
    st.integers(0, 300),
    st.integers(2**64 - 300, 2**64 - 1),
    st.sampled_from([2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63]),
)
CONTENT = st.one_of(
    st.lists(NUMBERS, min_size=1, max_size=6).map(lambda numbers: b"".join(map(wire.varint, numbers))),
    st.lists(st.integers(0, 127), min_size=1, max_size=6).map(bytes),
    st.lists(st.integers(0, 1), min_size=1, max_size=6).map(bytes),
    st.sampled_from(
        [b"", b"\x80\0", b"\1\x80", b"\xff" * 9 + b"\1", b"\xff" * 9 + b"\2", b"\x80" * 10 + b"\0"]
    ),
)
NAMES = st.sampled_from(["x"] * 12 + ["xx", "xz", ""])
"""Those of a request's inputs, each of one letter."""


def field(draw: st.DrawFn, number: int, content: bytes) -> bytes:
    """A length-delimited field, sometimes with an unusual key or length."""
    odd = draw(st.integers(0, 150))
    key, size = wire.key(number, wire.LENGTH_DELIMITED), wire.varint(len(content))
    if odd in (1, 2, 3):
        key = key[:-1] + bytes([key[-1] | 0x80]) + b"\x80" * (3 * odd - 3) + b"\0"
    if odd in (4, 5, 6):
        size = size[:-1] + bytes([size[-1] | 0x80]) + b"\x80" * (3 * odd - 12) + b"\0"
    return key + size + content


def once_or_twice(draw: st.DrawFn, parts: list[bytes]) -> bytes:
    """The parts, sometimes in another order, or one of them once more, or others between them."""
    how = draw(st.integers(0, 20))
    if how == 1:
        parts = draw(st.permutations(parts))
    if how == 2 and parts:
        parts = [*parts, draw(st.sampled_from(parts))]
    if how == 3:
        parts = [
            *parts,
            draw(st.sampled_from([b"\xa0\x06\x07", b"\x0b\x0c", b"\x2d1234", b"\x28\x01", b"\x20\x01"])),
        ]
    return b"".join(parts)


@st.composite
def predicts(draw: st.DrawFn) -> bytes:
    inputs = []
    for name in draw(NAMES):
        tensor = []
        if not draw(st.integers(0, 9)):
            tensor.append(b"\x08" + bytes([draw(st.sampled_from([1, 4, 8, 9, 11, 99]))]))
        if not draw(st.integers(0, 3)):
            tensor.append(field(draw, 2, bytes([draw(st.integers(0, 6))])))
        lists = draw(st.sampled_from([*[[number] for number in (4, 5, 6) * 3], [3, 5], [5, 6], [5, 5], [9]]))
        tensor += [field(draw, number, draw(CONTENT)) for number in lists]
        entry = [field(draw, 1, name.encode()), field(draw, 2, once_or_twice(draw, tensor))]
        inputs.append(field(draw, pb.PredictRequest.INPUTS_FIELD_NUMBER, once_or_twice(draw, entry)))
    made = pb.PredictRequest(model="m", id="id", tag=5)
    return once_or_twice(draw, [made.SerializeToString(), *inputs])


OF_DATATYPE = {"BOOL": 1, "INT8": 2, "INT32": 2, "INT64": 3, "UINT8": 4, "UINT32": 4, "UINT64": 5}


@st.composite
def infers(draw: st.DrawFn, datatype: str) -> bytes:
    inputs = []
    for name in draw(NAMES):
        lists = [OF_DATATYPE.get(datatype, 3)]
        if not draw(st.integers(0, 6)):
            lists = draw(st.sampled_from([[1], [2], [3], [4], [5], [2, 3], [3, 3], [8]]))
        each = [draw(CONTENT) for _ in lists]
        contents = [field(draw, *one) for one in zip(lists, each, strict=True)]
        count = len([byte for byte in each[0] if byte <= wire.LAST_BYTE])
        tensor = oip.ModelInferRequest.InferInputTensor(
            datatype=draw(st.sampled_from(["", datatype, datatype, datatype, "INT64", "FP32"])),
            shape=draw(st.sampled_from([[count], [count], [count], [count], [2], []])),
        )
        parts = [
            field(draw, 1, name.encode()),
            tensor.SerializeToString(),
            field(draw, tensor.CONTENTS_FIELD_NUMBER, once_or_twice(draw, contents)),
        ]
        inputs.append(field(draw, oip.ModelInferRequest.INPUTS_FIELD_NUMBER, once_or_twice(draw, parts)))
    made = oip.ModelInferRequest(model_name="m", id="id")
    if not draw(st.integers(0, 20)):
        made.raw_input_contents.append(bytes(8))
    return once_or_twice(draw, [made.SerializeToString(), *inputs])


def model_of(datatype: DataType) -> Model:
    signature = signature_of([spec("x", ("N",), datatype)], [spec("y", ("N",))])
    return Model("m", 1, HandBackend(echo, signature), batcher(echo)[0], Batching(True, ""), is_default=True)


MODELS = {datatype: model_of(datatype) for datatype in DataType}


def outcome(decode: Decode, data: bytes, datatype: DataType) -> object:
    """What a message means to a model with an input of a datatype: its content, or its error."""
    try:
        decoded = decode(data)
        contents = decoded.contents(MODELS[datatype])
    except InvalidRequest as error:
        return str(error), error.by_form
    arrays = [(name, each.dtype, each.shape, each.tolist()) for name, each in contents.inputs.items()]
    return decoded.model, decoded.id, decoded.tag, decoded.size, contents[1:], arrays


def check_same(decode: Decode, datatype: DataType, *messages: bytes) -> None:
    """Messages mean the same, whether lists are taken out of them or not."""
    for data in messages:
        with taken_from(0):
            found = outcome(decode, data, datatype)
        with taken_from(2**40):
            assert found == outcome(decode, data, datatype)


often = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


@often
@given(data=st.data(), datatype=st.sampled_from(DATATYPES))
def test_requests_mean_what_a_parser_says(datatype: DataType, data: st.DataObject) -> None:
    one = data.draw(predicts())
    check_same(of_predict.decode, datatype, one, damaged(data.draw, one))


@often
@given(data=st.data(), datatype=st.sampled_from(DATATYPES))
def test_requests_of_open_inference_mean_what_a_parser_says(datatype: DataType, data: st.DataObject) -> None:
    one = data.draw(infers(datatype.label))
    check_same(of_infer.decode, datatype, one, damaged(data.draw, one))


# Where it counts


def long_request(method: str, name: str, numbers: list[int]) -> bytes:
    if method == PREDICT:
        made = pb.PredictRequest(model="m")
        getattr(made.inputs["x"], name).extend(numbers)
        return made.SerializeToString()
    infer = oip.ModelInferRequest(model_name="m")
    getattr(infer.inputs.add(name="x", shape=[len(numbers)]).contents, name).extend(numbers)
    return infer.SerializeToString()


def decode_of(method: str) -> Callable[[bytes], Any]:
    return of_predict.decode if method == PREDICT else of_infer.decode


BOUNDS = {
    "bool": (0, 2),
    "int": (-(2**31), 2**31),
    "int64": (-(2**63), 2**63),
    "uint": (0, 2**32),
    "uint64": (0, 2**63),
}
EACH = [(method, name) for method, names in LISTS.items() for name in names]


@pytest.mark.parametrize(("method", "name"), EACH, ids=[name for _, name in EACH])
def test_protobuf_never_sees_a_long_list(method: str, name: str) -> None:
    lowest, highest = BOUNDS[name[: name.index("_")]]
    numbers = np.random.default_rng(0).integers(lowest, highest, COUNT).tolist()
    decoded = decode_of(method)(long_request(method, name, numbers))
    ((of, field_name),) = decoded._lists
    assert (of, field_name) == ("x", name)
    assert decoded._lists["x", name].tolist() == numbers
    assert decoded._message.ByteSize() < 50
    assert decoded.size > COUNT


@pytest.mark.parametrize(("method", "name"), EACH, ids=[name for _, name in EACH])
@settings(deadline=None)
@given(data=st.data())
def test_valid_lists_mean_what_a_parser_says(method: str, name: str, data: st.DataObject) -> None:
    lowest, highest = BOUNDS[name[: name.index("_")]]
    number = st.one_of(st.integers(max(lowest, -3), min(highest - 1, 300)), st.integers(lowest, highest - 1))
    numbers = data.draw(st.lists(number, min_size=1, max_size=30))
    fitting = DATATYPES
    if method == INFER:
        fitting = [each for each, (list_name, _) in of_infer.LISTS.items() if list_name == name]
    check_same(decode_of(method), data.draw(st.sampled_from(fitting)), long_request(method, name, numbers))


@pytest.mark.parametrize(("method", "name"), EACH, ids=[name for _, name in EACH])
def test_a_long_list_takes_no_step_for_each_value(method: str, name: str) -> None:
    data = long_request(method, name, [1] * COUNT)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        decode_of(method)(data)
    finally:
        sys.setprofile(None)
    assert calls < 500


@pytest.mark.parametrize("end", [b"\x80", b"\x80" * 10 + b"\0"], ids=["within a number", "a long number"])
@pytest.mark.parametrize("method", LISTS)
def test_a_list_that_is_not_valid_is_rejected_as_before(method: str, end: bytes) -> None:
    content = b"\1" * COUNT + end
    if method == PREDICT:
        tensor = wire.field(b"\x2a", content)
        data = b"\x0a\1m" + wire.field(b"\x1a", b"\x0a\1x" + wire.field(b"\x12", tensor))
        data = data.replace(b"\x1a", bytes([pb.PredictRequest.INPUTS_FIELD_NUMBER << 3 | 2]), 1)
        words = rf"the request \({len(data)} bytes\) cannot be parsed as PredictRequest"
    else:
        contents = wire.field(
            bytes([oip.ModelInferRequest.InferInputTensor.CONTENTS_FIELD_NUMBER << 3 | 2]),
            wire.field(b"\x1a", content),
        )
        data = wire.field(bytes([oip.ModelInferRequest.INPUTS_FIELD_NUMBER << 3 | 2]), b"\x0a\1x" + contents)
        words = rf"the request \({len(data)} bytes\) cannot be parsed as ModelInferRequest"
    with pytest.raises(InvalidRequest, match=words):
        decode_of(method)(data)


@pytest.mark.parametrize(
    ("value", "least"), [(1, long_lists.LEAST), (300, long_lists.LEAST_WIDE), (-1, long_lists.LEAST_WIDE)]
)
def test_what_counts_are_the_integers(value: int, least: int) -> None:
    """Those of several bytes each are parsed faster, unless there are many."""
    for count in (least - 1, least):
        made = pb.PredictRequest(model="m", id="i" * long_lists.MESSAGE_BYTES)
        made.inputs["x"].int_values.extend([value] * count)
        decoded = of_predict.decode(made.SerializeToString())
        assert isinstance(decoded, of_predict.DecodedPredict)
        assert bool(decoded._lists) == (count == least)


def test_many_other_bytes_are_not_copied_for_a_list() -> None:
    made = pb.PredictRequest(model="m")
    made.inputs["x"].int_values.extend([1] * long_lists.LEAST)
    made.inputs["y"].raw = bytes((long_lists.MOST_OTHER_BYTES + 1) * long_lists.LEAST)
    decoded = of_predict.decode(made.SerializeToString())
    assert isinstance(decoded, of_predict.DecodedPredict)
    assert not decoded._lists
    assert len(decoded._message.inputs["x"].int_values) == long_lists.LEAST


@pytest.mark.parametrize("outputs", [2, 600])
def test_few_fields_are_looked_at(outputs: int) -> None:
    made = pb.PredictRequest(model="m", outputs=["y"] * outputs)
    made.inputs["x"].int_values.extend([1] * COUNT)
    decoded = of_predict.decode(made.SerializeToString())
    assert isinstance(decoded, of_predict.DecodedPredict)
    assert bool(decoded._lists) == (outputs == 2)


@pytest.mark.parametrize("method", [PREDICT, STREAM, INFER, STREAM_INFER])
def test_calls_and_streams_of_both_protocols_take_lists_apart(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[object] = []
    read = long_lists._read

    def noted(*parts: Any) -> Any:
        taken.append(read(*parts))
        return taken[-1]

    monkeypatch.setattr(long_lists, "_read", noted)
    is_predict = method in (PREDICT, STREAM)
    data = long_request(
        PREDICT if is_predict else INFER, "int_values" if is_predict else "int64_contents", [7] * COUNT
    )
    kind: Any = PredictionService if is_predict else InferenceService
    side = Side(kind, signature_of([spec("x", ("N",), DataType.INT64)], [spec("y", ("N",))]))
    ((fields, _),) = side.send(method, wire.field(b"\x0a", data) if method == STREAM else data)  # type: ignore[misc]
    ((_, (shape, dtype, values)),) = fields[0]
    assert (shape, dtype) == ((COUNT,), np.dtype("<i8"))
    assert set(np.frombuffer(values, dtype)) == {7}
    assert len(taken) == 1
