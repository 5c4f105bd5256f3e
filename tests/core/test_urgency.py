"""A thread can be made less urgent than the others of its process."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.config import Config
from penstock.core import urgency
from penstock.server import Server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads stay as they are")


def nice() -> int:
    """That of the calling thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_a_thread_becomes_less_urgent_and_no_other_does() -> None:
    before = nice()
    with ThreadPoolExecutor(1, initializer=urgency.become, initargs=(urgency.less_urgent(3),)) as pool:
        assert pool.submit(nice).result() == min(before + 3, urgency.LEAST)
        assert pool.submit(urgency.less_urgent, 100).result() == urgency.LEAST
        pool.submit(urgency.become, urgency.LEAST).result()
        assert pool.submit(nice).result() == urgency.LEAST
        pool.submit(urgency.become, before).result()
        assert pool.submit(nice).result() == urgency.LEAST, "a thread cannot become more urgent again"
    assert nice() == before


def test_a_worker_that_another_worker_begins_is_as_urgent_as_the_others() -> None:
    """A thread begins as urgent as the one that begins it, and workers hand work on that takes turns."""
    with urgency.pool(3, "worker") as pool:

        def handed_on(times: int) -> list[int]:
            return [nice(), *(pool.submit(handed_on, times - 1).result() if times else ())]

        assert pool.submit(handed_on, 2).result() == [urgency.less_urgent(urgency.WORKER_STEPS)] * 3


@pytest.mark.parametrize("name", ["getpriority", "setpriority"])
def test_a_sandbox_may_forbid_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, name, forbidden)
    with urgency.pool(1, "worker") as pool:
        assert pool.submit(threading.current_thread).result().name == "worker_0"


def test_the_workers_of_a_server_are_less_urgent_than_its_polling_thread(tmp_path: Path) -> None:
    server = Server(Config.model_validate({"server": {"port": 0, "ops_port": 0, "http": False}}), tmp_path)
    with server._workers as workers, server._operators as operators:
        assert workers.submit(nice).result() == min(nice() + urgency.WORKER_STEPS, urgency.LEAST)
        assert operators.submit(nice).result() == nice(), "what they load makes threads of its own"
