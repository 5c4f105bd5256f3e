"""Estimates how long a run of a model takes: a line over the rows for each size of shapes.

The line begins with what was measured when the model was loaded, and follows the runs since.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from threading import Lock

from penstock.core.memory import new_memory_seconds
from penstock.core.tensors import Array

ROUNDING = 1e-9  # of a row, by which a division may come out too small

MOST_OFF = 0.25  # a run that took more than 25 % longer than expected counts as one that took 25 % longer
LEAST_OFF = -0.2  # the same downwards: 1 / 1.25 - 1
FIRST_RUNS = 16
FIRST_MOST_OFF, FIRST_LEAST_OFF = 1.0, -0.5
"""The measurement at load, on an idle server, may be far from what runs take under load. So the first runs
move the line as their mean would, each by up to double or half."""
LEVEL_STEP = 1 / 8
SLOPE_STEP = 1 / 8
SPREAD_STEP = 0.02
SPREAD_SHARE = 0.95
MOST_SPREAD = 2.0

HANDLING_SECONDS = 0.0002
BASE_SHARE = 0.1
"""A run is efficient if its base, and what it takes to begin and end a run, are at most this share of it. At
twice its best rate, a model of 4 ms and 1 ms a row answered 1.44 times that rate in simulated time
(`tests/scheduling/test_overload.py`); with a fifth in place of a tenth, 1.28 times."""

QUICK_SECONDS = 0.001
"""Of runs that take less than this, which are frequent, only every fourth moves the line after the first
`SETTLED_RUNS`."""
SETTLED_RUNS = 64
NOTED_SECONDS = 0.0005  # the outputs of runs that take less are not so large that their memory matters

MOST_OUTPUT_BYTES = 32 * 2**20
"""A batch of several requests has no more outputs than this, as far as is known before: larger ones gain
nothing by running together, and what a run took for its outputs the backend may keep for the next one."""
OF_LATE = 64
"""How large outputs are is the largest of the last 64 to 128 runs: their size may depend on what a caller
asks for, and one large answer should not make the requests of all others run alone from then on."""
WATCHED_ROWS = 1024
"""If fewer rows have outputs of `MOST_OUTPUT_BYTES`, those of quick runs are noted as well."""

REMEMBERED = 4096
"""The most shapes that are known to have run, in two generations; see `RunCosts`."""


class RunCost:
    """Estimates that a run takes `(base + rows * per_row) * level` seconds.

    Every run moves the line by a part of its relative error (a normalised least mean squares step): the level
    always, and the slope around the usual number of rows if the run had more or fewer rows than usual. If the
    number of rows hardly varies, the slope stays as it was measured. A run that the machine held up counts at
    most as one that was off by `MOST_OFF`. The first runs count for more: see `FIRST_RUNS`.

    Args:
        one_row_seconds: how long a measured run of one row took.
        many_rows: the rows of a second measured run; 1 if there was no second run.
        many_rows_seconds: how long the second run took.
        measured: whether these are measurements. If not, they are a guess until the first run.

    Attributes:
        is_known: whether any run has been measured. No request is refused because of a guess.
        runs: how many runs the line has learned from; those measured at load do not count.
        most_rows: the most rows of a run that the line has learned from.
        row_bytes: the bytes of the outputs of one row: the most in the last runs.
        rows_in_memory: how many rows have outputs of `MOST_OUTPUT_BYTES`, at least 1; far more than there
            ever are as long as none were noted.
        spread: how many times longer than expected one run in twenty takes; at most `MOST_SPREAD`.
    """

    __slots__ = (
        "_base", "_before", "_level", "_noted", "_noted_seconds", "_of_late", "_per_row", "_row_memory",
        "_usual_rows", "is_known", "most_rows", "row_bytes", "rows_in_memory", "runs", "spread",
    )  # fmt: skip

    def __init__(
        self,
        one_row_seconds: float,
        many_rows: int = 1,
        many_rows_seconds: float = 0.0,
        *,
        measured: bool = True,
    ) -> None:
        self.is_known = measured
        self.runs = self.most_rows = 0
        self.spread = 1.0
        more = many_rows - 1
        self._per_row = max(many_rows_seconds - one_row_seconds, 0.0) / more if more else 0.0
        self._base = max(one_row_seconds - self._per_row, 0.0)
        self._level = 1.0
        self._usual_rows = 0.0
        self.row_bytes = self._row_memory = 0.0
        self.rows_in_memory = sys.maxsize
        self._of_late = self._before = 0.0  # the most bytes of a row in the last runs, and in those before
        self._noted, self._noted_seconds = 0, NOTED_SECONDS

    @property
    def base_seconds(self) -> float:
        """The part of a run's duration that does not depend on its rows."""
        return self._base * self._level

    @property
    def row_seconds(self) -> float:
        """What each row adds to a run's duration."""
        return self._per_row * self._level

    def expect(self, rows: int) -> float:
        """How long a run of `rows` rows is expected to take, in seconds."""
        return (self._base + rows * self._per_row) * self._level

    def expect_in_new_memory(self, rows: int) -> float:
        """The same, if the system has to give the run new memory for its outputs.

        Whether it has to depends on what was freed before, and it can take longer than the run itself.
        """
        return (self._base + rows * self._per_row) * self._level + rows * self._row_memory

    def note_outputs(self, rows: int, size: float) -> None:
        """The outputs of a run of `rows` rows had `size` bytes."""
        row_bytes = size / max(rows, 1)
        self._noted += 1
        if self._noted > OF_LATE:
            self._noted, self._before, self._of_late = 1, self._of_late, 0.0
        self._of_late = max(row_bytes, self._of_late)
        largest = max(self._of_late, self._before)
        if largest != self.row_bytes:
            self.row_bytes, self._row_memory = largest, largest * new_memory_seconds()
            self.rows_in_memory = max(int(MOST_OUTPUT_BYTES / largest), 1) if largest else sys.maxsize
            self._noted_seconds = 0.0 if self.rows_in_memory < WATCHED_ROWS else NOTED_SECONDS

    def rows_within(self, seconds: float) -> float:
        """How many rows nearly always fit into a run of `seconds` seconds; infinity if rows cost nothing."""
        if not self.is_known:
            return math.inf
        left = seconds / (self._level * self.spread) - self._base
        if left < 0.0:
            return 0
        return math.floor(left / self._per_row + ROUNDING) if self._per_row else math.inf

    @property
    def efficient_rows(self) -> float:
        """The fewest rows of an efficient run, see `BASE_SHARE`; infinity if rows cost nothing."""
        base, per_row = self._base + HANDLING_SECONDS / self._level, self._per_row
        return base * (1.0 / BASE_SHARE - 1.0) / per_row if per_row else math.inf

    def learn(self, rows: int, seconds: float, outputs: Sequence[Array] = ()) -> None:
        """Moves the line by what a run of `rows` rows took, and notes how large its outputs were."""
        if seconds > self._noted_seconds:
            self.note_outputs(rows, sum([output.nbytes for output in outputs]))
        self.runs = runs = self.runs + 1
        if rows > self.most_rows:
            self.most_rows = rows
        expected = (self._base + rows * self._per_row) * self._level
        if expected < QUICK_SECONDS and runs > SETTLED_RUNS and runs % 4:
            return
        if not self.is_known or not expected:
            self._base, self._level, self.is_known = seconds, 1.0, True
            return
        if seconds > expected * self.spread:
            self.spread = min(self.spread * (1.0 + SPREAD_SHARE * SPREAD_STEP), MOST_SPREAD)
        elif self.spread > 1.0:
            self.spread = max(self.spread * (1.0 - (1.0 - SPREAD_SHARE) * SPREAD_STEP), 1.0)
        off = seconds / expected - 1.0
        if runs > FIRST_RUNS:
            self._move(rows, min(max(off, LEAST_OFF), MOST_OFF), LEVEL_STEP)
        else:
            step = max(1.0 / (runs + 1), LEVEL_STEP)
            self._move(rows, min(max(off, FIRST_LEAST_OFF), FIRST_MOST_OFF), step)

    def _move(self, rows: int, off: float, step: float) -> None:
        """Moves the line a step towards a run whose relative error was `off`."""
        rows = max(rows, 1)  # the line turns around the usual number of rows, which must not become 0
        self._level *= 1.0 + step * off
        usual = self._usual_rows or float(rows)
        self._usual_rows = usual = usual + LEVEL_STEP * (rows - usual)
        if rows == usual or not usual:
            return
        aside = max(min((rows - usual) / usual, 1.0), -1.0)
        most = self._base / usual + self._per_row  # the slope of a line without a base
        self._per_row = max(min(self._per_row + SLOPE_STEP * off * aside * most, most), 0.0)
        self._base = (most - self._per_row) * usual


