"""ModelStreamInfer: a stream with one request per message, answered in order."""

from __future__ import annotations

from typing_extensions import override

from penstock.core import wire
from penstock.core.errors import InvalidRequest, RequestError
from penstock.core.large_bytes import LARGE_BYTES, joined
from penstock.protocols.send_buffer import SendBuffer
from penstock.protocols.sequence_ids import has_own_sequence
from penstock.protocols.service import Service
from penstock.protocols.status import words
from penstock.protocols.stream import Stream
from penstock.protocols.stream_items import Result
from penstock.transport.grpc.call import ServerCall
from penstock_proto.inference import grpc_service_pb2 as pb

RPC = "ModelStreamInfer"
GRPC_ERROR_KEY = "triton_grpc_error"
RESPONSE = wire.key(pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER, wire.LENGTH_DELIMITED)
FINAL = pb.ModelInferResponse(
    parameters={"triton_final_response": pb.InferParameter(bool_param=True)}
).SerializeToString()
"""Triton's mark of the last response to a request; here each request has exactly one response."""


class InferStream(Stream):
    """One stream of requests.

    An error answers its request, and the stream continues. If the client asks for it by metadata, the first
    error ends the stream.

    Args:
        call: the call.
        service: the service it belongs to.
    """

    def __init__(self, call: ServerCall, service: Service) -> None:
        # The protocol has one answer per message, so answers are not joined.
        super().__init__(call, service, RPC, SendBuffer(call.send, message_bytes=0), ordered=True)
        metadata = dict(call.metadata)
        self.has_sequence = has_own_sequence(call.metadata)
        self._ends_on_error = metadata.get(GRPC_ERROR_KEY) == "true"

    @override
    def _handle(self, data: bytes) -> None:
        service = self.service
        found = service.known_requests.find(data)
        if found is not None:
            self._take_one(data, found)
        elif (error := service.too_many_names(data)) is not None:
            self._coming(1)
            self._refuse(error, data)
            self._took()
        elif service.is_much_work(data):
            service.offload(self.call, data, self._decode)
        else:
            self._decode(data)

    def _decode(self, data: bytes) -> None:
        try:
            decoded = self.service.codec.decode(data)
        except InvalidRequest as error:
            self._cannot_read(error)
            return
        self._coming(1)
        self.begin_decoded(decoded, data)
        self._took()

    @override
    def _result(self, answer: bytes | RequestError, id: str, tag: int) -> Result:
        if not isinstance(answer, RequestError):
            size = wire.varint(len(answer) + len(FINAL))
            parts = (RESPONSE, size, answer, FINAL)
            return ((b"".join(parts) if len(answer) < LARGE_BYTES else joined(parts), 1),)
        if self._ends_on_error:
            return self.service.codec.error(answer)
        message = pb.ModelStreamInferResponse(error_message=words(answer))
        message.infer_response.id = id
        return ((message.SerializeToString(), 1),)
