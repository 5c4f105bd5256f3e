"""A refusal says when to try again in two ways: RetryInfo in its details, a header that clients follow."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status

from penstock_proto.inference import grpc_service_pb2 as oip
from server import kit, oip_kit
from support import zoo
from support.servers import RunningServer

ONE = np.ones((1, 1), np.float32)
SETTINGS = "runs_in_parallel = 1\n[batching]\nenabled = false\nqueue_rows = 2\n"
TIMEOUT = 30.0
BACKOFF = "100s"
"""A client's own wait: longer than its timeout, so that only one that follows the server succeeds."""
POLICY = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": BACKOFF,
                    "maxBackoff": BACKOFF,
                    "backoffMultiplier": 1,
                    "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
                },
            }
        ]
    }
)


def predict(channel: grpc.Channel, timeout: float) -> Any:
    return kit.stub_of(channel).Predict.future(kit.request("slow", x=ONE), timeout=timeout)


def infer(channel: grpc.Channel, timeout: float) -> Any:
    return oip_kit.stub_of(channel).ModelInfer.future(oip_kit.request("slow", x=ONE), timeout=timeout)


@pytest.fixture(params=[predict, infer])
def ask(request: pytest.FixtureRequest) -> Callable[[grpc.Channel, float], Any]:
    """Calls the model by each of the two protocols."""
    asked: Callable[[grpc.Channel, float], Any] = request.param
    return asked


def models() -> dict[str, Any]:
    return {"slow": (zoo.slow(50), SETTINGS)}


@pytest.fixture
def slow(own_server: RunningServer) -> RunningServer:
    """A server whose one model runs one row at a time and lets two wait; it knows how long a run takes."""
    kit.wait_until(lambda: kit.is_idle(own_server.ops), "nothing is left of the test before")
    with kit.connect(own_server.target) as channel:
        predict(channel, kit.BOUND).result()
    return own_server


def test_both_hints_say_the_same(slow: RunningServer, ask: Callable[[grpc.Channel, float], Any]) -> None:
    with kit.connect(slow.target) as channel:
        errors = [each.exception(kit.BOUND) for each in [ask(channel, kit.BOUND) for _ in range(6)]]
    refused = [each for each in errors if each is not None]
    assert refused
    for error in refused:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        hint = RetryInfo()
        assert rpc_status.from_call(error).details[0].Unpack(hint)
        pushback = int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"])
        assert pushback == math.ceil(hint.retry_delay.ToNanoseconds() / 1e6) > 0


def test_a_client_with_a_retry_policy_follows_it(
    slow: RunningServer, ask: Callable[[grpc.Channel, float], Any]
) -> None:
    before = kit.metric(slow.ops, "requests_total", code="RESOURCE_EXHAUSTED")
    with kit.connect(slow.target, ("grpc.service_config", POLICY)) as channel:
        for each in [ask(channel, TIMEOUT) for _ in range(5)]:
            assert each.result(kit.BOUND)
    kit.wait_until(
        lambda: kit.metric(slow.ops, "requests_total", code="RESOURCE_EXHAUSTED") > before, "one was rejected"
    )


def test_a_stream_that_an_error_ends_has_the_hint_too(slow: RunningServer) -> None:
    how = {"metadata": (("triton_grpc_error", "true"),)}
    with kit.connect(slow.target) as channel:
        stream = oip_kit.Stream(channel, **how)
        stream.send(*[oip_kit.request("slow", x=ONE) for _ in range(8)])
        stream.rest_and_status()
        assert stream.call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert int(dict(stream.call.trailing_metadata())["grpc-retry-pushback-ms"]) > 0


def test_an_error_that_does_not_pass_has_no_hint(slow: RunningServer) -> None:
    with kit.connect(slow.target) as channel:
        stub = oip_kit.stub_of(channel)
        error = stub.ModelInfer.future(oip.ModelInferRequest(model_name="no"), timeout=kit.BOUND).exception()
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert "grpc-retry-pushback-ms" not in dict(error.trailing_metadata())
