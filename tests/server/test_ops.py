"""Operations on a running server: probes, and metrics that say exactly what happened."""

from __future__ import annotations

import signal
from collections import Counter

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock.core.tensors import DataType
from server import kit
from server.conftest import ALONE
from support import zoo

OK, INTERNAL = grpc.StatusCode.OK, grpc.StatusCode.INTERNAL
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
ONE = np.ones((1, 1), np.float32)
GOOD = kit.request("add", a=kit.rows(2), b=kit.rows(2))
BAD = kit.request("add", a=kit.rows(2), b=kit.rows(3))
FAILING = kit.request("fails", x=kit.raw(np.array([[100]]), DataType.INT64))


@pytest.fixture
def transport() -> str:
    """One transport is enough: what is counted is counted above them."""
    return "reactor"


@pytest.fixture
def idle(server):
    """The shared server, once whatever earlier tests left behind has ended."""
    kit.wait_until(lambda: kit.is_idle(server.ops), "nothing is under way")
    return server


class Growth:
    """What a server's counters grew by since this was made."""

    def __init__(self, ops: str) -> None:
        self._ops = ops
        self._before = kit.Metrics(ops)

    def __call__(self, name: str, **labels: str) -> float:
        return kit.metric(self._ops, name, **labels) - self._before.sum(name, **labels)


def test_a_server_that_serves_is_live_and_ready(server) -> None:
    assert kit.get(f"{server.ops}/livez") == (200, "ok\n")
    assert kit.get(f"{server.ops}/readyz") == (200, "ok\n")


def test_while_it_drains_it_is_live_and_not_ready(serve) -> None:
    server = serve({"slow": zoo.slow(20)}, settings={"slow": ALONE})
    with kit.connect(server.target) as channel:
        call = kit.stub_of(channel).Predict
        futures = [call.future(kit.request("slow", x=ONE), timeout=kit.BOUND) for _ in range(50)]
        kit.wait_until(lambda: kit.metric(server.ops, "queue_rows") >= 30, "the requests wait")
        server.process.send_signal(signal.SIGTERM)
        kit.wait_until(lambda: kit.get(f"{server.ops}/readyz")[0] == 503, "not ready any more")
        assert "stopping" in kit.get(f"{server.ops}/readyz")[1]
        assert kit.get(f"{server.ops}/livez") == (200, "ok\n")
        assert kit.metric(server.ops, "queue_rows") > 0, "it was still draining"
        assert {kit.code_of_future(each) for each in futures} == {OK}
    assert server.wait() == 0


def test_metrics_are_what_prometheus_reads(server, stub) -> None:
    stub.Predict(GOOD, timeout=kit.BOUND)
    text = kit.get(f"{server.ops}/metrics")[1]
    families = {each.name: each for each in text_string_to_metric_families(text)}
    assert text.count("# TYPE ") == len(families), "no family comes twice"
    types = {name: each.type for name, each in families.items() if name.startswith("penstock_")}
    assert types["penstock_requests"] == "counter"
    assert types["penstock_queue_rows"] == "gauge"
    assert types["penstock_request_seconds"] == "histogram"
    assert all(families[name].documentation for name in types)
    samples = [(s.name, *sorted(s.labels.items())) for each in families.values() for s in each.samples]
    assert len(samples) == len(set(samples)), "no series comes twice"


def test_counters_add_up_after_unary_calls(idle, stub) -> None:
    """7 answered, 5 that do not fit, 3 that the model fails on, and 4 for models that are not there."""
    grown = Growth(idle.ops)
    load = [GOOD] * 7 + [BAD] * 5 + [FAILING] * 3 + [kit.request("nothing")] * 4
    codes = Counter(kit.in_parallel([lambda each=each: unary(stub, each) for each in load]))
    assert codes == {OK: 7, INVALID: 5, INTERNAL: 3, NOT_FOUND: 4}
    kit.wait_until(lambda: grown("requests_total") == len(load), "all are counted")
    assert grown("requests_total", rpc="Predict") == len(load)
    assert grown("requests_total", model="add", version="1", code="OK") == 7
    assert grown("requests_total", model="add", version="1", code="INVALID_ARGUMENT") == 5
    assert grown("requests_total", model="fails", version="1", code="INTERNAL") == 3
    assert grown("requests_total", model="", version="", code="NOT_FOUND") == 4
    assert grown("rows_total", model="add") == 14
    assert grown("request_seconds_count", model="add") == grown("queue_seconds_count", model="add") == 7
    batches = grown("batches_total", model="add")
    assert 1 <= batches <= 7
    assert grown("batch_rows_count", model="add") == grown("compute_seconds_count", model="add") == batches
    assert grown("batch_rows_sum", model="add") == 14


def unary(stub, request) -> grpc.StatusCode:
    return kit.code_of(lambda: stub.Predict(request, timeout=kit.BOUND))


def test_counters_add_up_after_a_stream(idle, channel) -> None:
    """Ten messages, each with 7 requests that are answered and 3 that are not."""
    grown = Growth(idle.ops)
    each = kit.message(*[GOOD] * 7, BAD, FAILING, kit.request("nothing"))
    results = kit.stream_all(channel, [each] * 10)
    assert len(results) == 100
    kit.wait_until(lambda: grown("requests_total") == 100, "all are counted")
    kit.wait_until(lambda: kit.is_idle(idle.ops), "the stream is closed")
    codes = {"OK": 70, "INVALID_ARGUMENT": 10, "INTERNAL": 10, "NOT_FOUND": 10}
    seen = {code: grown("requests_total", rpc="PredictStream", code=code) for code in codes}
    assert seen == codes
    assert grown("rows_total", model="add") == 140
    assert grown("stream_messages_total", direction="received") == 10
    assert 1 <= grown("stream_messages_total", direction="sent") <= 100
    assert grown("stream_requests_total") == grown("stream_results_total") == 100


def test_names_that_callers_make_up_add_no_series(idle, stub, channel) -> None:
    unary(stub, kit.request("nothing"))
    kit.stream_all(channel, [kit.message(kit.request("nothing"))])
    before, grown = kit.Metrics(idle.ops).series(), Growth(idle.ops)
    made_up = [kit.request(f"made-up-{n}", version=f"{n}") for n in range(300)]
    assert {unary(stub, each) for each in made_up} == {NOT_FOUND}
    kit.stream_all(channel, [kit.message(*made_up)])
    kit.wait_until(lambda: grown("requests_total", code="NOT_FOUND") == 600, "all are counted")
    assert kit.Metrics(idle.ops).series() - before == set()
    assert "made-up" not in kit.Metrics(idle.ops).text
