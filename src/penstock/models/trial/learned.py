"""What the trial of a model finds out: plain data, kept in a file and sent from one process to another."""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np

from penstock.backends.onnx_file import FileFacts
from penstock.config.plain_data import PlainData
from penstock.core.tensors import Array, Signature, TensorSpec
from penstock.models.analysis.facts import GraphFacts
from penstock.models.checks.axes import RowAxes
from penstock.models.model import Batching
from penstock.scheduling.cost import RunCost
from penstock.scheduling.packing.padding import LengthRule, PaddingPlan

MOST_SECONDS, MOST_BYTES, MOST_COUNT, MOST_AXES = 1e5, 1e12, 10**7, 64
"""More than this is no result of a trial."""


@dataclass(frozen=True, slots=True)
class LearnedCost:
    """What runs cost.

    Attributes:
        one_row_seconds: how long a run of one row takes.
        row_seconds: what each further row adds.
        measured: whether these were measured. If not, they are a guess.
        row_bytes: the bytes of the outputs of one row, as far as they were noted.
    """

    one_row_seconds: float
    row_seconds: float
    measured: bool
    row_bytes: float = 0.0

    @classmethod
    def of(cls, cost: RunCost) -> LearnedCost:
        """What `cost` expects now."""
        return cls(cost.expect(1), cost.row_seconds, cost.is_known, cost.row_bytes)

    def run_cost(self) -> RunCost:
        """An estimate that begins with this."""
        two_rows = self.one_row_seconds + self.row_seconds
        cost = RunCost(self.one_row_seconds, 2, two_rows, measured=self.measured)
        cost.note_outputs(1, self.row_bytes)
        return cost


@dataclass(frozen=True, slots=True)
class LearnedArray:
    """An array.

    Attributes:
        shape: its shape.
        dtype: numpy's name of its datatype; "" for texts.
        data: its bytes in base64, those of one element if all are the same.
        texts: its texts, one if all are the same.
    """

    shape: tuple[int, ...]
    dtype: str
    data: str = ""
    texts: tuple[str, ...] = ()

    @classmethod
    def of(cls, array: Array) -> LearnedArray:
        """The array as plain data."""
        flat = array.reshape(-1)
        if flat.size > 1 and bool((flat == flat[0]).all()):
            flat = flat[:1]
        if array.dtype.kind == "O":
            return cls(array.shape, "", texts=tuple(str(each) for each in flat))
        return cls(array.shape, array.dtype.str, data=b64encode(flat.tobytes()).decode())

    def array(self) -> Array:
        """The array.

        Raises:
            ValueError: this is no array, as if a file were wrong.
        """
        return _array(self)

    @property
    def size(self) -> int:
        """About how many bytes it takes in a file."""
        return len(self.data) + sum(map(len, self.texts))


@lru_cache(maxsize=32)
def _array(learned: LearnedArray) -> Array:
    """As `LearnedArray.array`, read-only: an array is checked and used, and many models have the same."""
    if learned.dtype:
        flat = np.frombuffer(b64decode(learned.data), _dtype(learned.dtype))
    else:
        flat = np.array(learned.texts, dtype=object)
        flat.flags.writeable = False
    if flat.size != 1 or math.prod(learned.shape) == 1:
        return flat.reshape(learned.shape)
    if learned.dtype:  # as np.broadcast_to, which takes many times as long
        return np.ndarray(learned.shape, flat.dtype, flat, strides=(0,) * len(learned.shape))
    return np.broadcast_to(flat, learned.shape)


