from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from penstock.cli import import_model, main
from penstock.core.tensors import DataType
from support import forked, zoo
from support.servers import RunningServer, running_server


class Run(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Run]


@pytest.fixture(autouse=True, scope="session")
def forked_children() -> Iterator[None]:
    """The child processes of `penstock import` that runs in this process are forked: see `support.forked`."""

    def popen(command: Sequence[str], *, env: Mapping[str, str], **how: Any) -> Any:
        if forked.importer.fits(env):
            return forked.ForkedProcess(command, env, module=command[-1], by=forked.importer, **how)
        return subprocess.Popen(command, env=env, **how)

    with pytest.MonkeyPatch.context() as patch:
        constants = {"PIPE": subprocess.PIPE, "DEVNULL": subprocess.DEVNULL}
        patch.setattr(import_model, "subprocess", SimpleNamespace(Popen=popen, **constants))
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model and some of the zoo, each with a property that the command line must handle."""
    root = tmp_path_factory.mktemp("models")
    (root / "lead_scoring").symlink_to(zoo.EXAMPLES / "models" / "lead_scoring")
    made = {
        "flags": zoo.identity(DataType.BOOL, ("N", 1)),
        "bytes8": zoo.identity(DataType.INT8, ("N",)),
        "halves": zoo.identity(DataType.FP16, ("N",)),
        "brains": zoo.identity(DataType.BF16, ("N",)),
        "doubles": zoo.identity(DataType.FP64, ("N", 1)),
        "words": zoo.identity(DataType.BYTES, ("N", 2)),
        "text": zoo.identity(DataType.BYTES, ("N", 1)),
        "triples": {1: zoo.scale(1), 2: zoo.scale(2)},
        "matrix": zoo.identity(DataType.FP32, ("N", 2, 2)),
        "open": zoo.two_open_axes(),
        "any_rank": zoo.rank_unknown(),
        "scalar": zoo.scalar(),
        "vector": zoo.fixed_vector(),
        "one_row": zoo.fixed_batch(),
        "constant": zoo.constant(),
        "several": zoo.multi_output(),
        "mlp": zoo.tiny_mlp(),
        "below_100": zoo.fails_on(100),
        "slow": zoo.slow(20),
    }
    zoo.repository(root, made)
    (root / "slow" / "model.toml").write_text("[batching]\nmax_rows = 1\n")
    return root


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator[RunningServer]:
    with running_server(models) as running:
        yield running


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command line in this process; what it wrote is read from the real file descriptors."""

    def run(*args: str | Path) -> Run:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in args])
        code = ended.value.code
        return Run(code if isinstance(code, int) else 0, *capfd.readouterr())

    return run


@pytest.fixture
def predict(cli: Cli, server: RunningServer) -> Cli:
    """`penstock predict` against the server."""
    return lambda *args: cli("predict", *args, "--target", server.target)
