"""Inputs that a request may leave out, in both protocols, and in requests that look alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock.core.errors import InvalidRequest
from penstock.core.tensors import Array, DataType
from penstock.models.model import Batching, Model
from penstock.protocols.codec import Asked
from penstock.protocols.fast_path.known_requests import KnownRequest, KnownRequests
from penstock.protocols.open_inference import spans as places
from penstock.protocols.open_inference.decoder import Inputs as InferInputs
from penstock.protocols.penstock_v1 import spans as predict_places
from penstock.protocols.penstock_v1.decoder import Inputs
from penstock.protocols.tensors import layout
from penstock.scheduling.batcher import DynamicBatcher
from penstock.scheduling.cost import RunCost
from penstock.scheduling.packing.padding import PaddingPlan
from penstock_proto.inference import grpc_service_pb2 as oip
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2
from support.work import HandBackend, echo, policy, signature_of, spec

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
        return Inputs(model).read(message)[0]
    return InferInputs(model).read(message)


@pytest.mark.parametrize("protocol", [ours, theirs])
def test_a_mask_may_be_sent_or_left_out(protocol: Any, model: Model) -> None:
    assert list(read(model, protocol(ids=IDS))) == ["ids"]
    assert list(read(model, protocol(mask=MASK, ids=IDS))) == ["ids", "mask"]
    with pytest.raises(InvalidRequest, match=r"input ids is missing: expected ids .*, mask .* \(optional\)"):
        read(model, protocol(mask=MASK))
    with pytest.raises(InvalidRequest, match="there is no input other"):
        read(model, protocol(ids=IDS, other=IDS))


def learned(model: Model, message: Any) -> tuple[KnownRequests, KnownRequest | None]:
    find = predict_places.spans_of if isinstance(message, pb.PredictRequest) else places.spans_of
    known_requests, arrays = KnownRequests(find), read(model, message)
    rows, key = layout(model, arrays)
    data = message.SerializeToString(deterministic=True)
    known_requests.learn(data, Asked(("m", ""), ("y",), rows, key), arrays, model, 0.0)
    found = known_requests.find(data)
    return known_requests, found[0] if found else None


def inputs_of(known: KnownRequest, data: bytes) -> dict[str, Array]:
    found = known.matches(data)
    assert found is not None
    inputs = known.inputs_of(data, found[-1])
    assert inputs is not None
    return inputs


@pytest.mark.parametrize("protocol", [ours, theirs])
def test_requests_alike_have_the_inputs_that_were_sent(protocol: Any, model: Model) -> None:
    known_requests, known = learned(model, protocol(ids=IDS))
    assert known is not None
    assert known.asked.shape_key == PLAN.key({"ids": IDS})
    other = protocol(ids=IDS + 1).SerializeToString(deterministic=True)
    assert {name: array.tolist() for name, array in inputs_of(known, other).items()} == {"ids": [[8, 9, 10]]}
    for longer in (protocol(ids=np.array([[1, 2, 3, 4]])), protocol(ids=IDS, mask=MASK)):
        assert known_requests.find(longer.SerializeToString(deterministic=True)) is None
    _, both = learned(model, protocol(ids=IDS, mask=MASK))
    assert both is not None
    sent = protocol(ids=IDS, mask=1 - MASK).SerializeToString(deterministic=True)
    assert inputs_of(both, sent)["mask"].tolist() == [[0, 0, 1]]
