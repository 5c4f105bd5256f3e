"""Makes calls on a channel of grpc.aio, with the client's errors. `_sync_calls` is synchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from penstock_client import _health
from penstock_client._aio_stream import answer
from penstock_client._deadline import WAITED, Deadline, in_words
from penstock_client._errors import (
    Cancelled,
    DeadlineExceeded,
    PenstockError,
    Unavailable,
    if_closed,
    if_unconnected,
)
from penstock_client._mux import PROBE_SECONDS, backoff
from penstock_proto.v1 import model_pb2

Lock = asyncio.Lock


def running_loop() -> asyncio.AbstractEventLoop:
    """The event loop of a new client.

    Raises:
        RuntimeError: none runs here.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError as error:
        raise RuntimeError(f"make an AsyncClient inside the event loop that uses it: {error}") from error


async def close_channel(channel: Any) -> None:
    """Closes a channel."""
    await channel.close()


def new_channel(
    target: str, credentials: grpc.ChannelCredentials | None, options: Sequence[tuple[str, object]]
) -> Any:
    """A channel of grpc.aio; plain text without credentials."""
    if credentials is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, credentials, options)


async def ask(channel: Any, method: Any, request: object, deadline: Deadline, metadata: object) -> Any:
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
        call = method(request, timeout=deadline.remaining(), metadata=metadata)
    except grpc.aio.UsageError as error:
        raise if_closed(error) from error
    try:
        return await answer(call, call)
    except DeadlineExceeded as error:
        raise if_unconnected(in_words(error, deadline), channel.get_state()) from error.__cause__


async def acquire(lock: Lock, deadline: Deadline, channel: Any) -> None:
    """Waits for the lock that protects the fetching of signatures.

    Raises:
        Unavailable: the deadline passed while there was no connection.
        DeadlineExceeded: the deadline passed.
    """
    try:
        async with asyncio.timeout(deadline.remaining()):
            await lock.acquire()
    except TimeoutError:
        raise if_unconnected(deadline.passed(WAITED), channel.get_state()) from None


async def pause(attempt: int, deadline: Deadline, failed: PenstockError) -> None:
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
    await asyncio.sleep(seconds)


async def reach(channel: Any, check: Any, get_model: Any, metadata: object) -> None:
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
        if await ask(channel, check, "", Deadline(PROBE_SECONDS), metadata) != _health.NOT_SERVING:
            return
    except DeadlineExceeded as error:
        raise Unavailable(f"the server does not answer: {error}") from error
    except Unavailable:
        raise
    except PenstockError:
        return  # an error also shows that there is a server
    try:  # it is stopping, and may still accept calls: one that it would reject tells
        await ask(channel, get_model, model_pb2.GetModelRequest(), Deadline(PROBE_SECONDS), metadata)
    except (Cancelled, DeadlineExceeded, Unavailable) as error:
        raise Unavailable(_health.TAKES_NOTHING) from error
    except PenstockError:
        pass  # there is no model without a name, but the call was accepted
