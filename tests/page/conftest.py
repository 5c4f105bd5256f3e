"""The server that the tests of the page share, and the load that it is under."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from page import kit
from penstock.core.tensors import DataType
from support import zoo
from support.servers import RunningServer, running_server


@pytest.fixture(scope="session")
def page_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with models whose forms differ."""
    models = {
        "deep": zoo.identity(DataType.FP32, ("N", 2, 3)),
        "wide": zoo.identity(DataType.FP64, ("N", "L")),
        "words": zoo.identity(DataType.BYTES, ("N", 2)),
        "flag": zoo.identity(DataType.BOOL, ("N", 1)),
        "whole": zoo.scalar(),
        "large": zoo.identity(DataType.FP32, ("N", 3, 64, 64)),
        "exact": zoo.identity(DataType.INT64, ("N", 1)),
        "fails": zoo.fails_on(100),
        "running_sum": zoo.running_sum(),
        "odd name": kit.renamed(zoo.identity(DataType.FP32, ("N", 1)), kit.ODD),
        "scale": {1: zoo.scale(1.0), 2: zoo.scale(2.0)},
    }
    path = zoo.repository(tmp_path_factory.mktemp("page"), models)
    (path / "lead_scoring").symlink_to(zoo.EXAMPLES / "models/lead_scoring", target_is_directory=True)
    (path / "running_sum/model.toml").write_text('[sequence]\nstate = { sum = "sumN" }\n')
    (path / "scale/model.toml").write_text("labels = { stable = 1 }\n")
    (path / "deep/model.toml").write_text("[batching]\nenabled = false\n")
    with running_server(path, "--http", "--http-port", "0") as server:
        yield server
