"""The state of one `predict_stream`, for both clients: items read, sent and answered. No I/O, no locks.

An item is read from the iterable and either added (to be sent) or refused (it does not fit the model).
The results are collected in the order of the items, or as they are ready. At most `limit` items are between
being read and being collected.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

from penstock_client._arguments import check_whole
from penstock_client._errors import InvalidInput, NotFound, PenstockError, from_status
from penstock_client._frames import check_items
from penstock_client._messages import Signature, Signatures, prediction
from penstock_client._types import Item, Prediction, StreamItem
from penstock_client._wire import KnownRequest, extras, tagged
from penstock_proto.v1 import prediction_pb2

MESSAGE_BYTES = 1 << 20
"""Above this many bytes nothing more is added to a message: that would save nothing."""

Result: TypeAlias = Prediction | PenstockError
"""The outcome of one item."""


class StreamState:
    """The state of one stream.

    Args:
        known: the part of the requests without inputs, sequences and timeout.
        timeout: of each request, in seconds; None for no limit.
        signatures: the client's signatures; one is dropped if the server contradicts it.
        ordered: whether results come in the order of the items.
        limit: most items between being read and being collected.

    Attributes:
        ended: nothing more will be read.
        failure: the error to raise after the last result; set by `close`.
    """

    def __init__(
        self, known: KnownRequest, timeout: float | None, signatures: Signatures, ordered: bool, limit: int
    ) -> None:
        self._known = known
        self._timeout = extras("", timeout, None)
        self._signatures = signatures
        self._ordered = ordered
        self._limit = limit
        self._read = 0
        self._collected = 0
        self._due = 0
        self._outgoing: deque[list[bytes]] = deque()  # the requests of each message
        self._last_bytes = 0
        self._awaited: dict[int, Signature] = {}
        self._held: dict[int, Result] = {}
        self._ready: list[Result] = []
        self.ended = False
        self.failure: BaseException | None = None

    @property
    def has_room(self) -> bool:
        """Whether one more item may be read."""
        return self._read - self._collected < self._limit

    @property
    def has_outgoing(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._outgoing)

    @property
    def has_news(self) -> bool:
        """Whether there is something to collect, or to wait for from the server."""
        return bool(self._ready or self._awaited or self.ended)

    @property
    def has_ready(self) -> bool:
        """Whether there is something to collect."""
        return bool(self._ready)

    def add(self, signature: Signature, written: list[bytes]) -> None:
        """Adds the next item, encoded with this signature, to be sent."""
        wire = tagged([self._known.fields, *written, self._timeout], self._read)
        if not self._outgoing or self._last_bytes + len(wire) > MESSAGE_BYTES:
            self._outgoing.append([])
            self._last_bytes = 0
        self._outgoing[-1].append(wire)
        self._last_bytes += len(wire)
        self._awaited[self._read] = signature
        self._read += 1

    def refuse(self, error: PenstockError, item: Item) -> None:
        """Adds the next item, which is not sent, with its result."""
        if isinstance(item, StreamItem):
            error.id = item.id
        index = self._read
        self._read += 1
        self._settle(index, error)

    def end(self, failure: BaseException | None = None) -> None:
        """Called when there are no more items, or reading the next one failed with `failure`."""
        self.ended = True
        self.failure = self.failure or failure

    def take(self) -> bytes | None:
        """The next message to send, if there is one: all added items, up to a size."""
        return b"".join(self._outgoing.popleft()) if self._outgoing else None

    def receive(self, message: prediction_pb2.PredictStreamResponse) -> None:
        """Handles a message of the server.

        Raises:
            PenstockError: UNKNOWN, if an answer is for an item that is not pending.
        """
        for result in message.results:
            signature = self._awaited.pop(result.tag, None)
            if signature is None:
                raise PenstockError(f"the server answered item {result.tag}, which is not pending")
            self._settle(result.tag, self._read_result(result, signature))

    def collect(self) -> list[Result]:
        """The results that may be yielded now; as many new items may then be read."""
        ready, self._ready = self._ready, []
        self._collected += len(ready)
        return ready

    def close(self, failure: PenstockError | None = None) -> None:
        """The call is over: nothing more will be received. Results that were held back become ready."""
        self._ready += [self._held[index] for index in sorted(self._held)]
        self._held.clear()
        if failure is None and self._awaited:
            failure = PenstockError(f"the server ended the stream with {len(self._awaited)} items unanswered")
        if failure is None and not self.ended:
            failure = PenstockError("the server ended the stream before the last item was sent")
        self.failure = failure or self.failure

    def _read_result(self, result: prediction_pb2.PredictResult, signature: Signature) -> Result:
        if result.HasField("response"):
            try:
                return prediction(result.response, result.tag)
            except PenstockError as unreadable:
                return unreadable
        error = from_status(result.error)
        error.id = result.id
        if isinstance(error, InvalidInput | NotFound):
            self._signatures.drop(self._known.key, signature)
        return error

    def _settle(self, index: int, result: Result) -> None:
        result.index = index
        if not self._ordered:
            self._ready.append(result)
            return
        self._held[index] = result
        while self._due in self._held:
            self._ready.append(self._held.pop(self._due))
            self._due += 1


def check_stream(inputs: object, errors: str, max_in_flight: int) -> None:
    """Checks the arguments of `predict_stream`.

    Raises:
        TypeError: the inputs are those of one prediction, not an iterable of such; or `max_in_flight` is
            no integer.
        ValueError: another argument is out of its range.
    """
    check_items(inputs)
    if errors not in ("raise", "return"):
        raise ValueError(f'errors is "raise" or "return", not {errors!r}')
    check_whole("max_in_flight", max_in_flight, 1)
