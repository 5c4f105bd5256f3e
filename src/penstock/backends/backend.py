"""The contract of a backend, on one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from penstock.tensors import Array, Signature


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What a model's file says of itself.

    Attributes:
        metadata: producer, domain, description and its own key-value pairs.
        opsets: the version of every operator set it was written against, by domain.
        sha256: of the file's bytes, in hexadecimal.
        size_bytes: of the file, without external data.
    """

    metadata: Mapping[str, str] = field(default_factory=dict)
    opsets: Mapping[str, int] = field(default_factory=dict)
    sha256: str = ""
    size_bytes: int = 0


class Stop:
    """Ends one run early, from another thread than the one that runs.

    Attributes:
        asked: whether the run is to end.
    """

    __slots__ = ("_end", "asked")

    def __init__(self) -> None:
        self.asked = False
        self._end: Callable[[], None] | None = None

    def ask(self) -> None:
        """Lets the run end as soon as the backend can."""
        self.asked = True
        if self._end is not None:
            self._end()

    def by(self, end: Callable[[], None]) -> None:
        """The backend's part: says how its run is ended. It may be called twice."""
        self._end = end
        if self.asked:  # before there was a way: whoever comes second of the two threads sees the other
            end()


class Backend(Protocol):
    """One loaded model. `run` may be called by several threads at once."""

    signature: Signature
    file: ModelFile
    providers: Sequence[str]

    def run(
        self, outputs: Sequence[str], inputs: Mapping[str, Array], stop: Stop | None = None
    ) -> Sequence[Array]:
        """Runs the graph once.

        Args:
            outputs: the outputs wanted, by name.
            inputs: every input of the signature; see `penstock.tensors` for the convention.
            stop: ends the run early; a backend may take no notice.

        Returns:
            The outputs, in the order asked for.

        Raises:
            ModelFailed: the graph failed on these inputs, or the run was ended early.
        """

    def close(self) -> None:
        """Lets go of the model's memory."""
