"""The load tool's codec of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from penstock_bench.codecs import GARBAGE, Ask
from penstock_bench.payloads import Payload
from penstock_bench.tally import Outcome
from penstock_proto.inference import grpc_service_pb2 as pb

_ANSWERED = Outcome()
_EMPTY = Outcome("UNKNOWN", "the server sent an answer without outputs")


class OipCodec:
    """Requests and answers of GRPCInferenceService."""

    unary = "/inference.GRPCInferenceService/ModelInfer"
    stream = "/inference.GRPCInferenceService/ModelStreamInfer"

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def request(self, payload: Payload) -> bytes:
        """The message for one request; the protocol has no timeout that all servers support."""
        request = pb.ModelInferRequest(model_name=self._ask.model, model_version=self._ask.version)
        for name, tensor in payload.tensors.items():
            request.inputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
            request.raw_input_contents.append(tensor.raw)
        for name in self._ask.outputs:
            request.outputs.add(name=name)
        return request.SerializeToString()

    message = request
    """The message for one request on a stream: the same."""

    def answer(self, data: bytes) -> Outcome:
        """The outcome in a ModelInferResponse."""
        try:
            return _outcome(pb.ModelInferResponse.FromString(data))
        except DecodeError:
            return GARBAGE

    def answers(self, data: bytes) -> Iterable[Outcome]:
        """The outcome in a ModelStreamInferResponse; an error on a stream has a text but no code."""
        try:
            message = pb.ModelStreamInferResponse.FromString(data)
        except DecodeError:
            return (GARBAGE,)
        if message.error_message:
            return (Outcome("UNKNOWN", message.error_message),)
        return (_outcome(message.infer_response),)


def _outcome(response: pb.ModelInferResponse) -> Outcome:
    return _ANSWERED if response.outputs else _EMPTY
