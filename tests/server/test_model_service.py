"""penstock.v1.ModelService on a running server: what is served, and every way to ask for it."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from penstock_proto.v1 import model_pb2 as pb
from penstock_proto.v1 import model_pb2_grpc, tensor_pb2
from server import kit
from server.conftest import IDENTITIES, zoo_models


@pytest.fixture
def transport() -> str:
    """One transport is enough: both carry the same servicer."""
    return "reactor"


@pytest.fixture
def models(channel: grpc.Channel) -> Any:
    return model_pb2_grpc.ModelServiceStub(channel)


def found(models: Any, name: str, version: str = "") -> pb.Model:
    model: pb.Model = models.GetModel(pb.GetModelRequest(model=name, version=version), timeout=kit.BOUND)
    return model


def refusal(models: Any, name: str, version: str = "") -> str:
    """Why GetModel finds nothing."""
    with pytest.raises(grpc.RpcError) as caught:
        found(models, name, version)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    return str(caught.value.details())


def listed(models: Any) -> list[pb.Model]:
    return list(models.ListModels(pb.ListModelsRequest(), timeout=kit.BOUND).models)


def shape_of(spec: pb.TensorSpec) -> list[int | str]:
    return [getattr(each, each.WhichOneof("dimension")) for each in spec.shape]


def test_every_version_of_every_model_is_listed_in_order(models) -> None:
    seen = [(each.name, int(each.version)) for each in listed(models)]
    assert seen == sorted(seen)
    assert {name for name, _ in seen} == {*zoo_models(), "lead_scoring"}
    assert [version for name, version in seen if name == "scale"] == [1, 2, 10]
    assert {each.state for each in listed(models)} == {pb.READY}


def test_only_the_versions_that_model_toml_names_are_served(models) -> None:
    assert [each.version for each in listed(models) if each.name == "pinned"] == ["1", "2"]
    assert (
        refusal(models, "pinned", "3")
        == "model pinned has no version or label '3'; it has 1, 2, live, canary"
    )


def test_the_list_holds_what_each_is_by_itself(models) -> None:
    each_by_itself = [found(models, each.name, each.version) for each in listed(models)]
    assert each_by_itself == listed(models)


@pytest.mark.parametrize(
    ("name", "asked", "version"),
    [
        ("scale", "1", "1"),
        ("scale", "10", "10"),
        ("scale", "stable", "2"),
        ("scale", "old", "1"),
        ("scale", "", "10"),
        ("pinned", "canary", "2"),
        ("pinned", "live", "1"),
        ("pinned", "", "2"),
        ("identity", "", "1"),
    ],
)
def test_every_way_to_a_version(models, stub, name, asked, version) -> None:
    """The version that GetModel names is the one that answers: version v of these multiplies by v."""
    assert found(models, name, asked).version == version
    answer = stub.Predict(kit.request(name, version=asked, x=kit.rows(2, 3.0)), timeout=kit.BOUND)
    assert answer.version == version
    expected = kit.rows(2, 3.0) * int(version)
    assert kit.array_of(answer.outputs["y"]).tolist() == expected.tolist()


def test_labels_and_the_default_are_told(models) -> None:
    versions = [each for each in listed(models) if each.name == "scale"]
    assert [list(each.labels) for each in versions] == [["old"], ["stable"], []]
    assert [each.is_default for each in versions] == [False, False, True]


def test_what_is_not_there_is_answered_with_what_is(models) -> None:
    assert refusal(models, "scale", "3") == (
        "model scale has no version or label '3'; it has 1, 2, 10, old, stable"
    )
    assert refusal(models, "scale", "STABLE").startswith("model scale has no version or label 'STABLE'")
    said = refusal(models, "skale")
    assert said.startswith("no model 'skale'; available: add, ")
    assert "identity_fp32" in said
    assert refusal(models, "").startswith("the request names no model; available: ")


def test_a_prediction_is_refused_in_the_same_words(models, stub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(kit.request("scale", version="3", x=kit.rows(1)), timeout=kit.BOUND)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == refusal(models, "scale", "3")


def test_the_file_of_a_model(models, zoo_path: Path) -> None:
    model = found(models, "scale", "2")
    data = (zoo_path / "scale" / "2" / "model.onnx").read_bytes()
    assert model.sha256 == hashlib.sha256(data).hexdigest()
    assert model.size_bytes == len(data)
    assert model.opsets["ai.onnx"] == 17
    assert list(model.providers) == ["CPUExecutionProvider"]
    assert 0 <= time.time() - model.loaded_at.ToSeconds() < 3600


def test_inputs_and_outputs(models) -> None:
    model = found(models, "multi")
    assert [(each.name, shape_of(each)) for each in model.inputs] == [("x", ["N", 3])]
    assert [(each.name, each.datatype, shape_of(each)) for each in model.outputs] == [
        ("double", tensor_pb2.FP32, ["N", 3]),
        ("total", tensor_pb2.FP32, ["N"]),
        ("positive", tensor_pb2.BOOL, ["N", 3]),
    ]
    any_rank, scalar = found(models, "any").inputs[0], found(models, "scalar").inputs[0]
    assert (any_rank.any_rank, shape_of(any_rank)) == (True, [])
    assert (scalar.any_rank, shape_of(scalar)) == (False, [])


@pytest.mark.parametrize("name", IDENTITIES)
def test_every_datatype_is_told(models, name) -> None:
    expected = tensor_pb2.DataType.Value(IDENTITIES[name].label)
    assert found(models, name).inputs[0].datatype == expected


@pytest.mark.parametrize(("name", "enabled"), [("identity", True), ("slow", False), ("centred", False)])
def test_whether_it_is_batched_and_why(models, name, enabled) -> None:
    """`slow` is not by its model.toml, `centred` because its rows mix."""
    batching = found(models, name).batching
    assert batching.enabled is enabled
    assert batching.reason
    assert (batching.max_rows > 0) is enabled


def test_a_real_model(models) -> None:
    model = found(models, "lead_scoring")
    assert {each.name: each.datatype for each in model.inputs} == {
        "lead_source": tensor_pb2.BYTES,
        "number_of_courses_viewed": tensor_pb2.INT64,
        "annual_income": tensor_pb2.FP32,
    }
    assert "ai.onnx.ml" in model.opsets
