"""`/metrics` compressed, of one process and of several."""

from __future__ import annotations

import gzip
import sys
import urllib.request

import pytest

from server import kit
from server.conftest import Serve
from support import zoo


@pytest.fixture
def transport() -> str:
    """One transport is enough: gRPC has no part in it."""
    return "reactor"


def metrics(ops: str, **headers: str) -> tuple[bytes, str | None]:
    with urllib.request.urlopen(
        urllib.request.Request(f"{ops}/metrics", headers=headers), timeout=kit.BOUND
    ) as answer:
        return answer.read(), answer.headers["Content-Encoding"]


@pytest.mark.parametrize(
    "processes",
    [
        1,
        pytest.param(
            2, marks=pytest.mark.skipif(sys.platform != "linux", reason="several processes need Linux")
        ),
    ],
)
def test_gzip(serve: Serve, processes: int) -> None:
    server = serve({"scale": zoo.scale(2.0)}, "--processes", str(processes))
    plain, encoding = metrics(server.ops)
    assert encoding is None
    packed, encoding = metrics(server.ops, **{"Accept-Encoding": "gzip"})
    assert encoding == "gzip"
    assert b"penstock_server_info" in plain
    assert b"penstock_server_info" in gzip.decompress(packed)
    assert len(packed) < len(plain) / 3
