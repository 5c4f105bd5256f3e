"""More requests than a model can answer in time: as many are, as if the others had not come."""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc
import numpy as np
import pytest

from server import kit
from support import zoo

# They compare what arrives with what can be answered in a time.
pytestmark = pytest.mark.alone

ONE = np.ones((1, 1), np.float32)
ONE_AT_A_TIME = "runs_in_parallel = 1\n[batching]\nenabled = false\n"
SECONDS = 2.0


class Open:
    """Calls at even intervals, whatever the server does; counts those answered in time."""

    def __init__(self, stub: Any, timeout: float) -> None:
        self._stub = stub
        self._timeout = timeout
        self._lock = threading.Lock()
        self.codes: dict[grpc.StatusCode, int] = {}

    def run(self, rate: float, seconds: float) -> int:
        """How many of the calls were answered in time."""
        started, calls = time.monotonic(), []
        for number in range(int(rate * seconds)):
            time.sleep(max(started + number / rate - time.monotonic(), 0.0))
            call = self._stub.Predict.future(kit.request("slow", x=ONE), timeout=self._timeout)
            call.add_done_callback(self._count)
            calls.append(call)
        for call in calls:
            kit.code_of_future(call)
        kit.wait_until(lambda: sum(self.codes.values()) == len(calls), "every call ends")
        return self.codes.get(grpc.StatusCode.OK, 0)

    def _count(self, call: Any) -> None:
        with self._lock:
            self.codes[call.code()] = self.codes.get(call.code(), 0) + 1


def test_twice_as_many_requests_as_can_be_answered_do_not_make_all_late(serve) -> None:
    """Without the estimate every answer would come just too late, and all runs would be wasted."""
    running = serve({"slow": zoo.slow(10)}, settings={"slow": ONE_AT_A_TIME})
    with kit.connect(running.target) as channel:
        stub = kit.stub_of(channel)
        started, alone = time.monotonic(), 0
        while time.monotonic() < started + 1.0:
            stub.Predict(kit.request("slow", x=ONE))
            alone += 1
        in_time = Open(stub, timeout=0.05).run(2 * alone, SECONDS)
        assert in_time > 0.4 * alone * SECONDS
        after = Open(stub, timeout=5.0).run(alone / 4, 1.0)
        assert after == int(alone / 4), "it recovers at once"
        queue = kit.Metrics(running.ops)
        assert queue.sum("queue_rows", model="slow") == queue.sum("queue_bytes", model="slow") == 0


def test_a_caller_that_floods_the_queue_does_not_keep_others_out(serve) -> None:
    """Two connections: one sends without end and takes whatever becomes free, the other asks now and then."""
    settings = ONE_AT_A_TIME.replace("enabled = false", "enabled = false\nqueue_rows = 40")
    running = serve({"slow": zoo.slow(5)}, settings={"slow": settings})
    with kit.connect(running.target) as greedy, kit.connect(running.target) as modest:
        flood, codes, stop = kit.stub_of(greedy), [], threading.Event()

        def send() -> None:
            while not stop.is_set():
                calls = [flood.Predict.future(kit.request("slow", x=ONE)) for _ in range(20)]
                for call in calls:
                    call.exception()

        threads = [threading.Thread(target=send) for _ in range(5)]
        for thread in threads:
            thread.start()
        kit.wait_until(lambda: kit.Metrics(running.ops).sum("queue_rows", model="slow") >= 39, "it is full")
        asking = kit.stub_of(modest)
        for _ in range(20):
            codes.append(kit.code_of_future(asking.Predict.future(kit.request("slow", x=ONE))))
            time.sleep(0.01)
        stop.set()
        for thread in threads:
            thread.join()
    assert codes.count(grpc.StatusCode.OK) >= 15, codes
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_a_queue_full_of_low_priority_refuses_nobody_of_higher(serve) -> None:
    settings = ONE_AT_A_TIME.replace("enabled = false", "enabled = false\nqueue_rows = 5")
    running = serve({"slow": zoo.slow(30)}, settings={"slow": settings})
    with kit.connect(running.target) as channel:
        stub = kit.stub_of(channel)

        def send(priority: int, count: int) -> list[Any]:
            asked = kit.request("slow", x=ONE, priority=priority)
            return [stub.Predict.future(asked, timeout=kit.BOUND) for _ in range(count)]

        low = send(-1, 20)
        kit.wait_until(lambda: sum(each.done() for each in low) >= 14, "it is full")
        urgent = send(9, 3)
        assert [kit.code_of_future(each) for each in urgent] == [grpc.StatusCode.OK] * 3
        codes = [kit.code_of_future(each) for each in low]
        assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        details = [each.exception().details() for each in low if each.exception()]
        assert (
            1
            <= sum("removed from the queue for a request of higher priority" in each for each in details)
            <= 3
        )
        kit.wait_until(lambda: kit.is_idle(running.ops), "nothing waits or runs")


def test_the_other_side_learns_at_once_that_it_would_be_too_late(serve) -> None:
    running = serve({"slow": zoo.slow(100)}, settings={"slow": ONE_AT_A_TIME})
    with kit.connect(running.target) as channel:
        stub = kit.stub_of(channel)
        first = kit.request("slow", x=ONE)
        first.priority = 1
        going = [stub.Predict.future(first) for _ in range(5)]
        kit.wait_until(lambda: kit.Metrics(running.ops).sum("queue_rows", model="slow") == 4, "they wait")
        error = stub.Predict.future(kit.request("slow", x=ONE), timeout=0.2).exception()
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "(4 rows ahead, and the run in flight)" in error.details()
        (details,) = [value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin"]
        assert b"RetryInfo" in details
        assert not going[-1].done()
        for each in going:
            each.result(kit.BOUND)
