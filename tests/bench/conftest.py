from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from penstock.cli import main
from penstock.core.tensors import DataType
from penstock_bench import fleet
from support import zoo
from support.oip_server import OipServer, oip_server
from support.servers import RunningServer, running_server


class Run(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        assert self.out, self.err
        return json.loads(self.out)

    @property
    def level(self) -> dict[str, Any]:
        [level] = self.json["levels"]
        return level


Bench = Callable[..., Run]


@pytest.fixture(autouse=True, scope="session")
def forked_load_processes() -> Iterator[None]:
    """`penstock bench` that runs in this process forks its load processes from one that has their modules."""
    multiprocessing.set_forkserver_preload(["penstock_bench.worker", "penstock_bench.command"])
    context = SimpleNamespace(get_context=lambda _: multiprocessing.get_context("forkserver"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fleet, "multiprocessing", context)
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = tmp_path_factory.mktemp("models")
    (root / "lead_scoring").symlink_to(zoo.EXAMPLES / "models" / "lead_scoring")
    made = {
        "triples": {1: zoo.scale(1), 2: zoo.scale(2)},
        "several": zoo.multi_output(),
        "open": zoo.two_open_axes(),
        "below_100": zoo.fails_on(100),
        "slow": zoo.slow(20),
        "sum": zoo.running_sum(),
        **{f"identity_{each.label.lower()}": zoo.identity(each) for each in DataType},
    }
    zoo.repository(root, made)
    (root / "sum" / "model.toml").write_text('[sequence]\nstate = { sum = "sumN" }\n')
    (root / "slow" / "model.toml").write_text("[batching]\nmax_rows = 1\n")
    # Room for all that a test sends at once: what a full queue refuses has tests of its own.
    with running_server(root, env={"PENSTOCK_BATCHING__QUEUE_ROWS": "10000000"}) as running:
        yield running


@pytest.fixture
def oip() -> Iterator[OipServer]:
    with oip_server() as running:
        yield running


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Bench:
    """Runs `penstock bench` in this process; what it wrote is read from the real file descriptors."""

    def run(*args: str | Path | float) -> Run:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["bench", *map(str, args)])
        code = ended.value.code
        return Run(code if isinstance(code, int) else 0, *capfd.readouterr())

    return run


@pytest.fixture
def bench(cli: Bench, server: RunningServer) -> Bench:
    """`penstock bench` against the server, as JSON and without a warm-up."""
    return lambda *args: cli(*args, "--target", server.target, "--json", "--warmup", 0)


@pytest.fixture
def own_server() -> Iterator[Callable[[Path], RunningServer]]:
    """Starts a server that the test may kill."""
    with ExitStack() as stack:
        yield lambda path: stack.enter_context(running_server(path, exit_code=None))
