"""After a gap, clients are connected again within 0.3 s of the time when their server listens."""

from __future__ import annotations

import asyncio
import socket
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from client.streams import BOUND
from penstock_client import AsyncClient, Client, PenstockError
from support import zoo
from support.servers import running_server

ROW = {"x": [1.0, 2.0, 3.0]}
OWN = (("grpc.use_local_subchannel_pool", 1),)
COUNT = 7
GAP_SECONDS = 1.5  # by then, the delay between two attempts has grown as far as it does
CONNECTED_SECONDS = 0.3
WAIT_SECONDS = GAP_SECONDS + 10 * CONNECTED_SECONDS


def unary(target: str, answered: Callable[[], object]) -> None:
    with Client(target, transport="unary", options=OWN) as client:
        predict_twice(client, answered)


def stream(target: str, answered: Callable[[], object]) -> None:
    with Client(target, transport="stream", options=OWN) as client:
        predict_twice(client, answered)


def predict_twice(client: Client, answered: Callable[[], object]) -> None:
    client.predict("scale", ROW, timeout=BOUND)
    answered()
    client.predict("scale", ROW, timeout=WAIT_SECONDS)


def asynchronous(target: str, answered: Callable[[], object]) -> None:
    async def predict() -> None:
        async with AsyncClient(target, options=OWN) as client:
            await client.predict("scale", ROW, timeout=BOUND)
            await asyncio.to_thread(answered)
            await client.predict("scale", ROW, timeout=WAIT_SECONDS)

    asyncio.run(predict())


@pytest.mark.parametrize("predict", [unary, stream, asynchronous])
def test_clients_are_connected_again_soon(
    predict: Callable[[str, Callable[[], object]], None], tmp_path: Path
) -> None:
    """What listens then takes their connections, and no more. A busy machine delays some of them."""
    all_answered = threading.Barrier(COUNT + 1)
    over = threading.Barrier(COUNT + 1)

    def call(target: str) -> None:
        def answered() -> None:
            all_answered.wait(BOUND)
            over.wait(BOUND)

        with suppress(PenstockError):  # nobody answers the second time
            predict(target, answered)

    models = zoo.repository(tmp_path, {"scale": {1: zoo.scale(2.0)}})
    with running_server(models, exit_code=None) as server:
        callers = [threading.Thread(target=call, args=(server.target,), daemon=True) for _ in range(COUNT)]
        for each in callers:
            each.start()
        all_answered.wait(BOUND)
        port = int(server.target.rpartition(":")[2])
    over.wait(BOUND)
    time.sleep(GAP_SECONDS)
    connections: list[socket.socket] = []
    took: list[float] = []
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(BOUND)
        began = time.monotonic()
        while len(took) < COUNT:
            connections.append(listener.accept()[0])
            took.append(time.monotonic() - began)
    for connection in connections:
        connection.close()
    for each in callers:
        each.join(BOUND)
    assert statistics.median(took) <= CONNECTED_SECONDS, took
