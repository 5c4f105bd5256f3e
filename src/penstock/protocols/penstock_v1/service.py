"""`penstock.v1.PredictionService`: its codec and its methods Predict and PredictStream."""

from __future__ import annotations

from functools import partial
from typing import Any

from penstock.core.errors import InvalidRequest
from penstock.protocols import status
from penstock.protocols.codec import Codec
from penstock.protocols.penstock_v1.decoder import decode
from penstock.protocols.penstock_v1.encoder import encode
from penstock.protocols.penstock_v1.spans import spans_of
from penstock.protocols.penstock_v1.stream import RPC as STREAM
from penstock.protocols.penstock_v1.stream import PredictStream
from penstock.protocols.penstock_v1.work import WORK
from penstock.protocols.request import UnaryCall
from penstock.protocols.sequence_ids import check_metadata
from penstock.protocols.service import Service
from penstock.transport.grpc.call import IGNORING, CallHandler, Kind, Method, Methods, ServerCall

SERVICE = "penstock.v1.PredictionService"
UNARY = "Predict"
CODEC = Codec(decode, encode, status.to_status, spans_of, WORK)


class PredictionService(Service):
    """The prediction service; see `Service` for the arguments."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(CODEC, *parts)

    def methods(self) -> Methods:
        """The service's methods, by full name."""
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
        stream = PredictStream(call, self)
        self.opened(stream)
        return stream
