"""What the unary calls of both doors have in common."""

from __future__ import annotations

from penstock.rpc.door import Door
from penstock.transport.call import ServerCall


class UnaryCall:
    """The handler's part of a request that is a call of its own; the request itself is the other part."""

    __slots__ = ()

    _call: ServerCall
    _closed: bool
    _service: Door

    def _handle(self, data: bytes) -> None:
        """Takes the request's message."""
        raise NotImplementedError

    def cancel(self, door: Door) -> None:
        """Drops the request, if it has been submitted, since nobody waits for its answer."""
        raise NotImplementedError

    def received(self, message: bytes) -> None:
        """The request has come."""
        if len(message) > self._service.offload_bytes:
            self._service.offload(self._call, message, self._handle)
        else:
            self._handle(message)

    def half_closed(self) -> None:
        """Said of streams only."""

    def sent(self) -> None:
        """Said of streams only."""

    def closed(self, cancelled: bool) -> None:
        """The call is over."""
        self._closed = True  # type: ignore[misc]  # a slot of the class that this is a part of
        if cancelled:
            self.cancel(self._service)
