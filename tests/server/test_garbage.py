"""Bytes that are no request, and requests that are nearly one: clean errors, no crash, no hang."""

from __future__ import annotations

import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator

import grpc
import numpy as np
import pytest

from penstock.core.tensors import DataType
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2
from server import kit
from server.conftest import IDENTITIES

INVALID = grpc.StatusCode.INVALID_ARGUMENT
ALLOWED = {
    grpc.StatusCode.OK,
    INVALID,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.DEADLINE_EXCEEDED,  # a mutated timeout
}
MUTATIONS = 2000


def raw_unary(channel: grpc.Channel) -> Callable[..., bytes]:
    return channel.unary_unary(kit.UNARY, None, None)


@pytest.fixture(autouse=True)
def _still_well(server, stub) -> Iterator[None]:
    before = len(kit.problems(server))
    yield
    assert stub.Predict(kit.request("identity", x=kit.rows(1)), timeout=kit.BOUND).model == "identity"
    assert kit.problems(server)[before:] == []


@pytest.mark.parametrize(
    "data",
    [b"\xff", b"\xff" * 1000, b"\x0a\x05ab", b"\x22\xff\xff\xff\xff\x0f", b"\x0a\x02\xff\xfe", b"\x0b"],
)
def test_garbage_instead_of_a_request(channel, data) -> None:
    call = raw_unary(channel)
    assert kit.code_of(lambda: call(data, timeout=kit.BOUND)) is INVALID
    stream = kit.Stream(channel)
    stream.send_bytes(data)
    results, code = stream.rest_and_code()
    stream.half_close()
    assert (results, code) == ([], INVALID)


def test_truncated_requests(channel) -> None:
    """Every length of a valid request: most are invalid, some are another valid request; all are answered."""
    call = raw_unary(channel)
    data = kit.request("identity", x=kit.rows(2), id="truncated").SerializeToString()
    codes = Counter(
        kit.code_of_future(call.future(data[:length], timeout=kit.BOUND)) for length in range(len(data))
    )
    assert set(codes) <= ALLOWED - {grpc.StatusCode.OK}
    assert codes[INVALID] > len(data) / 2


def test_nothing_at_all_is_a_request_for_no_model(channel) -> None:
    assert kit.code_of(lambda: raw_unary(channel)(b"", timeout=kit.BOUND)) is grpc.StatusCode.NOT_FOUND


