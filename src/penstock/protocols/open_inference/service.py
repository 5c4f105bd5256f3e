"""The inference methods of `inference.GRPCInferenceService`: ModelInfer, ModelStreamInfer and their codec."""

from __future__ import annotations

from functools import partial
from typing import Any

from penstock.core.errors import InvalidRequest
from penstock.protocols import status
from penstock.protocols.codec import Codec
from penstock.protocols.open_inference.decoder import decode
from penstock.protocols.open_inference.encoder import encode
from penstock.protocols.open_inference.spans import spans_of
from penstock.protocols.open_inference.stream import RPC as STREAM
from penstock.protocols.open_inference.stream import InferStream
from penstock.protocols.open_inference.work import WORK
from penstock.protocols.request import UnaryCall
from penstock.protocols.sequence_ids import check_metadata
from penstock.protocols.service import Service
from penstock.protocols.status import Codes
from penstock.transport.grpc.call import IGNORING, CallHandler, Kind, Method, Methods, ServerCall

SERVICE = "inference.GRPCInferenceService"
UNARY = "ModelInfer"


class InferenceService(Service):
    """The Open Inference service; see `Service` for the other arguments.

    Args:
        codes: the status code of each error.
    """

    def __init__(self, *parts: Any, codes: Codes = status.CODES) -> None:
        error = partial(status.to_status, codes=codes)
        super().__init__(Codec(decode, encode, error, spans_of, WORK), *parts)

    def methods(self) -> Methods:
        """The methods, by full name."""
        return {
            f"/{SERVICE}/{UNARY}": Method(Kind.UNARY, partial(UnaryCall, self, UNARY)),
            f"/{SERVICE}/{STREAM}": Method(Kind.STREAM, self._open_stream),
        }

    def _open_stream(self, call: ServerCall) -> CallHandler:
        try:
            check_metadata(call.metadata)
        except InvalidRequest as error:
            self.telemetry.failed(STREAM, error)
            call.finish(self.codec.error(error))
            return IGNORING
        stream = InferStream(call, self)
        self.opened(stream)
        return stream
