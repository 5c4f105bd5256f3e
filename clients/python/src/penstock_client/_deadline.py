"""Timeouts, and the deadlines that they become."""

from __future__ import annotations

import math
from time import monotonic


def seconds(timeout: float | None, default: float | None) -> float | None:
    """The timeout of a call, in seconds; None for no limit.

    Args:
        timeout: the caller's, above 0; None for the default, `math.inf` for no limit.
        default: the client's default timeout.

    Raises:
        ValueError: the timeout is 0, negative or not a number.
    """
    chosen = default if timeout is None else timeout
    if chosen is None or chosen == math.inf:
        return None
    if not chosen > 0:
        raise ValueError(f"a timeout is a number of seconds above 0, not {chosen!r}")
    return chosen


class _Default(float):
    """A timeout that the user did not set: it bounds a call, but a server that is gone is not waited for."""


DEFAULT_TIMEOUT: float = _Default(30.0)
"""The timeout of calls that name none, in seconds."""


class Deadline:
    """The deadline that several steps share.

    Args:
        timeout: in seconds; None for no limit.

    Attributes:
        at: the deadline on the monotonic clock; None for no limit.
        timeout: as given.
    """

    __slots__ = ("at", "timeout")

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self.at = None if timeout is None else monotonic() + timeout

    @property
    def waits(self) -> bool:
        """Whether a server that is gone is waited for until the deadline: if the caller has set it."""
        return self.timeout is not None and type(self.timeout) is not _Default

    def remaining(self) -> float | None:
        """The seconds that are left, not below 0; None for no limit."""
        return None if self.at is None else max(0.0, self.at - monotonic())


NEVER = Deadline(None)
"""No limit."""
