"""Asking about the server and its models."""

from __future__ import annotations

from typing import Any

import numpy as np
import tritonclient.grpc as triton
from checking import connected, refused, tensor, x
from tritonclient.grpc import service_pb2 as pb

DATATYPES = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16",
             "FP32", "FP64", "BYTES")  # fmt: skip


def check_health(target: str) -> None:
    with connected(target) as client:
        assert client.is_server_live() is True
        assert client.is_server_ready() is True
        assert client.is_model_ready("identity") is True
        assert client.is_model_ready("scale", "2") is True


def check_unknown_models_are_not_ready(target: str) -> None:
    """As Triton has it: an answer, not an error."""
    with connected(target) as client:
        assert client.is_model_ready("nobody") is False
        assert client.is_model_ready("scale", "99") is False


def check_server_metadata(target: str) -> None:
    with connected(target) as client:
        metadata = client.get_server_metadata()
        assert metadata.name == "penstock"
        assert metadata.version
        assert {"classification", "model_configuration", "statistics"} <= set(metadata.extensions)
        assert client.get_server_metadata(as_json=True)["name"] == "penstock"


def check_model_metadata(target: str) -> None:
    with connected(target) as client:
        metadata = client.get_model_metadata("multi")
        assert (metadata.name, list(metadata.versions)) == ("multi", ["1"])
        assert [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs] == [
            ("x", "FP32", [-1, 3])
        ]
        assert [(each.name, each.datatype, list(each.shape)) for each in metadata.outputs] == [
            ("double", "FP32", [-1, 3]),
            ("total", "FP32", [-1]),
            ("positive", "BOOL", [-1, 3]),
        ]
        assert sorted(client.get_model_metadata("scale").versions) == ["1", "10", "2"]
        assert list(client.get_model_metadata("scalar").inputs[0].shape) == []
        assert list(client.get_model_metadata("alone").inputs[0].shape) == [-1, 3]
        refused(lambda: client.get_model_metadata("nobody"), "NOT_FOUND", "nobody")
        refused(lambda: client.get_model_metadata("scale", "99"), "NOT_FOUND", "99")


def check_metadata_of_every_datatype(target: str) -> None:
    with connected(target) as client:
        for datatype in DATATYPES:
            metadata = client.get_model_metadata(f"identity_{datatype.lower()}")
            assert [each.datatype for each in (*metadata.inputs, *metadata.outputs)] == [datatype] * 2
            told = client.get_model_config(f"identity_{datatype.lower()}", as_json=True)["config"]
            type_name = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
            assert [each["data_type"] for each in (*told["input"], *told["output"])] == [type_name] * 2


def check_model_config(target: str) -> None:
    with connected(target) as client:
        config = client.get_model_config("multi").config
        assert config.name == "multi"
        assert config.max_batch_size >= 32
        assert config.HasField("dynamic_batching")
        assert sum(group.count for group in config.instance_group) >= 1
        assert [list(each.dims) for each in config.input] == [[3]]
        assert {each.name: list(each.dims) for each in config.output}["double"] == [3]
        told = client.get_model_config("identity_bytes", as_json=True)["config"]
        assert told["input"][0]["data_type"] == "TYPE_STRING"
        refused(lambda: client.get_model_config("nobody"), "NOT_FOUND", "nobody")


def check_config_of_what_is_not_batched(target: str) -> None:
    """Its shapes are whole, and its batch size is 0: what Triton calls a model without batches."""
    with connected(target) as client:
        for name, dims in {"alone": [-1, 3], "scalar": []}.items():
            config = client.get_model_config(name).config
            assert config.max_batch_size == 0
            assert list(config.input[0].dims) == dims
            assert not config.HasField("dynamic_batching")


def statistics(client: triton.InferenceServerClient, name: str, version: str = "") -> Any:
    [found] = client.get_inference_statistics(name, version).model_stats
    return found


