"""Which release of grpcio, and which setting of it, carries the most calls.

    make bench-grpcio                              the releases that `make test-grpcio` tests
    python -m benchmarks.grpcio_versions 1.78.2    releases whose environments are in .venv-grpcio/

Measures the reactor and a bare grpc.aio echo on every release, as grpc comes and with the experiment switched
off that lets its event engine serve listeners. What Penstock sets for itself, and the bounds of grpcio in
pyproject.toml, rest on this.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace

from benchmarks import load, measures
from benchmarks.bench import running
from benchmarks.figures import Results
from benchmarks.rounds import progress
from benchmarks.servers import ROOT, ServerError
from benchmarks.subjects import NO_LISTENER, Subject, echo, penstock
from benchmarks.tables import number

# An empty variable is one that is set: Penstock, which sets it only where it is not, leaves it alone.
SETTINGS: Mapping[str, Mapping[str, str | None]] = {
    "as it comes": {"GRPC_EXPERIMENTS": ""},
    "no listener": NO_LISTENER,
}
IN_FLIGHT = (32, 256, 1)


def main() -> None:
    arguments = _parser().parse_args()
    load.require_h2load()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    subjects = dict(_subjects(arguments.releases))
    missing = {name: why for name, subject in subjects.items() if (why := subject.missing())}
    if missing:
        sys.exit(
            "\n".join(f"{name}: {why}; `make bench-grpcio` installs it" for name, why in missing.items())
        )
    try:
        results = _measured(subjects, arguments.rounds, arguments.seconds)
    except (load.LoadError, ServerError) as error:
        sys.exit(f"a measurement failed: {error}")
    print(table(results))


def _measured(subjects: Mapping[str, Subject], rounds: int, seconds: float) -> Results:
    results = Results()
    with running(subjects, seconds) as run:
        for round_number in range(rounds + 1):
            for name in subjects:
                for in_flight in IN_FLIGHT:
                    progress(f"round {round_number} of {rounds}: {name}, {in_flight} in flight")
                    figure = measures.unary(name, in_flight)(run)
                    if round_number:
                        results.add(name, str(in_flight), figure)
    progress("")
    return results


def _subjects(releases: Iterable[str]) -> Iterable[tuple[str, Subject]]:
    for release in releases:
        folder = ROOT / ".venv-grpcio" / release / "bin"
        for setting, variables in SETTINGS.items():
            title = f"{release}, {setting}"
            reactor = penstock(title, "--transport", "reactor", script=folder / "penstock")
            yield f"reactor, {title}", replace(reactor, variables=variables)
            yield f"grpc.aio echo, {title}", echo(title, folder / "python", "grpc_aio_echo.py", variables)


def table(results: Results) -> str:
    """A Markdown table: a line for each server, release and setting."""
    heads = [f"{n} in flight | CPU µs" for n in IN_FLIGHT[:-1]] + ["alone, µs"]
    lines = [f"| | {' | '.join(heads)} |", "|---" * 6 + "|"]
    for name in sorted(results.figures):
        cells = []
        for in_flight in map(str, IN_FLIGHT[:-1]):
            cells += [number(results.median(name, in_flight, key)) for key in ("rate", "cpu_us")]
        cells.append(number(results.median(name, str(IN_FLIGHT[-1]), "mean_us")))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Compare releases and settings of grpcio.")
    parser.add_argument("releases", nargs="+", help="such as 1.85.1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long one measurement takes")
    return parser


if __name__ == "__main__":
    main()
