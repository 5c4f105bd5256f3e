"""Timeouts, and the deadlines that they become."""

from __future__ import annotations

from threading import TIMEOUT_MAX
from time import monotonic


def seconds(timeout: float | None, default: float | None) -> float | None:
    """The timeout of a call, in seconds; None for no limit.

    Args:
        timeout: the caller's, above 0; None for the default. `math.inf` is no limit, and neither is a timeout
            that Python cannot wait for: 292 years and more, on Windows 49 days and more.
        default: the client's default timeout.

    Raises:
        ValueError: the timeout is 0, negative or not a number.
    """
    chosen = default if timeout is None else timeout
    if chosen is None or chosen >= TIMEOUT_MAX:
        return None
    if not chosen > 0:
        raise ValueError(f"a timeout is a number of seconds above 0, not {chosen!r}")
    return chosen


class _Default(float):
    """The timeout of calls for which none is given; see `Deadline.is_given`."""


DEFAULT_TIMEOUT: float = _Default(30.0)
"""The timeout of calls that name none, in seconds."""


class Deadline:
    """The deadline that several steps share.

    Args:
        timeout: in seconds; None for no limit.

    Attributes:
        at: the deadline on the monotonic clock; None for no limit.
        timeout: as given.
        is_given: whether the user has given it, for this call or for the client. Only then is a server that
            is gone waited for until the deadline, and only then does a request on a stream carry it: the
            default is the client's own, which cancels the request when it has passed.
    """

    __slots__ = ("at", "is_given", "timeout")

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self.at = None if timeout is None else monotonic() + timeout
        self.is_given = timeout is not None and type(timeout) is not _Default

    def remaining(self) -> float | None:
        """The seconds that are left, not below 0; None for no limit."""
        return None if self.at is None else max(0.0, self.at - monotonic())
