"""Hundreds of thousands of unary calls, half of which their callers give up at random."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from server import kit
from soak.held import growth, held
from support.servers import RunningServer

WARM_UP, MEASURED = 20_000, 200_000
IN_FLIGHT = 32
MOST_BYTES = 5e6
KEPT_BY_GRPC = {"reactor": 0, "portable": 200}
"""Bytes of every cancelled call that grpcio itself may keep: grpc.aio frees the operations of a batch only
when the batch succeeds. A bare grpc.aio echo under this load grows by about 100 a cancelled call, too."""
WAVES, A_WAVE = 20, 200


class Ends:
    """Counts how calls end, each of which must end once.

    Attributes:
        codes: how many ended with each status code.
        cancelled: how many were given up.
    """

    def __init__(self) -> None:
        self.codes: Counter[grpc.StatusCode] = Counter()
        self.cancelled = 0

    def cancel(self, future: Any) -> None:
        """Gives a call up; it may have ended already."""
        self.cancelled += 1
        future.cancel()

    def wait(self, future: Any) -> None:
        """Waits for the end of a call."""
        self.codes[kit.code_of_future(future)] += 1


def call_and_cancel(channel: grpc.Channel, ends: Ends, chance: random.Random, count: int) -> None:
    """Makes calls, and gives half of them up while they are anywhere between here and there."""
    request = kit.request("identity", x=kit.rows(1)).SerializeToString()
    call, young, old = channel.unary_unary(kit.UNARY), deque[Any](), deque[Any]()
    for _ in range(count):
        young.append(call.future(request, timeout=kit.BOUND))
        while len(young) > chance.randrange(8):
            future = young.popleft()
            if chance.random() < 0.5:
                ends.cancel(future)
            old.append(future)
        while len(old) > IN_FLIGHT:
            ends.wait(old.popleft())
    for future in (*young, *old):
        ends.wait(future)


@pytest.mark.soak
def test_memory_over_calls_that_are_cancelled(
    server: RunningServer, transport: str, record_property: Callable[[str, object], None]
) -> None:
    ends, chance = Ends(), random.Random(7)
    with kit.connect(server.target) as channel:
        _, grown = growth(
            server,
            lambda count: call_and_cancel(channel, ends, chance, count),
            WARM_UP,
            MEASURED,
            record_property,
        )
    seen = kit.Metrics(server.ops)
    assert ends.codes.total() == WARM_UP + MEASURED
    assert set(ends.codes) == {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED}
    assert ends.codes[grpc.StatusCode.CANCELLED] <= ends.cancelled
    # A call given up early never gets to the model, and one given up late counts as answered there.
    assert ends.codes[grpc.StatusCode.OK] <= seen.sum("requests_total", code="OK")
    assert seen.sum("requests_total") <= WARM_UP + MEASURED
    assert seen.sum("requests_total") == seen.sum("requests_total", code="OK") + seen.sum("cancelled_total")
    assert grown < MOST_BYTES + KEPT_BY_GRPC[transport] * MEASURED / 2
    assert kit.problems(server) == []


def arrived(server: RunningServer) -> float:
    """How many calls have come so far, answered or not."""
    seen = kit.Metrics(server.ops)
    return seen.sum("requests_total") + seen.sum("queue_rows") + seen.sum("running_batches")


@pytest.mark.soak
def test_what_is_cancelled_while_it_waits_never_runs(server: RunningServer) -> None:
    chance, ends = random.Random(7), Ends()
    request = kit.request("slow", x=np.ones((1, 1), np.float32)).SerializeToString()
    with kit.connect(server.target) as channel:
        call = channel.unary_unary(kit.UNARY)
        for wave in range(1, WAVES + 1):
            futures = [call.future(request, timeout=kit.BOUND) for _ in range(A_WAVE)]
            kit.wait_until(lambda wave=wave: arrived(server) == wave * A_WAVE, "all have arrived")
            for future in chance.sample(futures, A_WAVE // 2):
                ends.cancel(future)
            for future in futures:
                ends.wait(future)
    held(server)
    seen = kit.Metrics(server.ops)
    assert seen.sum("requests_total") == ends.codes.total() == WAVES * A_WAVE
    ran_in_vain = seen.sum("rows_total") - seen.sum("requests_total", code="OK")
    assert seen.sum("cancelled_total") > ends.cancelled / 2
    # Only those that were already running, of which there are as many at a time as cores, if that.
    assert ran_in_vain < 0.1 * seen.sum("cancelled_total")
