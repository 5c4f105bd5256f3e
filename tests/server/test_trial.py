"""A server tries models in a child process at its first start, and knows them at its second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from penstock_client import Client
from server import kit
from support import zoo
from support.servers import RunningServer, running_server

MODELS = {"identity": zoo.identity(), "sums": zoo.centred_rows()}


def described(server: RunningServer) -> list[object]:
    with Client(server.target) as client:
        models = client.models()
        rows = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
        answers = [client.predict(name, rows)["y"].tolist() for name in MODELS]
    return [
        *answers,
        *[
            (each.name, each.inputs, each.outputs, each.batching.enabled, each.batching.reason)
            for each in models
        ],
    ]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_second_start_says_what_the_first_found_out(tmp_path: Path, processes: str) -> None:
    path = zoo.repository(tmp_path / "models", MODELS)
    env = {"PENSTOCK_TRIAL__ENABLED": "true", "PENSTOCK_CACHE__FOLDER": str(tmp_path / "cache")}
    found = []
    for _ in range(2):
        with running_server(path, "--processes", processes, env=env) as server:
            found.append(described(server))
            kept = sorted(each.name for each in (tmp_path / "cache").rglob("*.json"))
            assert kit.problems(server) == []
    assert found[0] == found[1]
    assert len(kept) == len(MODELS)
    reasons = [each[-1] for each in found[0][2:]]  # type: ignore[index]
    assert "the graph is row-wise" in str(reasons[0])
    assert reasons[1] == "node 0 ReduceMean combines all rows"
