"""The load tool's codec of `penstock.v1`."""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.protobuf.message import DecodeError

from penstock_bench.codecs import GARBAGE, Ask
from penstock_bench.payloads import Payload
from penstock_bench.tally import Outcome

# As in `payloads`, the client's own encoding.
from penstock_client._wire import KnownRequest, extras, input_opened, request_opened
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_EMPTY = Outcome("UNKNOWN", "the server sent an answer without outputs")


class PenstockCodec:
    """Requests and answers of PredictionService."""

    unary = "/penstock.v1.PredictionService/Predict"
    stream = "/penstock.v1.PredictionService/PredictStream"

    def __init__(self, ask: Ask) -> None:
        self._fields = KnownRequest(ask.model, ask.version, ask.outputs, 0).fields
        self._timeout = extras("", ask.timeout, None)

    def request(self, payload: Payload) -> bytes:
        """The message for a unary request; its timeout is the call's deadline."""
        parts = [self._fields]
        for name, tensor in payload.tensors.items():
            datatype = tensor_pb2.DataType.Value(tensor.datatype)
            parts += (input_opened(name, datatype, tensor.shape, len(tensor.raw)), tensor.raw)
        return b"".join(parts)

    def message(self, payload: Payload) -> bytes:
        """The message for one request on a stream, which carries its timeout."""
        request = self.request(payload) + self._timeout
        return request_opened(len(request)) + request

    def answer(self, data: bytes) -> Outcome:
        """The outcome in a PredictResponse."""
        try:
            return _outcome(pb.PredictResponse.FromString(data))
        except DecodeError:
            return GARBAGE

    def answers(self, data: bytes) -> Iterable[Outcome]:
        """The outcomes in a PredictStreamResponse."""
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
