"""Looks for rows that refute the analysis of graphs, over all cases: `python -m tests.conformance.proofs`.

Every case is analysed several times: with rows along each axis of each of its inputs, and of several at once.
Where the analysis says row-wise, rows are made from the case's own values and others, and are run alone and
together.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import onnx
import onnxruntime as ort

from penstock.models.analysis.facts import GraphFacts, Verdict
from penstock.models.analysis.proof import analyse_model
from tests.conformance.cases import LIGHT, Case, Unreadable, all_cases
from tests.conformance.variants import with_open_axis

Arrays = Mapping[str, np.ndarray]
Axes = Mapping[str, int | None]

ROWS = 3
MOST_CHOICES = 24
"""The most ways in which the axes of a case's inputs are taken for rows."""
CLOSE = 2e-3
"""How far rows together may be from rows alone, to the largest value: sums in another order, half floats."""


@dataclass
class Tried:
    """One case with rows along some axes.

    Attributes:
        axes: of each input.
        facts: what the analysis says.
        refuted: in words, how rows together differ from rows alone; "" if they do not, or nothing was run.
        runs: how many times rows ran together.
    """

    case: str
    operator: str
    axes: Axes
    facts: GraphFacts
    refuted: str = ""
    runs: int = 0


@dataclass
class Tally:
    """What was found over many cases.

    Attributes:
        verdicts: how often each was said.
        unknown: how often an operator's cases stayed unknown.
        runs: how often rows ran together to refute one.
        refuted: those that were refuted.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    refuted: list[Tried] = field(default_factory=list)

    def take(self, tried: Tried) -> None:
        """Adds one."""
        self.verdicts[tried.facts.verdict.value] += 1
        self.runs += tried.runs
        if tried.facts.verdict is Verdict.UNKNOWN:
            self.unknown[tried.operator] += 1
        if tried.refuted:
            self.refuted.append(tried)


def tried(case: Case) -> Iterator[Tried]:
    """A case with rows along its axes in several ways."""
    try:
        inputs = next(case.data_sets()).inputs
    except (Unreadable, StopIteration, ValueError):
        return
    for axes in choices(inputs):
        rowed = {name: axis for name, axis in axes.items() if axis is not None}
        model = opened(case.model, inputs, rowed)
        found = Tried(case.name, case.operator, rowed, analyse_model(model, rowed))
        if found.facts.verdict is Verdict.ROW_WISE:
            refute(found, model, {name: inputs[name] for name in rowed})
        yield found


def choices(inputs: Arrays) -> Iterator[Axes]:
    """Which axis of each input may be that of the rows; None for an input that becomes a constant."""
    ranks = {name: array.ndim if array.size else 0 for name, array in inputs.items()}
    ways = product(*[[*range(rank), None] for rank in ranks.values()])
    likely = sorted(ways, key=lambda way: (way.count(None), len(set(way) - {None})))
    for way in [each for each in likely if set(each) != {None}][:MOST_CHOICES]:
        yield dict(zip(ranks, way, strict=True))


def opened(model: onnx.ModelProto, inputs: Arrays, axes: Mapping[str, int]) -> onnx.ModelProto:
    """A copy with open axes of rows; inputs without rows become constants."""
    copy = with_open_axis(model, inputs, list(axes))
    for info in copy.graph.input:
        if info.name in axes:
            shape = info.type.tensor_type.shape.dim
            for axis, length in enumerate(inputs[info.name].shape):
                shape[axis].Clear()
                if axis != axes[info.name]:
                    shape[axis].dim_value = length
                else:
                    shape[axis].dim_param = "rows"
    for info in copy.graph.output:
        info.type.tensor_type.ClearField("shape")
    return copy


def refute(found: Tried, model: onnx.ModelProto, inputs: Arrays) -> None:
    """Runs rows alone and together, and notes in `found` where they differ."""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    # Optimized graphs are other graphs; what they do wrong is not the analysis's.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # ONNX Runtime does not know the operator, or these axes
        return
    if {info.name for info in session.get_inputs()} != set(inputs):
        return
    names = [info.name for info in session.get_outputs()]
    for rows in fills(inputs, found.axes):
        try:
            alone = [session.run(names, row) for row in rows]
            together = session.run(names, joined(rows, found.axes))
        except Exception:  # such rows do not run, alone or together
            continue
        found.runs += 1
        for place, name in enumerate(names):
            parts = [outputs[place] for outputs in alone]
            different = difference(parts, found.facts.output_axes[name], together[place])
            if different:
                found.refuted = f"output {name}: {different}"
                return


def joined(rows: Sequence[Arrays], axes: Axes) -> dict[str, np.ndarray]:
    """Rows as one batch."""
    return {name: np.concatenate([row[name] for row in rows], axes[name]) for name in rows[0]}


def fills(inputs: Arrays, axes: Axes) -> Iterator[list[dict[str, np.ndarray]]]:
    """Rows of several kinds: the case's own, permuted ones, large ones, such as are hardly different."""
    random = np.random.default_rng(0)
    for change in (own, permuted, large, near):
        yield [
            {
                name: change(part(array, axes[name] or 0, place), random, place)
                for name, array in inputs.items()
            }
            for place in range(ROWS)
        ]


