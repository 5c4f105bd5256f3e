"""No message that the server sends has a singular field twice: not every parser puts the pieces together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor

from penstock.core import wire
from penstock.core.tensors import DataType
from penstock_proto.inference import grpc_service_pb2 as oip
from penstock_proto.v1 import model_pb2
from penstock_proto.v1 import prediction_pb2 as pb
from server import kit, oip_kit

TOP_TWO = oip_kit.output("y", classification=oip.InferParameter(int64_param=2))


def repeated(data: bytes, of: Descriptor, path: str) -> Iterator[str]:
    """The singular fields that are more than once in a message, or in one inside it."""
    seen: Counter[int] = Counter()
    for key, start, end in wire.fields(data, 0, len(data)):
        field = of.fields_by_number[key >> 3]
        seen[field.number] += 1
        if field.message_type is not None:
            yield from repeated(data[start:end], field.message_type, f"{path}.{field.name}")
    for number, count in seen.items():
        if count > 1 and not of.fields_by_number[number].is_repeated:
            yield f"{path}.{of.fields_by_number[number].name}: {count} times"


def check(answers: list[bytes], of: Descriptor) -> None:
    assert answers
    assert [each for data in answers for each in repeated(data, of, of.name)] == []


def predictions() -> list[pb.PredictRequest]:
    """Requests of every kind: raw, typed, of several outputs, of text, without rows, and wrong ones."""
    x = kit.rows(2)
    return [
        kit.request("identity", x=x),
        kit.request("identity", x=x, id="an id", tag=7),
        kit.request("identity", x=kit.typed(x, DataType.FP32), id="typed", tag=8),
        kit.request("identity", x=x, output_encoding=pb.TYPED),
        kit.request("identity", x=np.zeros((0, 3), np.float32)),
        kit.request("identity_bytes", x=kit.raw(np.full((1, 3), "ü", object), DataType.BYTES)),
        kit.request("slow", x=kit.rows(1, width=1), timeout=0.000_001),
        kit.request("identity", tag=9),
        kit.request("unknown", id="an id", tag=10),
    ]


def test_a_field_that_is_there_twice_is_found() -> None:
    twice = pb.PredictResponse(id="a").SerializeToString() * 2
    inside = pb.PredictStreamResponse(results=[pb.PredictResult(response=pb.PredictResponse(id="a"))])
    data = inside.SerializeToString() + pb.PredictStreamResponse().SerializeToString()
    assert list(repeated(twice, pb.PredictResponse.DESCRIPTOR, "r")) == ["r.id: 2 times"]
    assert list(repeated(data * 2, pb.PredictStreamResponse.DESCRIPTOR, "r")) == []


def test_predict(channel: grpc.Channel) -> None:
    call: Any = channel.unary_unary(kit.UNARY)
    answers = []
    for request in predictions():
        for _ in range(3):  # parsed, and recognised
            try:
                answers.append(call(request.SerializeToString(), timeout=kit.BOUND))
            except grpc.RpcError:
                continue
    check(answers, pb.PredictResponse.DESCRIPTOR)
    assert all(pb.PredictResponse.FromString(each).HasField("timing") for each in answers)


@pytest.mark.parametrize("order", [(), kit.COMPLETION])
def test_predict_stream(channel: grpc.Channel, order: Any) -> None:
    alike = [kit.request("identity", tag=200 + number, x=kit.rows(1, number)) for number in range(40)]
    messages = [
        kit.message(*alike[:1]),
        kit.message(*alike),
        kit.message(*predictions()),
        kit.message(*alike),
    ]
    messages[-1].cancel.extend([203, 204, 9])
    call: Any = channel.stream_stream(kit.STREAM)
    sent = iter([each.SerializeToString() for each in messages])
    answers = list(call(sent, timeout=kit.BOUND, metadata=order))
    check(answers, pb.PredictStreamResponse.DESCRIPTOR)
    results = [each for data in answers for each in pb.PredictStreamResponse.FromString(data).results]
    assert len(results) == 81 + len(predictions())


def inferences() -> list[oip.ModelInferRequest]:
    requests = [
        oip_kit.request("identity", id="an id", x=kit.rows(2)),
        oip_kit.request("identity", x=kit.rows(2)),
        oip_kit.request("identity", x=np.zeros((0, 3), np.float32)),
        oip_kit.request("identity", id="c", x=kit.rows(2), outputs=[TOP_TWO]),
        oip_kit.request("identity_bytes", datatype=DataType.BYTES, x=np.full((1, 3), "ü", object)),
        oip_kit.request("unknown", id="an id", x=kit.rows(1)),
    ]
    return [each for each in requests for _ in range(3)]


def test_model_infer(channel: grpc.Channel) -> None:
    call: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    answers = []
    for request in inferences():
        try:
            answers.append(call(request.SerializeToString(), timeout=kit.BOUND))
        except grpc.RpcError:
            continue
    check(answers, oip.ModelInferResponse.DESCRIPTOR)
    assert len(answers) == 15


def test_model_stream_infer(channel: grpc.Channel) -> None:
    call: Any = channel.stream_stream(oip_kit.STREAM)
    sent = iter([each.SerializeToString() for each in inferences()])
    answers = list(call(sent, timeout=kit.BOUND))
    check(answers, oip.ModelStreamInferResponse.DESCRIPTOR)
    assert len(answers) == len(inferences())


SERVICERS = {
    "/penstock.v1.ModelService/ListModels": (model_pb2.ListModelsRequest(), model_pb2.ListModelsResponse),
    "/penstock.v1.ModelService/GetModel": (model_pb2.GetModelRequest(model="identity"), model_pb2.Model),
    **{
        f"/inference.GRPCInferenceService/{name}": (request, getattr(oip, f"{name}Response"))
        for name, request in {
            "ServerLive": oip.ServerLiveRequest(),
            "ServerReady": oip.ServerReadyRequest(),
            "ServerMetadata": oip.ServerMetadataRequest(),
            "ModelReady": oip.ModelReadyRequest(name="identity"),
            "ModelMetadata": oip.ModelMetadataRequest(name="identity"),
            "ModelConfig": oip.ModelConfigRequest(name="identity"),
            "ModelStatistics": oip.ModelStatisticsRequest(name="identity"),
            "RepositoryIndex": oip.RepositoryIndexRequest(),
        }.items()
    },
}


@pytest.mark.parametrize("method", SERVICERS)
def test_all_other_methods(channel: grpc.Channel, method: str) -> None:
    request, answer = SERVICERS[method]
    call: Any = channel.unary_unary(method)
    check([call(request.SerializeToString(), timeout=kit.BOUND) or b""], answer.DESCRIPTOR)
