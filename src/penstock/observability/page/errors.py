"""The recent errors: the texts that callers got, without values of their requests.

Nothing is done for a request that ends well. A request that fails takes a lookup and a count; of one kind of
error, a model has one text looked at in a second.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

from penstock.core.errors import ModelFailed, RequestCancelled, RequestError
from penstock.core.observers import SilentObserver

MOST_ENTRIES = 50
MERGED_SECONDS = 1.0
"""Of one kind of error of one model, only the first in this time is looked at; the others are counted."""
MOST_CHARACTERS = 400
"""Of a text; callers get no longer ones."""

VALUES = (
    (re.compile(r"the value .* at position", re.DOTALL), "the value # at position"),
    (re.compile(r"the values .* do not fit", re.DOTALL), "the values # do not fit"),
)
"""How error texts quote values of requests, and what is shown instead."""
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


@dataclass(slots=True, eq=False)
class Entry:
    """Errors of one kind with the same text, but for its numbers.

    Attributes:
        at: when the last second began in which one came, in seconds since 1970.
        first: when the first came.
        model: the model's name; "" if no model was reached.
        version: its version.
        rpc: the RPC of the last that was looked at.
        code: the name of the status code, such as "NOT_FOUND".
        text: its text, without values.
        count: how many requests.
    """

    at: float
    first: float
    model: str
    version: str
    rpc: str
    code: str
    text: str
    count: int

    def fields(self) -> dict[str, Any]:
        """The entry as JSON has it."""
        return {name: getattr(self, name) for name in self.__slots__}


class RecentErrors:
    """The last errors of all models. May be called from any thread.

    Args:
        code_of: the name of the status code that an error is answered with.
        clock: gives the time, in seconds since 1970.

    Attributes:
        clock: as given.
        lock: held while an entry is changed.
    """

    def __init__(
        self, code_of: Callable[[RequestError], str], clock: Callable[[], float] = time.time
    ) -> None:
        self._code_of = code_of
        self.clock = clock
        self.lock = Lock()
        self._entries: dict[Entry, None] = {}  # the newest last
        self.unknown = ErrorWatch(self, "", "")

    def of(self, model: str, version: str) -> ErrorWatch:
        """An observer that keeps the errors of one version of a model."""
        return ErrorWatch(self, model, version)

    def entries(self) -> list[dict[str, Any]]:
        """The entries, the newest first; see `Entry`."""
        with self.lock:
            return [each.fields() for each in reversed(self._entries)]

    def keep(self, watch: ErrorWatch, rpc: str, error: RequestError, count: int) -> None:
        """Keeps an error, in a new entry or by counting it in one."""
        kind, now = type(error), self.clock()
        with self.lock:
            last = watch.last.get(kind)
            if last is not None and 0 <= now - last.at < MERGED_SECONDS:
                last.count += count
                return
            # The error itself is not kept: it may hold the request.
            text = without_values(error)
            if last in self._entries and NUMBER.sub("", last.text) == NUMBER.sub("", text):
                del self._entries[last]  # to become the newest
                last.at, last.rpc, last.text = now, rpc, text
                last.count += count
            else:
                code = self._code_of(error)
                last = Entry(now, now, watch.model, watch.version, rpc, code, text, count)
                watch.last[kind] = last
            self._entries[last] = None
            if len(self._entries) > MOST_ENTRIES:
                del self._entries[next(iter(self._entries))]


class ErrorWatch(SilentObserver):
    """Keeps the errors of one version of a model.

    Args:
        kept: where they are kept.
        model: the model's name.
        version: its version.

    Attributes:
        last: the newest entry of each kind of error.
    """

    def __init__(self, kept: RecentErrors, model: str, version: str) -> None:
        self.model = model
        self.version = version
        self.last: dict[type[RequestError], Entry] = {}
        self._keep, self._clock, self._lock = kept.keep, kept.clock, kept.lock

    def failed(self, rpc: str, error: RequestError, count: int = 1, seconds: float = 0.0) -> None:
        """Keeps an error. A caller that is gone got none."""
        last = self.last.get(type(error))
        if (
            last is not None and 0 <= self._clock() - last.at < MERGED_SECONDS
        ):  # as `keep`, but without a call
            with self._lock:
                last.count += count
        elif not isinstance(error, RequestCancelled):
            self._keep(self, rpc, error, count)


def without_values(error: RequestError) -> str:
    """The text of an error, with "#" in place of values of the request."""
    text = str(error)
    if isinstance(error, ModelFailed):
        return NUMBER.sub("#", text)[:MOST_CHARACTERS]
    for pattern, instead in VALUES:
        text = pattern.sub(instead, text)
    return text[:MOST_CHARACTERS]
