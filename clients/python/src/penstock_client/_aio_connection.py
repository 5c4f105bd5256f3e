"""What the asyncio client does on its channel; the client itself is the face of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio

from penstock_client import _health
from penstock_client._aio_mux import Future, SharedStream, pause
from penstock_client._aio_stream import answer
from penstock_client._errors import (
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    PenstockError,
    Unavailable,
    if_closed,
)
from penstock_client._merge import Member
from penstock_client._messages import (
    BY_ID,
    COMPLETION_ORDER,
    NEVER,
    Batch,
    Deadline,
    Key,
    Signature,
    Signatures,
    channel_options,
    seconds,
)
from penstock_client._mux import PROBE_SECONDS, Unsupported, may_ask_again
from penstock_client._requests import PREDICT, PREDICT_STREAM, Requests, Transport, checked
from penstock_client._types import Inputs, Prediction
from penstock_client._wire import Template, extras
from penstock_proto.v1 import model_pb2, model_pb2_grpc, prediction_pb2_grpc

S = TypeVar("S")
T = TypeVar("T")


Sent: TypeAlias = tuple[Signature, list[bytes], Future | None]
"""A request on its way: what its inputs were encoded by, these inputs as they stand in the request, and its
answer to come, where it was sent already."""


class Connection:
    """A channel, and the ways in which requests travel on it.

    Args:
        target, credentials, options, timeout, metadata, transport, merge_rows, max_pending: as the client
            explains them.
    """

    def __init__(  # noqa: PLR0913 - what can be set
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None,
        options: Iterable[tuple[str, object]],
        timeout: float | None,
        metadata: Iterable[tuple[str, str | bytes]],
        transport: Transport,
        merge_rows: bool,
        max_pending: int,
    ) -> None:
        self._timeout = seconds(timeout, None)
        self._requests = Requests(transport, merge_rows, max_pending)
        self._max_pending = max_pending
        self._shared: SharedStream | None = None
        self._metadata = tuple(metadata)
        self._signatures = Signatures()
        self._fetching = asyncio.Lock()
        settings = channel_options(options)
        self._channel: Any = (
            grpc.aio.insecure_channel(target, settings)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, settings)
        )
        predictions: Any = prediction_pb2_grpc.PredictionServiceStub(self._channel)  # type: ignore[no-untyped-call]
        models: Any = model_pb2_grpc.ModelServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._predict_stream = predictions.PredictStream
        # Bytes in, bytes out: `_wire` writes and reads them.
        self._predict = self._channel.unary_unary(PREDICT)
        self._stream_method = self._channel.stream_stream(PREDICT_STREAM)
        self._get_model, self._list_models = models.GetModel, models.ListModels
        self._check = self._channel.unary_unary(_health.METHOD, _health.encode, _health.decode)

    def _sent(self, template: Template, inputs: Inputs) -> Sent | None:
        """A request without id, deadline and metadata that was written, and sent where it goes by the stream.

        Returns:
            None where something must be fetched or waited for before, or asked about the inputs.
        """
        signature, stream = self._signatures.get(template.key), self._shared
        if signature is None or stream is None or self._requests.merging or not stream.has_room:
            return None
        try:
            written = signature.write(inputs)
        except InvalidInput:
            return None  # perhaps the model was replaced since
        future = stream.send([template.fields, *written], NEVER) if self._requests.streams(written) else None
        return signature, written, future

    async def _predicted(  # noqa: PLR0913 - the fields of a request
        self,
        template: Template,
        inputs: Inputs,
        id: str,
        deadline: Deadline,
        metadata: Mapping[str, str] | None,
        sent: Sent | None,
    ) -> Prediction:
        """The prediction, whatever has to be done for it; `sent` is what was done already."""
        if sent is None:
            sent = (*await self._prepare(template.key, Signature.write, inputs, deadline), None)
        signature, written, _ = sent
        try:
            answered = await self._answered(template, sent, id, deadline, checked(metadata, id))
        except (InvalidInput, NotFound):
            self._signatures.drop(template.key, signature)
            raise
        if isinstance(answered, Prediction):
            answered.id = id
            return answered
        return template.read(answered, written[0] if written else b"", id)

    async def _answered(
        self, template: Template, sent: Sent, id: str, deadline: Deadline, metadata: Mapping[str, str] | None
    ) -> Prediction | bytes:
        """The answer to a request, whichever way it travels: serialized, or a prediction already."""
        requests, (signature, written, future) = self._requests, sent
        if future is None:
            if not requests.streams(written):
                return await self._unary(template, written, id, deadline, metadata)
            if requests.merging and not template.alone and (batch := signature.batch(written)) is not None:
                return await self._merged(template, batch, written, id, deadline, metadata)
        return await self._streamed(template, written, id, deadline, metadata, future)

    async def _streamed(  # noqa: PLR0913 - the fields of a request
        self,
        template: Template,
        written: list[bytes],
        id: str,
        deadline: Deadline,
        metadata: Mapping[str, str] | None,
        sent: Future | None = None,
    ) -> Prediction | bytes:
        """The answer to a request that goes over the stream; `sent` is that of the first attempt."""
        stream = self._shared_stream()
        attempt = 1
        while True:
            if sent is None and not stream.has_room:
                await stream.room(deadline)
            parts = [template.fields, *written]
            if id or metadata or deadline.at is not None:
                parts.append(extras(id, deadline.remaining(), metadata))
            try:
                answered: Prediction | bytes = await (sent or stream.send(parts, deadline))
                return answered
            except asyncio.CancelledError:
                stream.abandon()
                raise
            except Unsupported:
                self._requests.no_streams()
                return await self._unary(template, written, id, deadline, metadata)
            except Unavailable as error:
                if not may_ask_again(error, attempt):
                    raise
            await pause(attempt, deadline)
            sent = None
            attempt += 1

    async def _merged(  # noqa: PLR0913 - the fields of a request
        self,
        template: Template,
        batch: Batch,
        written: list[bytes],
        id: str,
        deadline: Deadline,
        metadata: Mapping[str, str] | None,
    ) -> Prediction | bytes:
        """The answer to a request that is merged with others, where others are there."""
        stream = self._shared_stream()
        if not stream.has_room:
            await stream.room(deadline)
        try:
            answered: Prediction | bytes = await stream.send_member(
                Member(template, batch, written, id, deadline.at, metadata)
            )
            return answered
        except asyncio.CancelledError:
            stream.abandon()
            raise
        except Unsupported:
            self._requests.no_streams()
            return await self._unary(template, written, id, deadline, metadata)
        except Unavailable as error:
            if not may_ask_again(error, 1):
                raise
        await pause(1, deadline)
        return await self._streamed(template, written, id, deadline, metadata)

    async def _unary(
        self,
        template: Template,
        written: list[bytes],
        id: str,
        deadline: Deadline,
        metadata: Mapping[str, str] | None,
    ) -> bytes:
        """The answer to a request that goes by a call of its own."""
        request = b"".join((template.fields, *written, extras(id, None, None)))
        headers = (*self._metadata, *metadata.items()) if metadata else self._metadata
        try:
            call = self._predict(request, timeout=deadline.remaining(), metadata=headers)
        except grpc.aio.UsageError as error:
            raise if_closed(error) from error
        answered: bytes = await answer(call, call)
        return answered

    def _shared_stream(self) -> SharedStream:
        if self._shared is None:
            self._shared = SharedStream(
                lambda: self._stream_method(metadata=(*self._metadata, COMPLETION_ORDER, BY_ID)),
                self._reach,
                self._max_pending,
                self._requests.merging,
            )
        return self._shared

    async def _reach(self) -> None:
        """Makes sure that there is a server that takes requests.

        Raises:
            Unavailable: there is none.
        """
        try:
            _health.check_serving(await self._call(self._check, "", Deadline(PROBE_SECONDS)))
        except DeadlineExceeded as error:
            raise Unavailable(f"the server does not answer: {error}") from error
        except Unavailable:
            raise
        except PenstockError:
            pass  # an error is an answer, too

    async def _prepare(
        self, key: Key, encode: Callable[[Signature, S], T], inputs: S, deadline: Deadline
    ) -> tuple[Signature, T]:
        """Encodes inputs by the model's signature, fetching it where it is not known or seems old."""
        known = self._signatures.get(key)
        if known is not None:
            try:
                return known, encode(known, inputs)
            except InvalidInput:
                pass  # perhaps the model was replaced since: ask again before refusing
        signature = await self._fetch(key, deadline, known)
        return signature, encode(signature, inputs)

    async def _fetch(self, key: Key, deadline: Deadline, old: Signature | None) -> Signature:
        """The signature from the server, or one newer than `old` that another task has just fetched."""
        try:
            async with asyncio.timeout(deadline.remaining()):
                await self._fetching.acquire()
        except TimeoutError:
            raise DeadlineExceeded("the timeout passed while waiting for the model's signature") from None
        try:
            known = self._signatures.get(key)
            if known is not None and known is not old:
                return known
            request = model_pb2.GetModelRequest(model=key[0], version=key[1])
            return self._signatures.put(key, await self._call(self._get_model, request, deadline))
        finally:
            self._fetching.release()

    async def _call(self, method: Any, request: object, deadline: Deadline | None = None) -> Any:
        timeout = self._timeout if deadline is None else deadline.remaining()
        try:
            call = method(request, timeout=timeout, metadata=self._metadata)
        except grpc.aio.UsageError as error:
            raise if_closed(error) from error
        return await answer(call, call)
