"""How far one answer is from another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.zoo.packages import ZooModel

Answer = Mapping[str, npt.NDArray[Any]]


@dataclass
class Compared:
    """Answers, counted.

    Attributes:
        answers: how many were compared.
        equal: how many of them were the same in every bit.
        wrong: how many were further off than the model's tolerance, or were an error.
        other_label: how many of the wrong ones led to another label.
        worst: the largest difference, relative to the largest value of its output.
        first: what was wrong with the first wrong one.
    """

    answers: int = 0
    equal: int = 0
    wrong: int = 0
    other_label: int = 0
    worst: float = 0.0
    first: str = ""

    def take(self, model: ZooModel, expected: Answer, came: Answer) -> None:
        """Counts one answer."""
        self.answers += 1
        name, distance = furthest(expected, came)
        self.equal += distance == 0.0
        self.worst = max(self.worst, distance)
        if distance > model.tolerance:
            other = other_label(model, expected, came)
            self.other_label += other
            how = f"differs by {distance:.1e}" if distance < math.inf else "is another one"
            self.failed(f"output {name} {how}" + (", with another label" if other else ""))

    def failed(self, why: str) -> None:
        """Counts what is already counted as an answer as a wrong one."""
        self.wrong += 1
        self.first = self.first or why

    def add(self, other: Compared) -> None:
        """Counts what another one has counted."""
        self.answers += other.answers
        self.equal += other.equal
        self.wrong += other.wrong
        self.other_label += other.other_label
        self.worst = max(self.worst, other.worst)
        self.first = self.first or other.first

    def __str__(self) -> str:
        if self.wrong:
            return f"{self.wrong} of {self.answers} wrong: {self.first}"
        if self.equal == self.answers:
            return "equal"
        return f"within {self.worst:.0e}"


def furthest(expected: Answer, came: Answer) -> tuple[str, float]:
    """The output that differs most, and by how much: 0.0 if all are the same in every bit."""
    found = {name: _distance(array, came.get(name)) for name, array in expected.items()}
    name = max(found, key=lambda each: found[each])
    return name, found[name]


def other_label(model: ZooModel, expected: Answer, came: Answer) -> bool:
    """Whether an output that is read as a label says something else."""
    for name, axis in model.labels.items():
        if expected[name].shape != came[name].shape:
            return True
        if not np.array_equal(expected[name].argmax(axis), came[name].argmax(axis)):
            return True
    return False


def _distance(one: npt.NDArray[Any], other: npt.NDArray[Any] | None) -> float:
    if other is None or one.shape != other.shape or one.dtype != other.dtype:
        return math.inf
    if one.dtype == object:
        return 0.0 if one.tolist() == other.tolist() else math.inf
    if one.tobytes() == other.tobytes():
        return 0.0
    return _between(one.astype(np.float64), other.astype(np.float64)) if one.dtype.kind == "f" else math.inf


def _between(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    finite = np.isfinite(first)
    odd_alike = np.array_equal(first[~finite], second[~finite], equal_nan=True)
    if not odd_alike or not np.isfinite(second[finite]).all():
        return math.inf
    largest = np.abs(first[finite]).max(initial=float(np.finfo(np.float32).tiny))
    least = float(np.finfo(np.float64).tiny)  # zeros of another sign have other bits
    return max(float(np.abs(first[finite] - second[finite]).max(initial=0.0) / largest), least)
