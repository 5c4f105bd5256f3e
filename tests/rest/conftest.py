"""The server that most tests of HTTP share; it runs in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock.core.tensors import DataType
from penstock.server import Server
from rest import kit
from support import zoo

SUM = '[sequence]\nstate = { sum = "sumN" }\n'
ALONE = "[batching]\nenabled = false\n"


@pytest.fixture(scope="session")
def rest_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of small models."""
    models = {f"identity_{each.label.lower()}": zoo.identity(each) for each in DataType}
    models |= {
        "identity": zoo.identity(),
        "column": zoo.identity(DataType.FP32, ("N", 1)),
        "texts": zoo.with_metadata(
            zoo.identity(DataType.BYTES, ("N", 1)), {"penstock.missing_text": '"unknown"'}
        ),
        "wide": zoo.identity(DataType.FP32, ("N", "L")),
        "deep": zoo.identity(DataType.FP32, ("N", 2, 3)),
        "fixed": zoo.fixed_vector(),
        "scalar": zoo.scalar(),
        "add": zoo.add(),
        "multi": zoo.multi_output(),
        "fails": zoo.fails_on(100),
        "slow": zoo.slow(200),
        "running_sum": zoo.running_sum(),
        "scale": {1: zoo.scale(1.0), 2: zoo.scale(2.0)},
    }
    path = zoo.repository(tmp_path_factory.mktemp("rest"), models)
    (path / "lead_scoring").symlink_to(zoo.EXAMPLES / "models/lead_scoring", target_is_directory=True)
    (path / "slow/model.toml").write_text(f"{ALONE}queue_rows = 1\n")
    (path / "scale/model.toml").write_text("labels = { stable = 1 }\n")
    (path / "running_sum/model.toml").write_text(SUM)
    with kit.serving(path) as server:
        yield server


@pytest.fixture
def client(rest_server: Server) -> kit.Client:
    return kit.Client(rest_server.http_port)
