"""The states that grpc.health.v1 gives by name: List, and Check of a name that does not exist."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from penstock.core.names import LISTED, shown
from penstock.protocols.status import MESSAGE_LENGTH
from server import kit
from server.conftest import zoo_models
from support.servers import RunningServer

MODELS = sorted([*zoo_models(), "lead_scoring"])
SERVING = health_pb2.HealthCheckResponse.SERVING


def health(channel: grpc.Channel) -> health_pb2_grpc.HealthStub:
    return health_pb2_grpc.HealthStub(channel)


@pytest.mark.skipif(not hasattr(health_pb2, "HealthListRequest"), reason="came with a later grpc_health")
def test_list(channel: grpc.Channel, server: RunningServer) -> None:
    """The server itself, as "", and every model."""
    answer = health(channel).List(health_pb2.HealthListRequest(), timeout=kit.BOUND)
    states = {name: each.status for name, each in answer.statuses.items()}
    assert states == dict.fromkeys(["", *MODELS], SERVING)
    assert not [line for line in server.stderr if "Traceback" in line or "NotImplementedError" in line]


@pytest.mark.parametrize("name", ["skale", "x" * 10_000, "ünbekannt"])
def test_check_of_an_unknown_name(channel: grpc.Channel, name: str) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        health(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=kit.BOUND)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    said = raised.value.details()
    known = f"{', '.join(MODELS[:LISTED])} and {len(MODELS) - LISTED} more"
    expected = f'there is no model {shown(name)}; "" is the server itself, and there is {known}'
    assert said == (expected if len(expected) <= MESSAGE_LENGTH else f"{expected[:MESSAGE_LENGTH]}...")


def test_watch_of_an_unknown_name(channel: grpc.Channel) -> None:
    """The standard: it stays open, as the name may come."""
    watch = health(channel).Watch(health_pb2.HealthCheckRequest(service="skale"), timeout=kit.BOUND)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()
