"""The interface of a backend: a loaded model that can be run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from penstock.core.tensors import Array, Signature


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What a model's file says about the model.

    Attributes:
        metadata: producer, domain, description and its own key-value pairs.
        opsets: the version of every operator set it was written against, by domain.
        size_bytes: of the file, without external data.
        digest: gives the SHA-256 as far as it is known by now; see `sha256`.
        changes: what the server changed about the model so that it can be served, a sentence each.
    """

    metadata: Mapping[str, str] = field(default_factory=dict)
    opsets: Mapping[str, int] = field(default_factory=dict)
    size_bytes: int = 0
    digest: Callable[[], str] = lambda: ""
    changes: Sequence[str] = ()

    @property
    def sha256(self) -> str:
        """Of the file and its external data, in hexadecimal; "" until that of large files is computed."""
        return self.digest()


class RunControl(Protocol):
    """What the backend and the server tell each other about one run.

    Attributes:
        is_large: whether the run is much larger than a usual one: if the backend keeps memory for the next
            run, it should free what this one took.
    """

    is_large: bool

    def stop_with(self, stop: Callable[[], None]) -> None:
        """The backend says how to end the run early: the server may call `stop`, twice and on any thread."""


class Backend(Protocol):
    """One loaded model. `run` may be called by several threads at once."""

    signature: Signature
    file: ModelFile
    providers: Sequence[str]

    def run(
        self, outputs: Sequence[str], inputs: Mapping[str, Array], control: RunControl | None = None, /
    ) -> Sequence[Array]:
        """Runs the graph once.

        Args:
            outputs: the names of the requested outputs.
            inputs: every input of the signature, and any of its defaults; see `penstock.core.tensors` for
                the convention.
            control: of this run. A backend may ignore it: then the run cannot be ended early.

        Returns:
            The outputs, in the order asked for.

        Raises:
            ModelFailed: the graph failed on these inputs, or the run was ended early.
        """

    def close(self) -> None:
        """Frees the model's memory."""
