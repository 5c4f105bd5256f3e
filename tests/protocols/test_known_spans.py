"""Whatever differs between requests, and in whatever order it is written: recognised means equal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from penstock.core import wire
from penstock.core.tensors import DataType
from penstock.models.model import Batching, Model
from penstock.protocols.codec import Decoded
from penstock.protocols.fast_path import alike, known_requests, pattern, reading
from penstock.protocols.open_inference.service import InferenceService
from penstock.protocols.penstock_v1.micro_batches import Members
from penstock.protocols.penstock_v1.service import PredictionService
from penstock.protocols.service import ROUTE_KEY, TRACE
from penstock_proto.inference import grpc_service_pb2 as oip
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2
from protocols.test_known_requests import Call
from protocols.test_oip_known_requests import Engine, NoObserver
from support.work import HandBackend, Tally, batcher, echo, signature_of, spec

SIGNATURE = signature_of(
    [
        spec("x", ("N", 2)),
        spec("t", ("N",), DataType.BYTES),
        spec("b", ("N",), DataType.BOOL),
        spec("d", ("N",), DataType.FP64),
        spec("i", ("N",), DataType.INT32),
    ],
    [spec("y", ("N", 2))],
)
SMALL = signature_of([spec("x", ("N", 2))], [spec("y", ("N", 2))])
PREDICT = "/penstock.v1.PredictionService/Predict"
STREAM = "/penstock.v1.PredictionService/PredictStream"
INFER = "/inference.GRPCInferenceService/ModelInfer"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def _learning_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_requests, "LEARNING_SECONDS", 0.0)


class Side:
    """A service whose requests are only taken in, with what became of each."""

    def __init__(self, kind: Any, signature: Any = SIGNATURE, learns: bool = True) -> None:
        made, _ = batcher(echo, max_rows=1000)
        served = Model("m", 1, HandBackend(echo, signature), made, Batching(True, ""), is_default=True)
        served.observe(Tally())
        self.engine = Engine(served)
        parts: Any = (self.engine, NoObserver(), Executor(), 2**20, 1000, print)
        self.service = kind(*parts)
        self.service.reads = (TRACE, ROUTE_KEY)
        self.decoded = 0
        original = self.service.codec.decode
        if not learns:
            self.service.known_requests.learn = lambda *_: None

        def decode(data: bytes) -> Decoded:
            self.decoded += 1
            found: Decoded = original(data)
            return found

        object.__setattr__(self.service, "codec", _With(self.service.codec, decode))

    def send(self, method: str, data: bytes) -> list[object]:
        """What becomes of the requests in a message: what is submitted, and what is refused."""
        self.engine.taken.clear()
        call = Call(ordered=False)
        handler = self.service.methods()[method].handler(call)
        handler.received(data)
        errors = [call.status.details] if call.status is not None else []
        for each in call.sent:
            errors += [str(result) for result in pb.PredictStreamResponse.FromString(each).results]
        return [*errors, *(one for each in self.engine.taken for one in meanings(each))]


class _With:
    """A codec with another way to decode."""

    def __init__(self, codec: Any, decode: Any) -> None:
        self._codec, self.decode = codec, decode

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)


def meanings(request: Any) -> list[object]:
    """What the requests that one entry of the queue stands for mean."""
    if not isinstance(request, Members):
        return [meaning(request, request.id, request.tag, request.form)]
    batch, found = request._batch, []
    for each in batch.split(request):
        assert isinstance(each, Members)
        (place,) = each.places
        tag = wire.read_varint(batch._tags[place].tobytes() or b"\0", 0)[0]
        found.append(meaning(each, batch._ids[place].tobytes().decode(), tag, batch._form))
    return found


def meaning(request: Any, id: str, tag: int, form: object) -> object:
    inputs = {
        name: (each.shape, each.dtype, each.tolist() if each.dtype.hasobject else each.tobytes())
        for name, each in request.inputs.items()
    }
    fields = (
        list(inputs.items()), id, tag, form, tuple(request.outputs), request.rows, request.shape_key,
        request.priority, request.trace, request.key, request.rpc,
    )  # fmt: skip
    return fields, Seconds(request.deadline - request.arrived)


class Seconds(float):
    """A timeout; equal to others that are as near as those of a micro-batch may be."""

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, float)
        return math.isclose(self, other, rel_tol=2 * alike.TIMEOUT_SHARE, abs_tol=1e-5)

    __hash__ = None  # type: ignore[assignment]


def pieces(message: Any) -> list[bytes]:
    """The fields of a message, each serialized by itself, those of maps an entry each."""
    data = message.SerializeToString(deterministic=True)
    found, start = [], 0
    for _, _, stop in wire.fields(data, 0, len(data)):
        found.append(data[start:stop])
        start = stop
    return found


texts = st.text(st.characters(codec="utf-8"), max_size=6)
ids = st.one_of(
    st.sampled_from(["", "a", "same-length", "other-lengt"]), texts, st.text("ab", min_size=200, max_size=300)
)
metadata = st.dictionaries(
    st.sampled_from([TRACE, ROUTE_KEY, "other"]), st.one_of(st.just(PARENT), texts), max_size=3
)
durations = st.one_of(
    st.none(),
    st.tuples(st.sampled_from([0, 1, 7, 300, -1]), st.sampled_from([0, 5, 999_999_999, 123_456_789, -1])),
    st.tuples(st.just(3), st.integers(500_000_000, 500_900_000)),
)


@st.composite
def predicts(draw: st.DrawFn, small: bool = False) -> bytes:
    """A serialized request, its fields in any order."""
    made = pb.PredictRequest(model="m", tag=draw(st.sampled_from([0, 1, 127, 128, 300, 2**21, 2**63])))
    made.id = draw(ids)
    if not draw(st.integers(0, 3)):
        made.output_encoding = pb.TYPED
    length = draw(durations)
    if length is not None:
        made.timeout.seconds, made.timeout.nanos = length
    made.metadata.update(draw(metadata))
    rows = draw(st.sampled_from([1, 1, 2]))
    values = np.full((rows, 2), draw(st.floats(width=32)), np.float32)
    as_list = draw(st.booleans())
    if as_list:
        made.inputs["x"].float_values.extend(values.ravel().tolist())
    else:
        made.inputs["x"].CopyFrom(tensor_pb2.Tensor(datatype="FP32", shape=(rows, 2), raw=values.tobytes()))
    if not small:
        _add_others(draw, made, rows, as_list)
    order = draw(st.permutations(pieces(made))) if draw(st.booleans()) else pieces(made)
    return b"".join(order)


def _add_others(draw: st.DrawFn, made: pb.PredictRequest, rows: int, as_list: bool) -> None:
    words = [draw(texts) for _ in range(rows)]
    bools = bytes(draw(st.sampled_from([0, 1, 1, 2])) for _ in range(rows))
    t, b, d, i = (made.inputs[name] for name in "tbdi")
    i.int_values.extend([draw(st.sampled_from([0, 1, -1, 300, 2**31 - 1, 2**31, -(2**63)]))] * rows)
    if as_list:
        t.string_values.extend(words)
        d.double_values.extend([draw(st.floats())] * rows)
    else:
        t.shape.append(rows)
        t.raw = b"".join(len(word.encode()).to_bytes(4, "little") + word.encode() for word in words)
        d.raw = np.full(rows, draw(st.floats())).tobytes()
    b.raw = bools


@st.composite
def infers(draw: st.DrawFn) -> bytes:
    """A serialized ModelInferRequest, its fields in any order."""
    made = oip.ModelInferRequest(model_name="m", id=draw(ids))
    words = [draw(texts)]
    inputs: Mapping[str, tuple[str, Sequence[int], bytes]] = {
        "x": ("FP32", (1, 2), np.full((1, 2), draw(st.floats(width=32)), np.float32).tobytes()),
        "t": ("BYTES", (1,), b"".join(len(w.encode()).to_bytes(4, "little") + w.encode() for w in words)),
        "b": ("BOOL", (1,), draw(st.sampled_from([b"\0", b"\1", b"\2"]))),
        "d": ("FP64", (1,), np.full(1, draw(st.floats())).tobytes()),
        "i": ("INT32", (1,), np.full(1, draw(st.integers(-9, 9)), "<i4").tobytes()),
    }
    as_list = draw(st.booleans())
    for name, (datatype, shape, raw) in inputs.items():
        tensor = made.inputs.add(name=name, datatype=datatype, shape=shape)
        if not as_list:
            made.raw_input_contents.append(raw)
        elif datatype == "BYTES":
            tensor.contents.bytes_contents.append(words[0].encode())
        else:
            field = {
                "FP32": "fp32_contents",
                "FP64": "fp64_contents",
                "BOOL": "bool_contents",
                "INT32": "int_contents",
            }[datatype]
            dtype = {"FP32": "<f4", "FP64": "<f8", "BOOL": "u1", "INT32": "<i4"}[datatype]
            getattr(tensor.contents, field).extend(np.frombuffer(raw, dtype).tolist())
    parameter = oip.InferParameter
    choices: Mapping[str, Sequence[Any]] = {
        "timeout": [parameter(int64_param=n) for n in (0, 5, 5_000_000, 6_000_000, -1)]
        + [parameter(uint64_param=2**40), parameter(string_param="5"), parameter()],
        "priority": [parameter(uint64_param=1), parameter(string_param="high")],
        "trace": [
            parameter(string_param="one"),
            parameter(string_param="two words"),
            parameter(bool_param=True),
        ],
        "triton_other": [parameter(string_param="reserved")],
        "sequence_id": [parameter(string_param="s"), parameter(int64_param=7)],
    }
    for name, values in choices.items():
        if not draw(st.integers(0, 3)):
            made.parameters[name].CopyFrom(draw(st.sampled_from(values)))
    parts = pieces(made)
    return b"".join(draw(st.permutations(parts)) if draw(st.booleans()) else parts)


def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The same with a byte changed, taken out or put in."""
    place, byte = draw(st.integers(0, len(data) - 1)), bytes([draw(st.integers(0, 255))])
    cut = draw(st.integers(0, 1))
    return data[:place] + byte * draw(st.integers(0, 1)) + data[place + cut :]


