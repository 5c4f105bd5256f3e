"""What every kind of original offers: its predictions, and its graph."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from penstock.importing.table import Inputs


class Original(Protocol):
    """A loaded model of another library.

    Attributes:
        title: what it is, such as "scikit-learn Pipeline".
        libraries: the distributions that it needs, whose versions are noted.
    """

    title: str

    @property
    def libraries(self) -> Sequence[str]:
        """See the class."""

    def texts(self, columns: Sequence[str]) -> Iterable[str]:
        """The columns that it was fitted with as texts, as far as it knows; the sample may lack some.

        Args:
            columns: those of the sample, in order.
        """

    def inputs(self, frame: Any, vector: bool) -> Inputs:
        """The inputs that it has, found in a sample.

        Raises:
            Refused: the sample lacks a column, or one cannot be an input.
        """

    def predict(self, frame: Any) -> Mapping[str, Any]:
        """Its outputs for rows of a table, by the names that the imported model gives them."""

    def convert(self, inputs: Inputs) -> Any:
        """The graph, an `onnx.ModelProto`.

        Raises:
            Refused: ONNX cannot carry it; says what, and the way out.
        """


@runtime_checkable
class HardRows(Protocol):
    """An original that makes the hard rows itself, since its inputs belong together."""

    def hard_rows(self, frame: Any, left_out: Collection[str]) -> Iterator[tuple[str, Any]]:
        """Hard rows, a table at a time, with what is hard about it.

        Args:
            frame: the sample.
            left_out: kinds that are not made.
        """
