import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

import penstock_client
from client.standin import StandIn, echo, status
from client.streams import BOUND, is_threads, item, number, slow, until
from penstock_client._stream import MESSAGE_BYTES
from penstock_proto.v1 import prediction_pb2

pytestmark = pytest.mark.usefixtures("leaves_nothing_behind")

BAD = {"x": np.zeros(3, np.float32)}


def test_results_come_in_the_order_of_the_items(server, client) -> None:
    results = list(client.predict_stream("echo", (item(each) for each in range(700))))
    assert [number(each) for each in results] == list(range(700))
    assert [each.index for each in results] == list(range(700))


def test_nothing_in_nothing_out(server, client) -> None:
    assert list(client.predict_stream("echo", [])) == []


def test_everything_asked_for_is_in_the_requests(server, client) -> None:
    server.add("two", "3", a="FP32 N", b="INT64 N")
    results = client.predict_stream(
        "two", [{"a": [1.0], "b": [2]}], version="3", outputs=["a"], priority=4, timeout=2.5
    )
    assert [list(each) for each in results] == [["a"]]
    (request,) = server.requests
    assert (request.model, request.version, request.priority) == ("two", "3", 4)
    assert (request.timeout.seconds, request.timeout.nanos) == (2, 500_000_000)
    assert request.output_encoding == prediction_pb2.RAW
    # The timeout is each item's, not the stream's.
    assert server.remaining is None or server.remaining > 1e6
    assert "penstock-order" not in server.metadata


def test_the_clients_timeout_is_each_items(server, connect) -> None:
    list(connect(server.target, timeout=1e-10).predict_stream("echo", [], timeout=9.0))
    client = connect(server.target, timeout=9.0)
    list(client.predict_stream("echo", [item(0)]))
    list(client.predict_stream("echo", [item(0)], timeout=float("inf")))
    assert [each.timeout.seconds for each in server.requests] == [9, 0]


def test_completion_order_is_the_order_of_the_answers(server, client) -> None:
    def backwards(messages, context):
        requests = [each for message in messages for each in message.requests]
        yield server.answers(reversed(requests))

    server.stream = backwards
    results = list(client.predict_stream("echo", [item(each) for each in range(5)], ordered=False))
    assert [number(each) for each in results] == [4, 3, 2, 1, 0]
    assert [each.index for each in results] == [4, 3, 2, 1, 0]
    assert server.metadata["penstock-order"] == "completion"


def test_the_order_of_the_items_holds_whatever_the_server_does(server, client) -> None:
    def backwards(messages, context):
        requests = [each for message in messages for each in message.requests]
        for request in reversed(requests):
            yield server.answers([request])

    server.stream = backwards
    results = client.predict_stream("echo", [item(each) for each in range(5)])
    assert [number(each) for each in results] == [0, 1, 2, 3, 4]


def fail_on_2(request: prediction_pb2.PredictRequest) -> object:
    bad = np.frombuffer(request.inputs["x"].raw, np.float32)[0] == 2
    return status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", 0.5) if bad else echo(request)


def test_an_error_is_returned_in_its_place_and_the_stream_goes_on(server, client) -> None:
    server.answer = fail_on_2
    results = list(client.predict_stream("echo", map(item, range(5)), errors="return"))
    assert [each.index for each in results] == [0, 1, 2, 3, 4]
    assert isinstance(results[2], penstock_client.Exhausted)
    assert results[2].retry_after_seconds == 0.5
    assert [number(each) for each in results[:2] + results[3:]] == [0, 1, 3, 4]


def test_an_error_is_raised_in_its_place(server, client) -> None:
    server.answer = fail_on_2
    results = client.predict_stream("echo", map(item, itertools.count()))
    assert [number(next(results)), number(next(results))] == [0, 1]
    with pytest.raises(penstock_client.Exhausted) as caught:
        next(results)
    assert caught.value.index == 2
    assert server.ended.wait(BOUND)


@pytest.mark.parametrize("ordered", [True, False])
def test_an_item_the_client_refuses_has_its_error_in_its_place(server, client, ordered) -> None:
    items = [item(0), BAD, item(2), "no dict", item(4), {"y": 1}]
    results = list(client.predict_stream("echo", items, errors="return", ordered=ordered))
    results.sort(key=lambda each: each.index) if not ordered else None
    assert [each.index for each in results] == [0, 1, 2, 3, 4, 5]
    assert [isinstance(each, penstock_client.InvalidInput) for each in results] == [False, True] * 3
    assert 'input "x": it has 1 axis' in str(results[1])
    assert "a dict by name, not str" in str(results[3])
    assert "unknown: 'y'; missing: 'x'; expected" in str(results[5]).replace("(", "").replace(")", "")
    assert len(server.requests) == 3


def test_a_refusal_does_not_wait_for_the_next_item(server, client) -> None:
    seen = threading.Event()

    def items():
        yield item(0)
        yield BAD
        assert seen.wait(BOUND)
        yield item(2)

    results = client.predict_stream("echo", items() if is_threads(client) else slow(items()), errors="return")
    assert number(next(results)) == 0
    assert isinstance(next(results), penstock_client.InvalidInput)
    seen.set()
    assert number(next(results)) == 2
    assert list(results) == []


