"""A stream of plain requests over HTTP: a line each, and a line for each answer, in their order."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from typing_extensions import override

from penstock.core.errors import InvalidRequest, RequestError
from penstock.protocols.asked import note_missed
from penstock.protocols.rest.decoder import MODEL, VERSION, decode_line
from penstock.protocols.rest.errors import to_status
from penstock.protocols.rest.values import dumped
from penstock.protocols.send_buffer import SendBuffer
from penstock.protocols.service import Service
from penstock.protocols.stream import Stream
from penstock.protocols.stream_items import Result
from penstock.transport.http.lines import LineCall
from penstock.transport.http.status import problem_fields

RPC = "RestPredictStream"


class LineStream(Stream):
    """One stream. An error is the answer to its line, and the stream goes on.

    The tag of a request is the number of its line.

    Args:
        call: the call.
        service: the service it belongs to.
    """

    call: LineCall

    def __init__(self, call: LineCall, service: Service) -> None:
        super().__init__(call, service, RPC, SendBuffer(call.send), ordered=True)

    @override
    def _handle(self, data: bytes) -> None:
        self._coming(1)
        service, line = self.service, self.call.line
        try:
            decoded = decode_line(data)
            decoded.came_by(self.call)
            decoded.tag = line
        except InvalidRequest as error:
            service.telemetry.failed(self.rpc, error)
            self._miss()
            self.refused(error, "", line)
        else:
            self.begin_decoded(decoded, None)
            decoded.let_go()
        self._took()

    def _miss(self) -> None:
        """A line that cannot be read may have been the first step of the stream's sequence."""
        parameters = self.call.parameters
        with suppress(RequestError):
            note_missed(self.service.engine.route(parameters[MODEL], parameters.get(VERSION, "")), self)

    @override
    def _result(self, answer: bytes | RequestError, id: str, tag: int) -> Result:
        if isinstance(answer, bytes):
            return ((self.call.framed(answer), 1),)
        error = dumped({"error": problem_fields(replace(to_status(answer), line=tag))})
        return ((self.call.framed(error, "error"), 1),)
