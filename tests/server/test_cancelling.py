"""Callers that go away, deadlines that pass, and queues that are full."""

from __future__ import annotations

import subprocess
import sys

import grpc
import numpy as np
import pytest
from google.rpc import code_pb2, error_details_pb2
from grpc_status import rpc_status

from server import kit
from server.conftest import ALONE
from support import zoo

ONE = np.ones((1, 1), np.float32)
OK, CANCELLED = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED
EXPIRED, FULL = grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED


EIGHT_WAIT = "[batching]\nenabled = false\nqueue_rows = 8\n"


def models():
    """One for each test."""
    return {
        "half": (zoo.slow(1), ALONE),
        "leaving": (zoo.slow(1), ALONE),
        "room": (zoo.slow(500), "[batching]\nenabled = false\nqueue_rows = 3\n"),
        "full": (zoo.slow(5), EIGHT_WAIT),
        "late": (zoo.slow(400), ALONE),
        "hint": (zoo.slow(20), "[batching]\nenabled = false\nqueue_rows = 1\n"),
        "killed": (zoo.slow(20), ALONE),
        "dropped_request": (zoo.slow(20), ALONE),
        "dropped_completion": (zoo.slow(20), ALONE),
        "identity": (zoo.identity(), ""),
    }


def slow(model="slow", **fields):
    return kit.request(model, x=ONE, **fields)


def ended(ops: str, **labels: str) -> float:
    return kit.metric(ops, "requests_total", **labels)


def settles(ops: str, count: float, **labels: str) -> None:
    """Every request that came is counted exactly once, and nothing is left."""
    kit.wait_until(lambda: kit.is_idle(ops), "nothing waits or runs")
    kit.assert_counted(ops, count, "requests_total", **labels)


def test_half_of_500_callers_are_cancelled(own_server) -> None:
    with kit.connect(own_server.target) as channel:
        stub = kit.stub_of(channel)
        futures = [stub.Predict.future(slow("half", tag=n), timeout=kit.BOUND) for n in range(500)]
        for future in futures[1::2]:
            future.cancel()
        assert {kit.code_of_future(each) for each in futures[::2]} == {OK}
        assert [each.result().tag for each in futures[::2]] == list(range(0, 500, 2))
        assert {kit.code_of_future(each) for each in futures[1::2]} <= {CANCELLED, OK}
        kit.wait_until(lambda: kit.is_idle(own_server.ops), "nothing waits or runs")
        kit.wait_until(lambda: ended(own_server.ops, model="half", code="OK") >= 250, "answers are counted")
        answered = ended(own_server.ops, model="half", code="OK")
        assert 250 <= answered <= 500
        # A call may be cancelled before it has left the client; but none is counted twice.
        assert answered + ended(own_server.ops, model="half", code="CANCELLED") <= 500
        assert codes(own_server.ops, "half") <= {"OK", "CANCELLED"}


def codes(ops: str, model: str) -> set[str]:
    return {
        each.labels["code"]
        for each in kit.Metrics(ops).samples
        if each.name == "penstock_requests_total" and each.labels["model"] == model
    }


def test_callers_that_leave_as_they_are_answered_are_all_counted(own_server) -> None:
    """Cancelled around the time of the answer, again and again: every request is counted once."""
    count = 400
    with kit.connect(own_server.target) as channel:
        stub = kit.stub_of(channel)
        for number in range(count):
            future = stub.Predict.future(slow("leaving"), timeout=kit.BOUND)
            # The first is answered at about the time of this.
            before = stub.Predict(slow("leaving"), timeout=kit.BOUND)
            future.cancel()
            assert before.model == "leaving", number
        settles(own_server.ops, 2 * count, model="leaving")


def test_cancelled_requests_never_run_and_free_their_room(own_server) -> None:
    with kit.connect(own_server.target) as channel:
        stub = kit.stub_of(channel)
        first = stub.Predict.future(slow("room"), timeout=kit.BOUND)
        kit.wait_until(
            lambda: kit.metric(own_server.ops, "running_batches", model="room") == 1, "the first one runs"
        )
        waiting = [stub.Predict.future(slow("room"), timeout=kit.BOUND) for _ in range(3)]
        kit.wait_until(
            lambda: kit.metric(own_server.ops, "queue_rows", model="room") == 3, "the queue is full"
        )
        refused = stub.Predict.future(slow("room"), timeout=kit.BOUND)
        assert kit.code_of_future(refused) is FULL
        assert "3" in refused.details()
        for each in waiting:
            each.cancel()
        kit.wait_until(
            lambda: kit.metric(own_server.ops, "queue_rows", model="room") == 0,
            "the cancelled ones make room",
        )
        again = [stub.Predict.future(slow("room"), timeout=kit.BOUND) for _ in range(2)]
        assert {kit.code_of_future(each) for each in [first, *again]} == {OK}
        settles(own_server.ops, 7, model="room")
        # One may have begun to run before it was cancelled.
        assert kit.metric(own_server.ops, "rows_total", model="room") <= 3 + 1
        kit.assert_counted(own_server.ops, 1, "rejected_total", model="room", reason="queue_full")
        assert ended(own_server.ops, model="room", code="CANCELLED") >= 2


