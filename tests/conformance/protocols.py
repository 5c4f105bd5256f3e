"""The ways in and out of a server, each as one function: a model's name and inputs in, its outputs out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import grpc

from penstock_proto.inference import grpc_service_pb2 as oip
from penstock_proto.inference import grpc_service_pb2_grpc as oip_grpc
from penstock_proto.v1 import model_pb2, model_pb2_grpc, tensor_pb2
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import prediction_pb2_grpc as pb_grpc
from tests.conformance.tensors import Raw, Tensors

BOUND = 120.0
"""No call may take longer: seconds."""
OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
)

Method: TypeAlias = Callable[[str, Mapping[str, Raw]], Tensors]
"""Sends one request. Raises grpc.RpcError where the server refuses, ValueError where its answer is odd."""


def connect(target: str) -> grpc.Channel:
    """A connection of its own, for messages of any size."""
    return grpc.insecure_channel(target, OPTIONS)


def predict(channel: grpc.Channel) -> Method:
    """`penstock.v1.PredictionService/Predict`, with tensors as bytes."""
    stub: Any = pb_grpc.PredictionServiceStub(channel)

    def call(model: str, inputs: Mapping[str, Raw]) -> Tensors:
        return outputs_of(stub.Predict(prediction(model, inputs), timeout=BOUND))

    return call


def predict_stream(channel: grpc.Channel) -> Method:
    """`penstock.v1.PredictionService/PredictStream`, one request a call."""

    def call(model: str, inputs: Mapping[str, Raw]) -> Tensors:
        [response] = streamed(channel, [prediction(model, inputs)])
        return outputs_of(response)

    return call


def infer(channel: grpc.Channel) -> Method:
    """`inference.GRPCInferenceService/ModelInfer`, with tensors as bytes."""
    stub: Any = oip_grpc.GRPCInferenceServiceStub(channel)

    def call(model: str, inputs: Mapping[str, Raw]) -> Tensors:
        response = stub.ModelInfer(inference(model, inputs), timeout=BOUND)
        pairs = zip(response.outputs, response.raw_output_contents, strict=True)
        return {each.name: Raw(each.datatype, tuple(each.shape), data) for each, data in pairs}

    return call


def is_missing(target: str, name: str) -> bool:
    """Whether the server has not this method at all."""
    with connect(target) as channel:
        try:
            METHODS[name](channel)("there is no such model", {})
        except grpc.RpcError as error:
            return bool(error.code() is grpc.StatusCode.UNIMPLEMENTED)
        except ValueError:
            return False
    return False


METHODS: Mapping[str, Callable[[grpc.Channel], Method]] = {
    "Predict": predict,
    "PredictStream": predict_stream,
    "ModelInfer": infer,
}
"""What makes each method, by its name."""


def prediction(model: str, inputs: Mapping[str, Raw], tag: int = 0) -> pb.PredictRequest:
    """A request of `penstock.v1`. Raw answers are asked for, since a model without inputs gives no hint."""
    tensors = {name: _tensor(raw) for name, raw in inputs.items()}
    return pb.PredictRequest(model=model, inputs=tensors, tag=tag, output_encoding=pb.RAW)


def outputs_of(response: pb.PredictResponse) -> Tensors:
    """The outputs of an answer of `penstock.v1`."""
    return {
        name: Raw(tensor_pb2.DataType.Name(each.datatype), tuple(each.shape), each.raw)
        for name, each in response.outputs.items()
    }


def streamed(channel: grpc.Channel, requests: Sequence[pb.PredictRequest]) -> list[pb.PredictResponse]:
    """The answers to requests that travel in one message.

    Raises:
        ValueError: one was answered with an error.
    """
    stub: Any = pb_grpc.PredictionServiceStub(channel)
    message = pb.PredictStreamRequest(requests=requests)
    answers: Iterable[pb.PredictStreamResponse] = stub.PredictStream(iter([message]), timeout=BOUND)
    results = [each for answer in answers for each in answer.results]
    for each in results:
        if each.HasField("error"):
            raise ValueError(f"{each.error.code}: {each.error.message}")
    return [each.response for each in results]


def inference(model: str, inputs: Mapping[str, Raw]) -> oip.ModelInferRequest:
    """A request of the Open Inference Protocol."""
    request = oip.ModelInferRequest(model_name=model)
    for name, raw in inputs.items():
        request.inputs.add(name=name, datatype=raw.datatype, shape=raw.shape)
        request.raw_input_contents.append(raw.data)
    return request


def listed(channel: grpc.Channel) -> dict[str, model_pb2.Model]:
    """What the server says of its models, by name."""
    stub: Any = model_pb2_grpc.ModelServiceStub(channel)
    answer = stub.ListModels(model_pb2.ListModelsRequest(), timeout=BOUND)
    return {model.name: model for model in answer.models}


def said(error: Exception) -> str:
    """What a call failed of, in one line."""
    text = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.RpcError) else str(error)
    return " ".join(text.split())


def _tensor(raw: Raw) -> tensor_pb2.Tensor:
    datatype = tensor_pb2.DataType.Value(raw.datatype)
    return tensor_pb2.Tensor(datatype=datatype, shape=raw.shape, raw=raw.data)
