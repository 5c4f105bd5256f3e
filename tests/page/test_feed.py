"""The stream of events: one look for all watchers, none for nobody, and a bounded number of watchers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from penstock.observability.page.feed import Feed, TooManyWatchers, Watcher, pause
from support.threads import NewThreads

EVERY = 0.01


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


class Source:
    """Counts the looks; `news` can be changed."""

    def __init__(self) -> None:
        self.looks = 0
        self.fails = False
        self.same = b"same"

    def __call__(self) -> dict[str, bytes]:
        self.looks += 1
        if self.fails:
            raise ValueError("no figures")
        return {"same": self.same, "number": b"%d" % self.looks}


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def feed(source: Source) -> Iterator[Feed]:
    made = Feed(source, EVERY, most=3)
    yield made
    made.close()


def parts(watcher: Watcher, count: int) -> list[bytes]:
    return [next(watcher) for _ in range(count)]


def test_events_are_sent_when_they_have_changed(feed: Feed, source: Source) -> None:
    watcher = feed.watch()
    retry, first, second = parts(watcher, 3)
    assert retry == b"retry: 2000\n\n"
    assert first.startswith(b"event: same\ndata: same\n\nevent: number\ndata: ")
    assert second.startswith(b"event: number\ndata: ")
    assert b"same" not in second
    source.same = b"other"
    assert any(b"other" in part for part in parts(watcher, 20))
    late = feed.watch()
    assert b"other" in parts(late, 2)[1]
    for each in (watcher, late):
        each.close()


def test_nobody_watches_and_nothing_is_done(feed: Feed, source: Source) -> None:
    threads = NewThreads()
    assert not threads.named("penstock-page")
    watchers = [feed.watch() for _ in range(3)]
    for each in watchers:
        parts(each, 3)
    assert len(threads.named("penstock-page")) == 1  # for all of them
    for each in watchers:
        each.close()
        each.close()
    wait_for(lambda: not threads.named("penstock-page"))
    looks = source.looks
    time.sleep(10 * EVERY)
    assert source.looks == looks
    parts(feed.watch(), 3)
    assert source.looks > looks


def test_watchers_are_bounded(feed: Feed) -> None:
    watchers = [feed.watch() for _ in range(3)]
    with pytest.raises(TooManyWatchers, match="3 watch already, the most is 3"):
        feed.watch()
    watchers.pop().close()
    feed.watch()


def test_a_slow_watcher_misses_what_came_between_and_holds_up_nobody(feed: Feed, source: Source) -> None:
    slow, quick = feed.watch(), feed.watch()
    parts(slow, 2)
    parts(quick, 50)
    _, _, data = next(slow).partition(b"data: ")
    assert int(data) >= 45


def test_a_look_that_fails_is_said_and_the_next_one_is_made(
    feed: Feed, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    source.fails = True
    watcher = feed.watch()
    _, first, second = parts(watcher, 3)
    assert (first, second) == (b"event: failed\ndata: 1\n\n", b"event: failed\ndata: 2\n\n")
    source.fails = False
    assert any(b"number" in part for part in parts(watcher, 20))
    assert "no figures" in caplog.text


def test_closing_ends_all_streams(feed: Feed) -> None:
    ended = []
    watchers = [feed.watch() for _ in range(3)]
    threads = [threading.Thread(target=lambda each=each: ended.append(len(list(each)))) for each in watchers]
    for thread in threads:
        thread.start()
    feed.close()
    for thread in threads:
        thread.join(20)
    assert len(ended) == 3
    with pytest.raises(TooManyWatchers):
        feed.watch()


def test_looks_that_take_long_are_made_less_often() -> None:
    assert [pause(taken, 1.0) for taken in (0.0, 0.001, 0.02, 0.05, 0.09, 2.0)] == [
        1.0, 1.0, 1.0, 2.5, 4.5, 5.0,
    ]  # fmt: skip
