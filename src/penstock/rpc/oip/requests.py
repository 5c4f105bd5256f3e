"""One request of either RPC on its way from message to answer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol, TypeAlias

from typing_extensions import override

from penstock.errors import RequestError
from penstock.messages import Flush, InferRequest, InferResponse, Step
from penstock.models.model import Model
from penstock.rpc import wire
from penstock.rpc.arrays import layout, wanted_outputs
from penstock.rpc.door import Door, parsed
from penstock.rpc.oip import parameters
from penstock.rpc.oip.classes import check_classes
from penstock.rpc.oip.inputs import Inputs
from penstock.rpc.oip.outputs import Outputs
from penstock.rpc.oip.places import places_of
from penstock.rpc.status import words
from penstock.rpc.steps import StepStream, check_one_row, own_step, step_of
from penstock.rpc.stream import Part, StreamItem
from penstock.rpc.templates import Asked, Template, Templates
from penstock.transport.call import ServerCall, Status
from penstock_proto.inference import grpc_service_pb2 as pb

UNARY, STREAM = "ModelInfer", "ModelStreamInfer"
RESPONSE = wire.key(pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER, wire.LENGTH_DELIMITED)
FINAL = pb.ModelInferResponse(
    parameters={"triton_final_response": pb.InferParameter(bool_param=True)}
).SerializeToString()
"""What Triton marks the last response to a request of a stream with: here there is one to each."""


Read: TypeAlias = Template | pb.ModelInferRequest
"""What a message looks like, or means."""


class InferDoor(Door):
    """What requests of the protocol come in by."""

    @cached_property
    def templates(self) -> Templates:
        """What earlier requests looked like."""
        return Templates(places_of)

    def read(self, data: bytes) -> Read:
        """What a message looks like or means.

        Raises:
            InvalidRequest: it is none.
        """
        return self.templates.find(data) or parsed(pb.ModelInferRequest, data)


class Codec:
    """What reads requests for one model and writes its answers; lives as long as the model."""

    __slots__ = ("inputs", "outputs")

    def __init__(self, model: Model) -> None:
        self.inputs = Inputs(model)
        self.outputs = Outputs(model)


class Infer(InferRequest):
    """A request of either RPC, from before its message is read until it is answered.

    Args:
        rpc: the RPC it came by.
    """

    __slots__ = ("_classes", "_codec", "_id", "_model", "sequence", "size")

    _codec: Codec
    _classes: Mapping[str, int] | None

    def __init__(self, rpc: str) -> None:  # the request's other fields come with its message
        self.rpc = rpc
        self._model: Model | None = None
        self.sequence: Step | None = None

    def stream(self) -> StepStream | None:
        """The stream that it came on; None for a call of its own."""
        return None

    def submit(self, data: bytes, read: Read, call: ServerCall, door: InferDoor) -> None:
        """Takes over what a message asks for and hands itself to the engine; refuses what does not fit.

        Args:
            data: the message's bytes.
            read: what the door has made of them.
            call: the call it came on.
            door: what it came in by.
        """
        if not isinstance(read, Template):
            self._submit(data, read, call, door)
        elif not self._submit_alike(data, read, call, door):
            self._submit(data, pb.ModelInferRequest.FromString(data), call, door)

    def _submit_alike(self, data: bytes, template: Template, call: ServerCall, door: InferDoor) -> bool:
        model = template.model_now(door.engine.route)
        if model is None:
            return False
        if model.kept is not None:
            self.sequence = own_step(self.stream())
            if self.sequence is None:
                return False
        self._id, self.size = template.id_of(data), len(data)
        self._codec, self._classes = _codec_of(model), template.asked.form
        template.fill(self, data, call.deadline)
        self._model = model  # not before: from now on it can be cancelled
        door.engine.submit(model, self)
        return True

    def _submit(self, data: bytes, message: pb.ModelInferRequest, call: ServerCall, door: InferDoor) -> None:
        self._id, self.size = message.id, len(data)
        arrived = time.monotonic()
        model = None
        try:
            model = door.engine.route(message.model_name, message.model_version)
            self._read(message, model, call, arrived)
        except RequestError as error:
            if model is None:
                door.telemetry.failed(self.rpc, error)
            else:
                model.observer.failed(self.rpc, error, seconds=time.monotonic() - arrived)
            self.reply(error)
            return
        self._model = model
        if door.templates.is_time(self) and not (self.sequence and message.parameters):
            seconds = parameters.of_request(message)[1]
            asked = Asked(message.model_name, message.model_version, seconds, self._classes)
            door.templates.learn(data, asked, self, model)
        door.engine.submit(model, self)

    def cancel(self, door: Door) -> None:
        """Drops the request, if it has been submitted, since nobody waits for its answer."""
        if self._model is not None:
            door.engine.cancel(self._model, self)

    def encoded(self, result: InferResponse | RequestError) -> bytes | RequestError:
        """The serialized answer; an error where there is none, or protobuf cannot carry it."""
        if isinstance(result, RequestError):
            return result
        return self._codec.outputs.encode(result, self._id, self._classes)

    def _read(self, message: pb.ModelInferRequest, model: Model, call: ServerCall, arrived: float) -> None:
        codec = self._codec = _codec_of(model)
        arrays = codec.inputs.read(message)
        rows, key = layout(model, arrays)
        if model.kept is not None:
            self.sequence = step_of(model, self.stream(), *parameters.sequence_of(message))
            check_one_row(model, rows, arrays)
        outputs: Sequence[str] = model.output_names
        self._classes = None
        if message.outputs:
            outputs = wanted_outputs(model, [each.name for each in message.outputs])
            self._classes = _classes_of(message, model)
        priority, deadline = 0, call.deadline
        if message.parameters:
            priority, seconds = parameters.of_request(message)
            deadline = min(deadline, arrived + seconds)
        InferRequest.__init__(self, arrays, outputs, rows, key, self.rpc, arrived, deadline, priority)


class Owner(StepStream, Protocol):
    """The stream that requests belong to, as they see it."""

    @property
    def sender(self) -> object:
        """Who it came from."""

    def done(self, item: StreamItem) -> Flush:
        """The answer to a request is there."""

    def end_for(self, error: RequestError) -> Status | None:
        """How the stream is to end because of a request's error; None where it goes on."""


