"""What is measured together: the series of a group take turns within every round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import measures
from benchmarks.measures import Measure
from benchmarks.streams import echoed, gathered
from benchmarks.subjects import SUBJECTS, YARDSTICKS

UNARY = (*YARDSTICKS, "reactor-echo", "penstock", "penstock-free", "portable")


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
        number: the number that ratios are of: `rate`, or `mean_us` where a call is alone.
        references: what ratios are to: the fastest of these that was measured.
        rounds: how many rounds there are at most; None for as many as the run makes.
    """

    title: str
    series: dict[str, Series]
    number: str = "rate"
    references: tuple[str, ...] = YARDSTICKS
    rounds: int | None = None


def unary(in_flight: int, subjects: tuple[str, ...] = UNARY) -> dict[str, Series]:
    """A line for each server, with so many calls in flight."""
    return {
        name: Series(SUBJECTS[name].title, measures.unary(name, in_flight), SUBJECTS[name].missing)
        for name in subjects
    }


def streams() -> dict[str, Series]:
    """Streams of one and of 32 requests a message, beside echoed messages; the tuned echo is the quicker."""
    lines = {"yardstick-tuned": ("yardstick, messages echoed", "yardstick-tuned", echoed(128))}
    for name, title in (("penstock", "Penstock"), ("portable", "Penstock, portable road")):
        lines[f"{name}-1"] = (f"{title}, 1 a message", name, gathered("tiny_mlp", 1, 128))
        lines[f"{name}-32"] = (f"{title}, 32 a message", name, gathered("tiny_mlp", 32, 4))
    return {
        name: Series(title, measures.stream(subject, sent), SUBJECTS[subject].missing)
        for name, (title, subject, sent) in lines.items()
    }


GROUPS = {
    "unary-32": Group("Unary, 32 in flight", unary(32)),
    "unary-256": Group("Unary, 256 in flight", unary(256)),
    "lone": Group("A lone unary call", unary(1), "mean_us"),
    "stream": Group("One stream, 128 requests in flight", streams()),
}
