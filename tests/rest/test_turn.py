"""What a request that comes alone makes to do is done in the same turn of the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from penstock.server import Server
from penstock.transport.http.turn import Turn
from rest.kit import Client
from rest.test_http import request

DONE = "done"
REQUESTS = 20


class Loop:
    """A loop that keeps what is to be called."""

    def __init__(self) -> None:
        self._ready: deque[Any] = deque()

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._ready.append(callback)


class Bare:
    """A loop that does not show what is ready."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)


def turn(loop: Any, done: list[str], failure: Exception | None = None) -> Turn:
    """A turn whose requests make work."""

    def at_once(*_: object) -> bool:
        made.work_soon()
        done.append("taken")
        if failure is not None:
            raise failure
        return True

    made = Turn(loop, at_once, lambda: done.append(DONE))
    return made


def test_a_request_alone_is_done_in_the_same_turn() -> None:
    loop, done = Loop(), list[str]()
    assert turn(loop, done).answer(*[None] * 3)  # type: ignore[arg-type]
    assert done == ["taken", DONE]
    assert not loop._ready


def test_a_request_beside_another_event_waits_for_the_next_turn() -> None:
    loop, done = Loop(), list[str]()
    loop.call_soon(lambda: None)
    assert turn(loop, done).answer(*[None] * 3)  # type: ignore[arg-type]
    assert done == ["taken"]
    assert len(loop._ready) == 2


def test_a_loop_that_does_not_show_what_is_ready_gets_another_turn() -> None:
    loop, done = Bare(), list[str]()
    assert turn(loop, done).answer(*[None] * 3)  # type: ignore[arg-type]
    assert done == ["taken"]
    assert len(loop.soon) == 1


def test_work_is_done_also_if_the_request_fails() -> None:
    loop, done = Loop(), list[str]()
    made = turn(loop, done, ValueError("a fault"))
    with pytest.raises(ValueError, match="a fault"):
        made.answer(*[None] * 3)  # type: ignore[arg-type]
    assert done == ["taken", DONE]
    made.work_soon()  # from elsewhere
    assert len(loop._ready) == 1


def test_asyncio_shows_what_is_ready() -> None:
    """Else every request would take another turn, and nothing would say so."""
    loop = asyncio.new_event_loop()
    try:
        assert Turn(loop, lambda *_: True, lambda: None)._ready is not None
    finally:
        loop.close()


def test_a_known_request_alone_takes_one_turn(rest_server: Server) -> None:
    transport = rest_server.web.transport
    assert transport is not None
    loop = transport._loop
    assert loop is not None
    soon, original = list[object](), loop.call_soon

    def call_soon(callback: Any, *arguments: Any, **more: Any) -> Any:
        soon.append(callback)
        return original(callback, *arguments, **more)

    with Client(rest_server.http_port).raw() as raw:
        for _ in range(3):  # its head is known from the second on
            raw.sendall(request())
            assert raw.recv(65_536).startswith(b"HTTP/1.1 200 ")
        loop.call_soon = call_soon  # type: ignore[method-assign]
        try:
            for _ in range(REQUESTS):
                raw.sendall(request())
                assert raw.recv(65_536).startswith(b"HTTP/1.1 200 ")
        finally:
            loop.call_soon = original  # type: ignore[method-assign]
    # The clock's event may be ready beside one of them.
    assert soon.count(transport._work_now) < REQUESTS / 2