class Item(Infer):
    """One request of a stream.

    Attributes:
        parts: its answer, once it is there.
        end: how the stream is to end because of it, if it is. Not the error itself: its traceback would
            hold the request, and all that it brought, until garbage is collected.
    """

    __slots__ = ("_stream", "end", "parts")

    def __init__(self, stream: Owner) -> None:
        super().__init__(STREAM)
        self._stream = stream
        self.parts: Sequence[Part] | None = None
        self.end: Status | None = None

    @override
    def stream(self) -> StepStream:
        return self._stream

    @property
    @override
    def sender(self) -> object:
        return self._stream.sender

    @override
    def reply(self, result: InferResponse | RequestError) -> Flush:
        answer = self.encoded(result)
        if isinstance(answer, RequestError):
            self.end = self._stream.end_for(answer)
            message = pb.ModelStreamInferResponse(error_message=words(answer))
            message.infer_response.id = self._id
            self.parts = ((message.SerializeToString(), 1),)
        else:
            self.parts = ((wire.field(RESPONSE, answer + FINAL), 1),)
        return self._stream.done(self)


def _codec_of(model: Model) -> Codec:
    codec: Codec | None = model.attachments.get(Codec)
    if codec is None:
        codec = model.attachments[Codec] = Codec(model)
    return codec


def _classes_of(message: pb.ModelInferRequest, model: Model) -> Mapping[str, int]:
    classes = parameters.classes_of(message)
    for name in classes:
        check_classes(name, model.signature.outputs[name].datatype)
    return classes
