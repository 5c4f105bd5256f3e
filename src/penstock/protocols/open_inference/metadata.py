"""Describes a model: ModelMetadata of the protocol, and Triton's model configuration."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.core.tensors import DataType, TensorSpec
from penstock.models.model import Model
from penstock.protocols.open_inference.parameters import NORMAL_LEVEL
from penstock_proto.inference import grpc_service_pb2 as pb
from penstock_proto.inference import model_config_pb2 as config_pb

PLATFORM, BACKEND = "onnxruntime_onnx", "onnxruntime"
"""Triton's name for the platform of ONNX models."""

TYPE_NAMES = {DataType.BYTES: "TYPE_STRING"}
"""The configuration's names of datatypes, where they differ from the protocol's."""

PRIORITY_LEVELS = 2 * NORMAL_LEVEL - 1  # before, at and after the default
MICROS = 1_000_000


def metadata(model: Model, versions: Sequence[str]) -> pb.ModelMetadataResponse:
    """A model's inputs and outputs, with -1 for open lengths.

    Args:
        model: the version that was asked for.
        versions: the versions to list.
    """
    message = pb.ModelMetadataResponse(name=model.name, versions=versions, platform=PLATFORM)
    for spec in model.signature.inputs.values():
        message.inputs.add(name=spec.name, datatype=spec.datatype.label, shape=lengths(spec))
    for spec in model.signature.outputs.values():
        message.outputs.add(name=spec.name, datatype=spec.datatype.label, shape=lengths(spec))
    return message


def lengths(spec: TensorSpec) -> list[int]:
    """A shape in the protocol's form; [-1] if the model does not define the number of axes."""
    shape = ("?",) if spec.shape is None else spec.shape
    return [length if isinstance(length, int) else -1 for length in shape]


def configuration(model: Model) -> config_pb.ModelConfig:
    """Triton's model configuration, with the fields that apply to this server.

    For batched models, `dims` omit the row axis, as in Triton. In Triton it is always the first axis, so a
    model with its rows elsewhere is described as one that is not batched.
    """
    policy, batched = model.batcher.policy, model.by_rows and not model.row_axes
    config = config_pb.ModelConfig(
        name=model.name,
        platform=PLATFORM,
        backend=BACKEND,
        default_model_filename="model.onnx",
        max_batch_size=policy.max_rows if batched else 0,
        model_transaction_policy=config_pb.ModelTransactionPolicy(decoupled=False),
    )
    config.version_policy.all.SetInParent()
    first = 1 if batched else 0
    for spec in model.signature.inputs.values():
        optional = spec.name in model.optional_inputs
        dims = lengths(spec)[0 if spec.name in model.defaults else first :]
        config.input.add(name=spec.name, data_type=_type(spec), dims=dims, optional=optional)
    for spec in model.signature.outputs.values():
        labels = model.class_labels.get(spec.name)
        config.output.add(
            name=spec.name,
            data_type=_type(spec),
            dims=lengths(spec)[first:],
            label_filename=labels.file if labels else "",
        )
    on_gpu = any("CUDA" in provider or "Tensorrt" in provider for provider in model.backend.providers)
    group = config_pb.ModelInstanceGroup
    kind = group.KIND_GPU if on_gpu else group.KIND_CPU
    config.instance_group.add(name=model.name, count=policy.runs_in_parallel, kind=kind)
    if model.sequence_state is not None:
        idle = round(model.sequence_state.idle_seconds * MICROS)
        config.sequence_batching.max_sequence_idle_microseconds = idle
    elif batched and model.batching.enabled:
        _describe_batching(config.dynamic_batching, model)
    return config


def _describe_batching(message: config_pb.ModelDynamicBatching, model: Model) -> None:
    policy = model.batcher.policy
    message.max_queue_delay_microseconds = round(policy.max_delay_seconds * MICROS)
    message.priority_levels = PRIORITY_LEVELS
    message.default_priority_level = NORMAL_LEVEL
    message.default_queue_policy.allow_timeout_override = True
    message.default_queue_policy.max_queue_size = policy.queue_rows


def _type(spec: TensorSpec) -> config_pb.DataType:
    name = TYPE_NAMES.get(spec.datatype, f"TYPE_{spec.datatype.label}")
    if name not in config_pb.DataType.keys():  # noqa: SIM118 - no mapping: Triton has none of 8 bits
        return config_pb.TYPE_INVALID
    return config_pb.DataType.Value(name)  # type: ignore[return-value]  # an int, as protobuf has it