def sometimes_damaged(draw: st.DrawFn, data: bytes) -> bytes:
    return damaged(draw, data) if not draw(st.integers(0, 2)) else data


slowly = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)


@slowly
@given(st.data())
def test_calls_mean_what_a_parser_says(data: st.DataObject) -> None:
    known, parsed = Side(PredictionService), Side(PredictionService, learns=False)
    sent = data.draw(st.lists(predicts(), min_size=1, max_size=4))
    for one in [*sent, *(sometimes_damaged(data.draw, each) for each in sent * 2)]:
        assert known.send(PREDICT, one) == parsed.send(PREDICT, one)


@slowly
@given(st.data())
def test_messages_of_streams_mean_what_a_parser_says(data: st.DataObject) -> None:
    known, parsed = Side(PredictionService, SMALL), Side(PredictionService, SMALL, learns=False)
    if data.draw(st.booleans()):
        known.service.reads = parsed.service.reads = ()
    kinds = data.draw(st.lists(predicts(small=True), min_size=1, max_size=3))
    for _ in range(3):
        message = b""
        for kind in data.draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=4)):
            for _ in range(data.draw(st.sampled_from([1, 5, 9]))):
                one = sometimes_damaged(data.draw, kind) if not data.draw(st.integers(0, 4)) else kind
                message += wire.field(b"\x0a", one)
        assert known.send(STREAM, message) == parsed.send(STREAM, message)


