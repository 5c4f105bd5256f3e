"""A run: the servers it has started, and how much load makes a measurement long enough."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from benchmarks import load, machine
from benchmarks.servers import Server, started
from benchmarks.subjects import SUBJECTS, Files, Subject

WARM_UP_CALLS = 400


@dataclass
class Bench:
    """What measurements share.

    Attributes:
        files: models, requests and answers.
        seconds: how long one measurement is to take, about.
        stack: ends what was started when the run ends.
    """

    files: Files
    seconds: float
    stack: contextlib.ExitStack
    server_core: int = 0
    load_core: int = 1
    _servers: dict[str, Server] = field(default_factory=dict)
    _rates: dict[object, float] = field(default_factory=dict)

    def server(self, name: str) -> Server:
        """The server of that name in SUBJECTS; started and checked when it is first asked for."""
        if name not in self._servers:
            subject = SUBJECTS[name]
            server = self.stack.enter_context(self.started(subject))
            subject.check(load.one_answer(server.target, subject.calls(self.files)), self.files)
            self._servers[name] = server
        return self._servers[name]

    def started(self, subject: Subject) -> contextlib.AbstractContextManager[Server]:
        """Starts a server on its cores."""
        cores = (self.server_core, self.load_core) if subject.both_cores else (self.server_core,)
        return started(subject.command(self.files), cores, subject.variables)

    def count(self, key: object) -> int:
        """How many calls make a measurement of about `seconds`, by the rate noted last; few at first."""
        return max(WARM_UP_CALLS, int(self._rates.get(key, 0) * self.seconds))

    def note_rate(self, key: object, rate: float) -> None:
        """Notes how many calls a second a measurement made."""
        self._rates[key] = rate


def bench(files: Files, seconds: float, stack: contextlib.ExitStack) -> Bench:
    """A run on the first two cores that this process may use."""
    return Bench(files, seconds, stack, *machine.cores())
