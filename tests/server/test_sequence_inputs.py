"""First states, values that stay, states that grow, outputs of other lengths: through a running server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from penstock.core.tensors import DataType
from penstock_client import Client, FailedPrecondition, InvalidInput, PenstockError, Sequence
from penstock_proto.inference import grpc_service_pb2 as oip
from server import kit, oip_kit
from support import framing, steps, zoo
from support.servers import RunningServer, running_server

FRAMED = "[padding]\naxes = { x = 1 }\nbuckets = [64, 200]\nshortest = 40\n"
MODELS: dict[str, tuple[Any, str]] = {
    "encoder": (steps.encoder(), ""),
    "decoder": (
        steps.decoder(),
        '[sequence]\nstate = { memory = "memory_out" }\nsent_at_start = ["memory"]\n',
    ),
    "spoken": (steps.spoken(), '[sequence]\nstate = { sum = "sumN" }\nconstant = ["speaker"]\n'),
    "cache": (
        steps.cache(),
        '[sequence]\nstate = { past = "present" }\ngrows = { past = 1 }\nmax_length = 5\n',
    ),
    "frames": (framing.frames(), FRAMED),
    "own": (
        framing.frames_with_lengths(),
        f'{FRAMED}lengths = "lens"\noutput_lengths = {{ y = "y_lens" }}\n',
    ),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    path = zoo.repository(
        tmp_path_factory.mktemp("steps"), {name: made for name, (made, _) in MODELS.items()}
    )
    for name, (_, settings) in MODELS.items():
        (path / name / "model.toml").write_text(settings)
    with running_server(path) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.target) as client:
        yield client


def answers(client: Client, model: str, items: list[Any]) -> list[list[float]]:
    return [each["y"].ravel().tolist() for each in client.predict_stream(model, items)]


def test_an_encoder_s_output_begins_a_decoder(client: Client) -> None:
    assert [(each.name, each.optional) for each in client.model("decoder").inputs] == [
        ("x", False),
        ("memory", True),
    ]
    for text in ([[1, 2, 3]], [[4]]):  # read by known requests the second time
        for _ in range(2):
            memory = client.predict("encoder", {"text": np.array(text, np.float32)})["memory"]
            total, size = 3 * sum(text[0]), 2 * len(text[0])
            got = answers(client, "decoder", [{"x": 1, "memory": memory}, {"x": 1}, {"x": 1}])
            assert got == [[1 + total], [1 + total + size], [1 + total + 2 * size]]


def test_a_first_state_at_other_steps_is_refused(client: Client) -> None:
    memory = np.ones((1, 2, 2), np.float32)
    client.predict("decoder", {"x": 1, "memory": memory}, sequence=Sequence("one", start=True))
    with pytest.raises(InvalidInput, match="only a step that begins a sequence may send memory"):
        client.predict("decoder", {"x": 1, "memory": memory}, sequence="one")
    with pytest.raises(InvalidInput, match="input memory is missing: a step that begins a sequence has to"):
        client.predict("decoder", {"x": 1}, sequence=Sequence("two", start=True))
    wide, flat = np.ones((2, 2, 2), np.float32), np.ones((1, 2, 3), np.float32)
    with pytest.raises(InvalidInput, match="axis 0 of input memory is 2 long"):
        client.predict("decoder", {"x": 1, "memory": wide}, sequence=Sequence("two", start=True))
    with pytest.raises(PenstockError, match=r"memory"):
        client.predict("decoder", {"x": 1, "memory": flat}, sequence=Sequence("two", start=True))
    assert client.predict("decoder", {"x": 1}, sequence="one")["y"].tolist() == [[9.0]]


def test_a_value_is_sent_once(client: Client) -> None:
    items = [{"x": 1, "speaker": [[2, 3]]}, {"x": 1}, {"x": 2}]
    for _ in range(2):
        assert answers(client, "spoken", items) == [[5], [10], [20]]


def test_a_state_grows_up_to_its_bound(client: Client) -> None:
    one = {"x": np.ones((1, 1, 2), np.float32)}
    assert answers(client, "cache", [one, {"x": np.ones((1, 3, 2), np.float32)}, one]) == [
        [1, 1],
        [4, 4],
        [5, 5],
    ]
    with pytest.raises(FailedPrecondition, match=r"is 5 long, the limit is 5 \(sequence.max_length\)"):
        answers(client, "cache", [one] * 6)


def test_the_other_protocol(server: RunningServer) -> None:
    def step(model: str, id: str, start: bool = False, **inputs: Any) -> oip.ModelInferRequest:
        arrays = {name: np.array(value, np.float32) for name, value in inputs.items()}
        made = oip_kit.request(model, datatype=DataType.FP32, **arrays)
        made.parameters["sequence_id"].string_param = id
        made.parameters["sequence_start"].bool_param = start
        return made

    with kit.connect(server.target) as channel:
        stub = oip_kit.stub_of(channel)
        asked = [
            step("decoder", "o", True, x=[[1]], memory=[[[1, 2]]]),
            step("decoder", "o", x=[[1]]),
            step("spoken", "o", True, x=[[1]], speaker=[[4]]),
            step("spoken", "o", x=[[1]]),
            step("cache", "o", True, x=[[[1, 2]]]),
            step("cache", "o", x=[[[1, 2]]]),
        ]
        got = [oip_kit.arrays_of(stub.ModelInfer(each, timeout=kit.BOUND))["y"].tolist() for each in asked]
        assert got == [[[4]], [[6]], [[4]], [[8]], [[1, 2]], [[2, 4]]]
        config = stub.ModelConfig(oip.ModelConfigRequest(name="decoder")).config
        assert [each.optional for each in config.input] == [False, True]


def test_outputs_of_other_lengths(client: Client) -> None:
    session = zoo.session(framing.frames())
    sounds = [
        np.random.default_rng(size).standard_normal((1, size)).astype(np.float32)
        for size in (40, 56, 57, 64, 150, 199, 300)
    ]
    for model in ("frames", "own"):
        got = client.predict_stream(model, [{"x": each} for each in sounds])
        for sound, answer in zip(sounds, got, strict=True):
            alone = session.run(["y"], {"x": sound})[0]
            assert answer["y"].shape == alone.shape
            np.testing.assert_allclose(answer["y"], alone, rtol=1e-4, atol=1e-4)
            if model == "own":
                assert answer["y_lens"].tolist() == [alone.shape[2]]
    with pytest.raises(
        InvalidInput, match="input x has length 39 along axis 1; the model takes no less than 40"
    ):
        client.predict("frames", {"x": sounds[0][:, :39]})
