"""The other methods of the Open Inference service: health, metadata, statistics, and unsupported methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import grpc

from penstock import __version__
from penstock.core.errors import RequestError
from penstock.engine import Engine
from penstock.models.model import Model, ModelState
from penstock.protocols import status
from penstock.protocols.open_inference.metadata import configuration, metadata
from penstock.protocols.open_inference.service import SERVICE
from penstock.protocols.open_inference.statistics import Counts, statistics
from penstock.transport.grpc.servicers import ServicerMethods
from penstock_proto.inference import grpc_service_pb2 as pb
from penstock_proto.inference import grpc_service_pb2_grpc as pb_grpc

EXTENSIONS = ("classification", "model_configuration", "schedule_policy", "sequence", "statistics")
"""The supported extensions of Triton; others, such as shared memory, are not supported."""

STATES = {
    ModelState.LOADING: "LOADING",
    ModelState.READY: "READY",
    ModelState.DRAINING: "UNLOADING",
    ModelState.FAILED: "UNAVAILABLE",
}
"""Triton's name for each state of a version."""

HEALTH_METHODS = frozenset(f"/{SERVICE}/{name}" for name in ("ServerLive", "ServerReady", "ModelReady"))
"""The methods that are still answered while the server stops."""

SHARED_MEMORY = "this server does not support shared memory; send tensors in messages"
TRACING = "this server does not support tracing; see its log and metrics"
LOGGING = "log settings cannot be changed while the server runs; set [log] and restart it"
CONTROL = "models are loaded when the server starts and cannot be loaded or unloaded later"


def _refused(code: grpc.StatusCode, words: str) -> Callable[[Any, Any, Any], NoReturn]:
    """A method that is not supported, and says so."""

    def refuse(self: Any, request: Any, context: Any) -> NoReturn:
        raise context.abort(code, words)  # abort raises, which mypy does not know

    return refuse


class Control(pb_grpc.GRPCInferenceServiceServicer):
    """The generated servicer for all methods except the inference itself.

    Args:
        engine: has the routes.
        models: returns all current models.
        is_ready: returns whether the server accepts requests.
        counts: returns the counters of a model.
        methods: the service's methods are added to it.
    """

    def __init__(
        self,
        engine: Engine,
        models: Callable[[], Sequence[Model]],
        is_ready: Callable[[], bool],
        counts: Callable[[Model], Counts],
        methods: ServicerMethods,
    ) -> None:
        self._engine = engine
        self._models = models
        self._is_ready = is_ready
        self._counts = counts
        pb_grpc.add_GRPCInferenceServiceServicer_to_server(self, methods)  # type: ignore[no-untyped-call]

    def ServerLive(self, request: pb.ServerLiveRequest, context: Any) -> pb.ServerLiveResponse:
        """Whether the server is alive: always true in an answer."""
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, request: pb.ServerReadyRequest, context: Any) -> pb.ServerReadyResponse:
        """Whether the server accepts requests."""
        return pb.ServerReadyResponse(ready=self._is_ready())

    def ModelReady(self, request: pb.ModelReadyRequest, context: Any) -> pb.ModelReadyResponse:
        """Whether a model accepts requests; false for an unknown model, and one that could not be loaded."""
        try:
            model = self._engine.route(request.name, request.version)
        except RequestError:
            return pb.ModelReadyResponse(ready=False)
        ready = self._is_ready() and model.state is ModelState.READY and not model.is_hung
        return pb.ModelReadyResponse(ready=ready)

    def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Any) -> pb.ServerMetadataResponse:
        """The server's name, its version, and which of Triton's extensions it has."""
        return pb.ServerMetadataResponse(name="penstock", version=__version__, extensions=EXTENSIONS)

    def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Any) -> pb.ModelMetadataResponse:
        """A model's inputs and outputs; a request without a version lists all versions."""
        model = self._find(request.name, request.version, context)
        if request.version:
            return metadata(model, [model.version_text])
        return metadata(model, [each.version_text for each in self._models() if each.name == model.name])

    def ModelConfig(self, request: pb.ModelConfigRequest, context: Any) -> pb.ModelConfigResponse:
        """A model's configuration in Triton's format."""
        return pb.ModelConfigResponse(
            config=configuration(self._find(request.name, request.version, context))
        )

    def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Any) -> pb.ModelStatisticsResponse:
        """The statistics of one version, of all versions of a model, or of all models."""
        chosen: Sequence[Model] = self._models()
        if request.name:
            found = self._find(request.name, request.version, context)
            chosen = [found] if request.version else [each for each in chosen if each.name == found.name]
        return pb.ModelStatisticsResponse(
            model_stats=[statistics(each, self._counts(each)) for each in chosen]
        )

    def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: Any) -> pb.RepositoryIndexResponse:
        """Every version of every model, and its state."""
        if request.repository_name:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is only one repository, and it has no name")
        answer = pb.RepositoryIndexResponse()
        for model in self._models():
            if model.state is ModelState.READY or not request.ready:
                answer.models.add(name=model.name, version=model.version_text, state=STATES[model.state])
        for broken in () if request.ready else self._engine.router.broken:
            state = STATES[ModelState.FAILED]
            answer.models.add(
                name=broken.name, version=str(broken.version), state=state, reason=broken.reason
            )
        return answer

    RepositoryModelLoad = _refused(grpc.StatusCode.FAILED_PRECONDITION, CONTROL)
    RepositoryModelUnload = _refused(grpc.StatusCode.FAILED_PRECONDITION, CONTROL)

    SystemSharedMemoryStatus = _refused(grpc.StatusCode.UNIMPLEMENTED, SHARED_MEMORY)
    SystemSharedMemoryRegister = _refused(grpc.StatusCode.UNIMPLEMENTED, SHARED_MEMORY)
    SystemSharedMemoryUnregister = _refused(grpc.StatusCode.UNIMPLEMENTED, SHARED_MEMORY)
    CudaSharedMemoryStatus = _refused(grpc.StatusCode.UNIMPLEMENTED, SHARED_MEMORY)
    CudaSharedMemoryRegister = _refused(grpc.StatusCode.UNIMPLEMENTED, SHARED_MEMORY)
    CudaSharedMemoryUnregister = _refused(grpc.StatusCode.UNIMPLEMENTED, SHARED_MEMORY)
    TraceSetting = _refused(grpc.StatusCode.UNIMPLEMENTED, TRACING)
    LogSettings = _refused(grpc.StatusCode.UNIMPLEMENTED, LOGGING)

    def _find(self, name: str, version: str, context: Any) -> Model:
        try:
            return self._engine.route(name, version)
        except RequestError as error:
            context.abort(status.code_of(error), status.words(error))
            raise
