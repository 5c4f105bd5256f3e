"""Unary calls at given rates, whatever the server does: when each was due, how long it took, how it ended.

    python benchmarks/programs/paced.py SOURCES_JSON

SOURCES_JSON is a list of sources that send at the same time, each with

- `target`, `method` and `request`, the file with the serialized request;
- `timeout`: the seconds after which the server is to give a call up, or null; it is told so (`grpc-timeout`),
  but this program waits on, so that an answer that comes too late is seen;
- `phases`: pairs of a rate and seconds, one after another, in which calls are due at random times (a Poisson
  process, the same in every run); or `in_flight` and `seconds`: that many calls at a time.

Prints JSON: for each source a list with, for every call, when it was due (in seconds since the start), the
seconds from then to its end, its status, and the seconds from when it was due to when this program last
looked and the end had not come yet: where the machine holds this program up, the two differ. The status is
gRPC's code, BROKEN where the server broke the call off, LOST where no end came.
"""

from __future__ import annotations

import gc
import json
import re
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from open_loop import CONNECTIONS, END_STREAM, HEADERS, RESET, SETTINGS, Connection, frame, header

BROKEN, LOST = -1, -2
INTERNAL = 13
LONGEST_WAIT = 3.0  # seconds for the last answers
NO_TABLE = frame(SETTINGS, 0, 0, struct.pack(">HI", 1, 0))
"""The server is to send every header in full: then a status can be read without remembering others."""
Call = tuple[float, float, int, float]
STATUS = re.compile(rb"grpc-status[\x01\x02](\d+)")


class PacedConnection(Connection):
    """A connection that notes how every call ended.

    Args:
        source: as explained above.
    """

    def __init__(self, source: dict[str, Any]) -> None:
        super().__init__(source["target"], source["method"], Path(source["request"]).read_bytes(), 1)
        self._out += NO_TABLE
        if source["timeout"] is not None:
            headers = self._headers[1] + header("grpc-timeout", f"{round(source['timeout'] * 1e6)}u")
            self._headers = len(headers).to_bytes(3, "big") + bytes([HEADERS, 4]), headers
        self.ended: list[Call] = []
        self._looked = self._looking = 0.0

    def work(self) -> None:
        self._looked, self._looking = self._looking, time.perf_counter()
        super().work()

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes, now: float) -> None:
        if kind == HEADERS:
            if flags & END_STREAM:
                found = STATUS.search(payload)
                self._end(stream, now, int(found[1]) if found else BROKEN)
        elif kind == RESET:
            self._end(stream, now, BROKEN)
        else:
            super()._frame(kind, flags, stream, payload, now)

    def _end(self, stream: int, now: float, status: int) -> None:
        size = self._bytes.pop(stream, 0)
        due = self._due.pop(stream, None)
        if due is not None:  # the server may reset a call that it has ended
            status = status if status or size >= self._least else INTERNAL
            self.ended.append((due, now - due, status, self._looked - due))

    def lost(self) -> list[Call]:
        """What has not ended."""
        now = time.perf_counter()
        return [(due, now - due, LOST, now - due) for due in (*self._due.values(), *self.waiting)]


class Source:
    """One source of calls, over several connections in turn."""

    def __init__(self, source: dict[str, Any], seed: int) -> None:
        self.connections = [PacedConnection(source) for _ in range(CONNECTIONS)]
        self.in_flight = source.get("in_flight", 0)
        self.due = [] if self.in_flight else arrivals(source["phases"], seed)
        self.seconds = source.get("seconds") or sum(seconds for _, seconds in source["phases"])
        self.begun = 0

    def is_over(self, now: float) -> bool:
        """Whether all calls have been made and have ended; `now` counts from the start."""
        made = now > self.seconds if self.in_flight else self.begun == len(self.due)
        return made and not self._unanswered()

    def work(self, start: float, now: float) -> None:
        """Makes the calls that are due."""
        if self.in_flight:
            while now < self.seconds and self._unanswered() < self.in_flight:
                self._call(start + now)
        else:
            while self.begun < len(self.due) and self.due[self.begun] <= now:
                self._call(start + self.due[self.begun])
        for each in self.connections:
            each.work()

    def _call(self, due: float) -> None:
        self.connections[self.begun % len(self.connections)].call(due)
        self.begun += 1

    def _unanswered(self) -> int:
        return sum(each.unanswered for each in self.connections)

    def calls(self, start: float) -> list[Call]:
        """All calls, by when they were due."""
        found = [call for each in self.connections for call in (*each.ended, *each.lost())]
        return sorted((due - start, *rest) for due, *rest in found)


def arrivals(phases: list[tuple[float, float]], seed: int) -> list[float]:
    """Random times, as many in a second as each phase says."""
    random, begin, times = np.random.default_rng(seed), 0.0, []
    for rate, seconds in phases:
        gaps = random.exponential(1 / rate, int(2 * rate * seconds) + 50).cumsum()
        times += list(begin + gaps[gaps < seconds])
        begin += seconds
    return times


def main() -> None:
    sources = [Source(each, seed) for seed, each in enumerate(json.loads(sys.argv[1]))]
    gc.disable()  # a collection would hold calls up
    start = time.perf_counter() + 0.05
    end = max(each.seconds for each in sources) + LONGEST_WAIT
    while (now := time.perf_counter() - start) < end and not all(each.is_over(now) for each in sources):
        for each in sources:
            each.work(start, now)
    print(json.dumps([each.calls(start) for each in sources]))


if __name__ == "__main__":
    main()
