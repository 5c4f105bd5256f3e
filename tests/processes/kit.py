"""Callers that never stop, and a look at the processes of a server."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np

from server import kit
from support.fork_server import WORKER_NAME
from support.servers import RunningServer

X = kit.rows(1)
PAUSE_SECONDS = 0.001
"""After every call: processes that start want some of the processor, too."""


def children(pid: int) -> list[int]:
    """The processes that a process has started; a forked supervisor's, too: see `support.fork_server`."""
    found = []
    name = WORKER_NAME.format(pid)
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            before, _, after = status.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent, *_ = after.split()
        if state != "Z" and (int(parent) == pid or before.endswith(f" ({name}")):
            found.append(int(status.parent.name))
    return sorted(found)


class Load:
    """Callers on threads of their own, each of which calls on until the load ends.

    Attributes:
        codes: how the calls ended, by kind of caller and code, with the details of those that failed.
    """

    def __init__(self, target: str, model: str = "identity") -> None:
        self.codes: Counter[tuple[str, ...]] = Counter()
        self._target = target
        self._model = model
        self._halt = threading.Event()

    @contextmanager
    def on(self, *callers: Callable[[Load], None]) -> Iterator[Load]:
        """Calls until the block ends, and then until every call has ended."""
        threads = [threading.Thread(target=caller, args=(self,)) for caller in callers]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._halt.set()
            for thread in threads:
                thread.join(2 * kit.BOUND)
        assert not any(thread.is_alive() for thread in threads), "a caller hangs"

    def unary(self) -> None:
        """Eight calls at a time on one connection."""
        with kit.connect(self._target) as channel:
            stub = kit.stub_of(channel)
            while not self._halt.is_set():
                request = kit.request(self._model, x=X)
                futures = [stub.Predict.future(request, timeout=kit.BOUND) for _ in range(8)]
                for future in futures:
                    self._count("unary", future.result)

    def connecting(self) -> None:
        """A connection for every call."""
        while not self._halt.is_set():
            with kit.connect(self._target) as channel:
                request = kit.request(self._model, x=X)
                self._count("connecting", lambda: kit.stub_of(channel).Predict(request, timeout=kit.BOUND))  # noqa: B023

    def streams(self) -> None:
        """Streams of twenty requests, one after the other on one connection."""
        requests = [kit.request(self._model, tag=tag, x=X) for tag in range(20)]
        with kit.connect(self._target) as channel:
            while not self._halt.is_set():
                self._count("streams", lambda: self._all_answered(channel, requests))

    def _all_answered(self, channel: grpc.Channel, requests: list) -> None:
        results = kit.stream_all(channel, kit.one_each(requests))
        assert [each.tag for each in results] == list(range(len(requests)))
        assert all(np.array_equal(kit.array_of(each.response.outputs["y"]), X) for each in results)

    def _count(self, kind: str, call: Callable[[], object]) -> None:
        try:
            call()
        except grpc.RpcError as error:
            self.codes[kind, error.code().name, error.details()] += 1
        else:
            self.codes[kind, "OK"] += 1
        time.sleep(PAUSE_SECONDS)


def loaded_files(pid: int) -> str:
    """The files that a process has in its memory, such as the libraries it has loaded."""
    return Path(f"/proc/{pid}/maps").read_text()


def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def pids_of(server: RunningServer) -> dict[int, int]:
    """The workers that have become ready, by number: the last of each."""
    return {
        each["process"]: each["pid"]
        for each in kit.logged(server)
        if isinstance(each.get("process"), int) and each["event"] == "model ready"
    }
