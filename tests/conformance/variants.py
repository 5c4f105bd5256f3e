"""Models whose first axis is made open, and whether their rows then depend on each other.

That is found out here from the values of the case itself, without the server's own check, which makes values
up: where the two disagree, one of them is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from penstock.backends.onnx import OnnxBackend
from penstock.core.errors import ModelFailed, ModelLoadError
from penstock.core.tensors import TensorSpec
from tests.conformance.closeness import apart, is_within
from tests.conformance.reference import Judged, opened
from tests.conformance.tensors import Raw, held, packed

BATCH = "batch"
ROWS = 8
"""How many different rows are made of a case's own."""
MOST_INPUTS = 5
"""Of more inputs only the first are tried for having rows: each set of them is loaded and run."""
GROUPS = ([0, 1], [5, 2, 0], list(range(ROWS)), list(reversed(range(ROWS))), list(range(ROWS)) * 4)
"""Which rows are run together: every row meets others, at other places of batches of other sizes."""

Arrays = Mapping[str, np.ndarray]


class Rows(Enum):
    """How rows run together compare with the same rows run alone."""

    EQUAL = "bit for bit"
    CLOSE = "within the tolerance"
    MIXED = "mixed"
    RANDOM = "random"
    NOT_RUN = "not run"


INDEPENDENT = (Rows.EQUAL, Rows.CLOSE)


@dataclass
class Variant:
    """A model with an open first axis.

    Attributes:
        operator: what it is about.
        frozen: the inputs that have become constants, since they have no rows.
        rows: what each row alone takes.
        alone: what each row alone gives, by output.
        worst: by how much a row differs at most, relative to the output's largest value.
    """

    name: str
    operator: str
    model: onnx.ModelProto
    frozen: Sequence[str] = ()
    verdict: Rows = Rows.NOT_RUN
    reason: str = ""
    rows: Sequence[Mapping[str, Raw]] = ()
    alone: Sequence[Mapping[str, Raw]] = ()
    worst: float = 0.0


def variant(judged: Judged, folder: Path) -> Variant | None:
    """The variant that says most of a case: with independent rows where there is one.

    Args:
        judged: a case that can be served.
        folder: where its model may be written.

    Returns:
        None where none of its inputs has rows.
    """
    case = judged.case
    inputs = {name: held(array) for name, array in next(case.data_sets()).inputs.items()}
    found = []
    for batched in _choices(judged, inputs):
        one = Variant(case.name, case.operator, with_open_axis(case.model, inputs, batched))
        one.frozen = [name for name in inputs if name not in batched]
        found.append(one)
        examine(one, _rows({name: inputs[name] for name in batched}), folder)
        if one.verdict in INDEPENDENT:
            return one
    return next((each for each in found if each.verdict is Rows.MIXED), found[0] if found else None)


def examine(found: Variant, rows: Sequence[Arrays], folder: Path) -> None:
    """Runs rows alone and together, and says in `found` how they compare."""
    path = folder / f"{found.name}.onnx"
    path.write_bytes(found.model.SerializeToString())
    try:
        with opened(path) as backend:
            if set(backend.signature.inputs) != set(rows[0]):
                found.reason = f"it takes {list(backend.signature.inputs)}"
            else:
                _compare(found, backend, rows)
    except (ModelFailed, ModelLoadError) as error:
        found.verdict, found.reason = Rows.NOT_RUN, str(error)


