"""Requests that look alike have the same scalars, since a batch has one value of each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from penstock.core.tensors import Array, DataType
from penstock.models.model import Batching, Model
from penstock.models.sequence import SequenceState
from penstock.protocols.codec import Asked
from penstock.protocols.fast_path.alike import alike
from penstock.protocols.fast_path.known_requests import KnownRequest
from penstock.protocols.penstock_v1.decoder import Inputs
from penstock.protocols.penstock_v1.spans import spans_of
from penstock.protocols.tensors import layout
from penstock.scheduling.packing.states import StateTensor
from penstock_proto.v1 import prediction_pb2 as pb
from server import kit
from support.work import HandBackend, batcher, echo, signature_of, spec

SIGNATURE = signature_of([spec("x", ("N", 3)), spec("factor", ())], [spec("y", ("N", 3))])


def model_of(**how: Any) -> Model:
    made, _ = batcher(echo)
    return Model("m", 1, HandBackend(echo, SIGNATURE), made, Batching(True, ""), **how)


def data_of(x: float, factor: float) -> bytes:
    array = np.full((1, 3), x, np.float32)
    return kit.request("m", x=array, factor=np.array(factor, np.float32)).SerializeToString(
        deterministic=True
    )


def read(model: Model, data: bytes) -> dict[str, Array]:
    return Inputs(model).read(pb.PredictRequest.FromString(data))[0]


def template_of(model: Model, data: bytes) -> KnownRequest:
    arrays = read(model, data)
    rows, key = layout(model, arrays)
    return KnownRequest(data, spans_of(data), Asked(("m", ""), ("y",), rows, key), arrays, model)


@pytest.mark.parametrize("other", [3.0, -0.0, math.nan])
def test_a_scalar_is_compared_and_the_rest_filled_in(other: float) -> None:
    model = model_of()
    known = template_of(model, data_of(1, 0.0))
    assert known.matches(data_of(2, 0.0))
    assert not known.matches(data_of(1, other))
    found = known.matches(data_of(2, 0.0))
    assert found is not None
    inputs = known.inputs_of(data_of(2, 0.0), found[-1])
    assert inputs is not None
    assert (inputs["x"].tolist(), inputs["factor"].shape, float(inputs["factor"])) == ([[2, 2, 2]], (), 0)


def test_a_block_ends_where_a_scalar_differs() -> None:
    known = template_of(model_of(), data_of(1, 2))
    messages = [data_of(1, 2), data_of(2, 2), data_of(3, 2), data_of(4, -2), data_of(5, 2)]
    rows = np.frombuffer(b"".join(messages), np.uint8).reshape(5, -1)
    assert known.may_be_many
    found = known.matches(messages[0])
    assert found is not None
    many = alike(found, rows)
    assert len(many) == 3
    inputs = many.inputs()
    assert inputs["x"].tolist() == [[1] * 3, [2] * 3, [3] * 3]
    assert (inputs["factor"].shape, float(inputs["factor"])) == ((), 2)


def test_what_shares_a_batch_has_equal_scalars() -> None:
    model = model_of()
    keys = [layout(model, read(model, data_of(1, factor)))[1] for factor in (0.0, 0.0, -0.0, 1.0)]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_text_is_told_apart_by_what_it_says() -> None:
    signature = signature_of([spec("x"), spec("word", (), DataType.BYTES)], [spec("y")])
    made, _ = batcher(echo)
    model = Model("m", 1, HandBackend(echo, signature), made, Batching(True, ""))
    x = np.ones((1, 1), np.float32)
    keys = [layout(model, {"x": x, "word": np.array(word, object)})[1] for word in ("a", "a", "b")]
    assert keys[0] == keys[1] != keys[2]


def test_steps_are_never_one_block() -> None:
    state = SequenceState((StateTensor("h", "hn", 0, np.zeros((1, 1), np.float32)),), 60, 100)
    assert not template_of(model_of(sequence_state=state), data_of(1, 2)).may_be_many
