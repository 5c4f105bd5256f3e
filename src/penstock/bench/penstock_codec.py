"""`penstock.v1` for the load tool."""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.protobuf.message import DecodeError

from penstock.bench.codecs import GARBAGE, Ask
from penstock.bench.payloads import Payload
from penstock.bench.tally import Outcome
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_EMPTY = Outcome("UNKNOWN", "the server sent an answer without outputs")


class PenstockCodec:
    """Requests and answers of PredictionService."""

    unary = "/penstock.v1.PredictionService/Predict"
    stream = "/penstock.v1.PredictionService/PredictStream"

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def request(self, payload: Payload) -> bytes:
        """The message for one request of its own; its timeout is the call's deadline."""
        return self._message(payload).SerializeToString()

    def message(self, payload: Payload) -> bytes:
        """The message for one request on a stream, which carries its timeout."""
        request = self._message(payload)
        request.timeout.FromNanoseconds(max(1, round(self._ask.timeout * 1e9)))
        return pb.PredictStreamRequest(requests=[request]).SerializeToString()

    def answer(self, data: bytes) -> Outcome:
        """What a PredictResponse says."""
        try:
            return _outcome(pb.PredictResponse.FromString(data))
        except DecodeError:
            return GARBAGE

    def answers(self, data: bytes) -> Iterable[Outcome]:
        """What a PredictStreamResponse says."""
        try:
            results = pb.PredictStreamResponse.FromString(data).results
        except DecodeError:
            yield GARBAGE
            return
        for result in results:
            if result.HasField("error"):
                yield Outcome(_CODES.get(result.error.code, "UNKNOWN"), result.error.message)
            else:
                yield _outcome(result.response)

    def _message(self, payload: Payload) -> pb.PredictRequest:
        ask = self._ask
        request = pb.PredictRequest(model=ask.model, version=ask.version, outputs=ask.outputs)
        request.output_encoding = pb.RAW
        for name, tensor in payload.tensors.items():
            field = request.inputs[name]
            field.datatype = tensor_pb2.DataType.Value(tensor.datatype)  # type: ignore[assignment]
            field.shape.extend(tensor.shape)
            field.raw = tensor.raw
        return request


def _outcome(response: pb.PredictResponse) -> Outcome:
    if not response.outputs:
        return _EMPTY
    timing = response.timing
    queue, compute = timing.queue, timing.compute
    return Outcome(
        "",
        "",
        queue.seconds + queue.nanos * 1e-9,
        compute.seconds + compute.nanos * 1e-9,
        timing.batch_rows,
    )