def with_open_axis(model: onnx.ModelProto, inputs: Arrays, batched: Sequence[str]) -> onnx.ModelProto:
    """A copy whose first axis is open for some inputs and all outputs; the other inputs become constants."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    del graph.value_info[:]
    constants = [info for info in graph.input if info.name in inputs and info.name not in batched]
    graph.initializer.extend(_constant(inputs[info.name], info) for info in constants)
    for info in constants:
        graph.input.remove(info)
    for info in [*(info for info in graph.input if info.name in batched), *graph.output]:
        axes = info.type.tensor_type.shape.dim
        if axes:
            axes[0].Clear()
            axes[0].dim_param = BATCH
    return copy


def _constant(array: np.ndarray, info: onnx.ValueInfoProto) -> onnx.TensorProto:
    element = info.type.tensor_type.elem_type
    if element == onnx.TensorProto.STRING:
        texts = [text.encode() for text in array.ravel()]
        return onnx.helper.make_tensor(info.name, element, array.shape, texts)
    if element == onnx.TensorProto.BFLOAT16:
        return onnx.helper.make_tensor(info.name, element, array.shape, array.tobytes(), raw=True)
    return numpy_helper.from_array(array, info.name)


def _choices(judged: Judged, inputs: Arrays) -> Iterator[Sequence[str]]:
    """Which inputs may be those with rows, the likeliest first."""
    shapes = [raw.shape for raw in judged.expectations[0].outputs.values()]
    lengths = {shape[0] if shape else 0 for shape in shapes}
    if len(lengths) != 1 or lengths == {0}:
        return
    [length] = lengths
    fitting = [name for name, array in inputs.items() if array.ndim and len(array) == length and array.size]
    for count in range(len(fitting[:MOST_INPUTS]), 0, -1):
        yield from combinations(fitting[:MOST_INPUTS], count)


def _compare(found: Variant, backend: OnnxBackend, rows: Sequence[Arrays]) -> None:
    """As `examine`.

    Raises:
        ModelFailed: the model takes one number of rows only.
    """
    names, specs = tuple(backend.signature.outputs), backend.signature
    alone = [dict(zip(names, backend.run(names, row), strict=True)) for row in rows]
    found.rows, found.alone = (
        [{name: packed(array, known[name].datatype) for name, array in each.items()} for each in arrays]
        for known, arrays in ((specs.inputs, rows), (specs.outputs, alone))
    )
    for group in GROUPS:
        batch = {name: np.concatenate([rows[each][name] for each in group]) for name in rows[0]}
        for name, whole in zip(names, backend.run(names, batch), strict=True):
            _compare_output(found, specs.outputs[name], whole, [alone[each][name] for each in group])
            if found.verdict is Rows.MIXED:
                _look_again(found, backend, rows)
                return
    found.verdict = Rows.CLOSE if found.worst else Rows.EQUAL


def _look_again(found: Variant, backend: OnnxBackend, rows: Sequence[Arrays]) -> None:
    """What gives something else for the same row alone as well does not mix rows, or not only."""
    names, specs = tuple(backend.signature.outputs), backend.signature.outputs
    for row, before in zip(rows, found.alone, strict=True):
        again = zip(names, backend.run(names, row), strict=True)
        if any(packed(array, specs[name].datatype) != before[name] for name, array in again):
            found.verdict, found.reason = Rows.RANDOM, "the same row alone gives something else"


def _compare_output(
    found: Variant, spec: TensorSpec, whole: np.ndarray, singles: Sequence[np.ndarray]
) -> None:
    if any(single.shape[:1] != (1,) for single in singles) or whole.shape[:1] != (len(singles),):
        found.verdict, found.reason = Rows.MIXED, f"{spec.name} has not one entry a row"
        return
    for place, single in enumerate(singles):
        worst = apart(spec.datatype, whole, whole[place : place + 1], single)
        if not is_within(spec.datatype, worst):
            found.verdict, found.reason = Rows.MIXED, f"{spec.name} differs by {worst:.1e}"
            return
        found.worst = max(found.worst, worst)


def _rows(inputs: Arrays) -> list[dict[str, np.ndarray]]:
    """The rows of a case, and further ones that have the same values at other places.

    Copies, since a view lies where it lies in a batch, and some kernels add in another order elsewhere.
    """
    random = np.random.default_rng(0)
    length = min(len(array) for array in inputs.values())
    rows: list[dict[str, np.ndarray]] = []
    for place in range(ROWS):
        row = {name: array[place % length :][:1].copy() for name, array in inputs.items()}
        if place >= length:
            row = {name: random.permuted(array.ravel()).reshape(array.shape) for name, array in row.items()}
        rows.append(row)
    return rows
