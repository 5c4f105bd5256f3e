"""The connection of the asyncio client: sends requests on its channel, with calls or over streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from threading import get_ident
from typing import Any, TypeAlias, TypeVar

import grpc

from penstock_client import _health
from penstock_client._aio_calls import Lock, acquire, ask, new_channel, pause, running_loop
from penstock_client._aio_mux import Future, SharedStream, share
from penstock_client._arguments import check_headers
from penstock_client._deadline import Deadline, seconds
from penstock_client._errors import InvalidInput, NotFound, PenstockError, Unavailable
from penstock_client._local import Local
from penstock_client._merge import Member
from penstock_client._messages import (
    Batch,
    Key,
    Signature,
    Signatures,
    caller_of,
    channel_options,
    checked_target,
)
from penstock_client._mux import Unsupported, is_gone, may_ask_again
from penstock_client._requests import PREDICT, PREDICT_STREAM, Requests, Transport, checked, pairs_of
from penstock_client._types import Inputs, Prediction
from penstock_client._wire import KnownRequest, extras
from penstock_proto.v1 import model_pb2, model_pb2_grpc, prediction_pb2

S = TypeVar("S")
T = TypeVar("T")

# [async
Sent: TypeAlias = tuple[Signature, list[bytes], Future | None]
"""A request in progress: the signature that encoded its inputs, the encoded inputs, and, if it was sent, its
future answer."""
# ]


class Connection(Local):
    """A channel, and the ways to send requests on it.

    Args:
        target, credentials, options, timeout, metadata, transport, merge_rows, max_pending: see the
            client.
    """

    _unusable = "_requests", "_call"

    def __init__(  # noqa: PLR0913 - what can be set
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None,
        options: Iterable[tuple[str, object]],
        timeout: float | None,
        metadata: Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]],
        transport: Transport,
        merge_rows: bool,
        max_pending: int,
    ) -> None:
        super().__init__()
        self._timeout = seconds(timeout, None)
        self._requests = Requests(transport, merge_rows, max_pending)
        self._max_pending = max_pending
        self._shared: SharedStream | None = None
        self._metadata = pairs_of(metadata)
        check_headers(self._metadata)
        self._caller = caller_of(self._metadata)
        self._signatures = Signatures()
        self._fetching = Lock()
        checked_target(target, is_secure=credentials is not None)
        # [async
        self._loop = running_loop()
        # ]
        self._channel: Any = new_channel(target, credentials, channel_options(target, options))
        models: Any = model_pb2_grpc.ModelServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._get_model, self._list_models = models.GetModel, models.ListModels
        # Requests are bytes written by `_wire`, which also reads the answers of unary calls.
        self._predict = self._channel.unary_unary(PREDICT)
        self._predict_stream = self._channel.stream_stream(
            PREDICT_STREAM, None, prediction_pb2.PredictStreamResponse.FromString
        )
        self._check = self._channel.unary_unary(_health.METHOD, _health.encode, _health.decode)

    # [async
    def _sent(
        self, known: KnownRequest, inputs: Inputs, id: str, deadline: Deadline
    ) -> tuple[Signature, list[bytes], Future | None] | None:
        """Encodes a request without metadata, and sends it if it goes over the stream.

        Returns:
            None if something must be fetched or waited for first.
        """
        # In Python 3.11, it takes a system call to ask which loop runs. Loops of asyncio know their thread.
        if getattr(self._loop, "_thread_id", None) != get_ident():
            self._check_loop()
        signature, stream = self._signatures.get(known.key), self._shared
        if signature is None or stream is None or self._requests.merging or not stream.has_room:
            return None
        try:
            written = signature.write(inputs)
        except InvalidInput:
            return None  # the model may have been replaced
        if not self._requests.streams(written):
            return signature, written, None
        parts = [known.fields, *written]
        if id != "" or deadline.is_given:
            if id != "":  # not only what is true: no other type than a text passes
                checked(None, id)
            parts.append(extras(id, deadline.timeout if deadline.is_given else None, None))
        return signature, written, stream.send(parts, deadline)

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("this client belongs to another event loop: make one in each loop")

    # ]
    async def _predicted(  # noqa: PLR0913 - the fields of a request
        self,
        known: KnownRequest,
        signature: Signature,
        written: list[bytes],
        id: str,
        deadline: Deadline,
        metadata: Mapping[str, str] | None,
        failed: PenstockError | Unsupported | None = None,
    ) -> Prediction:
        """Sends a request, by a call or over the stream, and returns the prediction.

        Args:
            known: the part of the request that stays the same.
            signature: the signature that encoded its inputs.
            written: the encoded inputs.
            id: of the request.
            deadline: of the request.
            metadata: of the request.
            failed: the error of an earlier attempt over the stream.
        """
        requests = self._requests
        try:
            if failed is not None:
                answered = await self._streamed(known, written, id, deadline, metadata, failed)
            elif not requests.streams(written):
                answered = await self._unary(known, written, id, deadline, metadata)
            elif requests.merging and not known.alone and (batch := signature.batch(written)) is not None:
                answered = await self._merged(known, batch, written, id, deadline, metadata)
            else:
                answered = await self._streamed(known, written, id, deadline, metadata)
        except (InvalidInput, NotFound):
            self._signatures.drop(known.key, signature)
            raise
        if isinstance(answered, Prediction):
            answered.id = id
            return answered
        return known.read(answered, written[0] if written else b"", id)

    async def _streamed(  # noqa: PLR0913 - the fields of a request
        self,
        known: KnownRequest,
        written: list[bytes],
        id: str,
        deadline: Deadline,
        metadata: Mapping[str, str] | None,
        failed: PenstockError | Unsupported | None = None,
    ) -> Prediction | bytes:
        """Sends a request over the stream; returns the answer. `failed` is the first attempt's error."""
        stream = self._shared_stream()
        attempt = 1
        while True:
            try:
                if failed is not None:
                    raise failed
                waited = not stream.has_room
                if waited:
                    await stream.room(deadline)
                parts = [known.fields, *written]
                if id or metadata or deadline.is_given:
                    # At first the whole timeout, which is the same in all requests: the time until here is
                    # short.
                    left = deadline.remaining() if attempt > 1 or waited else deadline.timeout
                    parts.append(extras(id, left if deadline.is_given else None, metadata))
                answered: Prediction | bytes = await stream.send(parts, deadline)
                return answered
            # [async
            except asyncio.CancelledError:
                stream.abandon()
                raise
            # ]
            except Unsupported:
                self._requests.no_streams()
                return await self._unary(known, written, id, deadline, metadata)
            except Unavailable as error:
                if not may_ask_again(error, attempt, deadline):
                    raise
                await pause(attempt, deadline, error)
            failed = None
            attempt += 1

    async def _merged(  # noqa: PLR0913 - the fields of a request
        self,
        known: KnownRequest,
        batch: Batch,
        written: list[bytes],
        id: str,
        deadline: Deadline,
        metadata: Mapping[str, str] | None,
    ) -> Prediction | bytes:
        """Sends a request, merged with others if there are any, and returns the answer."""
        stream = self._shared_stream()
        if not stream.has_room:
            await stream.room(deadline)
        member = Member(known, batch, written, id, deadline.at if deadline.is_given else None, metadata)
        try:
            answered: Prediction | bytes = await stream.send_member(member, deadline)
            return answered
        # [async
        except asyncio.CancelledError:
            stream.abandon()
            raise
        # ]
        except (Unsupported, Unavailable) as error:
            failed = error
        return await self._streamed(known, written, id, deadline, metadata, failed)

    async def _unary(
        self,
        known: KnownRequest,
        written: list[bytes],
        id: str,
        deadline: Deadline,
        metadata: Mapping[str, str] | None,
    ) -> bytes:
        """Sends a request with a unary call; again until its deadline, while the server is gone."""
        request = b"".join((known.fields, *written, extras(id, None, None)))
        headers = (*self._metadata, *metadata.items()) if metadata else self._metadata
        if known.alone:  # a step of a sequence, which belongs to this client
            headers = (*self._caller, *headers)
        attempt = 1
        while True:
            try:
                answered: bytes = await ask(self._channel, self._predict, request, deadline, headers)
                return answered
            except Unavailable as error:
                if not deadline.is_given or not is_gone(error):
                    raise
                await pause(attempt, deadline, error)
            attempt += 1

    def _shared_stream(self) -> SharedStream:
        return self._shared or share(
            self, self._channel, (*self._caller, *self._metadata), self._max_pending, self._requests.merging
        )

    async def _prepare(
        self, key: Key, encode: Callable[[Signature, S], T], inputs: S, deadline: Deadline
    ) -> tuple[Signature, T]:
        """Encodes inputs with the model's signature, and fetches it if it is unknown or seems outdated."""
        known = self._signatures.get(key)
        if known is not None:
            try:
                return known, encode(known, inputs)
            except InvalidInput:
                pass  # the model may have been replaced: ask again before rejecting
        signature = await self._fetch(key, deadline, known)
        return signature, encode(signature, inputs)

    async def _fetch(self, key: Key, deadline: Deadline, old: Signature | None) -> Signature:
        """The signature from the server, or a newer one than `old` that another task has just fetched."""
        await acquire(self._fetching, deadline, self._channel)
        try:
            known = self._signatures.get(key)
            if known is not None and known is not old:
                return known
            request = model_pb2.GetModelRequest(model=key[0], version=key[1])
            return self._signatures.put(key, await self._call(self._get_model, request, deadline))
        finally:
            self._fetching.release()

    def _call(self, method: Any, request: object, deadline: Deadline | None = None) -> Awaitable[Any]:
        return ask(self._channel, method, request, deadline or Deadline(self._timeout), self._metadata)
