"""Single calls, rejected calls and paced calls, beside the least that they can cost.

    python -m benchmarks.lone [GROUP ...] [--before CHECKOUT] [--rounds 5] [--seconds 1] [--json FILE]

The floor is grpcio's completion queue in a loop that answers with fixed bytes (`programs/queue_echo.py`), or
rejects with the words and the trailers of a full queue, as the bare reactor does where it says so; the
yardstick is a bare `grpc.aio` server. Servers run on one core, the load on the other. In every round all
lines of a group take turns. Printed are the medians, and of the ratios to another line of the same round the
median, the lowest and the highest. With `--before`, an earlier checkout with an environment of its own is
measured in the same turns.

Groups: `lone` (one call at a time), `refused` (calls that end with an error, 32 in flight),
`lone-refused` (one at a time), `requests` (kinds of requests, 32 in flight), `paced` (calls at even
intervals, at half of the rate of 32 in flight).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import load, loads, machine, messages
from benchmarks.load import Calls
from benchmarks.lone_calls import (
    ECHO,
    PREDICT,
    changed,
    echo,
    garbage,
    misfit,
    other_input,
    unknown_method,
)
from benchmarks.paired import leads, plain, typed_floats
from benchmarks.realistic import FIELDS
from benchmarks.rounds import progress
from benchmarks.servers import ROOT, Server, started
from benchmarks.subjects import NO_EXPERIMENTS, TIMING_BYTES, free_ports

PROGRAMS = ROOT / "benchmarks/programs"
NO_ANSWER = -5
"""The size of a message that does not come: not even the five bytes before it."""
DUE_SECONDS = 1.5
"""After this long a request without a deadline goes before those that arrive with one, as it is due after a
second. Only then do these find a request ahead of them."""
LATE_NANOS = 1000
"""The time that a call has which is to be rejected because of the request ahead of it: less than the two runs
take by any estimate. With 20 µs, the server rightly admitted it where it expects a run to take less than
10 µs, and it ended in the queue, with DEADLINE_EXCEEDED."""
FIRST_CALLS = 500
IN_FLIGHT = 32
HALF = 0.5


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        title: what it is called there.
        server: the name of the server.
        calls: what is called.
        in_flight: how many calls at a time.
        code: the status that every call ends with.
        headers: further headers of the calls.
        base: the line whose CPU it is compared with; "" for none.
    """

    title: str
    server: str
    calls: Callable[[], Calls]
    in_flight: int
    code: str = "OK"
    headers: Sequence[str] = ()
    base: str = ""


def _rejected(in_flight: int) -> dict[str, Line]:
    def line(title: str, calls: Callable[[], Calls], code: str, *headers: str, at: str = "penstock") -> Line:
        return Line(title, at, calls, in_flight, code, headers, base="reactor")

    full = "RESOURCE_EXHAUSTED"
    return {
        "floor": Line("the floor: an echo", "floor", echo, in_flight),
        "reactor": Line("the reactor, an echo", "reactor", echo, in_flight, base="floor"),
        "reject": Line("the floor: a rejection", "reject", echo, in_flight, full, base="floor"),
        "reject-reactor": Line(
            "the reactor, a rejection", "reject-reactor", echo, in_flight, full, base="reactor"
        ),
        "accepted": line("accepted", plain(), "OK"),
        "method": line("unknown method", unknown_method, "UNIMPLEMENTED"),
        "model": line("unknown model", changed(model="tiny_mlq"), "NOT_FOUND"),
        "version": line("unknown version", changed(version="7"), "NOT_FOUND"),
        "missing": line("an input is missing", other_input, "INVALID_ARGUMENT"),
        "shape": line("a wrong shape", misfit, "INVALID_ARGUMENT"),
        "garbage": line("not a message", garbage, "INVALID_ARGUMENT"),
        "deadline": line("deadline passed", plain(timeout={"nanos": 1}), "DEADLINE_EXCEEDED"),
        "late": line("deadline too short", plain(timeout={"nanos": LATE_NANOS}), full, at="stalled"),
        "queue": line("queue full", plain(), full, at="full"),
        "calls": line("too many calls", plain(), full, at="crowded"),
    }


