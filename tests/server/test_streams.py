"""PredictStream: order, bad items, bounds, and how streams end."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from google.rpc import code_pb2

from penstock.core.tensors import DataType
from penstock_proto.v1 import tensor_pb2
from server import kit
from support import zoo

ONE = np.ones((1, 1), np.float32)
WIDE = zoo.identity(DataType.FP32, ("N", "L"))


def value_of(result) -> float:
    return kit.array_of(result.response.outputs["y"]).ravel()[0]


def many(count: int, model: str = "identity", start: int = 0) -> list:
    return [kit.request(model, tag=n, id=f"id {n}", x=kit.rows(1, n)) for n in range(start, start + count)]


@pytest.mark.parametrize("size", [1, 7, 500])
def test_answers_come_in_the_order_of_the_requests(channel, size) -> None:
    requests = many(500)
    messages = [kit.message(*requests[start : start + size]) for start in range(0, 500, size)]
    results = kit.stream_all(channel, messages)
    assert [(each.tag, each.id) for each in results] == [(n, f"id {n}") for n in range(500)]
    assert [value_of(each) for each in results] == list(range(500))
    assert [(each.response.tag, each.response.id) for each in results] == [(n, f"id {n}") for n in range(500)]


def test_the_order_holds_across_models_and_errors(channel) -> None:
    """The first request is the slowest by far, and nothing passes it."""
    requests = [
        kit.request("slow", tag=0, x=ONE),
        kit.request("nobody", tag=1),
        *many(20, start=2),
        kit.request("slow", tag=22, x=ONE),
        kit.request("identity", tag=23, x=kit.rows(1)),
    ]
    for messages in ([kit.message(*requests)], kit.one_each(requests)):
        results = kit.stream_all(channel, messages)
        assert [each.tag for each in results] == list(range(24))
        assert [each.tag for each in results if each.HasField("error")] == [1]


def test_completion_order_lets_the_quick_ones_pass(channel) -> None:
    requests = [kit.request("slow", tag=n, x=ONE) for n in range(5)] + many(100, start=5)
    results = kit.stream_all(channel, [kit.message(*requests)], metadata=kit.COMPLETION)
    tags = [each.tag for each in results]
    assert sorted(tags) == list(range(105))
    # Four runs of 20 ms lie between the first slow answer and the last; 100 quick ones need far less.
    assert tags[-1] < 5
    assert tags != sorted(tags)


def test_request_order_can_be_asked_for(channel) -> None:
    requests = [kit.request("slow", tag=0, x=ONE), *many(20, start=1)]
    results = kit.stream_all(channel, [kit.message(*requests)], metadata=(("penstock-order", "request"),))
    assert [each.tag for each in results] == list(range(21))


def test_an_unknown_order_is_refused(channel) -> None:
    stream = kit.Stream(channel, metadata=(("penstock-order", "random"),))
    stream.send(*many(10))
    results, code = stream.rest_and_code()
    stream.half_close()
    assert (results, code) == ([], grpc.StatusCode.INVALID_ARGUMENT)
    assert "'random'" in stream.call.details()
    assert "completion" in stream.call.details()


BAD = {
    "unknown model": ({"model": "nobody"}, code_pb2.NOT_FOUND),
    "unknown version": ({"version": "99"}, code_pb2.NOT_FOUND),
    "unknown label": ({"version": "stable"}, code_pb2.NOT_FOUND),
    "no input": ({"x": None}, code_pb2.INVALID_ARGUMENT),
    "no values": ({"x": tensor_pb2.Tensor()}, code_pb2.INVALID_ARGUMENT),
    "another input": ({"z": kit.rows(1)}, code_pb2.INVALID_ARGUMENT),
    "wrong shape": ({"x": kit.rows(1, width=4)}, code_pb2.INVALID_ARGUMENT),
    "too few bytes": ({"x": tensor_pb2.Tensor(shape=[1, 3], raw=b"12345678")}, code_pb2.INVALID_ARGUMENT),
    "a broken element": ({"x": tensor_pb2.Tensor(shape=[1, 3], raw=b"123")}, code_pb2.INVALID_ARGUMENT),
    "negative shape": ({"x": tensor_pb2.Tensor(shape=[-1, -3], raw=b"\0" * 12)}, code_pb2.INVALID_ARGUMENT),
    "wrong datatype": ({"x": kit.raw(kit.rows(1), DataType.FP64)}, code_pb2.INVALID_ARGUMENT),
    "unknown datatype": ({"x": tensor_pb2.Tensor(datatype=77, raw=b"\0" * 12)}, code_pb2.INVALID_ARGUMENT),
    "both encodings": (
        {"x": tensor_pb2.Tensor(shape=[1, 3], raw=b"\0" * 12, float_values=[1, 2, 3])},
        code_pb2.INVALID_ARGUMENT,
    ),
    "two lists": (
        {"x": tensor_pb2.Tensor(int_values=[1, 2, 3], float_values=[1, 2, 3])},
        code_pb2.INVALID_ARGUMENT,
    ),
    "a value that does not fit": (
        {"x": tensor_pb2.Tensor(double_values=[1, 2, 1e300])},
        code_pb2.INVALID_ARGUMENT,
    ),
    "text for numbers": (
        {"x": tensor_pb2.Tensor(string_values=["1", "2", "3"])},
        code_pb2.INVALID_ARGUMENT,
    ),
    "unknown output": ({"outputs": ["z"]}, code_pb2.INVALID_ARGUMENT),
    "negative timeout": ({"timeout": -1.0}, code_pb2.INVALID_ARGUMENT),
}


def bad_request(kind: str, tag: int):
    fields, _ = BAD[kind]
    given = {"model": "identity", "x": kit.rows(1), "tag": tag, "id": kind, **fields}
    return kit.request(**{key: value for key, value in given.items() if value is not None})


@pytest.mark.parametrize("size", [1, 100])
def test_bad_items_in_a_stream_of_1000(channel, size) -> None:
    """Every kind of bad item once, 50 apart: each gets its own error and all others their answer."""
    kinds = dict(zip(range(49, 1000, 50), BAD, strict=False))
    assert len(kinds) == len(BAD)
    requests = [bad_request(kinds[n], n) if n in kinds else each for n, each in enumerate(many(1000))]
    messages = [kit.message(*requests[start : start + size]) for start in range(0, 1000, size)]
    results = kit.stream_all(channel, messages)
    assert [each.tag for each in results] == list(range(1000))
    for n, result in enumerate(results):
        if n in kinds:
            assert (result.id, result.error.code) == (kinds[n], BAD[kinds[n]][1]), result
            assert result.error.message
        else:
            assert value_of(result) == n


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_unary_request(stub, kind) -> None:
    code = kit.code_of(lambda: stub.Predict(bad_request(kind, 0), timeout=kit.BOUND))
    assert code.value[0] == BAD[kind][1]


def test_half_close_drains(channel) -> None:
    """All is sent and closed long before the first answer is there."""
    requests = [kit.request("slow", tag=n, x=ONE) for n in range(20)]
    results = kit.stream_all(channel, [kit.message(*requests[:10]), kit.message(*requests[10:])])
    assert [each.tag for each in results] == list(range(20))


@pytest.mark.parametrize("messages", [[], [kit.message()], [kit.message()] * 50])
def test_streams_without_requests_end_well(channel, messages) -> None:
    assert kit.stream_all(channel, messages) == []


def test_empty_messages_between_requests(channel) -> None:
    requests = many(50)
    messages = [each for request in requests for each in (kit.message(), kit.message(request))]
    assert [each.tag for each in kit.stream_all(channel, messages)] == list(range(50))


def test_a_stream_is_answered_before_it_is_closed(channel) -> None:
    stream = kit.Stream(channel)
    for number in range(100):
        stream.send(kit.request("identity", tag=number, x=kit.rows(1, number)))
        result = stream.next()
        assert (result.tag, value_of(result)) == (number, number)
    stream.half_close()
    assert stream.rest() == []


def test_what_came_before_garbage_is_answered(channel) -> None:
    """An invalid message ends the stream, after the answers to the accepted requests."""
    stream = kit.Stream(channel)
    stream.send(*[kit.request("slow", tag=n, x=ONE) for n in range(5)])
    stream.send_bytes(b"\xff\xff\xff")
    results, code = stream.rest_and_code()
    stream.half_close()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [each.tag for each in results] == list(range(5))


@pytest.mark.parametrize("order", ["request", "completion"])
def test_a_client_that_does_not_read_is_held_back(serve, order) -> None:
    """Few requests are accepted while the client does not read; once it does, all are answered."""
    limit, total = 8, 400
    server = serve({"wide": WIDE}, env={"PENSTOCK_SERVER__MAX_STREAM_REQUESTS": str(limit)})
    with kit.connect(server.target) as channel:
        stream = kit.Stream(channel, metadata=(("penstock-order", order),))
        array = np.zeros((1, 64 * 1024), np.float32)
        for tag in range(total):
            stream.send(kit.request("wide", tag=tag, x=array))
        stream.half_close()
        received = settled(lambda: kit.metric(server.ops, "stream_requests_total"))
        assert 0 < received < total / 2, f"{received} of {total} requests were accepted without a reader"
        assert stream.taken < total, "the sender was never held back"
        assert kit.metric(server.ops, "streams_open") == 1
        tags = [each.tag for each in stream.rest()]
        assert sorted(tags) == list(range(total))
        assert order == "completion" or tags == sorted(tags)
        kit.wait_until(lambda: kit.is_idle(server.ops), "the stream is gone")


def test_large_answers_that_nobody_reads_hold_the_stream_back(serve) -> None:
    """Small requests for large answers: not their number is the bound, but what they would take in memory."""
    server = serve({"widened": zoo.widened(250_000)})
    total = 300
    with kit.connect(server.target) as channel:
        stream = kit.Stream(channel)
        for tag in range(total):
            stream.send(kit.request("widened", tag=tag, x=ONE))
        stream.half_close()
        received = settled(lambda: kit.metric(server.ops, "stream_requests_total"))
        assert 32 <= received < total / 2, f"{received} MB of answers were made without a reader"
        assert [each.tag for each in stream.rest()] == list(range(total))
        kit.wait_until(lambda: kit.is_idle(server.ops), "the stream is gone")


def settled(read, still_for: int = 30) -> float:
    """A value, once it has not changed in this number of checks."""
    seen: list[float] = []

    def is_still() -> bool:
        seen.append(read())
        return len(seen) > still_for and seen[-1] > 0 and len(set(seen[-still_for:])) == 1

    kit.wait_until(is_still, "the value settles")
    return seen[-1]


def test_many_streams_at_once(channel) -> None:
    def one(number: int) -> list[int]:
        requests = many(100, start=1000 * number)
        return [int(value_of(each)) for each in kit.stream_all(channel, kit.one_each(requests))]

    answers = kit.in_parallel([lambda n=n: one(n) for n in range(20)], threads=20)
    assert answers == [list(range(1000 * n, 1000 * n + 100)) for n in range(20)]


def test_a_sequence_is_refused_where_no_state_is_kept(server, stub) -> None:
    """A step of a sequence that is answered without a state would be wrong."""
    wanted = kit.request("identity", x=kit.raw(np.zeros((1, 3), np.float32), DataType.FP32))
    wanted.sequence.id = "a"
    with pytest.raises(grpc.RpcError) as raised:
        stub.Predict(wanted, timeout=kit.BOUND)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
