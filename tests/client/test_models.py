from datetime import UTC, datetime

import pytest
from grpc_health.v1 import health_pb2

import penstock_client
from client.standin import model
from penstock_client import _health
from penstock_client._models import model_info
from penstock_proto.v1 import model_pb2

STATES = health_pb2.HealthCheckResponse


def full() -> model_pb2.Model:
    made = model("m", "2", x="FP32 N,3", text="BYTES ?", odd="INT8 *", one="FP64")
    made.state_reason, made.is_default, made.sha256, made.size_bytes = "warm", True, "ab", 12
    made.labels.append("stable")
    made.metadata["producer"] = "here"
    made.opsets["ai.onnx"] = 17
    made.providers.append("CPUExecutionProvider")
    made.batching.max_delay.FromMilliseconds(5)
    made.loaded_at.FromJsonString("2024-05-06T07:08:09Z")
    return made


def test_a_model_says_everything(server, client) -> None:
    server.models["m", "stable"] = full()
    info = client.model("m", "stable")
    assert info == penstock_client.ModelInfo(
        name="m",
        version="2",
        state="READY",
        state_reason="warm",
        is_default=True,
        labels=["stable"],
        inputs=info.outputs,
        outputs=[
            penstock_client.TensorInfo("x", "FP32", ("N", 3)),
            penstock_client.TensorInfo("text", "BYTES", ("?",)),
            penstock_client.TensorInfo("odd", "INT8", None),
            penstock_client.TensorInfo("one", "FP64", ()),
        ],
        batching=penstock_client.BatchingInfo(True, "the first axis is open", 32, 0.005),
        metadata={"producer": "here"},
        opsets={"ai.onnx": 17},
        sha256="ab",
        size_bytes=12,
        providers=["CPUExecutionProvider"],
        loaded_at=datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC),
    )
    assert [str(each) for each in info.inputs] == ["FP32[N,3]", "BYTES[?]", "INT8[...]", "FP64[]"]


def test_a_model_that_was_never_ready_has_no_time() -> None:
    assert model_info(model_pb2.Model(name="m", state=model_pb2.FAILED)).loaded_at is None


def test_all_models_are_listed(server, client) -> None:
    server.add("other", x="BOOL")
    assert [each.name for each in client.models()] == ["echo", "other"]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (STATES.SERVING, "SERVING"),
        (STATES.NOT_SERVING, "NOT_SERVING"),
        (STATES.UNKNOWN, "UNKNOWN"),
        (STATES.SERVICE_UNKNOWN, "UNKNOWN"),
    ],
)
def test_health_is_said_in_a_word(server, client, state, expected) -> None:
    server.states["modèle"] = state
    assert client.health("modèle") == expected
    assert client.health() == "SERVING"


def test_the_health_of_an_unknown_model_is_unknown(server, client) -> None:
    assert client.health("none") == "UNKNOWN"


def test_the_health_messages_are_those_of_the_protocol() -> None:
    assert _health.encode("a") == health_pb2.HealthCheckRequest(service="a").SerializeToString()
    answer = STATES(status=STATES.SERVING).SerializeToString()
    assert _health.decode(answer) == "SERVING"
    assert _health.decode(answer + b"\x92\x03\x01z") == "SERVING"  # with a field of a later time
    assert _health.decode(STATES().SerializeToString()) == "UNKNOWN"
