"""Inputs that a request may leave out, at both doors, and in requests that look alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock.errors import InvalidRequest
from penstock.models.model import Batching, Model
from penstock.rpc import predict_places
from penstock.rpc.arrays import layout
from penstock.rpc.codec import ModelCodec
from penstock.rpc.oip import places
from penstock.rpc.oip.inputs import Inputs
from penstock.rpc.templates import Asked, Template, Templates
from penstock.scheduling.batcher import DynamicBatcher
from penstock.scheduling.cost import RunCost
from penstock.scheduling.padding import PaddingPlan
from penstock.tensors import Array, DataType
from penstock_proto.inference import grpc_service_pb2 as oip
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2
from support.work import HandBackend, echo, policy, request, signature_of, spec

INT = np.dtype("<i8")
SIGNATURE = signature_of(
    [spec("ids", ("N", "L"), DataType.INT64), spec("mask", ("N", "L"), DataType.INT64)], [spec("y", ("N", 2))]
)
PLAN = PaddingPlan(
    dtypes={"ids": INT, "mask": INT},
    axes={"ids": 1, "mask": 1},
    fills={"ids": 0, "mask": 0},
    outputs={},
    buckets=(4, 8),
    mask="mask",
)
IDS, MASK = np.array([[7, 8, 9]]), np.array([[1, 1, 0]])


@pytest.fixture
def model() -> Model:
    backend = HandBackend(echo, SIGNATURE)
    made = DynamicBatcher(backend, policy(), RunCost(1e-5))
    return Model("m", 1, backend, made, Batching(True, ""), padding=PLAN)


def ours(**arrays: Array) -> pb.PredictRequest:
    message = pb.PredictRequest(model="m")
    for name, array in arrays.items():
        tensor = message.inputs[name]
        tensor.datatype, tensor.raw = tensor_pb2.INT64, array.tobytes()
        tensor.shape.extend(array.shape)
    return message


def theirs(**arrays: Array) -> oip.ModelInferRequest:
    message = oip.ModelInferRequest(model_name="m")
    for name, array in arrays.items():
        message.inputs.add(name=name, datatype="INT64", shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    return message


def read(model: Model, message: Any) -> dict[str, Array]:
    if isinstance(message, pb.PredictRequest):
        return ModelCodec(model).inputs(message)[0]
    return Inputs(model).read(message)


@pytest.mark.parametrize("door", [ours, theirs])
def test_a_mask_may_be_sent_or_left_out(door: Any, model: Model) -> None:
    assert list(read(model, door(ids=IDS))) == ["ids"]
    assert list(read(model, door(mask=MASK, ids=IDS))) == ["ids", "mask"]
    with pytest.raises(InvalidRequest, match=r"input ids is missing: expected ids .*, mask .* \(optional\)"):
        read(model, door(mask=MASK))
    with pytest.raises(InvalidRequest, match="there is no input other"):
        read(model, door(ids=IDS, other=IDS))


def learned(model: Model, message: Any) -> tuple[Templates, Template | None]:
    find = predict_places.places_of if isinstance(message, pb.PredictRequest) else places.places_of
    templates, arrays = Templates(find), read(model, message)
    rows, key = layout(model, arrays)
    made = request(arrays, rows=rows, shape_key=key)
    data = message.SerializeToString(deterministic=True)
    templates.learn(data, Asked("m", "", float("inf"), None), made, model)
    return templates, templates.find(data)


@pytest.mark.parametrize("door", [ours, theirs])
def test_requests_alike_have_the_inputs_that_were_sent(door: Any, model: Model) -> None:
    templates, template = learned(model, door(ids=IDS))
    assert template is not None
    assert template.shape_key == PLAN.key({"ids": IDS})
    other = door(ids=IDS + 1).SerializeToString(deterministic=True)
    assert {name: array.tolist() for name, array in template.inputs_of(other).items()} == {
        "ids": [[8, 9, 10]]
    }
    for longer in (door(ids=np.array([[1, 2, 3, 4]])), door(ids=IDS, mask=MASK)):
        assert templates.find(longer.SerializeToString(deterministic=True)) is None
    _, both = learned(model, door(ids=IDS, mask=MASK))
    assert both is not None
    sent = door(ids=IDS, mask=1 - MASK).SerializeToString(deterministic=True)
    assert both.inputs_of(sent)["mask"].tolist() == [[0, 0, 1]]