def samples() -> list[pb.PredictRequest]:
    """One request of each kind, to be spoilt."""
    found = [
        kit.request(name, id=name, outputs=["y"], x=kit.raw(kit.examples(datatype, (2, 3)), datatype))
        for name, datatype in IDENTITIES.items()
    ]
    found += [
        kit.request(name, tag=7, x=kit.typed(kit.examples(datatype, (2, 3)), datatype))
        for name, datatype in IDENTITIES.items()
    ]
    found += [
        kit.request("any", timeout=5, priority=3, x=np.ones((1, 2, 3), np.float32)),
        kit.request("wide", version="1", x=np.ones((4, 2), np.float32)),
        kit.request("add", a=kit.rows(2), b=kit.rows(2), output_encoding=pb.TYPED),
        kit.request("scale", version="stable", metadata={"key": "value"}, x=kit.rows(1)),
    ]
    return found


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The bytes with a few of them changed, cut out, doubled or put in."""
    spoilt = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        place = chance.randrange(len(spoilt) + 1)
        match chance.randrange(5):
            case 0 if place < len(spoilt):
                spoilt[place] ^= 1 << chance.randrange(8)
            case 1:
                del spoilt[place : place + chance.randrange(1, 9)]
            case 2:
                spoilt[place:place] = chance.randbytes(chance.randrange(1, 9))
            case 3:
                spoilt[place:place] = spoilt[place : place + chance.randrange(1, 17)]
            case _:
                spoilt[place : place + 1] = chance.choice((b"\x00", b"\xff", b"\x7f", b"\x80"))
        spoilt = spoilt or bytearray(b"\0")
    return bytes(spoilt)


def test_mutations_of_unary_requests(channel) -> None:
    chance, originals = random.Random(1), [each.SerializeToString() for each in samples()]
    call, codes = raw_unary(channel), Counter()
    for _ in range(MUTATIONS // 100):
        spoilt = [mutated(chance.choice(originals), chance) for _ in range(100)]
        futures = [call.future(each, timeout=kit.BOUND) for each in spoilt]
        for data, future in zip(spoilt, futures, strict=True):
            code = kit.code_of_future(future)
            assert code in ALLOWED, (code, future.details(), data)
            codes[code] += 1
    assert min(codes[grpc.StatusCode.OK], codes[INVALID]) > 50


def test_mutations_of_stream_requests(channel) -> None:
    """Mutations that still are messages are items of one stream: as many answers as items, in order."""
    chance, originals = random.Random(2), [each.SerializeToString() for each in samples()]
    items: list[pb.PredictRequest] = []
    while len(items) < MUTATIONS:
        try:
            items.append(pb.PredictRequest.FromString(mutated(chance.choice(originals), chance)))
        except Exception:
            continue
    messages = [kit.message(*items[start : start + 50]) for start in range(0, MUTATIONS, 50)]
    results = kit.stream_all(channel, messages)
    assert [each.tag for each in results] == [each.tag for each in items]
    allowed = {code.value[0] for code in ALLOWED}
    for item, result in zip(items, results, strict=True):
        assert result.error.code in allowed, (result.error, item)


def test_a_signalling_nan_is_a_nan_and_nothing_to_report(stub) -> None:
    signalling = np.array([0x7F800001], np.uint32).view(np.float32).tobytes()
    request = pb.PredictRequest(model="identity_fp64")
    request.inputs["x"].shape.extend((1, 3))
    request.inputs["x"].float_values.extend([np.nan, 1.0, 2.0])
    data = request.SerializeToString()
    quiet = np.float32(np.nan).tobytes()
    assert data.count(quiet) == 1
    request = pb.PredictRequest.FromString(data.replace(quiet, signalling))
    for _ in range(3):  # the second is a known request
        answer = kit.array_of(stub.Predict(request, timeout=kit.BOUND).outputs["y"])
        assert np.isnan(answer[0, 0])


LONG = [2**31, 2**40, 2**62, 2**63 - 1]
SHAPES = [
    *[("wide", (0, each)) for each in LONG],
    *[("wide", (each, 0)) for each in LONG],
    *[("wide", (each, each)) for each in LONG],
    *[("any", (0, each, each)) for each in LONG],
    *[("any", shape) for shape in ((-1,), (1, -1, -1), (0,) * 65, (1,) * 65, (1,) * 100_000)],
    *[("row_sum", (each, 0)) for each in LONG[1:]],
    *[("identity", (each, 3)) for each in LONG],
]


@pytest.mark.parametrize(("model", "shape"), SHAPES, ids=lambda each: str(each)[:40])
def test_shapes_beyond_all_measure(channel, stub, model, shape) -> None:
    """They are the sender's fault, unless they are no trouble, and on a stream they hurt no neighbour."""
    values = b"\0" * 4 if 0 not in shape else b""
    bad = kit.request(model, tag=1, x=tensor_pb2.Tensor(shape=shape, raw=values))
    code = kit.code_of(lambda: stub.Predict(bad, timeout=kit.BOUND))
    assert code is INVALID or (code is grpc.StatusCode.OK and 0 in shape)
    good = kit.request("identity", tag=2, x=kit.rows(1))
    results = kit.stream_all(channel, [kit.message(bad, good)])
    assert [each.tag for each in results] == [1, 2]
    assert (results[0].error.code, results[1].error.code) == (code.value[0], 0)


