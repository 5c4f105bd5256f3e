"""Observers of a model: one that ignores everything, and several combined into one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from penstock.core.errors import RequestError
from penstock.core.request import Observer, Request, Run


class SilentObserver:
    """Ignores everything; the base class of observers that need only some of the methods."""

    def batch_done(self, requests: Sequence[Request], run: Run, answered: float) -> None:
        """Ignores a batch that was run and answered."""

    def failed(self, rpc: str, error: RequestError, count: int = 1, seconds: float = 0.0) -> None:
        """Ignores requests that ended with an error."""

    def on_event(self, event: str, **facts: object) -> None:
        """Ignores an event of the model itself."""


def combined(observers: Sequence[Observer]) -> Observer:
    """One observer that calls all of these, in their order. A single one is returned as it is.

    A method that an observer inherits from `SilentObserver` is not called. So a method that only
    one of the observers has costs no more than with that observer alone.
    """
    return observers[0] if len(observers) == 1 else ObserverList(observers)


class ObserverList:
    """Calls several observers. If one of them raises, the others are called nevertheless.

    Args:
        observers: at least one.
    """

    __slots__ = ("batch_done", "failed", "on_event")

    def __init__(self, observers: Sequence[Observer]) -> None:
        self.batch_done = _each(observers, "batch_done")
        self.failed = _each(observers, "failed")
        self.on_event = _each(observers, "on_event")


@lru_cache(maxsize=64)
def _overriding(kinds: Sequence[type], method: str) -> Sequence[int]:
    """The places of the classes that do not inherit a method. A repository may have thousands of models."""
    inherited = getattr(SilentObserver, method)
    return [place for place, kind in enumerate(kinds) if getattr(kind, method, None) is not inherited]


def _each(observers: Sequence[Observer], method: str) -> Callable[..., None]:
    """A function that calls a method of all observers that override it."""
    places = _overriding(tuple(map(type, observers)), method)
    methods: list[Callable[..., Any]] = [getattr(observers[place], method) for place in places]
    if len(methods) == 1:
        return methods[0]

    def call_each(*arguments: object, **named: object) -> None:
        first_error: Exception | None = None
        for function in methods:
            try:
                function(*arguments, **named)
            except Exception as error:
                first_error = first_error or error
        if first_error is not None:
            raise first_error

    return call_each
