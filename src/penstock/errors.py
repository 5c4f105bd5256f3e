"""Everything that can go wrong, as one tree. It knows no gRPC and no HTTP.

PenstockError
├── StartupError                 the server refuses to start
│   ├── ConfigError              a setting is unknown or bad: names the file, the key and the reason
│   └── ModelLoadError           a model cannot be served: names the file and the reason
└── RequestError                 one request gets this instead of an answer
    ├── NotFound                 no such model, version or label: names what exists
    ├── InvalidRequest           the request does not fit the model: names what came and what was expected
    ├── Unauthenticated          no credentials, or bad ones
    ├── PermissionDenied         good credentials that do not allow this
    ├── Exhausted                a bound is reached: carries when to try again, where that helps
    │   ├── QueueFull            the model's queue has no room
    │   ├── Overloaded           so much is ahead of the request that its answer would come too late
    │   ├── TooManyCalls         the server has as many calls in flight as it may
    │   ├── TooManySequences     the model keeps as many states as it may
    │   └── MessageTooLarge      the message is larger than the server takes
    ├── UnknownSequence          a step of a sequence that has no state: never begun, ended or expired
    ├── DeadlineExpired          the deadline passed before the answer was ready
    ├── RequestCancelled         the caller went away
    ├── Unavailable              not now: the model is loading, draining or gone, or the server is stopping
    └── ModelFailed              the model itself failed on this request
"""

from __future__ import annotations


class PenstockError(Exception):
    """The root of the tree. `str()` of any of these is fit for the user to read."""


class StartupError(PenstockError):
    """The server refuses to start."""


class ConfigError(StartupError):
    """A setting is unknown or has a bad value."""


class ModelLoadError(StartupError):
    """A model cannot be served."""


class RequestError(PenstockError):
    """One request ends with this instead of an answer."""

    retry_after_seconds: float | None = None
    """When trying again may help, in seconds; None where it does not."""


class NotFound(RequestError):
    """There is no such model, version or label."""


class InvalidRequest(RequestError):
    """The request does not fit the model's signature, or is malformed."""


class Unauthenticated(RequestError):
    """The caller gave no credentials, or bad ones."""


class PermissionDenied(RequestError):
    """The caller's credentials do not allow this."""


class Exhausted(RequestError):
    """A bound is reached."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class QueueFull(Exhausted):
    """The model's queue has no room for the request's rows."""


class Overloaded(Exhausted):
    """So much is ahead of the request that its answer would come after its deadline."""


class TooManyCalls(Exhausted):
    """The server has as many calls in flight as it may."""


class TooManySequences(Exhausted):
    """The model keeps the states of as many sequences as it may."""


class MessageTooLarge(Exhausted):
    """The message is larger than the server takes."""


class UnknownSequence(RequestError):
    """The sequence has no state: it never began, has ended, or has expired."""


class DeadlineExpired(RequestError):
    """The deadline passed before the answer was ready."""


class RequestCancelled(RequestError):
    """The caller went away."""


class Unavailable(RequestError):
    """The model is loading, draining or gone, or the server is stopping.

    Attributes:
        shut_off: whether it is because the model has failed on whatever it was given.
    """

    shut_off = False


class ModelFailed(RequestError):
    """The model itself failed on this request; the log has the details."""
