"""The messages of grpc.health.v1, without a dependency on grpcio-health-checking.

They have their own descriptor pool: in the default pool they would conflict with those of
grpcio-health-checking if both are in one process.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

METHOD = "/grpc.health.v1.Health/Check"
"""The full name of the call."""
NOT_SERVING = "NOT_SERVING"
"""What a server says while it stops: at first it still accepts calls, for `server.linger_seconds`."""
TAKES_NOTHING = "the server accepts no requests now: its health is NOT_SERVING"

_PACKAGE = "grpc.health.v1"
_STATES = {1: "SERVING", 2: NOT_SERVING}


def _file() -> descriptor_pb2.FileDescriptorProto:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="health.proto", package=_PACKAGE, syntax="proto3")
    request = file.message_type.add(name="HealthCheckRequest")
    request.field.add(name="service", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    response = file.message_type.add(name="HealthCheckResponse")
    # The enum read as a number: the same bytes, and no value is unknown.
    response.field.add(name="status", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


_Request: Any = _message("HealthCheckRequest")
_Response: Any = _message("HealthCheckResponse")


def encode(service: str) -> bytes:
    """A HealthCheckRequest for a service, "" for the whole server."""
    data: bytes = _Request(service=service).SerializeToString()
    return data


def decode(data: bytes) -> str:
    """The state in a HealthCheckResponse: "SERVING", "NOT_SERVING" or "UNKNOWN"."""
    return _STATES.get(_Response.FromString(data).status, "UNKNOWN")