def _dtype(name: str) -> np.dtype[Any]:
    try:
        return np.dtype(name)
    except (TypeError, SyntaxError) as error:  # numpy raises a SyntaxError for some texts
        raise ValueError(str(error)) from None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the rows of a model's tensors lie, as far as that differs from what the graph declares.

    Attributes:
        shapes: the shapes of outputs that runs have contradicted.
        row_axes: the axis of the rows of each tensor, where it is not the first.
        decided: the tensors whose axis is known.
        name: the name of the rows.
    """

    shapes: Mapping[str, tuple[int | str, ...] | None]
    row_axes: Mapping[str, int]
    decided: tuple[str, ...]
    name: str

    @classmethod
    def of(cls, axes: RowAxes, declared: Signature) -> Layout:
        """What was found, given what was declared."""
        shapes = {
            name: spec.shape
            for name, spec in axes.signature.outputs.items()
            if spec.shape != declared.outputs[name].shape
        }
        return cls(shapes, dict(axes.moved), tuple(sorted(axes.decided)), axes.name)

    def row_axes_of(self, declared: Signature) -> RowAxes:
        """The same for a model that was opened anew."""

        def found(spec: TensorSpec) -> TensorSpec:
            shape, axis = self.shapes.get(spec.name, spec.shape), self.row_axes.get(spec.name, 0)
            is_same = shape is spec.shape and axis == spec.row_axis
            return spec if is_same else replace(spec, shape=shape, row_axis=axis)

        if not self.shapes and not self.row_axes:
            return RowAxes(declared, self.name, frozenset(self.decided))
        signature = replace(
            declared,
            inputs={name: found(spec) for name, spec in declared.inputs.items()},
            outputs={name: found(spec) for name, spec in declared.outputs.items()},
        )
        return RowAxes(signature, self.name, frozenset(self.decided))


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned about a version.

    Attributes:
        batching: whether requests may run together, and why.
        cost: what runs cost.
        max_rows: the most rows of a batch.
        runs_in_parallel: how many runs may go on at the same time.
        cores: how many processors each of them works on.
        shapes: the shapes of inputs that ran, by the inputs' names.
        facts: what the graph says about its rows.
        layout: where the rows of its tensors lie.
        file: what was read from the file; None if that says nothing.
        changes: what is served otherwise than the file says; see `ModelFile.changes`.
        cut: the `PaddingPlan.outputs` that were found, if requests are padded.
        rules: the `PaddingPlan.rules` that were found.
        example: the inputs of a run that were made up, by their names; empty if they are too large.
        advice: what the operator could declare in `model.toml`; "" for nothing.
        date: when it was learned, such as "2026-11-29".
    """

    batching: Batching
    cost: LearnedCost
    max_rows: int
    runs_in_parallel: int
    cores: int
    shapes: tuple[Mapping[str, tuple[int, ...]], ...]
    facts: GraphFacts
    layout: Layout
    file: FileFacts | None = None
    changes: tuple[str, ...] = ()
    cut: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    rules: Mapping[str, Mapping[int, tuple[int, int, int]]] = field(default_factory=dict)
    example: Mapping[str, LearnedArray] = field(default_factory=dict)
    advice: str = ""
    date: str = ""

    def check(self) -> None:
        """Checks what is read from a file, which may be damaged.

        Raises:
            ValueError: a trial finds no such number, or an array cannot be read.
        """
        seconds = (self.cost.one_row_seconds, self.cost.row_seconds)
        row_bytes = self.cost.row_bytes
        counts = (self.max_rows, self.runs_in_parallel, self.cores)
        axes = self.layout.row_axes.values()
        if not all(0.0 <= each < MOST_SECONDS for each in seconds):
            raise ValueError(f"runs do not take {seconds} s")
        if not 0.0 <= row_bytes < MOST_BYTES:
            raise ValueError(f"a row's outputs do not have {row_bytes} bytes")
        if not all(1 <= each < MOST_COUNT for each in counts) or not all(
            0 <= each < MOST_AXES for each in axes
        ):
            raise ValueError(f"there are not {counts} rows, runs and processors, or axes {list(axes)}")
        self.example_of(self.example)

    def check_model(self, declared: Signature) -> None:
        """Checks that this can have been learned of a model with this signature.

        Raises:
            ValueError: it names tensors or axes that the model does not have.
        """
        inputs, outputs = declared.inputs.keys(), declared.outputs.keys()
        unknown = {
            "layout.shapes": self.layout.shapes.keys() - outputs,
            "layout.row_axes": self.layout.row_axes.keys() - inputs - outputs,
            "shapes": {name for each in self.shapes for name in each} - inputs,
            "example": self.example.keys() - inputs,
            "cut": self.cut.keys() - outputs,
            "rules": self.rules.keys() - outputs,
        }
        if any(unknown.values()):
            raise ValueError(f"the model has no such inputs and outputs: {unknown}")
        served = self.layout.row_axes_of(declared).signature
        tensors = {**served.inputs, **served.outputs}
        axes = [(name, axis) for name, axis in self.layout.row_axes.items()]
        axes += [(name, axis) for name, cut in self.cut.items() for axis in cut]
        axes += [(name, axis) for name, rules in self.rules.items() for axis in rules]
        for name, axis in axes:
            shape = tensors[name].shape
            if shape is not None and not (0 <= axis < len(shape) and isinstance(shape[axis], str)):
                raise ValueError(
                    f"{name} has the shape {shape}: its axis {axis} holds no rows and is not cut"
                )

    def of_padding(self, plan: PaddingPlan | None) -> PaddingPlan | None:
        """The plan, with what was found of its outputs."""
        if plan is None:
            return None
        rules = {
            name: {axis: LengthRule(*rule) for axis, rule in axes.items()}
            for name, axes in self.rules.items()
        }
        return replace(plan, outputs=self.cut, rules=rules)

    def example_of(self, names: Iterable[str]) -> dict[str, Array]:
        """The inputs of these names in the example."""
        return {name: self.example[name].array() for name in names if name in self.example}


LEARNED = PlainData(Learned)
"""The JSON of `Learned`."""


@dataclass(frozen=True, slots=True)
class Differed:
    """A batch of live requests changed an answer.

    Attributes:
        date: when that was found, such as "2026-11-29".
        reason: what was found, in words.
    """

    date: str
    reason: str


DIFFERED = PlainData(Differed)
"""The JSON of `Differed`."""


def today() -> str:
    """The date, in UTC."""
    return datetime.now(UTC).date().isoformat()
