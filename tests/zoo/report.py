"""What became of the models of the zoo: the summary, and docs/zoo.md."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import groupby
from statistics import median

from penstock.models.analysis.facts import Verdict
from tests.zoo.bare import Bare, Rows
from tests.zoo.packages import ZooModel
from tests.zoo.serve import Served, Start

PAYS = 0.9
"""Rows together pay if they take less than this share of the processor time that they take one by one."""
MARK = "<!-- From here on, `make zoo ARGS=--write` writes. -->"


@dataclass
class Result:
    """What became of one model.

    Attributes:
        found: what it gives without a server.
        served: how it was served.
        as_found: its starts as it comes, where that was measured.
        without: its starts with batching switched off.
    """

    model: ZooModel
    found: Bare
    served: Served
    as_found: list[Start] = field(default_factory=list)
    without: list[Start] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether every answer was as it must be."""
        served = self.served
        wrong = self.found.refuted or served.alone.wrong or served.together.wrong
        return not (self.found.reason or served.failed or wrong)

    @property
    def pays(self) -> bool:
        """Whether its requests are independent, and cost less processor time together."""
        return self.found.rows is Rows.INDEPENDENT and self.found.gain < PAYS


def summary(results: Sequence[Result], left_out: dict[str, str]) -> str:
    """The counts, and every model with a wrong answer."""
    served = [each for each in results if not each.served.failed and not each.found.reason]
    batched = [each for each in served if each.served.batched]
    pays = [each for each in served if each.pays]
    tried = [each for each in served if each.served.line_failed is not None]
    requests = sum(each.served.alone.answers + each.served.together.answers for each in served)
    lines = [
        f"{len(results)} models, {len(served)} served, {requests} answers compared",
        f"batched: {len(batched)}, with a wrong answer: {_count(not each.right for each in batched)}",
        f"alone: {len(served) - len(batched)}, with a wrong answer: "
        f"{_count(not each.right for each in served if not each.served.batched)}",
        f"independent in ONNX Runtime: {_count(each.found.rows is Rows.INDEPENDENT for each in served)}, "
        f"batching pays: {len(pays)}, of these batched: {_count(each.served.batched for each in pays)}",
        f"line to try: {_count(not each.served.line_failed for each in tried)} of {len(tried)} answered, "
        f"{_count(not each.served.line for each in served)} without one",
    ]
    graphs = [each.found.graph for each in served if each.found.graph is not None]
    verdicts = [f"{each.value} {_count(graph.verdict is each for graph in graphs)}" for each in Verdict]
    refuted = _count(each.found.refuted for each in served)
    lines.append(f"what the graphs say: {', '.join(verdicts)}; row-wise and yet mixed: {refuted}")
    yet_alone = [each.model.name for each in pays if not each.served.batched]
    if yet_alone:
        lines.append(f"batching pays, and yet alone: {', '.join(yet_alone)}")
    lines += [f"not fetched: {name}: {why}" for name, why in left_out.items()]
    for each in results:
        lines += [f"{each.model.name}: {what}" for what in _faults(each)]
    return "\n".join(lines) + "\n"


def page(results: Sequence[Result], before: str) -> str:
    """The text of docs/zoo.md.

    Args:
        results: of all models.
        before: the page as it is; what stands above the mark stays.
    """
    head = before.partition(MARK)[0] + MARK
    parts = [
        head,
        f"{platform.machine()}, Python {platform.python_version()}, onnxruntime {version('onnxruntime')}.",
        f"```text\n{summary(results, {}).rstrip()}\n```",
    ]
    batched = [each for each in results if each.served.batched]
    parts += ["## Batched models", _table(batched)]
    parts += ["## Models that run alone", _table(each for each in results if not each.served.batched)]
    compared = [each for each in results if each.without]
    if compared:
        parts += ["## Heavy models with and without batching", _compared(compared)]
    parts += ["## Packages", _packages(results)]
    return "\n\n".join(parts) + "\n"


def line(result: Result) -> str:
    """One model in one line, for the terminal."""
    served = result.served
    if result.found.reason or served.failed:
        return f"{result.model.name}: not served: {result.found.reason or served.failed}"
    return (
        f"{result.model.name}: {'batched' if served.batched else 'alone'}; "
        f"in ONNX Runtime {_together(result)}; "
        f"alone {served.alone}; 16 callers {served.together}; "
        f"{served.start.seconds:.1f} s, {served.peak:.0f} MiB; {served.reason}"
    )


def _faults(result: Result) -> list[str]:
    served = result.served
    if result.found.reason:
        return [f"ONNX Runtime does not run it: {result.found.reason}"]
    if served.failed:
        return [f"not served: {served.failed}"]
    found = []
    if result.found.refuted:
        found.append("the graph says that rows stay apart, and they do not")
    if served.alone.wrong:
        found.append(f"called alone, {served.alone}")
    if served.together.wrong:
        found.append(f"by 16 callers, {served.together} ({served.together.other_label} other labels)")
    if served.line_failed:
        found.append(f"the line to try fails: {served.line_failed[:100]}")
    return found


def _table(results: Iterable[Result]) -> str:
    rows = [
        "| model | why | in ONNX Runtime | alone | 16 callers | start | memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in results:
        served = each.served
        if each.found.reason or served.failed:
            cells = [f"not served: {each.found.reason or served.failed}", "", "", "", "", ""]
        else:
            cells = [
                served.reason,
                _together(each),
                str(served.alone),
                str(served.together),
                f"{served.start.seconds:.1f} s",
                f"{served.peak:.0f} MiB",
            ]
        rows.append(f"| {each.model.name} | " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _together(result: Result) -> str:
    found = result.found
    if found.rows is Rows.REFUSED:
        return "one request a run"
    if found.rows is Rows.MIXED:
        return f"mixed ({found.apart.first or 'they differ'})"
    return f"independent, {found.gain:.2f} of the time"


def _compared(results: Iterable[Result]) -> str:
    rows = ["| model | | start | memory | a burst of 8 |", "|---|---|---|---|---|"]
    for each in results:
        for title, starts in (("as found", each.as_found), ("`enabled = false`", each.without)):
            seconds, resident, burst = (
                median(getattr(start, name) for start in starts)
                for name in ("seconds", "resident", "burst_seconds")
            )
            figures = f"{seconds:.2f} s | {resident:.0f} MiB | {1000 * burst:.0f} ms"
            rows.append(f"| {each.model.name} | {title} | {figures} |")
    return "\n".join(rows)


def _packages(results: Iterable[Result]) -> str:
    rows = ["| package | version | registry | licence | models |", "|---|---|---|---|---|"]
    for package, group in groupby(results, lambda each: each.model.package):
        names = ", ".join(each.model.name for each in group)
        registry = {"pypi": "PyPI", "npm": "npm"}[package.registry]
        rows.append(f"| {package.name} | {package.version} | {registry} | {package.licence} | {names} |")
    return "\n".join(rows)


def _count(truths: Iterable[bool]) -> int:
    return sum(map(bool, truths))
