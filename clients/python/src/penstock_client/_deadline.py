"""Timeouts, and the deadlines that they become."""

from __future__ import annotations

from threading import TIMEOUT_MAX
from time import monotonic

from penstock_client._arguments import is_number
from penstock_client._errors import DeadlineExceeded


def seconds(timeout: float | None, default: float | None) -> float | None:
    """The timeout of a call, in seconds; None for no limit.

    Args:
        timeout: the caller's, above 0; None for the default. `math.inf` is no limit, and neither is a timeout
            that Python cannot wait for: 292 years and more, on Windows 49 days and more.
        default: the client's default timeout.

    Raises:
        TypeError: the timeout is not a number.
        ValueError: the timeout is 0, negative or NaN.
    """
    chosen = default if timeout is None else timeout
    if chosen is None:
        return None
    if not isinstance(chosen, float) and not is_number(chosen):
        raise TypeError(f"a timeout is a number of seconds above 0, not {chosen!r}")
    if chosen >= TIMEOUT_MAX:
        return None
    if not chosen > 0:
        raise ValueError(f"a timeout is a number of seconds above 0, not {chosen!r}")
    # numpy's float32 would round the time that it is added to
    return chosen if isinstance(chosen, float) else float(chosen)


class _Default(float):
    """The timeout of calls for which none is given; see `Deadline.is_given`."""


DEFAULT_TIMEOUT: float = _Default(30.0)
"""The timeout of calls that name none, in seconds."""


class Deadline:
    """The deadline that several steps share.

    Args:
        timeout: in seconds; None for no limit.
        model: whose answer is waited for, for the text of an error; "" for the server itself.

    Attributes:
        at: the deadline on the monotonic clock; None for no limit.
        timeout: as given.
        is_given: whether the user has given it, for this call or for the client. Only then is a server that
            is gone waited for until the deadline, and only then does a request on a stream carry it: the
            default is the client's own, which cancels the request when it has passed.
    """

    __slots__ = ("_model", "at", "is_given", "timeout")

    def __init__(self, timeout: float | None, model: str = "") -> None:
        self._model = model
        self.timeout = timeout
        self.at = None if timeout is None else monotonic() + timeout
        self.is_given = timeout is not None and type(timeout) is not _Default

    def remaining(self) -> float | None:
        """The seconds that are left, not below 0; None for no limit."""
        return None if self.at is None else max(0.0, self.at - monotonic())

    def passed(self, why: str = "") -> DeadlineExceeded:
        """The error of a call for which it has passed; `why` is what held it up, if that is known."""
        after = "" if self.timeout is None else f" of {self.timeout:g} s"
        awaited = f'model "{self._model}"' if self._model else "the server"
        return DeadlineExceeded(f"the timeout{after} passed before {awaited} answered{why and ': '}{why}")


WAITED = "it waited for the model's description"
FULL = "too many requests are pending"
UNOPENED = "the stream to the server was not open yet"
_OF_GRPC = "Deadline Exceeded"
"""gRPC's text; of a request that was still being sent, it stands in brackets at the end of another one."""


def in_words(error: DeadlineExceeded, deadline: Deadline) -> DeadlineExceeded:
    """The error of a call with this deadline: gRPC's own text does not say what was waited for."""
    is_grpcs = error.message == _OF_GRPC or error.message.endswith(f"({_OF_GRPC})")
    return deadline.passed() if is_grpcs else error
