"""The Open Inference Protocol: what it says of the server and its models."""

from __future__ import annotations

import time
from typing import Any

import grpc
import numpy as np
import pytest

from penstock import __version__
from penstock.core.tensors import DataType
from penstock_proto.inference import grpc_service_pb2 as pb
from penstock_proto.inference import model_config_pb2 as config_pb
from server import kit, oip_kit
from server.conftest import ALONE
from server.oip_kit import X, request
from support import zoo

ONE = np.ones((1, 1), np.float32)


@pytest.fixture
def oip(channel: grpc.Channel) -> Any:
    return oip_kit.stub_of(channel)


def test_health(oip) -> None:
    assert oip.ServerLive(pb.ServerLiveRequest()).live
    assert oip.ServerReady(pb.ServerReadyRequest()).ready
    for name, version, ready in (
        ("scale", "", True),
        ("scale", "2", True),
        ("scale", "stable", True),
        ("scale", "99", False),
        ("nobody", "", False),
        ("", "", False),
    ):
        assert oip.ModelReady(pb.ModelReadyRequest(name=name, version=version)).ready is ready


def test_the_server(oip) -> None:
    answer = oip.ServerMetadata(pb.ServerMetadataRequest())
    assert (answer.name, answer.version) == ("penstock", __version__)
    assert "classification" in answer.extensions
    assert "system_shared_memory" not in answer.extensions


def test_a_models_metadata(oip) -> None:
    answer = oip.ModelMetadata(pb.ModelMetadataRequest(name="scale"))
    assert (answer.name, list(answer.versions), answer.platform) == (
        "scale",
        ["1", "2", "10"],
        "onnxruntime_onnx",
    )
    (taken,), (given,) = answer.inputs, answer.outputs
    assert (taken.name, taken.datatype, list(taken.shape)) == ("x", "FP32", [-1, 3])
    assert (given.name, given.datatype, list(given.shape)) == ("y", "FP32", [-1, 3])
    one = oip.ModelMetadata(pb.ModelMetadataRequest(name="scale", version="stable"))
    assert list(one.versions) == ["2"]
    scalar = oip.ModelMetadata(pb.ModelMetadataRequest(name="scalar"))
    assert list(scalar.inputs[0].shape) == []
    of_any_rank = oip.ModelMetadata(pb.ModelMetadataRequest(name="any"))
    assert list(of_any_rank.inputs[0].shape) == [-1]


def test_a_models_configuration(oip) -> None:
    config = oip.ModelConfig(pb.ModelConfigRequest(name="tiny_mlp")).config
    assert (config.name, config.platform, config.backend) == ("tiny_mlp", "onnxruntime_onnx", "onnxruntime")
    assert config.max_batch_size >= 32
    assert [(each.name, each.data_type, list(each.dims)) for each in config.input] == [
        ("x", config_pb.TYPE_FP32, [64])
    ]
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"
    assert config.dynamic_batching.default_priority_level == 2
    assert config.instance_group[0].count >= 1
    assert not config.model_transaction_policy.decoupled


def test_the_configuration_of_a_model_that_is_not_batched(oip) -> None:
    config = oip.ModelConfig(pb.ModelConfigRequest(name="slow")).config
    assert config.max_batch_size == 0
    assert config.WhichOneof("scheduling_choice") is None
    assert [list(each.dims) for each in config.input] == [[-1, 1]]


@pytest.mark.parametrize("label", ["BOOL", "FP16", "BF16", "INT64", "UINT8", "BYTES"])
def test_datatypes_have_the_names_of_the_configuration(oip, label) -> None:
    config = oip.ModelConfig(pb.ModelConfigRequest(name=f"identity_{label.lower()}")).config
    name = config_pb.DataType.Name(config.input[0].data_type)
    assert name == ("TYPE_STRING" if label == "BYTES" else f"TYPE_{label}")


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_what_is_not_there(oip, method) -> None:
    ask = getattr(oip, method)
    kind = getattr(pb, f"{method}Request")
    for message in (kind(name="nobody"), kind(name="scale", version="99")):
        with pytest.raises(grpc.RpcError) as refused:
            ask(message)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_the_index(oip, zoo_path) -> None:
    index = oip.RepositoryIndex(pb.RepositoryIndexRequest()).models
    versions = {(each.name, each.version): each.state for each in index}
    assert set(versions.values()) == {"READY"}
    assert {("scale", "1"), ("scale", "2"), ("scale", "10"), ("lead_scoring", "1")} <= set(versions)
    assert oip.RepositoryIndex(pb.RepositoryIndexRequest(ready=True)).models == index
    with pytest.raises(grpc.RpcError) as refused:
        oip.RepositoryIndex(pb.RepositoryIndexRequest(repository_name="other"))
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_models_are_not_loaded_and_unloaded_yet(oip, method) -> None:
    message = getattr(pb, f"{method}Request")(model_name="scale")
    with pytest.raises(grpc.RpcError) as refused:
        getattr(oip, method)(message)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "when the server starts" in refused.value.details()


@pytest.mark.parametrize(
    "method",
    [
        *[
            f"{kind}SharedMemory{what}"
            for kind in ("System", "Cuda")
            for what in ("Status", "Register", "Unregister")
        ],
        "TraceSetting",
        "LogSettings",
    ],
)
def test_what_this_server_does_not_do(oip, method) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        getattr(oip, method)(getattr(pb, f"{method}Request")())
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "this server" in refused.value.details() or "log settings" in refused.value.details()


# Statistics