def part(array: np.ndarray, axis: int, place: int) -> np.ndarray:
    """One entry of an axis, with the axis."""
    start = place % array.shape[axis]
    return array.take(range(start, start + 1), axis)


def own(array: np.ndarray, random: np.random.Generator, place: int) -> np.ndarray:
    return array.copy()


def permuted(array: np.ndarray, random: np.random.Generator, place: int) -> np.ndarray:
    return random.permuted(array.ravel()).reshape(array.shape)


def large(array: np.ndarray, random: np.random.Generator, place: int) -> np.ndarray:
    if array.dtype.kind == "f":
        return (random.normal(size=array.shape) * 10.0**place).astype(array.dtype)
    return permuted(array, random, place)


def near(array: np.ndarray, random: np.random.Generator, place: int) -> np.ndarray:
    if array.dtype.kind == "f":
        return (array - place * 5).astype(array.dtype)
    if array.dtype.kind == "b":
        return np.full_like(array, place == 1)
    return array if array.dtype == object else np.full_like(array, array.ravel()[place % array.size])


def difference(alone: Sequence[np.ndarray], axis: int, came: np.ndarray) -> str:
    """In words, how an output differs from those of its rows alone; "" if it does not."""
    if len({part.shape for part in alone}) > 1 or alone[0].ndim <= axis:
        return f"shapes {[list(part.shape) for part in alone]} of rows alone"
    wanted = np.concatenate(alone, axis)
    if wanted.shape != came.shape:
        return f"shape {list(came.shape)} in place of {list(wanted.shape)}"
    if wanted.dtype.kind != "f":
        return "" if np.array_equal(wanted, came) else "other values"
    one, two = wanted.astype(np.float64), came.astype(np.float64)
    if not np.array_equal(np.isfinite(one), np.isfinite(two)):
        return "not numbers at other places"
    finite = np.isfinite(one)
    most = np.abs(one[finite]).max(initial=1e-6)
    apart = np.abs(one[finite] - two[finite]).max(initial=0.0) / most
    return f"differs by {apart:.1e}" if apart > CLOSE else ""


def main() -> int:
    """Tries all cases, and prints what was found; returns the exit code."""
    tally = Tally()
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    for case in all_cases():
        if wanted in case.name and case.kind != LIGHT:
            for each in tried(case):
                tally.take(each)
    print(f"verdicts: {dict(tally.verdicts)}; rows ran together {tally.runs} times")
    print(f"unknown: {dict(tally.unknown.most_common())}")
    for each in tally.refuted:
        print(f"REFUTED {each.case} {dict(each.axes)}: {each.refuted}")
    return 1 if tally.refuted else 0


if __name__ == "__main__":
    sys.exit(main())
