"""`penstock bench`: runs a load test against a server."""

from __future__ import annotations

import json
import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from penstock import __version__
from penstock.cli.target import with_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock_bench.calls import Mode
    from penstock_bench.generate import Wishes
    from penstock_bench.pacing import Arrivals, Load
    from penstock_bench.payloads import Payload
    from penstock_bench.results import Level
    from penstock_bench.servers import Subject
    from penstock_bench.session import Measurement
    from penstock_bench.worker import Task

DEFAULT_CONCURRENCY = "1,8,32"
DEFAULT_SECONDS = 10.0
DEFAULT_IN_FLIGHT = 10_000
CLIENT_MODES = ("multiplexed", "merged")


@click.command()
@click.argument("model")
@with_target
@click.option(
    "--protocol",
    type=click.Choice(["auto", "penstock", "oip"]),
    default="auto",
    show_default=True,
    help="Protocol: penstock.v1 or the Open Inference Protocol.",
)
@click.option(
    "--mode",
    type=click.Choice(["unary", "stream", "multiplexed", "merged"]),
    default="unary",
    show_default=True,
    help="One call per request; one stream per process; the client's shared streams; these with merged rows.",
)
@click.option("--concurrency", help=f"Closed loop: requests in flight, as N,N,...  [{DEFAULT_CONCURRENCY}]")
@click.option("--rate", help="Open loop: requests a second, as N,N,...")
@click.option("--poisson", is_flag=True, help="With --rate: at random intervals, as independent users do.")
@click.option(
    "--max-in-flight",
    type=click.IntRange(1),
    help="With --rate: most unanswered requests; at this limit sending pauses.  [10000]",
)
@click.option("--duration", type=click.FloatRange(0.01), help="Seconds to measure each level.  [10]")
@click.option(
    "--requests", type=click.IntRange(1), help="Requests to measure at each level, instead of --duration."
)
@click.option(
    "--warmup",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Seconds of warm-up before each level.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="Timeout of a request in seconds.",
)
@click.option("--version", default="", help="A version number or a label.  [the model's default]")
@click.option("--outputs", default="", help="Outputs to return, as a,b.  [all]")
@click.option("--rows", type=click.IntRange(1), help="Rows per request.  [1]")
@click.option("--shape", "shape", multiple=True, metavar="NAME:N,N", help="The whole shape of an input.")
@click.option("--range", "bounds", multiple=True, metavar="NAME:LOW,HIGH", help="Numbers between these.")
@click.option("--choices", multiple=True, metavar="NAME:A,B", help="Values to choose from, texts too.")
@click.option(
    "--distinct",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Number of different generated requests, sent in turn.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of generated inputs and of --poisson.")
@click.option("--file", "path", type=click.Path(path_type=Path), help="Inputs: .csv, .jsonl, .npz or .npy.")
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help="Load processes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw a picture: .png, .svg or .pdf.")
def bench(**flags: Any) -> None:
    """Run a load test against a server and print throughput and latency.

    \b
      penstock bench tiny --concurrency 1,8,32,256
      penstock bench tiny --rate 5000,10000 --mode multiplexed --plot latency.png

    Inputs are generated from the model's signature, or read from a file. With --concurrency, each answer
    triggers the next request (highest throughput). With --rate, requests are sent at fixed times, whatever
    the server does, and latencies count from these times (latency of users).

    The exit code is 1 if a request failed, and 130 after Ctrl-C, which ends the test early and prints the
    results so far.
    """  # noqa: D301 - click needs the real character
    from penstock.row_files.fields import Invalid
    from penstock_bench.errors import BenchError

    try:
        done = _run(flags)
    except (BenchError, Invalid) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        click.echo("interrupted before there were any figures", err=True)
        sys.exit(130)
    if done.interrupted_after is not None:
        sys.exit(130)
    sys.exit(1 if any(level.failed for level in done.levels) else 0)


def _run(flags: dict[str, Any]) -> Measurement:
    from penstock_bench import plot
    from penstock_bench.servers import subject
    from penstock_bench.session import measure

    loads, wishes = _loads(flags), _wishes(flags)
    _check_paths(flags)
    if flags["plot"]:
        plot.check(flags["plot"])
    found = subject(flags["target"], flags["model"], flags["version"], flags["protocol"])
    task = _task(flags, found, wishes)
    started = datetime.now(UTC)
    done = measure(task, loads, flags["processes"])
    if flags["as_json"]:
        print(json.dumps(_as_json(flags, found, task, started, done)))
    else:
        _print(flags, found, task, done)
    if flags["plot"] and done.levels:
        _draw(done.levels, _title(flags, found), flags["plot"])
    return done


