"""A server that writes down what its model runs: `python -m soak.recording_server MODELS PORT RECORD`.

It loads its models, prints a line, and listens once it has read one: so that it can follow another server at
once. Then it prints its port. From there on it does what `penstock serve` does.

Every element of the input `x` (INT64) of every run is appended to the file RECORD, eight bytes each.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from penstock.backends.onnx import OnnxBackend
from penstock.config import Config
from penstock.observability import logs
from penstock.server import Server
from penstock.signals import StopSignals

DRAIN_SECONDS = 20.0


def main() -> None:
    """Serves until it gets a SIGTERM."""
    models, port, record = sys.argv[1:]
    _record_runs(os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
    settings = {"port": int(port), "ops_port": 0, "http_port": 0}
    config = Config.model_validate(
        {
            "server": settings,
            "batching": {"verify": 0.0},
            "log": {"level": "error", "format": "json"},
        }
    )
    logs.configure(config.log)
    signals = StopSignals(lambda: None)
    server = Server(config, Path(models))
    server.load()
    print("loaded", flush=True)
    sys.stdin.readline()
    server.listen()
    signals.accept()
    server.serve()
    server.announce()
    print(server.port, flush=True)
    signals.stop.wait()
    answered = server.stop(DRAIN_SECONDS)
    logs.flush()
    os._exit(0 if answered else 1)


def _record_runs(record: int) -> None:
    run = OnnxBackend.run

    def recorded(self: OnnxBackend, outputs: Any, inputs: Any, *more: Any) -> Any:
        os.write(record, inputs["x"].tobytes())
        return run(self, outputs, inputs, *more)

    OnnxBackend.run = recorded  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
