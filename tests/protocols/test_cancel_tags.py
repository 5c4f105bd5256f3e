"""Requests of a stream that are cancelled by their tags: each ends once, and no other one notices."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import ref

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.errors import RequestCancelled
from penstock.core.tensors import Array
from penstock.protocols.fast_path import known_requests
from penstock_proto.v1 import prediction_pb2 as pb
from protocols.test_known_requests import Call, Server, add, message, request

CANCELLED = 1
TAG = 200  # of the first request: two bytes wide, as those of all others


@pytest.fixture(autouse=True)
def _learning_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_requests, "LEARNING_SECONDS", 0.0)


class Talk:
    """One stream of a server.

    Args:
        server: the service.
        ordered: whether results come in the order of the requests.
    """

    def __init__(self, server: Server, ordered: bool = True) -> None:
        self._server = server
        self._call = Call(ordered)
        self._handler: Any = server.service.methods()["/penstock.v1.PredictionService/PredictStream"].handler(
            self._call
        )

    def send(self, *numbers: int, cancel: Sequence[int] = (), timeout: int = 0) -> None:
        """Sends requests, and tags to cancel, in one message."""
        self.send_bytes(message(*[numbered(number, timeout) for number in numbers]) + cancelling(*cancel))

    def send_bytes(self, data: bytes) -> None:
        self._handler.received(data)

    def end(self) -> dict[int, float | int]:
        """Runs what waits, and gives what came of each tag: the answer's number, or the error's code."""
        self._handler.half_closed()
        self._server.drain(self._call, self._handler)
        self._handler.closed(False)
        assert self._call.status is not None, "the stream has not ended"
        found: dict[int, float | int] = {}
        self.tags = []
        for each in self._call.sent:
            for result in pb.PredictStreamResponse.FromString(each).results:
                assert result.tag not in found, f"two results of {result.tag}"
                self.tags.append(result.tag)
                found[result.tag] = (
                    result.error.code
                    if result.HasField("error")
                    else float(np.frombuffer(result.response.outputs["y"].raw, "<f4")[0])
                )
        return found


def numbered(number: int, timeout: int = 0) -> pb.PredictRequest:
    made = request(number, tag=TAG + number)
    if timeout:
        made.timeout.seconds = timeout
    return made


def cancelling(*numbers: int) -> bytes:
    return pb.PredictStreamRequest(cancel=[TAG + number for number in numbers]).SerializeToString()


def learned(run: Any = add, **how: Any) -> Server:
    """A server that knows such requests, and what its model has run."""
    server = Server(run, **how)
    server.stream([message(numbered(0))])
    server.tally.done.clear()
    return server


def ended(server: Server) -> tuple[int, int]:
    """How many requests the observer was told of: answered and cancelled ones."""
    assert all(isinstance(error, RequestCancelled) for _, error in server.tally.failures)
    return sum(each.count for each in server.tally.done), len(server.tally.failures)


def expected(count: int, *cancelled: int) -> dict[int, float | int]:
    return {TAG + number: CANCELLED if number in cancelled else 2.0 * number for number in range(count)}


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("count", [3, 8], ids=["one by one", "a micro-batch"])
def test_what_waits_is_dropped_and_the_others_run(count: int, ordered: bool) -> None:
    rows: list[int] = []

    def noting(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        rows.append(len(inputs["x"]))
        return add(outputs, inputs)

    server = learned(noting)
    rows.clear()
    talk = Talk(server, ordered)
    talk.send(*range(count))
    talk.send(cancel=[1])
    assert talk.end() == expected(count, 1)
    assert sum(rows) == count - 1
    assert ended(server) == (count - 1, 1)
    if ordered:
        assert talk.tags == [TAG + number for number in range(count)]


@pytest.mark.parametrize("count", [1, 8])
def test_all_of_them_can_be_cancelled(count: int) -> None:
    server = learned()
    talk = Talk(server)
    talk.send(*range(count))
    for number in range(count):
        talk.send(cancel=[number])
    assert talk.end() == expected(count, *range(count))
    assert ended(server) == (0, count)
    assert server.model.batcher.waiting_rows == 0


def during_the_run(*cancelled: int) -> tuple[Server, Talk]:
    """A server whose next run is interrupted by a message that cancels."""
    talk: Any = None

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if talk is not None:
            talk.send(cancel=cancelled)
        return add(outputs, inputs)

    server = learned(run)
    talk = Talk(server)
    return server, talk


@pytest.mark.parametrize(
    ("count", "cancelled"), [(1, [0]), (3, [0, 2]), (8, [0]), (8, [3, 4, 7]), (8, list(range(8)))]
)
def test_what_runs_is_not_answered_with_its_outputs(count: int, cancelled: list[int]) -> None:
    server, talk = during_the_run(*cancelled)
    talk.send(*range(count))
    assert talk.end() == expected(count, *cancelled)
    assert ended(server) == (count - len(cancelled), len(cancelled))


@pytest.mark.parametrize("cancelled", [[2], [0, 1, 2, 3], list(range(8))])
def test_cancelled_while_a_failed_micro_batch_is_run_apart(cancelled: list[int]) -> None:
    runs = 0

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        nonlocal runs
        runs += 1
        if runs == 3:
            talk.send(cancel=cancelled)
        if runs > 1 and len(inputs["x"]) == 8:
            raise ValueError("all at once is too much")
        return add(outputs, inputs)

    server = learned(run)
    talk = Talk(server)
    talk.send(*range(8))
    assert talk.end() == expected(8, *cancelled)
    assert ended(server) == (8 - len(cancelled), len(cancelled))


def test_tags_of_none_and_answered_ones_are_ignored() -> None:
    server = learned()
    talk = Talk(server)
    talk.send(0, 1)
    server.work()
    talk.send(2, cancel=[0, 1, 50, 2])  # those of earlier messages are meant: 2 has only come with this one
    assert talk.end() == expected(3)


def test_of_several_with_one_tag_all_are_cancelled() -> None:
    server = learned()
    handler: Any = Talk(server)
    handler.send_bytes(message(*[request(number, tag=TAG) for number in range(8)], request(9, tag=TAG + 9)))
    handler.send(cancel=[0])
    server.work()
    assert ended(server) == (1, 8)


def test_zero_is_no_tag() -> None:
    server = learned()
    handler: Any = Talk(server)
    handler.send_bytes(message(*[request(number) for number in range(8)], numbered(9)))
    handler.send_bytes(pb.PredictStreamRequest(cancel=[0, TAG + 9]).SerializeToString())
    server.work()
    assert ended(server) == (8, 1)


@pytest.mark.parametrize(
    "written",
    [
        b"\x12\x02\xc9\x01",  # packed, as every client writes it
        b"\x10\xc9\x01",  # one field a tag
        b"\x12\x02\xc9\x01\x1a\x00",  # beside a field that is not known
        b"\x12\x02\xc9\x01\x1b\x1c",  # beside a group, which only a parser passes over
    ],
)
def test_however_it_is_written(written: bytes) -> None:
    server = learned()
    talk = Talk(server)
    talk.send(0, 1)
    talk.send_bytes(message(numbered(2)) + written)
    assert talk.end() == expected(3, 1)


@pytest.mark.parametrize("garbage", [b"\x12\x01\xff", b"\x12\x05\x01", b"\x10", b"\x10" + b"\xff" * 11])
def test_what_is_not_a_list_of_tags_ends_the_stream(garbage: bytes) -> None:
    server = learned()
    call = Call()
    handler = server.service.methods()["/penstock.v1.PredictionService/PredictStream"].handler(call)
    handler.received(garbage)
    assert call.status is not None
    assert call.status.code.name == "INVALID_ARGUMENT"


def test_a_stream_that_ends_after_some_were_cancelled_drops_the_rest() -> None:
    server = learned()
    call = Call()
    handler = server.service.methods()["/penstock.v1.PredictionService/PredictStream"].handler(call)
    handler.received(message(*[numbered(number) for number in range(8)]))
    handler.received(cancelling(1, 5))
    handler.closed(True)
    server.work()
    assert ended(server) == (0, 8)
    assert server.model.batcher.waiting_rows == 0


@pytest.mark.parametrize("cancel", [[], [1]])
@pytest.mark.parametrize("count", [1, 8])
def test_nothing_waits_for_the_garbage_collector(count: int, cancel: list[int]) -> None:
    server = learned()
    gc.disable()
    try:
        talk = Talk(server)
        talk.send(*range(count))
        talk.send(cancel=cancel)
        server.work()
        brought = [ref(array) for each in server.tally.done for array in each.inputs.values()]
        assert brought
        server.tally.done.clear()
        talk.end()
        assert [each() for each in brought if each() is not None] == []
    finally:
        gc.enable()


def test_what_ends_while_it_runs_does_not_wait_either() -> None:
    brought: list[Any] = []

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if len(inputs["x"]) > 1:
            brought.extend(ref(array) for array in inputs.values())
            handler.closed(True)
        return add(outputs, inputs)

    server = learned(run)
    gc.disable()
    try:
        handler = server.service.methods()["/penstock.v1.PredictionService/PredictStream"].handler(Call())
        handler.received(message(*[numbered(number) for number in range(8)]))
        server.work()
        assert brought
        assert [each() for each in brought if each() is not None] == []
        assert ended(server) == (0, 8)
    finally:
        gc.enable()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 12)),
        st.tuples(st.just("cancel"), st.lists(st.integers(0, 40), max_size=8)),
        st.tuples(st.just("both"), st.integers(1, 12)),
        st.tuples(st.just("run"), st.just(0)),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS, st.booleans(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_every_request_ends_once(
    steps: list[tuple[str, Any]], ordered: bool, hostile: int, chance: Any
) -> None:
    """Whatever is sent, cancelled and run when: one result each, and one word to the observer."""
    sent = 0
    done: list[int] = []
    talk: Any = None

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if hostile and talk is not None:
            talk.send(cancel=[chance.randint(0, max(sent, 1)) for _ in range(hostile)])
        if hostile == 3 and len(inputs["x"]) > 2:
            raise ValueError("too many")
        done.extend(inputs["w"].tolist())
        return add(outputs, inputs)

    server = Server(run, max_rows=16)
    server.stream([message(numbered(0))])
    server.tally.done.clear()
    done.clear()
    talk = Talk(server, ordered)
    for step, how in steps:
        if step == "run":
            server.work()
        elif step == "cancel":
            talk.send(cancel=how)
        else:
            numbers = range(sent, sent + how)
            sent += how
            talk.send(*numbers, cancel=[chance.randint(0, sent)] if step == "both" else [])
    results = talk.end()
    assert set(results) == {TAG + number for number in range(sent)}
    answered = {tag - TAG for tag, result in results.items() if result != CANCELLED}
    assert all(results[TAG + number] == 2.0 * number for number in answered)
    assert answered <= set(done)
    assert ended(server) == (len(answered), sent - len(answered))
    if ordered:
        assert talk.tags == sorted(talk.tags)