def _loads(flags: dict[str, Any]) -> list[Load]:
    """The levels that the flags ask for.

    Raises:
        click.UsageError: they cannot be combined.
    """
    from penstock_bench.pacing import Load

    _check_pairs(flags)
    for name in ("duration", "warmup", "timeout"):
        if flags[name] is not None and not math.isfinite(flags[name]):
            raise click.UsageError(f"--{name} is a number of seconds, not {flags[name]}")
    arrivals: Arrivals = "poisson" if flags["poisson"] else "uniform"
    common: dict[str, Any] = {
        "arrivals": arrivals,
        "max_in_flight": flags["max_in_flight"] or DEFAULT_IN_FLIGHT,
        "warmup": flags["warmup"],
        "duration": None if flags["requests"] else flags["duration"] or DEFAULT_SECONDS,
        "requests": flags["requests"],
        "timeout": flags["timeout"],
        "seed": flags["seed"],
    }
    if flags["rate"] is not None:
        return [Load(rate=rate, **common) for rate in _rates(flags["rate"])]
    texts = DEFAULT_CONCURRENCY if flags["concurrency"] is None else flags["concurrency"]
    return [Load(concurrency=count, **common) for count in _numbers("--concurrency", texts, int)]


def _check_pairs(flags: dict[str, Any]) -> None:
    """Rejects flags that cannot be combined.

    Raises:
        click.UsageError: it names both.
    """
    if flags["rate"] is not None and flags["concurrency"] is not None:
        raise click.UsageError("give either --concurrency or --rate")
    if flags["duration"] and flags["requests"]:
        raise click.UsageError("give either --duration or --requests")
    if flags["rate"] is None and flags["poisson"]:
        raise click.UsageError("--poisson needs --rate")
    if flags["rate"] is None and flags["max_in_flight"]:
        raise click.UsageError("--max-in-flight needs --rate; with a closed loop --concurrency is the limit")
    if flags["protocol"] == "oip" and flags["mode"] in CLIENT_MODES:
        raise click.UsageError(f"--mode {flags['mode']} uses penstock.v1, not --protocol oip")
    for flag, name in (("--shape", "shape"), ("--range", "bounds"), ("--choices", "choices")):
        if flags["path"] and flags[name]:
            raise click.UsageError(f"{flag} is for generated inputs; give either it or --file")


def _check_paths(flags: dict[str, Any]) -> None:
    """Rejects files with unsupported suffixes.

    Raises:
        click.UsageError: it names the supported suffixes.
    """
    from penstock_bench.inputs import SUFFIXES
    from penstock_bench.plot import FORMATS

    if flags["plot"] and flags["plot"].suffix.lower() not in FORMATS:
        raise click.UsageError(f"--plot: {flags['plot']} must end with {', '.join(FORMATS)}")
    if flags["path"] and flags["path"].suffix.lower() not in SUFFIXES:
        raise click.UsageError(f"--file: {flags['path']} must end with {', '.join(SUFFIXES)}")


def _rates(text: str) -> list[float]:
    from penstock_bench.pacing import HIGHEST_RATE

    rates: list[float] = _numbers("--rate", text, float)
    if max(rates) > HIGHEST_RATE:
        raise click.UsageError(
            f"--rate: at most {HIGHEST_RATE:,.0f} requests a second can be scheduled; got {max(rates):g}"
        )
    return rates


