"""The thread that serves HTTP is woken up for all that other threads have for it."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from penstock.transport.grpc.call import Limits
from penstock.transport.http.call import HttpCall, Mailbox
from penstock.transport.http.routes import Found
from penstock.transport.http.server import HttpTransport, Work
from rest import kit

SECONDS = 3 * kit.BOUND


class Call(HttpCall):
    """A call that says when it is looked at.

    Args:
        mailbox: of the event loop.
        looked: called then.
    """

    __slots__ = ("looked",)

    def __init__(self, mailbox: Mailbox, looked: Callable[[], None]) -> None:
        super().__init__(Found("", {}), {}, b"", None, mailbox)
        self.looked = looked

    def look(self) -> None:
        self.looked()


@pytest.fixture
def quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def fail() -> None:
    raise RuntimeError("a fault")


def test_news_behind_those_that_fail_are_delivered() -> None:
    async def main() -> list[str]:
        loop, seen = asyncio.get_running_loop(), asyncio.Event()
        faults: list[str] = []
        loop.set_exception_handler(lambda _, context: faults.append(str(context["exception"])))
        mailbox = Mailbox(loop)
        calls = [Call(mailbox, fail), Call(mailbox, fail), Call(mailbox, seen.set)]
        thread = threading.Thread(target=lambda: [each.finish() for each in calls])
        thread.start()
        thread.join()  # all are posted before the loop looks at any
        await asyncio.wait_for(seen.wait(), kit.BOUND)
        return faults

    assert asyncio.run(main()) == ["a fault", "a fault"]


@pytest.mark.usefixtures("quick_switches")
def test_no_news_are_lost_among_threads() -> None:
    """Each thread waits until its news have been looked at: any that were lost would be missed."""
    missed: list[int] = []

    def post(mailbox: Mailbox) -> None:
        for turn in range(500):
            seen = threading.Event()
            Call(mailbox, seen.set).finish()
            if not seen.wait(kit.BOUND):
                missed.append(turn)
                return

    async def main() -> None:
        mailbox = Mailbox(asyncio.get_running_loop())
        await asyncio.gather(*(asyncio.to_thread(post, mailbox) for _ in range(4)))

    asyncio.run(asyncio.wait_for(main(), SECONDS))
    assert not missed


def test_work_that_fails_does_not_end_the_work() -> None:
    faults: list[BaseException] = []
    done = threading.Event()
    turns = iter([fail, lambda: None, done.set])

    def join(wake: Callable[[], None]) -> Callable[[], bool]:
        wake()
        return work

    def work() -> bool:
        next(turns)()
        return not done.is_set()

    transport = HttpTransport([], {}, Limits(), faults.append, 1000, work=Work(join, lambda: None))
    transport.bind("127.0.0.1", 0)
    transport.start()
    try:
        assert done.wait(kit.BOUND)
    finally:
        transport.close()
    assert [str(each) for each in faults] == ["a fault"]
