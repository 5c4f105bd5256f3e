"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from typing import Any, Literal, overload
from weakref import WeakSet

import grpc
import grpc.aio

from penstock_client import _health
from penstock_client._aio_stream import Stream, answer, each
from penstock_client._errors import DeadlineExceeded, InvalidInput, NotFound, PenstockError
from penstock_client._messages import (
    COMPLETION_ORDER,
    DEFAULT_TARGET,
    Ask,
    Deadline,
    Packed,
    Signature,
    Signatures,
    channel_options,
    model_info,
    prediction,
    seconds,
)
from penstock_client._stream import StreamState, check_stream
from penstock_client._types import Inputs, ModelInfo, Prediction
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

    Raises:
        ValueError: the timeout is not above 0.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        options: Iterable[tuple[str, object]] = (),
        timeout: float | None = None,
        metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> None:
        self._timeout = seconds(timeout, None)
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
        self._predict, self._predict_stream = predictions.Predict, predictions.PredictStream
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

        Returns:
            The outputs by name, as read-only arrays where they are numbers.

        Raises:
            InvalidInput: the inputs do not fit the model.
            NotFound: there is no such model, version or output.
            DeadlineExceeded: the timeout passed.
            Unavailable: there is no server, or the model is not ready.
            PenstockError: anything else; see its subclasses.
            ValueError: the timeout is not above 0.
        """
        ask = Ask(model, version, outputs, priority, id)
        deadline = Deadline(seconds(timeout, self._timeout))
        signature, packed = await self._prepare(ask, inputs, deadline)
        request = prediction_pb2.PredictRequest()
        ask.write(packed, request)
        try:
            response = await self._call(self._predict, request, deadline)
        except (InvalidInput, NotFound):
            self._signatures.drop(ask.key, signature)
            raise
        return prediction(response)

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
        signature = await self._fetch(ask, deadline, known)
        return signature, signature.pack(inputs)

    async def _fetch(self, ask: Ask, deadline: Deadline, old: Signature | None) -> Signature:
        """The signature from the server, or one newer than `old` that another task has just fetched."""
        try:
            async with asyncio.timeout(deadline.remaining()):
                await self._fetching.acquire()
        except TimeoutError:
            raise DeadlineExceeded("the timeout passed while waiting for the model's signature") from None
        try:
            known = self._signatures.get(ask.key)
            if known is not None and known is not old:
                return known
            request = model_pb2.GetModelRequest(model=ask.key[0], version=ask.key[1])
            return self._signatures.put(ask.key, await self._call(self._get_model, request, deadline))
        finally:
            self._fetching.release()

    async def _call(self, method: Any, request: object, deadline: Deadline | None = None) -> Any:
        timeout = self._timeout if deadline is None else deadline.remaining()
        call = method(request, timeout=timeout, metadata=self._metadata)
        return await answer(call, call)
