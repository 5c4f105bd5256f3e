"""Large answers are compressed where the client takes that; by real clients on real sockets."""

from __future__ import annotations

import gzip
import http.client
from collections.abc import Iterator

import pytest

from penstock.operations import OpsServer

METRICS = b"".join(b'penstock_requests_total{model="m",code="OK",number="%d"} 1.0\n' % i for i in range(500))


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = OpsServer(
        "127.0.0.1", 0, render_metrics=lambda accept: ("text/x", METRICS), ready=lambda: (True, "ok")
    )
    yield server.start()
    server.stop()


def ask(port: int, path: str, *accepted: str, method: str = "GET") -> tuple[http.client.HTTPResponse, bytes]:
    """The answer, where each of `accepted` is sent as an Accept-Encoding header."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for value in accepted:
        connection.putheader("Accept-Encoding", value)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


@pytest.mark.parametrize(
    "accepted",
    [
        ["gzip"],
        ["GZip"],
        ["x-gzip"],
        ["deflate, gzip;q=1.0, *;q=0.5"],
        ["gzip; q=0.001"],
        ["br;q=1.0, gzip;q=0.8, identity;q=0.5"],
        ["*"],
        ["deflate", "gzip"],
        ["gzip ;Q=1"],
        ["identity;q=0, gzip"],
        ["gzip;q=0.5, identity;q=0.5"],
    ],
    ids=str,
)
def test_metrics_are_compressed_where_asked(port: int, accepted: list[str]) -> None:
    response, body = ask(port, "/metrics", *accepted)
    assert response.getheader("Content-Encoding") == "gzip"
    assert response.getheader("Content-Type") == "text/x"
    assert response.getheader("Vary") == "Accept-Encoding"
    assert int(response.getheader("Content-Length") or 0) == len(body) < len(METRICS) / 5
    assert gzip.decompress(body) == METRICS


@pytest.mark.parametrize(
    "accepted",
    [
        [],
        [""],
        ["identity"],
        ["deflate, br"],
        ["gzip;q=0"],
        ["gzip;q=0.000, deflate"],
        ["*;q=0"],
        ["gzip;q=0, *"],
        ["identity, gzip;q=0.5"],
        ["gzip;q=much"],
        ["gzip;q=nan"],
        ["gzip;q=-1"],
        ["notgzip"],
    ],
    ids=str,
)
def test_metrics_are_as_they_are_otherwise(port: int, accepted: list[str]) -> None:
    response, body = ask(port, "/metrics", *accepted)
    assert response.getheader("Content-Encoding") is None
    assert response.getheader("Vary") == "Accept-Encoding"
    assert body == METRICS


def test_head_says_what_get_would_send(port: int) -> None:
    got, body = ask(port, "/metrics", "gzip")
    head, nothing = ask(port, "/metrics", "gzip", method="HEAD")
    assert nothing == b""
    assert head.getheader("Content-Length") == got.getheader("Content-Length") == str(len(body))
    assert head.getheader("Content-Encoding") == "gzip"


@pytest.mark.parametrize("path", ["/readyz", "/livez", "/", "/nothing"])
def test_small_answers_are_not_worth_it(port: int, path: str) -> None:
    response, body = ask(port, path, "gzip")
    assert response.getheader("Content-Encoding") is None
    assert body.isascii()
