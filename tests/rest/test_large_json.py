"""Large JSON is read and written in pieces, so that other calls do not wait for it."""

from __future__ import annotations

import gc
import gzip
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import InvalidRequest
from penstock.core.tensors import DataType, TensorSpec
from penstock.protocols.rest import errors, pieces, values
from penstock.server import Server
from penstock_proto.v1 import prediction_pb2 as pb
from rest import kit
from rest.kit import Client
from support import zoo

TEXTS = st.text(st.sampled_from('a"\\,:[]{} é'), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=40,
)


def whole(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return ValueError


def in_pieces(data: bytes, piece: int) -> Any:
    try:
        return pieces.loads(data, piece)
    except pieces.NotJson:
        return ValueError


@settings(deadline=None)
@given(JSON, st.integers(4, 40), st.sampled_from([None, 1]))
def test_pieces_make_the_same_value(value: Any, piece: int, indent: int | None) -> None:
    data = json.dumps(value, indent=indent).encode()
    assert orjson.dumps(in_pieces(data, piece)) == orjson.dumps(whole(data))


@settings(deadline=None)
@given(JSON, st.integers(4, 40), st.integers(0, 10**6), st.sampled_from([*b',][}{":1\\ ', None]))
def test_pieces_are_json_only_if_the_whole_is(value: Any, piece: int, place: int, byte: int | None) -> None:
    data = bytearray(json.dumps(value).encode())
    place %= len(data)
    data[place : place + (byte is None)] = b"" if byte is None else bytes([byte])
    found, expected = in_pieces(bytes(data), piece), whole(bytes(data))
    assert (found is ValueError) == (expected is ValueError)
    if found is not ValueError:
        assert orjson.dumps(found) == orjson.dumps(expected)


@pytest.mark.parametrize(
    ("data", "place"),
    [(b"[1,1,1,1,1,1,x]", 13), (b"[1,1,1,1,,1,1,1]", 9), (b"[1,1,1,1,1,1,]", 12), (b"[[[[[[[[1}]]]]]]]", 9)],
)
def test_errors_name_the_place(data: bytes, place: int) -> None:
    with pytest.raises(pieces.NotJson, match=rf"char {place}$"):
        pieces.loads(data, 4)


def test_a_key_that_comes_twice_counts_once() -> None:
    assert pieces.loads(b'{"a":[1,2,3],"b":[2,2,2],"a":[3,4,5,6,7]}', 5) == {
        "a": [3, 4, 5, 6, 7],
        "b": [2, 2, 2],
    }


def test_what_is_nested_too_deeply_is_an_error_of_the_request() -> None:
    data = b"[" * 2**20 + b"]" * 2**20
    with pytest.raises(InvalidRequest, match=r"nested too deeply|recursion|depth"):
        errors.parsed(data)


def test_the_collector_is_on_again_after_large_json() -> None:
    data = b"[" + b"1," * errors.AT_ONCE + b"1]"
    assert errors.parsed(data) == [1] * (errors.AT_ONCE + 1)
    with pytest.raises(InvalidRequest, match=r"not JSON: .* char 5242\d\d$"):
        errors.parsed(data[:-1])
    assert gc.isenabled()


def test_large_values_are_let_go_bit_by_bit() -> None:
    held: Any = {"a": [[n] * 3 for n in range(50_000)], "b": "x", "c": [[[1] * 20_000]]}
    inner = held["a"]
    pieces.let_go(held)
    assert held == {}
    assert inner == []


FP32 = TensorSpec("x", DataType.FP32, ("N",))


def test_a_value_that_does_not_fit_is_named_by_its_place_in_the_whole() -> None:
    given_values: list[Any] = [1.5] * 50_000
    given_values[40_000] = 1e300
    with pytest.raises(InvalidRequest, match="at position 40000 does not fit"):
        values.array_of(FP32, given_values)
    given_values[40_000] = "true"
    with pytest.raises(InvalidRequest, match="at position 40000 is a text"):
        values.array_of(FP32, given_values)
    given_values[40_000] = True
    assert values.array_of(FP32, given_values)[39_999:40_002].tolist() == [1.5, 1.0, 1.5]
    with pytest.raises(InvalidRequest, match="at position 40000 does not fit"):
        values.array_of(TensorSpec("x", DataType.INT32, ("N",)), [1] * 40_000 + [1.5])


@pytest.mark.parametrize("shape", [(100_000,), (50_000, 2), (2, 3, 30_000), (0, 70_000), (1, 20_000, 0)])
def test_large_arrays_are_written_as_small_ones(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 7
    if array.size:
        array.flat[-1] = np.nan
    written = orjson.loads(values.dumped({"y": values.in_pieces(array)}))["y"]
    if array.size:
        last = written
        while isinstance(last[-1], list):
            last = last[-1]
        assert last[-1] == "NaN"
        last[-1] = np.nan
    np.testing.assert_array_equal(np.array(written, np.float32).reshape(shape), array)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = {"wide": zoo.identity(DataType.FP32, ("N", "L")), "text": zoo.identity(DataType.BYTES)}
    models |= {"identity": zoo.identity()}
    with kit.serving(zoo.repository(tmp_path_factory.mktemp("large"), models)) as made:
        yield made


def rows(count: int, width: int) -> list[list[float]]:
    return (np.arange(count * width, dtype=np.float32).reshape(count, width) / 8).tolist()


@pytest.mark.parametrize(("count", "width"), [(70_000, 2), (3, 40_000), (1, 100_000)])
def test_large_requests_in_each_form(server: Server, count: int, width: int) -> None:
    client, data = Client(server.http_port), rows(count, width)
    answer = client.post("/predict/wide", {"inputs": {"x": data}})
    assert answer.json == {"outputs": {"y": data}}
    answer = client.post("/predict/wide", {"instances": data})
    assert answer.json == {"predictions": [{"y": each} for each in data]}
    assert client.post("/predict/wide", {"x": data[0]}).json == {"y": data[0]}
    tensor = {"name": "x", "datatype": "FP32", "shape": [count, width], "data": data}
    [found] = client.post("/v2/models/wide/infer", {"inputs": [tensor]}).json["outputs"]
    assert found["data"] == [each for row in data for each in row]


def test_large_texts(server: Server) -> None:
    client, data = Client(server.http_port), [['a"\\,[', "é", str(n)] for n in range(30_000)]
    answer = client.post("/predict/text", {"inputs": {"x": data}}, accept_encoding="gzip")
    assert answer.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(answer.body)) == {"outputs": {"y": data}}


def test_the_limit_of_json_is_not_that_of_binary_data(tmp_path: Path) -> None:
    path = zoo.repository(tmp_path, {"wide": zoo.identity(DataType.FP32, ("N", "L"))})
    with kit.serving(path, http_max_json_bytes=1000, http_max_body_bytes=100_000) as server:
        client = Client(server.http_port)
        large = json.dumps({"x": [1] * 500}).encode()
        tensor = {
            "name": "x",
            "datatype": "FP32",
            "shape": [1, 10_000],
            "parameters": {"binary_data_size": 40_000},
        }
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        answers = [
            client.call("POST", "/predict/wide", large),
            client.call("POST", "/predict/wide", gzip.compress(large), {"content-encoding": "gzip"}),
            client.call("POST", "/v2/models/wide/infer", large),
            client.call(
                "POST",
                "/v2/models/wide/infer",
                head.ljust(2000) + bytes(40_000),
                {"inference-header-content-length": "2000"},
            ),
        ]
        for answer in answers:
            assert (answer.status, answer.json["code"]) == (413, "RESOURCE_EXHAUSTED")
            assert "http_max_json_bytes" in answer.json["detail"]
        sized = {"inference-header-content-length": str(len(head))}
        good = client.call("POST", "/v2/models/wide/infer", head + bytes(40_000), sized)
        assert good.status == 200
        assert good.body.endswith(bytes(40_000))
        too_large = client.call("POST", "/v2/models/wide/infer", head + bytes(100_000), sized)
        assert (too_large.status, "http_max_body_bytes" in too_large.json["detail"]) == (413, True)
        [line] = client.call("POST", "/predict/wide/stream", large).body.splitlines()
        assert json.loads(line)["error"]["status"] == 413
        for before in (b"", b"\n\n", b'{"x": [[1]]}\n\n'):
            answer = client.call("POST", "/predict/wide/stream", before + large)
            error = json.loads(answer.body.splitlines()[-1])["error"]
            assert (error["status"], error["line"]) == (413, before.count(b"\n") + 1)


@pytest.mark.alone
def test_a_call_beside_large_json_does_not_wait_for_it(server: Server) -> None:
    """16 MB of numbers take about a second; before, nothing else was answered meanwhile."""
    body = b'{"inputs":{"x":[[' + b"1," * (2**23 - 20) + b"1]]}}"  # one row: many would fill the queues
    answers: list[int] = []
    sender = threading.Thread(
        target=lambda: answers.append(Client(server.http_port).call("POST", "/predict/wide", body).status)
    )
    waits = []
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.unary_unary("/penstock.v1.PredictionService/Predict")
        message = probe()
        call(message, timeout=kit.BOUND)
        sender.start()
        while sender.is_alive():
            begun = time.monotonic()
            call(message, timeout=kit.BOUND)
            waits.append(time.monotonic() - begun)
            time.sleep(0.005)
    sender.join()
    assert answers == [200]
    assert len(waits) > 10
    assert np.median(waits) < 0.25, waits


def probe() -> bytes:
    request = pb.PredictRequest(model="identity")
    tensor = request.inputs["x"]
    tensor.float_values.extend([1.0, 2.0, 3.0])
    return request.SerializeToString()
