"""Fits the server to a model: whether its requests run together, what runs cost, the most rows of a batch."""

from __future__ import annotations

from typing import Literal

from penstock.backends.backend import Backend
from penstock.config import BatchingConfig
from penstock.core.errors import ModelFailed
from penstock.models.analysis.facts import NOT_ANALYSED, GraphFacts
from penstock.models.checks.batching import BATCH_SIZES, agreed, alone, compare, why_alone
from penstock.models.checks.comparing import Comparison
from penstock.models.checks.cost import (
    LEAST_ROWS,
    SLOW_SECONDS,
    WORTH,
    WORTH_SECONDS,
    in_words,
    is_worth_batching,
    measure_cost,
    rows_worth_batching,
    unmeasured,
)
from penstock.models.checks.trying import Clock, free_memory, run_example
from penstock.models.model import Batching
from penstock.models.samples import Sample
from penstock.scheduling.cost import RunCost

HEAVY_SECONDS = 0.01  # such a run takes so long that it is not made again only to time it
COLD_SECONDS = 0.03
"""By how much longer a cold run may take, besides what the noise explains."""
NEAR = 1.15
"""By which factor single measurements may be wrong."""
DECIDE_SECONDS = 0.3
"""About how long runs may take that only measure whether batches save time."""
SEVERAL = 8
"""This many rows show what two do not: a model may take most of its time for any number of rows."""
DEARER = 1.25  # how much more a row of a larger batch may seem to cost: measurements vary by as much


def fit(  # noqa: PLR0913 - what is known of a model
    backend: Backend,
    enabled: bool | Literal["auto"],
    batching: BatchingConfig,
    sample: Sample,
    facts: GraphFacts = NOT_ANALYSED,
    asked: bool = False,
    clock: Clock | None = None,
) -> tuple[Batching, RunCost, int]:
    """Whether requests may run together, what runs cost, and the most rows of a batch.

    If the settings leave the rows open, they are chosen by the cost, as long as rows run together agree and
    each row costs no more than in smaller batches. A slow model is run a few times only, and is batched only
    if that saves time, unless the settings ask for it. Memory that only larger batches need is freed.

    Args:
        backend: the loaded model.
        enabled: what the settings say; "auto" leaves it to what is found here.
        batching: the other settings.
        sample: what is known of a request.
        facts: what the graph says about its rows.
        asked: whether other settings ask for batching, as `[padding]` does.
        clock: what runs are timed with; the wall's, if not given.
    """
    rows = batching.max_rows or min(LEAST_ROWS, max(batching.queue_rows, 2))
    reason = why_alone(backend.signature, enabled is not False, enabled is True, rows, sample, facts)
    try:
        example = run_example(backend, sample)
    except ModelFailed as error:  # more rows are not tried then
        reason = reason or f"the model fails on {sample.tried}: {sample.failure(error)}"
        return alone(reason, facts, batching.exact), unmeasured(), rows
    if reason is not None:
        return (
            alone(reason, facts, batching.exact),
            measure_cost(backend, False, rows, sample, clock=clock),
            rows,
        )
    comparison = Comparison(backend, sample, facts, example.manner, batching.tolerance, clock)
    asked = asked or enabled is True
    fitted = _Fitting(backend, asked, batching, sample, facts, comparison, clock).result(rows)
    free_memory(backend, example.inputs)
    return fitted


