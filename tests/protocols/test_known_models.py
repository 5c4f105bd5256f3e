"""Requests of several models, shapes and sequences are recognised beside one another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock.core import wire
from penstock.models.model import Batching, Model
from penstock.models.sequence import SequenceState
from penstock.protocols.codec import Asked
from penstock.protocols.fast_path import known_lists
from penstock.protocols.fast_path.known_requests import KnownRequest, KnownRequests
from penstock.protocols.penstock_v1.decoder import Inputs
from penstock.protocols.penstock_v1.spans import ID, spans_of
from penstock.protocols.tensors import layout
from penstock.scheduling.packing.states import StateTensor
from penstock_proto.v1 import prediction_pb2 as pb
from server import kit
from support.work import HandBackend, batcher, echo, signature_of, spec

SIGNATURE = signature_of([spec("x", ("N", 3))], [spec("y", ("N", 3))])
STATE = SequenceState((StateTensor("h", "hn", 0, np.zeros((1, 1), np.float32)),), 60, 100)
NAMES = [f"model-{number:02}" for number in range(16)]


def model_of(**how: Any) -> Model:
    made, _ = batcher(echo)
    return Model("m", 1, HandBackend(echo, SIGNATURE), made, Batching(True, ""), **how)


MODEL, STATEFUL = model_of(), model_of(sequence_state=STATE)


def data_of(name: str, rows: int = 1, **fields: Any) -> bytes:
    made = kit.request(name, x=np.full((rows, 3), rows, np.float32))
    return pb.PredictRequest(**fields).SerializeToString() + made.SerializeToString(deterministic=True)


def step_of(**sequence: Any) -> bytes:
    made = kit.request("m", x=np.ones((1, 3), np.float32))
    made.sequence.CopyFrom(pb.Sequence(**sequence))
    return made.SerializeToString(deterministic=True)


def contents(data: bytes, model: Model) -> tuple[Asked, dict[str, Any]]:
    message = pb.PredictRequest.FromString(data)
    arrays = Inputs(model).read(message)[0]
    return Asked((message.model, ""), ("y",), *layout(model, arrays)), arrays


def learn(known: KnownRequests, data: bytes) -> None:
    asked, arrays = contents(data, MODEL)
    known.learn(data, asked, arrays, MODEL, 0.0)


def test_models_with_equally_long_requests_are_all_recognised() -> None:
    known = KnownRequests(spans_of)
    for name in NAMES:
        learn(known, data_of(name))
    for name in NAMES:
        found = known.find(data_of(name))
        assert found is not None, name
        assert found[0].asked.route == (name, "")


@pytest.mark.parametrize("flood", ["shapes of a regular", "shapes of another", "models"])
def test_a_flood_leaves_the_regular_requests_of_all_models_known(flood: str) -> None:
    known = KnownRequests(spans_of)
    regular = [data_of(name, rows) for name in NAMES for rows in (1, 2)]
    for data in regular:
        learn(known, data)
        assert known.find(data)
    for number in range(4 * known_lists.MOST):
        name = {"shapes of a regular": NAMES[0], "shapes of another": "model-zz"}.get(flood, f"m-{number:06}")
        learn(known, data_of(name, 3 if flood == "models" else 3 + number))
        assert len(known) <= known_lists.MOST
        if number % 32 == 0:
            assert all(known.find(data) for data in regular)


def test_a_first_field_that_differs_hinders_nothing() -> None:
    known = KnownRequests(spans_of)
    learn(known, data_of("model", id="abc"))
    assert data_of("model", id="abc")[0] == ID, "the id stands first"
    found = known.find(data_of("model", id="xyz"))
    assert found is not None
    assert found[1] == "xyz"


def template_of(data: bytes, model: Model = STATEFUL, names_sequence: bool = True) -> KnownRequest:
    asked, arrays = contents(data, model)
    return KnownRequest(data, spans_of(data), asked, arrays, model, names_sequence)


def test_a_step_that_names_its_sequence_matches_steps_of_others() -> None:
    known = template_of(step_of(id="voice-1"))
    assert not known.is_own_step
    for id in ("voice-2", "v", "Größe", "x" * 200):
        found = known.matches(step_of(id=id))
        assert found is not None, id
        assert known.sequence_of(step_of(id=id), found[4]) == id


@pytest.mark.parametrize(
    "other",
    [
        step_of(id="voice-2", start=True),
        step_of(id="voice-2", end=True),
        step_of(start=True),
        step_of(),
        data_of("m"),
        step_of(id="voice-2").replace(b"voice-2", b"voice-\xff"),
    ],
    ids=["start", "end", "start without an id", "an empty field", "no field", "no text"],
)
def test_other_steps_are_parsed(other: bytes) -> None:
    assert template_of(step_of(id="voice-1")).matches(other) is None


def test_a_step_is_not_known_without_the_place_of_its_id() -> None:
    twice = step_of(id="voice-1")
    field = wire.field(wire.key(pb.PredictRequest.SEQUENCE_FIELD_NUMBER, wire.LENGTH_DELIMITED), b"")
    with pytest.raises(ValueError, match="sequence"):
        template_of(data_of("m") + field)
    with pytest.raises(ValueError, match="sequence"):
        template_of(twice, names_sequence=False)
    assert template_of(data_of("m"), names_sequence=False).is_own_step
