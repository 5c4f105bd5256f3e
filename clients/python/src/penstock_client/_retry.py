"""Repeats calls that failed, within a budget, and never what the server may have run."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from threading import Lock
from typing import TypeVar

from penstock_client._arguments import check_whole, is_number
from penstock_client._errors import PenstockError, Unavailable

T = TypeVar("T")

MOST_TOKENS = 10.0


class Retry:
    """Repeats calls of one client. Share one object: its budget holds for all calls together.

        retry = Retry()
        answer = retry(lambda: client.predict("model", inputs))
        answer = await retry.awaiting(lambda: client.predict("model", inputs))

    A call is repeated if its error is `retryable`: the server did not run it. Waiting times grow and are
    partly random; a hint of the server (`retry_after_seconds`) is heeded, and one that is longer than
    `max_wait` ends the attempts. Every repetition costs a token, every call that succeeds earns `budget` of
    one, at most 10 are kept: so if most calls fail, hardly any is repeated, and a server in trouble is not
    given more work.

    Args:
        attempts: most attempts of a call, the first one included.
        budget: how many repetitions there may be for each call that succeeds.
        max_wait: the longest wait before a repetition, in seconds.
        pure: whether a request may also be repeated if it may have been run: true for models without a state
            whose answers have no side effects, if it does not matter that some are computed twice.

    Raises:
        TypeError: an argument is no number.
        ValueError: an argument is out of its range.
    """

    def __init__(
        self, *, attempts: int = 3, budget: float = 0.1, max_wait: float = 1.0, pure: bool = False
    ) -> None:
        check_whole("attempts", attempts, 1)
        if not is_number(budget):
            raise TypeError(f"budget is a number, 0 to 1, not {budget!r}")
        if not 0 <= budget <= 1:
            raise ValueError(f"budget is 0 to 1, not {budget!r}")
        if not is_number(max_wait):
            raise TypeError(f"max_wait is a number of seconds above 0, not {max_wait!r}")
        if not max_wait > 0:
            raise ValueError(f"max_wait is a number of seconds above 0, not {max_wait!r}")
        self._attempts = attempts
        self._budget = budget
        self._max_wait = max_wait
        self._pure = pure
        self._tokens = MOST_TOKENS
        self._lock = Lock()

    def __call__(self, call: Callable[[], T]) -> T:
        """What `call` returns.

        Raises:
            PenstockError: the error of the last attempt.
        """
        attempt = 1
        while True:
            try:
                result = call()
            except PenstockError as error:
                wait = self._wait(error, attempt)
                if wait is None:
                    raise
            else:
                self._earn()
                return result
            time.sleep(wait)
            attempt += 1

    async def awaiting(self, call: Callable[[], Awaitable[T]]) -> T:
        """What the awaitable that `call` returns gives; each attempt calls it anew.

        Raises:
            PenstockError: the error of the last attempt.
        """
        attempt = 1
        while True:
            try:
                result = await call()
            except PenstockError as error:
                wait = self._wait(error, attempt)
                if wait is None:
                    raise
            else:
                self._earn()
                return result
            await asyncio.sleep(wait)
            attempt += 1

    def _wait(self, error: PenstockError, attempt: int) -> float | None:
        """How long to wait before the next attempt; None if there is none."""
        may_repeat = error.retryable or (self._pure and isinstance(error, Unavailable))
        hint = error.retry_after_seconds or 0.0
        if not may_repeat or attempt >= self._attempts or hint > self._max_wait:
            return None
        with self._lock:
            if self._tokens < 1:
                return None
            self._tokens -= 1
        return max(hint, min(self._max_wait, 0.025 * 2.0**attempt) * random.uniform(0.5, 1.0))

    def _earn(self) -> None:
        if self._tokens < MOST_TOKENS:
            with self._lock:
                self._tokens = min(MOST_TOKENS, self._tokens + self._budget)
