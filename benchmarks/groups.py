"""What is measured together: the series of a group take turns within every round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from benchmarks import loads, measures
from benchmarks.loads import echoed, gathered
from benchmarks.measures import Measure
from benchmarks.peers import PEERS
from benchmarks.subjects import SUBJECTS, YARDSTICKS

ALL_SUBJECTS = SUBJECTS | PEERS
UNARY = (*YARDSTICKS, "reactor-echo", "penstock", "penstock-free", "processes", "portable")
BESIDE_PEERS = ("yardstick-tuned", "penstock", *PEERS)
START_ROUNDS = 10
FIXED_RATES = (1_000, 2_500, 5_000, 10_000)
"""Calls a second; every machine that this is run on can do as many."""


@dataclass(frozen=True)
class Series:
    """One line of a table.

    Attributes:
        title: what it is called there.
        measure: gives one round's figure.
        missing: why it cannot be measured here; "" if it can.
    """

    title: str
    measure: Measure
    missing: Callable[[], str] = lambda: ""


@dataclass(frozen=True)
class Group:
    """A table.

    Attributes:
        title: its heading.
        series: its lines, by name.
        columns: the numbers it shows, by their names in a figure.
        ratio: the number that ratios are of; "" for none.
        references: what ratios are to: the one with the highest rate of those that were measured.
        rounds: how many rounds there are; None for as many as the run makes.
        part: "quick" if it belongs to every run, "full" if a quick one leaves it out, "peers" if it is
            measured only where that is asked for.
    """

    title: str
    series: Mapping[str, Series]
    columns: tuple[str, ...] = ("rate", "mean_us", "cpu_us")
    ratio: str = "rate"
    references: tuple[str, ...] = YARDSTICKS
    rounds: int | None = None
    part: str = "quick"


def unary(in_flight: int, subjects: Iterable[str] = UNARY) -> dict[str, Series]:
    """A line for each server, with that many calls in flight."""
    return {
        name: Series(ALL_SUBJECTS[name].title, measures.unary(name, in_flight), ALL_SUBJECTS[name].missing)
        for name in subjects
    }


def streams() -> dict[str, Series]:
    """Streams of one and of 32 requests a message, beside echoed messages; the tuned echo is the quicker."""
    lines = {"yardstick-tuned": ("yardstick, messages echoed", "yardstick-tuned", echoed(128))}
    for name, title in (("penstock", "Penstock"), ("portable", "Penstock, portable transport")):
        lines[f"{name}-1"] = (f"{title}, 1 a message", name, gathered("tiny_mlp", 1, 128))
        lines[f"{name}-32"] = (f"{title}, 32 a message", name, gathered("tiny_mlp", 32, 4))
    return {
        name: Series(title, measures.stream(subject, sent), SUBJECTS[subject].missing)
        for name, (title, subject, sent) in lines.items()
    }


def callers(number: int, *words: str, model: str = "tiny_mlp") -> Series:
    """Callers of the Python client, on streams that they share."""
    merged = ", rows merged" if "--merge-rows" in words else ""
    kind = ", a thread" if "--threads" in words else ""
    title = f"Penstock, {number} Python caller{'s' if number > 1 else ''}{kind}{merged}"
    measure = measures.callers(number, "--transport", "stream", *words, model=model)
    return Series(title, measure, _no_callers)


def _no_callers() -> str:
    return "" if loads.CALLERS.exists() else "benchmarks/callers.py is not there"


GROUPS = {
    "unary-32": Group("Unary, 32 in flight", unary(32)),
    "unary-256": Group("Unary, 256 in flight", unary(256)),
    "lone": Group("A lone unary call", unary(1), ratio="mean_us"),
    "stream": Group("One stream, 128 requests in flight", streams(), ("rate", "cpu_us"), part="full"),
    "multiplexed": Group(
        "Callers in one Python process, multiplexed",
        unary(32, YARDSTICKS[1:])
        | {f"{n}": callers(n) for n in (64, 256)}
        | {f"{n}-merged": callers(n, "--merge-rows") for n in (64, 256)},
        ("rate", "cpu_us", "client_cpu_us", "p50_us", "p99_us"),
    ),
    "lone-python": Group(
        "A lone call from Python",
        {
            "plain": Series("grpcio's synchronous unary call", measures.plain_unary),
            "asyncio": callers(1),
            "threads": callers(1, "--threads"),
        },
        ("rate", "p50_us", "p99_us"),
        ratio="p50_us",
        references=("plain",),
        part="full",
    ),
    "medium": Group(
        "Medium MLP, one row a prediction",
        {
            "direct-1": Series("ONNX Runtime, 1 row a run", measures.direct("medium_mlp", 1)),
            "direct-32": Series("ONNX Runtime, 32 rows a run", measures.direct("medium_mlp", 32)),
            "256": callers(256, model="medium_mlp"),
        },
        ("rate", "cpu_us", "client_cpu_us", "p50_us"),
        references=("direct-32",),
        part="full",
    ),
    "floor": Group(
        "ONNX Runtime called directly, tiny MLP, a row",
        {
            "direct-1": Series("1 row a run", measures.direct("tiny_mlp", 1)),
            "direct-32": Series("32 rows a run", measures.direct("tiny_mlp", 32)),
        },
        ("rate", "cpu_us"),
        ratio="",
        part="full",
    ),
    "half-rate": Group(
        "Unary at half of the rate with 32 in flight, open loop",
        {
            name: Series(SUBJECTS[name].title, measures.half_rate(name, 32), SUBJECTS[name].missing)
            for name in ("yardstick-tuned", "reactor-echo", "penstock", "penstock-free")
        },
        ("rate", "p50_us", "p99_us", "p999_us", "max_us", "late_us", "tail"),
        ratio="",
    ),
    "fixed-rates": Group(
        "Unary at fixed rates, open loop",
        {
            f"{name}-{rate}": Series(f"{SUBJECTS[name].title}, {rate:,}/s", measures.fixed_rate(name, rate))
            for name in ("reactor-echo", "penstock")
            for rate in FIXED_RATES
        },
        ("cpu_us", "busy", "p50_us", "p99_us"),
        ratio="",
        part="full",
    ),
    "memory": Group(
        "Memory over a million predictions",
        {"penstock": Series("Penstock", measures.memory(gathered("tiny_mlp", 32, 4)))},
        ("growth_mb", "resident_mb"),
        ratio="",
        rounds=1,
        part="full",
    ),
    "start": Group(
        "From process start to SERVING",
        {"penstock": Series("Penstock, one small model", measures.start)},
        ("start_seconds",),
        ratio="",
        rounds=START_ROUNDS,
        part="full",
    ),
    "peers-32": Group("Peers: unary, 32 in flight", unary(32, BESIDE_PEERS), part="peers"),
    "peers-256": Group("Peers: unary, 256 in flight", unary(256, BESIDE_PEERS), part="peers"),
    "peers-lone": Group("Peers: a lone unary call", unary(1, BESIDE_PEERS), ratio="mean_us", part="peers"),
}


def chosen(only: Iterable[str] | None, quick: bool, peers: bool) -> dict[str, Group]:
    """The groups of a run: those named, or all that belong to its kind."""
    if only:
        return {name: GROUPS[name] for name in only}
    parts = {"quick"} | ({"full"} if not quick else set()) | ({"peers"} if peers else set())
    return {name: group for name, group in GROUPS.items() if group.part in parts}
