"""A client as Flink's Triton provider is one: it tries again on 503, and takes a fallback value at last."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.server import Server
from rest import kit
from rest.kit import Client
from support import zoo

FALLBACK = [-1.0]
ROWS = 6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path: Path = zoo.repository(tmp_path_factory.mktemp("flink"), {"slow": zoo.slow(200)})
    (path / "slow/model.toml").write_text("[batching]\nenabled = false\nqueue_rows = 1\n")
    with kit.serving(path, triton_status_codes=True) as made:
        yield made


def predicted(client: Client, tries: int) -> tuple[list[float], list[int]]:
    """The values for a row, and the statuses that came until then."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}
    statuses = []
    for _ in range(tries):
        answer = client.post("/v2/models/slow/infer", {"inputs": [tensor], "outputs": [{"name": "y"}]})
        statuses.append(answer.status)
        if answer.status == 200:
            return answer.json["outputs"][0]["data"], statuses
        assert answer.status == 503, answer
        assert int(answer.headers["retry-after"]) >= 1
        time.sleep(0.05)
    return FALLBACK, statuses


def test_a_full_queue_is_tried_again(server: Server) -> None:
    client = Client(server.http_port)
    with ThreadPoolExecutor(ROWS) as pool:
        found = list(pool.map(lambda _: predicted(client, 400), range(ROWS)))
    [value] = {tuple(values) for values, _ in found}
    assert value != tuple(FALLBACK)
    assert any(503 in statuses for _, statuses in found)


def test_a_fallback_is_taken_where_all_tries_fail(server: Server) -> None:
    client = Client(server.http_port)
    with ThreadPoolExecutor(ROWS) as pool:
        found = list(pool.map(lambda _: predicted(client, 1), range(ROWS)))
    assert any(values == FALLBACK for values, _ in found)
    assert any(values != FALLBACK for values, _ in found)
