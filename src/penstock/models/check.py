"""Finds out whether a model may be batched, and what its runs cost.

Batching must never change an answer. The graph has to declare the first axis open on all inputs and
outputs, but for scalar inputs, of which a batch has one value; then rows are run together and alone, and
the answers must agree. Where they do not, or where no made-up input makes the model run, it is served
unbatched. A model with a state is checked as `penstock.models.sequence.RowsFirst` shows it: its made-up
states are rows like others.

The rows are made up, and so is what they show. A model whose rows mix only for values that were not tried,
only in batches of sizes that were not tried, or by less than the tolerance, passes; so does one whose
outputs are the same, or no numbers, for every made-up row. `batching.enabled = false` is for such a model,
`[sample]` for one that takes nothing made up, or runs otherwise on it than on what requests hold.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from penstock.backends.backend import Backend
from penstock.bits import BY_BITS, FORMATS, widened
from penstock.errors import ModelFailed
from penstock.models.model import Batching
from penstock.models.samples import UNKNOWN, Sample, samples
from penstock.scheduling.cost import RunCost
from penstock.tensors import Array, DataType, Kind, Signature, TensorSpec

TOLERANCES = {DataType.FP64: 1e-10, DataType.FP32: 1e-4, DataType.FP16: 1e-2, DataType.BF16: 5e-2} | {
    datatype: 2.0**-form.mantissa for datatype, form in FORMATS.items()
}
"""How far rows run together may be from rows run alone, relative to the largest values there are: sums
taken in another order differ in the last bits, mixed rows differ in the first."""

LEAST_SCALE = 0.01
"""A value is held against the largest of its place in all rows, so that large values in one place hide
nothing in another; but not against less than this share of the largest of all, since a small difference of
large numbers is rounded as they are."""

BATCH_SIZES = (2, 3, 8)
"""The rows run together, besides as many as a batch may have."""

ROWS_COMPARED = 64
"""Of a larger batch only so many, evenly spread, are run alone: that takes a run each."""

TIMED_RUNS = 5
LONG_SECONDS = 1.0

LEAST_ROWS, MOST_ROWS = 32, 256
QUICK_SECONDS = 0.0005  # half of what the polling thread takes on, since costs drift
LONGER_SECONDS = 0.008
"""What a batch may take where the settings do not say how many rows it may have."""
BATCH_BYTES = 1 << 22
QUEUED_BATCHES = 4


def check_batching(
    backend: Backend, wanted: bool, forced: bool, max_rows: int, sample: Sample = UNKNOWN
) -> Batching:
    """Decides whether requests may run together.

    Args:
        backend: the loaded model.
        wanted: whether the settings allow it.
        forced: take the first axes for one even where the graph calls them by different names; the
            answers must agree all the same.
        max_rows: the most rows of a batch.
        sample: what is known of a request.
    """
    if not wanted:
        return Batching(False, "switched off in model.toml")
    if max_rows < 2:
        return Batching(False, "max_rows is 1")
    reason = _why_not_by_shape(backend.signature, forced) or _why_not_by_sample(backend.signature, sample)
    if reason is not None:
        return Batching(False, reason)
    return _compare(backend, max_rows, sample)


def measure_cost(backend: Backend, batched: bool, max_rows: int, sample: Sample = UNKNOWN) -> RunCost:
    """Runs the model, on one row and where it is batched on many, until it is warm and timed."""
    one = _median_seconds(backend, 1 if batched else None, sample)
    if one is None:
        return RunCost(1.0, measured=False)  # nobody knows: not for the polling thread until a run has shown
    many = _median_seconds(backend, max_rows, sample) if batched else None
    return RunCost(one) if many is None else RunCost(one, max_rows, many)


def rows_worth_batching(
    cost: RunCost, signature: Signature, queue_rows: int, sample: Sample = UNKNOWN
) -> int:
    """The most rows of a batch, where the settings leave it open: a power of two, 32 to 256.

    Larger batches share what a run, a message and a turn cost among more rows, and make those who came
    first wait longer. So a quick model's batches stay quick enough for the polling thread, those of others
    short beside what a network takes, and a slow model's small. Beyond 32 rows a batch is no larger than
    `BATCH_BYTES`, and several find room in the queue.

    Args:
        cost: what a run is expected to take.
        signature: the model's; open axes count as 1 where nothing is known of them.
        queue_rows: how many rows may wait.
        sample: what is known of a request.
    """
    inputs = [replace(spec, shape=sample.shape(spec)) for spec in signature.inputs.values()]
    row_bytes = sum(_row_bytes(spec) for spec in (*inputs, *signature.outputs.values()))
    most = min(MOST_ROWS, queue_rows // QUEUED_BATCHES, BATCH_BYTES // max(row_bytes, 1))
    for seconds in (QUICK_SECONDS, LONGER_SECONDS):
        if cost.expect(LEAST_ROWS) <= seconds:
            rows = LEAST_ROWS
            while 2 * rows <= most and cost.expect(2 * rows) <= seconds:
                rows *= 2
            return rows
    return LEAST_ROWS


def _row_bytes(spec: TensorSpec) -> int:
    axes = [axis for axis in (spec.shape or ())[1:] if isinstance(axis, int)]
    return math.prod(axes) * spec.datatype.dtype.itemsize


def _why_not_by_shape(signature: Signature, forced: bool) -> str | None:
    """Why the declared shapes rule batching out; None where they do not."""
    tensors = [("input", spec) for spec in signature.inputs.values()]
    tensors += [("output", spec) for spec in signature.outputs.values()]
    if not signature.inputs:
        return "it has no inputs"
    for role, spec in tensors:
        reason = _why_no_rows(role, spec)
        if reason is not None:
            return reason
    if not any(spec.shape for spec in signature.inputs.values()):
        return "all its inputs are scalars"
    names = {spec.name: str(spec.shape[0]) for _, spec in tensors if spec.shape}
    if len(set(names.values())) > 1 and not forced:
        listed = ", ".join(f"{tensor} {axis}" for tensor, axis in names.items())
        return f"the first axes have different names ({listed}); batching.enabled = true overrides this"
    return None


def _why_no_rows(role: str, spec: TensorSpec) -> str | None:
    """Why a tensor has not any number of rows, nor one value for all of them; None where it has."""
    if spec.shape is None:
        return f"{role} {spec.name} declares no shape"
    if not spec.shape:
        return f"output {spec.name} is a scalar" if role == "output" else None
    if isinstance(spec.shape[0], int):
        return f"the first axis of {role} {spec.name} is fixed at {spec.shape[0]}"
    return None


def _why_not_by_sample(signature: Signature, sample: Sample) -> str | None:
    """Why made-up rows would show nothing: those that are all alike agree whatever becomes of them."""
    if all(name in sample.values for name, spec in signature.inputs.items() if spec.shape):
        return "sample.values makes all rows alike, which shows nothing of how they run together"
    return None


def _compare(backend: Backend, max_rows: int, sample: Sample) -> Batching:
    """Runs rows together and alone, in batches of several sizes."""
    worst = 0.0
    for rows in sorted({*BATCH_SIZES, max_rows}):
        inputs, together = _first_that_runs(backend, rows, sample)
        if inputs is None or together is None:
            error = _last_error(backend, rows, sample)
            return Batching(False, f"no made-up input of {rows} rows makes it run: {error}")
        try:
            difference = _difference(backend, inputs, together, rows)
        except ModelFailed as error:
            return Batching(False, f"rows that run together fail alone: {error}")
        if isinstance(difference, str):
            return Batching(False, difference)
        worst = max(worst, difference)
    if worst == 0.0:
        return Batching(True, "rows run together and alone agree bit for bit")
    return Batching(True, f"rows run together and alone agree within {worst:.1e}", worst)


def _difference(
    backend: Backend, inputs: Mapping[str, Array], together: Sequence[Array], rows: int
) -> float | str:
    """By how much the rows of a batch differ from the same rows alone; words where by too much."""
    names = tuple(backend.signature.outputs)
    for name, whole in zip(names, together, strict=True):
        if whole.shape[:1] != (rows,):
            return f"output {name} has shape {list(whole.shape)} for {rows} rows"
    worst = 0.0
    for row in np.unique(np.linspace(0, rows - 1, min(rows, ROWS_COMPARED)).astype(int)):
        # Copies: as views of the batch they would lie where the batch has them, and some sums are rounded
        # differently by where their input begins.
        alone = backend.run(
            names,
            {name: array[row : row + 1].copy() if array.ndim else array for name, array in inputs.items()},
        )
        for name, whole, single in zip(names, together, alone, strict=True):
            apart = _apart(backend.signature.outputs[name], whole, single, row)
            if isinstance(apart, str):
                return apart
            worst = max(worst, apart)
    return worst


def _apart(spec: TensorSpec, whole: Array, single: Array, row: int) -> float | str:
    """By how much one row of an output differs from the same row alone; words where by too much."""
    if single.shape[:1] != (1,):
        return f"output {spec.name} has shape {list(single.shape)} for one row"
    if whole.shape[1:] != single.shape[1:]:
        return f"the shape of output {spec.name} depends on the other rows"
    apart = distance(spec.datatype, whole, single[0], row)
    if apart > TOLERANCES.get(spec.datatype, 0.0):
        return f"output {spec.name} depends on the other rows of a batch (it differs by {apart:.1e})"
    return apart


def distance(datatype: DataType, whole: Array, single: Array, row: int) -> float:
    """The largest difference relative to the scale of its place; infinite between unequal non-numbers."""
    if np.array_equal(whole[row], single):
        return 0.0
    if datatype.kind not in (Kind.FLOAT, Kind.DOUBLE):
        return float("inf")
    first, second = (_as_float64(datatype, each) for each in (whole[row], single))
    finite = np.isfinite(first)
    if not np.array_equal(finite, np.isfinite(second)):
        return float("inf")
    if not np.array_equal(first[~finite], second[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    return float((np.abs(first - second)[finite] / _scales(datatype, whole)[finite]).max())


def _scales(datatype: DataType, whole: Array) -> Array:
    """How large the values of an output are, for each place of a row."""
    values = _as_float64(datatype, whole)
    sizes = np.abs(np.where(np.isfinite(values), values, 0.0))
    least = max(LEAST_SCALE * float(sizes.max()), float(np.finfo(np.float32).tiny))
    scales: Array = np.atleast_1d(np.maximum(sizes.max(axis=0), least))
    return scales


def _as_float64(datatype: DataType, array: Array) -> Array:
    if datatype in BY_BITS:
        array = widened(datatype, array)
    return np.atleast_1d(array.astype(np.float64))


def _first_that_runs(
    backend: Backend, rows: int | None, sample: Sample
) -> tuple[dict[str, Array] | None, Sequence[Array] | None]:
    names = tuple(backend.signature.outputs)
    # Other values for every size of batch: some mix only where they differ enough.
    for inputs in samples(backend.signature, rows, rows or 1, sample):
        try:
            return inputs, backend.run(names, inputs)
        except ModelFailed:
            continue
    return None, None


def _last_error(backend: Backend, rows: int, sample: Sample) -> str:
    error: ModelFailed | None = None
    for inputs in samples(backend.signature, rows, rows, sample):
        try:
            backend.run(tuple(backend.signature.outputs), inputs)
        except ModelFailed as failure:
            error = failure
    return str(error)


def runs_on_made_up_input(backend: Backend, sample: Sample = UNKNOWN) -> bool:
    """Whether the model runs on any of the inputs made up for one request."""
    return _first_that_runs(backend, None, sample)[0] is not None


def _median_seconds(backend: Backend, rows: int | None, sample: Sample) -> float | None:
    """The median time of a warm run; None where no made-up input makes the model run."""
    started = time.monotonic()
    inputs, _ = _first_that_runs(backend, rows, sample)
    if inputs is None:
        return None
    if (
        first := time.monotonic() - started
    ) > LONG_SECONDS:  # what it takes to get warm is little beside that
        return first
    names = tuple(backend.signature.outputs)
    seconds = []
    for _ in range(TIMED_RUNS):
        started = time.monotonic()
        backend.run(names, inputs)
        seconds.append(time.monotonic() - started)
        if sum(seconds) > LONG_SECONDS:  # a slow model is timed well enough by fewer
            break
    return sorted(seconds)[len(seconds) // 2]
