"""A stream that has its status ends, even if gRPC never ends the read that was under way."""

from __future__ import annotations

import threading
from typing import Any

import grpc
import pytest
from grpc import _channel
from grpc._cython import cygrpc

from client.streams import BOUND
from penstock_client import _lost_ends
from penstock_client._lost_ends import CLOSE_SECONDS, LATE_SECONDS, close, end_with_status

READ, HEADERS = cygrpc.OperationType.receive_message, cygrpc.OperationType.receive_initial_metadata


class Silent:
    """A call of gRPC's core that never ends an operation."""

    def operate(self, operations: object, tag: object) -> bool:
        return True

    def cancel(self, code: object, details: object) -> None: ...


def stream() -> Any:
    state = _channel._RPCState([HEADERS], None, None, None, None)
    return _channel._MultiThreadedRendezvous(state, Silent(), lambda data: data, None)


def give_status(call: Any) -> None:
    """What grpcio does when the status comes."""
    with call._state.condition:
        call._state.code, call._state.details = grpc.StatusCode.UNAVAILABLE, "failed to connect"
        callbacks, call._state.callbacks = call._state.callbacks, None
        call._state.condition.notify_all()
    for callback in callbacks:
        callback()


@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after the status"])
def test_a_read_ends_soon_after_the_status(is_late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    call = stream()
    ended: list[grpc.RpcError] = []

    def read() -> None:
        try:
            list(call)
        except grpc.RpcError as error:
            ended.append(error)

    monkeypatch.setattr(_lost_ends, "_lost", threading.Event())
    if not is_late:
        end_with_status(call)
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    while READ not in call._state.due:
        threading.Event().wait(0.001)
    give_status(call)
    if is_late:
        end_with_status(call)
    reader.join(BOUND)
    assert _lost_ends._lost.is_set()
    assert [error.code() for error in ended] == [grpc.StatusCode.UNAVAILABLE]
    with call._state.condition:
        call._state.due.remove(READ)  # as grpcio does if the end comes after all
        assert not call._state.due


def test_a_call_that_ends_as_usual_is_left_alone() -> None:
    call = stream()
    end_with_status(call)
    call._state.due.clear()
    due = call._state.due
    give_status(call)
    assert not any(isinstance(each, threading.Timer) for each in threading.enumerate())
    assert call._state.due is due
    assert LATE_SECONDS < 1.0


class Closing:
    """A channel whose close takes as long as the test says."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.by: threading.Thread | None = None

    def close(self) -> None:
        self.by = threading.current_thread()
        self.goes_on.wait(BOUND)


def test_closing_waits_for_no_lost_end(monkeypatch: pytest.MonkeyPatch) -> None:
    channel, lost = Closing(), threading.Event()
    monkeypatch.setattr(_lost_ends, "_lost", lost)
    channel.goes_on.set()
    close(channel)
    assert channel.by is threading.current_thread()
    channel.goes_on.clear()
    lost.set()
    closing = threading.Thread(target=close, args=(channel,))
    closing.start()
    closing.join(CLOSE_SECONDS + BOUND / 2)
    assert not closing.is_alive()
    channel.goes_on.set()
