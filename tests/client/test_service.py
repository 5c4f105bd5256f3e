"""The client in a service: its default timeout, what may be repeated, and where a client may be used."""

from __future__ import annotations

import asyncio
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from client.standin import StandIn, echo, status
from client.streams import BOUND
from penstock_client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    Exhausted,
    InvalidInput,
    PenstockError,
    Prediction,
    Retry,
    Unavailable,
)
from penstock_client._errors import not_run

X = np.ones((1, 3), np.float32)
HEADER_STEP = 0.1
"""gRPC rounds a timeout of more than ten seconds up to tenths of a second: 30 s can become 30.1."""


def test_calls_without_a_timeout_have_one(server: StandIn, connect: Callable[..., Any]) -> None:
    connect(server.target).predict("echo", {"x": X})
    assert 20 < server.remaining <= 30 + HEADER_STEP
    for merging in (False, True):
        stream = connect(server.target, transport="stream", merge_rows=merging)
        fields: list[dict[str, Any]] = [{}, {"id": "a"}, {"metadata": {"traceparent": "t"}}]
        for more in fields:
            stream.predict("echo", {"x": X}, **more)  # the client bounds it, see test_cancel.py
            assert not server.requests[-1].HasField("timeout")
            stream.predict("echo", {"x": X}, timeout=30.0, **more)
            assert 20 < server.requests[-1].timeout.ToTimedelta().total_seconds() <= 30
        stream.predict("echo", {"x": X}, timeout=float("inf"))
        assert not server.requests[-1].HasField("timeout")
    client = connect(server.target, transport="stream", timeout=30.0)
    client.predict("echo", {"x": X})
    assert server.requests[-1].timeout.seconds == 30
    connect(server.target, transport="stream", timeout=None).predict("echo", {"x": X}, id="a")
    assert not server.requests[-1].HasField("timeout")


def test_the_default_timeout_does_not_wait_for_a_server_that_is_gone(connect: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        target = f"127.0.0.1:{free.getsockname()[1]}"
    for transport in ("unary", "stream"):
        with pytest.raises(Unavailable) as caught:  # well before 30 s, or the test would time out
            connect(target, transport=transport).predict("echo", {"x": X})
        assert caught.value.retryable


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("http://127.0.0.1:8001/", 'write "127.0.0.1:8001"$'),
        ("https://models:443", 'write "models:443"; for TLS give credentials'),
        ("grpc://models:8001", 'write "models:8001"'),
    ],
)
def test_a_url_is_no_target(target: str, words: str) -> None:
    with pytest.raises(ValueError, match='a target is "host:port", not .*' + words):
        Client(target)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("", "it has no port, such as 8001$"),
        ("localhost", "it has no port, such as 8001$"),
        ("localhost:", "it has no port, such as 8001$"),
        ("[::1]", "it has no port, such as 8001$"),
        ("localhost:65536", "its port is above 65535$"),
        ("[::1]:80010", "its port is above 65535$"),
    ],
)
def test_a_target_has_a_port(target: str, words: str) -> None:
    """GRPC would take port 443, or the port modulo 65536."""
    with pytest.raises(ValueError, match='a target is "host:port", not .*' + words):
        Client(target)


@pytest.mark.parametrize(
    "target", ["[::1]:8001", "dns:///models:8001", "unix:/run/models", "ipv4:127.0.0.1:1,127.0.0.2:1"]
)
def test_other_forms_of_targets_are_those_of_grpc(target: str) -> None:
    Client(target).close()


def test_with_credentials_a_target_needs_no_port() -> None:
    """The port of TLS is 443, as gRPC has it."""
    Client("models.example", credentials=grpc.ssl_channel_credentials()).close()


def test_a_port_that_does_not_speak_grpc(connect: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            while True:
                try:
                    connection, _ = other.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(Unavailable, match=r"does not speak gRPC.*is this the port of HTTP"):
            connect(f"127.0.0.1:{other.getsockname()[1]}").models()
        other.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Exhausted("full", retry_after_seconds=0.1), True),
        (Exhausted("too large"), False),
        (DeadlineExceeded("a run is in flight", retry_after_seconds=0.1), True),
        (DeadlineExceeded("the timeout passed"), False),
        (not_run(DeadlineExceeded("the stream was not open yet")), True),
        (not_run(Unavailable("loading")), True),
        (Unavailable("the server is stopping"), True),
        (Unavailable("the connection was lost after the request had been sent"), False),
        (Unavailable("errors resolving no-such-host:8001: Domain name not found"), False),
        (InvalidInput("no"), False),
        (PenstockError("no"), False),
    ],
)
def test_only_what_was_not_run_is_retryable(error: PenstockError, expected: bool) -> None:
    assert error.retryable is expected
    assert error.again().retryable is expected


