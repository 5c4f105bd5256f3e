"""`penstock.v1.ModelService`: lists and describes the served models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from penstock.core.errors import NotFound
from penstock.core.tensors import TensorSpec
from penstock.engine import Engine
from penstock.models.model import Broken, Model, ModelState
from penstock.protocols import status
from penstock.protocols.penstock_v1.encoder import NUMBERS
from penstock.transport.grpc.servicers import ServicerMethods
from penstock_proto.v1 import model_pb2 as pb
from penstock_proto.v1 import model_pb2_grpc

CHANGES = "penstock.changes"
"""The key in a model's metadata of what the server changed about it."""

GOLDEN = "penstock.golden"
"""The key of what its golden rows showed when it was loaded."""

STATES = {
    ModelState.LOADING: pb.LOADING,
    ModelState.READY: pb.READY,
    ModelState.DRAINING: pb.DRAINING,
    ModelState.FAILED: pb.FAILED,
}


class ModelService(model_pb2_grpc.ModelServiceServicer):
    """The generated servicer of ModelService.

    Args:
        engine: has the routes.
        models: returns all current models.
        methods: the service's methods are added to it.
    """

    def __init__(
        self, engine: Engine, models: Callable[[], Sequence[Model]], methods: ServicerMethods
    ) -> None:
        self._engine = engine
        self._models = models
        model_pb2_grpc.add_ModelServiceServicer_to_server(self, methods)  # type: ignore[no-untyped-call]

    def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        """Every version of every model."""
        served = [describe(model) for model in self._models()]
        others = [_describe_broken(model) for model in self._engine.router.broken]
        return pb.ListModelsResponse(models=[*served, *others])

    def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.Model | None:
        """One version of one model."""
        broken = self._engine.router.find_broken(request.model, request.version)
        if broken is not None:
            return _describe_broken(broken)
        try:
            return describe(self._engine.route(request.model, request.version))
        except NotFound as error:
            context.abort(status.code_of(error), str(error))
            return None


def _metadata(model: Model) -> dict[str, str]:
    """What the file says, and what the server has found out about it."""
    file = model.backend.file
    own = {CHANGES: "; ".join(file.changes), GOLDEN: model.golden}
    return {**file.metadata, **{key: text for key, text in own.items() if text}}


def describe(model: Model) -> pb.Model:
    """The description of a model as a message."""
    signature, file, policy = model.signature, model.backend.file, model.batcher.policy
    message = pb.Model(
        name=model.name,
        version=str(model.version),
        state=STATES[model.state],
        state_reason=model.trouble,
        is_default=model.is_default,
        labels=model.labels,
        inputs=[_spec(spec, name in model.optional_inputs) for name, spec in signature.inputs.items()],
        outputs=[_spec(spec) for spec in signature.outputs.values()],
        batching=pb.Batching(enabled=policy.batched, reason=model.batching.reason, why=model.batching.why),
        metadata=_metadata(model),
        opsets=file.opsets,
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        providers=model.backend.providers,
    )
    if policy.batched:
        message.batching.max_rows = policy.max_rows
        message.batching.max_delay.FromNanoseconds(int(policy.max_delay_seconds * 1e9))
    message.batching.costs.extend(_costs(model))
    message.loaded_at.FromDatetime(model.loaded_at)
    if model.sequence_state is not None:
        kept = message.kept_state
        kept.state.update({each.input: each.output for each in model.sequence_state.tensors})
        kept.idle.FromNanoseconds(int(model.sequence_state.idle_seconds * 1e9))
        kept.max_sequences = model.sequence_state.max_sequences
    return message


def _describe_broken(model: Broken) -> pb.Model:
    return pb.Model(
        name=model.name,
        version=str(model.version),
        state=pb.FAILED,
        state_reason=model.reason,
        is_default=model.is_default,
        labels=model.labels,
    )


def _costs(model: Model) -> Iterator[pb.RunCost]:
    for elements, cost in model.batcher.costs.lines().items():
        if cost.is_known:
            yield pb.RunCost(
                elements=elements,
                base_seconds=cost.base_seconds,
                row_seconds=cost.row_seconds,
                spread=cost.spread,
                runs=cost.runs,
            )


def _spec(spec: TensorSpec, optional: bool = False) -> pb.TensorSpec:
    dimensions = [
        pb.Dimension(size=size) if isinstance(size, int) else pb.Dimension(symbol=size)
        for size in spec.shape or ()
    ]
    return pb.TensorSpec(
        name=spec.name,
        datatype=NUMBERS[spec.datatype],  # type: ignore[arg-type]
        shape=dimensions,
        any_rank=spec.shape is None,
        optional=optional,
        row_axis=spec.row_axis,
    )
