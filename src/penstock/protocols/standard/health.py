"""gRPC's health service: the server has the name "", every model its own name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import DESCRIPTOR, HealthCheckRequest, HealthCheckResponse
from typing_extensions import override

from penstock.core.errors import NotFound
from penstock.core.names import listed, shown
from penstock.protocols.status import code_of, words
from penstock.transport.grpc.servicers import ServicerMethods

_SERVICE = DESCRIPTOR.services_by_name["Health"]
SERVER = ""
METHODS = frozenset(f"/grpc.health.v1.Health/{method.name}" for method in _SERVICE.methods)
"""The full names of the service's methods."""


class Health:
    """The health states: Check and List return them, Watch sends their changes.

    Args:
        methods: the service's methods are added to it.
    """

    def __init__(self, methods: ServicerMethods) -> None:
        self._hung: frozenset[str] = frozenset()
        self._servicer = _Servicer()
        self._servicer.set(SERVER, HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, methods)

    def serving(self, models: Iterable[str], broken: Iterable[str] = ()) -> None:
        """The server and these models are ready from now on; the broken ones never are."""
        for name in broken:
            self._servicer.set(name, HealthCheckResponse.NOT_SERVING)
        for name in (*models, SERVER):
            self._servicer.set(name, HealthCheckResponse.SERVING)

    def hung(self, models: frozenset[str]) -> None:
        """Sets the models that hang; models that hung before and are not among them serve again."""
        for name in self._hung ^ models:
            serving = name not in models
            self._servicer.set(
                name, HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
            )
        self._hung = models

    def stopping(self) -> None:
        """Sets all states to NOT_SERVING, for good."""
        self._servicer.enter_graceful_shutdown()


class _Servicer(HealthServicer):  # type: ignore[misc]  # grpc_health is untyped
    """grpc_health's servicer, with List, and with a Check that names what exists."""

    def __init__(self) -> None:
        super().__init__(experimental_non_blocking=True)
        self._names: frozenset[str] = frozenset()  # replaced as a whole: read by other threads

    @override
    def set(self, service: str, status: int) -> None:
        super().set(service, status)
        self._names |= {service}

    @override
    def Check(self, request: HealthCheckRequest, context: grpc.ServicerContext) -> HealthCheckResponse:
        if request.service not in self._names:
            models = listed(sorted(self._names - {SERVER}))
            error = NotFound(
                f'there is no model {shown(request.service)}; "" is the server itself, and there is {models}'
            )
            context.abort(code_of(error), words(error))
        return super().Check(request, context)

    def List(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - as gRPC names it
        """Part of the service in newer releases of grpc_health only; in others it is never called."""
        state_of: Any = super().Check
        return health_pb2.HealthListResponse(
            statuses={name: state_of(HealthCheckRequest(service=name), context) for name in self._names}
        )
