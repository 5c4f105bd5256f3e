"""One request of either RPC on its way from message to answer."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, EncodeError

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

    _codec: ModelCodec

    def __init__(self) -> None:
        self.request: InferRequest | None = None

    @abstractmethod
    def __call__(self, result: InferResponse | RequestError) -> Flush | None:
        """Takes the one answer or error.

        It must let go of the request, which refers to this object as its reply: a circle of every request
        would be left to the garbage collector.
        """

    def submit(
        self, message: pb.PredictRequest, rpc: str, call: ServerCall, engine: Engine, failures: Failures
    ) -> None:
        """Makes a request of `message` and hands it to the engine; where it does not fit, refuses it."""
        self._id, self._tag = message.id, message.tag
        arrived = time.monotonic()
        model = None
        try:
            model = engine.route(message.model, message.version)
            request = self._request(message, model, rpc, call, arrived)
        except RequestError as error:
            (model.observer if model else failures).failed(rpc, error)
            self(error)
            return
        self._model, self.request = model, request
        engine.submit(model, request)

    def _request(
        self, message: pb.PredictRequest, model: Model, rpc: str, call: ServerCall, arrived: float
    ) -> InferRequest:
        if message.HasField("sequence"):
            raise InvalidRequest(f"the request is part of a sequence, and {model} keeps no state")
        codec = self._codec = model.attachments.get(ModelCodec) or codec_of(model)
        arrays, any_raw = codec.inputs(message)
        rows, key = codec.layout(arrays)
        outputs, encoding = message.outputs, message.output_encoding
        self._typed = encoding == pb.TYPED or not (any_raw or encoding)
        return InferRequest(
            arrays,
            codec.outputs(outputs) if outputs else model.output_names,
            rows,
            key,
            rpc,
            self,
            arrived,
            _deadline(message, call, arrived) if message.HasField("timeout") else call.deadline,
            message.priority,
        )

    def cancel(self, engine: Engine) -> None:
        """Drops the request, if there is one, since nobody waits for its answer."""
        request = self.request  # another thread may be answering it
        if request is not None:
            engine.cancel(self._model, request)

    def encoded(self, result: InferResponse | RequestError) -> bytes | RequestError:
        """The serialized answer; an error where there is none, or protobuf cannot carry it."""
        if isinstance(result, RequestError):
            return result
        try:
            return self._codec.answer(result, self._id, self._tag, self._typed)
        except (ValueError, EncodeError) as error:  # over 2 GiB, or text that is none
            return ModelFailed(f"the model's answer cannot be sent: {error}")


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


def _deadline(message: pb.PredictRequest, call: ServerCall, arrived: float) -> float:
    """The earlier of the call's deadline and the request's own."""
    seconds = message.timeout.seconds + message.timeout.nanos / 1e9
    if seconds < 0:
        raise InvalidRequest(f"timeout is {seconds} s, expected 0 (for none) or more")
    return min(call.deadline, arrived + (seconds or math.inf))
