"""JSON that is valid and odd: deep lists, numbers beyond 64 bits, headers behind the body."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest

from rest.kit import Client, until_closed

TOO_DEEP = "nested too deeply"


def deep(levels: int = 600) -> bytes:
    return b'{"x":' + b'{"a":' * levels + b"1" + b"}" * levels + b"}"


def test_a_record_that_is_nested_deeply(client: Client) -> None:
    answer = client.call("POST", "/predict/column", deep())
    assert (answer.status, TOO_DEEP in answer.json["detail"]) == (400, True)


def test_a_line_that_is_nested_deeply(client: Client) -> None:
    row = b'{"x": 1}'
    answer = client.call("POST", "/predict/column/stream", b"\n".join([row, deep(), row]))
    first, second, third = map(json.loads, answer.body.splitlines())
    assert first == third == {"y": 1}
    assert TOO_DEEP in second["error"]["detail"]


@pytest.mark.parametrize("part", ["shape", "datatype"])
def test_an_inference_request_that_is_nested_deeply(client: Client, part: str) -> None:
    nested: Any = 1
    for _ in range(600):
        nested = [nested]
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3], part: nested}
    data = json.dumps({"inputs": [tensor]}).encode()
    answer = client.call("POST", "/v2/models/identity/infer", data)
    assert answer.status == 400


def test_a_size_of_many_digits(client: Client) -> None:
    headers = {"Inference-Header-Content-Length": "1" * 4400}
    answer = client.call("POST", "/v2/models/identity/infer", b"{}", headers)
    assert (answer.status, "expected the size of the JSON" in answer.json["detail"]) == (400, True)


@pytest.mark.parametrize(
    "value",
    [
        "-9223372036854775809",
        "-9223372036854775000.5",
        "9007199254740994.0",
        "9007199254740993.0",
        "9007199254740992.0",
    ],
)
def test_whole_numbers_that_fp64_does_not_have(client: Client, value: str) -> None:
    """The parser gives them as FP64: what was written is not known any more."""
    answer = client.call("POST", "/predict/identity_int64", f'{{"x": [{value}, 1, 2]}}'.encode())
    assert (answer.status, "does not fit INT64" in answer.json["detail"]) == (400, True)


def test_whole_numbers_of_64_bits(client: Client) -> None:
    values = [-(2**63), 2**63 - 1, 2.0**53 - 1]
    assert client.post("/predict/identity_int64", {"x": values}).json == {"y": list(map(int, values))}


def test_headers_behind_a_body_are_bounded(client: Client) -> None:
    head = b"POST /predict/identity HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    with client.raw() as raw:
        raw.sendall(head + b"0\r\n")
        sent = 0
        with suppress(OSError):  # reset, or a broken pipe
            while sent < 50_000_000:
                raw.sendall(b"a: " + b"b" * 8000 + b"\r\n")
                sent += 8000
        assert sent < 50_000_000
    assert client.post("/predict/identity", {"x": [1, 2, 3]}).status == 200


def test_a_few_headers_behind_a_body_are_fine(client: Client) -> None:
    head = (
        b"POST /predict/identity HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n"
    )
    with client.raw() as raw:
        raw.sendall(head + b'\r\n10\r\n{"x": [1, 2, 3]}\r\n0\r\na: b\r\n\r\n')
        assert until_closed(raw).startswith(b"HTTP/1.1 200 ")