@slowly
@given(st.data())
def test_messages_of_one_request_mean_what_a_parser_says(data: st.DataObject) -> None:
    known, parsed = Side(PredictionService), Side(PredictionService, learns=False)
    sent = data.draw(st.lists(predicts(), min_size=1, max_size=2))
    for one in [*sent * 2, *(damaged(data.draw, each) for each in sent * 4)]:
        message = wire.field(b"\x0a", one)
        message = damaged(data.draw, message) if not data.draw(st.integers(0, 3)) else message
        assert known.send(STREAM, message) == parsed.send(STREAM, message)


@slowly
@given(st.data())
def test_calls_of_open_inference_mean_what_a_parser_says(data: st.DataObject) -> None:
    known, parsed = Side(InferenceService), Side(InferenceService, learns=False)
    sent = data.draw(st.lists(infers(), min_size=1, max_size=4))
    for one in [*sent, *(sometimes_damaged(data.draw, each) for each in sent * 2)]:
        assert known.send(INFER, one) == parsed.send(INFER, one)


@slowly
@given(st.data())
def test_requests_of_equal_length_mean_what_a_parser_says(data: st.DataObject) -> None:
    known, parsed = Side(PredictionService), Side(PredictionService, learns=False)
    one = data.draw(predicts())
    for _ in range(3):  # from the third one on, its bytes are only compared with how the second one was split
        assert known.send(PREDICT, one) == parsed.send(PREDICT, one)
    for _ in range(8):
        place, byte = data.draw(st.integers(0, len(one) - 1)), data.draw(st.integers(0, 255))
        other = one[:place] + bytes([byte]) + one[place + 1 :]
        assert known.send(PREDICT, other) == parsed.send(PREDICT, other)


