"""Compares rows that run together with the same rows run alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from penstock.backends.backend import Backend
from penstock.core.errors import ModelFailed
from penstock.core.names import many
from penstock.core.tensors import Array, Kind, TensorSpec
from penstock.models.analysis.facts import GraphFacts, Verdict
from penstock.models.checks.closeness import TOLERANCES, accepted, distance
from penstock.models.checks.trying import Clock, Tried, try_in_turn
from penstock.models.fills import WHOLE, Recording, Wide
from penstock.models.samples import Manner, Sample, manners

ROWS_COMPARED = 64
"""The most rows of a batch that are also run alone, evenly spread: each takes a run."""

WIDE_ROWS = 8
HIGHEST = (10, 100, 1000)
"""Below these, whole numbers are tried where the graph does not say how large they may be."""

LENGTH_ROWS = 3
SECOND_LENGTHS: Mapping[int, Sequence[int]] = {4: (16, 1), 1: (16, 64), 16: (64,), 64: (128,), 224: (128,)}
"""Which lengths are tried as a second one of open axes, by the first one that ran."""
SLOWER = 8.0
"""Other values are not tried further if a run of them takes as many times as long as an ordinary one: whole
numbers may be counts of what the model does."""

CHECK_SECONDS = 0.1
"""About how long the runs of a check may take beyond those that are always made."""

LEAST_ROUNDS, MOST_ROUNDS = 4, 12
"""How often one row and several are measured in turn, as far as the time allows."""

BLIND = "all made-up rows gave the same outputs, so the check could not see whether rows mix"
BLIND_BY_FILE = "all rows of {} gave the same outputs, so the check could not see whether rows mix"
RANDOM = "it draws random numbers: the same row gives different answers"


class Comparison:
    """Compares rows run together and alone, for one model, as often as it is asked to.

    Args:
        backend: the model.
        sample: what is known of a request.
        facts: what its graph says.
        first: how the inputs were made up of which one row ran.
        tolerance: the largest accepted difference that the settings give; 0 for the usual one.
        clock: what runs are timed with; the wall's, if not given.

    Attributes:
        tolerance: as given.
        ways: how inputs are made up, that which ran first.
        worst: the largest difference so far.
        is_random: whether the same rows gave different answers.
        seen: the outputs that differed from row to row, so that mixing would have shown.
        sizes: the rows of the batches that agreed.
        lengths: how many lengths of the open axes agreed.
        lone: how long runs of one row took, in seconds.
        together: how long runs of several rows took at least, in seconds, by the rows.
    """

    def __init__(  # noqa: PLR0913 - what is known of a model
        self,
        backend: Backend,
        sample: Sample,
        facts: GraphFacts,
        first: Manner | None = None,
        tolerance: float = 0.0,
        clock: Clock | None = None,
    ) -> None:
        self.tolerance, self._clock = tolerance, clock
        self._backend, self._sample, self._facts = backend, sample, facts
        self._names = tuple(backend.signature.outputs)
        self.ways = list(manners(backend.signature, sample))
        if first is not None and not sample.requests:
            # Lengths at which one row failed come last: several may end the process.
            self.ways.sort(key=lambda way: way.size < first.size)
            if first in self.ways:
                self._try_first(first)
        self._shown: Tried | None = None
        self.worst = 0.0
        self.is_random = False
        self.seen: set[str] = set()
        self.sizes: set[int] = set()
        self.lengths = 1
        self.lone: list[float] = []
        self.together: dict[int, float] = {}
        self._rounds: dict[int, list[tuple[float, float]]] = {}  # see `alternate`
        self._run_rows = 0  # together or alone

    @property
    def is_row_wise(self) -> bool:
        """Whether the graph shows that rows do not mix."""
        return self._facts.verdict is Verdict.ROW_WISE

    @property
    def lone_seconds(self) -> float:
        """How long a run of one row takes at least."""
        return min(self.lone)

    def size(self, rows: int) -> str | None:
        """Compares a batch of this many rows.

        Returns:
            Why the model cannot be batched; None if the rows agree.
        """
        try:
            # Other values for every batch size: some models mix rows only if these differ enough.
            tried = try_in_turn(self._backend, rows, rows, self.ways, self._sample, self._clock)
        except ModelFailed as error:
            return f"the model fails on {self._sample.tried} of {rows} rows: {self._sample.failure(error)}"
        self._try_first(tried.manner)  # what ran once is tried first from now on
        self._note(rows, tried.seconds)
        reason = self._compare(tried, rows)
        if reason is None:
            self.sizes.add(rows)
            self._shown = self._shown or tried
        return reason

    def alternate(
        self, rows: int, seconds: float, is_clear: Callable[[float, float], bool] = lambda one, several: False
    ) -> float:
        """Measures one row alone and several together in turn, now that the model is warm.

        Both are measured equally often and at nearly the same time, so that neither has the better chances.

        Args:
            rows: how many run together.
            seconds: about how long this may take. There is at least one round.
            is_clear: whether the times of one row and of several need not be measured again.

        Returns:
            How long it took.
        """
        if self._shown is None:
            return 0.0
        several = {name: _repeated(array, rows) for name, array in self._shown.inputs.items()}
        one = _row(several, 0)
        spent = 0.0
        rounds = self._rounds.setdefault(rows, [])
        for number in range(1, MOST_ROUNDS + 1):
            try:
                alone, together = self._timed(one), self._timed(several)
            except ModelFailed:
                break
            self._note(1, alone)
            self._note(rows, together)
            rounds.append((alone, together))
            spent += alone + together
            if spent + spent / number > seconds:
                break
            if len(rounds) >= LEAST_ROUNDS and is_clear(*self.line(rows)):
                break
        return spent

    def line(self, rows: int) -> tuple[float, float]:
        """How long one row takes, and as many together: the fastest runs.

        They are taken from those that were measured in turn, if that was often enough. Noise only makes runs
        longer, so the fastest of as many runs compare better than their medians.
        """
        rounds = self._rounds.get(rows, ())
        if len(rounds) < LEAST_ROUNDS:
            return self.lone_seconds, self.together[rows]
        return min(alone for alone, _ in rounds), min(together for _, together in rounds)

    def _timed(self, inputs: Mapping[str, Array]) -> float:
        now = self._clock or time.monotonic
        started = now()
        self._backend.run(self._names, inputs)
        return now() - started

    def other_values(self) -> str | None:
        """Compares rows of other values and lengths than usual, as far as the model takes them.

        Of a model whose rows may mix, values that differ much are tried; the rows of every model are tried
        with a second length.
        """
        reason = None
        if not self.is_row_wise and self._may_run(2 * WIDE_ROWS):
            reason = self._wide(self.ways[0].size, WIDE_ROWS)
        if reason is None and self._may_run(2 * LENGTH_ROWS):
            reason = self._other_length()
        return reason

    def look_harder(self) -> str | None:
        """Tries further values and lengths, until the outputs differ from row to row."""
        inputs = self._backend.signature.inputs.values()
        has_counts = any(spec.shape == () and spec.datatype.kind in WHOLE for spec in inputs)
        for way in () if has_counts else self.ways:
            if isinstance(way.fill, Recording) and self._may_run(2 * WIDE_ROWS):
                reason = self._compare_way(way, WIDE_ROWS)
                if reason is not None or self.seen:
                    return reason
        first = self.ways[0].size
        for size in dict.fromkeys([first, *(way.size for way in self.ways)]):
            for signed in (False, True):
                rows = WIDE_ROWS if self._may_run(2 * WIDE_ROWS) else 2
                reason = self._wide(size, rows, signed)
                if reason is not None or self.seen or not self._may_run(2):
                    return reason
        return None

    def is_blind(self) -> bool:
        """Whether no output differed from row to row, so that nothing was shown."""
        outputs = self._backend.signature.outputs.values()
        return not self.seen and any(0 not in (spec.shape or ()) for spec in outputs)

    def said(self) -> str:
        """How well rows run together and alone agree, in words."""
        if not self.worst:
            return "agree bit for bit"
        more = f", which batching.tolerance = {self.tolerance:g} accepts" if self.worst > self._usual else ""
        return f"agree within {self.worst:.1e}{more}"

    @property
    def _usual(self) -> float:
        """The largest difference that is accepted without a setting."""
        outputs = self._backend.signature.outputs.values()
        return max((TOLERANCES.get(spec.datatype, 0.0) for spec in outputs), default=0.0)

    def described(self) -> str:
        """What was compared, in words."""
        sizes = ", ".join(map(str, sorted(self.sizes)))
        lengths = f" and {self.lengths} lengths" if self.lengths > 1 else ""
        unseen = [name for name in self._names if name not in self.seen]
        equal = f"; the rows never differed in {', '.join(unseen)}" if unseen else ""
        return f"compared in batches of {sizes} rows{lengths}{equal}"

    def _compare_way(self, way: Manner, rows: int) -> str | None:
        """Compares rows made up in another manner, if the model takes them."""
        try:
            tried = try_in_turn(self._backend, rows, rows, [way], self._sample, self._clock)
        except ModelFailed:
            return None
        self._run_rows += rows
        return self._compare(tried, rows)

    def _try_first(self, manner: Manner) -> None:
        # Requests hold arrays, which cannot be compared with `==`.
        key = (manner.fill, manner.size, id(manner.requests))
        others = [way for way in self.ways if (way.fill, way.size, id(way.requests)) != key]
        self.ways = [manner, *others]

    def _may_run(self, rows: int) -> bool:
        """Whether the time of the check allows for runs of as many more rows, together or alone."""
        return rows <= self._rows_left()

    def _rows_left(self) -> float:
        if not self.lone:
            return math.inf
        return CHECK_SECONDS / max(self.lone_seconds, 1e-9) - self._run_rows

    def _note(self, rows: int, seconds: float) -> None:
        self._run_rows += rows
        if rows == 1:
            self.lone.append(seconds)
        else:
            self.together[rows] = min(seconds, self.together.get(rows, math.inf))

    def _wide(self, size: int, rows: int, signed: bool = False) -> str | None:
        """Compares rows of values that differ much, as large as the model takes them."""
        if self.ways[0].requests:  # beside real requests nothing is made up
            return None
        found: Tried | None = None
        longest = max(self.lone_seconds * rows, 1e-3) * SLOWER
        usual = self.ways[0].fill
        has_lengths = any(each.has_open_inner_axis() for each in self._backend.signature.inputs.values())
        for high in self._highest():
            manner = Manner(Wide(usual, has_lengths, high, self._facts.index_bounds, signed), size)
            try:
                tried = try_in_turn(self._backend, rows, high, [manner], self._sample, self._clock)
            except ModelFailed:
                break
            found = tried
            self._run_rows += rows
            if tried.seconds > longest:
                break
        return None if found is None else self._compare(found, rows)

    def _highest(self) -> Sequence[int]:
        whole = [
            name
            for name, spec in self._backend.signature.inputs.items()
            if spec.shape and spec.datatype.kind in WHOLE and name not in self._sample.values
        ]
        return HIGHEST if any(name not in self._facts.index_bounds for name in whole) else HIGHEST[:1]

    def _other_length(self) -> str | None:
        """Compares rows of a second length of the open axes, a longer one where the model takes it."""
        first, *others = self.ways
        if first.requests:
            ways = others  # further shapes of the file
        elif len({way.size for way in self.ways}) == 1:
            return None
        else:
            ways = [first._replace(size=size) for size in SECOND_LENGTHS.get(first.size, ())]
        for way in ways[:2]:
            try:
                tried = try_in_turn(self._backend, LENGTH_ROWS, LENGTH_ROWS, [way], self._sample, self._clock)
            except ModelFailed:
                continue
            reason = self._compare(tried, LENGTH_ROWS)
            if reason is None:
                self.lengths += 1
            return reason
        return None

    def _compare(self, tried: Tried, rows: int) -> str | None:
        """Compares rows of a batch with the same rows alone; why they do not agree, or None."""
        specs, now = self._backend.signature.outputs, self._clock or time.monotonic
        for name, whole in zip(self._names, tried.outputs, strict=True):
            if whole.shape[:1] != (rows,):
                return f"output {name} has shape {list(whole.shape)} for {many(rows, 'row')}"
        for row in self._chosen(rows):
            # Copies, not views of the batch: some sums are rounded differently depending on where in memory
            # their input begins.
            started = now()
            try:
                alone = self._backend.run(self._names, _row(tried.inputs, row))
            except ModelFailed as error:
                return f"rows that run together fail alone: {self._sample.failure(error)}"
            self._note(1, now() - started)
            for name, whole, single in zip(self._names, tried.outputs, alone, strict=True):
                reason = self._row_reason(specs[name], whole, single, row)
                if reason is not None and not self.is_random and self._draws(tried):
                    if not self.is_row_wise:
                        return RANDOM
                    self.is_random, reason = True, None
                if reason is not None:
                    return reason
        self.seen.update(
            name for name, whole in zip(self._names, tried.outputs, strict=True) if _differs(whole)
        )
        return None

    def _chosen(self, rows: int) -> Sequence[int]:
        """The rows of a batch that are also run alone: the first, the last, and others between them."""
        most = min(rows, ROWS_COMPARED)
        if not self._may_run(most):
            most = max(2, int(self._rows_left()))
        return [int(row) for row in np.unique(np.linspace(0, rows - 1, most).astype(int))]

    def _row_reason(self, spec: TensorSpec, whole: Array, single: Array, row: int) -> str | None:
        """Why one row of an output does not agree with the same row alone; None if it does."""
        if single.shape[:1] != (1,):
            return f"output {spec.name} has shape {list(single.shape)} for one row"
        if whole.shape[1:] != single.shape[1:]:
            return f"the shape of output {spec.name} depends on the other rows"
        if self.is_random:
            return None
        difference = distance(spec.datatype, whole, single[0], row)
        allowed = accepted(spec.datatype, self.tolerance)
        if difference > allowed and self._facts.verdict is Verdict.ROW_WISE:
            words = f"differs in a batch by {difference:.1e}, more than {allowed:.0e}"
            if spec.datatype.kind in (Kind.FLOAT, Kind.DOUBLE) and np.isfinite(difference):
                words += "; if such rounding does no harm, batching.tolerance accepts more"
            return f"although the graph is row-wise, output {spec.name} {words}"
        if difference > allowed:
            return f"output {spec.name} depends on the other rows of a batch (it differs by {difference:.1e})"
        self.worst = max(self.worst, difference)
        return None

    def _draws(self, tried: Tried) -> bool:
        """Whether the same rows run again give something else."""
        try:
            again = self._backend.run(self._names, tried.inputs)
        except ModelFailed:
            return False
        return any(
            first.shape != second.shape or first.tobytes() != second.tobytes()
            if first.dtype != object
            else not np.array_equal(first, second)
            for first, second in zip(tried.outputs, again, strict=True)
        )


def _row(inputs: Mapping[str, Array], row: int) -> dict[str, Array]:
    return {name: array[row : row + 1].copy() if array.ndim else array for name, array in inputs.items()}


def _repeated(array: Array, rows: int) -> Array:
    """As many rows, the same ones again if there are fewer."""
    return array.take(np.arange(rows) % len(array), axis=0) if array.ndim else array


def _differs(whole: Array) -> bool:
    """Whether any row of an output differs from its first."""
    if whole.dtype.kind in "fc":
        return not np.array_equal(whole, np.broadcast_to(whole[:1], whole.shape), equal_nan=True)
    return not np.array_equal(whole, np.broadcast_to(whole[:1], whole.shape))
