"""A chunk: rows of a file that one request carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from penstock.row_files.readers import Row
from penstock_client import Prediction


class Chunk(Protocol):
    """Some rows in their order."""

    def __len__(self) -> int: ...

    def unreadable(self) -> dict[int, str]:
        """The rows that cannot be inputs of the model, by their place in the chunk, and why.

        Called only after `inputs` has failed, or to find out which rows were broken when they were read.
        """

    def inputs(self) -> Mapping[str, Any]:
        """The inputs of a request with all rows.

        Raises:
            Invalid: a row is not readable; `unreadable` says which.
        """

    def some(self, places: Sequence[int]) -> Chunk:
        """The rows at these places, in this order."""

    def rows(self) -> Sequence[Row]:
        """The rows as names and values."""


@dataclass(slots=True)
class Scored:
    """The answers to a chunk.

    Attributes:
        parts: places of rows with the prediction that answers them, row by row, in the order of the places.
        errors: the rows without an answer by their places, and why.
        version: the version that answered; "" if none did.
    """

    parts: list[tuple[Sequence[int], Prediction]] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)
    version: str = ""

    def before(self, place: int) -> Scored:
        """The answers of the rows before a place."""
        kept = Scored(version=self.version)
        for places, whole in self.parts:
            count = sum(each < place for each in places)
            if count:
                arrays = {name: array[:count] if array.ndim else array for name, array in whole.items()}
                part = Prediction(whole.model, whole.version, whole.id, arrays, whole.said)
                kept.parts.append((places[:count], whole if count == len(places) else part))
        return kept
