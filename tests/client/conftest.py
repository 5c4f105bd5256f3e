"""The two clients under one set of tests: the asyncio one is driven from a loop on a thread of its own."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from client.standin import StandIn
from client.streams import BOUND, until
from penstock_client import AsyncClient, Client
from support.threads import NewThreads


class Loop:
    """An event loop on a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="test-loop")
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(BOUND)

    def tasks(self) -> set[asyncio.Task[Any]]:
        """The tasks that are not done."""
        return asyncio.all_tasks(self.loop)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(BOUND)
        self.loop.close()


class Driven:
    """An AsyncClient with the face of a Client."""

    def __init__(self, loop: Loop, *args: Any, **settings: Any) -> None:
        async def make() -> AsyncClient:
            return AsyncClient(*args, **settings)

        self._loop = loop
        self._client = loop.run(make())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *args, **settings: self._loop.run(method(*args, **settings))

    def predict_stream(self, *args: Any, **settings: Any) -> Iterator[Any]:
        return self._stream(self._client.predict_stream(*args, **settings))

    def _stream(self, results: Any) -> Iterator[Any]:
        try:
            while (result := self._loop.run(anext(results, None))) is not None:
                yield result
        finally:
            self._loop.run(results.aclose())


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def server() -> Iterator[StandIn]:
    server = StandIn()
    server.add("echo", x="FP32 N,3")
    yield server
    server.stop()


TRANSPORTS: dict[str, dict[str, Any]] = {
    "unary": {"transport": "unary"},
    "stream": {"transport": "stream"},
    "merged": {"transport": "stream", "merge_rows": True},
}


ON_EVERY_TRANSPORT = {"test_predict", "test_errors", "test_real_server", "test_attacks", "test_gone"}
"""The modules whose tests concern `predict`; others make no difference between the transports."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    module = metafunc.module.__name__.rpartition(".")[2]
    if "transport" in metafunc.fixturenames and module in ON_EVERY_TRANSPORT:
        metafunc.parametrize("transport", TRANSPORTS, indirect=True)


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> str:
    """How the predictions of the clients travel."""
    return getattr(request, "param", "unary")


@pytest.fixture(params=["threads", "asyncio"])
def connect(request: pytest.FixtureRequest, transport: str) -> Iterator[Callable[..., Any]]:
    """Makes clients of one kind, and closes them afterwards."""
    clients: list[Any] = []

    def make(*args: Any, **settings: Any) -> Any:
        settings = {**TRANSPORTS[transport], **settings}
        if request.param == "threads":
            clients.append(Client(*args, **settings))
        else:
            clients.append(Driven(request.getfixturevalue("loop"), *args, **settings))
        return clients[-1]

    yield make
    for each in clients:
        each.close()


@pytest.fixture
def client(server: StandIn, connect: Callable[..., Any]) -> Any:
    return connect(server.target)


@pytest.fixture
def leaves_nothing_behind(loop: Loop) -> Iterator[None]:
    """A test must end the threads and tasks that it began; what an earlier one left is not its fault."""
    threads, tasks = NewThreads(), loop.tasks()
    yield
    until(lambda: not threads.named("penstock"))
    until(lambda: loop.tasks() <= tasks)
