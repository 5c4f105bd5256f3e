"""What only the asyncio client has: asynchronous iterables, tasks and their cancellation."""

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator

import numpy as np
import pytest

import penstock_client
from client.standin import StandIn


def item(number: int) -> dict[str, object]:
    return {"x": np.full((1, 3), number, np.float32)}


async def endless() -> AsyncIterator[dict[str, object]]:
    for each in itertools.count():
        await asyncio.sleep(0)
        yield item(each)


@pytest.fixture
async def client(server: StandIn) -> AsyncIterator[penstock_client.AsyncClient]:
    async with penstock_client.AsyncClient(server.target, transport="unary") as client:
        before = asyncio.all_tasks()
        yield client
        async with asyncio.timeout(20):
            while asyncio.all_tasks() - before - {asyncio.current_task()}:
                gc.collect()
                await asyncio.sleep(0.01)


async def ended(server: StandIn) -> bool:
    return await asyncio.get_running_loop().run_in_executor(None, server.ended.wait, 20)


async def test_an_asynchronous_iterable_is_read(client) -> None:
    async def items() -> AsyncIterator[dict[str, object]]:
        for each in range(300):
            yield item(each)

    results = [int(each["x"][0, 0]) async for each in client.predict_stream("echo", items())]
    assert results == list(range(300))


async def test_break_leaves_no_task(server, client) -> None:
    async for result in client.predict_stream("echo", endless()):
        if result.index == 5:
            break
    assert await ended(server)


async def test_aclose_cancels_at_once(server, client) -> None:
    before = asyncio.all_tasks()
    results = client.predict_stream("echo", endless())
    await anext(results)
    await results.aclose()
    assert {each for each in asyncio.all_tasks() - before if "penstock" in repr(each)} == set()
    assert await ended(server)


async def test_a_source_that_waits_does_not_hold_up_aclose(server, client) -> None:
    async def items() -> AsyncIterator[dict[str, object]]:
        yield item(0)
        await asyncio.Event().wait()

    results = client.predict_stream("echo", items())
    await anext(results)
    async with asyncio.timeout(20):
        await results.aclose()
    assert await ended(server)


async def test_a_consumer_that_is_cancelled_leaves_no_task(server, client) -> None:
    reached = asyncio.Event()

    async def items() -> AsyncIterator[dict[str, object]]:
        yield item(0)
        await asyncio.Event().wait()

    async def consume() -> None:
        async for _ in client.predict_stream("echo", items()):
            reached.set()

    task = asyncio.create_task(consume())
    await asyncio.wait_for(reached.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await ended(server)


async def test_a_source_that_raises_cancellation_does_not_hang(server, client) -> None:
    async def items() -> AsyncIterator[dict[str, object]]:
        yield item(0)
        raise asyncio.CancelledError

    results = client.predict_stream("echo", items())
    assert (await anext(results)).index == 0
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(anext(results), 20)


async def test_many_at_once_fetch_the_signature_once(server, client) -> None:
    results = await asyncio.gather(*(client.predict("echo", item(each)) for each in range(50)))
    assert [int(each["x"][0, 0]) for each in results] == list(range(50))
    assert (server.calls["GetModel"], len(server.requests)) == (1, 50)


async def test_streams_of_one_client_do_not_meet(server, client) -> None:
    async def run(start: int) -> list[int]:
        items = map(item, range(start, start + 200))
        return [int(each["x"][0, 0]) async for each in client.predict_stream("echo", items)]

    runs = await asyncio.gather(*(run(start) for start in (0, 1000, 2000)))
    assert runs == [list(range(start, start + 200)) for start in (0, 1000, 2000)]
