"""What both clients keep of one stream: what was read, sent and answered. No I/O, no locks, no waiting.

An item is read from the iterable and either added (to be sent) or refused (it does not fit the model).
The results come out in the order of the items, or as they finish. At most `limit` items are between
being read and being collected.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

from penstock_client._errors import InvalidInput, NotFound, PenstockError, from_status
from penstock_client._messages import Ask, Packed, Signature, Signatures, prediction
from penstock_client._types import Prediction
from penstock_proto.v1 import prediction_pb2

MESSAGE_BYTES = 1 << 20
"""Above this many bytes of tensors nothing more is put into a message: it would save nothing."""

Result: TypeAlias = Prediction | PenstockError
"""How one item ended."""


class StreamState:
    """The state of one stream.

    Args:
        ask: all of the requests but their inputs.
        signatures: the client's; one is dropped when the server contradicts it.
        ordered: whether results come in the order of the items.
        limit: the most items between being read and being collected.

    Attributes:
        ended: nothing more will be read.
        failure: what is to be raised after the last result; settled by `close`.
    """

    def __init__(self, ask: Ask, signatures: Signatures, ordered: bool, limit: int) -> None:
        self._ask = ask
        self._signatures = signatures
        self._ordered = ordered
        self._limit = limit
        self._read = 0
        self._collected = 0
        self._due = 0
        self._outgoing: deque[prediction_pb2.PredictStreamRequest] = deque()
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

    def add(self, signature: Signature, packed: Packed) -> None:
        """Takes the next item, encoded by this signature, to be sent."""
        if not self._outgoing or self._last_bytes + packed.size > MESSAGE_BYTES:
            self._outgoing.append(prediction_pb2.PredictStreamRequest())
            self._last_bytes = 0
        request = self._outgoing[-1].requests.add()
        self._ask.write(packed, request)
        request.tag = self._read
        self._last_bytes += packed.size
        self._awaited[self._read] = signature
        self._read += 1

    def refuse(self, error: PenstockError) -> None:
        """Takes the next item, which is not sent, and has this for its result."""
        index = self._read
        self._read += 1
        self._settle(index, error)

    def end(self, failure: BaseException | None = None) -> None:
        """There are no more items, or `failure` came instead of the next one."""
        self.ended = True
        self.failure = self.failure or failure

    def take(self) -> prediction_pb2.PredictStreamRequest | None:
        """The next message to send, if there is one: all that has gathered, up to a size."""
        return self._outgoing.popleft() if self._outgoing else None

    def receive(self, message: prediction_pb2.PredictStreamResponse) -> None:
        """Takes what the server sent.

        Raises:
            PenstockError: UNKNOWN, when an answer is to no item that waits for one.
        """
        for result in message.results:
            signature = self._awaited.pop(result.tag, None)
            if signature is None:
                raise PenstockError(f"the server answered item {result.tag}, which waits for no answer")
            self._settle(result.tag, self._read_result(result, signature))

    def collect(self) -> list[Result]:
        """The results that may be handed on now; this makes room for as many new items."""
        ready, self._ready = self._ready, []
        self._collected += len(ready)
        return ready

    def close(self, failure: PenstockError | None = None) -> None:
        """The call is over: nothing more will be received. What was held back becomes ready."""
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
        if isinstance(error, InvalidInput | NotFound):
            self._signatures.drop(self._ask.key, signature)
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


def check_stream(errors: str, max_in_flight: int) -> None:
    """Checks the arguments of `predict_stream` that have a range.

    Raises:
        ValueError: one is out of it.
    """
    if errors not in ("raise", "return"):
        raise ValueError(f'errors is "raise" or "return", not {errors!r}')
    if max_in_flight < 1:
        raise ValueError(f"max_in_flight is at least 1, not {max_in_flight!r}")
