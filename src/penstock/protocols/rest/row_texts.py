"""The JSON of the rows of a run, written once for all of its answers.

orjson writes an array with all rows as fast as one number by itself. So the outputs of a run are written
whole, and cut into the texts of their rows: between two rows stands "],[", or a comma if each is a number.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeAlias

from penstock.core.request import Response, Run
from penstock.core.tensors import Array
from penstock.protocols.rest.classifier import PREDICTION, PROBABILITY, Classifier
from penstock.protocols.rest.values import dumped, in_numbers

MOST_VALUES = 2048
"""Outputs of a run with more values are written row by row: perhaps only one of the rows is wanted."""


class Records:
    """Writes answers with one record.

    Args:
        single: the outputs with one value in each row, which is written without a list around it.
        rows_first: the outputs whose rows lie along the first axis and need no conversion.
        classifier: says which outputs are a label and probabilities.
    """

    def __init__(self, single: Collection[str], rows_first: Collection[str], classifier: Classifier) -> None:
        self._single = frozenset(single)
        self._rows_first = frozenset(rows_first)
        self._classifier = classifier
        self._keys: dict[str, bytes] = {}

    def record(self, response: Response) -> bytes | None:
        """The answer with the row of a response; None if it must be written in another way."""
        run, row, names = response.run, response.start, response.names
        if response.stop != row + 1:
            return None
        shared = run.shared
        if shared is None:
            shared = run.shared = {}
        columns = shared.get(self)
        if columns is None:
            columns = shared[self] = self._columns(run)
        assert isinstance(columns, dict), "nothing else is put there"
        parts: list[bytes] = []
        for name in names:
            if name not in columns:
                return None
            parts += (self._key(name), columns[name][row])
        classifier = self._classifier
        if PROBABILITY in columns and classifier.label in names and classifier.probabilities in names:
            if PREDICTION not in names:
                parts += (self._key(PREDICTION), columns[classifier.label][row])
            parts += (self._key(PROBABILITY), columns[PROBABILITY][row])
        return b"{%b}" % b"".join(parts)[1:]

    def _key(self, name: str) -> bytes:
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = b",%b:" % dumped(name)
        return key

    def _columns(self, run: Run) -> dict[str, Texts]:
        """The texts of the rows of the outputs, and of the largest probabilities; none if one is unusual."""
        columns: dict[str, Texts] = {}
        if sum([array.size for array in run.outputs.values()]) > MOST_VALUES:
            return columns
        for name, array in run.outputs.items():
            is_plain = name in self._rows_first and array.ndim in (1, 2) and array.size
            found = _texts(array.reshape(-1) if name in self._single else array) if is_plain else None
            if found is None or len(found) != run.rows:
                return {}
            columns[name] = found
        label, rows = self._classifier.label, run.outputs.get(self._classifier.probabilities)
        if not label or label not in columns or rows is None:
            return columns
        if PROBABILITY in columns or run.outputs[label].size != run.rows or rows.ndim != 2:
            return {}
        largest = rows.argmax(axis=1).tolist()
        texts = columns[self._classifier.probabilities]
        columns[PROBABILITY] = [
            texts[row].strip(b"[]").split(b",")[place] for row, place in enumerate(largest)
        ]
        return columns


class _Lazy:
    """The texts of rows of texts: each may be one that cannot be encoded, and must not spoil the others.

    Args:
        values: what each row has.
    """

    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def __getitem__(self, row: int) -> bytes:
        return dumped(self._values[row])

    def __len__(self) -> int:
        return len(self._values)


Texts: TypeAlias = "list[bytes] | _Lazy"


def _texts(array: Array) -> Texts | None:
    """The JSON of each row of an array with one or two axes; None if a number has none."""
    if array.dtype.hasobject:
        return _Lazy(array.tolist())
    data = in_numbers(array)
    if b"null" in data:
        return None
    if array.ndim == 1:
        return data[1:-1].split(b",")
    return [b"[%b]" % each for each in data[2:-2].split(b"],[")]