def _requests() -> dict[str, Line]:
    def line(title: str, calls: Callable[[], Calls], base: str) -> Line:
        return Line(title, "penstock", calls, IN_FLIGHT, base=base)

    return {
        "floor": Line("the floor: an echo", "floor", echo, IN_FLIGHT),
        "plain": line("the MLP, raw", plain(), "floor"),
        "fields": line("the MLP, id + timeout + trace", plain(**FIELDS), "plain"),
        "typed": line("the MLP, typed floats", typed_floats, "plain"),
        "leads": line("bundled model, raw", leads(False), "plain"),
        "leads-typed": line("bundled model, typed", leads(True), "leads"),
    }


def _lone() -> dict[str, Line]:
    return {
        "floor": Line("the floor: an echo", "floor", echo, 1),
        "model": Line("the floor with ONNX Runtime", "model", echo, 1, base="floor"),
        "reactor": Line("the reactor, an echo", "reactor", echo, 1, base="floor"),
        "aio": Line("yardstick: grpc.aio, an echo", "aio", echo, 1, base="floor"),
        "plain": Line("the MLP, raw", "penstock", plain(), 1, base="floor"),
        "fields": Line("the MLP, id + timeout + trace", "penstock", plain(**FIELDS), 1, base="floor"),
    }


GROUPS: Mapping[str, Callable[[], dict[str, Line]]] = {
    "lone": _lone,
    "lone-refused": lambda: _rejected(1),
    "refused": lambda: _rejected(IN_FLIGHT),
    "requests": _requests,
    "paced": lambda: {
        "floor": Line("the floor: an echo", "floor", echo, IN_FLIGHT),
        "reactor": Line("the reactor, an echo", "reactor", echo, IN_FLIGHT),
        "aio": Line("yardstick: grpc.aio, an echo", "aio", echo, IN_FLIGHT),
        "plain": Line("the MLP, raw", "penstock", plain(), IN_FLIGHT),
    },
}
PENSTOCK: Mapping[str, tuple[str, bool]] = {
    "penstock": ("", False),
    "stalled": ("", True),
    "full": ("[batching]\nqueue_rows = 1\n", True),
    "crowded": ("[server]\nmax_calls = 1\n", True),
}
"""Servers of Penstock: their settings, and whether they never run a model; then one call is left waiting."""
ECHOES = {
    "floor": "queue_echo.py",
    "model": "queue_echo.py",
    "reject": "queue_echo.py",
    "reactor": "reactor_echo.py",
    "reject-reactor": "reactor_echo.py",
    "aio": "grpc_aio_echo.py",
}


