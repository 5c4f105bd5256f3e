"""One set of metrics out of those of several processes.

- What Penstock counts (`penstock_…`, counters and histograms) is summed: a request is a request, whoever
  answered it. So are its gauges: rows that wait, batches that run, calls and streams that are open.
- Facts (`…_info`) appear once for each different set of labels.
- What the operating system and Python say of a process (`process_…`, `python_…`) has the label `process`.
  Of these the counters of a process that took another's place continue where the other's ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penstock.telemetry.families import Family, Labels

OWN = "penstock_"
CUMULATIVE = ("counter", "histogram")


class _Merging:
    """One family under way."""

    def __init__(self, first: Family) -> None:
        self._first = first
        self._adds = first.kind in CUMULATIVE or (first.name.startswith(OWN) and first.kind != "info")
        self._samples: dict[tuple[str, Labels], float] = {}

    def add(self, family: Family, label: Labels) -> None:
        for name, labels, value in family.samples:
            key = name, labels + label
            before = self._samples.get(key, 0.0) if self._adds else 0.0
            self._samples[key] = before + value

    def result(self) -> Family:
        samples = tuple((name, labels, value) for (name, labels), value in self._samples.items())
        return Family(self._first.name, self._first.documentation, self._first.kind, samples)


def merged(sources: Iterable[tuple[str, Sequence[Family]]]) -> tuple[Family, ...]:
    """The metrics of all sources as one.

    Args:
        sources: the name of a process, and what it says. A name may come again, for one process that took the
            other's place: the last one's gauges count where they have the label `process`.
    """
    result: dict[str, _Merging] = {}
    for process, families in sources:
        for family in families:
            label = () if family.name.startswith(OWN) else (("process", process),)
            result.setdefault(family.name, _Merging(family)).add(family, label)
    return tuple(each.result() for each in result.values())


def summed(earlier: Sequence[Family], later: Sequence[Family]) -> tuple[Family, ...]:
    """What is left of two processes that have ended: what they counted, added up."""
    result: dict[str, _Merging] = {}
    for family in (*earlier, *later):
        if family.kind in CUMULATIVE:
            result.setdefault(family.name, _Merging(family)).add(family, ())
    return tuple(each.result() for each in result.values())
