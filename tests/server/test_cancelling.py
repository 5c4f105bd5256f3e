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


def slow(**fields):
    return kit.request("slow", x=ONE, **fields)


def ended(ops: str, **labels: str) -> float:
    return kit.metric(ops, "requests_total", **labels)


def settles(ops: str, count: float, **labels: str) -> None:
    """Every request that came is counted exactly once, and nothing is left."""
    kit.wait_until(lambda: kit.is_idle(ops), "nothing waits or runs")
    kit.wait_until(lambda: ended(ops, **labels) >= count, "all requests are counted")
    assert ended(ops, **labels) == count


def test_half_of_500_callers_are_cancelled(serve) -> None:
    server = serve({"slow": zoo.slow(1)}, settings={"slow": ALONE})
    with kit.connect(server.target) as channel:
        stub = kit.stub_of(channel)
        futures = [stub.Predict.future(slow(tag=n), timeout=kit.BOUND) for n in range(500)]
        for future in futures[1::2]:
            future.cancel()
        assert {kit.code_of_future(each) for each in futures[::2]} == {OK}
        assert [each.result().tag for each in futures[::2]] == list(range(0, 500, 2))
        assert {kit.code_of_future(each) for each in futures[1::2]} <= {CANCELLED, OK}
        kit.wait_until(lambda: kit.is_idle(server.ops), "nothing waits or runs")
        answered = ended(server.ops, code="OK")
        assert 250 <= answered <= 500
        # A call may be cancelled before it has left the client; but none is counted twice.
        assert answered + ended(server.ops, code="CANCELLED") <= 500
        assert codes(server.ops) <= {"OK", "CANCELLED"}


def codes(ops: str) -> set[str]:
    return {
        each.labels["code"] for each in kit.Metrics(ops).samples if each.name == "penstock_requests_total"
    }


def test_callers_that_leave_as_they_are_answered_are_all_counted(serve) -> None:
    """Cancelled around the time of the answer, again and again: every request is counted once."""
    server = serve({"slow": zoo.slow(1)}, settings={"slow": ALONE})
    count = 400
    with kit.connect(server.target) as channel:
        stub = kit.stub_of(channel)
        for number in range(count):
            future = stub.Predict.future(slow(), timeout=kit.BOUND)
            before = stub.Predict(slow(), timeout=kit.BOUND)  # the first is answered at about this time
            future.cancel()
            assert before.model == "slow", number
        settles(server.ops, 2 * count)


def test_cancelled_requests_never_run_and_free_their_room(serve) -> None:
    server = serve(
        {"slow": zoo.slow(100)}, settings={"slow": ALONE}, env={"PENSTOCK_BATCHING__QUEUE_ROWS": "8"}
    )
    with kit.connect(server.target) as channel:
        stub = kit.stub_of(channel)
        first = stub.Predict.future(slow(), timeout=kit.BOUND)
        kit.wait_until(lambda: kit.metric(server.ops, "running_batches") == 1, "the first one runs")
        waiting = [stub.Predict.future(slow(), timeout=kit.BOUND) for _ in range(8)]
        kit.wait_until(lambda: kit.metric(server.ops, "queue_rows") == 8, "the queue is full")
        refused = stub.Predict.future(slow(), timeout=kit.BOUND)
        assert kit.code_of_future(refused) is FULL
        assert "8" in refused.details()
        for each in waiting:
            each.cancel()
        kit.wait_until(lambda: kit.metric(server.ops, "queue_rows") <= 1, "the cancelled ones make room")
        again = [stub.Predict.future(slow(), timeout=kit.BOUND) for _ in range(7)]
        assert {kit.code_of_future(each) for each in [first, *again]} == {OK}
        settles(server.ops, 17)
        # One or two may have begun to run before they were cancelled.
        assert kit.metric(server.ops, "rows_total") <= 8 + 2
        assert kit.metric(server.ops, "rejected_total", reason="queue_full") == 1
        assert ended(server.ops, code="CANCELLED") >= 6


def test_a_full_queue_on_a_stream(serve) -> None:
    """What has no room gets an error of its own, the others their answers; and then there is room again."""
    server = serve(
        {"slow": zoo.slow(5)}, settings={"slow": ALONE}, env={"PENSTOCK_BATCHING__QUEUE_ROWS": "8"}
    )
    with kit.connect(server.target) as channel:
        results = kit.stream_all(channel, [kit.message(*[slow(tag=n) for n in range(50)])])
        assert [each.tag for each in results] == list(range(50))
        refused = [each for each in results if each.HasField("error")]
        assert {each.error.code for each in refused} == {code_pb2.RESOURCE_EXHAUSTED}
        assert 0 < len(refused) < 50
        assert kit.metric(server.ops, "rejected_total", reason="queue_full") == len(refused)
        results = kit.stream_all(channel, [kit.message(*[slow(tag=n) for n in range(5)])])
        assert not any(each.HasField("error") for each in results)


