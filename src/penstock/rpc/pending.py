"""One request of either RPC on its way from message to answer."""

from __future__ import annotations

import math
import time
from functools import cached_property

from penstock.errors import InvalidRequest, RequestError
from penstock.messages import InferRequest, InferResponse, Step
from penstock.models.model import Model
from penstock.rpc.arrays import layout, wanted_outputs
from penstock.rpc.codec import ModelCodec, codec_of
from penstock.rpc.door import Door
from penstock.rpc.predict_places import places_of
from penstock.rpc.steps import StepStream, check_one_row, own_step, step_of
from penstock.rpc.templates import Asked, Template, Templates
from penstock.transport.call import ServerCall
from penstock_proto.v1 import prediction_pb2 as pb


class PredictDoor(Door):
    """What requests of penstock.v1 come in by."""

    @cached_property
    def templates(self) -> Templates:
        """What earlier requests looked like."""
        return Templates(places_of)


class Pending(InferRequest):
    """A request of either RPC, from before its message is read until it is answered.

    Args:
        rpc: the RPC it came by, such as "Predict".
    """

    __slots__ = ("_codec", "_id", "_model", "_tag", "_typed", "sequence", "size")

    _codec: ModelCodec

    def __init__(self, rpc: str) -> None:  # the request's other fields come with its message
        self.rpc = rpc
        self._model: Model | None = None
        self.sequence: Step | None = None

    def stream(self) -> StepStream | None:
        """The stream that it came on; None for a call of its own."""
        return None

    def submit(self, data: bytes, message: pb.PredictRequest, call: ServerCall, door: PredictDoor) -> None:
        """Takes over what a message asks for and hands itself to the engine; refuses what does not fit.

        Args:
            data: the message's bytes.
            message: the same, parsed.
            call: the call it came on.
            door: what it came in by.
        """
        self._id, self._tag, self.size = message.id, message.tag, len(data)
        arrived = time.monotonic()
        model = None
        try:
            model = door.engine.route(message.model, message.version)
            self._read(message, model, call, arrived)
        except RequestError as error:
            if model is None:
                door.telemetry.failed(self.rpc, error)
            else:
                model.observer.failed(self.rpc, error, seconds=time.monotonic() - arrived)
            self.reply(error)
            return
        self._model = model
        templates = door.templates
        if templates.is_time(self) and not message.HasField("sequence"):
            seconds = _seconds(message) or math.inf
            asked = Asked(message.model, message.version, seconds, self._typed)
            templates.learn(data, asked, self, model)
        door.engine.submit(model, self)

    def submit_alike(self, data: bytes, template: Template, call: ServerCall, door: PredictDoor) -> bool:
        """As `submit`, for a message that looks like an earlier one.

        Returns:
            Whether it was submitted; else it has to be parsed.
        """
        model = template.model_now(door.engine.route)
        if model is None:
            return False
        if model.kept is not None:
            self.sequence = own_step(self.stream())
            if self.sequence is None:
                return False
        self._id, self._tag, self.size = template.id_of(data), template.tag_of(data), len(data)
        self._codec, self._typed = codec_of(model), template.asked.form
        template.fill(self, data, call.deadline)
        self._model = model  # not before: from now on it can be cancelled
        door.engine.submit(model, self)
        return True

    def _read(self, message: pb.PredictRequest, model: Model, call: ServerCall, arrived: float) -> None:
        if model.kept is not None:
            said = message.sequence
            self.sequence = step_of(model, self.stream(), said.id, said.start, said.end)
        elif message.HasField("sequence"):
            raise InvalidRequest(f"the request is part of a sequence, and {model} keeps no state")
        codec = self._codec = codec_of(model)
        arrays, any_raw = codec.inputs(message)
        rows, key = layout(model, arrays)
        if model.kept is not None:
            check_one_row(model, rows, arrays)
        outputs, encoding = message.outputs, message.output_encoding
        self._typed = encoding == pb.TYPED or not (any_raw or encoding)
        InferRequest.__init__(
            self,
            arrays,
            wanted_outputs(model, outputs) if outputs else model.output_names,
            rows,
            key,
            self.rpc,
            arrived,
            _deadline(message, call, arrived) if message.HasField("timeout") else call.deadline,
            message.priority,
        )

    def cancel(self, door: Door) -> None:
        """Drops the request, if it has been submitted, since nobody waits for its answer."""
        if self._model is not None:
            door.engine.cancel(self._model, self)

    def encoded(self, result: InferResponse | RequestError) -> bytes | RequestError:
        """The serialized answer; an error where there is none, or protobuf cannot carry it."""
        if isinstance(result, RequestError):
            return result
        return self._codec.encoded(result, self._id, self._tag, self._typed)


def _deadline(message: pb.PredictRequest, call: ServerCall, arrived: float) -> float:
    """The earlier of the call's deadline and the request's own."""
    seconds = _seconds(message)
    if seconds < 0:
        raise InvalidRequest(f"timeout is {seconds} s, expected 0 (for none) or more")
    return min(call.deadline, arrived + (seconds or math.inf))


def _seconds(message: pb.PredictRequest) -> float:
    return message.timeout.seconds + message.timeout.nanos / 1e9