def test_spans_of_a_request_may_be_split_otherwise_in_one_of_the_same_length() -> None:
    known, parsed = Side(PredictionService, SMALL), Side(PredictionService, SMALL, learns=False)
    seen = []
    for id, trace in [("aaaa", "bb")] * 4 + [("aa", "bbbb"), ("aaaaa", "b"), ("aaaa", "bb")]:
        made = pb.PredictRequest(model="m", id=id, metadata={TRACE: trace, ROUTE_KEY: "k"}, tag=300)
        raw = np.float32([[1, 2]]).tobytes()
        made.inputs["x"].CopyFrom(tensor_pb2.Tensor(datatype="FP32", shape=(1, 2), raw=raw))
        one = made.SerializeToString(deterministic=True)
        seen.append(len(one))
        assert known.send(PREDICT, one) == parsed.send(PREDICT, one)
    assert len(set(seen)) == 1
    assert known.decoded == 1


def test_a_request_whose_spans_are_as_long_as_before_is_not_split_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = Side(PredictionService, SMALL)
    splits = 0
    original = pattern.Pattern._split

    def split(self: pattern.Pattern, data: bytes) -> object:
        nonlocal splits
        splits += 1
        return original(self, data)

    monkeypatch.setattr(pattern.Pattern, "_split", split)
    for number in range(20):
        made = pb.PredictRequest(
            model="m", id=f"request-{number:04}", timeout={"nanos": 500_000_000 + number}
        )
        raw = np.float32([[1, number]]).tobytes()
        made.inputs["x"].CopyFrom(tensor_pb2.Tensor(datatype="FP32", shape=(1, 2), raw=raw))
        (fields, seconds) = known.send(PREDICT, made.SerializeToString())[0]  # type: ignore[misc]
        assert fields[1] == f"request-{number:04}"
        assert math.isclose(seconds, 0.5 + number / 1e9, abs_tol=1e-6)
    assert splits == 2


@pytest.mark.parametrize("rest", [b"", b"\0", b"\0\0\0", b"\1", b"\x80"])
def test_of_a_timeout_all_bytes_count(rest: bytes) -> None:
    data = b"\x08\x07\x10" + wire.varint(999_999_999) + rest
    if rest:
        with pytest.raises(ValueError, match=r"unusual|long|ends"):
            reading.seconds(data, 0, len(data))
    else:
        assert reading.seconds(data, 0, len(data)) == 7.999999999
