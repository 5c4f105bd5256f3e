"""Predictions that share a stream, with failures: none is lost, and no caller gets the answer of another."""

import asyncio
import signal
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2

import penstock_client
from client.conftest import TRANSPORTS, Driven, Loop
from client.standin import StandIn, abort, echo, status
from client.streams import BOUND, until
from penstock_client import AsyncClient, Client, Unavailable
from support import zoo
from support.servers import running_server
from support.threads import NewThreads

CALLERS = 24
SHARED = [name for name in TRANSPORTS if name != "unary"]


@pytest.fixture
def pool() -> Any:
    with ThreadPoolExecutor(CALLERS) as pool:
        yield pool


def row(number: int) -> dict[str, np.ndarray]:
    return {"x": np.full((1, 3), number, np.float32)}


def outcome(client: Any, number: int, **settings: Any) -> Any:
    try:
        return int(client.predict("echo", row(number), id=str(number), **settings)["x"][0, 0])
    except penstock_client.PenstockError as error:
        return error


def test_every_caller_gets_its_own_answer(server, client, pool) -> None:
    results = list(pool.map(lambda n: client.predict("echo", row(n), id=str(n)), range(500)))
    assert [int(each["x"][0, 0]) for each in results] == list(range(500))
    assert [each.id for each in results] == [str(n) for n in range(500)]


def test_garbage_amid_good_requests_hurts_nobody_else(server, client, pool) -> None:
    def answer(request: Any) -> Any:
        values = np.frombuffer(request.inputs["x"].raw, np.float32)
        bad = (values % 10 == 3).any()
        return status(grpc.StatusCode.INVALID_ARGUMENT, "guilty") if bad else echo(request)

    server.answer = answer
    results = list(pool.map(lambda n: outcome(client, n), range(300)))
    for number, result in enumerate(results):
        if number % 10 == 3:
            assert isinstance(result, penstock_client.InvalidInput)
        else:
            assert result == number


@pytest.mark.parametrize("merge", [False, True])
async def test_concurrent_calls_share_messages(server: StandIn, merge: bool) -> None:
    async with AsyncClient(server.target, transport="stream", merge_rows=merge) as client:
        await client.predict("echo", row(0))
        results = await asyncio.gather(*(client.predict("echo", row(n)) for n in range(96)))
        assert [int(each["x"][0, 0]) for each in results] == list(range(96))
    assert server.calls["PredictStream"] == 1
    assert len(server.messages) < 48
    assert max(server.messages[1:]) > (0 if merge else 8)
    rows = [request.inputs["x"].shape[0] for request in server.requests]
    assert sum(rows) == 97
    assert (max(rows) > 1) == merge
    assert max(rows) <= 32


