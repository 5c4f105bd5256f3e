"""The rest of the service: what is there, how it is doing, and what this server does not do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import grpc

from penstock import __version__
from penstock.engine import Engine
from penstock.errors import NotFound, RequestError
from penstock.models.model import Model, ModelState
from penstock.rpc import status
from penstock.rpc.oip.describe import configuration, metadata
from penstock.rpc.oip.infer import SERVICE
from penstock.rpc.oip.statistics import Counts, statistics
from penstock.transport.servicers import ServicerMethods
from penstock_proto.inference import grpc_service_pb2 as pb
from penstock_proto.inference import grpc_service_pb2_grpc as pb_grpc

EXTENSIONS = ("classification", "model_configuration", "schedule_policy", "sequence", "statistics")
"""Those of Triton's extensions that are here; others, such as shared memory, are not."""

STATES = {
    ModelState.LOADING: "LOADING",
    ModelState.READY: "READY",
    ModelState.DRAINING: "UNLOADING",
    ModelState.FAILED: "UNAVAILABLE",
}
"""Where a version is in its life, in Triton's words."""

HEALTH_METHODS = frozenset(f"/{SERVICE}/{name}" for name in ("ServerLive", "ServerReady", "ModelReady"))
"""What may still be asked while the server stops."""

SHARED_MEMORY = "this server takes and gives tensors in messages only, not in shared memory"
TRACING = "this server traces nothing; its log and its metrics say how requests fare"
LOGGING = "the log cannot be set while the server runs; start it with others, see its [log] section"
CONTROL = "this server loads its models when it starts: it can load or unload none while it runs"


def _refused(code: grpc.StatusCode, words: str) -> Callable[[Any, Any, Any], NoReturn]:
    """A method that says why it is not there."""

    def refuse(self: Any, request: Any, context: Any) -> NoReturn:
        raise context.abort(code, words)  # which raises by itself, unknown to mypy

    return refuse


class Control(pb_grpc.GRPCInferenceServiceServicer):
    """An ordinary generated servicer of all but the inference itself.

    Args:
        engine: knows the routes.
        models: all models there are, now.
        is_ready: whether the server takes requests.
        counts: what is counted of a model.
        methods: takes the service's methods.
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
        """Whether the server is there, which it is if it answers."""
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, request: pb.ServerReadyRequest, context: Any) -> pb.ServerReadyResponse:
        """Whether the server takes requests."""
        return pb.ServerReadyResponse(ready=self._is_ready())

    def ModelReady(self, request: pb.ModelReadyRequest, context: Any) -> pb.ModelReadyResponse:
        """Whether a model takes requests; one that is not there does not."""
        try:
            model = self._engine.route(request.name, request.version)
        except NotFound:
            return pb.ModelReadyResponse(ready=False)
        ready = self._is_ready() and model.state is ModelState.READY and not model.is_hung
        return pb.ModelReadyResponse(ready=ready)

    def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Any) -> pb.ServerMetadataResponse:
        """The server's name, its version, and which of Triton's extensions it has."""
        return pb.ServerMetadataResponse(name="penstock", version=__version__, extensions=EXTENSIONS)

    def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Any) -> pb.ModelMetadataResponse:
        """A model's inputs and outputs; without a version, all versions are listed."""
        model = self._find(request.name, request.version, context)
        if request.version:
            return metadata(model, [model.version_text])
        return metadata(model, [each.version_text for each in self._models() if each.name == model.name])

    def ModelConfig(self, request: pb.ModelConfigRequest, context: Any) -> pb.ModelConfigResponse:
        """What Triton's configuration of a model would say."""
        return pb.ModelConfigResponse(
            config=configuration(self._find(request.name, request.version, context))
        )

    def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Any) -> pb.ModelStatisticsResponse:
        """What is counted: of one version, of all versions of a model, or of all models."""
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
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is one repository, which has no name")
        answer = pb.RepositoryIndexResponse()
        for model in self._models():
            if model.state is ModelState.READY or not request.ready:
                answer.models.add(name=model.name, version=model.version_text, state=STATES[model.state])
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
