"""Servers that tests share, one for each transport, and connections to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from penstock.core.tensors import DataType
from server import kit
from support import zoo
from support.servers import RunningServer, running_server

ALONE = "[batching]\nenabled = false\n"
IDENTITIES = {f"identity_{each.label.lower()}": each for each in DataType}


def zoo_models() -> dict[str, Any]:
    """What the shared servers serve, besides lead_scoring."""
    models: dict[str, Any] = {name: zoo.identity(datatype) for name, datatype in IDENTITIES.items()}
    return models | {
        "identity": zoo.identity(),
        "scalar": zoo.scalar(),
        "row_sum": zoo.row_sum(),
        "any": zoo.rank_unknown(),
        "wide": zoo.identity(DataType.FP32, ("N", "L")),
        "add": zoo.add(),
        "multi": zoo.multi_output(),
        "tiny_mlp": zoo.tiny_mlp(),
        "fails": zoo.fails_on(100),
        "slow": zoo.slow(20),
        "centred": zoo.centred_rows(),
        "reversed": zoo.reversed_rows(),
        "scale": {1: zoo.scale(1.0), 2: zoo.scale(2.0), 10: zoo.scale(10.0)},
        "pinned": {1: zoo.scale(1.0), 2: zoo.scale(2.0), 3: zoo.scale(3.0)},
    }


@pytest.fixture(scope="session")
def zoo_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of the shared servers."""
    path = zoo.repository(tmp_path_factory.mktemp("zoo"), zoo_models())
    lead = zoo.EXAMPLES / "models" / "lead_scoring"
    (path / "lead_scoring").symlink_to(lead, target_is_directory=True)
    (path / "slow" / "model.toml").write_text(ALONE)
    (path / "scale" / "model.toml").write_text("[labels]\nstable = 2\nold = 1\n")
    (path / "pinned" / "model.toml").write_text("versions = [1, 2]\n[labels]\ncanary = 2\nlive = 1\n")
    return path


@contextmanager
def one_for_each_transport(path: Path) -> Iterator[Callable[[str], RunningServer]]:
    """Gives the server of a transport, which is started when the first test wants it."""
    running: dict[str, RunningServer] = {}
    with ExitStack() as stack:

        def get(transport: str) -> RunningServer:
            if transport not in running:
                running[transport] = stack.enter_context(running_server(path, "--transport", transport))
            return running[transport]

        yield get


@pytest.fixture(scope="session")
def shared(zoo_path: Path) -> Iterator[Callable[[str], RunningServer]]:
    """The servers of the zoo, by transport."""
    with one_for_each_transport(zoo_path) as get:
        yield get


@pytest.fixture(scope="module")
def _of_module(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], RunningServer]]:
    path = tmp_path_factory.mktemp("models")
    for name, (model, settings) in request.module.models().items():
        zoo.repository(path, {name: model})
        (path / name / "model.toml").write_text(settings)
    with one_for_each_transport(path) as get:
        yield get


@pytest.fixture(params=kit.TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(shared: Callable[[str], RunningServer], transport: str) -> RunningServer:
    """The shared server of the transport."""
    return shared(transport)


@pytest.fixture
def own_server(_of_module: Callable[[str], RunningServer], transport: str) -> RunningServer:
    """The server of a module's own `models()`, each with what its model.toml says.

    A test that has one of the models to itself may count from nothing what the server counts by model.
    """
    return _of_module(transport)


@pytest.fixture
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    """A connection of its own to the shared server."""
    with kit.connect(server.target) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    return kit.stub_of(channel)


Serve = Callable[..., RunningServer]


@pytest.fixture
def serve(tmp_path: Path, transport: str) -> Iterator[Serve]:
    """Starts servers of a test's own: `serve({name: model}, *flags, settings={name: toml}, ...)`."""
    with ExitStack() as stack:

        def start(
            models: dict[str, Any], *flags: str, settings: dict[str, str] | None = None, **how: Any
        ) -> RunningServer:
            path = zoo.repository(tmp_path / "models", models)
            for name, text in (settings or {}).items():
                (path / name / "model.toml").write_text(text)
            return stack.enter_context(running_server(path, "--transport", transport, *flags, **how))

        yield start
