"""The Open Inference Protocol over HTTP: what it answers is what gRPC answers to the same request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest

from penstock.core.tensors import DataType, Kind
from penstock.protocols.rest import infer_decoder
from penstock.protocols.tensors import pack_bytes
from penstock.server import Server
from penstock_proto.inference import grpc_service_pb2 as pb
from penstock_proto.inference import grpc_service_pb2_grpc as pb_grpc
from protocols.test_known_requests import Server as ServiceOfOne
from protocols.test_known_requests import add
from rest import kit
from rest.kit import Answer, Client
from support import zoo
from support.dtypes import SMALL

LEAD = {
    "lead_source": ("BYTES", [["paid_ads"], ["ü"]]),
    "number_of_courses_viewed": ("INT64", [[2], [9]]),
    "annual_income": ("FP32", [[79276.0], [1.5]]),
}
ROW = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}


@pytest.fixture(scope="module")
def stub(rest_server: Server) -> Iterator[Any]:
    with grpc.insecure_channel(f"127.0.0.1:{rest_server.port}") as channel:
        yield pb_grpc.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]


def raw(datatype: DataType, array: np.ndarray) -> bytes:
    return pack_bytes(array) if datatype is DataType.BYTES else array.astype(datatype.dtype).tobytes()


def by_grpc(stub: Any, model: str, inputs: Mapping[str, tuple[DataType, np.ndarray]], **more: Any) -> Any:
    """The outputs, by name: datatype, shape and raw bytes."""
    request = pb.ModelInferRequest(model_name=model, **more)
    for name, (datatype, array) in inputs.items():
        request.inputs.add(name=name, datatype=datatype.label, shape=array.shape)
        request.raw_input_contents.append(raw(datatype, array))
    answer = stub.ModelInfer(request, timeout=kit.BOUND)
    pairs = zip(answer.outputs, answer.raw_output_contents, strict=True)
    return {each.name: (each.datatype, list(each.shape), data) for each, data in pairs}


def binary_request(
    inputs: Mapping[str, tuple[DataType, np.ndarray]], **more: Any
) -> tuple[bytes, dict[str, str]]:
    """A body with its inputs as binary data, and its headers."""
    tensors, tail = [], []
    for name, (datatype, array) in inputs.items():
        data = raw(datatype, array)
        size = {"binary_data_size": len(data)}
        tensors.append({"name": name, "shape": array.shape, "datatype": datatype.label, "parameters": size})
        tail.append(data)
    head = json.dumps({"inputs": tensors, **more}).encode()
    return b"".join((head, *tail)), {"inference-header-content-length": str(len(head))}


def outputs_of(answer: Answer) -> dict[str, tuple[str, list[int], bytes]]:
    """The same as `by_grpc`, of an answer over HTTP."""
    assert answer.status == 200, answer.body
    size = answer.headers.get("inference-header-content-length")
    body = answer.body if size is None else answer.body[: int(size)]
    tail = b"" if size is None else answer.body[int(size) :]
    found, start = {}, 0
    for each in json.loads(body)["outputs"]:
        datatype = next(one for one in DataType if one.label == each["datatype"])
        if "data" in each:
            data = raw(datatype, array_of(datatype, each["data"]))
        else:
            end = start + each["parameters"]["binary_data_size"]
            data, start = tail[start:end], end
        found[each["name"]] = (each["datatype"], each["shape"], data)
    assert start == len(tail)
    return found


def array_of(datatype: DataType, values: list[Any]) -> np.ndarray:
    if datatype in SMALL:
        return np.array(values, np.float64).astype(SMALL[datatype]).view(datatype.dtype)
    return np.array(values, datatype.dtype)


@pytest.mark.parametrize("datatype", DataType, ids=str)
def test_every_datatype_in_both_encodings(client: Client, stub: Any, datatype: DataType) -> None:
    values: Any = [[0, 1, 2], [2, 1, 0]]
    if datatype in (DataType.FP32, DataType.FP64, DataType.FP16):
        values = [[0.5, np.nan, 1e-3], [-0.0, np.inf, -np.inf]]
    elif datatype.kind is Kind.BYTES:
        values = [["a", "", "null"], ["ü", "NaN", "\n"]]
    array = array_of(datatype, values)
    model = f"identity_{datatype.label.lower()}"
    expected = by_grpc(stub, model, {"x": (datatype, array)})
    path = f"/v2/models/{model}/infer"
    body, headers = binary_request({"x": (datatype, array)}, parameters={"binary_data_output": True})
    answer = client.call("POST", path, body, headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert outputs_of(answer) == expected
    words = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    data = [words.get(str(each), each) for each in np.array(values, object).ravel().tolist()]
    if datatype is DataType.BOOL:
        data = list(map(bool, data))
    tensor = {"name": "x", "shape": [2, 3], "datatype": datatype.label, "data": data}
    answer = client.post(path, {"inputs": [tensor]})
    assert answer.headers["content-type"] == "application/json"
    if datatype is DataType.BOOL:
        assert answer.json["outputs"][0]["data"] == data
    assert outputs_of(answer) == expected


def test_several_inputs_mixed_encodings_and_an_id(client: Client, stub: Any) -> None:
    arrays = {
        name: (DataType[datatype], np.array(values, DataType[datatype].dtype))
        for name, (datatype, values) in LEAD.items()
    }
    expected = by_grpc(stub, "lead_scoring", arrays)
    whole = {
        "id": "7",
        "inputs": [
            {"name": name, "shape": [2, 1], "datatype": datatype, "data": values}
            for name, (datatype, values) in LEAD.items()
        ],
        "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "label"}],
    }
    answer = client.post("/v2/models/lead_scoring/versions/1/infer", whole)
    assert outputs_of(answer) == expected
    head = json.loads(answer.body[: int(answer.headers["inference-header-content-length"])])
    assert (head["id"], head["model_name"], head["model_version"]) == ("7", "lead_scoring", "1")
    assert "data" in head["outputs"][0]
    assert head["outputs"][1]["parameters"] == {"binary_data_size": 16}


@pytest.mark.parametrize("id", ["7", "a\r\nb: c", "ü€", "\0"])
def test_an_id_of_any_characters_comes_back(client: Client, id: str) -> None:
    answer = client.post("/v2/models/identity/infer", {"id": id, "inputs": [ROW]})
    assert (answer.status, answer.json["id"]) == (200, id)
    assert "b" not in answer.headers


@pytest.mark.parametrize("binary", [False, True])
def test_classification(client: Client, stub: Any, binary: bool) -> None:
    array = np.array([[3, 1, 2], [0, 5, 4]], np.float32)
    request = pb.ModelInferRequest(model_name="identity")
    request.inputs.add(name="x", datatype="FP32", shape=array.shape)
    request.raw_input_contents.append(array.tobytes())
    request.outputs.add(name="y").parameters["classification"].int64_param = 2
    answer = stub.ModelInfer(request, timeout=kit.BOUND)
    outputs = [{"name": "y", "parameters": {"classification": 2, "binary_data": binary}}]
    tensor = {**ROW, "shape": [2, 3], "data": array.tolist()}
    came = client.post("/v2/models/identity/infer", {"inputs": [tensor], "outputs": outputs})
    assert outputs_of(came) == {"y": ("BYTES", [2, 2], answer.raw_output_contents[0])}


def test_a_sequence_by_parameters(client: Client) -> None:
    def step(x: int, **parameters: Any) -> Answer:
        tensor = {"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [x]}
        return client.post("/v2/models/running_sum/infer", {"inputs": [tensor], "parameters": parameters})

    assert step(1, sequence_id=42, sequence_start=True).json["outputs"][0]["data"] == [1]
    assert step(2, sequence_id=42, sequence_end=True).json["outputs"][0]["data"] == [3]
    assert step(2, sequence_id=42).status == 409
    assert step(2).status == 400


def test_priority_and_timeout(client: Client) -> None:
    tensor = {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1]}
    path = "/v2/models/slow/infer"
    assert client.post(path, {"inputs": [tensor], "parameters": {"timeout": 1}}).status == 504
    good = {"timeout": 10_000_000, "priority": 1}
    assert client.post(path, {"inputs": [tensor], "parameters": good}).status == 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "is not JSON"),
        ([], "the body is a list, expected an object"),
        ({}, "input x is missing: expected x FP32[N,3]; got none"),
        ({"inputs": {}}, "inputs is an object, expected a list"),
        ({"inputs": [1]}, "inputs[0] is a number, expected an object"),
        ({"inputs": [{}]}, "a tensor in inputs has no name"),
        ({"inputs": [ROW, ROW]}, "input x appears twice"),
        ({"inputs": [{**ROW, "name": "z"}]}, "there is no input z: expected x FP32[N,3]; got z"),
        ({"inputs": [{**ROW, "shape": [1, 2]}]}, "input x has shape [1, 2], expected x FP32[N,3]"),
        ({"inputs": [{**ROW, "shape": [2, 3]}]}, "input x has 3 values, but shape [2, 3] needs 6"),
        ({"inputs": [{**ROW, "shape": [-1, 3]}]}, "input x has shape [-1, 3], expected x FP32[N,3]"),
        ({"inputs": [{**ROW, "shape": "x"}]}, "input x has shape x, expected x FP32[N,3]"),
        ({"inputs": [{**ROW, "datatype": "FP64"}]}, "input x has datatype FP64, expected FP32"),
        ({"inputs": [{**ROW, "data": 1}]}, "data of input x is a number, expected a list"),
        ({"inputs": [{**ROW, "data": [1, "a", 2]}]}, 'the value "a" at position 1 is a text, expected FP32'),
        ({"inputs": [{**ROW, "parameters": {"binary_data_size": 12}}]}, "has both data and binary_data_size"),
        ({"inputs": [{**ROW, "parameters": {"shared_memory_region": "r"}}]}, "is in shared memory"),
        ({"inputs": [ROW], "outputs": [{"name": "z"}]}, "there is no output z; identity version 1 has y"),
        ({"inputs": [ROW], "parameters": {"priority": "high"}}, "parameter priority is string_param"),
        ({"inputs": [ROW], "parameters": {"priority": [1]}}, "parameter priority is a list"),
        ({"inputs": [ROW], "parameters": {"triton_x": 1}}, "names that start with triton_ are reserved"),
        ({"inputs": [ROW], "parameters": {"binary_data_output": 1}}, "expected true or false"),
        ({"inputs": [ROW], "id": 5}, "id is a number, expected a text"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(client: Client, body: Any, words: str) -> None:
    answer = client.post("/v2/models/identity/infer", body)
    assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
    assert words in answer.json["error"]
    assert answer.json["error"] == answer.json["detail"]


@pytest.mark.parametrize(
    ("size", "sizes", "words"),
    [
        ("99999", None, "expected the size of the JSON"),
        ("x", None, "expected the size of the JSON"),
        (None, 8, "4 bytes of binary data belong to no input"),
        (None, 13, "binary_data_size of input x is 13, but 12 bytes of binary data are left"),
        (None, -1, "binary_data_size of input x is -1"),
        (None, True, "binary_data_size of input x is True"),
    ],
)
def test_binary_data_that_does_not_fit(client: Client, size: str | None, sizes: Any, words: str) -> None:
    tensor = {"name": "x", "shape": [1, 2 if sizes == 8 else 3], "datatype": "FP32"}
    model = "wide" if sizes == 8 else "identity"
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": sizes}}]}).encode()
    headers = {"inference-header-content-length": size or str(len(head))}
    answer = client.call("POST", f"/v2/models/{model}/infer", head + bytes(12), headers)
    assert answer.status == 400
    assert words in answer.json["error"]


def test_the_server_and_its_models(client: Client, stub: Any) -> None:
    assert client.get("/v2/health/live").json == {"live": True}
    assert client.get("/v2/health/ready").json == {"ready": True}
    about = client.get("/v2").json
    assert about["name"] == "penstock"
    assert {"binary_tensor_data", "classification", "sequence"} <= set(about["extensions"])
    assert client.get("/v2/models/scale").json == {
        "name": "scale",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
    } | {key: value for key, value in client.get("/v2/models/scale").json.items() if key == "properties"}
    assert client.get("/v2/models/scale/versions/2").json["versions"] == ["2"]
    config = client.get("/v2/models/identity/config").json
    assert (config["name"], config["max_batch_size"] > 1) == ("identity", True)
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    for path in ("/v2/models/identity/ready", "/v2/models/identity/versions/1/ready"):
        assert client.get(path).status == 200
    assert client.get("/v2/models/nothing/ready").status == 503
    assert client.get("/v2/models/nothing").status == 404
    assert "error" in client.get("/v2/nothing").json


def test_statistics_are_numbers(client: Client) -> None:
    client.post("/v2/models/identity/infer", {"inputs": [ROW]})
    (found,) = client.get("/v2/models/identity/versions/1/stats").json["model_stats"]
    assert found["inference_stats"]["success"]["count"] >= 1
    assert len(client.get("/v2/models/stats").json["model_stats"]) > 10


def test_the_repository(client: Client) -> None:
    index = client.post("/v2/repository/index", b"").json
    assert {"name": "scale", "version": "2", "state": "READY", "reason": ""} in index
    assert client.post("/v2/repository/index", {"ready": True}).json == index
    assert client.post("/v2/repository/index", {"ready": 1}).status == 400
    for what in ("load", "unload"):
        answer = client.post(f"/v2/repository/models/scale/{what}", b"")
        assert (answer.status, "cannot be loaded" in answer.json["error"]) == (409, True)


def test_a_shape_that_is_left_out_is_named(client: Client) -> None:
    tensor = {"name": "x", "datatype": "FP32", "data": [1, 2, 3]}
    answer = client.post("/v2/models/identity/infer", {"inputs": [tensor]})
    assert (answer.status, answer.json["error"]) == (400, "input x has no shape, expected x FP32[N,3]")


def test_equal_requests_get_equal_answers(tmp_path: Path) -> None:
    """Where an input lay behind the others in the binary data decided how a sum was rounded, from the second
    request with the same JSON on."""
    random = np.random.default_rng(1)
    repository = zoo.repository(tmp_path, {"summed": zoo.summed_beside(37)})
    with kit.serving(repository) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
        for number in range(20):
            x = random.standard_normal((1, 37)) * 10.0 ** random.integers(-3, 3, (1, 37))
            inputs = {"first": np.zeros((1, 3), np.float32), "x": x.astype(np.float32)}
            sent = {name: (DataType.FP32, array) for name, array in inputs.items()}
            body, headers = binary_request(sent, parameters={"binary_data_output": True, f"n{number}": 1})
            answers = [
                outputs_of(Client(server.http_port).call("POST", "/v2/models/summed/infer", body, headers))
                for _ in range(3)
            ]
            assert answers == [by_grpc(stub, "summed", sent)] * 3


def test_json_that_is_forgotten_meanwhile_is_parsed() -> None:
    """Workers learn JSON as well: with the 257th, all that was known is forgotten, at any time."""
    model = ServiceOfOne(add).model
    inputs = {"x": (DataType.FP32, np.ones((1, 2))), "w": (DataType.INT64, np.ones(1))}
    body, headers = binary_request(inputs)
    call: Any = SimpleNamespace(headers=headers, parameters={"model": "m"}, metadata=())
    for forgets in (False, False, True):
        decoded = infer_decoder.decode(body)
        decoded.came_by(call)
        if forgets:
            infer_decoder._known_json.clear()
            model.attachments.clear()
        found = decoded.contents(model).inputs
        assert {name: array.tolist() for name, array in found.items()} == {"x": [[1, 1]], "w": [1]}
