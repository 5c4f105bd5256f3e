"""`grpc.health.v1.Health`: the server as "", every model by its name."""

from __future__ import annotations

from collections.abc import Iterable

from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import DESCRIPTOR, HealthCheckResponse

from penstock.transport.servicers import ServicerMethods

_SERVICE = DESCRIPTOR.services_by_name["Health"]
SERVER = ""
METHODS = frozenset(f"/grpc.health.v1.Health/{method.name}" for method in _SERVICE.methods)
"""The full names of the service's methods."""


class Health:
    """The state that Check answers and Watch pushes.

    Args:
        methods: takes the service's methods.
    """

    def __init__(self, methods: ServicerMethods) -> None:
        self._hung: frozenset[str] = frozenset()
        self._servicer = HealthServicer(experimental_non_blocking=True)
        self._servicer.set(SERVER, HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, methods)

    def serving(self, models: Iterable[str]) -> None:
        """The server and these models answer from now on."""
        for name in (*models, SERVER):
            self._servicer.set(name, HealthCheckResponse.SERVING)

    def hung(self, models: frozenset[str]) -> None:
        """These models hang, and no others: those that did before serve again."""
        for name in self._hung ^ models:
            serving = name not in models
            self._servicer.set(
                name, HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
            )
        self._hung = models

    def stopping(self) -> None:
        """Nothing answers any more; this cannot be taken back."""
        self._servicer.enter_graceful_shutdown()
