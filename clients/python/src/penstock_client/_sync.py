"""The client for plain, threaded Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from threading import Lock
from typing import Any, Literal, overload

import grpc

from penstock_client import _health
from penstock_client._errors import DeadlineExceeded, InvalidInput, NotFound, PenstockError, from_call
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
from penstock_client._sync_stream import Stream
from penstock_client._types import Inputs, ModelInfo, Prediction
from penstock_proto.v1 import model_pb2, model_pb2_grpc, prediction_pb2, prediction_pb2_grpc


class Client:
    """A connection to a Penstock server. Safe to share between threads.

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
        self._fetching = Lock()
        settings = channel_options(options)
        self._channel: Any = (
            grpc.insecure_channel(target, settings)
            if credentials is None
            else grpc.secure_channel(target, credentials, settings)
        )
        predictions: Any = prediction_pb2_grpc.PredictionServiceStub(self._channel)  # type: ignore[no-untyped-call]
        models: Any = model_pb2_grpc.ModelServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._predict, self._predict_stream = predictions.Predict, predictions.PredictStream
        self._get_model, self._list_models = models.GetModel, models.ListModels
        self._check = self._channel.unary_unary(_health.METHOD, _health.encode, _health.decode)

    def predict(  # noqa: PLR0913 - the fields of a request
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
        signature, packed = self._prepare(ask, inputs, deadline)
        request = prediction_pb2.PredictRequest()
        ask.write(packed, request)
        try:
            response = self._call(self._predict, request, deadline)
        except (InvalidInput, NotFound):
            self._signatures.drop(ask.key, signature)
            raise
        return prediction(response)

    @overload
    def predict_stream(
        self,
        model: str,
        inputs: Iterable[Inputs],
        *,
        ordered: bool = True,
        version: str | int = "",
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        errors: Literal["raise"] = "raise",
        max_in_flight: int = 256,
    ) -> Iterator[Prediction]: ...

    @overload
    def predict_stream(
        self,
        model: str,
        inputs: Iterable[Inputs],
        *,
        ordered: bool = True,
        version: str | int = "",
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        errors: Literal["return"],
        max_in_flight: int = 256,
    ) -> Iterator[Prediction | PenstockError]: ...

    def predict_stream(  # noqa: PLR0913 - the fields of a request
        self,
        model: str,
        inputs: Iterable[Inputs],
        *,
        ordered: bool = True,
        version: str | int = "",
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        errors: Literal["raise", "return"] = "raise",
        max_in_flight: int = 256,
    ) -> Iterator[Prediction] | Iterator[Prediction | PenstockError]:
        """Makes a prediction for every item of an iterable, over one call.

        The iterable is read on a thread of its own. Stopping early (`break`, or `close()` on the
        generator) cancels the call and ends that thread; where the iterable is waiting for its next
        item just then, the thread ends as soon as that item comes.

        Args:
            model: the model's name.
            inputs: the inputs of one prediction an item, as for `predict`.
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
            A generator of the results; `index` on each, errors too, is the place of its item.

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

        def prepare(item: Inputs) -> tuple[Signature, Packed]:
            return self._prepare(ask, item, Deadline(limit))

        def start() -> None:
            if self._signatures.get(ask.key) is None:
                self._fetch(ask, Deadline(limit), None)

        state = StreamState(ask, self._signatures, ordered, max_in_flight)
        metadata = self._metadata if ordered else (*self._metadata, COMPLETION_ORDER)
        stream = Stream(state, iter(inputs), prepare)
        return stream.results(self._predict_stream, metadata, start, errors == "raise")

    def models(self) -> list[ModelInfo]:
        """All versions of all models, by name and version.

        Raises:
            PenstockError: the call failed.
        """
        request = model_pb2.ListModelsRequest()
        return [model_info(each) for each in self._call(self._list_models, request).models]

    def model(self, name: str, version: str | int = "") -> ModelInfo:
        """One version of one model; the default one where no version is given.

        Raises:
            NotFound: there is no such model or version; the message names what exists.
            PenstockError: the call failed.
        """
        request = model_pb2.GetModelRequest(model=name, version=str(version))
        return model_info(self._call(self._get_model, request))

    def health(self, model: str = "") -> str:
        """Whether the server, or one of its models, takes requests.

        Returns:
            "SERVING", "NOT_SERVING", or "UNKNOWN" where the server knows no such model.

        Raises:
            Unavailable: there is no server.
            PenstockError: the call failed.
        """
        try:
            state: str = self._call(self._check, model)
        except NotFound:
            return "UNKNOWN"
        return state

    def close(self) -> None:
        """Closes the connection; calls that are under way end with `Cancelled`."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self, ask: Ask, inputs: Inputs, deadline: Deadline) -> tuple[Signature, Packed]:
        """Encodes inputs by the model's signature, fetching it where it is not known or seems old."""
        known = self._signatures.get(ask.key)
        if known is not None:
            try:
                return known, known.pack(inputs)
            except InvalidInput:
                pass  # perhaps the model was replaced since: ask again before refusing
        signature = self._fetch(ask, deadline, known)
        return signature, signature.pack(inputs)

    def _fetch(self, ask: Ask, deadline: Deadline, old: Signature | None) -> Signature:
        """The signature from the server, or one newer than `old` that another thread has just fetched."""
        remaining = deadline.remaining()
        if not self._fetching.acquire(timeout=-1 if remaining is None else remaining):
            raise DeadlineExceeded("the timeout passed while waiting for the model's signature")
        try:
            known = self._signatures.get(ask.key)
            if known is not None and known is not old:
                return known
            request = model_pb2.GetModelRequest(model=ask.key[0], version=ask.key[1])
            return self._signatures.put(ask.key, self._call(self._get_model, request, deadline))
        finally:
            self._fetching.release()

    def _call(self, method: Any, request: object, deadline: Deadline | None = None) -> Any:
        timeout = self._timeout if deadline is None else deadline.remaining()
        try:
            return method(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_call(error) from error