class Calls:
    """Fails with these errors, and then succeeds."""

    def __init__(self, *errors: PenstockError) -> None:
        self.errors = list(errors)
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    async def later(self) -> str:
        return self()


FULL = Exhausted("full", retry_after_seconds=0.001)
LOST = Unavailable("the connection was lost after the request had been sent")


def run(retry: Retry, calls: Calls, is_async: bool) -> str:
    return asyncio.run(retry.awaiting(calls.later)) if is_async else retry(calls)


@pytest.mark.parametrize("is_async", [False, True])
def test_what_was_not_run_is_repeated(is_async: bool) -> None:
    calls = Calls(FULL, FULL)
    assert run(Retry(), calls, is_async) == "done"
    assert calls.count == 3
    calls = Calls(FULL, FULL, FULL)
    with pytest.raises(Exhausted):
        run(Retry(), calls, is_async)
    assert calls.count == 3


@pytest.mark.parametrize("is_async", [False, True])
def test_what_may_have_run_is_repeated_for_pure_models_only(is_async: bool) -> None:
    calls = Calls(LOST)
    with pytest.raises(Unavailable):
        run(Retry(), calls, is_async)
    assert calls.count == 1
    assert run(Retry(pure=True), Calls(LOST), is_async) == "done"
    with pytest.raises(InvalidInput):
        run(Retry(pure=True), Calls(InvalidInput("no")), is_async)


def test_a_hint_that_is_too_long_ends_the_attempts() -> None:
    calls = Calls(Exhausted("full", retry_after_seconds=60))
    with pytest.raises(Exhausted):
        Retry()(calls)
    assert calls.count == 1


