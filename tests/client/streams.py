"""What the tests of streams have in common."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import penstock_client

BOUND = 20.0
"""The longest that anything may take, in seconds."""


def item(number: int) -> dict[str, object]:
    return {"x": np.full((1, 3), number, np.float32)}


def number(result: penstock_client.Prediction) -> int:
    return int(result["x"][0, 0])


def until(holds: Callable[[], bool]) -> None:
    ended = threading.Event()
    for _ in range(int(BOUND / 0.01)):
        if holds():
            return
        ended.wait(0.01)
    raise AssertionError("it did not happen in time")


def is_threads(client: object) -> bool:
    return isinstance(client, penstock_client.Client)


async def slow(items: Iterator[object]):
    """An asynchronous iterable out of one that blocks."""
    done = object()
    with ThreadPoolExecutor(1) as pool:
        while (each := await asyncio.get_running_loop().run_in_executor(pool, next, items, done)) is not done:
            yield each
