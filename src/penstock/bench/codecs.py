"""What the two protocols have in common for a load tool: requests made ahead as bytes, and answers read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from penstock.bench.payloads import Payload
from penstock.bench.tally import Outcome

ProtocolName: TypeAlias = Literal["penstock", "oip"]

GARBAGE = Outcome("UNKNOWN", "the server sent something that is no message of its protocol")
"""What becomes of a request whose answer cannot be read."""


@dataclass(frozen=True, slots=True)
class Ask:
    """All of a request but its inputs.

    Attributes:
        model: the model's name.
        version: a version; "" for the default.
        outputs: the outputs wanted; none means all.
        timeout: the longest a request may take, in seconds.
    """

    model: str
    version: str = ""
    outputs: tuple[str, ...] = ()
    timeout: float = 30.0


class Codec(Protocol):
    """One protocol.

    Attributes:
        unary: the full method for one request, such as "/package.Service/Method".
        stream: the full method for many requests over one call.
    """

    unary: str
    stream: str

    def request(self, payload: Payload) -> bytes:
        """The message for one request of its own."""

    def message(self, payload: Payload) -> bytes:
        """The message for one request on a stream."""

    def answer(self, data: bytes) -> Outcome:
        """What a message says that answers a request of its own."""

    def answers(self, data: bytes) -> Iterable[Outcome]:
        """What a message of a stream says, one outcome for every request that it answers, in order."""
