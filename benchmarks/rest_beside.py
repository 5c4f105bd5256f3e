"""gRPC with HTTP served by the same process: `python -m benchmarks.rest_beside`.

    python -m benchmarks.rest_beside [--rounds 5] [--seconds 3] [--count 8000] [--rate 1000]

Two servers with the same models, one of them with `http = false`, share one core; the load has another. They
are started together and take turns, so that a busy machine slows both, and only ratios are compared.

Idle: what gRPC costs and how long it takes where HTTP is served but not called, over where it is not served:
the server's CPU for a call with 32 in flight, and the p50 and p99 of a lone caller.

Beside: the lone caller's p50 and p99 while `--rate` calls a second come over REST (`POST /predict` of another
model), over what they are without these calls; and the same with as many calls over gRPC instead, which says
how much of it is just the load. They come at random times, as from many callers (`programs/at_random.py`).
`bursts` is the same over REST from h2load, which sends what is due a hundred times a second: ten calls at a
time. That load has a lower priority than the caller on its core. The same is done with 32 gRPC calls in
flight (`penstock bench`) in place of the lone caller.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

from benchmarks import load, machine, messages, paired, rest
from benchmarks.loads import plain_unary
from benchmarks.rounds import progress
from benchmarks.servers import Server, started
from benchmarks.subjects import PROGRAMS, SCRIPT, TIMING_BYTES

CLIENTS = 8
IN_FLIGHT = 32
WARM_UP_SECONDS = 0.5
PATH = "/predict/lead_scoring"
START_SECONDS = 4.0
"""How long the lone caller may take to start."""
LEAST_SHARE = 0.9
"""The share of the calls beside that should come in time; fewer say that the machine is busy."""


class Times(NamedTuple):
    """The times of gRPC's callers.

    Attributes:
        p50: the median, in seconds.
        p99: the 99th percentile.
    """

    p50: float
    p99: float


class Served(NamedTuple):
    """One of the two servers.

    Attributes:
        server: the server.
        http: where it serves HTTP; "" if it does not.
    """

    server: Server
    http: str


Callers: TypeAlias = Callable[[Served, float, int], Times]
"""Call a server for so many seconds on a core."""


def start(stack: ExitStack, models: Path, core: int, *, http: bool) -> Served:
    """Starts a server."""
    command = [SCRIPT, "serve", models, "--port", "0", "--ops-port", "0"]
    command += ["--http-port", "0", "--http"] if http else ["--no-http"]
    server = stack.enter_context(started(command, [core], {}))
    found = rest.ADDRESS.search(server.output.read_text(errors="replace")) if http else None
    if http and found is None:
        raise SystemExit("the server does not say where it serves HTTP")
    return Served(server, found[1] if found else "")


def lone(served: Served, seconds: float, core: int) -> Times:
    """Calls one after another."""
    found = plain_unary(served.server.target, seconds, core)
    return Times(found["p50_us"] / 1e6, found["p99_us"] / 1e6)


def many(served: Served, seconds: float, core: int) -> Times:
    """32 calls in flight."""
    words = ["bench", "tiny_mlp", "--target", served.server.target, "--concurrency", IN_FLIGHT, "--json"]
    words += ["--duration", seconds, "--warmup", WARM_UP_SECONDS]
    command = [*machine.on_cores(core), str(SCRIPT), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    latency = json.loads(done.stdout)["levels"][0]["latency"]
    return Times(latency["p50"], latency["p99"])


def cost(served: Served, calls: load.Calls, count: int, core: int) -> float:
    """The server's CPU for a call with 32 in flight, in seconds."""
    before = served.server.cpu_seconds()
    load.unary(served.server.target, calls, count, load.shape(IN_FLIGHT), core)
    return (served.server.cpu_seconds() - before) / count


@contextmanager
def beside(words: Sequence[object], rate: int, seconds: float, core: int) -> Iterator[None]:
    """Has calls made at random times meanwhile.

    Args:
        words: what is called; the first arguments of programs/at_random.py.
        rate: calls a second.
        seconds: how long what is measured meanwhile takes.
        core: where the load runs.
    """
    command = [sys.executable, PROGRAMS / "at_random.py", *words, rate, seconds + START_SECONDS]
    with _meanwhile(command, core) as said:
        yield
    taken = json.loads(said[0])
    _check_rate(taken["rate"], rate)


@contextmanager
def bursts(words: Sequence[str], rate: int, seconds: float, core: int) -> Iterator[None]:
    """The same from h2load, in bursts; `words` in its words."""
    count = int(rate * (seconds + START_SECONDS))
    command = ["h2load", "-n", count, "-c", CLIENTS, f"--rps={rate // CLIENTS}", *words]
    with _meanwhile(command, core) as said:
        yield
    finished = rest.FINISHED.search(said[0])
    if f" {count} 2xx" not in said[0] or finished is None:
        raise SystemExit(f"not all calls beside were answered:\n{said[0]}")
    _check_rate(count / (float(finished[1]) * load.MICROSECONDS[finished[2]] / 1e6), rate)


@contextmanager
def _meanwhile(command: Sequence[object], core: int) -> Iterator[list[str]]:
    """Runs a load with a lower priority; gives what it printed, once it has ended."""
    words = ["nice", "-n", "5", *machine.on_cores(core), *map(str, command)]
    said: list[str] = []
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        yield said
        if process.poll() is not None:
            raise SystemExit("the calls beside ended before what they were beside")
        said.append(process.communicate(timeout=rest.LIMIT_SECONDS)[0])
    finally:
        process.kill()
    if process.returncode:
        raise SystemExit(f"the calls beside failed:\n{said[0]}")


