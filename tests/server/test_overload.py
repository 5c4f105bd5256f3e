"""More requests than a model can answer in time: as many are, as if the others had not come."""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc
import numpy as np

from server import kit
from support import zoo

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
    """Without a look ahead every answer comes just too late, and what is run is for nobody."""
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
