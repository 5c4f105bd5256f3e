"""Pages of other origins (CORS): none may call unless a setting says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock.server import Server
from penstock.transport.http.origins import Origins
from rest import kit
from rest.kit import Client
from support import zoo

ORIGIN = "https://example.com"
ROW = {"x": [1, 2, 3]}
ASK = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}


@pytest.fixture(scope="module")
def allowing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = zoo.repository(tmp_path_factory.mktemp("origins"), {"identity": zoo.identity()})
    with kit.serving(path, http_allow_origins=[ORIGIN]) as server:
        yield server


def test_none_may_call_by_default(client: Client) -> None:
    answer = client.post("/predict/identity", ROW, origin=ORIGIN)
    assert (answer.status, answer.headers.get("access-control-allow-origin")) == (200, None)
    assert client.call("OPTIONS", "/predict/identity", None, {"origin": ORIGIN, **ASK}).status == 405


def test_an_allowed_origin_may_call(allowing: Server) -> None:
    client = Client(allowing.http_port)
    asked = client.call("OPTIONS", "/predict/identity", None, {"origin": ORIGIN, **ASK})
    assert (asked.status, asked.body) == (204, b"")
    assert asked.headers["access-control-allow-origin"] == ORIGIN
    assert asked.headers["access-control-allow-headers"] == "content-type"
    assert "POST" in asked.headers["access-control-allow-methods"]
    for body, status in ((ROW, 200), ({"x": 1}, 400)):
        answer = client.post("/predict/identity", body, origin=ORIGIN)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, ORIGIN)
        assert answer.headers["vary"] == "origin"
    streamed = client.call("POST", "/predict/identity/stream", b"", {"origin": ORIGIN})
    assert streamed.headers["access-control-allow-origin"] == ORIGIN


def test_another_origin_may_not(allowing: Server) -> None:
    client = Client(allowing.http_port)
    other = {"origin": "https://example.org"}
    assert client.call("OPTIONS", "/predict/identity", None, {**other, **ASK}).status == 405
    answer = client.post("/predict/identity", ROW, **other)
    assert (answer.headers.get("access-control-allow-origin"), answer.headers["vary"]) == (None, "origin")


def test_all_may_call() -> None:
    assert dict(Origins(["*"]).headers({"origin": ORIGIN}))[b"access-control-allow-origin"] == b"*"
    assert dict(Origins(["*"]).preflight("OPTIONS", {"origin": ORIGIN, **ASK}))[
        b"access-control-allow-methods"
    ]
    assert Origins(["*"]).headers({}) == ()