@dataclass
class Bench:
    """A run: the servers that it has started, and what lines have found out.

    Attributes:
        folder: of the run's own files.
        stack: ends what was started when the run ends.
        seconds: about how long a measurement takes.
        server_core, load_core: where they run.
    """

    folder: Path
    stack: contextlib.ExitStack
    seconds: float
    server_core: int
    load_core: int
    _servers: dict[tuple[Path, str], Server] = field(default_factory=dict)
    _calls: dict[object, Calls] = field(default_factory=dict)
    _rates: dict[object, float] = field(default_factory=dict)

    def server(self, checkout: Path, name: str) -> Server:
        """The server of that name and checkout; started when it is first asked for."""
        if (checkout, name) not in self._servers:
            command = self._echo(name) if name in ECHOES else self._penstock(checkout, name)
            variables = {**NO_EXPERIMENTS, "PYTHONPATH": None}
            server = self.stack.enter_context(started(command, (self.server_core,), variables))
            if name in PENSTOCK and PENSTOCK[name][1]:
                self._leave_waiting(server)
            self._servers[checkout, name] = server
        return self._servers[checkout, name]

    def models(self) -> Path:
        """The folder of the models; made when it is first needed."""
        models = self.folder / "models"
        if not models.exists():
            messages.make_models(models)
            os.symlink(ROOT / "examples/models/lead_scoring", models / "lead_scoring")
        return models

    def _echo(self, name: str) -> Sequence[str | Path]:
        answer = self.folder / "answer"
        answer.write_bytes(messages.echo_answer())
        more = [self.models() / "tiny_mlp/1/model.onnx"] if name == "model" else []
        more += ["--reject"] if name.startswith("reject") else []
        return [sys.executable, PROGRAMS / ECHOES[name], answer, *more]

    def _penstock(self, checkout: Path, name: str) -> Sequence[str | Path]:
        models, (settings, is_stalled) = self.models(), PENSTOCK[name]
        config = self.folder / f"{name}.toml"
        config.write_text(settings)
        python, script = checkout / ".venv/bin/python", checkout / ".venv/bin/penstock"
        program = [python, PROGRAMS / "stalled_server.py"] if is_stalled else [script]
        return [*program, "serve", models, "--config", config, *free_ports(script), "--drain-seconds", "0"]

    def _leave_waiting(self, server: Server) -> None:
        """Makes a call that stays unanswered until the run ends."""
        import grpc

        channel = self.stack.enter_context(grpc.insecure_channel(server.target))
        call = channel.unary_unary(PREDICT).future(plain()().request, wait_for_ready=True)
        self.stack.callback(call.cancel)
        came = threading.Event()
        call.add_done_callback(lambda _: came.set())
        if came.wait(DUE_SECONDS):
            raise load.LoadError(f"the call that was to wait ended: {call.exception()}")

    def count(self, key: object) -> int:
        """How many calls make a measurement of about `seconds`; few at first."""
        return max(FIRST_CALLS, int(self._rates.get(key, 0.0) * self.seconds))

    def note(self, key: object, rate: float) -> None:
        """Notes how many calls a second a measurement made."""
        self._rates[key] = rate

    def checked(self, key: object, server: Server, line: Line) -> Calls:
        """What a line calls, with the size of its answers; the first time, one call is looked at."""
        if key not in self._calls:
            self._calls[key] = _checked(server, line)
        return self._calls[key]


def _checked(server: Server, line: Line) -> Calls:
    import grpc

    calls = line.calls()
    if line.code == "OK":
        size, spare = len(load.one_answer(server.target, calls)), 0 if calls.method == ECHO else TIMING_BYTES
        return replace(calls, least=size - spare, most=size + spare)
    with grpc.insecure_channel(server.target) as channel:
        for _ in range(2):  # the first one may be measured by other rules, such as before costs are known
            try:
                channel.unary_unary(calls.method)(calls.request, wait_for_ready=True)
            except grpc.RpcError as error:
                if error.code().name == line.code:
                    continue
                raise load.LoadError(
                    f"{line.title}: {error.code().name}, {error.details()}; expected {line.code}"
                ) from None
            raise load.LoadError(f"{line.title}: answered; expected {line.code}")
    return replace(calls, least=NO_ANSWER, most=NO_ANSWER)


def closed(bench: Bench, checkout: Path, line: Line) -> dict[str, float]:
    """Calls by h2load: `cpu`, the server's microseconds for a call, `mean`, those of a call, and `rate`."""
    server, key = bench.server(checkout, line.server), (checkout, line)
    calls, count = bench.checked(key, server, line), bench.count(key)
    headers = [word for header in line.headers for word in ("-H", header)]
    before = server.cpu_seconds()
    seconds = load.unary(server.target, calls, count, load.shape(line.in_flight), bench.load_core, *headers)
    cpu = server.cpu_seconds() - before
    bench.note(key, count / seconds)
    return {
        "cpu": cpu / count * 1e6, "mean": seconds / count * line.in_flight * 1e6, "rate": count / seconds
    }  # fmt: skip


