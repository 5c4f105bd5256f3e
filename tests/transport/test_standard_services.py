"""grpc's own servicers, health and reflection, on both transports."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import grpc
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha import reflection_pb2_grpc
from grpc_reflection.v1alpha.reflection import ReflectionServicer
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from penstock.transport.grpc.call import Transport
from penstock.transport.grpc.servicers import ServicerMethods
from support.calls import SECONDS, Served, served, wait_until
from support.threads import NewThreads

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN


class Setting(NamedTuple):
    server: Served
    health: HealthServicer
    stub: health_pb2_grpc.HealthStub
    channel: grpc.Channel


@pytest.fixture
def setting(transport: type[Transport]) -> Iterator[Setting]:
    health = HealthServicer(experimental_non_blocking=True)
    with ThreadPoolExecutor(2) as workers:
        failures: list[BaseException] = []
        methods = ServicerMethods(workers, failures.append)
        health_pb2_grpc.add_HealthServicer_to_server(health, methods)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            ReflectionServicer(["grpc.health.v1.Health"]), methods
        )
        with served(transport, methods.methods()) as server, server.channel() as channel:
            yield Setting(server, health, health_pb2_grpc.HealthStub(channel), channel)
        assert failures == []


def test_check(setting: Setting) -> None:
    setting.health.set("model", NOT_SERVING)
    assert setting.stub.Check(HealthCheckRequest(), timeout=SECONDS).status == SERVING
    assert setting.stub.Check(HealthCheckRequest(service="model"), timeout=SECONDS).status == NOT_SERVING
    with pytest.raises(grpc.RpcError) as raised:
        setting.stub.Check(HealthCheckRequest(service="no"), timeout=SECONDS)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_watch_pushes_every_change(setting: Setting) -> None:
    watch = setting.stub.Watch(HealthCheckRequest(service="model"), timeout=SECONDS)
    assert next(watch).status == SERVICE_UNKNOWN
    for status in (SERVING, NOT_SERVING, SERVING):
        setting.health.set("model", status)
        assert next(watch).status == status
    setting.health.enter_graceful_shutdown()
    assert next(watch).status == NOT_SERVING


def test_a_watcher_that_is_gone_is_forgotten(setting: Setting) -> None:
    watches = [setting.stub.Watch(HealthCheckRequest(), timeout=SECONDS) for _ in range(5)]
    assert [next(watch).status for watch in watches] == [SERVING] * 5
    waiting = setting.health._send_response_callbacks[""]
    wait_until(lambda: len(waiting) == 5)  # each is noted just after its first answer has left
    for watch in watches[:4]:
        watch.cancel()
    wait_until(lambda: len(waiting) == 1)
    setting.health.set("", NOT_SERVING)
    assert next(watches[4]).status == NOT_SERVING


def test_many_watchers_share_the_polling_thread(setting: Setting) -> None:
    threads = NewThreads()
    watches = [setting.stub.Watch(HealthCheckRequest(), timeout=60) for _ in range(200)]
    assert {next(watch).status for watch in watches} == {SERVING}
    assert not threads.named("penstock-servicer")
    setting.health.set("", NOT_SERVING)
    assert {next(watch).status for watch in watches} == {NOT_SERVING}


def test_reflection(setting: Setting) -> None:
    threads = NewThreads()
    stub = reflection_pb2_grpc.ServerReflectionStub(setting.channel)
    requests = (
        ServerReflectionRequest(list_services=""),
        ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health"),
        ServerReflectionRequest(file_by_filename="no.proto"),
    )
    services, file, error = stub.ServerReflectionInfo(iter(requests), timeout=SECONDS)
    assert [each.name for each in services.list_services_response.service] == ["grpc.health.v1.Health"]
    assert len(file.file_descriptor_response.file_descriptor_proto) == 1
    assert error.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    setting.server.wait_until_empty()
    wait_until(lambda: not threads.named("penstock-servicer"))
