"""A model that fails, or runs without an end, on a running server: what others see of it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from penstock.core.tensors import DataType
from penstock_proto.inference import grpc_service_pb2 as oip_pb
from penstock_proto.inference import grpc_service_pb2_grpc as oip_grpc
from penstock_proto.v1 import model_pb2, model_pb2_grpc
from server import kit
from support import zoo
from support.servers import RunningServer

CODES = grpc.StatusCode
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
HUNG = {"PENSTOCK_RUNNERS__HUNG_SECONDS": "0.1"}
ON_RUNNERS = {"PENSTOCK_RUNNERS__INLINE_BELOW_SECONDS": "0"}


def rounds(count: int, **fields: Any) -> Any:
    return kit.request("rounds", x=kit.raw(np.array([[count]]), DataType.INT64), **fields)


def endless(**fields: Any) -> Any:
    return rounds(2**62, **fields)


@pytest.fixture
def server(serve) -> RunningServer:
    """Runs are done where they would be: short ones, as these seem to be, by the thread that polls."""
    return serve(
        {"rounds": zoo.as_slow_as_asked(), "scale": zoo.scale(2.0)},
        env=HUNG,
        settings={"rounds": "inline = true"},
    )


@pytest.fixture
def threaded(serve) -> RunningServer:
    return serve({"rounds": zoo.as_slow_as_asked(), "scale": zoo.scale(2.0)}, env=HUNG | ON_RUNNERS)


@pytest.fixture
def channel(threaded: RunningServer) -> Iterator[grpc.Channel]:
    with kit.connect(threaded.target) as channel:
        yield channel


def test_a_run_that_holds_the_polling_thread_is_seen_from_outside_and_ends_with_its_deadline(server) -> None:
    with kit.connect(server.target) as channel:
        stub = kit.stub_of(channel)
        future = stub.Predict.future(endless(), timeout=1.5)
        kit.wait_until(lambda: kit.get(f"{server.ops}/livez")[0] == 503, "the server is not alive")
        assert "rounds version 1 hangs on the thread that polls" in kit.get(f"{server.ops}/livez")[1]
        assert kit.get(f"{server.ops}/readyz") == (503, "a run of rounds hangs\n")
        assert kit.code_of_future(future) is CODES.DEADLINE_EXCEEDED
        assert stub.Predict(rounds(1), timeout=kit.BOUND).model == "rounds"
    kit.wait_until(lambda: kit.get(f"{server.ops}/readyz")[0] == 200, "the server is ready")
    assert kit.get(f"{server.ops}/livez")[0] == 200
    for event in ("hung", "returned", "terminated", "overran"):
        kit.assert_counted(server.ops, 1, "model_events_total", model="rounds", event=event)
    kit.assert_counted(server.ops, 1, "expired_total", model="rounds")
    assert [each["event"] for each in kit.problems(server)] == [
        "a run hangs",
        "the hanging run has ended",
        "a run took far longer than expected of its shapes: until the next start, the threads that take "
        "calls make no run of this model",
    ]


def test_a_run_that_holds_the_thread_of_http_is_seen_and_ends_with_its_deadline(serve) -> None:
    server = serve(
        {"rounds": zoo.as_slow_as_asked(), "scale": zoo.scale(2.0)},
        "--http",
        "--http-port",
        "0",
        env=HUNG,
        settings={"rounds": "inline = true"},
    )

    def post(count: int, **headers: str) -> int:
        data = json.dumps({"x": count}).encode()
        asked = urllib.request.Request(f"{server.http}/predict/rounds", data, headers)
        try:
            with urllib.request.urlopen(asked, timeout=kit.BOUND) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post, 2**62, **{"Penstock-Timeout": "1.5"})
        kit.wait_until(lambda: kit.get(f"{server.ops}/livez")[0] == 503, "the server is not alive")
        assert "rounds version 1 hangs on the thread that serves HTTP" in kit.get(f"{server.ops}/livez")[1]
        with kit.connect(server.target) as channel:  # gRPC goes on
            answer = kit.stub_of(channel).Predict(kit.request("scale", x=kit.rows(1)), timeout=kit.BOUND)
            assert answer.model == "scale"
        assert waiting.result(kit.BOUND) == 504
    assert post(1) == 200
    kit.wait_until(lambda: kit.get(f"{server.ops}/livez")[0] == 200, "the server is alive")


def test_a_model_that_hangs_says_so_everywhere_until_its_caller_is_gone(threaded, channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service="rounds"), timeout=kit.BOUND)
    assert next(watch).status == SERVING
    future = kit.stub_of(channel).Predict.future(endless(), timeout=kit.BOUND)
    assert next(watch).status == NOT_SERVING
    assert health.Check(health_pb2.HealthCheckRequest(service="rounds")).status == NOT_SERVING
    for name in ("", "scale"):
        assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == SERVING
    oip = oip_grpc.GRPCInferenceServiceStub(channel)
    assert not oip.ModelReady(oip_pb.ModelReadyRequest(name="rounds")).ready
    assert oip.ModelReady(oip_pb.ModelReadyRequest(name="scale")).ready
    models = model_pb2_grpc.ModelServiceStub(channel)
    assert models.GetModel(model_pb2.GetModelRequest(model="rounds")).state_reason == "a run hangs"
    assert kit.get(f"{threaded.ops}/readyz") == (200, "ok, but a run of rounds hangs\n")
    assert kit.get(f"{threaded.ops}/livez")[0] == 200
    assert kit.metric(threaded.ops, "hung_runs", model="rounds") == 1
    assert kit.stub_of(channel).Predict(kit.request("scale", x=kit.rows(1)), timeout=kit.BOUND).model
    future.cancel()
    assert next(watch).status == SERVING
    watch.cancel()
    kit.wait_until(lambda: kit.get(f"{threaded.ops}/readyz") == (200, "ok\n"), "the model is ready")
    assert models.GetModel(model_pb2.GetModelRequest(model="rounds")).state_reason == ""
    kit.wait_until(lambda: kit.is_idle(threaded.ops), "nothing waits or runs")
    kit.assert_counted(threaded.ops, 1, "cancelled_total", model="rounds")
    kit.assert_counted(threaded.ops, 1, "model_events_total", model="rounds", event="terminated")


def test_requests_of_a_stream_that_are_too_late_are_told_so(threaded, channel) -> None:
    late = [endless(tag=number + 1, timeout=0.3) for number in range(8)]
    results = kit.stream_all(channel, [kit.message(*late)])
    assert [each.tag for each in results] == list(range(1, 9))
    assert {each.error.code for each in results} == {CODES.DEADLINE_EXCEEDED.value[0]}
    kit.wait_until(lambda: kit.is_idle(threaded.ops), "nothing waits or runs")
    kit.assert_counted(threaded.ops, 8, "expired_total", model="rounds")


def test_many_alike_of_which_some_fail_are_found_by_halves(serve, transport) -> None:
    server = serve({"fails": zoo.fails_on(100)})
    values = [1] * 64
    values[5] = values[40] = 100
    with kit.connect(server.target) as channel:
        requests = [
            kit.request("fails", tag=number + 1, x=kit.raw(np.array([[value]]), DataType.INT64))
            for number, value in enumerate(values)
        ]
        # The first message is learned from; the requests of the second come as one.
        kit.stream_all(channel, [kit.message(*requests[:4]), kit.message(*requests[:4])])
        results = kit.stream_all(channel, [kit.message(*requests)])
    assert [each.tag for each in results] == list(range(1, 65))
    failed = [each.tag for each in results if each.HasField("error")]
    assert failed == [6, 41]
    kit.assert_counted(server.ops, 2, "requests_total", model="fails", code="INTERNAL")
    kit.assert_counted(server.ops, 8 + 62, "requests_total", model="fails", code="OK")


def test_a_model_that_fails_whatever_it_is_given_is_left_alone(serve) -> None:
    settings = {"PENSTOCK_BREAKER__FAILURES": "3", "PENSTOCK_BREAKER__OPEN_SECONDS": "60"}
    server = serve({"broken": zoo.fails_on(0), "scale": zoo.scale(2.0)}, env=settings)
    broken = kit.request("broken", x=kit.raw(np.array([[1]]), DataType.INT64))
    with kit.connect(server.target) as channel:
        stub = kit.stub_of(channel)
        for _ in range(3):
            assert kit.code_of(lambda: stub.Predict(broken, timeout=kit.BOUND)) is CODES.INTERNAL
        kit.wait_until(lambda: kit.metric(server.ops, "breaker_open", model="broken"), "it is open")
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(broken, timeout=kit.BOUND)
        assert caught.value.code() is CODES.UNAVAILABLE
        (detail,) = rpc_status.from_call(caught.value).details
        hint = error_details_pb2.RetryInfo()
        assert detail.Unpack(hint)
        assert 50 < hint.retry_delay.seconds <= 60
        kit.assert_counted(server.ops, 1, "rejected_total", model="broken", reason="breaker_open")
        assert stub.Predict(kit.request("scale", x=kit.rows(1)), timeout=kit.BOUND).model == "scale"
        models = model_pb2_grpc.ModelServiceStub(channel)
        reason = models.GetModel(model_pb2.GetModelRequest(model="broken")).state_reason
        assert "it fails on every input" in reason
    kit.assert_counted(server.ops, 1, "model_events_total", model="broken", event="opened")
    assert kit.metric(server.ops, "breaker_open", model="scale") == 0
    words = "circuit breaker open: the model fails on every input"
    server.wait_for_log(words)
    assert [each["event"] for each in kit.problems(server)][-1] == words