@pytest.mark.parametrize("limit", [1, 7])
def test_no_more_is_read_ahead_than_asked_for(server, client, limit) -> None:
    answered = 0
    most = 0

    def counting(messages, context):
        nonlocal answered
        for message in messages:
            for request in message.requests:
                answered += 1
                yield server.answers([request])

    def items():
        nonlocal most
        for each in range(50):
            most = max(most, each + 1 - answered)
            yield item(each)

    server.stream = counting
    assert len(list(client.predict_stream("echo", items(), max_in_flight=limit))) == 50
    assert most <= limit


def test_reading_goes_as_far_ahead_as_asked_for(server, client) -> None:
    read = []
    release = threading.Event()

    def hold(messages, context):
        assert release.wait(BOUND)
        yield from server.answer_all(messages, context)

    server.stream = hold
    items = (read.append(each) or item(each) for each in range(50))
    results = client.predict_stream("echo", items, max_in_flight=7)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(next, results)
        until(lambda: len(read) == 7)
        release.set()
        first.result(BOUND)
    assert len(list(results)) == 49


def test_refused_items_are_bounded_too(server, client) -> None:
    read = []
    items = (read.append(1) or BAD for _ in itertools.count())
    results = client.predict_stream("echo", items, errors="return", max_in_flight=4)
    assert isinstance(next(results), penstock_client.InvalidInput)
    results.close()
    assert len(read) <= 8


def test_what_gathers_goes_in_one_message(server, client) -> None:
    list(client.predict_stream("echo", map(item, range(2000))))
    assert sum(server.messages) == 2000
    assert max(server.messages) > 1
    assert len(server.messages) < 1000


def test_nothing_is_held_back_to_gather_more(server, client) -> None:
    turn = threading.Semaphore(0)

    def items():
        for each in range(20):
            yield item(each)
            assert turn.acquire(timeout=BOUND)  # the next comes only when this one is answered

    results = client.predict_stream("echo", items() if is_threads(client) else slow(items()))
    for each in range(20):
        assert number(next(results)) == each
        turn.release()
    assert list(results) == []
    assert server.messages == [1] * 20


def test_large_items_go_in_messages_of_their_own(server, client) -> None:
    rows = MESSAGE_BYTES // 12 * 2 // 3
    items = [{"x": np.full((rows, 3), each, np.float32)} for each in range(4)]
    results = client.predict_stream("echo", items)
    assert [number(each) for each in results] == [0, 1, 2, 3]
    assert server.messages == [1, 1, 1, 1]


def test_stopping_early_cancels_the_call(server, client) -> None:
    for result in client.predict_stream("echo", map(item, itertools.count())):
        if result.index == 10:
            break
    assert server.ended.wait(BOUND)


def test_closing_the_generator_cancels_the_call(server, client) -> None:
    results = client.predict_stream("echo", map(item, itertools.count()), ordered=False)
    next(results)
    results.close()
    assert server.ended.wait(BOUND)
    assert list(results) == []


def test_a_stream_nobody_looks_at_makes_no_call(server, client) -> None:
    client.predict_stream("echo", map(item, itertools.count()))
    client.health()
    assert server.calls == {"Check": 1}


def test_stopping_early_does_not_wait_for_the_iterable(server) -> None:
    release = threading.Event()

    def items():
        yield item(0)
        release.wait(BOUND)
        yield item(1)

    def answer_one(messages, context):
        yield server.answers(next(messages).requests)
        server.ended.wait(3 * BOUND)  # not the half-close ends this call, only its cancellation

    server.stream = answer_one
    with penstock_client.Client(server.target) as client:
        results = client.predict_stream("echo", items())
        next(results)
        results.close()  # the reader is waiting for item 1; the fixture looks that it ends
        assert server.ended.wait(BOUND)
        release.set()


def test_what_the_iterable_raises_comes_in_its_place(server, client) -> None:
    def items():
        yield item(0)
        yield BAD
        yield item(2)
        raise LookupError("the source broke")

    results = client.predict_stream("echo", items(), errors="return")
    assert [next(results).index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="the source broke"):
        next(results)


def test_the_arguments_are_checked_at_once(server, client) -> None:
    for wrong in ({"max_in_flight": 0}, {"errors": "ignore"}, {"timeout": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            client.predict_stream("echo", [], **wrong)
    with pytest.raises(TypeError):
        client.predict_stream("echo", 5)


def test_a_model_replaced_during_a_stream_is_asked_for_again(server, client) -> None:
    def items():
        yield item(0)
        server.add("echo", x="FP64 N,3,1")
        yield {"x": np.zeros((1, 3, 1))}

    results = list(client.predict_stream("echo", items()))
    assert [each["x"].dtype for each in results] == [np.float32, np.float64]


def test_items_the_server_calls_invalid_drop_the_signature_once(server, client) -> None:
    server.answer = lambda _: status(grpc.StatusCode.INVALID_ARGUMENT, "no")
    assert len(list(client.predict_stream("echo", map(item, range(50)), errors="return"))) == 50
    assert server.calls["GetModel"] == 1
    server.answer = echo
    client.predict("echo", item(1))
    assert server.calls["GetModel"] == 2


def test_streams_of_one_client_do_not_meet(server: StandIn) -> None:
    with penstock_client.Client(server.target) as client, ThreadPoolExecutor(4) as pool:

        def run(start: int) -> bool:
            items = map(item, range(start, start + 300))
            return [number(each) for each in client.predict_stream("echo", items)] == list(
                range(start, start + 300)
            )

        assert all(pool.map(run, [0, 1000, 2000, 3000]))
