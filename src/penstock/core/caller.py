"""The caller of a sequence's steps, as far as the server can tell callers apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


def _is_open(connection: str, since: float) -> bool:
    return bool(connection)


class Caller(NamedTuple):
    """Who sends the steps of sequences.

    Attributes:
        connection: its connection, equal for all calls on it; "" if that is over.
        name: what it is known by on all of its connections; None if it is known by its connection only.
        shares: whether it shares the ids of sequences with all others that share them.
        address: where its connection comes from, without the port.
        is_open: given a connection and the time of the last call on it, whether the connection is still open;
            also true if this is not known.
    """

    connection: str
    name: object = None
    shares: bool = False
    address: str = ""
    is_open: Callable[[str, float], bool] = _is_open

    def is_same(self, other: Caller) -> bool:
        """Whether both use the same sequences."""
        if self.shares or other.shares:
            return self.shares and other.shares
        if self.name is not None or other.name is not None:
            return self.name == other.name
        return self.connection == other.connection != ""

    def may_follow(self, other: Caller) -> bool:
        """Whether it may be the other one on a new connection, if the other's connection is closed."""
        is_unnamed = self.name is None is other.name and not self.shares and not other.shares
        return is_unnamed and self.address == other.address

    def is_gone(self, since: float) -> bool:
        """Whether its connection is closed.

        Args:
            since: when a call last came on the connection, by `time.monotonic()`.
        """
        return not self.is_open(self.connection, since)
