"""grpc.health.v1 on a running server."""

from __future__ import annotations

from grpc_health.v1 import health_pb2, health_pb2_grpc

from server import kit

SERVING = health_pb2.HealthCheckResponse.SERVING


def test_many_clients_may_watch(channel) -> None:
    """Every client that uses gRPC's own health checking keeps one Watch open on each connection."""
    stub = health_pb2_grpc.HealthStub(channel)
    watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=kit.BOUND) for _ in range(200)]
    assert [next(each).status for each in watches] == [SERVING] * 200
    for each in watches:
        each.cancel()
