"""The server's errors, as one tree of exceptions. They are independent of gRPC and HTTP.

PenstockError
├── StartupError                 the server refuses to start
│   ├── ConfigError              a setting is unknown or bad: names the file, the key and the reason
│   └── ModelLoadError           a model cannot be served: names the file and the reason
└── RequestError                 one request gets this instead of an answer
    ├── NotFound                 no such model, version or label: names what exists
    ├── InvalidRequest           the request does not fit the model: names what was sent and what was expected
    ├── Unauthenticated          no credentials, or bad ones
    ├── PermissionDenied         good credentials that do not allow this
    ├── Exhausted                a limit is reached: has the time to try again, if that helps
    │   ├── QueueFull            the model's queue is full
    │   ├── Overloaded           the answer would be too late, because of the requests that wait already
    │   ├── TooManySequences     the model has as many sequences as it may
    │   ├── StatesTooLarge       the states of all sequences would take more memory than they may
    │   ├── MessageTooLarge      the message is larger than the server accepts
    │   └── AnswerTooLarge       the answer is larger than protobuf can carry, or than the server sends
    ├── UnknownSequence          a step of a sequence that has no state, or that another caller has begun
    ├── SequenceTaken            a step would begin a sequence that another caller has begun
    ├── SequenceTooLong          the state of a sequence would become longer than it may
    ├── DeadlineExpired          the deadline passed before the answer was ready
    ├── RequestCancelled         the caller cancelled or disconnected
    ├── Unavailable              not now: the model is loading, draining or gone, or the server is stopping
    └── ModelFailed              the model itself failed on this request
"""

from __future__ import annotations


class PenstockError(Exception):
    """The root of the tree. `str()` of any of these is a message for the user."""


class StartupError(PenstockError):
    """The server refuses to start."""


class ConfigError(StartupError):
    """A setting is unknown or has a bad value."""


class ModelLoadError(StartupError):
    """A model cannot be served."""


class RequestError(PenstockError):
    """One request ends with this instead of an answer."""

    retry_after_seconds: float | None = None
    """After how many seconds trying again may help; None if it does not."""

    by_form = False
    """Whether it depends on the names, datatypes and shapes in the request only, not on values or on time."""


class NotFound(RequestError):
    """There is no such model, version or label."""

    by_form = True


class InvalidRequest(RequestError):
    """The request does not fit the model's signature, or is malformed."""

    @classmethod
    def of_form(cls, message: str) -> InvalidRequest:
        """An error with `by_form`."""
        error = cls(message)
        error.by_form = True
        return error


class Unauthenticated(RequestError):
    """The caller gave no credentials, or bad ones."""


class PermissionDenied(RequestError):
    """The caller's credentials do not allow this."""


class Exhausted(RequestError):
    """A limit is reached."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class QueueFull(Exhausted):
    """The model's queue is full: it cannot take the request's rows as well."""


class Overloaded(Exhausted):
    """The answer would come after the deadline, because of the requests that wait already."""


class TooManySequences(Exhausted):
    """The model has as many sequences with a state as it may."""


class StatesTooLarge(Exhausted):
    """The states of all sequences of the model would take more memory than they may."""


class MessageTooLarge(Exhausted):
    """The message is larger than the server accepts."""


class AnswerTooLarge(Exhausted):
    """The answer is larger than protobuf can carry, or than the server sends."""


class UnknownSequence(RequestError):
    """The sequence has no state: it never began, has ended or has expired; or it is another caller's."""


class SequenceTaken(RequestError):
    """The step would begin a sequence that another caller has begun, and that has not ended."""


class SequenceTooLong(RequestError):
    """The state of the sequence would become longer than it may; it stays as it was."""


class DeadlineExpired(RequestError):
    """The deadline passed before the answer was ready."""


class RequestCancelled(RequestError):
    """The caller cancelled or disconnected."""


class Unavailable(RequestError):
    """The model is loading, draining or gone, or the server is stopping.

    Attributes:
        shut_off: whether the model is rejected because it always fails (the circuit breaker is open).
    """

    shut_off = False


class ModelFailed(RequestError):
    """The model itself failed on this request; the log has the details."""
