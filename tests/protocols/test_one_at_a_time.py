"""Work that holds the interpreter is done by one worker at a time, whatever becomes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest

from penstock.protocols.one_at_a_time import OneAtATime

COUNT = 20


def test_work_is_done_in_order_by_one_worker_at_a_time() -> None:
    done: list[int] = []
    most = busy = 0
    ended = threading.Event()

    def work(number: int) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        time.sleep(0.001)
        busy -= 1
        done.append(number)
        if number == COUNT - 1:
            ended.set()
        if number % 3 == 0:
            raise ValueError(number)

    with ThreadPoolExecutor(4) as workers:
        one = OneAtATime(lambda: workers)
        for number in range(COUNT):
            one.submit(work, number)
        assert ended.wait(10)
    assert (done, most) == (list(range(COUNT)), 1)


def test_other_work_of_the_pool_does_not_wait_for_all_of_it() -> None:
    order: list[str] = []
    begin, ended = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as workers:
        one = OneAtATime(lambda: workers)
        workers.submit(begin.wait, 10)
        for name in ("first", "second"):
            one.submit(order.append, name)
        one.submit(ended.set)
        workers.submit(order.append, "other")
        begin.set()
        assert ended.wait(10)
    assert order == ["first", "other", "second"]


class _Interrupted:
    """A lock. After each release, `then` runs before the thread that released it goes on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.then: list[Callable[[], None]] = []

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if self.then:
            self.then.pop()()


def test_work_that_comes_as_the_last_ends_has_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Callable[[], None]] = []
    pool = Mock(submit=begun.append)
    one = OneAtATime(lambda: pool)
    lock = _Interrupted()
    monkeypatch.setattr(one, "_lock", lock)
    done: list[int] = []
    one.submit(done.append, 0)
    lock.then.append(lambda: one.submit(done.append, 1))
    begun.pop()()
    assert len(begun) == 1
    begun.pop()()
    assert (done, begun) == ([0, 1], [])
