"""A server that is restarted, twice in a row: callers with a timeout see a pause and no failed request."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from client.streams import BOUND
from penstock_client import Client
from support import zoo
from support.servers import RunningServer

ROW = {"x": [1.0, 2.0, 3.0]}
GAP_SECONDS = 1.8  # longer than a client without a timeout tries to connect
NOTICED_SECONDS = 0.5  # until the clients see that their connections are closed


class Callers:
    """Threads that predict until they are stopped."""

    def __init__(self, client: Client, count: int) -> None:
        self.answered: Counter[int] = Counter()
        self.failed: list[Exception] = []
        self._client = client
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(n,)) for n in range(count)]
        for each in self._threads:
            each.start()

    def _call(self, number: int) -> None:
        while not self._over.is_set():
            try:
                answer = self._client.predict("scale", ROW, timeout=BOUND)
                assert answer["y"].tolist() == [[2.0, 4.0, 6.0]]
                self.answered[number] += 1
            except Exception as error:
                self.failed.append(error)
            time.sleep(0.002)

    def all_go_on(self) -> None:
        """Waits until each of them has had two more answers."""
        before, end = self.answered.copy(), time.monotonic() + BOUND
        while any(self.answered[n] < before[n] + 2 for n in range(len(self._threads))):
            assert time.monotonic() < end
            time.sleep(0.01)

    def stop(self) -> None:
        self._over.set()
        for each in self._threads:
            each.join(BOUND)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return zoo.repository(tmp_path, {"scale": {1: zoo.scale(2.0)}})


def test_a_server_that_is_restarted_twice(models: Path) -> None:
    server = RunningServer(models)
    try:
        server.wait_until_ready()
        port = server.target.rpartition(":")[2]
        with Client(server.target, transport="stream") as client:
            callers = Callers(client, 4)
            try:
                callers.all_go_on()
                for gap in (GAP_SECONDS, 0.0):
                    server.process.terminate()
                    assert server.process.wait(BOUND) == 0
                    server.close()
                    time.sleep(gap)
                    server = RunningServer(models, "--port", port)
                    server.wait_until_ready()
                    callers.all_go_on()
            finally:
                callers.stop()
    finally:
        server.close()
    assert callers.failed == []


def test_calls_wait_for_a_server_that_is_gone(models: Path, connect: Callable[..., Any]) -> None:
    server = RunningServer(models)
    try:
        server.wait_until_ready()
        clients = [connect(server.target, transport=transport) for transport in ("unary", "stream")]
        for each in clients:
            assert each.predict("scale", ROW)["y"].tolist() == [[2.0, 4.0, 6.0]]
        server.close()
        time.sleep(NOTICED_SECONDS)
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(each.predict, "scale", ROW, timeout=BOUND) for each in clients * 2]
            time.sleep(GAP_SECONDS)
            assert not any(each.done() for each in calls)
            server = RunningServer(models, "--port", server.target.rpartition(":")[2])
            assert [each.result(BOUND)["y"].tolist() for each in calls] == [[[2.0, 4.0, 6.0]]] * 4
    finally:
        server.close()
