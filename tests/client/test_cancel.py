"""Requests on a shared stream whose callers stop waiting: the server is told so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest

import penstock_client
from client.standin import StandIn, status
from client.streams import BOUND, item, number, until
from penstock_client._deadline import _Default
from penstock_client._errors import PenstockError
from penstock_client._merge import Member
from penstock_client._mux import Multiplexer
from penstock_proto.v1 import prediction_pb2 as pb

HELD = -1
"""Requests with this number are not answered before they are cancelled."""

GONE = status(grpc.StatusCode.CANCELLED, "the caller does not wait for the answer any more")


@pytest.fixture
def transport() -> str:
    return "stream"


class Holding:
    """Answers all requests but those that are held; and these, if it is not an older server, when cancelled.

    Attributes:
        held: the tags of requests that are held.
        cancelled: the tags in each message that had any.
        late: how held requests end once `released` is set; None for never.
    """

    def __init__(self, server: StandIn, knows_cancel: bool = True) -> None:
        self.held: list[int] = []
        self.cancelled: list[list[int]] = []
        self.released = threading.Event()
        self._server = server
        self._knows = knows_cancel
        server.stream = self._stream

    def _stream(self, messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for message in messages:
            response = pb.PredictStreamResponse()
            if message.cancel:
                self.cancelled.append(list(message.cancel))
            for tag in message.cancel if self._knows else ():
                self.held.remove(tag)
                response.results.add(tag=tag).error.CopyFrom(GONE)
            now = [each for each in message.requests if number_of(each) != HELD]
            response.results.extend(self._server.answers(now).results)
            self.held += [each.tag for each in message.requests if number_of(each) == HELD]
            if self.released.is_set():
                for tag in self.held:
                    response.results.add(tag=tag).error.CopyFrom(GONE)
                self.held.clear()
            yield response


def number_of(request: pb.PredictRequest) -> int:
    return int(np.frombuffer(request.inputs["x"].raw, np.float32)[0])


def test_a_caller_whose_timeout_passes(server: StandIn, connect: Callable[..., Any]) -> None:
    holding, client = Holding(server), connect(server.target)
    client.predict("echo", item(1))
    with pytest.raises(penstock_client.DeadlineExceeded):
        client.predict("echo", item(HELD), timeout=0.2)
    until(lambda: len(holding.cancelled) == 1)
    assert len(holding.cancelled[0]) == 1
    assert [number(client.predict("echo", item(each))) for each in range(3)] == [0, 1, 2]
    assert holding.held == []
    assert server.calls["PredictStream"] == 1


@pytest.mark.parametrize("merging", [False, True])
def test_a_caller_whose_default_timeout_passes(
    server: StandIn, connect: Callable[..., Any], merging: bool
) -> None:
    """The default timeout is the client's own: the server learns of it by the cancelled tag only."""
    holding, client = Holding(server), connect(server.target, timeout=_Default(0.5), merge_rows=merging)
    client.predict("echo", item(1))
    with pytest.raises(penstock_client.DeadlineExceeded):
        client.predict("echo", item(HELD))
    until(lambda: len(holding.cancelled) == 1)
    assert len(holding.cancelled[0]) == 1
    assert not any(each.HasField("timeout") for each in server.requests)
    assert [number(client.predict("echo", item(each))) for each in range(3)] == [0, 1, 2]
    assert holding.held == []
    assert server.calls["PredictStream"] == 1


def test_the_room_of_a_cancelled_request_is_used_again(server: StandIn, connect: Callable[..., Any]) -> None:
    holding, client = Holding(server), connect(server.target, max_pending=1)
    client.predict("echo", item(1))
    for _ in range(5):
        with pytest.raises(penstock_client.DeadlineExceeded):
            client.predict("echo", item(HELD), timeout=0.1)
        assert number(client.predict("echo", item(7), timeout=BOUND)) == 7
    assert [len(each) for each in holding.cancelled] == [1] * 5
    assert server.calls["PredictStream"] == 1


def test_a_server_that_is_older_answers_late(server: StandIn, connect: Callable[..., Any]) -> None:
    holding, client = Holding(server, knows_cancel=False), connect(server.target)
    client.predict("echo", item(1))
    with pytest.raises(penstock_client.DeadlineExceeded):
        client.predict("echo", item(HELD), timeout=0.1)
    until(lambda: len(holding.cancelled) == 1)
    holding.released.set()
    assert [number(client.predict("echo", item(each))) for each in range(3)] == [0, 1, 2]
    assert holding.held == []
    assert server.calls["PredictStream"] == 1


async def test_tasks_that_are_cancelled_share_a_message(server: StandIn) -> None:
    holding = Holding(server)
    async with penstock_client.AsyncClient(server.target, transport="stream") as client:
        await client.predict("echo", item(1))
        tasks = [asyncio.create_task(client.predict("echo", item(HELD))) for _ in range(50)]
        tasks += [asyncio.create_task(client.predict("echo", item(HELD), id="me")) for _ in range(50)]
        await asyncio.to_thread(until, lambda: len(holding.held) == 100)
        held = set(holding.held)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended)
        await asyncio.to_thread(until, lambda: not holding.held)
        assert [set(each) for each in holding.cancelled] == [held]
        assert number(await client.predict("echo", item(3))) == 3
    assert server.calls["PredictStream"] == 1