def test_the_budget_bounds_repetitions_of_all_calls() -> None:
    retry, count = Retry(attempts=2, max_wait=0.001), 0
    for _ in range(40):
        calls = Calls(*[not_run(Unavailable("loading")) for _ in range(9)])
        with pytest.raises(Unavailable):
            retry(calls)
        count += calls.count
    assert count == 40 + 10
    for _ in range(11):
        assert retry(Calls()) == "done"
    assert retry(Calls(FULL)) == "done"  # the successes have earned one


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"budget": 2}, {"max_wait": 0}])
def test_arguments_of_a_retry(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
        Retry(**wrong)


def test_a_real_refusal_is_repeated(server: StandIn, connect: Callable[..., Any]) -> None:
    client, refusals = connect(server.target), [status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", 0.001)]
    server.answer = lambda request: refusals.pop() if refusals else echo(request)
    assert isinstance(Retry()(lambda: client.predict("echo", {"x": X})), Prediction)


def test_a_client_is_not_pickled(client: Any) -> None:
    with pytest.raises(TypeError, match="is a connection and cannot be pickled: make one in each process"):
        pickle.dumps(getattr(client, "_client", client))


@pytest.mark.parametrize(
    ("model", "given", "name"),
    [
        ("\ud800", {}, "model, version or output"),
        ("echo", {"version": "\ud800"}, "model, version or output"),
        ("echo", {"outputs": ["\ud800"]}, "model, version or output"),
        ("echo", {"sequence": "\ud800"}, "sequence"),
    ],
)
def test_texts_that_have_no_utf8_are_named(
    server: StandIn, connect: Callable[..., Any], model: str, given: dict[str, Any], name: str
) -> None:
    with pytest.raises(InvalidInput, match=rf"the {name} '\\ud800' cannot be written as UTF-8"):
        connect(server.target).predict(model, {"x": X}, **given)


def test_an_id_that_has_no_utf8_is_named(server: StandIn, connect: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"the id '\\ud800' cannot be written as UTF-8"):
        connect(server.target).predict("echo", {"x": X}, id="\ud800")


def test_a_client_of_the_parent_says_so_in_a_forked_process(server: StandIn) -> None:
    with Client(server.target) as client:
        before = vars(client).copy()
        client.forked()  # what a fork calls in the child; a real one would copy the threads of this test run
        for call in (lambda: client.predict("echo", {"x": X}), client.models, lambda: client.model("echo")):
            with pytest.raises(PenstockError, match=r"before the process was forked.*in each process"):
                call()
        vars(client).clear()
        vars(client).update(before)
        client.predict("echo", {"x": X})


async def test_an_asynchronous_client_is_not_closed_in_a_forked_process(server: StandIn) -> None:
    async with AsyncClient(server.target, transport="stream") as client:
        await client.predict("echo", {"x": X})
        before = vars(client).copy()
        client.forked()
        await client.close()
        vars(client).clear()
        vars(client).update(before)
        await client.predict("echo", {"x": X})


def test_outside_of_an_event_loop_a_client_says_where_to_make_it() -> None:
    with pytest.raises(
        RuntimeError, match="make an AsyncClient inside the event loop that uses it"
    ) as caught:
        AsyncClient("127.0.0.1:1")
    assert str(caught.value.__cause__) == "no running event loop"
    with pytest.raises(ValueError, match="timeout"):
        AsyncClient("127.0.0.1:1", timeout=-1)


def test_a_client_belongs_to_its_event_loop(server: StandIn) -> None:
    async def make() -> AsyncClient:
        return AsyncClient(server.target)

    async def use(client: AsyncClient) -> None:
        with pytest.raises(RuntimeError, match="another event loop: make one in each loop"):
            await client.predict("echo", {"x": X})

    first = asyncio.new_event_loop()
    client = first.run_until_complete(make())
    asyncio.run(use(client))
    first.run_until_complete(client.close())
    first.close()


def test_a_client_belongs_to_its_event_loop_also_if_that_runs_on_another_thread_now(server: StandIn) -> None:
    async def make() -> AsyncClient:
        return AsyncClient(server.target)

    async def use(client: AsyncClient) -> None:
        await client.predict("echo", {"x": X})

    first = asyncio.new_event_loop()
    client = first.run_until_complete(make())
    moved = threading.Thread(target=first.run_forever)
    moved.start()
    try:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="another event loop: make one in each loop"):
                asyncio.run(use(client))
            asyncio.run_coroutine_threadsafe(use(client), first).result(BOUND)
        asyncio.run_coroutine_threadsafe(client.close(), first).result(BOUND)
    finally:
        first.call_soon_threadsafe(first.stop)
        moved.join(BOUND)
        first.close()


def test_fork_is_noticed() -> None:
    script = """
import os, sys
from penstock_client import Client, PenstockError
client = Client("127.0.0.1:1")
if os.fork() == 0:
    try:
        client.predict("m", {})
    except PenstockError as error:
        os._exit(0 if "forked" in str(error) else 3)
    os._exit(4)
_, code = os.wait()
sys.exit(os.waitstatus_to_exitcode(code))
"""
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", script], timeout=60, check=False)
    assert ran.returncode == 0


LEAVE = """
import gc, os, signal, sys
import numpy as np
from penstock_client import Client, PenstockError
target, how = sys.argv[1:]
x = np.ones((1, 3), np.float32)
def fork():
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        signal.alarm(20)  # kills a child that hangs
    return child
def end(child):
    if child:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    sys.exit(0)
def endless():
    while True:
        yield {"x": x}
with Client(target, transport="stream") as client:
    client.predict("echo", {"x": x})
    answers = client.predict_stream("echo", endless())
    if how != "leaves":
        next(answers)
    child = fork()
    if child:
        client.predict("echo", {"x": x})  # the parent's connection goes on
        if how != "leaves":
            next(answers)
    elif how == "reads":
        try:
            for _ in answers:  # a few had arrived before
                pass
            sys.exit(3)
        except PenstockError as error:
            assert "forked" in str(error)
    elif how == "drops":
        answers.close()
        del client, answers
        gc.collect()
        os._exit(0)
    answers.close()
end(child)
"""


@pytest.mark.parametrize("how", ["leaves", "drops", "reads"])
def test_a_forked_process_leaves_the_client_of_its_parent(server: StandIn, how: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", LEAVE, server.target, how]
    ran = subprocess.run(command, timeout=60, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
