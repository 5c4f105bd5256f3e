"""Large messages: 64 MiB both ways, small requests beside them, and the limit."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from penstock.core.interpreter import LEAST_URGENT, LESS_URGENT
from penstock.core.tensors import DataType
from server import kit
from support import zoo

MIB = 2**20


@pytest.fixture
def large() -> np.ndarray:
    """64 MiB of floats."""
    return np.arange(16 * MIB, dtype=np.float32).reshape(16, MIB)


def models():
    """For a server of this module's own: what has been large stays large."""
    return {"wide": (zoo.identity(DataType.FP32, ("N", "L")), ""), "identity": (zoo.identity(), "")}


@pytest.fixture
def own(own_server) -> Iterator[tuple]:
    """That server, and a connection to it."""
    with kit.connect(own_server.target) as channel:
        yield own_server, channel


def test_64_mib_there_and_back(own, large) -> None:
    server, channel = own
    message = kit.request("wide", tag=3, x=large)
    response = kit.stub_of(channel).Predict(message, timeout=kit.BOUND)
    assert response.outputs["y"].raw == large.tobytes()
    small = kit.request("wide", tag=4, x=kit.rows(1))
    results = kit.stream_all(channel, [kit.message(message, small), kit.message(small, message)])
    assert [each.tag for each in results] == [3, 4, 4, 3]
    for result in (results[0], results[3]):
        assert result.response.outputs["y"].raw == large.tobytes()
    assert kit.problems(server) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no steps of `nice` of their own")
def test_the_workers_are_less_urgent_than_the_thread_that_takes_calls(own) -> None:
    server, channel = own
    message = kit.request("wide", x=np.zeros((1, MIB), np.float32))
    kit.stub_of(channel).Predict(message, timeout=kit.BOUND)
    own_steps = os.getpriority(os.PRIO_PROCESS, server.pid)
    found = Counter(_steps(each) for each in Path(f"/proc/{server.pid}/task").iterdir())
    less = min(own_steps + LESS_URGENT, LEAST_URGENT)
    assert 1 <= found.pop(less) <= 4, "only the workers"
    assert set(found) <= {own_steps, LEAST_URGENT}


def _steps(thread: Path) -> int:
    """Of `nice`, of a thread."""
    return int((thread / "stat").read_text().rpartition(")")[2].split()[16])


def test_small_requests_beside_large_ones(own, large) -> None:
    """Large messages are not the polling thread's: others are answered all the while."""
    server, channel = own
    message = kit.request("wide", x=large)
    small, answered = kit.request("identity", x=kit.rows(1)), 0
    with kit.connect(server.target) as other:
        stub = kit.stub_of(other)
        stub.Predict(small, timeout=kit.BOUND)
        futures = [kit.stub_of(channel).Predict.future(message, timeout=2 * kit.BOUND) for _ in range(6)]
        while not all(each.done() for each in futures):
            stub.Predict(small, timeout=kit.BOUND)
            answered += 1
    assert {kit.code_of_future(each) for each in futures} == {grpc.StatusCode.OK}
    assert answered >= 3 * len(futures), "small requests wait for large ones"


def test_a_message_over_the_limit(serve) -> None:
    models = {"wide": zoo.identity(DataType.FP32, ("N", "L"))}
    server = serve(models, env={"PENSTOCK_SERVER__MAX_MESSAGE_BYTES": str(MIB)})
    with kit.connect(server.target) as channel:
        fits = kit.request("wide", tag=1, x=np.ones((1, MIB // 4 - 1000), np.float32))
        over = kit.request("wide", tag=2, x=np.ones((1, MIB // 4), np.float32))
        stub = kit.stub_of(channel)
        assert stub.Predict(fits, timeout=kit.BOUND).tag == 1
        future = stub.Predict.future(over, timeout=kit.BOUND)
        assert kit.code_of_future(future) is grpc.StatusCode.RESOURCE_EXHAUSTED
        stream = kit.Stream(channel)
        stream.send(fits)
        assert stream.next().tag == 1
        stream.send(over)
        results, code = stream.rest_and_code()
        stream.half_close()
        assert (results, code) == ([], grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert kit.code_of(lambda: stub.Predict(fits, timeout=kit.BOUND)) is grpc.StatusCode.OK
        kit.wait_until(lambda: kit.is_idle(server.ops), "nothing is left")
        assert kit.problems(server) == []


def test_a_caller_of_a_large_request_leaves_while_it_is_decoded(own, large) -> None:
    server, channel = own
    message = kit.request("wide", x=kit.typed(large[:1], DataType.FP32))
    for wait in (0.0, 0.01, 0.05, 0.2):  # anywhere between sending and answering
        future = kit.stub_of(channel).Predict.future(message, timeout=kit.BOUND)
        time.sleep(wait)
        future.cancel()
        stream = kit.Stream(channel)
        stream.send(message)
        time.sleep(wait)
        stream.cancel()
    kit.wait_until(lambda: kit.is_idle(server.ops), "nothing is left")
    assert kit.problems(server) == []