def _numbers(flag: str, text: str, kind: type[Any]) -> list[Any]:
    try:
        numbers = [kind(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < float("inf") for number in numbers):
        raise click.UsageError(f"{flag} takes numbers above 0, as 1,8,32; got {text!r}")
    return numbers


def _task(flags: dict[str, Any], found: Subject, wishes: Wishes) -> Task:
    """The payloads and the way to send them.

    Raises:
        BenchError: the flags do not fit the model.
        Invalid: a flag or the file cannot be used.
    """
    from penstock_bench.codecs import Ask
    from penstock_bench.errors import BenchError
    from penstock_bench.worker import Task

    mode: Mode = flags["mode"]
    if found.protocol == "oip" and mode in CLIENT_MODES:
        raise BenchError(f"--mode {mode} needs penstock.v1, which {flags['target']} does not support")
    if found.keeps_state and mode != "stream":
        raise BenchError(
            f"{flags['model']} has a state, which needs --mode stream, where each stream is a sequence; "
            f"requests of --mode {mode} name none"
        )
    outputs = tuple(name.strip() for name in flags["outputs"].split(",") if name.strip())
    for name in outputs:
        if name not in found.outputs:
            raise BenchError(f'--outputs: unknown output "{name}"; outputs: {", ".join(found.outputs)}')
    ask = Ask(flags["model"], flags["version"], outputs, flags["timeout"])
    return Task(flags["target"], found.protocol, mode, ask, _payloads(flags, found, wishes))


def _payloads(flags: dict[str, Any], found: Subject, wishes: Wishes) -> list[Payload]:
    from penstock_bench.generate import generated
    from penstock_bench.inputs import from_file

    if flags["path"]:
        return from_file(flags["path"], found.inputs, flags["rows"] or 1)
    return generated(found.inputs, wishes)


def _wishes(flags: dict[str, Any]) -> Wishes:
    """How inputs are to be generated.

    Raises:
        click.UsageError: a flag has the wrong form.
    """
    from penstock.row_files.fields import Invalid
    from penstock_bench.generate import Wishes
    from penstock_bench.inputs import pairs, ranges, shapes

    try:
        return Wishes(
            flags["rows"],
            shapes(flags["shape"]),
            ranges(flags["bounds"]),
            pairs("--choices", flags["choices"]),
            flags["distinct"],
            flags["seed"],
        )
    except Invalid as error:
        raise click.UsageError(str(error)) from None


def _title(flags: dict[str, Any], found: Subject) -> str:
    version = f" version {found.version}" if found.version else ""
    protocol = {"penstock": "penstock.v1", "oip": "Open Inference Protocol"}[found.protocol]
    loop = "open loop" if flags["rate"] else "closed loop"
    return f"{flags['model']}{version} at {flags['target']}, {protocol}, {flags['mode']}, {loop}"


def _print(flags: dict[str, Any], found: Subject, task: Task, done: Measurement) -> None:
    from rich.console import Console

    from penstock_bench.report import interruption, show

    # Rich takes a pipe for a terminal of 80 columns.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(_title(flags, found), markup=False)
    console.print(_about_load(flags, task), style="dim", markup=False)
    show(console, done.levels)
    if done.interrupted_after is not None:
        console.print(interruption(done.interrupted_after, done.not_run), style="yellow", markup=False)


def _about_load(flags: dict[str, Any], task: Task) -> str:
    from penstock_bench.numerals import plain

    payloads = task.payloads
    size = sum(payload.size for payload in payloads) / len(payloads)
    rows = sum(payload.rows for payload in payloads) / len(payloads)
    return (
        f"{len(payloads)} different requests of {plain(rows)} row{'' if rows == 1 else 's'}, "
        f"{size:,.0f} bytes of inputs each, "
        f"from {flags['processes']} process{'' if flags['processes'] == 1 else 'es'}"
    )


def _draw(levels: Sequence[Level], title: str, path: Path) -> None:
    from penstock.row_files.fields import Invalid
    from penstock_bench.plot import draw

    try:
        draw(levels, title, path)
    except OSError as error:
        raise Invalid(f"--plot: {path}: {error.strerror or error}") from None


def _as_json(
    flags: dict[str, Any], found: Subject, task: Task, started: datetime, done: Measurement
) -> dict[str, Any]:
    """What --json prints; docs/bench.md explains every field."""
    from penstock_bench.results import SCHEMA

    payloads = task.payloads
    loop: Literal["open", "closed"] = "open" if flags["rate"] else "closed"
    return {
        "schema": SCHEMA,
        "penstock_version": __version__,
        "started_at": started.isoformat(),
        "target": flags["target"],
        "protocol": found.protocol,
        "model": flags["model"],
        "version": found.version,
        "mode": flags["mode"],
        "loop": loop,
        "processes": flags["processes"],
        "warmup_seconds": flags["warmup"],
        "timeout_seconds": flags["timeout"],
        "inputs": {
            "source": str(flags["path"]) if flags["path"] else "generated",
            "distinct": len(payloads),
            "rows_per_request": sum(payload.rows for payload in payloads) / len(payloads),
            "bytes_per_request": sum(payload.size for payload in payloads) / len(payloads),
            "seed": None if flags["path"] else flags["seed"],
        },
        "interrupted": done.interrupted_after is not None,
        "interrupted_after_seconds": done.interrupted_after,
        "levels_not_run": [load.rate or load.concurrency for load in done.not_run],
        "levels": [level.as_json() for level in done.levels],
    }
