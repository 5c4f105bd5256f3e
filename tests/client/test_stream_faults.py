import asyncio
import itertools
import threading

import grpc
import numpy as np
import pytest

import penstock_client
from client.standin import abort, echo, status
from client.streams import BOUND, is_threads, item, number
from penstock_client._stream import MESSAGE_BYTES
from penstock_proto.v1 import prediction_pb2

pytestmark = pytest.mark.usefixtures("leaves_nothing_behind")


def test_when_the_call_fails_what_has_come_is_yielded_first(server, client) -> None:
    def break_off(messages, context):
        yield server.answers(next(messages).requests[:1])
        abort(context, status(grpc.StatusCode.UNAVAILABLE, "stopping", 3.0))

    server.stream = break_off
    results = client.predict_stream("echo", map(item, itertools.count()), errors="return")
    assert number(next(results)) == 0
    with pytest.raises(penstock_client.Unavailable, match="stopping") as caught:
        next(results)
    assert caught.value.retry_after_seconds == 3.0
    assert caught.value.index is None


def test_a_call_that_fails_under_a_write_says_why(server, client) -> None:
    large = {"x": np.zeros((MESSAGE_BYTES // 12, 3), np.float32)}

    def refuse(messages, context):
        next(messages)
        abort(context, status(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough"))

    server.stream = refuse
    for _ in range(20):
        with pytest.raises(penstock_client.Exhausted, match="enough"):
            list(client.predict_stream("echo", itertools.repeat(large), max_in_flight=20))


def test_what_was_held_back_is_yielded_before_the_failure(server, client) -> None:
    def all_but_the_first(messages, context):
        requests = [each for message in messages for each in message.requests]
        yield server.answers(requests[1:])
        abort(context, status(grpc.StatusCode.UNAVAILABLE, "stopping"))

    server.stream = all_but_the_first
    results = client.predict_stream("echo", map(item, range(4)))
    assert [next(results).index for _ in range(3)] == [1, 2, 3]
    with pytest.raises(penstock_client.Unavailable):
        next(results)


def test_a_call_that_fails_while_the_source_is_quiet_ends_the_stream(server, client) -> None:
    release, asked = threading.Event(), threading.Event()

    def items():
        yield item(0)
        asked.set()
        release.wait(BOUND)

    async def async_items():
        yield item(0)
        asked.set()
        await asyncio.Event().wait()

    def fail_when_quiet(messages, context):
        yield server.answers(next(messages).requests)
        assert asked.wait(BOUND)
        abort(context, status(grpc.StatusCode.UNAVAILABLE, "stopping"))

    server.stream = fail_when_quiet
    results = client.predict_stream("echo", items() if is_threads(client) else async_items())
    assert number(next(results)) == 0
    with pytest.raises(penstock_client.Unavailable, match="stopping"):
        next(results)
    release.set()


def test_a_server_that_goes_away_ends_the_stream(server, client) -> None:
    results = client.predict_stream("echo", map(item, itertools.count()))
    next(results)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    with pytest.raises(penstock_client.PenstockError) as caught:
        for _ in results:
            pass
    stopping.join(BOUND)
    assert caught.value.status in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def empty(request):
    return prediction_pb2.PredictStreamResponse(results=[{"tag": request.tag}])


def test_an_answer_with_nothing_in_it_is_that_items_error(server, client) -> None:
    def nothing(messages, context):
        for message in messages:
            for request in message.requests:
                yield empty(request)

    server.stream = nothing
    (result,) = client.predict_stream("echo", [item(0)], errors="return")
    assert result.status is grpc.StatusCode.UNKNOWN
    assert "neither a prediction nor an error" in str(result)


def test_an_output_that_cannot_be_read_is_that_items_error(server, client) -> None:
    def cut(request):
        response = echo(request)
        response.outputs["x"].raw = response.outputs["x"].raw[:-1]
        return response

    server.answer = cut
    (result,) = client.predict_stream("echo", [item(0)], errors="return")
    assert result.status is grpc.StatusCode.UNKNOWN
    assert 'the server\'s output "x" cannot be read' in str(result)


def test_an_answer_to_no_item_ends_the_stream(server, client) -> None:
    def twice(messages, context):
        requests = next(messages).requests
        yield server.answers([requests[0], requests[0]])

    server.stream = twice
    results = client.predict_stream("echo", [item(0)])
    assert number(next(results)) == 0
    with pytest.raises(penstock_client.PenstockError, match="item 0, which is not pending"):
        next(results)


def test_a_stream_that_ends_with_items_unanswered_is_an_error(server, client) -> None:
    def some(messages, context):
        requests = [each for message in messages for each in message.requests]
        yield server.answers(requests[:2])

    server.stream = some
    results = client.predict_stream("echo", map(item, range(5)))
    assert [next(results).index for _ in range(2)] == [0, 1]
    with pytest.raises(penstock_client.PenstockError, match="with 3 items unanswered"):
        next(results)


def test_a_stream_that_ends_before_the_last_item_is_an_error(server, client) -> None:
    turn = threading.Event()

    def items():
        yield item(0)
        turn.wait(BOUND)
        yield item(1)

    async def async_items():
        yield item(0)
        await asyncio.Event().wait()

    def one(messages, context):
        yield server.answers(next(messages).requests)

    server.stream = one
    results = client.predict_stream("echo", items() if is_threads(client) else async_items())
    assert number(next(results)) == 0
    with pytest.raises(penstock_client.PenstockError, match="before the last item"):
        next(results)
    turn.set()


def test_closing_the_client_ends_its_streams(server, client) -> None:
    results = client.predict_stream("echo", map(item, itertools.count()))
    next(results)
    client.close()
    with pytest.raises(penstock_client.Cancelled):
        for _ in results:
            pass
