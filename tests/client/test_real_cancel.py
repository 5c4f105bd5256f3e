"""The client's cancelling, against the server it is made for."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from pathlib import Path

import numpy as np

from client.streams import until
from penstock_client import AsyncClient
from support import zoo
from support.servers import RunningServer, running_server

ROW = {"x": np.ones((1, 1), np.float32)}
RUN_MILLISECONDS = 250


def ended(server: RunningServer, code: str) -> int:
    """How many requests have ended with a code."""
    with urllib.request.urlopen(f"{server.ops}/metrics") as response:
        text = response.read().decode()
    counts = re.findall(rf'^penstock_requests_total{{[^}}]*code="{code}"[^}}]*}} (\S+)', text, re.MULTILINE)
    return int(sum(map(float, counts)))


async def test_tasks_that_are_cancelled_cost_no_inference(tmp_path: Path) -> None:
    folder = zoo.repository(tmp_path, {"slow": {1: zoo.slow(RUN_MILLISECONDS)}})
    (folder / "slow" / "model.toml").write_text("[batching]\nenabled = false\n")
    with running_server(folder) as server:
        async with AsyncClient(server.target, transport="stream") as client:
            await client.predict("slow", ROW)
            # More than there are runners: what comes later waits.
            first = [asyncio.create_task(client.predict("slow", ROW)) for _ in range(8)]
            await asyncio.sleep(0.1)
            tasks = [asyncio.create_task(client.predict("slow", ROW)) for _ in range(20)]
            await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(each, asyncio.CancelledError) for each in results)
            await asyncio.gather(*first)
            await asyncio.to_thread(until, lambda: ended(server, "CANCELLED") == 20)
            assert ended(server, "OK") == 1 + len(first)
            await client.predict("slow", ROW)
