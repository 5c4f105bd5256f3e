"""Measures what runs of a model cost, and how many rows are worth a batch."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from penstock.backends.backend import Backend
from penstock.core.errors import ModelFailed
from penstock.core.tensors import Signature, TensorSpec
from penstock.models.checks.trying import Clock, try_in_turn
from penstock.models.samples import UNKNOWN, Manner, Sample, manners
from penstock.scheduling.cost import RunCost

TIMED_RUNS = 9
LONG_SECONDS = 0.25

SLOW_SECONDS = 0.001
"""From this run time of one row on, a model is checked with as few runs as possible."""
WORTH_SECONDS = 0.0005
"""From this run time of one row on, a model is batched only if its runs then take less time. Quicker runs
take less time than the work around them, which batches save as well."""
WORTH = 0.9
"""Rows run together have to take at most this share of the time that they take one by one."""
SLOW_FACTOR = 2.0
"""How many times longer than one row a batch of a slow model may take: its rows wait for each other."""

LEAST_ROWS, MOST_ROWS = 32, 256
QUICK_SECONDS = 0.0005  # half of the limit for runs on the polling thread, since costs vary
LONGER_SECONDS = 0.008
"""How long a batch may take, if the settings leave the number of its rows open."""
BATCH_BYTES = 1 << 22
QUEUED_BATCHES = 4


def measure_cost(  # noqa: PLR0913 - what is known of a model
    backend: Backend,
    batched: bool,
    max_rows: int,
    sample: Sample = UNKNOWN,
    ways: Sequence[Manner] | None = None,
    clock: Clock | None = None,
) -> RunCost:
    """Runs the model on one row, and on many if it is batched, and measures the time of warm runs.

    Args:
        backend: the loaded model.
        batched: whether it is batched.
        max_rows: the most rows of a batch.
        sample: what is known of a request.
        ways: how inputs are made up; as usual, if not given.
        clock: what runs are timed with; the wall's, if not given.
    """
    ways = ways or manners(backend.signature, sample, alone=not batched)
    one = _shortest(backend, 1 if batched else None, sample, ways, clock)
    if one is None:
        return unmeasured()
    many = _shortest(backend, max_rows, sample, ways, clock) if batched else None
    cost = RunCost(one.seconds) if many is None else RunCost(one.seconds, max_rows, many.seconds)
    cost.note_outputs(1, one.output_bytes)
    return cost


def unmeasured() -> RunCost:
    """The cost of a model that fails: it is not for the polling thread until a run was timed."""
    return RunCost(1.0, measured=False)


def rows_worth_batching(
    cost: RunCost, signature: Signature, queue_rows: int, sample: Sample = UNKNOWN
) -> int:
    """The most rows of a batch, if the settings leave it open: a power of two, at most 256.

    In a larger batch, more rows share the fixed costs of a run and of messages, but its first rows wait
    longer. So batches of a quick model are small enough for the polling thread, and those of other models
    take little time compared with a network. Batches of a slow model take about twice as long as one row. A
    batch of more than 32 rows has at most `BATCH_BYTES`, and several fit into the queue.

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
    rows, longest = LEAST_ROWS, max(LONGER_SECONDS, SLOW_FACTOR * cost.expect(1))
    while rows > 1 and cost.expect(rows) > longest:
        rows //= 2
    return rows


def is_worth_batching(cost: RunCost, rows: int) -> bool:
    """Whether rows run together take clearly less time than one by one."""
    return cost.expect(rows) <= WORTH * rows * cost.expect(1)


def in_words(seconds: float) -> str:
    """A time for people, such as "61 ms"."""
    return f"{seconds * 1e3:.2g} ms" if seconds < 0.0995 else f"{seconds * 1e3:.0f} ms"


def _row_bytes(spec: TensorSpec) -> int:
    axes = [axis for axis in (spec.shape or ())[1:] if isinstance(axis, int)]
    return math.prod(axes) * spec.datatype.dtype.itemsize


class _Measured(NamedTuple):
    """How long a run took, and how large its outputs were."""

    seconds: float
    output_bytes: int


def _shortest(
    backend: Backend, rows: int | None, sample: Sample, ways: Sequence[Manner], clock: Clock | None
) -> _Measured | None:
    """A warm run; None if the model fails on every generated input.

    It is the shortest of several: a busy machine makes some runs longer, and what is found is kept for later
    starts, when the machine may have nothing else to do.
    """
    now = clock or time.monotonic
    started = now()
    try:
        tried = try_in_turn(backend, rows, rows or 1, ways, sample)
    except ModelFailed:
        return None
    output_bytes = sum(output.nbytes for output in tried.outputs)
    if (first := now() - started) > LONG_SECONDS:  # the time of warming up is small beside that
        return _Measured(first, output_bytes)
    names = tuple(backend.signature.outputs)
    seconds = []
    for _ in range(TIMED_RUNS):
        started = now()
        backend.run(names, tried.inputs)
        seconds.append(now() - started)
        if sum(seconds) > LONG_SECONDS:  # fewer runs are enough for a slow model
            break
    return _Measured(min(seconds), output_bytes)