def paced(bench: Bench, checkout: Path, line: Line) -> dict[str, float]:
    """Calls at half of the rate of as many in flight: `cpu`, `mean` (p50), and `tail`, p99 over p50."""
    rate = closed(bench, checkout, line)["rate"] * HALF
    server, calls = bench.server(checkout, line.server), bench.checked((checkout, line), None, line)  # type: ignore[arg-type]
    seconds = 2 * bench.seconds
    before = server.cpu_seconds()
    found = loads.open_loop(server.target, calls, rate, seconds, bench.load_core)
    cpu = (server.cpu_seconds() - before) / (rate * seconds) * 1e6
    return {"cpu": cpu, "mean": found["p50_us"], "rate": rate, "tail": found["p99_us"] / found["p50_us"]}


Values = dict[str, list[dict[str, float]]]


def measured(arguments: argparse.Namespace, name: str, bench: Bench) -> Values:
    """All figures of a group, by line; lines of the earlier checkout are called "before NAME"."""
    lines = GROUPS[name]()
    measure = paced if name == "paced" else closed
    found: Values = {}
    for number in range(arguments.rounds + 1):
        for each, line in lines.items():
            builds = {each: ROOT}
            if arguments.before and line.server in PENSTOCK:
                builds = {f"before {each}": arguments.before.resolve(), each: ROOT}
            for title, checkout in builds.items() if number % 2 else reversed(builds.items()):
                progress(f"{name}: round {number} of {arguments.rounds}, {title}")
                figures = measure(bench, checkout, line)
                if number:  # the first round warms up
                    found.setdefault(title, []).append(figures)
    progress("")
    return found


def show(name: str, found: Values) -> None:
    """Prints the table of a group."""
    lines, last = GROUPS[name](), "p50 µs" if name == "paced" else "mean µs"
    print(f"\n{name:38}{'CPU µs':>9}   {'over its base':24}{last:>9}   over the yardstick's")
    for title, figures in found.items():
        before, _, each = title.rpartition(" ")
        line = lines[each]
        base = (found.get(f"{before} {line.base}".strip()) or found.get(line.base)) if line.base else None
        row = f"{line.title + (', before' if before else ''):38}{_median(figures, 'cpu'):9.1f}   "
        row += f"{_ratios(figures, base, 'cpu'):24}{_median(figures, 'mean'):9.1f}   "
        row += f"{_ratios(figures, found.get('aio'), 'mean'):24}"
        if name == "paced":
            row += f" p99/p50 {_median(figures, 'tail'):.2f} ({_spread([one['tail'] for one in figures])})"
        print(row.rstrip(), flush=True)


def _median(figures: Sequence[Mapping[str, float]], what: str) -> float:
    return statistics.median(one[what] for one in figures)


def _ratios(
    figures: Sequence[Mapping[str, float]], base: Sequence[Mapping[str, float]] | None, what: str
) -> str:
    if not base or base is figures:
        return ""
    ratios = [one[what] / other[what] for one, other in zip(figures, base, strict=True)]
    return f"{statistics.median(ratios):.2f} ({_spread(ratios)})"


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lone", description=__doc__.split("\n")[0])
    parser.add_argument("groups", nargs="*", default=[*GROUPS], metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--before", type=Path, help="an earlier checkout, measured as well")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json", type=Path, help="write every round's figures to this file")
    arguments = parser.parse_args()
    if unknown := set(arguments.groups) - set(GROUPS):
        parser.error(f"there is no group {', '.join(sorted(unknown))}")
    load.require_h2load()
    results = {}
    with contextlib.ExitStack() as stack:  # ends what was started
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench = Bench(folder, stack, arguments.seconds, *machine.cores())
        for name in arguments.groups:
            show(name, results.setdefault(name, measured(arguments, name, bench)))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
