"""What runs of a model take: a line over the rows, for each size of shapes, from measured and real runs."""

from __future__ import annotations

import math
from collections.abc import Mapping

ROUNDING = 1e-9  # of a row, which may be missing for no other reason

MOST_OFF = 0.25  # of what was expected: a run that took longer counts as one that took so much longer
LEAST_OFF = -0.2  # the same downwards: 1 / 1.25 - 1
FIRST_RUNS = 16
FIRST_MOST_OFF, FIRST_LEAST_OFF = 1.0, -0.5
"""The measurement at load, with nothing else to do, may be far from what runs take: so the first of them move
the line as their mean would, and by up to half or the double."""
LEVEL_STEP = 1 / 8
SLOPE_STEP = 1 / 8
SPREAD_STEP = 0.02
SPREAD_SHARE = 0.95
MOST_SPREAD = 2.0

QUICK_SECONDS = 0.001
"""Of runs that take less, and so come often, only every fourth is looked at, once some have been."""
SETTLED_RUNS = 64

REMEMBERED = 4096  # shapes whose size need not be computed again


class RunCost:
    """Expects a run to take `(base + rows * per_row) * level` seconds.

    Every run moves the line by a part of what it was off by, relative to what was expected: the level, and,
    as far as it had more or fewer rows than usual, the slope around the usual rows (a normalised least mean
    squares step). Where the number of rows hardly varies, the slope stays as it was measured. A single run
    that the machine held up, by however much, counts as one that was off by `MOST_OFF`. The first runs count
    for more: see `FIRST_RUNS`.

    Args:
        one_row_seconds: a measured run of one row.
        many_rows: the rows of another measured run; 1 where there is none.
        many_rows_seconds: how long that one took.
        measured: whether these are measurements; else they are a guess until the first run.

    Attributes:
        is_known: whether any run has been measured: on a guess nobody is refused.
        runs: how many it has learned from, those measured at the start not counted.
        spread: how many times longer than expected one run in twenty takes; at most `MOST_SPREAD`.
    """

    __slots__ = ("_base", "_level", "_per_row", "_usual_rows", "is_known", "runs", "spread")

    def __init__(
        self,
        one_row_seconds: float,
        many_rows: int = 1,
        many_rows_seconds: float = 0.0,
        *,
        measured: bool = True,
    ) -> None:
        self.is_known = measured
        self.runs = 0
        self.spread = 1.0
        more = many_rows - 1
        self._per_row = max(many_rows_seconds - one_row_seconds, 0.0) / more if more else 0.0
        self._base = max(one_row_seconds - self._per_row, 0.0)
        self._level = 1.0
        self._usual_rows = 0.0

    @property
    def base_seconds(self) -> float:
        """What a run takes besides its rows."""
        return self._base * self._level

    @property
    def row_seconds(self) -> float:
        """What each row adds."""
        return self._per_row * self._level

    def expect(self, rows: int) -> float:
        """How long a run of so many rows will take, in seconds."""
        return (self._base + rows * self._per_row) * self._level

    def rows_within(self, seconds: float) -> float:
        """How many rows can be run in so many seconds, nearly always; infinity where rows cost nothing."""
        if not self.is_known:
            return math.inf
        left = seconds / (self._level * self.spread) - self._base
        if left < 0.0:
            return 0
        return math.floor(left / self._per_row + ROUNDING) if self._per_row else math.inf

    def learn(self, rows: int, seconds: float) -> None:
        """Takes a run into account."""
        self.runs = runs = self.runs + 1
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
        """Moves the line by a step towards a run that took longer than expected by a share `off` of that."""
        rows = max(rows, 1)  # none are not to become the usual: the line is drawn around these
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
    """What runs of one model cost, by the size of their shapes: double the elements, another line.

    A size that has not been seen yet is expected to cost what the nearest one does; but that is a guess.

    Args:
        first: what runs cost where shapes do not differ, and until sizes are known.
    """

    def __init__(self, first: RunCost) -> None:
        self.first = first
        self._lines: dict[int, RunCost] = {}
        self._by_key: dict[object, RunCost] = {None: first}

    @property
    def is_single(self) -> bool:
        """Whether there is one line for all requests, so far."""
        return not self._lines

    def of(self, shape_key: object) -> RunCost:
        """The cost of runs of such requests; see `InferRequest.shape_key`."""
        found = self._by_key.get(shape_key)
        return found if found is not None else self._looked_up(shape_key)

    def lines(self) -> Mapping[int, RunCost]:
        """All that is known: by the most elements that a row has; 0 where shapes do not differ."""
        lines = {size: line for size, line in sorted(self._lines.copy().items()) if line.runs}
        return lines or {0: self.first}

    def _looked_up(self, shape_key: object) -> RunCost:
        count = elements(shape_key)
        line = self._line_of(bucket(count)) if count else self.first
        if len(self._by_key) < REMEMBERED and not _holds_text(shape_key):
            self._by_key[shape_key] = line
        return line

    def _line_of(self, size: int) -> RunCost:
        line = self._lines.get(size)
        if line is None:
            nearest = min(self._lines, key=lambda known: abs(math.log2(known / size)), default=None)
            model = self.first if nearest is None else self._lines[nearest]
            line = RunCost(model.expect(1), 2, model.expect(2), measured=False)
            line = self._lines.setdefault(size, line)
        return line


def _holds_text(shape_key: object) -> bool:
    """Whether a key is of texts, which may be long, and always new."""
    return isinstance(shape_key, tuple) and any(isinstance(each, str) for each in shape_key)


def elements(shape_key: object) -> int:
    """How many elements a row has: the sum over the shapes in a key, each a tuple of lengths or a length."""
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
