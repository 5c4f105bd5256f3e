"""Asks a server for its protocol, a model's description and its statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import grpc

from penstock_bench.codecs import ProtocolName
from penstock_bench.errors import BenchError
from penstock_client import Client, PenstockError, TensorInfo
from penstock_client._messages import channel_options

SECONDS = 10.0

_OIP_SERVICE = "/inference.GRPCInferenceService/"


@dataclass(frozen=True, slots=True)
class Subject:
    """The model under load.

    Attributes:
        protocol: the protocol of its server.
        version: the version that answers; "" if the server does not report it.
        inputs: its inputs.
        outputs: the names of its outputs.
        keeps_state: whether the server keeps a state between its requests.
    """

    protocol: ProtocolName
    version: str
    inputs: list[TensorInfo]
    outputs: list[str]
    keeps_state: bool = False


@dataclass(frozen=True, slots=True)
class Statistics:
    """A model's statistics from a server of the Open Inference Protocol with Triton's extension.

    Attributes:
        inferences: rows that were answered.
        executions: runs of the model.
        requests: requests that were answered.
        queue_seconds: the sum of their times in the queue.
        compute_seconds: the sum of their run times; each request counts the whole run of its batch.
    """

    inferences: int = 0
    executions: int = 0
    requests: int = 0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0

    def since(self, start: Statistics) -> Statistics:
        """The difference to the statistics at `start`."""
        return Statistics(
            self.inferences - start.inferences,
            self.executions - start.executions,
            self.requests - start.requests,
            self.queue_seconds - start.queue_seconds,
            self.compute_seconds - start.compute_seconds,
        )


def subject(target: str, model: str, version: str, protocol: Literal["auto", "penstock", "oip"]) -> Subject:
    """Asks a server for the model, and with "auto" detects its protocol.

    Raises:
        BenchError: there is no such server, protocol or model.
    """
    if protocol == "oip":
        return _oip_subject(target, model, version)
    try:
        with Client(target, timeout=SECONDS) as client:
            info = client.model(model, version)
    except PenstockError as error:
        if error.status is grpc.StatusCode.UNIMPLEMENTED and protocol == "auto":
            return _oip_subject(target, model, version)
        raise BenchError(f"{target}: {error.status.name}: {error}") from None
    outputs = [spec.name for spec in info.outputs]
    return Subject("penstock", info.version, info.inputs, outputs, info.kept_state is not None)


def statistics(target: str, model: str, version: str) -> Statistics | None:
    """The statistics of a server of the Open Inference Protocol; None if it does not support them."""
    from penstock_proto.inference import grpc_service_pb2 as pb

    try:
        with grpc.insecure_channel(target, channel_options(target, ())) as channel:
            answer = channel.unary_unary(
                f"{_OIP_SERVICE}ModelStatistics", None, pb.ModelStatisticsResponse.FromString
            )(pb.ModelStatisticsRequest(name=model, version=version).SerializeToString(), timeout=SECONDS)
    except grpc.RpcError:
        return None
    return _sum(answer.model_stats)


def _sum(versions: Sequence[Any]) -> Statistics:
    return Statistics(
        sum(each.inference_count for each in versions),
        sum(each.execution_count for each in versions),
        sum(each.inference_stats.success.count for each in versions),
        sum(each.inference_stats.queue.ns for each in versions) * 1e-9,
        sum(each.inference_stats.compute_infer.ns for each in versions) * 1e-9,
    )


def _oip_subject(target: str, model: str, version: str) -> Subject:
    from penstock_proto.inference import grpc_service_pb2 as pb

    try:
        with grpc.insecure_channel(target, channel_options(target, ())) as channel:
            answer = channel.unary_unary(
                f"{_OIP_SERVICE}ModelMetadata", None, pb.ModelMetadataResponse.FromString
            )(pb.ModelMetadataRequest(name=model, version=version).SerializeToString(), timeout=SECONDS)
    except grpc.RpcError as error:
        raise BenchError(f"{target}: {error.code().name}: {error.details()}") from None
    inputs = [
        TensorInfo(each.name, each.datatype, tuple("?" if size < 0 else size for size in each.shape))
        for each in answer.inputs
    ]
    return Subject("oip", version, inputs, [each.name for each in answer.outputs])
