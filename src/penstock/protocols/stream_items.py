"""What waits on a stream for its result: a request, several that are answered together, or an error."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Protocol, TypeAlias

from penstock.models.model import Model
from penstock.protocols.request import Part
from penstock.transport.grpc.call import Status

Result: TypeAlias = "Sequence[Part] | Status"
"""The result of a request: what is sent at its place in the stream, or the status that ends it there."""


class StreamItem(Protocol):
    """A request of a stream, or several that are answered together.

    Attributes:
        parts: its results, once they are known; used only if results are sent in the order of the requests.
        count: the number of requests in it.
    """

    parts: Result | None
    count: int

    def cancel(self) -> None:
        """Drops the requests without a result, because they are no longer needed."""

    def cancel_tags(self, tags: Set[int]) -> None:
        """Answers requests of these tags with CANCELLED, and drops them."""

    def learn(self, size: int) -> Model | None:
        """Takes the bytes of its answers, from which those of later ones are expected; 0 for small ones.

        Returns:
            The model, if they are far more than was expected: see `Answers.take_back`.
        """


class Settled:
    """A request that was rejected before it was submitted: it has only its result, `parts`."""

    __slots__ = ("count", "parts")

    def __init__(self, parts: Result) -> None:
        self.parts: Result | None = parts
        self.count = 1

    def cancel(self) -> None:
        """It has its result."""

    def cancel_tags(self, tags: Set[int]) -> None:
        """It has its result."""

    def learn(self, size: int) -> Model | None:
        """It is an error."""
