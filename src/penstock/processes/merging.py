"""Merges the metrics of several processes into one answer.

- Penstock's own counters and histograms (`penstock_…`) are summed: it does not matter which process answered
  a request. So are its gauges: rows that wait, batches that run, calls and streams that are open.
- Of the expected cost of runs (`penstock_run_…`), the largest of all processes counts.
- Facts (`…_info`) appear once for each different set of labels.
- The metrics of a process itself (`process_…`, `python_…`) have the label `process`. Where a process has
  taken another's place, its counters continue where the other's ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from penstock.observability.families import Family, Labels

OWN, ESTIMATES = "penstock_", "penstock_run_"
CUMULATIVE = ("counter", "histogram")


class _Merging:
    """A family that is being merged."""

    def __init__(self, first: Family) -> None:
        self._first = first
        self._is_estimate = first.name.startswith(ESTIMATES)
        self._adds = first.kind in CUMULATIVE or (first.name.startswith(OWN) and first.kind != "info")
        self._samples: dict[tuple[str, Labels], float] = {}

    def add(self, family: Family, label: Labels) -> None:
        for name, labels, value in family.samples:
            key = name, labels + label
            before = self._samples.get(key, 0.0) if self._adds else 0.0
            self._samples[key] = max(before, value) if self._is_estimate else before + value

    def result(self) -> Family:
        samples = tuple((name, labels, value) for (name, labels), value in self._samples.items())
        return Family(self._first.name, self._first.documentation, self._first.kind, samples)


def merged(sources: Iterable[tuple[str, Sequence[Family]]]) -> tuple[Family, ...]:
    """The metrics of all sources as one.

    Args:
        sources: the name of a process, and its metrics. A name may come again, for a process that took
            another's place: of gauges with the label `process`, the last one counts.
    """
    result: dict[str, _Merging] = {}
    for process, families in sources:
        for family in families:
            label = () if family.name.startswith(OWN) else (("process", process),)
            result.setdefault(family.name, _Merging(family)).add(family, label)
    return tuple(each.result() for each in result.values())


def summed(earlier: Sequence[Family], later: Sequence[Family]) -> tuple[Family, ...]:
    """The counters and histograms of two processes that have ended, added up."""
    result: dict[str, _Merging] = {}
    for family in (*earlier, *later):
        if family.kind in CUMULATIVE:
            result.setdefault(family.name, _Merging(family)).add(family, ())
    return tuple(each.result() for each in result.values())


def merged_models(sources: Sequence[Sequence[str]]) -> list[str]:
    """The models of all processes, each once.

    Args:
        sources: JSON of the models of each process; see `penstock.described`.

    Returns:
        JSON of each model by name and version. One that runs alone, or has trouble, in some of the processes
        is shown so, with their number.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for texts in sources:
        for each in map(json.loads, texts):
            found.setdefault((each["name"], each["version"]), []).append(each)
    in_order = sorted(found, key=lambda key: (key[0], int(key[1])))
    return [json.dumps(_one_model(found[key])) for key in in_order]


def _one_model(copies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    count = len(copies)
    alone = [each for each in copies if not each.get("batched", False)]
    model = dict(alone[0] if alone else copies[0])
    if 0 < len(alone) < count and "reason" in model:
        model["reason"] += f" (in {len(alone)} of {count} processes)"
    troubled = [each["trouble"] for each in copies if each["trouble"]]
    if troubled:
        where = f" (in {len(troubled)} of {count} processes)" if len(troubled) < count else ""
        model["trouble"] = f"{troubled[0]}{where}"
    return model


def merged_errors(sources: Iterable[Sequence[Mapping[str, Any]]], most: int) -> Sequence[Mapping[str, Any]]:
    """The newest of the recent errors of all processes.

    Args:
        sources: those of each process.
        most: how many are kept.
    """
    every = [error for errors in sources for error in errors]
    return sorted(every, key=lambda each: each["at"], reverse=True)[:most]
