"""Records what the real Triton answers to `transcript.py`, which `test_triton.py` compares ours with.

    .venv-oip/newest/bin/python tests/open_inference/programs/record.py

Needs `make .venv-bench/triton/.made` too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import transcript
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
ANSWERS = HERE.with_name("triton.json")
PYTHON = ROOT / ".venv-bench/triton/bin/python"
START_SECONDS = 60.0


class Triton:
    """Triton in a process of its own; its address is `target`."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [PYTHON, HERE / "triton.py", folder / "triton"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.target = self.process.stdout.readline().split()[1]
        end = time.monotonic() + START_SECONDS
        while not self._ready():
            assert time.monotonic() < end, "Triton does not start"
            time.sleep(0.1)

    def stop(self) -> None:
        """Ends it, and the processes of its models."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _ready(self) -> bool:
        with grpc.insecure_channel(self.target) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            try:
                return bool(stub.ServerReady(pb.ServerReadyRequest(), timeout=1).ready)
            except grpc.RpcError:
                return False


@contextmanager
def started() -> Iterator[Triton]:
    with tempfile.TemporaryDirectory() as folder:
        triton = Triton(Path(folder))
        try:
            yield triton
        finally:
            triton.stop()


def record() -> dict[str, Any]:
    with started() as triton:
        return dict(transcript.run(triton.target, list(transcript.STEPS)))


def main() -> None:
    lines = [f"{json.dumps(name)}: {json.dumps(answer)}" for name, answer in record().items()]
    ANSWERS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
