"""The interface of the load tool's codecs: encodes requests in advance, and reads answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from penstock_bench.payloads import Payload
from penstock_bench.tally import Outcome

ProtocolName: TypeAlias = Literal["penstock", "oip"]

GARBAGE = Outcome("UNKNOWN", "the server sent a message that cannot be parsed")
"""The outcome of a request whose answer cannot be parsed."""


@dataclass(frozen=True, slots=True)
class Ask:
    """The options of a request: everything except its inputs.

    Attributes:
        model: the model's name.
        version: a version; "" for the default.
        outputs: the outputs to return; empty means all.
        timeout: of a request, in seconds.
    """

    model: str
    version: str = ""
    outputs: tuple[str, ...] = ()
    timeout: float = 30.0


class Codec(Protocol):
    """The codec of one protocol.

    Attributes:
        unary: the full method for one request, such as "/package.Service/Method".
        stream: the full method for many requests over one call.
    """

    unary: str
    stream: str

    def request(self, payload: Payload) -> bytes:
        """The message for a unary request."""

    def message(self, payload: Payload) -> bytes:
        """The message for one request on a stream."""

    def answer(self, data: bytes) -> Outcome:
        """The outcome in the answer to a unary request."""

    def answers(self, data: bytes) -> Iterable[Outcome]:
        """The outcomes in a message of a stream, one for each answered request, in order."""
