"""Which files of the server one unary Predict passes through, in the order in which it enters them.

    python tests/codebase/hot_path.py

starts a server in this process on a free port, sends the same request until it is recognised without parsing,
and then notes every file of `penstock` in which a function begins while one more is served. It does so
five times, and keeps the call in the middle, by how many functions it entered: a machine that is busy
elsewhere can make one of them go another way. Calls whose run took so long that it was looked into are left
out: the others say how an ordinary one goes.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

SOURCE = Path(__file__).parents[2] / "src/penstock"
WARM_UP = 40
WATCHERS = ("penstock-sweeper", "penstock-files")
"""Threads that look about now and then, whatever is called."""
CALLS = 5
MOST_TRIES = 50
AFTER_LONG_RUN = {"scheduling/execution/run_times.py", "scheduling/cost.py:RunCost.note_outputs"}
"""Entered only after a run that took longer than `LONG_SECONDS` or `NOTED_SECONDS`."""
QUIET_SECONDS = 0.3  # what earlier calls leave behind is done by then


class Trace:
    """Notes the files that functions of the server are entered in, by threads that began after `install`."""

    def __init__(self) -> None:
        self.on = False
        self.clear()

    def clear(self) -> None:
        self.files: list[str] = []
        self.functions: list[str] = []

    def install(self) -> None:
        threading.setprofile(self._called)

    def _called(self, frame: FrameType, event: str, _: Any) -> None:
        if not self.on or event != "call":
            return
        path = frame.f_code.co_filename
        if path.startswith(str(SOURCE)) and threading.current_thread().name not in WATCHERS:
            name = path[len(str(SOURCE)) + 1 :]
            self.functions.append(f"{name}:{frame.f_code.co_qualname}")
            if name not in self.files:
                self.files.append(name)


def trace_predict() -> Trace:
    """The trace of one warm call: the middle one of several."""
    import grpc
    import numpy as np

    from penstock.config import Config
    from penstock.server import Server
    from penstock_proto.v1 import prediction_pb2, prediction_pb2_grpc, tensor_pb2
    from support import zoo

    trace = Trace()
    trace.install()
    with tempfile.TemporaryDirectory() as folder:
        zoo.repository(Path(folder), {"tiny_mlp": zoo.tiny_mlp()})
        config = Config.model_validate({"server": {"port": 0, "ops_port": 0, "http": False}})
        server = Server(config, Path(folder))
        server.start()
        try:
            values = np.random.default_rng(0).standard_normal((1, 64)).astype(np.float32)
            tensor = tensor_pb2.Tensor(datatype=tensor_pb2.FP32, shape=values.shape, raw=values.tobytes())
            request = prediction_pb2.PredictRequest(model="tiny_mlp", inputs={"x": tensor})
            with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                predict = prediction_pb2_grpc.PredictionServiceStub(channel).Predict
                for _ in range(WARM_UP):
                    predict(request)
                    time.sleep(0.005)
                time.sleep(QUIET_SECONDS)
                seen = []
                for _ in range(MOST_TRIES):
                    if len(seen) == CALLS:
                        break
                    trace.clear()
                    trace.on = True
                    predict(request)
                    time.sleep(QUIET_SECONDS)
                    trace.on = False
                    if AFTER_LONG_RUN.isdisjoint([*trace.files, *trace.functions]):
                        seen.append((len(trace.functions), trace.files, trace.functions))
        finally:
            threading.setprofile(None)
            server.stop(5)
            server.close()
    assert len(seen) == CALLS, f"{MOST_TRIES - len(seen)} of {MOST_TRIES} runs took too long"
    _, trace.files, trace.functions = sorted(seen)[CALLS // 2]
    return trace


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    found = trace_predict()
    print("\n".join(found.files))
    print(f"{len(found.files)} files, {len(found.functions)} calls")
    if "-v" in sys.argv:
        print("\n".join(found.functions))
