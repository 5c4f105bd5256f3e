"""One request of either RPC on its way from message to answer."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError

from penstock.engine import Engine
from penstock.errors import InvalidRequest, ModelFailed, RequestError
from penstock.messages import Flush, InferRequest, InferResponse
from penstock.models.model import Model
from penstock.rpc.codec import ModelCodec, codec_of
from penstock.transport.call import ServerCall
from penstock_proto.v1 import prediction_pb2 as pb


class Failures(Protocol):
    """Is told of requests that fail before their model is known."""

    def failed(self, rpc: str, error: RequestError) -> None:
        """A request that came by `rpc` ended with `error`."""


class Pending(ABC):
    """Remembers what the answer to one request needs, and is that request's `Reply`.

    Attributes:
        request: the request, once it has been submitted.
    """

    __slots__ = ("_codec", "_id", "_model", "_tag", "_typed", "request")

    def __init__(self) -> None:
        self.request: InferRequest | None = None

    @abstractmethod
    def __call__(self, result: InferResponse | RequestError) -> Flush | None:
        """Takes the one answer or error."""

    def submit(
        self, message: pb.PredictRequest, rpc: str, call: ServerCall, engine: Engine, failures: Failures
    ) -> None:
        """Makes a request of `message` and hands it to the engine; where it does not fit, refuses it."""
        self._id, self._tag = message.id, message.tag
        model = None
        try:
            model = engine.route(message.model, message.version)
            request = self._request(message, model, rpc, call)
        except RequestError as error:
            (model.observer if model else failures).failed(rpc, error)
            self(error)
            return
        self._model, self.request = model, request
        engine.submit(model, request)

    def cancel(self, engine: Engine) -> None:
        """Drops the request, if there is one, since nobody waits for its answer."""
        if self.request is not None:
            engine.cancel(self._model, self.request)

    def encoded(self, response: InferResponse) -> bytes | ModelFailed:
        """The serialized answer; an error where protobuf cannot carry it."""
        assert self.request is not None  # an answer comes only to a request
        codec: ModelCodec = self._codec
        try:
            return codec.answer(response, self.request.arrived, tag=self._tag, id=self._id, typed=self._typed)
        except ValueError as error:  # over 2 GiB, or text that is none
            return ModelFailed(f"the model's answer cannot be sent: {error}")

    def _request(self, message: pb.PredictRequest, model: Model, rpc: str, call: ServerCall) -> InferRequest:
        arrived = time.monotonic()
        codec = self._codec = codec_of(model)
        arrays, any_raw = codec.inputs(message)
        encoding = message.output_encoding
        self._typed = encoding == pb.TYPED or not (any_raw or encoding)
        deadline = call.deadline
        if message.HasField("timeout"):
            deadline = min(deadline, arrived + _seconds(message))
        return InferRequest(
            arrays,
            codec.outputs(message.outputs) if message.outputs else model.output_names,
            codec.rows(arrays),
            codec.shape_key(arrays),
            rpc,
            self,
            arrived,
            deadline,
            message.priority,
        )


M = TypeVar("M", pb.PredictRequest, pb.PredictStreamRequest)


def parsed(kind: type[M], data: bytes) -> M:
    """The message in `data`.

    Raises:
        InvalidRequest: there is none.
    """
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InvalidRequest(f"the {len(data)} bytes that came are no {kind.__name__} message") from None


def _seconds(message: pb.PredictRequest) -> float:
    seconds = message.timeout.seconds + message.timeout.nanos / 1e9
    if seconds < 0:
        raise InvalidRequest(f"timeout is {seconds} s, expected 0 (for none) or more")
    return seconds or math.inf