class _Fitting:
    """The fitting of one model that may be batched as far as its shapes and its graph say."""

    def __init__(  # noqa: PLR0913 - what is known of a model
        self,
        backend: Backend,
        asked: bool,
        batching: BatchingConfig,
        sample: Sample,
        facts: GraphFacts,
        comparison: Comparison,
        clock: Clock | None,
    ) -> None:
        self._clock = clock
        self._backend, self._asked, self._batching = backend, asked, batching
        self._sample, self._facts = sample, facts
        self._comparison = comparison
        self._left = DECIDE_SECONDS  # for measuring in turn

    def result(self, rows: int) -> tuple[Batching, RunCost, int]:
        """Compares two rows, which also shows how slow the model is, and then as much as that allows."""
        reason = self._comparison.size(2)
        if reason is not None:
            return self._alone(reason, rows)
        if self._is_slow() and self._comparison.lone_seconds < HEAVY_SECONDS:
            self._alternate(2)  # a busy machine makes a quick model seem slow
        return self._slow() if self._is_slow() else self._quick(rows)

    def _alone(self, reason: str, rows: int) -> tuple[Batching, RunCost, int]:
        verdict = alone(reason, self._facts, self._batching.exact)
        if self._is_slow():  # the runs that were compared tell what a run takes
            return verdict, RunCost(self._comparison.lone_seconds), rows
        return verdict, self._measured(False, rows), rows

    def _measured(self, batched: bool, rows: int) -> RunCost:
        return measure_cost(self._backend, batched, rows, self._sample, self._comparison.ways, self._clock)

    def _quick(self, rows: int) -> tuple[Batching, RunCost, int]:
        """As `result`: compares several sizes, and measures warm runs."""
        verdict = self._compared(rows)
        cost = self._measured(verdict.enabled, rows)
        if not verdict.enabled:
            return verdict, cost, rows
        best = self._best_rows(cost)
        if cost.expect(1) >= WORTH_SECONDS and not self._is_worth(cost):
            most = max(best, 2)
            self._alternate(most)
            if not self._is_worth(self._line(most)):
                return self._not_worth(cost)
        if best > rows and self._comparison.size(best) is None:
            larger = agreed(self._comparison, self._facts, self._batching.exact)
            measured = self._measured(True, best)
            if larger.enabled and measured.expect(best) / best <= DEARER * cost.expect(rows) / rows:
                return larger, measured, best
        return verdict, cost, min(best, rows)

    def _slow(self) -> tuple[Batching, RunCost, int]:
        """As `result`, with as few runs as possible."""
        self._measure(2)
        line = self._line(2)
        if not self._is_worth(line) and line.expect(1) < HEAVY_SECONDS:
            reason = self._comparison.size(SEVERAL)
            if reason is not None:
                return self._alone(reason, SEVERAL)
            self._measure(SEVERAL)
            line = self._line(SEVERAL)
        if not self._is_worth(line):
            return self._not_worth(line)
        rows = max(self._best_rows(line), 2)
        verdict = self._compared(rows)
        self._measure(rows)
        line = self._line(rows)
        if verdict.enabled and not self._is_worth(line):
            return self._larger(rows) or self._not_worth(line)
        return verdict, line, rows

    def _larger(self, rows: int) -> tuple[Batching, RunCost, int] | None:
        """As `result`, for more rows than the time of a batch allows, if these cost little; else None.

        Some models take most of a batch's time for any number of rows, which no line through few rows shows.
        As many requests that come at once have to be answered no later than one by one, by their median.
        """
        if self._batching.max_rows or self._line(rows).expect(1) >= HEAVY_SECONDS:
            return None
        for more in (SEVERAL, LEAST_ROWS):
            if more <= rows:
                continue
            if more > self._batching.queue_rows or self._comparison.size(more) is not None:
                return None
            self._alternate(more)
            one, together = self._comparison.line(more)
            if together <= more * one / 2:
                return self._compared(more), self._line(more), more
            if together > WORTH * more * one:
                return None
        return None

    def _measure(self, rows: int) -> None:
        """Measures one row and several in turn, unless that takes long and shows nothing new."""
        one, several = self._comparison.line(rows)
        # A cold run of a few rows may have taken longer by `COLD_SECONDS`.
        is_clear = several < WORTH * rows * one / NEAR or several > NEAR * rows * one + COLD_SECONDS
        if one + several <= self._left or not is_clear:
            self._alternate(rows)

    def _alternate(self, rows: int) -> None:
        def is_clear(one: float, several: float) -> bool:
            ratio = several / max(rows * one, 1e-9)
            return not WORTH / NEAR < ratio < WORTH * NEAR

        self._left -= self._comparison.alternate(rows, self._left, is_clear)

    def _compared(self, rows: int) -> Batching:
        """Compares batches of up to this many rows, and rows of other values."""
        sizes = [size for size in (*BATCH_SIZES, rows) if size not in self._comparison.sizes]
        if self._is_slow():
            sizes = [size for size in sizes if size == rows]
        return compare(self._comparison, sorted({*sizes}), self._sample, self._facts, self._batching.exact)

    def _is_slow(self) -> bool:
        """Whether runs of one row take long; a model that failed in all of them does not count as slow."""
        return bool(self._comparison.lone) and self._comparison.lone_seconds >= SLOW_SECONDS

    def _best_rows(self, cost: RunCost) -> int:
        """The most rows of a batch: as the settings say, or by what runs cost."""
        if self._batching.max_rows:
            return self._batching.max_rows
        queue_rows = self._batching.queue_rows
        best = rows_worth_batching(cost, self._backend.signature, queue_rows, self._sample)
        return min(best, max(queue_rows, 2))  # no batch has more rows than may wait

    def _is_worth(self, line: RunCost) -> bool:
        return self._asked or is_worth_batching(line, max(self._best_rows(line), 2))

    def _not_worth(self, line: RunCost) -> tuple[Batching, RunCost, int]:
        reason = f"rows together take as long as one by one: {in_words(line.expect(1))} a row"
        rows = max(self._best_rows(line), 2)
        return alone(reason, self._facts, self._batching.exact), RunCost(line.expect(1)), rows

    def _line(self, rows: int) -> RunCost:
        """What runs of one row and of this many cost; see `Comparison.line`."""
        alone, together = self._comparison.line(rows)
        return RunCost(alone, rows, together)