def test_a_deadline_shorter_than_the_queue(serve) -> None:
    """Whoever cannot be answered in time is told so at once, by the call's own deadline or the `timeout`."""
    server = serve({"slow": zoo.slow(400)}, settings={"slow": ALONE})
    with kit.connect(server.target) as channel:
        stub = kit.stub_of(channel)
        first = stub.Predict.future(slow(), timeout=kit.BOUND)
        kit.wait_until(lambda: kit.metric(server.ops, "running_batches") == 1, "the first one runs")
        stream = kit.Stream(channel)
        stream.send(*[slow(tag=n, timeout=0.02) for n in range(5)])
        by_deadline = [stub.Predict.future(slow(), timeout=0.15) for _ in range(5)]
        by_timeout = [stub.Predict.future(slow(timeout=0.02), timeout=kit.BOUND) for _ in range(5)]
        assert {kit.code_of_future(each) for each in by_deadline + by_timeout} == {EXPIRED}
        streamed = [stream.next() for _ in range(5)]
        assert not first.done(), "the refusals came after the model's run"
        assert {each.error.code for each in streamed} == {code_pb2.DEADLINE_EXCEEDED}
        assert "ms are left" in by_timeout[0].details()
        assert kit.code_of_future(first) is OK
        stream.send(slow(tag=9))
        assert stream.next().response.tag == 9
        stream.half_close()
        assert stream.rest() == []
        settles(server.ops, 17)
        assert kit.metric(server.ops, "rows_total") == 2
        assert kit.metric(server.ops, "expired_total") == 15


def test_the_earlier_of_deadline_and_timeout_counts(server, stub) -> None:
    for timeout, deadline in ((0.001, kit.BOUND), (kit.BOUND, 0.001)):
        futures = [stub.Predict.future(slow(timeout=timeout), timeout=deadline) for _ in range(5)]
        assert {EXPIRED, FULL} & {kit.code_of_future(each) for each in futures}
    long = slow()
    long.timeout.seconds = 2**60
    assert stub.Predict(long, timeout=kit.BOUND).model == "slow"


def test_a_retry_hint_comes_with_a_full_queue_if_at_all(serve) -> None:
    """Where the status has details they are of the documented kind."""
    server = serve(
        {"slow": zoo.slow(20)}, settings={"slow": ALONE}, env={"PENSTOCK_BATCHING__QUEUE_ROWS": "1"}
    )
    with kit.connect(server.target) as channel:
        stub = kit.stub_of(channel)
        futures = [stub.Predict.future(slow(), timeout=kit.BOUND) for _ in range(20)]
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
stream.send(*[kit.request("slow", tag=n, x=one) for n in range(200)])
print(stream.next().tag, flush=True)
import time
time.sleep(60)
"""


def test_a_client_killed_mid_stream(serve) -> None:
    server = serve({"slow": zoo.slow(20), "identity": zoo.identity()}, settings={"slow": ALONE})
    script = CLIENT.format(tests=str(zoo.Path(__file__).parents[1]), target=server.target)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "0\n"
        client.kill()
    kit.wait_until(lambda: kit.is_idle(server.ops), "what was queued is dropped")
    assert kit.metric(server.ops, "rows_total") < 150
    assert kit.metric(server.ops, "cancelled_total") > 50
    settles(server.ops, 200)
    with kit.connect(server.target) as channel:
        assert kit.stub_of(channel).Predict(kit.request("identity", x=kit.rows(1)), timeout=5)


@pytest.mark.parametrize("order", ["request", "completion"])
def test_a_cancelled_stream_drops_what_is_queued(serve, order) -> None:
    server = serve({"slow": zoo.slow(20)}, settings={"slow": ALONE})
    with kit.connect(server.target) as channel:
        stream = kit.Stream(channel, metadata=(("penstock-order", order),))
        stream.send(*[slow(tag=n) for n in range(200)])
        stream.next()
        stream.cancel()
        settles(server.ops, 200)
        assert kit.metric(server.ops, "rows_total") < 150
        assert kit.code_of(lambda: kit.stub_of(channel).Predict(slow(), timeout=kit.BOUND)) is OK


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
