"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from typing import Any, Literal, overload
from weakref import WeakSet

import grpc
import grpc.aio

from penstock_client import _health
from penstock_client._aio_mux import SharedStream, pause
from penstock_client._aio_stream import Stream, answer, each
from penstock_client._errors import DeadlineExceeded, InvalidInput, NotFound, PenstockError, Unavailable
from penstock_client._messages import (
    COMPLETION_ORDER,
    DEFAULT_TARGET,
    NEVER,
    Ask,
    Deadline,
    Key,
    Packed,
    Signature,
    Signatures,
    channel_options,
    model_info,
    seconds,
)
from penstock_client._mux import MAX_PENDING, PROBE_SECONDS, Unsupported, may_ask_again
from penstock_client._requests import PREDICT, PREDICT_STREAM, Requests, Transport, checked, deadline_of
from penstock_client._stream import StreamState, check_stream
from penstock_client._types import Inputs, ModelInfo, Prediction
from penstock_client._wire import Template, extras
from penstock_proto.v1 import model_pb2, model_pb2_grpc, prediction_pb2, prediction_pb2_grpc


class AsyncClient:
    """A connection to a Penstock server, for asyncio. Make it inside the event loop that uses it.

    It connects when it is first used, and again by itself when the connection is lost.

    Args:
        target: the server's address, "host:port".
        credentials: for TLS, such as `grpc.ssl_channel_credentials()`; None for plain text.
        options: gRPC channel options; they go before the client's own, which lift the limit on the size
            of messages.
        timeout: the default timeout of every call, in seconds; None for no limit.
        metadata: (key, value) pairs that are sent with every call.
        transport: how `predict` travels: "unary", a call each; "stream", all over one stream that they
            share; "auto", the first by a call, the others over the stream unless they are large.
        merge_rows: let concurrent predictions of one model travel as one request of several rows.
        max_pending: the most predictions that are under way or wait to be sent on the stream, 1 to
            16256; further callers wait.

    Raises:
        ValueError: the timeout is not above 0, or one of the last three is out of its range.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        options: Iterable[tuple[str, object]] = (),
        timeout: float | None = None,
        metadata: Iterable[tuple[str, str | bytes]] = (),
        transport: Transport = "auto",
        merge_rows: bool = False,
        max_pending: int = MAX_PENDING,
    ) -> None:
        self._timeout = seconds(timeout, None)
        self._requests = Requests(transport, merge_rows, max_pending)
        self._max_pending = max_pending
        self._shared: SharedStream | None = None
        self._metadata = tuple(metadata)
        self._signatures = Signatures()
        self._fetching = asyncio.Lock()
        self._streams: WeakSet[Stream] = WeakSet()
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

    async def predict(  # noqa: PLR0913 - the fields of a request
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str | int = "",
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        id: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> Prediction:
        """Makes one prediction, of one or several rows.

        Args:
            model: the model's name.
            inputs: every input of the model by name: arrays of its rank; or numbers, bools, `str`,
                `bytes` and lists of them, where a missing batch axis is added. Values are cast to the
                model's datatype where that loses nothing; a Python float may be rounded.
            version: a version number or a label; empty for the default.
            outputs: the outputs wanted; None for all.
            timeout: the longest this may take, in seconds; None for the client's default, `math.inf`
                for no limit.
            priority: above 0 goes first, below 0 gives way.
            id: comes back in the answer.
            metadata: of this request, such as a trace context: headers of a unary call, and a part of the
                request on a stream. Keys are lower-case, values printable ASCII.

        Returns:
            The outputs by name, as read-only arrays where they are numbers.

        Raises:
            InvalidInput: the inputs do not fit the model.
            NotFound: there is no such model, version or output.
            DeadlineExceeded: the timeout passed.
            Unavailable: there is no server, or the model is not ready.
            PenstockError: anything else; see its subclasses.
            ValueError: the timeout is not above 0, or the metadata cannot be headers.
        """
        template = self._requests.template(model, version, outputs, priority)
        deadline = NEVER if timeout is None is self._timeout else deadline_of(timeout, self._timeout)
        if metadata:
            checked(metadata)
        signature = self._signatures.get(template.key)
        written = None
        if signature is not None:
            try:
                written = signature.write(inputs)
            except InvalidInput:
                pass  # perhaps the model was replaced since: ask again before refusing
        if signature is None or written is None:
            signature = await self._fetch(template.key, deadline, signature)
            written = signature.write(inputs)
        head = written[0] if written else b""
        try:
            if not self._requests.streams(written):
                answered = await self._unary(template, written, id, deadline, metadata)
            elif self._requests.merging and signature.most_rows > 1:
                answered = await self._merged(template, signature, inputs, written, id, deadline, metadata)
            else:
                answered = await self._streamed(template, written, id, deadline, metadata)
        except (InvalidInput, NotFound):
            self._signatures.drop(template.key, signature)
            raise
        return answered if isinstance(answered, Prediction) else template.read(answered, head, id)

    @overload
    def predict_stream(
        self,
        model: str,
        inputs: Iterable[Inputs] | AsyncIterable[Inputs],
        *,
        ordered: bool = True,
        version: str | int = "",
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        errors: Literal["raise"] = "raise",
        max_in_flight: int = 256,
    ) -> AsyncGenerator[Prediction, None]: ...

    @overload
    def predict_stream(
        self,
        model: str,
        inputs: Iterable[Inputs] | AsyncIterable[Inputs],
        *,
        ordered: bool = True,
        version: str | int = "",
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        errors: Literal["return"],
        max_in_flight: int = 256,
    ) -> AsyncGenerator[Prediction | PenstockError, None]: ...

    def predict_stream(  # noqa: PLR0913 - the fields of a request
        self,
        model: str,
        inputs: Iterable[Inputs] | AsyncIterable[Inputs],
        *,
        ordered: bool = True,
        version: str | int = "",
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        errors: Literal["raise", "return"] = "raise",
        max_in_flight: int = 256,
    ) -> AsyncGenerator[Prediction, None] | AsyncGenerator[Prediction | PenstockError, None]:
        """Makes a prediction for every item of an iterable, over one call.

        Stopping early cancels the call: at once with `aclose()` on the generator (or
        `contextlib.aclosing`), and after a plain `break` as soon as the generator is no longer referred
        to.

        Args:
            model: the model's name.
            inputs: the inputs of one prediction an item, as for `predict`. A plain iterable is read on
                the event loop, so it should not block; use an asynchronous one where items are waited
                for.
            ordered: whether the results come in the order of the items, or as they finish.
            version: a version number or a label; empty for the default.
            outputs: the outputs wanted; None for all.
            timeout: the longest each item may take at the server, in seconds; None for the client's
                default, `math.inf` for no limit.
            priority: above 0 goes first, below 0 gives way.
            errors: "raise" ends the stream at the first item that fails, with its error; "return"
                yields the error in the item's place and goes on.
            max_in_flight: how many unanswered items the iterable is read ahead; at least 1.

        Returns:
            An asynchronous generator of the results; `index` on each, errors too, is the place of its
            item.

        Raises:
            PenstockError: the whole call failed, once all answers that came before have been yielded;
                or, with `errors="raise"`, an item failed.
            ValueError: the timeout, `errors` or `max_in_flight` is out of range.
            TypeError: `inputs` is not iterable.
            Exception: whatever the iterable raised, after the results of the items before.
        """
        check_stream(errors, max_in_flight)
        limit = seconds(timeout, self._timeout)
        ask = Ask(model, version, outputs, priority, timeout=limit)

        async def prepare(item: Inputs) -> tuple[Signature, Packed]:
            return await self._prepare(ask, item, Deadline(limit))

        async def start() -> None:
            if self._signatures.get(ask.key) is None:
                await self._fetch(ask, Deadline(limit), None)

        state = StreamState(ask, self._signatures, ordered, max_in_flight)
        metadata = self._metadata if ordered else (*self._metadata, COMPLETION_ORDER)
        stream = Stream(state, each(inputs), prepare)
        self._streams.add(stream)
        return stream.results(self._predict_stream, metadata, start, errors == "raise")

    async def models(self) -> list[ModelInfo]:
        """All versions of all models, by name and version.

        Raises:
            PenstockError: the call failed.
        """
        answered = await self._call(self._list_models, model_pb2.ListModelsRequest())
        return [model_info(model) for model in answered.models]

    async def model(self, name: str, version: str | int = "") -> ModelInfo:
        """One version of one model; the default one where no version is given.

        Raises:
            NotFound: there is no such model or version; the message names what exists.
            PenstockError: the call failed.
        """
        request = model_pb2.GetModelRequest(model=name, version=str(version))
        return model_info(await self._call(self._get_model, request))

    async def health(self, model: str = "") -> str:
        """Whether the server, or one of its models, takes requests.

        Returns:
            "SERVING", "NOT_SERVING", or "UNKNOWN" where the server knows no such model.

        Raises:
            Unavailable: there is no server.
            PenstockError: the call failed.
        """
        try:
            state: str = await self._call(self._check, model)
        except NotFound:
            return "UNKNOWN"
        return state

    async def close(self) -> None:
        """Closes the connection; calls that are under way end with `Cancelled`."""
        for stream in self._streams:  # gRPC does not find these by itself
            stream.cancel()
        if self._shared is not None:
            await self._shared.close()
        await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _prepare(self, ask: Ask, inputs: Inputs, deadline: Deadline) -> tuple[Signature, Packed]:
        """Encodes inputs by the model's signature, fetching it where it is not known or seems old."""
        known = self._signatures.get(ask.key)
        if known is not None:
            try:
                return known, known.pack(inputs)
            except InvalidInput:
                pass  # perhaps the model was replaced since: ask again before refusing
        signature = await self._fetch(ask.key, deadline, known)
        return signature, signature.pack(inputs)

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

    async def _streamed(
        self,
        template: Template,
        written: list[bytes],
        id: str,
        deadline: Deadline,
        metadata: Mapping[str, str] | None,
    ) -> bytes:
        """The answer to a request that goes over the stream."""
        stream = self._shared_stream()
        attempt = 1
        while True:
            if not stream.has_room:
                await stream.room(deadline)
            parts = [template.fields, *written]
            if id or metadata or deadline.at is not None:
                parts.append(extras(id, deadline.remaining(), metadata))
            try:
                answered: bytes = await stream.send(parts, deadline)
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
            attempt += 1

    async def _merged(  # noqa: PLR0913 - the fields of a request
        self,
        template: Template,
        signature: Signature,
        inputs: Inputs,
        written: list[bytes],
        id: str,
        deadline: Deadline,
        metadata: Mapping[str, str] | None,
    ) -> Prediction | bytes:
        """The answer to a request that is merged with others, where it can be and others are there."""
        member = self._requests.member(template, signature, signature.pack(inputs), id, deadline, metadata)
        if member is None:
            return await self._streamed(template, written, id, deadline, metadata)
        stream = self._shared_stream()
        if not stream.has_room:
            await stream.room(deadline)
        try:
            answered: Prediction | bytes = await stream.send_member(member)
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
        call = self._predict(request, timeout=deadline.remaining(), metadata=headers)
        answered: bytes = await answer(call, call)
        return answered

    def _shared_stream(self) -> SharedStream:
        if self._shared is None:
            self._shared = SharedStream(
                lambda: self._stream_method(metadata=(*self._metadata, COMPLETION_ORDER)),
                self._reach,
                self._max_pending,
                self._requests.merging,
            )
        return self._shared

    async def _reach(self) -> None:
        """Makes sure that there is a server.

        Raises:
            Unavailable: there is none.
        """
        try:
            await self._call(self._check, "", Deadline(PROBE_SECONDS))
        except DeadlineExceeded as error:
            raise Unavailable(f"the server does not answer: {error}") from error
        except Unavailable:
            raise
        except PenstockError:
            pass  # an error is an answer, too

    async def _call(self, method: Any, request: object, deadline: Deadline | None = None) -> Any:
        timeout = self._timeout if deadline is None else deadline.remaining()
        call = method(request, timeout=timeout, metadata=self._metadata)
        return await answer(call, call)
