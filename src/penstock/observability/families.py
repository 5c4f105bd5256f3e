"""Metric families as plain data, which one process can send to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Labels: TypeAlias = tuple[tuple[str, str], ...]
Sample: TypeAlias = tuple[str, Labels, float]
"""The sample's own name, its labels as pairs of name and value, and its value."""


@dataclass(frozen=True, slots=True)
class Family:
    """All samples of one metric at one moment.

    Attributes:
        name: without the endings that samples add, such as `_total` and `_bucket`.
        documentation: its help text.
        kind: "counter", "gauge", "histogram" or "info".
        samples: in the order in which they are shown.
    """

    name: str
    documentation: str
    kind: str
    samples: tuple[Sample, ...]
