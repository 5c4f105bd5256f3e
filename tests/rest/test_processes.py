"""Several processes behind one port of HTTP, on both transports of gRPC."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from rest import kit
from support import zoo
from support.servers import RunningServer


@pytest.mark.parametrize("transport", ["reactor", "portable"])
def test_processes_share_the_port(tmp_path: Path, transport: str) -> None:
    path = zoo.repository(tmp_path / "models", {"identity": zoo.identity()})
    flags = ("--http", "--http-port", "0", "--processes", "2", "--transport", transport)
    server = RunningServer(path, *flags)
    try:
        server.wait_until_ready()
        found = re.search(r"^HTTP +http://127.0.0.1:(\d+)", server.stdout, re.MULTILINE)
        assert found, server.stdout
        client = kit.Client(int(found[1]))
        for _ in range(40):
            answer = client.post("/predict/identity", {"x": [1, 2, 3]})
            assert (answer.status, answer.json) == (200, {"y": [1, 2, 3]})
        server.process.send_signal(signal.SIGHUP)  # each of them is replaced by another
        for _ in range(100):
            assert client.post("/predict/identity", {"x": [1, 2, 3]}).status == 200
        assert server.stop() == 0
    finally:
        server.close()
