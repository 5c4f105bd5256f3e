"""Other servers, each in an environment of its own that `make bench-peers` makes."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks import messages
from benchmarks.load import Calls
from benchmarks.subjects import ENVIRONMENTS, NO_EXPERIMENTS, PROGRAMS, Files, Subject

METHOD = "/inference.GRPCInferenceService/ModelInfer"
MESSAGES = {
    "mlserver": "mlserver.grpc.dataplane_pb2",
    "kserve": "kserve.protocol.grpc.grpc_predict_v2_pb2",
    "triton": "tritonclient.grpc.service_pb2",
}
"""By environment: the module with its messages of the Open Inference Protocol."""


def python(environment: str) -> Path:
    """The interpreter of an environment."""
    return ENVIRONMENTS / environment / "bin/python"


def peer(title: str, environment: str, *words: str) -> Subject:
    """A peer.

    Args:
        title: its name in tables.
        environment: its environment; its program is `<environment>_peer.py`.
        words: arguments of the program after the model's file; `{folder}` becomes a new folder's path.
    """

    def command(files: Files) -> list[str | Path]:
        folder = Path(tempfile.mkdtemp(dir=files.folder)) / environment
        model = files.models / "tiny_mlp/1/model.onnx"
        program = PROGRAMS / f"{environment}_peer.py"
        return [python(environment), program, model, *(word.format(folder=folder) for word in words)]

    return Subject(
        title,
        command,
        lambda files: Calls(METHOD, _request(environment, files.folder)),
        lambda answer, files: _check(environment, answer, files),
        variables=NO_EXPERIMENTS,
        missing=lambda: "" if _stamp(environment).exists() else "`make bench-peers` installs it",
    )


PEERS = {
    "mlserver": peer("MLServer, model in its process", "mlserver", "0"),
    "mlserver-worker": peer("MLServer, model in a worker", "mlserver", "1"),
    "kserve": peer("KServe", "kserve"),
    "triton": peer("Triton, Python backend, no delay", "triton", "{folder}", "0"),
    "triton-delay": peer("Triton, Python backend, 500 µs delay", "triton", "{folder}", "500"),
}


def _stamp(environment: str) -> Path:
    return ENVIRONMENTS / environment / ".made"


@cache
def _request(environment: str, folder: Path) -> bytes:
    values, path = folder / "row.npy", folder / f"{environment}-request"
    np.save(values, messages.row("tiny_mlp"))
    _oip(environment, "request", "tiny_mlp", values, path)
    return path.read_bytes()


def _check(environment: str, answer: bytes, files: Files) -> None:
    path, golden = files.folder / f"{environment}-answer", files.folder / "golden.npy"
    path.write_bytes(answer)
    np.save(golden, files.golden)
    _oip(environment, "check", path, golden)


def _oip(environment: str, what: str, *words: str | Path) -> None:
    command = [python(environment), PROGRAMS / "oip.py", what, MESSAGES[environment], *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr)
