"""Standard error that is not read holds up no call, no probe and no stop."""

from __future__ import annotations

import os
import signal
import subprocess

import numpy as np
import pytest

from penstock_client import Client, PenstockError
from server import kit
from support import zoo
from support.servers import SCRIPT, full_pipe

MANY = 400  # failures; a pipe that is full takes no line of them


@pytest.mark.parametrize("transport", ["reactor", "portable"])
def test_a_log_that_is_not_read(tmp_path, transport: str) -> None:
    path = zoo.repository(tmp_path, {"fails": zoo.fails_on(100), "identity": zoo.identity()})
    read, write = full_pipe()
    flags = ("--port", "0", "--ops-port", "0", "--transport", transport)
    process = subprocess.Popen(
        [str(SCRIPT), "serve", str(path), *flags], stdout=subprocess.PIPE, stderr=write, text=True
    )
    try:
        os.close(write)
        shown = ""
        while "operations" not in shown:
            shown += process.stdout.readline()
        target = shown.split("gRPC")[1].split()[0]
        ops = shown.split("operations")[1].split()[0]
        with Client(target, timeout=30) as client:
            for _ in range(MANY):
                with pytest.raises(PenstockError):
                    client.predict("fails", {"x": np.array([[100]], np.int64)})
            answer = client.predict("identity", {"x": np.ones((1, 3), np.float32)})["y"]
            np.testing.assert_array_equal(answer, np.ones((1, 3), np.float32))
        assert kit.get(f"{ops}/livez")[0] == 200
        assert kit.metric(ops, "log_dropped_total") >= 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.stdout.close()
        os.close(read)
