"""Methods that a generated servicer leaves unimplemented: the caller gets UNIMPLEMENTED, the log nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_reflection.v1alpha import reflection_pb2_grpc

from penstock.transport.grpc.call import Transport
from penstock.transport.grpc.servicers import ServicerMethods
from penstock_proto.v1 import model_pb2, model_pb2_grpc
from support.calls import SECONDS, served


class Unfinished(model_pb2_grpc.ModelServiceServicer):
    """A servicer with one method of its own, which fails in a branch that is still to be written."""

    def ListModels(self, request: model_pb2.ListModelsRequest, context: Any) -> Any:
        raise NotImplementedError("a branch that is still to be written")


@pytest.fixture
def failures() -> list[BaseException]:
    return []


@pytest.fixture
def channel(transport: type[Transport], failures: list[BaseException]) -> Iterator[grpc.Channel]:
    with ThreadPoolExecutor(2) as workers:
        methods = ServicerMethods(workers, failures.append)
        model_pb2_grpc.add_ModelServiceServicer_to_server(Unfinished(), methods)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(health_pb2_grpc.HealthServicer(), methods)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            reflection_pb2_grpc.ServerReflectionServicer(), methods
        )
        with served(transport, methods.methods()) as server, server.channel() as channel:
            yield channel
            server.wait_until_empty()


def call(channel: grpc.Channel, method: str) -> Any:
    """Calls a method of one of the services; returns its error."""
    health = health_pb2_grpc.HealthStub(channel)
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    models = model_pb2_grpc.ModelServiceStub(channel)
    calls = {
        "Check": lambda: health.Check(HealthCheckRequest(), timeout=SECONDS),
        "Watch": lambda: list(health.Watch(HealthCheckRequest(), timeout=SECONDS)),
        "ServerReflectionInfo": lambda: list(reflection.ServerReflectionInfo(iter(()), timeout=SECONDS)),
        "GetModel": lambda: models.GetModel(model_pb2.GetModelRequest(), timeout=SECONDS),
        "ListModels": lambda: models.ListModels(model_pb2.ListModelsRequest(), timeout=SECONDS),
    }
    with pytest.raises(grpc.RpcError) as raised:
        calls[method]()
    return raised.value


@pytest.mark.parametrize(
    "name",
    [
        "/penstock.v1.ModelService/GetModel",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
    ids=lambda name: name.rpartition("/")[2],
)
def test_a_method_that_is_not_implemented(
    channel: grpc.Channel, failures: list[BaseException], name: str
) -> None:
    error = call(channel, name.rpartition("/")[2])
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.details() == f"{name} is not implemented by this server"
    assert failures == []


def test_an_error_of_that_kind_in_a_method_that_is(
    channel: grpc.Channel, failures: list[BaseException]
) -> None:
    assert call(channel, "ListModels").code() is grpc.StatusCode.INTERNAL
    assert [str(each) for each in failures] == ["a branch that is still to be written"]