async def test_a_task_that_is_cancelled_with_merged_rows(server: StandIn) -> None:
    holding = Holding(server)
    async with penstock_client.AsyncClient(server.target, transport="stream", merge_rows=True) as client:
        await client.predict("echo", item(1))
        task = asyncio.create_task(client.predict("echo", item(HELD)))
        await asyncio.to_thread(until, lambda: len(holding.held) == 1)
        task.cancel()
        await asyncio.to_thread(until, lambda: not holding.held)
        assert [len(each) for each in holding.cancelled] == [1]
        assert number(await client.predict("echo", item(3))) == 3


# Without any stream


class Caller:
    def __init__(self) -> None:
        self.gone = False

    def done(self) -> bool:
        return self.gone


class Known:
    fields = pb.PredictRequest(model="m").SerializeToString()


KNOWN: Any = Known()


def a_member() -> Member:
    batch: Any = SimpleNamespace(rows=1, most_rows=32, inputs=(("x", 11, (3,)),))
    made = Member(KNOWN, batch, [b"", bytes(12)], "", None, None)
    made.waiter = Caller()
    return made


def message(mux: Multiplexer) -> pb.PredictStreamRequest | None:
    data = mux.take()
    return None if data is None else pb.PredictStreamRequest.FromString(data)


def leave(mux: Multiplexer, *callers: Any) -> None:
    for each in callers:
        each.gone = True
    mux.abandoned = True


def answer(mux: Multiplexer, *tags: int) -> list[tuple[Any, Any]]:
    settled: list[tuple[Any, Any]] = []
    response = pb.PredictStreamResponse()
    for tag in tags:
        response.results.add(tag=tag).error.CopyFrom(GONE)
    mux.receive(response.SerializeToString(), settled)
    return settled


def test_what_was_not_sent_is_neither_sent_nor_cancelled() -> None:
    mux, callers = Multiplexer(10, merging=False), [Caller() for _ in range(4)]
    first = [mux.add(each, []) for each in callers[:2]]
    assert [each.tag for each in message(mux).requests] == first
    later = [mux.add(each, []) for each in callers[2:]]
    leave(mux, callers[1], callers[2])
    sent = message(mux)
    assert [each.tag for each in sent.requests] == [later[1]]
    assert list(sent.cancel) == [first[1]]
    assert mux.room == 7


def test_cancels_leave_alone_where_nothing_else_waits_and_only_once() -> None:
    mux, callers = Multiplexer(10, merging=False), [Caller() for _ in range(3)]
    tags = [mux.add(each, []) for each in callers]
    message(mux)
    leave(mux, callers[0])
    sent = message(mux)
    assert (len(sent.requests), list(sent.cancel)) == (0, tags[:1])
    leave(mux, callers[2])
    assert list(message(mux).cancel) == tags[2:]
    leave(mux)
    assert message(mux) is None


def test_a_tag_is_not_used_again_before_its_answer_has_come() -> None:
    mux, caller = Multiplexer(1, merging=False), Caller()
    tag = mux.add(caller, [])
    message(mux)
    leave(mux, caller)
    assert list(message(mux).cancel) == [tag]
    assert not mux.has_room
    assert [waiter for waiter, _ in answer(mux, tag)] == [caller]
    assert mux.has_room
    later = Caller()
    assert mux.add(later, []) == tag
    message(mux)
    leave(mux, later)
    assert list(message(mux).cancel) == [tag]


def test_an_answer_that_came_first_leaves_nothing_to_cancel() -> None:
    mux, caller = Multiplexer(1, merging=False), Caller()
    tag = mux.add(caller, [])
    message(mux)
    leave(mux, caller)
    answer(mux, tag)
    assert message(mux) is None


def test_a_stream_that_broke_leaves_nothing_to_cancel_on_the_next() -> None:
    mux, callers = Multiplexer(10, merging=False), [Caller(), Caller()]
    mux.add(callers[0], [])
    message(mux)
    leave(mux, callers[0])
    assert mux.broken() == callers[:1]
    tag = mux.add(callers[1], [])
    sent = message(mux)
    assert ([each.tag for each in sent.requests], list(sent.cancel)) == ([tag], [])
    leave(mux, callers[1])
    assert list(message(mux).cancel) == [tag]


def test_a_merged_request_is_cancelled_when_its_last_caller_has_left() -> None:
    mux, members = Multiplexer(10, merging=True), [a_member() for _ in range(3)]
    for each in members:
        mux.add_member(each)
    (tag,) = (each.tag for each in message(mux).requests)
    leave(mux, members[0].waiter, members[2].waiter)
    assert message(mux) is None
    leave(mux, members[1].waiter)
    assert list(message(mux).cancel) == [tag]
    settled = answer(mux, tag)
    assert [waiter for waiter, _ in settled] == [each.waiter for each in members]
    assert all(isinstance(outcome, PenstockError) for _, outcome in settled)
    assert mux.room == 10


def test_a_merged_request_that_was_not_sent_is_dropped_with_its_last_caller() -> None:
    mux, members = Multiplexer(100, merging=True), [a_member() for _ in range(2)]
    for each in members:
        mux.add_member(each)
    large = pb.PredictRequest(
        id="x" * (1 << 20)
    ).SerializeToString()  # leaves before those that are merged, alone
    tags = [mux.add(Caller(), [large]) for _ in range(2)]
    assert [each.tag for each in message(mux).requests] == tags[:1]
    leave(mux, *(each.waiter for each in members))
    sent = message(mux)
    assert ([each.tag for each in sent.requests], list(sent.cancel)) == (tags[1:], [])
    assert mux.room == 98
    assert mux.take() is None
