"""Sends the events of the page to all browsers that show it.

The metrics are read once a second for all of them, and not at all while there are none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from threading import Condition, Thread

MOST_WATCHERS = 16
EVERY_SECONDS = 1.0
MOST_PAUSE_SECONDS = 5.0
SHARE = 0.02
"""Of one processor: with very many models, looks are made less often to take no more."""

_log = logging.getLogger(__name__)


class TooManyWatchers(Exception):
    """As many watch as may."""


class Feed:
    """The event stream of the page. May be called from any thread.

    A thread reads the metrics every `every_seconds` while there are watchers. A watcher is sent the newest of
    what it has not seen: one that is slow misses what came between, and nothing waits for it.

    Args:
        look: returns the data of each event, by the event's name; JSON without line breaks.
        every_seconds: the time between two looks, if they take little CPU time; see `pause`.
        most: how many may watch.
    """

    def __init__(
        self,
        look: Callable[[], Mapping[str, bytes]],
        every_seconds: float = EVERY_SECONDS,
        most: int = MOST_WATCHERS,
    ) -> None:
        self._look = look
        self._every_seconds = every_seconds
        self._most = most
        self._changed = Condition()
        self._watchers = 0
        self._is_looking = False
        self._closed = False
        self._number = 0  # of the newest look that changed anything
        self._events: dict[str, tuple[int, bytes]] = {}

    def watch(self) -> Watcher:
        """A new watcher, which must be closed.

        Raises:
            TooManyWatchers: as many watch as may, or the feed is closed.
        """
        with self._changed:
            if self._closed or self._watchers >= self._most:
                raise TooManyWatchers(f"{self._watchers} watch already, the most is {self._most}")
            self._watchers += 1
            if not self._is_looking:
                self._is_looking = True
                Thread(target=self._run, name="penstock-page", daemon=True).start()
        return Watcher(self)

    def close(self) -> None:
        """Ends all streams."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def newer(self, seen: int) -> tuple[int, list[tuple[str, bytes]]]:
        """Waits for events that are newer than what was seen.

        Returns:
            The number of the newest, and the events; none once the feed is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (self._events and self._number > seen))
            if self._closed:
                return seen, []
            events = [(name, data) for name, (number, data) in self._events.items() if number > seen]
            return self._number, events

    def left(self) -> None:
        """A watcher has left."""
        with self._changed:
            self._watchers -= 1
            self._changed.notify_all()

    def _run(self) -> None:
        failures = 0
        while True:
            began = time.thread_time()
            try:
                events = self._look()
            except Exception:
                _log.exception("the page has no news")
                failures += 1  # a changed event, so that clients that are gone are noticed
                events = {"failed": b"%d" % failures}
            seconds = pause(time.thread_time() - began, self._every_seconds)
            with self._changed:
                self._publish(events)
                self._changed.wait_for(lambda: self._closed or not self._watchers, seconds)
                if self._closed or not self._watchers:
                    self._is_looking = False
                    self._events.clear()
                    return

    def _publish(self, events: Mapping[str, bytes]) -> None:
        new = {name: data for name, data in events.items() if self._events.get(name, (0, b""))[1] != data}
        if new:
            self._number += 1
            self._events.update({name: (self._number, data) for name, data in new.items()})
            self._changed.notify_all()


def pause(taken_seconds: float, every_seconds: float) -> float:
    """How long to wait after a look that took some CPU time."""
    return max(every_seconds, min(taken_seconds / SHARE, MOST_PAUSE_SECONDS))


class Watcher:
    """One stream of server-sent events: an iterator of their bytes.

    Args:
        feed: what is watched.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed: Feed | None = feed
        self._seen: int | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """The next events, once there are any."""
        if self._feed is None:
            raise StopIteration
        if self._seen is None:
            self._seen = 0
            return b"retry: 2000\n\n"  # milliseconds until a browser that lost the stream comes back
        self._seen, events = self._feed.newer(self._seen)
        if not events:
            raise StopIteration
        return b"".join(b"event: %s\ndata: %s\n\n" % (name.encode(), data) for name, data in events)

    def close(self) -> None:
        """Stops watching. May be called again."""
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.left()