@pytest.mark.parametrize("length", [1000, 10_000, 100_000, 1_000_000])
def test_long_names_get_their_own_status(channel, stub, length) -> None:
    """A message that quotes what came must not outgrow what clients take as a status."""
    name, x = "n" * length, kit.rows(1)
    cases = {
        grpc.StatusCode.NOT_FOUND: [kit.request(name), kit.request("identity", version=name, x=x)],
        INVALID: [
            kit.request("identity", outputs=[name], x=x),
            kit.request("identity", **{name: x}),
            kit.request("identity", x=x, **{f"{n}": x for n in range(length // 10)}),
        ],
    }
    for code, requests in cases.items():
        for each in requests:
            assert kit.code_of(lambda each=each: stub.Predict(each, timeout=kit.BOUND)) is code
            results = kit.stream_all(channel, [kit.message(each)])
            assert [result.error.code for result in results] == [code.value[0]]


def test_ids_may_be_long(channel, stub) -> None:
    message = kit.request("identity", x=kit.rows(1), id="i" * 1_000_000)
    assert stub.Predict(message, timeout=kit.BOUND).id == message.id
    assert kit.stream_all(channel, [kit.message(message)])[0].id == message.id


@pytest.mark.parametrize("count", [0, 2])
def test_a_unary_call_with_another_number_of_messages(channel, transport, count) -> None:
    if count == 0 and transport == "portable":
        pytest.skip("grpc.aio hands no such call over, and ends it with its deadline")
    call = channel.stream_unary(kit.UNARY, None, pb.PredictResponse.FromString)
    data = kit.request("identity", x=kit.rows(1)).SerializeToString()
    code = kit.code_of(lambda: call(iter([data] * count), timeout=kit.BOUND))
    assert code is (INVALID if count == 0 else grpc.StatusCode.OK)


@pytest.mark.parametrize("method", ["/penstock.v1.PredictionService/Nothing", "/no.Service/Predict", "/x"])
def test_methods_that_are_not_there(channel, method) -> None:
    unary, stream = channel.unary_unary(method, None, None), channel.stream_stream(method, None, None)
    assert kit.code_of(lambda: unary(b"", timeout=kit.BOUND)) is grpc.StatusCode.UNIMPLEMENTED
    code = kit.code_of(lambda: list(stream(iter([b"x"] * 3), timeout=kit.BOUND)))
    assert code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01" + b"\0" * 200,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 500,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"",
    ],
)
def test_what_is_not_even_http2(server, data) -> None:
    host, port = server.target.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=kit.BOUND) as connection:
        connection.sendall(data)


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests(channel, stub, algorithm) -> None:
    message = kit.request("identity", x=kit.rows(1000, 5))
    came = stub.Predict(message, timeout=kit.BOUND, compression=algorithm)
    assert (kit.array_of(came.outputs["y"]) == 5).all()
    results = kit.stream_all(channel, [kit.message(message)], compression=algorithm)
    assert (kit.array_of(results[0].response.outputs["y"]) == 5).all()


def test_text_that_is_not_utf8(stub) -> None:
    """ONNX strings are text: what is none is refused, and says where."""
    for tensor in (
        tensor_pb2.Tensor(shape=[1, 3], bytes_values=[b"a", b"\xff", b"c"]),
        tensor_pb2.Tensor(shape=[1, 3], raw=b"\1\0\0\0a\1\0\0\0\xff\1\0\0\0c", datatype=tensor_pb2.BYTES),
        tensor_pb2.Tensor(shape=[1, 3], raw=b"\1\0\0\0a\xff\0\0\0b", datatype=tensor_pb2.BYTES),
        tensor_pb2.Tensor(shape=[1, 3], raw=b"\1\0\0\0a\0\0", datatype=tensor_pb2.BYTES),
    ):
        future = stub.Predict.future(kit.request("identity_bytes", x=tensor), timeout=kit.BOUND)
        assert kit.code_of_future(future) is INVALID
        assert "element 1" in future.details()


def test_booleans_are_0_or_1(stub) -> None:
    tensor = tensor_pb2.Tensor(shape=[1, 3], raw=b"\0\1\2")
    future = stub.Predict.future(kit.request("identity_bool", x=tensor), timeout=kit.BOUND)
    assert kit.code_of_future(future) is INVALID
    assert DataType.BOOL.label in future.details()
