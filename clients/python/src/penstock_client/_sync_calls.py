"""Makes calls on a synchronous channel, with the client's errors. `_aio_calls` is the asyncio version."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from threading import Lock
from time import sleep
from typing import Any
from weakref import WeakSet

import grpc

from penstock_client import _health, _lost_ends
from penstock_client._deadline import WAITED, Deadline, in_words
from penstock_client._errors import (
    Cancelled,
    DeadlineExceeded,
    PenstockError,
    Unavailable,
    from_call,
    if_closed,
    if_unconnected,
)
from penstock_client._mux import PROBE_SECONDS, backoff
from penstock_proto.v1 import model_pb2

__all__ = ["Lock", "acquire", "ask", "new_channel", "reach", "state_of"]

_STATE_SECONDS = 1.0
"""The longest wait for the state of a channel; usually it takes a millisecond."""
_asked: WeakSet[grpc.Channel] = WeakSet()
"""The channels whose state was asked for.

A thread of grpc watches such a channel for a while longer. If the program ends meanwhile, that thread ends
with the interpreter, and grpc, which closes what is left open, waits for it for ever (grpcio 1.85). So they
are closed before.
"""


@atexit.register
def _close_asked() -> None:
    for channel in tuple(_asked):
        channel.close()


def close_channel(channel: Any) -> None:
    """Closes a channel."""
    _lost_ends.close(channel)


def new_channel(
    target: str, credentials: grpc.ChannelCredentials | None, options: Sequence[tuple[str, object]]
) -> Any:
    """A channel; plain text without credentials."""
    if credentials is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, credentials, options)


def ask(channel: Any, method: Any, request: object, deadline: Deadline, metadata: object) -> Any:
    """Makes a unary call and returns the answer.

    Args:
        channel: the channel of the method.
        method: gRPC's method.
        request: its request.
        deadline: of the call.
        metadata: of the call.

    Raises:
        Cancelled: the channel is closed.
        DeadlineExceeded: the deadline passed.
        Unavailable: there is no server, or none could be connected to within the timeout.
        PenstockError: the call failed.
    """
    try:
        return method(request, timeout=deadline.remaining(), metadata=metadata)
    except grpc.RpcError as failed:
        error = from_call(failed)
        if isinstance(error, DeadlineExceeded):
            error = if_unconnected(in_words(error, deadline), state_of(channel))
        raise error from failed
    except ValueError as failed:
        raise if_closed(failed) from failed


def acquire(lock: Lock, deadline: Deadline, channel: Any) -> None:
    """Waits for the lock that protects the fetching of signatures.

    Raises:
        Unavailable: the deadline passed while there was no connection.
        DeadlineExceeded: the deadline passed.
    """
    remaining = deadline.remaining()
    if not lock.acquire(timeout=-1 if remaining is None else remaining):
        raise if_unconnected(deadline.passed(WAITED), state_of(channel))


def pause(attempt: int, deadline: Deadline, failed: PenstockError) -> None:
    """Waits before a request is sent again.

    Args:
        attempt: how often it was sent.
        deadline: of the request.
        failed: the error of the last attempt.

    Raises:
        PenstockError: `failed`, if the deadline leaves no time for another attempt.
    """
    remaining, seconds = deadline.remaining(), backoff(attempt)
    if remaining is not None and seconds >= remaining:
        raise failed
    sleep(seconds)


def reach(channel: Any, check: Any, get_model: Any, metadata: object) -> None:
    """Checks that there is a server that accepts requests.

    Args:
        channel: the channel of the methods.
        check: gRPC's Check of the health service.
        get_model: gRPC's GetModel.
        metadata: of the calls.

    Raises:
        Unavailable: there is no such server.
    """
    try:
        if ask(channel, check, "", Deadline(PROBE_SECONDS), metadata) != _health.NOT_SERVING:
            return
    except DeadlineExceeded as error:
        raise Unavailable(f"the server does not answer: {error}") from error
    except Unavailable:
        raise
    except PenstockError:
        return  # an error also shows that there is a server
    try:  # it is stopping, and may still accept calls: one that it would reject tells
        ask(channel, get_model, model_pb2.GetModelRequest(), Deadline(PROBE_SECONDS), metadata)
    except (Cancelled, DeadlineExceeded, Unavailable) as error:
        raise Unavailable(_health.TAKES_NOTHING) from error
    except PenstockError:
        pass  # there is no model without a name, but the call was accepted


def state_of(channel: Any) -> grpc.ChannelConnectivity:
    """The state of a channel. Only subscribers get it; their first notification comes at once."""
    told: SimpleQueue[grpc.ChannelConnectivity] = SimpleQueue()
    tell = told.put
    _asked.add(channel)
    try:
        channel.subscribe(tell)
        return told.get(timeout=_STATE_SECONDS)
    except (Empty, ValueError):  # it is busy, or closed
        return grpc.ChannelConnectivity.SHUTDOWN
    finally:
        channel.unsubscribe(tell)