def test_statistics_add_up(serve) -> None:
    running = serve({"identity": zoo.identity(), "slow": zoo.slow(20), "idle": zoo.identity()})
    with kit.connect(running.target) as channel:
        oip, own = oip_kit.stub_of(channel), kit.stub_of(channel)
        started = time.time()
        for rows in (1, 1, 3):
            oip.ModelInfer(request("identity", x=kit.rows(rows)))
        own.Predict(kit.request("identity", x=kit.rows(2)))
        kit.stream_all(channel, [kit.message(*[kit.request("identity", x=kit.rows(1)) for _ in range(10)])])
        oip_kit.stream_all(channel, [request("identity", x=X), request("identity", x=X)])
        list(oip_kit.refusals(oip, [request("identity"), request("identity", x=X[:, :1])]))
        # What is answered is counted a moment later.
        kit.wait_until(lambda: oip_kit.statistics(oip, "identity").inference_count == 21, "all is counted")
        stats = oip_kit.statistics(oip, "identity")
        took = time.time() - started
        assert abs(stats.last_inference / 1000 - time.time()) < took + 1
        assert stats.inference_count == 1 + 1 + 3 + 2 + 10 + 4
        parts = stats.inference_stats
        assert (parts.success.count, parts.fail.count) == (16, 2)
        assert 0 < parts.fail.ns < took * 1e9
        for part in (parts.queue, parts.compute_input, parts.compute_infer, parts.compute_output):
            assert part.count == 16
        whole = sum(
            part.ns for part in (parts.queue, parts.compute_input, parts.compute_infer, parts.compute_output)
        )
        assert whole == pytest.approx(parts.success.ns, rel=0.01)
        assert stats.execution_count == sum(each.compute_infer.count for each in stats.batch_stats)
        assert stats.inference_count == sum(
            each.batch_size * each.compute_infer.count for each in stats.batch_stats
        )
        oip.ModelInfer(request("slow", x=ONE))
        kit.wait_until(lambda: oip_kit.statistics(oip, "slow").inference_count == 1, "it is counted")
        slow = oip_kit.statistics(oip, "slow")
        assert slow.batch_stats[0].compute_infer.ns > 5e6, "a run takes about 20 ms"
        idle = oip_kit.statistics(oip, "idle")
        assert (idle.last_inference, idle.inference_count, idle.inference_stats.success.count) == (0, 0, 0)
        assert idle.inference_stats.HasField("cache_hit"), "clients ask for it"


def test_statistics_of_one_of_all_versions_and_of_all_models(oip) -> None:
    def asked(name: str = "", version: str = "") -> list[tuple[str, str]]:
        answer = oip.ModelStatistics(pb.ModelStatisticsRequest(name=name, version=version))
        return [(each.name, each.version) for each in answer.model_stats]

    assert asked("scale") == [("scale", "1"), ("scale", "2"), ("scale", "10")]
    assert asked("scale", "stable") == [("scale", "2")]
    index = oip.RepositoryIndex(pb.RepositoryIndexRequest()).models
    assert asked() == [(each.name, each.version) for each in index]


# Labels of classes


def test_classes_have_their_labels(tmp_path, serve) -> None:
    running = None
    path = tmp_path / "models" / "identity"
    path.mkdir(parents=True)
    (path / "names.txt").write_text("low\nmiddle\nhigh\n", encoding="utf-8")
    running = serve({"identity": zoo.identity()}, settings={"identity": '[class_labels]\ny = "names.txt"\n'})
    with kit.connect(running.target) as channel:
        wanted = [oip_kit.output("y", classification=pb.InferParameter(int64_param=2))]
        answer = oip_kit.stub_of(channel).ModelInfer(request("identity", x=X, outputs=wanted))
        assert oip_kit.arrays_of(answer)["y"].tolist() == [
            ["3.000000:2:high", "2.000000:1:middle"],
            ["6.000000:0:low", "5.000000:1:middle"],
        ]


# Stopping


def test_a_server_that_stops_is_live_and_not_ready_and_answers_what_it_took(serve) -> None:
    wide = zoo.identity(DataType.FP32, ("N", "L"))
    running = serve({"slow": zoo.slow(20), "wide": wide}, settings={"slow": ALONE})
    with kit.connect(running.target) as channel:
        unread = kit.Unread(running)
        stub = oip_kit.stub_of(channel)
        stream = oip_kit.Stream(channel)
        stream.send(*[request("slow", id=str(number), x=ONE) for number in range(4)])
        unary = stub.ModelInfer.future(request("slow", x=ONE))
        kit.wait_until(lambda: kit.accepted(running.ops, model="slow") == 5, "all are accepted")
        running.process.terminate()
        kit.wait_until(lambda: not stub.ServerReady(pb.ServerReadyRequest()).ready, "it stops")
        assert stub.ServerLive(pb.ServerLiveRequest()).live
        assert not stub.ModelReady(pb.ModelReadyRequest(name="slow")).ready
        # Calls are rejected a moment after health says so.
        kit.wait_until(
            lambda: (
                kit.code_of(lambda: stub.ModelInfer(request("slow", x=ONE), timeout=kit.BOUND))
                is grpc.StatusCode.UNAVAILABLE
            ),
            "it rejects calls",
        )
        assert unary.result(kit.BOUND).model_name == "slow"
        assert unread.read()[1] is grpc.StatusCode.UNAVAILABLE
        answers, code, _ = stream.rest_and_status()
        assert [each.infer_response.id for each in answers] == list("0123")
        assert code is grpc.StatusCode.UNAVAILABLE
        assert running.process.wait(kit.BOUND) == 0
