"""What opens model files in a child process that tries models, where a test wants it to go wrong.

What happens is told by the model's folder: `dies_at_load`, `dies_in_a_run`, `exits`, `waits`,
`hangs_up`, `fills_memory`.
All others are opened by ONNX Runtime. No model file is harmful itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from penstock.backends.backend import Backend, RunControl
from penstock.backends.onnx import OnnxBackend
from penstock.config import RuntimeConfig
from penstock.core.tensors import Array

OPENER = "support.trial_openers:opened"
LARGE = 1 << 28
WAITS_SECONDS = 300.0


def opened(path: Path, config: RuntimeConfig, runs_in_parallel: int, share: int = 0) -> Backend:
    """Opens a model file; with "dies_at_load" in the path, the process ends."""
    name = path.parent.parent.name
    if name.startswith("dies_at_load"):
        os.abort()
    backend = OnnxBackend(path, config, runs_in_parallel, share)
    action = {
        "dies_in_a_run": os.abort,
        "exits": _exit,
        "waits": _wait,
        "hangs_up": _hang_up,
        "fills_memory": _fill,
    }.get(name)
    return _Acts(backend, action) if action else backend


class _Acts:
    """A backend that does something else when it is run."""

    def __init__(self, backend: Backend, action: object) -> None:
        self._action = action
        self.signature, self.file, self.providers = backend.signature, backend.file, backend.providers
        self.close = backend.close

    def run(
        self, outputs: Sequence[str], inputs: Mapping[str, Array], control: RunControl | None = None, /
    ) -> Sequence[Array]:
        """Never returns."""
        assert callable(self._action)
        self._action()
        raise AssertionError


def _exit() -> None:
    os._exit(3)


def _wait() -> None:
    time.sleep(WAITS_SECONDS)


def _hang_up() -> None:
    os.closerange(3, 256)
    _wait()


def _fill() -> None:
    held = bytearray(LARGE)
    for place in range(0, LARGE, 4096):
        held[place] = 1
    _wait()