def test_a_full_queue_on_a_stream(own_server) -> None:
    """What has no room gets an error of its own, the others their answers; and then there is room again."""
    with kit.connect(own_server.target) as channel:
        results = kit.stream_all(channel, [kit.message(*[slow("full", tag=n) for n in range(50)])])
        assert [each.tag for each in results] == list(range(50))
        refused = [each for each in results if each.HasField("error")]
        assert {each.error.code for each in refused} == {code_pb2.RESOURCE_EXHAUSTED}
        assert 0 < len(refused) < 50
        kit.assert_counted(own_server.ops, len(refused), "rejected_total", model="full", reason="queue_full")
        results = kit.stream_all(channel, [kit.message(*[slow("full", tag=n) for n in range(5)])])
        assert not any(each.HasField("error") for each in results)


@pytest.mark.alone
def test_a_deadline_shorter_than_the_queue(own_server) -> None:
    """Whoever cannot be answered in time is told so at once, by the call's own deadline or the `timeout`."""
    with kit.connect(own_server.target) as channel:
        stub = kit.stub_of(channel)
        first = stub.Predict.future(slow("late"), timeout=kit.BOUND)
        kit.wait_until(
            lambda: kit.metric(own_server.ops, "running_batches", model="late") == 1, "the first one runs"
        )
        stream = kit.Stream(channel)
        stream.send(*[slow("late", tag=n, timeout=0.02) for n in range(5)])
        by_deadline = [stub.Predict.future(slow("late"), timeout=0.15) for _ in range(5)]
        by_timeout = [stub.Predict.future(slow("late", timeout=0.02), timeout=kit.BOUND) for _ in range(5)]
        assert {kit.code_of_future(each) for each in by_deadline + by_timeout} == {EXPIRED}
        streamed = [stream.next() for _ in range(5)]
        assert not first.done(), "the refusals came after the model's run"
        assert {each.error.code for each in streamed} == {code_pb2.DEADLINE_EXCEEDED}
        assert "but the deadline is in " in by_timeout[0].details()
        assert kit.code_of_future(first) is OK
        stream.send(slow("late", tag=9))
        assert stream.next().response.tag == 9
        stream.half_close()
        assert stream.rest() == []
        settles(own_server.ops, 17, model="late")
        kit.assert_counted(own_server.ops, 2, "rows_total", model="late")
        kit.assert_counted(own_server.ops, 15, "expired_total", model="late")


def test_the_earlier_of_deadline_and_timeout_counts(server, stub) -> None:
    for timeout, deadline in ((0.001, kit.BOUND), (kit.BOUND, 0.001)):
        futures = [stub.Predict.future(slow(timeout=timeout), timeout=deadline) for _ in range(5)]
        assert {EXPIRED, FULL} & {kit.code_of_future(each) for each in futures}
    long = slow()
    long.timeout.seconds = 2**60
    assert stub.Predict(long, timeout=kit.BOUND).model == "slow"


def test_a_retry_hint_comes_with_a_full_queue_if_at_all(own_server) -> None:
    """Where the status has details they are of the documented kind."""
    with kit.connect(own_server.target) as channel:
        stub = kit.stub_of(channel)
        futures = [stub.Predict.future(slow("hint"), timeout=kit.BOUND) for _ in range(20)]
        refused = [each for each in futures if kit.code_of_future(each) is FULL]
        assert refused
        for each in refused:
            status = rpc_status.from_call(each)
            if status is not None:
                assert len(status.details) == 1
                assert status.details[0].Is(error_details_pb2.RetryInfo.DESCRIPTOR)


CLIENT = """
import sys
sys.path.insert(0, {tests!r})
import numpy as np
from server import kit
stream = kit.Stream(kit.connect({target!r}))
one = np.ones((1, 1), np.float32)
stream.send(*[kit.request("killed", tag=n, x=one) for n in range(200)])
print(stream.next().tag, flush=True)
import time
time.sleep(60)
"""


def test_a_client_killed_mid_stream(own_server) -> None:
    script = CLIENT.format(tests=str(zoo.Path(__file__).parents[1]), target=own_server.target)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "0\n"
        client.kill()
    settles(own_server.ops, 200, model="killed")
    assert kit.metric(own_server.ops, "rows_total", model="killed") < 150
    assert kit.metric(own_server.ops, "cancelled_total", model="killed") > 50
    with kit.connect(own_server.target) as channel:
        assert kit.stub_of(channel).Predict(kit.request("identity", x=kit.rows(1)), timeout=5)


@pytest.mark.parametrize("order", ["request", "completion"])
def test_a_cancelled_stream_drops_what_is_queued(own_server, order) -> None:
    model = f"dropped_{order}"
    with kit.connect(own_server.target) as channel:
        stream = kit.Stream(channel, metadata=(("penstock-order", order),))
        stream.send(*[slow(model, tag=n) for n in range(200)])
        stream.next()
        stream.cancel()
        settles(own_server.ops, 200, model=model)
        assert kit.metric(own_server.ops, "rows_total", model=model) < 150
        assert kit.code_of(lambda: kit.stub_of(channel).Predict(slow(model), timeout=kit.BOUND)) is OK


def test_streams_that_come_and_go(server, channel) -> None:
    """Cancelled at every point of their lives, they leave nothing behind."""
    for number in range(100):
        stream = kit.Stream(channel)
        stream.send(*[kit.request("identity", tag=n, x=kit.rows(1)) for n in range(number % 7)])
        if number % 3 == 0 and number % 7:
            stream.next()
        if number % 2:
            stream.half_close()
        stream.cancel()
    kit.wait_until(lambda: kit.is_idle(server.ops), "nothing is left")
    results = kit.stream_all(channel, [kit.message(kit.request("identity", tag=1, x=kit.rows(1)))])
    assert [each.tag for each in results] == [1]
