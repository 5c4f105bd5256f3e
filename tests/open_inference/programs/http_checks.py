"""Asks a server by tritonclient over HTTP and over gRPC, and compares: `http_checks.py HTTP GRPC`.

Prints JSON: what is wrong with each check, "" where nothing is.
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from typing import Any

import numpy as np
import tritonclient.grpc as by_grpc
import tritonclient.http as by_http
import tritonclient.http.aio as by_aio
from tritonclient.utils import InferenceServerException

HTTP, GRPC = sys.argv[1:3]
DTYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BYTES": np.object_,
}  # fmt: skip


def values_of(label: str) -> np.ndarray:
    if label == "BYTES":
        return np.array([["a", "", "ü"]], np.object_)
    return np.array([[0, 1, 1]], DTYPES[label])


def asked(kind: Any, label: str, array: np.ndarray, **how: Any) -> list[Any]:
    made = kind.InferInput("x", list(array.shape), label)
    made.set_data_from_numpy(array, **how)
    return [made]


def same(one: Any, other: Any, name: str = "y") -> None:
    found, expected = one.as_numpy(name), other.as_numpy(name)
    if expected.dtype == np.object_:  # of JSON, the client gives texts instead of bytes
        found = np.array(
            [each.encode() if isinstance(each, str) else each for each in found.flat], np.object_
        )
        expected = expected.ravel()
    np.testing.assert_array_equal(found, expected)


def check_datatypes(client: Any, peer: Any) -> None:
    for label in DTYPES:
        model, array = f"identity_{label.lower()}", values_of(label)
        expected = peer.infer(model, asked(by_grpc, label, array))
        same(client.infer(model, asked(by_http, label, array)), expected)
        if label != "FP16":  # the client sends it as binary data only
            same(client.infer(model, asked(by_http, label, array, binary_data=False)), expected)
            outputs = [by_http.InferRequestedOutput("y", binary_data=False)]
            same(
                client.infer(model, asked(by_http, label, array, binary_data=False), outputs=outputs),
                expected,
            )


def check_outputs(client: Any, peer: Any) -> None:
    array = np.array([[1, 2, 3]], np.float32)
    both = [by_http.InferRequestedOutput("y", binary_data=False, class_count=2)]
    answer = client.infer("identity", asked(by_http, "FP32", array), outputs=both, request_id="7")
    expected = peer.infer(
        "identity", asked(by_grpc, "FP32", array), outputs=[by_grpc.InferRequestedOutput("y", class_count=2)]
    )
    assert [each.encode() for each in answer.as_numpy("y").ravel()] == expected.as_numpy("y").ravel().tolist()
    assert answer.get_response()["id"] == "7"


def check_compression(client: Any, peer: Any) -> None:
    array = np.zeros((2000, 3), np.float32)
    for coding in ("gzip", "deflate"):
        answer = client.infer(
            "identity",
            asked(by_http, "FP32", array),
            request_compression_algorithm=coding,
            response_compression_algorithm=coding,
        )
        np.testing.assert_array_equal(answer.as_numpy("y"), array)


def check_parameters(client: Any, peer: Any) -> None:
    array = np.array([[1, 2, 3]], np.float32)
    client.infer("identity", asked(by_http, "FP32", array), priority=1, timeout=10_000_000)
    try:
        client.infer("identity", asked(by_http, "FP32", array), timeout=1)
    except InferenceServerException as error:
        words = error.message()
    else:
        words = "it was answered"
    assert "deadline" in words, words


def check_async(client: Any, peer: Any) -> None:
    array = np.array([[1, 2, 3]], np.float32)
    waiting = [client.async_infer("identity", asked(by_http, "FP32", array * n)) for n in range(20)]
    for n, each in enumerate(waiting):
        np.testing.assert_array_equal(each.get_result().as_numpy("y"), array * n)


def check_errors(client: Any, peer: Any) -> None:
    array = np.array([[1, 2]], np.float32)
    words = []
    for kind, each in ((by_http, client), (by_grpc, peer)):
        try:
            each.infer("identity", asked(kind, "FP32", array))
        except InferenceServerException as error:
            words.append(error.message())
    assert len(set(words)) == 1, words


def check_metadata(client: Any, peer: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("identity")
    assert not client.is_model_ready("nothing")
    assert client.get_server_metadata()["name"] == peer.get_server_metadata().name
    found, expected = client.get_model_metadata("identity"), peer.get_model_metadata("identity", as_json=True)
    assert [each["name"] for each in found["inputs"]] == [each["name"] for each in expected["inputs"]]
    assert [str(n) for n in found["inputs"][0]["shape"]] == expected["inputs"][0]["shape"]
    config = peer.get_model_config("identity", as_json=True)["config"]
    assert client.get_model_config("identity")["max_batch_size"] == config["max_batch_size"]
    assert client.get_inference_statistics("identity")["model_stats"][0]["name"] == "identity"
    index = peer.get_model_repository_index(as_json=True)["models"]
    assert [each["name"] for each in client.get_model_repository_index()] == [each["name"] for each in index]


def check_aio(client: Any, peer: Any) -> None:
    async def ask() -> None:
        async with by_aio.InferenceServerClient(HTTP) as each:
            array = np.array([[1, 2, 3]], np.float32)
            answers = await asyncio.gather(
                *(each.infer("identity", asked(by_http, "FP32", array * n)) for n in range(20))
            )
            for n, answer in enumerate(answers):
                np.testing.assert_array_equal(answer.as_numpy("y"), array * n)

    asyncio.run(ask())


def main() -> None:
    client, peer = by_http.InferenceServerClient(HTTP, concurrency=8), by_grpc.InferenceServerClient(GRPC)
    said = {}
    for name, check in sorted(globals().items()):
        if name.startswith("check_"):
            try:
                check(client, peer)
                said[name] = ""
            except Exception:
                said[name] = traceback.format_exc()
    print(json.dumps(said))


if __name__ == "__main__":
    main()