async def test_what_differs_is_not_merged(server: StandIn) -> None:
    server.models["echo", ""].inputs[0].shape[1].symbol = "K"
    async with AsyncClient(server.target, merge_rows=True) as client:
        await client.predict("echo", row(0))
        calls = [
            client.predict(
                "echo",
                {"x": np.ones((1 + n % 2, 3 + n // 32), np.float32)},
                priority=n // 16 % 2,
                metadata={"k": str(n % 2)},
            )
            for n in range(64)
        ]
        results = await asyncio.gather(*calls)
    assert [each["x"].shape for each in results] == [(1 + n % 2, 3 + n // 32) for n in range(64)]
    groups = {(r.priority, r.metadata["k"], r.inputs["x"].shape[1]) for r in server.requests[1:]}
    assert len(groups) == 8


async def test_large_rows_are_merged_no_further_than_a_message_is_large(server: StandIn) -> None:
    """All that waited became one message, which a server with a limit refused, and with it every call."""
    model = server.models["echo", ""]
    model.inputs[0].shape[1].symbol, model.batching.max_rows = "K", 256
    async with AsyncClient(server.target, transport="stream", merge_rows=True) as client:
        calls = [client.predict("echo", {"x": np.full((1, 2**14), n, np.float32)}) for n in range(200)]
        results = await asyncio.gather(*calls)
    assert [int(each["x"][0, 0]) for each in results] == list(range(200))
    sizes = [len(request.inputs["x"].raw) for request in server.requests]
    assert 2**16 < max(sizes) <= 2**20
    assert max(server.messages) <= 2


async def test_half_of_the_callers_are_cancelled(server: StandIn) -> None:
    for settings in (TRANSPORTS[name] for name in SHARED):
        release, loop = threading.Event(), asyncio.get_running_loop()
        server.answer = lambda request, release=release: release.wait(BOUND) and echo(request)
        async with AsyncClient(server.target, **settings) as client:
            tasks = [loop.create_task(client.predict("echo", row(n))) for n in range(64)]
            await asyncio.sleep(0.05)
            for task in tasks[::2]:
                task.cancel()
            release.set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(each, asyncio.CancelledError) for each in results[::2])
            assert [int(each["x"][0, 0]) for each in results[1::2]] == list(range(1, 64, 2))
            # Late answers were dropped, and their places are free again.
            again = await asyncio.gather(*(client.predict("echo", row(n)) for n in range(200)))
            assert [int(each["x"][0, 0]) for each in again] == list(range(200))


def test_callers_wait_for_room_within_their_timeouts(server, connect, transport, pool) -> None:
    if transport == "unary":
        pytest.skip("only a stream has room")
    client = connect(server.target, max_pending=4)
    client.predict("echo", row(0))
    release = threading.Event()
    server.answer = lambda request: release.wait(BOUND) and echo(request)
    waiting = [pool.submit(outcome, client, n) for n in range(12)]
    until(lambda: len(server.requests) > 1)
    late = outcome(client, 0, timeout=0.2)
    assert isinstance(late, penstock_client.DeadlineExceeded)
    release.set()
    assert [each.result(BOUND) for each in waiting] == list(range(12))


def test_closing_under_load_ends_every_call(server, connect, transport, pool) -> None:
    client = connect(server.target)
    client.predict("echo", row(0))
    release = threading.Event()
    server.answer = lambda request: release.wait(BOUND) and echo(request)
    waiting = [pool.submit(outcome, client, n) for n in range(8)]
    until(lambda: len(server.requests) > 1)
    client.close()
    release.set()
    for each in waiting:
        result = each.result(BOUND)
        assert isinstance(result, int | penstock_client.Cancelled)


def test_a_server_without_streams_gets_unary_calls(server, connect, transport, pool) -> None:
    server.stream = lambda _, context: context.abort(grpc.StatusCode.UNIMPLEMENTED, "none here")
    client = connect(server.target)
    assert list(pool.map(lambda n: outcome(client, n), range(50))) == list(range(50))
    assert server.calls["Predict"] == 50


def test_a_stream_that_breaks_says_what_is_unknown(server, connect, transport) -> None:
    if transport == "unary":
        pytest.skip("only a stream breaks")

    def broken(messages: Any, context: grpc.ServicerContext) -> Any:
        next(messages)
        context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    client = connect(server.target)
    server.stream = broken
    with pytest.raises(Unavailable, match="unknown whether the server ran it: gone"):
        client.predict("echo", row(1))
    server.stream = server.answer_all
    assert outcome(client, 2) == 2


def test_what_the_server_says_it_did_not_run_is_sent_again(server, connect, transport) -> None:
    if transport == "unary":
        pytest.skip("only what goes over a stream is sent again")
    refusals = iter([status(grpc.StatusCode.UNAVAILABLE, "draining")] * 2)
    server.answer = lambda request: next(refusals, None) or echo(request)
    assert outcome(connect(server.target), 5) == 5
    assert len(server.requests) == 3


def test_a_server_that_sends_nonsense_is_not_waited_for(server, connect, transport) -> None:
    if transport == "unary":
        pytest.skip("only a stream has tags")

    def nonsense(messages: Any, context: Any) -> Any:
        for message in messages:
            message.requests[0].tag += 1
            yield server.answers(message.requests)

    server.stream = nonsense
    client = connect(server.target)
    assert isinstance(outcome(client, 1, timeout=BOUND), penstock_client.PenstockError)
    server.stream = server.answer_all
    assert outcome(client, 2) == 2


def test_answers_that_come_before_nonsense_are_given_out(server, connect, transport, pool) -> None:
    if transport != "stream":
        pytest.skip("two requests are wanted, each with a tag")

    def half(messages: Any, context: Any) -> Any:
        taken: list[Any] = []
        for message in messages:
            if message.requests[0].id == "0":
                yield server.answers(message.requests)
                continue
            taken.extend(message.requests)
            if len(taken) == 2:
                taken[1].tag = 5  # a tag without a request
                yield server.answers(taken)

    server.stream = half
    client = connect(server.target)
    assert outcome(client, 0) == 0
    outcomes = list(pool.map(lambda value: outcome(client, value, timeout=BOUND), (1, 2)))
    errors = [each for each in outcomes if isinstance(each, Exception)]
    assert len(errors) == 1, outcomes
    assert "is not pending" in str(errors[0])


@pytest.mark.alone
@pytest.mark.parametrize("name", SHARED)
def test_a_server_that_is_stopped_and_started_again_loses_nothing(tmp_path, name, pool) -> None:
    models = zoo.repository(tmp_path, {"scale": {1: zoo.scale(2.0)}})
    ended, results = threading.Event(), []

    def call(client: Client) -> None:
        try:
            while not ended.is_set():
                results.append(client.predict("scale", row(1))["y"][0, 0])
        finally:
            ended.set()  # the first failure ends the test

    with running_server(models) as server, Client(server.target, timeout=BOUND, **TRANSPORTS[name]) as client:
        port = server.target.rpartition(":")[2]
        callers = [pool.submit(call, client) for _ in range(4)]
        until(lambda: len(results) > 50)
        server.stop()
        with running_server(models, "--port", port):
            seen = len(results)
            until(lambda: len(results) > seen + 50 or ended.is_set())
            ended.set()
            failures = [each.exception(BOUND) for each in callers]
    assert {float(each) for each in results} == {2.0}
    assert failures == [None] * 4


def test_a_server_that_lingers_takes_new_streams(tmp_path, loop: Loop) -> None:
    """Its health says NOT_SERVING, so that balancers notice, while it still accepts calls."""
    models = zoo.repository(tmp_path, {"scale": {1: zoo.scale(2.0)}})
    env = {"PENSTOCK_SERVER__LINGER_SECONDS": str(4 * BOUND)}
    with running_server(models, env=env, exit_code=None) as server:
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log('"stopping"')
        for settings in ({}, *(TRANSPORTS[name] for name in SHARED)):
            for client in (Client(server.target, **settings), Driven(loop, server.target, **settings)):
                assert client.health() == "NOT_SERVING"
                for number in (1, 2):
                    answer = client.predict("scale", row(number), timeout=BOUND)
                    assert answer["y"][0, 0] == 2 * number
                client.close()


async def test_nothing_is_sent_to_a_server_that_says_that_it_takes_nothing(server: StandIn) -> None:
    """One that stops says so until gRPC, in its last instant, cancels what it is sent."""
    async with AsyncClient(server.target, timeout=BOUND) as client:
        await client.predict("echo", row(1))  # a unary call, as the first one is
        server.states[""] = health_pb2.HealthCheckResponse.NOT_SERVING
        server.is_stopping = True
        call = asyncio.create_task(client.predict("echo", row(1)))
        await asyncio.sleep(0.3)
        assert "PredictStream" not in server.calls
        server.states[""] = health_pb2.HealthCheckResponse.SERVING
        server.is_stopping = False
        assert (await call)["x"][0, 0] == 1


async def test_a_stream_that_the_server_cancels_is_lost(server: StandIn) -> None:
    def cancel(messages, context):
        next(messages)
        abort(context, status(grpc.StatusCode.CANCELLED, "CANCELLED"))

    server.stream = cancel
    async with AsyncClient(server.target, transport="stream") as client:
        with pytest.raises(Unavailable, match="unknown whether the server"):
            await client.predict("echo", row(1))


@pytest.mark.parametrize("name", SHARED)
def test_a_server_that_is_killed_is_unavailable_and_nobody_hangs(tmp_path, name, pool) -> None:
    models = zoo.repository(tmp_path, {"scale": {1: zoo.scale(2.0)}})
    counted: list[float] = []

    def call(client: Client) -> None:
        while True:
            counted.append(client.predict("scale", row(1))["y"][0, 0])

    with (
        running_server(models, exit_code=None) as server,
        # A call that is not sent yet waits for a server as long as its timeout allows.
        Client(server.target, timeout=BOUND / 2, **TRANSPORTS[name]) as client,
    ):
        callers = [pool.submit(call, client) for _ in range(8)]
        until(lambda: len(counted) > 50)
        server.stop(signal.SIGKILL)
        failures = [each.exception(BOUND) for each in callers]
    assert {type(each) for each in failures} == {Unavailable}


async def test_a_client_that_is_closed_takes_nothing(server: StandIn) -> None:
    client = AsyncClient(server.target, transport="stream")
    await client.predict("echo", row(1))
    await client.close()
    with pytest.raises(penstock_client.PenstockError, match="closed"):
        await client.predict("echo", row(1))


def test_an_event_loop_that_is_closed_leaves_the_next_one_alone(server: StandIn) -> None:
    async def forgetful(number: int) -> float:
        client = AsyncClient(server.target, transport="stream")
        return float((await client.predict("echo", row(number)))["x"][0, 0])

    with ThreadPoolExecutor(1) as pool:
        assert [pool.submit(asyncio.run, forgetful(n)).result(BOUND) for n in range(3)] == [0.0, 1.0, 2.0]


def test_a_client_nobody_refers_to_ends_its_thread(server: StandIn) -> None:
    threads = NewThreads()
    client = Client(server.target, transport="stream")
    client.predict("echo", row(1))
    assert threads.named("penstock-stream")
    del client
    until(lambda: not threads.named("penstock-stream"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"transport": "pigeon"}, "transport is"),
        ({"transport": "unary", "merge_rows": True}, "merge_rows needs a stream"),
        ({"max_pending": 0}, "max_pending is 1 to"),
    ],
)
def test_settings_out_of_their_range_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Client("127.0.0.1:1", **settings)


@pytest.mark.parametrize("id", [5, uuid.UUID(int=1), "\ud800"])
async def test_an_id_that_is_no_text_hurts_nobody_else(server: StandIn, id: Any) -> None:
    """In a merged request it was encoded by the writer, which ended then, and everybody waited for ever."""
    async with AsyncClient(server.target, transport="stream", merge_rows=True, timeout=20) as client:
        await client.predict("echo", row(1))
        for _ in range(2):
            guilty = [client.predict("echo", row(1), id=id) for _ in range(2)]
            others = [client.predict("echo", row(1)) for _ in range(20)]
            done = await asyncio.gather(*guilty, *others, return_exceptions=True)
            assert [isinstance(each, TypeError | ValueError) for each in done] == [True] * 2 + [False] * 20
            assert not [each for each in done[2:] if isinstance(each, Exception)]


async def test_a_writer_that_fails_ends_the_stream(server: StandIn, monkeypatch: Any) -> None:
    async with AsyncClient(server.target, transport="stream", timeout=20) as client:
        await client.predict("echo", row(1))
        failing = iter([True])
        take = client._shared._mux.take

        def taken() -> bytes | None:
            for _ in failing:
                raise ZeroDivisionError("the writer's")
            return take()

        monkeypatch.setattr(client._shared._mux, "take", taken)
        assert (await client.predict("echo", row(2)))["x"][0, 0] == 2