def _check_rate(found: float, rate: int) -> None:
    if found < LEAST_SHARE * rate:
        print(f"only {found:.0f} calls a second came beside, not {rate}: the machine is busy")


def rest_words(served: Served, folder: Path) -> list[object]:
    """`POST /predict` with the bundled model."""
    body, path = json.dumps(rest.RECORD).encode(), folder / "record.http"
    headers = {"host": served.http, **rest.JSON, "content-length": len(body)}
    lines = [f"POST {PATH} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items())]
    path.write_bytes("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    return ["rest", served.http, path]


def grpc_words(served: Served, folder: Path) -> list[object]:
    """The same call over gRPC."""
    path = folder / "record.grpc"
    path.write_bytes(paired.leads(typed=True)().request)
    return ["grpc", served.server.target, messages.SERVICE + "Predict", path]


def burst_words(served: Served, folder: Path) -> list[str]:
    """`POST /predict`, for h2load."""
    body = folder / "record.json"
    body.write_bytes(json.dumps(rest.RECORD).encode())
    headers = [word for key, value in rest.JSON.items() for word in ("-H", f"{key}: {value}")]
    return ["--h1", "-d", str(body), *headers, f"http://{served.http}{PATH}"]


def ratio(found: Mapping[str, Sequence[float]], above: str, below: str) -> str:
    """The median of the ratios of the rounds, and the lowest and the highest."""
    each = sorted(a / b for a, b in zip(found[above], found[below], strict=True))
    return f"{statistics.median(each):5.2f}  ({each[0]:.2f} to {each[-1]:.2f})"


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Measures, and prints the ratios."""
    core, load_core = machine.cores()
    models = messages.make_models(folder / "models")
    (models / "lead_scoring").symlink_to(rest.BUNDLED / "lead_scoring", target_is_directory=True)
    with ExitStack() as stack:
        without, with_http = (start(stack, models, core, http=each) for each in (False, True))
        answer = load.one_answer(without.server.target, _calls(0))
        calls = _calls(len(answer))
        load_shape = (arguments.rate, arguments.seconds, load_core)

        def among(loaded: AbstractContextManager[None], callers: Callers = lone) -> Times:
            with loaded:
                return callers(with_http, arguments.seconds, load_core)

        lines: dict[str, Callable[[], Times]] = {
            "alone": lambda: lone(with_http, arguments.seconds, load_core),
            "rest": lambda: among(beside(rest_words(with_http, folder), *load_shape)),
            "bursts": lambda: among(bursts(burst_words(with_http, folder), *load_shape)),
            "grpc": lambda: among(beside(grpc_words(with_http, folder), *load_shape)),
            "32": lambda: many(with_http, arguments.seconds, load_core),
            "32 rest": lambda: among(beside(rest_words(with_http, folder), *load_shape), many),
        }
        found: dict[str, list[float]] = {}
        for number in range(arguments.rounds + 1):  # the first one warms up
            progress(f"round {number} of {arguments.rounds}")
            taken = {
                f"{name} cpu": cost(each, calls, arguments.count, load_core)
                for name, each in (("without", without), ("with", with_http))
            }
            rows = {"without": lone(without, arguments.seconds, load_core)}
            rows |= {name: line() for name, line in lines.items()}
            for name, row in rows.items():
                taken |= {f"{name} p50": row.p50, f"{name} p99": row.p99}
            for name, value in taken.items() if number else ():
                found.setdefault(name, []).append(value)
    progress("")
    _print(found, arguments.rate)


def _calls(size: int) -> load.Calls:
    """Calls whose answers have about this size: the digits of the times in them differ."""
    request = messages.request().SerializeToString()
    return load.Calls(messages.SERVICE + "Predict", request, size - TIMING_BYTES, size + TIMING_BYTES)


def _print(found: Mapping[str, Sequence[float]], rate: int) -> None:
    for name, values in found.items():
        print(f"{name:12} {statistics.median(values) * 1e6:7.0f} µs")
    print(f"{'':50}ratio")
    print(f"{'idle HTTP: CPU of a call, 32 in flight':48}{ratio(found, 'with cpu', 'without cpu')}")
    for each in ("p50", "p99"):
        print(f"{f'idle HTTP: a lone call, {each}':48}{ratio(found, f'alone {each}', f'without {each}')}")
    for name in ("rest", "bursts", "grpc"):
        for each in ("p50", "p99"):
            title = f"beside {rate} calls/s over {name}, {each}"
            print(f"{title:48}{ratio(found, f'{name} {each}', f'alone {each}')}")
    for each in ("p50", "p99"):
        title = f"32 in flight beside {rate} calls/s over rest, {each}"
        print(f"{title:48}{ratio(found, f'32 rest {each}', f'32 {each}')}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rest_beside", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement of the lone caller")
    parser.add_argument("--count", type=int, default=8000, help="calls of each measurement of the CPU")
    parser.add_argument("--rate", type=int, default=1000, help="calls a second beside")
    with tempfile.TemporaryDirectory() as name:
        measure(parser.parse_args(), Path(name))


if __name__ == "__main__":
    sys.exit(main())
