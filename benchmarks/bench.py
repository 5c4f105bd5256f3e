"""A run: the servers it has started, and how much load makes a measurement long enough."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import load, machine
from benchmarks.load import Calls
from benchmarks.servers import Server, started
from benchmarks.subjects import Files, Subject

WARM_UP_CALLS = 400


@dataclass
class Bench:
    """What measurements share.

    Attributes:
        files: models, requests and answers.
        seconds: how long one measurement is to take, about.
        stack: ends what was started when the run ends.
        subjects: the servers, by name.
        server_core, load_core: where they run.
    """

    files: Files
    seconds: float
    stack: contextlib.ExitStack
    subjects: Mapping[str, Subject]
    server_core: int = 0
    load_core: int = 1
    _servers: dict[str, Server] = field(default_factory=dict)
    _calls: dict[str, Calls] = field(default_factory=dict)
    _rates: dict[object, float] = field(default_factory=dict)

    def server(self, name: str) -> Server:
        """The server of that name; started and checked when it is first asked for."""
        if name not in self._servers:
            subject = self.subjects[name]
            server = self.stack.enter_context(self.started(subject))
            self._calls[name] = checked(server, subject, self.files)
            self._servers[name] = server
        return self._servers[name]

    def calls(self, name: str) -> Calls:
        """What is called on the server of that name, which must have been started."""
        return self._calls[name]

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


def checked(server: Server, subject: Subject, files: Files) -> Calls:
    """Makes one call of a server that has just started.

    Returns:
        What is called, with the sizes that good answers have.

    Raises:
        LoadError: the answer is wrong.
    """
    calls = subject.calls(files)
    answer = load.one_answer(server.target, calls)
    try:
        subject.check(answer, files)
    except ValueError as error:
        raise load.LoadError(f"{subject.title} answers wrong: {error}") from None
    return calls if calls.most else replace(calls, least=len(answer), most=len(answer))


@contextlib.contextmanager
def running(subjects: Mapping[str, Subject], seconds: float) -> Iterator[Bench]:
    """A run on the first two cores that this process may use; ends what it started."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield Bench(Files(folder), seconds, stack, subjects, *machine.cores())