def check_statistics_count_rows_and_requests(target: str) -> None:
    with connected(target) as client:
        before = statistics(client, "counted")
        for _ in range(5):
            client.infer("counted", x(1, 2))
        after = statistics(client, "counted")
        assert after.inference_count - before.inference_count == 10
        assert 1 <= after.execution_count - before.execution_count <= 5
        old, new = before.inference_stats, after.inference_stats
        assert new.success.count - old.success.count == 5
        assert new.fail.count == old.fail.count
        for field in ("queue", "compute_input", "compute_infer", "compute_output"):
            assert getattr(new, field).count - getattr(old, field).count == 5, field
        assert new.success.ns > new.compute_infer.ns > old.compute_infer.ns
        parts = (new.queue, new.compute_input, new.compute_infer, new.compute_output)
        assert sum(part.ns for part in parts) <= new.success.ns
        assert after.last_inference > 1_700_000_000_000


def check_statistics_of_batches(target: str) -> None:
    with connected(target) as client:
        client.infer("counted", x(1, 2, 3))
        stats = statistics(client, "counted")
        batches = {each.batch_size: each for each in stats.batch_stats}
        assert 3 in batches
        assert sum(each.compute_infer.count for each in batches.values()) == stats.execution_count
        assert batches[3].compute_infer.ns > 0


def check_statistics_of_failures(target: str) -> None:
    with connected(target) as client:
        before = statistics(client, "fails_counted")
        bad = [tensor("x", np.array([[100]]), "INT64")]
        refused(lambda: client.infer("fails_counted", bad), "INTERNAL")
        after = statistics(client, "fails_counted")
        assert after.inference_stats.fail.count - before.inference_stats.fail.count == 1
        assert after.inference_count == before.inference_count


def check_statistics_of_all_models(target: str) -> None:
    with connected(target) as client:
        stats = client.get_inference_statistics().model_stats
        assert {("identity", "1"), ("scale", "10")} <= {(each.name, each.version) for each in stats}
        assert [each.version for each in client.get_inference_statistics("scale", "2").model_stats] == ["2"]
        assert (
            client.get_inference_statistics("identity", as_json=True)["model_stats"][0]["name"] == "identity"
        )
        refused(lambda: client.get_inference_statistics("nobody"), "NOT_FOUND", "nobody")


def check_index(target: str) -> None:
    with connected(target) as client:
        index = client.get_model_repository_index().models
        found = {(each.name, each.version): each.state for each in index}
        assert {("scale", "1"), ("scale", "2"), ("scale", "10"), ("many_19", "1")} <= set(found)
        assert set(found.values()) == {"READY"}
        assert len(found) == len(index) > 40


def check_loading_is_refused(target: str) -> None:
    with connected(target) as client:
        assert refused(lambda: client.load_model("identity"), "FAILED_PRECONDITION").message()
        assert refused(lambda: client.unload_model("identity"), "FAILED_PRECONDITION").message()
        assert client.is_model_ready("identity")


def check_what_is_not_served_says_so(target: str) -> None:
    with connected(target) as client:
        calls = {
            "memory": [
                client.get_system_shared_memory_status,
                lambda: client.register_system_shared_memory("r", "/r", 24),
                client.unregister_system_shared_memory,
                client.get_cuda_shared_memory_status,
                lambda: client.register_cuda_shared_memory("r", b"aGFuZGxl", 0, 24),
                client.unregister_cuda_shared_memory,
            ],
            "trac": [client.get_trace_settings, lambda: client.update_trace_settings(settings={})],
            "log": [client.get_log_settings, lambda: client.update_log_settings({"log_info": True})],
        }
        for word, those in calls.items():
            for call in those:
                refused(call, "UNIMPLEMENTED", word)


def check_tensors_in_shared_memory_are_refused(target: str) -> None:
    with connected(target) as client:
        given = triton.InferInput("x", [1, 3], "FP32")
        given.set_shared_memory("r", 12)
        refused(lambda: client.infer("identity", [given]), "INVALID_ARGUMENT", "memory")
        wanted = triton.InferRequestedOutput("y")
        wanted.set_shared_memory("r", 12)
        refused(lambda: client.infer("identity", x(), outputs=[wanted]), "INVALID_ARGUMENT", "memory")


def check_unknown_fields_are_passed_over(target: str) -> None:
    """Clients newer than we are may say more."""
    with connected(target) as client:
        request = pb.ModelMetadataRequest(name="identity")
        request.MergeFromString(b"\xa2\x06\x03new")  # field 100
        assert client._client_stub.ModelMetadata(request).name == "identity"
