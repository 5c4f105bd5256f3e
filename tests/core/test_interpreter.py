"""How the threads of a server share the interpreter and a core."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import pytest

from penstock.core.interpreter import LEAST_URGENT, LESS_URGENT, less_urgent


def steps() -> int:
    """Of `nice`, of this thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no steps of their own")
def test_workers_are_less_urgent_than_the_thread_that_makes_them() -> None:
    before = steps()
    expected = min(before + LESS_URGENT, LEAST_URGENT)
    with ThreadPoolExecutor(1, initializer=less_urgent()) as workers:
        assert workers.submit(steps).result() == expected
    assert steps() == before, "this thread is as urgent as it was"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no steps of their own")
def test_a_worker_that_another_one_starts_is_as_urgent_as_it() -> None:
    initializer = less_urgent()
    found: list[int] = []

    def second() -> None:
        initializer()
        found.append(steps())

    def first() -> None:
        initializer()
        other = threading.Thread(target=second)
        other.start()
        other.join()

    thread = threading.Thread(target=first)
    thread.start()
    thread.join()
    assert found == [min(steps() + LESS_URGENT, LEAST_URGENT)]


def test_where_it_is_not_permitted_workers_work_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: int) -> NoReturn:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refused)
    with ThreadPoolExecutor(1, initializer=less_urgent()) as workers:
        assert workers.submit(lambda: 1).result() == 1


def test_on_other_systems_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = steps()
    monkeypatch.setattr(sys, "platform", "darwin")
    less_urgent()()
    assert steps() == before