class RunCosts:
    """The costs of one model's runs by the size of their shapes, and the shapes that have run.

    There is a line for each doubling of the elements of a row. A size that has not run yet is expected to
    cost what the nearest known size does, which is a guess.

    The shapes that have run are kept in two generations of bounded size. When the newer one is full, it
    replaces the older one. A shape that is used moves to the newer one. So a flood of new shapes makes
    neither the memory grow nor the shapes in regular use forgotten.

    Args:
        first: the cost of runs while there is one line for all shapes.

    Attributes:
        is_single: whether there is still one line for all shapes.
        by_shape: the costs by the keys of shapes that have run (see `Request.shape_key`): the newer
            generation, for look-ups. A key that is missing here may still have run: ask `has_run`.
    """

    def __init__(self, first: RunCost) -> None:
        self.first = first
        self.is_single = True
        self.by_shape: dict[object, RunCost] = {}
        self._older: dict[object, RunCost] = {}
        self._lines: dict[int, RunCost] = {}
        self._lock = Lock()
        self._keep_fixed_shapes()

    def of(self, shape_key: object) -> RunCost:
        """The cost of runs of requests with this `Request.shape_key`."""
        found = self.by_shape.get(shape_key)
        return found if found is not None else self._line_of(shape_key)

    def has_run(self, shape_key: object) -> bool:
        """Whether a request of this shape has run. Values of scalars in the key are no part of the shape."""
        if shape_key in self.by_shape:
            return True
        shape = _without_values(shape_key)
        if shape not in self.by_shape and shape not in self._older:
            return False
        self.note_run(shape_key)
        return True

    def is_measured(self, cost: RunCost) -> bool:
        """Whether runs of this line, or of one for larger shapes, have been measured."""
        if cost.is_known:
            return True
        lines = self._lines.copy()
        size = next((size for size, line in lines.items() if line is cost), 0)
        return any(larger > size and line.is_known for larger, line in lines.items())

    def note_run(self, shape_key: object) -> None:
        """A request of this shape has run."""
        shape, line = _without_values(shape_key), self._line_of(shape_key)
        with self._lock:
            if len(self.by_shape) >= REMEMBERED // 2:
                self._older = self.by_shape.copy()
                self.by_shape.clear()  # the same dictionary: others look shapes up in it
                self._keep_fixed_shapes()
            self.by_shape[shape] = line
            if not _holds_text(shape_key):  # texts may be long, and each may be new
                self.by_shape[shape_key] = line

    def lines(self) -> Mapping[int, RunCost]:
        """All lines that have learned from runs, by the most elements of a row; 0 if there is only one."""
        lines = {size: line for size, line in sorted(self._lines.copy().items()) if line.runs}
        return lines or {0: self.first}

    def _keep_fixed_shapes(self) -> None:
        """If no axis is open, all requests have the one shape that ran when the model was loaded."""
        self.by_shape[None] = self.by_shape[(None,)] = self.first

    def _line_of(self, shape_key: object) -> RunCost:
        count = elements(shape_key)
        if not count:
            return self.first
        size = bucket(count)
        line = self._lines.get(size)
        if line is None:
            nearest = min(self._lines, key=lambda known: abs(math.log2(known / size)), default=None)
            model = self.first if nearest is None else self._lines[nearest]
            line = RunCost(model.expect(1), 2, model.expect(2), measured=False)
            line = self._lines.setdefault(size, line)
            self.is_single = False
        return line


def _without_values(shape_key: object) -> object:
    """A shape key without the values of scalars."""
    if not isinstance(shape_key, tuple) or not any(isinstance(each, bytes | str) for each in shape_key):
        return shape_key
    return tuple([each for each in shape_key if not isinstance(each, bytes | str)])


def _holds_text(shape_key: object) -> bool:
    return isinstance(shape_key, tuple) and any(isinstance(each, str) for each in shape_key)


def elements(shape_key: object) -> int:
    """How many elements a row has: the sum over the shapes of a key, each a tuple of lengths or a length."""
    if isinstance(shape_key, int):
        return shape_key
    if not isinstance(shape_key, tuple):
        return 0
    if all(isinstance(length, int) for length in shape_key):
        return math.prod(shape_key)
    return sum(elements(each) for each in shape_key)


def bucket(size: int) -> int:
    """The next power of two."""
    return 1 << max(size - 1, 0).bit_length()
