"""What a server says of its models, without protobuf."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC

from penstock_client._types import BatchingInfo, KeptState, ModelInfo, RunCost, TensorInfo, seconds_of
from penstock_proto.v1 import model_pb2, tensor_pb2

MISSING_TEXT = "penstock.missing_text"
"""The key in a model's metadata of what a missing text is sent as, as a text of JSON."""


def model_info(model: model_pb2.Model) -> ModelInfo:
    """The server's description of a model, without protobuf."""
    batching = model.batching
    return ModelInfo(
        name=model.name,
        version=model.version,
        state=model_pb2.ModelState.Name(model.state),
        state_reason=model.state_reason,
        is_default=model.is_default,
        labels=list(model.labels),
        inputs=inputs_of(model),
        outputs=[_tensor_info(each) for each in model.outputs],
        batching=BatchingInfo(
            batching.enabled,
            batching.reason,
            batching.max_rows,
            seconds_of(batching.max_delay),
            tuple(
                RunCost(each.elements, each.base_seconds, each.row_seconds, each.spread, each.runs)
                for each in batching.costs
            ),
            tuple(batching.why),
        ),
        metadata=dict(model.metadata),
        opsets=dict(model.opsets),
        sha256=model.sha256,
        size_bytes=model.size_bytes,
        providers=list(model.providers),
        loaded_at=model.loaded_at.ToDatetime(UTC) if model.HasField("loaded_at") else None,
        kept_state=_kept_state(model.kept_state) if model.HasField("kept_state") else None,
    )


def _kept_state(kept: model_pb2.KeptState) -> KeptState:
    return KeptState(dict(kept.state), seconds_of(kept.idle), kept.max_sequences)


def inputs_of(model: model_pb2.Model) -> list[TensorInfo]:
    """The inputs; those of texts say what a missing one is sent as, if the model does."""
    text = None
    with suppress(ValueError):
        text = json.loads(model.metadata.get(MISSING_TEXT, "null"))
    missing = text if isinstance(text, str) else None
    inputs = [_tensor_info(each) for each in model.inputs]
    return [replace(each, missing_text=missing) if each.datatype == "BYTES" else each for each in inputs]


def _tensor_info(spec: model_pb2.TensorSpec) -> TensorInfo:
    axes = tuple(axis.symbol if axis.HasField("symbol") else axis.size for axis in spec.shape)
    datatype = tensor_pb2.DataType.Name(spec.datatype)
    return TensorInfo(spec.name, datatype, None if spec.any_rank else axes, spec.optional, spec.row_axis)
